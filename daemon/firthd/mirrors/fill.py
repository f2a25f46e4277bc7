"""The only place that brings files which a mirror lists and the store lacks, without reading the source's index."""

import asyncio
from collections.abc import Collection, Sequence
from functools import partial

from msgspec import Struct

from firth_protocol import units
from firth_protocol.types import MirrorMode, RunState, StepName
from firthd.families.base import FamilyRules, Requirement
from firthd.mirrors.context import Context
from firthd.mirrors.downloads import bring, counts
from firthd.mirrors.source import Job, rules_of
from firthd.mirrors.take_in import TakeIn
from firthd.runs.run import LiveRun, Outcome
from firthd.store import catalog, missing, pages, quarantine
from firthd.store.missing import ChosenFiles
from firthd.store.run_reads import Wanted


class Chosen(Struct, frozen=True, kw_only=True):
    """Files to bring: their rows, how many of them people count, their bytes, and how many have no size."""

    rows: list[int]
    files: int
    size: int
    unknown: int


class FillRuns:
    """Executes runs of kind fill; a mirror's own run brings by the same way what was damaged."""

    def __init__(self, context: Context) -> None:
        self._p = context
        self._take_in = TakeIn(context)

    async def fill(self, live: LiveRun) -> Outcome:
        """Download all missing files of a mirror, those that specs name, or single ones."""
        job = await self._p.job(live.row.mirror_id)
        try:
            async with live.step(StepName.CONNECT, "looks at the free space"):
                space = await self._p.space.now()
                await self._p.space.enough(None)
                live.progress(f"{units.size(space.usable)} may be used")
            async with live.step(StepName.PLAN):
                chosen = await self._plan(live, job)
            async with live.step(StepName.DOWNLOAD):
                failed = await self.bring(live, job, chosen)
            async with live.step(StepName.CLEAN):
                totals = await self._take_in.count(job.channel_id, job.mirror_id)
                live.progress(f"{totals.stored:,} of {totals.artifacts:,} files are stored")
            return Outcome(state=RunState.INCOMPLETE if failed else RunState.COMPLETED)
        finally:
            self._p.space.release(live.id)
            self._p.on_demand.forget(job.mirror_id)

    async def _plan(self, live: LiveRun, job: Job) -> Chosen:
        specs, artifacts = live.row.params.get("specs"), live.row.params.get("artifacts")
        chosen = await self.choose(job, specs, artifacts)
        if chosen.size:
            await self._p.space.reserve(live.id, chosen.size)
        live.bytes_total = chosen.size
        live.count(active_planned=chosen.files)
        more = f", {chosen.unknown:,} of unknown size" if chosen.unknown else ""
        live.progress(
            f"{chosen.files:,} files to bring, {units.size(chosen.size)}{more}", done=chosen.files, total=chosen.files
        )
        return chosen

    async def choose(self, job: Job, specs: Sequence[str] | None, artifacts: Collection[int] | None = None) -> Chosen:
        """Return the missing files that are asked for.

        Raises Invalid for a spec that does not parse.
        """
        rules = rules_of(self._p.families, job.type)
        wanted = None if specs is None else [rules.requirement(spec) for spec in specs]
        names = None
        if wanted is not None and all(one.name is not None for one in wanted):
            names = [(str(rules.family), one.name) for one in wanted if one.name is not None]
        rows: list[int] = []
        files = size = unknown = after = 0
        while page := await self._p.db.read(
            partial(missing.page, channel_id=job.channel_id, mirror_id=job.mirror_id, after=after, names=names)
        ):
            after = page[-1].ordinal
            if artifacts is not None:
                page = [one for one in page if one.ordinal in artifacts]
            if wanted is not None:
                page = await asyncio.to_thread(_matching, rules, wanted, page)
            rows += [one.ordinal for one in page]
            files += sum(map(counts, page))
            size += sum(one.size or 0 for one in page)
            unknown += sum(counts(one) and one.size is None for one in page)
        return Chosen(rows=rows, files=files, size=size, unknown=unknown)

    async def bring_damaged(self, live: LiveRun, job: Job) -> bool:
        """Bring again what an active mirror's store has lost; return whether it had lost anything."""
        if job.mode is MirrorMode.PASSIVE or not await self._has_lost(job):
            return False
        async with live.step(StepName.DOWNLOAD, "brings again what was lost"):
            chosen = await self.choose(job, None)
            live.log(f"{chosen.files:,} files were lost from the store and are brought again", "warning")
            await self._p.space.reserve(live.id, chosen.size)
            live.count(active_planned=chosen.files)
            await self.bring(live, job, chosen)
        await self._take_in.count(job.channel_id, job.mirror_id)
        return True

    async def _has_lost(self, job: Job) -> bool:
        """Tell whether an active mirror lacks files that it had: some are waited for, and some are missing."""
        if not (await self._p.db.read(quarantine.tally)).waiting:
            return False
        totals = await self._take_in.count(job.channel_id, job.mirror_id)
        return totals.lacking > 0

    async def bring(self, live: LiveRun, job: Job, chosen: Chosen) -> int:
        """Download files inside the step in progress; return how many could not be had."""
        indexes = await self._p.db.read(lambda r: catalog.source_indexes(r, job.mirror_id))
        places = await self._p.db.read(lambda r: pages.newest_places(r, job.mirror_id))
        places |= {part: (index.url_path, index.base_url) for part, index in indexes.items() if index.beside is None}
        result = await bring(live, self._p, job, places, ChosenFiles(self._p.db, chosen.rows), chosen.files)
        live.count(active=result.stored + result.present, failed=live.counts.failed + result.failed)
        failed = f", {result.failed:,} could not be had" if result.failed else ""
        live.progress(
            f"{result.stored:,} files, {units.size(live.bytes_done)}{failed}",
            done=result.stored + result.present,
            total=chosen.files,
            unit="files",
        )
        return result.failed


def _matching(rules: FamilyRules, wanted: Sequence[Requirement], page: Sequence[Wanted]) -> list[Wanted]:
    """Return the files that one of the requirements asks for. Blocks."""
    found = []
    for one in page:
        try:
            facts = rules.facts(one.part, one.raw)
        except ValueError:
            continue  # no record that a spec could mean
        if any(requirement.matches(facts) for requirement in wanted):
            found.append(one)
    return found
