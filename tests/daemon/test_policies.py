"""A policy from its making to what clients see: kept, left out, refused, explained, and changed without a run."""

import asyncio
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from firth_protocol.errors import Conflict, InUse, Invalid, NotFound, WrongState
from firth_protocol.types import Run, RunKind, RunState
from firthd.store.database import Tx
from tests.support.conda import PackageSpec
from tests.support.rattler import CondaClient
from tests.support.upstream import Fault
from tests.support.world import World, edit, world

ALPHA = {"alpha-1.0-0.tar.bz2", "alpha-1.9-0.conda", "alpha-1.10-0.conda"}
BETA = "beta-2.0-0.conda"
DAY_MS = 86_400_000


async def ended(w: World, run: Any, state: RunState = RunState.COMPLETED) -> Run:
    done = await w.daemon.ended(run.id)
    assert done.state is state, done
    return done


async def shown(w: World) -> set[str]:
    """Return what the index of `noarch` lists; every form agrees."""
    return await w.names(subdirs=("noarch",))


async def answer(w: World, name: str, root: str = "/repo/main") -> tuple[int, str]:
    """Return how a file's address answers: the status, and what conda shows of it."""
    reply = await w.get(f"{root}/noarch/{name}")
    return reply.status, msgspec.json.decode(reply.body)["detail"] if reply.status >= 400 else ""


async def make(w: World, name: str, **rules: Any) -> Any:
    return (await w.call("policy.create", name=name, rules=rules)).policy


async def change(w: World, name: str, **rules: Any) -> list[Run]:
    """Edit a policy; return the runs that make it true, ended."""
    policy = await w.call("policy.get", policy=name)
    reply = await w.call("policy.update", policy=name, revision=policy.revision, rules=rules)
    return [await ended(w, run) for run in reply.runs]


async def test_a_policy_keeps_what_it_allows_and_acts_without_asking_the_source(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        policy = await make(w, "few", packages={"allow": ["alpha"], "exclude": ["alpha ==1.9"]})
        assert policy.summary == ["Only alpha.", "Not alpha ==1.9."]
        with pytest.raises(Conflict):
            await make(w, "few")
        with pytest.raises(Invalid) as refused:
            await make(w, "bad", packages={"allow": ["alpha", "alpha >=1 <2"]})
        assert refused.value.data["path"] == "$.rules.packages.allow[1]"
        with pytest.raises(NotFound):
            await w.mirror("passive", policy="none")

        mirror = await w.mirror("passive", policy="few")
        assert mirror.in_force is not None
        assert (mirror.policy, mirror.in_force.name, mirror.in_force.of) == ("few", "few", "mirror")
        run = await w.run()
        assert await shown(w) == ALPHA - {"alpha-1.9-0.conda"}
        assert {one.reason: one.count for one in run.counts.filtered} == {"packages": 3}
        assert {one.whose for one in run.counts.filtered} == {"policy few of the mirror"}

        told = "alpha-1.9-0.conda is kept out of main by policy few, packages: excluded by `alpha ==1.9`"
        assert await answer(w, "alpha-1.9-0.conda") == (403, told)
        assert (await answer(w, BETA))[0] == 403
        assert (await answer(w, "unknown-1-0.conda"))[0] == 404

        asked = len(w.upstream.asked())
        (run,) = await change(w, "few", packages={"allow": ["alpha", "beta"], "exclude": ["alpha <1.9"]})
        assert len(w.upstream.asked()) == asked
        assert (run.kind, run.counts.added, run.counts.removed) == ("refilter", 2, 1)
        assert await shown(w) == {"alpha-1.9-0.conda", "alpha-1.10-0.conda", BETA}
        assert (await answer(w, BETA))[0] == 200
        # what was there and is refused now is refused under every kept generation too
        for root in ("/repo/main", "/snapshot/2/main"):
            status, told = await answer(w, "alpha-1.0-0.tar.bz2", root)
            assert (status, "policy few" in told) == (403, True)
        causes = [one.cause for one in (await w.call("channel.generations", channel="main")).items]
        assert causes[0] == "policy"

        with pytest.raises(InUse):
            await w.call("policy.delete", policy="few")
        again = await w.run()
        assert (again.counts.added, again.counts.removed) == (0, 0)
        reply = await w.call("mirror.update", mirror="main:m", revision=mirror.revision, policy=None)
        await ended(w, reply.run)
        assert await shown(w) == {*ALPHA, BETA}
        assert (await answer(w, "alpha-1.0-0.tar.bz2"))[0] == 200
        await w.call("policy.delete", policy="few")


async def test_what_was_left_out_is_listed_and_explained(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await make(w, "mixed", packages={"exclude": ["alpha <1.5"]}, platforms={"not_in": ["linux-64"]})
        await w.mirror("passive", policy="mixed")
        await w.run()
        page = await w.call("mirror.excluded", mirror="main:m")
        assert [(one.filename, one.rule) for one in page.items] == [
            ("gamma-0.1-0.conda", "platforms"),
            ("alpha-1.0-0.tar.bz2", "packages"),
        ]
        first = await w.call("mirror.excluded", mirror="main:m", limit=1)
        rest = await w.call("mirror.excluded", mirror="main:m", limit=1, cursor=first.next_cursor)
        assert (first.total, [*first.items, *rest.items], rest.next_cursor) == (2, page.items, None)
        by_rule = await w.call("mirror.excluded", mirror="main:m", reason="platforms")
        assert [one.name for one in by_rule.items] == ["gamma"]

        found = (await w.call("package.explain", channel="main", spec="alpha")).items
        assert {one.filename: (one.verdict, one.policy, one.rule) for one in found} == {
            "alpha-1.0-0.tar.bz2": ("excluded", "mixed", "packages"),
            "alpha-1.9-0.conda": ("kept", "mixed", None),
            "alpha-1.10-0.conda": ("kept", "mixed", None),
        }
        (one,) = (await w.call("package.explain", channel="main", spec="alpha 1.0")).items
        assert one.why == "excluded by `alpha <1.5`"
        details = await w.call("mirror.details", mirror="main:m")
        assert (details.in_force.name, details.missing) == ("mixed", [])
        with pytest.raises(WrongState) as lacking:
            await w.call("mirror.dependency_report", mirror="main:m")
        assert "names no packages" in lacking.value.message
        assert details.in_force.report_lacks == "policy mixed names no packages"


async def test_a_channels_policy_judges_mirrors_without_one(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await make(w, "a", packages={"allow": ["alpha"]})
        await make(w, "b", packages={"allow": ["beta"]})
        mirror = await w.mirror("passive")
        await w.run()
        preview = await w.call("policy.preview", policy="a", channel="main")
        (effect,) = preview.effects
        assert (effect.records, effect.kept, effect.names_removed) == (5, 3, ["beta", "gamma"])
        assert [(one.reason, one.count) for one in effect.filtered] == [("packages", 2)]
        assert await shown(w) == {*ALPHA, BETA}

        channel = await w.call("channel.get", channel="main")
        dry = await w.call("channel.update", channel="main", revision=channel.revision, policy="a", dry_run=True)
        assert dry.runs == []
        reply = await w.call("channel.update", channel="main", revision=channel.revision, policy="a")
        for run in reply.runs:
            await ended(w, run)
        assert await shown(w) == ALPHA
        with pytest.raises(Conflict):
            await w.call("mirror.update", mirror="main:m", revision=mirror.revision, policy="a")
        reply = await w.call("mirror.update", mirror="main:m", revision=mirror.revision, policy="b")
        await ended(w, reply.run)
        assert await shown(w) == {BETA}
        seen = await w.call("mirror.get", mirror="main:m")
        assert (seen.in_force.name, seen.in_force.of) == ("b", "mirror")
        channel = await w.call("channel.get", channel="main")
        with pytest.raises(Conflict):
            await w.call("channel.update", channel="main", revision=channel.revision, policy="b")
        uses = {one.name: [(use.channel, use.mirror_name) for use in one.used_by] for one in await policies(w)}
        assert uses == {"a": [("main", None)], "b": [("main", "m")]}


async def policies(w: World) -> list[Any]:
    found: list[Any] = (await w.call("policy.list")).items
    return found


async def test_dependencies_come_along_and_what_lacks_is_reported(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.source.add(
            PackageSpec(name="app", depends=("beta >=2", "gone >=1"), license="=cmd()"),
            PackageSpec(name="tool", depends=("beta",)),
        )
        await make(w, "roots", packages={"allow": ["app", "tool"], "include_dependencies": True})
        await w.mirror("passive", policy="roots")
        run = await w.run()
        assert await shown(w) == {"app-1.0-0.conda", "tool-1.0-0.conda", BETA, *ALPHA} - {"alpha-1.0-0.tar.bz2"}
        assert run.counts.missing == 1
        assert any("gone >=1" in note for note in run.notes)
        details = await w.call("mirror.details", mirror="main:m")
        (lacking,) = details.missing
        assert (lacking.requirement, lacking.chain) == ("gone >=1", ["app-1.0-0.conda"])
        (unsolvable,) = details.unsolvable
        assert unsolvable.startswith("app on ")

        rows = (await w.call("mirror.dependency_report", mirror="main:m")).rows
        assert [(row.name, row.role, row.state) for row in rows] == [
            ("alpha", "transitive", "present"),
            ("alpha", "transitive", "present"),
            ("app", "direct", "present"),
            ("beta", "transitive", "present"),
            ("tool", "direct", "present"),
            ("gone", "transitive", "missing"),
        ]
        text, cursor = "", None
        while True:
            page = await w.call("mirror.dependency_report", mirror="main:m", format="csv", limit=2, cursor=cursor)
            text, cursor = text + page.text, page.next_cursor
            if cursor is None:
                break
        lines = text.splitlines()
        assert len(lines) == 7
        assert lines[0].startswith("name,version,build,subdir,filename,role,required_by,license,")
        assert any(",'=cmd()," in line for line in lines)


async def test_advisories_act_at_once_and_are_judged_by_hand(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await make(w, "safe", cve={"score": {"op": ">=", "value": 7}, "statuses": {"not_in": ["cleared"]}})
        await w.mirror("passive", policy="safe")
        await w.run()
        assert await shown(w) == {*ALPHA, BETA}
        file = tmp_path / "flaws.jsonl"
        lines = [
            {"id": "OWN-1", "name": "alpha", "spec": "alpha <1.10", "score": 9.1},
            {"id": "OWN-2", "name": "beta", "spec": "beta", "score": 3.0},
            {"id": "OWN-3", "name": "beta", "spec": "beta >=1 <2"},
        ]
        file.write_text("\n".join(map(json.dumps, lines)))
        for place in (
            "flaws.jsonl",
            "http://[::1",
            "http://127.0.0.1:99999/",
            "http://127.0.0.1/x?key=1",
            "//[",
            "/flaws\0.jsonl",
        ):
            with pytest.raises(Invalid):
                await w.call("advisory.import", source=place, format="lines")
        reply = await w.call("advisory.import", source=str(file), format="lines")
        done = await ended(w, reply.run)
        assert done.result == {"added": 2, "changed": 0, "withdrawn": 0, "skipped": 1}
        await ended(w, (await w.call("run.list", kind="refilter")).items[0])
        assert await shown(w) == {"alpha-1.10-0.conda", BETA}
        assert (await answer(w, "alpha-1.9-0.conda")) == (
            403,
            "alpha-1.9-0.conda is kept out of main by policy safe, cve: OWN-1 (score 9.1, reported)",
        )
        reply = await w.call("advisory.set", id="OWN-1", status="cleared", note="not in this build")
        for run in reply.runs:
            await ended(w, run)
        assert await shown(w) == {*ALPHA, BETA}
        told = await w.call("advisory.get", id="OWN-1")
        assert [(one.channel, one.package, one.version, one.files, one.affected) for one in told.touches] == [
            ("main", "alpha", "1.10", 3, 2)
        ]
        assert (told.touches[0].policies, told.note, told.touches_total) == (["safe"], "not in this build", 1)
        unseen = await w.daemon.daemon.governance.touched.get("OWN-1", ("other", "main/*"))
        assert (unseen.touches, unseen.touches_total) == ([], 0)
        (database,) = (await w.call("advisory.summary")).databases
        assert (database.name, database.advisories, database.withdrawn) == ("OWN", 2, 0)
        with pytest.raises(NotFound):
            await w.call("advisory.get", id="OWN-9")
        # what was set by hand outlives the next import
        reply = await w.call("advisory.import", source=str(file), format="lines")
        assert (await ended(w, reply.run)).result == {"added": 0, "changed": 0, "withdrawn": 0, "skipped": 1}
        (one,) = (await w.call("advisory.list", query="own-1")).items
        assert (one.status, one.note, one.packages) == ("cleared", "not in this build", ["alpha"])


async def test_an_active_mirror_downloads_what_it_keeps_and_older_versions_only_retire(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await make(w, "latest", packages={"allow": ["alpha"]})
        await w.mirror("active", policy="latest")
        run = await w.run()
        assert (run.counts.active, await shown(w)) == (3, ALPHA)
        assert {seen.path.rpartition("/")[2] for seen in w.upstream.asked("*-0.*")} == ALPHA
        await change(w, "latest", packages={"allow": ["alpha"]}, keep_latest=1)
        assert await shown(w) == {"alpha-1.10-0.conda"}
        assert (await answer(w, "alpha-1.9-0.conda"))[0] == 200  # out of the index, and still to be fetched
        (run,) = await change(w, "latest", packages={"allow": ["beta"]})
        assert (run.counts.active, await shown(w)) == (1, {BETA})
        assert (await answer(w, "alpha-1.9-0.conda"))[0] == 403
        edit(w.source, "noarch", BETA, license="MIT-0")
        w.source.add(PackageSpec(name="alpha", version="3.0"))
        run = await w.run()
        assert (run.state, await shown(w)) == (RunState.COMPLETED, {BETA})


async def test_a_run_whose_policy_changes_meanwhile_judges_once_more(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await make(w, "moving", packages={"allow": ["alpha"]})
        await w.mirror("active", policy="moving")
        await w.run()
        w.source.add(PackageSpec(name="alpha", version="1.11"))
        release = asyncio.Event()
        w.upstream.fail("*alpha-1.11*", Fault(until=release))
        run = (await w.call("mirror.run", mirror="main:m")).run
        await w.upstream.arrived("*alpha-1.11*")
        reply = await w.call("policy.update", policy="moving", revision=1, rules={"packages": {"allow": ["beta"]}})
        (whole, sweep) = sorted((await w.call("run.list", kind="refilter")).items, key=lambda one: -one.id)
        assert (await ended(w, sweep)).counts.removed == len(ALPHA)
        assert await shown(w) == set()  # out at once; what comes in waits for the run
        assert (whole.id, whole.state) == (reply.runs[0].id, RunState.PENDING)
        release.set()
        done = await ended(w, run)
        assert any("judged again" in note for note in done.notes)
        assert await shown(w) == {BETA}
        (after,) = reply.runs
        assert (await ended(w, after)).counts.added == 0
        assert await shown(w) == {BETA}


async def test_a_lost_copy_of_the_index_is_told_and_the_next_run_judges(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await make(w, "few", packages={"allow": ["alpha"]})
        mirror = await w.mirror("passive")
        await w.run()
        for file in (w.daemon.state / "sources" / str(mirror.id)).iterdir():
            file.unlink()
        reply = await w.call("mirror.update", mirror="main:m", revision=mirror.revision, policy="few")
        failed = await ended(w, reply.run, RunState.FAILED)
        assert failed.error is not None
        assert "is lost" in failed.error.message
        assert (await answer(w, BETA))[0] == 403  # refused all the same
        problems = [one.subject for one in (await w.call("daemon.status")).health]
        assert "policy of main:m" in problems
        await w.run()
        assert await shown(w) == ALPHA
        assert "policy of main:m" not in [one.subject for one in (await w.call("daemon.status")).health]


async def test_a_client_that_knows_a_refused_file_is_told_policy_and_rule(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.mirror("passive")
        await w.run()
        client = CondaClient(tmp_path / "client")
        locked = await client.solve(f"{w.daemon.url}/repo/main", "alpha ==1.9")
        await make(w, "old", packages={"exclude": ["alpha <1.10"]})
        mirror = await w.call("mirror.get", mirror="main:m")
        reply = await w.call("mirror.update", mirror="main:m", revision=mirror.revision, policy="old")
        await ended(w, reply.run)
        # rattler shows the reason phrase, as pip does; conda and uv show the detail of the body
        with pytest.raises(Exception, match=r"by policy old, packages: excluded by `alpha <1\.10`") as refused:
            await client.install_records(locked)
        assert "403" in str(refused.value)
        assert await answer(w, "alpha-1.9-0.conda") == (
            403,
            "alpha-1.9-0.conda is kept out of main by policy old, packages: excluded by `alpha <1.10`",
        )


async def test_packages_of_which_a_policy_leaves_nothing_stay_listed(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await make(w, "some", packages={"allow": ["beta"]})
        await w.mirror("passive", policy="some")
        await w.run()

        async def listed(**params: Any) -> list[tuple[str, int, int, str | None]]:
            found: list[tuple[str, int, int, str | None]] = []
            cursor = None
            while True:
                page = await w.call("package.list", channel="main", limit=1, cursor=cursor, **params)
                found += [(one.name, one.files, one.left_out, one.rule) for one in page.items]
                cursor = page.next_cursor
                if cursor is None:
                    assert page.total == len(found)
                    return found

        beta, alpha, gamma = ("beta", 1, 0, None), ("alpha", 0, 3, "packages"), ("gamma", 0, 1, "packages")
        assert await listed() == await listed(sort="-name") == [beta, alpha, gamma]
        assert await listed(left_out=False) == await listed(platform="noarch") == [beta]
        assert (await listed(left_out=True), await listed(query="alp")) == ([alpha, gamma], [alpha])
        one = (await w.call("package.list", channel="main", left_out=True)).items[0]
        assert one.why == "not among the packages that are allowed"
        await w.mirror("passive", name="second")
        await w.run("main:second")
        assert await listed() == [("alpha", 3, 0, None), beta, ("gamma", 1, 0, None)]


async def test_what_a_refilter_judged_and_had_not_published_when_it_was_cut_off_is_published(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await make(w, "p")
        mirror = await w.mirror("passive", policy="p")
        await w.run()
        await w.call("channel.freeze", channel="main")
        await change(w, "p", packages={"exclude": ["beta"]})
        assert await shown(w) == {*ALPHA, BETA}
        daemon = w.daemon.daemon

        async def as_a_kill_leaves_it(tx: Tx) -> int:
            await tx.execute("UPDATE channel SET frozen_at = NULL, frozen_by = NULL")
            run, _ = await daemon.queue.submit(
                tx,
                RunKind.REFILTER,
                channel_id=1,
                channel="main",
                mirror_id=mirror.id,
                cause="policy",
                by="firthd",
            )
            return run

        run = await daemon.db.write(as_a_kill_leaves_it)
        assert (await w.daemon.ended(run)).generation == 3
        assert await shown(w) == ALPHA
