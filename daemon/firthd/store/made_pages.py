"""The only place that remembers pages that were made for clients: small ones in memory, large ones in files."""

import asyncio
import contextlib
import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from pathlib import Path

from msgspec import Struct

from firth_protocol.errors import NoSpace

LARGE_BYTES = 4_000_000
MEMORY_BYTES = 32_000_000
DISK_BYTES = 256_000_000
HASHED_HERE = 64 * 1024
"""Bytes up to which hashing is cheaper than the way to a thread and back."""


class MadePage(Struct, frozen=True, kw_only=True):
    """A page as a client gets it; `sha256` is lower hex. Without a `body` it lies in a file."""

    sha256: str
    size: int
    body: bytes | None = None
    file: Path | None = None

    async def whole(self) -> bytes:
        """Return all of it; raise OSError when its file is lost."""
        if self.body is not None:
            return self.body
        assert self.file is not None
        return await asyncio.to_thread(self.file.read_bytes)


class MadePages:
    """Pages by what they are made of; those that were asked for last are kept. `room` raises NoSpace."""

    def __init__(
        self,
        folder: Path,
        room: Callable[[int], Awaitable[None]],
        *,
        large_bytes: int = LARGE_BYTES,
        memory_bytes: int = MEMORY_BYTES,
        disk_bytes: int = DISK_BYTES,
    ) -> None:
        self._folder = folder
        self._room = room
        self._large_bytes = large_bytes
        self._small = _Remembered(memory_bytes)
        self._large = _Remembered(disk_bytes)
        self._number = 0

    async def get(self, key: Hashable) -> MadePage | None:
        """Return a page that was made of the same; one whose file is lost is forgotten."""
        made = self._small.get(key) or self._large.get(key)
        if made is not None and made.file is not None and not await asyncio.to_thread(_is_there, made.file, made.size):
            self._large.drop(made)
            return None
        return made

    async def keep(self, key: Hashable, body: bytes) -> MadePage:
        """Remember a page; one that finds no room on the disk is only returned."""
        made = await _hashed(body)
        if made.size <= self._large_bytes:
            self._small.add(key, made)
            return made
        try:
            await self._room(made.size)
            self._number += 1
            file = self._folder / str(self._number)
            await asyncio.to_thread(_write, file, body)
        except (OSError, NoSpace):
            return made
        filed = MadePage(sha256=made.sha256, size=made.size, file=file)
        for gone in self._large.add(key, filed):
            await self._remove(gone)
        return filed

    async def _remove(self, made: MadePage) -> None:
        if made.file is not None:
            with contextlib.suppress(OSError):
                await asyncio.to_thread(made.file.unlink, missing_ok=True)


class _Remembered:
    """So many bytes of pages."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._bytes = 0
        self._pages: OrderedDict[Hashable, MadePage] = OrderedDict()

    def get(self, key: Hashable) -> MadePage | None:
        found = self._pages.get(key)
        if found is not None:
            self._pages.move_to_end(key)
        return found

    def add(self, key: Hashable, made: MadePage) -> list[MadePage]:
        """Remember a page; return those that went for it, maybe the page itself."""
        gone = [self._pages.pop(key)] if key in self._pages else []
        self._pages[key] = made
        self._bytes += made.size - sum(one.size for one in gone)
        while self._bytes > self._most:
            _, oldest = self._pages.popitem(last=False)
            self._bytes -= oldest.size
            gone.append(oldest)
        return [one for one in gone if one is not made]

    def drop(self, made: MadePage) -> None:
        for key, kept in list(self._pages.items()):
            if kept is made:
                del self._pages[key]
                self._bytes -= made.size


async def _hashed(body: bytes) -> MadePage:
    if len(body) <= HASHED_HERE:
        digest = hashlib.sha256(body)
    else:
        digest = await asyncio.to_thread(hashlib.sha256, body)
    return MadePage(sha256=digest.hexdigest(), size=len(body), body=body)


def _is_there(file: Path, size: int) -> bool:
    try:
        return file.stat().st_size == size
    except OSError:
        return False


def _write(file: Path, body: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        file.write_bytes(body)
    except OSError:
        file.unlink(missing_ok=True)
        raise
