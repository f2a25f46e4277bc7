"""The end of the daemon and its next start: what becomes of the runs that were at work."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from firth_protocol.types import RunCounts, RunKind, RunState, StepName, StepState
from firthd.store import runs as rows
from firthd.store import upkeep
from firthd.store.blobs import Kept
from firthd.store.database import Database, Reader
from tests.support.state import sha
from tests.support.works import Works, runs_state

MIRROR, PLAN = RunKind.MIRROR, RunKind.PLAN


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[Database]:
    async with runs_state(tmp_path) as database:
        yield database


# --- the daemon's end and its next start -----------------------------------------------------------------------------


async def runs_of(db: Database) -> list[tuple[int, RunKind, RunState, int]]:
    async def body(r: Reader) -> list[tuple[int, RunKind, RunState, int]]:
        found, _, _ = await rows.runs_page(
            r,
            mirror_id=None,
            channel_id=None,
            kind=None,
            state=None,
            sort="id",
            cursor=None,
            limit=100,
            patterns=None,
        )
        return [(row.id, row.kind, row.state, row.requeued) for row in found]

    return await db.read(body)


@pytest.mark.parametrize("resume", [True, False])
async def test_the_daemons_end_interrupts_runs_and_queues_them_again(db: Database, resume: bool) -> None:
    works = Works(db, resume=resume)
    run = await works.submit(params={"accept_removals": True})
    pending = await works.submit(PLAN, None)
    async with works.working():
        await works.until(lambda: works.started == [run, pending])
    assert sorted(works.cancelled) == [run, pending]
    row = await works.row(run)
    assert row.error is not None
    assert (row.state, row.error.kind) == (RunState.FAILED, "interrupted")
    assert await works.state(pending) is RunState.FAILED
    said = "run 3 goes on with it" if resume else "start it anew with mirror.run"
    assert row.error.hint == f"what it had verified is kept; {said}"
    again = [one for one in await runs_of(db) if one[2] is RunState.PENDING]
    assert again == ([(pending + 1, MIRROR, RunState.PENDING, 1)] if resume else [])  # a plan is not made again
    if resume:
        requeued = await works.row(pending + 1)
        assert (requeued.params, requeued.by, requeued.cause) == (
            {"accept_removals": True, "since": row.created_at},
            "ada",
            f"after run {run} was interrupted",
        )
        assert (await works.mirror()).state is RunState.PENDING


async def test_runs_are_listed_in_any_order_page_by_page(db: Database) -> None:
    works = Works(db)
    runs = [await works.submit(mirror=mirror) for mirror in (1, 2, 3)]
    await works.submit(PLAN, None)
    await crashed(db, runs[1], RunState.FAILED, finished_at=2_005, counts=RunCounts(added=7))
    await crashed(db, runs[0], RunState.COMPLETED, finished_at=9_005, counts=RunCounts(added=3))

    async def listed(sort: str) -> list[int]:
        found: list[int] = []
        cursor = None
        while True:
            page, cursor, total = await db.read(
                lambda r, cursor=cursor: rows.runs_page(  # type: ignore[misc]
                    r,
                    mirror_id=None,
                    channel_id=None,
                    kind=None,
                    state=None,
                    sort=sort,
                    cursor=cursor,
                    limit=1,
                    patterns=None,
                )
            )
            found += [row.id for row in page]
            if cursor is None:
                assert len(found) == total == 4
                return found

    first, second, third, plan = runs[0], runs[1], runs[2], runs[2] + 1
    assert await listed("-id") == [plan, third, second, first]
    assert (await listed("-duration"))[:2] == [first, second]
    assert (await listed("-added"))[:2] == [second, first]
    assert (await listed("kind"))[-1] == plan
    assert (await listed("mirror"))[0] == plan
    assert sorted(await listed("began")) == [first, second, third, plan]
    assert (await listed("state"))[0] == first


async def crashed(db: Database, run: int, state: RunState, **changes: Any) -> None:
    """Leave a run in the state as a crash does: in the middle of its steps."""
    row = await db.read(lambda r: rows.run_by_id(r, run))
    assert row is not None
    steps = [
        rows.StepRow(
            name=step.name,
            state={StepName.CONNECT: StepState.DONE, StepName.FETCH_INDEX: StepState.RUNNING}.get(
                step.name, StepState.WAITING
            ),
        )
        for step in row.steps
    ]
    await db.write(lambda tx: rows.update_run(tx, run, {"state": state, "steps": steps, "started_at": 5} | changes))


async def test_runs_that_a_crash_left_open_are_settled(db: Database) -> None:
    works = Works(db)
    running, stopping, pending = [await works.submit(mirror=mirror) for mirror in (1, 2, 3)]
    plan = await works.submit(PLAN, None)
    await crashed(db, running, RunState.RUNNING)
    await crashed(db, stopping, RunState.STOPPING)
    await crashed(db, plan, RunState.RUNNING)
    works.at_end.clear()
    told = await works.queue.recover()
    assert [sentence.split(" by ")[0] for sentence in told] == [
        f"run {running} was interrupted",
        f"run {stopping} was stopped",
        f"run {plan} was interrupted",
    ]
    assert await runs_of(db) == [
        (running, MIRROR, RunState.FAILED, 0),
        (stopping, MIRROR, RunState.STOPPED, 0),
        (pending, MIRROR, RunState.PENDING, 0),
        (plan, PLAN, RunState.FAILED, 0),
        (plan + 1, MIRROR, RunState.PENDING, 1),
    ]
    row = await works.row(running)
    assert [step.state for step in row.steps[:3]] == [StepState.DONE, StepState.FAILED, StepState.SKIPPED]
    assert row.finished_at == works.clock.now_ms()
    assert (await works.row(stopping)).error is None
    assert works.at_end == [
        (running, RunState.FAILED),
        (stopping, RunState.STOPPED),
        (plan, RunState.FAILED),
    ]
    mirrors = [(await works.mirror(mirror)).state for mirror in (1, 2, 3)]
    assert mirrors == [RunState.PENDING, RunState.STOPPED, RunState.PENDING]
    assert await works.queue.recover() == []  # once settled, settled
    for run in (pending, plan + 1):
        works.end(run)
    async with works.working():
        assert await works.ended(plan + 1) is RunState.COMPLETED
    assert sorted(works.started) == [pending, plan + 1]


async def test_without_resuming_nothing_is_queued_again(db: Database) -> None:
    works = Works(db, resume=False)
    run = await works.submit()
    await crashed(db, run, RunState.RUNNING)
    assert await works.queue.recover() == [f"run {run} was interrupted by the daemon's end"]
    assert await runs_of(db) == [(run, MIRROR, RunState.FAILED, 0)]
    assert (await works.mirror()).state is RunState.FAILED


async def test_a_run_that_brings_nothing_is_queued_again_twice_at_most(db: Database) -> None:
    works = Works(db)
    run = await works.submit()
    for expected in (1, 2):
        await crashed(db, run, RunState.RUNNING)
        await works.queue.recover()
        run += 1
        assert (await runs_of(db))[-1] == (run, MIRROR, RunState.PENDING, expected)
    await crashed(db, run, RunState.RUNNING)
    assert await works.queue.recover() == [f"run {run} was interrupted by the daemon's end"]
    assert (await works.mirror()).state is RunState.FAILED
    error = (await works.row(run)).error
    assert error is not None
    assert error.hint is not None
    assert "and is given up; start it anew with mirror.run" in error.hint


@pytest.mark.parametrize("gain", ["counted", "files"])
async def test_new_verified_bytes_start_the_count_again(db: Database, gain: str) -> None:
    works = Works(db)
    run = await works.submit(requeued=2)
    await crashed(db, run, RunState.RUNNING, verified_bytes=10 if gain == "counted" else 0)
    if gain == "files":  # the counts are written once a second; the files that came since speak for themselves
        await db.write(lambda tx: upkeep.name_blobs(tx, [Kept(sha256=sha("x"), size=1)], 5))
    await works.queue.recover()
    assert (await runs_of(db))[-1] == (run + 1, MIRROR, RunState.PENDING, 0)


async def test_files_from_before_the_run_are_no_gain(db: Database) -> None:
    works = Works(db)
    run = await works.submit(requeued=2)
    await crashed(db, run, RunState.RUNNING)
    await db.write(lambda tx: upkeep.name_blobs(tx, [Kept(sha256=sha("x"), size=1)], 4))
    await works.queue.recover()
    assert await runs_of(db) == [(run, MIRROR, RunState.FAILED, 2)]


@pytest.mark.parametrize("kind", RunKind)
async def test_a_run_of_any_kind_may_be_cut_off(db: Database, kind: RunKind) -> None:
    works = Works(db, resume=False)
    run = await works.submit(kind)
    async with works.working():
        await works.until(lambda: works.started == [run])
    row = await works.row(run)
    assert row.error is not None
    assert (row.state, row.error.kind) == (RunState.FAILED, "interrupted")
