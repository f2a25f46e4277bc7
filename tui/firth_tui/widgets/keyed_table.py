"""A table over a list of any length: draws only the lines in view, and keeps selection and scroll position by key."""

from collections.abc import Callable, Hashable, Sequence
from textwrap import wrap
from typing import ClassVar, Generic, TypeVar

import msgspec
from msgspec import Struct
from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from firth_protocol.errors import FirthError
from firth_tui.format import Cell, Sign, Tone
from firth_tui.rows import RowSource
from firth_tui.widgets.tones import TONE_CLASSES, tone_style
from firth_tui.widgets.work import start

T = TypeVar("T")

JUMP = 1000
"""How many rows further a list of unknown length is read at once on the way to its end."""

LEAST = 6
"""Cells of a column on a terminal that is too narrow for all that must be shown."""
GAP = 2
"""Cells between two columns."""


class Column(Struct, Generic[T], frozen=True, kw_only=True):
    """One column: `width` is its least; `grow` shares out what is left; columns with a `drop` go, highest first."""

    id: str
    title: str
    width: int
    cell: Callable[[T], Cell]
    grow: int = 0
    drop: int = 0
    right: bool = False
    sort: str | None = None


def fit(columns: Sequence[Column[T]], width: int, sort: str | None = None) -> list[tuple[Column[T], int]]:
    """Return the columns that fit into `width` cells, with the width of each; that of `sort` goes last of all."""
    kept = list(columns)
    by = (sort or "").removeprefix("-")

    def may_go() -> list[Column[T]]:
        free = [column for column in kept if column.drop]
        return [column for column in free if not by or column.sort != by] or free

    def needed() -> int:
        return sum(column.width for column in kept) + GAP * (len(kept) - 1)

    while needed() > width and may_go():
        kept.remove(max(may_go(), key=lambda column: column.drop))
    while needed() > width and (wide := [column for column in kept if column.width > LEAST]):
        # nothing more may go: those that can be cut give up a cell, the widest first
        widest = max(wide, key=lambda column: (bool(column.grow), column.width))
        narrower = msgspec.structs.replace(widest, width=widest.width - 1)
        kept = [narrower if column is widest else column for column in kept]
    left = max(0, width - needed())
    growing = sum(column.grow for column in kept)
    widths: list[tuple[Column[T], int]] = []
    for column in kept:
        share = left * column.grow // growing if growing and column.grow else 0
        widths.append((column, column.width + share))
    return widths


def into(text: str, width: int, right: bool = False) -> str:
    """Return `text` in exactly `width` cells; what does not fit ends with `…`."""
    length = cell_len(text)
    if length > width:
        return set_cell_size(text, width - 1) + "…" if width > 1 else set_cell_size(text, width)
    return " " * (width - length) + text if right else text + " " * (width - length)


def heading(title: str, width: int, right: bool, arrow: str = "") -> str:
    """Return a column's title with the gap after it; the arrow of the order is never cut, the title may be."""
    if not arrow:
        return into(title, width, right) + " " * GAP
    if len(title) + 1 < width:
        return into(f"{title} {arrow}", width, right) + " " * GAP
    return into(title, width, right) + arrow + " " * (GAP - 1)


class KeyedTable(ScrollView, Generic[T], can_focus=True):
    """Draws `source`; the screen that owns it opens rows, sorts and refreshes."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"table--heading", "table--cursor", *TONE_CLASSES}

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down,j", "move(1)", "Down", show=False, id="table.down"),
        Binding("up,k", "move(-1)", "Up", show=False, id="table.up"),
        Binding("pagedown,ctrl+f", "move_page(1)", "Page down", show=False, id="table.page_down"),
        Binding("pageup,ctrl+u", "move_page(-1)", "Page up", show=False, id="table.page_up"),
        Binding("g,home", "first", "First", show=False, id="table.first"),
        Binding("G,end", "last", "Last", show=False, id="table.last"),
    ]

    class Highlighted(Message):
        """The cursor stands on another row, or the row under it is another."""

        def __init__(self, table: "KeyedTable[T]") -> None:
            super().__init__()
            self.table = table

    class Opened(Highlighted):
        """A row was clicked twice."""

    class SortAsked(Message):
        """A heading was clicked."""

        def __init__(self, table: "KeyedTable[T]", column: str) -> None:
            super().__init__()
            self.table = table
            self.column = column

    class LoadFailed(Message):
        """Rows could not be read."""

        def __init__(self, table: "KeyedTable[T]", error: Exception) -> None:
            super().__init__()
            self.table = table
            self.error = error

    def __init__(
        self,
        columns: Sequence[Column[T]],
        source: RowSource[T],
        *,
        empty: str = "Nothing here.",
        id: str | None = None,
    ) -> None:
        super().__init__(id=id)
        self.columns = tuple(columns)
        self.source = source
        self.empty = empty
        self.marks: dict[Hashable, T] = {}
        self._sort: str | None = None
        self.loaded = False
        self.error: str | None = None
        self._index = 0
        self._key: Hashable | None = None
        self._loading = False
        self._to_end = False
        self._fitted: list[tuple[Column[T], int]] = []
        self._painted: tuple[Hashable | None, T | None] = (None, None)
        self._painted_marks: frozenset[Hashable] = frozenset()

    # --- what the owner asks

    @property
    def sort(self) -> str | None:
        """What the list is sorted by; its column stays in view."""
        return self._sort

    @sort.setter
    def sort(self, sort: str | None) -> None:
        self._sort = sort
        self._fit()

    @property
    def in_view(self) -> list[Column[T]]:
        """The columns for which there is room."""
        return [column for column, _ in self._fitted] or list(self.columns)

    def mark(self) -> None:
        """Mark the row under the cursor, or take its mark away."""
        row = self.cursor_row
        if row is not None and self.marks.pop(self.source.key(row), None) is None:
            self.marks[self.source.key(row)] = row
        self.refresh_line(self._index + 1)
        self._note()

    def unmark(self) -> None:
        """Take all marks away."""
        self.marks.clear()
        self.refresh()
        self._note()

    @property
    def shown_marks(self) -> frozenset[Hashable]:
        """The marks as they were last painted; without a terminal, as they would be."""
        return frozenset(self.marks) if self.app.is_headless else self._painted_marks

    @property
    def cursor_index(self) -> int:
        return self._index

    @property
    def cursor_key(self) -> Hashable | None:
        return self._key

    @property
    def cursor_row(self) -> T | None:
        """The row under the cursor; None while there is none, or it is still read."""
        return self.source.row(self._index)

    @property
    def behind(self) -> bool:
        """Whether rows in view are being read."""
        return self._loading

    @property
    def shown(self) -> tuple[Hashable | None, T | None]:
        """Key and row under the cursor as they were last painted; without a terminal, as they would be."""
        return self._current() if self.app.is_headless else self._painted

    @property
    def painted(self) -> bool:
        """Whether the row under the cursor has been painted as it is now."""
        key, row = self._current()
        return self.shown[0] == key and self.shown[1] is row and self.shown_marks == self.marks.keys()

    @property
    def cursor_in_view(self) -> bool:
        first, last = self.window
        return first <= self._index <= last or not len(self.source)

    def reveal(self) -> None:
        """Bring the cursor into view, if the mouse has scrolled it away."""
        if not self.cursor_in_view:
            self.scroll_to(y=self._index, animate=False)

    def _current(self) -> tuple[Hashable | None, T | None]:
        row = self.cursor_row
        return (None if row is None else self.source.key(row)), row

    def _note(self) -> None:
        """Remember what stands under the cursor once it has been painted."""
        now, marks = self._current(), frozenset(self.marks)

        def painted() -> None:
            self._painted, self._painted_marks = now, marks

        self.call_after_refresh(painted)

    @property
    def window(self) -> tuple[int, int]:
        """The first and last row in view."""
        first = round(self.scroll_y)
        return first, first + max(1, self.size.height - 1) - 1

    def show(self, source: RowSource[T]) -> None:
        """Draw another list from its beginning; the cursor goes to the same key if it is there."""
        self.source = source
        self.loaded = False
        self.error = None
        self._index = 0
        self.scroll_to(y=0, animate=False)
        self.changed()

    def changed(self) -> None:
        """Take in that the list has other rows now: the cursor stays on its key, and its key stays on its line."""
        line = self._index - round(self.scroll_y)
        count = len(self.source)
        if self._to_end:
            index: int | None = count - 1
            line = self.window[1] - self.window[0]
            self._to_end = not self.source.complete
        else:
            index = self.source.index_of(self._key) if self._key is not None else None
        self.loaded = self.loaded or count > 0
        self._index = index if index is not None else max(0, min(self._index, count - 1))
        self._measure()
        if index is not None:
            self.scroll_to(y=max(0, self._index - line), animate=False)
        self._adopt()
        self.refresh()
        self._note()
        self._ensure()

    def row_changed(self, key: Hashable) -> None:
        """Draw one row again, if it is in view."""
        index = self.source.index_of(key)
        first, last = self.window
        if index is not None and first <= index <= last:
            self.refresh_line(index + 1)
        self._note()

    def cell_changed(self, key: Hashable, column: str) -> None:
        """Draw one cell again, if it is in view: over a slow line that is a tenth of its row."""
        index = self.source.index_of(key)
        first, last = self.window
        if index is None or not first <= index <= last:
            return
        x = 1
        for each, cells in self._fitted:
            if each.id == column:
                self.refresh(Region(x, index - first + 1, cells, 1))
            x += cells + GAP

    def seek(self, key: Hashable) -> None:
        """Put the cursor on `key`, now or when its row arrives."""
        self._key = key
        index = self.source.index_of(key)
        if index is not None:
            self._go(index)

    def failed(self, text: str) -> None:
        """Say in the table's place why it is empty."""
        self.error = text
        self.refresh()

    # --- moving

    def action_move(self, by: int) -> None:
        self._go(self._index + by)

    def action_move_page(self, by: int) -> None:
        self._go(self._index + by * max(1, self.size.height - 2))

    def action_first(self) -> None:
        self._go(0)

    def action_last(self) -> None:
        self._go(len(self.source) - 1)
        # of a list whose length nobody knows the end is where reading ends
        self._to_end = not self.source.complete
        self._ensure()

    def _go(self, index: int) -> None:
        self._to_end = False
        index = max(0, min(index, len(self.source) - 1))
        old, self._index = self._index, index
        self._key = None
        self._adopt(moved=old != index)
        first, last = self.window
        if index < first:
            self.scroll_to(y=index, animate=False)
        elif index > last:
            self.scroll_to(y=index - (last - first), animate=False)
        self.refresh_line(old + 1)
        self.refresh_line(index + 1)
        self._note()
        self._ensure()

    def _adopt(self, moved: bool = True) -> None:
        """Remember the key under the cursor, once its row is here."""
        row = self.source.row(self._index)
        if row is not None:
            # a key that is looked for is kept until it is found or the user moves
            self._key = self.source.key(row)
        if moved or row is not None:
            self.post_message(self.Highlighted(self))

    # --- reading

    def _ensure(self) -> None:
        """Have the rows in view, and a page beyond, read when they are not here."""
        if self.is_mounted and not self._loading and self.source.lacks(*self._near()):
            self._loading = True
            start(self, self._load, group="rows")

    def _near(self) -> tuple[int, int]:
        first, last = self.window
        if self._to_end:
            return first, len(self.source) + JUMP
        height = last - first + 1
        return max(0, first - height), last + height

    async def _load(self) -> None:
        """Read page after page until what is in view now is here; the view may move meanwhile."""
        try:
            while self.source.lacks(*self._near()):
                source = self.source
                try:
                    await source.load(*self._near())
                except (FirthError, OSError) as error:
                    if source is not self.source:
                        continue
                    self.post_message(self.LoadFailed(self, error))
                    return
                if source is self.source and (self._to_end or not (self.loaded and source.lacks(*self.window))):
                    self.loaded = True
                    self.error = None
                    self.changed()
        finally:
            self._loading = False

    def _measure(self) -> None:
        size = Size(self.size.width, len(self.source) + 1)
        if self.virtual_size != size:
            self.virtual_size = size

    # --- drawing

    def on_mount(self) -> None:
        self._ensure()

    def _fit(self) -> None:
        if self.size.width:
            self._fitted = fit(self.columns, max(1, self.size.width - 2), self._sort)
            self.refresh()

    def on_resize(self, event: events.Resize) -> None:
        self._fit()
        self._measure()
        if self._index > self.window[1]:
            self._go(self._index)
        self._ensure()

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        if round(old_value) != round(new_value):
            self._ensure()

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        if y == 0:
            return self._heading(width)
        index = y - 1 + round(self.scroll_y)
        count = len(self.source)
        if count == 0 or self.error:
            return self._message(y, width)
        if index >= count:
            return Strip.blank(width, self.rich_style)
        return self._line(index, width)

    def _heading(self, width: int) -> Strip:
        style = self.get_component_rich_style("table--heading")
        parts = [" "]
        for column, cells in self._fitted:
            by = self._sort is not None and column.sort == self._sort.removeprefix("-")
            arrow = (Sign.DOWN if (self._sort or "").startswith("-") else Sign.UP) if by else ""
            parts.append(heading(column.title, cells, column.right, arrow))
        return Strip([Segment("".join(parts), style)]).adjust_cell_length(width, style)

    def _line(self, index: int, width: int) -> Strip:
        row = self.source.row(index)
        chosen = index == self._index
        base = self.get_component_rich_style("table--cursor") if chosen else self.rich_style
        marked = row is not None and self.source.key(row) in self.marks
        sign = (Sign.PICKED_MARK if chosen else Sign.MARK) if marked else Sign.PICK if chosen else " "
        segments = [Segment(sign, base)]
        if row is None:
            segments.append(Segment("…", base + self._tone(Tone.MUTED, chosen)))
            return Strip(segments).adjust_cell_length(width, base)
        for column, cells in self._fitted:
            cell = column.cell(row)
            segments.append(Segment(into(cell.text, cells, column.right), base + self._tone(cell.tone, chosen)))
            segments.append(Segment(" " * GAP, base))
        return Strip(segments).adjust_cell_length(width, base)

    def _tone(self, tone: Tone, chosen: bool) -> Style:
        # of sixteen colours two can be too close: on the bar of the cursor the words must do
        if chosen and (tone in {Tone.PLAIN, Tone.MUTED} or self.app.current_theme.ansi):
            return Style.null()
        return tone_style(self, tone)

    def _message(self, y: int, width: int) -> Strip:
        text = self.error or (self.empty if self.loaded else "Reading…")
        lines = [part for line in text.split("\n") for part in wrap(line, max(20, width - 4))]
        tone = Tone.BAD if self.error else Tone.MUTED
        line = lines[y - 2] if 0 <= y - 2 < len(lines) else ""
        style = self.rich_style + self._tone(tone, chosen=False)
        return Strip([Segment("  " + line, style)]).adjust_cell_length(width, self.rich_style)

    # --- mouse

    def on_click(self, event: events.Click) -> None:
        if event.y == 0:
            x = 1
            for column, cells in self._fitted:
                if x <= event.x < x + cells and column.sort:
                    self.post_message(self.SortAsked(self, column.sort))
                x += cells + GAP
            return
        index = event.y - 1 + round(self.scroll_y)
        if index < len(self.source):
            again = index == self._index
            self._go(index)
            if again or event.chain > 1:
                self.post_message(self.Opened(self))
