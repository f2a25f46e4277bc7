"""The only place with the SQL that worker processes read the state with.

A worker opens the state read-only and reads in pages by key, so that no read transaction lasts longer than a page and
the daemon's checkpoints are never held up. It sees a fixed view all the same: the caller names the change sets that
count, and a set that starts later is not among them.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

PAGE_ROWS = 5000
NAMES_PER_QUERY = 500

LIVE = (
    "a.added_set IN (SELECT id FROM temp.counted)"
    " AND (a.closed_set IS NULL OR a.closed_set NOT IN (SELECT id FROM temp.counted))"
)

BY_FILENAME = attrgetter("filename", "section", "id")


class LiveRow(NamedTuple):
    """A live row of a mirror, as a read compares it."""

    id: int
    section: str
    filename: str
    name: str
    fingerprint: bytes
    sha256: bytes | None
    declared: int


class ShownRow(NamedTuple):
    """A visible row with its record, as a render writes it."""

    id: int
    section: str
    filename: str
    name: str
    version: str
    build: str
    size: int | None
    sha256: bytes | None
    md5: bytes | None
    declared: int
    timestamp: int | None
    fingerprint: bytes
    mirror_id: int
    raw: bytes


class SummaryRow(NamedTuple):
    """What a package's summary needs of one visible file."""

    name: str
    version: str
    part: str
    filename: str
    size: int | None
    mirror_id: int
    raw: bytes


class OfferRow(NamedTuple):
    """That a mirror's files of a name lie in a part, and which sets added and closed them."""

    name: str
    mirror_id: int
    part: str
    added_set: int
    closed_set: int | None


class PackedAt(NamedTuple):
    """Where an object's bytes lie: the sha256 of the pack, and from where on."""

    size: int
    pack: bytes
    offset: int


class WorkerState:
    """The state database, read-only. `count_sets` must come before whatever reads artifacts."""

    def __init__(self, path: str) -> None:
        self._connection = sqlite3.connect(f"{Path(path).as_uri()}?mode=ro", uri=True, isolation_level=None, timeout=10)
        for pragma in ("temp_store=MEMORY", "cache_size=-32768"):
            self._connection.execute(f"PRAGMA {pragma}")
        self._connection.execute("CREATE TEMP TABLE counted (id INTEGER PRIMARY KEY)")

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def count_sets(self, ids: Iterable[int]) -> None:
        """Fix the change sets whose additions and closings count from here on."""
        self._connection.execute("DELETE FROM temp.counted")
        self._connection.executemany("INSERT INTO temp.counted VALUES (?)", ((number,) for number in set(ids)))

    # --- change sets and mirrors

    def lasting_sets(self, channel_id: int) -> set[int]:
        """Return the channel's sets that are finished or published: not those in progress, not the discarded."""
        rows = self._connection.execute(
            "SELECT id FROM change_set WHERE channel_id = ? AND state IN ('finished', 'published')", (channel_id,)
        )
        return {row[0] for row in rows.fetchall()}

    def published_sets(self, channel_id: int, shows: int) -> set[int]:
        """Return the channel's sets that are published with a number up to `shows`."""
        rows = self._connection.execute(
            "SELECT id FROM change_set WHERE channel_id = ? AND state = 'published' AND number <= ?",
            (channel_id, shows),
        )
        return {row[0] for row in rows.fetchall()}

    def one_mirror_only(self, channel_id: int) -> bool:
        """Tell whether the channel never had more than one mirror, so that no name can have two owners."""
        rows = self._connection.execute(
            "SELECT deleted_at FROM mirror WHERE channel_id = ? LIMIT 2", (channel_id,)
        ).fetchall()
        return len(rows) == 1 and rows[0][0] is None

    # --- artifacts

    def live_rows(self, channel_id: int, mirror_id: int, family: str, part: str) -> Iterator[LiveRow]:
        """Yield a mirror's live rows of one part, by file name."""
        filename, artifact_id = "", -1
        while True:
            page = self._connection.execute(
                "SELECT a.id, a.section, a.filename, a.name, a.fingerprint, a.sha256, a.declared FROM artifact a"
                " WHERE a.channel_id = ? AND a.family = ? AND a.part = ? AND (a.filename, a.id) > (?, ?)"
                f" AND a.mirror_id = ? AND {LIVE} ORDER BY a.filename, a.id LIMIT {PAGE_ROWS}",
                (channel_id, family, part, filename, artifact_id, mirror_id),
            ).fetchall()
            yield from map(LiveRow._make, page)
            if len(page) < PAGE_ROWS:
                return
            artifact_id, _, filename, *_ = page[-1]

    def shown_rows(self, channel_id: int, family: str, part: str) -> Iterator[list[ShownRow]]:
        """Yield the visible rows of one part with their records, by file name and section, page by page."""
        filename = ""
        while True:
            found = self._connection.execute(
                "SELECT a.id, a.section, a.filename, a.name, a.version, a.build, a.size, a.sha256, a.md5, a.declared,"
                " a.timestamp, a.fingerprint, a.mirror_id, r.raw"
                " FROM artifact a CROSS JOIN artifact_record r ON r.artifact_id = a.id"
                " WHERE a.channel_id = ? AND a.family = ? AND a.part = ? AND a.filename > ?"
                f" AND {LIVE} ORDER BY a.filename, a.id LIMIT {PAGE_ROWS}",
                (channel_id, family, part, filename),
            ).fetchall()
            page = list(map(ShownRow._make, found))
            more = len(page) == PAGE_ROWS
            if more:  # rows of one file name stay together: the last name begins the next page
                last = page[-1].filename
                while page[-1].filename == last:
                    page.pop()
            page.sort(key=BY_FILENAME)
            yield page
            if not more:
                return
            filename = page[-1].filename

    def offers(self, channel_id: int, family: str) -> Iterator[OfferRow]:
        """Yield who added and who closed each file of a family, by package name; sets are not looked at."""
        name, artifact_id = "", -1
        while True:
            page = self._connection.execute(
                "SELECT name, mirror_id, part, added_set, closed_set, id FROM artifact"
                " WHERE channel_id = ? AND family = ? AND (name, id) > (?, ?)"
                f" ORDER BY name, id LIMIT {PAGE_ROWS}",
                (channel_id, family, name, artifact_id),
            ).fetchall()
            for *offer, _ in page:
                yield OfferRow._make(offer)
            if len(page) < PAGE_ROWS:
                return
            name, artifact_id = page[-1][0], page[-1][5]

    def summary_rows(
        self, channel_id: int, family: str, names: Sequence[str], except_parts: Sequence[str]
    ) -> Iterator[SummaryRow]:
        """Yield what the summaries of some packages need from the parts that are not named."""
        skipped = ", ".join("?" * len(except_parts))
        for start in range(0, len(names), NAMES_PER_QUERY):
            some = names[start : start + NAMES_PER_QUERY]
            page = self._connection.execute(
                "SELECT a.name, a.version, a.part, a.filename, a.size, a.mirror_id, r.raw"
                " FROM artifact a CROSS JOIN artifact_record r ON r.artifact_id = a.id"
                f" WHERE a.channel_id = ? AND a.family = ? AND a.name IN ({', '.join('?' * len(some))})"
                f" AND a.part NOT IN ({skipped}) AND {LIVE}",
                (channel_id, family, *some, *except_parts),
            ).fetchall()
            yield from map(SummaryRow._make, page)

    def touched(self, channel_id: int, family: str, change_sets: Iterable[int]) -> dict[str, set[str]]:
        """Return part -> names that these sets added or closed something of."""
        found: dict[str, set[str]] = {}
        for change_set in change_sets:
            for part in self._renewed(change_set, family):
                found.setdefault(part, set())
            for column in ("added_set", "closed_set"):
                for part, name in self._named_by(column, change_set, channel_id, family):
                    found.setdefault(part, set()).add(name)
        return found

    def _renewed(self, change_set: int, family: str) -> list[str]:
        """Return the parts beside which a set brought something new, whatever their artifacts."""
        row = self._connection.execute("SELECT parts FROM change_set WHERE id = ?", (change_set,)).fetchone()
        parts = [tuple(part.split("/", 1)) for part in json.loads(row[0])] if row is not None else []
        return [part for of, part in parts if of == family and part]

    def _named_by(self, column: str, change_set: int, channel_id: int, family: str) -> Iterator[tuple[str, str]]:
        artifact_id = -1
        while True:
            page = self._connection.execute(
                f"SELECT id, part, name, channel_id, family FROM artifact WHERE {column} = ? AND id > ?"
                f" ORDER BY id LIMIT {PAGE_ROWS}",
                (change_set, artifact_id),
            ).fetchall()
            yield from (row[1:3] for row in page if row[3] == channel_id and row[4] == family)
            if len(page) < PAGE_ROWS:
                return
            artifact_id = page[-1][0]

    def parts(self, channel_id: int, family: str) -> list[str]:
        """Return the parts that hold any row of a family, live or not, by skipping from one to the next."""
        found: list[str] = []
        last = ""
        while True:
            row = self._connection.execute(
                "SELECT min(part) FROM artifact WHERE channel_id = ? AND family = ? AND part > ?",
                (channel_id, family, last),
            ).fetchone()
            if row[0] is None:
                return found
            last = row[0]
            found.append(last)

    # --- blobs, packages

    def stored(self, channel_id: int, digests: Iterable[bytes]) -> set[bytes]:
        """Return those of the sha256 digests that the channel has been given."""
        given = "SELECT EXISTS (SELECT 1 FROM delivered WHERE channel_id = ?)"
        if not self._connection.execute(given, (channel_id,)).fetchone()[0]:
            return set()
        wanted = list(digests)
        found: set[bytes] = set()
        for start in range(0, len(wanted), NAMES_PER_QUERY):
            some = wanted[start : start + NAMES_PER_QUERY]
            rows = self._connection.execute(
                f"SELECT sha256 FROM delivered WHERE channel_id = ? AND sha256 IN ({', '.join('?' * len(some))})",
                (channel_id, *some),
            )
            found.update(row[0] for row in rows.fetchall())
        return found

    def packages_in_force(self, channel_id: int, family: str, number: int) -> set[str]:
        """Return the names that a generation's summaries show."""
        rows = self._connection.execute(
            "SELECT name, files, max(number) FROM package WHERE channel_id = ? AND family = ? AND number <= ?"
            " GROUP BY name",
            (channel_id, family, number),
        )
        return {name for name, files, _ in rows.fetchall() if files}

    def summaries_in_force(self, channel_id: int, family: str, number: int) -> list[tuple[str, str, list[str]]]:
        """Return name, newest version and platforms of each package that a generation's summaries show."""
        rows = self._connection.execute(
            "SELECT name, version, platforms, files, max(number) FROM package"
            " WHERE channel_id = ? AND family = ? AND number <= ? GROUP BY name",
            (channel_id, family, number),
        )
        return [(name, version, json.loads(platforms)) for name, version, platforms, files, _ in rows if files]

    # --- served objects

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
