"""The only place that judges a mirror anew by what is known of its source, without asking it."""

import asyncio
from pathlib import Path

from firth_protocol.errors import WrongState
from firth_protocol.types import Cause, StepName
from firthd.channels.policies import SWEEPS
from firthd.index.messages import ReadParams, ReadResult
from firthd.mirrors.context import Context
from firthd.mirrors.index import FetchedPart, index_of
from firthd.mirrors.judgement import judged_by
from firthd.mirrors.publish_run import told
from firthd.mirrors.run import MirrorRuns
from firthd.mirrors.source import Job, rules_of
from firthd.mirrors.take_in import TakeIn
from firthd.mirrors.wanted import brought, queue_run
from firthd.runs.run import LiveRun, Outcome
from firthd.runs.steps import STEPS
from firthd.store import catalog, generations
from firthd.store.catalog import SourceIndexRow
from firthd.store.database import Tx

SWEEP = "firthd.index.judge:sweep_task"


async def _nothing_more(tx: Tx) -> None:
    """Nothing is written beside the rows."""


class Refilters:
    """Executes runs of kind refilter: steps 3 to 8 on the copies of the source's index."""

    def __init__(self, context: Context, runs: MirrorRuns) -> None:
        self._p = context
        self._runs = runs
        self._take_in = TakeIn(context)

    async def refilter(self, live: LiveRun) -> Outcome:
        """Let a mirror's rows be what the policy in force says; raise WrongState when the copies are lost."""
        await self._p.policies.load()  # whoever queued this run may still be at it
        return await self._runs.work(live, self._sweep if live.row.params.get(SWEEPS) else self._refilter)

    async def _sweep(self, live: LiveRun, job: Job, folder: Path) -> Outcome:
        """Take out what the new rules speak against, beside a run of the mirror, which judges all at its end."""
        in_force = self._p.in_force(job)
        order = judged_by(in_force, "", self._p.clock.now_ms(), None)
        if order is None:
            return await self._nothing(live, "no policy judges the mirror any more")
        await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
        params = ReadParams(
            formats=rules_of(self._p.families, job.type).formats,
            state_db=str(self._p.db.path),
            run_file=str(folder / "run.sqlite"),
            channel_id=job.channel_id,
            mirror_id=job.mirror_id,
            spools=[],
            policy=order,
        )
        async with live.step(StepName.FILTER, "judges what the channel shows"):
            result = await self._p.workers.run(SWEEP, params, ReadResult)
            out = sum(part.judged_away for part in result.parts)
            live.progress(f"{out:,} left out", done=out, total=out)
        for name in (StepName.RESOLVE, StepName.PLAN, StepName.DOWNLOAD):
            live.skip(name, "a run of the mirror is at work: it does the rest")
        async with live.step(StepName.PUBLISH, "waits for its turn"):
            copied = await self._take_in.take_in(live, job, folder / "run.sqlite", _nothing_more)
            live.count(removed=copied.closed)
            publication = await self._take_in.publish(live, job.channel_id, Cause.POLICY, None)
            live.progress(told(publication))
        await self._take_in.count(job.channel_id, job.mirror_id)
        live.skip(StepName.CLEAN, "the run of the mirror cleans up")
        return Outcome(generation=publication.generation.number if publication.published else None)

    async def _refilter(self, live: LiveRun, job: Job, folder: Path) -> Outcome:
        if await self._p.judged_as(job) == self._p.policies.stamp(self._p.in_force(job)):
            return await self._judged_already(live, job)
        known = await self._p.db.read(lambda r: catalog.source_indexes(r, job.mirror_id))
        if not known:
            return await self._nothing(live, "the source was never read")
        lost = await asyncio.to_thread(self._lost, job, list(known.values()))
        if lost:
            raise WrongState(
                f"the copy of the source's index of {lost[0]} is lost", hint="run the mirror: it fetches the index anew"
            )
        rules = rules_of(self._p.families, job.type)
        if job.grows and not brought(rules, known):
            await queue_run(self._p, live, job)
            return await self._nothing(live, "what the policy names was never read")
        if rules.lazy is not None and any(rules.lazy.is_lazy(part, job.filters, job.mode) for part in known):
            live.note("from now on clients have packages read, and what lists them was not read yet")
            await queue_run(self._p, live, job)
        parts = [FetchedPart(row=row, changed=False) for row in known.values()]
        index = index_of(parts, rules)
        return await self._runs.carry_out(live, job, index, folder, known, None)

    async def _judged_already(self, live: LiveRun, job: Job) -> Outcome:
        """Publish what a refilter that was cut off had judged and not published; where nothing waits, do nothing."""
        why = "judged by this policy already"
        if not await self._p.db.read(lambda r: generations.finished_change_sets(r, job.channel_id)):
            return await self._nothing(live, why)
        for name in STEPS[live.row.kind]:
            if name is StepName.PUBLISH:
                async with live.step(name, "waits for its turn"):
                    publication = await self._take_in.publish(live, job.channel_id, Cause.POLICY, None)
                    live.progress(told(publication))
            else:
                live.skip(name, why)
        await self._take_in.count(job.channel_id, job.mirror_id)
        return Outcome(generation=publication.generation.number if publication.published else None)

    def _lost(self, job: Job, rows: list[SourceIndexRow]) -> list[str]:
        folder = self._p.source_folder(job.mirror_id)
        reads_beside = rules_of(self._p.families, job.type).reads_beside
        read = [row for row in rows if row.file and (row.beside is None or reads_beside)]
        return [row.part for row in read if not (folder / (row.file or "")).is_file()]

    async def _nothing(self, live: LiveRun, why: str) -> Outcome:
        for name in STEPS[live.row.kind]:
            live.skip(name, why)
        return Outcome()
