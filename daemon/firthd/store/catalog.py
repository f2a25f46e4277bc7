"""The SQL of channels and mirrors: what exists, by name and by id."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from firth_protocol.types import Filters, MirrorMode, MirrorType, Notice, OnUpstreamRemoval, Privacy, RunState
from firthd.store import paging
from firthd.store.columns import counted, selected
from firthd.store.database import Reader, Row, Tx
from firthd.store.orders import CHANNEL_ORDERS, MIRROR_ORDERS


class ChannelRow(Struct, frozen=True, kw_only=True):
    id: int
    name: str
    parent_id: int | None
    description: str
    privacy: Privacy
    keep_days: int
    keep_months: int
    frozen_at: int | None
    frozen_by: str | None
    generation: int
    created_at: int
    updated_at: int
    revision: int
    notices: list[Notice] = []
    policy: str | None = None


_CHANNEL = selected(ChannelRow.__struct_fields__, "c")


def _channel(row: Row) -> ChannelRow:
    values = dict(zip(ChannelRow.__struct_fields__, row, strict=True))
    values["privacy"] = Privacy(values["privacy"])
    values["notices"] = msgspec.json.decode(values["notices"], type=list[Notice])
    return ChannelRow(**values)


async def channel_by_name(r: Reader, name: str) -> ChannelRow | None:
    row = await r.row(f"SELECT {_CHANNEL} FROM channel c WHERE c.name = ? AND c.deleted_at IS NULL", (name,))
    return _channel(row) if row else None


async def channel_by_id(r: Reader, channel_id: int) -> ChannelRow | None:
    row = await r.row(f"SELECT {_CHANNEL} FROM channel c WHERE c.id = ? AND c.deleted_at IS NULL", (channel_id,))
    return _channel(row) if row else None


async def all_channels(r: Reader) -> list[ChannelRow]:
    rows = await r.rows(f"SELECT {_CHANNEL} FROM channel c WHERE c.deleted_at IS NULL ORDER BY c.name")
    return [_channel(row) for row in rows]


async def channels_page(
    r: Reader, *, query: str | None, sort: str, cursor: str | None, limit: int, patterns: paging.Patterns
) -> tuple[list[ChannelRow], str | None, int]:
    """Return one page of channels, the cursor of the next, and how many there are in all."""
    by = paging.order(sort, CHANNEL_ORDERS)
    seen, params = paging.visible("c.name", patterns)
    where = (
        f"c.deleted_at IS NULL AND {seen}"
        " AND (:query IS NULL OR instr(lower(c.name || ' ' || c.description), lower(:query)))"
    )
    values = {**params, **paging.decode(cursor, sort), "query": query, "limit": limit + 1}
    rows = await r.rows(
        f"SELECT {_CHANNEL}, {by.sql} FROM channel c WHERE {where} AND {by.beyond('c.id')}"
        f" ORDER BY {by.clause('c.id')} LIMIT :limit",
        values,
    )
    total = await r.value(f"SELECT count(*) FROM channel c WHERE {where}", values)
    page, following = paging.cut(sort, rows, limit, lambda row: (row[-1], row[0]))
    return [_channel(row[:-1]) for row in page], following, int(total)


async def insert_channel(
    tx: Tx,
    *,
    name: str,
    parent_id: int | None,
    description: str,
    privacy: Privacy,
    keep_days: int,
    keep_months: int,
    now_ms: int,
    policy: str | None = None,
) -> int:
    return await tx.insert(
        "INSERT INTO channel(name, parent_id, description, privacy, keep_days, keep_months, policy, created_at,"
        " updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (name, parent_id, description, privacy, keep_days, keep_months, policy, now_ms, now_ms),
    )


_CHANNEL_COLUMNS = frozenset(
    {"description", "privacy", "keep_days", "keep_months", "frozen_at", "frozen_by", "notices", "policy"}
)


async def update_channel(tx: Tx, channel_id: int, changes: dict[str, Any], now_ms: int) -> None:
    """Set columns of a channel and raise its revision."""
    await _update(tx, "channel", _CHANNEL_COLUMNS, channel_id, changes, now_ms)


async def to_render_anew(r: Reader, channel_id: int) -> bool:
    """Tell whether the indexes in force are not what the rows say: those were mended, or names change their owners."""
    return bool(await r.value("SELECT render_anew FROM channel WHERE id = ?", (channel_id,)))


async def all_to_render_anew(r: Reader) -> list[ChannelRow]:
    """Return the channels whose indexes in force are to be rendered anew; frozen ones wait until they are not."""
    rows = await r.rows(
        f"SELECT {_CHANNEL} FROM channel c WHERE c.render_anew AND c.frozen_at IS NULL AND c.deleted_at IS NULL"
    )
    return [_channel(row) for row in rows]


async def owners_changed(tx: Tx, channel_id: int) -> None:
    """Let a channel of several mirrors be rendered anew: the source of one, by which names are owned, is another."""
    await tx.execute(
        "UPDATE channel SET render_anew = 1 WHERE id = ?1 AND (SELECT count(*) FROM mirror WHERE channel_id = ?1) > 1",
        (channel_id,),
    )


async def render_anew(tx: Tx, channel_id: int) -> None:
    """Let the next publication render all indexes of a channel, whatever is in force."""
    await tx.execute("UPDATE channel SET render_anew = 1 WHERE id = ?", (channel_id,))


async def rendered_anew(tx: Tx, channel_id: int) -> None:
    await tx.execute("UPDATE channel SET render_anew = 0 WHERE id = ?", (channel_id,))


async def set_generation(tx: Tx, channel_id: int, generation: int, now_ms: int) -> None:
    """Move a channel's pointer."""
    await tx.execute("UPDATE channel SET generation = ?, updated_at = ? WHERE id = ?", (generation, now_ms, channel_id))


async def mark_channel_deleted(tx: Tx, channel_id: int, now_ms: int) -> None:
    await tx.execute(
        "UPDATE mirror SET deleted_at = ? WHERE channel_id = ? AND deleted_at IS NULL", (now_ms, channel_id)
    )
    await tx.execute("UPDATE channel SET deleted_at = ? WHERE id = ?", (now_ms, channel_id))


async def subchannels(r: Reader, channel_id: int, patterns: paging.Patterns) -> list[str]:
    """Return the names of a channel's children, those that a caller may see."""
    seen, params = paging.visible("name", patterns)
    rows = await r.rows(
        f"SELECT name FROM channel WHERE parent_id = :parent AND deleted_at IS NULL AND {seen} ORDER BY name",
        {**params, "parent": channel_id},
    )
    return [row[0] for row in rows]


class ChannelNumbers(Struct, frozen=True, kw_only=True):
    """What a channel's lists show beside its own row."""

    mirrors: int
    subchannels: int
    states: list[RunState]


async def channel_numbers(r: Reader, channel_id: int, patterns: paging.Patterns) -> ChannelNumbers:
    rows = await r.rows(
        "SELECT state, count(*) FROM mirror WHERE channel_id = ? AND deleted_at IS NULL GROUP BY state", (channel_id,)
    )
    return ChannelNumbers(
        mirrors=sum(row[1] for row in rows),
        subchannels=len(await subchannels(r, channel_id, patterns)),
        states=[RunState(row[0]) for row in rows],
    )


async def types_of(r: Reader, channel_id: int) -> set[str]:
    """Return the types of a channel's mirrors."""
    rows = await r.rows("SELECT DISTINCT type FROM mirror WHERE channel_id = ? AND deleted_at IS NULL", (channel_id,))
    return {row[0] for row in rows}


async def stored_by_type(r: Reader, channel_id: int) -> dict[str, int]:
    """Return how many files of each family a channel has been given: its mirrors', and all that are its own."""
    rows = await r.rows(
        "SELECT type, sum(stored) FROM mirror WHERE channel_id = :channel AND deleted_at IS NULL GROUP BY type"
        " UNION ALL SELECT family, count(*) FROM artifact a INDEXED BY artifact_live"
        f" WHERE channel_id = :channel AND mirror_id = 0 AND closed_set IS NULL AND {counted('a')} GROUP BY family",
        {"channel": channel_id},
    )
    return dict(sum((Counter({row[0]: row[1]}) for row in rows), Counter[str]()))


# --- mirrors -----------------------------------------------------------------------------------------


class MirrorRow(Struct, frozen=True, kw_only=True):
    id: int
    channel_id: int
    name: str
    type: MirrorType
    mode: MirrorMode
    source: str
    schedule: str
    filters: Filters
    on_upstream_removal: OnUpstreamRemoval
    proxy: str | None
    ca_file: str | None
    has_credentials: bool
    also_from: list[str]  # folders and addresses that are asked for files before the source
    drop_unused_days: int | None
    max_rate: int | None  # bytes a second
    max_rate_hours: str | None  # in UTC, such as 8-18; None: always
    enabled: bool
    state: RunState
    last_run_id: int | None
    last_success_at: int | None
    scheduled_from: int
    coalesced: int
    artifacts: int
    bytes: int
    stored: int
    bytes_stored: int
    shadowed: int
    settled: bool  # the last look at what parts the source has came to its end
    policy: str | None
    judged: str  # by what its rows were judged: the stamp of a policy, "" for none
    encoded: bool  # the source wants `+`, `!` and `~` in file names percent-encoded
    created_at: int
    updated_at: int
    revision: int
    source_time: int | None  # by the source's own clock, of its newest index that was taken in
    source_seen: int | None  # the same of the newest that was fetched
    channel: str


_MIRROR = selected(MirrorRow.__struct_fields__, "m", channel="c.name")
_FROM_MIRROR = "mirror m JOIN channel c ON c.id = m.channel_id"


def _mirror(row: Row) -> MirrorRow:
    values = dict(zip(MirrorRow.__struct_fields__, row, strict=True))
    values["filters"] = msgspec.json.decode(values["filters"], type=Filters)
    values["also_from"] = msgspec.json.decode(values["also_from"], type=list[str])
    return msgspec.convert(values, MirrorRow, strict=False)


async def mirror_by_id(r: Reader, mirror_id: int) -> MirrorRow | None:
    row = await r.row(f"SELECT {_MIRROR} FROM {_FROM_MIRROR} WHERE m.id = ? AND m.deleted_at IS NULL", (mirror_id,))
    return _mirror(row) if row else None


async def mirror_by_name(r: Reader, channel: str, name: str) -> MirrorRow | None:
    row = await r.row(
        f"SELECT {_MIRROR} FROM {_FROM_MIRROR}"
        " WHERE c.name = ? AND c.deleted_at IS NULL AND m.name = ? AND m.deleted_at IS NULL",
        (channel, name),
    )
    return _mirror(row) if row else None


async def mirrors_of(r: Reader, channel_id: int) -> list[MirrorRow]:
    """Return a channel's mirrors, the oldest first: their precedence."""
    rows = await r.rows(
        f"SELECT {_MIRROR} FROM {_FROM_MIRROR} WHERE m.channel_id = ? AND m.deleted_at IS NULL ORDER BY m.id",
        (channel_id,),
    )
    return [_mirror(row) for row in rows]


async def all_mirrors(r: Reader) -> list[MirrorRow]:
    rows = await r.rows(f"SELECT {_MIRROR} FROM {_FROM_MIRROR} WHERE m.deleted_at IS NULL ORDER BY m.id")
    return [_mirror(row) for row in rows]


async def schedules(r: Reader) -> list[str]:
    """Return the schedules that mirrors have."""
    rows = await r.rows("SELECT DISTINCT schedule FROM mirror WHERE deleted_at IS NULL AND enabled")
    return [row[0] for row in rows]


async def mirrors_page(
    r: Reader,
    *,
    channel_id: int | None,
    query: str | None,
    type_: MirrorType | None,
    mode: MirrorMode | None,
    state: RunState | None,
    sort: str,
    cursor: str | None,
    limit: int,
    patterns: paging.Patterns,
    due: Mapping[str, int],
) -> tuple[list[MirrorRow], str | None, int]:
    """Return one page of mirrors, the cursor of the next, and how many there are in all.

    `due` tells when each schedule comes next; it is needed where `sort` goes by that.
    """
    by = paging.order(sort, MIRROR_ORDERS)
    seen, params = paging.visible("c.name", patterns)
    where = (
        f"m.deleted_at IS NULL AND {seen} AND (:channel IS NULL OR m.channel_id = :channel)"
        " AND (:query IS NULL OR instr(lower(c.name || ':' || m.name || ' ' || m.source), lower(:query)))"
        " AND (:type IS NULL OR m.type = :type) AND (:mode IS NULL OR m.mode = :mode)"
        " AND (:state IS NULL OR m.state = :state)"
    )
    values = {
        **params,
        **paging.decode(cursor, sort),
        "channel": channel_id,
        "query": query,
        "type": type_,
        "mode": mode,
        "state": state,
        "limit": limit + 1,
        "due": msgspec.json.encode(due).decode(),
    }
    rows = await r.rows(
        f"SELECT {_MIRROR}, {by.sql} FROM {_FROM_MIRROR} WHERE {where} AND {by.beyond('m.id')}"
        f" ORDER BY {by.clause('m.id')} LIMIT :limit",
        values,
    )
    total = await r.value(f"SELECT count(*) FROM {_FROM_MIRROR} WHERE {where}", values)
    page, following = paging.cut(sort, rows, limit, lambda row: (row[-1], row[0]))
    return [_mirror(row[:-1]) for row in page], following, int(total)


async def insert_mirror(tx: Tx, fields: dict[str, Any], now_ms: int) -> int:
    """Write a new mirror's row; `fields` holds its columns but for the times."""
    values = {**fields, "created_at": now_ms, "updated_at": now_ms, "scheduled_from": now_ms}
    assert values.keys() <= set(MirrorRow.__struct_fields__)
    columns = ", ".join(values)
    places = ", ".join(f":{column}" for column in values)
    return await tx.insert(f"INSERT INTO mirror({columns}) VALUES ({places})", values)


_MIRROR_COLUMNS = frozenset(
    {"name", "source", "schedule", "filters", "on_upstream_removal", "proxy", "ca_file", "has_credentials"}
    | {"enabled", "scheduled_from", "also_from", "drop_unused_days", "max_rate", "max_rate_hours", "policy"}
)


async def update_mirror(tx: Tx, mirror_id: int, changes: dict[str, Any], now_ms: int) -> None:
    """Set columns of a mirror and raise its revision."""
    await _update(tx, "mirror", _MIRROR_COLUMNS, mirror_id, changes, now_ms)


_PROGRESS_COLUMNS = frozenset(
    {"state", "last_run_id", "last_success_at", "scheduled_from", "coalesced", "artifacts", "bytes", "stored"}
    | {"bytes_stored", "shadowed", "settled", "encoded", "judged", "source_time", "source_seen"}
)


async def note_mirror(tx: Tx, mirror_id: int, changes: dict[str, Any]) -> None:
    """Set what runs and the schedule leave in a mirror's row; its revision stays."""
    assert changes.keys() <= _PROGRESS_COLUMNS
    sets = ", ".join(f"{column} = :{column}" for column in changes)
    await tx.execute(f"UPDATE mirror SET {sets} WHERE id = :id", {**changes, "id": mirror_id})


async def add_stored(tx: Tx, mirror_id: int, files: int, size: int) -> None:
    """Count files that a client's request has brought into the store."""
    await tx.execute(
        "UPDATE mirror SET stored = min(stored + ?, max(artifacts, stored)), bytes_stored = bytes_stored + ?"
        " WHERE id = ?",
        (files, size, mirror_id),
    )


class DeletedMirror(Struct, frozen=True, kw_only=True):
    """A mirror that is deleted; `refused`: all that it brought is to go."""

    id: int
    channel_id: int
    channel: str
    name: str
    refused: bool


async def deleted_with_artifacts(r: Reader) -> list[DeletedMirror]:
    """Return the deleted mirrors of channels that are there whose artifacts are still shown."""
    rows = await r.rows(
        "SELECT m.id, m.channel_id, c.name, m.name, m.refused FROM mirror m JOIN channel c ON c.id = m.channel_id"
        " WHERE m.deleted_at IS NOT NULL AND c.deleted_at IS NULL AND EXISTS (SELECT 1 FROM artifact a"
        " INDEXED BY artifact_live WHERE a.channel_id = m.channel_id AND a.mirror_id = m.id AND a.closed_set IS NULL)"
    )
    return [
        DeletedMirror(id=row[0], channel_id=row[1], channel=row[2], name=row[3], refused=bool(row[4])) for row in rows
    ]


async def mark_mirror_deleted(tx: Tx, mirror_id: int, now_ms: int) -> None:
    await tx.execute("UPDATE mirror SET deleted_at = ? WHERE id = ?", (now_ms, mirror_id))


async def _update(
    tx: Tx, table: str, columns: frozenset[str], row_id: int, changes: dict[str, Any], now_ms: int
) -> None:
    assert changes.keys() <= columns
    sets = "".join(f"{column} = :{column}, " for column in changes)
    await tx.execute(
        f"UPDATE {table} SET {sets} updated_at = :now, revision = revision + 1 WHERE id = :id",
        {**changes, "id": row_id, "now": now_ms},
    )


# --- what was last read of a source --------------------------------------------------------------------


class SourceIndexRow(Struct, frozen=True):
    """One index file of a source as last read; `file` is its stored copy's name, None when the source has none."""

    part: str
    url_path: str
    encoding: str
    etag: str | None
    last_modified: str | None
    file: str | None
    size: int
    records: int
    base_url: str | None
    read_at: int
    settled: int = 0  # the run that took it in without a hole; 0: the mirror's rows are not yet what it says
    beside: str | None = None  # of a file beside the index: the part that it belongs to; None for a part
    signed: bool = False  # the source signs records of the part
    mark: str | None = None  # what a list of the source said of it when it was read
    refused: str | None = None  # why the source takes back all that the part listed


_SELECT_INDEX = f"SELECT {selected(SourceIndexRow.__struct_fields__, 'i')} FROM source_index i WHERE i.mirror_id = ?"


async def source_indexes(r: Reader, mirror_id: int) -> dict[str, SourceIndexRow]:
    return {row[0]: SourceIndexRow(*row) for row in await r.rows(_SELECT_INDEX, (mirror_id,))}


async def source_index(r: Reader, mirror_id: int, part: str) -> SourceIndexRow | None:
    """Return what was last read of one part."""
    row = await r.row(f"{_SELECT_INDEX} AND i.part = ?", (mirror_id, part))
    return SourceIndexRow(*row) if row else None


_WRITE_INDEX = (
    "INSERT OR REPLACE INTO source_index(mirror_id, part, url_path, encoding, etag, last_modified, file, size, records,"
    " base_url, read_at, settled, beside, signed, mark, refused)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


async def write_source_indexes(
    tx: Tx, mirror_id: int, before: Mapping[str, SourceIndexRow], indexes: Sequence[SourceIndexRow]
) -> None:
    """Write what differs from `before`, and take away the parts that are named no more."""
    changed = [index for index in indexes if before.get(index.part) != index]
    await tx.many(_WRITE_INDEX, [(mirror_id, *msgspec.structs.astuple(index)) for index in changed])
    gone = before.keys() - {index.part for index in indexes}
    await tx.many(
        "DELETE FROM source_index WHERE mirror_id = ? AND part = ?", [(mirror_id, part) for part in sorted(gone)]
    )
    await tx.execute("UPDATE mirror SET settled = 1 WHERE id = ? AND NOT settled", (mirror_id,))


async def note_fetched(tx: Tx, mirror_id: int, indexes: Sequence[SourceIndexRow]) -> None:
    """Write that parts have come, before they are taken in: whoever goes on after a crash need not fetch them again."""
    await tx.many(_WRITE_INDEX, [(mirror_id, *msgspec.structs.astuple(index)) for index in indexes])
    await tx.execute("UPDATE mirror SET settled = 0 WHERE id = ? AND settled", (mirror_id,))


async def note_looked(tx: Tx, mirror_id: int, absent: Sequence[SourceIndexRow]) -> None:
    """Write that the source has not what was looked for; nothing else has changed."""
    await tx.many(_WRITE_INDEX, [(mirror_id, *msgspec.structs.astuple(index)) for index in absent])


async def drop_copies(tx: Tx, mirror_id: int) -> None:
    """Forget the copies that were not taken in; their parts count as the source's, and are asked for without them."""
    await tx.execute(
        "UPDATE source_index SET file = NULL, size = 0, etag = NULL, last_modified = NULL, mark = NULL"
        " WHERE mirror_id = ? AND settled = 0 AND beside IS NULL",
        (mirror_id,),
    )


async def unsettle(tx: Tx, mirror_id: int, run_id: int) -> None:
    """Say that what a run took in is not what the mirror's rows are: the next one compares those parts again."""
    await tx.execute("UPDATE source_index SET settled = 0 WHERE mirror_id = ? AND settled = ?", (mirror_id, run_id))


async def forget_source_indexes(tx: Tx, mirror_id: int) -> None:
    """Make the next run read the source's index anew, and look which parts the source has."""
    await tx.execute(
        "UPDATE source_index SET etag = NULL, last_modified = NULL, mark = NULL, read_at = 0,"
        " settled = CASE WHEN file IS NULL THEN settled ELSE 0 END WHERE mirror_id = ?",
        (mirror_id,),
    )
    await tx.execute("UPDATE mirror SET settled = 0 WHERE id = ?", (mirror_id,))
