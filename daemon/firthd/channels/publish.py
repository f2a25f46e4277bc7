"""The only place that publishes: renders a channel's draft in a worker and moves its pointer in one transaction."""

import asyncio
import contextlib
import shutil
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from msgspec import Struct, structs

from firth_protocol.errors import FirthError, NotFound, WorkerLost
from firth_protocol.events import Fact
from firth_protocol.types import Cause, Family
from firthd.channels.drops import Retention
from firthd.channels.families import content_before, digest_of, empty_row, family_row, to_render
from firthd.channels.plan import Plan, owes_its_present, plan_publication
from firthd.channels.published import Published, superseded, view_of
from firthd.channels.renders import part_apart, render
from firthd.clock import Clock
from firthd.families.base import FamilyRules, Side
from firthd.families.pieces import PIECES
from firthd.index.messages import PreviousFile, RenderParams, RenderResult
from firthd.store import catalog, generations, objects, summaries
from firthd.store.catalog import ChannelRow
from firthd.store.database import Database, Reader, Tx
from firthd.store.generations import FamilyRow, GenerationRow
from firthd.store.joined import JOINED
from firthd.store.journal import Journal
from firthd.store.object_store import Hold, ObjectStore
from firthd.store.objects import ObjectRow
from firthd.worker import TaskProgress
from firthd.workers import Workers

T = TypeVar("T")
Report = Callable[[str, int, int | None], None]
"""(description, done, total)"""

_COPY_ROWS = 1_000


class Publication(Struct, frozen=True, kw_only=True):
    """What came of a publication: the generation in force, and why there is no new one if there is none."""

    generation: GenerationRow
    published: bool
    reason: str = ""
    index_files: int = 0  # that show something else than before
    shadowed: dict[int, int] = {}
    notes: list[str] = []  # what an administrator should know of what was rendered, and of what was not


class _Once(Struct, frozen=True, kw_only=True):
    """What one call for a publication is about."""

    cause: Cause
    run_id: int | None
    work: Path
    report: Report
    roll_back_to: int | None


class _RenderFailed(Exception):
    """The draft could not be rendered; the cause is in `error`."""

    def __init__(self, error: FirthError) -> None:
        super().__init__(error.message)
        self.error = error


class _DraftTakenBack(Exception):
    """A change set of the plan has been abandoned since the plan was made: its run was stopped."""


class Publisher:
    """Publishes one channel at a time, each channel for itself."""

    def __init__(
        self,
        db: Database,
        journal: Journal,
        clock: Clock,
        workers: Workers,
        store: ObjectStore,
        published: Published,
        retention: Retention,
        families: Mapping[Family, FamilyRules],
        sources: Path,
    ) -> None:
        """`sources`: the folder with a folder for each mirror, where the copies of its index lie."""
        self._sources = sources
        self._db = db
        self._journal = journal
        self._clock = clock
        self._workers = workers
        self._store = store
        self._retention = retention
        self._published = published
        self._families = families
        self._locks: defaultdict[int, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._set_aside: set[int] = (
            set()
        )  # change sets that could not be rendered, though others of their channel could

    # --- a new channel -----------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def first_objects(self) -> AsyncIterator[tuple[list[ObjectRow], list[FamilyRow]]]:
        """Store what every channel has from its first generation on: empty indexes in every variant.

        Their rows are to be written before the block ends.
        """
        found, families = [], []
        async with self._store.arriving() as hold:
            for family, rules in self._families.items():
                for part in rules.first_parts:
                    for path, raw in rules.empty_part(part).items():
                        found.append(objects.whole(family, path, await hold.put(raw), len(raw)))
                families.append(empty_row(family))
            yield found, families

    async def publish_first(
        self, tx: Tx, channel: ChannelRow, first: list[ObjectRow], families: list[FamilyRow]
    ) -> GenerationRow:
        """Write generation 1 of a new channel inside the transaction that creates it."""
        now = self._clock.now_ms()
        row = GenerationRow(
            number=1,
            shows=1,
            time=now,
            cause=Cause.CREATE,
            run_id=None,
            added=0,
            removed=0,
            artifacts=0,
            packages=0,
            bytes=0,
            digest=digest_of(families) or "",
            kept=True,
        )
        await generations.publish(tx, channel_id=channel.id, row=row, families=families, change_sets=[])
        await objects.show(tx, channel.id, 1, first)
        await catalog.set_generation(tx, channel.id, 1, now)
        view = view_of(channel, row)
        tx.after_commit(lambda: self._published.switch(view))
        return row

    # --- every later generation ---------------------------------------------------------------------

    async def publish(
        self,
        channel_id: int,
        *,
        cause: Cause,
        run_id: int | None,
        work: Path,
        report: Report,
        roll_back_to: int | None = None,
        mirror_id: int | None = None,
    ) -> Publication:
        """Publish a channel's draft (or an earlier generation's content again); None of it shows until all is durable.

        `work` is a folder that this call may fill and empty, on the file system of the rendered store. `mirror_id`: for
        whose sake this is done. What cannot be rendered never holds up another mirror: when the whole draft fails, each
        mirror's part of it is published for itself, and those that fail are set aside until a publication for their own
        sake, or for nobody's, tries them again. Raises the failure of `mirror_id`, or any failure when it is None.
        """
        async with self._locks[channel_id]:
            one = _Once(cause=cause, run_id=run_id, work=work, report=report, roll_back_to=roll_back_to)
            tried = await self._db.read(lambda r: self._waiting(r, channel_id, mirror_id))
            try:
                return await self._publish(channel_id, one, tried)
            except _RenderFailed as failed:
                apart: list[tuple[int | None, set[int]]] = list(tried.items())
                owes = await self._db.read(lambda r: owes_its_present(r, channel_id))
                if apart and owes:
                    apart.insert(0, (None, set()))
                if len(apart) < 2 or roll_back_to is not None:
                    raise failed.error from None
                report(f"the draft cannot be rendered as a whole: {failed.error.message}", 0, None)
            return await self._publish_apart(channel_id, one, apart, mirror_id)

    async def _waiting(self, r: Reader, channel_id: int, mirror_id: int | None) -> dict[int | None, set[int]]:
        """Return mirror -> its finished change sets to be published, the one for whose sake this is done first."""
        found: dict[int | None, set[int]] = {}
        finished = await generations.finished_change_sets(r, channel_id)
        for change_set in sorted(finished, key=lambda one: (one.mirror_id != mirror_id, one.id)):
            found.setdefault(change_set.mirror_id, set()).add(change_set.id)
        return {
            mirror: sets
            for mirror, sets in found.items()
            if mirror_id is None or mirror == mirror_id or not sets & self._set_aside
        }

    async def _publish_apart(
        self, channel_id: int, one: "_Once", tried: list[tuple[int | None, set[int]]], mirror_id: int | None
    ) -> Publication:
        """Publish each mirror's part of the draft for itself: one that fails keeps none of the others from clients."""
        last: Publication | None = None
        raised: FirthError | None = None
        index_files = 0
        notes: list[str] = []
        shadowed: dict[int, int] = {}
        for mirror, sets in tried:
            try:
                publication = await self._publish(channel_id, one, {mirror: sets})
            except _RenderFailed as failed:
                self._set_aside |= sets
                text = f"what {await self._whose(mirror)} brought cannot be rendered and waits: {failed.error.message}"
                notes.append(text)
                if mirror_id is None or mirror == mirror_id:
                    raised = raised or failed.error.again(text)
                continue
            self._set_aside -= sets
            last = publication if publication.published or last is None else last
            index_files += publication.index_files
            notes += publication.notes
            shadowed.update(publication.shadowed)
        if raised is not None or last is None:
            raise raised or WorkerLost("; ".join(notes))
        return structs.replace(last, index_files=index_files, notes=notes, shadowed=shadowed)

    async def _whose(self, mirror_id: int | None) -> str:
        mirror = None if mirror_id is None else await self._db.read(lambda r: catalog.mirror_by_id(r, mirror_id))
        return "the channel itself" if mirror is None else f"mirror {mirror.name!r}"

    async def _publish(self, channel_id: int, one: "_Once", tried: dict[int | None, set[int]]) -> Publication:
        """Publish these change sets of a channel's draft together; raises _RenderFailed."""
        wanted = set().union(*tried.values())
        roll_back_to, work, report = one.roll_back_to, one.work, one.report
        while True:
            plan = await self._db.read(lambda r: plan_publication(r, channel_id, roll_back_to, wanted))
            if plan.channel.frozen_at is not None and roll_back_to is None:
                return _nothing(plan, "the channel is frozen: what was read waits as its draft")
            own = plan.current.shows == plan.current.number
            if roll_back_to is None and not plan.draft and own and not plan.full:
                return _nothing(plan, "nothing has changed")
            await asyncio.to_thread(_empty, work)
            try:
                return await self._render_and_switch(plan, one)
            except _DraftTakenBack:
                report("a stopped run took back what it had brought: renders again", 0, None)
            finally:
                await asyncio.shield(asyncio.to_thread(shutil.rmtree, work, ignore_errors=True))

    async def _render_and_switch(self, plan: Plan, one: "_Once") -> Publication:
        async with self._store.arriving() as hold:
            return await self._stage_and_switch(plan, one, hold)

    async def _stage_and_switch(self, plan: Plan, one: "_Once", hold: Hold) -> Publication:
        roll_back_to = one.roll_back_to
        await self._begin(plan)
        families = {row.family: row for row in plan.families}
        touched: list[str] = []
        shadowed: dict[int, int] = {}
        notes: list[str] = []
        for family, rules in self._families.items():
            if not to_render(plan, family):
                continue
            result = await self._render(plan, family, rules, families.get(family), one, hold)
            touched += [file.path for file in result.files]
            shadowed.update(result.content.shadowed)
            notes += result.notes
            families[family] = family_row(family, result)
        # A release before published what a rollback shows again, and its digest with it.
        known, anew = digest_of(plan.families), digest_of(families.values())
        changed = await self._db.read(lambda r: objects.differences(r, plan.channel.id, plan.number))
        row = GenerationRow(
            number=plan.number,
            shows=plan.shows,
            time=max(self._clock.now_ms(), plan.current.time),
            cause=one.cause,
            run_id=one.run_id,
            **await self._moved(plan),
            artifacts=sum(family.artifacts for family in families.values()),
            packages=sum(family.packages for family in families.values()),
            bytes=sum(family.bytes for family in families.values()),
            digest=plan.begins_with.digest if anew is None else anew,
            kept=True,
        )
        # What a release before has published has another digest of the same: then the objects alone tell.
        same = not changed and (row.digest == plan.current.digest or known is None)
        done = await _to_the_end(
            self._db.write(lambda tx: self._switch(tx, plan, row, families, roll_back_to, same=same))
        )
        if not done or same:
            await objects.take_back(self._db, plan.channel.id, plan.current.number, self._clock.now_ms())
        if not done:
            return _nothing(plan, "the channel was frozen meanwhile: what was read waits as its draft")
        if same:
            why = (
                "nothing has changed"
                if roll_back_to is None
                else "the channel shows this content already; it is frozen"
            )
            return Publication(generation=plan.current, published=False, reason=why, shadowed=shadowed, notes=notes)
        count = len(touched) or changed
        return Publication(generation=row, published=True, index_files=count, shadowed=shadowed, notes=notes)

    async def _begin(self, plan: Plan) -> None:
        """Take back what an earlier try has left, and let the new generation start from its beginning."""
        channel_id, now = plan.channel.id, self._clock.now_ms()
        await objects.take_back(self._db, channel_id, plan.channel.generation, now)
        await summaries.drop_unpublished_packages(self._db, channel_id, plan.channel.generation)
        if plan.begins_with.number != plan.current.number:
            await objects.show_again(self._db, channel_id, plan.number, plan.begins_with.number)
            await summaries.show_again(self._db, channel_id, plan.number, plan.begins_with.number)

    async def _render(
        self, plan: Plan, family: Family, rules: FamilyRules, before: FamilyRow | None, one: "_Once", hold: Hold
    ) -> RenderResult:
        out = one.work / family
        await asyncio.to_thread(out.mkdir, parents=True)
        reads = await self._db.read(lambda r: objects.in_force(r, plan.channel.id, family, rules.reads))
        params = RenderParams(
            formats=rules.formats,
            state_db=str(self._db.path),
            run_file=str(one.work / f"{family}.run"),
            out_dir=str(out),
            channel_id=plan.channel.id,
            number=plan.number,
            shows=plan.rendered_shows,
            change_sets=plan.rendered_sets,
            before=content_before(before),
            full=plan.full,
            sides=await self.sides(plan.channel.id, family),
            proven_above=await self._db.read(generations.proven_above),
            previous={
                row.path: PreviousFile(str(await self._store.local(row.file)), row.sha256)
                for row in reads
                if row.encoding in {None, JOINED} and row.offset is None
            },
        )

        def tell(progress: TaskProgress) -> None:
            one.report(progress.description, progress.done, progress.total)

        try:
            apart = None if plan.full or self._workers.places < 2 else await part_apart(self._db, plan, family)
            rendered = await render(self._workers, params, tell, apart)
        except FirthError as error:
            raise _RenderFailed(error) from None
        files = (*rendered.result.files, *rendered.packs)
        await asyncio.gather(*(hold.adopt(Path(file.file), file.sha256, file.size) for file in files))
        for pack in rendered.packs:
            await self._db.write(
                partial(objects.name_pack, channel_id=plan.channel.id, file=pack.sha256, size=pack.size)
            )
        for run_file in rendered.run_files:
            await self._copy(plan, family, run_file)
        return rendered.result

    async def sides(self, channel_id: int, family: Family) -> list[Side]:
        """Return the files that the channel's mirrors keep beside their indexes, and those indexes that are signed."""

        async def body(r: Reader) -> list[Side]:
            return [
                Side(
                    mirror_id=mirror.id,
                    name=row.part,
                    beside=row.part if row.beside is None else row.beside,
                    file=str(self._sources / str(mirror.id) / row.file),
                    encoding=row.encoding,
                    index=row.beside is None,
                )
                for mirror in await catalog.mirrors_of(r, channel_id)
                if mirror.type.value == family.value
                for row in (await catalog.source_indexes(r, mirror.id)).values()
                if row.file is not None and (row.signed if row.beside is None else row.encoding != PIECES)
            ]

        return await self._db.read(body)

    async def _copy(self, plan: Plan, family: Family, run_file: Path) -> None:
        """Bring objects and package summaries into the state; they show with the pointer's move only."""
        async with self._db.attached(run_file) as schema:
            await objects.copy_in(self._db, self._clock, schema, plan.channel.id, family, plan.number)
            key: tuple[str, str] | None = ("", "")
            while key is not None:

                async def packages(tx: Tx, key: tuple[str, str] = key) -> tuple[str, str] | None:
                    return await summaries.copy_packages(tx, schema, plan.channel.id, plan.number, key, _COPY_ROWS)

                key = await self._db.write(packages, lasting=False)

    async def _moved(self, plan: Plan) -> dict[str, int]:
        """Count what clients see change: between what is in force and what is to be."""
        shows = generations.DRAFT if plan.shows == plan.number else plan.shows
        low, high = sorted((plan.current.shows, shows))
        draft = [one.id for one in plan.draft]
        came, left = await self._db.read(lambda r: generations.count_changes(r, plan.channel.id, low, high, draft))
        forward = shows >= plan.current.shows
        return {"added": came if forward else left, "removed": left if forward else came}

    async def _switch(
        self,
        tx: Tx,
        plan: Plan,
        row: GenerationRow,
        families: dict[str, FamilyRow],
        roll_back_to: int | None,
        *,
        same: bool,
    ) -> bool:
        """Move the pointer; return False when the channel was frozen since the plan was made."""
        channel = await catalog.channel_by_id(tx, plan.channel.id)
        if channel is None:
            raise NotFound("the channel was deleted")
        now = self._clock.now_ms()
        if roll_back_to is None:
            if channel.frozen_at is not None:
                return False
            still = {one.id for one in await generations.finished_change_sets(tx, channel.id)}
            if not {one.id for one in plan.draft} <= still:
                raise _DraftTakenBack
            if plan.full:
                await catalog.rendered_anew(tx, channel.id)
            if same:
                await generations.join_change_sets(tx, [one.id for one in plan.draft], plan.current.number)
                return True
        else:
            await catalog.update_channel(
                tx,
                channel.id,
                {"frozen_at": channel.frozen_at or now, "frozen_by": channel.frozen_by or "rollback"},
                now,
            )
            if channel.frozen_at is None:
                await self._journal.fact(
                    tx, Fact.CHANNEL_FROZEN, ids={"channel": channel.name}, data={"by": "rollback"}
                )
            frozen_at = channel.frozen_at or now
            tx.after_commit(lambda: self._published.set_frozen(channel.name, frozen_at))
            if same:  # a rollback that a crash has cut off behind its publication, for one
                return True
        await generations.publish(
            tx,
            channel_id=channel.id,
            row=row,
            families=list(families.values()),
            change_sets=[change_set.id for change_set in plan.draft],
        )
        await catalog.set_generation(tx, channel.id, row.number, now)
        await self._journal.fact(
            tx,
            Fact.CHANNEL_PUBLISHED,
            ids={"channel": channel.name} | ({"run": row.run_id} if row.run_id else {}),
            data={"generation": row.number, "added": row.added, "removed": row.removed, "cause": row.cause},
        )
        moment = None if row.shows == row.number else await superseded(tx, channel.id, row.shows)
        view = view_of(channel, row, moment)
        tx.after_commit(lambda: self._published.switch(view))
        return True

    # --- after a publication ---------------------------------------------------------------------------

    def busy(self, channel_id: int) -> bool:
        """Tell whether a channel is being published or cleaned."""
        return self._locks[channel_id].locked()

    @contextlib.asynccontextmanager
    async def alone(self, channel_id: int) -> AsyncIterator[None]:
        """Keep the channel from being published or cleaned while the block lasts."""
        async with self._locks[channel_id]:
            yield

    async def clean(self, channel_id: int, to_drop: list[int]) -> int:
        """Forget generations that need not be kept, and what only they named; return how many files go."""
        async with self._locks[channel_id]:
            return await self._retention.drop(channel_id, to_drop)


async def _to_the_end(switching: Coroutine[Any, Any, T]) -> T:
    """Await the pointer's move; whoever is cancelled meanwhile holds the channel until it is done."""
    task = asyncio.ensure_future(switching)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise


def _nothing(plan: Plan, reason: str) -> Publication:
    return Publication(generation=plan.current, published=False, reason=reason)


def _empty(folder: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
