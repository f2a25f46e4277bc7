"""The only place with the SQL that lets go of rows which only generations that are no longer kept showed.

A row stays while a kept generation shows it, while a kept generation closed it (what that changed can be listed), and
for the grace period. Every batch is a short transaction.
"""

from bisect import bisect_left
from collections.abc import Sequence
from functools import partial

from msgspec import Struct

from firthd.store import journal
from firthd.store.database import Database, Reader, Tx

BATCH = 500
_FORGOTTEN = "forgotten of channel "
_SETS = 500


class _Closing(Struct, frozen=True):
    """A change set that may have closed what nobody sees any more; `above`: what was added behind this number."""

    id: int
    number: int
    above: int


async def forget_rows(db: Database, channel_id: int, before_ms: int) -> int:
    """Take away what generations published before a moment have closed and no kept one shows; return how many rows."""
    gone, after = 0, 0
    kept = await db.read(partial(_kept, channel_id=channel_id))
    known = await db.read(partial(forgotten_up_to, channel_id=channel_id))
    while page := await db.read(partial(_closings, channel_id=channel_id, kept=kept, after=after, before_ms=before_ms)):
        after = page[-1].number
        if after > known:  # said before it is done: what a list lacks is never passed over in silence
            known = after
            await db.write(partial(journal.set_setting, key=f"{_FORGOTTEN}{channel_id}", value=str(after)))
        for one in page:
            gone += await _forget_closed(db, one)
    await _forget_sets(db, channel_id, before_ms)
    return gone


async def forgotten_up_to(r: Reader, channel_id: int) -> int:
    """Return up to which number rows of generations that are not kept may have gone; 0: none has."""
    return int(await journal.setting(r, f"{_FORGOTTEN}{channel_id}") or 0)


class _Kept(Struct, frozen=True):
    numbers: frozenset[int]
    shows: list[int]  # ascending


async def _kept(r: Reader, channel_id: int) -> _Kept:
    rows = await r.rows("SELECT number, shows FROM generation WHERE channel_id = ? AND kept", (channel_id,))
    return _Kept(frozenset(row[0] for row in rows), sorted({row[1] for row in rows}))


async def _closings(r: Reader, channel_id: int, kept: _Kept, after: int, before_ms: int) -> list[_Closing]:
    """Return the next published change sets by number, up to those that are too young.

    All sets of a number come together. Those of lazy pages have the number 0: who reads the pages looks after them.
    """
    rows = await r.rows(
        "SELECT s.id, s.number FROM change_set s JOIN (SELECT DISTINCT t.number FROM change_set t"
        " WHERE t.channel_id = :channel AND t.state = 'published' AND t.number > :after ORDER BY t.number LIMIT :limit)"
        " n ON n.number = s.number LEFT JOIN generation g ON g.channel_id = s.channel_id AND g.number = s.number"
        " WHERE s.channel_id = :channel AND s.state = 'published' AND coalesce(g.time, 0) < :before ORDER BY s.number",
        {"channel": channel_id, "after": after, "before": before_ms, "limit": _SETS},
    )
    found = []
    for set_id, number in rows:
        place = bisect_left(kept.shows, number)
        # One that a kept generation has closed stays listed: nothing was added behind its own number.
        above = number if number in kept.numbers else kept.shows[place - 1] if place else 0
        found.append(_Closing(set_id, number, above))
    return found


async def _forget_closed(db: Database, closing: _Closing) -> int:
    """Take away what one change set has closed, as far as it was added behind what a kept generation shows."""
    gone = 0
    for table in ("artifact", "offered"):

        async def some(r: Reader, table: str = table) -> list[int]:
            rows = await r.rows(
                f"SELECT a.id FROM {table} a JOIN change_set s ON s.id = a.added_set"
                " WHERE a.closed_set = ? AND s.number > ? AND s.state = 'published' LIMIT ?",
                (closing.id, closing.above, BATCH),
            )
            return [row[0] for row in rows]

        while ids := await db.read(some):
            await db.write(partial(_delete, table=table, ids=ids))
            gone += len(ids)
    return gone


async def _delete(tx: Tx, table: str, ids: Sequence[int]) -> None:
    rows = [(row_id,) for row_id in ids]
    if table == "artifact":
        await tx.many("DELETE FROM artifact_record WHERE artifact_id = ?", rows)
        await tx.many("DELETE FROM artifact WHERE id = ?", rows)
    else:
        await tx.many("DELETE FROM offered WHERE id = ?", rows)


_IDLE = " AND ".join(
    f"NOT EXISTS (SELECT 1 FROM {table} x WHERE x.{column} = s.id)"
    for table in ("artifact", "offered")
    for column in ("added_set", "closed_set")
)


async def _forget_sets(db: Database, channel_id: int, before_ms: int) -> None:
    """Take away change sets that no row names and no kept generation has published."""

    async def some(tx: Tx) -> int:
        return await tx.execute(
            "DELETE FROM change_set WHERE id IN (SELECT s.id FROM change_set s"
            " LEFT JOIN generation g ON g.channel_id = s.channel_id AND g.number = s.number"
            " WHERE s.channel_id = ? AND coalesce(s.finished_at, s.created_at) < ?"
            f" AND (s.state = 'discarded' OR (s.state = 'published' AND s.number > 0 AND coalesce(g.kept, 0) = 0))"
            f" AND {_IDLE} LIMIT ?)",
            (channel_id, before_ms, BATCH),
        )

    while await db.write(some) == BATCH:
        pass


async def forget_generations(db: Database, channel_id: int, before_ms: int) -> int:
    """Take away lines of generations that are no longer kept and were published before a moment; return how many.

    The last one of each UTC day stays, so that a day goes on to mean what it meant; and those that a kept one is
    compared with: the one before it, and the one that followed what it shows.
    """

    async def some(tx: Tx) -> int:
        return await tx.execute(
            "DELETE FROM generation WHERE channel_id = :channel AND number IN (SELECT g.number FROM generation g"
            " WHERE g.channel_id = :channel AND NOT g.kept AND g.time < :before"
            " AND EXISTS (SELECT 1 FROM generation n WHERE n.channel_id = g.channel_id AND n.number > g.number"
            " AND n.time / 86400000 = g.time / 86400000)"
            " AND NOT EXISTS (SELECT 1 FROM generation k WHERE k.channel_id = g.channel_id AND k.kept"
            " AND (k.number = g.number + 1 OR k.shows = g.number - 1)) ORDER BY g.number LIMIT :limit)",
            {"channel": channel_id, "before": before_ms, "limit": BATCH},
        )

    gone = 0
    while removed := await db.write(some):
        gone += removed
    return gone
