"""Long lists: read page by page, forgotten far away, found again by key."""

import asyncio
import contextlib

import pytest

from firth_protocol.errors import Unavailable
from firth_protocol.types import Page
from firth_tui.rows import FIRST_LIMIT, JUMP_LIMIT, LocalRows, PagedRows, filtered


class Source:
    """A list of numbers, in pages by key."""

    def __init__(self, count: int, *, total: bool = True) -> None:
        self.items = list(range(0, count * 10, 10))
        self.total = total
        self.calls: list[tuple[str | None, int]] = []
        self.broken = False

    async def __call__(self, cursor: str | None, limit: int) -> Page[int]:
        self.calls.append((cursor, limit))
        if self.broken:
            raise Unavailable("not now")
        after = -1 if cursor is None else int(cursor)
        found = [item for item in self.items if item > after]
        shown = found[:limit]
        more = str(shown[-1]) if len(found) > limit else None
        return Page(items=shown, next_cursor=more, total=len(self.items) if self.total else None, as_of="e:1")


def rows_over(source: Source, kept_rows: int = 20_000) -> PagedRows[int]:
    return PagedRows(source, lambda item: item, kept_rows=kept_rows)


async def load(rows: PagedRows[int], first: int, last: int) -> None:
    while rows.lacks(first, last):
        await rows.load(first, last)


async def test_the_first_page_is_short_and_gives_the_length() -> None:
    source = Source(5000)
    rows = rows_over(source)
    assert len(rows) == 0
    assert not rows.started
    await load(rows, 0, 40)
    assert source.calls == [(None, FIRST_LIMIT)]
    assert len(rows) == 5000
    assert rows.row(3) == 30
    assert rows.row(FIRST_LIMIT) is None


async def test_a_jump_reads_long_pages() -> None:
    source = Source(5000)
    rows = rows_over(source)
    await load(rows, 4950, 4999)
    assert rows.row(4999) == 49_990
    assert max(limit for _, limit in source.calls) == JUMP_LIMIT
    assert len(source.calls) <= 7


async def test_rows_far_away_are_forgotten_and_read_again() -> None:
    source = Source(30_000)
    rows = rows_over(source, kept_rows=3000)
    await load(rows, 29_950, 29_999)
    assert rows.row(0) is None
    assert rows.index_of(0) is None
    assert rows.lacks(0, 10)
    await load(rows, 0, 10)
    assert rows.row(7) == 70
    assert rows.index_of(70) == 7


async def test_without_a_total_there_is_always_one_row_more_to_ask_for() -> None:
    rows = rows_over(Source(250, total=False))
    await load(rows, 0, 10)
    assert len(rows) == FIRST_LIMIT + 1
    assert rows.total is None
    await load(rows, 200, 220)
    assert len(rows) == 250
    assert rows.total == 250


async def test_a_refresh_finds_the_key_where_it_stands_now() -> None:
    source = Source(1000)
    rows = rows_over(source)
    await load(rows, 0, 500)
    assert rows.index_of(3000) == 300
    source.items = [item for item in source.items if item >= 500] + [99_999]
    await rows.refresh(3000, 320)
    assert rows.index_of(3000) == 250
    assert rows.row(250) == 3000


async def test_a_key_that_has_gone_is_not_looked_for_for_ever() -> None:
    source = Source(20_000)
    rows = rows_over(source)
    await load(rows, 0, 50)
    source.items.remove(200)
    source.calls.clear()
    await rows.refresh(200, 40)
    assert rows.index_of(200) is None
    assert len(source.calls) == 2


async def test_the_old_rows_stay_when_a_refresh_fails() -> None:
    source = Source(100)
    rows = rows_over(source)
    await load(rows, 0, 50)
    source.broken = True
    with pytest.raises(Unavailable):
        await rows.refresh(100, 50)
    assert rows.row(10) == 100


async def test_a_row_is_replaced_in_its_place() -> None:
    rows: PagedRows[tuple[int, str]] = PagedRows(_pairs, lambda pair: pair[0])
    await rows.load(0, 10)
    assert rows.replace((5, "new")) == 5
    assert rows.row(5) == (5, "new")
    assert rows.replace((500, "nowhere")) is None


async def _pairs(cursor: str | None, limit: int) -> Page[tuple[int, str]]:
    return Page(items=[(number, "old") for number in range(20)], next_cursor=None, total=20, as_of="e:1")


async def test_a_load_that_is_cancelled_leaves_the_list_whole() -> None:
    source = Source(5000)
    gate = asyncio.Event()

    async def slow(cursor: str | None, limit: int) -> Page[int]:
        if cursor is not None:
            await gate.wait()
        return await source(cursor, limit)

    rows: PagedRows[int] = PagedRows(slow, lambda item: item)
    await rows.load(0, 40)
    loading = asyncio.create_task(load(rows, 0, 900))
    await asyncio.sleep(0)
    loading.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await loading
    gate.set()
    await load(rows, 0, 900)
    assert [rows.row(index) for index in (0, 199, 200, 900)] == [0, 1990, 2000, 9000]


async def test_an_empty_list_is_complete() -> None:
    rows = rows_over(Source(0))
    await load(rows, 0, 10)
    assert len(rows) == 0
    assert rows.total == 0
    assert not rows.lacks(0, 10)


async def test_a_client_side_filter_reads_on_until_it_has_enough() -> None:
    source = Source(1000)
    page = await filtered(source, lambda item: item % 100 == 0)(None, 100)
    assert len(page.items) >= 50
    assert page.next_cursor is not None


async def test_a_client_side_filter_gives_up_on_a_long_list_in_between() -> None:
    source = Source(10_000)
    page = await filtered(source, lambda item: False, most_pages=3)(None, 100)
    assert page.items == []
    assert len(source.calls) == 3
    assert page.next_cursor is not None


async def test_a_local_list_is_wholly_here() -> None:
    rows = LocalRows(["a", "b"], str)
    assert (len(rows), rows.row(1), rows.row(2), rows.index_of("b"), rows.lacks(0, 9)) == (2, "b", None, 1, False)
