"""A place that is one sheet of lines about one thing: read as a whole, read again when an event is about it."""

from typing import ClassVar

from textual.app import ComposeResult

from firth_protocol.errors import FirthError, NotFound
from firth_tui.format import Cell, Sign, Tone, clean
from firth_tui.model import Touched
from firth_tui.screens.place import PlaceScreen
from firth_tui.widgets.scroll import Scroll
from firth_tui.widgets.sheet import Sheet
from firth_tui.widgets.work import Repeated


class SheetScreen(PlaceScreen):
    """A place with a sheet; a subclass reads what it is about, and puts it into lines."""

    gone: ClassVar[str] = "This has been deleted."

    def __init__(self) -> None:
        super().__init__()
        self.sheet = Sheet()
        self.reading = Repeated(self, self._read, group="sheet")

    # --- what a subclass tells

    @property
    def known(self) -> bool:
        """Whether what the place is about has been read."""
        raise NotImplementedError

    def told_gone(self) -> str:
        """What is said when the thing is not there any more."""
        return self.gone

    def about_this(self, about: Touched) -> bool:
        """Whether an event changes what is shown."""
        raise NotImplementedError

    async def read(self) -> None:
        """Read what the place is about; raises NotFound when it is gone. May draw in between."""
        raise NotImplementedError

    def lines(self) -> list[list[Cell]]:
        """All there is to say, once it is `known`."""
        raise NotImplementedError

    # --- the common part

    def body(self) -> ComposeResult:
        with Scroll(id="sheet"):
            yield self.sheet

    def on_mount(self) -> None:
        self.focus_body()
        self.reload()

    def focus_body(self) -> None:
        self.set_focus(self.query_one("#sheet", Scroll))

    def behind(self) -> bool:
        return not self.known and self.reading.at_work

    def readings(self) -> list[Repeated]:
        return [self.reading]

    def reload(self) -> None:
        self.reading.ask()

    def fact(self, about: Touched) -> None:
        if self.about_this(about):
            self.reload()

    def tick(self, now: float) -> None:
        super().tick(now)
        self.draw()

    async def _read(self) -> None:
        try:
            await self.read()
        except NotFound:
            self.firth.tell(self.told_gone(), warning=True)
            self.leave()
        except FirthError as error:
            self.sheet.put([[Cell(f" {Sign.BAD} {clean(error.message)}", Tone.BAD)]])
        except OSError:
            return
        else:
            self.draw()

    def draw(self) -> None:
        """Show what is known by now."""
        if self.known:
            self.sheet.put(self.lines())
            self.redraw()
