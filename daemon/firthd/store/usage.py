"""The only place with the SQL of what clients have downloaded: counts by package, version, token and UTC day."""

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta, Struct

from firth_protocol.errors import CursorExpired
from firthd.store import paging
from firthd.store.database import Reader, Row, Tx

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


_GROUPS = {"day": "u.day", "version": "u.version", "token": "u.token_id"}
"""What a report may be grouped by beside channel and package, in the order of its columns and of the key."""
_PACKAGES = 200
"""Packages whose counts are added up at once: a page of the report never reads the whole of it."""


class _Asked(Struct, frozen=True, kw_only=True):
    """Which counts are asked for."""

    family: str | None
    name: str | None
    first: int | None
    last: int | None
    by: frozenset[str]

    @property
    def keys(self) -> list[str]:
        return ["u.family", "u.name", *(sql for group, sql in _GROUPS.items() if group in self.by)]

    @property
    def params(self) -> dict[str, object]:
        return {"family": self.family, "name": self.name, "first": self.first, "last": self.last}


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
    asked = _Asked(family=family, name=name, first=first, last=last, by=by)
    sort = f"downloads {','.join(sorted(by))}"
    place = None if cursor is None else _place(paging.decode(cursor, sort, str)["page_key"], 1 + len(asked.keys))
    seen, params = paging.visible("c.name", patterns)
    channels = await r.rows(
        f"SELECT c.id, c.name FROM channel c WHERE c.deleted_at IS NULL AND {seen}"
        " AND (:channel IS NULL OR c.name = :channel) AND (:after IS NULL OR c.name >= :after) ORDER BY c.name",
        {**params, "channel": channel, "after": place[0] if place else None},
    )
    found: list[tuple[str, Row]] = []
    for channel_id, channel_name in channels:
        beyond = place[1:] if place is not None and place[0] == channel_name else None
        rows = await _of_channel(r, channel_id, asked, beyond, limit + 1 - len(found))
        found += [(channel_name, row) for row in rows]
        if len(found) > limit:
            break
    tokens = dict(await r.rows("SELECT id, name FROM token")) | {0: ""}
    page, following = paging.cut(sort, found, limit, lambda one: (None, _key(one[0], one[1])))
    return [_row(channel_name, row, asked, tokens) for channel_name, row in page], following


async def _of_channel(
    r: Reader, channel_id: int, asked: _Asked, beyond: list[str | int] | None, limit: int
) -> list[Row]:
    """Return up to `limit` lines of a channel, those behind the key `beyond`."""
    keys = ", ".join(asked.keys)
    wanted = "u.channel_id = :channel AND (:family IS NULL OR u.family = :family) AND (:name IS NULL OR u.name = :name)"
    params = asked.params | {"channel": channel_id}
    after = "1"
    low: Sequence[object] = ("", "")
    if beyond is not None:
        low = beyond[:2]
        params |= {f"key{number}": value for number, value in enumerate(beyond)}
        after = f"({keys}) > ({', '.join(f':key{number}' for number in range(len(beyond)))})"
    found: list[Row] = []
    while len(found) < limit:
        packages = await r.rows(
            f"SELECT DISTINCT u.family, u.name FROM usage u WHERE {wanted} AND (u.family, u.name) >= (:low0, :low1)"
            " ORDER BY u.family, u.name LIMIT :packages",
            params | {"low0": low[0], "low1": low[1], "packages": _PACKAGES},
        )
        if not packages:
            break
        high = packages[-1]
        found += await r.rows(
            f"SELECT {keys}, sum(u.downloads) FROM usage u WHERE {wanted} AND (u.family, u.name) >= (:low0, :low1)"
            f" AND (u.family, u.name) <= (:high0, :high1) AND {after} AND (:first IS NULL OR u.day >= :first)"
            f" AND (:last IS NULL OR u.day <= :last) GROUP BY {keys} ORDER BY {keys} LIMIT :limit",
            params | {"low0": low[0], "low1": low[1], "high0": high[0], "high1": high[1], "limit": limit - len(found)},
        )
        low = (high[0], f"{high[1]}\0")  # the name that would come next
    return found


def _row(channel: str, row: Row, asked: _Asked, tokens: Mapping[int, str]) -> UsageRow:
    keys = dict(zip([group for group in _GROUPS if group in asked.by], row[2:-1], strict=True))
    return UsageRow(
        channel=channel,
        family=row[0],
        name=row[1],
        day=keys.get("day"),
        version=keys.get("version"),
        token=tokens.get(keys["token"], "") if "token" in keys else None,
        downloads=row[-1],
    )


def _key(channel: str, row: Row) -> str:
    return msgspec.json.encode([channel, *row[:-1]]).decode()


_Day = Annotated[int, Meta(ge=-(1 << 31), lt=1 << 31)]


def _place(text: str, length: int) -> list[str | int]:
    place: list[str | int] = []
    with contextlib.suppress(msgspec.DecodeError):
        place = msgspec.json.decode(text, type=list[str | _Day])
    if len(place) != length:
        raise CursorExpired("the cursor does not belong to this list", hint="start again without a cursor")
    return place
