"""The only place with the SQL of pages that are read when clients ask for them, and of the rows that they bring.

The rows of such pages belong to no publication: they count from the first generation on (their change set has the
number 0), and which of them a moment shows is said by `page_span`.
"""

from collections.abc import Sequence

from msgspec import Struct

from firth_protocol.types import Cause
from firthd.store import offers
from firthd.store.artifacts import FILE_COLUMNS, FileRow, file_row
from firthd.store.database import Database, Reader, Row, Tx

_BATCH = 500


class PageRow(Struct, frozen=True, kw_only=True):
    """A version of a page. `there` False: the source had it no more."""

    id: int
    mirror_id: int
    part: str
    read_at: int
    checked_at: int
    url_path: str
    encoding: str
    etag: str | None
    last_modified: str | None
    size: int
    refused: str | None
    base_url: str | None
    there: bool


class Fresh(Struct, frozen=True, kw_only=True):
    """A version that has just been read; `body` is compressed, None: the source has the page no more."""

    url_path: str
    encoding: str = ""
    etag: str | None = None
    last_modified: str | None = None
    size: int = 0
    body: bytes | None = None
    refused: str | None = None
    base_url: str | None = None


EVER_MS = (1 << 63) - 1
_PAGE = (
    "id, mirror_id, part, read_at, checked_at, url_path, encoding, etag, last_modified, size, refused, base_url,"
    " body IS NOT NULL"
)


def _page(row: Row) -> PageRow:
    return PageRow(**dict(zip(PageRow.__struct_fields__, (*row[:12], bool(row[12])), strict=True)))


async def page_as_of(r: Reader, mirror_id: int, part: str, time_ms: int | None) -> PageRow | None:
    """Return the newest version read at or before a moment, else the first one read later.

    None: the newest of all, which may lie ahead of a clock that was put back.
    """
    time_ms = EVER_MS if time_ms is None else time_ms
    for beside, order in (("<=", "DESC"), (">", "ASC")):
        row = await r.row(
            f"SELECT {_PAGE} FROM page WHERE mirror_id = ? AND part = ? AND read_at {beside} ?"
            f" ORDER BY read_at {order} LIMIT 1",
            (mirror_id, part, time_ms),
        )
        if row is not None:
            return _page(row)
    return None


async def newest_place(r: Reader, mirror_id: int, part: str) -> tuple[str, str | None] | None:
    """Return where below its source the newest version of a page was, and where its files' addresses begin."""
    row = await r.row(
        "SELECT url_path, base_url FROM page WHERE mirror_id = ? AND part = ? AND body IS NOT NULL"
        " ORDER BY read_at DESC LIMIT 1",
        (mirror_id, part),
    )
    return None if row is None else (row[0], row[1])


async def newest_places(r: Reader, mirror_id: int) -> dict[str, tuple[str, str | None]]:
    """Return what `newest_place` does for each page of a mirror."""
    rows = await r.rows(
        "SELECT part, url_path, base_url FROM page WHERE mirror_id = ? AND body IS NOT NULL ORDER BY read_at",
        (mirror_id,),
    )
    return {row[0]: (row[1], row[2]) for row in rows}


async def newest_there(r: Reader, mirror_id: int) -> list[str]:
    """Return the parts of a mirror whose page was there when it was read last."""
    rows = await r.rows(
        "SELECT p.part FROM page p WHERE p.mirror_id = ? AND p.body IS NOT NULL AND NOT EXISTS"
        " (SELECT 1 FROM page n WHERE n.mirror_id = p.mirror_id AND n.part = p.part AND n.read_at > p.read_at)",
        (mirror_id,),
    )
    return [row[0] for row in rows]


async def body(r: Reader, page_id: int) -> bytes | None:
    """Return a version's compressed bytes."""
    raw = await r.value("SELECT body FROM page WHERE id = ?", (page_id,))
    return None if raw is None else bytes(raw)


async def lists(r: Reader, channel_id: int, mirror_id: int, family: str, part: str) -> bool:
    """Tell whether a mirror has live rows in a part."""
    return bool(
        await r.value(
            "SELECT EXISTS (SELECT 1 FROM artifact INDEXED BY artifact_live WHERE channel_id = ? AND mirror_id = ?"
            " AND family = ? AND part = ? AND closed_set IS NULL)",
            (channel_id, mirror_id, family, part),
        )
    )


# --- a file, by the page that lists it ----------------------------------------------------------------------------


class Listed(Struct, frozen=True):
    """What pages say of a file name; `file` None: that it stands for nothing at that moment."""

    file: FileRow | None


async def find_file(
    r: Reader,
    channel_id: int,
    shows: int,
    family: str,
    part: str,
    filename: str,
    as_of_ms: int | None,
    now_ms: int,
    grace_ms: int,
) -> Listed | None:
    """Return the file that the pages of a moment list (None: now) under a name; None when no page ever listed it.

    A file that pages list no more is found until its grace period is over. One of a later page than the moment is
    found when it is no younger than the moment, as the page itself shows it.
    """
    rows = await r.rows(
        f"SELECT {FILE_COLUMNS}, p.since, p.until, a.timestamp, d.sha256 IS NOT NULL AND b.size = coalesce(a.size,"
        " b.size) FROM artifact a JOIN page_span p ON p.artifact_id = a.id"
        " LEFT JOIN delivered d ON d.channel_id = a.channel_id AND d.sha256 = a.sha256"
        " LEFT JOIN blob b ON b.sha256 = d.sha256 LEFT JOIN change_set e ON e.id = a.closed_set"
        " WHERE a.channel_id = ? AND a.family = ? AND a.part = ? AND a.filename = ?"
        " AND (coalesce(e.number, 0) = 0 OR e.number > ?)"  # else a run or a removal has ended it
        " ORDER BY a.id DESC",
        (channel_id, family, part, filename, shows),
    )
    if not rows:
        return None
    for row in rows:
        mirror_id, name = row[2], row[7]
        since, until, timestamp = row[13:16]
        time = now_ms if as_of_ms is None else as_of_ms
        version = await page_as_of(r, mirror_id, part, as_of_ms)
        read_at = since if version is None else version.read_at
        listed = since <= read_at and (until is None or until > read_at)
        too_young = as_of_ms is not None and read_at > time and timestamp is not None and timestamp > time
        retired = until is not None and until <= time < until + grace_ms
        if not ((listed and not too_young) or retired):
            continue
        owned_by = await offers.owners(r, channel_id, shows, family, name)
        if owned_by is None or mirror_id in owned_by:
            return Listed(file_row(row, retired=not listed, delivered=bool(row[16])))
    return Listed(None)


# --- what is read ---------------------------------------------------------------------------------------------------


async def confirm(tx: Tx, page_id: int, etag: str | None, last_modified: str | None, now_ms: int) -> None:
    """Note that a version is still the source's."""
    await tx.execute(
        "UPDATE page SET checked_at = ?, etag = ?, last_modified = ? WHERE id = ?",
        (now_ms, etag, last_modified, page_id),
    )


async def being_deleted(r: Reader, channel_id: int, mirror_id: int) -> bool:
    """Tell whether a mirror's rows are on their way out."""
    return bool(
        await r.value(
            "SELECT EXISTS (SELECT 1 FROM change_set WHERE channel_id = ? AND state = 'open' AND mirror_id = ?"
            " AND cause = ?)",
            (channel_id, mirror_id, Cause.REMOVAL),
        )
    )


async def take_in_some(tx: Tx, *, channel_id: int, mirror_id: int, change_set: int, now_ms: int) -> int:
    """Let some of the rows that an open change set holds count; return how many, 0 when none are left.

    Nobody sees them before `take_in` has written the version that was read at `now_ms`: until then the page shows the
    one before, and a reading that is cut off here is made up for by the next.
    """
    lasting = await _lasting_set(tx, channel_id, mirror_id, now_ms)
    moved = 0
    for column, sign, span in (
        # What is replaced ends first: where this is cut off, the rest of what was added goes, and nothing opens again.
        ("closed_set", -1, "UPDATE page_span SET until = ? WHERE artifact_id = ?"),
        ("added_set", 1, "INSERT INTO page_span(since, artifact_id) VALUES (?, ?)"),
    ):
        rows = await tx.rows(f"SELECT id, size FROM artifact WHERE {column} = ? LIMIT ?", (change_set, _BATCH - moved))
        await tx.many(span, [(now_ms, row_id) for row_id, _ in rows])
        await tx.many(f"UPDATE artifact SET {column} = ? WHERE id = ?", [(lasting, row_id) for row_id, _ in rows])
        await tx.execute(
            "UPDATE mirror SET artifacts = max(0, artifacts + ?), bytes = max(0, bytes + ?) WHERE id = ?",
            (sign * len(rows), sign * sum(size or 0 for _, size in rows), mirror_id),
        )
        moved += len(rows)
    return moved


async def take_in(
    tx: Tx,
    *,
    channel_id: int,
    mirror_id: int,
    family: str,
    part: str,
    fresh: Fresh,
    change_set: int,
    now_ms: int,
) -> int:
    """Write a version, and let what is left of an open change set's rows count; return the version's id."""
    while await take_in_some(tx, channel_id=channel_id, mirror_id=mirror_id, change_set=change_set, now_ms=now_ms):
        pass
    await tx.execute("DELETE FROM change_set WHERE id = ?", (change_set,))
    return await tx.insert(
        "INSERT INTO page(mirror_id, part, read_at, checked_at, url_path, encoding, etag, last_modified, size, body,"
        " refused, base_url) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            mirror_id,
            part,
            now_ms,
            now_ms,
            fresh.url_path,
            fresh.encoding,
            fresh.etag,
            fresh.last_modified,
            fresh.size,
            fresh.body,
            fresh.refused,
            fresh.base_url,
        ),
    )


async def _lasting_set(tx: Tx, channel_id: int, mirror_id: int, now_ms: int) -> int:
    """Return the change set that holds all rows of a mirror's pages, made with the first."""
    found = await tx.value(
        "SELECT id FROM change_set WHERE channel_id = ? AND state = 'published' AND number = 0 AND mirror_id = ?",
        (channel_id, mirror_id),
    )
    if found is not None:
        return int(found)
    return await tx.insert(
        "INSERT INTO change_set(channel_id, mirror_id, cause, state, number, created_at, finished_at)"
        " VALUES (?, ?, ?, 'published', 0, ?, ?)",
        (channel_id, mirror_id, Cause.RUN, now_ms, now_ms),
    )


# --- what nothing needs any more --------------------------------------------------------------------------------------


async def read_ats(r: Reader, mirror_id: int, part: str) -> list[int]:
    """Return when the versions of a page were read, the oldest first."""
    rows = await r.rows("SELECT read_at FROM page WHERE mirror_id = ? AND part = ? ORDER BY read_at", (mirror_id, part))
    return [row[0] for row in rows]


async def forget_versions(
    tx: Tx, channel_id: int, mirror_id: int, family: str, part: str, gone: Sequence[int], before_ms: int
) -> int:
    """Take away versions of a page, and some rows whose time ended before a moment and that no version left lists.

    Return how many rows; 0 when none are left.
    """
    await tx.many(
        "DELETE FROM page WHERE mirror_id = ? AND part = ? AND read_at = ?", [(mirror_id, part, at) for at in gone]
    )
    rows = await tx.rows(
        "SELECT a.id FROM artifact a INDEXED BY artifact_file JOIN page_span p ON p.artifact_id = a.id"
        " WHERE a.channel_id = ? AND a.family = ? AND a.part = ? AND a.mirror_id = ? AND p.until < ?"
        " AND NOT EXISTS (SELECT 1 FROM page v WHERE v.mirror_id = a.mirror_id AND v.part = a.part"
        " AND v.read_at >= p.since AND v.read_at < p.until) LIMIT ?",
        (channel_id, family, part, mirror_id, before_ms, _BATCH),
    )
    for table, key in (("page_span", "artifact_id"), ("artifact_record", "artifact_id"), ("artifact", "id")):
        await tx.many(f"DELETE FROM {table} WHERE {key} = ?", rows)
    return len(rows)


async def purge_deleted(db: Database) -> int:
    """Take away the pages of deleted mirrors and channels, in short batches; return how many rows."""
    gone = 0

    async def some(tx: Tx) -> int:
        return await tx.execute(
            "DELETE FROM page WHERE id IN (SELECT p.id FROM mirror m CROSS JOIN page p ON p.mirror_id = m.id"
            " WHERE m.deleted_at IS NOT NULL LIMIT ?)",
            (_BATCH,),
        )

    while removed := await db.write(some):
        gone += removed
    return gone


async def moments(r: Reader, channel_id: int) -> list[int]:
    """Return the moments whose pages a channel's kept generations show, and that of its freeze."""
    rows = await r.rows(
        "SELECT n.time FROM generation g JOIN generation n ON n.channel_id = g.channel_id AND n.number = g.shows + 1"
        " WHERE g.channel_id = ?1 AND g.kept"
        " UNION SELECT frozen_at FROM channel WHERE id = ?1 AND frozen_at IS NOT NULL",
        (channel_id,),
    )
    return [row[0] for row in rows]
