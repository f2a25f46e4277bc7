"""The only place that writes, hashes and flushes what comes of a large file in threads while more of it is received."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor

from firthd.store.incoming import Taking

WORTH_BYTES = 64 * 1024
"""A smaller chunk that nothing waits before is written at once: the way to a thread costs more, and a client waits."""
MOST_BYTES = 1024 * 1024
"""Bytes that wait for being written before no more are taken."""
FLUSH_BYTES = 4 * 1024 * 1024
"""Bytes written after which a flush begins, where one is to go on beside: less is left for the one at the end."""


class Aside:
    """One body on its way into its file, in order. `wrote` is told how many bytes were written.

    `flushers`: threads that flush what was written meanwhile. `settled` has to be awaited before anybody else touches
    the writer.
    """

    def __init__(self, writer: Taking, wrote: Callable[[int], None], flushers: Executor | None = None) -> None:
        self._flushers = flushers
        self._flush: asyncio.Future[None] | None = None
        self._unflushed = 0
        self._writer = writer
        self._wrote = wrote
        self._loop = asyncio.get_running_loop()
        self._waiting: list[bytes] = []
        self._bytes = 0
        self._work: asyncio.Future[int] | None = None
        self._error: BaseException | None = None

    async def put(self, chunk: bytes) -> None:
        """Take a chunk; what went wrong with those before is raised now or by the next call."""
        if self._work is None and self._error is None and len(chunk) < WORTH_BYTES:
            self._writer.write(chunk)
            self._wrote(len(chunk))
            return
        self._waiting.append(chunk)
        self._bytes += len(chunk)
        if self._work is None:
            self._begin()
        while self._bytes >= MOST_BYTES and self._work is not None:
            await asyncio.wait([self._work])
        self._raise()

    async def settled(self) -> None:
        """Wait until all is written, or nothing more will be; raise what went wrong.

        Whoever is cancelled waits for the thread all the same, and gives up what it has not begun.
        """
        cancelled = False
        while (work := self._work or self._flush) is not None:
            try:
                await asyncio.wait([work])
            except asyncio.CancelledError:
                cancelled = True
                self._waiting, self._bytes = [], 0
        if cancelled:
            raise asyncio.CancelledError
        self._raise()

    def _begin(self) -> None:
        chunks, self._waiting, self._bytes = self._waiting, [], 0
        if chunks and self._error is None:
            self._work = self._loop.run_in_executor(None, self._write, chunks)
            self._work.add_done_callback(self._done)

    def _write(self, chunks: list[bytes]) -> int:
        """Write in a thread."""
        for chunk in chunks:
            self._writer.write(chunk)
        return sum(map(len, chunks))

    def _done(self, work: asyncio.Future[int]) -> None:
        self._work = None
        if work.cancelled():  # the loop's threads are gone
            self._error = asyncio.CancelledError()
        elif (error := work.exception()) is not None:
            self._error = error
        else:
            self._wrote(work.result())
            self._unflushed += work.result()
            self._begin_flush()
        self._begin()

    def _begin_flush(self) -> None:
        if self._flushers is not None and self._flush is None and self._unflushed >= FLUSH_BYTES:
            self._unflushed = 0
            self._flush = self._loop.run_in_executor(self._flushers, self._writer.flush)
            self._flush.add_done_callback(self._flushed)

    def _flushed(self, flush: asyncio.Future[None]) -> None:
        self._flush = None
        if not flush.cancelled() and (error := flush.exception()) is not None:
            self._error = self._error or error

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error
