"""The only place that tells whether a file is a whole Python distribution, where no digest can tell."""

import bz2
import gzip
import lzma
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from firthd.families.python.names import METADATA_ENDING

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
        _check_zip(path)
    elif (opener := next((open for ending, open in _OPENERS.items() if filename.endswith(ending)), None)) is not None:
        try:
            with opener(path, "rb") as archive:
                while archive.read(_CHUNK):
                    pass
        except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
            raise ValueError(f"the archive does not open: {error}") from None
    elif not path.stat().st_size:
        raise ValueError("the file is empty")


def _check_zip(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()
    except (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError, zlib.error) as error:
        raise ValueError(f"the archive does not open: {error}") from None
    if bad is not None:
        raise ValueError("the archive is damaged inside")


def _check_metadata(path: Path) -> None:
    if path.stat().st_size > METADATA_MAX_BYTES:
        raise ValueError(f"the metadata has more than {METADATA_MAX_BYTES:,} bytes")
    with path.open("rb") as file:
        if b"metadata-version:" not in file.read(4096).lower():
            raise ValueError("it is no core metadata: there is no Metadata-Version")
