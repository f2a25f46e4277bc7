"""The only place that draws how far something is: bars, and a run's steps."""

from collections.abc import Sequence
from textwrap import wrap
from typing import ClassVar

import msgspec
from rich.segment import Segment
from textual.strip import Strip
from textual.widget import Widget

from firth_protocol.types import Run, RunState, Step, StepName, StepState
from firth_tui.format import (
    Cell,
    Sign,
    Tone,
    clean,
    count,
    counted,
    duration,
    rate,
    remaining,
    seconds_of,
    size,
    step_cell,
)
from firth_tui.model import Progress
from firth_tui.widgets.tones import TONE_CLASSES, length, segments

TITLE_CELLS = 22
TIME_CELLS = 7
INDENT = 3 + 2 + TITLE_CELLS + TIME_CELLS + 2


def bar(done: int, total: int | None, width: int) -> str:
    """Return a bar of `width` cells; without a total it is empty, since nobody knows how far it is."""
    filled = max(0, min(width, done * width // total)) if total else 0
    return Sign.FULL * filled + Sign.EMPTY * (width - filled)


def amount(step: Step | Progress) -> str:
    """Return how far a step is in its own unit: `412,000 / 700,000`."""
    is_bytes = step.unit in {"byte", "bytes", "B"}
    done = size(step.done) if is_bytes else count(step.done)
    if not step.total:
        return done if is_bytes else f"{done} {clean(step.unit)}".strip()
    total = max(step.done, step.total)  # an index that is read again may be longer than the first time
    return f"{done} / {size(total) if is_bytes else count(total)}"


def in_bytes(step: Step, run: Run) -> Step:
    """Return a step as it is told: a download whose size is known goes by bytes, not by files."""
    if step.name is not StepName.DOWNLOAD or not run.bytes_total:
        return step
    return msgspec.structs.replace(step, done=run.bytes_done, total=run.bytes_total, unit="bytes")


def step_time(step: Step, now: float) -> str:
    """Return how long a step took, or has been running."""
    begun = seconds_of(step.started_at)
    if begun is None or step.state is StepState.SKIPPED:
        return ""
    ended = seconds_of(step.finished_at)
    return duration((ended if ended is not None else now) - begun)


def step_lines(step: Step, run: Run, now: float, width: int) -> list[list[Cell]]:
    """Return one step as lines of `width` cells: state, number, title, time, then progress or what came of it."""
    sign = step_cell(step.state)
    quiet = step.state in {StepState.WAITING, StepState.SKIPPED}
    tone = Tone.MUTED if quiet else Tone.STRONG if step.state is StepState.RUNNING else Tone.PLAIN
    cells = [
        Cell(f" {sign.text} ", sign.tone),
        Cell(f"{step.number} {clean(step.title)[:TITLE_CELLS]:<{TITLE_CELLS}}", tone),
        Cell(f"{step_time(step, now):>{TIME_CELLS}}  ", Tone.MUTED),
    ]
    if step.state is not StepState.RUNNING:
        told = wrap(clean(step.description), max(20, width - INDENT - 1)) or [""]
        tone = Tone.BAD if step.state is StepState.FAILED else tone
        return [[*cells, Cell(told[0], tone)], *([Cell(" " * INDENT + more, tone)] for more in told[1:3])]
    left = width - length(cells)
    far = in_bytes(step, run)
    if far.total:
        cells.append(Cell(bar(far.done, far.total, 20 if left >= 60 else 10 if left >= 36 else 6) + " ", Tone.BUSY))
    return [[*cells, Cell(amount(far), Tone.PLAIN)], [Cell(" " * 5 + step_note(step, run), Tone.MUTED)]]


def step_note(step: Step, run: Run) -> str:
    """Return the second line of the running step: what it is at, with rate and estimate while it downloads."""
    parts: list[str] = []
    if step.name is StepName.DOWNLOAD and run.bytes_total:
        parts.append(f"{count(step.done)} of {counted(max(step.done, step.total or 0), 'file')}")
    if run.rate_bytes_s >= 1:
        parts.append(rate(run.rate_bytes_s))
    # the file's name comes last: it is what can be cut
    parts += [remaining(run.eta_s), clean(step.description)]
    return " · ".join(part for part in parts if part)


class Steps(Widget):
    """A run's steps, one line each, and one line more below the step in progress."""

    COMPONENT_CLASSES: ClassVar[set[str]] = set(TONE_CLASSES)
    DEFAULT_CSS = "Steps { height: auto; width: 1fr; }"

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._lines: list[list[Cell]] = []

    def put(self, run: Run, now: float) -> None:
        """Show a run as it is now."""
        lines: list[list[Cell]] = []
        for step in run.steps:
            lines.extend(step_lines(step, run, now, self.size.width or 80))
        if lines == self._lines:
            return
        taller = len(lines) != len(self._lines)
        changed = [index for index, line in enumerate(lines) if index >= len(self._lines) or line != self._lines[index]]
        self._lines = lines
        if taller:
            self.refresh(layout=True)
        else:
            for index in changed:
                self.refresh(self.size.region.crop_size((self.size.width, 1)).translate((0, index)))

    def get_content_height(self, container: object, viewport: object, width: int) -> int:
        return max(1, len(self._lines))

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        base = self.rich_style
        if y >= len(self._lines):
            return Strip.blank(width, base)
        strip = Strip(segments(self, self._lines[y]))
        if strip.cell_length > width:
            strip = Strip.join([strip.crop(0, width - 1), Strip([Segment("…", base)])])
        return strip.adjust_cell_length(width, base)


def outcome(run: Run) -> list[Cell]:
    """Return in one sentence what came of a run that has ended."""
    counts = run.counts
    if run.state is RunState.FAILED:
        return [Cell("Failed: ", Tone.BAD), Cell(clean(run.error.message) if run.error else "no reason was given")]
    if run.state is RunState.STOPPED:
        return [Cell("Stopped. ", Tone.WARN), Cell("What was verified stays stored; nothing was published.")]
    changed = f"{count(counts.added)} added, {count(counts.removed)} removed, {count(counts.unchanged)} unchanged"
    published = f" · generation {run.generation}" if run.generation else ""
    if run.state is RunState.INCOMPLETE:
        lost = f"{counted(counts.failed, 'file')} could not be had; " if counts.failed else ""
        return [Cell("Incomplete: ", Tone.WARN), Cell(f"{lost}{changed}{published}")]
    return [Cell("Completed: ", Tone.OK), Cell(f"{changed}{published}")]


def pieces(cells: Sequence[Cell]) -> str:
    """Return the text of `cells`."""
    return "".join(cell.text for cell in cells)
