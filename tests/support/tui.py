"""The terminal UI in tests: an application on a socket, keys in, the screen's text out."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

from textual.events import Paste
from textual.pilot import Pilot

from firth_tui.app import FirthApp, Options
from firth_tui.screens.place import PlaceScreen

S = TypeVar("S")

NARROW, WIDE = (80, 24), (120, 40)


class Terminal:
    """A terminal with firth in it."""

    def __init__(self, app: FirthApp, pilot: Pilot[None]) -> None:
        self.app = app
        self.pilot = pilot

    @property
    def lines(self) -> list[str]:
        """What is on the screen, line by line, without blanks at the ends."""
        return [strip.text.rstrip() for strip in self.app.screen._compositor.render_strips()]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    @property
    def words(self) -> str:
        """What is on the screen, with one blank for each gap between columns."""
        return re.sub(" {2,}", " ", self.text)

    @property
    def place(self) -> PlaceScreen:
        screen = self.app.screen
        assert isinstance(screen, PlaceScreen), screen
        return screen

    def shown(self, kind: type[S]) -> S:
        """Return the screen in view, which must be a `kind`."""
        assert isinstance(self.app.screen, kind), self.app.screen
        return self.app.screen

    async def until(self, condition: Callable[[], object], seconds: float = 5.0) -> None:
        """Wait until a condition holds; when it never does, the failure shows the screen."""
        try:
            async with asyncio.timeout(seconds):
                while not condition():
                    await self.pilot.pause(0.01)
        except TimeoutError:
            raise AssertionError(f"it never came to that; the screen:\n{self.text}") from None

    async def sees(self, *texts: str) -> None:
        """Wait until every text is on the screen."""
        await self.until(lambda: all(text in self.text or text in self.words for text in texts))

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)

    async def paste(self, text: str) -> None:
        """Bring text into the field that has the focus at once, as a terminal's clipboard does."""
        self.app.post_message(Paste(text))
        await self.pilot.pause()

    async def type(self, text: str) -> None:
        """Type text into the field that has the focus."""
        await self.pilot.press(*(_KEYS.get(each, each) for each in text))


_KEYS = {" ": "space", "/": "slash", ":": "colon", ".": "full_stop", "-": "minus", "_": "underscore", "*": "asterisk"}


@asynccontextmanager
async def terminal(
    socket: Path,
    size: tuple[int, int] = NARROW,
    *,
    now: Callable[[], float] | None = None,
    read_only: bool = False,
    ascii: bool = False,
    keys: Mapping[str, str] | None = None,
) -> AsyncIterator[Terminal]:
    """Give a terminal of a size with firth on a socket; it has been started, but may not be connected yet."""
    given = {} if now is None else {"now": now}
    options = Options(socket=socket, read_only=read_only, ascii=ascii, keys=keys or {})
    app = FirthApp(options, environment={"COLORTERM": "truecolor"}, **given)
    async with app.run_test(size=size) as pilot:
        yield Terminal(app, pilot)
