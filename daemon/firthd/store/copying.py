"""The only place with the SQL that copies a run's own file into the state, batch by batch."""

import sqlite3
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from msgspec import Struct

from firthd.clock import Clock
from firthd.store import offers
from firthd.store.columns import RAW, Column, counted, in_the_row, selected
from firthd.store.database import Database, Tx

BATCH_SECONDS = 0.03
"""What one batch of a copy aims at; the writer is free for others between two."""
FIRST_BATCH = 500
_MAX_BATCH = 20_000


class Copied(Struct, frozen=True, kw_only=True):
    added: int
    closed: int
    offers: int = 0  # that began or ended
    along: int = 0  # rows added and closed that nobody counts

    def __add__(self, other: "Copied") -> "Copied":
        return Copied(
            added=self.added + other.added,
            closed=self.closed + other.closed,
            offers=self.offers + other.offers,
            along=self.along + other.along,
        )


class Pace:
    """How many rows a batch has: as many as keep the writer for so long as it may be kept."""

    def __init__(self) -> None:
        self.batch = FIRST_BATCH


async def copy_in(
    db: Database,
    schema: str,
    *,
    columns: Sequence[Column],
    change_set: int,
    channel_id: int,
    mirror_id: int,
    clock: Clock,
    pace: Pace | None = None,
    closings: bool = True,
    only_stored: bool = False,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Copied:
    """Copy the adds and closings of the attached run file `schema` into change set `change_set`, in short batches.

    `columns` are those of a record, as the file was begun with.
    `closings` False takes only what adds (nothing that replaces); `only_stored` only what the channel has been given.
    `pace`: of a copy of several files. `report(done, total)` is called after each batch, in rows. A batch closes
    before it adds: a file has one live row of a mirror at any moment.
    """
    names = in_the_row(columns)
    wanted = "n.failed = 0"
    if not closings:
        wanted += " AND n.replaces IS NULL"
    if only_stored:
        wanted += " AND EXISTS (SELECT 1 FROM main.delivered d WHERE d.channel_id = :channel AND d.sha256 = n.sha256)"

    async def size(tx: Tx) -> tuple[int, int, int, bool]:
        last = int(await tx.value(f'SELECT coalesce(max(ordinal), 0) FROM {schema}."add"') or 0)
        leaving = int(await tx.value(f'SELECT count(*) FROM {schema}."close" WHERE skipped = 0') or 0)
        base = await tx.value("UPDATE artifact_id_range SET next = next + ? RETURNING next", (last + 1,))
        # What an addition replaces is closed too, so that no addition need be looked at where nothing is.
        replacing = await tx.value(f"SELECT EXISTS (SELECT 1 FROM {schema}.\"close\" WHERE reason = 'replaced')")
        return last, leaving, int(base) - last - 1, bool(replacing)

    last, leaving, base, replacing = await db.write(size)
    total = last + (leaving if closings else 0)
    added = closed = offered = along = done = 0

    async def add(tx: Tx, low: int, high: int) -> None:
        nonlocal added, closed, offered, along
        params = {
            "low": low,
            "high": high,
            "base": base,
            "set": change_set,
            "channel": channel_id,
            "mirror": mirror_id,
        }
        source = f'FROM {schema}."add" n WHERE n.ordinal > :low AND n.ordinal <= :high AND {wanted}'
        if replacing:
            closed += await tx.execute(
                "UPDATE artifact SET closed_set = :set, closed_reason = 'replaced' WHERE closed_set IS NULL"
                f" AND id IN (SELECT n.replaces {source} AND n.replaces IS NOT NULL)",
                params,
            )
        insert = (
            f"INSERT INTO artifact(id, channel_id, mirror_id, family, part, {', '.join(names)}, added_set)"
            f" SELECT :base + n.ordinal, :channel, :mirror, n.family, n.part, {selected(names, 'n')}, :set {source}"
        )
        try:
            added += await tx.execute(insert, params)
        except sqlite3.IntegrityError:  # a block was lifted since the file was compared, and its rows are open again
            closed += await tx.execute(
                "UPDATE artifact SET closed_set = :set, closed_reason = 'replaced' WHERE id IN"
                f' (SELECT l.id FROM {schema}."add" n CROSS JOIN artifact l INDEXED BY artifact_live'
                " ON l.channel_id = :channel AND l.mirror_id = :mirror AND l.family = n.family AND l.part = n.part"
                " AND l.section = n.section AND l.filename = n.filename AND l.closed_set IS NULL"
                f" WHERE n.ordinal > :low AND n.ordinal <= :high AND {wanted})",
                params,
            )
            added += await tx.execute(insert, params)
        await tx.execute(
            f"INSERT INTO artifact_record(artifact_id, {RAW}) SELECT :base + n.ordinal, n.{RAW} {source}", params
        )
        came, went = (await tx.rows(f"SELECT count(*), count(n.replaces) {source} AND NOT ({counted('n')})", params))[0]
        added, closed, along = added - came, closed - went, along + came + went
        if not closings:  # what else the source offers is for a run that takes in all of it
            offered += await offers.begin_with_files(tx, change_set, base + low + 1, base + high)

    pace = pace or Pace()
    while done < last:
        low, high = done, min(done + pace.batch, last)
        seconds = await timed(db, clock, partial(add, low=low, high=high))
        done = high
        report(done, total)
        if high - low == pace.batch:
            pace.batch = next_batch(pace.batch, seconds)

    if closings and leaving:
        batch, key = FIRST_BATCH, 0

        async def close(tx: Tx, limit: int) -> None:
            nonlocal closed, along, key
            rows = await tx.rows(
                f'SELECT max(artifact_id) FROM (SELECT artifact_id FROM {schema}."close"'
                " WHERE artifact_id > ? AND skipped = 0 ORDER BY artifact_id LIMIT ?)",
                (key, limit),
            )
            high = rows[0][0]
            if high is None:
                key = -1
                return
            leaving_along = await tx.value(
                f"SELECT count(*) FROM artifact a WHERE NOT ({counted('a')}) AND a.closed_set IS NULL AND a.id IN"
                f' (SELECT artifact_id FROM {schema}."close" WHERE artifact_id > :low AND artifact_id <= :high'
                " AND skipped = 0)",
                {"low": key, "high": high},
            )
            along += int(leaving_along)
            closed += -int(leaving_along) + await tx.execute(
                "UPDATE artifact SET closed_set = :set, closed_reason = (SELECT reason FROM"
                f' {schema}."close" o WHERE o.artifact_id = artifact.id) WHERE closed_set IS NULL AND id IN'
                f' (SELECT artifact_id FROM {schema}."close" WHERE artifact_id > :low AND artifact_id <= :high'
                " AND skipped = 0)",
                {"set": change_set, "low": key, "high": high},
            )
            key = high

        while key >= 0:
            seconds = await timed(db, clock, partial(close, limit=batch))
            report(min(total, last + closed), total)
            batch = next_batch(batch, seconds)
    if closings:
        offered = await _copy_offers(db, schema, clock, {"set": change_set, "channel": channel_id, "mirror": mirror_id})
    return Copied(added=added, closed=closed, offers=offered, along=along)


async def _copy_offers(db: Database, schema: str, clock: Clock, params: dict[str, int]) -> int:
    """Copy which names begin and cease to be offered, in short batches; return how many. The artifacts are there."""
    last = int(await db.write(lambda tx: tx.value(f"SELECT coalesce(max(ordinal), 0) FROM {schema}.offer")))
    changed = done = 0
    batch = FIRST_BATCH

    async def some(tx: Tx, low: int, high: int) -> None:
        nonlocal changed
        window = params | {"low": low, "high": high}
        changed += await offers.begin(tx, schema, window)
        changed += await offers.end(tx, schema, window)

    while done < last:
        low, done = done, min(done + batch, last)
        batch = next_batch(batch, await timed(db, clock, partial(some, low=low, high=done)))
    return changed


async def timed(db: Database, clock: Clock, body: Callable[[Tx], Any]) -> float:
    async def timed(tx: Tx) -> float:
        started = clock.monotonic()
        await body(tx)
        return clock.monotonic() - started

    return await db.write(timed, lasting=False)


def next_batch(batch: int, seconds: float) -> int:
    factor = BATCH_SECONDS / max(seconds, 0.001)
    return max(100, min(_MAX_BATCH, int(batch * min(2.0, max(0.25, factor)))))
