"""The only place that says how a run ends that did not come to its own end: refused, failed unforeseen, cut off."""

from typing import Any

import msgspec

from firth_protocol.errors import FirthError, Interrupted
from firth_protocol.types import RunError, RunKind, RunState, StepState
from firthd.store.runs import RunRow, StepRow

TRIES_WITHOUT_GAIN = 2
"""How often in a row a run is queued again that brought nothing new before it was cut off."""
RESUMED = frozenset(
    {
        RunKind.MIRROR,
        RunKind.PUBLISH,
        RunKind.ROLLBACK,
        RunKind.REMOVE,
        RunKind.DELETE,
        RunKind.FILL,
        RunKind.GC,
        RunKind.SCRUB,
        RunKind.REFILTER,
        RunKind.ADVISORY,
    }
)

INTERRUPTED = RunError(
    kind=Interrupted.kind,
    message="the daemon stopped while this run worked",
    hint="what it had verified is kept",
)
_ASKED_BY = {
    RunKind.MIRROR: "mirror.run",
    RunKind.PLAN: "mirror.plan",
    RunKind.PUBLISH: "channel.unfreeze",
    RunKind.ROLLBACK: "channel.rollback",
    RunKind.REMOVE: "package.remove",
    RunKind.FILL: "mirror.fill",
    RunKind.GC: "store.gc",
    RunKind.SCRUB: "store.scrub",
    RunKind.BACKUP: "daemon.backup",
    RunKind.REFILTER: "mirror.run",
    RunKind.ADVISORY: "advisory.import",
}
"""The method by which somebody starts such a run anew; the next start goes on with what is not among them."""


def run_error(error: FirthError) -> RunError:
    """Return an error as a run shows it."""
    return RunError(kind=error.kind, message=error.message, hint=error.hint, data=error.data)


def unforeseen(correlation: str) -> RunError:
    """Return what a run shows of an error that nobody foresaw; the daemon's log has it under `correlation`."""
    return RunError(
        kind="internal",
        message=f"an unforeseen error ended the run; the daemon's log has it under {correlation}",
        hint="please report it with the lines of the log",
    )


def interrupted(row: RunRow, again: int | None, *, gave_up: bool) -> RunError:
    """Return what a run shows that the daemon's end cut off: `again` is the run that goes on, if one does.

    `gave_up`: it was queued again before, and is not any more.
    """
    if again is not None:
        return msgspec.structs.replace(INTERRUPTED, hint=f"{INTERRUPTED.hint}; run {again} goes on with it")
    why = "it was cut off too often without bringing anything new, and is given up" if gave_up else ""
    todo = f"start it anew with {_ASKED_BY[row.kind]}" if row.kind in _ASKED_BY else ""
    return msgspec.structs.replace(INTERRUPTED, hint="; ".join(part for part in (INTERRUPTED.hint, why, todo) if part))


def tries(row: RunRow, *, gained: bool) -> int | None:
    """Return how often in a row an interrupted run was queued again without gain, if it is to be once more.

    None when it is not: its kind or its caller do not ask for it, or it keeps being cut off. `gained`: it brought
    something new before it was cut off.
    """
    if row.kind not in RESUMED or row.params.get("resume") is False:
        return None
    requeued = 0 if gained else row.requeued + 1
    return None if requeued > TRIES_WITHOUT_GAIN else requeued


def cut_off(row: RunRow, now_ms: int) -> dict[str, Any]:
    """Return what becomes of the row of a run that was at work when its daemon ended, by field."""
    stopped = row.state is RunState.STOPPING
    return {
        "state": RunState.STOPPED if stopped else RunState.FAILED,
        "finished_at": now_ms,
        "error": None if stopped else INTERRUPTED,
        "steps": [_closed(step, now_ms) for step in row.steps],
    }


def _closed(step: StepRow, now_ms: int) -> StepRow:
    if step.state is StepState.RUNNING:
        return msgspec.structs.replace(step, state=StepState.FAILED, finished_at=now_ms)
    if step.state is StepState.WAITING:
        return msgspec.structs.replace(step, state=StepState.SKIPPED, description="not reached")
    return step
