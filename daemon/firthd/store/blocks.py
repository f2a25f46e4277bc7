"""The only place with the SQL of blocks: what may not be shown or given, and the rows that they close or open."""

import json
from collections.abc import Sequence

from msgspec import Struct

from firthd.store import offers
from firthd.store.columns import Column, in_the_row
from firthd.store.database import Reader, Row, Tx

PAGE = 500
BLOCKED = "blocked"
"""Why a row was closed that a block takes out."""
POLICY = "policy"
"""Why a row was closed that a policy leaves out."""


class BlockRow(Struct, frozen=True, kw_only=True):
    id: int
    channel_id: int
    family: str
    spec: str
    by: str
    at: int
    note: str


class Judged(Struct, frozen=True, kw_only=True):
    """An artifact as a block judges it; `raw` is its record."""

    id: int
    family: str
    part: str
    filename: str
    raw: bytes
    mirror_id: int = 0
    section: str = ""


_JUDGED = "a.id, a.family, a.part, a.filename, k.raw, a.mirror_id, a.section"


def _judged(row: Row) -> Judged:
    return Judged(**dict(zip(Judged.__struct_fields__, row, strict=True)))


async def every(r: Reader, channel_id: int | None = None) -> list[BlockRow]:
    """Return the blocks of a channel, or of all, the oldest first."""
    rows = await r.rows(
        "SELECT id, channel_id, family, spec, by, at, note FROM block WHERE ?1 IS NULL OR channel_id = ?1 ORDER BY id",
        (channel_id,),
    )
    return [BlockRow(**dict(zip(BlockRow.__struct_fields__, row, strict=True))) for row in rows]


async def insert(tx: Tx, block: BlockRow) -> bool:
    """Write a block; its id is given here. Return whether there was none of this spec before."""
    return bool(
        await tx.execute(
            "INSERT OR IGNORE INTO block(channel_id, family, spec, by, at, note) VALUES (?, ?, ?, ?, ?, ?)",
            (block.channel_id, block.family, block.spec, block.by, block.at, block.note),
        )
    )


async def delete(tx: Tx, channel_id: int, family: str, spec: str) -> bool:
    """Lift a block; return whether there was one."""
    return bool(
        await tx.execute(
            "DELETE FROM block WHERE channel_id = ? AND family = ? AND spec = ?", (channel_id, family, spec)
        )
    )


async def live(r: Reader, channel_id: int, family: str, name: str | None, after: int) -> list[Judged]:
    """Return the next live rows of a package (None: of all) that are written to their end, by id."""
    by, of = ("NOT INDEXED", "") if name is None else ("INDEXED BY artifact_package", " AND a.name = :name")
    rows = await r.rows(
        f"SELECT {_JUDGED} FROM artifact a {by}"
        " JOIN artifact_record k ON k.artifact_id = a.id"
        f" WHERE a.channel_id = :channel AND a.family = :family{of} AND a.id > :after AND a.closed_set IS NULL"
        " AND EXISTS (SELECT 1 FROM change_set s WHERE s.id = a.added_set AND s.state IN ('finished', 'published'))"
        " ORDER BY a.id LIMIT :limit",
        {"channel": channel_id, "family": family, "name": name, "after": after, "limit": PAGE},
    )
    return [_judged(row) for row in rows]


async def own(r: Reader, channel_id: int, after: int) -> list[Judged]:
    """Return the next live rows that are the channel's own, by id."""
    rows = await r.rows(
        f"SELECT {_JUDGED} FROM artifact a INDEXED BY artifact_live JOIN artifact_record k ON k.artifact_id = a.id"
        " WHERE a.channel_id = :channel AND a.mirror_id = 0 AND a.closed_set IS NULL AND a.id > :after"
        " AND EXISTS (SELECT 1 FROM change_set s WHERE s.id = a.added_set AND s.state IN ('finished', 'published'))"
        " ORDER BY a.id LIMIT :limit",
        {"channel": channel_id, "after": after, "limit": PAGE},
    )
    return [_judged(row) for row in rows]


async def closed_by_blocks(r: Reader, channel_id: int, after: int, reason: str = BLOCKED) -> list[Judged]:
    """Return the next rows that blocks have taken out and nothing has come for since, by id.

    With reason `policy` those that are the channel's own and its policy has taken out.
    """
    rows = await r.rows(
        f"SELECT {_JUDGED} FROM artifact a NOT INDEXED"
        " JOIN artifact_record k ON k.artifact_id = a.id JOIN change_set e ON e.id = a.closed_set"
        " WHERE a.channel_id = :channel AND a.id > :after AND a.closed_reason = :reason"
        " AND (:reason = 'blocked' OR a.mirror_id = 0)"
        " AND e.state IN ('finished', 'published')"
        " AND (a.mirror_id = 0 OR EXISTS (SELECT 1 FROM mirror m WHERE m.id = a.mirror_id AND m.deleted_at IS NULL))"
        " AND NOT EXISTS (SELECT 1 FROM artifact n WHERE n.channel_id = a.channel_id AND n.family = a.family"
        " AND n.part = a.part AND n.filename = a.filename AND n.mirror_id = a.mirror_id AND n.section = a.section"
        " AND n.id > a.id) ORDER BY a.id LIMIT :limit",
        {"channel": channel_id, "after": after, "reason": reason, "limit": PAGE},
    )
    return [_judged(row) for row in rows]


async def close(tx: Tx, change_set: int, rows: Sequence[int], *, reason: str = BLOCKED) -> int:
    """Close rows because of a block or a policy; return how many.

    Those that somebody else has closed meanwhile stay as they are.
    """
    return await tx.execute(
        "UPDATE artifact SET closed_set = ?, closed_reason = ?"
        " WHERE id IN (SELECT value FROM json_each(?)) AND closed_set IS NULL",
        (change_set, reason, _as_json(rows)),
    )


async def open_again(tx: Tx, change_set: int, rows: Sequence[int], *, columns: Sequence[Column]) -> int:
    """Write rows once more that a block had closed; return how many. `columns` are those of a record.

    A file that another run has brought back meanwhile has its live row already.
    """
    rows = await _without_live_row(tx, rows)
    if not rows:
        return 0
    names = ", ".join(in_the_row(columns))
    base = await tx.value("UPDATE artifact_id_range SET next = next + ? RETURNING next", (len(rows),))
    places = list(enumerate(rows, int(base) - len(rows)))
    await tx.many("INSERT INTO artifact_record SELECT ?, raw FROM artifact_record WHERE artifact_id = ?", places)
    await tx.many(
        f"INSERT INTO artifact(id, channel_id, mirror_id, family, part, {names}, added_set)"
        f" SELECT ?, channel_id, mirror_id, family, part, {names}, ? FROM artifact WHERE id = ?",
        [(place, change_set, row) for place, row in places],
    )
    # What was blocked was offered all the time; where its source has ceased to list it meanwhile, it is so again.
    await offers.begin_with_files(tx, change_set, places[0][0], places[-1][0])
    return len(rows)


async def _without_live_row(r: Reader, rows: Sequence[int]) -> list[int]:
    found = await r.rows(
        "SELECT a.id FROM artifact a WHERE a.id IN (SELECT value FROM json_each(?)) AND NOT EXISTS"
        " (SELECT 1 FROM artifact l INDEXED BY artifact_live WHERE l.channel_id = a.channel_id"
        " AND l.mirror_id = a.mirror_id AND l.family = a.family AND l.part = a.part AND l.section = a.section"
        " AND l.filename = a.filename AND l.closed_set IS NULL) ORDER BY a.id",
        (_as_json(rows),),
    )
    return [row[0] for row in found]


def _as_json(rows: Sequence[int]) -> str:
    return json.dumps(list(rows))


async def of_part(r: Reader, channel_id: int, mirror_id: int, family: str, part: str) -> list[tuple[str, bytes]]:
    """Return (file name, record) of all that a mirror's part has listed, what blocks have taken out included."""
    rows = await r.rows(
        "SELECT a.filename, n.raw FROM artifact a INDEXED BY artifact_file"
        " JOIN artifact_record n ON n.artifact_id = a.id"
        " WHERE a.channel_id = ? AND a.family = ? AND a.part = ? AND a.mirror_id = ?",
        (channel_id, family, part, mirror_id),
    )
    return [(row[0], bytes(row[1])) for row in rows]


async def refused_parts(r: Reader) -> dict[tuple[int, str], str]:
    """Return the parts, by mirror, whose source takes back what they listed, and why."""
    rows = await r.rows(
        "SELECT mirror_id, part, refused FROM source_index WHERE refused IS NOT NULL"
        " UNION SELECT mirror_id, part, refused FROM page p WHERE refused IS NOT NULL AND NOT EXISTS"
        " (SELECT 1 FROM page n WHERE n.mirror_id = p.mirror_id AND n.part = p.part AND n.read_at > p.read_at)"
    )
    return {(row[0], row[1]): row[2] for row in rows}


async def refused_mirrors(r: Reader) -> set[int]:
    """Return the mirrors that were deleted together with their packages."""
    return {row[0] for row in await r.rows("SELECT id FROM mirror WHERE refused")}


async def refuse_mirror(tx: Tx, mirror_id: int) -> None:
    await tx.execute("UPDATE mirror SET refused = 1 WHERE id = ?", (mirror_id,))


async def offered(r: Reader, channel_id: int, family: str, part: str, filename: str) -> bool:
    """Tell whether a mirror of the channel, or the channel itself, has a live row of a file."""
    return bool(
        await r.value(
            "SELECT EXISTS (SELECT 1 FROM artifact a JOIN change_set s ON s.id = a.added_set"
            " WHERE a.channel_id = ? AND a.family = ? AND a.part = ? AND a.filename = ? AND a.closed_set IS NULL"
            " AND s.state IN ('finished', 'published')"
            " AND NOT EXISTS (SELECT 1 FROM mirror m WHERE m.id = a.mirror_id AND m.refused))",
            (channel_id, family, part, filename),
        )
    )
