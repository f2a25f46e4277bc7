"""A field whose value is picked from a list: one of many, on one line; enter opens the list, where typing searches."""

from collections.abc import Sequence
from typing import ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from firth_tui.format import Sign, clean
from firth_tui.screens.forms.fields import REASON, Choice, Field

PICK_HINT = "\0"
"""No value of a field."""


def opening_text(event: events.Key) -> str:
    """Return what a key types, where that begins a search in a list that is not open yet; nothing for other keys."""
    typed = event.character or ""
    return typed if event.is_printable and typed.strip() else ""


class PickList(ModalScreen[str | None]):
    """The list; dismisses with the id of what was picked, or None."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,ctrl+c", "leave", "Back", show=False, id="pick.leave"),
        Binding("down", "move(1)", show=False, id="pick.down"),
        Binding("up", "move(-1)", show=False, id="pick.up"),
    ]

    def __init__(self, title: str, options: Sequence[tuple[str, str]], value: str, typed: str = "") -> None:
        super().__init__()
        self._first = typed
        self._title = title
        self._options = list(options)
        self._value = value

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog -wide"):
            yield Static(clean(self._title), classes="dialog-title", markup=False)
            yield Input(self._first, placeholder="type part of a name", max_length=200, id="pick-search")
            yield OptionList(id="pick-options", markup=False)
            yield Static("enter: take it · up, down: move · esc: back", classes="hint", markup=False)

    def on_mount(self) -> None:
        self._fill(self._first)
        search = self.query_one("#pick-search", Input)
        search.cursor_position = len(self._first)
        self.set_focus(search)

    @property
    def _list(self) -> OptionList:
        return self.query_one("#pick-options", OptionList)

    def _fill(self, text: str) -> None:
        shown = [(name, label) for name, label in self._options if text.casefold() in label.casefold()]
        self._list.clear_options()
        self._list.add_options(Option(clean(label), id=f"={name}") for name, label in shown)
        names = [name for name, _ in shown]
        self._list.highlighted = (names.index(self._value) if self._value in names else 0) if shown else None

    @on(Input.Changed)
    def _typed(self, event: Input.Changed) -> None:
        event.stop()
        self._fill(event.value.strip())

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        event.stop()
        if self._list.highlighted is not None:
            self._take(self._list.get_option_at_index(self._list.highlighted))

    @on(OptionList.OptionSelected)
    def _chosen(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        self._take(event.option)

    def _take(self, option: Option) -> None:
        self.dismiss((option.id or "=")[1:])

    def action_leave(self) -> None:
        self.dismiss(None)

    def action_move(self, by: int) -> None:
        if by > 0:
            self._list.action_cursor_down()
        else:
            self._list.action_cursor_up()


class Picked(Choice):
    """One of many; arrow keys step, enter or typing opens the list. With a `reason` it cannot be changed."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter", "pick", show=False, id="choice.pick")]

    def __init__(self, title: str, options: Sequence[tuple[str, str]], value: str, *, reason: str = "") -> None:
        super().__init__(options, value, reason=reason)
        self._list_title = title

    def offer(self, options: Sequence[tuple[str, str]], *, reason: str = "") -> None:
        """Have these to choose from, or none for a `reason`; the value stays, also where it is not among them."""
        self.options = list(options)
        if self.value not in dict(options):
            self.options.append((self.value, self.value or "none"))
        self._reason = reason
        self.disabled = bool(reason)
        self.refresh()

    def _pieces(self) -> list[tuple[str, str]]:
        label = clean(dict(self.options).get(self.value, self.value), 40)
        if self._reason:
            return [(self.value, label), (REASON, f"({clean(self._reason)})")]
        return [(self.value, f"{Sign.PICK} {label}"), (PICK_HINT, f"enter: pick from {len(self.options):,}")]

    def on_click(self, event: events.Click) -> None:
        event.stop()
        self.action_pick()

    def on_key(self, event: events.Key) -> None:
        typed = opening_text(event)
        if typed:
            event.stop()
            self.action_pick(typed)

    def action_pick(self, typed: str = "") -> None:
        if not self._reason:
            self.app.push_screen(PickList(self._list_title, self.options, self.value, typed), self._take)

    def _take(self, picked: str | None) -> None:
        if picked is not None:
            self.set_value(picked)


def picked_field(
    name: str, label: str, help: str, options: Sequence[tuple[str, str]], value: str, *, reason: str = ""
) -> Field:
    """Return a field for one of many."""
    return Field(name, label, Picked(label, options, value, reason=reason), help)


def picked(field: Field) -> Picked:
    """Return the control of a field that `picked_field` has made."""
    assert isinstance(field.control, Picked)
    return field.control
