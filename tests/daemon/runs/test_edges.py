"""Runs at their edges: stopped in an awkward moment, edited or overtaken while they work, and told truly after."""

import asyncio
import contextlib
import hashlib
import sqlite3
from pathlib import Path

import pytest

from firth_protocol.errors import NoSpace, WrongState
from firth_protocol.types import RunState
from firthd.mirrors.plan import PartChange, shrink_reason
from firthd.store import generations
from firthd.store.database import Tx
from firthd.store.runs import Failure
from tests.support.conda import ChannelFolder, PackageSpec, sample_channel
from tests.support.daemon import in_process_daemon
from tests.support.upstream import Fault
from tests.support.world import world


async def test_a_run_stopped_before_its_first_step_still_ends(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.mirror("passive")
        queue = w.daemon.daemon.queue
        for _ in range(10):
            run = (await w.call("mirror.run", mirror="main:m")).run
            while queue.live(run.id) is None:
                await asyncio.sleep(0)
            with contextlib.suppress(WrongState):  # it was quicker
                await queue.stop(run.id)
            ended = await w.call("run.wait", run=run.id, timeout=5)
            assert ended.state.ended, ended
        status = await w.call("daemon.status")
        assert (status.counts.runs_active, status.counts.runs_pending) == (0, 0)


async def test_stopping_a_run_that_is_just_ending_never_leaves_it_stopping(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.mirror("passive")
        queue = w.daemon.daemon.queue
        for turns in range(40):
            run = (await w.call("mirror.run", mirror="main:m")).run
            while (live := queue.live(run.id)) is None or not live.at_work:
                await asyncio.sleep(0)
            for _ in range(turns * 5):
                await asyncio.sleep(0)
            with contextlib.suppress(WrongState):
                await queue.stop(run.id)
            ended = await w.call("run.wait", run=run.id, timeout=5)
            assert ended.state.ended, ended
            assert (await w.call("mirror.get", mirror="main:m")).state.ended


async def test_stop_with_publish_while_publishing_adds_nothing_twice(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.mirror("passive")
        run = (await w.call("mirror.run", mirror="main:m")).run
        db = w.daemon.daemon.db
        finished = "SELECT EXISTS (SELECT 1 FROM change_set WHERE state = 'finished')"
        async with asyncio.timeout(5):
            while not await db.read(lambda r: r.value(finished)):
                await asyncio.sleep(0)
        await w.call("mirror.stop", mirror="main:m", publish=True)
        assert (await w.daemon.ended(run.id)).state is RunState.STOPPED
        (after,) = (await w.call("run.list", channel="main", kind="publish")).items
        assert (await w.daemon.ended(after.id)).state is RunState.COMPLETED
        doubled = (
            "SELECT part, filename, count(*) FROM artifact WHERE closed_set IS NULL GROUP BY 1, 2 HAVING count(*) > 1"
        )
        assert await db.read(lambda r: r.rows(doubled)) == []
        assert len(await w.names()) == 5


async def test_what_a_stopped_run_left_waits_for_no_run_that_came_after(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.mirror("active")
        never = asyncio.Event()
        w.upstream.fail("noarch/beta*", Fault(until=never))
        first = (await w.call("mirror.run", mirror="main:m")).run
        await w.upstream.arrived("noarch/beta*")
        async with asyncio.timeout(5):
            while len(list((w.daemon.state / "blobs").glob("??/??/*"))) < 4:
                await asyncio.sleep(0)
        w.upstream.heal()
        await asyncio.gather(
            w.call("mirror.stop", mirror="main:m", publish=True), w.call("mirror.restart", mirror="main:m")
        )
        never.set()
        runs = (await w.call("run.list", channel="main")).items
        for run in runs:
            await w.daemon.ended(run.id)
        for run in (await w.call("run.list", channel="main")).items:
            assert (await w.daemon.ended(run.id)).state in {RunState.COMPLETED, RunState.STOPPED}, run.error
        assert first.id in {run.id for run in runs}
        doubled = (
            "SELECT part, filename, count(*) FROM artifact WHERE closed_set IS NULL GROUP BY 1, 2 HAVING count(*) > 1"
        )
        assert await w.daemon.daemon.db.read(lambda r: r.rows(doubled)) == []
        assert len(await w.names()) == 5


async def test_failures_that_the_second_look_heals_are_not_told(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.mirror("active")
        gate = asyncio.Event()
        w.upstream.fail("noarch/beta*", Fault(until=gate))
        run = (await w.call("mirror.run", mirror="main:m")).run
        await w.upstream.arrived("noarch/beta*")
        (built,) = ChannelFolder(tmp_path / "other").add(PackageSpec(name="beta", version="2.0", content="anew\n"))
        (w.source.path / "noarch" / built.filename).write_bytes(built.body)
        w.source.records["noarch"][built.filename] = built.record
        w.source.write()
        gate.set()
        w.upstream.heal()
        ended = await w.daemon.ended(run.id)
        assert ended.state is RunState.COMPLETED, ended.error
        details = await w.call("mirror.details", mirror="main:m")
        assert (details.counts.failed, details.failed) == (0, [])


async def test_a_file_that_is_not_there_was_asked_for_once(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.mirror("active")
        w.upstream.fail("noarch/beta*", Fault(status=404))
        assert (await w.run()).state is RunState.INCOMPLETE
        (failed,) = (await w.call("mirror.details", mirror="main:m")).failed
        assert (failed.filename, failed.attempts) == ("beta-2.0-0.conda", 1)


async def test_a_filter_edited_during_a_run_is_applied_by_the_next_one(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        mirror = await w.mirror("active")
        gate = asyncio.Event()
        w.upstream.fail("noarch/beta*", Fault(until=gate))
        run = (await w.call("mirror.run", mirror="main:m")).run
        await w.upstream.arrived("noarch/beta*")
        await w.call("mirror.update", mirror=mirror.id, revision=mirror.revision, filters={"subdirs": ["noarch"]})
        gate.set()
        assert (await w.daemon.ended(run.id)).state is RunState.COMPLETED
        assert await w.names(subdirs=("linux-64",)) != set()
        assert (await w.run()).state is RunState.COMPLETED
        assert await w.names(subdirs=("linux-64",)) == set()


async def test_following_removals_again_takes_what_was_held(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        mirror = await w.mirror("active", on_upstream_removal="keep")
        await w.run()
        name = "beta-2.0-0.conda"
        w.source.remove("noarch", name)
        await w.run()
        assert name in await w.names()
        await w.call("mirror.update", mirror=mirror.id, revision=mirror.revision, on_upstream_removal="follow")
        assert (await w.run()).state is RunState.COMPLETED
        assert name not in await w.names()


async def test_a_copy_of_the_index_that_lost_its_end_is_fetched_again(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.mirror("active")
        w.upstream.fail("noarch/beta*", Fault(status=404))
        assert (await w.run()).state is RunState.INCOMPLETE  # so that the next run reads every copy again
        (copy,) = (w.daemon.state / "sources").glob("*/noarch.*")
        copy.write_bytes(copy.read_bytes()[:10])
        run = await w.run()
        assert run.state is RunState.COMPLETED, run.error


async def test_what_a_full_disk_has_undone_is_written_once_there_is_room(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.mirror("active")
        gate = asyncio.Event()
        w.upstream.fail("noarch/beta*", Fault(until=gate))
        run = (await w.call("mirror.run", mirror="main:m")).run
        await w.upstream.arrived("noarch/beta*")
        db = w.daemon.daemon.db
        live = w.daemon.daemon.queue.live(run.id)
        assert live is not None

        async def fill(tx: Tx) -> None:
            await tx.rows(f"PRAGMA max_page_count = {await tx.value('PRAGMA page_count')}")

        await db.outside(fill)
        live.fail_artifact(Failure(part="noarch", filename="big.conda", reason="x" * 500_000, attempts=1))
        with pytest.raises(NoSpace):
            await live.flush()
        await db.outside(lambda tx: tx.rows("PRAGMA max_page_count = 1000000"))
        await live.flush()
        details = await w.call("mirror.details", mirror="main:m")
        assert [failed.filename for failed in details.failed] == ["big.conda"]
        gate.set()
        await w.daemon.ended(run.id)


@pytest.mark.parametrize("base", ["ftp://elsewhere.example.org/", "http://[broken/", "../../.."])
async def test_an_address_that_is_not_asked_stops_neither_the_run_nor_the_daemon(tmp_path: Path, base: str) -> None:
    async with world(tmp_path) as w:
        w.source.extra["linux-64"] = {"info": {"subdir": "linux-64", "base_url": base}}
        w.source.write()
        await w.mirror("active")
        run = await w.run()
        assert run.state is RunState.INCOMPLETE, run.error
        details = await w.call("mirror.details", mirror="main:m")
        assert {failed.part for failed in details.failed} == {"linux-64"}
        assert await w.names(subdirs=("noarch",)) != set()
        await w.call("channel.create", name="lazy")
        await w.mirror("passive", channel="lazy")
        assert (await w.run("lazy:m")).state is RunState.COMPLETED
        (name,) = await w.names("lazy", ("linux-64",))
        reply = await w.get(f"/repo/lazy/linux-64/{name}")
        assert reply.status == 502, reply.body


async def test_counts_are_of_the_mirror_when_only_a_part_of_it_was_read(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.mirror("passive")
        first = await w.run()
        assert (first.counts.passive, first.counts.added, first.counts.unchanged) == (5, 5, 0)
        w.source.add(PackageSpec(name="delta"))
        second = await w.run()
        assert (second.counts.passive, second.counts.added, second.counts.unchanged) == (6, 1, 5)


async def test_another_source_is_looked_at_for_its_own_subdirs(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        mirror = await w.mirror("passive")
        await w.run()
        other = ChannelFolder(tmp_path / "elsewhere", subdirs=("noarch", "osx-arm64"))
        other.add(PackageSpec(name="apple", subdir="osx-arm64"))
        await w.call("mirror.update", mirror=mirror.id, revision=mirror.revision, source=f"file://{other.path}")
        run = await w.run(accept_removals=True)
        assert run.state is RunState.COMPLETED, run.error
        assert await w.names(subdirs=("osx-arm64",)) == {"apple-1.0-0.conda"}


async def test_a_blob_whose_row_a_crash_has_swallowed_is_fetched_but_not_written_again(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.mirror("active")
        w.upstream.fail("noarch/beta*", Fault(status=404))
        await w.run()
        db = w.daemon.daemon.db
        (package,) = ChannelFolder(tmp_path / "late").add(PackageSpec(name="late"))
        writer = w.daemon.daemon.blobs
        kept = await asyncio.to_thread(_lay, writer.root, package.body)
        (w.source.path / "noarch" / package.filename).write_bytes(package.body)
        w.source.records["noarch"][package.filename] = package.record
        w.source.write()
        w.upstream.requests.clear()
        before = writer.path(kept).stat().st_ino
        await w.run()
        # Whom it came for went with the row: a file that nobody is known to have been given is asked for again.
        assert len(w.upstream.asked(f"noarch/{package.filename}")) == 1
        assert writer.path(kept).stat().st_ino == before
        named = "SELECT count(*) FROM blob JOIN delivered USING (sha256) WHERE sha256 = ?"
        assert await db.read(lambda r: r.value(named, (bytes.fromhex(kept),))) == 1


async def test_folders_that_a_crash_left_are_taken_away_but_those_that_a_queued_run_needs(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.mirror("active")
        gate = asyncio.Event()
        w.upstream.fail("noarch/beta*", Fault(until=gate))
        run = (await w.call("mirror.run", mirror="main:m")).run
        await w.upstream.arrived("noarch/beta*")
        state = w.daemon.state
        orphans = [state / "runs" / "990", state / "rendered" / "work" / "991"]
        for folder in orphans:
            folder.mkdir(parents=True)
        await w.daemon.daemon.take_in.forget_ended()
        assert not [folder for folder in orphans if folder.exists()]
        assert (state / "runs" / str(run.id) / "run.sqlite").exists()
        gate.set()
        assert (await w.daemon.ended(run.id)).state is RunState.COMPLETED


def test_a_third_of_two_small_parts_is_not_a_fifth_of_the_mirror() -> None:
    parts = [
        PartChange(part=name, before=200, kept=140, added=0, replaced=0, removed=60, stopped=60)
        for name in ("linux-64", "osx-64")
    ]
    assert shrink_reason(parts) is not None
    assert shrink_reason(parts, whole=5_000) is None
    empty = [PartChange(part="noarch", before=3, kept=0, added=0, replaced=0, removed=3, stopped=3)]
    reason = shrink_reason(empty, whole=5_000)
    assert reason is not None
    assert "noarch is empty" in reason


def _lay(root: Path, body: bytes) -> str:
    """Lay a file at its final name, as a crash before its row leaves it."""
    sha256 = hashlib.sha256(body).hexdigest()
    place = root / sha256[:2] / sha256[2:4] / sha256
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(body)
    return sha256


async def test_what_a_stopped_run_has_written_is_not_published_by_another(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.mirror("passive")
        db = w.daemon.daemon.db
        run = (await w.call("mirror.run", mirror="main:m")).run
        channel = (await w.call("channel.get", channel="main")).id
        while not await db.read(lambda r: generations.finished_change_sets(r, channel)):
            await asyncio.sleep(0)
        await w.call("mirror.stop", mirror="main:m")
        assert (await w.daemon.ended(run.id)).state is RunState.STOPPED
        other = ChannelFolder(tmp_path / "other")
        other.add(PackageSpec(name="delta"))
        await w.call("mirror.create", channel="main", name="second", type="conda", source=f"file://{other.path}")
        await w.run("main:second")
        assert await w.names(subdirs=("noarch",)) == {"delta-1.0-0.conda"}
        again = await w.run()
        assert again.state is RunState.COMPLETED
        assert len(await w.names()) == 6


async def test_files_without_a_row_are_named_after_a_crash(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.mirror("active")
        await w.run()
    with contextlib.closing(sqlite3.connect(tmp_path / "state" / "firth.sqlite", isolation_level=None)) as state:
        state.execute("DELETE FROM blob")
        state.execute("INSERT INTO delivered VALUES (1, x'00')")  # the crash came before the file had its name
        state.execute("UPDATE setting SET value = '1' WHERE key = 'at work'")
    async with in_process_daemon(tmp_path) as daemon, asyncio.timeout(5):
        while (await daemon.client.call("daemon.status")).store.blobs < 5:
            await asyncio.sleep(0)
        while await daemon.daemon.db.read(lambda r: r.value("SELECT count(*) FROM delivered")):
            await asyncio.sleep(0)


async def test_a_run_under_way_says_that_it_does_not_accept_removals(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.mirror("active")
        gate = asyncio.Event()
        w.upstream.fail("noarch/beta*", Fault(until=gate))
        run = (await w.call("mirror.run", mirror="main:m")).run
        await w.upstream.arrived("noarch/beta*")
        reply = await w.call("mirror.run", mirror="main:m", accept_removals=True)
        gate.set()
        assert reply.already
        assert "does not accept removals" in reply.warnings[0]
        await w.daemon.ended(run.id)


async def test_a_run_cut_off_behind_its_change_set_is_made_up_for_and_counted(tmp_path: Path) -> None:
    source = sample_channel(tmp_path / "source").path.as_uri()
    async with in_process_daemon(tmp_path) as daemon:
        await daemon.client.call("channel.create", name="main")
        await daemon.client.call("mirror.create", channel="main", name="m", type="conda", source=source)
        await daemon.run("main:m")
    with contextlib.closing(sqlite3.connect(tmp_path / "state" / "firth.sqlite", isolation_level=None)) as state:
        # As kill -9 between the change set's end and its publication leaves it.
        state.execute("UPDATE mirror SET artifacts = 0, bytes = 0")
        state.execute("UPDATE change_set SET state = 'finished', number = NULL")
        for table in ("generation_family", "generation"):
            state.execute(f"DELETE FROM {table} WHERE number = 2")
        state.execute("UPDATE channel SET generation = 1")
    async with in_process_daemon(tmp_path) as daemon:
        run = await daemon.run("main:m")
        assert (run.state, run.generation) == (RunState.COMPLETED, 2)
        assert (run.counts.unchanged, run.counts.passive) == (5, 5)
        assert (await daemon.client.call("mirror.get", mirror="main:m")).artifacts == 5
