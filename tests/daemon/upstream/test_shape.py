"""Bytes from sources are held to a rate: per mirror and in common, fair between mirrors, without anybody in the way."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from firthd.config import UpstreamSettings
from firthd.upstream.client import Source, Upstream
from firthd.upstream.hosts import Lane
from firthd.upstream.shape import Hours, RateLimit, Shaper, parse_hours
from tests.support.clock import START_MS, FakeClock
from tests.support.upstream import FaultyUpstream

CHUNK = 1000
Stream = Callable[[Counter[str]], Coroutine[None, None, None]]


@asynccontextmanager
async def flows(*streams: Stream) -> AsyncIterator[Counter[str]]:
    """Let streams bring chunks without an end, counted by name."""
    came: Counter[str] = Counter()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(stream(came)) for stream in streams]
        yield came
        for task in tasks:
            task.cancel()


def stream(shaper: Shaper, name: str, limit: RateLimit, lane: Lane = Lane.RUN) -> Stream:
    async def bring(came: Counter[str]) -> None:
        while True:
            await shaper.passed(limit, lane, CHUNK)
            came[name] += CHUNK
            await asyncio.sleep(0)

    return bring


async def test_a_mirror_keeps_to_its_rate_and_no_other_is_held() -> None:
    clock = FakeClock()
    shaper = Shaper(clock)
    slow, other = RateLimit(who=1, bytes_s=10_000), RateLimit(who=2, bytes_s=50_000)
    streams = [stream(shaper, "slow", slow) for _ in range(3)] + [stream(shaper, "other", other)]
    async with flows(*streams) as came:
        await clock.asleep(2)
        await clock.advance(10)
        assert came["slow"] == pytest.approx(100_000, abs=4 * CHUNK)
        assert came["other"] == pytest.approx(500_000, abs=4 * CHUNK)


async def test_clients_have_half_of_what_runs_would_take_and_mirrors_share_alike() -> None:
    clock = FakeClock()
    shaper = Shaper(clock, 60_000)
    one, two = RateLimit(who=1), RateLimit(who=2, bytes_s=1_000_000)
    streams = [stream(shaper, "run", one) for _ in range(9)] + [stream(shaper, "two", two)]
    async with flows(*streams, stream(shaper, "client", one, Lane.CLIENT)) as came:
        await clock.asleep()
        await clock.advance(9)
        for name in ("run", "two", "client"):
            assert came[name] == pytest.approx(180_000, rel=0.05), came


async def test_who_leaves_holds_nobody_up() -> None:
    clock = FakeClock()
    shaper = Shaper(clock)
    limit = RateLimit(who=1, bytes_s=10_000)
    holds = asyncio.create_task(shaper.passed(limit, Lane.RUN, 10_000_000))  # a thousand seconds
    waits = asyncio.create_task(shaper.passed(limit, Lane.RUN, CHUNK))
    await clock.asleep()
    last = asyncio.create_task(shaper.passed(limit, Lane.CLIENT, CHUNK))
    await asyncio.sleep(0)
    waits.cancel()
    holds.cancel()
    await asyncio.gather(waits, holds, return_exceptions=True)
    await clock.advance(1)
    assert last.done()
    assert last.exception() is None


async def test_a_rate_holds_in_its_hours_only() -> None:
    clock = FakeClock(START_MS + 17 * 3_600_000 + 3_599_000)  # a second before 18:00
    shaper = Shaper(clock, 10_000, parse_hours("8-18"))
    held = asyncio.create_task(shaper.passed(RateLimit(), Lane.RUN, 10_000))
    await clock.asleep()
    await clock.advance(1.2)
    assert held.done()
    for _ in range(1000):
        await shaper.passed(RateLimit(), Lane.RUN, 1_000_000)


@pytest.mark.parametrize(
    ("text", "hours"),
    [("8-18", range(8, 18)), ("22-6", [22, 23, *range(6)]), ("0-24", range(24)), ("7-7", range(24)), ("08-09", [8])],
)
def test_hours_of_the_day(text: str, hours: list[int]) -> None:
    found = parse_hours(text)
    assert isinstance(found, Hours)
    assert [hour for hour in range(24) if found.hold(START_MS + hour * 3_600_000)] == sorted(hours)


async def test_a_body_comes_at_the_mirrors_rate_and_is_not_called_slow(server: FaultyUpstream, tmp_path: Path) -> None:
    clock = FakeClock(auto=True)
    server.files["x"] = b"x" * 300_000
    upstream = Upstream(UpstreamSettings(timeout_s=5), clock)
    await upstream.start()
    try:
        source = Source(url=server.url, limit=RateLimit(who=1, bytes_s=100_000))
        async with upstream.open(source, "x") as body:
            chunks = [len(chunk) async for chunk in body]
            assert sum(chunks) == 300_000
            assert max(chunks) <= 25_000  # a client sees it flow
        assert clock.monotonic() == pytest.approx(3, abs=0.3)
        folder = Source(url=tmp_path.as_uri(), limit=RateLimit(who=1, bytes_s=1))  # no line to be held to
        (tmp_path / "x").write_bytes(b"x" * 1000)
        async with upstream.open(folder, "x") as body:
            assert sum([len(chunk) async for chunk in body]) == 1000
        assert clock.monotonic() < 4
    finally:
        await upstream.close()
