"""The only place that writes a mirror's judgement: what its policy leaves out and why, what it chose, what lacks.

A worker writes it whole, into a file of its own; several workers that judge parts of a mirror write one each, which are
joined. `store.excluded` reads it.
"""

import sqlite3
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import msgspec
from msgspec import Struct

from firthd.store.packed import Brief, ChosenRow, packed, packed_chosen

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
CREATE TABLE chosen (id INTEGER PRIMARY KEY, records BLOB NOT NULL) STRICT; -- a record's own: this and its place
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
BLOCK = 1000
PLACES = 1 << 12
"""More than a block has."""
OPEN_MOST = 64
VERDICT_BITS, BLOCK_BITS = 24, 32
"""The numbers of verdicts and blocks that a worker gives begin behind those of the workers before."""
PRAGMAS = ("page_size=16384", "journal_mode=OFF", "synchronous=OFF", "locking_mode=EXCLUSIVE")


class About(Struct, frozen=True, kw_only=True):
    """By which policy a mirror was judged."""

    policy: str
    stamp: str  # the policy with its revision and what else it hangs on
    closes: bool  # dependencies were looked at
    unsolvable: list[str] = []  # what is allowed and cannot be installed
    unlisted: int = 0  # how many more requirements nothing meets than are listed
    notes: list[str] = []  # what was not looked at


class _Open(NamedTuple):
    """A block that has room."""

    verdicts: list[int]
    filenames: list[str]
    briefs: list[Brief]


class JudgementFile:
    """A mirror's judgement, open for writing in a worker.

    `share`: the number of the worker among several, whose files `join` puts together; None: it is the only one.
    """

    def __init__(self, path: str, share: int | None = None) -> None:
        Path(path).unlink(missing_ok=True)
        self._connection = sqlite3.connect(path, isolation_level=None)
        for pragma in PRAGMAS:
            self._connection.execute(f"PRAGMA {pragma}")
        self._connection.executescript(TABLES)
        self._connection.execute("BEGIN")
        self._open: dict[tuple[str, bool], _Open] = {}  # by part, and whether its files count
        self._records: Counter[int] = Counter()  # by the number of the verdict
        self._shared = share is not None
        self._verdicts_from, self._blocks = (share or 0) << VERDICT_BITS, (share or 0) << BLOCK_BITS

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
            if not self._shared:
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
        one.verdicts.extend([verdict + self._verdicts_from] * len(filenames))
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
        number, names = self._blocks * PLACES, [one.name for one in briefs]
        row = (number, part, counts, min(filenames), max(filenames), *packed(verdicts, filenames, briefs))
        self._connection.execute("INSERT INTO block VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
        if not counts:
            return
        self._records.update(verdicts)
        firsts = dict(zip(reversed(names), reversed(verdicts), strict=True))
        rows = ((name, number, files, firsts[name]) for name, files in Counter(names).items())
        self._connection.executemany("INSERT INTO named VALUES (?, ?, ?, ?)", rows)

    def kept(self, names: Iterable[str]) -> None:
        """Write the names of which something is kept, when all that is left out was told."""
        self._connection.executemany("INSERT OR REPLACE INTO kept VALUES (?)", ((name,) for name in names))

    def verdicts(self, rows: Iterable[tuple[int, str, str, bool]]) -> None:
        """Write what the numbers of verdicts mean: number, rule, why, whether files are refused."""
        self._connection.executemany(
            "INSERT INTO verdict VALUES (?, ?, ?, ?, 0)", ((row[0] + self._verdicts_from, *row[1:]) for row in rows)
        )

    def chosen(self, rows: Iterable[ChosenRow]) -> None:
        """Write what is kept, by name."""
        following = iter(rows)
        number = 0
        while some := list(islice(following, BLOCK)):
            number += PLACES
            self._connection.execute("INSERT INTO chosen VALUES (?, ?)", (number, packed_chosen(some)))

    def missing(self, rows: Iterable[tuple[str, str, Sequence[str], str]]) -> None:
        """Write what nothing meets: requirement, platform, chain, why."""
        self._connection.executemany(
            "INSERT INTO missing (requirement, platform, chain, why) VALUES (?, ?, ?, ?)",
            ((text, platform, msgspec.json.encode(chain).decode(), why) for text, platform, chain, why in rows),
        )

    def about(self, about: About) -> None:
        """Write by what it was judged."""
        self._connection.execute("INSERT INTO about VALUES ('about', ?)", (msgspec.json.encode(about).decode(),))


def join(files: Sequence[Path]) -> None:
    """Put what several workers have judged into the file of the first of them. Blocks.

    Each has looked at other parts, and at no dependencies: what would hang on parts of others is in none of them.
    """
    with closing(sqlite3.connect(files[0], isolation_level=None)) as connection:
        for pragma in PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")
        for other in files[1:]:
            connection.execute("ATTACH ? AS other", (str(other),))
            for table in ("verdict", "block", "named", "kept"):
                connection.execute(f"INSERT OR IGNORE INTO main.{table} SELECT * FROM other.{table}")
            connection.execute("DETACH other")
            other.unlink()
        connection.executescript(AT_LAST)
