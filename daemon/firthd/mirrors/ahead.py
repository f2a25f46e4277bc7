"""The only place that has what a run is about to add rendered while its files come.

It is where a channel shows nothing yet: a worker makes the objects out of the run's own files, beside the downloads,
and is gone when they are made; a thread, where there is little. A publication takes them if each file came as its
index promised; else all is rendered from rows, as ever.
"""

import asyncio
import logging
import shutil
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

from firth_protocol.types import RunKind
from firthd.channels.beside import side_of
from firthd.channels.early import FIRST_GENERATION, Early, shows_nothing
from firthd.index.ahead import ahead_task
from firthd.index.messages import AheadResult, EarlyParams, ReadParams, Rendered
from firthd.mirrors.context import Context
from firthd.mirrors.reading import Reading
from firthd.mirrors.source import Job, rules_of
from firthd.mirrors.take_in import Begun, TakeIn
from firthd.runs.run import LiveRun
from firthd.store import catalog, offers
from firthd.store.catalog import SourceIndexRow
from firthd.store.database import Reader
from firthd.store.run_file import files_of
from firthd.store.run_reads import RunFileReads
from firthd.threads import in_thread
from firthd.worker import Report, TaskProgress

log = logging.getLogger(__name__)

AHEAD = "firthd.index.ahead:ahead_task"
SMALL_BYTES = 2 << 20
"""Of a run's own files: a thread renders these in 150 ms, a worker takes as long to start."""


class RenderAhead:
    """Renders for runs that bring files."""

    def __init__(self, context: Context, take_in: TakeIn, begun: dict[int, Begun]) -> None:
        """`begun`: where the open change set of each run is found."""
        self._p = context
        self._take_in = take_in
        self._begun = begun

    async def params(self, live: LiveRun, job: Job, rows: Iterable[SourceIndexRow]) -> EarlyParams | None:
        """Return where a worker makes the objects of an index; None where that would not be what is to be shown.

        `rows`: of what is beside it, and maybe of its parts.
        """
        family = rules_of(self._p.families, job.type).family
        if not await self._p.db.read(lambda r: shows_nothing(r, job.channel_id, family)):
            return None
        folder, sources = self._p.early_folder(live.id), self._p.source_folder(job.mirror_id)
        await asyncio.to_thread(_make_empty, folder)
        sides = [side_of(job.mirror_id, row, sources) for row in rows]
        taken = [side for side in sides if side is not None]
        return EarlyParams(folder=str(folder), number=FIRST_GENERATION + 1, sides=taken)

    @asynccontextmanager
    async def beside(
        self, live: LiveRun, job: Job, read: Reading, run_file: Path, reads: RunFileReads
    ) -> AsyncIterator[None]:
        """Render what `run_file` adds while the block brings the files; it fails for nothing that goes wrong there.

        What `reads` is told of files that did not come, or came with digests that nobody knew, leaves nothing of it.
        """
        rows = read.index.as_read(read.parts, (), live.id)
        early = await self.params(live, job, rows) if await self._worth_it(live, job) else None
        if early is None:
            yield
            return
        rules = rules_of(self._p.families, job.type)
        params = ReadParams(
            formats=rules.formats,
            state_db=str(self._p.db.path),
            run_file=str(run_file),
            channel_id=job.channel_id,
            mirror_id=job.mirror_id,
            spools=[],
            singly=rules.small_parts,
            early=early,
        )
        waits = False

        def tell(progress: TaskProgress) -> None:
            nonlocal waits
            waits = not progress.unit

        try:
            async with asyncio.TaskGroup() as tasks:
                making = tasks.create_task(self._made(params, tell))
                yield
                if waits or not reads.as_read:  # whoever publishes is before others who wait
                    making.cancel()
        except BaseExceptionGroup as several:
            raise several.exceptions[0] from None
        made = None if making.cancelled() else making.result()
        if made is None or not reads.as_read:
            return
        begun = self._begun[live.id] = await self._take_in.begin(live, job)
        begun.early = Early(family=rules.family, change_set=begun.change_set, sides=early.sides, made=made)

    async def _worth_it(self, live: LiveRun, job: Job) -> bool:
        """Tell whether a mirror has nothing yet, and something comes that is to be published."""
        if live.row.kind is not RunKind.MIRROR or not live.counts.active_planned:
            return False

        async def nothing(r: Reader) -> bool:
            channel = await catalog.channel_by_id(r, job.channel_id)
            taken = await offers.any_of(r, job.channel_id, job.mirror_id)
            return channel is not None and channel.frozen_at is None and not taken

        return await self._p.db.read(nothing)

    async def _made(self, params: ReadParams, tell: Report) -> Rendered | None:
        try:
            if await asyncio.to_thread(_size_of, Path(params.run_file)) <= SMALL_BYTES:
                return (await in_thread(ahead_task, params, tell)).made
            return (await self._p.workers.run(AHEAD, params, AheadResult, progress=tell)).made
        except Exception as error:  # whatever it is, whoever publishes meets it again
            log.warning("what is to be shown is rendered when all files are there: %s", error)
            return None


def _size_of(run_file: Path) -> int:
    return sum(file.stat().st_size for file in files_of(run_file))


def _make_empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
