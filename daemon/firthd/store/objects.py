"""The SQL of served objects: what a path shows at a generation, and what a publication writes.

An object is served at generation N when since <= N < until. Rows and ends of a number beyond the channel's pointer
belong to a publication that has not come about: nobody sees them, and they are taken back before the next one.
"""

from collections.abc import Sequence
from functools import partial

from msgspec import Struct

from firthd.clock import Clock
from firthd.store.database import Database, Reader, Row, Tx

BATCH = 500
"""Rows that one transaction touches at the most: about 10 ms of the writer."""

BATCH_SECONDS = 0.02
"""What a transaction of a copy aims at; how long its rows take depends on the machine and on who else is at work."""

LAST = 2**63 - 1
"""Behind every number that SQLite can hold."""

_COLUMNS = "path, sha256, size, file, offset, encoding"


class ObjectRow(Struct, frozen=True, kw_only=True):
    """An object: `sha256` and `size` are of what a client gets, `file` is the sha256 of the file that holds it.

    `offset` None: it is the whole file. `encoding` "zstd" or "gzip": the file holds it compressed; "joined": it lists
    the pieces of it, and the sha256 is that of the list.
    """

    family: str
    path: str
    sha256: str
    size: int
    file: str
    offset: int | None = None
    encoding: str | None = None
    lasting: bool = False


def whole(family: str, path: str, sha256: str, size: int) -> ObjectRow:
    """Return an object that is a file of its own."""
    return ObjectRow(family=family, path=path, sha256=sha256, size=size, file=sha256)


def _object(row: Row) -> ObjectRow:
    return ObjectRow(
        family=row[0],
        path=row[1],
        sha256=row[2].hex(),
        size=row[3],
        file=row[4].hex(),
        offset=row[5],
        encoding=row[6],
        lasting=bool(row[7]),
    )


async def find(r: Reader, channel_id: int, number: int, family: str, path: str) -> ObjectRow | None:
    """Return what a path shows at a generation; one that holds its own hash is found whatever the generation."""
    row = await r.row(
        f"SELECT family, {_COLUMNS}, lasting FROM object WHERE channel_id = :channel AND family = :family"
        " AND path = :path AND (lasting OR (since <= :number AND (until IS NULL OR until > :number)))"
        " ORDER BY since > :number, since DESC LIMIT 1",  # what is not published yet may be taken back
        {"channel": channel_id, "family": family, "path": path, "number": number},
    )
    return _object(row) if row else None


async def in_force(r: Reader, channel_id: int, family: str, endings: Sequence[str]) -> list[ObjectRow]:
    """Return the objects in force whose path ends in one of some texts; those that hold their own hash do not count."""
    if not endings:
        return []
    fits = " OR ".join(["substr(path, -length(?)) = ?"] * len(endings))
    rows = await r.rows(
        f"SELECT family, {_COLUMNS}, lasting FROM object INDEXED BY object_named"
        f" WHERE channel_id = ? AND family = ? AND until IS NULL AND NOT lasting AND ({fits})",
        (channel_id, family, *(ending for ending in endings for _ in range(2))),
    )
    return [_object(row) for row in rows]


# --- what a publication writes ----------------------------------------------------------------------------------


_STAGING = f"family, {_COLUMNS}, lasting"
SAME_PATH = (
    "FROM temp.staging s CROSS JOIN object o INDEXED BY object_path"
    " ON o.channel_id = :channel AND o.family = s.family AND o.path = s.path"
)
"""Left to itself SQLite looks, for each path, at all that a publication has ended."""


async def show(tx: Tx, channel_id: int, number: int, rows: Sequence[ObjectRow]) -> None:
    """Let paths show these objects from generation `number` on; those that show them already are left alone."""
    await _clear_staging(tx)
    await tx.many(
        f"INSERT INTO temp.staging({_STAGING}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (
                row.family,
                row.path,
                bytes.fromhex(row.sha256),
                row.size,
                bytes.fromhex(row.file),
                row.offset,
                row.encoding,
                int(row.lasting),
            )
            for row in rows
        ],
    )
    await _put_in_force(tx, channel_id, number)


async def copy_in(db: Database, clock: Clock, schema: str, channel_id: int, family: str, number: int) -> None:
    """Copy an attached run file's objects as those of generation `number`, in transactions that keep to their time."""
    batch, after = BATCH // 4, ""

    async def some(tx: Tx) -> tuple[str | None, float]:
        started = clock.monotonic()
        last = await copy(tx, schema, channel_id, family, number, after, batch)
        return last, clock.monotonic() - started

    while True:
        last, seconds = await db.write(some, lasting=False)
        if last is None:
            return
        after = last
        batch = max(BATCH // 10, min(BATCH, int(batch * min(2.0, BATCH_SECONDS / max(seconds, 0.001)))))


async def copy(
    tx: Tx, schema: str, channel_id: int, family: str, number: int, after: str, limit: int = BATCH
) -> str | None:
    """Copy some of a run file's objects as those of generation `number`; return the path to go on after."""
    page = f"FROM {schema}.object WHERE path > ? ORDER BY path LIMIT ?"
    copied, last = (await tx.rows(f"SELECT count(*), max(path) FROM (SELECT path {page})", (after, limit)))[0]
    rows = f"SELECT :family, {_COLUMNS}, lasting FROM {schema}.object WHERE path > :after AND path <= :last"
    key = {"channel": channel_id, "number": number, "family": family, "after": after, "last": last}
    there = await tx.value(
        "SELECT EXISTS (SELECT 1 FROM object WHERE channel_id = :channel AND family = :family"
        " AND path > :after AND path <= :last)",
        key,
    )
    if there:
        await _clear_staging(tx)
        await tx.execute(f"INSERT INTO temp.staging({_STAGING}) {rows}", key)
        await _put_in_force(tx, channel_id, number)
    else:  # as in a first publication: there is nothing to compare with
        await tx.execute(
            f"INSERT INTO object(channel_id, since, {_STAGING}) SELECT :channel, :number, * FROM ({rows}"
            " AND sha256 IS NOT NULL ORDER BY path)",
            key,
        )
    return str(last) if copied == limit else None


async def _clear_staging(tx: Tx) -> None:
    await tx.execute(
        "CREATE TEMP TABLE IF NOT EXISTS staging (family TEXT, path TEXT, sha256 BLOB, size INTEGER, file BLOB,"
        " offset INTEGER, encoding TEXT, lasting INTEGER, PRIMARY KEY (family, path))"
    )
    await tx.execute("DELETE FROM temp.staging")


async def _put_in_force(tx: Tx, channel_id: int, number: int) -> None:
    """Let the staged paths show what is staged from `number` on; one without a sha256 is to show nothing."""
    key = {"channel": channel_id, "number": number}
    await tx.execute(  # what this publication itself has put there goes without a trace
        f"DELETE FROM object WHERE id IN (SELECT o.id {SAME_PATH} AND o.until IS NULL AND o.since = :number"
        " AND o.sha256 IS NOT s.sha256)",
        key,
    )
    await tx.execute(
        f"UPDATE object SET until = :number WHERE id IN (SELECT o.id {SAME_PATH} AND o.until IS NULL"
        " AND o.sha256 IS NOT s.sha256)",
        key,
    )
    await tx.execute(  # what this publication has ended goes on: it shows the same after all
        f"UPDATE object SET until = NULL WHERE id IN (SELECT o.id {SAME_PATH} AND o.until = :number"
        " AND o.sha256 = s.sha256)",
        key,
    )
    await tx.execute(
        f"INSERT INTO object(channel_id, since, {_STAGING}) SELECT :channel, :number, {_STAGING} FROM temp.staging s"
        " WHERE s.sha256 IS NOT NULL AND NOT EXISTS (SELECT 1 FROM object o WHERE o.channel_id = :channel"
        " AND o.family = s.family AND o.path = s.path AND o.until IS NULL)",
        key,
    )


async def name_pack(tx: Tx, channel_id: int, file: str, size: int) -> None:
    """Write the row of a pack, before any object lies in it."""
    await tx.execute("INSERT OR IGNORE INTO pack VALUES (?, ?, ?)", (channel_id, bytes.fromhex(file), size))


DIFFERENT = " UNION ".join(  # not OR, for which every object of the channel would be read
    f"SELECT family, path FROM object WHERE channel_id = :channel AND {changed} AND NOT lasting"
    for changed in ("until = :number", "until IS NULL AND since = :number")
)
"""The paths that show something else from generation :number on."""


async def differences(r: Reader, channel_id: int, number: int) -> int:
    """Return how many paths show something else from generation `number` on; shards are not counted."""
    return int(await r.value(f"SELECT count(*) FROM ({DIFFERENT})", {"channel": channel_id, "number": number}))


# --- going back to an earlier generation ----------------------------------------------------------------------------


async def show_again(db: Database, channel_id: int, number: int, earlier: int) -> None:
    """Let generation `number` show what `earlier` shows; only what differs is read and written."""
    after: tuple[int, int] | None = (earlier, LAST)
    while after is not None:
        after = await db.write(partial(_end_later, channel_id=channel_id, number=number, earlier=earlier, after=after))
    past: tuple[int, int, int] | None = (earlier, LAST, LAST)
    while past is not None:
        past = await db.write(partial(_begin_again, channel_id=channel_id, number=number, earlier=earlier, after=past))


async def _end_later(
    tx: Tx, channel_id: int, number: int, earlier: int, after: tuple[int, int]
) -> tuple[int, int] | None:
    """End some of what came after `earlier` and shows other bytes than it does; return (since, id) to go on after."""
    # Walked in the order of the index, a batch of rows looked at, not of rows found: a batch never costs what exists.
    page = await _walk(
        tx,
        "SELECT since, id FROM object WHERE channel_id = ? AND until IS NULL",
        [
            ("since = ? AND id > ? ORDER BY id", after),
            ("since > ? AND since < ? ORDER BY since, id", (after[0], number)),
        ],
        channel_id,
    )
    await tx.many(
        "UPDATE object AS o SET until = ?1 WHERE id = ?2 AND NOT EXISTS (SELECT 1 FROM object e"
        " WHERE e.channel_id = o.channel_id AND e.family = o.family AND e.path = o.path AND e.sha256 = o.sha256"
        " AND e.since <= ?3 AND e.until > ?3)",
        [(number, row[1], earlier) for row in page],
    )
    return (page[-1][0], page[-1][1]) if len(page) == BATCH else None


async def _begin_again(
    tx: Tx, channel_id: int, number: int, earlier: int, after: tuple[int, int, int]
) -> tuple[int, int, int] | None:
    """Let some paths show what they showed at `earlier` and show no longer; return the place to go on after."""
    page = await ended(tx, channel_id, after, number)
    await _clear_staging(tx)
    await tx.many(
        f"INSERT INTO temp.staging({_STAGING}) SELECT {_STAGING} FROM object WHERE id = ?",
        [(row[2],) for row in page if row[1] <= earlier],
    )
    await _put_in_force(tx, channel_id, number)
    return (page[-1][0], page[-1][1], page[-1][2]) if len(page) == BATCH else None


async def ended(tx: Tx, channel_id: int, after: tuple[int, int, int], high: int) -> list[Row]:
    """Return some (until, since, id) of the objects that ended behind a place, in its order, and until `high`.

    `(number, LAST, LAST)` is the place behind all that ended with a generation.
    """
    until, since, row = after
    return await _walk(
        tx,
        "SELECT until, since, id FROM object WHERE channel_id = ?",
        [
            ("until = ? AND since = ? AND id > ? ORDER BY id", (until, since, row)),
            ("until = ? AND since > ? ORDER BY since, id", (until, since)),
            ("until > ? AND until <= ? ORDER BY until, since, id", (until, high)),
        ],
        channel_id,
    )


async def _walk(tx: Tx, select: str, ways: Sequence[tuple[str, tuple[int, ...]]], channel_id: int) -> list[Row]:
    """Return the next rows in an index's order: the rest of the place where the last ones ended, then what follows it.

    One comparison of all columns would be sought by the first alone, and read again all that was walked of its value.
    """
    found: list[Row] = []
    for where, params in ways:
        if len(found) < BATCH:
            found += await tx.rows(f"{select} AND {where} LIMIT ?", (channel_id, *params, BATCH - len(found)))
    return found


# --- what a publication left that did not come about ------------------------------------------------------------------


async def take_back(db: Database, channel_id: int, pointer: int, now_ms: int) -> None:
    """Take away rows and ends of generations beyond the pointer, in short transactions."""

    async def some(tx: Tx) -> bool:
        rows = await tx.rows(
            "SELECT id, file FROM object WHERE channel_id = ? AND since > ? AND until IS NULL LIMIT ?",
            (channel_id, pointer, BATCH),
        )
        await delete(tx, rows, now_ms)
        opened = await tx.execute(
            "UPDATE object SET until = NULL WHERE id IN"
            " (SELECT id FROM object WHERE channel_id = ? AND until > ? LIMIT ?)",
            (channel_id, pointer, BATCH),
        )
        return bool(rows) or bool(opened)

    while await db.write(some):
        pass


async def delete(tx: Tx, rows: Sequence[Row], now_ms: int) -> None:
    """Take away rows (id, file); what no row names any more is written down to follow them."""
    await tx.many("DELETE FROM object WHERE id = ?", [(row[0],) for row in rows])
    await tx.many(
        "INSERT OR REPLACE INTO unnamed_file SELECT ?1, ?2 WHERE NOT EXISTS (SELECT 1 FROM object WHERE file = ?1)",
        [(file, now_ms) for file in {row[1] for row in rows}],
    )
