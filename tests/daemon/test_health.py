"""What is wrong, and who is told of it."""

import asyncio
from pathlib import Path

from firth_protocol.types import Role, RunState
from firthd.access import Caller
from firthd.config import RunSettings
from firthd.health import WAITS_TOLD_MS
from tests.support.daemon import HastyClock, settings_in
from tests.support.upstream import Fault
from tests.support.web import until
from tests.support.world import world


async def test_what_is_wrong_is_told_to_those_who_see_the_channel(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.mirror("passive")
        w.upstream.fail("*", Fault(status=500), times=None)
        await w.run()
        status = w.daemon.daemon.health.status
        theirs = await status(Caller(uid=1, pid=1, user="a", role=Role.READER, channels=("main",)))
        others = await status(Caller(uid=2, pid=2, user="b", role=Role.READER, channels=("other",)))
        assert [problem.subject for problem in theirs.health] == ["mirror main:m"]
        assert others.health == []
        host = w.upstream.url.removeprefix("http://")
        everything = await status(Caller(uid=3, pid=3, user="c", role=Role.READER))
        assert [one.host for one in theirs.upstreams] == [one.host for one in everything.upstreams] == [host]
        assert others.upstreams == []
        assert theirs.upstreams[0].failures == everything.upstreams[0].failures > 0
        assert (theirs.upstreams[0].failure, everything.upstreams[0].failure) == ("", f"{host} answered 500")
        facts = await w.daemon.daemon.db.read(
            lambda r: r.rows("SELECT channel FROM event WHERE type = 'health_changed' OR type LIKE '%health%'")
        )
        assert facts == [("main",)]


async def test_what_was_wrong_with_a_mirror_goes_with_it(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        mirror = await w.mirror("passive")
        w.upstream.fail("*", Fault(status=500), times=None)
        await w.run()
        health = w.daemon.daemon.health
        await health.forget_gone()
        assert [problem.subject for problem in await health.health()] == ["mirror main:m"]
        mirror = await w.call("mirror.get", mirror=mirror.id)
        await w.call("mirror.update", mirror=mirror.id, revision=mirror.revision, name="renamed")
        await health.forget_gone()
        assert await health.health() == []


async def test_a_run_that_waits_for_a_place_is_said_to_those_who_see_it(tmp_path: Path) -> None:
    async with world(tmp_path, settings=settings_in(tmp_path, runs=RunSettings(max_active=1))) as w:
        await w.mirror("active")
        await w.call("channel.create", name="other")
        await w.mirror("active", channel="other")
        gate = asyncio.Event()
        w.upstream.fail("noarch/beta*", Fault(until=gate))
        first = (await w.call("mirror.run", mirror="main:m")).run
        await w.upstream.arrived("noarch/beta*")
        second = (await w.call("mirror.run", mirror="other:m")).run
        status = w.daemon.daemon.health.status
        all_of_it = Caller(uid=1, pid=1, user="a", role=Role.READER)
        await until(lambda: bool(w.daemon.daemon.queue.waiting()))
        assert (await status(all_of_it)).health == []  # a moment is nothing to be told
        clock = w.daemon.daemon._clock
        assert isinstance(clock, HastyClock)
        clock.shift_ms += WAITS_TOLD_MS
        [told] = (await status(all_of_it)).health
        assert told.subject == "runs"
        assert told.text == (f"run {second.id} of other:m waits for a free place: 1 runs work at once (now {first.id})")
        assert (await status(Caller(uid=2, pid=2, user="b", role=Role.READER, channels=("main",)))).health == []
        gate.set()
        assert (await w.daemon.ended(second.id)).state is RunState.COMPLETED
        assert (await status(all_of_it)).health == []
