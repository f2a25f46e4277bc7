"""One mirror: its order, what its last run did, what could not be had, and its earlier runs."""

from contextlib import suppress
from typing import Any, ClassVar

from firth_protocol.errors import FirthError
from firth_protocol.events import Fact, Topic
from firth_protocol.methods import MirrorGet, PolicyGet
from firth_protocol.types import MirrorDetails, MirrorType, Policy, Run
from firth_tui.actions import Place, Target
from firth_tui.format import (
    Cell,
    Sign,
    Tone,
    age,
    ahead,
    clean,
    count,
    counted,
    mode_name,
    moment,
    rate,
    size,
    state_cell,
    type_name,
)
from firth_tui.model import Touched
from firth_tui.screens.mirrors import WORDS as MIRROR_WORDS
from firth_tui.screens.mirrors import state_of, step_of
from firth_tui.screens.place import bindings
from firth_tui.screens.policy_lines import WORDS as POLICY_WORDS
from firth_tui.screens.policy_lines import in_force_lines, judged_lines
from firth_tui.screens.sheet_place import SheetScreen
from firth_tui.widgets.sparkline import outcomes, spark

HISTORY = 40
LABEL_CELLS = 14
MOST_FAILED = 200
PARTS_SHOWN = 12

WORDS = (
    ("shadowed", "not offered, because an older mirror of the channel has packages of that name"),
    ("unhashed", "files for which the source gives no checksum"),
    (
        "dropped",
        "listed by the source, but not taken: the mirror's filters or a policy say so; x lists what a policy did",
    ),
    ("collide", "another mirror of the channel has a file of the same name with other bytes"),
    ("files also", "folders and addresses that files are taken from first, verified by the source's checksums"),
    *POLICY_WORDS,
    *MIRROR_WORDS,
)


def labelled(label: str, *cells: Cell) -> list[Cell]:
    """Return one line of a sheet: what it is about, then what there is to say."""
    return [Cell(f" {label:<{LABEL_CELLS}}", Tone.MUTED), *cells]


def order_lines(mirror: MirrorGet, now: float) -> list[list[Cell]]:
    """Return what a mirror is told to do."""
    filters = ", ".join(
        f"{name} {' '.join(value) if isinstance(value, list) else value}"
        for name in mirror.filters.__struct_fields__
        if (value := getattr(mirror.filters, name)) is not None
    )
    secret = f" with {mirror.credentials}" if mirror.credentials else ""
    when = ahead(mirror.next_run_at, now) if mirror.enabled else "off: runs by hand only"
    removal = "retires it here too" if mirror.on_upstream_removal == "follow" else "keeps what is stored"
    return [
        labelled("source", Cell(clean(mirror.source, 300), Tone.STRONG), Cell(clean(secret), Tone.MUTED)),
        labelled("type, mode", Cell(f"{type_name(mirror.type)}, {mode_name(mirror.mode)}")),
        labelled("frequency", Cell(f"{clean(mirror.schedule)} (UTC), next {when}")),
        labelled("takes only", Cell(clean(filters) or "everything the source has", Tone.PLAIN)),
        labelled("gone there", Cell(f"what the source no longer lists: {removal}")),
        *transfer_lines(mirror),
    ]


def transfer_lines(mirror: MirrorGet) -> list[list[Cell]]:
    """Return what a mirror is told about getting files and letting them go, where that is anything."""
    hours = f" in the hours {clean(mirror.max_rate_hours)} (UTC)" if mirror.max_rate_hours else ""
    said = [
        ("files also", clean(", ".join(mirror.also_from), 300)),
        ("at most", f"{rate(mirror.max_rate)}{hours}" if mirror.max_rate else ""),
        ("unused", f"dropped after {mirror.drop_unused_days:,} days" if mirror.drop_unused_days else ""),
    ]
    return [labelled(label, Cell(text)) for label, text in said if text]


def state_lines(screen: "MirrorScreen", mirror: MirrorGet, now: float) -> list[list[Cell]]:
    """Return how a mirror is."""
    stored = f"{count(mirror.stored)} of {count(mirror.artifacts)} files stored, {size(mirror.bytes)} in all"
    success = f"{age(mirror.last_success_at, now)}"
    if mirror.last_success_at:
        success += f" ({moment(mirror.last_success_at)})"
    return [
        labelled("state", state_of(mirror), Cell(f" · {step}" if (step := step_of(mirror, screen).text) else "")),
        labelled("last success", Cell(success)),
        labelled("holds", Cell(stored)),
    ]


def detail_lines(details: MirrorDetails, *, python: bool = False) -> list[list[Cell]]:
    """Return what the last run did."""
    counts = details.counts
    lines = [
        labelled(
            "last run",
            Cell(f"{count(counts.added)} added, {count(counts.removed)} removed, {count(counts.unchanged)} unchanged"),
        )
    ]
    if details.parts:
        parts = sorted(details.parts.items())
        shown = ", ".join(f"{clean(name)} {count(number)}" for name, number in parts[:PARTS_SHOWN])
        more = f" and {count(len(parts) - PARTS_SHOWN)} more" if len(parts) > PARTS_SHOWN else ""
        lines.append(labelled("projects" if python else "platforms", Cell(f"{shown}{more}")))
    lines.extend(
        labelled("dropped", Cell(f"{count(each.count)} by {clean(each.reason)}, rule of {clean(each.whose)}"))
        for each in counts.filtered
    )
    if counts.unhashed:
        lines.append(labelled("unhashed", Cell(counted(counts.unhashed, "file"))))
    shadowed = max(details.shadowed_total, len(details.shadowed))
    if details.shadowed:
        names = ", ".join(clean(name) for name in details.shadowed[:12])
        more = " …" if len(details.shadowed) > 12 else ""
        lines.append(labelled("shadowed", Cell(f"{counted(shadowed, 'name')}: {names}{more}", Tone.WARN)))
    if details.collisions:
        first = details.collisions[0]
        told = f"{clean(first.part)}/{clean(first.filename)} in {clean(first.other)}"
        more = " …" if details.collisions_total > 1 else ""
        said = f"{counted(details.collisions_total, 'file')} with other bytes: {told}{more}"
        lines.append(labelled("collide", Cell(said, Tone.WARN)))
    lines.extend(labelled("note", Cell(clean(note))) for note in details.notes)
    return lines


def failure_lines(details: MirrorDetails) -> list[list[Cell]]:
    """Return what could not be had: how many, why with how many each, then the files."""
    failed = max(details.failed_total, len(details.failed))
    if not failed:
        return []
    lines = [[], [Cell(f" {Sign.BAD} {counted(failed, 'file')} could not be had", Tone.BAD)]]
    lines.extend(
        [Cell(f"   {each.count:>9,}  "), Cell(clean(each.reason), Tone.WARN)] for each in details.failed_reasons
    )
    left = failed - sum(each.count for each in details.failed_reasons)
    if details.failed_reasons and left > 0:
        lines.append([Cell(f"   {left:>9,}  "), Cell("for other reasons", Tone.WARN)])
    lines.append([])
    lines.extend(
        [Cell(f"   {clean(each.part)}/{clean(each.filename)}  "), Cell(clean(each.reason), Tone.WARN)]
        for each in details.failed[:MOST_FAILED]
    )
    if failed > min(MOST_FAILED, len(details.failed)):
        left = failed - min(MOST_FAILED, len(details.failed))
        lines.append([Cell(f"   and {counted(left, 'more', 'more')}", Tone.MUTED)])
    return lines


def history_lines(runs: list[Run], now: float) -> list[list[Cell]]:
    """Return earlier runs: an outcome each, and how much each added."""
    ended = [run for run in reversed(runs) if run.state.ended]
    if not ended:
        return [labelled("runs", Cell("none has ended yet", Tone.MUTED))]
    lines = [labelled("runs", *outcomes([run.state for run in ended]), Cell("  oldest first", Tone.MUTED))]
    added = [float(run.counts.added) for run in ended]
    if any(added):
        most = f"  files added, at most {count(int(max(added)))}"
        lines.append(labelled("", Cell(spark(added, len(added)), Tone.BUSY), Cell(most, Tone.MUTED)))
    for run in reversed(ended[-5:]):
        error = f": {clean(run.error.message)}" if run.error else ""
        lines.append(
            labelled("", Cell(f"run {run.id}  "), state_cell(run.state), Cell(f"  {age(run.finished_at, now)}{error}"))
        )
    return lines


class MirrorScreen(SheetScreen):
    """One mirror."""

    gone: ClassVar = "This mirror has been deleted."

    BINDINGS = bindings({Place.MIRROR})
    words: ClassVar = WORDS

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number
        self.mirror_now: MirrorGet | None = None
        self.details: MirrorDetails | None = None
        self.history: list[Run] = []
        self.policy_now: Policy | None = None

    def where(self) -> Place:
        return Place.MIRROR

    def crumbs(self) -> list[str]:
        mirror = self.mirror_now
        return ["Mirrors", f"{mirror.channel} / {mirror.name}" if mirror else str(self.number)]

    def side(self) -> list[Cell]:
        return [state_of(self.mirror_now)] if self.mirror_now else []

    def subjects(self, *, painted: bool = False) -> dict[str, Any]:
        return {"mirror": self.mirror_now}

    def name_to_copy(self, row: Any) -> str | None:
        mirror = self.mirror_now
        return f"{mirror.channel}:{mirror.name}" if mirror else None

    async def url_to_copy(self, row: Any) -> str | None:
        return self.mirror_now.source if self.mirror_now else None

    async def open_row(self, row: Any) -> None:
        mirror = self.mirror_now
        if mirror is not None and mirror.last_run is not None:
            self.firth.open(Target(place=Place.RUN, number=mirror.last_run.id))
        else:
            self.firth.tell("This mirror has not run yet: r runs it.", warning=True)

    @property
    def known(self) -> bool:
        return self.mirror_now is not None

    def about_this(self, about: Touched) -> bool:
        channels = about.type == Fact.CHANNEL_UPDATED or about.topic == Topic.POLICY
        return channels or (about.mirror == self.number and not about.progress)

    async def read(self) -> None:
        link = self.firth.link
        self.mirror_now = await link.ask(MirrorGet, "mirror.get", mirror=self.number)
        self.draw()
        self.policy_now = await self._policy(self.mirror_now)
        self.details = await link.ask(MirrorDetails, "mirror.details", mirror=self.number)
        self.history = (await link.page(Run, "run.list", mirror=self.number, kind="mirror", limit=HISTORY)).items

    async def _policy(self, mirror: MirrorGet) -> Policy | None:
        """Return the policy in force with its rules; None where there is none, or it has just gone."""
        if mirror.in_force is None:
            return None
        with suppress(FirthError):
            return await self.firth.link.ask(PolicyGet, "policy.get", policy=mirror.in_force.name)
        return None

    def lines(self) -> list[list[Cell]]:
        mirror, now = self.mirror_now, self.now()
        assert mirror is not None
        lines = [[], *state_lines(self, mirror, now), [], *order_lines(mirror, now)]
        lines += [*in_force_lines(mirror.in_force, self.policy_now), []]
        if self.details is not None:
            history = history_lines(self.history, now)
            lines += [
                *detail_lines(self.details, python=mirror.type is MirrorType.PYTHON),
                *judged_lines(self.details),
                [],
                *history,
                *failure_lines(self.details),
            ]
        return lines
