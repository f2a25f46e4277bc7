"""The only place that carries out runs of kind delete: a deleted mirror's artifacts go on as the channel's, or go."""

import asyncio
from collections import defaultdict
from functools import partial

from firth_protocol.types import Cause, RunKind, StepName
from firthd.families.base import COLUMNS
from firthd.mirrors.context import Context
from firthd.mirrors.publish_run import cleaned, told
from firthd.mirrors.take_in import TakeIn
from firthd.runs.queue import RunQueue
from firthd.runs.run import LiveRun, Outcome
from firthd.store import catalog, generations, hand_over, marks, runs
from firthd.store.catalog import DeletedMirror
from firthd.store.database import Tx

AGAIN_S = 3600.0
"""How soon what a deletion has left is taken up again, when its run came to no end."""


class DeleteRuns:
    """Executes runs of kind delete, in short transactions, so that everybody else goes on."""

    def __init__(self, context: Context) -> None:
        self._p = context
        self._take_in = TakeIn(context)
        # Two at once would hand the same file to the channel twice.
        self._turns: defaultdict[int, asyncio.Lock] = defaultdict(asyncio.Lock)  # by channel
        self._taken_up: dict[int, float] = {}  # mirror -> monotonic seconds

    async def run(self, live: LiveRun) -> Outcome:
        """Hand a deleted mirror's artifacts over, publish that, take away what is not needed."""
        channel_id, mirror_id = live.row.channel_id, int(live.row.params["mirror"])
        assert channel_id is not None
        async with live.step(StepName.PLAN, "waits for its turn"):
            async with self._turns[channel_id]:
                live.progress("looks at what stays")
                handed = await self._hand_over(live, channel_id, mirror_id)
                if self._p.policies.judges_own(channel_id):
                    await self._take_in.judge_own(channel_id, live.id)
            total = handed.kept + handed.dropped
            live.progress(f"{handed.kept:,} files stay, {handed.dropped:,} do not", done=total, total=total)
        async with live.step(StepName.PUBLISH, "waits for its turn"):
            publication = await self._take_in.publish(live, channel_id, Cause.REMOVAL, None)
            if publication.published:
                live.count(added=publication.generation.added, removed=publication.generation.removed)
            live.progress(told(publication))
        async with live.step(StepName.CLEAN):
            live.progress(cleaned(await self._take_in.clean_channel(channel_id)))
        result = {"kept": handed.kept, "dropped": handed.dropped}
        generation = publication.generation.number if publication.published else None
        return Outcome(result=result, generation=generation)

    async def _hand_over(self, live: LiveRun, channel_id: int, mirror_id: int) -> hand_over.HandedOver:
        await self._take_in.discard_abandoned(channel_id)
        change_set = await self._p.db.write(
            lambda tx: generations.open_change_set(
                tx,
                channel_id=channel_id,
                mirror_id=mirror_id,
                run_id=live.id,
                cause=Cause.REMOVAL,
                now_ms=self._p.clock.now_ms(),
            )
        )
        try:
            handed = await hand_over.hand_over(
                self._p.db,
                columns=COLUMNS,
                channel_id=channel_id,
                mirror_id=mirror_id,
                change_set=change_set,
                keep=bool(live.row.params["keep"]),
                clock=self._p.clock,
            )
            copied = handed.copied
            renewed = await self._p.db.read(lambda r: marks.spoken_of(r, mirror_id))
            await self._p.db.write(
                lambda tx: generations.finish_change_set(
                    tx,
                    change_set,
                    added=copied.added,
                    closed=copied.closed,
                    renewed=renewed,
                    now_ms=self._p.clock.now_ms(),
                )
            )
        except BaseException:
            await asyncio.shield(self._p.db.write(lambda tx: generations.mark_abandoned(tx, change_set)))
            raise
        return handed

    async def take_up(self) -> None:
        """Queue what a stopped, failed or lost run of a deletion has left."""
        now = self._p.clock.monotonic()
        left = [
            one
            for one in await self._p.db.read(catalog.deleted_with_artifacts)
            if now - self._taken_up.get(one.id, -AGAIN_S) >= AGAIN_S
        ]

        async def body(tx: Tx, one: DeletedMirror) -> None:
            for run in await runs.open_runs(tx):
                if run.kind is RunKind.DELETE and run.params.get("mirror") == one.id:
                    return
            await queue_deletion(tx, self._p.queue, one, "firthd")

        for one in left:
            self._taken_up[one.id] = now
            await self._p.db.write(partial(body, one=one))


async def queue_deletion(tx: Tx, queue: RunQueue, mirror: DeletedMirror, by: str) -> int:
    """Queue the run that settles what becomes of a deleted mirror's artifacts; return its id."""
    run_id, _ = await queue.submit(
        tx,
        RunKind.DELETE,
        channel_id=mirror.channel_id,
        channel=mirror.channel,
        cause=f"mirror {mirror.name} was deleted",
        by=by,
        params={"mirror": mirror.id, "keep": not mirror.refused},
    )
    return run_id
