"""The only place with the SQL of a run's own file, as a worker writes it.

A run file is an SQLite file that one run owns, one for each worker that reads for it: a read leaves what to add and to
close there (what is taken in early in files apart), a render the objects that it changed and the summaries of its
packages. It can be thrown away and made
again, so it is written without a journal and without syncing.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from heapq import merge
from itertools import chain
from pathlib import Path
from types import TracebackType

from firthd.store.columns import Column
from firthd.store.joined import JOINED

READ_TABLES = """
DROP TABLE IF EXISTS "add";
DROP TABLE IF EXISTS "close";
DROP TABLE IF EXISTS offer;
DROP TABLE IF EXISTS sight;
CREATE TABLE "add" (
  ordinal INTEGER PRIMARY KEY,              -- rises with filename within a part
  family TEXT NOT NULL,
  part TEXT NOT NULL,
  {columns},
  replaces INTEGER,                         -- the artifact.id that it closes
  failed INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE "close" (
  artifact_id INTEGER PRIMARY KEY,
  family TEXT NOT NULL,
  part TEXT NOT NULL,
  name TEXT NOT NULL,
  reason TEXT NOT NULL,                     -- gone, replaced, filtered, policy
  skipped INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE offer (                        -- names that the mirror begins or ceases to offer in a part
  ordinal INTEGER PRIMARY KEY,
  family TEXT NOT NULL,
  part TEXT NOT NULL,
  name TEXT NOT NULL,
  begins INTEGER NOT NULL
) STRICT;
CREATE TABLE sight (                        -- records whose age is counted from here on
  part TEXT NOT NULL,
  filename TEXT NOT NULL,
  digest TEXT NOT NULL,
  seen_at INTEGER NOT NULL
) STRICT;
"""

RENDER_TABLES = """
DROP TABLE IF EXISTS object;
DROP TABLE IF EXISTS package;
CREATE TABLE object (                       -- only paths that this generation changes; sha256 NULL: gone
  path TEXT PRIMARY KEY,
  sha256 BLOB,
  size INTEGER,
  file BLOB,                                -- sha256 of the file or pack
  offset INTEGER,                           -- in a pack
  encoding TEXT,
  lasting INTEGER NOT NULL DEFAULT 0        -- 1: the path holds its own hash
) STRICT, WITHOUT ROWID;
CREATE TABLE package (                      -- only names that this generation changes; files = 0: gone
  family TEXT NOT NULL,
  name TEXT NOT NULL,
  version TEXT NOT NULL,
  versions INTEGER NOT NULL,
  files INTEGER NOT NULL,
  bytes INTEGER NOT NULL,
  platforms TEXT NOT NULL,                  -- JSON array of parts
  depends TEXT NOT NULL,                    -- JSON array: names that the newest version depends on
  digest BLOB,                              -- of its visible entries; NULL: it has none
  hidden TEXT NOT NULL,                     -- JSON: mirror -> files that are not its owner's
  PRIMARY KEY (family, name)
) STRICT, WITHOUT ROWID;
"""

AddRow = tuple[object, ...]  # family, part, the columns that `start_read` was given in their order, replaces
CloseRow = tuple[int, str, str, str, str]  # artifact_id, family, part, name, reason
PackedRow = tuple[str, bytes, int, bytes, int]  # path, sha256, size, pack, offset
OfferRow = tuple[str, str, str, bool]  # family, part, name, begins
SightRow = tuple[str, str, str, int]  # part, filename, digest, seen_at in milliseconds
SummaryLine = tuple[
    str, str, str, int, int, int, str, str, bytes | None, str
]  # family, name, version, versions, files, bytes, platforms, depends, digest, hidden


def numbered(path: Path, number: int) -> Path:
    """Return the file of a run into which its worker of that number reads: the first one has the run's own name."""
    return path.with_name(f"{path.name}.{number}") if number else path


def files_of(path: Path) -> list[Path]:
    """Return the files that the workers of a run have read into; no two hold rows of the same part."""
    found = [path]
    while (following := numbered(path, len(found))).exists():
        found.append(following)
    return found


def forget_more(path: Path) -> None:
    """Delete all of a run's files but the first, which is written anew."""
    for more in files_of(path)[1:]:
        more.unlink()


def added(paths: Iterable[Path], columns: Sequence[Column], page: int, *, shared: bool) -> Iterator[AddRow]:
    """Yield what a run's files add, part by part, by file name and section; each is open for a page of rows at a time.

    `shared`: several may hold rows of one part; parts come by their names in each. The daemon may write into them
    meanwhile, but for what is yielded.
    """
    names = ["family", "part", *(column.name for column in columns), "replaces"]
    part, filename, section = map(names.index, ("part", "filename", "section"))

    def of_one(path: Path) -> Iterator[AddRow]:
        last = 0
        query = f'SELECT ordinal, {", ".join(names)} FROM "add" WHERE ordinal > ? ORDER BY ordinal LIMIT ?'
        while True:
            with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
                rows = connection.execute(query, (last, page)).fetchall()
            if not rows:
                return
            last = rows[-1][0]
            yield from (row[1:] for row in rows)

    files = [of_one(path) for path in paths]
    if not shared or len(files) == 1:
        return chain.from_iterable(files)
    return merge(*files, key=lambda row: (row[part], row[filename], row[section]))


class RunFile:
    """A run's own file, open for writing. One transaction lasts from the opening to `close`."""

    def __init__(self, path: str) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._path = path
        self._apart = 0  # files written beside this one
        self._columns: Sequence[Column] = ()
        for pragma in (
            "page_size=16384",
            "journal_mode=OFF",
            "synchronous=OFF",
            "locking_mode=EXCLUSIVE",
            "cache_size=-8192",
        ):
            self._connection.execute(f"PRAGMA {pragma}")

    def __enter__(self) -> "RunFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Commit what was written and close the file."""
        if self._connection.in_transaction:
            self._connection.execute("COMMIT")
        self._connection.close()

    def start_read(self, columns: Sequence[Column], *, anew: bool = True) -> None:
        """Make the tables of a read, empty; `columns` are those of a record. `anew` False: they are there and stay."""
        self._columns = columns
        if anew:
            definitions = ",\n  ".join(column.definition for column in columns)
            self._connection.executescript(READ_TABLES.format(columns=definitions))
        self._connection.execute("BEGIN")

    def start_render(self) -> None:
        """Make the tables of a render, empty; those of a read stay."""
        self._connection.executescript(RENDER_TABLES)
        self._connection.execute("BEGIN")

    def add(self, rows: Iterable[AddRow]) -> None:
        """Append records to add; those of a part come one behind the other, by file name."""
        names = ["family", "part", *(column.name for column in self._columns), "replaces"]
        self._connection.executemany(
            f'INSERT INTO "add" ({", ".join(names)}) VALUES ({", ".join("?" * len(names))})', rows
        )

    def apart(self, rows: Iterable[AddRow]) -> str | None:
        """Write records to add into a file of their own, whole when this returns; None: there were none."""
        first = next(iter(rows), None)
        if first is None:
            return None
        self._apart += 1
        path = f"{self._path}.early-{self._apart}"
        with RunFile(path) as file:
            file.start_read(self._columns)
            file.add(chain([first], rows))
        return path

    def close_rows(self, rows: Iterable[CloseRow]) -> None:
        """Append artifacts to close; the same one twice counts once."""
        self._connection.executemany(
            'INSERT OR IGNORE INTO "close" (artifact_id, family, part, name, reason) VALUES (?, ?, ?, ?, ?)', rows
        )

    def offers(self, rows: Iterable[OfferRow]) -> None:
        """Append names that the mirror begins or ceases to offer."""
        self._connection.executemany("INSERT INTO offer (family, part, name, begins) VALUES (?, ?, ?, ?)", rows)

    def sights(self, rows: Iterable[SightRow]) -> None:
        """Append records that were seen for the first time."""
        self._connection.executemany("INSERT INTO sight VALUES (?, ?, ?, ?)", rows)

    def files(self, rows: Iterable[tuple[str, str, int]]) -> None:
        """Write objects that are files of their own: path, sha256 in hex, size."""
        self._connection.executemany(
            "INSERT INTO object (path, sha256, size, file) VALUES (?1, ?2, ?3, ?2)",
            ((path, bytes.fromhex(sha256), size) for path, sha256, size in rows),
        )

    def joined(self, rows: Iterable[tuple[str, str, int]]) -> None:
        """Write objects whose files list their pieces: path, sha256 of the file in hex, size of what is shown."""
        self._connection.executemany(
            f"INSERT INTO object (path, sha256, size, file, encoding) VALUES (?1, ?2, ?3, ?2, '{JOINED}')",
            ((path, bytes.fromhex(sha256), size) for path, sha256, size in rows),
        )

    def packed(self, rows: Iterable[PackedRow], *, lasting: bool = True) -> None:
        """Write objects in packs; `lasting`: their paths hold their own hash."""
        self._connection.executemany(
            f"INSERT INTO object (path, sha256, size, file, offset, lasting) VALUES (?, ?, ?, ?, ?, {int(lasting)})",
            rows,
        )

    def ended(self, paths: Iterable[str]) -> None:
        """Write that paths show nothing any more."""
        self._connection.executemany("INSERT OR IGNORE INTO object (path) VALUES (?)", ((path,) for path in paths))

    def packages(self, rows: Iterable[SummaryLine]) -> None:
        """Write the summaries of changed packages."""
        self._connection.executemany(
            "INSERT INTO package (family, name, version, versions, files, bytes, platforms, depends, digest, hidden)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            rows,
        )
