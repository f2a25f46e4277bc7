"""The only place that deletes a mirror: its runs end, it is gone, and a run takes its artifacts along."""

from firth_protocol.errors import ChannelFrozen, Invalid, WrongState
from firth_protocol.events import Fact
from firth_protocol.methods import MirrorDelete, MirrorDeleteReply
from firthd.channels import browse
from firthd.channels.blocks import Blocks
from firthd.clock import Clock
from firthd.mirrors.delete_run import queue_deletion
from firthd.mirrors.report import find
from firthd.runs.halt import halt
from firthd.runs.queue import RunQueue
from firthd.store import blocks, catalog, hand_over
from firthd.store.catalog import DeletedMirror, MirrorRow
from firthd.store.database import Database, Reader, Tx, more_to_come
from firthd.store.journal import Journal, newest
from firthd.store.secrets import SecretFile, Secrets


class Removals:
    """Deletes mirrors, each once at a time."""

    def __init__(
        self,
        db: Database,
        journal: Journal,
        clock: Clock,
        queue: RunQueue,
        secrets: SecretFile,
        held_blocks: Blocks,
    ) -> None:
        self._db = db
        self._journal = journal
        self._clock = clock
        self._queue = queue
        self._secrets = secrets
        self._blocks = held_blocks
        self._under_way: set[int] = set()

    def check(self, mirror: MirrorRow) -> None:
        """Raise WrongState for a mirror that is being deleted: its rows are on their way out."""
        if mirror.id in self._under_way:
            raise WrongState(f"{mirror.channel}:{mirror.name} is being deleted", hint="wait for the end of that")

    async def delete(self, params: MirrorDelete, by: str) -> MirrorDeleteReply:
        """Delete a mirror; its stored artifacts stay with the channel, or all of its artifacts go."""
        row = await self._db.read(lambda r: find(r, params.mirror))
        if params.confirm != row.name:
            raise Invalid(
                f"confirm is {params.confirm!r}", hint=f"write {row.name!r} to confirm the deletion", path="$.confirm"
            )
        await self._db.read(lambda r: _not_frozen(r, row))
        keep = params.packages == "keep"
        if params.dry_run:
            kept, dropped = await self._db.read(lambda r: hand_over.would_keep(r, row.channel_id, row.id))
            if not keep:
                kept, dropped = 0, kept + dropped
            return MirrorDeleteReply(kept=kept, dropped=dropped, seq=await self._db.read(newest))
        self.check(row)
        self._under_way.add(row.id)
        try:
            with more_to_come():
                await halt(self._db, self._queue, lambda run: run.mirror_id == row.id)
            kept, dropped = await self._db.read(lambda r: hand_over.would_keep(r, row.channel_id, row.id))
            run_id, seq = await self._db.write(lambda tx: self._mark(tx, row, by, keep=keep))
            if not keep:
                kept, dropped = 0, kept + dropped
                await self._blocks.load()
        finally:
            self._under_way.discard(row.id)
        await self._secrets.put(row.id, Secrets())
        return MirrorDeleteReply(kept=kept, dropped=dropped, run=await self._queue.get(run_id), seq=seq)

    async def _mark(self, tx: Tx, row: MirrorRow, by: str, *, keep: bool) -> tuple[int, int]:
        """Let the mirror be gone for everybody, and queue what becomes of its artifacts."""
        await _not_frozen(tx, row)
        await catalog.mark_mirror_deleted(tx, row.id, self._clock.now_ms())
        if not keep:
            await blocks.refuse_mirror(tx, row.id)
        ids = {"channel": row.channel, "mirror": row.id}
        seq = await self._journal.fact(tx, Fact.MIRROR_DELETED, ids=ids, data={"name": row.name})
        deleted = DeletedMirror(
            id=row.id, channel_id=row.channel_id, channel=row.channel, name=row.name, refused=not keep
        )
        return await queue_deletion(tx, self._queue, deleted, by), seq


async def _not_frozen(r: Reader, row: MirrorRow) -> None:
    channel = await browse.channel(r, row.channel)
    if channel.frozen_at is not None:
        raise ChannelFrozen(f"{row.channel} is frozen", hint="unfreeze it, then delete the mirror")
