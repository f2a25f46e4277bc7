"""A queue of runs whose runs do what a test tells them: no source, no daemon around it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from firth_protocol.types import Event, RunKind, RunState
from firthd.events import EventHub
from firthd.runs.queue import RunQueue
from firthd.runs.run import LiveRun, Outcome
from firthd.store import catalog
from firthd.store import runs as rows
from firthd.store.catalog import MirrorRow
from firthd.store.database import Database, Tx
from firthd.store.journal import Journal, span
from firthd.store.runs import RunRow
from tests.support.clock import FakeClock
from tests.support.state import add_channel, add_mirror, opened

MIRROR = RunKind.MIRROR


class Works:
    """A queue over a state with three mirrors, whose runs do what a test tells them."""

    def __init__(self, db: Database, *, max_active: int = 2, resume: bool = True) -> None:
        self.db = db
        self.clock = FakeClock()
        self.journal = Journal("e", self.clock)
        self.hub = EventHub("e", self.clock, self._replay, lambda: db.read(span))
        self.facts: list[Event] = []
        self.journal.publish = self._heard
        self.queue = RunQueue(db, self.journal, self.hub, self.clock, max_active=max_active, resume=resume)
        self.started: list[int] = []
        self.live: dict[int, LiveRun] = {}
        self.cancelled: list[int] = []
        self._outcomes: dict[int, asyncio.Future[Outcome]] = {}
        self.at_end: list[tuple[int, RunState]] = []
        self.holding_end: asyncio.Event | None = None
        self.queue.connect(dict.fromkeys(RunKind, self._execute), self._ended)

    async def _replay(self, after: int, limit: int) -> list[tuple[int, Event]]:
        return await self.db.read(lambda r: self.journal.after(r, after, limit))

    def _heard(self, seq: int, event: Event) -> None:
        self.facts.append(event)
        self.hub.publish(seq, event)

    async def _execute(self, live: LiveRun) -> Outcome:
        self.started.append(live.id)
        self.live[live.id] = live
        try:
            return await self._outcome(live.id)
        except asyncio.CancelledError:
            self.cancelled.append(live.id)
            raise

    async def _ended(self, tx: Tx, row: RunRow) -> None:
        self.at_end.append((row.id, row.state))
        if self.holding_end is not None:
            await self.holding_end.wait()

    def _outcome(self, run: int) -> asyncio.Future[Outcome]:
        if run not in self._outcomes:
            self._outcomes[run] = asyncio.get_running_loop().create_future()
        return self._outcomes[run]

    # --- what tests say

    async def submit(self, kind: RunKind = MIRROR, mirror: int | None = 1, **fields: Any) -> int:
        async def body(tx: Tx) -> int:
            return (
                await self.queue.submit(
                    tx, kind, channel_id=1, channel="main", mirror_id=mirror, cause="by hand", by="ada", **fields
                )
            )[0]

        return await self.db.write(body)

    def end(self, run: int, outcome: Outcome | Exception | None = None) -> None:
        """Let a run end, whether it has started or not."""
        if isinstance(outcome, Exception):
            self._outcome(run).set_exception(outcome)
        else:
            self._outcome(run).set_result(outcome or Outcome())

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not condition():
                await asyncio.sleep(0)

    async def state(self, run: int) -> RunState:
        """Return the state of a run as it is written down."""
        return (await self.row(run)).state

    async def row(self, run: int) -> RunRow:
        row = await self.db.read(lambda r: rows.run_by_id(r, run))
        assert row is not None
        return row

    async def mirror(self, mirror: int = 1) -> MirrorRow:
        row = await self.db.read(lambda r: catalog.mirror_by_id(r, mirror))
        assert row is not None
        return row

    async def ended(self, run: int) -> RunState:
        async with asyncio.timeout(5):
            return (await self.queue.wait(run)).state

    def told(self, run: int) -> list[str]:
        return [event.type for event in self.facts if event.ids.get("run") == run]

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Let the queue work while the block lasts; then it is stopped as the daemon stops it."""
        async with asyncio.timeout(9), asyncio.TaskGroup() as group:
            serving = group.create_task(self.queue.serve())
            try:
                yield
            finally:
                if self.holding_end is not None:
                    self.holding_end.set()
                serving.cancel()


@asynccontextmanager
async def runs_state(folder: Path) -> AsyncIterator[Database]:
    """Give a state with the channel `main`, which has the mirrors 1 to 3."""
    async with opened(folder) as database:
        await database.write(_fill)
        yield database


async def _fill(tx: Tx) -> None:
    channel = await add_channel(tx)
    for name in ("one", "two", "three"):
        await add_mirror(tx, channel, name)
