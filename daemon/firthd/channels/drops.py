"""The only place that takes away what no kept generation of a channel names any more: rows here, their files later."""

import itertools
import logging
from collections.abc import Sequence

from firthd.channels.published import Published
from firthd.clock import Clock
from firthd.store import catalog, generations, object_files, objects, summaries
from firthd.store.catalog import ChannelRow
from firthd.store.database import Database
from firthd.store.incoming import BlobMismatch
from firthd.store.object_store import ObjectStore

log = logging.getLogger(__name__)


def gaps(kept: Sequence[int], dropped: Sequence[int]) -> list[tuple[int, int]]:
    """Return (low, high) of the neighbouring kept generations around dropped ones; low is 0 where none is older."""
    ends = [0, *sorted(kept)]
    return [(low, high) for low, high in itertools.pairwise(ends) if any(low < number < high for number in dropped)]


class Retention:
    """Drops generations of a channel. Nothing else may publish the channel meanwhile."""

    def __init__(self, db: Database, store: ObjectStore, published: Published, clock: Clock, grace_ms: int) -> None:
        self._db = db
        self._store = store
        self._published = published
        self._clock = clock
        self._grace_ms = grace_ms
        self._looked_over: set[int] = set()

    async def drop(self, channel_id: int, to_drop: list[int]) -> int:
        """Forget generations, and all that only they showed; return how many files are about to go."""
        now = self._clock.now_ms()
        await self._db.write(lambda tx: generations.drop_generations(tx, channel_id, to_drop))
        channel = await self._db.read(lambda r: catalog.channel_by_id(r, channel_id))
        if channel is None:
            return 0
        # A crash, or an error, may have come between two of the steps: all is looked over until it has been done once.
        first = channel_id not in self._looked_over
        self._looked_over.discard(channel_id)
        kept = [number for number, _, _ in await self._db.read(lambda r: generations.kept_generations(r, channel_id))]
        gone = range(1, channel.generation) if first else to_drop
        try:
            touched = await self._take_away(channel, kept, gone, now, first=first)
        finally:
            self._published.forget_objects()  # also when it ends half-way: what has moved lies elsewhere
        self._looked_over.add(channel_id)
        return len(touched)

    async def _take_away(
        self, channel: ChannelRow, kept: Sequence[int], gone: Sequence[int], now: int, *, first: bool
    ) -> set[bytes]:
        touched: set[bytes] = set()
        channel_id = channel.id
        await objects.take_back(self._db, channel_id, channel.generation, now)
        for low, high in gaps(kept, gone):
            touched |= await object_files.drop_between(self._db, channel_id, low, high, now)
            await summaries.drop_between(self._db, channel_id, low, high)
        touched |= await object_files.drop_lasting(self._db, channel_id, now - self._grace_ms, now)
        await object_files.keep_packed_only(self._db, channel_id, channel.generation, now)
        try:
            await self._store.tidy_packs(channel_id, None if first else touched)
            await self._store.unpack(channel_id)
        except (OSError, BlobMismatch) as error:  # a damaged file, a full disk: what is served stays as it is
            log.error("objects of %s stay where they are: %s", channel.name, error)
        return touched
