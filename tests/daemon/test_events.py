"""Events and their readers: strictly in order, resumed without a gap, progress coalesced, slow readers cut off."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firth_protocol.errors import CursorExpired
from firth_protocol.events import LOST, PROGRESS, READER_LIMIT, Topic, parse_cursor
from firth_protocol.types import Event
from firthd.events import PROGRESS_INTERVAL_S, REPLAY_PAGE, EventHub
from tests.support.clock import FakeClock


class Kept:
    """Facts as the state keeps them, and the hub that hands them out."""

    def __init__(self, forgotten: int = 0) -> None:
        self.facts: list[tuple[int, Event]] = []
        self.newest = forgotten
        self.on_page: Callable[[], None] = lambda: None
        self.hub = EventHub("e", FakeClock(), self._replay, self._span)

    async def _replay(self, after: int, limit: int) -> list[tuple[int, Event]]:
        page = [fact for fact in self.facts if fact[0] > after][:limit]
        await asyncio.sleep(0)  # facts may be published while the page is read
        self.on_page()
        return page

    async def _span(self) -> tuple[int, int]:
        await asyncio.sleep(0)
        return (self.facts[0][0] - 1 if self.facts else self.newest), self.newest

    def tell(self, count: int = 1, topic: str = Topic.CHANNEL, **ids: object) -> None:
        """Write and publish facts."""
        for _ in range(count):
            self.newest += 1
            event = Event(cursor=self.hub.cursor(self.newest), time="", topic=topic, type="t", ids=dict(ids))
            self.facts.append((self.newest, event))
            self.hub.publish(self.newest, event)


def number(event: Event) -> int:
    assert event.cursor is not None
    return parse_cursor(event.cursor, "e")


async def take(reader: AsyncIterator[Event], count: int) -> list[int]:
    async with asyncio.timeout(5):
        return [number(await anext(reader)) for _ in range(count)]


async def rest(reader: AsyncIterator[Event]) -> list[Event]:
    async with asyncio.timeout(5):
        return [event async for event in reader]


# --- facts ---------------------------------------------------------------------------------------------------


async def test_facts_come_in_order_from_now_on() -> None:
    kept = Kept()
    kept.tell(3)
    async with kept.hub.subscribe() as reader:
        kept.tell(4)
        assert await take(reader, 4) == [4, 5, 6, 7]
        waiting = asyncio.ensure_future(anext(reader))
        await asyncio.sleep(0)
        assert not waiting.done()
        kept.tell()
        assert number(await waiting) == 8


async def test_a_cursor_resumes_without_a_gap_or_a_double() -> None:
    kept = Kept()
    kept.tell(2 * REPLAY_PAGE + 5)
    kept.on_page = lambda: kept.tell() if kept.newest < 2 * REPLAY_PAGE + 15 else None  # told while it catches up
    async with kept.hub.subscribe(after=3) as reader:
        count = 2 * REPLAY_PAGE + 15 - 3
        found = await take(reader, REPLAY_PAGE)
        kept.tell(10)
        found += await take(reader, count - REPLAY_PAGE)
        assert found == list(range(4, count + 4))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 5), max_size=12), st.integers(0, 12))
def test_any_mix_of_telling_and_reading_gives_every_fact_once(steps: list[int], after: int) -> None:
    async def scenario() -> None:
        kept = Kept()
        kept.tell(12)
        found: list[int] = []
        async with kept.hub.subscribe(after=after) as reader:
            for count in steps:
                kept.tell(count)
                found += await take(reader, min(count, kept.newest - after - len(found)))
            kept.hub.close()
            found += [number(event) for event in await rest(reader)]
        assert found == list(range(after + 1, kept.newest + 1))

    asyncio.run(scenario())


async def test_readers_get_what_they_asked_for_and_may_see() -> None:
    kept = Kept()
    kept.tell(topic=Topic.RUN, channel="a")
    only_runs = kept.hub.subscribe(frozenset({Topic.RUN}), after=0)
    only_a = kept.hub.subscribe(None, after=0, visible=lambda event: event.ids.get("channel") == "a")
    async with only_runs as runs, only_a as mine:
        kept.tell(topic=Topic.CHANNEL, channel="a")
        kept.tell(topic=Topic.RUN, channel="b")
        kept.hub.close()
        assert [number(event) for event in await rest(runs)] == [1, 3]
        assert [number(event) for event in await rest(mine)] == [1, 2]


@pytest.mark.parametrize(("after", "good"), [(4, False), (5, True), (7, True), (8, True), (9, False)])
async def test_a_cursor_that_is_too_old_or_not_reached_yet_has_expired(after: int, good: bool) -> None:
    kept = Kept(forgotten=5)
    kept.tell(3)  # 6, 7, 8
    if good:
        async with kept.hub.subscribe(after=after) as reader:
            kept.hub.close()
            assert [number(event) for event in await rest(reader)] == list(range(after + 1, 9))
        return
    with pytest.raises(CursorExpired) as caught:
        async with kept.hub.subscribe(after=after):
            pytest.fail("nothing can be followed from there")
    assert "as_of" in caught.value.hint
    kept.tell()  # nobody is left behind that would be written to


async def test_with_no_fact_kept_only_the_newest_number_can_be_followed_from() -> None:
    kept = Kept(forgotten=5)
    async with kept.hub.subscribe(after=5) as reader:
        kept.tell()
        assert await take(reader, 1) == [6]
    empty = Kept(forgotten=5)
    with pytest.raises(CursorExpired):
        async with empty.hub.subscribe(after=4):
            pytest.fail("facts after that number are gone")


@pytest.mark.parametrize(
    "text", ["", "5", ":5", "other:5", "e:", "e:-1", "e:x", "e:٣", "e:1e3", "e:5:5", "e:" + "9" * 19]
)
def test_a_cursor_of_another_state_has_expired(text: str) -> None:
    with pytest.raises(CursorExpired):
        parse_cursor(text, "e")
    assert parse_cursor("e:17", "e") == 17


# --- slow readers -----------------------------------------------------------------------------------------------


async def test_a_reader_that_falls_behind_is_told_so_and_cut_off() -> None:
    kept = Kept()
    async with kept.hub.subscribe() as slow, kept.hub.subscribe() as fast:
        for _ in range(READER_LIMIT + 1):
            kept.tell()  # never waits
            await take(fast, 1)
        kept.tell(10)
        events = await rest(slow)
        assert [(event.type, event.cursor) for event in events] == [(LOST, None)]
        assert await take(fast, 10) == list(range(READER_LIMIT + 2, READER_LIMIT + 12))


async def test_a_reader_just_within_the_limit_loses_nothing() -> None:
    kept = Kept()
    async with kept.hub.subscribe() as reader:
        kept.tell(READER_LIMIT)
        assert await take(reader, READER_LIMIT) == list(range(1, READER_LIMIT + 1))
        kept.tell(READER_LIMIT)
        assert len(await take(reader, READER_LIMIT)) == READER_LIMIT


async def test_facts_that_a_reader_does_not_want_do_not_count() -> None:
    kept = Kept()
    async with kept.hub.subscribe(frozenset({Topic.RUN})) as reader:
        kept.tell(3 * READER_LIMIT, topic=Topic.CHANNEL)
        kept.tell(READER_LIMIT, topic=Topic.RUN)
        kept.tell(3 * READER_LIMIT, topic=Topic.CHANNEL)
        assert len(await take(reader, READER_LIMIT)) == READER_LIMIT


async def test_a_reader_that_left_is_forgotten() -> None:
    kept = Kept()
    for _ in range(3):
        async with kept.hub.subscribe() as reader:
            kept.tell()
            await take(reader, 1)
    assert kept.hub._subscriptions == set()


async def test_closing_ends_every_stream_after_what_is_still_to_be_read() -> None:
    kept = Kept()
    async with kept.hub.subscribe() as busy, kept.hub.subscribe(frozenset({Topic.TOKEN})) as idle:
        waiting = asyncio.create_task(rest(idle))
        await asyncio.sleep(0)
        kept.tell(2)
        kept.hub.close()
        assert [number(event) for event in await rest(busy)] == [1, 2]
        assert await waiting == []


# --- progress ---------------------------------------------------------------------------------------------------


def progress(kept: Kept, done: int, run: int = 7) -> None:
    kept.hub.progress(run, {"run": run, "channel": "main"}, {"done": done})


async def test_of_progress_that_comes_fast_the_newest_wins_four_times_a_second() -> None:
    kept = Kept()
    loop = asyncio.get_running_loop()
    async with kept.hub.subscribe() as reader:
        told: list[tuple[float, int]] = []
        value = 0
        started = loop.time()
        async with asyncio.timeout(5):
            while len(told) < 3:
                value += 1
                progress(kept, value)
                waiting = asyncio.ensure_future(anext(reader))
                while not waiting.done():
                    value += 1
                    progress(kept, value)
                    await asyncio.sleep(0)
                event = await waiting
                assert (event.type, event.topic, event.cursor) == (PROGRESS, Topic.PROGRESS, None)
                assert value - event.data["done"] <= 3
                told.append((loop.time(), event.data["done"]))
        assert told[0][0] - started < PROGRESS_INTERVAL_S  # the first one at once
        assert told[-1][0] - told[0][0] >= 2 * PROGRESS_INTERVAL_S * 0.95
        assert told[0][1] < told[1][1] < told[2][1]
        kept.hub.close()


async def test_each_run_has_its_own_pace_and_a_slow_reader_gets_the_newest_of_each() -> None:
    kept = Kept()
    async with kept.hub.subscribe() as reader:
        for run in (1, 2, 3):
            progress(kept, 10 * run, run)
        kept.tell()
        async with asyncio.timeout(5):
            events = [await anext(reader) for _ in range(4)]
        assert events[0].cursor == "e:1"  # facts first
        assert {event.ids["run"]: event.data["done"] for event in events[1:]} == {1: 10, 2: 20, 3: 30}
        progress(kept, 11, 1)
        progress(kept, 12, 1)
        async with asyncio.timeout(5):
            assert (await anext(reader)).data == {"done": 12}


async def test_nothing_is_told_of_a_run_after_its_end() -> None:
    kept = Kept()
    async with kept.hub.subscribe() as reader:
        progress(kept, 1)  # waits to be read
        progress(kept, 2)  # waits for its turn
        kept.hub.forget_progress(7)
        kept.tell()
        kept.hub.close()
        assert [event.type for event in await rest(reader)] == ["t"]


async def test_progress_is_for_those_who_asked_and_may_see() -> None:
    kept = Kept()
    runs = kept.hub.subscribe(frozenset({Topic.RUN}))
    others = kept.hub.subscribe(None, visible=lambda event: event.ids["channel"] != "main")
    mine = kept.hub.subscribe(frozenset({Topic.PROGRESS}))
    async with runs as a, others as b, mine as c:
        progress(kept, 1)
        kept.hub.close()
        assert (await rest(a), await rest(b)) == ([], [])
        assert [event.data for event in await rest(c)] == [{"done": 1}]


async def test_progress_does_not_push_a_reader_over_its_limit() -> None:
    kept = Kept()
    async with kept.hub.subscribe() as reader:
        for value in range(3 * READER_LIMIT):
            progress(kept, value, run=value)
        kept.tell()
        assert await take(reader, 1) == [1]
        kept.hub.close()
        assert len(await rest(reader)) == 3 * READER_LIMIT
