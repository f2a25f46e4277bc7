"""The only place with the SQL that keeps the state small and sound: what deleted things leave, integrity, totals."""

from msgspec import Struct

from firthd.clock import Clock
from firthd.store import delivered, objects, paging
from firthd.store.blobs import Kept, NameBlobs
from firthd.store.database import Database, Reader, Tx

BATCH = 2000


async def name_blobs(tx: Tx, kept: list[Kept], now_ms: int) -> None:
    """Write the rows of files that are at their final name, and which channel each came for."""
    await tx.many(
        "INSERT OR IGNORE INTO blob(sha256, size, created_at) VALUES (?, ?, ?)",
        [(bytes.fromhex(one.sha256), one.size, now_ms) for one in kept],
    )
    await give(tx, kept)


async def give(tx: Tx, kept: list[Kept]) -> None:
    """Write which channel each file came for."""
    await delivered.deliver(tx, [(one.channel_id, one.sha256) for one in kept if one.channel_id is not None])


async def forget_unfinished(db: Database) -> None:
    """Take back what a channel was given when a crash came before the file had its name; every blob has its row."""
    without = "NOT EXISTS (SELECT 1 FROM blob b WHERE b.sha256 = delivered.sha256)"
    rows = await db.read(lambda r: r.rows(f"SELECT channel_id, sha256 FROM delivered WHERE {without}"))
    # One that is on its way now is looked at again, and is written once more beside its blob's row.
    await db.write(lambda tx: tx.many(f"DELETE FROM delivered WHERE channel_id = ? AND sha256 = ? AND {without}", rows))


def naming(db: Database, clock: Clock) -> NameBlobs:
    """Return what the store calls when files are at their final names."""

    async def name(kept: list[Kept]) -> None:
        await db.write(lambda tx: name_blobs(tx, kept, clock.now_ms()))

    return name


class Totals(Struct, frozen=True, kw_only=True):
    channels: int
    mirrors: int
    runs_active: int
    runs_pending: int
    artifacts: int
    blobs: int
    blob_bytes: int


async def totals(r: Reader, patterns: paging.Patterns = None) -> Totals:
    """Return the counts that the daemon's status shows, of the channels that a caller may see; the store is one."""
    seen, params = paging.visible("c.name", patterns)
    mirrors = f"mirror m JOIN channel c ON c.id = m.channel_id WHERE m.deleted_at IS NULL AND {seen}"
    runs = f"run r JOIN channel c ON c.id = r.channel_id WHERE {seen} AND r.state IN"
    row = await r.row(
        f"SELECT (SELECT count(*) FROM channel c WHERE c.deleted_at IS NULL AND {seen}),"
        f" (SELECT count(*) FROM {mirrors}),"
        f" (SELECT count(*) FROM {runs} ('running', 'stopping')),"
        f" (SELECT count(*) FROM {runs} ('pending')),"
        f" (SELECT coalesce(sum(m.artifacts), 0) FROM {mirrors}),"
        " blobs, bytes FROM blob_total",
        params,
    )
    assert row is not None
    return Totals(**dict(zip(Totals.__struct_fields__, row, strict=True)))


async def integrity(r: Reader) -> list[str]:
    """Return what SQLite finds wrong with the state; empty when it is sound. Takes seconds on a large one."""
    rows = await r.rows("PRAGMA quick_check(10)")
    return [] if rows == [("ok",)] else [str(row[0]) for row in rows]


async def purge_deleted(db: Database, now_ms: int) -> int:
    """Take away the rows of deleted channels, in short batches; return how many rows."""
    gone = 0
    left = " OR ".join(
        f"EXISTS (SELECT 1 FROM {table} t WHERE t.channel_id = c.id)"
        for table in ("artifact", "object", "package", "pack", "delivered", "offered")
    )
    channels = await db.read(
        lambda r: r.rows(f"SELECT c.id FROM channel c WHERE c.deleted_at IS NOT NULL AND ({left})")
    )
    for (channel_id,) in channels:

        async def some(tx: Tx, channel_id: int = channel_id) -> int:
            await tx.execute(
                "DELETE FROM page_span WHERE artifact_id IN (SELECT id FROM artifact WHERE channel_id = ? LIMIT ?)",
                (channel_id, BATCH),
            )
            await tx.execute(
                "DELETE FROM artifact_record WHERE artifact_id IN"
                " (SELECT id FROM artifact WHERE channel_id = ? LIMIT ?)",
                (channel_id, BATCH),
            )
            removed = await tx.execute(
                "DELETE FROM artifact WHERE id IN (SELECT id FROM artifact WHERE channel_id = ? LIMIT ?)",
                (channel_id, BATCH),
            )
            rows = await tx.rows("SELECT id, file FROM object WHERE channel_id = ? LIMIT ?", (channel_id, BATCH))
            await objects.delete(tx, rows, now_ms)
            removed += len(rows)
            for table, key in (("delivered", "sha256"), ("package", "family, name, number"), ("offered", "id")):
                removed += await tx.execute(
                    f"DELETE FROM {table} WHERE channel_id = ? AND ({key}) IN"
                    f" (SELECT {key} FROM {table} WHERE channel_id = ? LIMIT ?)",
                    (channel_id, channel_id, BATCH),
                )
            if not removed:
                await tx.execute("DELETE FROM pack WHERE channel_id = ?", (channel_id,))
            return removed

        while removed := await db.write(some):
            gone += removed
    return gone
