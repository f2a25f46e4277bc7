"""The only place that knows what unpacking a damaged zip raises, and tells whether one is whole."""

import lzma
import zipfile
import zlib
from pathlib import Path

DAMAGED = (zipfile.BadZipFile, RuntimeError, NotImplementedError, zlib.error, lzma.LZMAError, EOFError)
"""What unpacking raises for a zip that is none, not whole, or encrypted."""


def check_zip(path: Path) -> list[str]:
    """Return the names of a zip's members; raise ValueError, with a sentence, for one that is not whole. Blocks."""
    try:
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()
            names = archive.namelist()
    except (OSError, *DAMAGED) as error:
        raise ValueError(f"the archive does not open: {error}") from None
    if bad is not None:
        raise ValueError("the archive is damaged inside")
    return names
