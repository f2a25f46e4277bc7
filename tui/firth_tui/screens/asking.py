"""What deeds have in common: the question before, the subject, the words after."""

from typing import TypeVar

from firth_protocol.errors import NotFound
from firth_protocol.types import Run
from firth_tui.actions import Context
from firth_tui.screens.place import PlaceScreen
from firth_tui.widgets.dialogs import Answer, Confirm, Question

T = TypeVar("T")


async def confirmed(place: PlaceScreen, question: Question) -> Answer | None:
    return await place.firth.gate.asked(place, Confirm(question))


def subject(context: Context, name: str, kind: type[T]) -> T:
    """Return what the action acts on; raises NotFound when there is none."""
    found = getattr(context, name)
    if not isinstance(found, kind):
        raise NotFound(f"there is no {name} under the cursor any more")
    return found


def tell_run(place: PlaceScreen, run: Run | None, text: str, warnings: list[str] | None = None) -> None:
    place.firth.tell(f"{text} {run_words(run)}".strip())
    for warning in warnings or []:
        place.firth.tell(warning, warning=True)


def run_words(run: Run | None) -> str:
    """Return where to look for a run: `It is run 42.`"""
    return f"It is run {run.id}." if run is not None else ""


def show_run(place: PlaceScreen, run: Run) -> None:
    """Open the screen of a run, unless somebody has gone elsewhere while it was asked for."""
    if not place.on_top:
        place.firth.tell(run_words(run))
        return
    from firth_tui.screens.run import RunScreen

    place.firth.push_screen(RunScreen(run.id))
