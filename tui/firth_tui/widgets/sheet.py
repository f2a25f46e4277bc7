"""Lines of toned pieces, as many as there are; what is too long for one goes on below."""

from textwrap import wrap
from typing import ClassVar

from rich.segment import Segment
from textual.strip import Strip
from textual.widget import Widget

from firth_tui.format import Cell
from firth_tui.widgets.tones import TONE_CLASSES, length, segments


class Sheet(Widget):
    """Lines of toned pieces, one below the other."""

    COMPONENT_CLASSES: ClassVar[set[str]] = set(TONE_CLASSES)
    DEFAULT_CSS = "Sheet { height: auto; width: 1fr; }"

    def __init__(self) -> None:
        super().__init__()
        self._given: list[list[Cell]] = []
        self.lines: list[list[Cell]] = []

    def put(self, lines: list[list[Cell]]) -> None:
        """Show lines; what is too long for one goes on below, under its beginning."""
        if lines != self._given:
            self._given = lines
            self._lay_out()

    def on_resize(self) -> None:
        self._lay_out()

    def _lay_out(self) -> None:
        width = max(30, self.size.width) - 1
        lines = [part for line in self._given for part in wrapped(line, width)]
        taller = len(lines) != len(self.lines)
        self.lines = lines
        self.refresh(layout=taller)

    def get_content_height(self, container: object, viewport: object, width: int) -> int:
        return max(1, len(self.lines))

    def render_line(self, y: int) -> Strip:
        width, base = self.size.width, self.rich_style
        strip = Strip(segments(self, self.lines[y])) if y < len(self.lines) else Strip([])
        if strip.cell_length > width:
            strip = Strip.join([strip.crop(0, width - 1), Strip([Segment("…", base)])])
        return strip.adjust_cell_length(width, base)


def wrapped(line: list[Cell], width: int) -> list[list[Cell]]:
    """Return a line as one or several of `width` cells; only its last piece is broken, between words."""
    if len(line) < 2 or length(line) <= width:
        return [line]
    indent = length(line[:-1])
    if indent > width // 2:
        return [line]
    text, tone = line[-1]
    parts = wrap(text, width - indent) or [""]
    return [[*line[:-1], Cell(parts[0], tone)], *([Cell(" " * indent), Cell(part, tone)] for part in parts[1:])]
