"""The SQL of advisories: what was imported, and what was set by hand."""

from collections.abc import Sequence

from msgspec import Struct

from firthd.store import paging
from firthd.store.database import Reader, Tx


class AdvisoryRow(Struct, frozen=True, kw_only=True):
    """One advisory; `document` is what policies read of it."""

    id: str
    families: str
    names: str
    document: bytes
    status: str
    imported_at: int
    set_by: str | None = None
    set_at: int | None = None
    note: str = ""


_FIELDS = AdvisoryRow.__struct_fields__
_SELECT = f"SELECT {', '.join(_FIELDS)} FROM advisory"


async def by_ids(r: Reader, ids: Sequence[str]) -> dict[str, AdvisoryRow]:
    """Return those of the ids that are there."""
    marks = ", ".join("?" * len(ids))
    rows = await r.rows(f"{_SELECT} WHERE id IN ({marks})", tuple(ids))
    found = [AdvisoryRow(**dict(zip(_FIELDS, row, strict=True))) for row in rows]
    return {row.id: row for row in found}


async def page(
    r: Reader, *, query: str | None, status: str | None, cursor: str | None, limit: int
) -> tuple[list[AdvisoryRow], str | None, int]:
    """Return one page by id, the cursor of the next, and how many there are; `query`: part of an id or of a name."""
    where = (
        "(:query IS NULL OR instr(lower(id), lower(:query)) OR instr(lower(names), lower(:query)))"
        " AND (:status IS NULL OR status = :status)"
    )
    after = paging.decode(cursor, "id")["page_key"]
    values = {"query": query, "status": status, "after": after, "limit": limit + 1}
    rows = await r.rows(f"{_SELECT} WHERE {where} AND (:after IS NULL OR id > :after) ORDER BY id LIMIT :limit", values)
    total = await r.value(f"SELECT count(*) FROM advisory WHERE {where}", values)
    found = [AdvisoryRow(**dict(zip(_FIELDS, row, strict=True))) for row in rows]
    shown, following = paging.cut("id", found, limit, lambda row: (None, row.id))
    return shown, following, int(total)


async def about(r: Reader, family: str, name: str) -> list[bytes]:
    """Return the documents of the advisories that name one package of a family."""
    rows = await r.rows(
        "SELECT document FROM advisory WHERE families LIKE ?"
        " AND instr(char(10) || names || char(10), char(10) || ? || char(10))",
        (f'%"{family}"%', name),
    )
    return [row[0] for row in rows]


async def put(tx: Tx, rows: Sequence[AdvisoryRow]) -> None:
    """Write advisories, new or in place of those that are there."""
    await tx.many(
        f"INSERT OR REPLACE INTO advisory({', '.join(_FIELDS)}) VALUES ({', '.join('?' * len(_FIELDS))})",
        [tuple(getattr(row, field) for field in _FIELDS) for row in rows],
    )
