"""The only place that judges a mirror anew by what is known of its source, without asking it."""

import asyncio
from pathlib import Path

from firth_protocol.errors import WrongState
from firthd.mirrors.context import Context
from firthd.mirrors.fetch_index import FetchedPart, Index
from firthd.mirrors.run import MirrorRuns
from firthd.mirrors.source import Job
from firthd.runs.run import LiveRun, Outcome
from firthd.runs.steps import STEPS
from firthd.store import catalog
from firthd.store.catalog import SourceIndexRow


class Refilters:
    """Executes runs of kind refilter: steps 3 to 8 on the copies of the source's index."""

    def __init__(self, context: Context, runs: MirrorRuns) -> None:
        self._p = context
        self._runs = runs

    async def refilter(self, live: LiveRun) -> Outcome:
        """Let a mirror's rows be what the policy in force says; raise WrongState when the copies are lost."""
        return await self._runs.work(live, self._refilter)

    async def _refilter(self, live: LiveRun, job: Job, folder: Path) -> Outcome:
        if await self._runs.judged_as(job) == self._p.policies.stamp(self._p.in_force(job)):
            return await self._nothing(live, "judged by this policy already")
        known = await self._p.db.read(lambda r: catalog.source_indexes(r, job.mirror_id))
        if not known:
            return await self._nothing(live, "the source was never read")
        lost = await asyncio.to_thread(self._lost, job, list(known.values()))
        if lost:
            raise WrongState(
                f"the copy of the source's index of {lost[0]} is lost", hint="run the mirror: it fetches the index anew"
            )
        parts = [FetchedPart(row=row, changed=False) for row in known.values()]
        index = Index(
            parts=[part for part in parts if part.row.beside is None],
            sides=[part for part in parts if part.row.beside is not None],
        )
        return await self._runs.carry_out(live, job, index, folder, known, None)

    def _lost(self, job: Job, rows: list[SourceIndexRow]) -> list[str]:
        folder = self._p.source_folder(job.mirror_id)
        return [row.part for row in rows if row.beside is None and row.file and not (folder / row.file).is_file()]

    async def _nothing(self, live: LiveRun, why: str) -> Outcome:
        for name in STEPS[live.row.kind]:
            await live.skip(name, why)
        return Outcome()
