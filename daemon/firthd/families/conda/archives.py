"""The only place that tells whether a file is a whole conda package, where no digest can tell."""

import bz2
from pathlib import Path

from firthd.families.zips import check_zip

_CHUNK = 1 << 20


def check_archive(path: Path, filename: str) -> None:
    """Raise ValueError, with a sentence, unless the file at `path` is a whole archive of its name's kind. Blocks.

    `.conda` is a zip with `metadata.json` and zstd tarballs (CEP 5 of conda-package-handling), `.tar.bz2` a bzip2
    stream; a wheel is a zip.
    """
    if filename.endswith(".tar.bz2"):
        _check_bz2(path)
        return
    names = check_zip(path)
    if filename.endswith(".conda") and not any(name.startswith("info-") for name in names):
        raise ValueError("the archive holds no package information")


def _check_bz2(path: Path) -> None:
    decompressor = bz2.BZ2Decompressor()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            if decompressor.eof:
                decompressor = bz2.BZ2Decompressor()
            try:
                while not decompressor.eof and (chunk or not decompressor.needs_input):
                    decompressor.decompress(chunk, max_length=_CHUNK)
                    chunk = b""
            except OSError as error:
                raise ValueError(f"the archive does not open: {error}") from None
    if not decompressor.eof:
        raise ValueError("the archive ends too early")
