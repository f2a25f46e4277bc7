"""The only place with the SQL of what clients have downloaded: counts by package, version, token and UTC day."""

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta, Struct

from firth_protocol.errors import CursorExpired
from firthd.store import paging
from firthd.store.database import Reader, Tx

DAY_MS = 86_400_000
KEPT_DAYS = 396
"""Thirteen months and a day: the same month of the year before can be compared with this one."""
LATELY_DAYS = 30
"""What lists show beside a package; a longer time would mean reading more rows than a page of packages is worth."""
BATCH = 500
"""Rows of one transaction: some milliseconds."""


class Download(NamedTuple):
    """What is counted together; `day` in UTC days since the epoch, `token_id` 0 for a client without one."""

    channel_id: int
    family: str
    name: str
    day: int
    version: str
    token_id: int


async def add(tx: Tx, counts: Iterable[tuple[Download, int]]) -> None:
    """Add to the counts; those of channels that are no more are let go."""
    await tx.many(
        "INSERT INTO usage(channel_id, family, name, day, version, token_id, downloads)"
        " SELECT id, ?2, ?3, ?4, ?5, ?6, ?7 FROM channel WHERE id = ?1 AND deleted_at IS NULL"
        " ON CONFLICT DO UPDATE SET downloads = downloads + excluded.downloads",
        [(*key, count) for key, count in counts],
    )


async def forget(tx: Tx, today: int) -> int:
    """Take away some of what is older than thirteen months, or of deleted channels; return how many rows."""
    gone = await tx.execute(
        "DELETE FROM usage WHERE (channel_id, family, name, day, version, token_id) IN (SELECT channel_id, family,"
        " name, day, version, token_id FROM usage WHERE day < ? LIMIT ?)",
        (today - KEPT_DAYS, BATCH),
    )
    return gone + await tx.execute(
        "DELETE FROM usage WHERE (channel_id, family, name, day, version, token_id) IN (SELECT u.channel_id, u.family,"
        " u.name, u.day, u.version, u.token_id FROM channel c CROSS JOIN usage u ON u.channel_id = c.id"
        " WHERE c.deleted_at IS NOT NULL LIMIT ?)",
        (BATCH,),
    )


async def lately(r: Reader, channel_id: int, packages: Sequence[tuple[str, str]], today: int) -> list[int]:
    """Return how often each (family, name) was downloaded in the last thirty days, in the order given."""
    found = {}
    for family, name in packages:
        found[family, name] = await r.value(
            "SELECT coalesce(sum(downloads), 0) FROM usage"
            " WHERE channel_id = ? AND family = ? AND name = ? AND day > ?",
            (channel_id, family, name, today - LATELY_DAYS),
        )
    return [int(found[package]) for package in packages]


async def by_version(r: Reader, channel_id: int, family: str, name: str) -> Mapping[str, int]:
    """Return version → downloads of a package, of all the time that is kept."""
    rows = await r.rows(
        "SELECT version, sum(downloads) FROM usage WHERE channel_id = ? AND family = ? AND name = ? GROUP BY version",
        (channel_id, family, name),
    )
    return dict(rows)


class UsageRow(Struct, frozen=True, kw_only=True):
    """A line of the report; None for what it is not grouped by. `token` is "" for clients without one."""

    channel: str
    family: str
    name: str
    day: int | None
    version: str | None
    token: str | None
    downloads: int


_SHOWN = {"day": "u.day", "version": "u.version", "token": "coalesce(t.name, '')"}
"""What a report may be grouped by beside channel and package, in the order of its columns."""


async def report(
    r: Reader,
    *,
    channel: str | None,
    family: str | None,
    name: str | None,
    first: int | None,
    last: int | None,
    by: frozenset[str],
    cursor: str | None,
    limit: int,
    patterns: paging.Patterns,
) -> tuple[list[UsageRow], str | None]:
    """Return a page of what was downloaded from day `first` to day `last`, and the cursor behind it."""
    keys = ["c.name", "u.family", "u.name", *(sql for shown, sql in _SHOWN.items() if shown in by)]
    seen, params = paging.visible("c.name", patterns)
    values: dict[str, object] = {
        **params,
        "channel": channel,
        "family": family,
        "name": name,
        "first": first,
        "last": last,
        "limit": limit + 1,
    }
    sort = f"downloads {','.join(sorted(by))}"
    beyond = "1"
    if cursor is not None:
        place = _place(paging.decode(cursor, sort, str)["page_key"], len(keys))
        values |= {f"key{number}": value for number, value in enumerate(place)}
        beyond = f"({', '.join(keys)}) > ({', '.join(f':key{number}' for number in range(len(keys)))})"
    columns = ", ".join(sql if shown in by else "NULL" for shown, sql in _SHOWN.items())
    rows = await r.rows(
        f"SELECT c.name, u.family, u.name, {columns}, sum(u.downloads) FROM usage u"
        " JOIN channel c ON c.id = u.channel_id AND c.deleted_at IS NULL LEFT JOIN token t ON t.id = u.token_id"
        f" WHERE {seen} AND (:channel IS NULL OR c.name = :channel) AND (:family IS NULL OR u.family = :family)"
        " AND (:name IS NULL OR u.name = :name) AND (:first IS NULL OR u.day >= :first)"
        f" AND (:last IS NULL OR u.day <= :last) AND {beyond}"
        f" GROUP BY {', '.join(keys)} ORDER BY {', '.join(keys)} LIMIT :limit",
        values,
    )
    found = [UsageRow(**dict(zip(UsageRow.__struct_fields__, row, strict=True))) for row in rows]
    return paging.cut(sort, found, limit, lambda one: (None, _key(one)))


def _key(row: UsageRow) -> str:
    keys = (row.channel, row.family, row.name, row.day, row.version, row.token)
    return msgspec.json.encode([key for key in keys if key is not None]).decode()


_Day = Annotated[int, Meta(ge=-(1 << 31), lt=1 << 31)]


def _place(text: str, length: int) -> list[str | int]:
    place: list[str | int] = []
    with contextlib.suppress(msgspec.DecodeError):
        place = msgspec.json.decode(text, type=list[str | _Day])
    if len(place) != length:
        raise CursorExpired("the cursor does not belong to this list", hint="start again without a cursor")
    return place
