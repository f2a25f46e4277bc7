"""What the source has not is looked for once a day by schedule, and that is written down though nothing is new."""

from pathlib import Path

from firth_protocol.types import Run
from tests.support.daemon import HastyClock
from tests.support.world import World, world

DAY_MS = 86_400_000


async def scheduled(w: World, mirror: int) -> tuple[Run, int]:
    """Run a mirror as its schedule does; return the run and how many subdirs and files were asked for."""
    w.upstream.requests.clear()
    run = (await w.daemon.daemon.mirrors.run(mirror, "schedule")).run
    assert run is not None
    return await w.daemon.ended(run.id), len(w.upstream.requests)


async def test_a_look_for_absent_parts_is_written_down_though_nothing_is_new(tmp_path: Path) -> None:
    clock = HastyClock()
    async with world(tmp_path, clock=clock) as w:
        mirror = (await w.mirror("passive")).id
        await w.run()
        _, usual = await scheduled(w, mirror)
        clock.shift_ms += DAY_MS
        run, looked = await scheduled(w, mirror)
        assert (run.generation, looked > usual) == (None, True)
        assert (await scheduled(w, mirror))[1] == usual
