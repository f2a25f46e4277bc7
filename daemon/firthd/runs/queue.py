"""The only place that decides which run works when: queue, limits, start, stop, end."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from uuid import uuid4

import msgspec
from msgspec import Struct

from firth_protocol.errors import FirthError, Interrupted, NotFound, WrongState
from firth_protocol.events import Fact
from firth_protocol.types import Json, LogLine, Run, RunKind, RunState
from firthd.absent import no_run
from firthd.clock import Clock
from firthd.events import EventHub
from firthd.runs.ends import INTERRUPTED, cut_off, interrupted, run_error, tries, unforeseen
from firthd.runs.run import LiveRun, Outcome
from firthd.runs.steps import PLACED, URGENT, describe, first_steps
from firthd.store import catalog, disk, paging, runs
from firthd.store.audit import line_of
from firthd.store.database import Database, Reader, Tx
from firthd.store.journal import Journal
from firthd.store.paging import Cut
from firthd.store.runs import RunRow

log = logging.getLogger(__name__)

RETRY_S = 5.0
"""How long to wait when the state cannot be written."""

LOOK_S = 10.0
"""How often it is looked whether a run at work has come to crawl, while others wait for its place."""
LENT = 16
"""Runs that may work beside `max_active` because as many others crawl: each holds files and connections too."""

Executor = Callable[[LiveRun], Awaitable[Outcome]]
OnEnd = Callable[[Tx, RunRow], Awaitable[None]]

TAKE_IN = frozenset({RunKind.MIRROR, RunKind.PUBLISH, RunKind.FILL, RunKind.REFILTER})
"""Kinds that write rows or files of a mirror when they have one: never two of them for one mirror at once."""
OF_STORE = frozenset({RunKind.GC, RunKind.SCRUB, RunKind.BACKUP, RunKind.ADVISORY})
"""Kinds of which one works at a time: they read the whole store."""


class Waiting(Struct, frozen=True, kw_only=True):
    """A run that has no place; `since` in milliseconds, `reason` as in "waits for …"."""

    run: RunRow
    since: int
    reason: str


class RunQueue:
    """Takes runs in, starts them in order, stops them on request, writes down how they ended."""

    def __init__(
        self, db: Database, journal: Journal, hub: EventHub, clock: Clock, *, max_active: int, resume: bool = True
    ) -> None:
        self._db = db
        self._journal = journal
        self._hub = hub
        self._clock = clock
        self._max_active = max_active
        self._resume = resume
        self._executors: Mapping[RunKind, Executor] = {}
        self._on_end: OnEnd | None = None
        self._live: dict[int, LiveRun] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._waiters: dict[int, asyncio.Event] = {}
        self._wake = asyncio.Event()
        self._no_places: dict[int, Waiting] = {}
        self._crowded = asyncio.Event()
        self._closing = False
        self._cut_off_at: int | None = None

    def connect(self, executors: Mapping[RunKind, Executor], on_end: OnEnd) -> None:
        """Say who executes each kind, and who wants to know of each end inside its transaction."""
        self._executors = executors
        self._on_end = on_end

    # --- taking in -----------------------------------------------------------------------------------

    async def submit(
        self,
        tx: Tx,
        kind: RunKind,
        *,
        channel_id: int | None = None,
        channel: str = "",
        mirror_id: int | None = None,
        cause: str,
        by: str,
        params: Json | None = None,
        requeued: int = 0,
        notes: list[str] | None = None,
    ) -> tuple[int, int]:
        """Queue a run inside the caller's transaction; return its id and the number of its fact."""
        line = await line_of(tx)
        run_id = await runs.insert_run(
            tx,
            kind=kind,
            channel_id=channel_id,
            mirror_id=mirror_id,
            cause=cause,
            by=by,
            params=(params or {}) | ({} if line is None else {"audit": line}),
            steps=first_steps(kind),
            requeued=requeued,
            notes=notes or [],
            now_ms=self._clock.now_ms(),
        )
        ids: Json = {"run": run_id, "channel": channel}
        if mirror_id is not None:
            ids["mirror"] = mirror_id
            if kind is RunKind.MIRROR:
                await catalog.note_mirror(tx, mirror_id, {"state": RunState.PENDING, "last_run_id": run_id})
        seq = await self._journal.fact(tx, Fact.RUN_QUEUED, ids=ids, data={"kind": kind, "cause": cause, "by": by})
        tx.after_commit(self._wake.set)
        return run_id, seq

    async def recover(self) -> list[str]:
        """Settle the runs that a crash left open; return a sentence for each. Called once, before `serve`."""

        async def body(tx: Tx) -> list[str]:
            told = []
            for row in await runs.open_runs(tx):
                if row.state is RunState.PENDING:
                    continue
                stopped = row.state is RunState.STOPPING
                changes = cut_off(row, self._clock.now_ms())
                await runs.update_run(tx, row.id, changes)
                row = msgspec.structs.replace(row, **changes)
                again = None
                if not stopped:
                    row, again = await self._queue_again(tx, row)
                await self.ended(tx, row)
                what = "stopped" if stopped else "interrupted"
                told.append(
                    f"run {row.id} was {what} by the daemon's end" + (f"; queued again as {again}" if again else "")
                )
            return told

        return await self._db.write(body)

    async def _queue_again(self, tx: Tx, row: RunRow) -> tuple[RunRow, int | None]:
        """Queue an interrupted run again where that is wanted; return its row, which says so, and the new run's id."""
        again = await self._again(tx, row)
        gave_up = self._resume and again is None and row.requeued > 0
        row = msgspec.structs.replace(row, error=interrupted(row, again, gave_up=gave_up))
        await runs.update_run(tx, row.id, {"error": row.error})
        return row, again

    async def _again(self, tx: Tx, row: RunRow) -> int | None:
        if not self._resume:
            return None
        # Counts are written once a second; the files that came since are known by their own rows.
        gained = row.verified_bytes or await runs.stored_since(tx, row.started_at or row.created_at)
        requeued = tries(row, gained=bool(gained))
        if requeued is None:
            return None
        run_id, _ = await self.submit(
            tx,
            row.kind,
            channel_id=row.channel_id,
            channel=row.channel,
            mirror_id=row.mirror_id,
            cause=f"after run {row.id} was interrupted",
            by=row.by,
            params={"since": row.created_at, **row.params},
            requeued=requeued,
        )
        return run_id

    # --- looking -------------------------------------------------------------------------------------

    def live(self, run_id: int) -> LiveRun | None:
        """Return a run that is at work; one whose start is still being written down is only what its row says."""
        live = self._live.get(run_id)
        return live if live is not None and live.at_work else None

    def active(self) -> list[LiveRun]:
        """Return the runs that are at work."""
        return [live for live in self._live.values() if live.at_work]

    def waiting(self) -> list[Waiting]:
        """Return the runs that wait for a place, the first in line first."""
        return list(self._no_places.values())

    def describe(self, row: RunRow) -> Run:
        """Return a run as clients see it, from memory while it works."""
        live = self.live(row.id)
        return live.describe() if live is not None else describe(self.seen(row))

    def unsettled(self, now_ms: int | None) -> None:
        """Say since when runs that a crash left open wait to be settled; None: they are settled."""
        self._cut_off_at = now_ms

    def seen(self, row: RunRow) -> RunRow:
        """Return a row as it will be once what a crash left open is settled: nothing works before that."""
        if self._cut_off_at is None or row.state not in {RunState.RUNNING, RunState.STOPPING}:
            return row
        return msgspec.structs.replace(row, **cut_off(row, self._cut_off_at))

    async def get(self, run_id: int) -> Run:
        """Return one run; raise NotFound."""
        return self.describe(await self.row(run_id))

    async def row(self, run_id: int) -> RunRow:
        row = await self._db.read(lambda r: runs.run_by_id(r, run_id))
        if row is None:
            raise no_run(run_id)
        return row

    async def flush_log(self, run_id: int) -> None:
        """Write down what a run at work has said so far; raise NotFound where there is no such run."""
        live = self.live(run_id)
        if live is not None:
            await live.flush()
        await self.row(run_id)

    async def wait(self, run_id: int, timeout_s: float | None = None) -> Run:
        """Return a run when it has ended, or as it is after `timeout_s` seconds."""
        ended = self._waiters.setdefault(run_id, asyncio.Event())
        try:
            run = await self.get(run_id)
        except NotFound:
            self._waiters.pop(run_id, None)
            raise
        if not run.state.ended:
            try:
                async with asyncio.timeout(timeout_s):
                    await ended.wait()
            except TimeoutError:
                pass
            run = await self.get(run_id)
        if run.state.ended:
            self._waiters.pop(run_id, None)
        return run

    # --- stopping ------------------------------------------------------------------------------------

    async def stop(self, run_id: int, *, publish: bool = False) -> tuple[Run, int]:
        """Ask a run to stop; return it with the number of the fact. Raises WrongState when it has ended."""
        row = await self.row(run_id)
        live = self._live.get(run_id)
        if live is None:
            seq = await self._end_pending(row)
            if seq is None:  # its turn came while the request was on its way
                return await self.stop(run_id, publish=publish)
            self._told_end(run_id)
            return await self.get(run_id), seq
        seq = await self._ask_to_stop(row, live, publish=publish)
        return live.describe() if run_id in self._live else await self.get(run_id), seq

    async def _end_pending(self, row: RunRow) -> int | None:
        """End a run that waits for its turn; None when it has come to work meanwhile."""

        async def end(tx: Tx) -> int | None:
            await self._not_ended(tx, row.id)
            if row.id in self._live:
                return None
            now = self._clock.now_ms()
            await runs.update_run(tx, row.id, {"state": RunState.STOPPED, "finished_at": now, "waiting_for": None})
            return await self.ended(tx, msgspec.structs.replace(row, state=RunState.STOPPED, finished_at=now))

        return await self._db.write(end)

    async def _ask_to_stop(self, row: RunRow, live: LiveRun, *, publish: bool) -> int:
        live.stop_publish = live.stop_publish or publish
        already = live.stopping
        live.stopping = True

        async def note(tx: Tx) -> int:
            await self._not_ended(tx, live.id)
            if not already:
                await runs.update_run(tx, live.id, {"state": RunState.STOPPING})
                await self._note_mirror(tx, row, RunState.STOPPING)
            return await self._journal.fact(tx, Fact.RUN_STOPPING, ids=live.ids)

        seq = await self._db.write(note)
        task = self._tasks.get(live.id)
        # A task cancelled before its first step would never write an end; it looks at `stopping` itself.
        if task is not None and live.at_work and not already:
            task.cancel()
        return seq

    async def _not_ended(self, tx: Tx, run_id: int) -> None:
        """Raise WrongState for a run that ended, be it while the request to stop it was on its way."""
        row = await runs.run_by_id(tx, run_id)
        if row is None or row.state.ended:
            raise WrongState(
                f"run {run_id} has ended" + (f": {row.state}" if row else ""),
                hint="only a pending or running run can be stopped",
            )

    # --- working -------------------------------------------------------------------------------------

    async def serve(self) -> None:
        """Start runs as their turn comes, until cancelled; then end those in progress as interrupted."""
        async with asyncio.TaskGroup() as group:
            self._wake.set()
            group.create_task(self._look_again(), name="queue looks again")
            try:
                while True:
                    await self._wake.wait()
                    self._wake.clear()
                    try:
                        await self._start_due(group)
                    except FirthError as error:
                        log.error("no run can be started: %s", error.message)
                        await self._clock.sleep(RETRY_S)
                        self._wake.set()
            finally:
                self._closing = True

    async def _start_due(self, group: asyncio.TaskGroup) -> None:
        pending = [run for run in await self._db.read(runs.open_runs) if run.state is RunState.PENDING]
        pending.sort(key=lambda run: (run.kind not in URGENT, run.id))
        no_place: str | None = None
        without: dict[int, Waiting] = {}
        for row in pending:
            if row.id in self._live:
                continue
            reason = self._same_mirror(row)
            if reason is None and row.kind in PLACED:
                # A place that gets free during this round is for the first in line: the next round gives it away.
                reason = no_place = no_place or self._no_place()
                if reason is not None:
                    before = self._no_places.get(row.id)
                    since = before.since if before is not None else self._clock.now_ms()
                    without[row.id] = Waiting(run=row, since=since, reason=reason)
            if reason is None:
                self._tell_lent(row)
                await self._start(group, row)
            elif reason != row.waiting_for:

                async def note(tx: Tx, run_id: int = row.id, reason: str = reason) -> None:
                    await runs.update_run(tx, run_id, {"waiting_for": reason})

                await self._db.write(note)
        self._no_places = without
        if without:
            self._crowded.set()

    async def _look_again(self) -> None:
        """Nothing tells that a run has come to crawl: look, as long as somebody waits for its place."""
        while True:
            await self._crowded.wait()
            self._crowded.clear()
            await self._clock.sleep(LOOK_S)
            self._wake.set()

    def _same_mirror(self, row: RunRow) -> str | None:
        if row.mirror_id is not None and row.kind in TAKE_IN:
            for other in self._live.values():
                beside = row.params.get("sweeps") or other.row.params.get("sweeps")
                if other.row.mirror_id == row.mirror_id and other.row.kind in TAKE_IN and not beside:
                    return f"run {other.id} of the same mirror"
        if row.kind in OF_STORE:
            for other in self._live.values():
                if other.row.kind in OF_STORE:
                    return f"run {other.id}, a {other.row.kind} of the store"
        return None

    def _tell_lent(self, row: RunRow) -> None:
        placed = [live for live in self._live.values() if live.row.kind in PLACED]
        if row.kind in PLACED and len(placed) >= self._max_active:
            for live in placed:
                if live.crawls():
                    live.log(f"its source sends next to nothing: run {row.id} works beside it")

    def _no_place(self) -> str | None:
        """Return why no run that needs a place can start, None when one can.

        A run whose source crawls lends its place, so that slow sources never hold up others, however many they are
        (up to LENT); it goes on beside, and needs no place to end.
        """
        placed = [live for live in self._live.values() if live.row.kind in PLACED]
        crawling = sum(live.crawls() for live in placed)
        if len(placed) < self._max_active + min(LENT, crawling):
            return None
        busy = ", ".join(str(run) for run in sorted(live.id for live in placed))
        return f"a free place: {self._max_active} runs work at once (now {busy})"

    async def _start(self, group: asyncio.TaskGroup, row: RunRow) -> None:
        now = self._clock.now_ms()
        changes = {"state": RunState.RUNNING, "started_at": now, "waiting_for": None}
        row = msgspec.structs.replace(row, **changes)
        log_from = await self._db.read(lambda r: runs.last_line(r, row.id))
        live = LiveRun(row, self._db, self._journal, self._hub, self._clock, log_from)
        self._live[row.id] = live

        async def begin(tx: Tx) -> bool:
            fresh = await runs.run_by_id(tx, row.id)
            if fresh is None or fresh.state is not RunState.PENDING:
                return False
            await runs.update_run(tx, row.id, changes)
            await self._note_mirror(tx, row, RunState.RUNNING)
            await self._journal.fact(tx, Fact.RUN_STARTED, ids=live.ids, data={"kind": row.kind})
            return True

        begun = False
        try:
            begun = await self._db.write(begin)
        finally:
            if not begun:
                del self._live[row.id]
        if not begun:
            return
        self._tasks[row.id] = group.create_task(self._execute(live), name=f"run {row.id}")

    async def _note_mirror(self, tx: Tx, row: RunRow, state: RunState) -> None:
        if row.mirror_id is not None and row.kind is RunKind.MIRROR:
            await catalog.note_mirror(tx, row.mirror_id, {"state": state, "last_run_id": row.id})

    async def _execute(self, live: LiveRun) -> None:
        live.at_work = True
        outcome = await self._outcome(live)
        self._tasks.pop(live.id, None)  # what is being written down is not to be cancelled by a stop
        self._hub.forget_progress(live.id)

        async def end(tx: Tx) -> None:
            row = await live.finish(tx, outcome)
            if outcome.error is not None and outcome.error.kind == Interrupted.kind:
                row, _ = await self._queue_again(tx, row)
            await self.ended(tx, row)

        try:
            while True:
                try:
                    await self._db.write(end)
                    break
                except FirthError as error:
                    log.error("the end of run %s could not be written: %s", live.id, error.message)
                    if self._closing:
                        break  # the next start finds it open and settles it
                await self._clock.sleep(RETRY_S)
        finally:
            self._live.pop(live.id, None)
            live.ended.set()
            self._told_end(live.id)
            self._wake.set()

    async def _outcome(self, live: LiveRun) -> Outcome:
        try:
            if live.stopping:
                return Outcome(state=RunState.STOPPED)
            return await self._executors[live.row.kind](live)
        except asyncio.CancelledError:
            if live.stopping:
                return Outcome(state=RunState.STOPPED)
            return Outcome(state=RunState.FAILED, error=INTERRUPTED)
        except FirthError as error:
            return Outcome(state=RunState.FAILED, error=run_error(error))
        except Exception as error:
            if told := disk.told(error):
                return Outcome(state=RunState.FAILED, error=run_error(told))
            correlation = uuid4().hex[:12]
            log.exception("run %s failed unforeseen (%s)", live.id, correlation)
            return Outcome(state=RunState.FAILED, error=unforeseen(correlation))

    async def ended(self, tx: Tx, row: RunRow) -> int:
        """Write what follows from the end of a run; return the number of its fact."""
        ids: Json = {"run": row.id, "channel": row.channel}
        if row.mirror_id is not None:
            ids["mirror"] = row.mirror_id
            if row.kind is RunKind.MIRROR:
                changes: Json = {}
                newest = await catalog.mirror_by_id(tx, row.mirror_id)
                if newest is not None and newest.last_run_id == row.id:
                    changes["state"] = row.state
                if row.state is RunState.COMPLETED:
                    changes["last_success_at"] = row.finished_at
                if changes:
                    await catalog.note_mirror(tx, row.mirror_id, changes)
        error = msgspec.to_builtins(row.error) if row.error else None
        seq = await self._journal.fact(
            tx, Fact.RUN_FINISHED, ids=ids, data={"kind": row.kind, "state": row.state, "error": error}
        )
        if self._on_end is not None:
            await self._on_end(tx, row)
        return seq

    def _told_end(self, run_id: int) -> None:
        waiter = self._waiters.pop(run_id, None)
        if waiter is not None:
            waiter.set()


async def log_page(r: Reader, run_id: int, after: int, cursor: str | None, limit: int) -> Cut[LogLine]:
    """Return a page of what a run has said, from behind line `after`, or behind the cursor."""
    behind = paging.decode(cursor, "log")["page_key"]
    lines = await runs.log_page(r, run_id, after if behind is None else behind, limit + 1)
    items, following = paging.cut("log", lines, limit, lambda line: (None, line.number))
    return Cut(items=items, following=following)
