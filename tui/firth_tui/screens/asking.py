"""What deeds have in common: the question before, the subject, the words after."""

from typing import TypeVar

from firth_protocol.types import Run
from firth_tui.screens.place import PlaceScreen
from firth_tui.widgets.dialogs import Answer, Confirm, Question

T = TypeVar("T")


async def confirmed(place: PlaceScreen, question: Question) -> Answer | None:
    return await place.firth.push_screen_wait(Confirm(question))


def subject(place: PlaceScreen, name: str, kind: type[T]) -> T:
    """Return what the action acts on; the table has already made sure that it is there."""
    found = getattr(place.context(), name)
    assert isinstance(found, kind)
    return found


def tell_run(place: PlaceScreen, run: Run | None, text: str, warnings: list[str] | None = None) -> None:
    place.firth.tell(f"{text} {run_words(run)}".strip())
    for warning in warnings or []:
        place.firth.tell(warning, warning=True)


def run_words(run: Run | None) -> str:
    """Return where to look for a run: `Run 42; l shows it.`"""
    return f"It is run {run.id}." if run is not None else ""


def show_run(place: PlaceScreen, run: Run) -> None:
    """Open the screen of a run."""
    from firth_tui.screens.run import RunScreen

    place.firth.push_screen(RunScreen(run.id))
