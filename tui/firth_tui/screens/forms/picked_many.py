"""A field that holds some of many: enter opens the list, where typing searches and enter takes one or leaves it."""

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.widgets import Input

from firth_tui.format import Sign, clean
from firth_tui.screens.forms.fields import REASON, Field, words
from firth_tui.screens.forms.picked import PICK_HINT, FromList, SearchedList

IN_VIEW = 6
"""Lines of the list that are in view on any terminal."""
Doubt = Callable[[str], str]
"""Tells in one sentence what is doubtful about a name that was typed; nothing where it is known."""


class ManyList(SearchedList[list[str] | None]):
    """The list of some of many; dismisses with what is taken, or None when it is left as it was."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("ctrl+o", "done", show=False, id="pick.done", priority=True)]
    KEYS = "enter: take it or leave it · ctrl+o: done · esc: as it was"

    def __init__(
        self, title: str, options: Sequence[tuple[str, str]], taken: Sequence[str], doubt: Doubt, typed: str
    ) -> None:
        super().__init__(title, typed)
        self._options = dict(options)
        self.taken = list(taken)
        self._doubt = doubt

    def _fill(self, typed: str, on: str = "") -> None:
        """Show what has the typed text in it, what is taken first; what nobody knows can be taken as it was typed."""
        names = [*self.taken, *(name for name in self._options if name not in self.taken)]
        shown = [name for name in names if typed.casefold() in f"{name} {self._options.get(name, '')}".casefold()]
        if typed and typed not in names:
            shown.append(typed)
        self._show([(name, self._line(name)) for name in shown], on)
        if on in shown[:IN_VIEW]:
            self._list.scroll_home(animate=False)

    def _line(self, name: str) -> str:
        sign = Sign.ON if name in self.taken else Sign.OFF
        said = self._options.get(name) or self._doubt(name)
        return clean(f"{sign} {name}{'  ' if said else ''}{said}", 200)

    def _take(self, name: str) -> None:
        if name in self.taken:
            self.taken.remove(name)
        else:
            self.taken.append(name)
        with self.prevent(Input.Changed):
            self._search.value = ""
        self._fill("", on=name)

    def action_done(self) -> None:
        self.dismiss(self.taken)


class PickedMany(FromList):
    """Some of many; its value is their names with commas between. Only the list changes it, never a passing key."""

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

    def action_pick(self, typed: str = "") -> None:
        taken = words(self.value) or []
        self.app.push_screen(ManyList(self._list_title, self._known, taken, self._doubt, typed), self._take)

    def _take(self, taken: list[str] | None) -> None:
        if taken is not None:
            self.set_value(", ".join(taken))


def picked_many_field(name: str, label: str, help: str, value: str, *, nothing: str, doubt: Doubt) -> Field:
    """Return a field for some of many; `nothing` says what it means when none is taken."""
    return Field(name, label, PickedMany(label, value, nothing=nothing, doubt=doubt), help)


def known_and_found(known: Sequence[str], found: Sequence[str], *, all_of_it: bool = True) -> list[tuple[str, str]]:
    """Return what can be picked: what the source has first, then what else the family knows.

    `all_of_it`: what was not found the source has not.
    """
    said: Mapping[str, str] = dict.fromkeys(found, "the source has it")
    rest = "the source has none" if found and all_of_it else ""
    return [*said.items(), *((name, rest) for name in known if name not in said)]
