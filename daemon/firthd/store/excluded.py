"""The only place with the SQL of a mirror's judgement: what its policy leaves out and why, what it chose, what lacks.

It is a file beside the state, one a mirror: written whole by a worker, put in place by a rename, then only read. It is
derived: the next run of the mirror makes it anew.
"""

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from itertools import chain, islice
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import msgspec
from msgspec import Struct

T = TypeVar("T")

TABLES = """
CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE verdict (id INTEGER PRIMARY KEY, rule TEXT NOT NULL, why TEXT NOT NULL, refuses INTEGER NOT NULL) STRICT;
CREATE TABLE left_out (
  id INTEGER PRIMARY KEY, -- below 0: it goes along with another file, and is in no list
  part TEXT NOT NULL, filename TEXT NOT NULL, name TEXT NOT NULL, version TEXT NOT NULL,
  build TEXT NOT NULL, size INTEGER, verdict INTEGER NOT NULL
) STRICT;
CREATE TABLE chosen (
  id INTEGER PRIMARY KEY, part TEXT NOT NULL, filename TEXT NOT NULL, name TEXT NOT NULL, version TEXT NOT NULL,
  build TEXT NOT NULL, size INTEGER, license TEXT, direct INTEGER NOT NULL, needed_by TEXT NOT NULL
) STRICT;
CREATE TABLE missing (
  id INTEGER PRIMARY KEY, requirement TEXT NOT NULL, platform TEXT NOT NULL, chain TEXT NOT NULL, why TEXT NOT NULL
) STRICT;
CREATE TABLE gone (name TEXT PRIMARY KEY, files INTEGER NOT NULL, first INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE kept (name TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;
"""
INDEXES = """
CREATE INDEX left_out_file ON left_out(filename, part);
CREATE INDEX left_out_name ON left_out(name);
"""
# Of what is kept in part nothing is to be told.
GONE = """
INSERT INTO gone SELECT name, count(*), min(id) FROM left_out WHERE id > 0 GROUP BY name;
DELETE FROM gone WHERE name IN (SELECT name FROM kept);
DROP TABLE kept;
"""
LEFT_OUT_COLUMNS = ("id", "part", "filename", "name", "version", "build", "size", "verdict")
CHOSEN_COLUMNS = ("part", "filename", "name", "version", "build", "size", "license", "direct", "needed_by")
TOGETHER = 40
ROWS = 250 * TOGETHER
BATCH = ROWS * len(LEFT_OUT_COLUMNS)


class LeftOut(Struct, frozen=True, kw_only=True):
    """A record that a policy leaves out."""

    id: int
    part: str
    filename: str
    name: str
    version: str
    build: str
    size: int | None
    rule: str
    why: str
    refuses: bool


class Chosen(Struct, frozen=True, kw_only=True):
    """A record that is kept where dependencies were looked at."""

    id: int
    part: str
    filename: str
    name: str
    version: str
    build: str
    size: int | None
    license: str | None
    direct: bool
    needed_by: str


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


class About(Struct, frozen=True, kw_only=True):
    """By which policy a mirror was judged."""

    policy: str
    stamp: str  # the policy with its revision and what else it hangs on
    closes: bool  # dependencies were looked at
    unsolvable: list[str] = []  # what is allowed and cannot be installed
    unlisted: int = 0  # how many more requirements nothing meets than are listed
    notes: list[str] = []  # what was not looked at


LeftOutRow = tuple[str, str, str, str, str, int | None, int]  # part, filename, name, version, build, size, verdict
ChosenRow = tuple[str, str, str, str, str, int | None, str | None, bool, str]
Leaver = Callable[[str, str, str, str, int | None, bool], None]  # file name, name, version, build, size, counts


def _insert(table: str, columns: Sequence[str], rows: int) -> str:
    """Return the SQL that writes so many rows."""
    row = f"({', '.join('?' * len(columns))})"
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES {', '.join([row] * rows)}"


class JudgementFile:
    """A mirror's judgement, open for writing in a worker."""

    def __init__(self, path: str) -> None:
        Path(path).unlink(missing_ok=True)
        self._connection = sqlite3.connect(path, isolation_level=None)
        for pragma in ("page_size=16384", "journal_mode=OFF", "synchronous=OFF", "locking_mode=EXCLUSIVE"):
            self._connection.execute(f"PRAGMA {pragma}")
        self._connection.executescript(TABLES)
        self._connection.execute("BEGIN")
        self._values: list[object] = []  # of rows that are not written yet, one after the other
        self._records = self._along = 0

    def __enter__(self) -> "JudgementFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._flush()
            self._connection.execute("COMMIT")
            self._connection.executescript(INDEXES)
            self._connection.executescript(GONE)
        self._connection.close()

    def leave_out(self, row: LeftOutRow, *, counts: bool = True) -> None:
        """Append a record that is left out; one that only goes along with another is in no list of them."""
        self._records += counts
        self._along += not counts
        self._values.extend((self._records if counts else -self._along, *row))
        if len(self._values) >= BATCH:
            self._flush()

    def leaver(self, part: str, verdict: int) -> Leaver:
        """Return what appends records of a part with one verdict: `leave_out` for half a million of them."""
        values, extend = self._values, self._values.extend

        def leave(filename: str, name: str, version: str, build: str, size: int | None, counts: bool) -> None:
            if counts:
                self._records += 1
                extend((self._records, part, filename, name, version, build, size, verdict))
            else:
                self._along += 1
                extend((-self._along, part, filename, name, version, build, size, verdict))
            if len(values) >= BATCH:
                self._flush()

        return leave

    def _flush(self) -> None:
        """Write what waits, many rows a statement: one for each costs half as much again."""
        values = self._values
        self._write("left_out", LEFT_OUT_COLUMNS, values)
        values.clear()

    def _write(self, table: str, columns: Sequence[str], values: Sequence[object]) -> None:
        """Write rows whose values stand one after the other."""
        width = len(columns)
        step = TOGETHER * width
        whole = len(values) - len(values) % step
        execute = self._connection.executemany
        execute(_insert(table, columns, TOGETHER), (values[at : at + step] for at in range(0, whole, step)))
        execute(_insert(table, columns, 1), (values[at : at + width] for at in range(whole, len(values), width)))

    def kept(self, names: Iterable[str]) -> None:
        """Write the names of which something is kept, when all that is left out was told."""
        self._connection.executemany("INSERT OR REPLACE INTO kept VALUES (?)", ((name,) for name in names))

    def verdicts(self, rows: Iterable[tuple[int, str, str, bool]]) -> None:
        """Write what the numbers of verdicts mean: number, rule, why, whether files are refused."""
        self._connection.executemany("INSERT INTO verdict VALUES (?, ?, ?, ?)", rows)

    def chosen(self, rows: Iterable[ChosenRow]) -> None:
        """Write what is kept, by name."""
        following = iter(rows)
        while some := list(chain.from_iterable(islice(following, ROWS))):
            self._write("chosen", CHOSEN_COLUMNS, some)

    def missing(self, rows: Iterable[tuple[str, str, Sequence[str], str]]) -> None:
        """Write what nothing meets: requirement, platform, chain, why."""
        self._connection.executemany(
            "INSERT INTO missing (requirement, platform, chain, why) VALUES (?, ?, ?, ?)",
            ((text, platform, msgspec.json.encode(chain).decode(), why) for text, platform, chain, why in rows),
        )

    def about(self, about: About) -> None:
        """Write by what it was judged."""
        self._connection.execute("INSERT INTO about VALUES ('about', ?)", (msgspec.json.encode(about).decode(),))


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
            rows = connection.execute(
                f"{_LEFT_OUT} WHERE l.filename = ? AND l.part = ? ORDER BY l.id LIMIT 1", (filename, part)
            )
            return next(_left_out(rows), None)

        return self._read(body, None)

    def page(self, *, rule: str | None, query: str | None, after: int, limit: int) -> tuple[list[LeftOut], int]:
        """Return the next records that are left out, and how many there are in all; `query`: part of a file's name."""
        nothing: tuple[list[LeftOut], int] = ([], 0)
        where = "(:rule IS NULL OR v.rule = :rule) AND (:query IS NULL OR instr(lower(l.filename), lower(:query)))"
        values = {"rule": rule, "query": query, "after": after, "limit": limit}

        def body(connection: sqlite3.Connection) -> tuple[list[LeftOut], int]:
            rows = connection.execute(f"{_LEFT_OUT} WHERE {where} AND l.id > :after ORDER BY l.id LIMIT :limit", values)
            found = list(_left_out(rows))
            count = f"SELECT count(*) FROM left_out l JOIN verdict v ON v.id = l.verdict WHERE {where} AND l.id > 0"
            return found, int(connection.execute(count, values).fetchone()[0])

        return self._read(body, nothing)

    def gone(self, *, query: str | None, after: str, limit: int) -> list[Gone]:
        """Return the next packages of which nothing is kept, by name; `query`: part of a name."""

        def body(connection: sqlite3.Connection) -> list[Gone]:
            rows = connection.execute(
                "SELECT g.name, g.files, v.rule, v.why FROM gone g JOIN left_out l ON l.id = g.first"
                " JOIN verdict v ON v.id = l.verdict WHERE g.name > :after"
                " AND (:query IS NULL OR instr(lower(g.name), lower(:query))) ORDER BY g.name LIMIT :limit",
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
            rows = connection.execute(
                "SELECT v.rule, count(*) FROM left_out l JOIN verdict v ON v.id = l.verdict WHERE l.id > 0"
                " GROUP BY v.rule"
            )
            return dict(rows.fetchall())

        return self._read(body, {})

    def named(self, name: str | None, limit: int) -> list[LeftOut]:
        """Return what is left out of a package, in any case of its name; None: of all."""

        def body(connection: sqlite3.Connection) -> list[LeftOut]:
            rows = connection.execute(
                f"{_LEFT_OUT} WHERE l.id > 0 AND (?1 IS NULL OR l.name IN (?1, lower(?1))) ORDER BY l.id LIMIT ?2",
                (name, limit),
            )
            return list(_left_out(rows))

        return self._read(body, [])

    def chosen_page(self, after: int, limit: int) -> list[Chosen]:
        """Return the next records that are kept, by name."""

        def body(connection: sqlite3.Connection) -> list[Chosen]:
            rows = connection.execute(
                f"SELECT {', '.join(Chosen.__struct_fields__)} FROM chosen WHERE id > ? ORDER BY id LIMIT ?",
                (after, limit),
            )
            return [
                msgspec.convert(dict(zip(Chosen.__struct_fields__, row, strict=True)), Chosen, strict=False)
                for row in rows
            ]

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


_LEFT_OUT = (
    "SELECT l.id, l.part, l.filename, l.name, l.version, l.build, l.size, v.rule, v.why, v.refuses"
    " FROM left_out l JOIN verdict v ON v.id = l.verdict"
)


def _left_out(rows: Iterable[tuple[object, ...]]) -> Iterator[LeftOut]:
    for row in rows:
        yield msgspec.convert(dict(zip(LeftOut.__struct_fields__, row, strict=True)), LeftOut, strict=False)


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
