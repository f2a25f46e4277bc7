"""The only place that reads a mirror's judgement: what its policy leaves out and why, what it chose, what lacks.

It is a file beside the state, one a mirror: written whole by a worker (`store.judgement_file`), put in place by a
rename, then only read. It is derived: the next run of the mirror makes it anew.
"""

import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing
from itertools import islice, starmap
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Struct

from firthd.store.judgement_file import PLACES, About
from firthd.store.packed import Block, ChosenRow, LeftOut, VerdictRow, chosen_of

T = TypeVar("T")


class Lacking(Struct, frozen=True, kw_only=True):
    """A requirement that nothing meets."""

    id: int
    requirement: str
    platform: str
    chain: list[str]
    why: str


class Gone(Struct, frozen=True, kw_only=True):
    """A package of which nothing is kept."""

    name: str
    files: int
    rule: str  # that decided about the first of its files
    why: str


class Judgement:
    """A mirror's judgement, read; every call opens the file anew, for a newer one may be in its place. Blocks."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def _read(self, body: Callable[[sqlite3.Connection], T], otherwise: T) -> T:
        if not self._path.is_file():
            return otherwise
        try:
            with closing(sqlite3.connect(f"{self._path.as_uri()}?mode=ro&immutable=1", uri=True)) as connection:
                return body(connection)
        except sqlite3.Error:  # it is derived: a damaged one is as good as none, until the next run
            return otherwise

    def about(self) -> About | None:
        """Return by what the mirror was judged; None: by nothing yet."""

        def body(connection: sqlite3.Connection) -> About | None:
            row = connection.execute("SELECT value FROM about").fetchone()
            return msgspec.json.decode(row[0], type=About) if row else None

        return self._read(body, None)

    def verdict(self, part: str, filename: str) -> LeftOut | None:
        """Return why a file is left out; None: it is not."""

        def body(connection: sqlite3.Connection) -> LeftOut | None:
            blocks = connection.execute(
                f"{_BLOCKS} WHERE part = ?1 AND first <= ?2 AND last >= ?2 ORDER BY id", (part, filename)
            )
            verdicts = _verdicts(connection)
            for block in starmap(Block, blocks):
                if filename in block.filenames:
                    return block.left_out(block.filenames.index(filename), verdicts)
            return None

        return self._read(body, None)

    def page(self, *, rule: str | None, query: str | None, after: int, limit: int) -> tuple[list[LeftOut], int]:
        """Return the next records that are left out, and how many there are in all; `query`: part of a file's name."""
        nothing: tuple[list[LeftOut], int] = ([], 0)

        def body(connection: sqlite3.Connection) -> tuple[list[LeftOut], int]:
            verdicts = _verdicts(connection)
            meant = {number for number, one in verdicts.items() if rule is None or one.rule == rule}
            total = sum(verdicts[number].records for number in meant)
            needle = None if query is None else query.encode().lower()  # of what is no ASCII letter the case counts
            found: list[LeftOut] = []
            # Without a query the verdicts tell how many there are, and blocks before the place are not looked at.
            since = after - after % PLACES if query is None else 0
            blocks = connection.execute(f"{_BLOCKS} WHERE counts AND id >= ? ORDER BY id", (since,))
            listed = 0
            for block in starmap(Block, blocks):
                places = block.places(None if rule is None else meant, needle)
                listed += len(places)
                for place in places:
                    if block.id + place > after and len(found) < limit:
                        found.append(block.left_out(place, verdicts))
                if query is None and len(found) == limit:
                    break
            return found, total if query is None else listed

        return self._read(body, nothing)

    def gone(self, *, query: str | None, after: str, limit: int) -> list[Gone]:
        """Return the next packages of which nothing is kept, by name; `query`: part of a name."""

        def body(connection: sqlite3.Connection) -> list[Gone]:
            rows = connection.execute(
                "SELECT g.name, g.files, v.rule, v.why FROM gone g JOIN verdict v ON v.id = g.verdict"
                " WHERE g.name > :after AND (:query IS NULL OR instr(lower(g.name), lower(:query)))"
                " ORDER BY g.name LIMIT :limit",
                {"query": query, "after": after, "limit": limit},
            )
            return [Gone(name=row[0], files=row[1], rule=row[2], why=row[3]) for row in rows]

        return self._read(body, [])

    def gone_names(self, query: str | None) -> int:
        """Return of how many packages nothing is kept."""

        def body(connection: sqlite3.Connection) -> int:
            count = "SELECT count(*) FROM gone WHERE ?1 IS NULL OR instr(lower(name), lower(?1))"
            return int(connection.execute(count, (query,)).fetchone()[0])

        return self._read(body, 0)

    def counts(self) -> dict[str, int]:
        """Return how many records each rule leaves out."""

        def body(connection: sqlite3.Connection) -> dict[str, int]:
            rows = connection.execute("SELECT rule, sum(records) FROM verdict WHERE records GROUP BY rule")
            return dict(rows.fetchall())

        return self._read(body, {})

    def named(self, name: str | None, limit: int) -> list[LeftOut]:
        """Return what is left out of a package, in any case of its name; None: of all."""

        def body(connection: sqlite3.Connection) -> list[LeftOut]:
            spellings = None if name is None else {name, name.lower()}
            blocks = connection.execute(
                f"{_BLOCKS} WHERE counts AND (?1 IS NULL OR id IN (SELECT block FROM named WHERE name IN (?1, ?2)))"
                " ORDER BY id",
                (name, name and name.lower()),
            )
            verdicts = _verdicts(connection)
            every = (
                block.left_out(place, verdicts)
                for block in starmap(Block, blocks)
                for place, one in enumerate(block.told.names)
                if spellings is None or one in spellings
            )
            return list(islice(every, limit))

        return self._read(body, [])

    def chosen_page(self, after: int, limit: int) -> list[tuple[int, ChosenRow]]:
        """Return the next records that are kept, by name, each behind its number."""

        def body(connection: sqlite3.Connection) -> list[tuple[int, ChosenRow]]:
            rows = connection.execute(
                "SELECT id, records FROM chosen WHERE id >= ? ORDER BY id", (after - after % PLACES,)
            )
            every = (
                (number + place, row)
                for number, records in rows
                for place, row in enumerate(chosen_of(records))
                if number + place > after
            )
            return list(islice(every, limit))

        return self._read(body, [])

    def missing_page(self, after: int, limit: int) -> tuple[list[Lacking], int]:
        """Return the next requirements that nothing meets, and how many there are."""
        nothing: tuple[list[Lacking], int] = ([], 0)

        def body(connection: sqlite3.Connection) -> tuple[list[Lacking], int]:
            rows = connection.execute(
                "SELECT id, requirement, platform, chain, why FROM missing WHERE id > ? ORDER BY id LIMIT ?",
                (after, limit),
            )
            found = [
                Lacking(id=row[0], requirement=row[1], platform=row[2], chain=msgspec.json.decode(row[3]), why=row[4])
                for row in rows
            ]
            return found, int(connection.execute("SELECT count(*) FROM missing").fetchone()[0])

        return self._read(body, nothing)


_BLOCKS = "SELECT id, part, verdicts, filenames, told FROM block"


def _verdicts(connection: sqlite3.Connection) -> dict[int, VerdictRow]:
    rows = connection.execute("SELECT id, rule, why, refuses, records FROM verdict")
    return {row[0]: VerdictRow(row[1], row[2], bool(row[3]), row[4]) for row in rows}


class JudgementFiles:
    """Where the judgements of mirrors lie."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def of(self, mirror_id: int) -> Judgement:
        """Return a mirror's judgement."""
        return Judgement(self._place(mirror_id))

    def put(self, mirror_id: int, new: Path) -> None:
        """Put a new judgement in place of the old one; where there is no new one, take the old one away. Blocks."""
        self._folder.mkdir(exist_ok=True)
        if new.is_file():
            new.replace(self._place(mirror_id))
        else:
            self._place(mirror_id).unlink(missing_ok=True)

    def forget_others(self, living: Iterable[int]) -> None:
        """Take away the judgements of mirrors that are no more. Blocks."""
        kept = {self._place(mirror_id) for mirror_id in living}
        if self._folder.is_dir():
            for file in self._folder.iterdir():
                if file not in kept:
                    file.unlink(missing_ok=True)

    def _place(self, mirror_id: int) -> Path:
        return self._folder / f"{mirror_id}.sqlite"
