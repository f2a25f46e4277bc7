"""The only place that lets files go which nobody has asked for in long: they are fetched again on request."""

import asyncio
import logging
from collections.abc import Callable, Collection
from functools import partial

from firthd.clock import Clock
from firthd.mirrors.take_in import TakeIn
from firthd.store import asked
from firthd.store.artifacts import FileRow
from firthd.store.asked import Drops
from firthd.store.blobs import BlobStore
from firthd.store.database import Database

log = logging.getLogger(__name__)

DAY_MS = 86_400_000
BATCH = 1000
"""Files noted in one transaction."""


class Unused:
    """Counts, by day, which files are asked for; only of mirrors that drop what is not."""

    def __init__(
        self, db: Database, clock: Clock, blobs: BlobStore, take_in: TakeIn, forget_files: Callable[[], None]
    ) -> None:
        self._db = db
        self._clock = clock
        self._blobs = blobs
        self._take_in = take_in
        self._forget_files = forget_files
        self._mirrors: frozenset[int] = frozenset()
        self._asked: set[tuple[int, str]] = set()
        self._looked_on = -1  # day

    def note(self, file: FileRow) -> None:
        """A client asks for a file."""
        if file.mirror_id in self._mirrors and file.sha256 is not None:
            self._asked.add((file.channel_id, file.sha256))

    async def look(self) -> None:
        """Write down what was asked for; once a day drop what was not."""
        today = self._clock.now_ms() // DAY_MS
        drops = await self._db.read(asked.dropping)
        news = frozenset(one.mirror_id for one in drops) - self._mirrors
        self._mirrors = frozenset(one.mirror_id for one in drops)
        taken, self._asked = list(self._asked), set()
        while taken:
            some, taken = taken[:BATCH], taken[BATCH:]
            try:
                await self._db.write(partial(asked.note, asked=some, day=today))
            except BaseException:
                self._asked.update(some, taken)
                raise
        if today == self._looked_on and not news:
            return
        self._looked_on = today
        channels = {one.channel_id for one in drops}
        await self._db.write(lambda tx: asked.forget_others(tx, channels))
        for one in drops:
            await self._drop(one, today)

    async def _drop(self, drops: Drops, today: int) -> None:
        after = gone = 0
        before = today - drops.days
        while page := await self._db.read(partial(asked.page, drops=drops, after=after)):
            after = page[-1].artifact_id
            unseen = [(drops.channel_id, one.sha256) for one in page if one.day is None]
            if unseen:  # nobody has counted so far: it counts as used today
                await self._db.write(partial(asked.note, asked=unseen, day=today))
            gone += await self._let_go(drops, [one.sha256 for one in page if (one.day or today) < before], before)
        if gone:
            log.info("%d files of mirror %d were dropped: nobody asked for them", gone, drops.mirror_id)
            await self._take_in.count(drops.channel_id, drops.mirror_id)

    async def _let_go(self, drops: Drops, digests: Collection[str], before: int) -> int:
        if not digests:
            return 0
        now = self._clock.now_ms()
        gone, nobodys = await self._db.write(lambda tx: asked.let_go(tx, drops, digests, before))
        self._forget_files()
        # What comes again from now on is younger than this, and stays.
        await asyncio.shield(asyncio.to_thread(lambda: [self._blobs.take_away(one, now) for one in nobodys]))
        return gone
