"""The only place with the SQL of what pages for people show: channels, packages in an order, versions, files, days."""

import json
from collections.abc import Sequence

from msgspec import Struct

from firthd.store import offers
from firthd.store.columns import counted
from firthd.store.database import Reader, Row

_FORCE = (
    "(SELECT max(q.number) FROM package q WHERE q.channel_id = :channel AND q.family = {0}.family"
    " AND q.name = {0}.name AND q.number <= :number)"
)
_AT = (
    "json_each(:places) c CROSS JOIN package p ON p.channel_id = :channel AND p.family = :family"
    " AND p.name = json_extract(c.value, '$[0]') AND p.number = json_extract(c.value, '$[1]')"
)
_VERSIONS = "artifact a JOIN change_set s ON s.id = a.added_set LEFT JOIN change_set e ON e.id = a.closed_set"
_OF_PACKAGE = (
    "a.channel_id = :channel AND a.family = :family AND a.name = :name AND s.number <= :shows"
    f" AND (e.number IS NULL OR e.number > :shows) AND {counted('a')}"
    f" AND NOT {offers.shadowed_sql('a', '{}.number', ':shows')}"
)
_FILE = "a.part, a.filename, a.build, a.license, a.size, a.sha256, a.timestamp, g.time, n.raw"
_BESIDE = (
    "LEFT JOIN generation g ON g.channel_id = :channel AND g.number = s.number"
    " JOIN artifact_record n ON n.artifact_id = a.id"
)

NAME, UPDATED = "name", "updated"
"""The orders of packages: by name, and by the generation that changed them last. Others would read every row."""
_INDEX = "INDEXED BY package_number"
_CANDIDATES = 4
"""Rows that are looked at for one that is shown, at first: most packages have few rows, and one of them is in force."""


class ChannelFamilyRow(Struct, frozen=True):
    """A channel of the list, with one of its families (None: nothing is shown of any)."""

    channel_id: int
    description: str
    frozen_at: int | None
    family: str | None
    artifacts: int
    packages: int
    bytes: int


class MirrorKindRow(Struct, frozen=True):
    """What a mirror of a channel is, as far as people's pages go; `filters` is JSON."""

    channel_id: int
    mirror_id: int
    family: str
    mode: str
    filters: str


class ListedPackageRow(Struct, frozen=True):
    name: str
    version: str
    versions: int
    files: int
    bytes: int
    platforms: list[str]
    number: int
    time: int | None  # when it was last changed; None: nobody knows any more


class FoundRow(Struct, frozen=True):
    """A package that a text names or begins, in one of several channels."""

    channel_id: int
    family: str
    name: str
    version: str
    files: int


class VersionRow(Struct, frozen=True):
    version: str
    files: int
    bytes: int


class ShownFileRow(Struct, frozen=True):
    """A file of a version, with its record."""

    part: str
    filename: str
    build: str
    license: str | None
    size: int | None
    sha256: str | None
    timestamp: int | None
    since: int | None  # when the channel showed it first
    raw: bytes


class SnapshotRow(Struct, frozen=True):
    number: int
    time: int
    added: int
    removed: int
    artifacts: int


class ReadPageRow(Struct, frozen=True):
    """A lazy part that somebody has asked for, and when it was last read."""

    name: str
    read_at: int


async def channels(r: Reader, ids: Sequence[int]) -> list[ChannelFamilyRow]:
    """Return channels with the families of what they publish."""
    rows = await r.rows(
        "SELECT c.id, c.description, c.frozen_at, f.family, coalesce(f.artifacts, 0), coalesce(f.packages, 0),"
        " coalesce(f.bytes, 0) FROM channel c LEFT JOIN generation_family f ON f.channel_id = c.id"
        " AND f.number = c.generation WHERE c.id IN (SELECT value FROM json_each(?)) AND c.deleted_at IS NULL",
        (json.dumps(list(ids)),),
    )
    return [ChannelFamilyRow(*row) for row in rows]


async def mirrors(r: Reader, ids: Sequence[int]) -> list[MirrorKindRow]:
    """Return the mirrors of channels, the oldest first."""
    rows = await r.rows(
        "SELECT channel_id, id, type, mode, filters FROM mirror WHERE deleted_at IS NULL"
        " AND channel_id IN (SELECT value FROM json_each(?)) ORDER BY id",
        (json.dumps(list(ids)),),
    )
    return [MirrorKindRow(*row) for row in rows]


def place(order: str, row: ListedPackageRow) -> tuple[int | str, str]:
    """Return where a package stands in an order."""
    return (row.number if order == UPDATED else row.name), row.name


async def packages(
    r: Reader,
    channel_id: int,
    number: int,
    family: str,
    *,
    order: str,
    descending: bool,
    query: str | None,
    beyond: tuple[int | str, str] | None,
    limit: int,
) -> list[ListedPackageRow]:
    """Return packages that generation `number` shows, those after a place in an order, `limit` of them.

    Rows come in the order first, and only some of them are then asked whether they are in force: that is what costs.
    """
    direction, sign = ("DESC", "<") if descending else ("ASC", ">")
    by_time = order == UPDATED
    place = (
        f"(p.number, p.name) {sign} (:value, :key) AND p.number {sign}= :value" if by_time else f"p.name {sign} :key"
    )
    of_family = {"channel": channel_id, "number": number, "family": family}
    value, key = (None, None) if beyond is None else beyond
    params = of_family | {"query": None if query is None else _containing(query), "value": value, "key": key}
    looked_at = _CANDIDATES * limit
    while True:
        candidates = await r.rows(
            # In the order that rows lie in, here or in the index: those of the first pages are all that is read.
            f"SELECT p.name, p.number FROM package p {_INDEX if by_time else 'NOT INDEXED'}"
            " WHERE p.channel_id = :channel AND p.family = :family AND p.number <= :number"
            + (r" AND p.name LIKE :query ESCAPE '\'" if query is not None else "")
            + (f" AND {place}" if beyond is not None else "")
            + f" ORDER BY {'p.number ' + direction + ', ' if by_time else ''}p.name {direction} LIMIT :limit",
            params | {"limit": looked_at},
        )
        rows = await packages_at(r, channel_id, number, family, candidates, limit)
        if len(rows) == limit or len(candidates) < looked_at:
            return rows
        looked_at *= 16


async def packages_at(
    r: Reader, channel_id: int, number: int, family: str, places: Sequence[Sequence[object]], limit: int
) -> list[ListedPackageRow]:
    """Return the packages of some places (name, number of its row) that generation `number` shows, `limit` of them."""
    rows = await r.rows(
        "SELECT p.name, p.version, p.versions, p.files, p.bytes, p.platforms, p.number, g.time"
        f" FROM {_AT} LEFT JOIN generation g ON g.channel_id = p.channel_id AND g.number = p.number"
        f" WHERE p.files > 0 AND p.number = {_FORCE.format('p')} ORDER BY c.key LIMIT :limit",
        {"channel": channel_id, "number": number, "family": family, "places": json.dumps(places), "limit": limit},
    )
    return [
        ListedPackageRow(row[0], row[1], row[2], row[3], row[4], json.loads(row[5]), row[6], row[7]) for row in rows
    ]


async def matches(
    r: Reader, channel_id: int, number: int, query: str, most: int
) -> dict[str, list[tuple[str, int]]] | None:
    """Return the places of all packages with a text in their name, by family; None: there are more rows than `most`."""
    rows = await r.rows(
        f"SELECT p.family, p.name, p.number FROM package p {_INDEX} WHERE p.channel_id = :channel"
        r" AND p.number <= :number AND p.name LIKE :query ESCAPE '\' LIMIT :limit",
        {"channel": channel_id, "number": number, "query": _containing(query), "limit": most + 1},
    )
    if len(rows) > most:
        return None
    found: dict[str, list[tuple[str, int]]] = {}
    for family in {row[0] for row in rows}:
        places = [row[1:] for row in rows if row[0] == family]
        shown = await r.rows(
            f"SELECT p.name, p.number FROM {_AT} WHERE p.files > 0 AND p.number = {_FORCE.format('p')}",
            {"channel": channel_id, "number": number, "family": family, "places": json.dumps(places)},
        )
        found[family] = [(row[0], row[1]) for row in shown]
    return found


async def count_found(r: Reader, channel_id: int, number: int, family: str, query: str, most: int) -> int:
    """Return how many packages have a text in their name, `most` at the most."""
    return int(
        await r.value(
            # Names are compared first of all: which rows are in force is asked of those alone that match.
            f"WITH m AS MATERIALIZED (SELECT p.name, p.number FROM package p {_INDEX} WHERE p.channel_id = :channel"
            r" AND p.number <= :number AND p.family = :family AND p.name LIKE :query ESCAPE '\' LIMIT :candidates)"
            " SELECT count(*) FROM (SELECT 1 FROM m CROSS JOIN package p ON p.channel_id = :channel"
            " AND p.family = :family AND p.name = m.name AND p.number = m.number"
            f" WHERE p.files > 0 AND p.number = {_FORCE.format('p')} LIMIT :most)",
            {"channel": channel_id, "number": number, "family": family, "query": _containing(query)}
            | {"most": most, "candidates": _CANDIDATES * most},
        )
    )


async def named_or_begun(
    r: Reader, numbers: dict[int, int], families: Sequence[str], spellings: Sequence[str], each: int
) -> list[FoundRow]:
    """Return packages of channels (id -> generation) whose name is, or begins with, one of these spellings.

    At the most `each` of a channel, a family and a spelling: names are found in their order, nothing is scanned.
    """
    rows = await r.rows(
        "SELECT p.channel_id, p.family, p.name, p.version, p.files"
        " FROM json_each(:numbers) c CROSS JOIN json_each(:families) f CROSS JOIN json_each(:spellings) t"
        " CROSS JOIN package p ON p.channel_id = CAST(c.key AS INTEGER) AND p.family = f.value AND p.name IN"
        " (SELECT DISTINCT n.name FROM package n WHERE n.channel_id = CAST(c.key AS INTEGER) AND n.family = f.value"
        "  AND n.name >= t.value AND n.name < t.value || char(1114111) ORDER BY n.name LIMIT :each)"
        " WHERE p.files > 0 AND p.number = (SELECT max(q.number) FROM package q WHERE q.channel_id = p.channel_id"
        " AND q.family = p.family AND q.name = p.name AND q.number <= c.value)",
        {
            "numbers": json.dumps({str(channel): number for channel, number in numbers.items()}),
            "families": json.dumps(list(families)),
            "spellings": json.dumps(list(spellings)),
            "each": each,
        },
    )
    return [FoundRow(*row) for row in rows]


async def known(r: Reader, channel_id: int, number: int, family: str, names: Sequence[str]) -> set[str]:
    """Return which of these names a generation shows a package of."""
    rows = await r.rows(
        f"SELECT p.name FROM json_each(:names) n CROSS JOIN package p ON p.channel_id = :channel AND p.family = :family"
        f" AND p.name = n.value WHERE p.files > 0 AND p.number = {_FORCE.format('p')}",
        {"channel": channel_id, "number": number, "family": family, "names": json.dumps(list(names))},
    )
    return {row[0] for row in rows}


async def versions(r: Reader, channel_id: int, shows: int, family: str, name: str, limit: int) -> list[VersionRow]:
    """Return the versions of a package, in no order."""
    rows = await r.rows(
        f"SELECT a.version, count(*), coalesce(sum(a.size), 0) FROM {_VERSIONS} WHERE {_OF_PACKAGE}"
        " GROUP BY a.version LIMIT :limit",
        {"channel": channel_id, "shows": shows, "family": family, "name": name, "limit": limit},
    )
    return [VersionRow(*row) for row in rows]


async def files(
    r: Reader, channel_id: int, shows: int, family: str, name: str, version: str, limit: int
) -> list[ShownFileRow]:
    """Return the files of a version, by part and name."""
    rows = await r.rows(
        f"SELECT {_FILE} FROM {_VERSIONS} {_BESIDE} WHERE {_OF_PACKAGE} AND a.version = :version"
        " ORDER BY a.part, a.filename LIMIT :limit",
        {"channel": channel_id, "shows": shows, "family": family, "name": name, "version": version, "limit": limit},
    )
    return [_file(row) for row in rows]


async def files_ever(r: Reader, channel_id: int, family: str, name: str, limit: int) -> list[tuple[int, str, str, int]]:
    """Return id, file name, version and size (0: not known) of all that was ever a file of a package, by id."""
    return await r.rows(
        "SELECT a.id, a.filename, a.version, coalesce(a.size, 0) FROM artifact a WHERE a.channel_id = ?"
        f" AND a.family = ? AND a.name = ? AND {counted('a')} ORDER BY a.id LIMIT ?",
        (channel_id, family, name, limit),
    )


async def files_by_id(r: Reader, channel_id: int, ids: Sequence[int]) -> list[ShownFileRow]:
    """Return these files, by part and name."""
    rows = await r.rows(
        f"SELECT {_FILE} FROM json_each(:ids) i CROSS JOIN {_VERSIONS} {_BESIDE} WHERE a.id = i.value"
        " AND a.channel_id = :channel ORDER BY a.part, a.filename",
        {"channel": channel_id, "ids": json.dumps(list(ids))},
    )
    return [_file(row) for row in rows]


def _file(row: Row) -> ShownFileRow:
    sha256 = None if row[5] is None else row[5].hex()
    return ShownFileRow(row[0], row[1], row[2], row[3], row[4], sha256, row[6], row[7], bytes(row[8]))


async def snapshots(r: Reader, channel_id: int, limit: int) -> list[SnapshotRow]:
    """Return a channel's kept generations, the newest first."""
    rows = await r.rows(
        "SELECT number, time, added, removed, artifacts FROM generation WHERE channel_id = ? AND kept"
        " ORDER BY number DESC LIMIT ?",
        (channel_id, limit),
    )
    return [SnapshotRow(*row) for row in rows]


async def pages_read(
    r: Reader, mirrors: Sequence[int], query: str | None, until_ms: int | None, after: str | None, limit: int
) -> list[ReadPageRow]:
    """Return lazy parts that were read until a moment (None: now), by name, those after one."""
    rows = await r.rows(
        "SELECT part, max(read_at) FROM page WHERE mirror_id IN (SELECT value FROM json_each(:mirrors))"
        r" AND body IS NOT NULL AND (:query IS NULL OR part LIKE :query ESCAPE '\')"
        " AND (:until IS NULL OR read_at <= :until) AND (:after IS NULL OR part > :after)"
        " GROUP BY part ORDER BY part LIMIT :limit",
        {"mirrors": json.dumps(list(mirrors)), "query": None if query is None else _containing(query)}
        | {"until": until_ms, "after": after, "limit": limit},
    )
    return [ReadPageRow(*row) for row in rows]


def _containing(text: str) -> str:
    """Return the LIKE pattern for a text anywhere in a name."""
    return "%" + text.replace("\\", r"\\").replace("%", r"\%").replace("_", r"\_") + "%"
