"""The dialogs: they name the object and the effect; Cancel has the focus, or the line where a name is to be typed."""

from collections.abc import Sequence
from typing import ClassVar, Literal

from msgspec import Struct
from rich.console import Group
from rich.table import Table
from rich.text import Text
from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Button, Input, OptionList, Static
from textual.widgets.option_list import Option

from firth_protocol.errors import FirthError
from firth_tui.actions import MOVING_KEYS, Action, Context, Danger, key_name, key_of, why_not
from firth_tui.format import Sign, clean
from firth_tui.wording import for_people


class Question(Struct, frozen=True, kw_only=True):
    """What a confirmation says: `choices` are further ways to do it, of which the first is chosen at first."""

    title: str
    lines: Sequence[str]
    verb: str
    type_name: str = ""
    choices: Sequence[tuple[str, str]] = ()


class Answer(Struct, frozen=True):
    """The user went ahead; `choice` is the id of what was chosen, `typed` the name."""

    choice: str = ""
    typed: str = ""


def button(
    label: str,
    *,
    id: str,
    variant: Literal["default", "primary", "error"] = "default",
    classes: str = "",
    disabled: bool = False,
) -> Button:
    """Return a button of one line, which can be pressed again at once and does not flash."""
    made = Button(label, id=id, variant=variant, classes=classes, disabled=disabled, compact=True)
    made.active_effect_duration = 0
    return made


class Dialog(ModalScreen[Answer | None]):
    """The common frame: esc leaves without doing anything, the arrow keys move between the buttons."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "Back", show=False, id="dialog.leave"),
        Binding("ctrl+c", "leave", "Back", show=False, id="dialog.leave_c"),
        Binding("left,up", "app.focus_previous", show=False, id="dialog.previous"),
        Binding("right,down", "app.focus_next", show=False, id="dialog.next"),
    ]

    def action_leave(self) -> None:
        self.dismiss(None)


class Confirm(Dialog):
    """Asks before something that is hard to undo."""

    def __init__(self, question: Question) -> None:
        super().__init__()
        self.question = question
        self._choice = question.choices[0][0] if question.choices else ""

    def compose(self) -> ComposeResult:
        question = self.question
        with Vertical(classes="dialog"):
            yield Static(clean(question.title, 200), classes="dialog-title", markup=False)
            for line in question.lines:
                yield Static(clean(line, 400), markup=False)
            for name, text in question.choices:
                yield button(self._choice_text(name, text), id=f"choice-{name}", classes="choice")
            if question.type_name:
                yield Static(f"Type the name {clean(question.type_name)} to go on:", markup=False, classes="spaced")
                yield Input(id="typed", max_length=200)
                yield Static(id="typed-answer", markup=False)
            with Horizontal(classes="buttons"):
                yield button("Cancel", id="cancel")
                yield button(clean(question.verb), id="go", variant="error", disabled=bool(question.type_name))

    def on_mount(self) -> None:
        self.set_focus(self.query_one("#typed" if self.question.type_name else "#cancel"))

    def _choice_text(self, name: str, text: str) -> str:
        return f"{Sign.ON if name == self._choice else Sign.OFF} {clean(text)}"

    @on(Input.Changed, "#typed")
    def _typed(self, event: Input.Changed) -> None:
        typed, name = event.value.strip(), self.question.type_name
        self.query_one("#go", Button).disabled = typed != name
        # nobody is told off for a name that is still being typed
        self._answer("" if name.startswith(typed) else self._wrong(typed))

    @on(Input.Submitted, "#typed")
    def _submitted(self, event: Input.Submitted) -> None:
        typed = event.value.strip()
        if typed == self.question.type_name:
            self.set_focus(self.query_one("#go"))
        else:
            self._answer(self._wrong(typed))

    def _wrong(self, typed: str) -> str:
        if not typed:
            return f"{Sign.WARN} the name is needed; esc leaves"
        return f"{Sign.WARN} “{clean(typed, 60)}” is not the name; nothing is deleted"

    def _answer(self, text: str) -> None:
        self.query_one("#typed-answer", Static).update(text)

    @on(Button.Pressed)
    def _pressed(self, event: Button.Pressed) -> None:
        name = event.button.id or ""
        if name == "cancel":
            self.dismiss(None)
        elif name == "go":
            typed = self.query_one("#typed", Input).value.strip() if self.question.type_name else ""
            self.dismiss(Answer(self._choice, typed))
        else:
            self._choice = name.removeprefix("choice-")
            for each, text in self.question.choices:
                self.query_one(f"#choice-{each}", Button).label = self._choice_text(each, text)


class Readable(Dialog):
    """Something that stays until it has been read; `y` copies it. A subclass gives its lines and what is copied."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("y", "copy", "Copy", show=False, id="dialog.copy")]

    title_text = ""
    copied = "Copied."
    closes_first = True  # Close has the focus at first, otherwise Copy
    classes_too = "-wide"

    @property
    def text(self) -> str:
        """Everything that is known, for the clipboard."""
        raise NotImplementedError

    def body_lines(self) -> ComposeResult:
        raise NotImplementedError

    def compose(self) -> ComposeResult:
        close, copy = button("Close", id="cancel"), button("Copy (y)", id="copy")
        with Vertical(classes=f"dialog {self.classes_too}"):
            yield Static(clean(self.title_text, 200), classes="dialog-title", markup=False)
            with VerticalScroll(classes="dialog-body"):
                yield from self.body_lines()
            with Horizontal(classes="buttons"):
                yield from (close, copy) if self.closes_first else (copy, close)

    def on_mount(self) -> None:
        self.set_focus(self.query_one("#cancel" if self.closes_first else "#copy"))

    def action_copy(self) -> None:
        self.app.copy_to_clipboard(self.text)
        self.app.notify(self.copied, markup=False)

    @on(Button.Pressed, "#cancel")
    def _close(self) -> None:
        self.dismiss(None)

    @on(Button.Pressed, "#copy")
    def _copy(self) -> None:
        self.action_copy()


class Failure(Readable):
    """An error that stays until it has been read."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("q", "leave", "Back", show=False, id="failure.leave")]
    copied = "Copied the error."
    classes_too = "-error"

    def __init__(self, what: str, error: Exception) -> None:
        super().__init__()
        self.what = what
        self.error = error
        self.title_text = f"{Sign.BAD} {what}"

    @property
    def text(self) -> str:
        hint = f"\n{self.error.hint}" if isinstance(self.error, FirthError) and self.error.hint else ""
        kind = f" ({self.error.kind})" if isinstance(self.error, FirthError) else ""
        return f"{self.what}{kind}: {self.error}{hint}"

    def body_lines(self) -> ComposeResult:
        yield Static(clean(str(self.error), 4000), markup=False)
        if isinstance(self.error, FirthError) and self.error.hint:
            hint = clean(for_people(self.error.hint), 1000)
            yield Static(f"What to do: {hint}", markup=False, classes="spaced")


class Told(Readable):
    """Something in full, line by line."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("q", "leave", "Back", show=False, id="told.leave")]

    def __init__(self, title: str, lines: Sequence[str]) -> None:
        super().__init__()
        self.title_text = title
        self._lines = lines

    @property
    def text(self) -> str:
        return "\n".join([self.title_text, *self._lines])

    def body_lines(self) -> ComposeResult:
        for line in self._lines:
            yield Static(clean(line, 4000) or " ", markup=False)


class Secret(Readable):
    """A token's secret, this once; enter does not close it, so that no key typed ahead takes it away."""

    copied = "Copied the token."
    closes_first = False

    def __init__(self, name: str, secret: str) -> None:
        super().__init__()
        self.title_text = f"The token {name}"
        self._secret = secret

    @property
    def text(self) -> str:
        return self._secret

    def body_lines(self) -> ComposeResult:
        yield Static(clean(self._secret, 1000), id="secret", markup=False)
        yield Static("It is in your terminal's clipboard, if the terminal takes that.", markup=False, classes="spaced")
        yield Static("It is not shown again: nobody can read it here any more.", markup=False)


class Menu(ModalScreen[str | None]):
    """A mirror's actions, with the reason beside each that cannot be done now."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,ctrl+c", "leave", "Back", show=False, id="menu.leave"),
        Binding("j", "down", show=False, id="menu.down"),
        Binding("k", "up", show=False, id="menu.up"),
    ]

    def __init__(self, title: str, items: Sequence[tuple[Action, str | None]], context: Context) -> None:
        super().__init__()
        self._title = title
        self._items = items
        self._situation = context

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog -wide"):
            yield Static(clean(self._title), classes="dialog-title", markup=False)
            yield OptionList(*(self._option(action, reason) for action, reason in self._items), markup=False)
            yield Static("enter: do it · the key beside it works outside this menu too · esc: back", classes="hint")

    def _option(self, action: Action, reason: str | None) -> Option:
        danger = f" {Sign.WARN}" if action.danger is not Danger.NONE else ""
        row = Table.grid(padding=(0, 1))
        row.add_column(width=2)
        row.add_column(width=19)
        row.add_column(ratio=1)
        title = Text(action.title(self._situation) + danger, style="dim" if reason else "")
        row.add_row(
            Text(key_name(key_of(action, self._situation.keys)), style="bold"),
            title,
            Text(clean(reason or ""), style="dim"),
        )
        return Option(row, id=action.id, disabled=reason is not None)

    def on_mount(self) -> None:
        self.set_focus(self.query_one(OptionList))

    def on_key(self, event: events.Key) -> None:
        for action, reason in self._items:
            if event.key == key_of(action, self._situation.keys) and reason is None:
                event.stop()
                self.dismiss(action.id)

    @on(OptionList.OptionSelected)
    def _chosen(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(event.option_id)

    def action_leave(self) -> None:
        self.dismiss(None)

    def action_down(self) -> None:
        self.query_one(OptionList).action_cursor_down()

    def action_up(self) -> None:
        self.query_one(OptionList).action_cursor_up()


class Help(ModalScreen[None]):
    """The keys of this place by section, the words used here, and why what is greyed is greyed; `/` searches."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "clear_or_leave", "Back", show=False, id="help.back"),
        Binding("q,question_mark,ctrl+c", "leave", "Back", show=False, id="help.leave"),
        Binding("slash", "search", show=False, id="help.search"),
        Binding("j,down", "scroll(1)", show=False, id="help.down"),
        Binding("k,up", "scroll(-1)", show=False, id="help.up"),
    ]

    def __init__(
        self,
        title: str,
        parts: Sequence[tuple[str, Sequence[Action]]],
        context: Context,
        words: Sequence[tuple[str, str]],
    ) -> None:
        super().__init__()
        self._title = title
        self._parts = parts
        self._situation = context
        self._words = words
        self._wanted = Input(id="help-search", max_length=100)

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog -wide -full"):
            yield Static(f"Keys of {clean(self._title)}", classes="dialog-title", markup=False)
            with VerticalScroll(classes="dialog-body"):
                yield Static(id="help-rows")
            yield self._wanted
            yield Static("/: search · esc: back · j k: scroll", classes="hint", markup=False)

    def _shown(self, wanted: str) -> Group:
        """Return the sections with the rows that have what is wanted; sections without one are left out."""
        shown: list[Text | Table] = []
        sections = [(title, [row for action in part for row in self._rows(action)]) for title, part in self._parts]
        sections[0] = (sections[0][0], [*((key, text, "") for key, text in MOVING_KEYS), *sections[0][1]])
        sections.append(("Words used here", [(word, meaning, "") for word, meaning in self._words]))
        for title, rows in sections:
            kept = [row for row in rows if wanted in " ".join(row).casefold()]
            if kept:
                both = [part for key, text, why in kept for part in ((key, text), *((("", why),) if why else ()))]
                shown += [Text(title, style="bold underline"), _two_columns(both), Text("")]
        return Group(*(shown or [Text("Nothing here has that in it; esc shows all again.")]))

    def _rows(self, action: Action) -> list[tuple[str, str, str]]:
        given = key_of(action, self._situation.keys)
        keys = " ".join(key_name(key) for key in given.split(",")) if given else ":"
        reason = why_not(action, self._situation)
        return [(keys, f"{action.title(self._situation)}: {action.help}", f"({reason})" if reason else "")]

    def on_mount(self) -> None:
        self._wanted.display = False
        self._show()
        self.set_focus(self.query_one(VerticalScroll))

    def _show(self) -> None:
        self.query_one("#help-rows", Static).update(self._shown(self._wanted.value.strip().casefold()))

    @on(Input.Changed, "#help-search")
    def _typed(self) -> None:
        self._show()

    @on(Input.Submitted, "#help-search")
    def _found(self) -> None:
        self.set_focus(self.query_one(VerticalScroll))

    def action_search(self) -> None:
        self._wanted.display = True
        self.set_focus(self._wanted)

    def action_clear_or_leave(self) -> None:
        """Show all again after a search, else leave."""
        if not self._wanted.display:
            self.dismiss(None)
            return
        self._wanted.value = ""
        self._wanted.display = False
        self.set_focus(self.query_one(VerticalScroll))

    def action_leave(self) -> None:
        self.dismiss(None)

    def action_scroll(self, by: int) -> None:
        self.query_one(VerticalScroll).scroll_relative(y=by, animate=False)


def _two_columns(rows: Sequence[tuple[str, str]]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(ratio=1)
    for key, text in rows:
        table.add_row(Text(clean(key), style="bold"), Text(clean(text), style="dim" if not key else ""))
    return table
