"""The only place that brings the files of served objects in and takes them away: a row first, then its file.

A file goes a while after its last row: a request or a proxy may be about to open it. Between a file's arrival and its
row the file is held, so that no taking away meets it.
"""

import asyncio
import contextlib
import hashlib
import os
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from firth_protocol.errors import FirthError
from firthd.clock import Clock
from firthd.store import object_files, objects
from firthd.store.blobs import BlobStore
from firthd.store.database import Database
from firthd.store.incoming import BlobWriter
from firthd.store.object_files import Slice
from firthd.store.unpacking import Unpacked

T = TypeVar("T")
_CHUNK = 1024 * 1024
JOINED = 50_000
"""Slices of old packs from which on they are written as one: so many are held in memory, some 15 MB."""
LINGER_MS = 60_000
"""How long a file stays after its last row has gone."""


class Hold:
    """Files that wait for their rows."""

    def __init__(self, store: "ObjectStore") -> None:
        self._store = store
        self.files: list[str] = []

    async def adopt(self, path: Path, sha256: str, size: int) -> None:
        """Give a file that a worker wrote and hashed its final name."""
        await self._store.hold(sha256)
        self.files.append(sha256)
        await self._store.files.adopt(path, sha256, size)

    async def put(self, data: bytes) -> str:
        """Store bytes as a file; return their sha256."""
        sha256 = hashlib.sha256(data).hexdigest()
        await self._store.hold(sha256)
        self.files.append(sha256)
        if not await asyncio.to_thread(self._store.files.has, sha256):
            writer = await self._store.files.open_writer(size=len(data), sha256=sha256)
            writer.write(data)
            await self._store.files.keep(writer)
        return sha256


class ObjectStore:
    """The files of served objects, each under the sha256 of its bytes."""

    def __init__(self, db: Database, files: BlobStore, clock: Clock, *, joined: int = JOINED) -> None:
        self.files = files
        self._db = db
        self._clock = clock
        self._joined = joined
        self._held: Counter[str] = Counter()
        self._naming = asyncio.Lock()  # between the look at a file's rows and its end no hold is taken

    async def local(self, file: str) -> Path:
        """Return where a file lies on this machine, for a worker to read. Whether it is there is not looked at."""
        return await self.files.local(file)

    async def hold(self, file: str) -> None:
        """Keep a file from being taken away, with a row or without; `release` ends it."""
        async with self._naming:
            self._held[file] += 1

    def release(self, files: Collection[str]) -> None:
        """End one hold of each file."""
        for file in files:
            self._held[file] -= 1
            if not self._held[file]:
                del self._held[file]

    @contextlib.asynccontextmanager
    async def kept(self, files: Collection[str]) -> AsyncIterator[None]:
        """Keep files from being taken away, with a row or without, as long as somebody reads them."""
        async with self._naming:
            self._held.update(files)
        try:
            yield
        finally:
            self.release(files)

    @contextlib.asynccontextmanager
    async def arriving(self) -> AsyncIterator[Hold]:
        """Give a hold for files whose rows are written before the block ends; without a row they go again."""
        hold = Hold(self)
        try:
            yield hold
        finally:
            try:
                now = self._clock.now_ms()
                with contextlib.suppress(FirthError):  # the disk is full, or the daemon ends: the next start finds them
                    await asyncio.shield(self._db.write(lambda tx: object_files.note_unnamed(tx, hold.files, now)))
            finally:
                self.release(hold.files)

    # --- taking away --------------------------------------------------------------------------------------

    async def take_away(self) -> int:
        """Delete the files that have been without a row for a while; return how many."""
        before_ms = self._clock.now_ms() - LINGER_MS
        waiting = await self._db.read(lambda r: object_files.unnamed(r, before_ms))
        gone = 0
        for start in range(0, len(waiting), objects.BATCH):
            gone += await self._take_away(waiting[start : start + objects.BATCH], before_ms)
        return gone

    async def _take_away(self, files: list[str], before_ms: int) -> int:
        async with self._naming:
            named = await self._db.read(lambda r: object_files.named_of(r, files))
            free = [file for file in files if file not in named and not self._held[file]]
            await asyncio.to_thread(_delete, self.files, free)
        settled = [file for file in files if file in named or file in free]
        await self._db.write(lambda tx: object_files.forget_unnamed(tx, settled, before_ms))
        return len(free)

    async def find_orphans(self) -> int:
        """Write down files that no row names: a crash came between a file and its row. Return how many."""
        found = 0
        for first in range(256):
            listed = [kept.sha256 for kept in await asyncio.to_thread(self.files.listed, f"{first:02x}")]
            named = await self._db.read(partial(object_files.named_of, files=listed))
            orphans = [file for file in listed if file not in named]
            if orphans:
                now = self._clock.now_ms()
                await self._db.write(partial(object_files.note_unnamed, files=orphans, now_ms=now))
            found += len(orphans)
        return found

    async def unpack(self, channel_id: int) -> None:
        """Give objects in force that lie compressed only, as after a rollback, their plain files again.

        Nobody else may write the channel's objects meanwhile. Raises OSError, BlobMismatch.
        """
        for row, sha256, size, file in await self._db.read(lambda r: object_files.packed_in_force(r, channel_id)):
            async with self.arriving() as hold:
                await self.hold(sha256)
                hold.files.append(sha256)
                writer = await self.files.open_writer(size=size, sha256=sha256)
                await _written(writer, partial(_unpack, self.files.path(file)))
                await self.files.keep(writer)
                await self._db.write(partial(object_files.set_plain, row=row))

    # --- packs --------------------------------------------------------------------------------------------

    async def tidy_packs(self, channel_id: int, touched: set[bytes] | None) -> bool:
        """Move what is named out of packs that hold little else than waste, or are small and many.

        Nobody else may write the channel's objects meanwhile. Return whether anything moved.
        """
        packs = await self._db.read(lambda r: object_files.packs_to_move(r, channel_id, touched))
        if not packs:
            return False
        slices: list[Slice] = []
        taken: list[str] = []
        for pack in packs:
            slices += await self._db.read(partial(object_files.living, channel_id=channel_id, pack=pack))
            taken.append(pack)
            if len(slices) < self._joined and pack != packs[-1]:
                continue
            if slices:
                await self._join(channel_id, slices)
            await object_files.forget_packs(self._db, channel_id, taken, self._clock.now_ms())
            slices, taken = [], []
        return True

    async def _join(self, channel_id: int, slices: list[Slice]) -> None:
        writer = await self.files.open_writer(size=None, sha256=None)
        places = await _written(writer, partial(_write_slices, self.files, slices))
        async with self.arriving() as hold:
            await self.hold(writer.sha256)
            hold.files.append(writer.sha256)
            kept = await self.files.keep(writer)
            await self._db.write(lambda tx: objects.name_pack(tx, channel_id, kept.sha256, kept.size))
            await object_files.move(self._db, channel_id, list(zip(slices, places, strict=True)), kept.sha256)


def _delete(files: BlobStore, names: Sequence[str]) -> None:
    for name in names:
        files.delete(name)


async def _written(writer: BlobWriter, write: Callable[["_Sink"], T]) -> T:
    """Let a thread write. Whoever is cancelled waits until it has let go of the file, and leaves nothing."""
    sink = _Sink(writer)
    work = asyncio.ensure_future(asyncio.to_thread(write, sink))
    try:
        return await asyncio.shield(work)
    except BaseException:
        sink.stopped.set()
        await asyncio.wait({work})
        writer.abort()
        raise


class _Sink:
    """A file that a thread writes for as long as it is wanted."""

    def __init__(self, writer: BlobWriter) -> None:
        self.stopped = threading.Event()
        self._writer = writer

    @property
    def written(self) -> int:
        return self._writer.written

    def write(self, data: bytes) -> None:
        if self.stopped.is_set():
            raise InterruptedError("not wanted any more")
        self._writer.write(data)


def _unpack(packed: Path, writer: _Sink) -> None:
    """Write what a compressed file holds. Raises OSError."""
    with packed.open("rb") as source:
        unpacked = Unpacked(source)
        while chunk := unpacked.read(_CHUNK):
            writer.write(chunk)


def _write_slices(files: BlobStore, slices: Sequence[Slice], writer: _Sink) -> list[int]:
    """Copy slices one behind the other; return where each begins. Raises OSError when one is not what it should be."""
    known: dict[str, int] = {}
    places = []
    with contextlib.closing(_Opened(files)) as opened:
        for one in slices:
            if one.sha256 not in known:  # two packs may hold the same
                data = os.pread(opened.fd(one.file), one.size, one.offset)
                if hashlib.sha256(data).hexdigest() != one.sha256:
                    raise OSError(f"pack {one.file} does not hold {one.sha256} at {one.offset}")
                known[one.sha256] = writer.written
                writer.write(data)
            places.append(known[one.sha256])
    return places


class _Opened:
    """The pack that is read at the moment."""

    def __init__(self, files: BlobStore) -> None:
        self._files = files
        self._file = ""
        self._fd = -1

    def fd(self, file: str) -> int:
        if file != self._file:
            self.close()
            self._fd = os.open(self._files.path(file), os.O_RDONLY | os.O_CLOEXEC)
            self._file = file
        return self._fd

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
