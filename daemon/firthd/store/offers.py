"""The only place with the SQL of offers: which mirrors offer a package's name, and to which one it belongs.

Inside a family a name belongs to the oldest mirror that offers it, and to those of the same stored source with it; the
channel itself, whose id is 0, comes last.
"""

from firthd.store.database import Reader, Tx

_PRECEDENCE = "o.mirror_id = 0, o.mirror_id"


def shadowed_sql(row: str, number: str, at: str) -> str:
    """Return the SQL that tells whether an artifact `row` is hidden at a number, because another owns its name.

    `number` makes the number of a change set out of its alias (`{}`), `at` is a parameter.
    """
    added, closed = number.format("os"), number.format("oe")
    source = "(SELECT source FROM mirror WHERE id = {})"
    # With one mirror there is no contest: nothing is looked up for each row.
    return (
        f"((SELECT count(*) FROM mirror WHERE channel_id = {row}.channel_id) > 1"
        " AND EXISTS (SELECT 1 FROM (SELECT o.mirror_id FROM offered o JOIN change_set os ON os.id = o.added_set"
        " LEFT JOIN change_set oe ON oe.id = o.closed_set"
        f" WHERE o.channel_id = {row}.channel_id AND o.family = {row}.family AND o.name = {row}.name"
        f" AND {added} <= {at} AND ({closed} IS NULL OR {closed} > {at}) ORDER BY {_PRECEDENCE} LIMIT 1) w"
        f" WHERE w.mirror_id <> {row}.mirror_id"
        f" AND {source.format('w.mirror_id')} IS NOT {source.format(row + '.mirror_id')}))"
    )


async def owners(r: Reader, channel_id: int, shows: int, family: str, name: str) -> set[int] | None:
    """Return the mirrors that a name belongs to in generation `shows` (0: the channel itself), None for nobody."""
    rows = await r.rows(
        "SELECT m.id FROM (SELECT o.mirror_id, n.source FROM offered o JOIN change_set s ON s.id = o.added_set"
        " LEFT JOIN change_set e ON e.id = o.closed_set LEFT JOIN mirror n ON n.id = o.mirror_id"
        " WHERE o.channel_id = :channel AND o.family = :family AND o.name = :name"
        " AND s.number <= :shows AND (e.number IS NULL OR e.number > :shows)"
        f" ORDER BY {_PRECEDENCE} LIMIT 1) first LEFT JOIN mirror m"
        " ON m.channel_id = :channel AND m.source = first.source",
        {"channel": channel_id, "shows": shows, "family": family, "name": name},
    )
    return {row[0] or 0 for row in rows} or None


async def sole_mirror(r: Reader, channel_id: int) -> bool:
    """Tell whether a channel has one mirror and never had another: no name can have two owners."""
    rows = await r.rows("SELECT deleted_at FROM mirror WHERE channel_id = ? LIMIT 2", (channel_id,))
    return len(rows) == 1 and rows[0][0] is None


async def any_of(r: Reader, channel_id: int, mirror_id: int) -> bool:
    """Tell whether a mirror offers a name, or has a row that is live."""
    live = "WHERE channel_id = :channel AND mirror_id = :mirror AND closed_set IS NULL"
    return bool(
        await r.value(
            f"SELECT EXISTS (SELECT 1 FROM artifact INDEXED BY artifact_live {live})"
            f" OR EXISTS (SELECT 1 FROM offered INDEXED BY offered_live {live})",
            {"channel": channel_id, "mirror": mirror_id},
        )
    )


async def begin(tx: Tx, schema: str, params: dict[str, int]) -> int:
    """Write the offers that begin, of a window of an attached run file's table `offer`."""
    return await tx.execute(
        "INSERT INTO offered(channel_id, mirror_id, family, part, name, added_set)"
        f" SELECT :channel, :mirror, n.family, n.part, n.name, :set FROM {schema}.offer n"
        " WHERE n.ordinal > :low AND n.ordinal <= :high AND n.begins ON CONFLICT DO NOTHING",
        params,
    )


def ending_sql(schema: str) -> str:
    """Return the SQL that ends what a window of an attached run file's table `offer` says to have ended.

    CROSS: each of those is looked up. The other way round, every offer there is would walk through the window.
    """
    return (
        "UPDATE offered AS o SET closed_set = :set WHERE o.closed_set IS NULL AND o.id IN"
        f" (SELECT l.id FROM {schema}.offer n CROSS JOIN offered l INDEXED BY offered_live ON l.channel_id = :channel"
        " AND l.mirror_id = :mirror AND l.family = n.family AND l.part = n.part AND l.name = n.name"
        " AND l.closed_set IS NULL WHERE n.ordinal > :low AND n.ordinal <= :high AND NOT n.begins)"
        " AND NOT EXISTS (SELECT 1 FROM artifact a INDEXED BY artifact_package WHERE a.channel_id = :channel"
        " AND a.family = o.family AND a.name = o.name AND a.mirror_id = :mirror AND a.part = o.part"
        " AND a.closed_set IS NULL)"
    )


async def end(tx: Tx, schema: str, params: dict[str, int]) -> int:
    """Write the offers that end, of the same; one of whose files something still lies there goes on."""
    return await tx.execute(ending_sql(schema), params)


async def begin_with_files(tx: Tx, change_set: int, low: int, high: int) -> int:
    """Let a mirror offer the names of the artifacts between two ids that a change set has added."""
    return await tx.execute(
        "INSERT INTO offered(channel_id, mirror_id, family, part, name, added_set)"
        " SELECT DISTINCT channel_id, mirror_id, family, part, name, added_set FROM artifact NOT INDEXED"
        " WHERE id BETWEEN ? AND ? AND added_set = ? ON CONFLICT DO NOTHING",
        (low, high, change_set),
    )


async def end_some(tx: Tx, channel_id: int, mirror_id: int, change_set: int, limit: int) -> int:
    """End some of a mirror's offers; return how many."""
    return await tx.execute(
        "UPDATE offered SET closed_set = ? WHERE id IN (SELECT id FROM offered INDEXED BY offered_live"
        " WHERE channel_id = ? AND mirror_id = ? AND closed_set IS NULL LIMIT ?)",
        (change_set, channel_id, mirror_id, limit),
    )


async def discard_some(tx: Tx, change_set: int, limit: int) -> int:
    """Take away some of what a change set has written of offers; return how many rows.

    All that it added goes before anything that it closed is open again: an offer has one live row.
    """
    return await tx.execute(
        "DELETE FROM offered WHERE id IN (SELECT id FROM offered WHERE added_set = ? LIMIT ?)", (change_set, limit)
    ) or await tx.execute(
        "UPDATE offered SET closed_set = NULL WHERE id IN (SELECT id FROM offered WHERE closed_set = ? LIMIT ?)",
        (change_set, limit),
    )
