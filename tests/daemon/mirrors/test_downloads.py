"""In which order a run brings its files."""

import asyncio
import random
from pathlib import Path

from firth_protocol.types import RunState
from firthd.mirrors.transfer import LARGE_BYTES
from tests.support.upstream import Fault
from tests.support.world import plain, world


async def test_what_takes_long_begins_first(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.source.add(*[plain(f"small-{number:02}") for number in range(40)])
        (large,) = w.source.add(plain("z-large", content=random.Random(1).randbytes(LARGE_BYTES).hex()))
        assert len(large.body) > LARGE_BYTES
        await w.mirror()
        gate = asyncio.Event()
        w.upstream.fail("noarch/small-*", Fault(until=gate), times=None)
        running = asyncio.create_task(w.run())
        await w.upstream.arrived(f"noarch/{large.filename}")  # while all other places are taken
        gate.set()
        assert (await running).state is RunState.COMPLETED
