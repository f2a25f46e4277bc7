"""The only place that carries out runs which only publish: a draft, an earlier generation, what a stopped run left."""

import asyncio
import shutil
from pathlib import Path

from firth_protocol.types import Cause, MirrorMode, RunKind, StepName
from firthd.channels.publish import Publication
from firthd.mirrors.context import Context
from firthd.mirrors.source import Job
from firthd.mirrors.take_in import TakeIn
from firthd.runs.queue import RunQueue
from firthd.runs.run import LiveRun, Outcome
from firthd.store import catalog, generations, runs
from firthd.store.database import Reader, Tx


class PublishRuns:
    """Executes runs of kind publish and rollback, and queues those that follow from a stopped run."""

    def __init__(self, context: Context) -> None:
        self._p = context
        self._taking_in = TakeIn(context)

    async def publish(self, live: LiveRun) -> Outcome:
        """Publish a channel's draft, after taking in what a stopped run left if that is what this run is for."""
        from_run = live.row.params.get("from_run")
        if from_run is not None:
            await self._take_in_stopped(live, int(from_run))
        cause = Cause.RUN if from_run is not None else Cause(live.row.params.get("cause", Cause.UNFREEZE))
        return await self._publish_only(live, cause, None)

    async def rollback(self, live: LiveRun) -> Outcome:
        """Publish an earlier generation again and freeze the channel."""
        return await self._publish_only(live, Cause.ROLLBACK, int(live.row.params["generation"]))

    async def queue_rest(self, live: LiveRun, job: Job) -> None:
        """Queue the run that publishes what a stopped run has brought so far."""

        async def body(tx: Tx) -> None:
            await self._p.queue.submit(
                tx,
                RunKind.PUBLISH,
                channel_id=job.channel_id,
                channel=job.channel,
                mirror_id=job.mirror_id,
                cause=f"run {live.id} was stopped, its files are published",
                by=live.row.by,
                params={"from_run": live.id},
            )

        await asyncio.shield(self._p.db.write(body))

    async def _take_in_stopped(self, live: LiveRun, run_id: int) -> None:
        """Copy what a stopped run brought: additions only, nothing that replaces or removes."""
        folder = self._p.run_folder(run_id)
        try:
            await self._take_in(live, run_id, folder / "run.sqlite")
        except asyncio.CancelledError:
            if live.stopping:
                await asyncio.shield(asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True))
            raise  # interrupted, it is queued again and needs the file
        except BaseException:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
            raise
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    async def _take_in(self, live: LiveRun, run_id: int, run_file: Path) -> None:
        if not await asyncio.to_thread(run_file.exists):
            live.log("the stopped run had not compared anything yet; there is nothing to take in")
            return
        job = await self._p.job(live.row.mirror_id)

        async def outdated(r: Reader) -> bool:
            return await generations.taken_in_since(r, job.mirror_id, run_id) or await runs.mirrored_since(
                r, job.mirror_id, run_id
            )

        if await self._p.db.read(outdated):
            live.log("what the stopped run compared is written already, by itself or by a run after it")
            return

        async def also(tx: Tx) -> None:
            await catalog.note_mirror(tx, job.mirror_id, {"settled": False})

        active = job.mode is MirrorMode.ACTIVE
        copied = await self._taking_in.take_in(live, job, run_file, also, closings=False, only_stored=active)
        live.count(added=copied.added)
        await self._taking_in.count(job.channel_id, job.mirror_id)

    async def _publish_only(self, live: LiveRun, cause: Cause, roll_back_to: int | None) -> Outcome:
        channel_id = live.row.channel_id
        assert channel_id is not None
        async with live.step(StepName.PUBLISH, "waits for its turn"):
            publication = await self._taking_in.publish(live, channel_id, cause, roll_back_to)
            if publication.published:
                row = publication.generation
                live.count(added=row.added, removed=row.removed)
            live.progress(told(publication))
        async with live.step(StepName.CLEAN):
            gone = await self._taking_in.clean_channel(channel_id)
            live.progress(cleaned(gone))
        return Outcome(generation=publication.generation.number if publication.published else None)


def told(publication: Publication) -> str:
    """Return the sentence about what came of a publication."""
    if not publication.published:
        return publication.reason
    return f"generation {publication.generation.number}, {publication.index_files:,} index files"


def cleaned(gone: int) -> str:
    """Return the sentence about files that were taken away."""
    return f"{gone:,} files that nothing needs were taken away" if gone else "nothing to take away"


async def queue_rendering_anew(tx: Tx, queue: RunQueue) -> None:
    """Queue the publication of each channel whose indexes a migration found wrong."""
    for channel in await catalog.all_to_render_anew(tx):
        await queue.submit(
            tx,
            RunKind.PUBLISH,
            channel_id=channel.id,
            channel=channel.name,
            cause="its index was not as clients need it",
            by="firthd",
            params={"cause": Cause.REMOVAL},
        )
