"""What commands have in common: the question before, and the words and the screen after."""

from firth_protocol.types import Run
from firth_tui.actions import Place, Target
from firth_tui.screens.place import PlaceScreen
from firth_tui.widgets.dialogs import Answer, Confirm, Question


async def confirmed(place: PlaceScreen, question: Question) -> Answer | None:
    return await place.firth.asked(place, Confirm(question))


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
    place.firth.open(Target(place=Place.RUN, number=run.id))
