"""The only place that knows the file in which the pieces of a part wait for the worker that reads them.

A header line of JSON (names with their sizes, null for a package that is gone), then the pieces one behind the other.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

Pieced = tuple[str, int | None]  # name, size


def write_header(names: Sequence[Pieced]) -> bytes:
    """Return what stands before the pieces."""
    return msgspec.json.encode(names) + b"\n"


def read_pieces(file: Path) -> Iterator[tuple[str, bytes | None]]:
    """Yield name and piece of each package, None for one that is gone; raises ValueError for a file that is cut off."""
    with file.open("rb") as opened:
        for name, size in msgspec.json.decode(opened.readline(), type=list[Pieced]):
            content = None if size is None else opened.read(size)
            if content is not None and len(content) != size:
                raise ValueError("the file with the pieces is cut off")
            yield name, content
