"""What comes of a large file is written beside receiving: in order, never twice, and never after its end."""

import asyncio
import errno
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from firth_protocol.errors import TooLarge
from firthd.mirrors.aside import FLUSH_BYTES, MOST_BYTES, WORTH_BYTES, Aside


class Slow:
    """A writer whose large chunks wait for a gate, in the thread that writes them."""

    def __init__(self, limit: int = 1 << 40) -> None:
        self.written = 0
        self.resumed_at = 0
        self.chunks: list[bytes] = []
        self.hashed: list[bytes] = []
        self.behind = 0
        self.gate = threading.Event()
        self.hashing = threading.Event()
        self.hashing.set()
        self.flushed = threading.Event()
        self.flush_error: OSError | None = None
        self._limit = limit

    def write(self, chunk: bytes | memoryview) -> None:
        self.append([chunk])
        self.hash([chunk])

    def append(self, chunks: Sequence[bytes | memoryview]) -> None:
        for chunk in map(bytes, chunks):
            if len(chunk) >= WORTH_BYTES:
                assert self.gate.wait(5)
            if self.written + len(chunk) > self._limit:
                raise TooLarge("more than was promised")
            self.chunks.append(chunk)
            self.written += len(chunk)

    def hash(self, chunks: Sequence[bytes | memoryview]) -> None:
        if any(len(chunk) >= WORTH_BYTES for chunk in chunks):
            assert self.hashing.wait(5)
        self.hashed += map(bytes, chunks)

    def hash_behind(self, sizes: Sequence[int]) -> None:
        self.behind += sum(sizes)

    def restart(self) -> None:
        raise AssertionError

    def flush(self) -> None:
        assert self.gate.wait(5)
        if self.flush_error is not None:
            raise self.flush_error
        self.flushed.set()


LARGE = bytes(WORTH_BYTES)


async def test_small_chunks_behind_a_large_one_keep_their_order() -> None:
    writer, told = Slow(), list[int]()
    aside = Aside(writer, told.append)
    await aside.put(b"first")
    assert (writer.chunks, told) == ([b"first"], [5])  # nothing waits: written at once
    for chunk in (LARGE, b"second", LARGE, b"third"):
        await aside.put(chunk)
    assert writer.chunks == [b"first"]
    writer.gate.set()
    await aside.settled()
    assert writer.chunks == writer.hashed == [b"first", LARGE, b"second", LARGE, b"third"]
    assert sum(told) == writer.written == 2 * WORTH_BYTES + 16


async def test_no_more_is_taken_than_may_wait() -> None:
    writer = Slow()
    aside = Aside(writer, lambda _: None)
    await aside.put(LARGE)
    putting = asyncio.create_task(aside.put(bytes(MOST_BYTES)))
    await asyncio.sleep(0.01)
    assert not putting.done()
    writer.gate.set()
    await putting
    await aside.settled()
    assert writer.written == MOST_BYTES + WORTH_BYTES


async def test_what_is_written_is_told_before_it_is_hashed_and_no_more_is_taken_than_may_wait_for_that() -> None:
    writer, told = Slow(), asyncio.Queue[int]()
    writer.gate.set()
    writer.hashing.clear()
    aside = Aside(writer, told.put_nowait)
    await aside.put(LARGE)
    assert await told.get() == WORTH_BYTES
    putting = asyncio.create_task(aside.put(bytes(MOST_BYTES)))
    assert await told.get() == MOST_BYTES
    assert not putting.done()
    settling = asyncio.create_task(aside.settled())
    writer.hashing.set()
    await putting
    await settling
    assert sum(map(len, writer.hashed)) == writer.written


async def test_what_goes_wrong_in_the_thread_is_raised_and_nothing_is_written_after_it() -> None:
    writer = Slow(limit=WORTH_BYTES)
    writer.gate.set()
    aside = Aside(writer, lambda _: None)
    await aside.put(LARGE)
    await aside.put(LARGE)
    with pytest.raises(TooLarge):
        await aside.settled()
    with pytest.raises(TooLarge):
        await aside.put(b"more")
    with pytest.raises(TooLarge):
        await aside.settled()
    assert writer.written == WORTH_BYTES


async def test_what_has_come_is_flushed_while_more_comes_and_before_anybody_else_has_the_file() -> None:
    writer = Slow()
    writer.gate.set()
    with ThreadPoolExecutor(1) as flushers:
        await put_all(Aside(writer, lambda _: None, flushers))
    assert writer.flushed.is_set()


async def test_a_flush_that_goes_wrong_on_the_way_is_told() -> None:
    writer = Slow()
    writer.gate.set()
    writer.flush_error = OSError(errno.EIO, "the disk is broken")
    with ThreadPoolExecutor(1) as flushers, pytest.raises(OSError, match="broken"):
        await put_all(Aside(writer, lambda _: None, flushers))


async def put_all(aside: Aside) -> None:
    """Put as much as is flushed on the way, and wait for the end."""
    await aside.put(bytes(FLUSH_BYTES))
    await aside.settled()


async def test_without_threads_for_it_nothing_is_flushed_on_the_way() -> None:
    writer = Slow()
    writer.gate.set()
    aside = Aside(writer, lambda _: None)
    await aside.put(bytes(FLUSH_BYTES))
    await aside.settled()
    assert not writer.flushed.is_set()


async def test_whoever_is_cancelled_waits_for_the_thread_and_gives_up_the_rest() -> None:
    writer = Slow()
    aside = Aside(writer, lambda _: None)
    for _ in range(3):
        await aside.put(LARGE)
    settling = asyncio.create_task(aside.settled())
    await asyncio.sleep(0)
    settling.cancel()
    await asyncio.sleep(0.01)
    assert not settling.done()
    writer.gate.set()
    with pytest.raises(asyncio.CancelledError):
        await settling
    assert writer.written == WORTH_BYTES


async def test_what_others_write_is_told_and_hashed_behind_them() -> None:
    writer, told = Slow(limit=WORTH_BYTES), list[int]()
    writer.gate.set()
    aside = Aside(writer, told.append)
    aside.take(memoryview(LARGE))
    aside.came(WORTH_BYTES)
    await aside.settled()
    assert (told, writer.behind) == ([WORTH_BYTES], WORTH_BYTES)
    with pytest.raises(TooLarge):
        aside.take(memoryview(LARGE))
