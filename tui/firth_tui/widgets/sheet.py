"""Lines of toned pieces, as many as there are; what is too long for one goes on below."""

import re
from typing import ClassVar

from rich.cells import cell_len
from rich.segment import Segment
from textual.strip import Strip
from textual.widget import Widget

from firth_tui.format import Cell
from firth_tui.widgets.tones import TONE_CLASSES, length, segments

_PIECE = re.compile(r"\s*\S+\s*|\s+")


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
        lines = self._broken(self.size.width)
        taller = len(lines) != len(self.lines)
        self.lines = lines
        self.refresh(layout=taller)

    def get_content_height(self, container: object, viewport: object, width: int) -> int:
        return max(1, len(self._broken(width)))

    def _broken(self, width: int) -> list[list[Cell]]:
        return [part for line in self._given for part in wrapped(line, max(30, width) - 1)]

    def render_line(self, y: int) -> Strip:
        width, base = self.size.width, self.rich_style
        strip = Strip(segments(self, self.lines[y])) if y < len(self.lines) else Strip([])
        if strip.cell_length > width:
            strip = Strip.join([strip.crop(0, width - 1), Strip([Segment("…", base)])])
        return strip.adjust_cell_length(width, base)


def wrapped(line: list[Cell], width: int) -> list[list[Cell]]:
    """Return a line as one or several of `width` cells, broken between words.

    What goes on below stands under the beginning of the last piece; where that is far to the right, under the second.
    """
    if len(line) < 2 or length(line) <= width:
        return [line]
    fixed = line[:-1] if length(line[:-1]) <= width // 2 else line[:1]
    indent = length(fixed)
    if indent > width // 2:
        return [line]
    room = width - indent
    rows: list[list[Cell]] = [[]]
    for text, tone in line[len(fixed) :]:
        for word in _PIECE.findall(text):
            if rows[-1] and length(rows[-1]) + cell_len(word.rstrip()) > room:
                rows.append([])
                word = word.lstrip()
            while cell_len(word.rstrip()) > room:  # longer than a line: broken anywhere
                rows[-1].append(Cell(word[:room], tone))
                rows.append([])
                word = word[room:]
            rows[-1].append(Cell(word, tone))
    below = [Cell(" " * indent)]
    return [[*(below if number else fixed), *_joined(row)] for number, row in enumerate(rows)]


def _joined(row: list[Cell]) -> list[Cell]:
    """Return pieces with those of one tone put together, without blanks at the end."""
    found: list[Cell] = []
    for text, tone in row:
        if found and found[-1].tone is tone:
            found[-1] = Cell(found[-1].text + text, tone)
        else:
            found.append(Cell(text, tone))
    if found:
        found[-1] = Cell(found[-1].text.rstrip(), found[-1].tone)
    return found
