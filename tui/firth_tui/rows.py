"""The only place that knows how a long list is held: pages by key, read as they are needed, found again by key.

A list is read forward from its first page (the daemon pages by key, never by offset). Page cursors are kept, rows only
near where somebody looks, so that 100,000 rows cost a few megabytes. Nothing here knows Textual.
"""

import asyncio
from bisect import bisect_right
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Generic, Protocol, TypeVar

from firth_protocol.types import Page

T = TypeVar("T")

Fetch = Callable[[str | None, int], Awaitable[Page[T]]]
"""Reads the page that begins at a cursor (None: the first), with at most so many rows."""

FIRST_LIMIT = 200
JUMP_LIMIT = 1000
KEPT_ROWS = 20_000


class RowSource(Protocol[T]):
    """What a table needs of a list."""

    def __len__(self) -> int: ...
    @property
    def complete(self) -> bool: ...
    def row(self, index: int) -> T | None: ...
    def key(self, row: T) -> Hashable: ...
    def index_of(self, key: Hashable) -> int | None: ...
    def lacks(self, first: int, last: int) -> bool: ...
    async def load(self, first: int, last: int) -> None: ...


class LocalRows(Generic[T]):
    """A list that is wholly here."""

    def __init__(self, items: Sequence[T], key: Callable[[T], Hashable]) -> None:
        self._items = list(items)
        self._key = key
        self._places = {key(item): index for index, item in enumerate(self._items)}

    def __len__(self) -> int:
        return len(self._items)

    @property
    def complete(self) -> bool:
        return True

    def row(self, index: int) -> T | None:
        return self._items[index] if 0 <= index < len(self._items) else None

    def key(self, row: T) -> Hashable:
        return self._key(row)

    def index_of(self, key: Hashable) -> int | None:
        return self._places.get(key)

    def lacks(self, first: int, last: int) -> bool:
        return False

    async def load(self, first: int, last: int) -> None:
        return None


class _Reading(Generic[T]):
    """One reading of a list, as far as it has come."""

    def __init__(self) -> None:
        self.starts: list[int] = []  # index of each page's first row
        self.cursors: list[str | None] = []
        self.lengths: list[int] = []
        self.pages: dict[int, list[T]] = {}
        self.next: str | None = None
        self.known = 0
        self.total: int | None = None
        self.complete = False
        self.as_of: str | None = None
        self.places: dict[Hashable, int] = {}

    def page_at(self, index: int) -> int | None:
        # of pages that begin at the same row (an empty one and the next) the last holds it
        return bisect_right(self.starts, index) - 1 if 0 <= index < self.known else None


class PagedRows(Generic[T]):
    """A list whose pages come from the daemon."""

    def __init__(self, fetch: Fetch[T], key: Callable[[T], Hashable], *, kept_rows: int = KEPT_ROWS) -> None:
        self._fetch = fetch
        self._key = key
        self._kept_rows = kept_rows
        self._reading: _Reading[T] = _Reading()
        self._turn = asyncio.Lock()

    def __len__(self) -> int:
        reading = self._reading
        if reading.complete:
            return reading.known
        # one more than is known, so that scrolling to the end asks for the next page
        return max(reading.total or 0, reading.known + 1) if reading.starts else 0

    @property
    def started(self) -> bool:
        """Whether the first page is here."""
        return bool(self._reading.starts)

    @property
    def complete(self) -> bool:
        """Whether the length is known for certain."""
        return self._reading.complete or self._reading.total is not None

    @property
    def as_of(self) -> str | None:
        """The event cursor of the reading, from which a reader may follow."""
        return self._reading.as_of

    @property
    def total(self) -> int | None:
        """How many rows there are, where that is known."""
        reading = self._reading
        return reading.known if reading.complete else reading.total

    def key(self, row: T) -> Hashable:
        return self._key(row)

    def row(self, index: int) -> T | None:
        """Return the row at `index`, or None while it is not here."""
        number = self._reading.page_at(index)
        if number is None:
            return None
        page = self._reading.pages.get(number)
        offset = index - self._reading.starts[number]
        return page[offset] if page is not None and offset < len(page) else None

    def index_of(self, key: Hashable) -> int | None:
        return self._reading.places.get(key)

    def lacks(self, first: int, last: int) -> bool:
        """Return whether some row from `first` to `last` must still be read."""
        reading = self._reading
        if not reading.starts:
            return True
        last = min(last, len(self) - 1)
        if last >= reading.known:
            return not reading.complete
        return any(number not in reading.pages for number in self._numbers(reading, first, last))

    async def load(self, first: int, last: int) -> None:
        """Read one page of what is lacking of the rows from `first` to `last`; may be cancelled at any point.

        Only one, so that somebody who jumps to the end and back again does not wait for what lies between.
        """
        async with self._turn:
            reading = self._reading
            if reading.known <= last and not reading.complete:
                await self._extend(reading, last)
            else:
                for number in self._numbers(reading, first, min(last, reading.known - 1)):
                    if number not in reading.pages:
                        await self._read_again(reading, number)
                        break
            self._forget(reading, first, last)

    async def refresh(self, key: Hashable | None, last: int) -> None:
        """Read the list anew as far as row `last` and to where `key` now stands, then show the new reading at once.

        A key that has gone is looked for one page beyond its old place, no further.
        """
        async with self._turn:
            old = self._reading.places.get(key) if key is not None else None
            fresh: _Reading[T] = _Reading()
            target = max(last, old or 0)
            while fresh.known <= target and not fresh.complete:
                await self._extend(fresh, target)
            if old is not None and key not in fresh.places and not fresh.complete:
                await self._extend(fresh, fresh.known)
            self._reading = fresh
            self._forget(fresh, max(0, last - 200), last)

    def replace(self, row: T) -> int | None:
        """Put a newer form of a row into its place; return its index, or None when it is not here."""
        key = self._key(row)
        index = self._reading.places.get(key)
        number = self._reading.page_at(index) if index is not None else None
        if index is None or number is None or number not in self._reading.pages:
            return None
        self._reading.pages[number][index - self._reading.starts[number]] = row
        return index

    async def _extend(self, reading: _Reading[T], last: int) -> None:
        """Read the next page; a long one when row `last` is still far away."""
        limit = FIRST_LIMIT if last - reading.known < FIRST_LIMIT else JUMP_LIMIT
        page = await self._fetch(reading.next, limit)
        number = len(reading.starts)
        reading.starts.append(reading.known)
        reading.cursors.append(reading.next)
        reading.lengths.append(limit)
        self._put(reading, number, list(page.items))
        reading.known += len(page.items)
        reading.next = page.next_cursor
        reading.complete = page.next_cursor is None
        if page.total is not None:
            reading.total = page.total
        reading.as_of = reading.as_of or page.as_of
        self._forget(reading, reading.known - JUMP_LIMIT, reading.known)

    async def _read_again(self, reading: _Reading[T], number: int) -> None:
        page = await self._fetch(reading.cursors[number], reading.lengths[number])
        end = reading.starts[number + 1] if number + 1 < len(reading.starts) else reading.known
        # rows that came in since would push others over the page's end; they appear with the next refresh
        self._put(reading, number, list(page.items)[: end - reading.starts[number]])

    def _put(self, reading: _Reading[T], number: int, items: list[T]) -> None:
        reading.pages[number] = items
        start = reading.starts[number]
        for offset, item in enumerate(items):
            reading.places[self._key(item)] = start + offset

    def _numbers(self, reading: _Reading[T], first: int, last: int) -> range:
        low, high = reading.page_at(max(0, first)), reading.page_at(last)
        return range(low, high + 1) if low is not None and high is not None else range(0)

    def _forget(self, reading: _Reading[T], first: int, last: int) -> None:
        held = sum(len(page) for page in reading.pages.values())
        if held <= self._kept_rows:
            return
        middle = (first + last) // 2
        for number in sorted(reading.pages, key=lambda each: -abs(reading.starts[each] - middle)):
            if held <= self._kept_rows:
                return
            for item in reading.pages.pop(number):
                held -= 1
                reading.places.pop(self._key(item), None)


def filtered(fetch: Fetch[T], keep: Callable[[T], bool], *, most_pages: int = 20) -> Fetch[T]:
    """Return a fetch that keeps only some rows, for lists that the daemon cannot filter.

    One call reads at most `most_pages` pages, so that a filter that keeps nothing does not hold the list up.
    """

    async def kept(cursor: str | None, limit: int) -> Page[T]:
        items: list[T] = []
        as_of = ""
        for _ in range(most_pages):
            page = await fetch(cursor, limit)
            as_of = as_of or page.as_of
            items += [item for item in page.items if keep(item)]
            cursor = page.next_cursor
            if cursor is None or len(items) >= limit // 2:
                break
        return Page(items=items, next_cursor=cursor, total=None, as_of=as_of)

    return kept
