"""The only place with the SQL of what a source's lists say of parts that have not changed."""

from collections.abc import Mapping

from firthd.store.database import Tx


async def note_marks(tx: Tx, mirror_id: int, marks: Mapping[str, str]) -> None:
    """Write what a list says of parts whose copies are still the source's."""
    await tx.many(
        "UPDATE source_index SET mark = ? WHERE mirror_id = ? AND part = ?",
        [(mark, mirror_id, part) for part, mark in marks.items()],
    )
