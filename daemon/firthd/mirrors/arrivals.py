"""The only place that writes down which parts of an index have come while others are still on their way."""

import asyncio

from firthd.clock import Clock
from firthd.mirrors.context import Context
from firthd.mirrors.source import Job, rules_of
from firthd.store import catalog
from firthd.store.catalog import SourceIndexRow
from firthd.store.database import Database, Tx
from firthd.upstream.failures import http_date_ms

EVERY_S = 0.25
"""Seconds of which small parts share a transaction: a crash makes those come anew."""


class Arrivals:
    """Writes down parts that have come, unless the mirror was edited since the run began.

    `small`: they are many and small, and a transaction for each would cost more than they do; they share one.
    """

    def __init__(self, db: Database, job: Job, clock: Clock, *, small: bool) -> None:
        self._db = db
        self._job = job
        self._clock = clock
        self._every_s = EVERY_S if small else 0.0
        self._written = float("-inf")  # monotonic seconds
        self._rows: list[SourceIndexRow] = []
        self._writing = asyncio.Lock()

    async def __call__(self, row: SourceIndexRow) -> None:
        """Return once a part is written down, or will be with others soon."""
        self._rows.append(row)
        if not self._every_s or self._clock.monotonic() - self._written >= self._every_s:
            self._written = self._clock.monotonic()
            await self.settle()

    async def settle(self) -> None:
        """Return once all that has come is written down."""
        async with self._writing:
            if not self._rows:
                return  # it went with those before
            rows, self._rows = self._rows, []
            try:
                await self._db.write(lambda tx: self._write(tx, rows))
            except BaseException:
                self._rows = rows + self._rows  # whoever waits tries again, or is told the same
                raise

    async def _write(self, tx: Tx, rows: list[SourceIndexRow]) -> None:
        mirror = await catalog.mirror_by_id(tx, self._job.mirror_id)
        if mirror is None or not self._job.still_that_of(mirror):
            return
        seen = mirror.source_seen or 0
        await catalog.note_fetched(tx, self._job.mirror_id, rows)
        for row in rows:
            seen = max(seen, http_date_ms(row.last_modified) or 0)
        if seen > (mirror.source_seen or 0):
            await catalog.note_mirror(tx, self._job.mirror_id, {"source_seen": seen})


def arrivals(context: Context, job: Job) -> Arrivals:
    """Return what writes down the parts of a mirror's source."""
    small = rules_of(context.families, job.type).small_parts
    return Arrivals(context.db, job, context.clock, small=small)
