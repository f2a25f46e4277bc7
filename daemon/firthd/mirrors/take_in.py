"""The only place that writes down what a run brought: one finished change set, its publication, and tidying up."""

import asyncio
import contextlib
import os
import shutil
from collections.abc import Awaitable, Callable, Sequence, Set
from functools import partial
from pathlib import Path

from firth_protocol.errors import FirthError
from firth_protocol.events import Fact
from firth_protocol.types import Cause, RunKind
from firthd.channels import retention
from firthd.channels.publish import Publication
from firthd.families.base import COLUMNS
from firthd.mirrors.context import Context
from firthd.mirrors.source import Job, rules_of
from firthd.runs.run import LiveRun
from firthd.store import artifacts, blocks, catalog, copying, generations, marks, policies, runs
from firthd.store.artifacts import MirrorTotals
from firthd.store.copying import Copied, Pace
from firthd.store.database import Tx
from firthd.store.run_file import files_of
from firthd.store.run_reads import open_run_file
from firthd.store.secrets import Secrets

NOTES_SHOWN = 10
"""How many notes of a publication stand in its run; the log has them all."""
CLEAN_MS = 3_600_000
"""How often channels are cleaned in which nothing is published."""


class Begun:
    """A change set that is open, and what has been copied into it."""

    def __init__(self, change_set: int) -> None:
        self.change_set = change_set
        self.copied = Copied(added=0, closed=0)
        self.pace = Pace()


class TakeIn:
    """Turns run files into change sets, and change sets into generations."""

    def __init__(self, context: Context) -> None:
        self._p = context
        self._clean_at = 0
        self._cleaned_ns: dict[int, int] = {}  # mirror -> when its folder had changed last, as it was cleaned

    async def take_in(
        self,
        live: LiveRun,
        job: Job,
        run_file: Path,
        also: Callable[[Tx], Awaitable[None]],
        *,
        closings: bool = True,
        only_stored: bool = False,
        renewed: Sequence[str] = (),
        begun: Begun | None = None,
    ) -> Copied:
        """Copy a run's file into the state as one finished change set; `also` is written with its end.

        `begun`: the set in which some of the run is already.

        `closings` False takes only what adds; `only_stored` only what the store holds. `renewed`: the
        parts beside which something is new. When this does not come to
        its end, the change set is abandoned and counts for nothing.
        """

        def report(done: int, total: int) -> None:
            live.progress(f"writes {done:,} / {total:,} rows", done=done, total=total, unit="rows")

        begun = begun or await self.begin(live, job)
        try:
            for file in await asyncio.to_thread(files_of, run_file):
                await self.copy(begun, job, file, report, closings=closings, only_stored=only_stored)

            async def finish(tx: Tx) -> None:
                await also(tx)
                await self._finish_set(tx, job, live, begun, renewed)

            await self._p.db.write(finish)
        except BaseException:
            await self.abandon(begun)
            raise
        return begun.copied

    async def begin(self, live: LiveRun, job: Job) -> Begun:
        """Open a change set, of which nothing counts before it is finished."""
        await self.discard_abandoned(job.channel_id)
        return Begun(await self._open_set(job, live))

    async def copy(
        self,
        begun: Begun,
        job: Job,
        file: Path,
        report: Callable[[int, int], None] = lambda done, total: None,
        *,
        closings: bool = True,
        only_stored: bool = False,
    ) -> None:
        """Copy one file of a run into a change set that is open."""
        async with self._p.db.attached(file) as schema:
            begun.copied += await copying.copy_in(
                self._p.db,
                schema,
                columns=COLUMNS,
                change_set=begun.change_set,
                channel_id=job.channel_id,
                mirror_id=job.mirror_id,
                clock=self._p.clock,
                pace=begun.pace,
                closings=closings,
                only_stored=only_stored,
                report=report,
            )
            if closings:
                await policies.copy_sights(self._p.db, schema, job.mirror_id)

    async def abandon(self, begun: Begun) -> None:
        """Say of a change set that is not to be finished that what is in it counts for nothing.

        Where that cannot be written, the end of its run says it.
        """
        with contextlib.suppress(FirthError):
            await asyncio.shield(self._p.db.write(lambda tx: generations.mark_abandoned(tx, begun.change_set)))

    async def count(self, channel_id: int, mirror_id: int) -> MirrorTotals:
        """Count a mirror's artifacts and write that into its row; half a second for 700,000 of them."""
        totals = await self._p.db.read(lambda r: artifacts.mirror_totals(r, channel_id, mirror_id))
        numbers = {
            "artifacts": totals.artifacts,
            "bytes": totals.bytes,
            "stored": totals.stored,
            "bytes_stored": totals.bytes_stored,
        }
        await self._p.db.write(lambda tx: catalog.note_mirror(tx, mirror_id, numbers))
        return totals

    async def publish_and_count(self, live: LiveRun, job: Job, cause: Cause) -> tuple[Publication, MirrorTotals]:
        """Publish a channel's draft, and count beside it what a mirror has, which that does not change.

        But for blocks, which take out of it what has come: then it is counted behind.
        """
        if self._p.blocks.any(job.channel_id, rules_of(self._p.families, job.type).family):
            publication = await self.publish(live, job.channel_id, cause, None)
            return publication, await self.count(job.channel_id, job.mirror_id)
        await self.discard_abandoned(job.channel_id)
        try:
            async with asyncio.TaskGroup() as tasks:
                counting = tasks.create_task(self.count(job.channel_id, job.mirror_id))
                publishing = tasks.create_task(self.publish(live, job.channel_id, cause, None))
        except BaseExceptionGroup as several:
            raise several.exceptions[0] from None
        return publishing.result(), counting.result()

    async def take_back(self, live: LiveRun, job: Job) -> None:
        """A run was stopped: what it has written and not published is not to be published by somebody else."""

        async def body(tx: Tx) -> None:
            if await generations.take_back(tx, live.id):
                await catalog.unsettle(tx, job.mirror_id, live.id)

        await asyncio.shield(self._p.db.write(body))

    async def _open_set(self, job: Job, live: LiveRun) -> int:
        return await self._p.db.write(
            lambda tx: generations.open_change_set(
                tx,
                channel_id=job.channel_id,
                mirror_id=job.mirror_id,
                run_id=live.id,
                cause=cause_of(live),
                now_ms=self._p.clock.now_ms(),
            )
        )

    async def _finish_set(self, tx: Tx, job: Job, live: LiveRun, begun: Begun, renewed: Sequence[str]) -> None:
        change_set, copied = begun.change_set, begun.copied
        if not (copied.added or copied.closed or copied.along or copied.offers or renewed):
            await generations.mark_discarded(tx, change_set)
            return
        await generations.finish_change_set(
            tx,
            change_set,
            added=copied.added,
            closed=copied.closed,
            renewed=[f"{job.type}/{part}" for part in renewed],
            now_ms=self._p.clock.now_ms(),
        )
        channel = await catalog.channel_by_id(tx, job.channel_id)
        if channel is not None and channel.frozen_at is not None:
            await self._p.journal.fact(
                tx, Fact.DRAFT_GREW, ids=live.ids, data={"added": copied.added, "removed": copied.closed}
            )

    async def discard_abandoned(self, channel_id: int | None = None) -> None:
        """Take away what unfinished change sets have left, before somebody builds on the same rows."""
        for change_set in await self._p.db.read(lambda r: generations.abandoned_change_sets(r, channel_id)):
            await artifacts.discard(self._p.db, change_set)

            async def done(tx: Tx, change_set: int = change_set) -> None:
                await generations.mark_discarded(tx, change_set)

            await self._p.db.write(done)

    async def publish(self, live: LiveRun, channel_id: int, cause: Cause, roll_back_to: int | None) -> Publication:
        def report(description: str, done: int, total: int | None) -> None:
            live.progress(description, done=done, total=total)

        if await self.take_out_blocked(channel_id, live.id):
            live.log("what is blocked was left out")
        try:
            await self._p.mender.mend(channel_id, self._p.render_folder(live.id), report, live.note)
        except FirthError as error:  # what has changed is published all the same
            live.note(f"lost index files could not be made anew: {error.message}")
        publication = await self._p.publisher.publish(
            channel_id,
            cause=cause,
            run_id=live.id,
            work=self._p.render_folder(live.id),
            report=report,
            roll_back_to=roll_back_to,
            mirror_id=live.row.mirror_id,
        )
        for note in publication.notes:
            live.log(note, "warning")
        for note in publication.notes[:NOTES_SHOWN]:
            live.note(note)
        return publication

    async def leave_out_blocked(self, live: LiveRun, job: Job, run_file: Path) -> None:
        """Take what blocks name out of what is to be added, before anything of it is downloaded."""
        family = rules_of(self._p.families, job.type).family
        if not self._p.blocks.any(job.channel_id, family):
            return
        last = blocked = 0
        async with open_run_file(run_file) as reads:
            while page := await reads.wanted(last, blocks.PAGE):
                last = page[-1].ordinal
                out = await self._p.blocks.among(job.channel_id, family, page)
                await reads.leave_out(out)
                blocked += len(out)
        if blocked:
            live.log(f"{blocked:,} files are blocked in this channel and left out")

    async def take_out_blocked(self, channel_id: int, run_id: int) -> int:
        """Close the rows that blocks take out, in a change set of their own; return how many.

        What was cut off has closed some of them maybe, and lets them be open again later: that comes first.
        """
        await self.discard_abandoned(channel_id)
        found = [one.id for one in await self._p.blocks.taken_out(channel_id)]
        return await self._change(channel_id, run_id, found, blocks.close, adds=False)

    async def let_in_unblocked(self, channel_id: int, run_id: int) -> int:
        """Open the rows again that no block takes out any more; return how many."""
        free = await self._p.blocks.let_in_again(channel_id)
        found = [one.id for one in free if not await self._p.policies.leaves_out(channel_id, one)]
        return await self._change(channel_id, run_id, found, partial(blocks.open_again, columns=COLUMNS), adds=True)

    async def judge_own(self, channel_id: int, run_id: int) -> tuple[int, int]:
        """Let the rows that are the channel's own be what its policy says; return how many came back, and went."""
        await self._p.policies.load()  # whoever queued the run may still be at it
        out, back = await self._p.policies.own(channel_id)
        close = partial(blocks.close, reason=blocks.POLICY)
        left_out = await self._change(channel_id, run_id, out, close, adds=False)
        opened = partial(blocks.open_again, columns=COLUMNS)
        return await self._change(channel_id, run_id, back, opened, adds=True), left_out

    async def _change(
        self,
        channel_id: int,
        run_id: int,
        found: list[int],
        change: Callable[[Tx, int, list[int]], Awaitable[int]],
        *,
        adds: bool,
    ) -> int:
        """Write one finished change set of the channel itself, in short transactions; return how many rows changed."""
        if not found:
            return 0
        now = self._p.clock.now_ms()
        change_set = await self._p.db.write(
            lambda tx: generations.open_change_set(
                tx, channel_id=channel_id, mirror_id=None, run_id=run_id, cause=Cause.REMOVAL, now_ms=now
            )
        )

        async def some(tx: Tx, start: int) -> int:
            return await change(tx, change_set, found[start : start + blocks.PAGE])

        try:
            changed = 0
            for start in range(0, len(found), blocks.PAGE):
                changed += await self._p.db.write(partial(some, start=start))
            added, closed = (changed, 0) if adds else (0, changed)
            await self._p.db.write(
                lambda tx: generations.finish_change_set(tx, change_set, added=added, closed=closed, now_ms=now)
            )
        except BaseException:
            await asyncio.shield(self._p.db.write(lambda tx: generations.mark_abandoned(tx, change_set)))
            raise
        return changed

    async def clean_channel(self, channel_id: int) -> int:
        channel = await self._p.db.read(lambda r: catalog.channel_by_id(r, channel_id))
        if channel is None:
            return 0
        kept = await self._p.db.read(lambda r: generations.kept_generations(r, channel_id))
        # A channel that was rolled back returns to its own newest generation: what that shows is still needed.
        own = await self._p.db.read(lambda r: generations.newest_own(r, channel_id, channel.generation))
        needed = {channel.generation, own.number if own else 0}
        drop = retention.to_drop(
            [(number, time) for number, _, time in kept if number not in needed],
            self._p.clock.now_ms(),
            days=channel.keep_days,
            months=channel.keep_months,
        )
        return await self._p.publisher.clean(channel_id, drop)

    async def clean_quiet_channels(self) -> None:
        """Take away, once an hour, what has outlived its time in channels that no run cleans at the moment."""
        now = self._p.clock.now_ms()
        if now < self._clean_at:
            return
        for channel in await self._p.db.read(catalog.all_channels):
            if not self._p.publisher.busy(channel.id):
                await self.clean_channel(channel.id)
        self._clean_at = now + CLEAN_MS

    async def clean_sources(self, mirror_id: int) -> int:
        """Take away the copies that no row names; in a folder in which nothing came or went since, nothing is to do."""
        folder = self._p.source_folder(mirror_id)
        changed = await asyncio.to_thread(_changed_ns, folder)
        if changed == self._cleaned_ns.get(mirror_id):
            return 0
        used = await self._p.db.read(lambda r: marks.copies(r, mirror_id))
        gone = await asyncio.to_thread(_delete_others, folder, used)
        self._cleaned_ns[mirror_id] = await asyncio.to_thread(_changed_ns, folder) if gone else changed
        return gone

    async def forget_deleted(self) -> None:
        """Take away the secrets and the copied indexes of mirrors that are no more, by themselves or with a channel."""
        known = self._p.secrets.mirrors() | await asyncio.to_thread(self._with_folders)
        # Seen before the rows are read: a mirror made meanwhile is not among them.
        living = {mirror.id for mirror in await self._p.db.read(catalog.all_mirrors)} if known else set()
        for mirror_id in sorted(known - living):
            await self._p.secrets.put(mirror_id, Secrets())
            await asyncio.to_thread(shutil.rmtree, self._p.source_folder(mirror_id), ignore_errors=True)
        every = [mirror.id for mirror in await self._p.db.read(catalog.all_mirrors)]
        await asyncio.to_thread(self._p.policies.files.forget_others, every)

    async def forget_ended(self) -> None:
        """Take away the folders of runs that a crash has left; those that an open run works with stay."""
        rooms = [self._p.state / "runs", self._p.state / "rendered" / "work"]
        seen = await asyncio.to_thread(_numbered, rooms)
        if not seen:
            return
        needed: set[str] = set()
        for run in await self._p.db.read(runs.open_runs):  # after the look: what is new is not among `seen`
            needed |= {str(run.id), str(run.params.get("from_run"))}
        for folder in seen:
            if folder.name not in needed:
                await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    def _with_folders(self) -> set[int]:
        return {int(folder.name) for folder in (self._p.state / "sources").iterdir() if folder.name.isdecimal()}


def cause_of(live: LiveRun) -> Cause:
    """Return why a run publishes that took in what a mirror lists."""
    return Cause.POLICY if live.row.kind is RunKind.REFILTER else Cause.RUN


def _numbered(rooms: list[Path]) -> list[Path]:
    return [folder for room in rooms if room.is_dir() for folder in room.iterdir() if folder.name.isdecimal()]


def _changed_ns(folder: Path) -> int:
    try:
        return folder.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def _delete_others(folder: Path, used: Set[str]) -> int:
    with contextlib.suppress(FileNotFoundError):
        others = [name for name in os.listdir(folder) if name not in used]  # noqa: PTH208 a Path for each of thousands
        for name in others:
            (folder / name).unlink(missing_ok=True)
        return len(others)
    return 0
