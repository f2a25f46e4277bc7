"""Mirrors that are overdue, and the numbers of each mirror for a scraper."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from firth_protocol.types import MirrorMode, MirrorType, OnUpstreamRemoval, Privacy, Role, RunState
from firthd.access import Caller
from firthd.clock import from_rfc3339
from firthd.freshness import Freshness, samples
from firthd.scheduler import CronSchedules
from firthd.store import catalog
from firthd.store.database import Database
from tests.support.clock import FakeClock
from tests.support.daemon import HastyClock
from tests.support.upstream import Fault
from tests.support.world import World, world

DAY_S, HOUR_S = 86_400, 3600


@asynccontextmanager
async def mirrors(folder: Path, **fields: dict[str, Any]) -> AsyncIterator[tuple[Database, FakeClock]]:
    """Give a state with mirrors by name, as they are at 2026-05-01T00:00:00Z; `note` sets what runs leave."""
    clock = FakeClock()
    db = await Database.open(folder / "firth.sqlite", clock)
    now = clock.now_ms()
    try:
        channel_id = await db.write(
            lambda tx: catalog.insert_channel(
                tx,
                name="main",
                parent_id=None,
                description="",
                privacy=Privacy.PUBLIC,
                keep_days=1,
                keep_months=1,
                now_ms=now,
            )
        )
        for name, given in fields.items():
            note = given.pop("note", {})
            row = {
                "channel_id": channel_id,
                "name": name,
                "type": MirrorType.CONDA,
                "mode": MirrorMode.PASSIVE,
                "source": "http://127.0.0.1:1",
                "schedule": "0 0 * * *",
                "filters": "{}",
                "on_upstream_removal": OnUpstreamRemoval.FOLLOW,
            } | given
            mirror = await db.write(lambda tx, row=row: catalog.insert_mirror(tx, row, now))  # type: ignore[misc]
            if note:
                await db.write(lambda tx, one=mirror, note=note: catalog.note_mirror(tx, one, note))  # type: ignore[misc]
        yield db, clock
    finally:
        await db.close()


async def test_a_mirror_is_overdue_when_its_schedule_says_so(tmp_path: Path) -> None:
    async with mirrors(
        tmp_path,
        daily={},
        hourly={"schedule": "0 * * * *"},
        monthly={"schedule": "0 0 1 * *"},
        off={"enabled": 0},
        never={"schedule": "0 0 30 2 *"},
    ) as (db, clock):
        fresh = Freshness(db, clock, CronSchedules())

        async def overdue() -> list[str]:
            return [one.mirror.name for one in await fresh.overdue()]

        assert await overdue() == []
        await clock.advance(2 * HOUR_S - 1)
        assert await overdue() == []
        await clock.advance(2)
        assert await overdue() == ["hourly"]
        await clock.advance(DAY_S + 10 * HOUR_S - 2)
        assert await overdue() == ["hourly"]
        await clock.advance(2)
        assert await overdue() == ["daily", "hourly"]  # half the time to the next one has passed
        await clock.advance(30 * DAY_S + 12 * HOUR_S)
        assert await overdue() == ["daily", "hourly", "monthly"]  # a day after the first of the next month
        [daily, *_] = await fresh.overdue()
        assert daily.text == "no run has ever succeeded, and one was due at 2026-05-02T00:00:00.000Z (0 0 * * *)"
        now = clock.now_ms()
        await db.write(lambda tx: catalog.note_mirror(tx, daily.mirror.id, {"last_success_at": now}))
        assert await overdue() == ["hourly", "monthly"]
        restarted = Freshness(db, clock, CronSchedules())
        assert await restarted.overdue() == []  # what was missed runs first
        await clock.advance(HOUR_S + 1)
        assert [one.mirror.name for one in await restarted.overdue()] == ["hourly", "monthly"]


async def test_a_success_of_a_clock_that_was_ahead_lets_no_mirror_count_as_fresh(tmp_path: Path) -> None:
    year_ms = 365 * DAY_S * 1000
    async with mirrors(tmp_path, m={"note": {"last_success_at": from_rfc3339("2026-05-01T00:00:00Z") + year_ms}}) as (
        db,
        clock,
    ):
        fresh = Freshness(db, clock, CronSchedules())
        assert await fresh.overdue() == []
        await clock.advance(2 * DAY_S)
        assert [one.mirror.name for one in await fresh.overdue()] == ["m"]


def by_name(found: Any) -> dict[str, float]:
    return {sample.name.removeprefix("firth_mirror_"): sample.value for sample in found}


async def test_the_numbers_of_a_mirror(tmp_path: Path) -> None:
    at = from_rfc3339("2026-05-01T00:00:00Z")
    noted = {"artifacts": 10, "stored": 4, "bytes": 1000, "bytes_stored": 400, "last_success_at": at - 60_000}
    async with mirrors(
        tmp_path,
        fresh={"note": noted | {"source_time": at - 9000, "source_seen": at - 9000}},
        behind={"note": {"state": RunState.FAILED, "source_time": at - 9000, "source_seen": at - 5000}},
    ) as (db, clock):
        fresh, behind = await db.read(catalog.all_mirrors)
        assert by_name(samples(fresh, clock.now_ms(), overdue=False)) == {
            "state": 1,
            "enabled": 1,
            "overdue": 0,
            "artifacts": 10,
            "missing": 6,
            "bytes": 1000,
            "stored_bytes": 400,
            "success_age_seconds": 60,
            "lag_seconds": 0,
            "source_time_seconds": at / 1000 - 9,
        }
        numbers = by_name(samples(behind, clock.now_ms(), overdue=True))
        assert (numbers["overdue"], numbers["lag_seconds"]) == (1, 5)
        assert "success_age_seconds" not in numbers
        assert samples(behind, 0, overdue=True)[0].labels == {
            "channel": "main",
            "mirror": "behind",
            "mode": "passive",
            "state": "failed",
        }


async def scraped(w: World) -> str:
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(w.daemon.socket))) as http,
        http.get("http://firth/metrics") as reply,
    ):
        return await reply.text()


async def test_the_first_scrape_is_true_and_every_later_one_is(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.call("channel.create", name="hidden", privacy="private")
        await w.mirror("passive", channel="hidden")
        await w.mirror("active")
        body = (await w.get("/metrics")).body.decode()
        assert 'firth_mirror_state{channel="main",mirror="m",mode="active",state="pending"} 1.0' in body
        assert "firth_mirrors 2.0" in body
        assert "hidden" not in body  # any program of this machine may read it
        await w.run()
        clock = w.daemon.daemon._clock
        async with _looks_again(clock):
            told = await scraped(w)
        assert 'state="completed"} 1.0' in told
        assert 'firth_mirror_missing{channel="main",mirror="m"} 0.0' in told
        assert 'firth_mirror_lag_seconds{channel="main",mirror="m"} 0.0' in told
        assert 'channel="hidden"' in told  # the daemon's own user may see it
        few = await w.daemon.daemon.health.metrics(
            Caller(uid=1, pid=1, user="a", role=Role.READER, channels=("hidden",)).sees
        )
        assert b'channel="hidden"' in few
        assert b'channel="main"' not in few


@asynccontextmanager
async def _looks_again(clock: Any) -> AsyncIterator[None]:
    """Numbers hold for a second."""
    started = clock.monotonic()
    while clock.monotonic() - started < 1.0:
        await clock.sleep(5)
    yield


async def test_health_names_what_is_overdue_until_a_run_has_succeeded(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.mirror("passive", schedule="0 0 * * *")
        health, clock = w.daemon.daemon.health, w.daemon.daemon._clock
        assert isinstance(clock, HastyClock)
        w.upstream.fail("*", Fault(status=500), times=None)
        await health.note_overdue()
        assert await health.health() == []
        clock.shift_ms += 3 * DAY_S * 1000
        await health.note_overdue()
        await health.note_overdue()
        told = [one for one in await health.health() if one.subject.startswith("schedule")]
        assert [one.subject for one in told] == ["schedule of main:m"]
        assert told[0].text.startswith("no run has ever succeeded, and one was due at")
        others = Caller(uid=2, pid=2, user="b", role=Role.READER, channels=("other",))
        assert (await health.status(others)).health == []
        w.upstream.heal()
        while (await w.run()).state is not RunState.COMPLETED:  # one of the schedule may have failed meanwhile
            pass
        assert await health.health() == []
        facts = await w.daemon.daemon.db.read(
            lambda r: r.rows("SELECT data FROM event WHERE type LIKE '%health%' AND data LIKE '%schedule of%'")
        )
        assert len(facts) == 2


async def test_a_run_that_lacked_some_artifacts_counts_as_one(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.mirror("active", schedule="0 0 * * *")
        clock = w.daemon.daemon._clock
        assert isinstance(clock, HastyClock)
        clock.shift_ms += 3 * DAY_S * 1000
        w.upstream.fail("noarch/beta*", Fault(status=404), times=None)
        assert (await w.run()).state is RunState.INCOMPLETE
        health = w.daemon.daemon.health
        await health.note_overdue()
        assert [one.subject for one in await health.health()] == ["mirror main:m"]


async def test_a_source_that_is_ahead_is_told_until_what_it_has_is_taken_in(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.mirror("passive")
        assert (await w.run()).state is RunState.COMPLETED
        [before] = await w.daemon.daemon.db.read(catalog.all_mirrors)
        assert before.source_time == before.source_seen is not None
        for filename in list(w.source.records["noarch"]):
            w.source.remove("noarch", filename)
        w.upstream.changed_ms += 5000
        assert (await w.run()).error.kind == "shrink_guard"  # type: ignore[union-attr]
        [ahead] = await w.daemon.daemon.db.read(catalog.all_mirrors)
        assert (ahead.source_time, ahead.source_seen) == (before.source_time, (before.source_seen or 0) + 5000)
        assert by_name(samples(ahead, (ahead.source_seen or 0) + 7000, overdue=False))["lag_seconds"] == 7
        await w.run(accept_removals=True)
        [after] = await w.daemon.daemon.db.read(catalog.all_mirrors)
        assert after.source_time == after.source_seen == ahead.source_seen
