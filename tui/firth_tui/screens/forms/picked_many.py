"""A field that holds some of many: enter opens the list, where typing searches and enter takes one or leaves it."""

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from firth_tui.format import Sign, clean
from firth_tui.screens.forms.fields import REASON, Choice, Field, words
from firth_tui.screens.forms.picked import PICK_HINT, opening_text

IN_VIEW = 6
"""Lines of the list that are in view on any terminal."""
Doubt = Callable[[str], str]
"""Tells in one sentence what is doubtful about a name that was typed; nothing where it is known."""


class ManyList(ModalScreen[list[str] | None]):
    """The list; dismisses with what is taken, or None when it is left as it was."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,ctrl+c", "leave", "Back", show=False, id="pick.leave"),
        Binding("ctrl+o", "done", show=False, id="pick.done", priority=True),
        Binding("down", "move(1)", show=False, id="pick.down"),
        Binding("up", "move(-1)", show=False, id="pick.up"),
    ]

    def __init__(
        self, title: str, options: Sequence[tuple[str, str]], taken: Sequence[str], doubt: Doubt, typed: str
    ) -> None:
        super().__init__()
        self._title = title
        self._options = dict(options)
        self.taken = list(taken)
        self._doubt = doubt
        self._first = typed

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog -wide"):
            yield Static(clean(self._title), classes="dialog-title", markup=False)
            yield Input(self._first, placeholder="type part of a name", max_length=200, id="pick-search")
            yield OptionList(id="pick-options", markup=False)
            yield Static("enter: take it or leave it · ctrl+o: done · esc: as it was", classes="hint", markup=False)

    def on_mount(self) -> None:
        self._fill(self._first)
        search = self.query_one("#pick-search", Input)
        search.cursor_position = len(self._first)
        self.set_focus(search)

    @property
    def _list(self) -> OptionList:
        return self.query_one("#pick-options", OptionList)

    def _fill(self, typed: str, on: str = "") -> None:
        """Show what has the typed text in it, what is taken first; what nobody knows can be taken as it was typed."""
        names = [*self.taken, *(name for name in self._options if name not in self.taken)]
        shown = [name for name in names if typed.casefold() in f"{name} {self._options.get(name, '')}".casefold()]
        if typed and typed not in names:
            shown.append(typed)
        self._list.clear_options()
        self._list.add_options(Option(self._line(name), id=f"={name}") for name in shown)
        self._list.highlighted = (shown.index(on) if on in shown else 0) if shown else None
        if on in shown[:IN_VIEW]:
            self._list.scroll_home(animate=False)

    def _line(self, name: str) -> str:
        sign = Sign.ON if name in self.taken else Sign.OFF
        said = self._options.get(name) or self._doubt(name)
        return clean(f"{sign} {name}{'  ' if said else ''}{said}", 200)

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
        name = (option.id or "=")[1:]
        if name in self.taken:
            self.taken.remove(name)
        else:
            self.taken.append(name)
        search = self.query_one("#pick-search", Input)
        with self.prevent(Input.Changed):
            search.value = ""
        self._fill("", on=name)

    def action_done(self) -> None:
        self.dismiss(self.taken)

    def action_leave(self) -> None:
        self.dismiss(None)

    def action_move(self, by: int) -> None:
        if by > 0:
            self._list.action_cursor_down()
        else:
            self._list.action_cursor_up()


class PickedMany(Choice):
    """Some of many; its value is their names with commas between. Only the list changes it, never a passing key."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter", "pick", show=False, id="choice.pick")]

    def __init__(self, title: str, value: str, *, nothing: str, doubt: Doubt) -> None:
        super().__init__([], value)
        self._list_title = title
        self._nothing = nothing
        self._doubt = doubt
        self._known: list[tuple[str, str]] = []

    def offer(self, known: Sequence[tuple[str, str]]) -> None:
        """Have these to choose from: names, each with what is said beside it."""
        self._known = list(known)
        self.refresh()

    def action_by(self, by: int) -> None:
        """Leave the value as it is."""

    def set_value(self, value: str) -> None:
        super().set_value(value)
        self.refresh(layout=True)

    def _pieces(self) -> list[tuple[str, str]]:
        hint = (PICK_HINT, f"enter: pick from {len(self._known):,}")
        names = words(self.value)
        if not names:
            return [(REASON, f"{Sign.PICK} {self._nothing}"), hint]
        return [*((name, f"{Sign.ON} {clean(name, 40)}") for name in names), hint]

    def on_click(self, event: events.Click) -> None:
        event.stop()
        self.action_pick()

    def on_key(self, event: events.Key) -> None:
        typed = opening_text(event)
        if typed:
            event.stop()
            self.action_pick(typed)

    def action_pick(self, typed: str = "") -> None:
        taken = words(self.value) or []
        self.app.push_screen(ManyList(self._list_title, self._known, taken, self._doubt, typed), self._take)

    def _take(self, taken: list[str] | None) -> None:
        if taken is not None:
            self.set_value(", ".join(taken))


def picked_many_field(name: str, label: str, help: str, value: str, *, nothing: str, doubt: Doubt) -> Field:
    """Return a field for some of many; `nothing` says what it means when none is taken."""
    return Field(name, label, PickedMany(label, value, nothing=nothing, doubt=doubt), help)


def known_and_found(known: Sequence[str], found: Sequence[str]) -> list[tuple[str, str]]:
    """Return what can be picked: what the source has first, then what else the family knows."""
    said: Mapping[str, str] = dict.fromkeys(found, "the source has it")
    rest = "the source has none" if found else ""
    return [*said.items(), *((name, rest) for name in known if name not in said)]
