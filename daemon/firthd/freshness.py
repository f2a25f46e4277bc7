"""The only place that knows how fresh mirrors are: which should have succeeded by now, and the numbers of each."""

import asyncio
from collections.abc import Mapping, Sequence

from msgspec import Struct

from firth_protocol.types import RunState
from firthd.clock import Clock, rfc3339
from firthd.scheduler import AHEAD_MS, CronSchedules
from firthd.store import catalog, runs
from firthd.store.catalog import MirrorRow
from firthd.store.database import Database, Reader
from firthd.vitals import Sample

HOUR_MS = 3_600_000
GRACE_MOST_MS = 24 * HOUR_MS
SUBJECT = "schedule of "
"""How the subject in health of a mirror that is overdue begins."""


class Overdue(Struct, frozen=True, kw_only=True):
    """A mirror that should have succeeded; `due` in ms."""

    mirror: MirrorRow
    due: int

    @property
    def subject(self) -> str:
        return f"{SUBJECT}{self.mirror.channel}:{self.mirror.name}"

    @property
    def text(self) -> str:
        """Say what is wrong; the sentence stays the same for as long as it is."""
        last = self.mirror.last_success_at
        since = "no run has ever succeeded" if last is None else f"the last run that succeeded ended {rfc3339(last)}"
        return f"{since}, and one was due at {rfc3339(self.due)} ({self.mirror.schedule})"


class Freshness:
    """Looks at mirrors as a whole; no look reads more than a few rows of each."""

    def __init__(self, db: Database, clock: Clock, schedules: CronSchedules) -> None:
        self._db = db
        self._clock = clock
        self._schedules = schedules
        self._started_at = clock.now_ms()
        self._due: dict[int, tuple[str, int, int, int]] = {}  # by mirror: schedule, base, due, grace

    async def overdue(self) -> list[Overdue]:
        """Return the mirrors whose schedule says that they should have succeeded by now."""
        mirrors, partly = await self._db.read(_mirrors)
        now = self._clock.now_ms()
        found = []
        for mirror in mirrors:
            if not mirror.enabled:
                continue
            # An edit begins anew: the schedule may be another one, or the mirror may have rested for a year.
            moments = (mirror.last_success_at or 0, mirror.updated_at, partly.get(mirror.id, 0))
            # What lies ahead was noted before the clock was put back: who knows when it was.
            base = max((moment for moment in moments if moment <= now + AHEAD_MS), default=mirror.created_at)
            due, grace_ms = await self._expected(mirror, base)
            # After a start everything that was missed runs first, by and by.
            if due and now > max(due + grace_ms, self._started_at + HOUR_MS):
                found.append(Overdue(mirror=mirror, due=due))
        there = {mirror.id for mirror in mirrors}
        self._due = {mirror_id: known for mirror_id, known in self._due.items() if mirror_id in there}
        return found

    async def _expected(self, mirror: MirrorRow, base: int) -> tuple[int, int]:
        """Return the first due time after a moment, 0: there is none, and how long a run may take; cron is slow."""
        known = self._due.get(mirror.id)
        if known is None or known[:2] != (mirror.schedule, base):
            due = self._schedules.next_due(mirror.schedule, base) or 0
            following = self._schedules.next_due(mirror.schedule, due) or due
            grace_ms = min(GRACE_MOST_MS, max(HOUR_MS, (following - due) // 2))
            known = self._due[mirror.id] = (mirror.schedule, base, due, grace_ms)
            await asyncio.sleep(0)
        return known[2], known[3]

    async def numbers(self) -> Mapping[str, list[Sample]]:
        """Return channel → the numbers of its mirrors, for Prometheus."""
        overdue = {one.mirror.id for one in await self.overdue()}
        mirrors = await self._db.read(catalog.all_mirrors)
        now = self._clock.now_ms()
        found: dict[str, list[Sample]] = {}
        for mirror in mirrors:
            found.setdefault(mirror.channel, []).extend(samples(mirror, now, overdue=mirror.id in overdue))
        return found


def samples(mirror: MirrorRow, now_ms: int, *, overdue: bool) -> Sequence[Sample]:
    """Return the numbers of one mirror; what nobody knows is left out."""
    labels = {"channel": mirror.channel, "mirror": mirror.name}
    numbers: list[tuple[str, str, float]] = [
        ("firth_mirror_enabled", "1: the mirror runs by its schedule", mirror.enabled),
        ("firth_mirror_overdue", "1: the schedule says that a run should have succeeded by now", overdue),
        ("firth_mirror_artifacts", "Artifacts that the mirror lists", mirror.artifacts),
        (
            "firth_mirror_missing",
            "Artifacts whose file is not stored; those of a passive mirror come when they are asked for",
            max(0, mirror.artifacts - mirror.stored),
        ),
        ("firth_mirror_bytes", "Bytes of the artifacts that the mirror lists", mirror.bytes),
        ("firth_mirror_stored_bytes", "Bytes of its files in the store", mirror.bytes_stored),
    ]
    if mirror.last_success_at is not None:
        age_s = max(0, now_ms - mirror.last_success_at) / 1000
        numbers.append(("firth_mirror_success_age_seconds", "Time since a run succeeded", age_s))
    if mirror.source_seen is not None:
        ahead = mirror.source_time is None or mirror.source_seen > mirror.source_time
        lag_s = max(0, now_ms - mirror.source_seen) / 1000 if ahead else 0.0
        text = "Time since the source wrote an index that was seen and is not taken in; 0: all that was seen is"
        numbers.append(("firth_mirror_lag_seconds", text, lag_s))
        if mirror.source_time is not None:
            text = "When the source wrote the newest index that is taken in, by its own clock"
            numbers.append(("firth_mirror_source_time_seconds", text, mirror.source_time / 1000))
    state = Sample(
        name="firth_mirror_state",
        text="1 for the state that the mirror is in",
        labels=labels | {"mode": mirror.mode.value, "state": mirror.state.value},
        value=1.0,
    )
    return [state, *(Sample(name=name, text=text, labels=labels, value=float(value)) for name, text, value in numbers)]


async def _mirrors(r: Reader) -> tuple[list[MirrorRow], dict[int, int]]:
    """Return all mirrors, and when those that had to do without some artifacts have published the rest."""
    mirrors = await catalog.all_mirrors(r)
    partly = {}
    for mirror in mirrors:
        if mirror.state is RunState.INCOMPLETE and mirror.last_run_id is not None:
            last = await runs.run_by_id(r, mirror.last_run_id)
            if last is not None and last.finished_at is not None:
                partly[mirror.id] = last.finished_at
    return mirrors, partly
