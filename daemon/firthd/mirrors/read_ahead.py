"""The only place that has small parts of an index read while others are still on their way.

A thread reads what has come into the run's own file, as far as it would read all of them; what is left is read when
everything has come. It counts only for a reading that would have read the same.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from msgspec.structs import replace

from firthd.channels.renders import unheard
from firthd.families.base import Spool
from firthd.index.messages import PartResult, ReadParams
from firthd.index.read import read_task
from firthd.mirrors.arrivals import GATHERED
from firthd.mirrors.fetch_index import Came
from firthd.mirrors.readers import SMALL_BYTES
from firthd.store.catalog import SourceIndexRow
from firthd.threads import in_thread

log = logging.getLogger(__name__)


class ReadAhead:
    """Hears of parts that come, in place of who writes them down, and tells it."""

    def __init__(
        self,
        arrivals: Came,
        copies: Path,
        params: ReadParams | None,
        ready: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """`copies`: the folder of those; `params`: of a reading of no part; None: nothing is read ahead.

        `ready`: makes ready for what such a reading leads to.
        """
        self._ready = ready
        self._arrivals = arrivals
        self._copies = copies
        self._params = params
        self._bytes = 0
        self._waiting: list[Spool] = []
        self._many = asyncio.Event()
        self._ended = False
        self.reads = params is not None
        """Whether what comes is read, for all that is known."""
        self.read: list[Spool] = []
        """What has been read."""
        self._results: list[PartResult] = []

    async def __call__(self, row: SourceIndexRow, *, lists: bool = False) -> None:
        """Return once a part is written down, or waits for that."""
        usual = row.file is not None and row.beside is None and not lists
        if self.reads and usual and self._bytes + row.size <= SMALL_BYTES:
            self._bytes += row.size
            self._waiting.append(spool_of(row, self._copies))
            if len(self._waiting) >= GATHERED:
                self._many.set()
        await self._arrivals(row)

    async def all(self) -> None:
        """Return once every part is written down."""
        await self._arrivals.all()

    @asynccontextmanager
    async def reading(self) -> AsyncIterator["ReadAhead"]:
        """Read while the block brings the parts."""
        if self._params is None:
            yield self
            return
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._work(self._params))
                yield self
                self._ended = True
                self._many.set()
        except BaseException as error:  # nobody is to find half an index there
            await asyncio.shield(asyncio.to_thread(_forget, self._params))
            if isinstance(error, BaseExceptionGroup):
                raise error.exceptions[0] from None
            raise

    async def _work(self, params: ReadParams) -> None:
        await asyncio.to_thread(Path(params.run_file).parent.mkdir, parents=True, exist_ok=True)
        while True:
            await self._many.wait()
            self._many.clear()
            if self._ended:
                return
            if self._ready is not None and not self.read:
                await self._ready()
            spools, self._waiting = self._waiting, []
            some = replace(params, spools=spools, goes_on=bool(self.read))
            try:
                result = await in_thread(read_task, some, unheard)
            except Exception as error:  # whoever reads all of it meets it again
                log.info("parts are read when all have come: %s", error)
                self.read, self.reads = [], False
                await asyncio.to_thread(_forget, params)
                return
            self.read += spools
            self._results += result.parts

    def taken(self, params: ReadParams) -> tuple[ReadParams, list[PartResult]]:
        """Return what is left to be read of a reading, and what was found in the rest."""
        listed = {spool.part: spool for spool in params.spools}
        same = self._params is not None and replace(params, spools=[], close_filtered=False) == self._params
        if not self.read or not same or any(listed.get(spool.part) != spool for spool in self.read):
            return params, []
        for spool in self.read:
            del listed[spool.part]
        return replace(params, spools=list(listed.values()), goes_on=True), self._results


def _forget(params: ReadParams) -> None:
    Path(params.run_file).unlink(missing_ok=True)


def spool_of(row: SourceIndexRow, copies: Path) -> Spool:
    """Return a part that has come, as workers read it."""
    return Spool(
        part=row.part,
        file=str(copies / row.file) if row.file else None,
        encoding=row.encoding,
        mark=row.mark,
        base_url=row.base_url,
    )
