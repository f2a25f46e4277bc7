"""The only place with the SQL of web tokens; a token's secret is never stored, its sha256 is."""

import json
from collections.abc import Mapping

from msgspec import Struct

from firth_protocol.types import Token
from firthd.clock import maybe_rfc3339, rfc3339
from firthd.store.database import Reader, Row, Tx


class TokenRow(Struct, frozen=True, kw_only=True):
    id: int
    name: str
    hash: bytes
    channels: tuple[str, ...]
    expires_at: int | None
    revoked_at: int | None


async def in_force(r: Reader) -> list[TokenRow]:
    """Return every token that is not revoked."""
    rows = await r.rows("SELECT id, name, hash, channels, expires_at, revoked_at FROM token WHERE revoked_at IS NULL")
    return [
        TokenRow(
            id=row[0],
            name=row[1],
            hash=row[2],
            channels=tuple(json.loads(row[3])),
            expires_at=row[4],
            revoked_at=row[5],
        )
        for row in rows
    ]


async def touch(tx: Tx, used: Mapping[int, int]) -> None:
    """Write when tokens were last used: id → ms."""
    await tx.many(
        "UPDATE token SET last_used_at = max(coalesce(last_used_at, 0), ?) WHERE id = ?",
        [(moment, token_id) for token_id, moment in used.items()],
    )


async def insert(
    tx: Tx, *, name: str, hash_: bytes, channels: list[str], created_by: str, expires_at: int | None, now_ms: int
) -> int:
    return await tx.insert(
        "INSERT INTO token(name, hash, channels, created_at, created_by, expires_at) VALUES (?, ?, ?, ?, ?, ?)",
        (name, hash_, json.dumps(channels), now_ms, created_by, expires_at),
    )


async def revoke(tx: Tx, token_id: int, now_ms: int) -> None:
    await tx.execute("UPDATE token SET revoked_at = coalesce(revoked_at, ?) WHERE id = ?", (now_ms, token_id))


_ITEM = "id, name, channels, created_at, created_by, expires_at, last_used_at, revoked_at"


def _item(row: Row) -> Token:
    return Token(
        id=row[0],
        name=row[1],
        channels=json.loads(row[2]),
        created_at=rfc3339(row[3]),
        created_by=row[4],
        expires_at=maybe_rfc3339(row[5]),
        last_used_at=maybe_rfc3339(row[6]),
        revoked=row[7] is not None,
    )


async def by_id(r: Reader, token_id: int) -> Token | None:
    row = await r.row(f"SELECT {_ITEM} FROM token WHERE id = ?", (token_id,))
    return _item(row) if row else None


async def page(r: Reader, *, query: str | None, after: int | None, limit: int) -> list[Token]:
    """Return tokens by id, those after id `after`."""
    rows = await r.rows(
        f"SELECT {_ITEM} FROM token WHERE (:after IS NULL OR id > :after)"
        " AND (:query IS NULL OR instr(lower(name), lower(:query))) ORDER BY id LIMIT :limit",
        {"after": after, "query": query, "limit": limit},
    )
    return [_item(row) for row in rows]
