"""The only place that takes the objects of an index from a family: files below a folder, slices of a pack."""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from firthd.index.messages import PreviousFile, RenderedFile
from firthd.index.packs import Pack, sync


class Hashing:
    """A file that is hashed while it is written."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, content: bytes, /) -> int:
        self._hash.update(content)
        self.size += len(content)
        return self._file.write(content)

    def flush(self) -> None:
        self._file.flush()

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()


class Outputs:
    """What one render leaves; objects may be written by several threads at once, each by one."""

    def __init__(self, folder: Path, previous: Mapping[str, PreviousFile], pack: Pack) -> None:
        self._folder = folder
        self._previous = previous
        self._pack = pack
        self.files: list[RenderedFile] = []

    def has(self, path: str) -> bool:
        """Tell whether the generation before serves this path."""
        return path in self._previous

    def before(self, path: str) -> bytes | None:
        """Return what the generation before serves there; None when it is not to be had: it can be made again."""
        previous = self._previous.get(path)
        try:
            return None if previous is None else Path(previous.file).read_bytes()
        except OSError:
            return None

    @contextmanager
    def open(self, path: str) -> Iterator[BinaryIO]:
        """Open an object of its own for writing; it is durable and counts when the block ends without an error."""
        place = self._folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        with place.open("wb") as file:
            hashing = Hashing(file)
            yield cast("BinaryIO", hashing)
            sync(file)
        self.files.append(RenderedFile(path=path, file=str(place), sha256=hashing.sha256, size=hashing.size))

    def slice(self, sha256: bytes, content: bytes) -> None:
        """Add a small object that is found by its own digest; one that is there already is not written again."""
        self._pack.add(sha256, content)
