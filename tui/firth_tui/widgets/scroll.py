"""Something long to read, scrolled by the keys that move in lists."""

from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll


class Scroll(VerticalScroll, can_focus=True):
    """Something long to read; scrolls with the keys that move in lists."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j", "scroll_down", show=False, id="scroll.down"),
        Binding("k", "scroll_up", show=False, id="scroll.up"),
        Binding("g", "scroll_home", show=False, id="scroll.first"),
        Binding("G", "scroll_end", show=False, id="scroll.last"),
    ]
