"""The queue of runs: who works when, how runs are stopped, what they write down."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from firth_protocol.errors import NoSpace, NotFound, Upstream, WrongState
from firth_protocol.types import RunKind, RunState, StepName, StepState
from firthd.runs.halt import halt
from firthd.runs.run import Outcome
from firthd.runs.steps import brief
from firthd.store import runs as rows
from firthd.store.database import Database, Tx
from firthd.store.runs import RunRow
from tests.support.works import Works, runs_state

MIRROR, PUBLISH, ROLLBACK, PLAN = RunKind.MIRROR, RunKind.PUBLISH, RunKind.ROLLBACK, RunKind.PLAN


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[Database]:
    async with runs_state(tmp_path) as database:
        yield database


# --- who works when ----------------------------------------------------------------------------------------------


async def test_a_run_goes_through_its_states(db: Database) -> None:
    works = Works(db)
    run = await works.submit()
    mirror = await works.mirror()
    assert (await works.state(run), mirror.state, mirror.last_run_id) == (RunState.PENDING, RunState.PENDING, run)
    async with works.working():
        await works.until(lambda: works.started == [run])
        assert await works.state(run) is RunState.RUNNING
        assert (await works.mirror()).state is RunState.RUNNING
        await works.clock.advance(5)
        works.end(run, Outcome(result={"adds": 3}, generation=2))
        assert await works.ended(run) is RunState.COMPLETED
    row, mirror = await works.row(run), await works.mirror()
    assert (row.result, row.generation, row.finished_at) == ({"adds": 3}, 2, works.clock.now_ms())
    assert (mirror.state, mirror.last_success_at) == (RunState.COMPLETED, works.clock.now_ms())
    assert works.told(run) == ["run.queued", "run.started", "run.finished"]
    assert works.at_end == [(run, RunState.COMPLETED)]
    assert {step.state for step in row.steps} == {StepState.SKIPPED}
    assert works.queue.active() == []


async def waits_for(works: Works, run: int) -> str:
    async with asyncio.timeout(5):
        while (reason := (await works.queue.get(run)).waiting_for) is None:
            await asyncio.sleep(0)
    return reason


async def test_no_more_than_max_active_work_and_the_rest_say_why(db: Database) -> None:
    works = Works(db, max_active=2)
    first, second, third = [await works.submit(MIRROR, mirror) for mirror in (1, 2, 3)]
    fourth = await works.submit(MIRROR, 1)
    async with works.working():
        await works.until(lambda: works.started == [first, second])
        assert await waits_for(works, third) == f"a free place: 2 runs work at once (now {first}, {second})"
        assert await waits_for(works, fourth) == f"run {first} of the same mirror"
        assert await works.state(third) is RunState.PENDING
        assert [(one.run.id, one.since) for one in works.queue.waiting()] == [(third, works.clock.now_ms())]
        assert brief(await works.row(third)).description.startswith("waits for a free place: 2 runs")
        works.end(second)
        await works.until(lambda: works.started == [first, second, third])
        assert (await works.queue.get(third)).waiting_for is None
        for run in (first, third, fourth):
            works.end(run)
        assert await works.ended(fourth) is RunState.COMPLETED
        await works.until(lambda: works.queue.waiting() == [])
    assert works.started == [first, second, third, fourth]


@pytest.mark.parametrize("kind", [PUBLISH, ROLLBACK, PLAN])
async def test_what_loads_no_source_for_long_needs_no_place(db: Database, kind: RunKind) -> None:
    works = Works(db, max_active=1)
    mirror = await works.submit(MIRROR, 1)
    async with works.working():
        await works.until(lambda: works.started == [mirror])
        others = [await works.submit(kind, None) for _ in range(3)]
        for other in others:
            works.end(other)
            assert await works.ended(other) is RunState.COMPLETED
        waiting = await works.submit(MIRROR, 2)
        assert str(mirror) in await waits_for(works, waiting)
        works.end(mirror)
        await works.until(lambda: waiting in works.started)
        works.end(waiting)
        await works.ended(waiting)


async def test_a_run_whose_source_crawls_lends_its_place_and_goes_on(db: Database) -> None:
    works = Works(db, max_active=2)
    slow, slower = await works.submit(MIRROR, 1), await works.submit(MIRROR, 2)
    async with works.working(), contextlib.AsyncExitStack() as steps:
        await works.until(lambda: works.started == [slow, slower])
        for run, step in ((slow, StepName.FETCH_INDEX), (slower, StepName.DOWNLOAD)):
            await steps.enter_async_context(works.live[run].step(step))
        healthy = await works.submit(MIRROR, 3)
        assert str(slow) in await waits_for(works, healthy)
        for _ in range(2):
            await works.clock.asleep()
            works.live[slow].received(1_000)
            works.live[slower].moved(5_000_000)  # this one is not slow
            await works.clock.advance(10)
        await works.clock.asleep()
        assert works.started == [slow, slower]
        await works.clock.advance(10)
        await works.until(lambda: works.started == [slow, slower, healthy])
        again = await works.submit(MIRROR, 1)
        assert await waits_for(works, again) == f"run {slow} of the same mirror"
        for run in (healthy, slow, slower, again):
            works.end(run)
            assert await works.ended(run) is RunState.COMPLETED
    lines = await db.read(lambda r: rows.log_page(r, slow, 0, 10))
    assert any(f"run {healthy} works beside it" in line.text for line in lines)


async def test_a_run_that_reads_or_publishes_does_not_crawl(db: Database) -> None:
    works = Works(db, max_active=1)
    busy = await works.submit(MIRROR, 1)
    async with works.working():
        await works.until(lambda: works.started == [busy])
        live = works.live[busy]
        async with live.step(StepName.FETCH_INDEX):
            await works.clock.advance(31)
            assert live.crawls()
            live.received(5_000_000)
            assert not live.crawls()
            await works.clock.advance(31)
            assert live.crawls()
        async with live.step(StepName.FILTER):
            assert not live.crawls()
            await works.clock.advance(100)
            assert not live.crawls()
        async with live.step(StepName.DOWNLOAD):
            await works.clock.advance(29)
            assert not live.crawls()
        works.end(busy)
        await works.ended(busy)


async def test_one_mirror_has_one_mirror_run_and_holds_nobody_else_up(db: Database) -> None:
    works = Works(db, max_active=3)
    first, again, other = await works.submit(mirror=1), await works.submit(mirror=1), await works.submit(mirror=2)
    plan = await works.submit(PLAN, mirror=1)
    async with works.working():
        await works.until(lambda: works.started == [first, other, plan])
        async with asyncio.timeout(5):
            while (reason := (await works.queue.get(again)).waiting_for) is None:
                await asyncio.sleep(0)
        assert reason == f"run {first} of the same mirror"
        assert sorted(live.id for live in works.queue.active()) == [first, other, plan]
        works.end(first)
        await works.until(lambda: again in works.started)
        for run in (again, other, plan):
            works.end(run)
            await works.ended(run)


async def test_an_older_run_that_ends_late_does_not_change_the_mirrors_state(db: Database) -> None:
    works = Works(db)
    first = await works.submit(mirror=1)
    async with works.working():
        await works.until(lambda: works.started == [first])
        newer = await works.submit(mirror=1)
        works.end(first, Outcome(state=RunState.INCOMPLETE))
        await works.ended(first)
        assert (await works.mirror()).last_run_id == newer
        works.end(newer)
        await works.ended(newer)
        assert (await works.mirror()).state is RunState.COMPLETED


@pytest.mark.parametrize(
    ("error", "kind", "says"),
    [
        (Upstream("the source is away", hint="wait"), "upstream", "the source is away"),
        (KeyError("x"), "internal", "log"),
    ],
)
async def test_an_error_fails_its_run_and_nothing_else(
    db: Database, error: Exception, kind: str, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    works = Works(db)
    bad, good = await works.submit(mirror=1), await works.submit(mirror=2)
    works.end(bad, error)
    works.end(good)
    async with works.working():
        assert await works.ended(bad) is RunState.FAILED
        assert await works.ended(good) is RunState.COMPLETED
    row = await works.row(bad)
    assert row.error is not None
    assert row.error.kind == kind
    assert says in row.error.message
    assert "KeyError" not in row.error.message
    assert (await works.mirror()).last_success_at is None
    lines = await db.read(lambda r: rows.log_page(r, bad, 0, 10))
    assert [line.level for line in lines] == ["error"]
    assert ("unforeseen" in caplog.text) == (kind == "internal")


# --- stopping -----------------------------------------------------------------------------------------------------


async def test_stopping_a_pending_run_ends_it_before_it_starts(db: Database) -> None:
    works = Works(db)
    run = await works.submit()
    stopped, seq = await works.queue.stop(run)
    assert stopped.state is RunState.STOPPED
    assert works.facts[-1].cursor == f"e:{seq}"
    assert (await works.mirror()).state is RunState.STOPPED
    later = await works.submit(mirror=2)
    works.end(later)
    async with works.working():
        await works.ended(later)
    assert works.started == [later]
    assert works.told(run) == ["run.queued", "run.finished"]


async def test_stopping_a_pending_run_twice_at_once_ends_it_once(db: Database) -> None:
    works = Works(db)
    run = await works.submit()
    told = await asyncio.gather(works.queue.stop(run), works.queue.stop(run), return_exceptions=True)
    assert sum(isinstance(one, WrongState) for one in told) == 1
    assert works.told(run) == ["run.queued", "run.finished"]


async def test_stopping_a_running_run_cancels_it(db: Database) -> None:
    works = Works(db)
    run = await works.submit()
    async with works.working():
        await works.until(lambda: works.started == [run])
        stopping, _ = await works.queue.stop(run, publish=True)
        assert stopping.state in (RunState.STOPPING, RunState.STOPPED)
        assert works.live[run].stop_publish
        assert await works.ended(run) is RunState.STOPPED
        with pytest.raises(WrongState, match=f"run {run} has ended: stopped"):
            await works.queue.stop(run)
    assert works.cancelled == [run]
    assert works.told(run) == ["run.queued", "run.started", "run.stopping", "run.finished"]
    assert (await works.row(run)).error is None
    assert (await works.mirror()).state is RunState.STOPPED
    with pytest.raises(NotFound):
        await works.queue.stop(999)


async def test_a_stop_that_comes_while_the_end_is_written_does_not_unwrite_it(db: Database) -> None:
    works = Works(db)
    works.holding_end = asyncio.Event()
    run = await works.submit()
    works.end(run)
    async with works.working():
        await works.until(lambda: works.at_end == [(run, RunState.COMPLETED)])
        assert (await works.queue.get(run)).state is RunState.RUNNING
        waiting = asyncio.create_task(works.queue.wait(run))
        stopping = asyncio.create_task(works.queue.stop(run))
        for _ in range(50):
            await asyncio.sleep(0)
        assert not waiting.done()  # nobody is told of an end that is not written
        works.holding_end.set()
        with pytest.raises(WrongState, match="completed"):
            await stopping
        assert (await waiting).state is RunState.COMPLETED
    assert await works.state(run) is RunState.COMPLETED
    assert (await works.mirror()).state is RunState.COMPLETED
    assert works.told(run) == ["run.queued", "run.started", "run.finished"]


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5, 8, 13, 21, 34])
async def test_a_stop_at_any_moment_of_a_start_ends_the_run(db: Database, turns: int) -> None:
    works = Works(db)
    async with works.working():
        await asyncio.sleep(0)
        run = await works.submit()
        for _ in range(turns):
            await asyncio.sleep(0)
        await works.queue.stop(run)
        assert await works.ended(run) is RunState.STOPPED
        assert works.queue.active() == []
    assert works.told(run)[-1] == "run.finished"
    assert works.told(run).count("run.finished") == 1


# --- waiting ------------------------------------------------------------------------------------------------------


async def test_waiting_ends_with_the_run_or_with_the_time(db: Database) -> None:
    works = Works(db)
    run = await works.submit()
    assert (await works.queue.wait(run, 0)).state is RunState.PENDING
    with pytest.raises(NotFound, match="no run 999"):
        await works.queue.wait(999)
    async with works.working():
        waiting = [asyncio.create_task(works.queue.wait(run)) for _ in range(3)]
        left = asyncio.create_task(works.queue.wait(run))
        await works.until(lambda: works.started == [run])
        left.cancel()
        works.end(run)
        assert {(await one).state for one in waiting} == {RunState.COMPLETED}
    assert (await works.queue.wait(run)).state is RunState.COMPLETED
    assert works.queue._waiters == {}


# --- a state that cannot be written ---------------------------------------------------------------------------------


async def test_a_full_disk_delays_the_end_of_a_run_but_loses_nothing(db: Database) -> None:
    works = Works(db)
    run, behind = await works.submit(mirror=1), await works.submit(mirror=2)
    failing = True

    async def refuse(tx: Tx, row: RunRow) -> None:
        if failing:
            raise NoSpace("the state cannot be written: its disk is full")

    works.queue.connect(dict.fromkeys(RunKind, works._execute), refuse)
    async with works.working():
        await works.until(lambda: works.started == [run, behind])
        works.end(run)
        await works.clock.asleep()
        assert await works.state(run) is RunState.RUNNING
        assert works.told(run) == ["run.queued", "run.started"]
        failing = False
        await works.clock.advance(5)
        assert await works.ended(run) is RunState.COMPLETED
        works.end(behind)
        assert await works.ended(behind) is RunState.COMPLETED
    assert works.told(run) == ["run.queued", "run.started", "run.finished"]


# --- what a run writes down ----------------------------------------------------------------------------------------


async def test_the_log_goes_on_where_it_was_and_failures_are_kept(db: Database) -> None:
    works = Works(db)
    run = await works.submit()
    async with works.working():
        await works.until(lambda: works.started == [run])
        live = works.live[run]
        async with live.step(StepName.CONNECT):
            live.progress("connected to source.example.org", done=1, total=2, unit="requests")
            live.log("hello")
        with pytest.raises(ValueError, match="no"):
            async with live.step(StepName.FETCH_INDEX):
                raise ValueError("no")
        live.note("look at this")
        live.note("look at this")
        live.fail_artifact(rows.Failure(part="noarch", filename="a.conda", reason="404", attempts=3))
        live.count(failed=1)
        live.skip(StepName.FILTER, "nothing to filter")
        works.end(run, Outcome(state=RunState.INCOMPLETE))
        assert await works.ended(run) is RunState.INCOMPLETE
    row = await works.row(run)
    assert (row.notes, row.counts.failed) == (["look at this"], 1)
    states = {step.name: step.state for step in row.steps}
    assert [states[name] for name in (StepName.CONNECT, StepName.FETCH_INDEX, StepName.FILTER, StepName.CLEAN)] == [
        StepState.DONE,
        StepState.FAILED,
        StepState.SKIPPED,
        StepState.SKIPPED,
    ]
    lines = await db.read(lambda r: rows.log_page(r, run, 0, 100))
    assert [line.number for line in lines] == list(range(1, len(lines) + 1))
    assert [line.text for line in lines] == [
        "hello",
        "Connect to source: connected to source.example.org",
        "look at this",
        "Filter remote packages: nothing to filter",
    ]
    assert await db.read(lambda r: rows.failures(r, run, 10)) == [
        rows.Failure(part="noarch", filename="a.conda", reason="404", attempts=3)
    ]


async def test_rate_and_time_left_follow_the_bytes(db: Database) -> None:
    works = Works(db)
    run = await works.submit()
    async with works.working():
        await works.until(lambda: works.started == [run])
        live = works.live[run]
        async with live.step(StepName.DOWNLOAD):
            live.bytes_total = 1000
            assert (live.rate(), live.eta_s()) == (0.0, None)
            for _ in range(4):
                live.moved(100)
                await works.clock.advance(1)
            assert live.rate() == pytest.approx(100)
            assert live.eta_s() == pytest.approx(6)
            live.moved(-100)
            assert live.bytes_done == 300
            live.moved(500, verified=True)
            assert (live.bytes_done, live.verified_bytes) == (300, 500)
            await works.clock.advance(10)
            assert (live.rate(), live.eta_s()) == (0.0, None)
        works.end(run)
        await works.ended(run)


async def test_what_is_to_be_deleted_has_no_run_left_or_is_not_deleted(db: Database) -> None:
    works = Works(db, max_active=1)
    runs = [await works.submit(), await works.submit(PUBLISH, None), await works.submit(mirror=2)]
    async with works.working():
        await works.until(lambda: len(works.started) == 2)
        await halt(db, works.queue, lambda run: run.mirror_id == 2)
        assert [await works.state(run) for run in runs][2] is RunState.STOPPED
        works.holding_end = asyncio.Event()
        with pytest.raises(WrongState, match="has not stopped yet"):
            await halt(db, works.queue, lambda run: run.channel_id == 1, timeout_s=0.01)
        works.holding_end.set()
        await halt(db, works.queue, lambda run: run.channel_id == 1)
        assert {await works.state(run) for run in runs} == {RunState.STOPPED}
