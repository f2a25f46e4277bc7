"""Channels from creation to deletion: freezing, drafts, generations, roll back, privacy, snapshots."""

import asyncio
import hashlib
import html
import re
from pathlib import Path

import pytest

from firth_protocol.errors import ChannelFrozen, Conflict, Forbidden, InUse, Invalid, NotFound, WrongState
from firth_protocol.types import Cause, ContentChange, RunState
from firthd.channels import retention
from tests.support.conda import PackageSpec
from tests.support.upstream import Fault
from tests.support.world import World, edit, world

DAY_MS = 86_400_000


async def test_a_new_channel_serves_an_empty_noarch_in_every_variant(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        assert await w.records("noarch") == {}
        assert (await w.get("/repo/main/noarch/repodata_shards.msgpack.zst")).status == 200
        shards = await w.get("/repo/main/linux-64/repodata_shards.msgpack.zst")  # a 404 would be remembered for ever
        assert shards.status == 200
        assert (await w.get("/repo/main/linux-64/repodata.json")).status == 404
        again = await w.get(
            "/repo/main/linux-64/repodata_shards.msgpack.zst", headers={"If-None-Match": shards.headers["ETag"]}
        )
        assert again.status == 304
        for path in ("noarch/current_repodata.json", "notices.json", "simple/", "cran/src/contrib/PACKAGES"):
            assert (await w.get(f"/repo/main/{path}")).status == 404
        items = (await w.call("channel.generations", channel="main")).items
        assert [(one.number, one.cause, one.current) for one in items] == [(1, Cause.CREATE, True)]


@pytest.mark.parametrize(
    "name", ["Main", "1main", "noarch", "linux-64", "t", "a/b/c", "main/simple", "main/t", "", "a b"]
)
async def test_names_that_clients_would_misread_are_refused(tmp_path: Path, name: str) -> None:
    async with world(tmp_path) as w:
        with pytest.raises((Invalid, Exception), match=r"name|reserved|params|least|length") as caught:
            await w.call("channel.create", name=name)
        assert caught.value.kind in {"invalid", "invalid_params"}  # type: ignore[attr-defined]


async def test_create_update_and_delete(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        with pytest.raises(Conflict):
            await w.call("channel.create", name="main")
        tried = await w.call("channel.create", name="dry", dry_run=True)
        assert tried.channel.name == "dry"
        with pytest.raises(NotFound):
            await w.call("channel.get", channel="dry")
        child = await w.call("channel.create", name="main/dev", description="for developers")
        assert child.channel.description == "for developers"
        with pytest.raises(NotFound):
            await w.call("channel.create", name="absent/dev")
        assert (await w.get("/repo/main/dev/noarch/repodata.json")).status == 200
        main = await w.call("channel.get", channel="main")
        assert main.subchannel_list == ["main/dev"]
        reply = await w.call("channel.update", channel="main", revision=main.revision, description="new")
        assert reply.channel.description == "new"
        with pytest.raises(Conflict):
            await w.call("channel.update", channel="main", revision=main.revision, description="old")
        with pytest.raises(InUse):
            await w.call("channel.delete", channel="main", confirm="main")
        with pytest.raises(Invalid):
            await w.call("channel.delete", channel="main/dev", confirm="dev")
        await w.call("channel.delete", channel="main/dev", confirm="main/dev")
        assert (await w.get("/repo/main/dev/noarch/repodata.json")).status == 404
        await w.call("channel.delete", channel="main", confirm="main")
        assert (await w.get("/repo/main/noarch/repodata.json")).status == 404
        await w.call("channel.create", name="main")  # the name is free again
        assert await w.records("noarch") == {}


async def test_a_channel_with_a_running_mirror_can_be_deleted(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.mirror("active")
        w.upstream.fail("noarch/beta*", Fault(until=asyncio.Event()))
        run = (await w.call("mirror.run", mirror="main:m")).run
        await w.upstream.arrived("noarch/beta*")
        await w.call("channel.delete", channel="main", confirm="main")
        assert (await w.daemon.daemon.queue.get(run.id)).state is RunState.STOPPED
        w.upstream.heal()


async def test_freeze_pins_and_unfreeze_publishes_once_what_has_accumulated(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.mirror("passive")
        await w.run()
        before = await w.names()
        reply = await w.call("channel.freeze", channel="main")
        assert reply.changed
        assert reply.not_stored == 5
        assert "not stored yet" in reply.hint
        assert not (await w.call("channel.freeze", channel="main")).changed
        w.source.add(PackageSpec(name="delta"))
        run = await w.run()
        assert run.state is RunState.COMPLETED
        w.source.add(PackageSpec(name="epsilon"))
        edit(w.source, "noarch", "beta-2.0-0.conda", depends=[])
        await w.run()
        assert await w.names() == before
        channel = await w.call("channel.get", channel="main")
        assert channel.frozen
        assert (channel.draft.change_sets, channel.draft.added, channel.draft.removed) == (2, 3, 1)
        draft = await w.call("channel.changes", channel="main")
        assert {(one.change, one.filename) for one in draft.items} == {
            ("added", "delta-1.0-0.conda"),
            ("added", "epsilon-1.0-0.conda"),
            ("added", "beta-2.0-0.conda"),
            ("closed", "beta-2.0-0.conda"),
        }
        with pytest.raises(ChannelFrozen):
            await w.call("mirror.delete", mirror="main:m", confirm="m")
        told = await w.call("channel.unfreeze", channel="main", dry_run=True)
        assert told.change == ContentChange(added=3, removed=1, from_generation=2, to_generation=3)
        assert (await w.call("channel.get", channel="main")).frozen
        reply = await w.call("channel.unfreeze", channel="main")
        assert reply.changed
        run = await w.daemon.ended(reply.run.id)
        assert run.state is RunState.COMPLETED, run.error
        assert await w.names() == before | {"delta-1.0-0.conda", "epsilon-1.0-0.conda"}
        items = (await w.call("channel.generations", channel="main")).items
        assert [(one.number, one.cause) for one in items] == [(3, Cause.UNFREEZE), (2, Cause.RUN), (1, Cause.CREATE)]
        assert not (await w.call("channel.unfreeze", channel="main")).changed


async def test_no_difference_makes_no_generation(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.mirror("passive")
        await w.run()
        await w.call("channel.freeze", channel="main")
        w.source.add(PackageSpec(name="delta"))
        await w.run()
        w.source.remove("noarch", "delta-1.0-0.conda")
        await w.run()
        told = (await w.call("channel.unfreeze", channel="main", dry_run=True)).change
        assert (told.added, told.removed) == (0, 0)
        reply = await w.call("channel.unfreeze", channel="main")
        run = await w.daemon.ended(reply.run.id)
        assert run.state is RunState.COMPLETED
        channel = await w.call("channel.get", channel="main")
        assert (channel.generation, channel.draft) == (2, None)


async def test_the_same_content_has_the_same_digest_on_any_daemon(tmp_path: Path) -> None:
    digests = []
    for name, spelling in (("a", None), ("b", {"md5": "UPPER"})):
        folder = tmp_path / name
        folder.mkdir()
        async with world(folder) as w:
            if spelling:
                record = w.source.records["noarch"]["beta-2.0-0.conda"]
                edit(w.source, "noarch", "beta-2.0-0.conda", md5=record["md5"].upper())
            await w.mirror("passive")
            await w.run()
            digests.append((await w.call("channel.generations", channel="main")).items[0].digest)
    assert digests[0] == digests[1]


async def test_rollback_publishes_an_earlier_generation_and_freezes(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.mirror("passive")
        await w.run()
        old = await w.names()
        w.source.add(PackageSpec(name="delta"))
        edit(w.source, "noarch", "beta-2.0-0.conda", depends=[])
        await w.run()
        new, new_beta = await w.names(), (await w.records("noarch"))["beta-2.0-0.conda"]
        with pytest.raises(WrongState):
            await w.call("channel.rollback", channel="main", generation=3)
        with pytest.raises(NotFound):
            await w.call("channel.rollback", channel="main", generation=77)
        reply = await w.call("channel.rollback", channel="main", generation=2)
        run = await w.daemon.ended(reply.run.id)
        assert run.state is RunState.COMPLETED, run.error
        assert await w.names() == old
        # Whoever has a newer index or a lock file goes on for the grace period.
        assert (await w.get("/repo/main/noarch/delta-1.0-0.conda")).status == 200
        assert (await w.get("/snapshot/2/main/noarch/delta-1.0-0.conda")).status == 404
        w.daemon.daemon._clock.shift_ms = 8 * DAY_MS  # type: ignore[attr-defined]
        assert (await w.get("/repo/main/noarch/delta-1.0-0.conda")).status == 404
        channel = await w.call("channel.get", channel="main")
        assert (channel.frozen, channel.generation) == (True, 4)
        generations = (await w.call("channel.generations", channel="main")).items
        assert generations[0].digest == generations[2].digest
        assert (generations[0].added, generations[0].removed) == (1, 2)
        changes = await w.call("channel.changes", channel="main", generation=4)
        assert ("closed", "delta-1.0-0.conda") in {(one.change, one.filename) for one in changes.items}
        packages = await w.call("package.list", channel="main")
        assert "delta" not in {package.name for package in packages.items}
        told = await w.call("channel.unfreeze", channel="main", dry_run=True)
        assert told.channel.draft is None
        assert told.change == ContentChange(added=2, removed=1, from_generation=4, to_generation=5)
        w.source.add(PackageSpec(name="later"))
        again = await w.run()
        assert (again.state, again.counts.added) == (RunState.COMPLETED, 1), again
        assert (await w.call("channel.unfreeze", channel="main", dry_run=True)).change.added == 3
        w.source.remove("noarch", "later-1.0-0.conda")
        await w.run()
        assert (await w.call("channel.unfreeze", channel="main", dry_run=True)).change == told.change
        reply = await w.call("channel.unfreeze", channel="main")
        run = await w.daemon.ended(reply.run.id)
        assert run.state is RunState.COMPLETED, run.error
        assert await w.names() == new
        assert (await w.records("noarch"))["beta-2.0-0.conda"] == new_beta
        packages = await w.call("package.list", channel="main")
        assert "delta" in {package.name for package in packages.items}


async def test_snapshots_serve_kept_generations_by_number_and_by_date(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.mirror("passive")
        await w.run()
        first = (await w.get("/repo/main/noarch/repodata.json")).body
        w.source.add(PackageSpec(name="delta"))
        await w.run()
        snapshot = await w.get("/snapshot/2/main/noarch/repodata.json")
        assert (snapshot.status, snapshot.body) == (200, first)
        assert "immutable" in snapshot.headers["Cache-Control"]
        assert (await w.get("/snapshot/2/main/noarch/alpha-1.9-0.conda")).status == 200
        assert (await w.get("/snapshot/2/main/noarch/delta-1.0-0.conda")).status == 404
        # So do the pages for people, whose lines are those of the socket.
        for address, delta in (("/repo/main/", True), ("/snapshot/2/main/", False)):
            assert (b">delta</a>" in (await w.get(address)).body) is delta
            assert (await w.get(f"{address}-/conda/delta")).status == (200 if delta else 404)
            assert b"alpha-1.9-0.conda" in (await w.get(f"{address}-/conda/alpha?version=1.9")).body
        told = html.unescape((await w.get("/repo/main/")).body.decode())
        lines = (await w.call("channel.get", channel="main")).addresses.setup.values()
        assert [line for line in lines if line not in told] == []
        today = (await w.call("daemon.status")).now[:10]
        reply = await w.get(f"/snapshot/{today}/main/noarch/repodata.json")
        assert reply.status == 200
        assert "max-age=300" in reply.headers["Cache-Control"]
        for when in ("99", "2001-01-01", "2999-01-01"):
            missing = await w.get(f"/snapshot/{when}/main/noarch/repodata.json")
            assert missing.status == 404
            assert b"nearest" in missing.body


async def test_privacy_and_tokens(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.call("channel.create", name="team", privacy="authenticated")
        await w.call("channel.create", name="hidden", privacy="private")
        some = (await w.call("token.create", name="any")).token
        hidden = (await w.call("token.create", name="for hidden", channels=["hidden"])).token
        path = "/noarch/repodata.json"
        assert (await w.get(f"/repo/team{path}")).status == 401
        assert (await w.get(f"/repo/hidden{path}")).status == 404
        assert (await w.get(f"/t/{some}/repo/team{path}")).status == 200
        assert (await w.get(f"/t/{some}/repo/hidden{path}")).status == 404
        reply = await w.get(f"/repo/hidden{path}", headers={"Authorization": f"Bearer {hidden}"})
        assert reply.status == 200
        assert "private" in reply.headers["Cache-Control"]
        with pytest.raises(NotFound):
            await w.call("token.create", name="x", channels=["absent"])
        with pytest.raises(Invalid):
            await w.call("token.create", name="x", expires_at="2001-01-01T00:00:00Z")
        items = (await w.call("token.list")).items
        assert [bool(item.last_used_at) for item in items] == [True, True]
        await w.call("token.revoke", id=items[0].id)
        assert (await w.get(f"/t/{some}/repo/team{path}")).status == 401
        audit = await w.call("audit.list")
        assert {"token.create", "token.revoke"} <= {entry.method for entry in audit.items}
        text = repr(audit) + repr(items)
        assert some not in text
        assert hidden not in text


async def test_retired_files_go_after_the_grace_period(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.mirror("active")
        await w.run()
        w.source.remove("noarch", "alpha-1.9-0.conda")
        await w.run()
        path = "/repo/main/noarch/alpha-1.9-0.conda"
        assert (await w.get(path)).status == 200
        w.daemon.daemon._clock.shift_ms = 8 * DAY_MS  # type: ignore[attr-defined]
        assert (await w.get(path)).status == 404
        assert (await w.get(path.replace("/repo/main", "/snapshot/2/main"))).status == 200


async def test_packages_are_listed_and_shown(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.mirror("passive")
        await w.run()
        page = await w.call("package.list", channel="main", limit=2)
        assert [package.name for package in page.items] == ["alpha", "beta"]
        assert page.total == 3
        rest = await w.call("package.list", channel="main", limit=2, cursor=page.next_cursor)
        assert [package.name for package in rest.items] == ["gamma"]
        assert rest.next_cursor is None
        alpha = page.items[0]
        assert (alpha.version, alpha.versions, alpha.files, alpha.stored) == ("1.10", 3, 3, 0)
        await w.get("/repo/main/noarch/alpha-1.9-0.conda")
        stored = await w.call("package.list", channel="main", state="stored")
        assert [package.name for package in stored.items] == ["alpha"]
        found = await w.call("package.get", channel="main", name="beta")
        assert found.dependencies == ["alpha >=1.9"]
        assert found.dependants == ["gamma"]
        assert found.files[0].url.endswith("/repo/main/noarch/beta-2.0-0.conda")
        with pytest.raises(NotFound):
            await w.call("package.get", channel="main", name="absent")


async def test_a_channels_page_searches_what_is_published(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.mirror("passive")
        await w.run()
        text = (await w.get("/repo/main/?q=ALPH")).body.decode()
        assert re.search(r'href="\S*-/conda/alpha"', text), text
        assert '/conda/beta"' not in text


async def test_list_then_follow_misses_nothing(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        as_of = (await w.call("channel.list")).as_of
        await w.mirror("passive")
        run = await w.run()
        seen: list[str] = []
        steps: list[str] = []
        async for event in w.daemon.client.follow(["mirror", "run", "channel"], after=as_of):
            seen.append(event.type)
            if event.type == "run.step" and event.data["state"] == "running":
                steps.append(event.data["step"])
            if event.type == "run.finished":
                assert event.ids["run"] == run.id
                break
        assert seen[0] == "mirror.created"
        assert "channel.published" in seen
        assert steps == ["connect", "fetch_index", "filter", "plan", "publish", "clean"]


async def test_a_second_daemon_on_the_same_state_names_the_first(tmp_path: Path) -> None:
    from firthd.service import running
    from tests.support.daemon import settings_in

    async with world(tmp_path):
        with pytest.raises(InUse, match="pid"):
            async with running(settings_in(tmp_path)):
                pass


def test_generations_kept_are_the_newest_ten_and_the_last_of_days_and_months() -> None:
    now = 1_800_000_000_000
    kept = [(number, now - (200 - number) * DAY_MS // 4) for number in range(200, 0, -1)]
    drop = retention.to_drop(kept, now, days=10, months=2)
    left = [number for number, _ in kept if number not in drop]
    assert left[:10] == list(range(200, 190, -1))
    days = {(now - time) // DAY_MS for number, time in kept if number in left}
    assert set(range(10)) <= days
    assert len(left) < 30
    assert retention.to_drop(kept[:10], now, days=0, months=0) == []


async def test_old_generations_give_up_their_plain_index_but_still_serve_it(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.mirror("passive")
        await w.run()
        plain = (await w.get("/repo/main/noarch/repodata.json")).body
        w.source.add(PackageSpec(name="delta"))
        await w.run()
        view = await w.daemon.daemon.published.at("main", "2", 1 << 50)
        file = await w.daemon.daemon.published.object(view, "conda", "noarch/repodata.json")
        assert file is not None
        assert file.encoding == "zstd"
        reply = await w.get("/snapshot/2/main/noarch/repodata.json")
        assert reply.body == plain
        assert hashlib.sha256(reply.body).hexdigest() == file.sha256


async def test_a_reader_may_look_but_not_touch(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        from firth_protocol.methods import METHODS
        from firth_protocol.types import Role
        from firthd.access import Access, Caller
        from firthd.config import AccessSettings

        reader = Caller(uid=1, pid=1, user="r", role=Role.READER)
        access = Access(AccessSettings(), 0)
        access.require(reader, METHODS["channel.get"], "main")
        with pytest.raises(Forbidden, match="operator"):
            access.require(reader, METHODS["channel.freeze"], "main")
        assert isinstance(w, World)
