"""The only place that makes index files again which are lost: rendered from the rows, laid where their objects are."""

import asyncio
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from firth_protocol.types import Family
from firthd.channels.publish import Publisher, Report
from firthd.channels.published import Published
from firthd.channels.renders import RENDER
from firthd.families.base import FamilyRules
from firthd.index.messages import RenderParams, RenderResult
from firthd.store import catalog, generations, object_files, objects
from firthd.store.database import Database
from firthd.store.object_files import LostObject
from firthd.store.object_store import ObjectStore
from firthd.store.repairs import Repairs
from firthd.worker import TaskProgress
from firthd.workers import Workers

Kept = tuple[int, int]
"""A kept generation: its number, and the one whose content it shows."""


class Mender:
    """Mends one channel at a time; nothing of what clients see changes but that it is there again."""

    def __init__(
        self,
        db: Database,
        workers: Workers,
        store: ObjectStore,
        repairs: Repairs,
        publisher: Publisher,
        published: Published,
        families: Mapping[Family, FamilyRules],
    ) -> None:
        self._db = db
        self._workers = workers
        self._store = store
        self._repairs = repairs
        self._publisher = publisher
        self._published = published
        self._families = families

    async def needed(self, channel_id: int) -> bool:
        """Tell whether files of a channel's objects are lost, or its indexes are to be rendered anew."""
        if await self._repairs.lost_objects(channel_id):
            return True
        return await self._db.read(lambda r: catalog.to_render_anew(r, channel_id))

    async def mend(self, channel_id: int, work: Path, report: Report, tell: Callable[[str], None]) -> int:
        """Make what is lost again; return how many files were lost.

        Each generation is rendered as it was. Where that gives other bytes, as after a change of the program, the
        generation in force is rendered anew by the next publication, and older ones stay without; `tell` says so.
        `work` is a folder that this call may fill and empty, on the file system of the rendered store.
        """
        async with self._publisher.alone(channel_id):
            lost = await self._repairs.lost_objects(channel_id)
            if not lost:
                return 0
            tell(f"{len(lost):,} index files were lost or damaged: they are made anew")
            spans = await self._db.read(lambda r: object_files.lost(r, channel_id, lost))
            kept = await self._db.read(lambda r: generations.kept_generations(r, channel_id))
            try:
                for family, generation in to_render(spans, [(number, shows) for number, shows, _ in kept]):
                    await self._render(
                        channel_id, Family(family), generation, lost, work / f"{family}-{generation[0]}", report
                    )
            finally:
                self._published.forget_objects()
                await asyncio.shield(asyncio.to_thread(shutil.rmtree, work, ignore_errors=True))
            # What was made again as it was lies under the name that it had.
            gone = await asyncio.to_thread(lambda: [file for file in lost if not self._store.files.has(file)])
            left = await self._db.read(lambda r: object_files.lost(r, channel_id, gone))
            if any(span.until is None for span in left):
                await self._db.write(lambda tx: catalog.render_anew(tx, channel_id))
            if any(span.until is not None for span in left):
                tell("some index files of earlier generations could not be made as they were")
            return len(lost)

    async def _render(
        self, channel_id: int, family: Family, generation: Kept, lost: Sequence[str], work: Path, report: Report
    ) -> None:
        """Render a generation as it was, and keep of it what is lost."""
        await asyncio.to_thread(_empty, work)
        number, shows = generation
        params = RenderParams(
            formats=self._families[family].formats,
            state_db=str(self._db.path),
            run_file=str(work / "run"),
            out_dir=str(work / "out"),
            channel_id=channel_id,
            number=number,
            shows=shows,
            full=True,
            sides=await self._publisher.sides(channel_id, family),
            lost=list(lost),
            proven_above=await self._db.read(generations.proven_above),
        )

        def told(progress: TaskProgress) -> None:
            report(f"makes generation {number} again: {progress.description}", progress.done, progress.total)

        result = await self._workers.run(RENDER, params, RenderResult, progress=told, pressed=True)
        wanted = await self._db.read(lambda r: object_files.digests_in(r, channel_id, family, lost))
        async with self._store.arriving() as hold:
            for file in result.files:
                if file.sha256 in wanted:
                    await hold.adopt(Path(file.file), file.sha256, file.size)
            if (pack := result.pack) is not None:
                await hold.adopt(Path(pack.file), pack.sha256, pack.size)
                await self._db.write(lambda tx: objects.name_pack(tx, channel_id, pack.sha256, pack.size))
            async with self._db.attached(work / "run") as schema:
                await self._db.write(lambda tx: object_files.mend(tx, schema, channel_id, family, lost))


def to_render(spans: Sequence[LostObject], kept: Sequence[Kept]) -> list[tuple[str, Kept]]:
    """Return the fewest renders, newest first, that bring back what kept generations have lost."""
    found: list[tuple[str, Kept]] = []
    for family in sorted({span.family for span in spans}):
        left = [span for span in spans if span.family == family]
        for generation in sorted(kept, reverse=True):
            there = [
                span
                for span in left
                if span.since <= generation[0] and (span.until or generation[0] + 1) > generation[0]
            ]
            if there:
                found.append((family, generation))
                left = [span for span in left if span not in there]
    return found


def _empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "out").mkdir(parents=True)
