"""The only place that says what a reading of a source's index has found, part by part, and what of it is to be read."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from firthd.families.base import FamilyRules, Spool
from firthd.families.pieces import AHEAD, PIECES
from firthd.index.messages import PartResult
from firthd.store.catalog import SourceIndexRow

NO_MARKS: Mapping[str, str] = {}


class FetchedPart(Struct, frozen=True, kw_only=True):
    """One part as it is now; `changed` False: the copy read before is still the source's."""

    row: SourceIndexRow
    changed: bool
    lists: bool = False  # it is a list of parts
    beside: tuple[str, ...] = ()  # names of the copies of files that are read with it
    pieces: Spool | None = None  # what has moved of it, where it is not read whole
    moved: list[str] | None = None  # as `Spool.moved`
    taken: SourceIndexRow | None = None  # the list of its pieces, as it is when the part is taken in whole

    @property
    def must_be_read(self) -> bool:
        return self.changed or not self.row.settled


class Index(Struct, frozen=True, kw_only=True):
    parts: list[FetchedPart]
    sides: list[FetchedPart] = []  # files beside them
    failed: int = 0  # parts that could not be had and stay as they were
    marked: dict[str, str] = {}  # parts that a list marks anew and that have not changed
    reads_beside: bool = False  # the sides are read with their parts

    @property
    def changed(self) -> bool:
        return any(part.changed for part in (*self.parts, *self.sides))

    @property
    def renewed(self) -> list[str]:
        """The parts beside which something is new or was not taken in ("": beside all of them)."""
        if self.reads_beside:  # what they say is in the records
            return []
        return sorted({side.row.beside or "" for side in self.sides if side.must_be_read})

    @property
    def unsettled(self) -> bool:
        """Whether something must be read, because it changed or was not taken in whole."""
        return any(part.must_be_read for part in (*self.parts, *self.sides))

    @property
    def in_pieces(self) -> bool:
        """Whether some part is not there whole."""
        return any(part.pieces is not None for part in self.parts)

    @property
    def bytes(self) -> int:
        return sum(part.row.size for part in self.parts)

    def to_read(self, folder: Path, *, everything: bool) -> list[Spool]:
        """Return the parts for a read task: those that changed or were not taken in whole, or all."""
        return [
            part.pieces
            or Spool(
                part=part.row.part,
                file=str(folder / part.row.file) if part.row.file else None,
                encoding=part.row.encoding,
                mark=part.row.mark,
                base_url=part.row.base_url,
                lists=part.lists,
                beside=tuple(str(folder / name) for name in part.beside),
                moved=part.moved,
            )
            for part in self.parts
            if part.must_be_read or everything
        ]

    def as_read(self, results: Iterable[PartResult], holes: Collection[str], run_id: int) -> list[SourceIndexRow]:
        """Return the rows as a run leaves them that has read `results`; parts with holes are to be read again."""
        by_part = {result.part: result for result in results}

        def as_it_is(row: SourceIndexRow) -> SourceIndexRow:
            result = by_part.get(row.part)
            if result is None:
                return row
            if result.unreadable is not None:  # it is asked for anew
                void: dict[str, Any] = {"file": None, "size": 0, "etag": None, "last_modified": None, "mark": None}
                return replace(row, **void, settled=0)
            whole = not result.invalid_count and not result.emptied and row.part not in holes
            return replace(
                row,
                records=result.records,
                base_url=result.base_url,
                signed=result.signed,
                refused=result.refused,
                settled=run_id if whole else 0,
            )

        rows = [
            (part, as_it_is(replace(part.row, mark=AHEAD) if part.pieces is not None else part.row))
            for part in self.parts
        ]
        # A part with holes that came in pieces stays settled as it was: what its list says is asked for again.
        parts = [
            replace(row, settled=part.row.settled) if part.pieces is not None and not row.settled else row
            for part, row in rows
        ]
        taken = {part.taken.part: part.taken for part, row in rows if part.taken is not None and row.settled}
        kept = (side.row for side in self.sides if side.row.part not in taken and not lost(side.row))
        return [*parts, *(replace(row, settled=run_id) for row in kept), *taken.values()]


def lost(row: SourceIndexRow) -> bool:
    """Tell whether this is a list of pieces of which nobody knows whether the rows hold what it says."""
    return row.encoding == PIECES and not row.settled


def index_of(
    every: Sequence[FetchedPart], rules: FamilyRules, *, failed: int = 0, marked: Mapping[str, str] = NO_MARKS
) -> Index:
    """Return an index of parts and of files beside them; a part that is read with those is new when one of them is."""
    parts = [part for part in every if part.row.beside is None]
    sides = [part for part in every if part.row.beside is not None]

    def with_sides(part: FetchedPart) -> FetchedPart:
        beside = [side for side in sides if side.row.beside == part.row.part]
        files = tuple(side.row.file for side in beside if side.row.file is not None)
        news = part.row.file is not None and any(side.must_be_read for side in beside)
        return replace(part, beside=files, changed=part.changed or news)

    if rules.reads_beside:
        parts = [with_sides(part) for part in parts]
    return Index(parts=parts, sides=sides, failed=failed, marked=dict(marked), reads_beside=rules.reads_beside)
