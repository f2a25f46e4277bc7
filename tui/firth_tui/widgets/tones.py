"""The only place that turns a tone into a style, and a row of toned pieces into a line on screen."""

from collections.abc import Sequence
from typing import ClassVar

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip
from textual.widget import Widget

from firth_tui.format import Cell, Tone

TONE_CLASSES = frozenset(f"tone--{tone}" for tone in Tone)


def tone_style(widget: Widget, tone: Tone) -> Style:
    """Return what `tone` adds to the style of a line in `widget`."""
    style = widget.get_component_rich_style(f"tone--{tone}", partial=True)
    return Style(color=style.color, bold=style.bold, dim=style.dim)


def length(cells: Sequence[Cell]) -> int:
    """Return how many screen cells `cells` take."""
    return sum(cell_len(cell.text) for cell in cells)


def segments(widget: Widget, cells: Sequence[Cell]) -> list[Segment]:
    """Return `cells` as segments in the style of `widget`."""
    base = widget.rich_style
    return [Segment(cell.text, base + tone_style(widget, cell.tone)) for cell in cells]


LEFT_KEPT = 24


class Line(Widget):
    """One line: pieces from the left, pieces from the right; the left side is cut when both do not fit."""

    COMPONENT_CLASSES: ClassVar[set[str]] = set(TONE_CLASSES)
    DEFAULT_CSS = "Line { height: 1; width: 1fr; }"

    def __init__(self, left: Sequence[Cell] = (), right: Sequence[Cell] = (), *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.left = list(left)
        self.right = list(right)

    def put(self, left: Sequence[Cell], right: Sequence[Cell] = ()) -> None:
        """Show other pieces; nothing is drawn when they are the same."""
        if list(left) != self.left or list(right) != self.right:
            self.left, self.right = list(left), list(right)
            self.refresh()

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        base = self.rich_style
        right = Strip(segments(self, self.right))
        # the beginning of the left side stays in view, whatever the right one has to say
        most = width - min(length(self.left), LEFT_KEPT) - 1
        if self.left and self.right and right.cell_length > most:
            right = Strip.join([right.crop(0, max(0, most - 1)), Strip([Segment("…", base)])])
        room = max(0, width - right.cell_length - (1 if self.right else 0))
        left = Strip(segments(self, self.left))
        if left.cell_length > room:
            left = Strip.join([left.crop(0, max(0, room - 1)), Strip([Segment("…", base)])])
        gap = max(0, width - left.cell_length - right.cell_length)
        return Strip.join([left, Strip([Segment(" " * gap, base)]), right]).adjust_cell_length(width, base)
