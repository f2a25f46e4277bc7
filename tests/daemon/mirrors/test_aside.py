"""What comes of a large file is written beside receiving: in order, never twice, and never after its end."""

import asyncio
import threading
from pathlib import Path

import pytest

from firth_protocol.errors import FirthError, TooLarge, Unavailable
from firthd.mirrors.aside import MOST_BYTES, WORTH_BYTES, Aside
from firthd.mirrors.in_flight import HELD_BACK, InFlight
from firthd.store.artifacts import FileRow


class Slow:
    """A writer whose large chunks wait for a gate, in the thread that writes them."""

    def __init__(self, limit: int = 1 << 40) -> None:
        self.written = 0
        self.resumed_at = 0
        self.chunks: list[bytes] = []
        self.gate = threading.Event()
        self._limit = limit

    def write(self, chunk: bytes) -> None:
        if len(chunk) >= WORTH_BYTES:
            assert self.gate.wait(5)
        if self.written + len(chunk) > self._limit:
            raise TooLarge("more than was promised")
        self.chunks.append(chunk)
        self.written += len(chunk)

    def restart(self) -> None:
        raise AssertionError


LARGE = bytes(WORTH_BYTES)
ROW = FileRow(
    id=1,
    channel_id=1,
    mirror_id=1,
    family="conda",
    part="noarch",
    section="packages.conda",
    filename="alpha-1-0.conda",
    name="alpha",
    version="1",
    size=100_000,
    sha256=None,
    md5=None,
    declared=2,
    retired=False,
    delivered=False,
)


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
    assert writer.chunks == [b"first", LARGE, b"second", LARGE, b"third"]
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


async def test_the_end_of_a_file_is_given_once_it_is_verified_and_stays_given(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(100_000))
    live = InFlight(ROW)
    live.join("client")
    live.begin(path, 100_000)
    live.wrote(100_000)
    assert await live.beyond(0) == 100_000 - HELD_BACK
    live.verified(100_000)
    assert await live.beyond(100_000 - HELD_BACK) == 100_000
    error: FirthError = Unavailable("the disk is full")
    live.fail(error)
    assert await live.beyond(99_999) == 100_000  # it is what was promised, whatever becomes of the store
    with pytest.raises(Unavailable):
        await live.whole()
    live.leave("client")
