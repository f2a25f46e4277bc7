"""Deleting mirrors: whatever their runs do meanwhile, no row of a mirror outlives it."""

import asyncio
from pathlib import Path

import pytest

from firth_protocol.errors import ChannelFrozen, FirthError, WrongState
from firth_protocol.types import Cause, RunKind, RunState
from firthd.store import catalog
from tests.support.upstream import Fault
from tests.support.world import World, world


async def rows_of(w: World, mirror: int) -> int:
    sql = "SELECT count(*) FROM artifact WHERE mirror_id = ? AND closed_set IS NULL"
    return int(await w.daemon.daemon.db.read(lambda r: r.value(sql, (mirror,))))


async def test_deleting_ends_every_run_of_the_mirror_those_that_wait_too(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        mirror = await w.mirror("active")
        never = asyncio.Event()
        w.upstream.fail("noarch/beta*", Fault(until=never), times=None)
        first = (await w.call("mirror.run", mirror=mirror.id)).run
        await w.upstream.arrived("noarch/beta*")
        second = (await w.call("mirror.restart", mirror=mirror.id)).run
        await w.call("mirror.delete", mirror=mirror.id, confirm="m", packages="keep")
        never.set()
        for run in (first, second):
            assert (await w.daemon.ended(run.id)).state is RunState.STOPPED
        for run in (await w.call("run.list", channel="main")).items:
            await w.daemon.ended(run.id)
        assert await rows_of(w, mirror.id) == 0


async def test_no_run_starts_while_its_mirror_is_deleted(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        mirror = await w.mirror("passive")
        await w.run()

        async def keep_running() -> None:
            while True:
                await w.call("mirror.run", mirror=mirror.id)

        runner = asyncio.create_task(keep_running())
        await w.call("mirror.delete", mirror=mirror.id, confirm="m", packages="remove")
        with pytest.raises(FirthError):
            await runner
        for run in (await w.call("run.list", channel="main")).items:
            await w.daemon.ended(run.id)
        assert await rows_of(w, mirror.id) == 0
        assert await w.names() == set()


async def test_the_generation_says_that_a_removal_made_it(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        mirror = await w.mirror("passive")
        await w.run()
        reply = await w.call("mirror.delete", mirror=mirror.id, confirm="m", packages="remove")
        assert (await w.daemon.ended(reply.run.id)).state is RunState.COMPLETED
        newest = (await w.call("channel.generations", channel="main")).items[0]
        assert (newest.cause, newest.removed) == (Cause.REMOVAL, 5)


async def test_a_frozen_channel_keeps_its_mirrors(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        mirror = await w.mirror("passive")
        await w.run()
        await w.call("channel.freeze", channel="main")
        with pytest.raises(ChannelFrozen):
            await w.call("mirror.delete", mirror=mirror.id, confirm="m", packages="remove")
        assert await rows_of(w, mirror.id) == 5


async def test_deleting_twice_at_once_is_refused_the_second_time(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        mirror = await w.mirror("passive")
        await w.run()
        replies = await asyncio.gather(
            *(w.call("mirror.delete", mirror=mirror.id, confirm="m", packages="remove") for _ in range(2)),
            return_exceptions=True,
        )
        refused = [reply for reply in replies if isinstance(reply, BaseException)]
        assert len(refused) == 1
        assert isinstance(refused[0], FirthError)
        assert not isinstance(refused[0], WrongState) or "is being deleted" in refused[0].message
        (run,) = [reply.run for reply in replies if not isinstance(reply, BaseException)]
        assert (await w.daemon.ended(run.id)).generation == 3


async def test_mirrors_of_one_channel_that_go_at_once_hand_each_file_over_once(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        names = ("a", "b", "c")
        for name in names:
            await w.mirror("active", name=name)
            await w.run(f"main:{name}")
        replies = await asyncio.gather(
            *(w.call("mirror.delete", mirror=f"main:{name}", confirm=name, packages="keep") for name in names)
        )
        assert [(reply.kept, reply.dropped) for reply in replies] == [(5, 0)] * 3
        for reply in replies:
            await w.daemon.ended(reply.run.id)
        assert await rows_of(w, 0) == 5
        totals = (await w.call("channel.get", channel="main")).families[0]
        assert (totals.artifacts, totals.stored) == (5, 5)


async def test_keeping_a_file_again_changes_nothing_for_clients(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        generations = []
        for _ in range(3):
            await w.mirror("active")
            await w.run()
            reply = await w.call("mirror.delete", mirror="main:m", confirm="m", packages="keep")
            assert (reply.kept, reply.dropped) == (5, 0)
            await w.daemon.ended(reply.run.id)
            channel = await w.call("channel.get", channel="main")
            assert (channel.families[0].artifacts, channel.families[0].stored) == (5, 5)
            generations.append(channel.generation)
        assert len(set(generations)) == 1
        package = await w.call("package.get", channel="main", family="conda", name="beta")
        assert len(package.files) == 1


async def test_a_deletion_is_a_run_and_is_taken_up_again_when_that_came_to_no_end(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        mirror = await w.mirror("passive")
        await w.run()
        reply = await w.call("mirror.delete", mirror=mirror.id, confirm="m", packages="remove")
        assert (reply.run.kind, reply.kept, reply.dropped) == (RunKind.DELETE, 0, 5)
        assert (await w.call("mirror.list", channel="main")).items == []
        run = await w.daemon.ended(reply.run.id)
        assert (run.state, run.result) == (RunState.COMPLETED, {"kept": 0, "dropped": 5})

        second = await w.mirror("passive", name="second")
        await w.run("main:second")
        await w.daemon.daemon.db.write(lambda tx: catalog.mark_mirror_deleted(tx, second.id, 1))  # and its run was lost
        await w.daemon.daemon.upkeep.round()
        newest = (await w.call("run.list", channel="main")).items[0]
        assert (newest.kind, newest.by) == (RunKind.DELETE, "firthd")
        assert (await w.daemon.ended(newest.id)).state is RunState.COMPLETED
        assert await rows_of(w, second.id) == 0
        assert await w.names() == set()
        await w.daemon.daemon.upkeep.round()
        assert (await w.call("run.list", channel="main")).items[0].id == newest.id
