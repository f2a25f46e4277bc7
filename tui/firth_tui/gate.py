"""The only way from a key to what it does: one after the other, each on the screen that the keys before it have made.

A key that comes while nothing is under way means what was painted then. One that was typed ahead waits until the keys
before it have taken effect (a filter is in force, its rows are here, a screen has been put up) and means what the
screen is then. Before an action is done, a reading of its list that is under way is awaited and painted; then its
object must still be the one that was meant, and must still look so, or a sentence says that nothing was done.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar

from msgspec import Struct
from textual import events
from textual.app import ScreenStackError
from textual.command import CommandPalette
from textual.screen import Screen
from textual.widgets import Input

from firth_protocol.types import Role
from firth_tui.action_table import BY_ID
from firth_tui.actions import Action, Context, Subject, changed_meanwhile, why_not
from firth_tui.calm import calm
from firth_tui.screens.forms.form import Form
from firth_tui.screens.place import Application, PlaceScreen
from firth_tui.widgets.work import start

T = TypeVar("T")

Do = Callable[[PlaceScreen, Action, Context], Awaitable[None]]
"""Does an action on what a context holds."""

PATIENCE_S = 2.0
"""How long a key waits for what the keys before it have begun; over a slow line somebody must get away."""
LOOK_S = 0.01
"""How often a key that waits looks whether rows have come."""

_LEAVING = frozenset({"escape", "q", "ctrl+c", "ctrl+q", "question_mark"})
"""Keys that need no rows."""
_CHOOSING = frozenset({"enter", "up", "down"})


class Seen(Struct, frozen=True):
    """What a key could mean: the screen in view, and of a place all that its actions act on."""

    screen: Screen[Any]
    context: Context | None


class Asked(Struct, frozen=True):
    """An action that a key, a click, the palette or a menu asks for."""

    place: PlaceScreen
    action: Action
    seen: Context


class _Pressed(Struct, frozen=True):
    """A key or pasted text; `seen` is None when it was typed ahead."""

    event: events.Key | events.Paste
    seen: Seen | None


class _Work:
    """An action at work; keys wait for it unless it is asking something, or takes too long."""

    def __init__(self) -> None:
        self.free = asyncio.Event()
        self.task: asyncio.Task[Any] | None = None


class Gate:
    """All keys, pasted text and actions of one application pass here."""

    def __init__(self, app: Application, do: Do) -> None:
        self._app = app
        self._command = do
        self._pressed: deque[_Pressed] = deque()
        self._asked: deque[Asked] = deque()
        self._come = asyncio.Event()
        self._at_work = False
        self._taken: Seen | None = None  # what the key meant whose turn it is
        self._rested = False  # nothing has been under way since the last key
        self._works: set[_Work] = set()
        self._tired_of: Screen[Any] | None = None

    # --- what comes in

    def press(self, event: events.Key | events.Paste) -> None:
        """Take a key or pasted text in its turn."""
        if not self._app.screen_stack:
            return
        idle = not (self._at_work or self._pressed or self._asked or self._busy() or _loading(self._app.screen))
        self._pressed.append(_Pressed(event, self._look(painted=True) if idle else None))
        self._come.set()

    def ask(self, place: PlaceScreen, name: str, seen: Context | None = None) -> None:
        """Have an action done before the next key; `seen`: what it was asked for, when that was not just now."""
        taken = self._taken
        if seen is None and taken is not None and taken.screen is place:
            seen = taken.context
        self._asked.append(Asked(place, BY_ID[name], seen or place.context()))
        self._come.set()

    def _look(self, *, painted: bool) -> Seen:
        screen = self._app.screen
        return Seen(screen, screen.context(painted=painted) if isinstance(screen, PlaceScreen) else None)

    # --- one after the other

    async def run(self) -> None:
        """Take what comes, as long as the application lives."""
        with suppress(ScreenStackError):  # the screens went: the application is closing
            await self._run()

    async def _run(self) -> None:
        while True:
            await self._come.wait()
            self._at_work = True
            if self._asked:
                await self._perform(self._asked.popleft())
            elif self._pressed:
                await self._take()
            else:
                self._at_work = self._rested = False
                self._taken = None
                self._come.clear()

    async def _take(self) -> None:
        """Give the next key to what has the focus, once the keys before it have taken effect."""
        await self._caught_up(self._pressed[0].event)
        if self._asked:
            return
        pressed = self._pressed.popleft()
        if pressed.seen is not None and pressed.seen.screen is not self._app.screen:
            self._app.tell("The screen changed while a key was pressed; the key was not taken.", warning=True)
            return
        self._taken = pressed.seen or self._look(painted=False)
        self._app.call_later(self._app.deliver, pressed.event)
        self._rested = await self._in_time(calm(self._app)) and not self._asked

    async def _caught_up(self, event: events.Key | events.Paste) -> None:
        """Wait until the keys before have taken effect, as far as this one could depend on it."""
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_S):
                if not self._rested:
                    await calm(self._app)
                while True:
                    works = [work for work in self._works if not work.free.is_set()]
                    for work in works:
                        await work.free.wait()
                    screen = self._app.screen
                    rows = not (isinstance(event, events.Key) and event.key in _LEAVING) and not _typing(screen, event)
                    if isinstance(screen, PlaceScreen) and rows:
                        screen.hurry()
                    if not _loading(screen):
                        self._tired_of = None
                    elif rows and screen is not self._tired_of:
                        await asyncio.sleep(LOOK_S)
                        continue
                    if not works:
                        return
                    await calm(self._app)
        for work in self._works:
            if not work.free.is_set():
                work.free.set()  # nobody waits for it any more; what it has to say it says when it ends
        if _loading(self._app.screen):
            self._tired_of = self._app.screen

    async def _in_time(self, work: Any) -> bool:
        """Wait for `work`, but not for ever; return whether it has ended."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                await work
        except TimeoutError:
            return False
        return True

    # --- actions

    async def _perform(self, asked: Asked) -> None:
        place, action = asked.place, asked.action
        context = await self._resolved(asked)
        if context is None:
            return
        work = _Work()
        self._works.add(work)
        start(self._app, self._do, work, place, action, context, group="commands")
        if not await self._in_time(work.free.wait()):
            work.free.set()  # the keys after it need not wait; what it has to say it says when it ends

    async def _resolved(self, asked: Asked) -> Context | None:
        """Return what the action acts on now; None after saying why it is not done."""
        place, action = asked.place, asked.action
        title = action.title(asked.seen)
        fresh = action.subject is Subject.NONE or await self._in_time(self._fresh(place))
        if not fresh and action.changes and action.role.rank > Role.READER.rank:
            self._app.tell(f"{title}: the list is still being read; nothing was done", warning=True)
            return None
        if not place.on_top:
            self._app.tell(f"{title}: another screen has opened meanwhile; nothing was done", warning=True)
            return None
        context = place.context()
        reason = (
            why_not(action, asked.seen) or changed_meanwhile(action, asked.seen, context) or why_not(action, context)
        )
        by_cursor = action.subject is not Subject.NONE and not action.on_marks(context)
        if reason is None and by_cursor and not place.cursor_shown():
            reason = "the cursor was out of view; now you see it. Nothing was done"
        if reason:
            self._app.tell(f"{title}: {reason}", warning=True)
            return None
        return context

    async def _fresh(self, place: PlaceScreen) -> None:
        """Wait for the readings of a place that are under way, and until what they brought is painted."""
        place.hurry()
        for reading in place.readings():
            await reading.caught_up()
        await calm(self._app)
        while place.on_top and not place.painted:
            await place.wait_for_refresh()

    async def _do(self, work: _Work, place: PlaceScreen, action: Action, context: Context) -> None:
        work.task = asyncio.current_task()
        try:
            await self._command(place, action, context)
        finally:
            work.free.set()
            self._works.discard(work)

    def _busy(self) -> bool:
        return any(not work.free.is_set() for work in self._works)

    async def asked(self, place: PlaceScreen, screen: Screen[T]) -> T | None:
        """Put up a dialog or a form over `place` for the action at work, and wait for the answer; keys go to it.

        None, with a sentence, when somebody has gone elsewhere while the action was at work.
        """
        if not place.on_top:
            self._app.tell("You had gone on meanwhile; nothing was done.", warning=True)
            return None
        mine = [work for work in self._works if work.task is asyncio.current_task()]
        for work in mine:
            work.free.set()
        try:
            return await self._app.push_screen_wait(screen)
        finally:
            for work in mine:
                work.free = asyncio.Event()

    async def chosen(self, place: PlaceScreen, action: Action, seen: Context) -> Context | None:
        """Return what an action that was chosen in a menu acts on now; None after saying why it is not done."""
        return await self._resolved(Asked(place, action, seen))


def _typing(screen: Screen[Any], event: events.Key | events.Paste) -> bool:
    """Tell whether a key is text; in the palette some keys choose among what the text has found."""
    chooses = isinstance(screen, CommandPalette) and isinstance(event, events.Key) and event.key in _CHOOSING
    return isinstance(screen.focused, Input) and not chooses


def _loading(screen: Screen[Any]) -> bool:
    """Tell whether a screen does not show yet what was asked of it."""
    if isinstance(screen, PlaceScreen):
        return screen.behind()
    if isinstance(screen, Form):
        return screen.behind
    if isinstance(screen, CommandPalette):
        return any(worker.node is screen and not worker.is_finished for worker in screen.app.workers)
    return False
