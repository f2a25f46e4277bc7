"""A stop ends a run within five seconds in whichever of its steps it comes, and the next run makes up for it."""

import asyncio
import time
from pathlib import Path

import pytest

from firth_protocol.types import RunState, StepName, StepState
from tests.support.conda import PackageSpec
from tests.support.upstream import Fault
from tests.support.world import World, world

pytestmark = [pytest.mark.deep, pytest.mark.timeout(300)]

STOP_S = 5.0
FILES = 40


async def reaches(w: World, run: int, step: StepName) -> StepState:
    """Wait until a run is in a step, or beyond it where there is nothing to do in it; return the step's state."""
    async with asyncio.timeout(60):
        while True:
            live = w.daemon.daemon.queue.live(run)
            if live is not None:
                state = next(one.state for one in live.snapshot().steps if one.name is step)
                if state is not StepState.WAITING:
                    return state
            await asyncio.sleep(0)


@pytest.mark.parametrize("step", list(StepName))
async def test_a_run_is_stopped_in_each_step(tmp_path: Path, step: StepName) -> None:
    async with world(tmp_path) as w:
        w.source.add(*(PackageSpec(name=f"p{number}") for number in range(FILES)))
        await w.mirror("active")
        if step is StepName.FETCH_INDEX:
            w.upstream.fail("*repodata*", Fault(until=asyncio.Event()), times=None)
        if step is StepName.DOWNLOAD:
            w.upstream.fail("*.conda", Fault(drip=asyncio.Semaphore(0)), times=None)
        run = (await w.call("mirror.run", mirror="main:m")).run.id
        seen = await reaches(w, run, step)
        began = time.perf_counter()
        await w.daemon.daemon.queue.stop(run)
        ended = await w.daemon.ended(run)
        took = time.perf_counter() - began
        print(f"{step}: {seen}, {ended.state} after {took:.3f} s")
        assert took < STOP_S
        assert ended.state is RunState.STOPPED
        w.upstream.heal()
        assert (await w.run()).state is RunState.COMPLETED
        assert len(await w.names()) == FILES + 5
