"""The only place with the SQL of what a source says of parts beside their records: marks of its lists, and statuses."""

from collections.abc import Mapping

from firthd.store.database import Reader, Tx


async def note_marks(tx: Tx, mirror_id: int, marks: Mapping[str, str]) -> None:
    """Write what a list says of parts whose copies are still the source's."""
    await tx.many(
        "UPDATE source_index SET mark = ? WHERE mirror_id = ? AND part = ?",
        [(mark, mirror_id, part) for part, mark in marks.items()],
    )


async def copies(r: Reader, mirror_id: int) -> set[str]:
    """Return the names of the files that hold what was last read of a mirror's source."""
    rows = await r.rows("SELECT file FROM source_index WHERE mirror_id = ? AND file IS NOT NULL", (mirror_id,))
    return {row[0] for row in rows}


async def spoken_of(r: Reader, mirror_id: int) -> list[str]:
    """Return the parts (family/part) of which a mirror's source says more than its files' records do."""
    rows = await r.rows(
        "SELECT m.type, i.part FROM mirror m JOIN source_index i ON i.mirror_id = m.id WHERE m.id = ? AND i.signed",
        (mirror_id,),
    )
    return sorted(f"{family}/{part}" for family, part in rows)
