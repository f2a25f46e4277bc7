"""The only place that reads cron: checks expressions, says when they come, and queues the mirrors that are due."""

import logging
import re
from collections.abc import Awaitable, Callable
from itertools import pairwise

from croniter import croniter
from croniter.croniter import CroniterError

from firth_protocol.errors import FirthError, Invalid
from firth_protocol.types import NAMED_SCHEDULES, ScheduleNext
from firthd.clock import Clock, rfc3339, utc
from firthd.store import catalog
from firthd.store.catalog import MirrorRow
from firthd.store.database import Database, Tx

log = logging.getLogger(__name__)

TICK_S = 5.0
COUNTED = 100
"""Due times that are counted at the most; what they are counted for is a sentence."""
DAY_MS = 86_400_000
AHEAD_MS = DAY_MS
"""What is noted for a moment further ahead was noted before the clock was put back, and holds nothing up."""
_FIELDS = ("minute", "hour", "day of month", "month", "day of week")
_WEEKDAY = 4
_LIMITS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_DAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
_ITEM = re.compile(r"(\*|[0-9]{1,2}|[a-z]{3})(?:-([0-9]{1,2}|[a-z]{3}))?(?:/([0-9]{1,3}))?\Z")

Start = Callable[[MirrorRow, str], Awaitable[object]]
"""Queues a run of a mirror; the text is its cause."""


class CronSchedules:
    """What the house asks about schedules."""

    def check(self, text: str) -> tuple[str, list[str]]:
        """Return an expression as five cron fields in UTC, and warnings.

        Raises Invalid for what is no such expression: another number of fields, nonsense in one (reversed ranges,
        steps of 0, `R`, `L`, `#`), or dates that never come.
        """
        fields = NAMED_SCHEDULES.get(text.strip().lower(), text).lower().split()
        if len(fields) != len(_FIELDS):
            raise Invalid(
                f"a schedule has 5 fields, {text!r} has {len(fields)}",
                hint="minute hour day month weekday, in UTC; or hourly, daily, weekly, monthly",
                path="$.schedule",
            )
        for place, field in enumerate(fields):
            _values(place, field)
        schedule = " ".join(fields)
        if self.next_due(schedule, 0) is None:
            raise Invalid(f"{text!r} never comes: there is no such date", path="$.schedule")
        warnings = []
        if self._often(schedule):
            warnings.append("the schedule is more often than daily; many sources ask for at most one or two runs a day")
        return schedule, warnings

    def coming(self, text: str, after_ms: int, count: int) -> ScheduleNext:
        """Return what an expression means and its next due times after a moment; raise Invalid as `check` does."""
        schedule, warnings = self.check(text)
        times = _times(schedule, after_ms)
        due: list[str] = []
        while len(due) < count:
            try:
                due.append(rfc3339(round(times.get_next(float) * 1000)))
            except CroniterError:
                break  # it comes again, but not within the years that are looked at
        return ScheduleNext(schedule=schedule, times=due, warnings=warnings)

    def next_due(self, schedule: str, after_ms: int) -> int | None:
        """Return the next due time after a moment, ms; None when there is none."""
        try:
            moment = _times(schedule, after_ms).get_next(float)
        except (CroniterError, Invalid):
            return None
        return round(moment * 1000)

    def last_due(self, schedule: str, after_ms: int, until_ms: int) -> tuple[int, int]:
        """Return how many due times lie after one moment and up to another (at most 100), and the last of them."""
        try:
            last = round(_times(schedule, until_ms - until_ms % 1000 + 1000).get_prev(float) * 1000)
            if last <= after_ms:
                return 0, after_ms
            times = _times(schedule, after_ms)
            count = 1
            while count < COUNTED and times.get_next(float) * 1000 < last:
                count += 1
        except (CroniterError, Invalid):
            return 0, after_ms
        return count, last

    def _often(self, schedule: str) -> bool:
        times = _times(schedule, 0)
        due = [times.get_next(float) for _ in range(40)]
        return any((after - before) * 1000 < DAY_MS for before, after in pairwise(due))


def _times(schedule: str, after_ms: int) -> croniter:
    """Return what steps through the due times around a moment. Raises Invalid.

    Fields go to croniter as plain numbers: it takes `7-7` for every day of the week.
    """
    plain = []
    for place, field in enumerate(schedule.split()):
        numbers = sorted(_values(place, field))
        plain.append("*" if field in {"*", "*/1"} else ",".join(map(str, numbers)))
    return croniter(" ".join(plain), utc(after_ms))


def _values(place: int, field: str) -> set[int]:
    """Return the numbers that a field names, Sunday as 0; raise Invalid for nonsense."""
    return {number for item in field.split(",") for number in _item_values(place, field, item)}


def _item_values(place: int, field: str, item: str) -> set[int]:
    low, high = _LIMITS[place]
    match = _ITEM.match(item)
    if match is None:
        raise _wrong(place, field, f"{item!r} is no number, range or step")
    start, stop, step = match.groups()
    if step is not None and not 0 < int(step) <= high:
        raise _wrong(place, field, f"a step of {step} makes no sense")
    if start == "*":
        if stop is not None:
            raise _wrong(place, field, f"{item!r} is no range")
        first, last = low, high - (place == _WEEKDAY)
    else:
        first = _number(place, field, start)
        if stop is not None:
            last = _number(place, field, stop)
        else:
            last = first if step is None else max(first, high - (place == _WEEKDAY))
    if place == _WEEKDAY and stop in {"0", "sun"} and 0 < first < 7:
        last = 7
    if not low <= first <= high or not low <= last <= high:
        raise _wrong(place, field, f"{item!r} is outside {low} to {high}")
    if last < first:
        raise _wrong(place, field, f"the range {item!r} goes backwards")
    numbers = set(range(first, last + 1, int(step or 1)))
    return {number % 7 for number in numbers} if place == _WEEKDAY else numbers


def _number(place: int, field: str, text: str) -> int:
    if text.isdigit():
        return int(text)
    names = {3: _MONTHS, _WEEKDAY: _DAYS}.get(place, [])
    if text not in names:
        raise _wrong(place, field, f"{text!r} is no {_FIELDS[place]}")
    return names.index(text) + (1 if place == 3 else 0)


def _wrong(place: int, field: str, why: str) -> Invalid:
    return Invalid(f"the {_FIELDS[place]} {field!r} of the schedule: {why}", path="$.schedule")


class Scheduler:
    """Looks for mirrors that are due, at start and every few seconds."""

    def __init__(self, db: Database, clock: Clock, schedules: CronSchedules, start: Start) -> None:
        self._db = db
        self._clock = clock
        self._schedules = schedules
        self._start = start
        self._next: dict[tuple[int, str, int], int] = {}
        self._looked_ms = 0

    async def serve(self) -> None:
        """Queue what is due until cancelled; what was missed while the daemon was down comes once, at once."""
        while True:
            try:
                await self.look()
            except FirthError as error:
                log.warning("the schedule could not be looked at: %s", error.message)
            await self._clock.sleep(TICK_S)

    async def look(self) -> None:
        """Queue a run for each enabled mirror with a due time since the last look, once however many there were."""
        now = self._clock.now_ms()
        mirrors = await self._db.read(catalog.all_mirrors)
        known = {_key(mirror) for mirror in mirrors}
        self._next = {key: due for key, due in self._next.items() if key in known and now >= self._looked_ms}
        self._looked_ms = now
        for mirror in mirrors:
            if self._next.get(_key(mirror), 0) > now:
                continue  # cron costs 0.1 ms each time: known until the mirror or the time moves on
            ahead = mirror.scheduled_from > now + AHEAD_MS
            count, last = self._schedules.last_due(mirror.schedule, mirror.scheduled_from, now)
            if not count and not ahead:
                due = self._schedules.next_due(mirror.schedule, now)
                if due is not None:
                    self._next[_key(mirror)] = due
                continue
            changes = {"scheduled_from": now if ahead else last}
            if mirror.enabled and not ahead:
                try:
                    changes |= await self._due(mirror, count, last, now)
                except FirthError as error:  # one mirror's trouble is not that of those after it
                    log.warning("mirror %s:%s could not be started: %s", mirror.channel, mirror.name, error.message)
                    continue

            async def seen(tx: Tx, mirror: MirrorRow = mirror, changes: dict[str, int] = changes) -> None:
                fresh = await catalog.mirror_by_id(tx, mirror.id)
                if fresh is not None and fresh.scheduled_from == mirror.scheduled_from:  # nobody has answered it since
                    await catalog.note_mirror(tx, mirror.id, changes)

            await self._db.write(seen)

    async def _due(self, mirror: MirrorRow, count: int, last: int, now: int) -> dict[str, int]:
        """Queue the run that is due, if one is; return what is to be noted of it together with the answer."""
        if mirror.last_success_at is not None and last <= mirror.last_success_at <= now + AHEAD_MS:
            return {}  # a later run has completed already
        if not mirror.state.ended and mirror.last_run_id is not None:
            return {"coalesced": mirror.coalesced + count}
        late = now - last > 60_000
        await self._start(mirror, "schedule, missed while the daemon was down" if late else "schedule")
        return {}


def _key(mirror: MirrorRow) -> tuple[int, str, int]:
    return mirror.id, mirror.schedule, mirror.scheduled_from
