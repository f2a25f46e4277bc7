"""What only dropped generations showed is forgotten; what is kept serves, lists and goes back as it did before."""

import random
from pathlib import Path
from typing import Any

import pytest

from firth_protocol.types import RunState
from firthd.channels.history import History
from firthd.config import StoreSettings
from tests.support.conda import PackageSpec
from tests.support.daemon import HastyClock
from tests.support.served import get, rows, variants
from tests.support.world import World, world

pytestmark = [pytest.mark.deep, pytest.mark.e2e, pytest.mark.timeout(600)]

RUNS = 30
DAY_MS = 86_400_000


async def everything(w: World, kept: list[int]) -> dict[str, Any]:
    """Return what clients and lists are told of each kept generation, with a file of each."""
    found: dict[str, Any] = {}
    for number in kept:
        found[f"index {number}"] = await variants(w.daemon.url, f"/snapshot/{number}/main")
        changes = await w.call("channel.changes", channel="main", generation=number, limit=1000)
        found[f"changes {number}"] = sorted((one.change, one.filename) for one in changes.items)
        for name in sorted(await w.records("noarch"))[:3]:
            reply = await get(w.daemon.url, f"/snapshot/{number}/main/noarch/{name}")
            found[f"{number} {name}"] = (reply.status, reply.body)
    return found


async def test_what_no_kept_generation_shows_goes_and_nothing_else(tmp_path: Path) -> None:
    chance, clock = random.Random(5), HastyClock()
    async with world(tmp_path, clock=clock) as w:
        live = [f"n{number}" for number in range(40)]
        w.source.add(*(PackageSpec(name=name) for name in live))
        await w.mirror("active")
        for number in range(RUNS):
            for name in chance.sample(live, 5):
                live.remove(name)
                w.source.remove("noarch", f"{name}-1.0-0.conda")
            fresh = [f"r{number}-{one}" for one in range(5)]
            live += fresh
            w.source.add(*(PackageSpec(name=name) for name in fresh))
            assert (await w.run()).state is RunState.COMPLETED
            clock.shift_ms += DAY_MS // 6
        state, daemon = w.daemon.state, w.daemon.daemon
        kept = [number for (number,) in rows(state, "SELECT number FROM generation WHERE kept ORDER BY number")]
        assert len(kept) < RUNS
        before, rows_before = await everything(w, kept), rows(state, "SELECT count(*) FROM artifact")[0][0]

        clock.shift_ms += 8 * DAY_MS
        settings = StoreSettings(runs_days=1)
        await History(daemon.db, clock, settings).forget_generations()
        assert rows(state, "SELECT count(*) FROM artifact")[0][0] < rows_before
        assert await everything(w, kept) == before
        held = await w.call("store.status")
        await daemon.queue.wait((await w.call("store.gc")).run.id)
        assert await everything(w, kept) == before
        assert held.unneeded == 0 or (await w.call("store.status")).unneeded <= held.unneeded

        # Back to the oldest, on to the present, and another run: as if nothing had been forgotten.
        oldest = kept[1]
        run = (await w.call("channel.rollback", channel="main", generation=oldest)).run
        assert (await w.daemon.ended(run.id)).state is RunState.COMPLETED
        assert await variants(w.daemon.url) == before[f"index {oldest}"]
        reply = await w.call("channel.unfreeze", channel="main")
        if reply.run is not None:
            assert (await w.daemon.ended(reply.run.id)).state is RunState.COMPLETED
        w.source.add(PackageSpec(name="last"))
        assert (await w.run()).state is RunState.COMPLETED
        names = await w.names(subdirs=("noarch",))
        assert names >= {f"{name}-1.0-0.conda" for name in [*live, "last"]}
        digest = (await w.call("channel.generations", channel="main", limit=1)).items[0].digest

    async with world(tmp_path / "other") as other:
        other.source.records.clear()
        other.source.records.update(w.source.records)
        other.source.write()
        await other.mirror("passive")
        await other.run()
        assert (await other.call("channel.generations", channel="main", limit=1)).items[0].digest == digest
