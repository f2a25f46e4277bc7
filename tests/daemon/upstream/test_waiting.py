"""Host budgets, pauses that hosts ask for, and the rate."""

import asyncio

import pytest

from firthd.upstream.failures import retry_after_s
from firthd.upstream.hosts import Held, Hosts, Lane, lane_limit
from firthd.upstream.rate import Meter, Pace
from firthd.upstream.source import Validators
from firthd.upstream.spool import strong
from tests.support.clock import START_MS, FakeClock, settle


async def test_a_host_never_has_more_than_its_budget_and_others_go_on() -> None:
    hosts = Hosts(2, FakeClock())
    inside: list[str] = []
    leave = asyncio.Event()

    async def use(host: str) -> None:
        async with hosts.slot(host, patience_s=10):
            inside.append(host)
            await leave.wait()

    async with asyncio.TaskGroup() as group:
        for host in ("a", "a", "a", "b"):
            group.create_task(use(host))
        await settle()
        assert sorted(inside) == ["a", "a", "b"]
        leave.set()
    assert sorted(inside) == ["a", "a", "a", "b"]


async def test_a_pause_holds_everybody_who_stands_in_the_queue() -> None:
    clock = FakeClock()
    hosts = Hosts(1, clock)
    entered: list[float] = []

    async def use() -> None:
        async with hosts.slot("a", patience_s=60):
            entered.append(clock.monotonic())

    async with asyncio.TaskGroup() as group:
        async with hosts.slot("a", patience_s=60):
            group.create_task(use())
            group.create_task(use())
            await settle()
            hosts.hold("a", 30)
        await clock.asleep(1)
        assert entered == []
        await clock.advance(29)
        assert entered == []
        await clock.advance(1)
    assert entered == [30.0, 30.0]


async def test_a_pause_beyond_the_callers_patience_is_told_at_once() -> None:
    hosts = Hosts(1, FakeClock())
    hosts.hold("a", 30)
    with pytest.raises(Held) as held:
        async with hosts.slot("a", patience_s=10):
            pass
    assert held.value.seconds == 30
    async with hosts.slot("b", patience_s=10):
        pass


async def test_a_cancelled_waiter_leaves_its_place() -> None:
    hosts = Hosts(1, FakeClock())

    async def use() -> None:
        async with hosts.slot("a", patience_s=10):
            pass

    async with hosts.slot("a", patience_s=10):
        waiting = asyncio.create_task(use())
        await settle()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    await asyncio.wait_for(use(), 1)


async def test_no_lane_has_all_connections_and_an_index_comes_first() -> None:
    hosts = Hosts(16, FakeClock())
    inside: list[Lane] = []
    leave: dict[Lane, asyncio.Event] = {lane: asyncio.Event() for lane in Lane}

    async def use(lane: Lane) -> None:
        async with hosts.slot("a", patience_s=10, lane=lane):
            inside.append(lane)
            await leave[lane].wait()
        inside.remove(lane)

    async with asyncio.TaskGroup() as group:
        for _ in range(40):  # two runs
            group.create_task(use(Lane.RUN))
        await settle()
        assert len(inside) == 14
        for lane in (Lane.CLIENT, Lane.CLIENT, Lane.CLIENT, Lane.INDEX):
            group.create_task(use(lane))
        await settle()
        assert sorted(inside) == [Lane.CLIENT] * 2 + [Lane.RUN] * 14
        leave[Lane.CLIENT].set()
        await settle()
        assert (inside.count(Lane.INDEX), inside.count(Lane.CLIENT)) == (1, 0)
        for event in leave.values():
            event.set()
    assert inside == []
    assert [lane_limit(limit) for limit in (1, 2, 3, 4, 16, 256)] == [1, 2, 3, 3, 14, 254]


async def test_a_waiter_cancelled_as_it_is_served_hands_its_place_on() -> None:
    hosts = Hosts(1, FakeClock())
    leave = asyncio.Event()

    async def use() -> None:
        async with hosts.slot("a", patience_s=10):
            await leave.wait()

    first = asyncio.create_task(use())
    await settle()
    second, third = asyncio.create_task(use()), asyncio.create_task(use())
    await settle()
    leave.set()
    await asyncio.wait([first])
    second.cancel()  # its turn has come, and it has not run since
    await asyncio.wait_for(third, 1)


def test_a_pace_is_judged_over_a_whole_window_only() -> None:
    pace = Pace(60)
    pace.add(0, 0)
    assert not pace.below(59.9, 1000)
    assert pace.below(60, 1000)
    pace.add(60, 59_999)
    assert pace.below(61, 1000)
    pace.add(61, 1)
    assert not pace.below(61, 1000)
    assert not pace.below(120, 1000)
    assert pace.below(121, 1000)
    for second in range(121, 100_000):
        pace.add(second, 1000)
    assert not pace.below(100_000, 999)
    assert len(pace._marks) <= 62


async def test_the_rate_is_that_of_the_last_five_seconds_or_since_the_flow_began() -> None:
    clock = FakeClock()
    meter = Meter(clock)
    assert meter.bytes_s() == 0
    meter.add(1000)
    meter.add(1000)
    assert meter.bytes_s() == 2000  # over one second at least
    await clock.advance(4)
    assert meter.bytes_s() == 500
    meter.add(500)
    assert meter.bytes_s() == 625
    await clock.advance(1.5)
    assert meter.bytes_s() == pytest.approx(500 / 1.5)
    await clock.advance(5)
    assert meter.bytes_s() == 0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120),
        (" 7 ", 7),
        ("Fri, 01 May 2026 00:01:00 GMT", 60),
        ("Thu, 30 Apr 2026 00:00:00 GMT", 0),
        (None, None),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("9" * 40, None),
        ("\u0663", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str | None, seconds: float | None) -> None:
    assert retry_after_s(value, START_MS) == seconds


@pytest.mark.parametrize(
    ("etag", "changed", "answered", "expected"),
    [
        ('"a"', None, None, '"a"'),
        ('W/"a"', None, None, None),
        (None, "Thu, 30 Apr 2026 00:00:00 GMT", "Fri, 01 May 2026 00:00:00 GMT", "Thu, 30 Apr 2026 00:00:00 GMT"),
        (None, "Fri, 01 May 2026 00:00:00 GMT", "Fri, 01 May 2026 00:00:30 GMT", None),
        (None, "Fri, 01 May 2026 00:00:00 GMT", None, None),
        (None, "yesterday", "today", None),
    ],
)
def test_only_a_validator_that_proves_the_same_bytes_allows_to_go_on(
    etag: str | None, changed: str | None, answered: str | None, expected: str | None
) -> None:
    assert strong(Validators(etag=etag, last_modified=changed), answered) == expected
