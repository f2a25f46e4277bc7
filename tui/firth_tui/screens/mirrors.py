"""Lists of mirrors: of one channel, or of all; their step is told at most every two seconds."""

from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.timer import Timer

from firth_protocol.errors import FirthError, NotFound
from firth_protocol.methods import MirrorGet
from firth_protocol.types import Mirror, RunState, StepName
from firth_tui.actions import Place, Target
from firth_tui.format import Cell, Tone, age, ahead, clean, counted, mode_name, state_cell, type_name
from firth_tui.model import FAULTS, SHORT_TITLES, Progress, Touched
from firth_tui.rows import Fetch, filtered
from firth_tui.screens.listing import Listing, ListPane, Wanted
from firth_tui.screens.place import PlaceScreen, RowPreviews, bindings
from firth_tui.widgets.keyed_table import Column
from firth_tui.widgets.progress import amount
from firth_tui.widgets.work import Repeated

STEP_S = 2.0
"""A running mirror's step is drawn this often: more would cost too much over a slow line."""
ROW_S = 0.2
"""How long changed mirrors are gathered before they are read."""
MOST_SINGLE = 8
"""More changed mirrors than this are read as a list."""

WORDS = (
    ("mirror", "a standing order to copy a source into a channel"),
    ("passive", "lists every package; a file is fetched when a client first asks for it"),
    ("active", "downloads every file during its run"),
    ("run", "one execution of a mirror, in eight steps from connecting to publishing"),
    ("pending", "waits for its turn, or has not run yet"),
    ("incomplete", "published, but some files could not be had; the next run tries again"),
    ("plan", "a dry run: tells what would change, and changes nothing"),
)


def state_of(mirror: Mirror) -> Cell:
    """Return a mirror's state, with the step's number while it runs."""
    cell = state_cell(mirror.state)
    run = mirror.last_run
    if run is None:
        return Cell(f"{cell.text[:1]} never ran", Tone.MUTED) if mirror.state is RunState.PENDING else cell
    if mirror.state is RunState.RUNNING and run.step_number:
        return Cell(f"{cell.text} {run.step_number}/8", cell.tone)
    return cell


def missing_of(mirror: Mirror) -> str:
    """Return how many files the last run could not get: `3,691 missing`; nothing where all came."""
    run = mirror.last_run
    return f"{run.missing:,} missing" if run is not None and run.state.ended and run.missing else ""


def step_of(mirror: Mirror, screen: PlaceScreen) -> Cell:
    """Return what a mirror is at, or what came of its last run."""
    run = mirror.last_run
    if mirror.state is RunState.STOPPING:
        return Cell("ends what is at work", Tone.WARN)
    if run is not None and not run.state.ended:
        progress = screen.session.live.of_mirror(mirror)
        if progress is not None and progress.name is not None:
            return Cell(f"{SHORT_TITLES[progress.name]} {_short(progress)}".strip(), Tone.PLAIN)
        return Cell(SHORT_TITLES[run.step] if run.step else clean(run.description) or "waits for its turn", Tone.PLAIN)
    missing = missing_of(mirror)
    if run is not None and run.error is not None:
        return Cell(f"{missing}{': ' if missing else ''}{clean(run.error.message)}", Tone.WARN)
    if missing:
        return Cell(missing, Tone.WARN)
    return Cell(counted(mirror.artifacts, "file") if mirror.artifacts or run else "", Tone.MUTED)


def _short(progress: Progress) -> str:
    """Return how far a step is, in few cells; by bytes where these are known."""
    done, total = progress.done, progress.total
    if progress.name is StepName.DOWNLOAD and progress.bytes_total:
        done, total = progress.bytes_done, progress.bytes_total
    return f"{min(100, done * 100 // total)} %" if total else amount(progress)


def columns(screen: PlaceScreen, *, with_channel: bool) -> tuple[Column[Mirror], ...]:
    """Return the columns of a list of mirrors; UPDATED, NEXT, MODE, TYPE, LAST SUCCESS go in this order."""
    channel: Column[Mirror] = Column(
        id="channel", title="CHANNEL", width=16, grow=2, cell=lambda m: Cell(clean(m.channel)), sort="name"
    )
    name: Column[Mirror] = Column(
        id="name",
        title="NAME",
        width=12 if with_channel else 16,
        grow=2,
        cell=lambda m: Cell(clean(m.name), Tone.STRONG),
        sort="mirror" if with_channel else "name",
    )
    return (
        *((channel,) if with_channel else ()),
        name,
        Column(id="type", title="TYPE", width=10, drop=2, cell=lambda m: Cell(type_name(m.type)), sort="type"),
        Column(id="mode", title="MODE", width=7, drop=3, cell=lambda m: Cell(mode_name(m.mode)), sort="mode"),
        Column(id="state", title="STATE", width=13, cell=state_of, sort="state"),
        Column(id="step", title="STEP OR RESULT", width=11, grow=4, cell=lambda m: step_of(m, screen)),
        Column(
            id="success",
            title="LAST SUCCESS",
            width=12,
            drop=1,
            cell=lambda m: _success(m, screen.now()),
            sort="last_updated",
        ),
        Column(
            id="next",
            title="NEXT",
            width=7,
            drop=4,
            cell=lambda m: Cell(ahead(m.next_run_at, screen.now()) if m.enabled else "off", Tone.MUTED),
            sort="next_run_at",
        ),
        Column(
            id="updated",
            title="UPDATED",
            width=10,
            drop=5,
            cell=lambda m: Cell(age(m.updated_at, screen.now()), Tone.MUTED),
            sort="updated_at",
        ),
    )


def _success(mirror: Mirror, now: float) -> Cell:
    return Cell(age(mirror.last_success_at, now), Tone.MUTED if mirror.last_success_at is None else Tone.PLAIN)


def listing(screen: PlaceScreen, channel: str | None) -> Listing[Mirror]:
    """Return the list of a channel's mirrors, or of all."""
    place = Place.MIRRORS if channel is None else Place.CHANNEL_MIRRORS

    def fetch(wanted: Wanted) -> Fetch[Mirror]:
        async def read(cursor: str | None, limit: int) -> Any:
            return await screen.firth.link.page(
                Mirror,
                "mirror.list",
                channel=channel,
                query=wanted.query or None,
                sort=wanted.sort,
                state=wanted.state or None,
                cursor=cursor,
                limit=limit,
            )

        return filtered(read, lambda mirror: mirror.state in FAULTS) if wanted.faults else read

    return Listing(
        place=place,
        noun="mirror",
        plural="mirrors",
        columns=columns(screen, with_channel=channel is None),
        key=lambda mirror: mirror.id,
        fetch=fetch,
        touches=lambda about: about.changes_lists_of_mirrors and (channel is None or about.channel in {None, channel}),
        empty=(
            "There is no mirror yet.\nPress n to create one: a standing order to copy a source into a channel."
            if channel is None
            else "This channel has no mirror yet.\nPress n to create one: a standing order to copy a source into it."
        ),
        subject="mirror",
        sort="name",
        walk=((RunState.RUNNING, "running"), (RunState.COMPLETED, "ok")),
    )


class MirrorPane(ListPane[Mirror]):
    """A list of mirrors that shows where running ones are."""

    def __init__(self, listing: Listing[Mirror], screen: PlaceScreen) -> None:
        super().__init__(listing, screen.session.orders, RowPreviews(screen))
        self._place = screen
        self._moving: set[int] = set()
        self._changed: set[int] = set()
        self._row_timer: Timer | None = None
        self._to_read: set[int] = set()
        self._reading_rows = Repeated(self, self._read_rows, group="mirror rows")

    def on_mount(self) -> None:
        self.set_interval(STEP_S, self._draw_steps)

    def hurry(self) -> None:
        super().hurry()
        if self._row_timer is not None:
            self._row_timer.stop()
            self._read_changed()

    def fact(self, about: Touched) -> None:
        if about.mirror is not None and self._rows.index_of(about.mirror) is not None:
            if about.progress:
                self._moving.add(about.mirror)
                return
            self._changed.add(about.mirror)
            if self._row_timer is None:
                self._row_timer = self.set_timer(ROW_S, self._read_changed)
        super().fact(about)

    def _draw_steps(self) -> None:
        moving, self._moving = self._moving, set()
        if self.in_view:
            for mirror in moving:
                self.table.cell_changed(mirror, "step")
            if self.row is not None and self.row.id in moving:
                self.show_preview()

    def _read_changed(self) -> None:
        self._row_timer = None
        changed, self._changed = sorted(self._changed), set()
        if len(changed) > MOST_SINGLE:
            self.soon()
        else:
            self._to_read |= set(changed)
            self._reading_rows.ask()

    def readings(self) -> list[Repeated]:
        return [*super().readings(), self._reading_rows]

    async def _read_rows(self) -> None:
        link = self._place.firth.link
        mirrors, self._to_read = sorted(self._to_read), set()
        for mirror in mirrors:
            try:
                row = await link.ask(MirrorGet, "mirror.get", mirror=mirror)
            except NotFound:
                self.soon()
                continue
            except (FirthError, OSError):
                return
            if self._rows.replace(row) is not None:
                self.table.row_changed(mirror)
                self.show_preview()
        self._place.redraw()


class MirrorsScreen(PlaceScreen):
    """The mirrors of all channels."""

    BINDINGS = bindings({Place.MIRRORS})
    words: ClassVar = WORDS

    def __init__(self, *, faults: bool = False, query: str = "") -> None:
        super().__init__()
        self._faults = faults
        self._query = query
        self._pane: MirrorPane | None = None

    def where(self) -> Place:
        return Place.MIRRORS

    def crumbs(self) -> list[str]:
        return ["Mirrors"]

    @property
    def pane(self) -> MirrorPane | None:
        return self._pane

    def fact(self, about: Touched) -> None:
        if self._pane is not None:
            self._pane.fact(about)

    def body(self) -> ComposeResult:
        self._pane = MirrorPane(listing(self, None), self)
        if self._faults:
            self._pane.toggle_faults()
        if self._query:
            self._pane.ask(Wanted(query=self._query, sort=self._pane.wanted.sort))
        yield self._pane

    def on_mount(self) -> None:
        self.filter_bar.put(self._query)

    def name_to_copy(self, row: Any) -> str | None:
        return f"{row.channel}:{row.name}" if isinstance(row, Mirror) else None

    async def url_to_copy(self, row: Any) -> str | None:
        return row.source if isinstance(row, Mirror) else None

    async def open_row(self, row: Any) -> None:
        if isinstance(row, Mirror):
            self.firth.open(Target(place=Place.MIRROR, number=row.id))
