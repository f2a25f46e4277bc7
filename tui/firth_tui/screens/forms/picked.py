"""A field whose value is picked from a list: one of many, on one line; enter opens the list, where typing searches."""

from collections.abc import Sequence
from typing import ClassVar, TypeVar

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
Picks = TypeVar("Picks")


class SearchedList(ModalScreen[Picks]):
    """A list over a form: typing searches, enter takes what is highlighted. What that means, each list says."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,ctrl+c", "leave", "Back", show=False, id="pick.leave"),
        Binding("down", "move(1)", show=False, id="pick.down"),
        Binding("up", "move(-1)", show=False, id="pick.up"),
    ]
    KEYS: ClassVar[str]
    """Says under the list what its keys do."""

    def __init__(self, title: str, typed: str) -> None:
        super().__init__()
        self._title = title
        self._first = typed

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog -wide"):
            yield Static(clean(self._title), classes="dialog-title", markup=False)
            yield Input(self._first, placeholder="type part of a name", max_length=200, id="pick-search")
            yield OptionList(id="pick-options", markup=False)
            yield Static(self.KEYS, classes="hint", markup=False)

    def on_mount(self) -> None:
        self._fill(self._first)
        self._search.cursor_position = len(self._first)
        self.set_focus(self._search)

    @property
    def _search(self) -> Input:
        return self.query_one("#pick-search", Input)

    @property
    def _list(self) -> OptionList:
        return self.query_one("#pick-options", OptionList)

    def _show(self, lines: Sequence[tuple[str, str]], on: str) -> None:
        """Show (name, line) each, with the cursor on a name, or on the first where that is not shown."""
        self._list.clear_options()
        self._list.add_options(Option(line, id=f"={name}") for name, line in lines)
        names = [name for name, _ in lines]
        self._list.highlighted = (names.index(on) if on in names else 0) if names else None

    def _fill(self, typed: str) -> None:
        """Show what has the typed text in it."""
        raise NotImplementedError

    def _take(self, name: str) -> None:
        """Take a name of the list."""
        raise NotImplementedError

    @on(Input.Changed)
    def _typed(self, event: Input.Changed) -> None:
        event.stop()
        self._fill(event.value.strip())

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        event.stop()
        if self._list.highlighted is not None:
            self._take(_name(self._list.get_option_at_index(self._list.highlighted)))

    @on(OptionList.OptionSelected)
    def _chosen(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        self._take(_name(event.option))

    def action_leave(self) -> None:
        self.dismiss(None)

    def action_move(self, by: int) -> None:
        if by > 0:
            self._list.action_cursor_down()
        else:
            self._list.action_cursor_up()


def _name(option: Option) -> str:
    return (option.id or "=")[1:]


class PickList(SearchedList[str | None]):
    """The list of one of many; dismisses with the id of what was picked, or None."""

    KEYS = "enter: take it · up, down: move · esc: back"

    def __init__(self, title: str, options: Sequence[tuple[str, str]], value: str, typed: str = "") -> None:
        super().__init__(title, typed)
        self._options = list(options)
        self._value = value

    def _fill(self, typed: str) -> None:
        shown = [(name, clean(label)) for name, label in self._options if typed.casefold() in label.casefold()]
        self._show(shown, self._value)

    def _take(self, name: str) -> None:
        self.dismiss(name)


class FromList(Choice):
    """A control whose list enter, a click or typing opens."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter", "pick", show=False, id="choice.pick")]

    def on_click(self, event: events.Click) -> None:
        event.stop()
        self.action_pick()

    def on_key(self, event: events.Key) -> None:
        typed = event.character or ""
        if event.is_printable and typed.strip():
            event.stop()
            self.action_pick(typed)

    def action_pick(self, typed: str = "") -> None:
        """Open the list, with a search that has begun."""
        raise NotImplementedError


class Picked(FromList):
    """One of many; arrow keys step, enter or typing opens the list. With a `reason` it cannot be changed."""

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
