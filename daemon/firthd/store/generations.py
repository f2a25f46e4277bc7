"""The SQL of change sets, generations and what they publish."""

import json
from collections.abc import Sequence

from msgspec import Struct

from firth_protocol.types import Cause, Family
from firthd.store.columns import counted, selected
from firthd.store.database import Reader, Row, Tx
from firthd.store.offers import shadowed_sql

OPEN, FINISHED, PUBLISHED, ABANDONED, DISCARDED = "open", "finished", "published", "abandoned", "discarded"


class ChangeSetRow(Struct, frozen=True, kw_only=True):
    id: int
    channel_id: int
    mirror_id: int | None
    run_id: int | None
    cause: str
    added: int
    closed: int


async def open_change_set(
    tx: Tx, *, channel_id: int, mirror_id: int | None, run_id: int | None, cause: Cause, now_ms: int
) -> int:
    return await tx.insert(
        "INSERT INTO change_set(channel_id, mirror_id, run_id, cause, state, created_at) VALUES (?, ?, ?, ?, ?, ?)",
        (channel_id, mirror_id, run_id, cause, OPEN, now_ms),
    )


async def finish_change_set(
    tx: Tx, change_set: int, *, added: int, closed: int, now_ms: int, renewed: Sequence[str] = ()
) -> None:
    """Finish a set; `renewed`: family/part of the indexes beside which something is new."""
    await tx.execute(
        "UPDATE change_set SET state = ?, added = ?, closed = ?, finished_at = ?, parts = ? WHERE id = ?",
        (FINISHED, added, closed, now_ms, json.dumps(sorted(renewed)), change_set),
    )


async def mark_discarded(tx: Tx, change_set: int) -> None:
    await tx.execute("UPDATE change_set SET state = ?, added = 0, closed = 0 WHERE id = ?", (DISCARDED, change_set))


async def mark_abandoned(tx: Tx, change_set: int) -> None:
    """Say that nobody will finish a change set; its rows wait for being taken away."""
    await tx.execute("UPDATE change_set SET state = ? WHERE id = ? AND state = ?", (ABANDONED, change_set, OPEN))


async def take_back(tx: Tx, run_id: int) -> int:
    """Abandon what a run has finished but nobody has published; return how many change sets."""
    return await tx.execute(
        "UPDATE change_set SET state = ? WHERE run_id = ? AND state = ?", (ABANDONED, run_id, FINISHED)
    )


async def abandon_open(tx: Tx) -> int:
    """Abandon every unfinished change set: what a crash left behind. Return how many."""
    return await tx.execute("UPDATE change_set SET state = ? WHERE state = ?", (ABANDONED, OPEN))


async def abandoned_change_sets(r: Reader, channel_id: int | None) -> list[int]:
    """Return the sets that nobody will finish; of a run that is over, whose disk may have been too full to say so."""
    rows = await r.rows(
        "SELECT id FROM change_set WHERE (? IS NULL OR channel_id = ?) AND (state = ? OR (state = ?"
        " AND EXISTS (SELECT 1 FROM run r WHERE r.id = change_set.run_id AND r.finished_at IS NOT NULL)))",
        (channel_id, channel_id, ABANDONED, OPEN),
    )
    return [row[0] for row in rows]


async def finished_change_sets(r: Reader, channel_id: int) -> list[ChangeSetRow]:
    """Return a channel's draft: the finished change sets without a generation, in order."""
    rows = await r.rows(
        f"SELECT {selected(ChangeSetRow.__struct_fields__, 's')} FROM change_set s"
        " WHERE s.channel_id = ? AND s.state = ? ORDER BY s.id",
        (channel_id, FINISHED),
    )
    return [ChangeSetRow(**dict(zip(ChangeSetRow.__struct_fields__, row, strict=True))) for row in rows]


async def taken_in_since(r: Reader, mirror_id: int, run_id: int) -> bool:
    """Tell whether this run of a mirror, or a later one, has written what it brought."""
    return bool(
        await r.value(
            "SELECT EXISTS (SELECT 1 FROM change_set WHERE channel_id = (SELECT channel_id FROM mirror WHERE id = ?)"
            " AND state IN (?, ?) AND mirror_id = ? AND run_id >= ?)",
            (mirror_id, FINISHED, PUBLISHED, mirror_id, run_id),
        )
    )


async def families_of(r: Reader, change_sets: Sequence[int]) -> frozenset[str] | None:
    """Return the families that change sets may change: those of their mirrors. None when one has no mirror."""
    rows = await r.rows(
        "SELECT DISTINCT m.type FROM change_set s LEFT JOIN mirror m ON m.id = s.mirror_id"
        " WHERE s.id IN (SELECT value FROM json_each(?))",
        (json.dumps(list(change_sets)),),
    )
    return None if any(row[0] is None for row in rows) else frozenset(row[0] for row in rows)


async def proven_above(r: Reader) -> int:
    """Return up to which artifact id records were taken before every published form was proven to hold them."""
    return int(await r.value("SELECT value FROM setting WHERE key = 'proven above'") or 0)


# --- generations ----------------------------------------------------------------------------------------


class GenerationRow(Struct, frozen=True, kw_only=True):
    number: int
    shows: int
    time: int
    cause: Cause
    run_id: int | None
    added: int
    removed: int
    artifacts: int
    packages: int
    bytes: int
    digest: str
    kept: bool


_GENERATION = ", ".join(GenerationRow.__struct_fields__)


def _generation(row: Row) -> GenerationRow:
    values = dict(zip(GenerationRow.__struct_fields__, row, strict=True))
    values["cause"] = Cause(values["cause"])
    values["kept"] = bool(values["kept"])
    return GenerationRow(**values)


class FamilyRow(Struct, frozen=True, kw_only=True):
    """What a generation holds of one family."""

    family: str
    state: bytes | None  # of the set of its packages; None: a release that knew none has published it
    artifacts: int
    packages: int
    bytes: int
    shadowed: dict[int, int]  # mirror -> visible files of names that another mirror owns


async def generation(r: Reader, channel_id: int, number: int) -> GenerationRow | None:
    row = await r.row(f"SELECT {_GENERATION} FROM generation WHERE channel_id = ? AND number = ?", (channel_id, number))
    return _generation(row) if row else None


async def generations(r: Reader, channel_id: int, before: int | None, limit: int) -> list[GenerationRow]:
    """Return a channel's generations, newest first, older than number `before`."""
    rows = await r.rows(
        f"SELECT {_GENERATION} FROM generation WHERE channel_id = ? AND (? IS NULL OR number < ?)"
        " ORDER BY number DESC LIMIT ?",
        (channel_id, before, before, limit),
    )
    return [_generation(row) for row in rows]


async def count(r: Reader, channel_id: int) -> int:
    """Return how many generations of a channel are listed."""
    return int(await r.value("SELECT count(*) FROM generation WHERE channel_id = ?", (channel_id,)))


async def generation_families(r: Reader, channel_id: int, number: int) -> list[FamilyRow]:
    rows = await r.rows(
        "SELECT family, artifacts, packages, bytes, state, shadowed FROM generation_family"
        " WHERE channel_id = ? AND number = ? ORDER BY family",
        (channel_id, number),
    )
    return [
        FamilyRow(
            family=row[0],
            artifacts=row[1],
            packages=row[2],
            bytes=row[3],
            state=row[4],
            shadowed={int(mirror): count for mirror, count in json.loads(row[5]).items()},
        )
        for row in rows
    ]


async def publish(
    tx: Tx,
    *,
    channel_id: int,
    row: GenerationRow,
    families: list[FamilyRow],
    change_sets: list[int],
) -> None:
    """Write a generation and give its change sets their number; the caller moves the pointer."""
    await tx.execute(
        f"INSERT INTO generation(channel_id, {_GENERATION}) VALUES (?{', ?' * len(GenerationRow.__struct_fields__)})",
        (
            channel_id,
            row.number,
            row.shows,
            row.time,
            row.cause,
            row.run_id,
            row.added,
            row.removed,
            row.artifacts,
            row.packages,
            row.bytes,
            row.digest,
            int(row.kept),
        ),
    )
    await tx.many(
        "INSERT INTO generation_family(channel_id, number, family, artifacts, packages, bytes, state, shadowed)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (
                channel_id,
                row.number,
                family.family,
                family.artifacts,
                family.packages,
                family.bytes,
                family.state,
                json.dumps(family.shadowed),
            )
            for family in families
        ],
    )
    await tx.many(
        "UPDATE change_set SET state = 'published', number = ? WHERE id = ?",
        [(row.number, change_set) for change_set in change_sets],
    )


async def nearest_kept(r: Reader, channel_id: int, number: int) -> list[GenerationRow]:
    """Return the kept generations next below and above a number."""
    below = await r.row(
        f"SELECT {_GENERATION} FROM generation WHERE channel_id = ? AND kept AND number < ?"
        " ORDER BY number DESC LIMIT 1",
        (channel_id, number),
    )
    above = await r.row(
        f"SELECT {_GENERATION} FROM generation WHERE channel_id = ? AND kept AND number > ? ORDER BY number LIMIT 1",
        (channel_id, number),
    )
    return [_generation(row) for row in (below, above) if row]


async def last_until(r: Reader, channel_id: int, until_ms: int, *, kept: bool) -> GenerationRow | None:
    """Return the last generation published at or before a moment."""
    row = await r.row(
        f"SELECT {_GENERATION} FROM generation WHERE channel_id = ? AND time <= ? AND kept >= ?"
        " ORDER BY number DESC LIMIT 1",
        (channel_id, until_ms, int(kept)),
    )
    return _generation(row) if row else None


async def kept_generations(r: Reader, channel_id: int) -> list[tuple[int, int, int]]:
    """Return (number, shows, time) of each kept generation, newest first."""
    rows = await r.rows(
        "SELECT number, shows, time FROM generation WHERE channel_id = ? AND kept ORDER BY number DESC", (channel_id,)
    )
    return [(row[0], row[1], row[2]) for row in rows]


async def drop_generations(tx: Tx, channel_id: int, numbers: list[int]) -> None:
    """Say of generations that they are no longer kept; their line in the list stays."""
    rows = [(channel_id, number) for number in numbers]
    await tx.many("UPDATE generation SET kept = 0 WHERE channel_id = ? AND number = ?", rows)
    await tx.many("DELETE FROM generation_family WHERE channel_id = ? AND number = ?", rows)


async def newest_own(r: Reader, channel_id: int, number: int) -> GenerationRow | None:
    """Return the newest generation up to a number that shows content of its own, not an earlier one's."""
    row = await r.row(
        f"SELECT {_GENERATION} FROM generation WHERE channel_id = ? AND number <= ? AND shows = number"
        " ORDER BY number DESC LIMIT 1",
        (channel_id, number),
    )
    return _generation(row) if row else None


async def sets_numbered(r: Reader, channel_id: int, low: int, high: int) -> list[int]:
    """Return the change sets that were published with a number above `low` and up to `high`."""
    rows = await r.rows(
        "SELECT id FROM change_set WHERE channel_id = ? AND state = ? AND number > ? AND number <= ? ORDER BY id",
        (channel_id, PUBLISHED, low, high),
    )
    return [row[0] for row in rows]


# --- what a generation changed --------------------------------------------------------------------------


class ChangeRow(Struct, frozen=True, kw_only=True):
    """An artifact that came or went between two numbers; `set_id` and `id` are its place in the list."""

    came: bool
    set_id: int
    id: int
    family: str
    part: str
    filename: str
    name: str
    version: str
    build: str
    size: int | None
    reason: str
    mirror: str | None
    run_id: int | None


DRAFT = 1 << 60
"""Stands for the number that the draft's change sets are going to get."""


async def changes_page(
    r: Reader,
    channel_id: int,
    low: int,
    high: int,
    *,
    came: bool,
    after: tuple[int, int],
    limit: int,
    package: str | None = None,
) -> list[ChangeRow]:
    """Return what entered (or left) between the contents of `low` and `high`, by change set and row."""
    number = _NUMBER.format("s")
    touching, of = "", None
    if package is not None:
        column = "added_set" if came else "closed_set"
        touching = (
            f" AND s.id IN (SELECT {column} FROM artifact INDEXED BY artifact_package WHERE channel_id = :channel"
            f" AND family IN {_FAMILIES} AND name = :package)"
        )
        of = (channel_id, package)
    sets = await r.rows(
        "SELECT s.id, s.run_id, s.cause FROM change_set s WHERE s.channel_id = :channel"
        f" AND {number} > :low AND {number} <= :high AND s.id >= :first{touching} ORDER BY s.id",
        {"channel": channel_id, "low": low, "high": high, "first": after[0], "package": package},
    )
    found: list[ChangeRow] = []
    for set_id, run_id, cause in sets:  # one by one: each has an index of its own, and no page sorts the whole channel
        beyond = after[1] if set_id == after[0] else 0
        wanted = limit - len(found)
        rows = await _changed_by(r, set_id, low, high, came=came, beyond=beyond, limit=wanted, of=of)
        found += [
            ChangeRow(
                came=came,
                set_id=set_id,
                id=row[0],
                family=row[1],
                part=row[2],
                filename=row[3],
                name=row[4],
                version=row[5],
                build=row[6],
                size=row[7],
                reason=cause if came else (row[8] or cause),
                mirror=row[9],
                run_id=run_id,
            )
            for row in rows
        ]
        if len(found) >= limit:
            break
    return found


_FAMILIES = "(" + ", ".join(f"'{family}'" for family in Family) + ")"
_NUMBER = f"(CASE WHEN {{0}}.state = 'finished' THEN {DRAFT} ELSE {{0}}.number END)"
"""The number that a change set has, or is going to get."""


_SHADOWED = shadowed_sql("a", _NUMBER, ":at")
"""Another mirror owns the name of `a` in the content of number :at."""


def _beside(at: str) -> str:
    """Return the SQL for the rows of the address of `a` that its own and co-owning mirrors show at a number."""
    entered, left = _NUMBER.format("ts"), _NUMBER.format("te")
    source = "(SELECT source FROM mirror WHERE id = {}.mirror_id)"
    return (
        "SELECT 1 FROM artifact t INDEXED BY artifact_file JOIN change_set ts ON ts.id = t.added_set"
        " LEFT JOIN change_set te ON te.id = t.closed_set WHERE t.channel_id = a.channel_id AND t.family = a.family"
        " AND t.part = a.part AND t.filename = a.filename AND t.section = a.section"
        f" AND (t.mirror_id = a.mirror_id OR {source.format('t')} = {source.format('a')})"
        f" AND {entered} <= {at} AND ({left} IS NULL OR {left} > {at}) AND NOT {shadowed_sql('t', _NUMBER, at)}"
    )


# Mirrors that own a name together may have the same file twice: it shows once, and is told of once.
_TWICE = (
    "((SELECT count(*) FROM mirror m WHERE m.channel_id = a.channel_id) > 1 AND"
    f" (EXISTS ({_beside(':at')} AND t.id > a.id) OR EXISTS ({_beside(':other')} AND t.fingerprint = a.fingerprint)))"
)


async def _changed_by(
    r: Reader, set_id: int, low: int, high: int, *, came: bool, beyond: int, limit: int, of: tuple[int, str] | None
) -> list[Row]:
    """`of`: files of this package of the channel only."""
    entered, left = _NUMBER.format("s"), _NUMBER.format("e")
    if came:
        joined = "LEFT JOIN change_set e ON e.id = a.closed_set"
        inside = f"a.added_set = :set AND ({left} IS NULL OR {left} > :high)"
    else:
        joined = "JOIN change_set s ON s.id = a.added_set"
        inside = f"a.closed_set = :set AND {entered} <= :low"
    index = ""
    if of is not None:  # all of a package's rows are fewer than all of a change set's
        index = "INDEXED BY artifact_package"
        inside += f" AND a.channel_id = :channel AND a.family IN {_FAMILIES} AND a.name = :package"
    return await r.rows(
        "SELECT a.id, a.family, a.part, a.filename, a.name, a.version, a.build, a.size, a.closed_reason, m.name"
        f" FROM artifact a {index} {joined} LEFT JOIN mirror m ON m.id = a.mirror_id"
        f" WHERE {inside} AND a.id > :beyond AND {counted('a')} AND NOT {_SHADOWED} AND NOT {_TWICE}"
        " ORDER BY a.id LIMIT :limit",
        {"set": set_id, "low": low, "high": high, "beyond": beyond, "limit": limit}
        | ({"channel": of[0], "package": of[1]} if of is not None else {})
        | {"at": high if came else low, "other": low if came else high},
    )


async def count_changes(r: Reader, channel_id: int, low: int, high: int, draft: Sequence[int] = ()) -> tuple[int, int]:
    """Return how many artifacts clients see come and go between the contents of two numbers.

    `draft`: finished change sets that count as the number DRAFT. A file whose name another mirror owns is not seen; it
    comes when its owner goes, and goes when one comes.
    """
    params = {"channel": channel_id, "low": low, "high": high, "draft": json.dumps(list(draft))}
    contest = await r.value("SELECT count(*) FROM mirror WHERE channel_id = :channel", params)
    row = await r.row(_SEEN_OF_SEVERAL if contest > 1 else _SEEN_OF_ONE, params)
    return (int(row[0]), int(row[1])) if row is not None else (0, 0)


def _planned(change_set: str) -> str:
    """Return the SQL for the number of a change set: the published one's, DRAFT for one of :draft, else NULL."""
    return (
        f"CASE WHEN {change_set}.state = 'published' THEN {change_set}.number"
        f" WHEN {change_set}.id IN (SELECT value FROM json_each(:draft)) THEN {DRAFT} END"
    )


_BETWEEN = (
    f"sets AS (SELECT s.id, {_planned('s')} AS number FROM change_set s WHERE s.channel_id = :channel),"
    " changed AS (SELECT id, number FROM sets WHERE number > :low AND number <= :high)"
)
# With one mirror every file is seen: what a change set says is what clients see.
_SEEN_OF_ONE = f"""WITH {_BETWEEN} SELECT
 (SELECT count(*) FROM changed s JOIN artifact a ON a.added_set = s.id LEFT JOIN sets e ON e.id = a.closed_set
  WHERE (e.number IS NULL OR e.number > :high) AND {counted("a")}),
 (SELECT count(*) FROM changed e CROSS JOIN artifact a INDEXED BY artifact_closed ON a.closed_set = e.id
  JOIN sets s ON s.id = a.added_set WHERE s.number <= :low AND {counted("a")})"""
# With several, of the names that changed: who owns each before and after, and which of the owners' files are there. The
# channel's own files (mirror 0) come last. Of mirrors that own a name together the newest row of an address is served.
_SEEN_OF_SEVERAL = f"""WITH {_BETWEEN},
 names AS (SELECT a.family, a.name FROM changed s JOIN artifact a ON a.added_set = s.id
  UNION SELECT a.family, a.name FROM changed e JOIN artifact a ON a.closed_set = e.id
  UNION SELECT o.family, o.name FROM changed s JOIN offered o ON o.added_set = s.id
  UNION SELECT o.family, o.name FROM changed e JOIN offered o ON o.closed_set = e.id),
 offers AS (SELECT o.family, o.name, CASE o.mirror_id WHEN 0 THEN {DRAFT} ELSE o.mirror_id END AS place,
   s.number <= :low AND (e.number IS NULL OR e.number > :low) AS before,
   s.number <= :high AND (e.number IS NULL OR e.number > :high) AS after
  FROM names n CROSS JOIN offered o ON o.channel_id = :channel AND o.family = n.family AND o.name = n.name
  JOIN sets s ON s.id = o.added_set LEFT JOIN sets e ON e.id = o.closed_set),
 sources AS (SELECT id AS place, source FROM mirror WHERE channel_id = :channel UNION ALL SELECT {DRAFT}, ''),
 owners AS (SELECT f.family, f.name, b.source AS before, c.source AS after FROM
  (SELECT family, name, min(place) FILTER (WHERE before) AS before, min(place) FILTER (WHERE after) AS after
   FROM offers GROUP BY family, name) f
  LEFT JOIN sources b ON b.place = f.before LEFT JOIN sources c ON c.place = f.after),
 versions AS (SELECT a.id, a.family, a.part, a.filename, a.section,
   s.number <= :low AND (e.number IS NULL OR e.number > :low) AND m.source = w.before AS before,
   s.number <= :high AND (e.number IS NULL OR e.number > :high) AND m.source = w.after AS after
  FROM owners w CROSS JOIN artifact a ON a.channel_id = :channel AND a.family = w.family AND a.name = w.name
   AND {counted("a")}
  JOIN sources m ON m.place = CASE a.mirror_id WHEN 0 THEN {DRAFT} ELSE a.mirror_id END
  JOIN sets s ON s.id = a.added_set LEFT JOIN sets e ON e.id = a.closed_set),
 shown AS (SELECT max(id) FILTER (WHERE before) AS before, max(id) FILTER (WHERE after) AS after
  FROM versions GROUP BY family, part, filename, section),
 differing AS (SELECT before, after FROM shown WHERE before IS NOT after
  AND NOT EXISTS (SELECT 1 FROM artifact b JOIN artifact c ON c.id = after AND c.fingerprint = b.fingerprint
   JOIN mirror m ON m.id = b.mirror_id JOIN mirror n ON n.id = c.mirror_id AND n.source = m.source WHERE b.id = before))
SELECT count(after), count(before) FROM differing"""


async def join_change_sets(tx: Tx, change_sets: list[int], number: int) -> None:
    """Number change sets that made no difference as part of the generation in force."""
    await tx.many(
        "UPDATE change_set SET state = 'published', number = ? WHERE id = ?",
        [(number, change_set) for change_set in change_sets],
    )
