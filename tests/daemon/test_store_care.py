"""The store is kept: what nothing needs leaves it, what it holds is read again, and a copy of the state goes on."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from firth_protocol.errors import Conflict, Invalid, InvalidParams, NotFound
from firth_protocol.types import Run, RunState
from tests.support.conda import PackageSpec
from tests.support.daemon import HastyClock, in_process_daemon
from tests.support.upstream import Fault
from tests.support.world import World, world

DAY_MS = 86_400_000


def stored(w: World) -> dict[str, Path]:
    return {file.name: file for file in w.daemon.daemon.blobs.root.glob("[0-9a-f][0-9a-f]/*/*")}


async def done(w: World, method: str, **params: Any) -> Run:
    reply = await w.call(method, **params)
    run = await w.daemon.ended(reply.run.id)
    assert run.state is RunState.COMPLETED, run.error
    return run


async def runs_end(w: World) -> None:
    for run in (await w.call("run.list")).items:
        await w.daemon.ended(run.id)


def later(clock: HastyClock, w: World, days: int) -> None:
    """Let days go by: for the clock, and for the times of the files."""
    clock.shift_ms += days * DAY_MS


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


async def test_gc_keeps_the_draft_of_a_frozen_channel_and_what_it_shows(tmp_path: Path) -> None:
    clock = HastyClock()
    async with world(tmp_path, clock=clock) as w:
        await w.mirror("active")
        await w.run()
        await w.call("channel.freeze", channel="main")
        w.source.add(PackageSpec(name="waiting"))
        w.source.write()
        await w.run()
        later(clock, w, 30)
        status = await w.call("store.status")
        assert status.held.drafts > 0
        assert (await done(w, "store.gc")).result == {"blobs": 0, "bytes": 0}
        assert len(stored(w)) == 6


async def test_gc_takes_what_a_deleted_channel_left(tmp_path: Path) -> None:
    clock = HastyClock()
    async with world(tmp_path, clock=clock) as w:
        await w.mirror("active")
        await w.run()
        await w.call("channel.delete", channel="main", confirm="main")
        dry = await w.call("store.gc", dry_run=True)
        assert (dry.run, dry.blobs) == (None, 0)  # all of it is young
        later(clock, w, 8)
        dry = await w.call("store.gc", dry_run=True)
        assert (dry.blobs, dry.bytes) == (5, sum(file.stat().st_size for file in stored(w).values()))
        run = await done(w, "store.gc")
        assert (run.channel, run.result) == (None, {"blobs": 5, "bytes": dry.bytes})
        assert stored(w) == {}
        assert (await w.call("store.status")).blobs == 0


@pytest.mark.parametrize("mode", [pytest.param("active", marks=pytest.mark.deep), "passive"])
async def test_scrub_finds_flipped_files_and_they_come_again(tmp_path: Path, mode: str) -> None:
    async with world(tmp_path) as w:
        for number in range(20):
            w.source.add(PackageSpec(name=f"many{number}"))
        w.source.write()
        await w.mirror(mode)
        await w.run()
        if mode == "passive":
            assert (await done(w, "mirror.fill", mirror="main:m")).counts.active == 25
        right = {name: file.read_bytes() for name, file in stored(w).items()}
        for name in sorted(right)[:20]:
            flip(stored(w)[name])
        run = await done(w, "store.scrub")
        assert run.result is not None
        assert run.result["damaged"] == 20
        problems = [problem.text for problem in (await w.call("daemon.status")).health if problem.subject == "store"]
        assert problems
        assert problems[0].startswith("20 stored files")
        await runs_end(w)
        assert {name: file.read_bytes() for name, file in stored(w).items()} == right
        assert (await done(w, "store.scrub")).result["damaged"] == 0  # type: ignore[index]
        assert (await w.call("mirror.get", mirror="main:m")).stored == 25


async def test_a_run_of_an_active_mirror_brings_what_was_lost(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.mirror("active")
        await w.run()
        file = w.daemon.daemon.blobs.path(w.source.records["noarch"]["alpha-1.9-0.conda"]["sha256"])
        right = file.read_bytes()
        file.write_bytes(right[:-1])
        w.upstream.fail("noarch/alpha-1.9-0.conda", Fault(status=500), times=None)
        assert (await w.get("/repo/main/noarch/alpha-1.9-0.conda")).status == 502
        assert (await w.run()).state is RunState.INCOMPLETE
        w.upstream.heal()
        run = await w.run()
        assert (run.state, run.counts.active) == (RunState.COMPLETED, 1)
        assert file.read_bytes() == right


async def test_a_scrub_that_was_stopped_goes_on_where_it_was(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.mirror("active")
        await w.run()
        await w.daemon.daemon.db.write(
            lambda tx: tx.execute("INSERT INTO setting VALUES ('scrub position', '[\"rendered\", \"f0\"]')")
        )
        run = await done(w, "store.scrub")
        assert run.result is not None
        assert run.result["files"] < 5
        assert (await done(w, "store.scrub")).result["files"] > 10  # type: ignore[index]


async def test_a_scrub_comes_once_a_month(tmp_path: Path) -> None:
    clock = HastyClock()
    async with world(tmp_path, clock=clock) as w:
        for days in (0, 29, 2, 1):
            clock.shift_ms += days * DAY_MS
            await w.daemon.daemon.keepers.care.scrub_monthly()
        runs = (await w.call("run.list", kind="scrub")).items
        assert [(run.by, run.cause) for run in runs] == [("firthd", "schedule")]
        await runs_end(w)
        for days in (-365, 32):  # the clock had been ahead
            clock.shift_ms += days * DAY_MS
            await w.daemon.daemon.keepers.care.scrub_monthly()
        assert len((await w.call("run.list", kind="scrub")).items) == 2
        await runs_end(w)


async def test_fill_brings_all_or_what_specs_name(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.mirror("passive")
        await w.run()
        with pytest.raises(Invalid):
            await w.call("mirror.fill", mirror="main:m", specs=["alpha >>=1"])
        assert (await w.call("mirror.fill", mirror="main:m", dry_run=True)).run is None
        run = await done(w, "mirror.fill", mirror="main:m", specs=["alpha >=1.9,<2"])
        assert (run.kind, run.counts.active) == ("fill", 2)
        assert len(stored(w)) == 2
        run = await done(w, "mirror.fill", mirror="main:m")
        assert run.counts.active == 3
        assert len(stored(w)) == 5
        assert (await done(w, "mirror.fill", mirror="main:m")).counts.active == 0
        mirror = await w.call("mirror.get", mirror="main:m")
        assert (mirror.mode, mirror.stored) == ("passive", 5)


async def test_a_fill_and_a_run_of_one_mirror_do_not_work_at_once(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.mirror("passive")
        await w.run()
        never = asyncio.Event()
        w.upstream.fail("noarch/beta*", Fault(until=never), times=None)
        fill = (await w.call("mirror.fill", mirror="main:m")).run
        await w.upstream.arrived("noarch/beta*")
        run = (await w.call("mirror.run", mirror="main:m")).run
        waits = await w.call("run.wait", run=run.id, timeout=0.2)
        assert (waits.state, waits.waiting_for) == (RunState.PENDING, f"run {fill.id} of the same mirror")
        never.set()
        for one in (fill, run):
            assert (await w.daemon.ended(one.id)).state is RunState.COMPLETED


@asynccontextmanager
async def restored(folder: Path, copy: Path) -> AsyncIterator[tuple[Any, aiohttp.ClientSession]]:
    """Start a daemon on a copy of a state, in an empty folder."""
    await asyncio.to_thread(shutil.copytree, copy, folder / "state")
    async with in_process_daemon(folder, clock=HastyClock()) as daemon, aiohttp.ClientSession() as http:
        yield daemon, http


@pytest.mark.parametrize("mode", ["active", "passive"])
async def test_a_backup_on_an_empty_machine_serves_the_same_bytes(tmp_path: Path, mode: str) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    async with world(tmp_path / "a", token="s3cret") as w:
        await w.mirror(mode, credentials={"token": "s3cret"})
        assert (await w.run()).state is RunState.COMPLETED
        run = await done(w, "daemon.backup", path="first")
        assert run.result is not None
        copy = Path(run.result["path"])
        assert copy == w.daemon.state / "out" / "first"
        assert not any(b"s3cret" in file.read_bytes() for file in copy.rglob("*") if file.is_file())
        paths = [f"{part}/{name}" for part in ("noarch", "linux-64") for name in ("repodata.json", "repodata.json.zst")]
        paths += [f"{part}/{name}" for part in w.source.records for name in w.source.records[part]]
        right = {path: (await w.get(f"/repo/main/{path}")).body for path in paths}
        async with restored(tmp_path / "b", copy) as (daemon, http):
            mirror = await daemon.client.call("mirror.get", mirror="main:m")
            await daemon.client.call(
                "mirror.update", mirror="main:m", revision=mirror.revision, credentials={"token": "s3cret"}
            )
            for path, body in right.items():
                async with http.get(f"{daemon.url}/repo/main/{path}") as reply:
                    assert (reply.status, await reply.read()) == (200, body), path
            assert [
                one.text for one in (await daemon.client.call("daemon.status")).health if one.subject == "store"
            ] == []


async def test_what_a_killed_run_has_not_counted_is_counted(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.mirror("active")
        await w.run()
        right = await w.call("mirror.get", mirror="main:m")
        await w.daemon.daemon.db.write(lambda tx: tx.execute("UPDATE mirror SET artifacts = 66, stored = 65"))
        w.daemon.daemon.upkeep.note_named(False)
        await w.daemon.daemon.upkeep.round()
        found = await w.call("mirror.get", mirror="main:m")
        assert (found.artifacts, found.stored) == (right.artifacts, right.stored)


async def test_a_backup_goes_where_it_may_and_over_nothing(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        for path in ("/etc/firth", "../escaped", str(tmp_path), ".", ""):
            with pytest.raises(Exception) as caught:
                await w.call("daemon.backup", path=path)
            assert caught.type.__name__ in {"Invalid", "InvalidParams"}, path
        (w.daemon.state / "out" / "away").symlink_to(tmp_path)
        (w.daemon.state / "out" / "round").symlink_to("round")
        (w.daemon.state / "out" / "file").touch()
        for path in ("a\0b", "x" * 300, "x/" * 3000, "x" * 254, "round", "round/x", "file/x"):
            with pytest.raises((Invalid, InvalidParams, Conflict)):
                await w.call("daemon.backup", path=path)
        with pytest.raises(Invalid):
            await w.call("daemon.backup", path="away/x")
        assert (await w.call("daemon.backup", path="one", dry_run=True)).run is None
        await done(w, "daemon.backup", path="one")
        with pytest.raises(Conflict):
            await w.call("daemon.backup", path="one")
        half = w.daemon.state / "out" / "two.part"
        others = w.daemon.state / "out" / "three.part"
        for folder, file in ((half, "firth.sqlite"), (others, "thesis.odt")):
            folder.mkdir()
            (folder / file).touch()
        for path in ("two", "three", "../escaped"):  # as a daemon leaves them that is killed
            await w.daemon.daemon.db.write(
                lambda tx, path=path: tx.execute(  # type: ignore[misc]
                    "INSERT INTO run(kind, state, cause, by, params, created_at, error) VALUES ('backup', 'failed', '',"
                    ' \'\', json_object(\'path\', ?), 0, \'{"kind": "interrupted", "message": "", "hint": ""}\')',
                    (path,),
                )
            )
        with pytest.raises(Conflict):
            await w.call("daemon.backup", path="two")
        w.daemon.daemon.upkeep.note_named(False)
        await w.daemon.daemon.upkeep.round()
        assert (half.exists(), others.exists()) == (False, True)
        await done(w, "daemon.backup", path="two")
        with pytest.raises(NotFound):
            await w.call("run.get", run=99)
