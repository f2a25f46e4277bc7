"""The only place with the SQL that worker processes read the state with.

A worker opens the state read-only and reads in pages by key, so that no read transaction lasts longer than a page and
the daemon's checkpoints are never held up. It sees a fixed view all the same: the caller names the change sets that
count, and a set that starts later is not among them.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence, Set
from itertools import pairwise
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from firthd.store.columns import counted, selected
from firthd.store.worker_objects import PAGE_ROWS, ObjectReads

T = TypeVar("T")
NAMES_PER_QUERY = 500

LIVE = (
    "a.added_set IN (SELECT id FROM temp.counted)"
    " AND (a.closed_set IS NULL OR a.closed_set NOT IN (SELECT id FROM temp.counted))"
)

OFFERED = LIVE.replace("a.", "o.")
OFFERS_A_LOOK = 20_000
"""Offers that one statement looks at when it seeks contested names."""

BY_PACKAGE = "INDEXED BY artifact_package"
"""Left to itself, SQLite looks for a few packages in all rows of their part."""

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


class OfferRow(NamedTuple):
    """That a mirror offers a name in a part, and which sets began and ended that."""

    name: str
    mirror_id: int
    added_set: int
    closed_set: int | None


class SummaryInForce(NamedTuple):
    """What a generation's summary of a package says that is carried on by difference."""

    digest: bytes | None
    hidden: str
    files: int
    bytes: int


SHOWN = selected(ShownRow._fields, "a", raw="r.raw")
"""The columns of a ShownRow, in its order."""


class WorkerState(ObjectReads):
    """The state database, read-only. `count_sets` must come before whatever reads artifacts."""

    def __init__(self, path: str) -> None:
        self._connection = sqlite3.connect(f"{Path(path).as_uri()}?mode=ro", uri=True, isolation_level=None, timeout=10)
        for pragma in ("temp_store=MEMORY", "cache_size=-32768"):
            self._connection.execute(f"PRAGMA {pragma}")
        self._connection.execute("CREATE TEMP TABLE counted (id INTEGER PRIMARY KEY)")
        self._counted: frozenset[int] = frozenset()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def count_sets(self, ids: Iterable[int]) -> None:
        """Fix the change sets whose additions and closings count from here on."""
        self._counted = frozenset(ids)
        self._connection.execute("DELETE FROM temp.counted")
        self._connection.executemany("INSERT INTO temp.counted VALUES (?)", ((number,) for number in self._counted))

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

    def sole_mirror(self, channel_id: int) -> int | None:
        """Return the channel's mirror when it never had another one, so that no name can have two owners."""
        rows = self._connection.execute(
            "SELECT id, deleted_at FROM mirror WHERE channel_id = ? LIMIT 2", (channel_id,)
        ).fetchall()
        return int(rows[0][0]) if len(rows) == 1 and rows[0][1] is None else None

    # --- artifacts

    def proven_above(self) -> int:
        """Return up to which id rows were read before every published form was proven to hold their records."""
        row = self._connection.execute("SELECT value FROM setting WHERE key = 'proven above'").fetchone()
        return int(row[0]) if row is not None else 0

    def live_rows(self, channel_id: int, mirror_id: int, family: str, part: str) -> Iterator[LiveRow]:
        """Yield a mirror's live rows of one part, by file name."""
        filename, artifact_id = "", -1
        while True:
            page = self._connection.execute(
                f"SELECT {selected(LiveRow._fields, 'a')} FROM artifact a"
                " WHERE a.channel_id = ? AND a.family = ? AND a.part = ? AND (a.filename, a.id) > (?, ?)"
                f" AND a.mirror_id = ? AND {LIVE} ORDER BY a.filename, a.id LIMIT {PAGE_ROWS}",
                (channel_id, family, part, filename, artifact_id, mirror_id),
            ).fetchall()
            yield from map(LiveRow._make, page)
            if len(page) < PAGE_ROWS:
                return
            last = LiveRow._make(page[-1])
            filename, artifact_id = last.filename, last.id

    def live_rows_of(
        self, channel_id: int, mirror_id: int, family: str, part: str, names: Sequence[str]
    ) -> Iterator[LiveRow]:
        """Yield a mirror's live rows of some packages of one part."""
        for some in _slices(names):
            rows = self._connection.execute(
                f"SELECT {selected(LiveRow._fields, 'a')} FROM artifact a {BY_PACKAGE}"
                f" WHERE a.channel_id = ? AND a.family = ? AND a.name IN ({_marks(some)}) AND a.part = ?"
                f" AND a.mirror_id = ? AND {LIVE} ORDER BY a.id",
                (channel_id, family, *some, part, mirror_id),
            ).fetchall()
            yield from map(LiveRow._make, rows)

    def live_count(self, channel_id: int, mirror_id: int, family: str, part: str) -> int:
        """Count a mirror's live rows of one part, along an index, less those that only go along with others."""
        row = self._connection.execute(
            f"SELECT count(*) FROM artifact a INDEXED BY artifact_live WHERE a.channel_id = ? AND a.mirror_id = ?"
            f" AND a.family = ? AND a.part = ? AND {counted('a')} AND a.closed_set IS NULL",
            (channel_id, mirror_id, family, part),
        ).fetchone()
        return int(row[0])

    def bytes_known(self, mirror_id: int, family: str, part: str, filename: str) -> Any:
        """Return size, sha256, md5 of the newest file that a mirror ever listed under a name, or None."""
        return self._connection.execute(
            "SELECT size, sha256, md5 FROM artifact WHERE channel_id = (SELECT channel_id FROM mirror WHERE id = ?)"
            " AND family = ? AND part = ? AND filename = ? AND mirror_id = ?"
            " AND (sha256 IS NOT NULL OR md5 IS NOT NULL) ORDER BY id DESC LIMIT 1",
            (mirror_id, family, part, filename, mirror_id),
        ).fetchone()

    def shown_rows(self, channel_id: int, family: str, part: str) -> Iterator[list[ShownRow]]:
        """Yield the visible rows of one part with their records, by file name and section, page by page."""
        filename = ""
        while True:
            found = self._connection.execute(
                f"SELECT {SHOWN} FROM artifact a CROSS JOIN artifact_record r ON r.artifact_id = a.id"
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
            if any(one.filename == following.filename for one, following in pairwise(page)):
                page.sort(key=BY_FILENAME)
            yield page
            if not more:
                return
            filename = page[-1].filename

    def rows_of(
        self, channel_id: int, family: str, names: Sequence[str], except_parts: Sequence[str]
    ) -> Iterator[tuple[str, list[ShownRow]]]:
        """Yield (part, visible rows) of some packages from the parts that are not named, the rows by file name."""
        skipped = ", ".join("?" * len(except_parts))
        for some in _slices(names):
            page = self._connection.execute(
                f"SELECT a.part, {SHOWN} FROM artifact a CROSS JOIN artifact_record r ON r.artifact_id = a.id"
                f" WHERE a.channel_id = ? AND a.family = ? AND a.name IN ({_marks(some)})"
                f" AND a.part NOT IN ({skipped}) AND {LIVE}",
                (channel_id, family, *some, *except_parts),
            ).fetchall()
            by_part: dict[str, list[ShownRow]] = {}
            for part, *row in page:
                by_part.setdefault(part, []).append(ShownRow._make(row))
            for part, rows in by_part.items():
                yield part, sorted(rows, key=BY_FILENAME)

    def filenames_of(self, channel_id: int, family: str, part: str, names: Sequence[str], before: Set[int]) -> set[str]:
        """Return the files of packages that are visible in a part, or were by the sets `before`."""
        found: set[str] = set()
        for some in _slices(names):
            rows = self._connection.execute(
                f"SELECT filename, added_set, closed_set FROM artifact {BY_PACKAGE}"
                f" WHERE channel_id = ? AND family = ? AND name IN ({_marks(some)}) AND part = ?"
                " AND added_set IN (SELECT id FROM temp.counted)",
                (channel_id, family, *some, part),
            ).fetchall()
            found.update(
                filename
                for filename, added, closed in rows
                if closed is None or not self._counts(closed) or (added in before and closed not in before)
            )
        return found

    def rows_at(self, channel_id: int, family: str, part: str, filenames: Sequence[str]) -> Iterator[list[ShownRow]]:
        """Yield the visible rows of some files of a part, sorted by file name as those are, and section."""
        for some in _slices(filenames):
            rows = self._connection.execute(
                f"SELECT {SHOWN} FROM artifact a CROSS JOIN artifact_record r ON r.artifact_id = a.id"
                " WHERE a.channel_id = ? AND a.family = ? AND a.part = ?"
                f" AND a.filename IN ({_marks(some)}) AND {LIVE}",
                (channel_id, family, part, *some),
            ).fetchall()
            yield sorted(map(ShownRow._make, rows), key=BY_FILENAME)

    def parts_of(self, channel_id: int, family: str, names: Sequence[str], before: Set[int]) -> dict[str, set[str]]:
        """Return part -> those of the names that have a visible file there, or had one by the sets `before`."""
        found: dict[str, set[str]] = {}
        for some in _slices(names):
            page = self._connection.execute(
                "SELECT DISTINCT part, name, added_set, closed_set FROM artifact a"
                f" WHERE channel_id = ? AND family = ? AND name IN ({_marks(some)})"
                " AND added_set IN (SELECT id FROM temp.counted)",
                (channel_id, family, *some),
            ).fetchall()
            for part, name, added, closed in page:
                if closed is None or not self._counts(closed) or (added in before and closed not in before):
                    found.setdefault(part, set()).add(name)
        return found

    def _counts(self, change_set: int) -> bool:
        return change_set in self._counted

    # --- offers

    def offered(self, channel_id: int, mirror_id: int, family: str, part: str) -> set[str]:
        """Return the names that a mirror offers in a part."""
        rows = self._connection.execute(
            "SELECT o.name FROM offered o INDEXED BY offered_part"
            f" WHERE o.channel_id = ? AND o.mirror_id = ? AND o.family = ? AND o.part = ? AND {OFFERED}",
            (channel_id, mirror_id, family, part),
        )
        return {row[0] for row in rows.fetchall()}

    def parts_offered(self, channel_id: int, mirror_id: int, family: str) -> list[str]:
        """Return the parts in which a mirror has ever offered a name, by skipping from one to the next."""
        return self._skipping(
            "SELECT min(part) FROM offered INDEXED BY offered_part"
            " WHERE channel_id = ? AND mirror_id = ? AND family = ? AND part > ?",
            (channel_id, mirror_id, family),
        )

    def contested(self, channel_id: int, family: str) -> Iterator[tuple[str, set[int]]]:
        """Yield each name that more than one mirror offers, with those that do."""
        return self._offering(channel_id, family, "HAVING min(o.mirror_id) <> max(o.mirror_id)")

    def offering(self, channel_id: int, family: str) -> Iterator[tuple[str, set[int]]]:
        """Yield each name that is offered, with the mirrors that do."""
        return self._offering(channel_id, family, "")

    def _offering(self, channel_id: int, family: str, having: str) -> Iterator[tuple[str, set[int]]]:
        name: str | None = ""
        while name is not None:
            through = self._connection.execute(
                "SELECT name FROM offered INDEXED BY offered_name WHERE channel_id = ? AND family = ? AND name > ?"
                f" ORDER BY name LIMIT 1 OFFSET {OFFERS_A_LOOK}",
                (channel_id, family, name),
            ).fetchone()
            page = self._connection.execute(
                "SELECT o.name, group_concat(DISTINCT o.mirror_id) FROM offered o INDEXED BY offered_name"
                f" WHERE o.channel_id = ?1 AND o.family = ?2 AND o.name > ?3 AND (?4 IS NULL OR o.name <= ?4)"
                f" AND {OFFERED} GROUP BY o.name {having}",
                (channel_id, family, name, through[0] if through else None),
            ).fetchall()
            yield from ((row[0], set(map(int, row[1].split(",")))) for row in page)
            name = through[0] if through else None

    def names_offered_anew(self, channel_id: int, family: str, change_sets: Iterable[int]) -> set[str]:
        """Return the names of which these sets began or ended an offer."""
        found: set[str] = set()
        for change_set in change_sets:
            for column in ("added_set", "closed_set"):
                rows = self._connection.execute(
                    f"SELECT name FROM offered WHERE {column} = ? AND channel_id = ? AND family = ?",
                    (change_set, channel_id, family),
                )
                found.update(row[0] for row in rows.fetchall())
        return found

    def offers(self, channel_id: int, family: str, names: Sequence[str]) -> dict[str, list[OfferRow]]:
        """Return name -> all of its offers; sets are not looked at."""
        found: dict[str, list[OfferRow]] = {}
        for some in _slices(names):
            rows = self._connection.execute(
                "SELECT name, mirror_id, added_set, closed_set FROM offered INDEXED BY offered_name"
                f" WHERE channel_id = ? AND family = ? AND name IN ({_marks(some)})",
                (channel_id, family, *some),
            )
            for row in map(OfferRow._make, rows.fetchall()):
                found.setdefault(row.name, []).append(row)
        return found

    def sources(self, channel_id: int) -> dict[int, str]:
        """Return mirror -> its stored source, of all that the channel has had."""
        rows = self._connection.execute("SELECT id, source FROM mirror WHERE channel_id = ?", (channel_id,))
        return dict(rows.fetchall())

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
            page = f"FROM artifact WHERE {column} = ? AND id > ? ORDER BY id LIMIT {PAGE_ROWS}"
            rows, last = self._connection.execute(
                f"SELECT count(*), max(id) FROM (SELECT id {page})", (change_set, artifact_id)
            ).fetchone()
            yield from self._connection.execute(
                f"SELECT DISTINCT part, name FROM (SELECT part, name, channel_id, family {page})"
                " WHERE channel_id = ? AND family = ?",
                (change_set, artifact_id, channel_id, family),
            ).fetchall()
            if rows < PAGE_ROWS:
                return
            artifact_id = last

    def of_pages(self, channel_id: int, mirror_id: int, family: str, part: str) -> set[int]:
        """Return the rows of a mirror's part that came with pages, which no run read."""
        pages = "SELECT EXISTS (SELECT 1 FROM page WHERE mirror_id = ? AND part = ?)"
        if not self._connection.execute(pages, (mirror_id, part)).fetchone()[0]:
            return set()
        rows = self._connection.execute(
            "SELECT a.id FROM artifact a JOIN page_span p ON p.artifact_id = a.id"
            " WHERE a.channel_id = ? AND a.family = ? AND a.part = ? AND a.mirror_id = ?",
            (channel_id, family, part, mirror_id),
        )
        return {row[0] for row in rows.fetchall()}

    def rendered_parts(self, channel_id: int, family: str) -> list[str]:
        """Return the parts that hold any row that a run read."""
        run_read = (
            "SELECT EXISTS (SELECT 1 FROM artifact a WHERE channel_id = ? AND family = ? AND part = ?"
            " AND NOT EXISTS (SELECT 1 FROM page_span p WHERE p.artifact_id = a.id))"
        )
        return [
            part
            for part in self.parts(channel_id, family)
            if self._connection.execute(run_read, (channel_id, family, part)).fetchone()[0]
        ]

    def parts(self, channel_id: int, family: str) -> list[str]:
        """Return the parts that hold any row of a family, live or not, by skipping from one to the next."""
        return self._skipping(
            "SELECT min(part) FROM artifact WHERE channel_id = ? AND family = ? AND part > ?", (channel_id, family)
        )

    def _skipping(self, following: str, key: tuple[object, ...]) -> list[str]:
        """Return each text once, in order; `following` selects the one after its last parameter."""
        found: list[str] = []
        last = ""
        while True:
            row = self._connection.execute(following, (*key, last)).fetchone()
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
        for some in _slices(wanted):
            rows = self._connection.execute(
                f"SELECT sha256 FROM delivered WHERE channel_id = ? AND sha256 IN ({_marks(some)})",
                (channel_id, *some),
            )
            found.update(row[0] for row in rows.fetchall())
        return found

    def packages_in_force(self, channel_id: int, family: str, number: int) -> set[str]:
        """Return the names whose summaries in a generation say anything."""
        rows = self._connection.execute(
            "SELECT name, files > 0 OR hidden <> '{}', max(number) FROM package"
            " WHERE channel_id = ? AND family = ? AND number <= ? GROUP BY name",
            (channel_id, family, number),
        )
        return {name for name, says, _ in rows.fetchall() if says}

    def summaries(self, channel_id: int, family: str, number: int, names: Sequence[str]) -> dict[str, SummaryInForce]:
        """Return name -> what a generation's summary of a package says, of those that it has."""
        found: dict[str, SummaryInForce] = {}
        for some in _slices(names):
            rows = self._connection.execute(
                "SELECT name, digest, hidden, files, bytes, max(number) FROM package"
                f" WHERE channel_id = ? AND family = ? AND name IN ({_marks(some)}) AND number <= ? GROUP BY name",
                (channel_id, family, *some, number),
            )
            found.update((row[0], SummaryInForce._make(row[1:5])) for row in rows.fetchall())
        return found

    def summaries_in_force(self, channel_id: int, family: str, number: int) -> list[tuple[str, str, list[str]]]:
        """Return name, newest version and platforms of each package that a generation's summaries show."""
        rows = self._connection.execute(
            "SELECT name, version, platforms, files, max(number) FROM package"
            " WHERE channel_id = ? AND family = ? AND number <= ? GROUP BY name",
            (channel_id, family, number),
        )
        return [(name, version, json.loads(platforms)) for name, version, platforms, files, _ in rows if files]


def _slices(values: Sequence[T]) -> Iterator[Sequence[T]]:
    return (values[start : start + NAMES_PER_QUERY] for start in range(0, len(values), NAMES_PER_QUERY))


def _marks(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))
