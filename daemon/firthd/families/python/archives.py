"""The only place that tells whether a file is a whole Python distribution, where no digest can tell."""

import bz2
import gzip
import lzma
import re
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from firthd.families.base import Inside
from firthd.families.python.names import METADATA_ENDING
from firthd.families.zips import DAMAGED, check_zip

_CHUNK = 1 << 20
_OPENERS: dict[str, Callable[..., Any]] = {
    ".tar.gz": gzip.GzipFile,
    ".tgz": gzip.GzipFile,
    ".tar.bz2": bz2.BZ2File,
    ".tar.xz": lzma.LZMAFile,
}
_ZIPS = (".whl", ".zip", ".egg")
METADATA_MAX_BYTES = 16 * 1024**2


def check_archive(path: Path, filename: str) -> None:
    """Raise ValueError, with a sentence, unless the file at `path` is a whole archive of its name's kind. Blocks.

    A kind that nobody here can open passes when it is not empty.
    """
    if filename.endswith(METADATA_ENDING):
        _check_metadata(path)
    elif filename.endswith(_ZIPS):
        check_zip(path)
    elif (opener := next((open for ending, open in _OPENERS.items() if filename.endswith(ending)), None)) is not None:
        try:
            with opener(path, "rb") as archive:
                while archive.read(_CHUNK):
                    pass
        except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
            raise ValueError(f"the archive does not open: {error}") from None
    elif not path.stat().st_size:
        raise ValueError("the file is empty")


def inside(filename: str) -> Inside | None:
    """Return the wheel that holds this file of core metadata, None for any other file."""
    wheel = filename.removesuffix(METADATA_ENDING)
    return Inside(wheel, metadata_of_wheel) if wheel != filename and wheel.endswith(".whl") else None


def metadata_of_wheel(path: Path) -> bytes:
    """Return the core metadata that a wheel holds (PEP 427); raise ValueError when it holds none. Blocks."""
    try:
        with zipfile.ZipFile(path) as archive:
            found = [one for one in archive.infolist() if _metadata_name(one.filename)]
            if len(found) != 1:
                raise ValueError("the wheel holds no core metadata")
            with archive.open(found[0]) as file:
                content = file.read(METADATA_MAX_BYTES + 1)
    except (OSError, *DAMAGED) as error:
        raise ValueError(f"the wheel does not open: {error}") from None
    if len(content) > METADATA_MAX_BYTES:
        raise ValueError(f"the wheel's metadata has more than {METADATA_MAX_BYTES:,} bytes")
    return content


_metadata_name = re.compile(r"[^/]+\.dist-info/METADATA").fullmatch


def _check_metadata(path: Path) -> None:
    if path.stat().st_size > METADATA_MAX_BYTES:
        raise ValueError(f"the metadata has more than {METADATA_MAX_BYTES:,} bytes")
    with path.open("rb") as file:
        if b"metadata-version:" not in file.read(4096).lower():
            raise ValueError("it is no core metadata: there is no Metadata-Version")
