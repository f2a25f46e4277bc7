"""What a run says of the parts of an index that it read: in its log, in sentences, by the state in which it ends."""

from collections.abc import Iterable, Mapping, Sequence

from firth_protocol import units
from firth_protocol.types import RunState
from firthd.clock import utc_day
from firthd.families.pieces import PIECES
from firthd.index.messages import PartResult
from firthd.mirrors.plan import PartChange
from firthd.runs.run import LiveRun
from firthd.store.catalog import SourceIndexRow
from firthd.store.runs import Failure
from firthd.upstream.failures import http_date_ms

INVALID_SHOWN = 1000


def note_parts(live: LiveRun, parts: Sequence[PartResult]) -> None:
    """Log what an administrator should know of parts, and each record that cannot be taken."""
    for part in parts:
        for note in part.notes:
            live.log(f"{part.part}: {note}", "warning")
        for invalid in part.invalid[:INVALID_SHOWN]:
            live.fail_artifact(Failure(part=part.part, filename=invalid.filename, reason=invalid.reason, attempts=1))
            live.log(f"{part.part}/{invalid.filename}: {invalid.reason}", "error")


def end_state(live: LiveRun) -> RunState:
    """Return how a run ends that has published."""
    return RunState.INCOMPLETE if live.counts.failed else RunState.COMPLETED


def not_yet_today(known: Mapping[str, SourceIndexRow], now_ms: int) -> bool:
    """Tell whether nobody has looked today for the parts that the source had not."""
    return utc_day(looked_at(known.values())) != utc_day(now_ms)


def looked_at(rows: Iterable[SourceIndexRow]) -> int:
    """Return when a part that the source has not was looked for last, 0 for never."""
    return max((row.read_at for row in rows if row.file is None and row.beside is None), default=0)


def compared(adds: int, removes: int, needed: int) -> str:
    """Return the sentence about what a run is about to change."""
    return f"{adds:,} to add, {removes:,} to remove, {units.size(needed)} to download"


def source_times(rows: Iterable[SourceIndexRow]) -> dict[str, int | None]:
    """Return what a mirror's row notes of its source's clock; parts that were not taken in whole count as seen only."""
    there = (row for row in rows if row.file is not None and (row.beside is None or row.encoding == PIECES))
    told = [(row, http_date_ms(row.last_modified)) for row in there]
    taken = max((at for row, at in told if at is not None and row.settled), default=None)
    return {"source_time": taken, "source_seen": max((at for _, at in told if at is not None), default=None)}


def part_changes(parts: Sequence[PartResult]) -> list[PartChange]:
    """Return what is about to change by part. What a policy leaves out is there: the source has not shrunk by it."""
    return [
        PartChange(
            part=part.part,
            before=part.before,
            kept=part.kept + part.left_out,
            added=part.added,
            replaced=part.replaced,
            removed=part.gone + part.filtered + part.judged_away,
            stopped=part.gone + part.held,
        )
        for part in parts
    ]
