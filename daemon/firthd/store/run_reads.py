"""The only place with the SQL of a run's own file as the daemon reads it: what to download, what could not be had."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiosqlite
from msgspec import Struct

from firthd.store.run_file import files_of

_OF_ONE = 1 << 40
"""How many ordinals each file of a run has: that of its row, and so many for each file before."""


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
    """A run's own files, opened by the daemon; an ordinal tells which of them holds the row."""

    def __init__(self, connections: Sequence[aiosqlite.Connection]) -> None:
        self._connections = connections
        self.as_read = True
        """Whether what is to be added is still what was there as they were opened."""

    async def wanted(self, after: int, limit: int) -> list[Wanted]:
        """Return the next files to add, in order."""
        found: list[Wanted] = []
        for number, connection in enumerate(self._connections):
            base = number * _OF_ONE
            rows = await connection.execute_fetchall(
                'SELECT ordinal + ?1, part, section, filename, name, size, sha256, md5, raw FROM "add"'
                " WHERE ordinal > ?2 ORDER BY ordinal LIMIT ?3",
                (base, after - base, limit - len(found)),
            )
            found += [wanted_of(row) for row in rows]
            if len(found) == limit:
                break
        return found

    async def leave_out(self, ordinals: Sequence[int]) -> None:
        """Take adds back: they are neither downloaded nor written."""
        self.as_read = False
        for number, connection in enumerate(self._connections):
            await connection.executemany(
                'DELETE FROM "add" WHERE ordinal = ?', [(one - number * _OF_ONE,) for one in ordinals]
            )
            await connection.commit()

    async def record_digests(self, digests: Sequence[tuple[int, str, int]]) -> None:
        """Record (ordinal, sha256, size) of files whose source gives no sha256."""
        self.as_read = False
        for number, connection in enumerate(self._connections):
            await connection.executemany(
                'UPDATE "add" SET sha256 = ?, size = coalesce(size, ?) WHERE ordinal = ?',
                [(bytes.fromhex(sha256), size, ordinal - number * _OF_ONE) for ordinal, sha256, size in digests],
            )
            await connection.commit()

    async def mark_failed(self, failed: Sequence[tuple[int, str]]) -> None:
        """Leave out the adds that could not be had, (ordinal, package name); their package's removals wait."""
        self.as_read = False
        names = {name for _, name in failed}
        for number, connection in enumerate(self._connections):
            await connection.executemany(
                'UPDATE "add" SET failed = 1 WHERE ordinal = ?', [(one - number * _OF_ONE,) for one, _ in failed]
            )
            await connection.executemany(
                "UPDATE \"close\" SET skipped = 1 WHERE name = ? AND reason NOT IN ('filtered', 'policy')",
                [(name,) for name in names],
            )
            await connection.commit()

    async def incomplete_parts(self) -> set[str]:
        """Return the parts of which an addition could not be had, or a removal waits for one."""
        found: set[str] = set()
        for connection in self._connections:
            rows = await connection.execute_fetchall(
                'SELECT DISTINCT part FROM "add" WHERE failed UNION SELECT DISTINCT part FROM "close" WHERE skipped'
            )
            found.update(row[0] for row in rows)
        return found


@asynccontextmanager
async def open_run_file(path: Path) -> AsyncIterator[RunFileReads]:
    """Open a run's files that workers have written; `path` is the first one's."""
    async with AsyncExitStack() as stack:
        connections = []
        for file in await asyncio.to_thread(files_of, path):
            connection = await stack.enter_async_context(aiosqlite.connect(file))
            for pragma in ("journal_mode=OFF", "synchronous=OFF"):
                await (await connection.execute(f"PRAGMA {pragma}")).close()
            connections.append(connection)
        yield RunFileReads(connections)
