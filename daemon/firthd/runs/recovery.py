"""What becomes of runs that the daemon's end cut off: ended, and queued again where that is wanted."""

from typing import TYPE_CHECKING, Any

import msgspec

from firth_protocol.errors import Interrupted
from firth_protocol.types import RunError, RunKind, RunState, StepState
from firthd.clock import Clock
from firthd.store import runs as rows
from firthd.store.database import Database, Tx
from firthd.store.runs import RunRow

if TYPE_CHECKING:
    from firthd.runs.queue import RunQueue

TRIES_WITHOUT_GAIN = 2
"""How often in a row a run is queued again that brought nothing new before it was cut off."""
RESUMED = frozenset(
    {RunKind.MIRROR, RunKind.PUBLISH, RunKind.ROLLBACK, RunKind.REMOVE, RunKind.FILL, RunKind.GC, RunKind.SCRUB}
)

INTERRUPTED = RunError(
    kind=Interrupted.kind,
    message="the daemon stopped while this run worked",
    hint="what it had verified is kept; it is queued again by itself",
)


async def queue_again(tx: Tx, queue: "RunQueue", row: RunRow) -> int | None:
    """Queue an interrupted run again, unless it keeps being cut off without gain; return the new run's id."""
    if row.kind not in RESUMED or row.params.get("resume") is False:
        return None
    # Counts are written once a second; the files that came since are known by their own rows.
    gained = row.verified_bytes or await rows.stored_since(tx, row.started_at or row.created_at)
    requeued = 0 if gained else row.requeued + 1
    if requeued > TRIES_WITHOUT_GAIN:
        return None
    run_id, _ = await queue.submit(
        tx,
        row.kind,
        channel_id=row.channel_id,
        channel=row.channel,
        mirror_id=row.mirror_id,
        cause=f"after run {row.id} was interrupted",
        by=row.by,
        params=row.params,
        requeued=requeued,
    )
    return run_id


async def recover(db: Database, queue: "RunQueue", clock: Clock, *, resume: bool) -> list[str]:
    """TakeIn the runs that a crash left open; return a sentence for each. Called once, before the queue works."""

    async def body(tx: Tx) -> list[str]:
        told = []
        for row in await rows.open_runs(tx):
            if row.state is RunState.PENDING:
                continue
            stopped = row.state is RunState.STOPPING
            changes = cut_off(row, clock.now_ms())
            await rows.update_run(tx, row.id, changes)
            row = msgspec.structs.replace(row, **changes)
            again = await queue_again(tx, queue, row) if resume and not stopped else None
            await queue.ended(tx, row)
            what = "stopped" if stopped else "interrupted"
            told.append(
                f"run {row.id} was {what} by the daemon's end" + (f"; queued again as {again}" if again else "")
            )
        return told

    return await db.write(body)


def cut_off(row: RunRow, now_ms: int) -> dict[str, Any]:
    """Return what becomes of the row of a run that was at work when its daemon ended, by field."""
    stopped = row.state is RunState.STOPPING
    return {
        "state": RunState.STOPPED if stopped else RunState.FAILED,
        "finished_at": now_ms,
        "error": None if stopped else INTERRUPTED,
        "steps": [_closed(step, now_ms) for step in row.steps],
    }


def _closed(step: rows.StepRow, now_ms: int) -> rows.StepRow:
    if step.state is StepState.RUNNING:
        return msgspec.structs.replace(step, state=StepState.FAILED, finished_at=now_ms)
    if step.state is StepState.WAITING:
        return msgspec.structs.replace(step, state=StepState.SKIPPED, description="not reached")
    return step
