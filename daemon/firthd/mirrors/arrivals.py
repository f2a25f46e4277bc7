"""The only place that writes down which parts of an index have come while others are still on their way."""

import asyncio

from firthd.mirrors.source import Job
from firthd.store import catalog
from firthd.store.catalog import SourceIndexRow
from firthd.store.database import Database, Tx
from firthd.upstream.failures import http_date_ms

GATHERED = 64
"""Small parts that are written down together: at most so many come twice after a crash."""


class Arrivals:
    """Writes down parts that have come, unless the mirror was edited since the run began.

    `small`: there are many of them, and a few together are written down.
    """

    def __init__(self, db: Database, job: Job, *, small: bool = False) -> None:
        self._db = db
        self._job = job
        self._small = small
        self._rows: list[SourceIndexRow] = []
        self._writing = asyncio.Lock()

    async def __call__(self, row: SourceIndexRow, *, lists: bool = False) -> None:
        """Return once a part is written down, or waits for others to be written down with."""
        self._rows.append(row)
        if not self._small or len(self._rows) >= GATHERED:
            await self.all()

    async def all(self) -> None:
        """Return once every part is written down."""
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
