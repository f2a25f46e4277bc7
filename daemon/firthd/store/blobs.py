"""The only place that lays files under their sha256: written aside, verified, made durable, renamed, never changed."""

import asyncio
import contextlib
import hashlib
import logging
import os
import re
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

from msgspec import Struct

from firth_protocol.errors import TooLarge, Unavailable
from firthd.store.disk import sync

log = logging.getLogger(__name__)

BATCH = 64
"""Files made durable together at the most."""
FLUSHERS = 8
"""Flushes side by side."""
READ_CHUNK = 1 << 20
"""Bytes read at a time when a file is looked at."""
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")


class BlobMismatch(ValueError):
    """The bytes are not what was promised."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


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


class BlobWriter:
    """A file on its way into the store: written aside, hashed while it is written."""

    def __init__(
        self,
        path: Path,
        *,
        size: int | None,
        sha256: str | None,
        md5: str | None,
        limit: int | None,
        resume: bool = False,
    ) -> None:
        self.path = path
        self.written = 0
        self._size = size
        self._sha256 = sha256
        self._md5 = md5
        self._limit = size if size is not None else limit
        self._hash = hashlib.sha256()
        self._md5_hash = hashlib.md5(usedforsecurity=False) if md5 and not sha256 else None
        self.resumed_at = 0  # bytes that were there before; `resume`: to be read again first
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_NOFOLLOW if resume else os.O_CREAT | os.O_EXCL)
        self.fd = os.open(path, flags, 0o640)
        self.closed = False

    def write(self, chunk: bytes) -> None:
        """Append bytes; raise TooLarge once there are more than were promised."""
        self._check_limit(len(chunk))
        view = memoryview(chunk)
        while view:
            done = os.write(self.fd, view)
            view = view[done:]
        self._count(chunk)

    def reread(self, most: int) -> bool:
        """Count bytes that an earlier process wrote, at most so many; return whether there are more. Blocks."""
        end = self.written + most
        while self.written < end:
            chunk = os.read(self.fd, READ_CHUNK)
            if not chunk:
                self.resumed_at = self.written
                return False
            self.took(chunk)
        return True

    def restart(self) -> None:
        """Throw away what has come, and begin with the first byte again."""
        os.ftruncate(self.fd, 0)
        os.lseek(self.fd, 0, os.SEEK_SET)
        self.written = self.resumed_at = 0
        self._hash = hashlib.sha256()
        if self._md5_hash is not None:
            self._md5_hash = hashlib.md5(usedforsecurity=False)

    def took(self, chunk: bytes) -> None:
        """Count bytes that the file has already; raise TooLarge once there are more than were promised."""
        self._check_limit(len(chunk))
        self._count(chunk)

    def _check_limit(self, more: int) -> None:
        if self._limit is not None and self.written + more > self._limit:
            raise TooLarge(f"more than the {self._limit} bytes that were promised")

    def _count(self, chunk: bytes) -> None:
        self._hash.update(chunk)
        if self._md5_hash is not None:
            self._md5_hash.update(chunk)
        self.written += len(chunk)

    @property
    def promised(self) -> str | None:
        """The digest that was promised, lower hex."""
        return self._sha256 or self._md5

    @property
    def sha256(self) -> str:
        """The digest of what has been written so far, lower hex."""
        return self._hash.hexdigest()

    def verify(self) -> None:
        """Raise BlobMismatch when length, sha256 or md5 are not what was promised."""
        if self._size is not None and self.written != self._size:
            raise BlobMismatch(f"{self.written} bytes came, {self._size} were promised")
        if self._sha256 is not None and self.sha256 != self._sha256:
            raise BlobMismatch(f"sha256 is {self.sha256}, {self._sha256} was promised")
        if self._md5_hash is not None and self._md5_hash.hexdigest() != self._md5:
            raise BlobMismatch(f"md5 is {self._md5_hash.hexdigest()}, {self._md5} was promised")

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            os.close(self.fd)

    def abort(self) -> None:
        """Throw the file away."""
        self.close()
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()


class _Waiting:
    __slots__ = ("future", "kept", "path")

    def __init__(self, path: Path, kept: Kept, future: asyncio.Future[None]) -> None:
        self.path = path
        self.kept = kept
        self.future = future


def _abort_unwanted(made: asyncio.Future[BlobWriter]) -> None:
    if not made.cancelled() and made.exception() is None:
        made.result().abort()


def _throw_away(paths: list[Path]) -> None:
    for path in paths:
        with contextlib.suppress(OSError):
            path.unlink()


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
        return self._temporary / uuid4().hex

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

    async def keep(self, writer: BlobWriter, channel_id: int | None = None) -> Kept:
        """Verify what was written, make it durable with others of its batch, give it its name and its row.

        `channel_id`: the channel that it came for; the same transaction says that it has been given the file. Raises
        BlobMismatch; then nothing is left. Cancelling the caller does not undo it.
        """
        try:
            writer.verify()
        except BlobMismatch:
            writer.abort()
            raise
        kept = Kept(sha256=writer.sha256, size=writer.written, channel_id=channel_id)
        writer.close()
        try:
            await self._batch(writer.path, kept)
        except Unavailable:
            writer.abort()
            raise
        return kept

    async def name(self, found: list[Kept]) -> None:
        """Write the rows of files that are at their final names already; those that have one keep it."""
        if self._name_blobs is not None and found:
            await self._name_blobs(found)

    async def adopt(self, path: Path, sha256: str, size: int) -> None:
        """Give a file that a worker wrote and hashed its final name."""
        await self._batch(path, Kept(sha256=sha256, size=size))

    async def _batch(self, path: Path, kept: Kept) -> None:
        if self._closed:
            raise Unavailable("the daemon is stopping")
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(path, kept, future))
        if self._flusher is None or self._flusher.done():
            self._flusher = asyncio.create_task(self._flush(), name=f"blobs {self.root.name}")
        await asyncio.shield(future)

    async def _flush(self) -> None:
        """Make batch after batch durable; what arrives while one is under way is the next."""
        while self._waiting:
            batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
            try:
                fresh, failed = await asyncio.to_thread(self._make_durable, batch)
                given = [waiting.kept for waiting in batch if waiting not in failed and waiting.kept.channel_id]
                if self._give is not None and given:
                    await self._give(given)  # before they have their names: after a crash it is known whom they are for
                failed |= await asyncio.to_thread(self._rename, fresh)
                for waiting, error in failed.items():
                    _tell(waiting, error)
                batch = [waiting for waiting in batch if waiting not in failed]
                if self._name_blobs is not None and batch:
                    await self._name_blobs([waiting.kept for waiting in batch])
            except BaseException as error:
                for waiting in batch:
                    _tell(waiting, error)
                await asyncio.to_thread(_throw_away, [waiting.path for waiting in batch])
                if not isinstance(error, Exception):
                    raise
                continue
            for waiting in batch:
                if not waiting.future.done():
                    waiting.future.set_result(None)

    def _make_durable(self, batch: list[_Waiting]) -> tuple[list[_Waiting], dict[_Waiting, BaseException]]:
        """Flush; return the files that are to get their names, and what went wrong with single ones.

        Flushes run side by side: the file system makes one commit of many. What the store has is not written again.
        """
        batch = [waiting for waiting in batch if not self._same(waiting)]
        flushes = [self._flushers.submit(sync, waiting.path, 0, os.fdatasync) for waiting in batch]
        failed: dict[_Waiting, BaseException] = {}
        for waiting, flush in zip(batch, flushes, strict=True):
            try:
                flush.result()
            except OSError as error:
                failed[waiting] = error
        _throw_away([waiting.path for waiting in failed])
        return [waiting for waiting in batch if waiting not in failed], failed

    def _rename(self, batch: list[_Waiting]) -> dict[_Waiting, BaseException]:
        """Give files their names, flush the folders; return what went wrong with single files."""
        failed: dict[_Waiting, BaseException] = {}
        folders: set[Path] = set()
        for waiting in batch:
            try:
                final = self.path(waiting.kept.sha256)
                if not final.parent.is_dir():
                    final.parent.mkdir(parents=True, exist_ok=True)
                    folders.update((final.parent.parent, self.root))
                waiting.path.replace(final)
                folders.add(final.parent)
            except OSError as error:
                failed[waiting] = error
        _throw_away([waiting.path for waiting in failed])
        for done in [self._flushers.submit(sync, folder, os.O_DIRECTORY, os.fsync) for folder in folders]:
            done.result()
        return failed

    def _same(self, waiting: _Waiting) -> bool:
        """Throw away what came when the same bytes lie at their final name; those are young again, as if written."""
        final = self.path(waiting.kept.sha256)
        try:
            if final.stat().st_size != waiting.kept.size:
                return False
            os.utime(final)
        except OSError:
            return False
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
