"""The only place with the SQL of a mirror's judgement: what its policy leaves out and why, what it chose, what lacks.

It is a file beside the state, one a mirror: written whole by a worker, put in place by a rename, then only read. It is
derived: the next run of the mirror makes it anew. What is left out may be nearly all that a source lists: it lies in
blocks of records, packed column by column, a fifth of what a row for each takes of time and of the disk.
"""

import sqlite3
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set
from contextlib import closing
from functools import cached_property
from itertools import chain, islice, starmap
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Protocol, TypeVar

import msgspec
import zstandard
from msgspec import Struct

T = TypeVar("T")

TABLES = """
CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE verdict (
  id INTEGER PRIMARY KEY, rule TEXT NOT NULL, why TEXT NOT NULL, refuses INTEGER NOT NULL,
  records INTEGER NOT NULL -- that are left out by it and counted
) STRICT;
CREATE TABLE block (
  id INTEGER PRIMARY KEY, -- a record's own is this and its place in the block
  part TEXT NOT NULL,
  counts INTEGER NOT NULL, -- 0: its files go along with others, and are in no list
  first TEXT NOT NULL, last TEXT NOT NULL, -- of its file names, which need not be in order
  verdicts BLOB NOT NULL, filenames BLOB NOT NULL, told BLOB NOT NULL -- columns
) STRICT;
CREATE TABLE named (
  name TEXT NOT NULL, block INTEGER NOT NULL, files INTEGER NOT NULL, verdict INTEGER NOT NULL, -- of the first of them
  PRIMARY KEY (name, block)
) STRICT, WITHOUT ROWID;
CREATE TABLE chosen (
  id INTEGER PRIMARY KEY, part TEXT NOT NULL, filename TEXT NOT NULL, name TEXT NOT NULL, version TEXT NOT NULL,
  build TEXT NOT NULL, size INTEGER, license TEXT, direct INTEGER NOT NULL, needed_by TEXT NOT NULL
) STRICT;
CREATE TABLE missing (
  id INTEGER PRIMARY KEY, requirement TEXT NOT NULL, platform TEXT NOT NULL, chain TEXT NOT NULL, why TEXT NOT NULL
) STRICT;
CREATE TABLE gone (name TEXT PRIMARY KEY, files INTEGER NOT NULL, verdict INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE kept (name TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;
"""
# Of what is kept in part nothing is to be told. Beside min() a column is that of the row which has it.
AT_LAST = """
CREATE INDEX block_part ON block(part, first, last);
INSERT INTO gone SELECT name, files, verdict FROM (
  SELECT name, sum(files) AS files, min(block), verdict FROM named GROUP BY name
) WHERE name NOT IN (SELECT name FROM kept);
DROP TABLE kept;
"""
CHOSEN_COLUMNS = ("part", "filename", "name", "version", "build", "size", "license", "direct", "needed_by")
TOGETHER = 40
ROWS = 250 * TOGETHER
BLOCK = 1000
PLACES = 1 << 12
"""More than a block has."""
OPEN_MOST = 64
ZST_LEVEL = 1


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


ChosenRow = tuple[str, str, str, str, str, int | None, str | None, bool, str]


class Brief(Protocol):
    """What is told of a record that is left out, beside its file."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def build(self) -> str: ...
    @property
    def size(self) -> int | None: ...


class _Told(NamedTuple):
    """The columns of a block that only whoever shows its records needs."""

    names: list[str]
    versions: list[str]
    builds: list[str]
    sizes: list[int | None]


class _Open(NamedTuple):
    """A block that has room."""

    verdicts: list[int]
    filenames: list[str]
    briefs: list[Brief]


_encode = msgspec.msgpack.encode
_decode_numbers = msgspec.msgpack.Decoder(list[int]).decode
_decode_texts = msgspec.msgpack.Decoder(list[str]).decode
_decode_told = msgspec.msgpack.Decoder(_Told).decode


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
        self._compress = zstandard.ZstdCompressor(level=ZST_LEVEL).compress
        self._open: dict[tuple[str, bool], _Open] = {}  # by part, and whether its files count
        self._records: Counter[int] = Counter()  # by the number of the verdict
        self._blocks = 0

    def __enter__(self) -> "JudgementFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._end_blocks()
            self._connection.executemany(
                "UPDATE verdict SET records = ? WHERE id = ?", ((number, one) for one, number in self._records.items())
            )
            self._connection.execute("COMMIT")
            self._connection.executescript(AT_LAST)
        self._connection.close()

    def leave_out(self, part: str, filename: str, brief: Brief, verdict: int, *, counts: bool = True) -> None:
        """Append a record that is left out; one that only goes along with another is in no list of them."""
        self.leave_all(part, (filename,), (brief,), verdict, counts=counts)

    def leave_all(
        self, part: str, filenames: Collection[str], briefs: Collection[Brief], verdict: int, *, counts: bool = True
    ) -> None:
        """Append at most a block of records with one verdict."""
        one = self._open.get((part, counts))
        if one is None:
            if len(self._open) == OPEN_MOST:
                self._end_blocks()
            one = self._open[part, counts] = _Open([], [], [])
        one.verdicts.extend([verdict] * len(filenames))
        one.filenames.extend(filenames)
        one.briefs.extend(briefs)
        if len(one.filenames) >= BLOCK:
            self._end_block(part, counts=counts)

    def _end_blocks(self) -> None:
        for part, counts in list(self._open):
            self._end_block(part, counts=counts)

    def _end_block(self, part: str, *, counts: bool) -> None:
        verdicts, filenames, briefs = self._open.pop((part, counts))
        if not filenames:
            return
        self._blocks += 1
        number, pack = self._blocks * PLACES, self._compress
        names = [one.name for one in briefs]
        told = _Told(
            names, [one.version for one in briefs], [one.build for one in briefs], [one.size for one in briefs]
        )
        first, last = min(filenames), max(filenames)
        columns = (_encode(verdicts), pack(_encode(filenames)), pack(_encode(told)))
        execute = self._connection.execute
        execute("INSERT INTO block VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (number, part, counts, first, last, *columns))
        if not counts:
            return
        self._records.update(verdicts)
        firsts = dict(zip(reversed(names), reversed(verdicts), strict=True))
        rows = ((name, number, files, firsts[name]) for name, files in Counter(names).items())
        self._connection.executemany("INSERT INTO named VALUES (?, ?, ?, ?)", rows)

    def _write(self, table: str, columns: Sequence[str], values: Sequence[object]) -> None:
        """Write rows whose values stand one after the other, many a statement: one for each costs half as much more."""
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
        self._connection.executemany("INSERT INTO verdict VALUES (?, ?, ?, ?, 0)", rows)

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
            blocks = connection.execute(
                f"{_BLOCKS} WHERE part = ?1 AND first <= ?2 AND last >= ?2 ORDER BY id", (part, filename)
            )
            verdicts = _verdicts(connection)
            for block in starmap(_Block, blocks):
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
            for block in starmap(_Block, blocks):
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
                for block in starmap(_Block, blocks)
                for place, one in enumerate(block.told.names)
                if spellings is None or one in spellings
            )
            return list(islice(every, limit))

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


_BLOCKS = "SELECT id, part, verdicts, filenames, told FROM block"


class _Verdict(NamedTuple):
    rule: str
    why: str
    refuses: bool
    records: int


def _verdicts(connection: sqlite3.Connection) -> dict[int, _Verdict]:
    rows = connection.execute("SELECT id, rule, why, refuses, records FROM verdict")
    return {row[0]: _Verdict(row[1], row[2], bool(row[3]), row[4]) for row in rows}


class _Block:
    """Some records that are left out; a column is unpacked when it is looked at."""

    def __init__(self, number: int, part: str, verdicts: bytes, filenames: bytes, told: bytes) -> None:
        self.id = number
        self._part = part
        self._verdicts = verdicts
        self._filenames = filenames
        self._told = told

    @cached_property
    def verdicts(self) -> list[int]:
        return _decode_numbers(self._verdicts)

    @cached_property
    def _names_of_files(self) -> bytes:
        return zstandard.decompress(self._filenames)

    @cached_property
    def filenames(self) -> list[str]:
        return _decode_texts(self._names_of_files)

    @cached_property
    def told(self) -> _Told:
        return _decode_told(zstandard.decompress(self._told))

    def places(self, meant: Set[int] | None, query: bytes | None) -> Sequence[int]:
        """Return where records stand with one of these verdicts, and with this in their files' names in any case."""
        places: Sequence[int] = range(len(self.verdicts))
        if meant is not None:
            places = [place for place in places if self.verdicts[place] in meant]
        if query is None or not places:
            return places
        if query not in self._names_of_files.lower():
            return ()
        return [place for place in places if query in self.filenames[place].encode().lower()]

    def left_out(self, place: int, verdicts: Mapping[int, _Verdict]) -> LeftOut:
        """Return the record at a place."""
        verdict, told = verdicts[self.verdicts[place]], self.told
        return LeftOut(
            id=self.id + place,
            part=self._part,
            filename=self.filenames[place],
            name=told.names[place],
            version=told.versions[place],
            build=told.builds[place],
            size=told.sizes[place],
            rule=verdict.rule,
            why=verdict.why,
            refuses=verdict.refuses,
        )


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
