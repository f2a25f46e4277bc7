"""Many small files are flushed by one call for their file system, where that tells everything and costs less."""

import asyncio
import hashlib
from pathlib import Path

import pytest

from firthd.store.batches import FLUSHERS
from firthd.store.blobs import BlobStore, Kept
from firthd.store.incoming import MemoryWriter
from firthd.store.together import LEAST, PAUSE_S, SLOW_S, Together
from tests.support.clock import FakeClock


class Sluggish(FakeClock):
    """Each look at it takes so long."""

    def __init__(self) -> None:
        super().__init__()
        self.look_s = 0.0
        self.seconds = 0.0

    def monotonic(self) -> float:
        self.seconds += self.look_s
        return self.seconds


class Never(Together):
    """A file system that cannot be flushed as a whole, or says that something was wrong with it."""

    asked = 0

    def sync(self) -> bool:
        self.asked += 1
        return False


def held(data: bytes) -> MemoryWriter:
    writer = MemoryWriter(size=len(data), sha256=hashlib.sha256(data).hexdigest(), md5=None)
    writer.write(data)
    return writer


async def test_where_it_cannot_be_done_each_file_is_flushed(tmp_path: Path) -> None:
    never = Never(tmp_path, FakeClock())
    store = BlobStore(tmp_path / "blobs", together=never)
    await asyncio.to_thread(store.prepare)
    data = [f"file {number}".encode() for number in range(LEAST * FLUSHERS)]
    kept = await asyncio.gather(*(store.keep(held(one)) for one in data))
    await store.close()
    assert kept == [Kept(sha256=hashlib.sha256(one).hexdigest(), size=len(one)) for one in data]
    assert all(store.path(one.sha256).read_bytes() == body for one, body in zip(kept, data, strict=True))
    assert never.asked == 2  # for the files, and for the folders


async def test_few_files_and_those_that_were_written_as_they_came_are_flushed_alone(tmp_path: Path) -> None:
    never = Never(tmp_path, FakeClock())
    store = BlobStore(tmp_path / "blobs", together=never)
    await asyncio.to_thread(store.prepare)
    few = [store.keep(held(f"few {number}".encode())) for number in range(LEAST - 1)]
    writers = [store.writer(size=3, sha256=None) for _ in range(LEAST)]
    for writer in writers:
        writer.write(b"one")
    await asyncio.gather(*few, *(store.keep(writer) for writer in writers))
    await store.close()
    assert never.asked == 0


def test_what_took_long_is_left_for_a_while(tmp_path: Path) -> None:
    clock = Sluggish()
    together = Together(tmp_path, clock)
    if not together.sync():
        pytest.skip("no file system that is flushed as a whole lies here")
    clock.look_s = SLOW_S * 2
    assert together.sync()  # it is done all the same
    clock.look_s = 0.0
    assert not together.sync()
    clock.seconds += PAUSE_S
    assert together.sync()
    together.close()
    assert not together.sync()


def test_nothing_is_flushed_as_a_whole_where_the_file_system_is_not_known_for_it() -> None:
    assert not Together(Path("/proc"), FakeClock()).sync()
