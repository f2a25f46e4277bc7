"""The only place that makes the state folder, closes it to others, and locks it for one daemon."""

import contextlib
import fcntl
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from firth_protocol.errors import InUse
from firthd.store import disk

log = logging.getLogger(__name__)

_FOLDERS = ("sources", "runs", "out")


def prepare(state: Path) -> int:
    """Make the folders and take the lock; return its descriptor, which whoever ends closes. Blocks.

    Raises InUse, which names the daemon that has the folder, and OSError.
    """
    for folder in (state, *(state / name for name in _FOLDERS)):
        with _on_a_full_disk(folder):
            folder.mkdir(parents=True, exist_ok=True, mode=0o750)
        with _on_a_full_disk(folder):
            _close_to_others(folder)
    return _lock(state)


@contextlib.contextmanager
def _on_a_full_disk(folder: Path) -> Iterator[None]:
    """Go on where a folder of a state that is there already cannot be made or changed on a disk that is full."""
    try:
        yield
    except OSError as error:
        if disk.refusal(error, folder) is None:
            raise
        log.warning("%s: %s", folder, error.strerror)


def _close_to_others(folder: Path) -> None:
    """Take away what all users of the machine may do in a folder that was there before; its group keeps its rights.

    The folders of private channels' packages lie in there. Access lists (setfacl) stay as they are.
    """
    status = folder.stat()
    if status.st_mode & 0o007:
        try:
            folder.chmod(status.st_mode & 0o7770)
        except PermissionError:
            log.warning("%s is open to every user of this machine and belongs to somebody else", folder)


def _lock(state: Path) -> int:
    """Take the state folder's lock; return its descriptor. Raises InUse, which names the daemon that has it.

    The pid is written over the one before, in its bytes: a full disk has no others. Where it has none even for the
    file, the folder itself is locked.
    """
    path = state / "lock"
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    except OSError as error:
        if disk.refusal(error, state) is None:
            raise
        fd = os.open(path if path.exists() else state, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = path.read_text("ascii", "replace").strip() if path.exists() else ""
        os.close(fd)
        raise InUse(
            f"another firthd (pid {pid or 'unknown'}) works on {state}",
            hint="stop it, or give another folder with --state",
        ) from None
    with contextlib.suppress(OSError):
        os.pwrite(fd, f"{os.getpid():<10}\n".encode(), 0)
    return fd
