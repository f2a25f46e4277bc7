"""The only place that makes the index of a part out of its visible rows: PACKAGES in three forms, tables of files.

All forms of a part are made of the same rows in one step, so none of them is ever older than another. Stanzas are the
source's bytes, but for what names a file by its record: they say where it lies here, which is where it lay there.
"""

import gzip
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence, Set

from firthd.families.base import InvalidRecordError, Output
from firthd.families.r import rds
from firthd.families.r.dcf import fields_of
from firthd.families.r.names import ARCHIVE, SOURCES
from firthd.families.r.paths import ARCHIVED, CURRENT, PACKAGES
from firthd.families.r.records import as_listed, fingerprint, record_problem
from firthd.store.worker_reads import ShownRow

GZIP_LEVEL = 6
STANDARD = (
    "Package",
    "Version",
    "Priority",
    "Depends",
    "Imports",
    "LinkingTo",
    "Suggests",
    "Enhances",
    "License",
    "License_is_FOSS",
    "License_restricts_use",
    "OS_type",
    "Archs",
    "MD5sum",
    "NeedsCompilation",
    "Built",
    "File",
    "Path",
)
"""The fields that R looks for, in the order that it writes them."""
COLUMNS_MAX = 100
CELLS_MAX = 20_000_000
"""Fields that R does not look for are in its table as long as it has no more cells than this."""
MODE = 0o644
TIMES = rds.texts(["POSIXct", "POSIXt"])


class PartRenderer:
    """Renders one part, in memory: its stanzas and as much again."""

    published = True  # a part that the source has, or had, is there: an empty one is an empty repository

    def __init__(self, part: str, out: Output) -> None:
        self._part = part
        self._out = out
        self._rows: list[ShownRow] = []

    def add(self, row: ShownRow) -> None:
        """Take one visible record."""
        self._rows.append(row)

    def finish(self, report: Callable[[str, int, int], None]) -> None:
        """Write every form."""
        if self._part == ARCHIVE:
            write(self._out, ARCHIVED, archive_rds(self._rows))
            return
        raws = [as_listed(row.raw) for row in self._rows]
        content = b"".join(b"%b\n\n" % raw for raw in raws)
        write(self._out, f"{self._part}/{PACKAGES}", content)
        write(self._out, f"{self._part}/{PACKAGES}.gz", packed(content))
        report(f"{self._part}/{PACKAGES}.rds", 0, len(self._rows))
        write(self._out, f"{self._part}/{PACKAGES}.rds", packages_rds(raws))
        if self._part == SOURCES:
            write(self._out, CURRENT, packed(rds.written(frame([(row.filename, row) for row in self._rows]))))


def conclude(rendered: Set[str], out: Output) -> None:
    """Write the empty table of the archive where there are sources and no archive: clients read it before they look."""
    if SOURCES in rendered and ARCHIVE not in rendered and not out.has(ARCHIVED):
        write(out, ARCHIVED, archive_rds([]))


def check_row(row: ShownRow) -> None:
    """Raise InvalidRecordError unless every form can hold a row's record, and R takes it."""
    fingerprint(row.raw)
    if (problem := record_problem(fields_of(row.raw), row.section)) is not None:
        raise InvalidRecordError(problem)


def write(out: Output, path: str, content: bytes) -> None:
    with out.open(path) as file:
        file.write(content)


def packed(content: bytes) -> bytes:
    """Return the gzip form; the same bytes in give the same bytes out, every time."""
    return gzip.compress(content, compresslevel=GZIP_LEVEL, mtime=0)


def packages_rds(raws: Sequence[bytes]) -> bytes:
    """Return PACKAGES.rds of these stanzas: R's matrix of texts, NA where a record lacks a field."""
    records = [dict(fields_of(raw)) for raw in raws]
    columns = columns_of(records)
    names = [record["Package"] for record in records]
    cells: list[bytes] = []
    missing = rds.text(None)
    for column in columns:
        cells += [missing if (value := record.get(column)) is None else rds.text(value) for record in records]
    matrix = rds.text_items(
        cells,
        dim=rds.ints([len(records), len(columns)]),
        dimnames=rds.things([rds.texts(names), rds.texts(columns)]),
    )
    return packed(rds.written(matrix))


def columns_of(records: Iterable[Mapping[str, str]]) -> list[str]:
    """Return the fields of a matrix: those that R knows, then others; the rarest of too many are left out."""
    counts = Counter(name for record in records for name in record)
    known = [name for name in STANDARD if name in counts or name in STANDARD[:15]]
    others = sorted(counts.keys() - set(STANDARD), key=lambda name: (-counts[name], name))
    room = min(COLUMNS_MAX, CELLS_MAX // max(counts["Package"], 1)) - len(known)
    return [*known, *sorted(others[: max(room, 0)])]


def archive_rds(rows: Sequence[ShownRow]) -> bytes:
    """Return Meta/archive.rds: package -> data frame of its files; the rows come by path."""
    by_package: dict[str, list[tuple[str, ShownRow]]] = {}
    for row in rows:
        by_package.setdefault(row.filename.partition("/")[0], []).append((row.filename, row))
    names = sorted(by_package)
    frames = rds.things([frame(by_package[name]) for name in names], names=rds.texts(names))
    return packed(rds.written(frames))


def frame(files: Sequence[tuple[str, ShownRow]]) -> bytes:
    """Return the data frame that R's `file.info` gives of files: path -> size, kind, mode, times, owner."""
    count = len(files)
    times = rds.reals([None if row.timestamp is None else row.timestamp / 1000 for _, row in files], class_=TIMES)
    owner = rds.texts(["firth"] * count)
    columns = {
        "size": rds.reals([row.size for _, row in files]),
        "isdir": rds.logicals([False] * count),
        "mode": rds.ints([MODE] * count, class_=rds.texts(["octmode"])),
        "mtime": times,
        "ctime": times,
        "atime": times,
        "uname": owner,
        "grname": owner,
    }
    return rds.things(
        list(columns.values()),
        names=rds.texts(columns),
        class_=rds.texts(["data.frame"]),
        row_names=rds.texts([path for path, _ in files]),
    )
