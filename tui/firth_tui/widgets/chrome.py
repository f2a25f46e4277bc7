"""What stands round every place: the header with the connection, the path to here, the tabs, the filter, the footer."""

from collections.abc import Sequence
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.message import Message
from textual.strip import Strip
from textual.timer import Timer
from textual.widget import Widget
from textual.widgets import Input, Static

from firth_tui.actions import Action, Context, key_name, key_of
from firth_tui.format import Cell, Sign, Tone, clean, clock
from firth_tui.model import Connection, Stage
from firth_tui.widgets.tones import TONE_CLASSES, Line, tone_style

FLASH_S = 6.0
"""How long a message stays."""

_STAGES = {
    Stage.CONNECTING: Cell(f"{Sign.WAIT} connecting", Tone.MUTED),
    Stage.CONNECTED: Cell(f"{Sign.BUSY} connected", Tone.OK),
    Stage.LOST: Cell(f"{Sign.BAD} disconnected", Tone.BAD),
    Stage.REFUSED: Cell(f"{Sign.BAD} refused", Tone.BAD),
    Stage.FOREIGN: Cell(f"{Sign.BAD} not understood", Tone.BAD),
}


def stage_cell(connection: Connection) -> Cell:
    """Return the connection's stage as glyph and word."""
    return _STAGES[connection.stage]


def banner(connection: Connection, had_data: bool) -> str:
    """Return the sentence of the banner; empty when there is nothing to tell."""
    if connection.stage is Stage.CONNECTED:
        return connection.note
    if connection.stage is Stage.CONNECTING:
        return ""
    if connection.stage in {Stage.FOREIGN, Stage.REFUSED}:
        return f"{Sign.BAD} {connection.text}"
    kept = f"; what is shown is from {clock(connection.since)}" if had_data else ""
    return f"{Sign.BAD} disconnected, trying again and again{kept}"


class Head(Vertical):
    """Two lines, and a banner when something is wrong with the connection."""

    DEFAULT_CSS = """
    Head { height: auto; }
    Head Horizontal { height: 1; }
    Head #head-clock { width: 14; }
    Head #head-banner { display: none; }
    Head #head-banner.-shown { display: block; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._daemon = Line(id="head-daemon")
        self._clock = Line(id="head-clock")
        self._path = Line(id="head-path")
        self._banner = Line(id="head-banner")

    def compose(self) -> ComposeResult:
        with Horizontal(id="head-top"):
            yield self._daemon
            yield self._clock
        yield self._path
        yield self._banner

    def put_daemon(self, what: Sequence[Cell], connection: Connection, tally: Sequence[Cell]) -> None:
        """Show which daemon this is, how its mirrors are, and how the connection to it is."""
        self._daemon.put(what, [*tally, stage_cell(connection)])

    def put_clock(self, now: float) -> None:
        self._clock.put([], [Cell(clock(now) + " ", Tone.MUTED)])

    def put_path(self, crumbs: Sequence[str], side: Sequence[Cell]) -> None:
        """Show the way to here, and what matters about it."""
        left: list[Cell] = [Cell(" ")]
        for index, crumb in enumerate(crumbs):
            if index:
                left.append(Cell(f" {Sign.CRUMB} ", Tone.MUTED))
            left.append(Cell(clean(crumb, 60), Tone.STRONG if index == len(crumbs) - 1 else Tone.PLAIN))
        self._path.put(left, [*side, Cell(" ")])

    def put_banner(self, text: str) -> None:
        self._banner.set_class(bool(text), "-shown")
        self._banner.put([Cell(" " + clean(text))])


class Foot(Widget):
    """The keys that matter most here; greyed where they cannot be used now."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"foot--key", *TONE_CLASSES}
    DEFAULT_CSS = "Foot { height: 1; }"

    def __init__(self) -> None:
        super().__init__()
        self._items: list[tuple[str, str, str, bool]] = []

    def put(self, items: Sequence[tuple[Action, str | None]], context: Context) -> None:
        """Show actions, each with the reason why it is greyed."""
        shown = []
        for action, reason in items:
            key = key_name(key_of(action, context.keys))
            shown.append((action.id, key, action.title(context).lower(), reason is None))
        if shown != self._items:
            self._items = shown
            self.refresh()

    @property
    def text(self) -> str:
        """What the footer says, for tests and for readers of screens."""
        return "  ".join(f"{key} {label}" for _, key, label, _ in self._fitting())

    def _fitting(self) -> list[tuple[str, str, str, bool]]:
        """Return the items that fit; those before help and quit give way first."""
        items = list(self._items)
        while len(items) > 2 and sum(len(key) + len(label) + (4 if able else 6) for _, key, label, able in items) > (
            self.size.width
        ):
            items.pop(-3)
        return items

    def render_line(self, y: int) -> Strip:
        base = self.rich_style
        muted = base + tone_style(self, Tone.MUTED)
        key_style = base + self.get_component_rich_style("foot--key", partial=True)
        parts = [Segment(" ", base)]
        for index, (name, key, label, able) in enumerate(self._fitting()):
            if index:
                parts.append(Segment(" · ", muted))
            click = Style.from_meta({"@click": f"screen.act('{name}')"})
            parts.append(Segment(key, (key_style if able else muted) + click))
            parts.append(Segment(f" {label}" if able else f" ({label})", (base if able else muted) + click))
        return Strip(parts).adjust_cell_length(self.size.width, base)


class Flash(Static):
    """What has just happened, for some seconds; it covers nothing."""

    DEFAULT_CSS = """
    Flash { height: auto; max-height: 3; padding: 0 1; display: none; }
    Flash.-shown { display: block; }
    """

    def __init__(self) -> None:
        super().__init__(markup=False)
        self._lines: list[tuple[str, bool]] = []
        self._ends: Timer | None = None

    @property
    def text(self) -> str:
        """What is said now."""
        return "\n".join(text for text, _ in self._lines)

    def say(self, text: str, *, warning: bool) -> None:
        """Show a sentence; those of the last seconds stay above it."""
        self._lines = [*self._lines[-1:], (f"{Sign.WARN} {text}" if warning else text, warning)]
        self.add_class("-shown")
        styled = [(line, "$warning" if is_warning else "") for line, is_warning in self._lines]
        self.update(Content("\n").join(Content.styled(line, style) for line, style in styled))
        if self._ends is not None:
            self._ends.stop()
        self._ends = self.set_timer(FLASH_S, self.end)

    def end(self) -> None:
        """Stop saying it."""
        self._lines = []
        self.remove_class("-shown")


class TabBar(Widget):
    """The tabs of a place on one line, each with the key that opens it."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"tab--active", *TONE_CLASSES}
    DEFAULT_CSS = "TabBar { height: 1; }"

    class Chosen(Message):
        def __init__(self, index: int) -> None:
            super().__init__()
            self.index = index

    def __init__(self, tabs: Sequence[tuple[str, str]]) -> None:
        super().__init__()
        self.tabs = list(tabs)  # the key and the title of each
        self.active = 0

    def put(self, active: int) -> None:
        if active != self.active:
            self.active = active
            self.refresh()

    def _pieces(self) -> list[str]:
        return [f" {key} {title} " for key, title in self.tabs]

    def render_line(self, y: int) -> Strip:
        base = self.rich_style
        muted = base + tone_style(self, Tone.MUTED)
        chosen = base + self.get_component_rich_style("tab--active", partial=True)
        parts = [Segment("┤" if self.active == 0 else "─", muted)]
        for index, piece in enumerate(self._pieces()):
            parts.append(Segment(piece, chosen if index == self.active else base))
            joint = "├" if index == self.active else "┤" if index + 1 == self.active else "─"
            parts.append(Segment(joint, muted))
        strip = Strip(parts)
        rest = max(0, self.size.width - strip.cell_length)
        return Strip.join([strip, Strip([Segment("─" * rest, muted)])]).adjust_cell_length(self.size.width, base)

    def on_click(self, event: events.Click) -> None:
        x = 1
        for index, piece in enumerate(self._pieces()):
            if x <= event.x < x + len(piece):
                self.post_message(self.Chosen(index))
                return
            x += len(piece) + 1


class FilterBar(Horizontal):
    """The line where a filter is typed; it stays in view while the filter is in force."""

    DEFAULT_CSS = """
    FilterBar { height: 1; display: none; }
    FilterBar.-shown { display: block; }
    FilterBar Line { width: 9; }
    FilterBar Input, FilterBar Input:focus { border: none; height: 1; padding: 0; width: 1fr; }
    """

    class Changed(Message):
        """The text is another one."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    class Left(Message):
        """Typing has ended; the filter stays."""

    def __init__(self, label: str, hint: str) -> None:
        super().__init__()
        self._label = label
        self._input = Input(placeholder=hint, max_length=200)

    def compose(self) -> ComposeResult:
        yield Line([Cell(f" {self._label}: ", Tone.ACCENT)])
        yield self._input

    @property
    def shown(self) -> bool:
        return self.has_class("-shown")

    def open(self) -> None:
        """Show the line and put the cursor into it."""
        self.add_class("-shown")
        # at once, not through a queue: the text may be there already
        self.screen.set_focus(self._input)

    def put(self, text: str) -> None:
        """Show the filter that is in force, or hide the line when there is none; nobody is told of a change."""
        self.set_class(bool(text), "-shown")
        with self.prevent(Input.Changed):
            self._input.value = text

    def close(self) -> None:
        """Clear the filter and hide the line; its owner lifts it."""
        self.put("")

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        self.post_message(self.Changed(event.value.strip()))

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self.post_message(self.Left())
