"""Mirror runs against a real source: what they bring, what they survive, what they tell."""

import asyncio
import hashlib
from pathlib import Path

import pytest
import zstandard

from firth_protocol.errors import Conflict, Invalid, NotFound, Upstream, WrongState
from firth_protocol.types import MirrorMode, RunState, StepState
from firthd.config import RunSettings, StoreSettings
from tests.support.conda import ChannelFolder, PackageSpec
from tests.support.daemon import settings_in
from tests.support.upstream import Fault
from tests.support.world import edit, raw_records, world

FILES = 5  # of the sample channel


@pytest.mark.parametrize("mode", ["active", "passive"])
async def test_every_record_is_served_byte_for_byte_and_every_file_is_right(tmp_path: Path, mode: str) -> None:
    async with world(tmp_path) as w:
        await w.mirror(mode)
        run = await w.run()
        assert run.state is RunState.COMPLETED, run.error
        assert all(step.state in {StepState.DONE, StepState.SKIPPED} for step in run.steps)
        for subdir in ("noarch", "linux-64"):
            source = raw_records((w.source.path / subdir / "repodata.json").read_bytes())
            assert await w.records(subdir) == source
            for name in source:
                reply = await w.get(f"/repo/main/{subdir}/{name}")
                assert reply.status == 200
                assert hashlib.sha256(reply.body).hexdigest() == w.source.records[subdir][name]["sha256"]
        stored = run.counts.active if mode == "active" else run.counts.passive
        assert stored == FILES


async def test_the_log_tells_each_step_under_its_own_name(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.mirror("passive")
        run = await w.run()
        lines = (await w.call("run.log", run=run.id)).items
        told = {line.step: line.text for line in lines if line.text.startswith(("Resolve", "Download", "Compare"))}
        assert told.keys() == {"resolve", "download", "plan"}
        assert [line.number for line in lines] == list(range(1, len(lines) + 1))


async def test_an_active_run_downloads_before_it_publishes_and_serves_without_the_source(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.mirror("active")
        await w.run()
        before = len(w.upstream.requests)
        reply = await w.get("/repo/main/noarch/alpha-1.9-0.conda")
        assert reply.status == 200
        assert len(w.upstream.requests) == before


async def test_a_passive_run_reads_the_index_only(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.mirror("passive")
        await w.run()
        assert not w.upstream.asked("*.conda")
        assert (await w.get("/repo/main/noarch/alpha-1.9-0.conda")).status == 200
        assert (await w.get("/repo/main/noarch/alpha-1.9-0.conda")).status == 200
        assert len(w.upstream.asked("*alpha-1.9-0.conda", method="GET")) == 1
        mirror = await w.call("mirror.get", mirror="main:m")
        assert (mirror.artifacts, mirror.stored) == (FILES, 1)


async def test_nothing_new_costs_one_conditional_request_an_index(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.mirror("active")
        first = await w.run()
        w.upstream.requests.clear()
        reply = await w.daemon.daemon.mirrors.run("main:m", "schedule", cause="schedule")
        assert reply.run is not None
        run = await w.daemon.ended(reply.run.id)
        assert run.state is RunState.COMPLETED
        assert run.generation is None
        assert [(seen.method, seen.status) for seen in w.upstream.requests] == [("GET", 304), ("GET", 304)]
        channel = await w.call("channel.get", channel="main")
        assert channel.generation == first.generation


async def test_a_part_that_is_new_at_the_source_is_found_by_a_run_by_hand(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.mirror("passive")
        await w.run()
        w.source.add(PackageSpec(name="omega", subdir="win-64"))
        w.source.write()
        w.upstream.requests.clear()
        reply = await w.daemon.daemon.mirrors.run("main:m", "schedule", cause="schedule")
        assert reply.run is not None
        await w.daemon.ended(reply.run.id)
        assert len(w.upstream.requests) == 2
        run = await w.run()
        assert run.counts.added == 1
        assert "omega-1.0-0.conda" in await w.names(subdirs=("win-64",))
        lines = await w.call("run.log", run=run.id)
        assert any("win-64" in line.text and "new at the source" in line.text for line in lines.items)
        asked = [seen.path for seen in w.upstream.requests]
        assert len(asked) == len(set(asked)) + 2  # each part once more than those that are there


async def test_a_hotfix_replaces_the_record_and_keeps_the_other_shards(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.mirror("active")
        await w.run()
        before = await _shards(w, "noarch")
        fixed = edit(w.source, "noarch", "alpha-1.9-0.conda", depends=["beta"])
        run = await w.run()
        assert (run.counts.added, run.counts.removed) == (1, 1)
        assert (await w.records("noarch"))["alpha-1.9-0.conda"] == fixed
        after = await _shards(w, "noarch")
        assert after["beta"] == before["beta"]
        assert after["alpha"] != before["alpha"]
        old = await w.get(f"/repo/main/noarch/shards/{before['alpha']}.msgpack.zst")
        assert old.status == 200  # clients that cached the index for a day go on working


async def test_what_the_source_drops_leaves_the_index_but_stays_fetchable(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.mirror("active")
        await w.run()
        w.source.remove("noarch", "alpha-1.9-0.conda")
        run = await w.run()
        assert run.counts.removed == 1
        assert "alpha-1.9-0.conda" not in await w.names()
        assert (await w.get("/repo/main/noarch/alpha-1.9-0.conda")).status == 200


async def test_on_upstream_removal_keep_holds_what_is_stored(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.mirror("active", on_upstream_removal="keep")
        await w.run()
        w.source.remove("noarch", "alpha-1.9-0.conda")
        run = await w.run()
        assert run.counts.removed == 0
        assert "alpha-1.9-0.conda" in await w.names()


async def test_one_bad_file_makes_the_run_incomplete_and_the_next_one_heals_it(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.mirror("active")
        w.upstream.fail("noarch/beta*", Fault(status=404), times=None)
        run = await w.run()
        assert run.state is RunState.INCOMPLETE
        assert run.counts.failed == 1
        assert "beta-2.0-0.conda" not in await w.names()
        details = await w.call("mirror.details", mirror="main:m")
        assert [(one.filename, bool(one.reason)) for one in details.failed] == [("beta-2.0-0.conda", True)]
        assert [one.count for one in details.failed_reasons] == [1]
        assert (await w.call("mirror.get", mirror="main:m")).last_run.missing == 1
        status = await w.call("daemon.status")
        assert [problem.subject for problem in status.health] == ["mirror main:m"]
        w.upstream.heal()
        w.upstream.requests.clear()
        run = await w.run()
        assert run.state is RunState.COMPLETED
        assert "beta-2.0-0.conda" in await w.names()
        assert len(w.upstream.asked("*.conda", method="GET")) == 1
        assert not (await w.call("daemon.status")).health


async def test_wrong_bytes_are_never_stored(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.mirror("active")
        good = (w.source.path / "noarch" / "beta-2.0-0.conda").read_bytes()
        w.upstream.fail("noarch/beta*", Fault(body=b"x" * len(good)), times=None)
        run = await w.run()
        assert run.state is RunState.INCOMPLETE
        details = await w.call("mirror.details", mirror="main:m")
        assert "sha256" in details.failed[0].reason
        assert (await w.get("/repo/main/noarch/beta-2.0-0.conda")).status == 404


async def test_a_broken_transfer_goes_on_where_it_stopped(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        big = "x" * 300_000 + "".join(str(n * 7919) for n in range(60_000))
        w.source.add(PackageSpec(name="large", content=big))
        await w.mirror("active")
        w.upstream.fail("noarch/large*", Fault(cut_after=20_000, reset=True))
        run = await w.run()
        assert run.state is RunState.COMPLETED
        ranges = [seen.headers.get("range") for seen in w.upstream.asked("noarch/large*", method="GET")]
        assert ranges[0] is None
        assert ranges[1] is not None


async def test_a_source_that_changes_meanwhile_is_read_again(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.mirror("active")
        gate = asyncio.Event()
        w.upstream.fail("noarch/beta*", Fault(until=gate))
        run = (await w.call("mirror.run", mirror="main:m")).run
        await w.upstream.arrived("noarch/beta*")
        w.source.add(PackageSpec(name="beta", version="2.0", content="other bytes\n", depends=("alpha >=1.9",)))
        gate.set()
        run = await w.daemon.ended(run.id)
        assert run.state is RunState.COMPLETED, run.error
        assert any("changed while it was mirrored" in note for note in run.notes)
        body = (await w.get("/repo/main/noarch/beta-2.0-0.conda")).body
        assert hashlib.sha256(body).hexdigest() == w.source.records["noarch"]["beta-2.0-0.conda"]["sha256"]


async def test_twenty_refusals_in_a_row_end_the_run(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.source.add(*(PackageSpec(name=f"p{n}") for n in range(40)))
        await w.mirror("active")
        w.upstream.fail("noarch/*.conda", Fault(status=403), times=None)
        w.upstream.fail("noarch/*.tar.bz2", Fault(status=403), times=None)
        run = await w.run()
        assert run.state is RunState.FAILED
        assert run.error is not None
        assert run.error.kind == "upstream"
        assert "20 requests" in run.error.message
        assert len(w.upstream.asked("noarch/p*", method="GET")) < 40


async def test_the_shrink_guard_holds_the_published_generation(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.mirror("passive")
        first = await w.run()
        w.source.records["noarch"].clear()
        w.source.write()
        run = await w.run()
        assert run.state is RunState.FAILED
        assert run.error is not None
        assert run.error.kind == "shrink_guard"
        assert (await w.call("channel.get", channel="main")).generation == first.generation
        assert len(await w.names()) == FILES
        again = await w.run()
        assert again.error is not None
        assert again.error.kind == "shrink_guard"  # it does not forget by being asked twice
        run = await w.run(accept_removals=True)
        assert run.state is RunState.COMPLETED
        assert await w.names() == {"gamma-0.1-0.conda"}


async def test_the_space_guard_tells_the_figures_before_the_first_download(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    async with world(tmp_path, settings=settings) as w:
        await w.mirror("active")
        w.daemon.daemon.space._percent = 99.9  # the disk of the machine that tests run on is not ours to fill
        run = await w.run()
        assert run.state is RunState.FAILED
        assert run.error is not None
        assert run.error.kind == "no_space"
        assert not w.upstream.asked("*.conda", method="GET")


async def test_stop_ends_a_run_at_once_and_keeps_what_was_verified(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.mirror("active")
        never = asyncio.Event()
        w.upstream.fail("noarch/beta*", Fault(until=never))
        run = (await w.call("mirror.run", mirror="main:m")).run
        await w.upstream.arrived("*.conda", 4)
        await w.upstream.arrived("noarch/beta*")
        async with asyncio.timeout(5):
            await w.call("mirror.stop", mirror="main:m")
            run = await w.daemon.ended(run.id)
        assert run.state is RunState.STOPPED
        assert await w.names(subdirs=("noarch",)) == set()
        never.set()
        w.upstream.heal()
        had = {path.name for path in (w.daemon.state / "blobs").glob("??/??/*")}
        w.upstream.requests.clear()
        run = await w.run()
        assert run.state is RunState.COMPLETED
        fetched = {seen.path for seen in w.upstream.asked("*/*.conda", method="GET")}
        assert len(fetched) <= FILES - len(had)


async def test_stop_with_publish_publishes_what_is_there(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.mirror("active")
        never = asyncio.Event()
        w.upstream.fail("noarch/beta*", Fault(until=never))
        run = (await w.call("mirror.run", mirror="main:m")).run
        await w.upstream.arrived("noarch/beta*")
        async with asyncio.timeout(5):
            while len(list((w.daemon.state / "blobs").glob("??/??/*"))) < FILES - 1:
                await asyncio.sleep(0)
        await w.call("mirror.stop", mirror="main:m", publish=True)
        await w.daemon.ended(run.id)
        runs = await w.call("run.list", channel="main", kind="publish")
        published = await w.daemon.ended(runs.items[0].id)
        never.set()
        assert published.state is RunState.COMPLETED, published.error
        assert "beta-2.0-0.conda" not in await w.names()
        assert len(await w.names()) == FILES - 1


async def test_running_a_running_mirror_answers_that_run(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.mirror("active")
        gate = asyncio.Event()
        w.upstream.fail("noarch/beta*", Fault(until=gate))
        first = await w.call("mirror.run", mirror="main:m")
        await w.upstream.arrived("noarch/beta*")
        second = await w.call("mirror.run", mirror="main:m")
        assert (second.already, second.run.id) == (True, first.run.id)
        third = await w.call("mirror.restart", mirror="main:m")
        assert third.run.id != first.run.id
        gate.set()
        assert (await w.daemon.ended(first.run.id)).state is RunState.STOPPED
        assert (await w.daemon.ended(third.run.id)).state is RunState.COMPLETED


async def test_stopping_an_idle_mirror_says_so(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.mirror("active")
        with pytest.raises(WrongState):
            await w.call("mirror.stop", mirror="main:m")


async def test_at_most_max_active_runs_work_and_others_say_what_they_wait_for(tmp_path: Path) -> None:
    async with world(tmp_path, settings=settings_in(tmp_path, runs=RunSettings(max_active=1))) as w:
        await w.mirror("active")
        await w.call("channel.create", name="other")
        await w.mirror("active", channel="other")
        gate = asyncio.Event()
        w.upstream.fail("noarch/beta*", Fault(until=gate))
        first = (await w.call("mirror.run", mirror="main:m")).run
        await w.upstream.arrived("noarch/beta*")
        second = (await w.call("mirror.run", mirror="other:m")).run
        async with asyncio.timeout(5):
            while (await w.call("run.get", run=second.id)).waiting_for is None:
                await asyncio.sleep(0)
        waiting = await w.call("run.get", run=second.id)
        assert waiting.state is RunState.PENDING
        assert str(first.id) in waiting.waiting_for
        gate.set()
        assert (await w.daemon.ended(second.id)).state is RunState.COMPLETED


async def test_a_plan_tells_and_changes_nothing(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        reply = await w.call("mirror.plan", channel="main", type="conda", mode="active", source=w.upstream.url)
        assert reply.run is not None
        run = await w.daemon.ended(reply.run.id)
        assert run.state is RunState.COMPLETED, run.error
        assert run.result is not None
        assert run.result["adds"] == FILES
        sizes = [record["size"] for records in w.source.records.values() for record in records.values()]
        assert run.result["bytes"] == sum(sizes)
        assert (await w.call("channel.get", channel="main")).generation == 1
        assert not list((w.daemon.state / "runs").iterdir())


async def test_two_mirrors_share_a_channel_but_a_name_belongs_to_the_older(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.mirror("passive")
        await w.run()
        other = ChannelFolder(tmp_path / "other")
        other.add(PackageSpec(name="alpha", version="9.9"), PackageSpec(name="delta"))
        reply = await w.call(
            "mirror.create", channel="main", name="second", type="conda", source=f"file://{other.path}"
        )
        assert any("belongs to the oldest" in warning for warning in reply.warnings)
        run = await w.run("main:second")
        assert run.counts.shadowed == 1
        names = await w.names()
        assert "delta-1.0-0.conda" in names
        assert "alpha-9.9-0.conda" not in names
        assert (await w.get("/repo/main/noarch/alpha-9.9-0.conda")).status == 404
        details = await w.call("mirror.details", mirror="main:second")
        assert details.shadowed == ["conda/alpha"]
        gone = await w.call("mirror.delete", mirror="main:m", packages="remove", confirm="m")
        assert (await w.daemon.ended(gone.run.id)).state is RunState.COMPLETED
        assert await w.names() == {"delta-1.0-0.conda", "alpha-9.9-0.conda"}


async def test_a_deleted_mirror_leaves_its_stored_artifacts_to_the_channel(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.mirror("passive")
        await w.run()
        await w.get("/repo/main/noarch/alpha-1.9-0.conda")
        with pytest.raises(Invalid):
            await w.call("mirror.delete", mirror="main:m", confirm="wrong")
        reply = await w.call("mirror.delete", mirror="main:m", packages="keep", confirm="m")
        assert (reply.kept, reply.dropped) == (1, FILES - 1)
        await w.daemon.ended(reply.run.id)
        assert await w.names(subdirs=("noarch",)) == {"alpha-1.9-0.conda"}
        assert (await w.get("/repo/main/noarch/alpha-1.9-0.conda")).status == 200
        with pytest.raises(NotFound):
            await w.call("mirror.get", mirror="main:m")


async def test_a_filter_takes_its_subdirs_and_always_noarch(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.source.add(PackageSpec(name="omega", subdir="osx-arm64"))
        await w.mirror("passive", filters={"subdirs": ["linux-64"]})
        await w.run()
        assert (await w.get("/repo/main/osx-arm64/repodata.json")).status == 404
        assert len(await w.names()) == FILES


async def test_an_edit_of_an_old_revision_is_a_conflict_with_the_current_object(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        mirror = await w.mirror("passive")
        await w.call("mirror.update", mirror=mirror.id, revision=mirror.revision, schedule="daily")
        with pytest.raises(Conflict) as caught:
            await w.call("mirror.update", mirror=mirror.id, revision=mirror.revision, schedule="weekly")
        assert caught.value.data["current"]["schedule"] == "0 0 * * *"
        assert (await w.call("mirror.get", mirror=mirror.id)).mode is MirrorMode.PASSIVE


async def test_what_is_no_conda_channel_is_refused_with_what_was_found(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        (w.source.path / "simple").mkdir()
        (w.source.path / "simple" / "index.html").write_text("<html><body>no channel</body></html>")
        with pytest.raises((Invalid, Upstream)):
            await w.call("mirror.create", channel="main", name="x", type="conda", source=f"{w.upstream.url}/simple")
        with pytest.raises(Invalid, match="there is a conda channel"):
            await w.call("mirror.create", channel="main", name="x", type="python", source=w.upstream.url)
        with pytest.raises(Upstream) as caught:
            await w.call("mirror.create", channel="main", name="x", type="conda", source="http://127.0.0.1:9/x")
        assert "check: false" in caught.value.hint


async def test_an_unreachable_source_fails_the_run_and_leaves_the_channel(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.mirror("passive")
        await w.run()
        w.upstream.fail("*", Fault(status=500), times=None)
        run = await w.run()
        assert run.state is RunState.FAILED
        assert run.error is not None
        assert run.error.kind == "upstream"
        assert len(await w.names()) == FILES


async def test_the_floor_of_free_space_is_a_setting(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    assert settings.store == StoreSettings(floor_percent=0)


async def _shards(w: object, subdir: str) -> dict[str, str]:
    import msgspec

    reply = await w.get(f"/repo/main/{subdir}/repodata_shards.msgpack.zst")  # type: ignore[attr-defined]
    assert reply.status == 200
    index = msgspec.msgpack.decode(zstandard.ZstdDecompressor().decompress(reply.body, max_output_size=1 << 20))
    return {name: digest.hex() for name, digest in index["shards"].items()}
