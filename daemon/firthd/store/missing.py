"""The only place with the SQL of files that a mirror lists and its channel has not been given."""

from collections.abc import Sequence
from typing import Any

from firthd.store import artifacts
from firthd.store.database import Database, Reader, Tx
from firthd.store.run_reads import Wanted, wanted_of

PAGE = 500
_COLUMNS = "a.id, a.part, a.section, a.filename, a.name, a.size, a.sha256, a.md5, k.raw"
_RECORD = "JOIN artifact_record k ON k.artifact_id = a.id"
_MISSING = (
    "a.channel_id = :channel AND a.mirror_id = :mirror AND a.closed_set IS NULL"
    " AND EXISTS (SELECT 1 FROM change_set s WHERE s.id = a.added_set AND s.state IN ('finished', 'published'))"
    " AND NOT EXISTS (SELECT 1 FROM delivered d WHERE d.channel_id = a.channel_id AND d.sha256 = a.sha256)"
)


async def page(
    r: Reader, channel_id: int, mirror_id: int, after: int, names: Sequence[tuple[str, str]] | None
) -> list[Wanted]:
    """Return the next missing files of a mirror by the ids of their rows; `names`: of these (family, name) only."""
    key: dict[str, Any] = {"channel": channel_id, "mirror": mirror_id, "after": after, "limit": PAGE}
    table = "artifact a NOT INDEXED"  # windows of ids: by an index of the channel each page would look at all of it
    of = ""
    if names is not None:
        table = "artifact a INDEXED BY artifact_package"
        pairs = [f"(a.family = :f{number} AND a.name = :n{number})" for number in range(len(names))]
        of = f" AND ({' OR '.join(pairs) or '0'})"
        key |= {f"f{number}": family for number, (family, _) in enumerate(names)}
        key |= {f"n{number}": name for number, (_, name) in enumerate(names)}
    rows = await r.rows(
        f"SELECT {_COLUMNS} FROM {table} {_RECORD} WHERE a.id > :after AND {_MISSING}{of} ORDER BY a.id LIMIT :limit",
        key,
    )
    return list(map(wanted_of, rows))


class ChosenFiles:
    """The files that a run was told to bring, by the ids of their rows; one that cannot be had changes no row."""

    def __init__(self, db: Database, chosen: Sequence[int]) -> None:
        self._db = db
        self._chosen = sorted(chosen)

    async def wanted(self, after: int, limit: int) -> list[Wanted]:
        """Return the next files, in order."""
        ids = [one for one in self._chosen if one > after][:limit]
        rows = await self._db.read(
            lambda r: r.rows(
                f"SELECT {_COLUMNS} FROM artifact a {_RECORD} WHERE a.id IN ({', '.join('?' * len(ids))})"
                " ORDER BY a.id",
                ids,
            )
        )
        found = list(map(wanted_of, rows))
        if ids and not found:  # their rows have gone meanwhile
            return await self.wanted(ids[-1], limit)
        return found

    async def record_digests(self, digests: Sequence[tuple[int, str, int]]) -> None:
        """Record (row, sha256, size) of files whose source gives no sha256."""

        async def body(tx: Tx) -> None:
            for row, sha256, size in digests:
                await artifacts.record_first_sight(tx, row, sha256, size)

        await self._db.write(body)

    async def leave_out(self, ordinals: Sequence[int]) -> None:
        """Nothing was promised: the rows stay as they are."""

    async def mark_failed(self, failed: Sequence[tuple[int, str]]) -> None:
        """Nothing was promised: the rows stay as they are."""
