"""The only place that reads sources from folders (`file://`): below their root, in a thread, in chunks."""

import asyncio
import errno
import fcntl
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from firth_protocol.errors import Invalid
from firthd import sandbox
from firthd.threads import in_thread
from firthd.upstream.failures import Asked, Failure
from firthd.upstream.masking import printable
from firthd.upstream.source import Source, Validators, is_absolute, masker

CHUNK_BYTES = 1024 * 1024
SMALL_BYTES = 64 * 1024
_COPY_BYTES = 8 * CHUNK_BYTES
"""Copied in one stretch, after which whoever wants it to end is heard."""
_FICLONE = 0x40049409
HOST = "file"
"""Stands for the host in errors about folders."""


class Sink(Protocol):
    """Takes a file's bytes, and counts them."""

    @property
    def fd(self) -> int: ...
    def write(self, chunk: bytes, /) -> None:
        """Append bytes."""

    def took(self, chunk: bytes, /) -> None:
        """Count bytes that are there already."""


class OpenFile:
    """One file of a source, opened; close it."""

    def __init__(
        self, file: FileIO, size: int, validators: Validators, asked: Asked, *, content: bytes | None = None
    ) -> None:
        """`content`: all of it, if it has been read."""
        self.size = size
        self.validators = validators
        self.asked = asked
        self._file = file
        self._content = content
        self._ended = False

    async def pull(self) -> bytes:
        """Return the next chunk, empty at the end; raise Failure when it cannot be read."""
        if self._ended:
            return b""
        try:
            chunk = self._content or await in_thread(self._file.read, CHUNK_BYTES) or b""
        except OSError as error:
            raise _unreadable(self.asked, error) from None
        self._ended = len(chunk) < CHUNK_BYTES
        return chunk

    async def seek(self, offset: int) -> None:
        self._content = None
        await in_thread(self._file.seek, offset)

    async def copy_into(self, sink: Sink, wrote: Callable[[int], None]) -> None:
        """Copy all of the file, without its bytes where the file system can; raise Failure when it cannot be read.

        `sink` gets a private copy: what is changed in one later is not changed in the other.
        """
        cloned = await in_thread(_clone, self._file.fileno(), sink.fd)
        take = sink.took if cloned else sink.write
        while size := await in_thread(self._copy_some, take):
            wrote(size)

    def _copy_some(self, take: Callable[[bytes], None]) -> int:
        copied = 0
        while copied < _COPY_BYTES:
            try:
                chunk = self._file.read(CHUNK_BYTES)
            except OSError as error:
                raise _unreadable(self.asked, error) from None
            if not chunk:
                break
            take(chunk)
            copied += len(chunk)
        return copied

    def close_now(self) -> None:
        self._file.close()  # read-only: nothing is flushed, nothing blocks


async def open_below(source: Source, path_or_url: str, *, small: bool = False) -> OpenFile | None:
    """Open a file of the source; None when it is not there. `small`: read it at once where there is little of it.

    Raises Invalid for a path that leads out of the source's folder, Failure when the folder itself is missing (a
    medium that is not mounted must not look like an empty source) or the file cannot be read.
    """
    root = folder_of(source.url)
    relative = _relative(root, path_or_url)
    asked = Asked(masker(source), f"file://{root}/{relative}", HOST, sent_credentials=False)
    work = asyncio.ensure_future(in_thread(_open, root, relative, asked, small=small))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        with suppress(Exception):
            if (opened := await work) is not None:
                opened.close_now()
        raise
    except OSError as error:
        raise _unreadable(asked, error) from None


async def clone(source: Source, path: str, sink: Sink, wrote: Callable[[int], None]) -> bool:
    """Copy a file of a folder into `sink`; return whether it is there. `wrote` is told how many bytes came.

    Raises errors.Upstream when it cannot be read, Invalid for a path out of the folder, what `sink` raises.
    """
    try:
        opened = await open_below(source, path)
        if opened is None:
            return False
        try:
            await opened.copy_into(sink, wrote)
        finally:
            opened.close_now()
    except Failure as failure:
        raise failure.error from None
    return True


def folder_of(url: str) -> Path:
    """Return the folder that a file address names; raise Invalid when it is not `file:///absolute/path`."""
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = urlsplit("")
    path = unquote(parts.path)
    if (
        parts.scheme.lower() != "file"
        or parts.netloc not in {"", "localhost"}
        or not path.startswith("/")
        or "\0" in path
    ):
        raise Invalid(f"{printable(url)} does not name a folder", hint="write it as file:///absolute/path")
    return Path(path)


def _relative(root: Path, path_or_url: str) -> str:
    """Return a path below the root; raise Invalid when it leads elsewhere. An absolute one must be a file address."""
    if is_absolute(path_or_url) or path_or_url.startswith("/"):
        url = path_or_url if is_absolute(path_or_url) else f"file://{path_or_url}"
        try:
            return str(folder_of(url).relative_to(root))
        except ValueError:
            raise _outside(path_or_url) from None
    path = unquote(path_or_url)
    parts = path.split("/")
    if ".." in parts or "\0" in path:
        raise _outside(path_or_url)
    return "/".join(part for part in parts if part not in {"", "."})


def _outside(path: str) -> Invalid:
    return Invalid(f"{printable(path)[:200]} leads out of the source's folder", hint="look at the source's index")


def _open(root: Path, relative: str, asked: Asked, *, small: bool) -> OpenFile | None:
    if ".." in relative.split("/"):
        raise _outside(relative)
    try:
        folder = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError as error:
        raise _unreadable(asked, error, sandbox.hint(root)) from None
    except OSError as error:
        if error.errno not in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}:
            raise
        hint = sandbox.hint(root) or "is the medium mounted?"
        raise asked.failure(f"the folder {printable(str(root))} is not there", printable(hint)) from None
    try:
        # O_NONBLOCK: a pipe lying in the folder must not hang the daemon.
        fd = os.open(relative or ".", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=folder)
    except (FileNotFoundError, NotADirectoryError):
        os.close(folder)
        return None
    except OSError:
        os.close(folder)
        raise
    try:
        status = os.fstat(fd)
        # Asked of what is open, so that nothing can be exchanged between the look and the read.
        if not _real(fd).is_relative_to(_real(folder)):
            raise _outside(relative)
        if stat.S_ISDIR(status.st_mode):
            os.close(fd)
            return None
        if not stat.S_ISREG(status.st_mode):
            raise asked.failure(f"{asked.url} is not a regular file", "look at the source's folder")
        validators = Validators(etag=f'"{status.st_mtime_ns:x}-{status.st_size:x}"')
        content = os.pread(fd, SMALL_BYTES, 0) if small and status.st_size < SMALL_BYTES else None
        return OpenFile(FileIO(fd, "rb"), status.st_size, validators, asked, content=content)
    except BaseException:
        os.close(fd)
        raise
    finally:
        os.close(folder)


def _real(fd: int) -> Path:
    return Path(f"/proc/self/fd/{fd}").readlink()


def _clone(source: int, target: int) -> bool:
    """Let an empty file share the bytes of another until one is changed; return whether the file system can. Blocks."""
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:
        return False
    return True


def _unreadable(asked: Asked, error: OSError, hint: str | None = None) -> Failure:
    why = printable(error.strerror or type(error).__name__)
    hint = printable(hint) if hint else "let the daemon's user read the source's folder"
    return asked.failure(f"{asked.url} cannot be read: {why}", hint)
