"""The only place that takes packages out of a channel by a spec, and brings them back: the block, then its run."""

from collections.abc import Sequence

from firth_protocol.errors import Invalid, NotFound
from firth_protocol.events import Fact
from firth_protocol.methods import PackageRemove, PackageRemoveReply, PackageRestore
from firth_protocol.types import Cause, RunKind, StepName
from firthd.channels import browse
from firthd.channels.blocks import Blocks
from firthd.mirrors.context import Context
from firthd.mirrors.publish_run import cleaned, told
from firthd.mirrors.take_in import TakeIn
from firthd.runs.run import LiveRun, Outcome
from firthd.store import blocks
from firthd.store.blocks import BlockRow, Judged
from firthd.store.catalog import ChannelRow
from firthd.store.database import Tx
from firthd.store.journal import newest

FILES_SHOWN = 1000


class Removal:
    """Removes and restores packages, and executes runs of kind remove."""

    def __init__(self, context: Context) -> None:
        self._p = context
        self._blocks: Blocks = context.blocks
        self._take_in = TakeIn(context)

    async def remove(self, params: PackageRemove, by: str) -> PackageRemoveReply:
        """Block what a spec means: its files are refused at every address when this returns. Raises Invalid."""
        channel = await self._p.db.read(lambda r: browse.channel(r, params.channel))
        row = BlockRow(
            id=0,
            channel_id=channel.id,
            family=params.family,
            spec=params.spec,
            by=by,
            at=self._p.clock.now_ms(),
            note=params.note,
        )
        self._blocks.judge(row)
        found = await self._blocks.taken_out(channel.id, [row])
        frozen = bool(found) and channel.frozen_at is not None
        if params.dry_run:
            return await self._reply(found, None, await self._p.db.read(newest), frozen=frozen)

        async def body(tx: Tx) -> tuple[int, int]:
            await blocks.insert(tx, row)
            ids, data = {"channel": channel.name}, {"spec": row.spec, "family": row.family, "files": len(found)}
            seq = await self._p.journal.fact(tx, Fact.PACKAGE_REMOVED, ids=ids, data=data)
            return await self._queue(tx, channel, f"{row.spec} was removed", by), seq

        run, seq = await self._p.db.write(body)
        await self._blocks.load()
        return await self._reply(found, run, seq, frozen=frozen)

    async def restore(self, params: PackageRestore, by: str) -> PackageRemoveReply:
        """Lift a block: what it had taken out is shown again. Raises NotFound when there is no such block."""
        channel = await self._p.db.read(lambda r: browse.channel(r, params.channel))
        there = await self._p.db.read(lambda r: blocks.every(r, channel.id))
        if not any((row.family, row.spec) == (params.family, params.spec) for row in there):
            specs = ", ".join(f"`{row.spec}`" for row in there) or "none"
            raise NotFound(f"{channel.name} has no block `{params.spec}`", hint=f"its blocks: {specs}")
        if params.dry_run:
            return await self._reply([], None, await self._p.db.read(newest), frozen=False)

        async def body(tx: Tx) -> tuple[int, int]:
            await blocks.delete(tx, channel.id, params.family, params.spec)
            data = {"spec": params.spec, "family": params.family}
            seq = await self._p.journal.fact(tx, Fact.PACKAGE_RESTORED, ids={"channel": channel.name}, data=data)
            return await self._queue(tx, channel, f"{params.spec} was restored", by), seq

        run, seq = await self._p.db.write(body)
        await self._blocks.load()
        return await self._reply(await self._blocks.let_in_again(channel.id), run, seq, frozen=False)

    async def _queue(self, tx: Tx, channel: ChannelRow, cause: str, by: str) -> int:
        run, _ = await self._p.queue.submit(
            tx, RunKind.REMOVE, channel_id=channel.id, channel=channel.name, cause=cause, by=by
        )
        return run

    async def _reply(self, found: Sequence[Judged], run: int | None, seq: int, *, frozen: bool) -> PackageRemoveReply:
        return PackageRemoveReply(
            files=[f"{one.part}/{one.filename}" for one in found[:FILES_SHOWN]],
            total=len(found),
            listed_until_unfrozen=frozen,
            run=None if run is None else await self._p.queue.get(run),
            seq=seq,
        )

    async def run(self, live: LiveRun) -> Outcome:
        """Let the channel's rows be what its blocks say, and publish that."""
        channel_id = live.row.channel_id
        if channel_id is None:
            raise Invalid("a removal is of a channel")
        async with live.step(StepName.PLAN, "looks at what the blocks mean"):
            await self._blocks.load()  # whoever queued the run may still be at it
            gone = await self._take_in.take_out_blocked(channel_id, live.id)
            back = await self._take_in.let_in_unblocked(channel_id, live.id)
            let_in, left_out = await self._take_in.judge_own(channel_id, live.id)
            back, gone = back + let_in, gone + left_out
            live.count(added=back, removed=gone)
            live.progress(f"{back:,} to add, {gone:,} to remove", done=back + gone, total=back + gone)
        async with live.step(StepName.PUBLISH, "waits for its turn"):
            publication = await self._take_in.publish(live, channel_id, Cause.REMOVAL, None)
            live.progress(told(publication))
        async with live.step(StepName.CLEAN):
            live.progress(cleaned(await self._take_in.clean_channel(channel_id)))
        return Outcome(generation=publication.generation.number if publication.published else None)
