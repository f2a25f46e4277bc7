"""The SQL that takes away what no kept generation names: objects, packs and their files."""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from msgspec import Struct

from firthd.store import objects
from firthd.store.database import Database, Reader, Row, Tx
from firthd.store.joined import JOINED
from firthd.store.objects import BATCH

HALF = 2
"""A pack is made anew when its size is more than this many times what is named of it."""
SMALL_PACK = 1_000_000
"""Bytes below which a pack is small."""
MANY_SMALL = 50
"""Small packs of a channel that are joined into one."""


async def drop_between(db: Database, channel_id: int, low: int, high: int, now_ms: int) -> set[bytes]:
    """Take away what only generations between two kept ones showed, in short transactions; return the files touched.

    `low` 0: nothing older is kept. Objects that hold their own hash are only marked as named no longer.
    """
    files: set[bytes] = set()

    async def some(tx: Tx, after: tuple[int, int, int]) -> tuple[tuple[int, int, int] | None, set[bytes]]:
        page = await objects.ended(tx, channel_id, after, high)
        rows = []
        for _, since, row in page:
            if since > low:
                rows += await tx.rows("SELECT id, file, lasting FROM object WHERE id = ?", (row,))
        await tx.many(
            "UPDATE object SET unnamed_at = ? WHERE id = ? AND unnamed_at IS NULL",
            [(now_ms, row[0]) for row in rows if row[2]],
        )
        going = [(row[0], row[1]) for row in rows if not row[2]]
        await objects.delete(tx, going, now_ms)
        place = (page[-1][0], page[-1][1], page[-1][2]) if len(page) == BATCH else None
        return place, {file for _, file in going}

    after: tuple[int, int, int] | None = (low, objects.LAST, objects.LAST)
    while after is not None:
        after, touched = await db.write(partial(some, after=after))
        files |= touched
    return files


async def drop_lasting(db: Database, channel_id: int, before_ms: int, now_ms: int) -> set[bytes]:
    """Take away what holds its own hash and has been named by no kept generation since a moment."""

    async def some(tx: Tx) -> Sequence[Row]:
        rows = await tx.rows(
            "SELECT id, file FROM object WHERE channel_id = ? AND unnamed_at <= ? LIMIT ?",
            (channel_id, before_ms, BATCH),
        )
        await objects.delete(tx, rows, now_ms)
        return rows

    return await _all(db, some)


async def _all(db: Database, some: Callable[[Tx], Awaitable[Sequence[Row]]]) -> set[bytes]:
    files: set[bytes] = set()
    while rows := await db.write(some):
        files.update(row[1] for row in rows)
    return files


async def keep_packed_only(db: Database, channel_id: int, pointer: int, now_ms: int) -> int:
    """Let what is not in force any more come out of its compressed twin, where it has one; return how many."""

    async def some(tx: Tx) -> int:
        rows = await tx.rows(
            "SELECT o.id, o.file, t.file, iif(t.path = o.path || '.gz', 'gzip', 'zstd')"
            " FROM object o CROSS JOIN object t"
            " ON t.channel_id = o.channel_id AND t.family = o.family AND t.path IN (o.path || '.gz', o.path || '.zst')"
            " AND t.since <= o.since AND (t.until IS NULL OR t.until > o.since)"
            " AND t.offset IS NULL AND t.encoding IS NULL"
            " WHERE o.channel_id = ? AND o.until <= ? AND o.encoding IS NULL AND o.offset IS NULL AND NOT o.lasting"
            " ORDER BY o.id, t.path LIMIT ?",
            (channel_id, pointer, BATCH),
        )
        await tx.many(
            "UPDATE object SET file = ?, encoding = ? WHERE id = ?", [(row[2], row[3], row[0]) for row in rows]
        )
        await _note_unnamed(tx, {row[1] for row in rows}, now_ms)
        return len(rows)

    done = 0
    while count := await db.write(some):
        done += count
    return done


async def packed_in_force(r: Reader, channel_id: int) -> list[tuple[int, str, int, str]]:
    """Return (id, sha256, size, file) of the objects in force that a file holds compressed only."""
    rows = await r.rows(
        "SELECT id, sha256, size, file FROM object WHERE channel_id = ? AND until IS NULL AND encoding <> ?",
        (channel_id, JOINED),
    )
    return [(row[0], row[1].hex(), row[2], row[3].hex()) for row in rows]


async def set_plain(tx: Tx, row: int) -> None:
    """Say of an object that it is a file of its own."""
    await tx.execute("UPDATE object SET file = sha256, encoding = NULL WHERE id = ?", (row,))


async def _note_unnamed(tx: Tx, files: set[bytes], now_ms: int) -> None:
    # REPLACE: a file that was named again meanwhile has its minute from now on.
    await tx.many(
        "INSERT OR REPLACE INTO unnamed_file SELECT ?1, ?2 WHERE NOT EXISTS (SELECT 1 FROM object WHERE file = ?1)",
        [(file, now_ms) for file in files],
    )


# --- packs -----------------------------------------------------------------------------------------------------------


class Slice(Struct, frozen=True):
    """Bytes in a pack that an object names; `sha256` is theirs."""

    file: str
    offset: int
    size: int
    sha256: str


async def packs_to_move(r: Reader, channel_id: int, touched: set[bytes] | None) -> list[str]:
    """Return the packs whose living parts are to move on: of those touched (None: of all), and small ones if many."""
    packs = await r.rows("SELECT file, size FROM pack WHERE channel_id = ?", (channel_id,))
    small = [file for file, size in packs if size < SMALL_PACK]
    found = set(small) if len(small) >= MANY_SMALL else set()
    for file, size in packs:
        if (touched is None or file in touched) and file not in found:
            named = await r.value(
                "SELECT sum(size) FROM (SELECT DISTINCT offset, size FROM object WHERE file = ? AND channel_id = ?)",
                (file, channel_id),
            )
            if (named or 0) * HALF < size:
                found.add(file)
    return sorted(file.hex() for file in found)


async def living(r: Reader, channel_id: int, pack: str) -> list[Slice]:
    """Return what a channel's objects name of a pack, in its order."""
    rows = await r.rows(
        "SELECT DISTINCT offset, size, sha256 FROM object WHERE file = ? AND channel_id = ? AND offset IS NOT NULL"
        " ORDER BY offset",
        (bytes.fromhex(pack), channel_id),
    )
    return [Slice(pack, row[0], row[1], row[2].hex()) for row in rows]


async def move(db: Database, channel_id: int, moved: Sequence[tuple[Slice, int]], pack: str) -> None:
    """Say of slices that they lie in another pack from now on, in short transactions."""

    async def some(tx: Tx, start: int) -> None:
        await tx.many(
            "UPDATE object SET file = ?, offset = ? WHERE file = ? AND offset = ? AND channel_id = ?",
            [
                (bytes.fromhex(pack), to, bytes.fromhex(one.file), one.offset, channel_id)
                for one, to in moved[start : start + BATCH]
            ],
        )

    for start in range(0, len(moved), BATCH):
        await db.write(partial(some, start=start))


async def forget_packs(db: Database, channel_id: int, packs: Sequence[str], now_ms: int) -> None:
    """Take away the rows of packs that nothing lies in any more."""

    async def body(tx: Tx) -> None:
        files = {bytes.fromhex(pack) for pack in packs}
        await tx.many("DELETE FROM pack WHERE channel_id = ? AND file = ?", [(channel_id, file) for file in files])
        await _note_unnamed(tx, files, now_ms)

    await db.write(body)


# --- files -----------------------------------------------------------------------------------------------------------


async def unnamed(r: Reader, before_ms: int) -> list[str]:
    """Return the files that have been without a row since a moment."""
    rows = await r.rows("SELECT file FROM unnamed_file WHERE at <= ?", (before_ms,))
    return [row[0].hex() for row in rows]


async def sizes(r: Reader, channel_id: int) -> list[tuple[str, int | None]]:
    """Return (file, its size in bytes, None where no row says it) of all files that a channel's objects name."""
    rows = await r.rows(
        "SELECT file, max(size) FROM (SELECT file, iif(encoding IS NULL, size, NULL) AS size FROM object"
        " WHERE channel_id = :channel AND offset IS NULL"
        " UNION ALL SELECT file, size FROM pack p WHERE channel_id = :channel"
        " AND EXISTS (SELECT 1 FROM object o WHERE o.file = p.file)) GROUP BY file",
        {"channel": channel_id},
    )
    return [(row[0].hex(), row[1]) for row in rows]


class LostObject(Struct, frozen=True, kw_only=True):
    """An object whose file is lost, and the generations that it is part of."""

    family: str
    since: int
    until: int | None


async def lost(r: Reader, channel_id: int, files: Sequence[str]) -> list[LostObject]:
    """Return the objects of a channel that lie in one of these files, one for each family and span of generations."""
    rows = await r.rows(
        f"SELECT DISTINCT family, since, until FROM object WHERE channel_id = ? AND file IN ({_places(files)})",
        (channel_id, *map(bytes.fromhex, files)),
    )
    return [LostObject(family=row[0], since=row[1], until=row[2]) for row in rows]


async def digests_in(r: Reader, channel_id: int, family: str, files: Sequence[str]) -> set[str]:
    """Return the sha256 of the objects of a family that lie in one of these files."""
    rows = await r.rows(
        f"SELECT DISTINCT sha256 FROM object WHERE channel_id = ? AND family = ? AND file IN ({_places(files)})",
        (channel_id, family, *map(bytes.fromhex, files)),
    )
    return {row[0].hex() for row in rows}


async def mend(tx: Tx, schema: str, channel_id: int, family: str, files: Sequence[str]) -> int:
    """Say of objects that lay in lost files where a render (the attached run file) has put the same bytes again."""
    return await tx.execute(
        f"UPDATE object AS o SET file = s.file, offset = s.offset, encoding = s.encoding FROM {schema}.object s"
        " WHERE o.channel_id = ? AND o.family = ? AND o.path = s.path AND o.sha256 = s.sha256"
        f" AND o.file IN ({_places(files)})",
        (channel_id, family, *map(bytes.fromhex, files)),
    )


def _places(values: Sequence[str]) -> str:
    return ", ".join("?" * len(values))


async def named_of(r: Reader, files: Sequence[str]) -> set[str]:
    """Return those of the files that a row names."""
    found = set()
    for file in files:
        if await r.value("SELECT EXISTS (SELECT 1 FROM object WHERE file = ?)", (bytes.fromhex(file),)):
            found.add(file)
    return found


async def note_unnamed(tx: Tx, files: Sequence[str], now_ms: int) -> None:
    """Write down those of the files that are without a row, so that they are taken away."""
    await tx.many(
        "INSERT OR IGNORE INTO unnamed_file SELECT ?1, ?2 WHERE NOT EXISTS (SELECT 1 FROM object WHERE file = ?1)",
        [(bytes.fromhex(file), now_ms) for file in files],
    )


async def forget_unnamed(tx: Tx, files: Sequence[str], before_ms: int) -> None:
    """Take files off the list that came there before a moment: they are gone, or named again."""
    keys = [(bytes.fromhex(file), before_ms) for file in files]
    await tx.many("DELETE FROM unnamed_file WHERE file = ? AND at <= ?", keys)
