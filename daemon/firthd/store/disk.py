"""The only place that knows what a disk says when it takes nothing more, and that asks it."""

import ctypes
import errno
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from msgspec import Struct

from firth_protocol.errors import FirthError, NoSpace, Unavailable
from firthd import sandbox

_PROBE = b"\0" * 262_144
"""More than the first page of SQLite's -shm (32 KiB) and a small transaction take."""

READ_CHUNK = 1 << 20
"""Bytes read at a time when a file is looked at."""
_BEGIN = 2
"""SYNC_FILE_RANGE_WRITE of sync_file_range(2)."""
_UNABLE = frozenset({errno.ENOSYS, errno.EINVAL, errno.ESPIPE})
_sync_file_range = ctypes.CDLL(None, use_errno=True).sync_file_range
_sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_SAYS = {
    errno.ENOSPC: ("its disk is full", "free space (or inodes) on the file system of {folder}"),
    errno.EDQUOT: ("its quota is used up", "free space of this user's quota below {folder}, or raise it"),
    errno.EROFS: ("its file system is read-only", "look at the kernel's log; mount the file system of {folder} again"),
    errno.EIO: ("its disk has an input/output error", "look at the kernel's log and at the disk below {folder}"),
}


def is_full(error: BaseException) -> bool:
    """Tell whether an error says that there is no room: a disk is full, or a quota is used up."""
    return isinstance(error, OSError) and error.errno in _FULL


class Refusal(Struct, frozen=True, kw_only=True):
    """A disk that takes no write: why (an errno), and the folder that lies on it."""

    number: int
    folder: Path

    @property
    def full(self) -> bool:
        """Whether there is only no room; otherwise the disk or its mount is broken."""
        return self.number in _FULL

    @property
    def text(self) -> str:
        return f"the state cannot be written: {_SAYS[self.number][0]}"

    @property
    def hint(self) -> str:
        if self.number == errno.EROFS and (shown := sandbox.hint(self.folder, write=True)) is not None:
            return shown
        return _SAYS[self.number][1].format(folder=self.folder)

    def error(self) -> FirthError:
        """Return what a caller is told whose change is refused."""
        return NoSpace(self.text, hint=self.hint) if self.full else Unavailable(self.text, hint=self.hint)


def refusal(error: BaseException, folder: Path) -> Refusal | None:
    """Return what an OSError says of the disk, None when it is about something else."""
    number = error.errno if isinstance(error, OSError) else None
    return Refusal(number=number, folder=folder) if number in _SAYS else None


def told(error: BaseException) -> FirthError | None:
    """Return what a caller is told of an OSError that is the disk's, None for any other error."""
    name = error.filename if isinstance(error, OSError) else None
    found = refusal(error, Path(os.fsdecode(name)).parent if isinstance(name, str | bytes) else Path("the state"))
    return found.error() if found is not None else None


def sync(path: Path, flags: int = 0, how: Callable[[int], None] = os.fsync) -> None:
    """Bring a file or folder onto the disk. `flags` are added to those it is opened with. Blocks; raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | flags)
    try:
        how(fd)
    finally:
        os.close(fd)


def begin_flush(fd: int) -> None:
    """Begin to bring onto the disk what has been written to a file; nothing is promised. Raises OSError.

    Waits only while the disk takes no more work, so that less is left for the flush that is waited for; where the
    file system cannot begin alone, it waits for all.
    """
    if _sync_file_range(fd, 0, 0, _BEGIN) == 0:
        return
    number = ctypes.get_errno()
    if number not in _UNABLE:
        raise OSError(number, os.strerror(number))
    os.fdatasync(fd)


def ask(folder: Path) -> Refusal | None:
    """Return why the disk of `folder` takes no write; None when it takes one, or the folder itself cannot be written.

    Writes a file of 256 KiB and takes it away: only that shows quotas, lacking inodes and broken disks. Blocks.
    """
    path = folder / f".room.{uuid4().hex}"
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            left = memoryview(_PROBE)
            while left:
                left = left[os.write(fd, left) :]
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as error:
        return refusal(error, folder)
    finally:
        with suppress(OSError):
            path.unlink()
    return None


def has_nothing_left(folder: Path) -> bool:
    """Tell whether the file system says that it has no byte or no inode for us. Cheap, but blocks."""
    stat = os.statvfs(folder)
    return stat.f_bavail * stat.f_frsize < len(_PROBE) or (stat.f_files > 0 and stat.f_favail == 0)
