"""Schedules: which expressions are taken and when they are due; what is missed, what is coalesced, who is left out."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from firth_protocol.errors import Invalid, NoSpace
from firth_protocol.types import RunState
from firthd.clock import from_rfc3339, rfc3339
from firthd.scheduler import COUNTED, TICK_S, CronSchedules, Scheduler
from firthd.store import catalog
from firthd.store.catalog import MirrorRow
from firthd.store.database import Database, Tx
from tests.support.clock import START_MS, FakeClock
from tests.support.daemon import HastyClock, Running, in_process_daemon
from tests.support.state import add_channel, add_mirror, opened
from tests.support.upstream import Fault
from tests.support.world import world

CRON = CronSchedules()
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS

# --- expressions -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "schedule", "often"),
    [
        ("0 0 1 * *", "0 0 1 * *", False),
        ("monthly", "0 0 1 * *", False),
        (" Weekly ", "0 0 * * 0", False),
        ("DAILY", "0 0 * * *", False),
        ("hourly", "0 * * * *", True),
        ("  5   4\t* * * ", "5 4 * * *", False),
        ("*/15 * * * *", "*/15 * * * *", True),
        ("0 6,18 * * *", "0 6,18 * * *", True),
        ("0 0,1 29 2 *", "0 0,1 29 2 *", True),
        ("0 3 * JAN-Mar Mon,wed", "0 3 * jan-mar mon,wed", False),
        ("0 0 * * fri-sun", "0 0 * * fri-sun", False),
        ("0 0 * * 5-7", "0 0 * * 5-7", False),
        ("0 0 * * 7", "0 0 * * 7", False),
        ("0 0 29 2 *", "0 0 29 2 *", False),
        ("0 0 31 * *", "0 0 31 * *", False),
        ("0 0 31 2 1", "0 0 31 2 1", False),  # Mondays in February
        ("59 23 31 12 *", "59 23 31 12 *", False),
        ("00 00 01 01 *", "00 00 01 01 *", False),
        ("10-50/20 0 * * *", "10-50/20 0 * * *", True),
    ],
)
def test_what_is_taken(text: str, schedule: str, often: bool) -> None:
    taken, warnings = CRON.check(text)
    assert taken == schedule
    assert [("more often than daily" in warning) for warning in warnings] == ([True] if often else [])
    assert CRON.next_due(taken, START_MS) is not None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "has 0"),
        ("yearly", "5 fields"),
        ("@daily", "5 fields"),
        ("0 0 1 *", "has 4"),
        ("0 0 0 1 * *", "has 6"),
        ("0 0 1 * * 2027", "has 6"),
        ("0 0 0 1 * * 2027", "has 7"),
        ("R 0 1 * *", "minute 'r'"),
        ("R(0-30) 0 1 * *", "minute"),
        ("H 0 1 * *", "minute 'h'"),
        ("H(0-30)/5 0 1 * *", "minute"),
        ("0 0 L * *", "day of month 'l'"),
        ("0 0 15W * *", "day of month '15w'"),
        ("0 0 LW * *", "day of month"),
        ("0 0 * * 5#2", "day of week '5#2'"),
        ("0 0 * * L5", "day of week"),
        ("0 0 ? * *", "day of month '?'"),
        ("0 0 1 * ?", "day of week"),
        ("30-10 * * * *", "goes backwards"),
        ("0 22-4 * * *", "goes backwards"),
        ("0 0 * dec-feb *", "goes backwards"),
        ("0 0 * * wed-mon", "goes backwards"),
        ("0 0 * * 7-0", "goes backwards"),
        ("*/0 * * * *", "step of 0"),
        ("0-30/0 * * * *", "step of 0"),
        ("0 0 1/0 * *", "step of 0"),
        ("*/60 * * * *", "step of 60"),
        ("0 */24 * * *", "step of 24"),
        ("0 0 * * */8", "step of 8"),
        ("60 * * * *", "outside 0 to 59"),
        ("0 24 * * *", "outside 0 to 23"),
        ("0 0 0 * *", "outside 1 to 31"),
        ("0 0 32 * *", "outside 1 to 31"),
        ("0 0 1 0 *", "outside 1 to 12"),
        ("0 0 1 13 *", "outside 1 to 12"),
        ("0 0 * * 8", "outside 0 to 7"),
        ("0 0 1-99 * *", "outside 1 to 31"),
        ("0 0 31 2 *", "no such date"),
        ("0 0 30,31 feb *", "no such date"),
        ("0 0 31 4,6,9,11 *", "no such date"),
        ("-5 * * * *", "minute"),
        ("1.5 * * * *", "minute"),
        ("1, * * * *", "minute"),
        (",1 * * * *", "minute"),
        ("1--5 * * * *", "minute"),
        ("*-5 * * * *", "no range"),
        ("* * * mon *", "no month"),
        ("* * * * jan", "no day of week"),
        ("jan * * * *", "no minute"),
        ("0 0 * * monday", "day of week"),
        ("٣ * * * *", "minute"),
        ("100 * * * *", "minute"),
        ("0 0 1 * *; rm -rf /", "has 8"),
        ("0 0 1 * *\n0 0 2 * *", "has 10"),
    ],
)
def test_what_is_refused_and_why(text: str, says: str) -> None:
    with pytest.raises(Invalid) as caught:
        CRON.check(text)
    assert says in caught.value.message
    assert caught.value.data["path"] == "$.schedule"


_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
MONTHS = {word: number for number, word in enumerate(_MONTHS, 1)}
DAYS = {word: number for number, word in enumerate(["sun", "mon", "tue", "wed", "thu", "fri", "sat"])}


@st.composite
def field(draw: st.DrawFn, low: int, high: int, names: dict[str, int]) -> tuple[str, set[int]]:
    """Draw a cron field with the values that it stands for; day 7 is day 0."""
    text, values = [], set()
    words = {number: word for word, number in names.items()}

    def shown(number: int) -> str:
        return draw(st.sampled_from([str(number), f"{number:02}", words.get(number, str(number))]))

    for _ in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(["one", "range", "range step", "star step"]))
        first = draw(st.integers(low, high))
        last = draw(st.integers(first, high))
        step = draw(st.integers(1, min(high, 40)))
        if kind == "one":
            text.append(shown(first))
            values.add(first)
        elif kind == "star step":
            text.append(f"*/{step}")
            values.update(range(low, (6 if names is DAYS else high) + 1, step))
        else:
            text.append(f"{shown(first)}-{shown(last)}" + (f"/{step}" if kind == "range step" else ""))
            values.update(range(first, last + 1, step if kind == "range step" else 1))
    return ",".join(text), {0 if names is DAYS and value == 7 else value for value in values}


@st.composite
def expressions(draw: st.DrawFn) -> tuple[str, list[set[int] | None]]:
    """Draw an expression with the values of each field, None for any. Of the two days one at the most is limited."""
    limits: tuple[tuple[int, int, dict[str, int]], ...] = (
        (0, 59, {}),
        (0, 23, {}),
        (1, 31, {}),
        (1, 12, MONTHS),
        (0, 7, DAYS),
    )
    free = draw(st.sampled_from([2, 4]))
    parts: list[tuple[str, set[int] | None]] = []
    for place, (low, high, names) in enumerate(limits):
        anything = place == free or draw(st.booleans())
        parts.append(("*", None) if anything else draw(field(low, high, names)))
    return " ".join(text for text, _ in parts), [values for _, values in parts]


def reference(fields: list[set[int] | None], after: datetime) -> datetime | None:
    """Return the next moment that the fields name, found by looking at every day of nine years."""
    minutes, hours, days, months, weekdays = fields
    for offset in range(9 * 366):
        day = after.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=offset)
        if months is not None and day.month not in months:
            continue
        if days is not None and day.day not in days:
            continue
        if weekdays is not None and day.isoweekday() % 7 not in weekdays:
            continue
        for hour in range(24) if hours is None else sorted(hours):
            for minute in range(60) if minutes is None else sorted(minutes):
                moment = day.replace(hour=hour, minute=minute)
                if moment > after:
                    return moment
    return None


@settings(max_examples=250, deadline=None)
@example(drawn=("0 0 * * 5-7/2", [{0}, {0}, None, None, {5, 0}]), after_s=1_777_593_600)
@example(drawn=("0 0 * * 3/2", [{0}, {0}, None, None, {3, 5}]), after_s=1_777_593_600)
@example(drawn=("0 0 * * 7/2", [{0}, {0}, None, None, {0}]), after_s=1_777_593_600)
@example(drawn=("0 0 * * fri-sun", [{0}, {0}, None, None, {5, 6, 0}]), after_s=1_777_593_600)
@example(drawn=("0 0 * * 7-7", [{0}, {0}, None, None, {0}]), after_s=1_777_593_600)
@given(drawn=expressions(), after_s=st.integers(1_500_000_000, 1_900_000_000))
def test_what_is_taken_comes_when_it_says(drawn: tuple[str, list[set[int] | None]], after_s: int) -> None:
    text, fields = drawn
    after = datetime.fromtimestamp(after_s, UTC)
    expected = reference(fields, after)
    try:
        schedule, _ = CRON.check(text)
    except Invalid as error:
        assert (expected, error.message) == (None, f"{text!r} never comes: there is no such date")  # noqa: PT017
        return
    assert expected is not None
    due = CRON.next_due(schedule, after_s * 1000)
    assert due is not None
    assert rfc3339(due) == rfc3339(round(expected.timestamp() * 1000))
    assert CRON.last_due(schedule, after_s * 1000, due - 1) == (0, after_s * 1000)
    assert CRON.last_due(schedule, after_s * 1000, due) == (1, due)
    assert CRON.last_due(schedule, due, due + 59_999) == (0, due)


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(max_size=20), st.text("0123456789*/,- LWRH#?jansuft", max_size=24)))
def test_any_text_is_refused_in_a_sentence_or_comes(text: str) -> None:
    try:
        schedule, _ = CRON.check(text)
    except Invalid as error:
        assert error.message  # noqa: PT017
    else:
        due = CRON.next_due(schedule, START_MS)
        assert due is not None
        assert due > START_MS


@settings(max_examples=60, deadline=None)
@given(drawn=expressions(), days=st.integers(0, 40))
def test_due_times_are_counted_as_stepping_through_them_counts(
    drawn: tuple[str, list[set[int] | None]], days: int
) -> None:
    try:
        schedule, _ = CRON.check(drawn[0])
    except Invalid:
        assume(False)
    until = START_MS + days * DAY_MS + 1
    count, last = 0, START_MS
    while count <= COUNTED and (due := CRON.next_due(schedule, last)) is not None and due <= until:
        count, last = count + 1, due
    found = CRON.last_due(schedule, START_MS, until)
    assert found[0] == min(count, COUNTED)
    if count <= COUNTED:
        assert found[1] == last
    else:  # however many there were, the last one is the last
        following = CRON.next_due(schedule, found[1])
        assert found[1] <= until
        assert following is None or following > until


def test_what_a_schedule_means_is_told_with_its_next_times() -> None:
    after = from_rfc3339("2026-11-22T14:02:11Z")
    found = CRON.coming("Monthly", after, 2)
    assert (found.schedule, found.warnings) == ("0 0 1 * *", [])
    assert found.times == ["2026-12-01T00:00:00.000Z", "2027-01-01T00:00:00.000Z"]
    assert CRON.coming("30 2 * * mon-fri", after, 3).times[-1] == "2026-11-25T02:30:00.000Z"
    assert "more often than daily" in CRON.coming("hourly", after, 1).warnings[0]
    with pytest.raises(Invalid, match="never comes"):
        CRON.coming("0 0 31 2 *", after, 1)


def test_a_month_without_the_day_is_left_out() -> None:
    moments = [from_rfc3339("2026-01-31T00:00:00.000Z")]
    for _ in range(3):
        due = CRON.next_due("0 0 31 * *", moments[-1])
        assert due is not None
        moments.append(due)
    assert [rfc3339(moment)[:10] for moment in moments] == ["2026-01-31", "2026-03-31", "2026-05-31", "2026-07-31"]


# --- what is due ------------------------------------------------------------------------------------------------


class Planned:
    """A scheduler over a state, with a clock of ours; `started` says what it began."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self.clock = FakeClock()
        self.started: list[tuple[str, str]] = []
        self.refused: set[str] = set()
        self.scheduler = Scheduler(db, self.clock, CRON, self._start)

    async def _start(self, mirror: MirrorRow, cause: str) -> None:
        if mirror.name in self.refused:
            raise NoSpace("the state cannot be written: its disk is full")
        self.started.append((mirror.name, cause))

    async def mirror(self, name: str, schedule: str, **fields: object) -> int:
        async def body(tx: Tx) -> int:
            channel = await catalog.channel_by_name(tx, "main")
            channel_id = channel.id if channel else await add_channel(tx)
            return await add_mirror(tx, channel_id, name, schedule=schedule, **fields)

        return await self.db.write(body)

    async def note(self, mirror: int, **changes: object) -> None:
        await self.db.write(lambda tx: catalog.note_mirror(tx, mirror, changes))

    async def row(self, mirror: int) -> MirrorRow:
        row = await self.db.read(lambda r: catalog.mirror_by_id(r, mirror))
        assert row is not None
        return row

    async def after(self, seconds: float) -> list[tuple[str, str]]:
        """Let time pass, look, and return what was started."""
        self.started.clear()
        await self.clock.advance(seconds)
        await self.scheduler.look()
        return list(self.started)


@pytest.fixture
async def planned(tmp_path: Path) -> AsyncIterator[Planned]:
    async with opened(tmp_path) as db:
        yield Planned(db)


async def test_a_mirror_starts_when_it_is_due_and_once(planned: Planned) -> None:
    await planned.mirror("m", "30 0 * * *")
    assert await planned.after(0) == []  # a new mirror does not run for the times before it
    assert await planned.after(1799) == []
    assert await planned.after(1) == [("m", "schedule")]
    assert await planned.after(0) == []
    assert await planned.after(3600) == []
    assert await planned.after(86_400 - 3600) == [("m", "schedule")]


async def test_what_was_missed_runs_once_however_much_it_was(planned: Planned) -> None:
    mirror = await planned.mirror("m", "* * * * *")
    assert await planned.after(90 * 86_400 + 30) == [("m", "schedule")]  # the last due time is half a minute ago
    assert (await planned.row(mirror)).scheduled_from == START_MS + 90 * DAY_MS
    assert await planned.after(TICK_S) == []
    hourly = await planned.mirror("h", "0 * * * *")
    await planned.note(hourly, scheduled_from=START_MS)
    assert await planned.after(1800 - 35) == [("m", "schedule"), ("h", "schedule, missed while the daemon was down")]
    assert await planned.after(0) == []


async def test_a_missed_time_is_let_go_when_a_later_run_has_completed(planned: Planned) -> None:
    mirror = await planned.mirror("m", "0 0 * * *")
    await planned.note(mirror, state=RunState.COMPLETED, last_run_id=1, last_success_at=START_MS + DAY_MS + 5)
    assert await planned.after(86_400 + 7200) == []
    await planned.note(mirror, last_success_at=START_MS + DAY_MS - 5)
    await planned.note(mirror, scheduled_from=START_MS)
    assert await planned.after(0) == [("m", "schedule, missed while the daemon was down")]


@pytest.mark.parametrize("state", [RunState.PENDING, RunState.RUNNING, RunState.STOPPING])
async def test_times_that_fall_into_a_run_are_counted(planned: Planned, state: RunState) -> None:
    mirror = await planned.mirror("m", "0 * * * *")
    await planned.note(mirror, state=state, last_run_id=1)
    assert await planned.after(3 * 3600) == []
    assert await planned.after(3600) == []
    assert (await planned.row(mirror)).coalesced == 4
    await planned.note(mirror, state=RunState.FAILED)
    assert await planned.after(60) == []  # they are answered: nothing is made up for
    assert await planned.after(3600) == [("m", "schedule")]


async def test_a_disabled_mirror_never_starts_by_schedule_nor_makes_up_for_it(planned: Planned) -> None:
    mirror = await planned.mirror("m", "0 * * * *", enabled=False)
    await planned.mirror("other", "0 * * * *")
    assert await planned.after(3600) == [("other", "schedule")]
    await planned.db.write(lambda tx: catalog.update_mirror(tx, mirror, {"enabled": True}, START_MS))
    assert await planned.after(60) == []
    assert await planned.after(3540) == [("m", "schedule"), ("other", "schedule")]


async def test_a_deleted_mirror_never_starts(planned: Planned) -> None:
    mirror = await planned.mirror("m", "0 * * * *")
    await planned.db.write(lambda tx: catalog.mark_mirror_deleted(tx, mirror, START_MS))
    assert await planned.after(7200) == []


async def test_one_mirrors_trouble_is_not_that_of_the_others_and_is_tried_again(planned: Planned) -> None:
    await planned.mirror("a", "0 * * * *")
    await planned.mirror("b", "0 * * * *")
    planned.refused = {"a"}
    assert await planned.after(3600) == [("b", "schedule")]
    planned.refused = set()
    assert await planned.after(TICK_S) == [("a", "schedule")]
    assert await planned.after(TICK_S) == []


async def test_a_clock_that_goes_back_starts_nothing_twice(planned: Planned) -> None:
    await planned.mirror("m", "0 * * * *")
    assert await planned.after(3600) == [("m", "schedule")]
    planned.clock._start_ms -= 2 * HOUR_MS
    assert await planned.after(0) == []
    assert await planned.after(2 * 3600) == []
    assert await planned.after(3600) == [("m", "schedule")]


async def test_a_clock_that_was_years_ahead_holds_up_no_schedule(planned: Planned) -> None:
    mirror = await planned.mirror("m", "30 0 * * *")
    assert await planned.after(1800) == [("m", "schedule")]
    ahead = START_MS + 365 * DAY_MS
    await planned.after(365 * 86_400)
    await planned.note(mirror, last_success_at=ahead)
    assert (await planned.row(mirror)).scheduled_from >= ahead
    planned.clock._start_ms -= 364 * DAY_MS
    assert await planned.after(TICK_S) == []
    assert await planned.after(86_400) == [("m", "schedule")]
    assert await planned.after(86_400) == [("m", "schedule")]


async def test_looking_goes_on_every_few_seconds(planned: Planned) -> None:
    await planned.mirror("m", "1 0 * * *")
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        serving = group.create_task(planned.scheduler.serve())
        while not planned.started:
            await planned.clock.asleep()
            await planned.clock.advance(TICK_S)
        serving.cancel()
    assert set(planned.clock.slept) == {TICK_S}
    assert planned.started == [("m", "schedule")]


# --- with a daemon ------------------------------------------------------------------------------------------------


def clock_of(daemon: Running) -> HastyClock:
    clock = daemon.daemon._clock
    assert isinstance(clock, HastyClock)
    return clock


async def test_a_schedule_that_falls_into_a_run_is_told_in_the_next_one(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.mirror("active", schedule="0 0 * * *")
        gate = asyncio.Event()
        w.upstream.fail("noarch/beta*", Fault(until=gate))
        first = (await w.call("mirror.run", mirror="main:m")).run
        await w.upstream.arrived("noarch/beta*")
        clock_of(w.daemon).shift_ms = 2 * DAY_MS
        await w.daemon.daemon.scheduler.look()
        assert [run.id for run in (await w.call("run.list", mirror="main:m")).items] == [first.id]
        gate.set()
        await w.daemon.ended(first.id)
        second = await w.run()
        assert second.id != first.id
        assert [note for note in second.notes if "the schedule fired 2 times while a run worked" in note]
        third = await w.run()
        assert not [note for note in third.notes if "fired" in note]


async def test_a_missed_schedule_runs_once_at_start(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.mirror("passive", schedule="0 0 * * *")
        await w.mirror("passive", name="off", schedule="0 0 * * *", enabled=False)
        settings_then = w.daemon.daemon.settings
    clock = HastyClock()
    clock.shift_ms = 10 * DAY_MS
    async with in_process_daemon(tmp_path, settings=settings_then, clock=clock) as daemon:
        runs = (await daemon.client.call("run.list")).items
        async with asyncio.timeout(5):
            while not runs:
                runs = (await daemon.client.call("run.list")).items
                await asyncio.sleep(0)
        assert len(runs) == 1
        assert runs[0].cause == "schedule, missed while the daemon was down"
        assert runs[0].by == "schedule"
        run = await daemon.ended(runs[0].id)
        assert run.mirror_name == "m"
        for _ in range(3):
            await daemon.daemon.scheduler.look()
        assert len((await daemon.client.call("run.list")).items) == 1
