"""The only place that lays small objects one behind the other into packs."""

import hashlib
import os
from pathlib import Path
from typing import BinaryIO

from firthd.index.messages import RenderedFile
from firthd.store.worker_objects import PackedAt


class Pack:
    """One file of slices, one behind the other."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("wb")
        self._hash = hashlib.sha256()
        self._places: dict[bytes, tuple[int, int]] = {}
        self._size = 0

    def __len__(self) -> int:
        return len(self._places)

    def add(self, sha256: bytes, content: bytes) -> None:
        """Append a slice; the same one twice lies there once."""
        if sha256 in self._places:
            return
        self._places[sha256] = (self._size, len(content))
        self._file.write(content)
        self._hash.update(content)
        self._size += len(content)

    def finish(self) -> RenderedFile | None:
        """Make the pack durable and return it; None when it is empty."""
        sync(self._file)
        self._file.close()
        if not self._places:
            self._path.unlink()
            return None
        return RenderedFile(path="", file=str(self._path), sha256=self._hash.hexdigest(), size=self._size)

    def place(self, sha256: bytes) -> PackedAt:
        """Return where an appended slice lies, once the pack is finished."""
        offset, size = self._places[sha256]
        return PackedAt(size, self._hash.digest(), offset)


def sync(file: BinaryIO) -> None:
    """Bring what was written onto the disk."""
    file.flush()
    os.fsync(file.fileno())
