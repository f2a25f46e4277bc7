"""The application: composition root of the terminal UI, and the way from place to place."""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from msgspec import Struct
from rich.text import Text
from textual import events
from textual.command import DiscoveryHit, Hit, Hits, Provider
from textual.filter import LineFilter, Monochrome, NoColor
from textual.markup import escape
from textual.screen import Screen
from textual.scrollbar import ScrollBar
from textual.style import Style
from textual.timer import Timer

from firth_protocol.errors import FirthError
from firth_protocol.types import DaemonStatus, Event, Mirror, RunState
from firth_tui.action_table import at
from firth_tui.action_table_common import CHANNEL_TABS
from firth_tui.actions import Action, Context, Place, Target, key_name, key_of, why_not
from firth_tui.format import Cell, Tone, clean
from firth_tui.gate import Gate
from firth_tui.model import Connection, Listener, Session, Stage, Touched
from firth_tui.routes import screen_for
from firth_tui.screens.listing import WIDE
from firth_tui.screens.place import Application, PlaceScreen
from firth_tui.theme import DARK, LIGHT, THEMES, AsciiOnly, SolidScrollBar, fitting
from firth_tui.widgets.work import start

if TYPE_CHECKING:
    from firth_tui.link import Link


T = TypeVar("T")

COUNT_S = 0.5
"""How long facts are gathered before mirrors are counted again."""
COUNTED = (RunState.COMPLETED, RunState.FAILED, RunState.INCOMPLETE, RunState.RUNNING)
HEAD_CELLS = 32
"""What the connection's state, the clock and the blanks between take of the header."""


class Options(Struct, frozen=True, kw_only=True):
    """What the command line decides."""

    socket: Path
    read_only: bool = False
    ascii: bool = False
    keys: Mapping[str, str] = {}  # those that somebody has moved, by action id


class Actions(Provider):
    """The command palette: every action of the place, with the reason beside each that cannot be done now."""

    def __init__(self, screen: Screen[Any], match_style: Style | None = None) -> None:
        super().__init__(screen, match_style)
        # what the cursor is on now is meant, whatever comes under it while somebody searches
        self._seen = screen.context(painted=True) if isinstance(screen, PlaceScreen) else None

    def _lines(self) -> Iterator[tuple[str, str, Callable[[], None]]]:
        place, context = self.screen, self._seen
        if not isinstance(place, PlaceScreen) or context is None:
            return
        for action in at(context.place):
            reason = why_not(action, context)
            help_text = f"not now: {reason}" if reason else action.help
            keys = key_of(action, context.keys)
            key = f"  ({key_name(keys)})" if keys else ""
            yield action.title(context) + key, help_text, partial(place.action_act, action.id, context)

    async def discover(self) -> Hits:
        for title, help_text, do in self._lines():
            yield DiscoveryHit(title, do, help=escape(clean(help_text)))

    async def search(self, query: str) -> Hits:
        matcher = self.matcher(query)
        for title, help_text, do in self._lines():
            score = matcher.match(f"{title} {help_text}")
            if score > 0:
                yield Hit(score, matcher.highlight(title), do, help=escape(clean(help_text)))


class Objects(Provider):
    """The command palette finds objects of all kinds by name; choosing one opens it."""

    async def search(self, query: str) -> Hits:
        from firth_tui.finding import found

        app, screen = self.app, self.screen
        if isinstance(app, Application) and app.session.connected:
            inside = isinstance(screen, PlaceScreen) and screen.where() in CHANNEL_TABS | {Place.PACKAGE}
            channel = screen.context().channel if isinstance(screen, PlaceScreen) and inside else None
            async for each in found(app.link, query, channel.name if channel is not None else ""):
                # as they are: names from a source are no markup
                title, help_text = Text(clean(each.title)), escape(clean(each.help))
                yield Hit(each.score, title, partial(app.open, each.target), text=each.title, help=help_text)


async def _do(place: PlaceScreen, action: Action, context: Context) -> None:
    # with the first action: commands need more than the first paint does
    from firth_tui.commands import do

    await do(place, action, context)


class FirthApp(Application, Listener):
    """`now` is the only clock; tests freeze it."""

    CSS_PATH = "firth.tcss"
    TITLE = "Firth"
    COMMANDS: ClassVar = {Actions, Objects}
    ESCAPE_TO_MINIMIZE = False

    def __init__(
        self,
        options: Options,
        *,
        now: Callable[[], float] = time.time,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        self._poorer: list[LineFilter] = [AsciiOnly()] if options.ascii else []
        super().__init__()
        if self.no_color:
            self._poorer.append(NoColor())
        self.options = options
        self.now = now
        self.session = Session(Connection(stage=Stage.CONNECTING, since=now()), read_only=options.read_only)
        self.session.keys = options.keys
        self.set_keymap(dict(options.keys))
        self._link: Link | None = None
        self._mouse = True
        self._counting: Timer | None = None
        self.gate = Gate(self, _do)
        ScrollBar.renderer = SolidScrollBar
        for theme in THEMES:
            self.register_theme(theme)
        self.theme = fitting(environment)

    def get_line_filters(self) -> Sequence[LineFilter]:
        # NO_COLOR means no colours, not grey ones; grey made of a terminal's own colours is black on black
        kept = [each for each in super().get_line_filters() if not isinstance(each, Monochrome)]
        return [*kept, *self._poorer]

    def on_mount(self) -> None:
        self.animation_level = "none"
        start(self, self.gate.run, group="gate")
        self.open(Target(place=Place.CHANNELS))
        self.set_interval(1.0, self._tick)
        self.call_after_refresh(self._begin)

    def _begin(self) -> None:
        # after the first paint: the client's imports take a third of the time to start
        from firth_tui.link import Link

        self._link = Link(self.options.socket, self, now=self.now)
        start(self, self._link.run, group="link")

    # --- keys

    async def on_event(self, event: events.Event) -> None:
        if isinstance(event, events.Key | events.Paste) and not event.is_forwarded:
            self.gate.press(event)
        else:
            await super().on_event(event)

    async def deliver(self, event: events.Event) -> None:
        """Give a key or pasted text, whose turn it is, to what has the focus."""
        await super().on_event(event)

    # --- what places use

    @property
    def link(self) -> "Link":
        """The connection; raises DaemonUnreachable before there is one."""
        if self._link is None:
            raise ConnectionError("the daemon does not answer yet")
        return self._link

    def daemon_cells(self, width: int) -> list[Cell]:
        """Which daemon this is, on which socket, and in which role we speak to it."""
        status = self.session.status
        before, after = [Cell(" Firth ", Tone.STRONG)], []
        if status is not None:
            role = f"{status.role}, read only" if self.session.read_only else str(status.role)
            before.append(Cell(f" {clean(status.program)} {clean(status.version)} ·"))
            after.append(Cell(f" · {role}"))
        path = clean(str(self.options.socket))
        room = width - HEAD_CELLS - sum(len(cell.text) for cell in [*before, *after])
        if len(path) > room:
            path = f"…{path[-max(1, room - 1) :]}"
        return [*before, Cell(f" {path}", Tone.MUTED), *after]

    def tell(self, text: str, *, warning: bool = False) -> None:
        """Say something small that goes away by itself, in the place in view."""
        places = self.places()
        if places:
            places[-1].say(clean(text), warning=warning)

    def places(self) -> list[PlaceScreen]:
        """The places that are open, the one in view last."""
        return [screen for screen in self.screen_stack if isinstance(screen, PlaceScreen)]

    async def close(self, place: PlaceScreen) -> None:
        """Go back one level from `place`, if it is in view."""
        if place.on_top and self.can_go_back:
            await self.pop_screen()

    def open(self, target: Target) -> None:
        """Show a place above this one."""
        self.push_screen(screen_for(target))

    async def view(self, target: Target) -> None:
        """Leave every place that is open and go to a top-level one."""
        while self.can_go_back:
            await self.pop_screen()
        await self.switch_screen(screen_for(target))

    def ask(self, place: PlaceScreen, name: str, seen: Context | None = None) -> None:
        """Have an action done before the next key."""
        self.gate.ask(place, name, seen)

    async def asked(self, place: PlaceScreen, screen: Screen[T]) -> T | None:
        """Put up a dialog or a form over `place` for the action at work, and wait for the answer."""
        return await self.gate.asked(place, screen)

    async def chosen(self, place: PlaceScreen, action: Action, seen: Context) -> Context | None:
        """Return what an action that was chosen in a menu acts on now."""
        return await self.gate.chosen(place, action, seen)

    def preview(self, place: PlaceScreen, row: Any) -> list[list[Cell]]:
        """What is known of a row without asking anybody; narrow terminals never read the module."""
        from firth_tui.screens.previews import brief

        return brief(place, row)

    async def preview_more(self, place: PlaceScreen, row: Any) -> list[list[Cell]]:
        """What the daemon has to add about a row."""
        from firth_tui.screens.previews import more

        return await more(place, row)

    @property
    def can_go_back(self) -> bool:
        """Whether a place is open above the top-level one; Textual's own empty screen lies below that."""
        return len(self.screen_stack) > 2

    def retry_now(self) -> None:
        """Try to reach the daemon at once, if it is away."""
        if self._link is not None:
            self._link.retry_now()

    def switch_colours(self) -> None:
        self.theme = LIGHT if self.theme == DARK else DARK

    def switch_mouse(self) -> bool:
        """Let the terminal have the mouse, or take it back; return whether it is ours now."""
        self._mouse = not self._mouse
        driver = self._driver
        if driver is not None:
            name = "_enable_mouse_support" if self._mouse else "_disable_mouse_support"
            getattr(driver, name, lambda: None)()
            driver.flush()
        return self._mouse

    # --- what the link tells

    def link_changed(self, connection: Connection) -> None:
        self.session.connection = connection
        if connection.stage is not Stage.CONNECTED:
            self.session.live.clear()
        for place in self.places():
            place.redraw()

    def link_fresh(self, status: DaemonStatus) -> None:
        self.session.status = status
        self._count_soon()
        for place in self.places():
            place.redraw()
            place.reload()

    def link_methods(self, methods: frozenset[str]) -> None:
        self.session.methods = methods
        for place in self.places():
            place.redraw()

    def link_event(self, event: Event) -> None:
        about: Touched = self.session.live.apply(event)
        if about.changes_states:
            self._count_soon()
        for place in self.places():
            place.fact(about)

    def _count_soon(self) -> None:
        """Count mirrors by state, where there is room to show it; a burst of facts makes one count."""
        if self.size.width >= WIDE and self._counting is None:
            self._counting = self.set_timer(COUNT_S, self._count_now)

    def _count_now(self) -> None:
        self._counting = None
        start(self, self._count, group="tally", exclusive=True)

    async def _count(self) -> None:
        with suppress(FirthError, OSError):
            pages = [(state, await self.link.page(Mirror, "mirror.list", state=state, limit=1)) for state in COUNTED]
            self.session.tally = {state: page.total or 0 for state, page in pages}
        for place in self.places():
            place.redraw()

    def on_resize(self) -> None:
        if not self.session.tally and self.session.connected:
            self._count_soon()

    def _tick(self) -> None:
        now = self.now()
        self.session.rates.add(self.session.live.rate_bytes_s)
        places = self.places()
        if places:
            places[-1].tick(now)
