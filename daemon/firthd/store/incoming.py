"""The only place that takes a file's bytes on their way into the store: counted, hashed, held to what was promised."""

import contextlib
import errno
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from firth_protocol.errors import TooLarge
from firthd.store.disk import READ_CHUNK, begin_flush
from firthd.store.promises import Hash, Promise, broken, hash_for

_AT_ONCE = 1024
"""Chunks that a system takes in one call (IOV_MAX)."""


class BlobMismatch(ValueError):
    """The bytes are not what was promised."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Promised:
    """What was promised of a file: its length, where it is known, and digests; and those of what came since `begin`."""

    def __init__(self, *, size: int | None, sha256: str | None, md5: str | None) -> None:
        self.size = size
        self.sha256 = sha256
        self.md5 = md5
        self.also: Promise | None = None

    def add(self, also: Promise | None) -> None:
        """Hold the file to another digest too, where no sha256 is promised; before the first byte."""
        if self.sha256 is None and also is not None:
            self.also = also
            self.begin()

    @property
    def digest(self) -> str | None:
        """The digest that was promised, lower hex."""
        return self.sha256 or self.md5 or (self.also.value if self.also is not None else None)

    def begin(self) -> None:
        """Hash from the first byte on."""
        self.made = hashlib.sha256()
        self._md5_made = hashlib.md5(usedforsecurity=False) if self.md5 and not self.sha256 else None
        self._also_made: Hash | None = None if self.also is None else hash_for(self.also)

    def count(self, chunk: bytes | memoryview) -> None:
        """Hash more bytes."""
        self.made.update(chunk)
        if self._md5_made is not None:
            self._md5_made.update(chunk)
        if self._also_made is not None:
            self._also_made.update(chunk)

    def check(self, written: int) -> None:
        """Raise BlobMismatch when length or digests are not what was promised; `written`: bytes that came."""
        if self.size is not None and written != self.size:
            raise BlobMismatch(f"{written} bytes came, {self.size} were promised")
        if self.sha256 is not None and (sha256 := self.made.hexdigest()) != self.sha256:
            raise BlobMismatch(f"sha256 is {sha256}, {self.sha256} was promised")
        if self._md5_made is not None and (md5 := self._md5_made.hexdigest()) != self.md5:
            raise BlobMismatch(f"md5 is {md5}, {self.md5} was promised")
        if self.also is not None and self._also_made is not None:
            why = broken(self.also, self._also_made)
            if why is not None:
                raise BlobMismatch(why)


class Taking(Protocol):
    """What takes the bytes of a file as they come. `written` of them it has, `resumed_at` of these from before."""

    written: int
    resumed_at: int

    def write(self, chunk: bytes | memoryview, /) -> None:
        """Append bytes and hash them; raise TooLarge once there are more than were promised."""

    def append(self, chunks: Sequence[bytes | memoryview], /) -> None:
        """Append bytes that `hash` is given too, maybe in another thread; raise TooLarge as `write` does."""

    def hash(self, chunks: Sequence[bytes | memoryview], /) -> None:
        """Hash bytes that `append` is given too."""

    def hash_behind(self, sizes: Sequence[int], /) -> None:
        """Hash so many bytes more of those that `append` was given; raise OSError when they cannot be read again."""

    def restart(self) -> None:
        """Throw away what has come, and begin with the first byte again."""

    def flush(self) -> None:
        """Begin to bring onto the disk what has come so far, maybe in another thread than the one that writes."""


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
        self._hashed = 0
        self._told = Promised(size=size, sha256=sha256, md5=md5)
        self._told.begin()
        self._limit = size if size is not None else limit
        self.resumed_at = 0  # bytes that were there before; `resume`: to be read again first
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_NOFOLLOW if resume else os.O_CREAT | os.O_EXCL)
        self.fd = os.open(path, flags, 0o640)
        self.closed = False

    def promise(self, also: Promise | None) -> None:
        """Hold the file to another digest too, where no sha256 is promised; before the first byte."""
        self._told.add(also)

    def write(self, chunk: bytes | memoryview) -> None:
        """Append bytes and hash them; raise TooLarge once there are more than were promised."""
        self.append([chunk])
        self.hash([chunk])

    def append(self, chunks: Sequence[bytes | memoryview]) -> None:
        """Append bytes that `hash` is given too, maybe in another thread; raise TooLarge as `write` does."""
        self._check_limit(sum(map(len, chunks)))
        for first in range(0, len(chunks), _AT_ONCE):
            some = chunks[first : first + _AT_ONCE]
            size = sum(map(len, some))
            done = os.writev(self.fd, some)
            if done < size:
                rest = memoryview(b"".join(some))[done:]
                while rest:
                    rest = rest[os.write(self.fd, rest) :]
            self.written += size

    def hash(self, chunks: Sequence[bytes | memoryview]) -> None:
        """Hash bytes that `append` is given too."""
        for chunk in chunks:
            self._told.count(chunk)
            self._hashed += len(chunk)

    def hash_behind(self, sizes: Sequence[int]) -> None:
        """Hash so many bytes more of those that `append` was given; raise OSError when they cannot be read again."""
        end = self._hashed + sum(sizes)
        room = memoryview(bytearray(min(sum(sizes), READ_CHUNK)))
        while self._hashed < end:
            size = os.preadv(self.fd, [room[: end - self._hashed]], self._hashed)
            if not size:
                raise OSError(errno.EIO, "what was written cannot be read again")
            self._told.count(room[:size])
            self._hashed += size

    def flush(self) -> None:
        """Begin to bring onto the disk what has come so far; raises OSError. Blocks, but not until it is there."""
        begin_flush(self.fd)

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
        self.written = self.resumed_at = self._hashed = 0
        self._told.begin()

    def took(self, chunk: bytes) -> None:
        """Count bytes that the file has already; raise TooLarge once there are more than were promised."""
        self._check_limit(len(chunk))
        self._told.count(chunk)
        self.written += len(chunk)
        self._hashed += len(chunk)

    def _check_limit(self, more: int) -> None:
        if self._limit is not None and self.written + more > self._limit:
            raise TooLarge(f"more than the {self._limit} bytes that were promised")

    @property
    def promised(self) -> str | None:
        """The digest that was promised, lower hex."""
        return self._told.digest

    @property
    def sha256(self) -> str:
        """The digest of what has been written so far, lower hex."""
        return self._told.made.hexdigest()

    def verify(self) -> None:
        """Raise BlobMismatch when length or digest are not what was promised."""
        self._told.check(self.written)

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            os.close(self.fd)

    def abort(self) -> None:
        """Throw the file away."""
        self.close()
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()


class MemoryWriter:
    """A small file on its way into the store: in memory until it is whole, then written and flushed with others.

    Its length and a digest are promised.
    """

    resumed_at = 0

    def __init__(self, *, size: int, sha256: str | None, md5: str | None) -> None:
        self.written = 0
        self.size = size
        self.told = Promised(size=size, sha256=sha256, md5=md5)
        self.chunks: list[bytes | memoryview] = []

    def promise(self, also: Promise | None) -> None:
        """Hold the file to another digest too, where no sha256 is promised; before the first byte."""
        self.told.add(also)

    @property
    def promised(self) -> str | None:
        """The digest that was promised, lower hex."""
        return self.told.digest

    def write(self, chunk: bytes | memoryview) -> None:
        """Append bytes; raise TooLarge once there are more than were promised."""
        if self.written + len(chunk) > self.size:
            raise TooLarge(f"more than the {self.size} bytes that were promised")
        self.chunks.append(chunk)
        self.written += len(chunk)

    def append(self, chunks: Sequence[bytes | memoryview]) -> None:
        """Append bytes; raise TooLarge once there are more than were promised."""
        for chunk in chunks:
            self.write(bytes(chunk))  # a view is of memory that others use again

    def hash(self, chunks: Sequence[bytes | memoryview]) -> None:
        """Do nothing: it is hashed when it is whole."""

    def hash_behind(self, sizes: Sequence[int]) -> None:
        """Do nothing: it is hashed when it is whole."""

    def restart(self) -> None:
        """Throw away what has come, and begin with the first byte again."""
        self.chunks = []
        self.written = 0

    def flush(self) -> None:
        """Do nothing: it is in memory."""

    def hold(self, data: memoryview) -> None:
        """Take all of the bytes, however many they are."""
        self.chunks = [data]
        self.written = len(data)

    def whole(self) -> tuple[bytes | memoryview, str]:
        """Return the bytes and their sha256; raise BlobMismatch when they are not what was promised. Hashes them."""
        data = self.chunks[0] if len(self.chunks) == 1 else b"".join(self.chunks)
        self.told.begin()
        self.told.count(data)
        self.told.check(self.written)
        return data, self.told.made.hexdigest()

    def abort(self) -> None:
        """Throw away what has come; how much it was stays known."""
        self.chunks = []
