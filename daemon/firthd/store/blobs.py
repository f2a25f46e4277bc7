"""The only place that lays files under their sha256: written aside, verified, made durable, renamed, never changed."""

import asyncio
import contextlib
import hashlib
import itertools
import logging
import os
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from uuid import uuid4

from msgspec import Struct

from firth_protocol.errors import Unavailable
from firthd.store.batches import Arrived, Batches, Hand, throw_away
from firthd.store.disk import READ_CHUNK, sync
from firthd.store.incoming import BlobMismatch, BlobWriter, MemoryWriter
from firthd.store.together import LEAST, Together

log = logging.getLogger(__name__)

COMPANY_S = 0.01
"""Seconds that the first of small files waits for others to be flushed with."""
REST_S = 30.0
"""Seconds without a batch after which what is only needed for many files is let go of."""
BATCH = 256
"""Files made durable together at the most."""
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")


class Kept(Struct, frozen=True, kw_only=True):
    """A stored file. `channel_id`: the channel that it came for, when it came for one."""

    sha256: str
    size: int
    channel_id: int | None = None


class Wrong(Struct, frozen=True):
    """What was wrong with a file, and how many bytes of it went into quarantine."""

    reason: str
    size: int


NameBlobs = Callable[[list[Kept]], Awaitable[None]]
"""Writes the rows of files in one transaction: that they are at their final name, or just before, whom they are for."""


class _Waiting(Arrived):
    """A file that waits for its batch, and whoever waits for it. `channel_id`: the channel that it came for, if any."""

    def __init__(
        self,
        path: str,
        channel_id: int | None,
        *,
        sha256: str = "",
        size: int = 0,
        held: MemoryWriter | None = None,
    ) -> None:
        super().__init__(path, sha256=sha256, size=size, held=held)
        self.channel_id = channel_id
        self.future: asyncio.Future[Kept] = asyncio.get_running_loop().create_future()

    @property
    def kept(self) -> Kept:
        return Kept(sha256=self.sha256, size=self.size, channel_id=self.channel_id)


class _Lane:
    """Files on their way, batch after batch. `small`: they are many, and were held in memory."""

    def __init__(self, *, small: bool) -> None:
        self.small = small
        self.waiting: list[_Waiting] = []
        self.flusher: asyncio.Task[None] | None = None


def _abort_unwanted(made: asyncio.Future[BlobWriter]) -> None:
    if not made.cancelled() and made.exception() is None:
        made.result().abort()


def _tell(waiting: _Waiting, error: BaseException) -> None:
    if not waiting.future.done():
        waiting.future.set_exception(error)
        waiting.future.exception()  # a caller that went away does not make it an unretrieved error


def _digest(fd: int, hurry: Callable[[int], None] | None) -> str:
    digest = hashlib.sha256()
    position = 0
    while True:
        if hurry is not None:
            hurry(READ_CHUNK)
        chunk = os.pread(fd, READ_CHUNK, position)
        if not chunk:
            return digest.hexdigest()
        digest.update(chunk)
        position += len(chunk)


class BlobStore:
    """Content-addressed files below one folder: ab/cd/<sha256>. The file at its final name is what counts."""

    def __init__(
        self,
        root: Path,
        name_blobs: NameBlobs | None = None,
        give: NameBlobs | None = None,
        together: Together | None = None,
        hand: Hand | None = None,
    ) -> None:
        self.root = root
        self._give = give
        self._temporary = root / "tmp"
        self._quarantine = root / "quarantine"
        self._name_blobs = name_blobs
        self._batches = Batches(root, together, hand)
        self._small = _Lane(small=True)
        self._written = _Lane(small=False)  # one of these may be what a client waits for: it waits for none of those
        self._resting: asyncio.TimerHandle | None = None
        self._resting_now: asyncio.Task[None] | None = None
        self._closed = False
        self._mark, self._numbers = uuid4().hex, itertools.count()

    def prepare(self) -> None:
        """Make the folders; throw away what was half written when the last process ended. Blocks."""
        self._temporary.mkdir(parents=True, exist_ok=True)
        for entry in self._temporary.iterdir():
            with contextlib.suppress(OSError):
                entry.unlink()

    def path(self, sha256: str) -> Path:
        """Return the final place of a blob; raise ValueError when that is no sha256 in lower hex."""
        if not _SHA256.match(sha256):
            raise ValueError("not a sha256")
        return self.root / sha256[:2] / sha256[2:4] / sha256

    async def local(self, sha256: str) -> Path:
        """Return where a blob's bytes are to be had on this machine, for reading; raise ValueError for no sha256.

        Whether they are there is not looked at: opening the file tells.
        """
        return self.path(sha256)

    def size(self, sha256: str) -> int | None:
        """Return the size of a stored blob in bytes, None when it is not there."""
        try:
            return self.path(sha256).stat().st_size
        except FileNotFoundError:
            return None

    def has(self, sha256: str) -> bool:
        return self.size(sha256) is not None

    def listed(self, prefix: str) -> list[Kept]:
        """Return the files whose sha256 begins with two hex digits. Blocks."""
        found = []
        for file in (self.root / prefix).glob("[0-9a-f][0-9a-f]/*"):
            if _SHA256.match(file.name):
                with contextlib.suppress(FileNotFoundError):
                    found.append(Kept(sha256=file.name, size=file.stat().st_size))
        return found

    def temporary(self) -> Path:
        """Return a fresh name on the same file system."""
        return Path(self._aside())

    def _aside(self) -> str:
        return f"{self._temporary}/{self._mark}.{next(self._numbers)}"

    def writer(
        self,
        *,
        size: int | None,
        sha256: str | None,
        md5: str | None = None,
        max_bytes: int | None = None,
        path: Path | None = None,
    ) -> BlobWriter:
        return BlobWriter(path or self.temporary(), size=size, sha256=sha256, md5=md5, limit=max_bytes)

    async def open_writer(
        self,
        *,
        size: int | None,
        sha256: str | None,
        md5: str | None = None,
        max_bytes: int | None = None,
        path: Path | None = None,
    ) -> BlobWriter:
        """Return a writer, made in a thread: a file system that is flushing makes the making of a file wait.

        `path`: where it writes, on the store's file system; there is nothing yet.
        """
        made = asyncio.ensure_future(
            asyncio.to_thread(self.writer, size=size, sha256=sha256, md5=md5, max_bytes=max_bytes, path=path)
        )
        try:
            return await asyncio.shield(made)
        except asyncio.CancelledError:
            made.add_done_callback(_abort_unwanted)
            raise

    async def keep(self, writer: BlobWriter | MemoryWriter, channel_id: int | None = None) -> Kept:
        """Verify what was written, make it durable with others of its batch, give it its name and its row.

        `channel_id`: the channel that it came for; the same transaction says that it has been given the file. Raises
        BlobMismatch; then nothing is left. Cancelling the caller does not undo it.
        """
        if isinstance(writer, MemoryWriter):
            return await self._batch(self._small, _Waiting(self._aside(), channel_id, held=writer))
        try:
            writer.verify()
        except BlobMismatch:
            writer.abort()
            raise
        writer.close()
        waiting = _Waiting(str(writer.path), channel_id, sha256=writer.sha256, size=writer.written)
        try:
            return await self._batch(self._written, waiting)
        except Unavailable:
            writer.abort()
            raise

    async def name(self, found: list[Kept]) -> None:
        """Write the rows of files that are at their final names already; those that have one keep it."""
        if self._name_blobs is not None and found:
            await self._name_blobs(found)

    async def adopt(self, path: Path, sha256: str, size: int) -> None:
        """Give a file that a worker wrote and hashed its final name."""
        await self._batch(self._written, _Waiting(str(path), None, sha256=sha256, size=size))

    async def _batch(self, lane: _Lane, waiting: _Waiting) -> Kept:
        if self._closed:
            raise Unavailable("the daemon is stopping")
        lane.waiting.append(waiting)
        if lane.flusher is None or lane.flusher.done():
            lane.flusher = asyncio.create_task(self._flush(lane), name=f"blobs {self.root.name}")
        return await waiting.future  # cancelled with the caller; the batch goes on

    async def expect(self, files: int) -> None:
        """Make ready for so many small files that are about to come."""
        if files >= LEAST:
            await asyncio.to_thread(self._batches.ready)
            self._rest_later()

    async def _flush(self, lane: _Lane) -> None:
        """Make batch after batch durable; what arrives while one is under way is the next.

        While one is given its names the next one is written.
        """
        naming: asyncio.Task[None] | None = None
        try:
            if lane.small and len(lane.waiting) < LEAST:
                await asyncio.sleep(COMPANY_S)
            while lane.waiting:
                batch, lane.waiting = lane.waiting[:BATCH], lane.waiting[BATCH:]
                together = lane.small and len(batch) >= LEAST
                try:
                    await asyncio.to_thread(self._batches.make_durable, batch, together=together)
                    if naming is not None:
                        await naming
                except BaseException as error:
                    await self._give_up(batch, error)
                    continue
                naming = asyncio.create_task(self._named(batch, together=together), name=f"blobs {self.root.name}")
                if not lane.waiting:
                    await naming
        finally:
            if naming is not None:
                await naming
        if lane.small:
            self._rest_later()

    async def _named(self, batch: list[_Waiting], *, together: bool) -> None:
        try:
            given = [waiting.kept for waiting in batch if waiting.error is None and waiting.channel_id]
            if self._give is not None and given:
                await self._give(given)  # before they have their names: after a crash it is known whom they are for
            await asyncio.to_thread(self._batches.rename, batch, together=together)
            named = [waiting.kept for waiting in batch if waiting.error is None]
            if self._name_blobs is not None and named:
                await self._name_blobs(named)
        except BaseException as error:
            await self._give_up(batch, error)
            return
        for waiting in batch:
            if waiting.error is not None:
                _tell(waiting, waiting.error)
            elif not waiting.future.done():
                waiting.future.set_result(waiting.kept)

    async def _give_up(self, batch: list[_Waiting], error: BaseException) -> None:
        for waiting in batch:
            _tell(waiting, waiting.error or error)
        await asyncio.to_thread(throw_away, [waiting.path for waiting in batch])
        if not isinstance(error, Exception):
            raise error

    def _rest_later(self) -> None:
        if self._resting is not None:
            self._resting.cancel()
        self._resting = asyncio.get_running_loop().call_later(REST_S, self._rest)

    def _rest(self) -> None:
        if self._small.flusher is None or self._small.flusher.done():
            self._resting_now = asyncio.create_task(asyncio.to_thread(self._batches.rest), name="blobs rest")

    def set_aside_if_wrong(
        self, sha256: str, size: int | None, hurry: Callable[[int], None] | None = None
    ) -> Wrong | None:
        """Look whether a file is what its name says; one that is not goes into quarantine. Blocks.

        `size` None: unknown. A file of the right size is read whole; `hurry` is told how many bytes are about to be
        read, and may wait. Return what was wrong, None when nothing was. Raises OSError when the file cannot be read.
        """
        final = self.path(sha256)
        try:
            fd = os.open(final, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return Wrong("it is gone", 0)
        try:
            status = os.fstat(fd)
            if size is not None and status.st_size != size:
                reason = f"it has {status.st_size:,} bytes instead of {size:,}"
            elif _digest(fd, hurry) != sha256:
                reason = "it holds other bytes than its name says"
            else:
                return None
            self._set_aside(final, status)
            return Wrong(reason, status.st_size)
        finally:
            os.close(fd)

    def _set_aside(self, final: Path, looked_at: os.stat_result) -> None:
        self._quarantine.mkdir(exist_ok=True)
        aside = self._quarantine / final.name
        try:
            final.replace(aside)
            moved = aside.stat()
        except FileNotFoundError:
            return  # somebody else looked at it at the same time, and was faster
        if (moved.st_dev, moved.st_ino) != (looked_at.st_dev, looked_at.st_ino):
            aside.replace(final)  # the right one had come while this one was looked at
        sync(final.parent, os.O_DIRECTORY, os.fsync)

    def drop_from_quarantine(self, sha256: str) -> None:
        """Take away what lies in quarantine under a name. Blocks."""
        self.path(sha256)
        (self._quarantine / sha256).unlink(missing_ok=True)

    def delete(self, sha256: str) -> None:
        """Take a blob's file away; it may be gone already. Blocks."""
        with contextlib.suppress(FileNotFoundError):
            self.path(sha256).unlink()

    def written_ms(self, sha256: str) -> int:
        """Return when a blob was written, or written again; 0 when it is not there. Blocks."""
        try:
            return self.path(sha256).stat().st_mtime_ns // 1_000_000
        except FileNotFoundError:
            return 0

    def take_away(self, sha256: str, young_ms: int) -> bool:
        """Take a blob's file away unless it was written, or written again, since a moment. Blocks.

        It is moved aside first: what comes meanwhile finds no file, and is laid there anew.
        """
        aside = self.temporary()
        try:
            self.path(sha256).replace(aside)
        except FileNotFoundError:
            return False
        if aside.stat().st_mtime_ns // 1_000_000 >= young_ms:
            aside.replace(self.path(sha256))
            return False
        aside.unlink()
        return True

    async def free_bytes(self) -> int:
        """Return the bytes free to us on the store's file system."""
        stat = await asyncio.to_thread(os.statvfs, self.root)
        return stat.f_bavail * stat.f_frsize

    async def total_bytes(self) -> int:
        """Return the size of the store's file system in bytes."""
        stat = await asyncio.to_thread(os.statvfs, self.root)
        return stat.f_blocks * stat.f_frsize

    async def close(self) -> None:
        """Wait for the batches under way; take no more."""
        self._closed = True
        for task in (self._small.flusher, self._written.flusher, self._resting_now):
            if task is not None:
                with contextlib.suppress(Exception):
                    await task
        if self._resting is not None:
            self._resting.cancel()
        await asyncio.to_thread(self._batches.close)
