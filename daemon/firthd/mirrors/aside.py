"""The only place that writes, hashes and flushes what comes of a large file in threads while more of it is received."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Generic, TypeVar

from firthd.store.incoming import Taking

T = TypeVar("T")

WORTH_BYTES = 64 * 1024
"""A smaller chunk that nothing waits before is written at once: the way to a thread costs more, and a client waits."""
MOST_BYTES = 1024 * 1024
"""Bytes that wait for being written, or for being hashed, before no more are taken."""
TURN_BYTES = 4 * 1024 * 1024
"""Bytes after which a thread is given back: other files wait for theirs."""
FLUSH_BYTES = 1024 * 1024
"""Bytes written after which a flush begins, where one is to go on beside: less is left for the one at the end."""


class Aside:
    """One body on its way into its file, in order. `wrote` is told how many bytes were written.

    Hashing goes on beside writing: what is written is wanted at once, the digest only at the end. `flushers`: threads
    that begin to flush what was written meanwhile. `settled` has to be awaited before anybody else touches the writer.
    """

    def __init__(self, writer: Taking, wrote: Callable[[int], None], flushers: Executor | None = None) -> None:
        self._flushers = flushers
        self._flush: asyncio.Future[None] | None = None
        self._unflushed = 0
        self._writer = writer
        self._wrote = wrote
        self._loop = asyncio.get_running_loop()
        self._error: BaseException | None = None
        self._writing = _Lane(self._loop, writer.append, self._written, self._failed)
        self._hashing = _Lane(self._loop, writer.hash, lambda _: None, self._failed)
        self._behind = _Lane(self._loop, writer.hash_behind, lambda _: None, self._failed)

    async def put(self, chunk: bytes) -> None:
        """Take a chunk; what went wrong with those before is raised now or by the next call."""
        self._raise()
        lanes = (self._writing, self._hashing)
        if len(chunk) < WORTH_BYTES and not any(lane.work for lane in lanes):
            self._writer.write(chunk)
            self._wrote(len(chunk))
            return
        for lane in lanes:
            lane.put(chunk, len(chunk))
        for lane in lanes:
            while lane.waiting >= MOST_BYTES and lane.work is not None:
                await lane.begun()
        self._raise()

    def take(self, chunk: memoryview) -> None:
        """Write a chunk in whoever's thread this is, where `came` tells of it; raise what went wrong before."""
        self._raise()
        self._writer.append([chunk])

    def came(self, size: int) -> None:
        """Tell of bytes that `take` was given, and hash them."""
        self._written(size)
        self._behind.put(size, size)

    async def hashed(self) -> None:
        """Wait until what `take` was given is hashed: what `put` is given comes behind it."""
        while (work := self._behind.work) is not None:
            await asyncio.wait([work])
        self._raise()

    async def settled(self) -> None:
        """Wait until all is written and hashed, or nothing more will be; raise what went wrong.

        Whoever is cancelled waits for the threads all the same, and gives up what they have not begun: not all that is
        written has been hashed then.
        """
        cancelled = False
        while (work := self._writing.work or self._hashing.work or self._behind.work or self._flush) is not None:
            try:
                await asyncio.wait([work])
            except asyncio.CancelledError:
                cancelled = True
                self._give_up()
        if cancelled:
            raise asyncio.CancelledError
        self._raise()

    def _give_up(self) -> None:
        for lane in (self._writing, self._hashing, self._behind):
            lane.clear()

    def _failed(self, error: BaseException) -> None:
        self._error = self._error or error
        self._give_up()

    def _written(self, size: int) -> None:
        self._wrote(size)
        self._unflushed += size
        if self._flushers is not None and self._flush is None and self._unflushed >= FLUSH_BYTES:
            self._unflushed = 0
            self._flush = self._loop.run_in_executor(self._flushers, self._writer.flush)
            self._flush.add_done_callback(self._flushed)

    def _flushed(self, flush: asyncio.Future[None]) -> None:
        self._flush = None
        if not flush.cancelled() and (error := flush.exception()) is not None:
            self._failed(error)

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error


class _Lane(Generic[T]):
    """What is done with chunks, or with what stands for some, in a thread, in order, with as many at once as wait.

    `done`, in the loop, hears how many bytes have been done, `failed` what went wrong; after that comes nothing more.
    `work` is pending while there is a thread.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        do: Callable[[Sequence[T]], None],
        done: Callable[[int], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        self.work: asyncio.Future[None] | None = None
        self.waiting = 0  # bytes
        self._loop = loop
        self._do = do
        self._done = done
        self._failed = failed
        self._chunks: list[T] = []
        self._lock = threading.Lock()  # of `waiting` and `_chunks`
        self._begun = asyncio.Event()

    def put(self, chunk: T, size: int) -> None:
        with self._lock:
            self._chunks.append(chunk)
            self.waiting += size
        self._begin()

    def clear(self) -> None:
        """Give up what has not been begun."""
        self._take()

    async def begun(self) -> None:
        """Wait until the thread has taken what waits, or has ended."""
        self._begun.clear()
        await self._begun.wait()

    def _take(self) -> tuple[list[T], int]:
        with self._lock:
            taken = self._chunks, self.waiting
            self._chunks, self.waiting = [], 0
        return taken

    def _begin(self) -> None:
        if self.work is None and self._chunks:
            self.work = self._loop.run_in_executor(None, self._go_on)
            self.work.add_done_callback(self._ended)

    def _go_on(self) -> None:
        """Do what waits, in a thread."""
        left = TURN_BYTES
        while left > 0:
            chunks, size = self._take()
            if not chunks:
                return
            self._do(chunks)
            self._loop.call_soon_threadsafe(self._did, size)
            left -= size

    def _did(self, size: int) -> None:
        self._begun.set()
        self._done(size)

    def _ended(self, work: asyncio.Future[None]) -> None:
        self.work = None
        if work.cancelled():  # the loop's threads are gone
            self._failed(asyncio.CancelledError())
        elif (error := work.exception()) is not None:
            self._failed(error)
        self._begun.set()
        self._begin()
