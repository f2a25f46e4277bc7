"""The only place that tells whether a file is a whole R package, where no digest can tell."""

from pathlib import Path

from firthd.families.r.packed import BZIP2, GZIP, XZ, DamagedError, chunks
from firthd.families.zips import check_zip

_TAR_BLOCK = 512
_BEGINNINGS = (GZIP, BZIP2, XZ)


def check_archive(path: Path, filename: str) -> None:
    """Raise ValueError, with a sentence, unless the file at `path` is a whole archive of its name's kind. Blocks."""
    if filename.endswith(".zip"):
        check_zip(path)
        return
    size = 0
    with path.open("rb") as file:
        if not file.read(8).startswith(_BEGINNINGS):
            raise ValueError("the file is no packed archive")
        file.seek(0)
        try:
            for chunk in chunks(file):
                size += len(chunk)
        except DamagedError as error:
            raise ValueError(f"the archive does not open: {error}") from None
    if size < _TAR_BLOCK:
        raise ValueError("the archive holds no files")
