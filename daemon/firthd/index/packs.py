"""The only place that lays small objects one behind the other into packs."""

import hashlib
import os
from pathlib import Path
from typing import BinaryIO

from firthd.index.messages import RenderedFile
from firthd.store.worker_reads import WorkerState

Place = tuple[bytes, bytes, int, int]
"""sha256 of the slice, sha256 of the pack, offset, length"""


class Pack:
    """One file of new slices; what an older pack already holds is not written again."""

    def __init__(self, path: Path, state: WorkerState, channel_id: int) -> None:
        self._path = path
        self._file = path.open("wb")
        self._hash = hashlib.sha256()
        self._state = state
        self._channel_id = channel_id
        self._places: dict[bytes, tuple[int, int]] = {}
        self._size = 0

    def add(self, sha256: bytes, content: bytes) -> None:
        """Append a slice if it is new."""
        if sha256 in self._places or self._state.has_shard(self._channel_id, sha256):
            return
        self._places[sha256] = (self._size, len(content))
        self._file.write(content)
        self._hash.update(content)
        self._size += len(content)

    def finish(self) -> tuple[RenderedFile | None, list[Place]]:
        """Make the pack durable; return it and the place of each slice. None when it is empty."""
        sync(self._file)
        self._file.close()
        if not self._places:
            self._path.unlink()
            return None, []
        pack = RenderedFile(path="", file=str(self._path), sha256=self._hash.hexdigest(), size=self._size)
        digest = self._hash.digest()
        return pack, [(sha256, digest, offset, length) for sha256, (offset, length) in sorted(self._places.items())]


def sync(file: BinaryIO) -> None:
    """Bring what was written onto the disk."""
    file.flush()
    os.fsync(file.fileno())
