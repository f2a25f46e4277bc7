"""The only place that brings all that was written to a file system onto its disk at once."""

import ctypes
import logging
import os
from pathlib import Path

from firthd import sandbox
from firthd.clock import Clock

log = logging.getLogger(__name__)

KINDS = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "tmpfs"})
"""File systems whose syncfs(2) leaves nothing behind, here or at a server."""
LEAST = 32
"""Files from which on one flush of everything costs less than one of each."""
SLOW_S = 0.5
PAUSE_S = 30.0
"""Others write to the same file system too: where their bytes took so long, files are flushed alone for a while."""


class Together:
    """Flushes the file system of one folder, unless files are better flushed one by one."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._folder = folder
        self._clock = clock
        self._fd = -1
        self._known = False
        self._not_before = float("-inf")  # monotonic seconds

    def sync(self) -> bool:
        """Return whether all that was written before is on the disk; else it has to be flushed file by file. Blocks."""
        began = self._clock.monotonic()
        if began < self._not_before or not self._can():
            return False
        try:
            if (number := _syncfs(self._fd)) != 0:  # which file it was about shows when each is flushed
                log.warning("%s: %s", self._folder, os.strerror(number))
                return False
        finally:
            ended = self._clock.monotonic()
            if ended - began > SLOW_S:
                self._not_before = ended + PAUSE_S
        return True

    def close(self) -> None:
        self._known = True
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _can(self) -> bool:
        """Open the folder once: what goes wrong from then on is told by the next call."""
        if not self._known:
            self._known = True
            mount = sandbox.mount_of(Path(os.path.realpath(self._folder)), sandbox.here())
            if mount is not None and mount.kind in KINDS:
                self._fd = os.open(self._folder, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
        return self._fd >= 0


def _syncfs(fd: int) -> int:
    """Flush the file system of an open file; return an errno, 0 when all is well. Other threads go on."""
    return ctypes.get_errno() if ctypes.CDLL(None, use_errno=True).syncfs(fd) != 0 else 0
