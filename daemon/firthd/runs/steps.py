"""The only place that knows which steps each kind of run has, and how a run looks on the wire."""

from firth_protocol.types import STEP_TITLES, Run, RunBrief, RunCounts, RunKind, RunState, Step, StepName, StepState
from firthd.clock import maybe_rfc3339, rfc3339
from firthd.store.runs import RunRow, StepRow

STEPS = {
    RunKind.MIRROR: tuple(StepName),
    RunKind.PLAN: tuple(StepName)[:5],
    RunKind.PUBLISH: (StepName.PUBLISH, StepName.CLEAN),
    RunKind.ROLLBACK: (StepName.PUBLISH, StepName.CLEAN),
    RunKind.REMOVE: (StepName.PLAN, StepName.PUBLISH, StepName.CLEAN),
    RunKind.DELETE: (StepName.PLAN, StepName.PUBLISH, StepName.CLEAN),
    RunKind.FILL: (StepName.CONNECT, StepName.PLAN, StepName.DOWNLOAD, StepName.CLEAN),
    RunKind.GC: (StepName.PLAN, StepName.CLEAN),
    RunKind.SCRUB: (StepName.PLAN, StepName.CLEAN),
    RunKind.BACKUP: (StepName.PLAN, StepName.CLEAN),
    RunKind.REFILTER: tuple(StepName)[2:],
    RunKind.ADVISORY: (StepName.FETCH_INDEX, StepName.PLAN),
}
NO_COUNTS = RunCounts()
URGENT = frozenset({RunKind.PUBLISH, RunKind.ROLLBACK, RunKind.REMOVE, RunKind.DELETE, RunKind.REFILTER})
"""Kinds that go before the others in the queue."""
PLACED = frozenset({RunKind.MIRROR, RunKind.FILL})
"""Kinds that need one of the run places: they load a source, the line and the disk for long."""


def first_steps(kind: RunKind) -> list[StepRow]:
    """Return the steps of a new run, all waiting."""
    return [StepRow(name=name) for name in STEPS[kind]]


def number(name: StepName) -> int:
    """Return a step's number, 1 to 8, the same in every kind of run."""
    return list(StepName).index(name) + 1


def current(steps: list[StepRow]) -> StepRow | None:
    """Return the step in progress, else the last one that was reached."""
    reached = [step for step in steps if step.started_at is not None]
    running = [step for step in reached if step.state is StepState.RUNNING]
    found = running or reached
    return found[-1] if found else None


def describe(row: RunRow, *, rate: float = 0.0, eta_s: float | None = None) -> Run:
    """Return a run as clients see it."""
    step = current(row.steps)
    return Run(
        id=row.id,
        kind=row.kind,
        state=row.state,
        channel=row.channel or None,
        mirror=row.mirror_id,
        mirror_name=row.mirror_name,
        cause=row.cause,
        by=row.by,
        created_at=rfc3339(row.created_at),
        started_at=maybe_rfc3339(row.started_at),
        finished_at=maybe_rfc3339(row.finished_at),
        step=step.name if step and not row.state.ended else None,
        steps=[describe_step(one) for one in row.steps],
        counts=row.counts,
        bytes_done=row.bytes_done,
        bytes_total=row.bytes_total,
        rate_bytes_s=rate,
        eta_s=eta_s,
        waiting_for=row.waiting_for if row.state is RunState.PENDING else None,
        generation=row.generation,
        error=row.error,
        notes=row.notes,
        result=row.result,
        audit=row.params.get("audit"),
    )


def describe_step(step: StepRow) -> Step:
    return Step(
        number=number(step.name),
        name=step.name,
        title=STEP_TITLES[step.name],
        state=step.state,
        done=step.done,
        total=step.total,
        unit=step.unit,
        description=step.description,
        started_at=maybe_rfc3339(step.started_at),
        finished_at=maybe_rfc3339(step.finished_at),
    )


def brief(row: RunRow) -> RunBrief:
    """Return what a mirror shows of its run."""
    step = current(row.steps)
    description = step.description if step else ""
    if row.state is RunState.PENDING and row.waiting_for:
        description = f"waits for {row.waiting_for}"
    return RunBrief(
        id=row.id,
        state=row.state,
        step=step.name if step else None,
        step_number=number(step.name) if step else None,
        description=row.error.message if row.error else description,
        started_at=maybe_rfc3339(row.started_at),
        finished_at=maybe_rfc3339(row.finished_at),
        error=row.error,
        missing=row.counts.failed,
    )
