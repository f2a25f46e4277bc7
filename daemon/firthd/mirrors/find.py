"""The only place that knows how a mirror is addressed: by its id, or as `channel:name`."""

from firthd.absent import no_mirror
from firthd.runs.queue import RunQueue
from firthd.store import catalog
from firthd.store.catalog import MirrorRow
from firthd.store.database import Database, Reader


async def find(r: Reader, ref: int | str) -> MirrorRow:
    """Return the mirror that an id or `channel:name` means; raise NotFound."""
    row = None
    if isinstance(ref, int) or ref.isdecimal():
        number = int(ref) if len(str(ref)) < 19 else 0  # no id that SQLite can hold has more digits
        row = await catalog.mirror_by_id(r, number)
    elif ":" in ref:
        channel, _, name = ref.partition(":")
        row = await catalog.mirror_by_name(r, channel, name)
    if row is None:
        raise no_mirror(ref)
    return row


class Finder:
    """Finds the channel that a mirror or a run belongs to."""

    def __init__(self, db: Database, queue: RunQueue) -> None:
        self._db = db
        self._queue = queue

    async def by_mirror(self, ref: int | str) -> str:
        """Return the channel's name; raise NotFound."""
        return (await self._db.read(lambda r: find(r, ref))).channel

    async def by_run(self, run: int) -> str:
        """Return the channel's name; raise NotFound."""
        return (await self._queue.row(run)).channel
