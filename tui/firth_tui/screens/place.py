"""What every place has in common: chrome, keys from the action table, lists that follow the daemon's events."""

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, cast

import msgspec
from msgspec import Struct
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import Screen
from textual.timer import Timer
from textual.widget import Widget

from firth_protocol.errors import FirthError
from firth_tui.action_table import BY_ID, footer, for_keys
from firth_tui.actions import Context, Place, why_not
from firth_tui.format import Cell, Tone, clean, counted
from firth_tui.model import Session, Touched
from firth_tui.rows import Fetch, PagedRows
from firth_tui.widgets.chrome import FilterBar, Flash, Foot, Head, banner
from firth_tui.widgets.keyed_table import Column, KeyedTable
from firth_tui.widgets.work import Repeated, start

if TYPE_CHECKING:
    from firth_tui.app import FirthApp

T = TypeVar("T")


class Scroll(VerticalScroll, can_focus=True):
    """Something long to read; scrolls with the keys that move in lists."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j", "scroll_down", show=False, id="scroll.down"),
        Binding("k", "scroll_up", show=False, id="scroll.up"),
        Binding("g", "scroll_home", show=False, id="scroll.first"),
        Binding("G", "scroll_end", show=False, id="scroll.last"),
    ]


REFRESH_S = 1.0
"""A list is read again at most this often, however many events come."""
SETTLE_S = 0.1
"""How long a list waits after an event for the next one."""
AGES_S = 20
"""How often what is told as an age is drawn again."""
TYPING_S = 0.2
"""How long a filter waits for the next key."""


class Wanted(Struct, frozen=True):
    """Which rows of a list, in which order."""

    query: str = ""
    sort: str | None = None
    faults: bool = False


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


class ListPane(Vertical, Generic[T]):
    """One list with its filter, order and selection."""

    DEFAULT_CSS = "ListPane { height: 1fr; }"

    def __init__(self, listing: Listing[T], orders: dict[str, str]) -> None:
        super().__init__()
        self.listing = listing
        self._orders = orders
        self.wanted = Wanted(sort=orders.get(listing.place, listing.sort))
        self._stale = False
        self._timer: Timer | None = None
        self._typing: Timer | None = None
        self._rows = self._new_rows()
        self._rereading = Repeated(self, self._reread, group="refresh")
        self.table: KeyedTable[T] = KeyedTable(listing.columns, self._rows, empty=listing.empty)
        self.table.sort = self.wanted.sort

    def compose(self) -> ComposeResult:
        yield self.table

    def _new_rows(self) -> PagedRows[T]:
        return PagedRows(self.listing.fetch(self.wanted), self.listing.key)

    # --- what the place asks

    @property
    def row(self) -> T | None:
        return self.table.cursor_row

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
        return text + (", faults only" if self.wanted.faults else "")

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
        narrowed = bool(wanted.query or wanted.faults)
        self.table.empty = "Nothing matches; esc shows all again." if narrowed else self.listing.empty
        self.table.show(self._rows)
        if key is not None:
            self.table.seek(key)

    def filter(self, text: str) -> None:
        """Filter once typing pauses."""
        if self._typing is not None:
            self._typing.stop()
        self._typing = self.set_timer(TYPING_S, lambda: self.ask(msgspec.structs.replace(self.wanted, query=text)))

    def sort_next(self) -> None:
        """Sort by the next column that can be sorted by."""
        able = [column.sort for column in self.listing.columns if column.sort]
        if able:
            now = (self.wanted.sort or "").removeprefix("-")
            following = able[(able.index(now) + 1) % len(able)] if now in able else able[0]
            self.ask(msgspec.structs.replace(self.wanted, sort=following))

    def reverse(self) -> None:
        now = self.wanted.sort
        if now is not None:
            other = now.removeprefix("-") if now.startswith("-") else f"-{now}"
            self.ask(msgspec.structs.replace(self.wanted, sort=other))

    def toggle_faults(self) -> None:
        self.ask(msgspec.structs.replace(self.wanted, faults=not self.wanted.faults))

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


def bindings(places: Iterable[Place]) -> list[BindingType]:
    """Return the keys of `places`, each with its action's id, so that a keymap can move it."""
    return [
        Binding(action.key, f"act('{action.id}')", action.label, id=action.id, show=False)
        for action in for_keys(places)
    ]


class PlaceScreen(Screen[None]):
    """A place: chrome round a body. A subclass says where it is, the way to it, and what an action acts on."""

    words: ClassVar[Sequence[tuple[str, str]]] = ()

    def __init__(self) -> None:
        super().__init__()
        self.head = Head()
        self.flash = Flash()
        self.filter_bar = FilterBar()
        self.foot = Foot()
        self._ticks = 0

    # --- what a subclass tells

    def where(self) -> Place:
        raise NotImplementedError

    def crumbs(self) -> list[str]:
        raise NotImplementedError

    def body(self) -> ComposeResult:
        raise NotImplementedError

    def side(self) -> list[Cell]:
        """What stands at the right of the path."""
        pane = self.pane
        return [Cell(pane.summary, Tone.MUTED)] if pane else []

    @property
    def pane(self) -> ListPane[Any] | None:
        """The list in view, if the place has one."""
        return None

    def subjects(self) -> dict[str, Any]:
        """What an action would act on, by the field names of Context."""
        pane = self.pane
        if pane is None or pane.listing.subject is None or pane.row is None:
            return {}
        return {pane.listing.subject: pane.row}

    def name_to_copy(self) -> str | None:
        """The name under the cursor."""
        return None

    async def url_to_copy(self) -> str | None:
        """The address under the cursor."""
        return None

    async def open_row(self) -> None:
        """Open what the cursor is on."""

    async def own_deed(self, name: str) -> None:
        """Do an action that only this place has."""

    def seek(self, key: Hashable) -> None:
        """Put the cursor on a row, once it is there."""
        if self.pane is not None:
            self.pane.seek(key)

    def reload(self) -> None:
        """Read everything in view again."""
        if self.pane is not None:
            self.pane.refresh_rows()

    def fact(self, about: Touched) -> None:
        """Take in an event."""
        if self.pane is not None and not about.progress:
            self.pane.fact(about)

    def tick(self, now: float) -> None:
        """A second has passed."""
        self.head.put_clock(now)
        self._ticks += 1
        if self._ticks % AGES_S == 0:
            self.redraw()
            if self.pane is not None:
                self.pane.table.refresh()

    # --- the common part

    @property
    def firth(self) -> "FirthApp":
        return cast("FirthApp", self.app)

    @property
    def session(self) -> Session:
        return self.firth.session

    def now(self) -> float:
        return self.firth.now()

    def context(self) -> Context:
        """Return all that decides which actions are possible now."""
        session = self.session
        pane = self.pane
        return Context(
            place=self.where(),
            role=session.role,
            read_only=session.read_only,
            connected=session.connected,
            methods=session.methods,
            rows=pane is None or pane.row is not None,
            **self.subjects(),
        )

    def compose(self) -> ComposeResult:
        yield self.head
        yield from self.body()
        with Vertical(id="bottom"):
            yield self.flash
            yield self.filter_bar
            yield self.foot

    def on_mount(self) -> None:
        self.redraw()
        self.tick(self.now())

    def on_screen_resume(self) -> None:
        self.redraw()
        if self.pane is not None:
            self.pane.came_into_view()

    def redraw(self) -> None:
        """Bring header and footer up to date."""
        if not self.is_mounted:
            return
        head = self.head
        session = self.session
        head.put_daemon(self.firth.daemon_cells(self.size.width), session.connection)
        head.put_path(self.crumbs(), self.side())
        had_data = session.status is not None
        head.put_banner(banner(session.connection, had_data))
        self.set_class(had_data and not session.connected, "-stale")
        context = self.context()
        self.foot.put(footer(context.place, context), context)

    @on(KeyedTable.Highlighted)
    def _moved(self, message: KeyedTable.Highlighted) -> None:
        self.redraw()

    @on(KeyedTable.Opened)
    def _opened(self, message: KeyedTable.Opened) -> None:
        self.action_act("open")

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "act" and parameters:
            known = BY_ID.get(str(parameters[0]))
            return known is not None and self.where() in known.places
        return super().check_action(action, parameters)

    def action_act(self, name: str) -> None:
        """Do an action of the table, or say in one sentence why it cannot be done now."""
        from firth_tui.screens.doing import do

        action = BY_ID[name]
        reason = why_not(action, self.context())
        if reason:
            self.firth.tell(f"{action.title(self.context())}: {reason}", warning=True)
        else:
            # a worker of the application's: one of this screen's would be waited for when the screen goes
            start(self.firth, do, self, action, group="deeds")

    # --- the filter

    @on(FilterBar.Changed)
    def _filter_changed(self, message: FilterBar.Changed) -> None:
        self.filter_to(message.text)

    @on(FilterBar.Left)
    def _filter_left(self, message: FilterBar.Left) -> None:
        self.focus_body()

    def filter_to(self, text: str) -> None:
        if self.pane is not None:
            self.pane.filter(text)

    def focus_body(self) -> None:
        """Give the keys to the place's main part."""
        target: Widget | None = self.pane.table if self.pane is not None else None
        if target is not None:
            target.focus()
        else:
            self.set_focus(None)

    def leave(self) -> None:
        """Go back one level, once the work in progress allows."""
        if self.is_current and self.firth.can_go_back:
            self.firth.call_later(self.firth.pop_screen)

    def say(self, text: str, *, warning: bool) -> None:
        """Say what has just happened, or why something cannot be done."""
        self.flash.say(text, warning=warning)

    def on_resize(self) -> None:
        self.redraw()

    def go_back(self) -> bool:
        """Leave what is transient here (a filter, faults only); False when there was nothing to leave."""
        if self.filter_bar.shown:
            self.filter_bar.close()
            self.filter_to("")
            self.focus_body()
            return True
        if self.pane is not None and self.pane.wanted.faults:
            self.pane.toggle_faults()
            return True
        return False
