"""How the daemon is: what is wrong, the store, throughput, what runs next; and the log of who changed what."""

from typing import Any, ClassVar

import msgspec
from textual.app import ComposeResult

from firth_protocol.errors import FirthError
from firth_protocol.types import AuditEntry, DaemonStatus, Mirror
from firth_tui.actions import Place
from firth_tui.format import Cell, Sign, Tone, age, ahead, clean, count, counted, duration, moment, rate, since, size
from firth_tui.model import FAULTS, Touched, worst_first
from firth_tui.rows import Fetch
from firth_tui.screens.listing import Listing, ListPane, Wanted
from firth_tui.screens.mirror import Sheet, labelled
from firth_tui.screens.mirrors import state_of
from firth_tui.screens.place import PlaceScreen, bindings
from firth_tui.widgets.keyed_table import Column
from firth_tui.widgets.progress import bar
from firth_tui.widgets.scroll import Scroll
from firth_tui.widgets.sparkline import spark
from firth_tui.widgets.work import Repeated

READ_S = 5
"""How often the status is read while somebody looks."""
STALE_S = 35 * 86400
"""A mirror without success for longer than its usual month and some days is told."""
MOST_DUE = 5
MOST_FAULTS = 8

WORDS = (
    ("store", "where package files lie; a file that several channels have is stored once"),
    ("floor", "free space that is never used up: below it nothing more is downloaded"),
    ("throughput", "what all runs download together"),
    ("response", "how long the daemon's other work keeps a request waiting, in the worst hundredth of cases"),
    ("pending", "runs that wait for their turn"),
)


def problem_lines(status: DaemonStatus, mirrors: list[Mirror], now: float) -> list[list[Cell]]:
    """Return what is wrong, worst first; or that nothing is."""
    lines: list[list[Cell]] = []
    for problem in status.health:
        lines.append([Cell(f" {Sign.BAD} {clean(problem.subject)}: ", Tone.BAD), Cell(clean(problem.text))])
        hint = f"; {clean(problem.hint)}" if problem.hint else ""
        lines.append([Cell(f"   since {since(problem.since, now)}{hint}", Tone.MUTED)])
    faulty = [each for each in worst_first(mirrors) if each.state in FAULTS or (each.last_success_age_s or 0) > STALE_S]
    for mirror in faulty[:MOST_FAULTS]:
        why = clean(mirror.last_run.error.message) if mirror.last_run and mirror.last_run.error else ""
        success = f"last success {age(mirror.last_success_at, now)}"
        name = Cell(f" {clean(mirror.channel)}: {clean(mirror.name)}  ", Tone.STRONG)
        lines.append([name, state_of(mirror), Cell(f"  {success}  {why}")])
    if len(faulty) > MOST_FAULTS:
        lines.append([Cell(f"   and {counted(len(faulty) - MOST_FAULTS, 'more mirror')}: 2, then !", Tone.MUTED)])
    return lines or [[Cell(f" {Sign.OK} nothing is wrong", Tone.OK)]]


def store_lines(status: DaemonStatus) -> list[list[Cell]]:
    """Return how full the store is."""
    store = status.store
    whole = store.bytes + store.free
    used = Cell(bar(store.bytes, whole, 20) + "  ", Tone.BUSY)
    short = store.free < store.floor * 2
    free = Cell(f"{size(store.free)} free{', little' if short else ''}", Tone.WARN if short else Tone.PLAIN)
    lines = [
        labelled("store", used, Cell(f"{size(store.bytes)} in {count(store.blobs)} files, "), free),
        labelled("", Cell(f"downloads stop at the floor of {size(store.floor)} free", Tone.MUTED)),
    ]
    if store.quarantined:
        lines.append(
            labelled("", Cell(f"{Sign.WARN} {counted(store.quarantined, 'damaged file')} set aside", Tone.WARN))
        )
    return lines


def daemon_lines(status: DaemonStatus) -> list[list[Cell]]:
    """Return what runs where."""
    counts = status.counts
    addresses = ", ".join(clean(each) for each in status.addresses)
    up = duration(status.uptime_s)
    what = f"{clean(status.version)}, process {status.pid}, up {up}, {size(status.rss_bytes)} memory"
    return [
        labelled("runs", Cell(f"{count(counts.runs_active)} active, {count(counts.runs_pending)} pending")),
        labelled(
            "holds",
            Cell(f"{counted(counts.channels, 'channel')}, {counted(counts.mirrors, 'mirror')}, "),
            Cell(counted(counts.artifacts, "file")),
        ),
        labelled("serves on", Cell(addresses)),
        labelled("daemon", Cell(what)),
        labelled("response", Cell(f"{status.loop_lag.p99_ms:.1f} ms")),
    ]


class HealthScreen(PlaceScreen):
    """How the daemon is."""

    BINDINGS = bindings({Place.HEALTH})
    words: ClassVar = WORDS

    def __init__(self) -> None:
        super().__init__()
        self.mirrors: list[Mirror] = []
        self.sheet = Sheet()
        self._reading = Repeated(self, self._read, group="health")

    def where(self) -> Place:
        return Place.HEALTH

    def crumbs(self) -> list[str]:
        return ["Health"]

    def side(self) -> list[Cell]:
        status = self.session.status
        if status is None:
            return []
        wrong = len(status.health) + sum(each.state in FAULTS for each in self.mirrors)
        if wrong:
            return [Cell(f"{Sign.WARN} {counted(wrong, 'thing')} to look at", Tone.WARN)]
        return [Cell(f"{Sign.OK} all well", Tone.OK)]

    def body(self) -> ComposeResult:
        with Scroll(id="sheet"):
            yield self.sheet

    def on_mount(self) -> None:
        self.query_one("#sheet", Scroll).focus()
        self.reload()

    def reload(self) -> None:
        self._reading.ask()

    def readings(self) -> list[Repeated]:
        return [self._reading]

    async def _read(self) -> None:
        try:
            self.session.status = await self.firth.link.ask(DaemonStatus, "daemon.status")
            found = [
                (await self.firth.link.page(Mirror, "mirror.list", state=state, limit=50)).items
                for state in sorted(FAULTS)
            ]
        except (FirthError, OSError):
            return
        self.mirrors = [mirror for page in found for mirror in page]
        self._draw()

    def fact(self, about: Touched) -> None:
        if not about.progress and about.topic in {"run", "daemon", "store"}:
            self.reload()

    def tick(self, now: float) -> None:
        super().tick(now)
        if self._ticks % READ_S == 0 and self.session.connected:
            self.reload()

    def _draw(self) -> None:
        status, now = self.session.status, self.now()
        if status is None:
            return
        values = self.session.rates.last(40)
        flow = Cell(spark(values, 40) + "  ", Tone.BUSY)
        lines: list[list[Cell]] = [
            [],
            *problem_lines(status, self.mirrors, now),
            [],
            *store_lines(status),
            labelled("throughput", flow, Cell(rate(status.throughput_bytes_s))),
            [],
            *daemon_lines(status),
            [],
        ]
        for number, due in enumerate(status.next_runs[:MOST_DUE]):
            label = "next runs" if number == 0 else ""
            lines.append(labelled(label, Cell(f"{ahead(due.at, now):<9}{clean(due.channel)}: {clean(due.name)}")))
        more = max(status.next_runs_total, len(status.next_runs)) - min(MOST_DUE, len(status.next_runs))
        if more:
            lines.append(labelled("", Cell(f"and {counted(more, 'more', 'more')}", Tone.MUTED)))
        self.sheet.put(lines)
        self.redraw()


def audit_listing(screen: PlaceScreen) -> Listing[AuditEntry]:
    """Return the list of who changed what."""
    columns: tuple[Column[AuditEntry], ...] = (
        Column(id="time", title="WHEN", width=9, cell=lambda a: Cell(age(a.time, screen.now()))),
        Column(id="user", title="WHO", width=10, cell=lambda a: Cell(clean(a.user), Tone.STRONG)),
        Column(id="method", title="DID", width=17, cell=lambda a: Cell(clean(a.method))),
        Column(id="params", title="WITH", width=20, grow=4, cell=lambda a: Cell(_params(a), Tone.MUTED)),
        Column(id="outcome", title="OUTCOME", width=9, grow=1, cell=_outcome),
        Column(id="moment", title="TIME", width=23, drop=1, cell=lambda a: Cell(moment(a.time), Tone.MUTED)),
    )

    def fetch(wanted: Wanted) -> Fetch[AuditEntry]:
        async def read(cursor: str | None, limit: int) -> Any:
            return await screen.firth.link.page(
                AuditEntry, "audit.list", query=wanted.query or None, cursor=cursor, limit=limit
            )

        return read

    return Listing(
        place=Place.AUDIT,
        noun="entry",
        plural="entries",
        columns=columns,
        key=lambda entry: entry.id,
        fetch=fetch,
        touches=lambda about: not about.progress,
        empty="Nobody has changed anything yet.",
    )


def _params(entry: AuditEntry) -> str:
    return clean(" ".join(f"{name}={msgspec.json.encode(value).decode()}" for name, value in entry.params.items()))


def _outcome(entry: AuditEntry) -> Cell:
    well = entry.outcome == "ok"
    return Cell(f"{Sign.OK if well else Sign.BAD} {clean(entry.outcome)}", Tone.OK if well else Tone.WARN)


class AuditScreen(PlaceScreen):
    """Who changed what, newest first."""

    BINDINGS = bindings({Place.AUDIT})

    def __init__(self) -> None:
        super().__init__()
        self._pane: ListPane[AuditEntry] | None = None

    def where(self) -> Place:
        return Place.AUDIT

    def crumbs(self) -> list[str]:
        return ["Health", "Audit log"]

    @property
    def pane(self) -> ListPane[Any] | None:
        return self._pane

    def body(self) -> ComposeResult:
        self._pane = ListPane(audit_listing(self), self.session.orders)
        yield self._pane
