"""A platform that is new at the source is found by the first scheduled run of a day, whatever else changes."""

from pathlib import Path

import pytest

from firth_protocol.types import RunState
from tests.support.conda import PackageSpec
from tests.support.daemon import HastyClock
from tests.support.world import world

DAY_MS = 86_400_000


@pytest.mark.parametrize("busy", [pytest.param(False, marks=pytest.mark.deep), True])
async def test_a_new_platform_is_found_within_a_day_by_schedule(tmp_path: Path, busy: bool) -> None:
    clock = HastyClock()
    async with world(tmp_path, clock=clock) as w:
        mirror = await w.mirror("passive")

        async def scheduled() -> int:
            before = len(w.upstream.requests)
            run = (await w.daemon.daemon.mirrors.run(mirror.id, "schedule", cause="schedule")).run
            assert run is not None
            assert (await w.daemon.ended(run.id)).state is RunState.COMPLETED
            return len(w.upstream.requests) - before

        await scheduled()
        clock.shift_ms += DAY_MS - clock.now_ms() % DAY_MS + 3_600_000  # one in the morning
        await scheduled()
        w.source.add(PackageSpec(name="mac", subdir="osx-arm64"))
        clock.shift_ms += 3_600_000
        if busy:
            w.source.add(PackageSpec(name="n1"))
        assert await scheduled() < 10  # it has been looked for today
        assert (await w.get("/repo/main/osx-arm64/repodata.json")).status == 404
        clock.shift_ms += DAY_MS
        if busy:
            w.source.add(PackageSpec(name="n2"), PackageSpec(name="l2", subdir="linux-64"))
        assert await scheduled() > 20
        assert (await w.get("/repo/main/osx-arm64/repodata.json")).status == 200
        clock.shift_ms += 3_600_000
        assert await scheduled() < 10
