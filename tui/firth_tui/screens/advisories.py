"""The list of known flaws: what each is about, how grave it is, and above it how old each database's part is."""

from typing import Any, ClassVar

from textual.app import ComposeResult

from firth_protocol.errors import FirthError
from firth_protocol.events import Topic
from firth_protocol.methods import AdvisorySummary
from firth_protocol.types import AdvisoryDatabase, AdvisoryInfo, AdvisoryTouch
from firth_tui.actions import Place, Target
from firth_tui.format import Cell, Sign, Tone, age, clean, count, counted, seconds_of
from firth_tui.rows import Fetch
from firth_tui.screens.listing import Listing, ListPane, Wanted
from firth_tui.screens.place import PlaceScreen, RowPreviews, bindings
from firth_tui.widgets.keyed_table import Column
from firth_tui.widgets.sheet import Sheet
from firth_tui.widgets.work import Repeated

OLD_S = 7 * 86400
"""A database that was imported longer ago says little about what is found these days."""
MOST_DATABASES = 4
GRAVE, SERIOUS = 9.0, 7.0

WORDS = (
    ("advisory", "what a database of known flaws says of packages; a policy's rule on flaws acts on it"),
    ("score", "how grave the flaw is, from 0 to 10"),
    ("status", "what people here found out of it: reported, active, mitigated, cleared or disputed"),
    ("withdrawn", "the database has taken it back: no policy acts on it"),
    ("import", "reads a database anew: n, or `firthctl advisory.import source=FILE-OR-ADDRESS` in a script"),
)


def score_cell(one: AdvisoryInfo) -> Cell:
    """Return how grave a flaw is, as glyph and number."""
    if one.withdrawn:
        return Cell(f"{Sign.SKIPPED} withdrawn", Tone.MUTED)
    if one.score is None:
        return Cell(f"{Sign.WAIT} unscored", Tone.MUTED)
    grave = one.score >= GRAVE
    sign = Sign.BAD if grave else Sign.WARN if one.score >= SERIOUS else Sign.WAIT
    return Cell(f"{sign} {one.score:.1f}", Tone.BAD if grave else Tone.WARN if one.score >= SERIOUS else Tone.PLAIN)


def affected_cell(one: AdvisoryTouch) -> Cell:
    """Return how many files of a package an advisory means."""
    if not one.affected:
        return Cell(f"{Sign.OK} no file", Tone.OK)
    return Cell(f"{Sign.WARN} {count(one.affected)} of {count(one.files)}", Tone.WARN)


def status_cell(one: AdvisoryInfo) -> Cell:
    """Return what was found out here."""
    return Cell(clean(one.status), Tone.MUTED if one.set_by is None else Tone.PLAIN)


def changed_text(one: AdvisoryInfo, now: float) -> str:
    """Return when the database changed an advisory last, where it tells that."""
    return age(one.modified, now) if one.modified else ""


def database_lines(databases: list[AdvisoryDatabase], now: float) -> list[list[Cell]]:
    """Return a line for each database: how many, the newest, when it was imported; nothing before one was."""
    lines = []
    for one in databases[:MOST_DATABASES]:
        imported = seconds_of(one.imported_at) or now
        old = now - imported > OLD_S
        when = f"imported {age(one.imported_at, now)}"
        newest = f", newest {age(one.modified, now)}" if one.modified else ""
        withdrawn = f", {count(one.withdrawn)} withdrawn" if one.withdrawn else ""
        lines.append(
            [
                Cell(f" {clean(one.name, 12):<13}", Tone.STRONG),
                Cell(f"{count(one.advisories):>9}  "),
                Cell(f"{f'{Sign.WARN} ' if old else ''}{when}", Tone.WARN if old else Tone.PLAIN),
                Cell(f"{newest}{withdrawn}", Tone.MUTED),
            ]
        )
    left = databases[MOST_DATABASES:]
    if left:
        more = counted(len(left), "more database", "more databases")
        lines.append([Cell(f" and {more} with {count(sum(one.advisories for one in left))}", Tone.MUTED)])
    return lines


def advisory_listing(screen: PlaceScreen) -> Listing[AdvisoryInfo]:
    """Return the list; IMPORTED and CHANGED go for want of room."""
    now = screen.now
    columns: tuple[Column[AdvisoryInfo], ...] = (
        Column(id="id", title="ADVISORY", width=19, cell=lambda a: Cell(clean(a.id), Tone.STRONG)),
        Column(id="score", title="SCORE", width=11, cell=score_cell),
        Column(id="packages", title="PACKAGES", width=14, grow=1, cell=lambda a: Cell(clean(", ".join(a.packages)))),
        Column(id="status", title="STATUS", width=9, cell=status_cell),
        Column(id="summary", title="WHAT IT IS", width=16, grow=3, drop=1, cell=lambda a: Cell(clean(a.summary))),
        Column(id="changed", title="CHANGED", width=10, drop=2, cell=lambda a: Cell(changed_text(a, now()))),
        Column(id="imported", title="IMPORTED", width=10, drop=3, cell=lambda a: Cell(age(a.imported_at, now()))),
    )

    def fetch(wanted: Wanted) -> Fetch[AdvisoryInfo]:
        async def read(cursor: str | None, limit: int) -> Any:
            return await screen.firth.link.page(
                AdvisoryInfo, "advisory.list", query=wanted.query or None, cursor=cursor, limit=limit
            )

        return read

    return Listing(
        place=Place.ADVISORIES,
        noun="advisory",
        plural="advisories",
        columns=columns,
        key=lambda advisory: advisory.id,
        fetch=fetch,
        touches=lambda about: about.topic == Topic.ADVISORY,
        empty=(
            "No advisory is known: policies about flaws let everything pass that is scored.\n"
            "n imports a database of them; firthctl advisory.import does it in a script."
        ),
    )


class AdvisoriesScreen(PlaceScreen):
    """All advisories, with the state of each database above."""

    BINDINGS = bindings({Place.ADVISORIES})
    words: ClassVar = WORDS
    filter_words: ClassVar = ("filter", "part of an id or of a package's name; enter: to the list, esc: clear")

    def __init__(self) -> None:
        super().__init__()
        self.databases = Sheet()
        self.databases.display = False
        self._pane: ListPane[AdvisoryInfo] | None = None
        self._summing = Repeated(self, self._sum_up, group="databases")

    def where(self) -> Place:
        return Place.ADVISORIES

    def crumbs(self) -> list[str]:
        return ["Advisories"]

    @property
    def pane(self) -> ListPane[Any] | None:
        return self._pane

    def body(self) -> ComposeResult:
        self._pane = ListPane(advisory_listing(self), self.session.orders, RowPreviews(self))
        yield self.databases
        yield self._pane

    def on_mount(self) -> None:
        self._summing.ask()

    def reload(self) -> None:
        super().reload()
        self._summing.ask()

    def fact(self, about: Any) -> None:
        super().fact(about)
        if about.topic == Topic.ADVISORY:
            self._summing.ask()

    async def _sum_up(self) -> None:
        try:
            found = await self.firth.link.ask(AdvisorySummary, "advisory.summary")
        except (FirthError, OSError):
            return  # the list says what is wrong
        self.databases.put(database_lines(found.databases, self.now()))
        self.databases.display = bool(found.databases)

    def name_to_copy(self, row: Any) -> str | None:
        return row.id if isinstance(row, AdvisoryInfo) else None

    async def open_row(self, row: Any) -> None:
        if isinstance(row, AdvisoryInfo):
            self.firth.open(Target(place=Place.ADVISORY, name=row.id))
