"""What commands have in common: the question before, and the words and the screen after."""

from firth_protocol.methods import FreezeReply
from firth_protocol.types import Run
from firth_tui.actions import Place, Target
from firth_tui.format import counted
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


def unfreezing(told: FreezeReply) -> list[str]:
    """Return what to ask before unfreezing, of the reply to a dry run; nothing when clients would see no change."""
    change, draft = told.change, told.channel.draft
    if told.run is None if change is None else not (change.added or change.removed):
        return []
    after = "From then on clients see what mirrors bring, as usual."
    if change is None:  # of an older daemon, which does not count
        waits = f"{counted(draft.added, 'addition')} and {counted(draft.removed, 'removal')}" if draft else "Something"
        return [f"{waits} wait; they are published at once.", after]
    files = f"{counted(change.added, 'addition')} and {counted(change.removed, 'removal')}"
    return [
        f"{files} wait; they are published at once.",
        f"Clients go from generation {change.from_generation} to {change.to_generation}.",
        after,
    ]
