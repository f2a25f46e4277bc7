"""What happened, as it is written down: facts in order, health."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from firth_protocol.events import Fact
from firth_protocol.types import Event
from firthd.store import journal
from firthd.store.database import Database, Tx
from firthd.store.journal import EVENTS_KEPT_MS, Journal
from tests.support.clock import START_MS, FakeClock
from tests.support.state import opened

DAY_S = 86_400


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[Database]:
    async with opened(tmp_path) as database:
        yield database


class Heard:
    """A journal, and what it has published."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.journal = Journal("epoch", self.clock)
        self.events: list[tuple[int, Event]] = []
        self.journal.publish = lambda seq, event: self.events.append((seq, event))


async def frozen(heard: Heard, db: Database, channel: str = "main") -> int:
    return await db.write(lambda tx: heard.journal.fact(tx, Fact.CHANNEL_FROZEN, ids={"channel": channel}))


async def test_a_fact_is_published_once_it_is_written_and_read_back_the_same(db: Database) -> None:
    heard = Heard()

    async def body(tx: Tx) -> int:
        seq = await heard.journal.fact(tx, Fact.RUN_FINISHED, ids={"run": 7, "channel": "main"}, data={"state": "ü"})
        assert heard.events == []
        return seq

    seq = await db.write(body)
    event = Event(
        cursor=f"epoch:{seq}",
        time="2026-05-01T00:00:00.000Z",
        topic="run",
        type="run.finished",
        ids={"run": 7, "channel": "main"},
        data={"state": "ü"},
    )
    assert heard.events == [(seq, event)]
    assert await db.read(lambda r: heard.journal.after(r, 0, 10)) == [(seq, event)]
    assert await db.read(heard.journal.as_of) == event.cursor


async def test_a_fact_of_a_write_that_failed_is_neither_told_nor_kept(db: Database) -> None:
    heard = Heard()

    async def body(tx: Tx) -> None:
        await heard.journal.fact(tx, Fact.CHANNEL_FROZEN)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await db.write(body)
    assert heard.events == []
    assert await db.read(lambda r: heard.journal.after(r, 0, 10)) == []
    await frozen(heard, db)
    assert [seq for seq, _ in heard.events] == [1]


async def test_facts_come_in_pages_and_in_order(db: Database) -> None:
    heard = Heard()
    for _ in range(7):
        await frozen(heard, db)
    pages = [
        [seq for seq, _ in await db.read(lambda r, after=after: heard.journal.after(r, after, 3))]  # type: ignore[misc]
        for after in (0, 3, 6, 7)
    ]
    assert pages[3] == []
    assert [seq for page in pages for seq in page] == [seq for seq, _ in heard.events] == [1, 2, 3, 4, 5, 6, 7]


async def test_old_facts_are_forgotten_and_the_span_says_so(db: Database) -> None:
    heard = Heard()
    assert await db.read(journal.span) == (0, 0)
    await frozen(heard, db)
    await frozen(heard, db)
    await heard.clock.advance(10 * DAY_S)
    await frozen(heard, db)
    assert await db.read(journal.span) == (0, 3)
    border = START_MS + EVENTS_KEPT_MS
    assert await db.write(lambda tx: journal.forget_old_events(tx, border)) == 0
    assert await db.write(lambda tx: journal.forget_old_events(tx, border + 1)) == 2
    assert await db.read(journal.span) == (2, 3)
    await db.write(lambda tx: journal.forget_old_events(tx, border + 10 * DAY_S * 1000 + 1))
    assert await db.read(journal.span) == (3, 3)
    assert await frozen(heard, db) == 4  # a number is never given twice


async def test_numbers_go_on_after_a_restart(tmp_path: Path) -> None:
    heard = Heard()
    async with opened(tmp_path) as db:
        await frozen(heard, db)
        await db.write(lambda tx: journal.forget_old_events(tx, START_MS + EVENTS_KEPT_MS + 1))
    async with opened(tmp_path) as db:
        assert await db.read(journal.newest) == 1
        assert await frozen(heard, db) == 2
