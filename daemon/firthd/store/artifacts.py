"""The SQL of artifact rows: finding a file, discarding, browsing."""

from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from firthd.store import offers
from firthd.store.columns import counted, selected
from firthd.store.database import Database, Reader, Row, Tx


class FileRow(Struct, frozen=True, kw_only=True):
    """An artifact as serving sees it.

    `retired`: out of the index, but inside its grace period; `delivered`: its channel has been given the file, and the
    record tells its size right.
    """

    id: int
    channel_id: int
    mirror_id: int
    family: str
    part: str
    section: str
    filename: str
    name: str
    version: str
    size: int | None
    sha256: str | None
    md5: str | None
    declared: int
    retired: bool
    delivered: bool = False


OF_ROW = FileRow.__struct_fields__[:-2]  # the last two are not in the row, but follow from it
FILE_COLUMNS = selected(OF_ROW, "a")
DELIVERED = "delivered d ON d.channel_id = a.channel_id AND d.sha256 = a.sha256"
_VERSIONS = "artifact a JOIN change_set s ON s.id = a.added_set LEFT JOIN change_set e ON e.id = a.closed_set"
_LIVE = "s.number <= :shows AND (e.number IS NULL OR e.number > :shows)"


_COUNTED = counted("a")

_SHADOWED = offers.shadowed_sql("a", "{}.number", ":shows")
"""Another mirror owns the name of `a` in generation :shows."""


def file_row(row: Row, *, retired: bool, delivered: bool) -> FileRow:
    """Build a file out of a row that begins with `FILE_COLUMNS`."""
    values = dict(zip(FileRow.__struct_fields__, (*row[: len(OF_ROW)], retired, delivered), strict=True))
    digests = {key: values[key].hex() for key in ("sha256", "md5") if values[key] is not None}
    return FileRow(**values | digests)


async def find_file(
    r: Reader,
    channel_id: int,
    shows: int,
    family: str,
    part: str,
    filename: str,
    now_ms: int,
    grace_ms: int,
    rolled_back: tuple[int, int] | None = None,
) -> FileRow | None:
    """Return the file that this name stands for in generation `shows`, or one still inside its grace period.

    `rolled_back` is (number, time) of a generation that shows an earlier one: what only the generations between them
    had is retired at that time. A file of a mirror that does not own the package's name is never returned (no
    dependency confusion): a retired one belongs to the owner in the last generation that showed it.
    """
    newest, back_at = rolled_back or (shows, now_ms)
    rows = await r.rows(
        f"SELECT {FILE_COLUMNS}, s.number, e.number, g.time, b.size = coalesce(a.size, b.size), b.size FROM {_VERSIONS}"
        " LEFT JOIN generation g ON g.channel_id = a.channel_id AND g.number = e.number"
        f" LEFT JOIN {DELIVERED} LEFT JOIN blob b ON b.sha256 = d.sha256"
        " WHERE a.channel_id = :channel AND a.family = :family AND a.part = :part AND a.filename = :filename"
        " AND s.number <= :newest ORDER BY a.id DESC",
        {"channel": channel_id, "newest": newest, "family": family, "part": part, "filename": filename},
    )
    owners: dict[tuple[str, int], set[int] | None] = {}
    for wanted_live in (True, False):
        for row in rows:
            added, closed, closed_at = row[13:16]
            inside = added <= shows
            if (inside and (closed is None or closed > shows)) != wanted_live:
                continue
            retired_at = closed_at if inside else back_at
            if not wanted_live and (retired_at is None or retired_at + grace_ms <= now_ms):
                continue
            at = shows if wanted_live else newest if closed is None else min(newest, closed - 1)
            key = (row[7], at)
            if key not in owners:
                owners[key] = await offers.owners(r, channel_id, at, family, row[7])
            owned_by = owners[key]
            if owned_by is None or row[2] in owned_by:
                file = file_row(row, retired=not wanted_live, delivered=bool(row[16]))
                return replace(file, size=row[17]) if file.delivered else file
    return None


async def beside(r: Reader, file: FileRow, filename: str) -> FileRow | None:
    """Return the newest file of another name that the same mirror has, or had, in the same part."""
    row = await r.row(
        f"SELECT {FILE_COLUMNS}, a.closed_set IS NOT NULL, d.sha256 IS NOT NULL FROM artifact a LEFT JOIN {DELIVERED}"
        " WHERE a.channel_id = ? AND a.family = ? AND a.part = ? AND a.filename = ? AND a.mirror_id = ?"
        " ORDER BY a.closed_set IS NOT NULL, a.id DESC LIMIT 1",
        (file.channel_id, file.family, file.part, filename, file.mirror_id),
    )
    return None if row is None else file_row(row, retired=bool(row[-2]), delivered=bool(row[-1]))


async def record_first_sight(tx: Tx, artifact_id: int, sha256: str, size: int) -> None:
    """Record our own digest of a file whose source gives none, at first sight."""
    await tx.execute(
        "UPDATE artifact SET sha256 = ?, size = coalesce(size, ?) WHERE id = ? AND sha256 IS NULL",
        (bytes.fromhex(sha256), size, artifact_id),
    )


async def discard(db: Database, change_set: int) -> int:
    """Take away what an unfinished change set has written so far, in short batches; return how many rows.

    All that it added goes before anything that it closed is open again: a file has one live row of a mirror.
    """
    gone = 0

    async def some(tx: Tx) -> int:
        nonlocal gone
        params = (change_set,)
        await tx.execute(
            "DELETE FROM artifact_record WHERE artifact_id IN (SELECT id FROM artifact WHERE added_set = ? LIMIT 2000)",
            params,
        )
        removed = await tx.execute(
            "DELETE FROM artifact WHERE id IN (SELECT id FROM artifact WHERE added_set = ? LIMIT 2000)", params
        )
        gone += removed
        if removed:
            return removed
        reopened = await tx.execute(
            "UPDATE artifact SET closed_set = NULL, closed_reason = NULL WHERE id IN"
            " (SELECT id FROM artifact WHERE closed_set = ? LIMIT 2000)",
            params,
        )
        return reopened or await offers.discard_some(tx, change_set, 2000)

    while await db.write(some):
        pass
    return gone


# --- counting and browsing ------------------------------------------------------------------------------


class MirrorTotals(Struct, frozen=True, kw_only=True):
    artifacts: int
    bytes: int
    stored: int
    bytes_stored: int
    lacking: int  # rows, those included that nobody counts
    parts: dict[str, int]


async def mirror_totals(r: Reader, channel_id: int, mirror_id: int) -> MirrorTotals:
    """Count what a mirror's rows hold now, draft included, and what of it its channel has been given.

    What is being taken in is not among it. Half a second for 700,000 rows.
    """
    rows = await r.rows(
        f"SELECT a.part, count(*) FILTER (WHERE {_COUNTED}), coalesce(sum(a.size) FILTER (WHERE {_COUNTED}), 0),"
        f" count(d.sha256) FILTER (WHERE {_COUNTED}),"
        f" coalesce(sum(a.size) FILTER (WHERE d.sha256 IS NOT NULL AND {_COUNTED}), 0), count(*) - count(d.sha256)"
        f" FROM artifact a INDEXED BY artifact_file LEFT JOIN {DELIVERED}"
        " WHERE a.channel_id = ?1 AND a.mirror_id = ?2 AND a.closed_set IS NULL AND a.added_set NOT IN"
        " (SELECT id FROM change_set WHERE channel_id = ?1 AND state IN ('open', 'abandoned'))"
        " GROUP BY a.family, a.part",
        (channel_id, mirror_id),
    )
    return MirrorTotals(
        artifacts=sum(row[1] for row in rows),
        bytes=sum(row[2] for row in rows),
        stored=sum(row[3] for row in rows),
        bytes_stored=sum(row[4] for row in rows),
        lacking=sum(row[5] for row in rows),
        parts={row[0]: row[1] for row in rows},
    )


async def records_by_part(r: Reader, channel_id: int, type_: str) -> dict[str, int]:
    """Return how many records the sources of a channel's mirrors of a type had, by part."""
    rows = await r.rows(
        "SELECT i.part, sum(i.records) FROM source_index i JOIN mirror m ON m.id = i.mirror_id"
        " WHERE m.channel_id = ? AND m.type = ? AND m.deleted_at IS NULL AND i.beside IS NULL AND i.file IS NOT NULL"
        " GROUP BY i.part",
        (channel_id, type_),
    )
    return {row[0]: row[1] or 0 for row in rows}


async def parts_changed(r: Reader, family: str, change_sets: Sequence[int]) -> set[str]:
    """Return the parts of which these sets add or close a row; as long as they are small, it costs little."""
    found: set[str] = set()
    for change_set in change_sets:
        for column in ("added_set", "closed_set"):
            rows = await r.rows(
                f"SELECT DISTINCT part FROM artifact WHERE {column} = ? AND family = ?", (change_set, family)
            )
            found.update(row[0] for row in rows)
    return found


class PackageRow(Struct, frozen=True, kw_only=True):
    """A file of a package with its raw record."""

    file: FileRow
    build: str
    license: str | None
    timestamp: int | None
    generation: int
    raw: bytes


async def package_files(r: Reader, channel_id: int, shows: int, family: str, name: str, limit: int) -> list[PackageRow]:
    """Return the files of a package in generation `shows`, those that clients see."""
    rows = await r.rows(
        f"SELECT {FILE_COLUMNS}, a.build, a.license, a.timestamp, s.number, d.sha256 IS NOT NULL, n.raw"
        f" FROM {_VERSIONS}"
        f" LEFT JOIN {DELIVERED} JOIN artifact_record n ON n.artifact_id = a.id"
        f" WHERE a.channel_id = :channel AND a.family = :family AND a.name = :name AND {_LIVE}"
        f" AND {_COUNTED} AND NOT {_SHADOWED} ORDER BY a.id LIMIT :limit",
        {"channel": channel_id, "shows": shows, "family": family, "name": name, "limit": limit},
    )
    return [
        PackageRow(
            file=file_row(row, retired=False, delivered=bool(row[17])),
            build=row[13],
            license=row[14],
            timestamp=row[15],
            generation=row[16],
            raw=bytes(row[18]),
        )
        for row in rows
    ]


async def stored_files(
    r: Reader, channel_id: int, shows: int, family: str, name: str, version: str, *, max_bytes: int, limit: int
) -> list[tuple[str, str]]:
    """Return file name and sha256 of a version's files that the channel has, those first that go along with others."""
    rows = await r.rows(
        f"SELECT a.filename, a.sha256 FROM {_VERSIONS} JOIN {DELIVERED} WHERE a.channel_id = :channel"
        f" AND a.family = :family AND a.name = :name AND a.version = :version AND coalesce(a.size, 0) <= :most"
        f" AND {_LIVE} AND NOT {_SHADOWED} ORDER BY {_COUNTED}, a.size LIMIT :limit",
        {"channel": channel_id, "shows": shows, "family": family, "name": name, "version": version}
        | {"most": max_bytes, "limit": limit},
    )
    return [(row[0], row[1].hex()) for row in rows]


class LiveRecord(Struct, frozen=True, kw_only=True):
    """A live row with its record."""

    id: int
    mirror_id: int
    part: str
    filename: str
    raw: bytes
    blocked: bool  # closed by a block, with nothing that has come for it since


async def live_records(r: Reader, channel_id: int, family: str, name: str, limit: int) -> list[LiveRecord]:
    """Return the live rows of a package, whoever lists it, that are written to their end, and what blocks closed."""
    rows = await r.rows(
        "SELECT a.id, a.mirror_id, a.part, a.filename, k.raw, a.closed_set IS NOT NULL"
        " FROM artifact a INDEXED BY artifact_package"
        " JOIN artifact_record k ON k.artifact_id = a.id JOIN change_set s ON s.id = a.added_set"
        " WHERE a.channel_id = ? AND a.family = ? AND a.name = ? AND s.state IN ('finished', 'published')"
        " AND (a.closed_set IS NULL OR (a.closed_reason = 'blocked' AND NOT EXISTS (SELECT 1 FROM artifact n"
        " WHERE n.channel_id = a.channel_id AND n.family = a.family AND n.part = a.part AND n.filename = a.filename"
        " AND n.mirror_id = a.mirror_id AND n.section = a.section AND n.id > a.id))) ORDER BY a.id LIMIT ?",
        (channel_id, family, name, limit),
    )
    return [
        LiveRecord(id=row[0], mirror_id=row[1], part=row[2], filename=row[3], raw=bytes(row[4]), blocked=bool(row[5]))
        for row in rows
    ]


async def not_stored(r: Reader, channel_id: int, shows: int) -> int:
    """Count the artifacts of generation `shows` that clients see and whose file the channel has not been given yet."""
    return int(
        await r.value(
            f"SELECT count(*) FROM {_VERSIONS} LEFT JOIN {DELIVERED}"
            f" WHERE a.channel_id = :channel AND d.sha256 IS NULL AND {_LIVE} AND {_COUNTED} AND NOT {_SHADOWED}",
            {"channel": channel_id, "shows": shows},
        )
    )


async def shadowed_names(r: Reader, channel_id: int, mirror_id: int, limit: int) -> tuple[list[str], int]:
    """Return the first names that this mirror offers and an older one owns, and how many there are in all."""
    older = "SELECT EXISTS (SELECT 1 FROM mirror WHERE channel_id = ? AND id < ? AND deleted_at IS NULL)"
    if not await r.value(older, (channel_id, mirror_id)):
        return [], 0
    names = (
        "SELECT o.family, o.name, (SELECT min(w.mirror_id) FROM offered w WHERE w.channel_id = o.channel_id"
        " AND w.family = o.family AND w.name = o.name AND w.mirror_id > 0 AND w.closed_set IS NULL) AS owner"
        " FROM offered o WHERE o.channel_id = :channel AND o.mirror_id = :mirror AND o.closed_set IS NULL"
    )
    both = (
        f"SELECT DISTINCT family || '/' || name FROM ({names}) WHERE owner < :mirror"
        " AND (SELECT source FROM mirror WHERE id = owner) <> (SELECT source FROM mirror WHERE id = :mirror)"
    )
    params = {"channel": channel_id, "mirror": mirror_id, "limit": limit}
    rows = await r.rows(f"{both} ORDER BY 1 LIMIT :limit", params)
    total = len(rows) if len(rows) < limit else int(await r.value(f"SELECT count(*) FROM ({both})", params))
    return [row[0] for row in rows], total


async def raw_record(r: Reader, artifact_id: int) -> bytes | None:
    """Return an artifact's record as its source wrote it."""
    raw = await r.value("SELECT raw FROM artifact_record WHERE artifact_id = ?", (artifact_id,))
    return None if raw is None else bytes(raw)
