"""The only place that deletes a mirror: its runs end, its artifacts go on as the channel's own or are closed."""

import asyncio
from collections import defaultdict

from firth_protocol.errors import ChannelFrozen, Invalid, WrongState
from firth_protocol.events import Fact
from firth_protocol.methods import MirrorDelete, MirrorDeleteReply
from firth_protocol.types import Cause, RunKind
from firthd.channels import browse
from firthd.channels.blocks import Blocks
from firthd.clock import Clock
from firthd.families.base import COLUMNS
from firthd.mirrors.report import find
from firthd.mirrors.take_in import TakeIn
from firthd.runs.halt import halt
from firthd.runs.queue import RunQueue
from firthd.store import blocks, catalog, generations, hand_over
from firthd.store.artifacts import Copied
from firthd.store.catalog import MirrorRow
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
        take_in: TakeIn,
        secrets: SecretFile,
        held_blocks: Blocks,
    ) -> None:
        self._db = db
        self._journal = journal
        self._clock = clock
        self._queue = queue
        self._take_in = take_in
        self._secrets = secrets
        self._blocks = held_blocks
        self._under_way: set[int] = set()
        self._turns: defaultdict[int, asyncio.Lock] = defaultdict(asyncio.Lock)  # by channel

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
            async with self._turns[row.channel_id]:  # two at once would hand the same file to the channel twice
                return await self._delete(row, by, keep=keep)
        finally:
            self._under_way.discard(row.id)

    async def _delete(self, row: MirrorRow, by: str, *, keep: bool) -> MirrorDeleteReply:
        with more_to_come():
            await self._take_in.discard_abandoned(row.channel_id)
            change_set = await self._db.write(
                lambda tx: generations.open_change_set(
                    tx,
                    channel_id=row.channel_id,
                    mirror_id=row.id,
                    run_id=None,
                    cause=Cause.REMOVAL,
                    now_ms=self._clock.now_ms(),
                )
            )
        try:
            with more_to_come():
                handed = await hand_over.hand_over(
                    self._db,
                    columns=COLUMNS,
                    channel_id=row.channel_id,
                    mirror_id=row.id,
                    change_set=change_set,
                    keep=keep,
                    clock=self._clock,
                )
            run_id, seq = await self._db.write(
                lambda tx: self._finish(tx, row, by, change_set, handed.copied, keep=keep)
            )
            if not keep:
                await self._blocks.load()
        except BaseException:
            with more_to_come():
                await asyncio.shield(self._db.write(lambda tx: generations.mark_abandoned(tx, change_set)))
            raise
        await self._secrets.put(row.id, Secrets())
        run = await self._queue.get(run_id) if run_id else None
        return MirrorDeleteReply(kept=handed.kept, dropped=handed.dropped, run=run, seq=seq)

    async def _finish(
        self, tx: Tx, row: MirrorRow, by: str, change_set: int, copied: Copied, *, keep: bool
    ) -> tuple[int | None, int]:
        await _not_frozen(tx, row)
        await generations.finish_change_set(
            tx, change_set, added=copied.added, closed=copied.closed, now_ms=self._clock.now_ms()
        )
        await catalog.mark_mirror_deleted(tx, row.id, self._clock.now_ms())
        if not keep:
            await blocks.refuse_mirror(tx, row.id)
        ids = {"channel": row.channel, "mirror": row.id}
        seq = await self._journal.fact(tx, Fact.MIRROR_DELETED, ids=ids, data={"name": row.name})
        run_id = None
        if copied.closed or copied.offers:
            run_id, _ = await self._queue.submit(
                tx,
                RunKind.PUBLISH,
                channel_id=row.channel_id,
                channel=row.channel,
                cause=f"mirror {row.name} was deleted",
                by=by,
                params={"cause": Cause.REMOVAL},
            )
        return run_id, seq


async def _not_frozen(r: Reader, row: MirrorRow) -> None:
    channel = await browse.channel(r, row.channel)
    if channel.frozen_at is not None:
        raise ChannelFrozen(f"{row.channel} is frozen", hint="unfreeze it, then delete the mirror")
