"""The only place that knows what an event changes in what is shown: progress of runs, what is stale, throughput.

Nothing here knows Textual or the socket.
"""

from collections import deque
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import msgspec
from msgspec import Struct

from firth_protocol.events import PROGRESS, Fact, Topic
from firth_protocol.types import (
    STEP_TITLES,
    DaemonStatus,
    Event,
    LogLine,
    Mirror,
    Role,
    Run,
    RunState,
    Step,
    StepName,
    StepState,
)

KEPT_LINES = 10_000
"""How many lines of a run's log are held; older ones can be read with `firthctl run.log`."""

SHORT_TITLES: Mapping[str, str] = {
    StepName.CONNECT: "Connect",
    StepName.FETCH_INDEX: "Fetch index",
    StepName.FILTER: "Filter",
    StepName.RESOLVE: "Resolve",
    StepName.PLAN: "Compare",
    StepName.DOWNLOAD: "Download",
    StepName.PUBLISH: "Publish",
    StepName.CLEAN: "Clean up",
}
"""For lists, where room is short."""

FAULTS = frozenset({RunState.FAILED, RunState.INCOMPLETE})

_CHANGES_A_CHANNEL = frozenset(
    {
        Fact.CHANNEL_CREATED,
        Fact.CHANNEL_UPDATED,
        Fact.CHANNEL_DELETED,
        Fact.CHANNEL_FROZEN,
        Fact.CHANNEL_UNFROZEN,
        Fact.CHANNEL_PUBLISHED,
        Fact.DRAFT_GREW,
        Fact.MIRROR_CREATED,
        Fact.MIRROR_DELETED,
        Fact.RUN_QUEUED,
        Fact.RUN_STARTED,
        Fact.RUN_STOPPING,
        Fact.RUN_FINISHED,
    }
)


class Stage(StrEnum):
    CONNECTING = "connecting"  # the first try has not ended
    CONNECTED = "connected"
    LOST = "disconnected"  # tries go on
    REFUSED = "refused"  # the daemon answers, but lets this user do nothing
    FOREIGN = "not understood"  # something answers, but not as this firth expects


class Connection(Struct, frozen=True, kw_only=True):
    """How the link is; `note` is one sentence that stays true while connected (another version, for instance)."""

    stage: Stage
    since: float
    text: str = ""
    note: str = ""
    retry_at: float | None = None


class Listener:
    """What a link tells; the application overrides what it needs."""

    def link_changed(self, connection: Connection) -> None:
        """The connection's stage is another one."""

    def link_fresh(self, status: DaemonStatus) -> None:
        """The daemon answers (again), or events were missed: whatever is shown must be read anew."""

    def link_methods(self, methods: frozenset[str]) -> None:
        """The daemon offers these methods."""

    def link_event(self, event: Event) -> None:
        """Something happened, or progressed."""


class Session:
    """What the application knows of the daemon beside its lists."""

    def __init__(self, connection: Connection, *, read_only: bool) -> None:
        self.connection = connection
        self.read_only = read_only
        self.status: DaemonStatus | None = None
        self.methods: frozenset[str] | None = None
        self.live = Live()
        self.rates = History()
        self.tally: Mapping[RunState, int] = {}  # how many mirrors are in each state; empty: not known
        self.keys: Mapping[str, str] = {}  # those that somebody has moved, by action id
        self.orders: dict[str, str] = {}  # how the user last sorted each kind of list

    @property
    def connected(self) -> bool:
        return self.connection.stage is Stage.CONNECTED

    @property
    def role(self) -> Role:
        """The caller's role, as the daemon told it; none before it did."""
        return self.status.role if self.status else Role.NONE


class Touched(Struct, frozen=True):
    """What an event is about."""

    type: str
    topic: str
    channel: str | None
    mirror: int | None
    run: int | None

    @property
    def progress(self) -> bool:
        return self.topic == Topic.PROGRESS or self.type == PROGRESS

    @property
    def changes_channels(self) -> bool:
        """Whether a row in a list of channels may look different now."""
        return self.type in _CHANGES_A_CHANNEL

    @property
    def changes_lists_of_mirrors(self) -> bool:
        """Whether mirrors came, went, may sort differently or have another policy; run facts only change one row."""
        return self.type in {
            Fact.MIRROR_CREATED,
            Fact.MIRROR_DELETED,
            Fact.CHANNEL_DELETED,
            Fact.MIRROR_UPDATED,
            Fact.CHANNEL_UPDATED,
            Fact.POLICY_UPDATED,
        }

    @property
    def changes_states(self) -> bool:
        """Whether a mirror may be in another state now."""
        return self.type in {
            Fact.RUN_STARTED,
            Fact.RUN_STOPPING,
            Fact.RUN_FINISHED,
            Fact.MIRROR_CREATED,
            Fact.MIRROR_DELETED,
            Fact.CHANNEL_DELETED,
        }

    @property
    def changes_content(self) -> bool:
        """Whether what a channel offers may be different now."""
        return self.type in {
            Fact.CHANNEL_PUBLISHED,
            Fact.DRAFT_GREW,
            Fact.CHANNEL_FROZEN,
            Fact.CHANNEL_UNFROZEN,
            Fact.MIRROR_DELETED,
        }


def touched(event: Event) -> Touched:
    """Return what `event` is about; ids of an unexpected kind count as absent."""
    ids = event.ids
    channel, mirror, run = ids.get("channel"), ids.get("mirror"), ids.get("run")
    return Touched(
        type=event.type,
        topic=event.topic,
        channel=channel if isinstance(channel, str) else None,
        mirror=mirror if isinstance(mirror, int) else None,
        run=run if isinstance(run, int) else None,
    )


class Progress(Struct, frozen=True, kw_only=True):
    """Where a run is just now: the step in progress, with bytes, rate and estimate."""

    number: int = 0
    name: StepName | None = None
    title: str = ""
    state: StepState = StepState.RUNNING
    done: int = 0
    total: int | None = None
    unit: str = ""
    description: str = ""
    started_at: str | None = None
    bytes_done: int = 0
    bytes_total: int | None = None
    rate_bytes_s: float = 0.0
    eta_s: float | None = None

    @property
    def text(self) -> str:
        """The step in words, for one cell."""
        return self.description or self.title or (STEP_TITLES[self.name] if self.name else "")


def progress_of(data: Mapping[str, Any]) -> Progress | None:
    """Return the progress that an event's data tells; None when it cannot be read."""
    known = {name: data[name] for name in Progress.__struct_fields__ if data.get(name) is not None}
    if "step" in data and "name" not in known:
        known["name"] = data["step"]
    try:
        return msgspec.convert(known, Progress)
    except msgspec.ValidationError:
        return None


class Live:
    """The newest progress of every open run, by run and by mirror."""

    def __init__(self) -> None:
        self._by_run: dict[int, Progress] = {}
        self._run_of_mirror: dict[int, int] = {}

    def apply(self, event: Event) -> Touched:
        """Take in an event and return what it is about."""
        about = touched(event)
        if about.run is None:
            return about
        if about.type == Fact.RUN_FINISHED:
            self._by_run.pop(about.run, None)
            self._run_of_mirror = {mirror: run for mirror, run in self._run_of_mirror.items() if run != about.run}
        elif about.progress or about.type == Fact.RUN_STEP:
            progress = progress_of(event.data)
            if progress is not None and progress.state is StepState.RUNNING:
                self._by_run[about.run] = progress
                if about.mirror is not None:
                    self._run_of_mirror[about.mirror] = about.run
        return about

    def clear(self) -> None:
        """Forget everything; what was told before a disconnection may be over."""
        self._by_run.clear()
        self._run_of_mirror.clear()

    def of_run(self, run: int) -> Progress | None:
        return self._by_run.get(run)

    def of_mirror(self, mirror: Mirror) -> Progress | None:
        """Return the progress of the mirror's open run; None when it has none."""
        run = self._run_of_mirror.get(mirror.id)
        if run is None or (mirror.last_run is not None and mirror.last_run.id != run and mirror.last_run.state.ended):
            return None
        return self._by_run.get(run)

    @property
    def rate_bytes_s(self) -> float:
        """Bytes a second of all open runs together."""
        return sum(progress.rate_bytes_s for progress in self._by_run.values())


def with_progress(run: Run, progress: Progress) -> Run:
    """Return `run` with its step in progress as an event told it; earlier steps that still wait were passed."""
    if run.state.ended or progress.name is None:
        return run
    steps: list[Step] = []
    for step in run.steps:
        if step.name == progress.name:
            step = msgspec.structs.replace(
                step,
                state=progress.state,
                done=progress.done,
                total=progress.total,
                unit=progress.unit or step.unit,
                description=progress.description or step.description,
                started_at=step.started_at or progress.started_at,
            )
        steps.append(step)
    return msgspec.structs.replace(
        run,
        steps=steps,
        step=progress.name,
        bytes_done=max(run.bytes_done, progress.bytes_done),
        bytes_total=run.bytes_total if progress.bytes_total is None else progress.bytes_total,
        rate_bytes_s=progress.rate_bytes_s,
        eta_s=progress.eta_s,
    )


class LogLines:
    """The lines of a run's log that have been read, oldest first."""

    def __init__(self) -> None:
        self.lines: deque[LogLine] = deque(maxlen=KEPT_LINES)
        self.last = 0

    def add(self, lines: list[LogLine]) -> int:
        """Append lines that are new; return how many were."""
        new = [line for line in lines if line.number > self.last]
        self.lines.extend(new)
        if new:
            self.last = new[-1].number
        return len(new)

    def find(self, text: str, after: int) -> int | None:
        """Return the index of the next line with `text` after index `after`, going round; None when there is none."""
        wanted = text.casefold()
        found = [index for index, line in enumerate(self.lines) if wanted in line.text.casefold()]
        return next((index for index in found if index > after), found[0] if found else None)


class History:
    """The last values of something that is measured again and again."""

    def __init__(self, most: int = 240) -> None:
        self._values: deque[float] = deque(maxlen=most)

    def add(self, value: float) -> None:
        self._values.append(max(0.0, value))

    def last(self, count: int) -> list[float]:
        """Return the newest `count` values, oldest first."""
        return list(self._values)[-count:]


def worst_first(mirrors: list[Mirror]) -> list[Mirror]:
    """Return mirrors with failed and incomplete ones first, then those whose success is oldest."""
    order = {RunState.FAILED: 0, RunState.INCOMPLETE: 1, RunState.STOPPED: 2}
    return sorted(mirrors, key=lambda each: (order.get(each.state, 3), -(each.last_success_age_s or 0.0), each.id))
