"""The only place that carries out a mirror's runs: the eight steps, and the plan that stops before the download."""

import asyncio
import contextlib
import shutil
from collections.abc import Awaitable, Callable, Collection, Mapping
from pathlib import Path

from msgspec.structs import replace

from firth_protocol import units
from firth_protocol.errors import FirthError, NoSpace, ShrinkGuard, TooLarge, Upstream
from firth_protocol.types import Cause, MirrorMode, RunKind, StepName
from firthd.channels.publish import Publication
from firthd.families.pieces import AHEAD
from firthd.mirrors import plan
from firthd.mirrors.arrivals import Arrivals
from firthd.mirrors.context import Context
from firthd.mirrors.downloads import Result, bring
from firthd.mirrors.early import IndexReads
from firthd.mirrors.fetch_index import Came, IndexFetcher
from firthd.mirrors.fill import FillRuns
from firthd.mirrors.index import Index
from firthd.mirrors.judgement import JUDGEMENT, judged_by, note_judgement, planned, resolve
from firthd.mirrors.noting import looked_to_the_end, note_looked, note_marks
from firthd.mirrors.parts import compared, end_state, not_yet_today, part_changes, source_times
from firthd.mirrors.publish_run import PublishRuns, cleaned, told
from firthd.mirrors.reading import Reading, marks_reader, note_absent, note_read, read_params, tell_read
from firthd.mirrors.source import Job, rules_of
from firthd.mirrors.take_in import TakeIn, cause_of
from firthd.mirrors.wanted import Fetch, WantedParts, fetching, submit, with_known
from firthd.runs.run import LiveRun, Outcome
from firthd.store import catalog, generations
from firthd.store.catalog import SourceIndexRow
from firthd.store.database import Tx
from firthd.store.run_reads import open_run_file

SCHEDULE = "schedule"
"""Who asks for a run when its time has come: nobody who wants to see what is new at the source."""
JUDGED_AGAIN_MOST = 5
CURRENT_MS = 3_600_000
"""How long a copy that came before a crash is current for the run that goes on."""


class MirrorRuns:
    """Executes runs of kind mirror and plan."""

    def __init__(self, context: Context, publications: PublishRuns, fills: FillRuns) -> None:
        self._p = context
        self._fills = fills
        self._take_in = TakeIn(context)
        self._reads = IndexReads(context, self._take_in)
        self._publications = publications
        self.plans: dict[int, Job] = {}  # runs of kind plan for mirrors that do not exist: never written down

    # --- the executors ---------------------------------------------------------------------------------

    async def mirror(self, live: LiveRun) -> Outcome:
        """Carry out the eight steps."""
        return await self.work(live, self._mirror)

    async def work(self, live: LiveRun, steps: Callable[[LiveRun, Job, Path], Awaitable[Outcome]]) -> Outcome:
        """Carry out what writes a mirror's rows, in the run's own folder; tidy up whatever comes of it."""
        job = await self._p.job(live.row.mirror_id)
        folder = self._p.run_folder(live.id)
        keep_folder = False
        try:
            return await steps(live, job, folder)
        except asyncio.CancelledError:
            keep_folder = live.stopping and live.stop_publish
            if keep_folder:
                await self._publications.queue_rest(live, job)
            elif live.stopping:
                await self._take_in.take_back(live, job)
            raise
        finally:
            self._p.space.release(live.id)
            self._p.on_demand.forget(job.mirror_id)
            await self._reads.ended(live.id)
            if not keep_folder:
                await asyncio.shield(asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True))
                if live.row.kind is RunKind.MIRROR:  # a refilter reads none, and may work beside one that does
                    with contextlib.suppress(FirthError):  # what was read of the index and not taken in
                        await asyncio.shield(self._take_in.clean_sources(job.mirror_id))

    async def plan(self, live: LiveRun) -> Outcome:
        """Carry out steps 1 to 5 and tell what a run would do; nothing is changed."""
        job = self._p.taking(self.plans.get(live.id) or await self._p.job(live.row.mirror_id))
        folder = self._p.run_folder(live.id)
        try:
            await self._connect(live, job)
            known = await self._p.db.read(lambda r: catalog.source_indexes(r, job.mirror_id))
            job = with_known(job, rules_of(self._p.families, job.type), known)
            fetcher = self._fetcher(job, folder)
            read = await self._read(live, job, fetcher, {}, folder, everything=True)
            await resolve(live, read.judgement)
            async with live.step(StepName.PLAN):
                shrink, notes, adds, removes = await self._changes(job, read)
                needed = read.bytes_to_store if job.mode is MirrorMode.ACTIVE else 0
                space = plan.space_reason(needed, await self._p.space.now())
                live.progress(compared(adds, removes, needed), done=adds + removes, total=adds + removes)
            result = {
                "adds": adds,
                "removes": removes,
                "bytes": needed,
                "bytes_all": read.bytes_to_store,
                "index_bytes": read.index.bytes,
                "known_before": len(known),
                **(planned(read.judgement) if read.judgement is not None else {}),
                "warnings": [reason for reason in (shrink, space, *notes) if reason],
                "parts": {
                    part.part: {"adds": part.added + part.replaced, "records": part.records} for part in read.parts
                },
            }
            return Outcome(result=result)
        finally:
            self.plans.pop(live.id, None)
            await asyncio.shield(asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True))

    # --- the steps of a mirror run -----------------------------------------------------------------------

    async def _mirror(self, live: LiveRun, job: Job, folder: Path) -> Outcome:
        try:
            return await self._steps(live, job, folder)
        except NoSpace:
            raise
        except FirthError:  # a page of errors may have had the validators of what it stood for: all of it comes anew
            await self._p.db.write(lambda tx: catalog.drop_copies(tx, job.mirror_id))
            raise

    async def _steps(self, live: LiveRun, job: Job, folder: Path) -> Outcome:
        await self._connect(live, job)
        known = await self._p.db.read(lambda r: catalog.source_indexes(r, job.mirror_id))
        job = with_known(job, rules_of(self._p.families, job.type), known)
        fetcher = self._fetcher(job, self._p.source_folder(job.mirror_id))
        looked = await looked_to_the_end(self._p, job.mirror_id)
        pieces = not await self._judges_all(job)
        async with self._reads.while_fetched(live, job, folder, self._arrivals(job)) as came:
            index = await self._fetch(live, job, fetcher, known, thorough=not looked, came=came, pieces=pieces)
        live.count(failed=index.failed)
        if not index.unsettled and await self._p.judged_as(job) == self._p.policies.stamp(self._p.in_force(job)):
            await note_marks(self._p, job, index)
            await note_looked(self._p, job, index, known)
            return await self._nothing_new(live, job)
        return await self.carry_out(live, job, index, folder, known, fetcher)

    async def carry_out(
        self,
        live: LiveRun,
        job: Job,
        index: Index,
        folder: Path,
        known: Mapping[str, SourceIndexRow],
        fetcher: IndexFetcher | None,
    ) -> Outcome:
        """Carry out steps 3 to 8 on an index that is there; `fetcher` None: its source is not asked for another."""

        async def whole() -> Index:
            again = fetcher or self._fetcher(job, self._p.source_folder(job.mirror_id))
            return await again.fetch(live, job, known, f"{live.id}w", came=self._arrivals(job))

        if fetcher is None and any(part.row.mark == AHEAD for part in index.parts):  # its rows are newer than the copy
            index = await whole()

        more = None if fetcher is None else fetching(live, fetcher, known, self._arrivals(job))
        read = await self._filter(live, job, index, folder, whole=whole, more=more)
        await resolve(live, read.judgement)
        await self._compare(live, job, read)
        result = await self._bring(live, job, read, folder)
        again = None
        if result is not None and result.changed and fetcher is not None:
            again = await self._changed_meanwhile(live, job, fetcher, read)
        for _ in range(JUDGED_AGAIN_MOST):
            moved = read.stamp != self._p.policies.stamp(self._p.in_force(job))
            if again is None and not moved:
                break
            if moved:
                live.note("the policy was changed meanwhile: what the source lists is judged again")
            await live.forget_failures()  # of the index before: each is told again if it is still true
            read = await self._filter(live, job, again or read.index, folder, whole=whole, more=more)
            await resolve(live, read.judgement)
            await self._compare(live, job, read)
            await self._bring(live, job, read, folder)
            again = None
        signed = {row.part for row in known.values() if row.signed}
        publication = await self._publish_run(live, job, read, folder, signed)
        await self._fills.bring_damaged(live, job)
        await self._clean(live, job)
        return self._outcome(live, publication)

    async def _bring(self, live: LiveRun, job: Job, read: Reading, folder: Path) -> Result | None:
        if job.mode is MirrorMode.ACTIVE:
            return await self._download(live, job, read, folder)
        live.skip(StepName.DOWNLOAD, "passive: each file is fetched on its first request")
        return None

    async def _connect(self, live: LiveRun, job: Job) -> None:
        async with live.step(StepName.CONNECT, "looks at the credentials and the free space"):
            space = await self._p.space.now()
            await self._p.space.enough(None)
            secret = "with credentials, " if job.source.credentials else ""
            live.progress(f"{secret}{units.size(space.usable)} may be used")

    def _arrivals(self, job: Job) -> Arrivals:
        return Arrivals(self._p.db, job, small=rules_of(self._p.families, job.type).small_parts)

    def _fetcher(self, job: Job, folder: Path) -> IndexFetcher:
        rules = rules_of(self._p.families, job.type)
        return IndexFetcher(
            self._p.upstream,
            rules,
            self._p.clock,
            folder,
            max_part_bytes=self._p.max_part_bytes,
            room=self._p.space.enough,
            marks=marks_reader(self._p, rules, folder),
        )

    async def _fetch(
        self,
        live: LiveRun,
        job: Job,
        fetcher: IndexFetcher,
        known: Mapping[str, SourceIndexRow],
        tag: str = "",
        *,
        thorough: bool = False,
        came: Came | None = None,
        pieces: bool = False,
    ) -> Index:
        """Bring the source's index; `came` writes what comes down at once, for a run that goes on after this.

        `pieces`: of a part that is offered in pieces only those that have moved.
        """
        async with live.step(StepName.FETCH_INDEX):
            now = self._p.clock.now_ms()
            thorough = thorough or live.row.by != SCHEDULE or not_yet_today(known, now)
            since = live.row.params.get("since")
            index = await fetcher.fetch(
                live,
                job,
                known,
                f"{live.id}{tag}",
                thorough=thorough and not tag,
                came=came,
                current_since=None if since is None or tag else max(int(since), now - CURRENT_MS),
                pieces=pieces,
            )
            there = [part for part in index.parts if part.row.file]
            news = sum(part.changed for part in (*there, *index.sides))
            live.progress(
                f"{len(there)} index{'es' if len(there) != 1 else ''}, {units.size(index.bytes)}"
                + ("" if news else ", not changed"),
                done=len(there),
                total=len(there),
                unit="indexes",
            )
        return index

    async def _read(
        self,
        live: LiveRun,
        job: Job,
        fetcher: IndexFetcher,
        known: Mapping[str, SourceIndexRow],
        folder: Path,
        *,
        everything: bool,
    ) -> Reading:
        index = await self._fetch(live, job, fetcher, known)
        more = fetching(live, fetcher, known)
        return await self._filter(live, job, index, folder, everything=everything, copies=folder, more=more)

    async def _filter(
        self,
        live: LiveRun,
        job: Job,
        index: Index,
        folder: Path,
        *,
        everything: bool = False,
        copies: Path | None = None,
        whole: Callable[[], Awaitable[Index]] | None = None,
        more: Fetch | None = None,
    ) -> Reading:
        """Read what is to be read of an index; `whole` brings it whole, `more` what a judgement wants beside it."""
        rules = rules_of(self._p.families, job.type)
        await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
        place = copies or self._p.source_folder(job.mirror_id)
        only = rules.only(job.filters)
        in_force = self._p.in_force(job)
        stamp = self._p.policies.stamp(in_force)
        everything = everything or await self._judges_all(job)
        if everything and index.in_pieces and whole is not None:
            index = await whole()
        policy = judged_by(in_force, stamp, self._p.clock.now_ms(), folder / JUDGEMENT)
        params = read_params(self._p, live, job, folder, index.to_read(place, everything=everything), policy)

        async with live.step(StepName.FILTER, "reads the index"):
            try:
                parts = WantedParts(job, rules, index, place, more, live.progress)
                result = await self._reads.read(live, job, parts, parts.params(params))
            except (Upstream, TooLarge) as error:
                if not index.in_pieces or whole is None:
                    raise
                live.note(f"{error.message}; the index is read whole")
                index = await whole()
                parts = WantedParts(job, rules, index, place, None, live.progress)
                params = replace(params, spools=index.to_read(place, everything=False))
                result = await self._reads.read(live, job, parts, params)
            read = Reading(index=parts.index, parts=result.parts, stamp=stamp, judgement=result.judgement)
            if in_force is not None and result.judgement is not None:
                note_judgement(live, in_force, result.judgement)
            note_read(live, read)
            if only is not None and rules.small_parts and not job.grows:
                note_absent(live, read, only)
            await self._take_in.leave_out_blocked(live, job, folder / "run.sqlite")
            tell_read(live, read, lazily=rules.lazy is not None and only is None and job.mode is MirrorMode.PASSIVE)
        return read

    async def _judges_all(self, job: Job) -> bool:
        """Tell whether a policy is to judge all that the source lists, whatever of it has changed."""
        stamp = self._p.policies.stamp(self._p.in_force(job))
        return bool(stamp) or stamp != await self._p.judged_as(job)

    async def _changes(self, job: Job, read: Reading) -> tuple[str | None, list[str], int, int]:
        """Return why the source shrank too far, what else it lost, how many files come, and how many go."""
        mirror = await self._p.db.read(lambda r: catalog.mirror_by_id(r, job.mirror_id))
        changes = part_changes(read.parts)
        adds = sum(change.added + change.replaced for change in changes)
        removes = sum(change.removed + change.replaced for change in changes)
        whole = mirror.artifacts if mirror is not None else 0
        singly = rules_of(self._p.families, job.type).small_parts
        shrink = plan.list_reason(read.lists) or plan.shrink_reason(changes, whole, singly=singly)
        return shrink, plan.shrink_notes(changes, whole, singly=singly) if shrink is None else [], adds, removes

    async def _compare(self, live: LiveRun, job: Job, read: Reading) -> None:
        async with live.step(StepName.PLAN):
            shrink, notes, adds, removes = await self._changes(job, read)
            for note in notes:
                live.note(note)
            if shrink is not None and not live.row.params.get("accept_removals"):
                raise ShrinkGuard(
                    f"{shrink}; what is published stays as it is",
                    hint="look at the source; `mirror.run` with `accept_removals` true goes ahead",
                    mirror=job.mirror_id,
                )
            if shrink is not None:
                live.note(f"accepted by hand: {shrink}")
            active = job.mode is MirrorMode.ACTIVE
            needed = read.bytes_to_store if active else 0
            if needed:
                await self._p.space.reserve(live.id, needed)
            live.bytes_total = needed if active else None
            kept = read.total("kept")
            live.count(
                passive=0 if active else kept,
                active_planned=adds if active else 0,
                added=adds,
                removed=removes,
                unchanged=read.total("unchanged"),
                unhashed=read.total("unhashed"),
                failed=read.failed,
            )
            live.progress(compared(adds, removes, needed), done=adds + removes, total=adds + removes)

    async def _download(self, live: LiveRun, job: Job, read: Reading, folder: Path) -> Result:
        urls = {part.row.part: part.row.url_path for part in read.index.parts}
        places = {part.part: (urls.get(part.part, ""), part.base_url) for part in read.parts}
        async with live.step(StepName.DOWNLOAD), open_run_file(folder / "run.sqlite") as reads:
            total = live.counts.active_planned
            async with self._reads.ahead.beside(live, job, read, folder / "run.sqlite", reads):
                result = await bring(live, self._p, job, places, reads, total)
            live.count(active=result.stored + result.present, failed=read.failed + result.failed)
            failed = f", {result.failed:,} could not be had" if result.failed else ""
            there = f", {result.present:,} were there" if result.present else ""
            live.progress(
                f"{result.stored:,} files, {units.size(live.bytes_done)}{there}{failed}",
                done=result.stored + result.present,
                total=total,
                unit="files",
            )
        return result

    async def _changed_meanwhile(self, live: LiveRun, job: Job, fetcher: IndexFetcher, read: Reading) -> Index | None:
        """Read the source's index once more when files were not what it promised; return it if it has changed."""
        live.log("files are not what the index promised: the index is read again", "warning")
        known = {part.row.part: part.row for part in (*read.index.parts, *read.index.sides)}
        again = await self._fetch(live, job, fetcher, known, tag="b", came=self._arrivals(job))
        if not again.changed:
            return None
        live.note("the source changed while it was mirrored; its index was read again")
        return again

    async def _publish_run(
        self, live: LiveRun, job: Job, read: Reading, folder: Path, signed_before: set[str]
    ) -> Publication:
        async with live.step(StepName.PUBLISH, "waits for its turn"):
            async with open_run_file(folder / "run.sqlite") as reads:
                holes = await reads.incomplete_parts()
            before = await self._p.db.read(lambda r: catalog.source_indexes(r, job.mirror_id))
            await self._p.policies.found(job.mirror_id, folder / JUDGEMENT)
            rules = rules_of(self._p.families, job.type)
            as_read = self._as_read(live, job, read, holes, before)
            renewed = read.renewed(signed_before, empty=rules.shows_empty)
            begun = self._reads.begun.get(live.id)
            copied = await self._take_in.take_in(
                live, job, folder / "run.sqlite", as_read, renewed=renewed, begun=begun
            )
            for part in read.parts:
                await self._p.blocks.heed_refused(job.mirror_id, part.part, part.refused)
            live.count(added=copied.added, removed=copied.closed)
            early = None if begun is None else begun.early_of(renewed)
            publication = await self._take_in.publish(live, job.channel_id, cause_of(live), None, early)
            shadowed = publication.shadowed.get(job.mirror_id)
            if shadowed is not None:
                live.count(shadowed=shadowed)
            live.progress(told(publication))
        totals = await self._take_in.count(job.channel_id, job.mirror_id)
        # Of parts that have not changed nothing was read: what is there is counted, not what was read.
        live.count(
            passive=totals.artifacts if job.mode is MirrorMode.PASSIVE else 0,
            unchanged=max(0, totals.artifacts - copied.added),
        )
        if publication.published:
            shown = live.counts.shadowed
            await self._p.db.write(lambda tx: catalog.note_mirror(tx, job.mirror_id, {"shadowed": shown}))
        return publication

    def _as_read(
        self, live: LiveRun, job: Job, read: Reading, holes: Collection[str], before: Mapping[str, SourceIndexRow]
    ) -> Callable[[Tx], Awaitable[None]]:
        """Return what writes down the source's index as this run has read it; parts with holes are read again."""
        rows = read.index.as_read(read.parts, holes, live.id)
        times, taken = source_times(rows), self._p.still_taken(job)

        async def body(tx: Tx) -> None:
            await catalog.write_source_indexes(tx, job.mirror_id, before, rows)
            await catalog.note_mirror(tx, job.mirror_id, {**times, "judged": read.stamp if taken else ""})
            if not taken:
                await submit(tx, self._p, live, job, RunKind.REFILTER)
            mirror = await catalog.mirror_by_id(tx, job.mirror_id)
            if mirror is None or not job.still_that_of(mirror):  # edited meanwhile: the next run reads all anew
                await catalog.forget_source_indexes(tx, job.mirror_id)

        return body

    async def _clean(self, live: LiveRun, job: Job) -> None:
        async with live.step(StepName.CLEAN):
            gone = await self._take_in.clean_channel(job.channel_id)
            gone += await self._take_in.clean_sources(job.mirror_id)
            live.progress(cleaned(gone))

    async def _nothing_new(self, live: LiveRun, job: Job) -> Outcome:
        for name in (StepName.FILTER, StepName.RESOLVE, StepName.PLAN):
            live.skip(name, "the source has not changed")
        if not await self._fills.bring_damaged(live, job):
            live.skip(StepName.DOWNLOAD, "the source has not changed")
        # A publication that failed or was cut off before is made up for here: its change set still waits.
        generation = None
        waits = await self._p.db.read(lambda r: generations.finished_change_sets(r, job.channel_id))
        if waits or await self._p.mender.needed(job.channel_id):
            async with live.step(StepName.PUBLISH):
                publication = await self._take_in.publish(live, job.channel_id, Cause.RUN, None)
                live.progress(told(publication))
            generation = publication.generation.number if publication.published else None
            await self._take_in.count(job.channel_id, job.mirror_id)
        else:
            live.skip(StepName.PUBLISH, "the source has not changed")
        live.skip(StepName.CLEAN, "nothing to take away")
        mirror = await self._p.db.read(lambda r: catalog.mirror_by_id(r, job.mirror_id))
        if mirror is not None:
            passive = mirror.artifacts if mirror.mode is MirrorMode.PASSIVE else 0
            live.count(unchanged=mirror.artifacts, passive=passive, shadowed=mirror.shadowed)
        return Outcome(state=end_state(live), generation=generation)

    def _outcome(self, live: LiveRun, publication: Publication) -> Outcome:
        if live.counts.failed:
            live.log(f"{live.counts.failed:,} artifacts could not be had; the next run tries them again", "warning")
        if not publication.published and publication.reason:
            live.log(publication.reason)
        return Outcome(
            state=end_state(live), generation=publication.generation.number if publication.published else None
        )
