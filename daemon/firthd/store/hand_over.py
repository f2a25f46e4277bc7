"""The only place with the SQL of what stays when a mirror goes: its stored artifacts go on as the channel's own."""

from collections.abc import Sequence
from functools import partial

from msgspec import Struct

from firthd.clock import Clock
from firthd.store import offers
from firthd.store.artifacts import DELIVERED, mirror_totals
from firthd.store.columns import Column, counted, in_the_row
from firthd.store.copying import FIRST_BATCH, Copied, next_batch, timed
from firthd.store.database import Database, Reader, Row, Tx

_OFFERS_A_BATCH = 2_000


async def would_keep(r: Reader, channel_id: int, mirror_id: int) -> tuple[int, int]:
    """Return how many of a mirror's live artifacts its channel has been given, and how many it has not."""
    totals = await mirror_totals(r, channel_id, mirror_id)
    return totals.stored, totals.artifacts - totals.stored


class HandedOver(Struct, frozen=True, kw_only=True):
    """What came of a deleted mirror's artifacts: rows added and closed; files that stay, and those that do not."""

    copied: Copied
    kept: int
    dropped: int


_OWN = (
    "SELECT k.id FROM artifact k INDEXED BY artifact_live WHERE k.channel_id = a.channel_id AND k.mirror_id = 0"
    " AND k.family = a.family AND k.part = a.part AND k.section = a.section AND k.filename = a.filename"
    " AND k.closed_set IS NULL"
)
"""The row of the same file that the channel itself holds already."""
_CAME = (
    "coalesce((SELECT max(o.id) FROM artifact o INDEXED BY artifact_file WHERE o.channel_id = a.channel_id"
    " AND o.family = a.family AND o.part = a.part AND o.filename = a.filename AND o.section = a.section"
    " AND o.mirror_id > 0 AND o.closed_set = (SELECT k.added_set FROM artifact k WHERE k.id = own)), own)"
)
"""The row with which what the channel holds came from a source, whenever it was handed over; ids rise with time."""


async def hand_over(
    db: Database,
    *,
    columns: Sequence[Column],
    channel_id: int,
    mirror_id: int,
    change_set: int,
    keep: bool,
    clock: Clock,
) -> HandedOver:
    """Close a mirror's artifacts in short batches; with `keep` those that are stored go on as the channel's own.

    Of a file that the channel itself holds already, the one that came from its source last stays. Nobody else may
    change the channel's own rows meanwhile.
    """
    first, last = await db.read(lambda r: _id_span(r, channel_id, mirror_id))
    names = ", ".join(in_the_row(columns))
    added = closed = stay = dropped = offered = 0
    batch = FIRST_BATCH

    async def some(tx: Tx, low: int, high: int) -> None:
        nonlocal added, closed, stay, dropped, offered
        params = {"channel": channel_id, "mirror": mirror_id, "set": change_set, "low": low, "high": high}
        # Windows of ids: by an index of the channel each batch would look at all of its rows.
        inside = (
            "a.id BETWEEN :low AND :high AND a.channel_id = :channel AND a.mirror_id = :mirror AND a.closed_set IS NULL"
        )
        stored: list[Row] = []
        if keep:
            stored = await tx.rows(
                f"SELECT id, own, own IS NULL OR id > {_CAME}, {counted('a')} FROM (SELECT a.*, ({_OWN}) AS own"
                f" FROM artifact a NOT INDEXED CROSS JOIN {DELIVERED} WHERE {inside}) a ORDER BY id",
                params,
            )
        along = int(
            await tx.value(
                f"SELECT count(*) FROM artifact a NOT INDEXED WHERE {inside} AND NOT ({counted('a')})", params
            )
        )
        leaving = await tx.execute(
            f"UPDATE artifact AS a NOT INDEXED SET closed_set = :set, closed_reason = 'mirror deleted' WHERE {inside}",
            params,
        )
        moved = [(row_id, own) for row_id, own, newer, _ in stored if newer]
        outdone = [(change_set, own) for _, own in moved if own is not None]
        await tx.many("UPDATE artifact SET closed_set = ?, closed_reason = 'replaced' WHERE id = ?", outdone)
        base = await tx.value("UPDATE artifact_id_range SET next = next + ? RETURNING next", (len(moved),))
        places = list(enumerate((row_id for row_id, _ in moved), int(base) - len(moved)))
        await tx.many("INSERT INTO artifact_record SELECT ?, raw FROM artifact_record WHERE artifact_id = ?", places)
        await tx.many(
            f"INSERT INTO artifact(id, channel_id, mirror_id, family, part, {names}, added_set)"
            f" SELECT ?, channel_id, 0, family, part, {names}, ? FROM artifact WHERE id = ?",
            [(place, change_set, row_id) for place, row_id in places],
        )
        added += len(moved)
        closed += leaving + len(outdone)
        if places:
            offered += await offers.begin_with_files(tx, change_set, places[0][0], places[-1][0])
        staying = sum(row[3] for row in stored)
        stay += staying
        dropped += leaving - along - staying

    low = first
    while low <= last:
        high = min(low + batch - 1, last)
        seconds = await timed(db, clock, partial(some, low=low, high=high))
        low = high + 1
        batch = next_batch(batch, seconds)
    while ended := await db.write(lambda tx: offers.end_some(tx, channel_id, mirror_id, change_set, _OFFERS_A_BATCH)):
        offered += ended
    return HandedOver(copied=Copied(added=added, closed=closed, offers=offered), kept=stay, dropped=dropped)


async def _id_span(r: Reader, channel_id: int, mirror_id: int) -> tuple[int, int]:
    """Return the lowest and the highest id of a mirror's rows; (1, 0) when it has none."""
    row = await r.row(
        "SELECT min(id), max(id) FROM artifact WHERE channel_id = ? AND mirror_id = ?", (channel_id, mirror_id)
    )
    return (row[0], row[1]) if row is not None and row[0] is not None else (1, 0)
