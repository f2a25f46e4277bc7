"""The only place that knows which stored files something still needs: an index, a draft, a snapshot, a grace period."""

from collections.abc import Sequence

from msgspec import Struct

from firthd.store.database import Reader, Tx

PAGE = 500
"""Files looked at in one read: some ten milliseconds."""
YOUNG_MS = 3_600_000
"""A file younger than this is never taken away, whatever the grace period: a run may count on it."""

INDEX, DRAFT, GRACE, SNAPSHOT, NOTHING = range(5)
"""What holds a file; of several the lowest counts."""

_HELD = (
    "CASE WHEN c.deleted_at IS NOT NULL OR s.state NOT IN ('open', 'finished', 'published') THEN 4"
    # What a run has closed that has not ended is open again where the run is stopped or killed.
    " WHEN s.state <> 'published' THEN iif(e.id IS NULL OR e.state NOT IN ('finished', 'published') OR EXISTS (SELECT 1"
    " FROM run u WHERE u.id = e.run_id AND u.state IN ('pending', 'running', 'stopping')), 1, 4)"
    " WHEN e.id IS NULL OR e.state <> 'published' THEN 0"
    " WHEN g.time + :grace > :now OR p.until + :grace > :now THEN 2"
    # Rows of lazy pages that a later page ended: a version of the page that is kept for a snapshot may list them.
    " WHEN e.number = 0 THEN iif(EXISTS (SELECT 1 FROM page v WHERE v.mirror_id = a.mirror_id AND v.part = a.part"
    " AND v.read_at >= p.since AND v.read_at < p.until), 3, 4)"
    " WHEN EXISTS (SELECT 1 FROM generation k WHERE k.channel_id = a.channel_id AND k.kept AND k.shows >= s.number"
    " AND k.shows < e.number) THEN 3 ELSE 4 END"
)
BUCKETS = (
    "WITH RECURSIVE bucket(n) AS (SELECT -1 UNION ALL SELECT (SELECT min(id >> 13) FROM artifact"
    " WHERE sha256 IS NOT NULL AND id >> 13 > n) FROM bucket WHERE n IS NOT NULL)"
)
"""The stretches of 8,192 ids that have artifacts with a digest, and -1, which has none. Digests are indexed by
stretch: those of new artifacts lie side by side, where one index of all would be written anew from end to end by
every batch of a first run. A digest is looked for in each stretch."""
OF_DIGEST = "artifact a INDEXED BY artifact_digest ON a.id >> 13 = bucket.n AND a.sha256"
_OF = (
    f" CROSS JOIN bucket CROSS JOIN {OF_DIGEST} = b.sha256"
    " LEFT JOIN channel c ON c.id = a.channel_id LEFT JOIN change_set s ON s.id = a.added_set"
    " LEFT JOIN change_set e ON e.id = a.closed_set"
    " LEFT JOIN generation g ON g.channel_id = a.channel_id AND g.number = e.number"
    " LEFT JOIN page_span p ON p.artifact_id = a.id"
)
_YOUNG = "iif(b.created_at + :young > :now, 2, 4)"
_NEWEST = (
    "(SELECT coalesce(max(CASE WHEN k.shows < e.number OR (e.number = 0 AND k.time < p.until) THEN k.number END),"
    " min(k.number)) FROM generation k WHERE k.channel_id = a.channel_id AND k.kept AND k.shows >= s.number)"
)
"""The newest kept generation that shows a file. What a lazy page shows follows from times: the newest one that was
published before the page listed the file no more."""


class Held(Struct, frozen=True, kw_only=True):
    """A stored file and what holds it; for a snapshot the newest one: (channel, number)."""

    sha256: bytes
    size: int
    by: int
    snapshot: tuple[str, int] | None


async def page(r: Reader, after: bytes, now_ms: int, grace_ms: int) -> list[Held]:
    """Return the next stored files by digest, each with what holds it. A young one is held by its grace period."""
    rows = await r.rows(
        f"{BUCKETS}, b AS MATERIALIZED (SELECT * FROM blob WHERE sha256 > :after ORDER BY sha256 LIMIT :limit)"
        " SELECT sha256, size, min(held), channel, snapshot FROM ("
        f"SELECT sha256, size, {_YOUNG} AS held, NULL AS channel, NULL AS snapshot FROM b UNION ALL"
        f" SELECT b.sha256, b.size, {_HELD}, c.name, iif({_HELD} = 3, {_NEWEST}, NULL) FROM b{_OF}"
        ") GROUP BY sha256 ORDER BY sha256",
        {"after": after, "limit": PAGE, "now": now_ms, "grace": grace_ms, "young": max(grace_ms, YOUNG_MS)},
    )
    return [
        Held(sha256=row[0], size=row[1], by=row[2], snapshot=(row[3], row[4]) if row[2] == SNAPSHOT else None)
        for row in rows
    ]


async def let_go(tx: Tx, digests: Sequence[bytes], now_ms: int, grace_ms: int) -> list[str]:
    """Take away the rows of those of the files that nothing needs at this moment; return them in hex."""
    gone = []
    for sha256 in digests:
        held = await tx.value(
            f"{BUCKETS}, b AS (SELECT * FROM blob WHERE sha256 = :sha256)"
            f" SELECT min(held) FROM (SELECT {_YOUNG} AS held FROM b UNION ALL SELECT {_HELD} FROM b{_OF})",
            {"sha256": sha256, "now": now_ms, "grace": grace_ms, "young": max(grace_ms, YOUNG_MS)},
        )
        if held == NOTHING:
            await tx.execute("DELETE FROM blob WHERE sha256 = ?", (sha256,))
            gone.append(sha256.hex())
    return gone


async def missing_again(r: Reader, digests: Sequence[str]) -> dict[int, list[int]]:
    """Return mirror -> its live artifacts that have these files."""
    found: dict[int, list[int]] = {}
    for digest in digests:
        rows = await r.rows(
            f"{BUCKETS} SELECT a.mirror_id, a.id FROM bucket CROSS JOIN {OF_DIGEST} = ?"
            " JOIN mirror m ON m.id = a.mirror_id AND m.deleted_at IS NULL WHERE a.closed_set IS NULL",
            (bytes.fromhex(digest),),
        )
        for mirror_id, artifact_id in rows:
            found.setdefault(mirror_id, []).append(artifact_id)
    return found


async def unneeded(r: Reader, digests: Sequence[str]) -> list[str]:
    """Return those of the files that no artifact has."""
    return [
        digest
        for digest in digests
        if not await r.value(
            f"{BUCKETS} SELECT EXISTS (SELECT 1 FROM bucket CROSS JOIN {OF_DIGEST} = ?)", (bytes.fromhex(digest),)
        )
    ]
