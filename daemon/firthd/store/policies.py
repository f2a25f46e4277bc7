"""The SQL of policies: what they say, where they are in force, and when records were seen first."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct

from firth_protocol.types import Family, Rules
from firthd.store import paging
from firthd.store.database import Database, Reader, Row, Tx

SIGHTS_A_WRITE = 10_000


class PolicyRow(Struct, frozen=True, kw_only=True):
    id: int
    name: str
    description: str
    families: list[Family]
    rules: Rules
    created_at: int
    updated_at: int
    revision: int


class PolicyUser(Struct, frozen=True, kw_only=True):
    """A mirror, or a channel by itself, to which a policy is assigned."""

    channel_id: int
    channel: str
    mirror_id: int | None
    mirror: str | None


_FIELDS = PolicyRow.__struct_fields__
_POLICY = f"SELECT {', '.join(f'p.{field}' for field in _FIELDS)} FROM policy p"


def _policy(row: Row) -> PolicyRow:
    values = dict(zip(_FIELDS, row, strict=True))
    values["families"] = msgspec.json.decode(values["families"], type=list[Family])
    values["rules"] = msgspec.json.decode(values["rules"], type=Rules)
    return PolicyRow(**values)


async def by_name(r: Reader, name: str) -> PolicyRow | None:
    row = await r.row(f"{_POLICY} WHERE p.name = ?", (name,))
    return _policy(row) if row else None


async def every(r: Reader) -> list[PolicyRow]:
    return [_policy(row) for row in await r.rows(f"{_POLICY} ORDER BY p.name")]


async def page(
    r: Reader, *, query: str | None, cursor: str | None, limit: int
) -> tuple[list[PolicyRow], str | None, int]:
    """Return one page of policies by name, the cursor of the next, and how many there are."""
    where = "(:query IS NULL OR instr(lower(p.name || ' ' || p.description), lower(:query)))"
    after = paging.decode(cursor, "name")["page_key"]
    values = {"query": query, "after": after, "limit": limit + 1}
    rows = await r.rows(
        f"{_POLICY} WHERE {where} AND (:after IS NULL OR p.name > :after) ORDER BY p.name LIMIT :limit", values
    )
    total = await r.value(f"SELECT count(*) FROM policy p WHERE {where}", {"query": query})
    found, following = paging.cut("name", [_policy(row) for row in rows], limit, lambda row: (None, row.name))
    return found, following, int(total)


async def insert(tx: Tx, *, name: str, description: str, families: Sequence[Family], rules: Rules, now_ms: int) -> int:
    """Write a new policy; return its id."""
    return await tx.insert(
        "INSERT INTO policy(name, description, families, rules, created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?)",
        (name, description, _json(list(families)), _json(rules), now_ms, now_ms),
    )


async def update(tx: Tx, policy_id: int, changes: dict[str, Any], now_ms: int) -> None:
    """Set columns of a policy and raise its revision."""
    assert changes.keys() <= {"description", "families", "rules"}
    values = {key: value if key == "description" else _json(value) for key, value in changes.items()}
    sets = "".join(f"{column} = :{column}, " for column in values)
    await tx.execute(
        f"UPDATE policy SET {sets} updated_at = :now, revision = revision + 1 WHERE id = :id",
        {**values, "id": policy_id, "now": now_ms},
    )


async def delete(tx: Tx, policy_id: int) -> None:
    await tx.execute("DELETE FROM policy WHERE id = ?", (policy_id,))


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


async def users(r: Reader, name: str, patterns: paging.Patterns = None) -> list[PolicyUser]:
    """Return to what a policy is assigned, of channels that a caller may see."""
    seen, params = paging.visible("c.name", patterns)
    rows = await r.rows(
        "SELECT c.id, c.name, NULL, NULL FROM channel c"
        f" WHERE c.policy = :policy AND c.deleted_at IS NULL AND {seen}"
        " UNION ALL SELECT c.id, c.name, m.id, m.name FROM mirror m JOIN channel c ON c.id = m.channel_id"
        f" WHERE m.policy = :policy AND m.deleted_at IS NULL AND c.deleted_at IS NULL AND {seen} ORDER BY 2, 3",
        {**params, "policy": name},
    )
    return [PolicyUser(channel_id=row[0], channel=row[1], mirror_id=row[2], mirror=row[3]) for row in rows]


async def has_own(r: Reader, channel_id: int) -> bool:
    """Tell whether a channel may have artifacts that are its own: they were those of a mirror that is no more."""
    return bool(
        await r.value(
            "SELECT EXISTS (SELECT 1 FROM mirror WHERE channel_id = ? AND deleted_at IS NOT NULL)", (channel_id,)
        )
    )


async def copy_sights(db: Database, schema: str, mirror_id: int) -> None:
    """Copy what a run has seen for the first time out of its attached file, in short batches."""
    last = int(await db.write(lambda tx: tx.value(f"SELECT coalesce(max(rowid), 0) FROM {schema}.sight")))
    for low in range(0, last, SIGHTS_A_WRITE):
        values = {"mirror": mirror_id, "low": low, "high": low + SIGHTS_A_WRITE}

        async def some(tx: Tx, values: dict[str, int] = values) -> None:
            await tx.execute(
                "INSERT OR REPLACE INTO first_sight(mirror_id, part, filename, digest, seen_at)"
                f" SELECT :mirror, s.part, s.filename, s.digest, s.seen_at FROM {schema}.sight s"
                " WHERE s.rowid > :low AND s.rowid <= :high",
                values,
            )

        await db.write(some)


class ReleaseRow(NamedTuple):
    """What a file tells of a release, beside what its mirror's index does."""

    part: str
    version: str
    filename: str
    digest: str
    document: bytes


async def told(r: Reader, channel_id: int, part: str, version: str) -> bytes | None:
    """Return what a file tells of a release; None: none was read."""
    found = await r.value(
        "SELECT document FROM release WHERE channel_id = ? AND part = ? AND version = ? LIMIT 1",
        (channel_id, part, version),
    )
    return None if found is None else bytes(found)


async def note_told(tx: Tx, *, channel_id: int, rows: Sequence[ReleaseRow]) -> None:
    """Remember what files tell of releases."""
    for row in rows:
        await tx.execute("INSERT OR REPLACE INTO release VALUES (?, ?, ?, ?, ?, ?)", (channel_id, *row))


async def forget_told(tx: Tx) -> None:
    """Forget some of what is known of the releases of channels that are no more."""
    gone = "NOT EXISTS (SELECT 1 FROM channel c WHERE c.id = f.channel_id AND c.deleted_at IS NULL)"
    await tx.execute(
        "DELETE FROM release WHERE (channel_id, part, version, filename) IN"
        f" (SELECT channel_id, part, version, filename FROM release f WHERE {gone} LIMIT ?)",
        (SIGHTS_A_WRITE,),
    )


async def forget_sights(tx: Tx) -> None:
    """Forget some of what was seen of a mirror that is no more."""
    gone = await tx.value(
        "SELECT m.id FROM mirror m WHERE m.deleted_at IS NOT NULL"
        " AND EXISTS (SELECT 1 FROM first_sight f WHERE f.mirror_id = m.id) LIMIT 1"
    )
    if gone is not None:
        await tx.execute(
            "DELETE FROM first_sight WHERE mirror_id = ?1 AND (part, filename) IN"
            " (SELECT part, filename FROM first_sight WHERE mirror_id = ?1 LIMIT ?2)",
            (gone, SIGHTS_A_WRITE),
        )
