"""The only place with the SQL that lets go of what has happened long ago: runs, their logs, lines of the audit log.

Every batch is a short transaction. Ids grow with time, so a look begins at the oldest and ends at what is too young.
"""

from collections.abc import Sequence
from functools import partial

from firthd.store.database import Database, Reader, Tx

BATCH = 1000
_PAGE = 500
_ENDED = "('completed', 'incomplete', 'failed', 'stopped')"


async def forget_audit(db: Database, before_ms: int) -> int:
    """Take away lines of the audit log that are older than a moment; return how many."""

    async def some(tx: Tx) -> int:
        return await tx.execute(
            "DELETE FROM audit WHERE id IN (SELECT id FROM audit ORDER BY id LIMIT ?) AND time < ?"
            " AND outcome <> 'begun'",
            (BATCH, before_ms),
        )

    gone = 0
    while removed := await db.write(some):
        gone += removed
    return gone


async def forget_logs(db: Database, before_ms: int) -> int:
    """Take away the logs of runs that ended before a moment; return how many lines."""
    gone, after = 0, 0
    while (following := await db.read(partial(_next_log, after=after))) is not None:
        after, created_at, finished_at = following
        if created_at >= before_ms:
            break
        if finished_at is not None and finished_at < before_ms:
            gone += await _clear(db, "run_log", "number", after)
    return gone


async def _next_log(r: Reader, after: int) -> tuple[int, int, int | None] | None:
    row = await r.row(
        "SELECT id, created_at, finished_at FROM run WHERE id = (SELECT min(run_id) FROM run_log WHERE run_id > ?)",
        (after,),
    )
    return None if row is None else (row[0], row[1], row[2])


async def forget_runs(db: Database, before_ms: int) -> int:
    """Take away runs that ended before a moment, with their logs and failures; return how many.

    The newest of its kind of each mirror, channel and the store stays, and what has not ended.
    """
    gone, after = 0, 0
    while True:
        page = await db.read(partial(_old_runs, after=after, before_ms=before_ms))
        if not page:
            return gone
        after = page[-1][0]
        leaving = [run_id for run_id, leaves in page if leaves]
        for run_id in leaving:
            await _clear(db, "run_log", "number", run_id)
            await _clear(db, "run_failure", "part, filename", run_id)
        for start in range(0, len(leaving), _PAGE):
            gone += await _delete(db, leaving[start : start + _PAGE])


async def _old_runs(r: Reader, after: int, before_ms: int) -> list[tuple[int, bool]]:
    """Return the next runs by id that began before a moment, and whether each may go."""
    rows = await r.rows(
        f"SELECT r.id, r.state IN {_ENDED} AND coalesce(r.finished_at, r.created_at) < :before AND (EXISTS ("
        "SELECT 1 FROM run n WHERE n.mirror_id IS r.mirror_id AND n.id > r.id AND n.kind = r.kind"
        " AND n.channel_id IS r.channel_id) OR EXISTS (SELECT 1 FROM mirror m WHERE m.id = r.mirror_id"
        " AND m.deleted_at IS NOT NULL) OR EXISTS (SELECT 1 FROM channel c WHERE c.id = r.channel_id"
        " AND c.deleted_at IS NOT NULL))"
        " AND NOT EXISTS (SELECT 1 FROM mirror m WHERE m.id = r.mirror_id AND m.last_run_id = r.id"
        " AND m.deleted_at IS NULL)"
        " FROM run r WHERE r.id > :after AND r.created_at < :before ORDER BY r.id LIMIT :limit",
        {"after": after, "before": before_ms, "limit": _PAGE},
    )
    return [(row[0], bool(row[1])) for row in rows]


async def _delete(db: Database, run_ids: Sequence[int]) -> int:
    async def body(tx: Tx) -> int:
        # What has written a line meanwhile stays until the next look.
        gone = 0
        for run_id in run_ids:
            gone += await tx.execute(
                "DELETE FROM run WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM run_log WHERE run_id = ?1)"
                " AND NOT EXISTS (SELECT 1 FROM run_failure WHERE run_id = ?1)",
                (run_id,),
            )
        return gone

    return await db.write(body)


async def _clear(db: Database, table: str, key: str, run_id: int) -> int:
    """Take away what a table holds of a run, in short transactions; return how many rows."""

    async def some(tx: Tx) -> int:
        return await tx.execute(
            f"DELETE FROM {table} WHERE run_id = ?1"
            f" AND ({key}) IN (SELECT {key} FROM {table} WHERE run_id = ?1 LIMIT ?2)",
            (run_id, BATCH),
        )

    gone = 0
    if not await db.read(lambda r: r.value(f"SELECT EXISTS (SELECT 1 FROM {table} WHERE run_id = ?)", (run_id,))):
        return 0
    while removed := await db.write(some):
        gone += removed
    return gone
