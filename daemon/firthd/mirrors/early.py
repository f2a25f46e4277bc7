"""The only place that has a run's index read, and takes in what a mirror's first one adds while it is still read.

What was taken so lies in an open change set, which counts for nothing before the run has looked at all of it. Where
a channel shows nothing yet, workers render beside it what they read; a publication may find it there.
"""

import asyncio
import shutil
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from firth_protocol.errors import WorkerLost
from firth_protocol.types import MirrorMode, RunKind
from firthd.channels.early import Early
from firthd.index.messages import ReadParams, ReadResult
from firthd.mirrors.ahead import RenderAhead
from firthd.mirrors.arrivals import GATHERED, Arrivals
from firthd.mirrors.context import Context
from firthd.mirrors.index import Index
from firthd.mirrors.read_ahead import ReadAhead
from firthd.mirrors.reading import read_params
from firthd.mirrors.releases import Releases
from firthd.mirrors.source import Job, rules_of
from firthd.mirrors.take_in import Begun, TakeIn
from firthd.mirrors.wanted import WantedParts
from firthd.runs.run import LiveRun
from firthd.store import offers
from firthd.worker import TaskProgress

ROWS = 25_000
"""That are handed over at a time."""
WORTH_BYTES = 2 << 20
"""Of copies, as they came: below this there is nothing to gain."""


class IndexReads:
    """Reads indexes for runs that write what a mirror lists."""

    def __init__(self, context: Context, take_in: TakeIn) -> None:
        self._p = context
        self._take_in = take_in
        self._releases = Releases(context)
        self.begun: dict[int, Begun] = {}
        """The open change sets in which some of what a run has read is already, by the run."""
        self.ahead = RenderAhead(context, take_in, self.begun)
        self._came: dict[int, ReadAhead] = {}  # what was read of an index before all of it had come, by the run

    @asynccontextmanager
    async def while_fetched(
        self, live: LiveRun, job: Job, folder: Path, arrivals: Arrivals
    ) -> AsyncIterator[ReadAhead]:
        """Read small parts as they come in the block; what hears of them is given to who brings them."""
        small = rules_of(self._p.families, job.type).small_parts
        params = None
        if small and not job.grows and self._p.in_force(job) is None:
            params = replace(read_params(self._p, live, job, folder, [], None), close_filtered=False)
        ready = partial(self._p.blobs.expect, GATHERED) if job.mode is MirrorMode.ACTIVE else None
        ahead = ReadAhead(arrivals, self._p.source_folder(job.mirror_id), params, ready)
        async with ahead.reading():
            yield ahead
        self._came[live.id] = ahead

    async def read(self, live: LiveRun, job: Job, parts: WantedParts, params: ReadParams) -> ReadResult:
        """Return what workers have read; raises what `mirrors.readers.read` raises.

        A run that reads once more takes nothing over from its reading before.
        """
        came = self._came.pop(live.id, None)
        await self.ended(live.id)
        params, found = (params, []) if came is None else came.taken(params)
        first = await self._is_first(live, job, params)
        begun = None
        if first and self._taken_early(job, parts.index):
            begun = self.begun[live.id] = await self._take_in.begin(live, job)
            beside = [side.row for side in parts.index.sides]
            params = replace(params, early_rows=ROWS, early=await self.ahead.params(live, job, beside))
        params = replace(params, first=first)
        files: asyncio.Queue[str | None] = asyncio.Queue()

        def tell(progress: TaskProgress) -> None:
            if progress.file is not None:
                files.put_nowait(progress.file)
            else:
                live.progress(progress.description, done=progress.done, total=progress.total, unit=progress.unit)

        try:
            reading = self._releases.judge(live, job, parts, params, tell)
            if begun is None:
                result = await reading
                return replace(result, parts=sorted([*found, *result.parts], key=attrgetter("part")))
            result = await self._beside(reading, files, job, begun)
        except WorkerLost:
            live.log("the worker process was lost; memory may have run out", "error")
            raise
        if result.made is not None and params.early is not None:
            family, sides = rules_of(self._p.families, job.type).family, params.early.sides
            begun.early = Early(family=family, change_set=begun.change_set, sides=sides, made=result.made)
        return result

    async def ended(self, run_id: int) -> None:
        """Abandon what a run has begun and not finished."""
        self._came.pop(run_id, None)
        begun = self.begun.pop(run_id, None)
        if begun is not None:
            await self._take_in.abandon(begun)
        await asyncio.shield(asyncio.to_thread(shutil.rmtree, self._p.early_folder(run_id), ignore_errors=True))

    async def _is_first(self, live: LiveRun, job: Job, params: ReadParams) -> bool:
        """Tell whether a mirror of few parts has nothing yet: it is only added to, and parts may be read in shares."""
        if params.singly or params.policy is not None or live.row.kind is not RunKind.MIRROR:
            return False
        await self._take_in.discard_abandoned(job.channel_id)
        return not await self._p.db.read(lambda r: offers.any_of(r, job.channel_id, job.mirror_id))

    def _taken_early(self, job: Job, index: Index) -> bool:
        """Tell whether what is read need not be looked at, or brought, before it is taken in."""
        blocked = self._p.blocks.any(job.channel_id, rules_of(self._p.families, job.type).family)
        return job.mode is MirrorMode.PASSIVE and not blocked and index.bytes >= WORTH_BYTES

    async def _beside(
        self, reading: Coroutine[Any, Any, ReadResult], files: asyncio.Queue[str | None], job: Job, begun: Begun
    ) -> ReadResult:
        async def read() -> ReadResult:
            result = await reading
            files.put_nowait(None)
            return result

        async def take() -> None:
            while (file := await files.get()) is not None:
                await self._take_in.copy(begun, job, Path(file))
                await asyncio.to_thread(Path(file).unlink)

        try:
            async with asyncio.TaskGroup() as tasks:
                result = tasks.create_task(read())
                tasks.create_task(take())
        except BaseExceptionGroup as several:
            raise several.exceptions[0] from None
        return result.result()
