"""The only place that brings files onto the disk many at a time, and gives those that are there their names."""

import contextlib
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol, TypeVar

from firthd.store.disk import sync
from firthd.store.incoming import BlobMismatch, MemoryWriter
from firthd.store.together import Together

FLUSHERS = 8
"""Flushes side by side."""

T = TypeVar("T")


class Arrived:
    """A file that waits for its batch: at `path`, or still in memory; then its digest is known once it is written."""

    def __init__(self, path: str, *, sha256: str = "", size: int = 0, held: MemoryWriter | None = None) -> None:
        self.path = path
        self.sha256 = sha256
        self.size = size
        self.held = held
        self.error: BaseException | None = None
        self.there = False  # the store has had the same bytes before


class Hand(Protocol):
    """Another process that does the same with files that are in memory. Everything here blocks."""

    def ready(self) -> None:
        """Begin to begin: many files are about to come. Raises OSError."""

    def rest(self) -> None:
        """End the process until it is needed."""

    def make_durable(self, batch: Sequence[Arrived], /) -> bool:
        """Return False when it did nothing."""

    def rename(self, batch: Sequence[Arrived], /) -> bool:
        """Return False when it is not known what it did."""


class Batches:
    """Files below one folder on their way to ab/cd/<sha256>. Everything here blocks."""

    def __init__(self, root: Path, together: Together | None, hand: Hand | None = None) -> None:
        self._root = str(root)
        self._together = together
        self._hand = hand
        self._flushers = ThreadPoolExecutor(FLUSHERS, thread_name_prefix=f"flush {root.name}")

    def close(self) -> None:
        """End the threads: they have nothing left to do, and are gone with the store."""
        self._flushers.shutdown()
        self.rest()
        if self._together is not None:
            self._together.close()

    def ready(self) -> None:
        """Make ready what is only needed while many files come."""
        if self._hand is not None:
            with contextlib.suppress(OSError):  # the first batch is done without it
                self._hand.ready()

    def rest(self) -> None:
        """Let go of what is only needed while many files come."""
        if self._hand is not None:
            self._hand.rest()

    def make_durable(self, batch: Sequence[Arrived], *, together: bool) -> None:
        """Write what is in memory and flush all; what goes wrong with a single file is noted there.

        `together`: by one flush of the file system, where that can be; else each alone, side by side, of which the
        file system makes one commit. What the store has is not written again.
        """
        if together and self._hand is not None and self._hand.make_durable(batch):
            return
        if together and self._together is not None:
            self._flush(batch, self._together)
        else:
            self._side_by_side(self._flush, batch)
        throw_away(arrived.path for arrived in batch if arrived.error is not None)

    def rename(self, batch: Sequence[Arrived], *, together: bool) -> None:
        """Give files their names, flush the folders; what goes wrong with a single file is noted there."""
        coming = [arrived for arrived in batch if not arrived.there and arrived.error is None]
        lost = False
        if coming and together and self._hand is not None:
            if self._hand.rename(coming):
                return
            lost = True  # it may have made folders, and flushed nothing
        folders: set[str] = set()
        for arrived in coming:
            try:
                above = f"{self._root}/{arrived.sha256[:2]}"
                folder = f"{above}/{arrived.sha256[2:4]}"
                if _made(folder) or lost:
                    folders.update((above, self._root))
                self._name(arrived)
                folders.add(folder)
            except OSError as error:
                arrived.error = error
                throw_away([arrived.path])
        if not (together and self._together is not None and self._together.sync()):
            self._side_by_side(_sync_folders, list(folders))

    def _name(self, arrived: Arrived) -> None:
        try:
            os.replace(arrived.path, self._final(arrived))
        except FileNotFoundError:  # a process that was lost while it named them may have named this one
            if os.stat(self._final(arrived)).st_size != arrived.size:
                raise

    def _side_by_side(self, work: Callable[[Sequence[T]], None], on: Sequence[T]) -> None:
        stripes = [stripe for first in range(FLUSHERS) if (stripe := on[first::FLUSHERS])]
        for done in [self._flushers.submit(work, stripe) for stripe in stripes]:
            done.result()

    def _flush(self, stripe: Sequence[Arrived], together: Together | None = None) -> None:
        """Write all of them before the first is flushed: a commit then takes along those behind it."""
        opened: list[tuple[Arrived, int]] = []
        try:
            for arrived in stripe:
                try:
                    if (fd := self._opened(arrived)) is not None:
                        opened.append((arrived, fd))
                except (OSError, BlobMismatch) as error:
                    arrived.error = error
            if opened and together is not None and together.sync():
                return
            for arrived, fd in opened:
                try:
                    os.fdatasync(fd)
                except OSError as error:
                    arrived.error = error
        finally:
            for _, fd in opened:
                os.close(fd)

    def _opened(self, arrived: Arrived) -> int | None:
        """Return the descriptor of a file that is to be flushed, written if it was in memory; None: the store has it.

        Raises OSError, and BlobMismatch for one in memory.
        """
        if arrived.held is None:
            if self._same(arrived):
                return None
            return os.open(arrived.path, os.O_RDONLY | os.O_CLOEXEC)
        data, arrived.sha256 = arrived.held.whole()
        arrived.held, arrived.size = None, len(data)
        if self._same(arrived):
            return None
        fd = os.open(arrived.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(fd, rest) :]
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _same(self, arrived: Arrived) -> bool:
        """Throw away what came when the same bytes lie at their final name; those are young again, as if written."""
        final = self._final(arrived)
        try:
            if os.stat(final).st_size != arrived.size:
                return False
            os.utime(final)
        except OSError:
            return False
        arrived.there = True
        throw_away([arrived.path])
        return True

    def _final(self, arrived: Arrived) -> str:
        return f"{self._root}/{arrived.sha256[:2]}/{arrived.sha256[2:4]}/{arrived.sha256}"


def throw_away(paths: Iterable[str]) -> None:
    """Take files away that may be gone already. Blocks."""
    for path in paths:
        with contextlib.suppress(OSError):
            os.unlink(path)


def _made(folder: str) -> bool:
    """Make a folder, and those above it; return whether there was none. Raises OSError."""
    try:
        os.mkdir(folder)
    except FileExistsError:
        return False
    except FileNotFoundError:
        os.makedirs(folder, exist_ok=True)
    return True


def _sync_folders(folders: Sequence[str]) -> None:
    for folder in folders:
        sync(Path(folder), os.O_DIRECTORY, os.fsync)
