"""The SQL of advisories: what was imported, and what was set by hand."""

from collections.abc import Sequence

from msgspec import Struct

from firthd.store import offers, paging
from firthd.store.columns import counted
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


class DatabaseRow(Struct, frozen=True, kw_only=True):
    """One database of advisories: ids that begin alike."""

    name: str
    advisories: int
    withdrawn: int
    modified: str
    imported_at: int


async def by_database(r: Reader) -> list[DatabaseRow]:
    """Return what is there, by how ids begin; those with most advisories first."""
    rows = await r.rows(
        "SELECT CASE WHEN instr(id, '-') > 1 THEN substr(id, 1, instr(id, '-') - 1) ELSE 'other' END AS name,"
        " count(*), sum(coalesce(json_extract(CAST(document AS TEXT), '$.withdrawn'), 0)),"
        " max(coalesce(json_extract(CAST(document AS TEXT), '$.modified'), '')), max(imported_at)"
        " FROM advisory GROUP BY name ORDER BY count(*) DESC, name"
    )
    return [DatabaseRow(**dict(zip(DatabaseRow.__struct_fields__, row, strict=True))) for row in rows]


class NamedPackage(Struct, frozen=True, kw_only=True):
    """A package that a channel offers."""

    channel_id: int
    channel: str
    shows: int
    name: str
    version: str
    files: int


async def offered(r: Reader, family: str, name: str, patterns: paging.Patterns) -> list[NamedPackage]:
    """Return the channels that offer a package of this name, as far as a caller sees them."""
    seen, params = paging.visible("c.name", patterns)
    rows = await r.rows(
        "SELECT c.id, c.name, g.shows, p.name, p.version, p.files FROM channel c"
        " JOIN generation g ON g.channel_id = c.id AND g.number = c.generation"
        " JOIN package p ON p.channel_id = c.id AND p.family = :family AND p.name = :name AND p.files > 0"
        " AND p.number = (SELECT max(q.number) FROM package q WHERE q.channel_id = c.id AND q.family = p.family"
        " AND q.name = p.name AND q.number <= c.generation)"
        f" WHERE c.deleted_at IS NULL AND {seen} ORDER BY c.name",
        {"family": family, "name": name, **params},
    )
    return [NamedPackage(**dict(zip(NamedPackage.__struct_fields__, row, strict=True))) for row in rows]


async def policies_of(r: Reader, channel_id: int, family: str) -> list[str]:
    """Return the policies in force for a channel's mirrors of a family, or for the channel where it has none."""
    rows = await r.rows(
        "SELECT DISTINCT coalesce(m.policy, c.policy) AS policy FROM channel c"
        " LEFT JOIN mirror m ON m.channel_id = c.id AND m.type = :family AND m.deleted_at IS NULL"
        " WHERE c.id = :channel AND coalesce(m.policy, c.policy) IS NOT NULL ORDER BY policy",
        {"channel": channel_id, "family": family},
    )
    return [row[0] for row in rows]


async def builds(r: Reader, one: NamedPackage, family: str, limit: int) -> list[tuple[str, str, int]]:
    """Return version, build and number of the files of a package that clients see."""
    rows = await r.rows(
        "SELECT a.version, a.build, count(*) FROM artifact a JOIN change_set s ON s.id = a.added_set"
        " LEFT JOIN change_set e ON e.id = a.closed_set"
        " WHERE a.channel_id = :channel AND a.family = :family AND a.name = :name"
        " AND s.number <= :shows AND (e.number IS NULL OR e.number > :shows)"
        f" AND {counted('a')} AND NOT {offers.shadowed_sql('a', '{}.number', ':shows')}"
        " GROUP BY a.version, a.build LIMIT :limit",
        {"channel": one.channel_id, "family": family, "name": one.name, "shows": one.shows, "limit": limit},
    )
    return [(row[0], row[1], row[2]) for row in rows]
