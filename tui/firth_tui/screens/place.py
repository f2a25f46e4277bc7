"""What every place has in common: the chrome, keys from the action table, what an action acts on.

And the little that places, forms and commands may ask of the application, which none of them knows.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast

from textual import events, on
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import Screen
from textual.widget import Widget

from firth_protocol.types import RunState
from firth_tui.action_table import BY_ID, footer, for_keys
from firth_tui.actions import Action, Context, Place, Target
from firth_tui.format import Cell, Sign, Tone
from firth_tui.model import Session, Touched
from firth_tui.screens.listing import WIDE, ListPane
from firth_tui.widgets.chrome import FilterBar, Flash, Foot, Head, banner
from firth_tui.widgets.keyed_table import KeyedTable
from firth_tui.widgets.work import Repeated

if TYPE_CHECKING:
    from firth_tui.link import Link

T = TypeVar("T")


AGES_S = 20
"""How often what is told as an age is drawn again."""


def bindings(places: Iterable[Place]) -> list[BindingType]:
    """Return the keys of `places`, each with its action's id, so that a keymap can move it."""
    return [
        Binding(action.key, f"act('{action.id}')", action.label, id=action.id, show=False)
        for action in for_keys(places)
    ]


class Application(App[None]):
    """What screens and commands may ask of the application; it is put together in `firth_tui.app`."""

    session: Session
    now: Callable[[], float]

    @property
    def link(self) -> "Link":
        """The connection; raises ConnectionError before there is one."""
        raise NotImplementedError

    def daemon_cells(self, width: int) -> list[Cell]:
        """Which daemon this is, in a header of `width` cells."""
        raise NotImplementedError

    def tell(self, text: str, *, warning: bool = False) -> None:
        """Say something small that goes away by itself, in the place in view."""
        raise NotImplementedError

    def open(self, target: Target) -> None:
        """Show a place above this one; going back leads here again."""
        raise NotImplementedError

    async def view(self, target: Target) -> None:
        """Leave every place that is open and go to a top-level one."""
        raise NotImplementedError

    async def close(self, place: "PlaceScreen") -> None:
        """Go back one level from `place`, if it is in view."""
        raise NotImplementedError

    def ask(self, place: "PlaceScreen", name: str, seen: Context | None = None) -> None:
        """Have an action done before the next key; `seen`: what it was asked for, when that was not just now."""
        raise NotImplementedError

    async def asked(self, place: "PlaceScreen", screen: Screen[T]) -> T | None:
        """Put up a dialog or a form over `place` for the action at work, and wait for the answer."""
        raise NotImplementedError

    async def chosen(self, place: "PlaceScreen", action: Action, seen: Context) -> Context | None:
        """Return what an action that was chosen in a menu acts on now; None after saying why it is not done."""
        raise NotImplementedError

    async def deliver(self, event: events.Event) -> None:
        """Give a key or pasted text, whose turn it is, to what has the focus."""
        raise NotImplementedError

    def preview(self, place: "PlaceScreen", row: Any) -> list[list[Cell]]:
        """What is known of a row without asking anybody."""
        raise NotImplementedError

    async def preview_more(self, place: "PlaceScreen", row: Any) -> list[list[Cell]]:
        """What the daemon has to add about a row."""
        raise NotImplementedError

    def retry_now(self) -> None:
        """Try to reach the daemon at once, if it is away."""
        raise NotImplementedError

    def switch_colours(self) -> None:
        raise NotImplementedError

    def switch_mouse(self) -> bool:
        """Let the terminal have the mouse, or take it back; return whether it is ours now."""
        raise NotImplementedError


def tally_cells(tally: Mapping[RunState, int]) -> list[Cell]:
    """Return how many mirrors are well, failed and at work, in one line; nothing before it is known."""
    told = [
        (Sign.OK, "ok", Tone.OK, tally.get(RunState.COMPLETED, 0)),
        (Sign.BAD, "failed", Tone.BAD, tally.get(RunState.FAILED, 0)),
        (Sign.WARN, "incomplete", Tone.WARN, tally.get(RunState.INCOMPLETE, 0)),
        (Sign.BUSY, "running", Tone.BUSY, tally.get(RunState.RUNNING, 0)),
    ]
    cells = [Cell(f"{sign} {number:,} {word}   ", tone) for sign, word, tone, number in told if number]
    return cells or ([Cell("no mirror has run   ", Tone.MUTED)] if tally else [])


class RowPreviews:
    """The previews of a place's rows, as the application makes them."""

    def __init__(self, place: "PlaceScreen") -> None:
        self._place = place

    def brief(self, row: Any) -> list[list[Cell]]:
        return self._place.firth.preview(self._place, row)

    async def more(self, row: Any) -> list[list[Cell]]:
        return await self._place.firth.preview_more(self._place, row)


class PlaceScreen(Screen[None]):
    """A place: chrome round a body. A subclass says where it is, the way to it, and what an action acts on."""

    words: ClassVar[Sequence[tuple[str, str]]] = ()
    filter_words: ClassVar[tuple[str, str]] = ("filter", "type part of a name; enter: to the list, esc: clear")

    def __init__(self) -> None:
        super().__init__()
        self.head = Head()
        self.flash = Flash()
        self.filter_bar = FilterBar(*self.filter_words)
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

    @property
    def table(self) -> KeyedTable[Any] | None:
        """The table in view, if the place has one."""
        return self.pane.table if self.pane is not None else None

    def under_cursor(self, *, painted: bool = False) -> tuple[Hashable | None, Any]:
        """The key of the row under the cursor and the row, as they are or were last `painted`; None: there is none."""
        table = self.table
        if table is None:
            return None, None
        key, row = table.shown if painted else (table.cursor_key, table.cursor_row)
        return (None if row is None else key), row

    def subjects(self, *, painted: bool = False) -> dict[str, Any]:
        """What an action would act on, by the field names of Context."""
        pane = self.pane
        row = self.under_cursor(painted=painted)[1]
        if pane is None or pane.listing.subject is None or row is None:
            return {}
        return {pane.listing.subject: row}

    def name_to_copy(self, row: Any) -> str | None:
        """The name under the cursor."""
        return None

    async def url_to_copy(self, row: Any) -> str | None:
        """The address under the cursor."""
        return None

    async def open_row(self, row: Any) -> None:
        """Open what the cursor is on."""

    def behind(self) -> bool:
        """Whether the place does not show yet what was asked of it."""
        return self.pane is not None and self.pane.behind

    def hurry(self) -> None:
        """Do now what waits for a pause in typing or in what happens."""
        if self.pane is not None:
            self.pane.hurry()

    def readings(self) -> list[Repeated]:
        """What reads the place anew."""
        return self.pane.readings() if self.pane is not None else []

    async def own_command(self, name: str) -> None:
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
    def firth(self) -> Application:
        return cast(Application, self.app)

    @property
    def session(self) -> Session:
        return self.firth.session

    def now(self) -> float:
        return self.firth.now()

    @property
    def painted(self) -> bool:
        """Whether what the cursor is on has been painted as it is now."""
        return self.table is None or self.table.painted

    def cursor_shown(self) -> bool:
        """Whether the cursor is in view; when it is not, it is brought there."""
        table = self.table
        if table is None or table.cursor_in_view:
            return True
        table.reveal()
        return False

    @property
    def on_top(self) -> bool:
        """Whether keys come here; Textual calls a place below a dialog current as well."""
        return self.app.screen is self

    def context(self, *, painted: bool = False) -> Context:
        """Return all that decides which actions are possible now, or were with the row that was last `painted`."""
        session = self.session
        key, row = self.under_cursor(painted=painted)
        return Context(
            place=self.where(),
            role=session.role,
            read_only=session.read_only,
            keys=session.keys,
            connected=session.connected,
            methods=session.methods,
            rows=self.pane is None or row is not None,
            row=row,
            row_key=key,
            marks=self._marks(painted=painted),
            **self.subjects(painted=painted),
        )

    def _marks(self, *, painted: bool) -> frozenset[Hashable]:
        pane = self.pane
        if pane is None:
            return frozenset()
        return pane.table.shown_marks if painted else frozenset(pane.table.marks)

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
        tally = tally_cells(session.tally) if self.size.width >= WIDE else []
        head.put_daemon(self.firth.daemon_cells(self.size.width), session.connection, tally)
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

    def action_act(self, name: str, seen: Context | None = None) -> None:
        """Do an action of the table, or say in one sentence why it cannot be done now.

        `seen` is what it was asked for, when that was not just now.
        """
        self.firth.ask(self, name, seen)

    # --- the filter

    @on(FilterBar.Changed)
    def _filter_changed(self, message: FilterBar.Changed) -> None:
        self.filter_to(message.text)

    @on(FilterBar.Left)
    def _filter_left(self, message: FilterBar.Left) -> None:
        self.hurry()
        self.focus_body()

    def filter_to(self, text: str) -> None:
        if self.pane is not None:
            self.pane.filter(text)

    def focus_body(self) -> None:
        """Give the keys to the place's main part."""
        target: Widget | None = self.pane.table if self.pane is not None else None
        # at once, not through a queue: the next key may be there already
        self.set_focus(target)

    def leave(self) -> None:
        """Go back one level, once the work in progress allows; with something above it, when that is gone."""
        self.firth.call_later(self.firth.close, self)

    def say(self, text: str, *, warning: bool) -> None:
        """Say what has just happened, or why something cannot be done."""
        self.flash.say(text, warning=warning)

    def on_resize(self) -> None:
        self.redraw()

    def go_back(self) -> bool:
        """Leave what is transient here (a filter, faults only, marks); False when there was nothing to leave."""
        if self.filter_bar.shown:
            self.filter_bar.close()
            self.filter_to("")
            self.focus_body()
            return True
        if self.pane is not None and self.pane.narrowed:
            self.pane.show_all()
            return True
        if self.pane is not None and self.pane.table.marks:
            self.pane.table.unmark()
            self.redraw()
            return True
        return False
