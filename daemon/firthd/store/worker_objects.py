"""The only place with the SQL that worker processes read served objects with."""

import sqlite3
from collections.abc import Iterator
from typing import NamedTuple

PAGE_ROWS = 5000
"""Rows of one read transaction of a worker, at the most."""


class PackedAt(NamedTuple):
    """Where an object's bytes lie: the sha256 of the pack, and from where on."""

    size: int
    pack: bytes
    offset: int


class ObjectReads:
    """The objects that a channel's generations show, as a worker reads them."""

    _connection: sqlite3.Connection

    def in_force(self, channel_id: int, family: str, folder: str) -> Iterator[str]:
        """Yield the paths of the objects in force below a folder, whose name ends in a slash."""
        last = folder
        while True:
            page = self._connection.execute(
                "SELECT path FROM object WHERE channel_id = ? AND family = ? AND path > ? AND path < ?"
                f" AND until IS NULL ORDER BY path LIMIT {PAGE_ROWS}",
                (channel_id, family, last, folder[:-1] + chr(ord("/") + 1)),
            ).fetchall()
            yield from (row[0] for row in page)
            if len(page) < PAGE_ROWS:
                return
            last = page[-1][0]

    def serves(self, channel_id: int, family: str, path: str) -> bool:
        """Tell whether an object is in force at a path."""
        row = self._connection.execute(
            "SELECT EXISTS (SELECT 1 FROM object WHERE channel_id = ? AND family = ? AND path = ? AND until IS NULL)",
            (channel_id, family, path),
        ).fetchone()
        return bool(row[0])

    def shown_since(self, channel_id: int, family: str, folder: str) -> Iterator[tuple[str, int, bytes]]:
        """Yield path, first generation and sha256 of the small objects in force below a folder."""
        last = folder
        while True:
            page = self._connection.execute(
                "SELECT path, since, sha256 FROM object INDEXED BY object_named WHERE channel_id = ? AND family = ?"
                " AND path > ? AND path < ? AND until IS NULL AND NOT lasting AND offset IS NOT NULL"
                f" ORDER BY path LIMIT {PAGE_ROWS}",
                (channel_id, family, last, folder[:-1] + chr(ord("/") + 1)),
            ).fetchall()
            yield from page
            if len(page) < PAGE_ROWS:
                return
            last = page[-1][0]

    def packed(self, channel_id: int, family: str) -> bool:
        """Tell whether anything that a family showed in a channel, at whatever generation, lies in a pack."""
        row = self._connection.execute(
            "SELECT EXISTS (SELECT 1 FROM object WHERE channel_id = ? AND family = ? AND offset IS NOT NULL)",
            (channel_id, family),
        ).fetchone()
        return bool(row[0])

    def packed_object(self, channel_id: int, family: str, path: str) -> tuple[bytes, PackedAt] | None:
        """Return sha256 and place of what a path showed in a pack, at whatever generation; None when nowhere."""
        row = self._connection.execute(
            "SELECT sha256, size, file, offset FROM object"
            " WHERE channel_id = ? AND family = ? AND offset IS NOT NULL AND path = ? LIMIT 1",
            (channel_id, family, path),
        ).fetchone()
        return None if row is None else (row[0], PackedAt._make(row[1:]))

    def place(self, channel_id: int, family: str, path: str) -> PackedAt | None:
        """Return where what a path showed lies in a pack, at whatever generation; None when nowhere."""
        found = self.packed_object(channel_id, family, path)
        return None if found is None else found[1]
