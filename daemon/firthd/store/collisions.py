"""The only place with the SQL of files that two mirrors of a channel have under one name, with different bytes."""

from msgspec import Struct

from firthd.store.database import Reader


class CollisionRow(Struct, frozen=True, kw_only=True):
    """A file of a mirror, and the one of the same name in another mirror of its channel; digests in lower hex."""

    part: str
    filename: str
    sha256: str
    other_sha256: str
    other: str  # the other mirror's name


async def mark(r: Reader, channel_id: int) -> int:
    """Return what changes whenever a channel's artifacts do."""
    return int(await r.value("SELECT coalesce(max(id), 0) FROM change_set WHERE channel_id = ?", (channel_id,)))


async def collisions(r: Reader, channel_id: int, mirror_id: int, limit: int) -> tuple[list[CollisionRow], int]:
    """Return the first of a mirror's files whose name another mirror gives to other bytes, and how many there are.

    A second for 700,000 files and one other mirror; no time at all where there is no other.
    """
    others = await r.rows(
        "SELECT id, name FROM mirror WHERE channel_id = ? AND id <> ? AND deleted_at IS NULL ORDER BY id",
        (channel_id, mirror_id),
    )
    found: list[CollisionRow] = []
    total = 0
    for other, name in others:
        both = (
            "FROM artifact a INDEXED BY artifact_live CROSS JOIN artifact t INDEXED BY artifact_live"
            " ON t.channel_id = a.channel_id AND t.mirror_id = :other AND t.family = a.family AND t.part = a.part"
            " AND t.section = a.section AND t.filename = a.filename AND t.closed_set IS NULL"
            " WHERE a.channel_id = :channel AND a.mirror_id = :mirror AND a.closed_set IS NULL AND t.sha256 <> a.sha256"
        )
        params = {"channel": channel_id, "mirror": mirror_id, "other": other, "limit": limit - len(found)}
        rows = await r.rows(
            f"SELECT a.part, a.filename, a.sha256, t.sha256 {both} ORDER BY a.family, a.part, a.section, a.filename"
            " LIMIT :limit",
            params,
        )
        found += [
            CollisionRow(part=row[0], filename=row[1], sha256=row[2].hex(), other_sha256=row[3].hex(), other=name)
            for row in rows
        ]
        full = len(rows) == params["limit"]
        total += int(await r.value(f"SELECT count(*) {both}", params)) if full else len(rows)
    return found, total
