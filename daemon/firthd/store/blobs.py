"""The only place that lays files under their sha256: written aside, verified, made durable, renamed, never changed."""

import asyncio
import contextlib
import hashlib
import itertools
import logging
import os
import re
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

from msgspec import Struct

from firth_protocol.errors import Unavailable
from firthd.store.disk import sync
from firthd.store.incoming import READ_CHUNK, BlobMismatch, BlobWriter, MemoryWriter

log = logging.getLogger(__name__)

BATCH = 256
"""Files made durable together at the most."""
FLUSHERS = 8
"""Flushes side by side."""
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


class _Waiting:
    """A file that waits for its batch: at `path`, or still in memory; `kept` is known once it was looked at."""

    __slots__ = ("channel_id", "error", "future", "held", "kept", "path", "there")

    def __init__(
        self,
        path: Path,
        future: asyncio.Future[Kept],
        *,
        kept: Kept | None = None,
        held: MemoryWriter | None = None,
        channel_id: int | None = None,
    ) -> None:
        self.path = path
        self.future = future
        self.kept = kept
        self.held = held
        self.channel_id = channel_id
        self.error: BaseException | None = None
        self.there = False  # the store has had the same bytes before

    @property
    def stored(self) -> Kept:
        assert self.kept is not None
        return self.kept


def _abort_unwanted(made: asyncio.Future[BlobWriter]) -> None:
    if not made.cancelled() and made.exception() is None:
        made.result().abort()


def _throw_away(paths: list[Path]) -> None:
    for path in paths:
        with contextlib.suppress(OSError):
            path.unlink()


def _sync_folders(folders: list[Path]) -> None:
    for folder in folders:
        sync(folder, os.O_DIRECTORY, os.fsync)


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

    def __init__(self, root: Path, name_blobs: NameBlobs | None = None, give: NameBlobs | None = None) -> None:
        self.root = root
        self._give = give
        self._temporary = root / "tmp"
        self._quarantine = root / "quarantine"
        self._name_blobs = name_blobs
        self._waiting: list[_Waiting] = []
        self._flusher: asyncio.Task[None] | None = None
        self._flushers = ThreadPoolExecutor(FLUSHERS, thread_name_prefix=f"flush {root.name}")
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
        return self._temporary / f"{self._mark}.{next(self._numbers)}"

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
        future: asyncio.Future[Kept] = asyncio.get_running_loop().create_future()
        if isinstance(writer, MemoryWriter):
            return await self._batch(_Waiting(self.temporary(), future, held=writer, channel_id=channel_id))
        try:
            writer.verify()
        except BlobMismatch:
            writer.abort()
            raise
        kept = Kept(sha256=writer.sha256, size=writer.written, channel_id=channel_id)
        writer.close()
        try:
            return await self._batch(_Waiting(writer.path, future, kept=kept, channel_id=channel_id))
        except Unavailable:
            writer.abort()
            raise

    async def name(self, found: list[Kept]) -> None:
        """Write the rows of files that are at their final names already; those that have one keep it."""
        if self._name_blobs is not None and found:
            await self._name_blobs(found)

    async def adopt(self, path: Path, sha256: str, size: int) -> None:
        """Give a file that a worker wrote and hashed its final name."""
        future: asyncio.Future[Kept] = asyncio.get_running_loop().create_future()
        await self._batch(_Waiting(path, future, kept=Kept(sha256=sha256, size=size)))

    async def _batch(self, waiting: _Waiting) -> Kept:
        if self._closed:
            raise Unavailable("the daemon is stopping")
        self._waiting.append(waiting)
        if self._flusher is None or self._flusher.done():
            self._flusher = asyncio.create_task(self._flush(), name=f"blobs {self.root.name}")
        return await asyncio.shield(waiting.future)

    async def _flush(self) -> None:
        """Make batch after batch durable; what arrives while one is under way is the next."""
        while self._waiting:
            batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
            try:
                await asyncio.to_thread(self._make_durable, batch)
                given = [waiting.stored for waiting in batch if waiting.error is None and waiting.channel_id]
                if self._give is not None and given:
                    await self._give(given)  # before they have their names: after a crash it is known whom they are for
                await asyncio.to_thread(self._rename, batch)
                named = [waiting.stored for waiting in batch if waiting.error is None]
                if self._name_blobs is not None and named:
                    await self._name_blobs(named)
            except BaseException as error:
                for waiting in batch:
                    _tell(waiting, waiting.error or error)
                await asyncio.to_thread(_throw_away, [waiting.path for waiting in batch])
                if not isinstance(error, Exception):
                    raise
                continue
            for waiting in batch:
                if waiting.error is not None:
                    _tell(waiting, waiting.error)
                elif not waiting.future.done():
                    waiting.future.set_result(waiting.stored)

    def _make_durable(self, batch: list[_Waiting]) -> None:
        """Write what is in memory and flush all; what goes wrong with a single file is noted there.

        Flushes run side by side: the file system makes one commit of many. What the store has is not written again.
        """
        stripes = [stripe for first in range(FLUSHERS) if (stripe := batch[first::FLUSHERS])]
        for done in [self._flushers.submit(self._flush_stripe, stripe) for stripe in stripes]:
            done.result()
        _throw_away([waiting.path for waiting in batch if waiting.error is not None])

    def _flush_stripe(self, stripe: list[_Waiting]) -> None:
        """Write all of them before the first is flushed: a commit then takes along those behind it."""
        opened: list[tuple[_Waiting, int]] = []
        try:
            for waiting in stripe:
                try:
                    if (fd := self._opened(waiting)) is not None:
                        opened.append((waiting, fd))
                except (OSError, BlobMismatch) as error:
                    waiting.error = error
            for waiting, fd in opened:
                try:
                    os.fdatasync(fd)
                except OSError as error:
                    waiting.error = error
        finally:
            for _, fd in opened:
                os.close(fd)

    def _opened(self, waiting: _Waiting) -> int | None:
        """Return the descriptor of a file that is to be flushed, written if it was in memory; None: the store has it.

        Raises OSError, and BlobMismatch for one in memory.
        """
        if waiting.held is None:
            if self._same(waiting):
                return None
            return os.open(waiting.path, os.O_RDONLY | os.O_CLOEXEC)
        data, sha256 = waiting.held.whole()
        waiting.held = None
        waiting.kept = Kept(sha256=sha256, size=len(data), channel_id=waiting.channel_id)
        if self._same(waiting):
            return None
        fd = os.open(waiting.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(fd, rest) :]
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _rename(self, batch: list[_Waiting]) -> None:
        """Give files their names, flush the folders; what goes wrong with a single file is noted there."""
        folders: set[Path] = set()
        for waiting in batch:
            if waiting.there or waiting.error is not None:
                continue
            try:
                final = self.path(waiting.stored.sha256)
                if not final.parent.is_dir():
                    final.parent.mkdir(parents=True, exist_ok=True)
                    folders.update((final.parent.parent, self.root))
                waiting.path.replace(final)
                folders.add(final.parent)
            except OSError as error:
                waiting.error = error
                _throw_away([waiting.path])
        every = list(folders)
        stripes = [stripe for first in range(FLUSHERS) if (stripe := every[first::FLUSHERS])]
        for done in [self._flushers.submit(_sync_folders, stripe) for stripe in stripes]:
            done.result()

    def _same(self, waiting: _Waiting) -> bool:
        """Throw away what came when the same bytes lie at their final name; those are young again, as if written."""
        final = self.path(waiting.stored.sha256)
        try:
            if final.stat().st_size != waiting.stored.size:
                return False
            os.utime(final)
        except OSError:
            return False
        waiting.there = True
        with contextlib.suppress(OSError):
            waiting.path.unlink()
        return True

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
        """Wait for the batch under way; take no more."""
        self._closed = True
        if self._flusher is not None:
            with contextlib.suppress(Exception):
                await self._flusher
        await asyncio.to_thread(self._flushers.shutdown)  # they have nothing left to do, and are gone with the store
