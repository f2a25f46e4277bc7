"""The list of all runs; newest first, as long as nobody sorts it."""

from collections.abc import Callable
from typing import Any, ClassVar

from textual.app import ComposeResult

from firth_protocol.types import Run
from firth_tui.actions import Place, Target
from firth_tui.format import Cell, Tone, age, clean, count, duration, kind_name, seconds_of, state_cell
from firth_tui.model import FAULTS, SHORT_TITLES, Touched
from firth_tui.rows import Fetch, filtered
from firth_tui.screens.listing import Listing, ListPane, Wanted
from firth_tui.screens.place import PlaceScreen, RowPreviews, bindings
from firth_tui.widgets.keyed_table import Column

NEWEST = "-id"

WORDS = (
    ("run", "anything that takes time or publishes; it goes on when firth is closed"),
    ("plan", "a dry run: tells what would change, and changes nothing"),
    ("publication", "shows clients what finished runs have collected"),
    ("rollback", "publishes an earlier content again"),
)


def run_columns(screen: PlaceScreen) -> tuple[Column[Run], ...]:
    """Return the columns of a list of runs; BY, ADDED, TIME, KIND, BEGAN go in this order where there is no room."""
    return (
        Column(id="id", title="RUN", width=5, right=True, cell=lambda r: Cell(str(r.id), Tone.STRONG), sort="id"),
        Column(id="kind", title="KIND", width=11, drop=2, cell=lambda r: Cell(kind_name(r.kind)), sort="kind"),
        Column(
            id="channel",
            title="CHANNEL",
            width=10,
            grow=1,
            cell=lambda r: Cell(clean(r.channel or "the store")),
            sort="channel",
        ),
        Column(
            id="mirror",
            title="MIRROR",
            width=10,
            grow=2,
            cell=lambda r: Cell(clean(r.mirror_name or "–"), Tone.STRONG),
            sort="mirror",
        ),
        Column(id="state", title="STATE", width=12, cell=lambda r: state_cell(r.state), sort="state"),
        Column(id="step", title="STEP OR RESULT", width=14, grow=3, cell=result_cell),
        Column(
            id="begun",
            title="BEGAN",
            width=9,
            drop=1,
            cell=lambda r: Cell(age(r.started_at or r.created_at, screen.now())),
            sort="began",
        ),
        Column(
            id="time",
            title="TIME",
            width=7,
            right=True,
            drop=3,
            cell=lambda r: Cell(run_time(r, screen.now())),
            sort="duration",
        ),
        Column(
            id="added",
            title="ADDED",
            width=8,
            right=True,
            drop=4,
            cell=lambda r: Cell(count(r.counts.added)),
            sort="added",
        ),
        Column(
            id="by", title="BY", width=10, drop=5, cell=lambda r: Cell(clean(f"{r.by}, {r.cause}"), Tone.MUTED), grow=1
        ),
    )


def subject_of(run: Run) -> str:
    """Return what a run works on."""
    return f"{run.channel}: {run.mirror_name}" if run.mirror_name else run.channel or "the store"


def run_time(run: Run, now: float) -> str:
    """Return how long a run took, or has been running."""
    begun = seconds_of(run.started_at)
    ended = seconds_of(run.finished_at)
    return "" if begun is None else duration((now if ended is None else ended) - begun)


def result_cell(run: Run) -> Cell:
    """Return what a run is at, or what came of it."""
    if run.error is not None:
        return Cell(clean(run.error.message), Tone.WARN)
    if not run.state.ended:
        waits = f"waits for {run.waiting_for}" if run.waiting_for else "waits for its turn"
        return Cell(SHORT_TITLES[run.step] if run.step else clean(waits))
    if run.generation:
        return Cell(f"generation {run.generation}", Tone.MUTED)
    return Cell("nothing to publish" if run.counts.added == run.counts.removed == 0 else "", Tone.MUTED)


def _mentions(run: Run, text: str) -> bool:
    wanted = text.casefold()
    return any(
        wanted in part.casefold() for part in (str(run.id), kind_name(run.kind), subject_of(run), run.state, run.by)
    )


def run_listing(screen: PlaceScreen, **given: Any) -> Listing[Run]:
    """Return the list of runs with these parameters of `run.list`."""

    def fetch(wanted: Wanted) -> Fetch[Run]:
        async def read(cursor: str | None, limit: int) -> Any:
            return await screen.firth.link.page(
                Run,
                "run.list",
                sort=wanted.sort if wanted.sort != NEWEST else None,
                cursor=cursor,
                limit=limit,
                **given,
            )

        kept: Fetch[Run] = filtered(read, lambda run: run.state in FAULTS) if wanted.faults else read
        return filtered(kept, _matcher(wanted.query)) if wanted.query else kept

    return Listing(
        place=Place.RUNS,
        noun="run",
        plural="runs",
        columns=run_columns(screen),
        key=lambda run: run.id,
        fetch=fetch,
        touches=lambda about: about.run is not None and not about.progress,
        empty="Nothing has run yet.\nGo to the mirrors (2) and press r on one.",
        subject="run",
        sort=NEWEST,
    )


def _matcher(text: str) -> Callable[[Run], bool]:
    return lambda run: _mentions(run, text)


class RunsScreen(PlaceScreen):
    """All runs, newest first."""

    BINDINGS = bindings({Place.RUNS})
    words: ClassVar = WORDS

    def __init__(self) -> None:
        super().__init__()
        self._pane: ListPane[Run] | None = None

    def where(self) -> Place:
        return Place.RUNS

    def crumbs(self) -> list[str]:
        return ["Runs"]

    @property
    def pane(self) -> ListPane[Any] | None:
        return self._pane

    def body(self) -> ComposeResult:
        self._pane = ListPane(run_listing(self), self.session.orders, RowPreviews(self))
        yield self._pane

    def fact(self, about: Touched) -> None:
        if self._pane is not None and not about.progress:
            self._pane.fact(about)

    def name_to_copy(self, row: Any) -> str | None:
        return str(row.id) if isinstance(row, Run) else None

    async def open_row(self, row: Any) -> None:
        if isinstance(row, Run):
            self.firth.open(Target(place=Place.RUN, number=row.id))
