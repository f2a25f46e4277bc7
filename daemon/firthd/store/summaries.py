"""The only place with the SQL of package summaries: one row for each generation that changed a package."""

import json
from functools import partial
from typing import Any

from msgspec import Struct

from firthd.store.columns import counted
from firthd.store.database import Database, Reader, Tx

_COLUMNS = "version, versions, files, bytes, platforms, depends, digest, hidden"
BATCH = 1000
"""Summaries that one transaction writes at the most."""


async def copy_packages(
    tx: Tx, schema: str, channel_id: int, number: int, after: tuple[str, str], limit: int
) -> tuple[str, str] | None:
    """Copy some of a run file's package summaries as rows of generation `number`; return the key to go on after."""
    page = await tx.rows(
        f"SELECT family, name FROM {schema}.package WHERE (family, name) > (?, ?) ORDER BY family, name LIMIT ?",
        (*after, limit),
    )
    if not page:
        return None
    high = (str(page[-1][0]), str(page[-1][1]))
    await tx.execute(
        "INSERT OR REPLACE INTO main.package(channel_id, family, name, number, version, versions, files, bytes,"
        f" platforms, depends, digest, hidden) SELECT ?, family, name, ?, {_COLUMNS}"
        f" FROM {schema}.package WHERE (family, name) > (?, ?) AND (family, name) <= (?, ?)",
        (channel_id, number, *after, *high),
    )
    return high


async def drop_unpublished_packages(db: Database, channel_id: int, published: int) -> None:
    """Take away summaries of a generation whose publication did not come about, in short transactions."""

    async def some(tx: Tx) -> int:
        return await tx.execute(
            "DELETE FROM package WHERE channel_id = ?1 AND (family, name, number) IN (SELECT family, name, number"
            " FROM package INDEXED BY package_number WHERE channel_id = ?1 AND number > ?2 LIMIT ?3)",
            (channel_id, published, BATCH),
        )

    while await db.write(some):
        pass


async def show_again(db: Database, channel_id: int, number: int, earlier: int) -> None:
    """Let generation `number` have the summaries of `earlier`; only what has changed since is read and written."""

    async def some(tx: Tx, after: tuple[str, str]) -> tuple[str, str] | None:
        page = await tx.rows(
            "SELECT DISTINCT family, name FROM package INDEXED BY package_number"
            " WHERE channel_id = ? AND number > ? AND number < ?"
            " AND (family, name) > (?, ?) ORDER BY family, name LIMIT ?",
            (channel_id, earlier, number, *after, BATCH),
        )
        await tx.many(
            f"INSERT OR REPLACE INTO package(channel_id, family, name, number, {_COLUMNS})"
            f" SELECT ?1, ?2, ?3, ?4, {_COLUMNS} FROM (SELECT {_COLUMNS}, number FROM package WHERE channel_id = ?1"
            " AND family = ?2 AND name = ?3 AND number <= ?5 UNION ALL SELECT '', 0, 0, 0, '[]', '[]', NULL, '{}', 0"
            " ORDER BY number DESC LIMIT 1)",
            [(channel_id, family, name, number, earlier) for family, name in page],
        )
        return (page[-1][0], page[-1][1]) if len(page) == BATCH else None

    after: tuple[str, str] | None = ("", "")
    while after is not None:
        after = await db.write(partial(some, after=after))


async def drop_between(db: Database, channel_id: int, low: int, high: int) -> None:
    """Take away summaries that only generations between two kept ones showed, in short transactions.

    `low` 0: nothing older is kept. One is shown until the next of its package; that of a package which is gone says
    nothing where none is before it.
    """
    earlier, later = (
        "EXISTS (SELECT 1 FROM package q WHERE q.channel_id = p.channel_id AND q.family = p.family AND q.name = p.name"
        f" AND q.number {than})"
        for than in ("< p.number", "> p.number AND q.number <= ?3")
    )
    superseded = f"p.number > ?2 AND {later}"
    of_nothing = f"p.files = 0 AND p.hidden = '{{}}' AND NOT {earlier}"
    for which in (superseded, of_nothing):

        async def some(tx: Tx, after: tuple[int, str, str], which: str = which) -> tuple[int, str, str] | None:
            key = (channel_id, low, high)
            page = await tx.rows(
                "SELECT p.number, p.family, p.name FROM package p INDEXED BY package_number"
                " WHERE p.channel_id = ? AND p.number > ? AND p.number <= ?"
                " AND (p.number, p.family, p.name) > (?, ?, ?)"
                " ORDER BY p.number, p.family, p.name LIMIT ?",
                (*key, *after, BATCH),
            )
            await tx.many(
                "DELETE FROM package AS p WHERE p.channel_id = ?1 AND p.number = ?4 AND p.family = ?5 AND p.name = ?6"
                f" AND {which}",
                [(*key, *row) for row in page],
            )
            return (page[-1][0], page[-1][1], page[-1][2]) if len(page) == BATCH else None

        last: tuple[int, str, str] | None = (low, "", "")
        while last is not None:
            last = await db.write(partial(some, after=last))


class SummaryRow(Struct, frozen=True, kw_only=True):
    family: str
    name: str
    version: str
    versions: int
    files: int
    bytes: int
    platforms: list[str]
    stored: int


PACKAGE_ORDERS = {"name": "p.name", "files": "p.files", "bytes": "p.bytes", "downloads": "coalesce(u.downloads, 0)"}
_IN_FORCE = (
    "p.channel_id = :channel AND p.files > 0 AND p.number = (SELECT max(q.number) FROM package q"
    " WHERE q.channel_id = p.channel_id AND q.family = p.family AND q.name = p.name AND q.number <= :number)"
)
_STORED = (
    "(SELECT count(*) FROM artifact a JOIN delivered d ON d.channel_id = a.channel_id AND d.sha256 = a.sha256"
    " WHERE a.channel_id = p.channel_id"
    " AND a.family = p.family AND a.name = p.name AND a.closed_set IS NULL"
    f" AND {counted('a')})"
)


_HAVE = (
    "LEFT JOIN (SELECT a.family, a.name, count(*) AS files FROM artifact a"
    " JOIN delivered d ON d.channel_id = a.channel_id AND d.sha256 = a.sha256"
    f" WHERE a.channel_id = :channel AND a.closed_set IS NULL AND {counted('a')} GROUP BY a.family, a.name) have"
    " ON have.family = p.family AND have.name = p.name"
)


async def shown_names(r: Reader, channel_id: int, number: int, family: str) -> set[str]:
    """Return the names of a family that a generation shows."""
    rows = await r.rows(
        f"SELECT p.name FROM package p WHERE {_IN_FORCE} AND p.family = :family",
        {"channel": channel_id, "number": number, "family": family},
    )
    return {row[0] for row in rows}


_LATELY = (
    " LEFT JOIN (SELECT family, name, sum(downloads) AS downloads FROM usage"
    " WHERE channel_id = :channel AND day > :since GROUP BY family, name) u"
    " ON u.family = p.family AND u.name = p.name"
)


async def packages_page(
    r: Reader,
    channel_id: int,
    number: int,
    *,
    family: str | None,
    query: str | None,
    platform: str | None,
    stored: bool | None,
    descending: bool,
    order_sql: str,
    page: dict[str, Any],
    limit: int,
    since: int = 0,
) -> tuple[list[tuple[SummaryRow, Any]], int]:
    """Return package summaries of a generation, each with its sort value, and how many there are in all.

    `stored` True: the channel has been given at least one file; False: at least one it has not. `since`: the UTC day
    after which downloads count, where they are the order.
    """
    sign, direction = ("<", "DESC") if descending else (">", "ASC")
    key = "(p.family || '/' || p.name)"
    where = (
        f"{_IN_FORCE} AND (:family IS NULL OR p.family = :family)"
        " AND (:query IS NULL OR instr(lower(p.name), lower(:query)))"
        " AND (:platform IS NULL OR instr(p.platforms, :platform))"
    )
    have = ""
    if stored is not None:  # one pass over the channel, not a look for each package
        have = _HAVE
        where += " AND have.files > 0" if stored else " AND coalesce(have.files, 0) < p.files"
    params = {
        **page,
        "channel": channel_id,
        "number": number,
        "family": family,
        "query": query,
        "platform": None if platform is None else json.dumps(platform),
        "limit": limit,
        "since": since,
    }
    lately = _LATELY if "u.downloads" in order_sql else ""  # one pass over the channel's counts
    rows = await r.rows(
        f"SELECT p.family, p.name, p.version, p.versions, p.files, p.bytes, p.platforms, {_STORED}, {order_sql}"
        f" FROM package p {have}{lately} WHERE {where}"
        f" AND (:page_key IS NULL OR ({order_sql}, {key}) {sign} (:page_value, :page_key))"
        f" ORDER BY {order_sql} {direction}, {key} {direction} LIMIT :limit",
        params,
    )
    total = int(await r.value(f"SELECT count(*) FROM package p {have} WHERE {where}", params))
    return [
        (
            SummaryRow(
                family=row[0],
                name=row[1],
                version=row[2],
                versions=row[3],
                files=row[4],
                bytes=row[5],
                platforms=json.loads(row[6]),
                stored=row[7],
            ),
            row[8],
        )
        for row in rows
    ], total


async def package_summary(r: Reader, channel_id: int, number: int, family: str, name: str) -> SummaryRow | None:
    row = await r.row(
        f"SELECT p.family, p.name, p.version, p.versions, p.files, p.bytes, p.platforms, 0 FROM package p"
        f" WHERE {_IN_FORCE} AND p.family = :family AND p.name = :name",
        {"channel": channel_id, "number": number, "family": family, "name": name},
    )
    if row is None:
        return None
    return SummaryRow(**dict(zip(SummaryRow.__struct_fields__, (*row[:6], json.loads(row[6]), 0), strict=True)))


async def dependants(
    r: Reader, channel_id: int, number: int, family: str, name: str, limit: int
) -> tuple[list[str], int]:
    """Return the first packages whose newest version depends on a name, and how many there are in all."""
    found = f"FROM package p WHERE {_IN_FORCE} AND p.family = :family AND instr(p.depends, :depends)"
    params = {"channel": channel_id, "number": number, "family": family, "depends": json.dumps(name), "limit": limit}
    rows = await r.rows(f"SELECT p.name {found} ORDER BY p.name LIMIT :limit", params)
    total = len(rows) if len(rows) < limit else int(await r.value(f"SELECT count(*) {found}", params))
    return [row[0] for row in rows], total
