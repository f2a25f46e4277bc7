"""The only place with the SQL of artifact rows: finding a file, copying a run's file in, discarding, browsing."""

from collections.abc import Callable
from functools import partial
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from firthd.clock import Clock
from firthd.store.database import Database, Reader, Row, Tx

BATCH_SECONDS = 0.03
"""What one batch of a copy aims at; the writer is free for others between two."""
_FIRST_BATCH = 500
_MAX_BATCH = 20_000


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


_FILE = (
    "a.id, a.channel_id, a.mirror_id, a.family, a.part, a.section, a.filename, a.name, a.version, a.size,"
    " a.sha256, a.md5, a.declared"
)
_DELIVERED = "delivered d ON d.channel_id = a.channel_id AND d.sha256 = a.sha256"
_VERSIONS = "artifact a JOIN change_set s ON s.id = a.added_set LEFT JOIN change_set e ON e.id = a.closed_set"
_LIVE = "s.number <= :shows AND (e.number IS NULL OR e.number > :shows)"


_SHADOWING = (
    "SELECT 1 FROM artifact o JOIN change_set t ON t.id = o.added_set LEFT JOIN change_set f ON f.id = o.closed_set"
    " WHERE EXISTS (SELECT 1 FROM mirror m WHERE m.channel_id = :channel LIMIT 1 OFFSET 1)"  # one mirror: no contest
    " AND o.channel_id = a.channel_id AND o.family = a.family AND o.name = a.name AND o.mirror_id > 0"
    " AND (a.mirror_id = 0 OR o.mirror_id < a.mirror_id)"
    " AND t.number <= :shows AND (f.number IS NULL OR f.number > :shows)"
)
"""A file of an older mirror whose name hides `a` from clients in generation :shows."""


def _file(row: Row, *, retired: bool, delivered: bool) -> FileRow:
    values = dict(zip(FileRow.__struct_fields__, (*row[:13], retired, delivered), strict=True))
    values["sha256"] = _hex(values["sha256"])
    values["md5"] = _hex(values["md5"])
    return FileRow(**values)


def _hex(raw: bytes | None) -> str | None:
    return None if raw is None else raw.hex()


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
    dependency confusion).
    """
    newest, back_at = rolled_back or (shows, now_ms)
    rows = await r.rows(
        f"SELECT {_FILE}, s.number, e.number, g.time, b.size = coalesce(a.size, b.size), b.size FROM {_VERSIONS}"
        " LEFT JOIN generation g ON g.channel_id = a.channel_id AND g.number = e.number"
        f" LEFT JOIN {_DELIVERED} LEFT JOIN blob b ON b.sha256 = d.sha256"
        " WHERE a.channel_id = :channel AND a.family = :family AND a.part = :part AND a.filename = :filename"
        " AND s.number <= :newest ORDER BY a.id DESC",
        {"channel": channel_id, "newest": newest, "family": family, "part": part, "filename": filename},
    )
    owners: dict[str, int | None] = {}
    for wanted_live in (True, False):
        for row in rows:
            added, closed, closed_at = row[13:16]
            inside = added <= shows
            if (inside and (closed is None or closed > shows)) != wanted_live:
                continue
            retired_at = closed_at if inside else back_at
            if not wanted_live and (retired_at is None or retired_at + grace_ms <= now_ms):
                continue
            name = row[7]
            if name not in owners:
                owners[name] = await owner(r, channel_id, shows, family, name)
            if owners[name] is None or owners[name] == row[2]:
                file = _file(row, retired=not wanted_live, delivered=bool(row[16]))
                return replace(file, size=row[17]) if file.delivered else file
    return None


async def owner(r: Reader, channel_id: int, shows: int, family: str, name: str) -> int | None:
    """Return the mirror that a package name belongs to (0: the channel itself), None when nobody offers it."""
    rows = await r.rows(
        f"SELECT DISTINCT a.mirror_id FROM {_VERSIONS}"
        f" WHERE a.channel_id = :channel AND a.family = :family AND a.name = :name AND {_LIVE}",
        {"channel": channel_id, "shows": shows, "family": family, "name": name},
    )
    offered = sorted(row[0] for row in rows)
    return next((mirror for mirror in offered if mirror), 0 if offered else None)


async def record_first_sight(tx: Tx, artifact_id: int, sha256: str, size: int) -> None:
    """Record our own digest of a file whose source gives none, at first sight."""
    await tx.execute(
        "UPDATE artifact SET sha256 = ?, size = coalesce(size, ?) WHERE id = ? AND sha256 IS NULL",
        (bytes.fromhex(sha256), size, artifact_id),
    )


# --- copying a run's file in ----------------------------------------------------------------------------


class Copied(Struct, frozen=True, kw_only=True):
    added: int
    closed: int


async def copy_in(
    db: Database,
    schema: str,
    *,
    change_set: int,
    channel_id: int,
    mirror_id: int,
    clock: Clock,
    closings: bool = True,
    only_stored: bool = False,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Copied:
    """Copy the adds and closings of the attached run file `schema` into change set `change_set`, in short batches.

    `closings` False takes only what adds (nothing that replaces); `only_stored` only what the channel has been given.
    `report(done, total)` is called after each batch, in rows. A batch closes before it adds: a file has one live row
    of a mirror at any moment.
    """
    wanted = "n.failed = 0"
    if not closings:
        wanted += " AND n.replaces IS NULL"
    if only_stored:
        wanted += " AND EXISTS (SELECT 1 FROM main.delivered d WHERE d.channel_id = :channel AND d.sha256 = n.sha256)"

    async def size(tx: Tx) -> tuple[int, int, int]:
        last = int(await tx.value(f'SELECT coalesce(max(ordinal), 0) FROM {schema}."add"') or 0)
        leaving = int(await tx.value(f'SELECT count(*) FROM {schema}."close" WHERE skipped = 0') or 0)
        base = await tx.value("UPDATE artifact_id_range SET next = next + ? RETURNING next", (last + 1,))
        return last, leaving, int(base) - last - 1

    last, leaving, base = await db.write(size)
    total = last + (leaving if closings else 0)
    added = closed = done = 0

    async def add(tx: Tx, low: int, high: int) -> None:
        nonlocal added, closed
        params = {
            "low": low,
            "high": high,
            "base": base,
            "set": change_set,
            "channel": channel_id,
            "mirror": mirror_id,
        }
        source = f'FROM {schema}."add" n WHERE n.ordinal > :low AND n.ordinal <= :high AND {wanted}'
        closed += await tx.execute(
            "UPDATE artifact SET closed_set = :set, closed_reason = 'replaced' WHERE closed_set IS NULL"
            f" AND id IN (SELECT n.replaces {source} AND n.replaces IS NOT NULL)",
            params,
        )
        added += await tx.execute(
            "INSERT INTO artifact(id, channel_id, mirror_id, family, part, section, filename, name, version, build,"
            " build_number, size, sha256, md5, declared, license, timestamp, fingerprint, added_set)"
            " SELECT :base + n.ordinal, :channel, :mirror, n.family, n.part, n.section, n.filename, n.name,"
            " n.version, n.build, n.build_number, n.size, n.sha256, n.md5, n.declared, n.license, n.timestamp,"
            f" n.fingerprint, :set {source}",
            params,
        )
        await tx.execute(
            f"INSERT INTO artifact_record(artifact_id, raw) SELECT :base + n.ordinal, n.raw {source}", params
        )

    batch = _FIRST_BATCH
    while done < last:
        low, high = done, min(done + batch, last)
        seconds = await _timed(db, clock, partial(add, low=low, high=high))
        done = high
        report(done, total)
        batch = _next_batch(batch, seconds)

    if closings and leaving:
        batch, key = _FIRST_BATCH, 0

        async def close(tx: Tx, limit: int) -> None:
            nonlocal closed, key
            rows = await tx.rows(
                f'SELECT max(artifact_id) FROM (SELECT artifact_id FROM {schema}."close"'
                " WHERE artifact_id > ? AND skipped = 0 ORDER BY artifact_id LIMIT ?)",
                (key, limit),
            )
            high = rows[0][0]
            if high is None:
                key = -1
                return
            closed += await tx.execute(
                "UPDATE artifact SET closed_set = :set, closed_reason = (SELECT reason FROM"
                f' {schema}."close" o WHERE o.artifact_id = artifact.id) WHERE closed_set IS NULL AND id IN'
                f' (SELECT artifact_id FROM {schema}."close" WHERE artifact_id > :low AND artifact_id <= :high'
                " AND skipped = 0)",
                {"set": change_set, "low": key, "high": high},
            )
            key = high

        while key >= 0:
            seconds = await _timed(db, clock, partial(close, limit=batch))
            report(min(total, last + closed), total)
            batch = _next_batch(batch, seconds)
    return Copied(added=added, closed=closed)


async def _timed(db: Database, clock: Clock, body: Callable[[Tx], Any]) -> float:
    async def timed(tx: Tx) -> float:
        started = clock.monotonic()
        await body(tx)
        return clock.monotonic() - started

    return await db.write(timed)


def _next_batch(batch: int, seconds: float) -> int:
    factor = BATCH_SECONDS / max(seconds, 0.001)
    return max(100, min(_MAX_BATCH, int(batch * min(2.0, max(0.25, factor)))))


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
        return await tx.execute(
            "UPDATE artifact SET closed_set = NULL, closed_reason = NULL WHERE id IN"
            " (SELECT id FROM artifact WHERE closed_set = ? LIMIT 2000)",
            params,
        )

    while await db.write(some):
        pass
    return gone


# --- counting and browsing ------------------------------------------------------------------------------


class MirrorTotals(Struct, frozen=True, kw_only=True):
    artifacts: int
    bytes: int
    stored: int
    bytes_stored: int
    parts: dict[str, int]


async def mirror_totals(r: Reader, channel_id: int, mirror_id: int) -> MirrorTotals:
    """Count what a mirror's rows hold now, draft included, and what of it its channel has been given.

    Half a second for 700,000 rows.
    """
    rows = await r.rows(
        "SELECT a.part, count(*), coalesce(sum(a.size), 0), count(d.sha256),"
        " coalesce(sum(a.size) FILTER (WHERE d.sha256 IS NOT NULL), 0)"
        f" FROM artifact a INDEXED BY artifact_file LEFT JOIN {_DELIVERED}"
        " WHERE a.channel_id = ? AND a.mirror_id = ? AND a.closed_set IS NULL GROUP BY a.family, a.part",
        (channel_id, mirror_id),
    )
    return MirrorTotals(
        artifacts=sum(row[1] for row in rows),
        bytes=sum(row[2] for row in rows),
        stored=sum(row[3] for row in rows),
        bytes_stored=sum(row[4] for row in rows),
        parts={row[0]: row[1] for row in rows},
    )


class PackageRow(Struct, frozen=True, kw_only=True):
    """A file of a package with its raw record."""

    file: FileRow
    build: str
    license: str | None
    timestamp: int | None
    generation: int
    raw: bytes


async def package_files(r: Reader, channel_id: int, shows: int, family: str, name: str, limit: int) -> list[PackageRow]:
    """Return the files of a package in generation `shows`, those of the name's owner only."""
    owned_by = await owner(r, channel_id, shows, family, name)
    rows = await r.rows(
        f"SELECT {_FILE}, a.build, a.license, a.timestamp, s.number, d.sha256 IS NOT NULL, n.raw FROM {_VERSIONS}"
        f" LEFT JOIN {_DELIVERED} JOIN artifact_record n ON n.artifact_id = a.id"
        f" WHERE a.channel_id = :channel AND a.family = :family AND a.name = :name AND a.mirror_id = :owner AND {_LIVE}"
        " ORDER BY a.id LIMIT :limit",
        {"channel": channel_id, "shows": shows, "family": family, "name": name, "owner": owned_by, "limit": limit},
    )
    return [
        PackageRow(
            file=_file(row, retired=False, delivered=bool(row[17])),
            build=row[13],
            license=row[14],
            timestamp=row[15],
            generation=row[16],
            raw=bytes(row[18]),
        )
        for row in rows
    ]


async def not_stored(r: Reader, channel_id: int, shows: int) -> int:
    """Count the artifacts of generation `shows` that clients see and whose file the channel has not been given yet."""
    return int(
        await r.value(
            f"SELECT count(*) FROM {_VERSIONS} LEFT JOIN {_DELIVERED}"
            f" WHERE a.channel_id = :channel AND d.sha256 IS NULL AND {_LIVE} AND NOT EXISTS ({_SHADOWING})",
            {"channel": channel_id, "shows": shows},
        )
    )


async def shadowed_names(r: Reader, channel_id: int, mirror_id: int, limit: int) -> tuple[list[str], int]:
    """Return the first names that this mirror offers and an older one owns, and how many there are in all."""
    older = "SELECT EXISTS (SELECT 1 FROM mirror WHERE channel_id = ? AND id < ? AND deleted_at IS NULL)"
    if not await r.value(older, (channel_id, mirror_id)):
        return [], 0
    offered = "SELECT family || '/' || name FROM artifact WHERE channel_id = :channel AND closed_set IS NULL"
    both = f"{offered} AND mirror_id = :mirror INTERSECT {offered} AND mirror_id > 0 AND mirror_id < :mirror"
    params = {"channel": channel_id, "mirror": mirror_id, "limit": limit}
    rows = await r.rows(f"{both} ORDER BY 1 LIMIT :limit", params)
    total = len(rows) if len(rows) < limit else int(await r.value(f"SELECT count(*) FROM ({both})", params))
    return [row[0] for row in rows], total


async def raw_record(r: Reader, artifact_id: int) -> bytes | None:
    """Return an artifact's record as its source wrote it."""
    raw = await r.value("SELECT raw FROM artifact_record WHERE artifact_id = ?", (artifact_id,))
    return None if raw is None else bytes(raw)


# --- what stays when a mirror goes ------------------------------------------------------------------------


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
    db: Database, *, channel_id: int, mirror_id: int, change_set: int, keep: bool, clock: Clock
) -> HandedOver:
    """Close a mirror's artifacts in short batches; with `keep` those that are stored go on as the channel's own.

    Of a file that the channel itself holds already, the one that came from its source last stays. Nobody else may
    change the channel's own rows meanwhile.
    """
    first, last = await db.read(lambda r: _id_span(r, channel_id, mirror_id))
    added = closed = stay = dropped = 0
    batch = _FIRST_BATCH

    async def some(tx: Tx, low: int, high: int) -> None:
        nonlocal added, closed, stay, dropped
        params = {"channel": channel_id, "mirror": mirror_id, "set": change_set, "low": low, "high": high}
        # Windows of ids: by an index of the channel each batch would look at all of its rows.
        inside = (
            "a.id BETWEEN :low AND :high AND a.channel_id = :channel AND a.mirror_id = :mirror AND a.closed_set IS NULL"
        )
        stored: list[Row] = []
        if keep:
            stored = await tx.rows(
                f"SELECT id, own, own IS NULL OR id > {_CAME} FROM (SELECT a.*, ({_OWN}) AS own"
                f" FROM artifact a NOT INDEXED CROSS JOIN {_DELIVERED} WHERE {inside}) a ORDER BY id",
                params,
            )
        leaving = await tx.execute(
            f"UPDATE artifact AS a NOT INDEXED SET closed_set = :set, closed_reason = 'mirror deleted' WHERE {inside}",
            params,
        )
        moved = [(row_id, own) for row_id, own, newer in stored if newer]
        outdone = [(change_set, own) for _, own in moved if own is not None]
        await tx.many("UPDATE artifact SET closed_set = ?, closed_reason = 'replaced' WHERE id = ?", outdone)
        base = await tx.value("UPDATE artifact_id_range SET next = next + ? RETURNING next", (len(moved),))
        places = list(enumerate((row_id for row_id, _ in moved), int(base) - len(moved)))
        await tx.many("INSERT INTO artifact_record SELECT ?, raw FROM artifact_record WHERE artifact_id = ?", places)
        await tx.many(
            "INSERT INTO artifact(id, channel_id, mirror_id, family, part, section, filename, name, version, build,"
            " build_number, size, sha256, md5, declared, license, timestamp, fingerprint, added_set)"
            " SELECT ?, channel_id, 0, family, part, section, filename, name, version, build, build_number, size,"
            " sha256, md5, declared, license, timestamp, fingerprint, ? FROM artifact WHERE id = ?",
            [(place, change_set, row_id) for place, row_id in places],
        )
        added += len(moved)
        closed += leaving + len(outdone)
        stay += len(stored)
        dropped += leaving - len(stored)

    low = first
    while low <= last:
        high = min(low + batch - 1, last)
        seconds = await _timed(db, clock, partial(some, low=low, high=high))
        low = high + 1
        batch = _next_batch(batch, seconds)
    return HandedOver(copied=Copied(added=added, closed=closed), kept=stay, dropped=dropped)


async def _id_span(r: Reader, channel_id: int, mirror_id: int) -> tuple[int, int]:
    """Return the lowest and the highest id of a mirror's rows; (1, 0) when it has none."""
    row = await r.row(
        "SELECT min(id), max(id) FROM artifact WHERE channel_id = ? AND mirror_id = ?", (channel_id, mirror_id)
    )
    return (row[0], row[1]) if row is not None and row[0] is not None else (1, 0)
