"""The only place that keeps what has come of a file when the run that brought it ends: the next one goes on there.

The name of such a file tells the digest that was promised and what proves at its source that the rest belongs to it
(a validator for If-Range), so that a process that is killed leaves nothing else to be known. Whatever is made of it is
verified as every file is.
"""

import asyncio
import base64
import binascii
import contextlib
import logging
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from firth_protocol.errors import TooLarge
from firthd.clock import Clock
from firthd.store.blobs import BlobStore
from firthd.store.disk import is_full
from firthd.store.incoming import BlobWriter, MemoryWriter

T = TypeVar("T")

log = logging.getLogger(__name__)

LEAST = 64 * 1024
"""Bytes of which a file has to have more to be kept in part: what is smaller comes again in no time."""
IN_MEMORY = 128 * 1024
"""Bytes up to which a file that comes with a digest is held in memory until it is whole."""
_DAY_MS = 86_400_000
KEPT_MS = 7 * _DAY_MS
REREAD = 64 << 20
"""Bytes read again in one stretch, after which whoever wants it to end is heard."""
_LONGEST_PROOF = 120
_NAME = re.compile(r"([0-9a-f]{64})\.([A-Za-z0-9_=-]*)\Z")


class Partials:
    """Files that are to be kept in part, each in one pair of hands at a time."""

    def __init__(self, blobs: BlobStore, clock: Clock) -> None:
        self._blobs = blobs
        self._clock = clock
        self._looked_ms: int | None = None  # when what is old was thrown away last
        self._looking = asyncio.Lock()
        self._folder = blobs.root / "partial"
        self._there: dict[str, Path] = {}
        self._claimed: set[str] = set()
        self._in_hand: dict[BlobWriter | MemoryWriter, str] = {}
        self._renames: dict[BlobWriter, tuple[asyncio.Future[None], Path]] = {}

    async def _look(self) -> None:
        """Find what an earlier process left, and once a day throw away what nobody went on with for a week."""
        async with self._looking:
            now_ms = self._clock.now_ms()
            if self._looked_ms is None:
                with contextlib.suppress(OSError):  # where there can be no such folder nothing is kept in part
                    await asyncio.to_thread(self._find)
            if self._looked_ms is None or now_ms - self._looked_ms >= _DAY_MS:
                await asyncio.to_thread(self._forget_old, now_ms)
                self._looked_ms = now_ms

    def _find(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        for entry in self._folder.iterdir():
            found = _NAME.match(entry.name)
            if found is None or found[1] in self._there:
                with contextlib.suppress(OSError):
                    entry.unlink()
            else:
                self._there[found[1]] = entry

    def _forget_old(self, now_ms: int) -> None:
        for sha256, path in list(self._there.items()):
            with contextlib.suppress(OSError):
                if now_ms - path.stat().st_mtime_ns // 1_000_000 > KEPT_MS:
                    self._there.pop(sha256, None)
                    path.unlink()

    async def open(
        self, *, size: int | None, sha256: str | None, md5: str | None, max_bytes: int
    ) -> tuple[BlobWriter | MemoryWriter, str | None]:
        """Return a writer, with what there is of the file in it, and the validator that the rest must have.

        It has to be given back: stored by `BlobStore.keep`, then `done`; or `leave` or `drop`.
        """
        if self._looked_ms is None or self._clock.now_ms() - self._looked_ms >= _DAY_MS:
            await self._look()
        if size is not None and size <= IN_MEMORY and (sha256 or md5):
            return MemoryWriter(size=size, sha256=sha256, md5=md5), None
        if sha256 is None or (size is not None and size <= LEAST) or sha256 in self._claimed:
            return await self._blobs.open_writer(size=size, sha256=sha256, md5=md5, max_bytes=max_bytes), None
        self._claimed.add(sha256)
        path = self._there.pop(sha256, None)
        try:
            writer = await self._resumed(path, size, sha256) if path is not None else None
            if writer is None:
                writer = await self._blobs.open_writer(
                    size=size, sha256=sha256, md5=md5, max_bytes=max_bytes, path=self._path(sha256, None)
                )
        except BaseException as error:
            self._claimed.discard(sha256)
            if path is not None:
                self._there[sha256] = path
            if not isinstance(error, OSError) or is_full(error):
                raise
            return await self._blobs.open_writer(size=size, sha256=sha256, md5=md5, max_bytes=max_bytes), None
        self._in_hand[writer] = sha256
        return writer, _proof(writer.path.name) if writer.written else None

    async def _resumed(self, path: Path, size: int | None, sha256: str) -> BlobWriter | None:
        try:
            writer = await _whole(
                partial(BlobWriter, path, size=size, sha256=sha256, md5=None, limit=None, resume=True)
            )
        except OSError as error:
            log.warning("what had come of %s cannot be read: %s", sha256, error.strerror)
            return None
        try:
            while await asyncio.to_thread(writer.reread, REREAD):
                pass
        except (OSError, TooLarge):
            writer.abort()
            return None
        except BaseException:
            writer.close()
            raise
        if size is not None and writer.written >= size:  # nothing is left to be asked for: it is no part
            writer.abort()
            return None
        return writer

    def proven(self, writer: BlobWriter | MemoryWriter, proof: str | None) -> None:
        """Note what proves that the rest of a file belongs to what has come of it; None: nothing does.

        It is written down beside what comes, which does not wait for that; `settled` does.
        """
        sha256 = self._in_hand.get(writer)
        if sha256 is None or isinstance(writer, MemoryWriter):
            return
        path = self._path(sha256, proof)
        before = self._renames.get(writer)
        if path != (before[1] if before is not None else writer.path):
            work = asyncio.ensure_future(_renamed(writer, path, before[0] if before is not None else None))
            self._renames[writer] = (work, path)

    async def settled(self, writer: BlobWriter | MemoryWriter) -> None:
        """Wait until a file has the name that it is to have; before it is given back."""
        rename = None if isinstance(writer, MemoryWriter) else self._renames.pop(writer, None)
        if rename is not None:
            await _to_the_end(rename[0])

    def leave(self, writer: BlobWriter | MemoryWriter) -> None:
        """Keep what has come, for whoever brings the file next."""
        sha256 = self.done(writer)
        if sha256 is None or isinstance(writer, MemoryWriter) or writer.written < LEAST or writer.closed:
            writer.abort()
            return
        writer.close()
        self._there[sha256] = writer.path

    def drop(self, writer: BlobWriter | MemoryWriter) -> None:
        """Throw away what has come."""
        self.done(writer)
        writer.abort()

    def done(self, writer: BlobWriter | MemoryWriter) -> str | None:
        """The store has the file, or has thrown it away; return its digest if it was to be kept in part."""
        sha256 = self._in_hand.pop(writer, None)
        if sha256 is not None:
            self._claimed.discard(sha256)
        return sha256

    def _path(self, sha256: str, proof: str | None) -> Path:
        told = base64.urlsafe_b64encode(proof.encode()).decode() if proof and len(proof) <= _LONGEST_PROOF else ""
        return self._folder / f"{sha256}.{told}"


async def _whole(call: Callable[[], T]) -> T:
    """Do in a thread what is not left half done: whoever is cancelled waits for it."""
    work = asyncio.ensure_future(asyncio.to_thread(call))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait({work})
        if not work.cancelled() and work.exception() is None and isinstance(made := work.result(), BlobWriter):
            made.close()
        raise


async def _renamed(writer: BlobWriter, path: Path, before: asyncio.Future[None] | None) -> None:
    if before is not None:
        await before
    with contextlib.suppress(OSError):
        await asyncio.to_thread(_rename, writer, path)


async def _to_the_end(work: asyncio.Future[None]) -> None:
    """Wait for work that takes a moment, however often the caller is cancelled meanwhile."""
    cancelled = False
    while not work.done():
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            cancelled = True
    if cancelled:
        raise asyncio.CancelledError


def _rename(writer: BlobWriter, path: Path) -> None:
    writer.path.replace(path)
    writer.path = path


def _proof(name: str) -> str | None:
    """Return the validator that a file's name tells."""
    told = name.partition(".")[2]
    try:
        return base64.urlsafe_b64decode(told).decode() or None
    except (binascii.Error, UnicodeDecodeError):
        return None
