"""The only place that publishes: renders a channel's draft in a worker and moves its pointer in one transaction."""

import asyncio
import contextlib
import hashlib
import shutil
from collections import defaultdict
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, TypeVar

from msgspec import Struct

from firth_protocol.errors import NotFound
from firth_protocol.events import Fact
from firth_protocol.types import Cause, Family
from firthd.channels.published import Published, view_of
from firthd.clock import Clock
from firthd.families.base import FamilyRules, PreviousFile, RenderParams, RenderResult
from firthd.store import catalog, generations, summaries
from firthd.store.blobs import BlobStore
from firthd.store.catalog import ChannelRow
from firthd.store.database import Database, Reader, Tx
from firthd.store.generations import FamilyRow, FileEntry, GenerationRow
from firthd.store.journal import Journal
from firthd.workers import TaskProgress, Workers

T = TypeVar("T")
Report = Callable[[str, int, int | None], None]
"""(description, done, total)"""

_COPY_ROWS = 5_000
_YOUNG_MS = 3_600_000
"""Rendered files younger than this may belong to a publication in progress, and stay."""


class Publication(Struct, frozen=True, kw_only=True):
    """What came of a publication: the generation in force, and why there is no new one if there is none."""

    generation: GenerationRow
    published: bool
    reason: str = ""
    files: list[str] = []
    shadowed: dict[int, int] = {}


class _Plan(Struct, frozen=True, kw_only=True):
    channel: ChannelRow
    current: GenerationRow
    families: list[FamilyRow]
    files: list[FileEntry]
    draft: list[generations.ChangeSetRow]
    number: int
    shows: int  # of the generation to be
    rendered_shows: int  # published sets that its content holds
    full: bool


class _DraftTakenBack(Exception):
    """A change set of the plan has been abandoned since the plan was made: its run was stopped."""


def digest_of(families: list[FamilyRow]) -> str:
    """Return a generation's digest: sha256 over its non-empty parts' digests, sorted."""
    lines = sorted(
        f"{family.family}/{part} {digest}\n"
        for family in families
        for part, digest in family.digests.items()
        if family.totals.get(part, (0, 0))[0]
    )
    return hashlib.sha256("".join(lines).encode()).hexdigest()


class Publisher:
    """Publishes one channel at a time, each channel for itself."""

    def __init__(
        self,
        db: Database,
        journal: Journal,
        clock: Clock,
        workers: Workers,
        rendered: BlobStore,
        published: Published,
        families: Mapping[Family, FamilyRules],
    ) -> None:
        self._db = db
        self._journal = journal
        self._clock = clock
        self._workers = workers
        self._rendered = rendered
        self._published = published
        self._families = families
        self._locks: defaultdict[int, asyncio.Lock] = defaultdict(asyncio.Lock)

    # --- a new channel -----------------------------------------------------------------------------

    async def first_files(self) -> tuple[list[FileEntry], list[FamilyRow]]:
        """Render and store what every channel has from its first generation on: empty indexes in every variant."""
        files, families = [], []
        for family, rules in self._families.items():
            digests: dict[str, str] = {}
            for part in rules.first_parts:
                for path, raw in rules.empty_part(part).items():
                    sha256 = hashlib.sha256(raw).hexdigest()
                    if not self._rendered.touch(sha256):
                        writer = self._rendered.writer(size=len(raw), sha256=sha256)
                        writer.write(raw)
                        await self._rendered.keep(writer)
                    files.append(FileEntry(family=family, path=path, sha256=sha256, size=len(raw)))
                digests[part] = hashlib.sha256().hexdigest()
            families.append(
                FamilyRow(
                    family=family,
                    artifacts=0,
                    packages=0,
                    bytes=0,
                    digests=digests,
                    totals=dict.fromkeys(digests, (0, 0)),
                )
            )
        return files, families

    async def publish_first(
        self, tx: Tx, channel: ChannelRow, files: list[FileEntry], families: list[FamilyRow]
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
            digest=digest_of(families),
            kept=True,
        )
        await generations.publish(tx, channel_id=channel.id, row=row, families=families, files=files, change_sets=[])
        await catalog.set_generation(tx, channel.id, 1, now)
        view = view_of(channel, row, files)
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
    ) -> Publication:
        """Publish a channel's draft (or an earlier generation's content again); None of it shows until all is durable.

        `work` is a folder that this call may fill and empty, on the file system of the rendered store.
        """
        async with self._locks[channel_id]:
            while True:
                plan = await self._db.read(lambda r: self._plan(r, channel_id, roll_back_to))
                if plan.channel.frozen_at is not None and roll_back_to is None:
                    return _nothing(plan, "the channel is frozen: what was read waits as its draft")
                if not plan.draft and not plan.full:
                    return _nothing(plan, "nothing has changed")
                await asyncio.to_thread(_empty, work)
                try:
                    return await self._render_and_switch(plan, cause, run_id, work, report, roll_back_to)
                except _DraftTakenBack:
                    report("a stopped run took back what it had brought: renders again", 0, None)
                finally:
                    await asyncio.shield(asyncio.to_thread(shutil.rmtree, work, ignore_errors=True))

    async def _plan(self, r: Reader, channel_id: int, roll_back_to: int | None) -> _Plan:
        channel = await catalog.channel_by_id(r, channel_id)
        if channel is None:
            raise NotFound("the channel was deleted")
        current = await generations.generation(r, channel_id, channel.generation)
        assert current is not None
        number = channel.generation + 1
        if roll_back_to is None:
            draft = await generations.finished_change_sets(r, channel_id)
            shows, content = number, channel.generation
            full = current.shows != current.number or await catalog.to_render_anew(r, channel_id)
        else:
            target = await generations.generation(r, channel_id, roll_back_to)
            if target is None or not target.kept:
                raise NotFound(f"generation {roll_back_to} of {channel.name} is not kept")
            draft, shows, content, full = [], target.shows, target.shows, True
        return _Plan(
            channel=channel,
            current=current,
            families=await generations.generation_families(r, channel_id, channel.generation),
            files=await generations.published_files(r, channel_id, channel.generation),
            draft=draft,
            number=number,
            shows=shows,
            rendered_shows=content,
            full=full,
        )

    async def _render_and_switch(
        self, plan: _Plan, cause: Cause, run_id: int | None, work: Path, report: Report, roll_back_to: int | None
    ) -> Publication:
        await self._db.write(
            lambda tx: summaries.drop_unpublished_packages(tx, plan.channel.id, plan.channel.generation)
        )
        families, files = {row.family: row for row in plan.families}, {(f.family, f.path): f for f in plan.files}
        touched: list[str] = []
        shadowed: dict[int, int] = {}
        for family, rules in self._families.items():
            result = await self._render(plan, family, rules, work, report)
            touched += [file.path for file in result.files]
            shadowed.update(result.shadowed)
            for file in result.files:
                files[family, file.path] = FileEntry(family=family, path=file.path, sha256=file.sha256, size=file.size)
            families[family] = _family_row(family, families.get(family), result)
        row = GenerationRow(
            number=plan.number,
            shows=plan.shows,
            time=max(self._clock.now_ms(), plan.current.time),
            cause=cause,
            run_id=run_id,
            **await self._moved(plan),
            artifacts=sum(family.artifacts for family in families.values()),
            packages=sum(family.packages for family in families.values()),
            bytes=sum(family.bytes for family in families.values()),
            digest=digest_of(list(families.values())),
            kept=True,
        )
        same = row.digest == plan.current.digest and _same_files(plan.files, list(files.values()))
        done = await _to_the_end(
            self._db.write(lambda tx: self._switch(tx, plan, row, families, files, roll_back_to, same=same))
        )
        if not done:
            return _nothing(plan, "the channel was frozen meanwhile: what was read waits as its draft")
        if same:
            why = (
                "nothing has changed"
                if roll_back_to is None
                else "the channel shows this content already; it is frozen"
            )
            return Publication(generation=plan.current, published=False, reason=why, shadowed=shadowed)
        return Publication(generation=row, published=True, files=touched, shadowed=shadowed)

    async def _render(
        self, plan: _Plan, family: Family, rules: FamilyRules, work: Path, report: Report
    ) -> RenderResult:
        out = work / family
        run_file = work / f"{family}.run"
        await asyncio.to_thread(out.mkdir, parents=True)
        params = RenderParams(
            state_db=str(self._db.path),
            run_file=str(run_file),
            out_dir=str(out),
            channel_id=plan.channel.id,
            number=plan.number,
            shows=plan.rendered_shows,
            change_sets=[change_set.id for change_set in plan.draft],
            full=plan.full,
            previous={
                file.path: PreviousFile(str(self._rendered.path(file.sha256)), file.sha256)
                for file in plan.files
                if file.family == family and file.stored
            },
        )

        def tell(progress: TaskProgress) -> None:
            report(progress.description, progress.done, progress.total)

        result = await self._workers.run(rules.render_task, params, RenderResult, progress=tell)
        await asyncio.gather(
            *(
                self._rendered.adopt(Path(file.file), file.sha256, file.size)
                for file in (*result.files, *([result.pack] if result.pack else []))
            )
        )
        await self._copy(plan, run_file)
        return result

    async def _copy(self, plan: _Plan, run_file: Path) -> None:
        """Bring shard places and package summaries into the state; they show with the pointer's move only."""
        async with self._db.attached(run_file) as schema:
            after: bytes | None = b""
            while after is not None:

                async def shards(tx: Tx, after: bytes = after) -> bytes | None:
                    return await summaries.copy_shards(tx, schema, plan.channel.id, after, _COPY_ROWS)

                after = await self._db.write(shards)
            key: tuple[str, str] | None = ("", "")
            while key is not None:

                async def packages(tx: Tx, key: tuple[str, str] = key) -> tuple[str, str] | None:
                    return await summaries.copy_packages(tx, schema, plan.channel.id, plan.number, key, _COPY_ROWS)

                key = await self._db.write(packages)

    async def _moved(self, plan: _Plan) -> dict[str, int]:
        if plan.shows == plan.number and plan.current.shows == plan.current.number:
            added, removed = sum(one.added for one in plan.draft), sum(one.closed for one in plan.draft)
            return {"added": added, "removed": removed}
        low, high = sorted((plan.current.shows, plan.shows))
        came, left = await self._db.read(lambda r: generations.count_changes(r, plan.channel.id, low, high))
        forward = plan.shows >= plan.current.shows
        return {"added": came if forward else left, "removed": left if forward else came}

    async def _switch(
        self,
        tx: Tx,
        plan: _Plan,
        row: GenerationRow,
        families: dict[str, FamilyRow],
        files: dict[tuple[str, str], FileEntry],
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
            if same:  # a rollback that a crash has cut off behind its publication, for one
                return True
        entries = list(files.values())
        await generations.publish(
            tx,
            channel_id=channel.id,
            row=row,
            families=list(families.values()),
            files=entries,
            change_sets=[change_set.id for change_set in plan.draft],
        )
        await catalog.set_generation(tx, channel.id, row.number, now)
        await self._journal.fact(
            tx,
            Fact.CHANNEL_PUBLISHED,
            ids={"channel": channel.name} | ({"run": row.run_id} if row.run_id else {}),
            data={"generation": row.number, "added": row.added, "removed": row.removed, "cause": row.cause},
        )
        view = view_of(channel, row, entries)
        tx.after_commit(lambda: self._published.switch(view))
        return True

    # --- after a publication ---------------------------------------------------------------------------

    async def clean(self, channel: ChannelRow, to_drop: list[int]) -> int:
        """Forget generations that need not be kept; take away files that nothing needs; return how many."""

        async def forget(tx: Tx) -> None:
            await generations.drop_generations(tx, channel.id, to_drop)
            fresh = await catalog.channel_by_id(tx, channel.id)
            if fresh is not None:
                await generations.forget_plain_copies(tx, channel.id, fresh.generation)

        async with self._locks[channel.id]:
            await self._db.write(forget)
        used = await self._db.read(generations.rendered_in_use)
        return await asyncio.to_thread(self._rendered.sweep, used, self._clock.now_ms() - _YOUNG_MS)


async def _to_the_end(switching: Coroutine[Any, Any, T]) -> T:
    """Await the pointer's move; whoever is cancelled meanwhile holds the channel until it is done."""
    task = asyncio.ensure_future(switching)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise


def _nothing(plan: _Plan, reason: str) -> Publication:
    return Publication(generation=plan.current, published=False, reason=reason)


def _family_row(family: str, before: FamilyRow | None, result: RenderResult) -> FamilyRow:
    digests = dict(before.digests) if before else {}
    totals = dict(before.totals) if before else {}
    for part in result.parts:
        digests[part.subdir] = part.digest
        totals[part.subdir] = (part.artifacts, part.bytes)
    return FamilyRow(
        family=family,
        artifacts=sum(count for count, _ in totals.values()),
        packages=result.packages,
        bytes=sum(size for _, size in totals.values()),
        digests=digests,
        totals=totals,
    )


def _same_files(before: list[FileEntry], after: list[FileEntry]) -> bool:
    return {(file.family, file.path, file.sha256) for file in before} == {
        (file.family, file.path, file.sha256) for file in after
    }


def _empty(folder: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
