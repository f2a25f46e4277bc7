"""The only place that says which copies of what lies beside a source's index a render takes."""

from pathlib import Path

from firthd.families.base import Side
from firthd.families.pieces import PIECES
from firthd.store.catalog import SourceIndexRow


def side_of(mirror_id: int, row: SourceIndexRow, folder: Path) -> Side | None:
    """Return a file beside a mirror's index, or an index whose records are signed; None for any other.

    `folder`: where the copies of the mirror's index lie.
    """
    if row.file is None or not (row.signed if row.beside is None else row.encoding != PIECES):
        return None
    return Side(
        mirror_id=mirror_id,
        name=row.part,
        beside=row.part if row.beside is None else row.beside,
        file=str(folder / row.file),
        encoding=row.encoding,
        index=row.beside is None,
    )
