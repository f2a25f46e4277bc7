"""How the daemon is: what is wrong, the store, throughput, what runs next; and the log of who changed what."""

from collections.abc import Sequence
from typing import Any, ClassVar

import msgspec
from textual import on
from textual.app import ComposeResult

from firth_protocol.errors import FirthError
from firth_protocol.methods import MirrorGet, StoreStatusReply
from firth_protocol.types import AuditEntry, DaemonStatus, Mirror, UpstreamHost
from firth_tui.actions import Place, Target
from firth_tui.faults import Fault, faults
from firth_tui.format import Cell, Sign, Tone, age, ahead, clean, count, counted, duration, moment, rate, size
from firth_tui.model import FAULTS, Touched
from firth_tui.rows import Fetch, LocalRows
from firth_tui.screens.listing import Listing, ListPane, Wanted
from firth_tui.screens.mirror import labelled
from firth_tui.screens.place import PlaceScreen, bindings
from firth_tui.widgets.dialogs import Told
from firth_tui.widgets.keyed_table import Column, KeyedTable
from firth_tui.widgets.progress import bar
from firth_tui.widgets.scroll import Scroll
from firth_tui.widgets.sheet import Sheet
from firth_tui.widgets.sparkline import spark
from firth_tui.widgets.work import Repeated

READ_S = 5
"""How often the status is read while somebody looks."""
MOST_DUE = 5
SPARK_WIDE = 72
OF_THE_STORE = frozenset({"space", "store"})
"""What is wrong with the store: it opens what lies in it."""
MOST_HOSTS = 6
MOST_READ = 200
"""How many mirrors of each kind of fault are read."""

WORDS = (
    ("store", "where package files lie; a file that several channels have is stored once"),
    ("floor", "free space that is never used up: below it nothing more is downloaded"),
    ("throughput", "what all runs download together"),
    ("response", "how long the daemon's other work keeps a request waiting, in the worst hundredth of cases"),
    ("pending", "runs that wait for their turn"),
    ("sources", "the hosts that mirrors are copied from: their rate, answers and failures since the daemon started"),
)


def fault_columns() -> tuple[Column[Fault], ...]:
    """Return the columns of what is wrong."""
    return (
        Column(id="sign", title="", width=1, cell=lambda f: f.sign),
        Column(id="subject", title="WHAT", width=20, grow=1, cell=lambda f: Cell(clean(f.subject), Tone.STRONG)),
        Column(id="text", title="WHAT IS WRONG", width=30, grow=3, cell=lambda f: Cell(clean(f.text))),
        Column(id="since", title="SINCE", width=5, cell=lambda f: Cell(f.when, Tone.MUTED)),
    )


def fault_lines(fault: Fault | None) -> list[list[Cell]]:
    """Return all that is known of one fault, or that there is none."""
    if fault is None:
        return [[Cell(f" {Sign.OK} nothing is wrong", Tone.OK)], []]
    known = f"since {fault.when}" if fault.when else ""
    more = "; ".join(part for part in (known, clean(fault.hint)) if part)
    lines = [[Cell(f" {fault.sign.text} ", fault.sign.tone), Cell(f"{clean(fault.subject)}: {clean(fault.text)}")]]
    return [*lines, [Cell("   "), Cell(more, Tone.MUTED)], []]


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


def host_lines(hosts: Sequence[UpstreamHost], now: float) -> list[list[Cell]]:
    """Return how each host answers: its rate, how often it answered and failed, what it did last."""
    lines = []
    for number, host in enumerate(hosts[:MOST_HOSTS]):
        sign = Cell(f"{Sign.WARN} ", Tone.WARN) if host.fails else Cell(f"{Sign.OK} ", Tone.OK)
        said = f", last {host.status} {age(host.answered_at, now)}" if host.answered_at else ""
        flow = f"{rate(host.rate_bytes_s)}, " if host.rate_bytes_s else ""
        failed = f", {counted(host.failures, 'failure')}, last {age(host.failed_at, now)}" if host.failures else ""
        told = f"{flow}{counted(host.answers, 'answer')}{said}{failed}"
        lines.append(labelled("" if number else "sources", sign, Cell(f"{clean(host.host, 40)}  "), Cell(told)))
    if len(hosts) > MOST_HOSTS:
        lines.append(labelled("", Cell(f"and {counted(len(hosts) - MOST_HOSTS, 'more', 'more')}", Tone.MUTED)))
    return lines


def holding_lines(use: StoreStatusReply) -> list[str]:
    """Return what lies in the store and what for, to be read where room is short."""
    held = use.held
    return [
        f"{size(use.free)} free, floor {size(use.floor)}",
        "",
        f"{size(held.index):>10}  what channels show now",
        f"{size(held.drafts):>10}  what waits to be published",
        f"{size(held.grace):>10}  retired a while ago, or new",
        f"{size(held.snapshots):>10}  what only earlier generations show",
        f"{size(use.unneeded_bytes):>10}  nothing needs: x on the health screen frees it",
        f"{size(use.index_bytes):>10}  files of indexes",
    ]


class HealthScreen(PlaceScreen):
    """How the daemon is."""

    BINDINGS = bindings({Place.HEALTH})
    words: ClassVar = WORDS

    def __init__(self) -> None:
        super().__init__()
        self.mirrors: list[Mirror] = []
        self.sheet = Sheet()
        self._faults: list[Fault] = []
        self.faults: KeyedTable[Fault] = KeyedTable(fault_columns(), self._rows(), id="faults")
        self.faults.display = False
        self._reading = Repeated(self, self._read, group="health")

    def where(self) -> Place:
        return Place.HEALTH

    def crumbs(self) -> list[str]:
        return ["Health"]

    def side(self) -> list[Cell]:
        if self.session.status is None:
            return []
        if self._faults:
            return [Cell(f"{Sign.WARN} {counted(len(self._faults), 'thing')} to look at", Tone.WARN)]
        return [Cell(f"{Sign.OK} all well", Tone.OK)]

    @property
    def table(self) -> KeyedTable[Any] | None:
        return self.faults

    def behind(self) -> bool:
        return self.session.status is None and self._reading.at_work

    def body(self) -> ComposeResult:
        yield self.faults
        with Scroll(id="sheet"):
            yield self.sheet

    def on_mount(self) -> None:
        self.focus_body()
        self.reload()

    def focus_body(self) -> None:
        self.set_focus(self.faults if self._faults else self.query_one("#sheet", Scroll))

    def reload(self) -> None:
        self._reading.ask()

    def readings(self) -> list[Repeated]:
        return [self._reading]

    async def open_row(self, row: Any) -> None:
        """Go to what is wrong: the mirror, the run or the channel; of several mirrors to their list."""
        if not isinstance(row, Fault):
            self.firth.tell("Nothing is wrong: there is nothing to open.")
        elif len(row.mirrors) > 1:
            self.firth.open(Target(place=Place.MIRRORS, faults=True))
        elif row.mirrors:
            self.firth.open(Target(place=Place.MIRROR, number=row.mirrors[0]))
        elif row.mirror:
            mirror = await self.firth.link.ask(MirrorGet, "mirror.get", mirror=row.mirror)
            self.firth.open(Target(place=Place.MIRROR, number=mirror.id))
        elif row.run is not None:
            self.firth.open(Target(place=Place.RUN, number=row.run))
        elif row.channel:
            self.firth.open(Target(place=Place.PACKAGES, channel=row.channel))
        elif row.host and await self._is_source(row.host):
            self.firth.open(Target(place=Place.MIRRORS, query=row.host))
        else:
            lines = [row.text, f"since {row.when}", row.hint]
            if row.subject in OF_THE_STORE:
                use = await self.firth.link.ask(StoreStatusReply, "store.status")
                lines += ["", *holding_lines(use)]
            self.firth.push_screen(Told(row.subject, lines))

    async def _is_source(self, host: str) -> bool:
        """Tell whether a mirror is copied from a host; others are those that sources redirect to."""
        return bool((await self.firth.link.page(Mirror, "mirror.list", query=host, limit=1)).items)

    async def _read(self) -> None:
        try:
            self.session.status = await self.firth.link.ask(DaemonStatus, "daemon.status")
            found = [
                (await self.firth.link.page(Mirror, "mirror.list", state=state, limit=MOST_READ)).items
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

    @on(KeyedTable.Highlighted)
    def _other_fault(self) -> None:
        self._draw_sheet()

    def _rows(self) -> LocalRows[Fault]:
        return LocalRows(self._faults, lambda fault: fault.key)

    def _draw(self) -> None:
        status = self.session.status
        if status is None:
            return
        before, self._faults = self._faults, faults(status, self.mirrors, self.now())
        if self._faults != before:
            self.faults.source = self._rows()
            self.faults.styles.height = min(len(self._faults), max(3, self.size.height // 3)) + 1
            self.faults.display = bool(self._faults)
            self.faults.changed()
            if bool(before) != bool(self._faults) and self.on_top:
                self.focus_body()
        self._draw_sheet()

    def _draw_sheet(self) -> None:
        status, now = self.session.status, self.now()
        if status is None:
            return
        cells = 40 if self.size.width >= SPARK_WIDE else 20
        flow = Cell(spark(self.session.rates.last(cells), cells) + "  ", Tone.BUSY)
        lines: list[list[Cell]] = [
            [],
            *fault_lines(self.faults.cursor_row if self._faults else None),
            *store_lines(status),
            labelled("throughput", flow, Cell(rate(status.throughput_bytes_s))),
            *daemon_lines(status),
            *host_lines(status.upstreams, now),
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


def entry_lines(entry: AuditEntry) -> list[str]:
    """Return all of an entry: each parameter on a line of its own."""
    params = [f"{name:<14}{msgspec.json.encode(value).decode()}" for name, value in entry.params.items()]
    who = f"{entry.user} (uid {entry.uid}, process {entry.pid}), as {entry.role}"
    return [f"{moment(entry.time)}: {entry.outcome}", who, "", *(params or ["without parameters"])]


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

    async def open_row(self, row: Any) -> None:
        if isinstance(row, AuditEntry):
            self.firth.push_screen(Told(f"{row.method}, by {row.user}", entry_lines(row)))
