"""What the forms have in common: fields, errors beside them, buttons, and cancelling that asks only after a change."""

from collections.abc import Sequence
from typing import Any, ClassVar, cast

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Button, Static

from firth_protocol.errors import Conflict, FirthError
from firth_tui.format import Cell, Sign, Tone, clean
from firth_tui.screens.forms.fields import Field, FieldChanged
from firth_tui.screens.place import Application
from firth_tui.widgets.dialogs import Confirm, Question, button
from firth_tui.widgets.tones import Line
from firth_tui.widgets.work import start
from firth_tui.wording import for_people


class Form(ModalScreen[Any]):
    """A form; a subclass gives the fields, and says what saving means."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", show=False, id="form.cancel"),
        Binding("ctrl+c", "cancel", show=False, id="form.cancel_c", priority=True),
        Binding("ctrl+o,ctrl+enter", "save", show=False, id="form.save", priority=True),
        Binding("down", "app.focus_next", show=False, id="form.next"),
        Binding("up", "app.focus_previous", show=False, id="form.previous"),
    ]
    DEFAULT_CSS = """
    Form { align: center top; background: $background; }
    Form > VerticalScroll { height: 1fr; padding: 1 0 0 0; }
    Form #form-bottom { height: auto; dock: bottom; }
    Form .form-buttons { height: 1; align-horizontal: right; }
    Form .form-buttons Button { margin-left: 2; }
    Form #form-hint { height: 2; padding: 0 1; }
    Form #form-error { display: none; height: auto; max-height: 4; padding: 0 1; }
    Form #form-error.-shown { display: block; }
    """

    def __init__(self, title: str) -> None:
        super().__init__()
        self._title = title
        self._before: dict[str, str] = {}
        self.busy = False

    # --- what a subclass gives

    def fields(self) -> list[Field]:
        raise NotImplementedError

    def buttons(self) -> Sequence[tuple[str, str]]:
        """Ids and labels of the buttons after Cancel."""
        return [("save", "Save")]

    async def press(self, button: str) -> None:
        """Do what a button says; errors of the protocol are shown beside their field."""
        raise NotImplementedError

    def changed_field(self, name: str) -> None:
        """A field has another value."""

    # --- the frame

    @property
    def firth(self) -> Application:
        return cast(Application, self.app)

    def compose(self) -> ComposeResult:
        yield Line(
            [Cell(" "), Cell(clean(self._title), Tone.STRONG)], [Cell("ctrl+o: save · esc: cancel ", Tone.MUTED)]
        )
        with VerticalScroll(can_focus=False, id="form-fields"):
            yield from self.fields()
        with Vertical(id="form-bottom"):
            yield Static(id="form-error", markup=False)
            yield Static(id="form-hint", markup=False)
            with Horizontal(classes="form-buttons"):
                yield button("Cancel", id="cancel")
                for name, label in self.buttons():
                    yield button(label, id=name, variant="primary" if name == "save" else "default")

    def on_mount(self) -> None:
        self._before = self.values()
        self.set_focus(self.first_field().control)

    def first_field(self) -> Field:
        """Return the field that is filled in first."""
        return next(field for field in self.query(Field) if not field.control.disabled)

    def field(self, name: str) -> Field:
        return self.query_one(f"#field-{name}", Field)

    def values(self) -> dict[str, str]:
        """Return what every field holds."""
        return {field.field: field.value for field in self.query(Field)}

    @property
    def behind(self) -> bool:
        """Whether it is at work, or fields come into view: before they have a place, tab would pass them by."""
        return self.busy or any(field.display and not field.region for field in self.query(Field))

    @property
    def dirty(self) -> bool:
        return self.values() != self._before

    def on_descendant_focus(self, event: events.DescendantFocus) -> None:
        field = next((each for each in event.widget.ancestors_with_self if isinstance(each, Field)), None)
        for each in self.query(Field):
            each.set_class(each is field, "-active")
        if field is not None:
            self.query_one("#form-hint", Static).update(clean(field.help, 200))
            field.scroll_visible(animate=False)
        elif isinstance(event.widget, Button):
            told = BUTTONS.get(event.widget.id or "", "")
            self.query_one("#form-hint", Static).update(told)

    def action_save(self) -> None:
        """Save, wherever the cursor is."""
        if not self.busy:
            self.busy = True
            start(self, self._press, "save", group="form")

    def complain(self, error: Exception) -> None:
        """Show an error beside the field that it names, or above the buttons."""
        hint = for_people(error.hint) if isinstance(error, FirthError) else ""
        text = f"{error}{'; ' if hint else ''}{hint}"
        path = str(error.data.get("path", "")) if isinstance(error, FirthError) else ""
        named = set(path.replace("$", "").split("."))
        field = next((each for each in self.query(Field) if named & {each.field, *ALIASES.get(each.field, ())}), None)
        if field is not None and field.display:
            field.say(text, Tone.BAD)
            self.set_focus(field.control)
            field.scroll_visible(animate=False)
        line = self.query_one("#form-error", Static)
        line.set_class(field is None, "-shown")
        line.update(f"{Sign.BAD} {clean(text, 400)}" if field is None else "")

    # --- what happens

    @on(FieldChanged)
    def _field_changed(self, message: FieldChanged) -> None:
        self.field(message.name).say("")
        self.query_one("#form-error", Static).set_class(False, "-shown")
        self.changed_field(message.name)

    @on(Button.Pressed)
    def _pressed(self, event: Button.Pressed) -> None:
        event.stop()
        if event.button.id == "cancel":
            self.action_cancel()
        elif not self.busy:
            self.busy = True
            start(self, self._press, event.button.id or "", group="form")

    async def _press(self, name: str) -> None:
        wrong = next((field for field in self.query(Field) if field.error and field.display), None)
        if wrong is not None:
            self.busy = False
            self.set_focus(wrong.control)
            return
        self.query_one("#form-hint", Static).update("Asking the daemon…")
        try:
            await self.press(name)
        except Conflict as error:
            self.overtaken(error)
        except (FirthError, OSError) as error:
            self.complain(error)
        finally:
            self.busy = False
            if self.is_current:
                self.query_one("#form-hint", Static).update("")

    def overtaken(self, error: Conflict) -> None:
        """Somebody else saved meanwhile, or the name is taken."""
        self.complain(error)

    def action_cancel(self) -> None:
        if self.dirty:
            start(self, self._ask_to_leave, group="form")
        else:
            self.dismiss(None)

    async def _ask_to_leave(self) -> None:
        question = Question(title="Leave without saving?", lines=["What you have changed here is lost."], verb="Leave")
        if await self.firth.push_screen_wait(Confirm(question)):
            self.dismiss(None)


BUTTONS: dict[str, str] = {
    "cancel": "Leave without saving; asks first when something was changed.",
    "plan": "Tells what a run would add, remove and download; saves nothing.",
    "run": "Saves, and runs it at once.",
    "save": "Saves; ctrl+o does so from every field.",
}
"""What each button does."""

ALIASES: dict[str, tuple[str, ...]] = {
    "secret": ("credentials", "token", "bearer", "password"),
    "user": ("user",),
    "keep_days": ("days", "keep_generations"),
    "keep_months": ("months",),
    "on_removal": ("on_upstream_removal",),
    "cron": ("schedule",),
}
"""Fields of a form that stand for parameters of other names."""
