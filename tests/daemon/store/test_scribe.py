"""Small files by a process of its own: it does what would be done without it, and may be lost at any moment."""

import asyncio
import errno
import hashlib
import os
import signal
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from firthd.store.batches import Arrived, Batches
from firthd.store.blobs import BlobStore, Kept
from firthd.store.incoming import BlobMismatch, MemoryWriter
from firthd.store.promises import Promise
from firthd.store.scribe import Scribe
from firthd.store.together import LEAST, Together
from tests.support.clock import FakeClock

DATA = [f"file {number}".encode() * 999 for number in range(LEAST)]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def held(data: bytes, *, size: int | None = None, digest: str | None = None) -> MemoryWriter:
    writer = MemoryWriter(size=size or len(data), sha256=digest or sha256(data), md5=None)
    half = len(data) // 2
    writer.write(data[:half])
    writer.write(data[half:])
    return writer


def children() -> list[int]:
    """Return the processes that write for this one."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                said = (entry / "cmdline").read_bytes().split(b"\0")
                parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
            except OSError:
                continue
            if b"firthd.store.scribe" in said and int(parent) == os.getpid():
                found.append(int(entry.name))
    return found


def the_child() -> int:
    """Return the process, once it shows what it runs: that is a moment after it has begun."""
    deadline = time.monotonic() + 10
    while not (found := children()):
        assert time.monotonic() < deadline
    (child,) = found
    return child


class Lost(Scribe):
    """Kills its process before, or right after, it is asked."""

    def __init__(self, folder: Path, *, naming: bool, after: bool) -> None:
        super().__init__(folder)
        self.naming, self.after = naming, after

    def make_durable(self, batch: Sequence[Arrived]) -> bool:
        if self.naming:
            return super().make_durable(batch)
        return self._lose(batch)

    def rename(self, batch: Sequence[Arrived]) -> bool:
        if not self.naming:
            return super().rename(batch)
        if self.after:
            assert super().rename(batch)
            self._kill()
            return False
        return self._lose(batch)

    def _lose(self, batch: Sequence[Arrived]) -> bool:
        if self.after:  # it has written some of it
            for arrived in list(batch)[:3]:
                Path(arrived.path).write_bytes(b"half")
        self._kill()
        return super().rename(batch) if self.naming else super().make_durable(batch)

    def _kill(self) -> None:
        self.ready()
        os.kill(the_child(), signal.SIGKILL)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[BlobStore]:
    root = tmp_path / "blobs"
    store = BlobStore(root, together=Together(root, FakeClock()), hand=Scribe(root))
    await asyncio.to_thread(store.prepare)
    yield store
    await store.close()


async def test_many_small_files_are_written_by_one_process_that_ends_with_the_store(store: BlobStore) -> None:
    await store.expect(LEAST - 1)
    assert children() == []
    await store.expect(LEAST)
    child = the_child()
    kept = await asyncio.gather(*(store.keep(held(data)) for data in DATA))
    assert kept == [Kept(sha256=sha256(data), size=len(data)) for data in DATA]
    assert [store.path(one.sha256).read_bytes() for one in kept] == DATA
    again = await asyncio.gather(*(store.keep(held(data)) for data in DATA))
    assert again == kept
    assert children() == [child]
    await store.close()
    assert children() == []
    assert list((store.root / "tmp").iterdir()) == []


async def test_what_is_wrong_with_one_file_is_told_and_the_others_are_stored(store: BlobStore) -> None:
    in_the_way = sha256(DATA[1])
    (store.root / in_the_way[:2]).write_bytes(b"")  # where a folder should be
    same = sha256(DATA[2])[:2] == in_the_way[:2]
    assert not same
    tasks = [
        asyncio.ensure_future(store.keep(writer))
        for writer in [
            held(DATA[0], digest=sha256(b"another")),
            held(DATA[1]),
            held(DATA[2], size=len(DATA[2]) + 1),
            *(held(data) for data in DATA),
        ]
    ]
    told = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(told[0], BlobMismatch)
    assert "was promised" in told[0].reason
    assert isinstance(told[1], OSError)
    assert told[1].errno in {errno.ENOTDIR, errno.EEXIST}
    assert isinstance(told[2], BlobMismatch)
    assert "bytes came" in told[2].reason
    good = [one for one in told[3:] if isinstance(one, Kept)]
    assert len(good) >= len(DATA) - 4
    assert all(store.has(one.sha256) for one in good)
    assert list((store.root / "tmp").iterdir()) == []


def test_every_kind_of_promise_is_held(tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    batches = Batches(tmp_path, Together(tmp_path, FakeClock()), Scribe(tmp_path))
    data = DATA[0]
    writers = []
    for md5, also in [
        (hashlib.md5(data, usedforsecurity=False).hexdigest(), None),
        ("0" * 32, None),
        (None, Promise("sha512", hashlib.sha512(data).hexdigest())),
        (None, Promise("sha512", "0" * 128)),
    ]:
        writer = MemoryWriter(size=len(data), sha256=None, md5=md5)
        writer.promise(also)
        writer.write(data)
        writers.append(writer)
    batch = [Arrived(f"{tmp_path}/tmp/{number}", held=writer) for number, writer in enumerate(writers)]
    batches.make_durable(batch, together=True)
    batches.close()
    assert [arrived.error is None for arrived in batch] == [True, False, True, False]
    assert [arrived.sha256 for arrived in batch if arrived.error is None] == [sha256(data)] * 2


@pytest.mark.parametrize("naming", [False, True], ids=["while it writes", "while it names"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "behind"])
async def test_a_process_that_is_lost_loses_no_file(tmp_path: Path, naming: bool, after: bool) -> None:
    root = tmp_path / "blobs"
    store = BlobStore(root, together=Together(root, FakeClock()), hand=Lost(root, naming=naming, after=after))
    await asyncio.to_thread(store.prepare)
    kept = await asyncio.gather(*(store.keep(held(data)) for data in DATA))
    assert [store.path(one.sha256).read_bytes() for one in kept] == DATA
    await store.close()
    assert list((root / "tmp").iterdir()) == []
    assert children() == []


def test_it_ends_with_whoever_began_it(tmp_path: Path) -> None:
    scribe = Scribe(tmp_path)
    scribe.ready()
    child = the_child()
    scribe.rest()
    assert children() == []
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)
    scribe.rest()  # there is none to end
