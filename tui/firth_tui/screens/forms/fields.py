"""What forms are made of: labelled fields of one line each, with an error or an answer below when there is one."""

from collections.abc import Sequence
from typing import ClassVar

from rich.segment import Segment
from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget
from textual.widgets import Input, Static

from firth_tui.format import Cell, Sign, Tone, clean
from firth_tui.widgets.tones import TONE_CLASSES, Line, segments

LABEL_CELLS = 15
BETWEEN = 3
REASON = "\0reason"
"""Stands for why a choice cannot be made, among what could be chosen."""


class FieldChanged(Message):
    """A field has another value."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name


class Choice(Widget, can_focus=True):
    """One of a few, on as many lines as they need; left and right choose, enter goes on to the next field."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"choice--chosen", *TONE_CLASSES}
    DEFAULT_CSS = "Choice { height: auto; width: 1fr; }"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left", "by(-1)", show=False, id="choice.previous"),
        Binding("right,space", "by(1)", show=False, id="choice.next"),
        Binding("enter", "app.focus_next", show=False, id="choice.leave"),
    ]

    class Changed(Message):
        def __init__(self, choice: "Choice") -> None:
            super().__init__()
            self.choice = choice

    def __init__(self, options: Sequence[tuple[str, str]], value: str, *, reason: str = "") -> None:
        super().__init__(disabled=bool(reason))
        self.options = list(options)
        self.value = value
        self._reason = reason

    def set_value(self, value: str) -> None:
        if value != self.value:
            self.value = value
            self.refresh()
            self.post_message(self.Changed(self))

    def action_by(self, by: int) -> None:
        names = [name for name, _ in self.options]
        self.set_value(names[(names.index(self.value) + by) % len(names)])

    def _pieces(self) -> list[tuple[str, str]]:
        if self._reason:
            shown = [(name, clean(text)) for name, text in self.options if name == self.value]
            return [*shown, (REASON, f"({clean(self._reason)})")]
        return [(name, f"{Sign.ON if name == self.value else Sign.OFF} {text}") for name, text in self.options]

    def _rows(self, width: int) -> list[list[tuple[str, str]]]:
        """Return the pieces line by line; a line is as long as there is room, and none is cut that fits on one."""
        rows: list[list[tuple[str, str]]] = [[]]
        for piece in self._pieces():
            taken = sum(len(text) + BETWEEN for _, text in rows[-1])
            if rows[-1] and taken + len(piece[1]) > width:
                rows.append([])
            rows[-1].append(piece)
        return rows

    def get_content_height(self, container: object, viewport: object, width: int) -> int:
        return len(self._rows(width))

    def render_line(self, y: int) -> Strip:
        base = self.rich_style
        rows = self._rows(self.size.width)
        parts: list[Segment] = []
        for index, (name, text) in enumerate(rows[y] if y < len(rows) else []):
            if index:
                parts.append(Segment(" " * BETWEEN, base))
            if name == REASON:
                parts += segments(self, [Cell(text, Tone.MUTED)])
                continue
            chosen = name == self.value and not self._reason
            style = base + self.get_component_rich_style("choice--chosen", partial=True) if chosen else base
            parts.append(Segment(text, style))
        return Strip(parts).adjust_cell_length(self.size.width, base)

    def on_click(self, event: events.Click) -> None:
        x = 0
        rows = self._rows(self.size.width)
        for name, text in rows[event.y] if 0 <= event.y < len(rows) else []:
            if x <= event.x < x + len(text) and name != REASON:
                self.set_value(name)
            x += len(text) + BETWEEN


class Field(Vertical):
    """A label, a control, and a line below for an error or an answer."""

    DEFAULT_CSS = f"""
    Field {{ height: auto; }}
    Field > Horizontal {{ height: auto; }}
    Field .label {{ width: {LABEL_CELLS + 2}; }}
    Field .answer {{ margin-left: {LABEL_CELLS + 2}; height: auto; }}
    Field Input, Field Input:focus {{ border: none; height: 1; padding: 0; width: 1fr; }}
    """

    def __init__(self, name: str, label: str, control: Widget, help: str) -> None:
        super().__init__(id=f"field-{name}")
        self.field = name
        self.label = label
        self.control = control
        self.help = help
        self.error = ""
        self._answer: Static | None = None

    def compose(self) -> ComposeResult:
        with Horizontal():
            label = Line([Cell(f" {self.label}", Tone.PLAIN)])
            label.add_class("label")
            yield label
            yield self.control

    @property
    def value(self) -> str:
        if isinstance(self.control, Input):
            return self.control.value.strip()
        return self.control.value if isinstance(self.control, Choice) else ""

    @value.setter
    def value(self, text: str) -> None:
        if isinstance(self.control, Input):
            self.control.value = text
        elif isinstance(self.control, Choice):
            self.control.set_value(text)

    def on_resize(self) -> None:
        # the line that tells an error has come below the field: it is to be read
        if self.error and self.control.has_focus:
            self.scroll_visible(animate=False)

    def say(self, text: str, tone: Tone = Tone.MUTED) -> None:
        """Put an answer below the field; an error is marked as one."""
        self.error = text if tone is Tone.BAD else ""
        sign = f"{Sign.BAD} " if tone is Tone.BAD else f"{Sign.OK} " if tone is Tone.OK else ""
        if self._answer is None and text:
            self._answer = Static(markup=False, classes="answer")
            self.mount(self._answer)
        if self._answer is not None:
            self._answer.update(sign + clean(text, 300))
            self._answer.display = bool(text)
            for each in Tone:
                self._answer.set_class(each is tone, f"-{each}")

    @on(Input.Changed)
    def _typed(self, event: Input.Changed) -> None:
        event.stop()
        self.post_message(FieldChanged(self.field))

    @on(Choice.Changed)
    def _chosen(self, event: Choice.Changed) -> None:
        event.stop()
        self.post_message(FieldChanged(self.field))

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self.screen.focus_next()


def text_field(
    name: str, label: str, help: str, value: str = "", *, placeholder: str = "", secret: bool = False
) -> Field:
    """Return a field for one line of text."""
    return Field(name, label, Input(value, placeholder=placeholder, password=secret, max_length=4000), help)


def choice_field(
    name: str, label: str, help: str, options: Sequence[tuple[str, str]], value: str, *, reason: str = ""
) -> Field:
    """Return a field for one of a few; with a `reason` it cannot be changed."""
    return Field(name, label, Choice(options, value, reason=reason), help)


def words(text: str) -> list[str] | None:
    """Return what stands between commas or blanks, or None for nothing."""
    return text.replace(",", " ").split() or None


def lines(text: str) -> list[str] | None:
    """Return what stands between commas, or None for nothing."""
    return [part.strip() for part in text.split(",") if part.strip()] or None
