"""The only place with the SQL of a run's own file as the daemon reads it: what to download, what could not be had."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiosqlite
from msgspec import Struct


class Wanted(Struct, frozen=True, kw_only=True):
    """A file that a run is to add; `raw` is its record."""

    ordinal: int
    part: str
    section: str
    filename: str
    name: str
    size: int | None
    sha256: str | None
    md5: str | None
    raw: bytes


def wanted_of(row: Sequence[Any]) -> Wanted:
    """Build one out of a row of its columns in their order, digests raw."""
    return Wanted(
        ordinal=row[0],
        part=row[1],
        section=row[2],
        filename=row[3],
        name=row[4],
        size=row[5],
        sha256=row[6].hex() if row[6] is not None else None,
        md5=row[7].hex() if row[7] is not None else None,
        raw=bytes(row[8]),
    )


class RunFileReads:
    """A run's own file, opened by the daemon."""

    def __init__(self, connection: aiosqlite.Connection) -> None:
        self._connection = connection

    async def wanted(self, after: int, limit: int) -> list[Wanted]:
        """Return the next files to add, in order."""
        rows = await self._connection.execute_fetchall(
            'SELECT ordinal, part, section, filename, name, size, sha256, md5, raw FROM "add"'
            " WHERE ordinal > ? ORDER BY ordinal LIMIT ?",
            (after, limit),
        )
        return [wanted_of(row) for row in rows]

    async def leave_out(self, ordinals: Sequence[int]) -> None:
        """Take adds back: they are neither downloaded nor written."""
        await self._connection.executemany('DELETE FROM "add" WHERE ordinal = ?', [(one,) for one in ordinals])
        await self._connection.commit()

    async def record_digests(self, digests: Sequence[tuple[int, str, int]]) -> None:
        """Record (ordinal, sha256, size) of files whose source gives no sha256."""
        await self._connection.executemany(
            'UPDATE "add" SET sha256 = ?, size = coalesce(size, ?) WHERE ordinal = ?',
            [(bytes.fromhex(sha256), size, ordinal) for ordinal, sha256, size in digests],
        )
        await self._connection.commit()

    async def mark_failed(self, failed: Sequence[tuple[int, str]]) -> None:
        """Leave out the adds that could not be had, (ordinal, package name); their package's removals wait."""
        await self._connection.executemany(
            'UPDATE "add" SET failed = 1 WHERE ordinal = ?', [(ordinal,) for ordinal, _ in failed]
        )
        names = {name for _, name in failed}
        await self._connection.executemany(
            "UPDATE \"close\" SET skipped = 1 WHERE name = ? AND reason NOT IN ('filtered', 'policy')",
            [(name,) for name in names],
        )
        await self._connection.commit()

    async def incomplete_parts(self) -> set[str]:
        """Return the parts of which an addition could not be had, or a removal waits for one."""
        rows = await self._connection.execute_fetchall(
            'SELECT DISTINCT part FROM "add" WHERE failed UNION SELECT DISTINCT part FROM "close" WHERE skipped'
        )
        return {row[0] for row in rows}

    async def counts(self) -> tuple[int, int]:
        """Return how many rows are to be added and closed."""
        rows = list(
            await self._connection.execute_fetchall(
                'SELECT (SELECT count(*) FROM "add" WHERE failed = 0), (SELECT count(*) FROM "close" WHERE skipped = 0)'
            )
        )
        return int(rows[0][0]), int(rows[0][1])


@asynccontextmanager
async def open_run_file(path: Path) -> AsyncIterator[RunFileReads]:
    """Open a run's file that a worker has written."""
    connection = await aiosqlite.connect(path)
    try:
        for pragma in ("journal_mode=OFF", "synchronous=OFF"):
            await (await connection.execute(f"PRAGMA {pragma}")).close()
        yield RunFileReads(connection)
    finally:
        await connection.close()
