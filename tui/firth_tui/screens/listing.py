"""A list as every place has it: its columns and pages, filter and order, and how it follows the daemon's events."""

from collections.abc import Callable, Hashable
from typing import Generic, Protocol, TypeVar

import msgspec
from msgspec import Struct
from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.timer import Timer

from firth_protocol.errors import FirthError
from firth_tui.actions import Place
from firth_tui.format import Cell, clean, counted
from firth_tui.model import Touched
from firth_tui.rows import Fetch, PagedRows
from firth_tui.widgets.keyed_table import Column, KeyedTable
from firth_tui.widgets.sheet import Sheet
from firth_tui.widgets.work import Repeated

T = TypeVar("T")
R_contra = TypeVar("R_contra", contravariant=True)

REFRESH_S = 1.0
"""A list is read again at most this often, however many events come."""
SETTLE_S = 0.1
"""How long a list waits after an event for the next one."""
TYPING_S = 0.2
"""How long a filter waits for the next key."""


REST_S = 0.15
"""How long the cursor must rest before more than its row is asked for."""
WIDE = 140
"""From how many columns on a list has a preview beside it."""
KEPT_PREVIEWS = 200


class Previews(Protocol[R_contra]):
    """What a preview shows of a row: what is known of it, and what the daemon has to add."""

    def brief(self, row: R_contra) -> list[list[Cell]]: ...
    async def more(self, row: R_contra) -> list[list[Cell]]: ...


class Wanted(Struct, frozen=True):
    """Which rows of a list, in which order."""

    query: str = ""
    sort: str | None = None
    faults: bool = False
    state: str = ""  # of what kind only: one of `Listing.walk`


class Listing(Struct, Generic[T], frozen=True, kw_only=True):
    """All that makes one list: where it stands, its columns, how its pages are read, what an event changes in it."""

    place: Place
    noun: str
    plural: str
    columns: tuple[Column[T], ...]
    key: Callable[[T], Hashable]
    fetch: Callable[[Wanted], Fetch[T]]
    touches: Callable[[Touched], bool]
    empty: str
    subject: str | None = None
    sort: str | None = None
    walk: tuple[tuple[str, str], ...] = ()  # what `!` goes through after faults: a state and how it is called


class ListPane(Horizontal, Generic[T]):
    """One list with its filter, order and selection; on a wide terminal with a preview of the row under the cursor.

    The preview is looked at only: it never has the focus, and no action acts on what it shows.
    """

    DEFAULT_CSS = """
    ListPane { height: 1fr; }
    ListPane > KeyedTable { width: 1fr; }
    ListPane > #preview { width: 48; height: 1fr; display: none; overflow: hidden hidden; }
    """

    def __init__(self, listing: Listing[T], orders: dict[str, str], previews: "Previews[T] | None" = None) -> None:
        super().__init__()
        self._previews = previews
        self.preview = Sheet()
        self._known: dict[Hashable, list[list[Cell]]] = {}
        self._resting: Timer | None = None
        self._asking = Repeated(self, self._ask_more, group="preview")
        self.listing = listing
        self._orders = orders
        self.wanted = Wanted(sort=orders.get(listing.place, listing.sort))
        self._stale = False
        self._timer: Timer | None = None
        self._typing: Timer | None = None
        self._typed = ""
        self._rows = self._new_rows()
        self._rereading = Repeated(self, self._reread, group="refresh")
        self.table: KeyedTable[T] = KeyedTable(listing.columns, self._rows, empty=listing.empty)
        self.table.sort = self.wanted.sort

    def compose(self) -> ComposeResult:
        yield self.table
        with Vertical(id="preview"):
            yield self.preview

    # --- the preview

    def on_resize(self) -> None:
        self.query_one("#preview").display = self._previews is not None and self._wide
        self.show_preview()

    @property
    def _wide(self) -> bool:
        return self.app.size.width >= WIDE

    @on(KeyedTable.Highlighted)
    def show_preview(self) -> None:
        """Show what is known of the row at once, and ask for more once the cursor rests."""
        if self._resting is not None:
            self._resting.stop()
            self._resting = None
        if self._previews is None or not self._wide:
            return
        self._draw_preview()
        if self.row is not None:
            self._resting = self.set_timer(REST_S, self._asking.ask)

    def _draw_preview(self) -> None:
        row = self.row
        if row is None or self._previews is None:
            self.preview.put([])
        else:
            self.preview.put([*self._previews.brief(row), *self._known.get(self.listing.key(row), [])])

    async def _ask_more(self) -> None:
        row = self.row
        if row is None or self._previews is None or not self.in_view:
            return
        try:
            found = await self._previews.more(row)
        except (FirthError, OSError):
            return  # what the row itself tells stands there already
        if len(self._known) >= KEPT_PREVIEWS:
            self._known.clear()
        self._known[self.listing.key(row)] = found
        self._draw_preview()

    def _new_rows(self) -> PagedRows[T]:
        return PagedRows(self.listing.fetch(self.wanted), self.listing.key)

    # --- what the place asks

    @property
    def row(self) -> T | None:
        return self.table.cursor_row

    @property
    def behind(self) -> bool:
        """Whether rows that were asked for are not here yet."""
        return self._typing is not None or self.table.behind

    def readings(self) -> list[Repeated]:
        """What reads the rows anew."""
        return [self._rereading]

    def hurry(self) -> None:
        """Do now what waits for a pause: a filter for the next key, a reading for the next event."""
        self._filter_now()
        if self._stale:
            self.refresh_rows()

    @property
    def summary(self) -> str:
        """How many rows there are, and what was asked for: `12 mirrors with "forge"`."""
        if not self._rows.started:
            return ""
        total = self._rows.total
        what = self.listing.noun if total == 1 else self.listing.plural
        text = f"{len(self._rows) - 1:,}+ {what}" if total is None else counted(total, self.listing.noun, what)
        if self.wanted.query:
            text += f" with “{clean(self.wanted.query, 20)}”"
        marked = f", {len(self.table.marks):,} marked" if self.table.marks else ""
        kind = dict(self.listing.walk).get(self.wanted.state, "")
        only = ", faults only" if self.wanted.faults else f", {kind} only" if kind else ""
        return text + only + marked

    def put_empty(self, text: str) -> None:
        """Say something else when there is no row and nothing was asked for."""
        self.listing = msgspec.structs.replace(self.listing, empty=text)
        if not (self.wanted.query or self.narrowed) and text != self.table.empty:
            self.table.empty = text
            self.table.refresh()

    def seek(self, key: Hashable) -> None:
        """Put the cursor on a row that has just come into being."""
        self.table.seek(key)
        self.refresh_rows()

    def fact(self, about: Touched) -> None:
        """Read the list again when an event changed it: at once when in view, else when it comes into view."""
        if self.listing.touches(about):
            self.soon()

    def soon(self) -> None:
        """Read the list again shortly; many calls make one reading a second. Out of view: when it comes into view."""
        self._stale = True
        if self.in_view and self._timer is None:
            self._timer = self.set_timer(SETTLE_S, self._due)

    @property
    def in_view(self) -> bool:
        return self.is_mounted and self.display and self.screen.is_current

    def came_into_view(self) -> None:
        if self._stale:
            self.refresh_rows()

    def refresh_rows(self) -> None:
        """Read the list again now; the old rows stay until the new ones are here."""
        self._stale = False
        if self._rows.started:
            self._rereading.ask()
        else:
            self.table.changed()

    async def _reread(self) -> None:
        rows = self._rows
        try:
            await rows.refresh(self.table.cursor_key, self.table.window[1])
        except (FirthError, OSError) as error:
            self.table.post_message(KeyedTable.LoadFailed(self.table, error))
            return
        if rows is self._rows:
            self.table.loaded = True
            self.table.error = None
            self.table.changed()

    def _due(self) -> None:
        self._timer = self.set_timer(REFRESH_S, self._again)
        if self.in_view:
            self.refresh_rows()

    def _again(self) -> None:
        self._timer = None
        if self._stale:
            self.soon()

    # --- another filter or order

    def ask(self, wanted: Wanted) -> None:
        """Show other rows, or the same in another order; the cursor goes along with its key."""
        if wanted == self.wanted:
            return
        key = self.table.cursor_key
        self.wanted = wanted
        if wanted.sort is not None:
            self._orders[self.listing.place] = wanted.sort
        self._rows = self._new_rows()
        self.table.sort = wanted.sort
        narrowed = bool(wanted.query or wanted.faults or wanted.state)
        self.table.empty = "Nothing matches; esc shows all again." if narrowed else self.listing.empty
        self.table.show(self._rows)
        if key is not None:
            self.table.seek(key)

    def filter(self, text: str) -> None:
        """Filter once typing pauses."""
        if self._typing is not None:
            self._typing.stop()
        self._typed = text
        self._typing = self.set_timer(TYPING_S, self._filter_now)

    def _filter_now(self) -> None:
        if self._typing is not None:
            self._typing.stop()
            self._typing = None
            self.ask(msgspec.structs.replace(self.wanted, query=self._typed))

    def sort_next(self) -> None:
        """Sort by the next column in view that can be sorted by."""
        able = [column.sort for column in self.table.in_view if column.sort]
        if able:
            now = (self.wanted.sort or "").removeprefix("-")
            following = able[(able.index(now) + 1) % len(able)] if now in able else able[0]
            self.ask(msgspec.structs.replace(self.wanted, sort=following))

    def reverse(self) -> None:
        now = self.wanted.sort
        if now is not None:
            other = now.removeprefix("-") if now.startswith("-") else f"-{now}"
            self.ask(msgspec.structs.replace(self.wanted, sort=other))

    @property
    def narrowed(self) -> bool:
        """Whether only faults, or only rows of one state, are asked for."""
        return self.wanted.faults or bool(self.wanted.state)

    def toggle_faults(self) -> None:
        """Show faults only, then each kind that the list has besides, then all again."""
        steps = [(True, ""), *((False, state) for state, _ in self.listing.walk), (False, "")]
        now = (self.wanted.faults, self.wanted.state)
        faults, state = steps[(steps.index(now) + 1) % len(steps)] if now in steps else steps[0]
        self.ask(msgspec.structs.replace(self.wanted, faults=faults, state=state))

    def show_all(self) -> None:
        """Lift what narrows the list but for the filter."""
        self.ask(msgspec.structs.replace(self.wanted, faults=False, state=""))

    @on(KeyedTable.SortAsked)
    def _sort_asked(self, message: KeyedTable.SortAsked) -> None:
        message.stop()
        if message.column == self.wanted.sort:
            self.reverse()
        else:
            self.ask(msgspec.structs.replace(self.wanted, sort=message.column))

    @on(KeyedTable.LoadFailed)
    def _load_failed(self, message: KeyedTable.LoadFailed) -> None:
        message.stop()
        if isinstance(message.error, FirthError):
            self.table.failed(f"{message.error.message}\n{message.error.hint}".strip())
        elif not self._rows.started:
            self.table.failed(str(message.error))
