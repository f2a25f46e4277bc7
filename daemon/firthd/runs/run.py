"""A run in progress: its steps, counts, log and progress, held in memory and written down as they change."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from firth_protocol.errors import FirthError
from firth_protocol.events import Fact
from firth_protocol.types import Json, Run, RunError, RunState, StepName, StepState
from firthd.clock import Clock
from firthd.events import EventHub
from firthd.runs import steps
from firthd.store import runs
from firthd.store.database import Database, Tx
from firthd.store.journal import Journal
from firthd.store.runs import Failure, RunRow, StepRow
from firthd.upstream.rate import Meter, Pace

CRAWLS_BYTES_S = 64_000.0
"""A run whose source sends less for CRAWLS_S needs neither processor nor line: another may work beside it."""
CRAWLS_S = 30.0
_ASKING = frozenset({StepName.CONNECT, StepName.FETCH_INDEX, StepName.DOWNLOAD})


class Outcome(Struct, frozen=True, kw_only=True):
    """How an executor says that its run ended."""

    state: RunState = RunState.COMPLETED
    error: RunError | None = None
    result: Json | None = None
    generation: int | None = None


class LiveRun:
    """What an executor works with: one run from its start to its end."""

    def __init__(self, row: RunRow, db: Database, journal: Journal, hub: EventHub, clock: Clock, log_from: int) -> None:
        self.row = row
        self.id = row.id
        self.stop_publish = False
        self.stopping = False
        self.at_work = False  # its task has taken its first step
        self._steps: dict[StepName, StepRow] = {step.name: step for step in row.steps}
        self.counts = row.counts
        self.notes = list(row.notes)
        self.bytes_done = 0
        self.bytes_total: int | None = None
        self.verified_bytes = 0
        self._db = db
        self._journal = journal
        self._hub = hub
        self._clock = clock
        self._lines: list[tuple[int, int, str, str | None, str]] = []
        self._line = log_from
        self._failures: list[Failure] = []
        self._told: list[Json] = []  # what became of steps, and is not written down yet
        self._current: StepName | None = None
        self._meter = Meter(clock)
        self._pace: Pace | None = None  # of the steps that ask the source
        self.ended = asyncio.Event()

    # --- what clients see -------------------------------------------------------------------------

    @property
    def ids(self) -> Json:
        ids: Json = {"run": self.id, "channel": self.row.channel}
        if self.row.mirror_id is not None:
            ids["mirror"] = self.row.mirror_id
        return ids

    def snapshot(self) -> RunRow:
        """Return the run's row as it is at this moment."""
        return msgspec.structs.replace(
            self.row,
            state=RunState.STOPPING if self.stopping else self.row.state,
            steps=list(self._steps.values()),
            counts=self.counts,
            notes=list(self.notes),
            bytes_done=self.bytes_done,
            bytes_total=self.bytes_total,
            verified_bytes=self.verified_bytes,
        )

    def describe(self) -> Run:
        return steps.describe(self.snapshot(), rate=self.rate(), eta_s=self.eta_s())

    def rate(self) -> float:
        """Return bytes a second over the last few seconds."""
        return self._meter.bytes_s()

    def eta_s(self) -> float | None:
        """Return the estimated seconds to the end of the download, or of the step, None when there is no telling."""
        if self.bytes_total is not None and self._current is StepName.DOWNLOAD:
            rate = self.rate()
            return max(0.0, (self.bytes_total - self.bytes_done) / rate) if rate else None
        step = self._steps.get(self._current) if self._current else None
        if step is None or not step.total or not step.done or step.started_at is None:
            return None
        elapsed = (self._clock.now_ms() - step.started_at) / 1000
        return max(0.0, elapsed * (step.total - step.done) / step.done)

    def crawls(self) -> bool:
        """Whether it waits for a source that has sent next to nothing for a while."""
        return self._pace is not None and self._pace.below(self._clock.monotonic(), CRAWLS_BYTES_S)

    # --- what executors do ------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def step(self, name: StepName, description: str = "") -> AsyncIterator[None]:
        """Work inside a step: it is written down as running; that it is done, or has failed, with what comes next."""
        now = self._clock.now_ms()
        self._current = name
        if name not in _ASKING:
            self._pace = None
        elif self._pace is None:
            self._pace = Pace(CRAWLS_S)
            self.received(0)
        self._steps[name] = StepRow(name=name, state=StepState.RUNNING, description=description, started_at=now)
        self._tell_step(name)
        await self._write_steps()
        try:
            yield
        except BaseException:
            self._end_step(name, StepState.FAILED)
            raise
        self._end_step(name, StepState.DONE)
        self._tell_step(name)

    def _end_step(self, name: StepName, state: StepState) -> None:
        step = self._steps[name]
        if step.state is StepState.RUNNING:
            self._steps[name] = msgspec.structs.replace(step, state=state, finished_at=self._clock.now_ms())

    def skip(self, name: StepName, reason: str) -> None:
        """Say that a step has nothing to do, and why."""
        now = self._clock.now_ms()
        self._steps[name] = StepRow(
            name=name, state=StepState.SKIPPED, description=reason, started_at=now, finished_at=now
        )
        self._tell_step(name)

    def progress(self, description: str, *, done: int = 0, total: int | None = None, unit: str = "") -> None:
        """Tell how far the step in progress is."""
        if self._current is None:
            return
        step = self._steps[self._current]
        self._steps[self._current] = msgspec.structs.replace(
            step, description=description, done=done, total=total, unit=unit
        )
        shown = steps.describe_step(self._steps[self._current])
        data: Json = msgspec.to_builtins(shown)
        data.update(
            bytes_done=self.bytes_done, bytes_total=self.bytes_total, rate_bytes_s=self.rate(), eta_s=self.eta_s()
        )
        self._hub.progress(self.id, self.ids, data)

    def moved(self, size: int, *, verified: bool = False) -> None:
        """Count bytes that came from the source (negative: they were thrown away again)."""
        if verified:
            self.verified_bytes += size
            return
        self.bytes_done = max(0, self.bytes_done + size)
        self._meter.add(max(0, size))
        self.received(max(0, size))

    def received(self, size: int) -> None:
        """Note bytes that have come from the source, whatever for."""
        if self._pace is not None:
            self._pace.add(self._clock.monotonic(), size)

    def count(self, **changes: Any) -> None:
        """Set counts of the run."""
        self.counts = msgspec.structs.replace(self.counts, **changes)

    def log(self, text: str, level: str = "info", *, step: StepName | None = None) -> None:
        """Append a line to the run's log, under the step in progress unless another is named."""
        self._line += 1
        named = step or self._current
        self._lines.append((self._line, self._clock.now_ms(), level, named.value if named else None, text))

    def note(self, text: str) -> None:
        """Keep a sentence that the run's readers must see, beside its log."""
        if text not in self.notes:
            self.notes.append(text)
            self.log(text, "warning")

    def fail_artifact(self, failure: Failure) -> None:
        """Note that one artifact could not be had."""
        self._failures.append(failure)

    async def forget_failures(self) -> None:
        """Take back every artifact noted as failed: what is tried again is told again."""

        async def body(tx: Tx) -> None:
            self._failures = []
            await runs.forget_failures(tx, self.id)

        await self._db.write(body)

    # --- writing down ------------------------------------------------------------------------------

    async def flush(self) -> None:
        """Write the log, failures and numbers gathered so far."""
        await self._db.write(self._write)

    async def _write(self, tx: Tx) -> None:
        lines, failures = list(self._lines), list(self._failures)
        tx.after_commit(lambda: self._written(lines, failures))  # what a full disk has undone is written again
        if lines:
            await runs.write_log(tx, self.id, lines)
        if failures:
            await runs.write_failures(tx, self.id, failures)
        now = self.snapshot()
        await runs.update_run(
            tx,
            self.id,
            {
                "steps": now.steps,
                "counts": now.counts,
                "notes": now.notes,
                "bytes_done": now.bytes_done,
                "bytes_total": now.bytes_total,
                "verified_bytes": now.verified_bytes,
            },
        )

    def _written(self, lines: list[tuple[int, int, str, str | None, str]], failures: list[Failure]) -> None:
        """Let go of what is durable; two writes of one group may both have held it."""
        newest = lines[-1][0] if lines else 0
        self._lines = [line for line in self._lines if line[0] > newest]
        done = set(failures)
        self._failures = [failure for failure in self._failures if failure not in done]

    def _tell_step(self, name: StepName) -> None:
        """Take note of what became of a step; each commit takes a millisecond, and what follows has one."""
        step = steps.describe_step(self._steps[name])
        data: Json = msgspec.to_builtins(step)
        data["step"] = step.name.value
        if step.description and step.state in {StepState.DONE, StepState.SKIPPED}:
            self.log(f"{step.title}: {step.description}", step=name)
        self._told.append(data)

    async def _write_steps(self) -> None:
        told, self._told = self._told, []

        async def body(tx: Tx) -> None:
            await self._write(tx)
            await self._write_facts(tx, told)

        try:
            await self._db.write(body)
        except FirthError:  # the disk is full: the end of the run tells it
            self._told = told + self._told
            raise

    async def _write_facts(self, tx: Tx, told: Sequence[Json]) -> None:
        for data in told:
            await self._journal.fact(tx, Fact.RUN_STEP, ids=self.ids, data=data)

    async def finish(self, tx: Tx, outcome: Outcome) -> RunRow:
        """Write the end of the run inside the queue's transaction; return its row, which nobody sees before that."""
        now = self._clock.now_ms()
        for name, step in self._steps.items():
            if step.state is StepState.RUNNING:
                self._end_step(name, StepState.FAILED)
            elif step.state is StepState.WAITING:
                self._steps[name] = msgspec.structs.replace(step, state=StepState.SKIPPED, description="not reached")
        if outcome.error is not None:
            self.log(outcome.error.message + (f" · {outcome.error.hint}" if outcome.error.hint else ""), "error")
        await self._write(tx)
        await self._write_facts(tx, self._told)
        changes = {
            "state": outcome.state,
            "finished_at": now,
            "error": outcome.error,
            "result": outcome.result,
            "generation": outcome.generation,
            "waiting_for": None,
        }
        await runs.update_run(tx, self.id, changes)
        return msgspec.structs.replace(self.snapshot(), **changes)
