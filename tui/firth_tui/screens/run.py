"""One run, live: its steps, what came of it, and its log."""

from collections.abc import Sequence
from textwrap import wrap
from typing import Any, ClassVar

import msgspec
from rich.cells import cell_len
from rich.segment import Segment
from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.timer import Timer

from firth_protocol.errors import FirthError, NotFound
from firth_protocol.methods import MirrorGet, RunGet
from firth_protocol.types import LogLine, Mirror, Run, RunKind, RunState
from firth_tui.actions import Place
from firth_tui.format import (
    Cell,
    Sign,
    Tone,
    clean,
    count,
    kind_name,
    seconds_of,
    size,
    state_cell,
    stopwatch,
    time_of_day,
)
from firth_tui.model import LogLines, Touched, with_progress
from firth_tui.screens.place import PlaceScreen, bindings
from firth_tui.widgets.progress import Steps, outcome
from firth_tui.widgets.tones import TONE_CLASSES, Line, length, segments
from firth_tui.widgets.work import Repeated

DRAW_S = 0.25
"""The steps are drawn at most this often."""
SETTLE_S = 0.05
"""How long a run is not read again after an event, for the next one to come."""
LOG_PAGE = 500

WORDS = (
    ("step", "a run goes through up to eight; a dash marks one that had nothing to do or was not reached"),
    ("index", "the source's list of packages"),
    ("publish", "show clients the new content, as one generation"),
    ("generation", "one published content of a channel; each has a number, and can be gone back to"),
    ("shadowed", "not offered, because an older mirror of the channel has packages of that name"),
    ("unhashed", "files for which the source gives no checksum"),
    ("grace", "what has left the channel can still be fetched by its address for some days"),
)

_LEVELS = {"error": Tone.BAD, "warning": Tone.WARN, "warn": Tone.WARN}


class LogView(ScrollView, can_focus=True):
    """A log, oldest line at the top; it follows its end until somebody scrolls up."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"log--match", *TONE_CLASSES}
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down,j", "by(1)", show=False, id="log.down"),
        Binding("up,k", "by(-1)", show=False, id="log.up"),
        Binding("pagedown,ctrl+f", "page(1)", show=False, id="log.page_down"),
        Binding("pageup,ctrl+u", "page(-1)", show=False, id="log.page_up"),
        Binding("g,home", "top", show=False, id="log.top"),
        Binding("end", "follow", show=False, id="log.end"),
    ]

    def __init__(self, lines: LogLines) -> None:
        super().__init__(id="log")
        self._log = lines
        self._drawn: list[tuple[int, list[Cell]]] = []  # index of the line, a line on screen of it
        self.wrapping = False
        self.following = True
        self.wanted = ""
        self.found: int | None = None

    def grown(self) -> None:
        """Take in that the log has more lines."""
        self._lay_out()
        if self.following:
            self.scroll_to(y=len(self._drawn), animate=False)
        self.refresh()

    def follow(self) -> None:
        self.following = True
        self.grown()

    def wrap(self) -> None:
        self.wrapping = not self.wrapping
        self.grown()

    def search(self, text: str) -> None:
        """Mark lines with `text` and go to the first one after the last that was found."""
        self.wanted = text
        self.found = None
        if text:
            self.find_next()
        self.refresh()

    def find_next(self) -> None:
        if not self.wanted:
            return
        self.found = self._log.find(self.wanted, -1 if self.found is None else self.found)
        if self.found is not None:
            self.following = False
            row = next((y for y, (index, _) in enumerate(self._drawn) if index == self.found), 0)
            self.scroll_to(y=max(0, row - self.size.height // 2), animate=False)
        self.refresh()

    def _lay_out(self) -> None:
        width = max(20, self.size.width - 1)
        self._drawn = []
        for index, line in enumerate(self._log.lines):
            head, text = log_cells(line)
            room = width - cell_len(head.text)
            pieces = wrap(text.text, max(20, room), break_on_hyphens=False) if self.wrapping else [text.text]
            self._drawn.append((index, [head, Cell(pieces[0] if pieces else "", text.tone)]))
            for piece in pieces[1:]:
                self._drawn.append((index, [Cell(" " * cell_len(head.text)), Cell(piece, text.tone)]))
        size = Size(self.size.width, len(self._drawn))
        if size != self.virtual_size:
            self.virtual_size = size

    def on_resize(self, event: events.Resize) -> None:
        self.grown()

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        base = self.rich_style
        row = y + round(self.scroll_y)
        if row >= len(self._drawn):
            text = " The log is empty so far." if not self._drawn and y == 0 else ""
            return Strip(segments(self, [Cell(text, Tone.MUTED)])).adjust_cell_length(width, base)
        index, cells = self._drawn[row]
        strip = Strip(segments(self, cells))
        if self.wanted and self.wanted.casefold() in cells[-1].text.casefold():
            strip = strip.apply_style(self.get_component_rich_style("log--match", partial=True))
            mark = Sign.PICK if index == self.found else " "
            strip = Strip.join([Strip([Segment(mark, base)]), strip.crop(1)])
        if strip.cell_length > width - 1:
            strip = Strip.join([strip.crop(0, width - 2), Strip([Segment("…", base)])])
        return strip.adjust_cell_length(width, base)

    def action_by(self, by: int) -> None:
        self._scroll(round(self.scroll_y) + by)

    def action_page(self, by: int) -> None:
        self._scroll(round(self.scroll_y) + by * max(1, self.size.height - 1))

    def action_top(self) -> None:
        self._scroll(0)

    def action_follow(self) -> None:
        self.follow()

    def _scroll(self, y: int) -> None:
        last = max(0, len(self._drawn) - self.size.height)
        # the end is followed again only on request, so that reading near the end is not disturbed
        self.following = self.following and y >= last
        self.scroll_to(y=max(0, min(y, last)), animate=False)

    def on_mouse_scroll_up(self) -> None:
        self.following = False


def log_cells(line: LogLine) -> tuple[Cell, Cell]:
    """Return a line of a log: when and in which step; and what."""
    step = f"{line.step or '':<11}"
    sign = f"{Sign.BAD} " if line.level == "error" else f"{Sign.WARN} " if line.level.startswith("warn") else ""
    return (
        Cell(f" {time_of_day(line.time)} {clean(step)} ", Tone.MUTED),
        Cell(sign + clean(line.text, 2000), _LEVELS.get(line.level, Tone.PLAIN)),
    )


class RunScreen(PlaceScreen):
    """One run with its steps and its log."""

    BINDINGS = bindings({Place.RUN})
    words: ClassVar = WORDS
    filter_words: ClassVar = ("search", "type what to find; enter: to the log, N: next, esc: clear")

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number
        self.run_now: Run | None = None
        self.mirror_now: Mirror | None = None
        self.lines = LogLines()
        self.steps = Steps()
        self.outcome_line = Line()
        self.counts_line = Line()
        self.rule = Line()
        self.log_view = LogView(self.lines)
        self._reading = Repeated(self, self._read, group="run")
        self._reading_log = Repeated(self, self._read_log, group="log")
        self._drawing: Timer | None = None
        self._settling: Timer | None = None

    # --- what the place tells

    def where(self) -> Place:
        return Place.RUN

    def crumbs(self) -> list[str]:
        run = self.run_now
        if run is None:
            return ["Runs", f"run {self.number}"]
        middle = f"{run.channel} / {run.mirror_name}" if run.mirror_name else run.channel or "the store"
        kind = "" if run.kind is RunKind.MIRROR else f" ({kind_name(run.kind)})"
        return ["Mirrors" if run.mirror_name else "Channels", middle, f"run {run.id}{kind}"]

    def side(self) -> list[Cell]:
        run = self.run_now
        if run is None:
            return []
        begun, ended = seconds_of(run.started_at), seconds_of(run.finished_at)
        spent = stopwatch((self.now() if ended is None else ended) - begun) if begun is not None else ""
        return [state_cell(run.state), Cell(f"  {spent}", Tone.PLAIN)]

    def subjects(self, *, painted: bool = False) -> dict[str, Any]:
        return {"run": self.run_now, "mirror": self.mirror_now}

    def name_to_copy(self, row: Any) -> str | None:
        return str(self.number)

    def body(self) -> ComposeResult:
        yield self.steps
        yield self.outcome_line
        yield self.counts_line
        yield self.rule
        yield self.log_view

    def on_mount(self) -> None:
        self.log_view.focus()
        self.reload()

    # --- reading

    def reload(self) -> None:
        self._reading.ask()

    def behind(self) -> bool:
        return self.run_now is None and self._reading.at_work

    def hurry(self) -> None:
        if self._settling is not None:
            self._settling.stop()
            self._read_soon()

    def readings(self) -> list[Repeated]:
        return [self._reading]

    async def _read(self) -> None:
        try:
            run = await self.firth.link.ask(RunGet, "run.get", run=self.number)
            if run.mirror is not None:
                self.mirror_now = await self._mirror(run.mirror)
        except FirthError as error:
            self.outcome_line.put([Cell(f" {Sign.BAD} {clean(str(error))}", Tone.BAD)])
            return
        except OSError:
            return
        self.run_now = run
        self._draw()
        self._reading_log.ask()

    async def _mirror(self, mirror: int) -> Mirror | None:
        try:
            return await self.firth.link.ask(MirrorGet, "mirror.get", mirror=mirror)
        except NotFound:
            return None

    async def _read_log(self) -> None:
        new = LOG_PAGE
        while new == LOG_PAGE:
            try:
                page = await self.firth.link.page(
                    LogLine, "run.log", run=self.number, after=self.lines.last, limit=LOG_PAGE
                )
            except (FirthError, OSError):
                return
            new = self.lines.add(page.items)
            if new:
                self.log_view.grown()

    def fact(self, about: Touched) -> None:
        if about.run != self.number:
            return
        if about.progress:
            progress = self.session.live.of_run(self.number)
            if progress is not None and self.run_now is not None:
                self.run_now = with_progress(self.run_now, progress)
                self._draw_soon()
        elif self._settling is None:
            self._settling = self.set_timer(SETTLE_S, self._read_soon)

    def _read_soon(self) -> None:
        self._settling = None
        self.reload()

    # --- drawing

    def _draw_soon(self) -> None:
        if self._drawing is None:
            self._drawing = self.set_timer(DRAW_S, self._draw)

    def tick(self, now: float) -> None:
        super().tick(now)
        run = self.run_now
        if run is not None and not run.state.ended:
            self._draw()
            # lines come without an event of their own
            self._reading_log.ask()

    def _draw(self) -> None:
        self._drawing = None
        run = self.run_now
        if run is None or not self.is_mounted:
            return
        self.steps.put(run, self.now())
        self.outcome_line.put([Cell(" "), *self._outcome(run)])
        self.counts_line.put([Cell(" "), *counts_cells(run)])
        self.draw_rule()
        self.redraw()

    def _outcome(self, run: Run) -> Sequence[Cell]:
        if run.state.ended:
            return outcome(run)
        if run.state is RunState.STOPPING:
            return [Cell("Stopping: ends what is at work, as a rule within 5 seconds.", Tone.WARN)]
        if run.state is RunState.PENDING:
            return [Cell(f"Waits for {clean(run.waiting_for or 'its turn')}.", Tone.MUTED)]
        return [Cell(f"Begun by {clean(run.by)}, {clean(run.cause)}.", Tone.MUTED)]

    def draw_rule(self) -> None:
        """Draw the line above the log: whether it follows, and whether it wraps."""
        view = self.log_view
        follow = "following" if view.following else "not following, G goes to the end"
        wrap = "wrapped" if view.wrapping else "cut"
        tone = Tone.MUTED if view.following else Tone.WARN
        right = [Cell(f" {follow}", tone), Cell(f" · lines are {wrap} (w) ", Tone.MUTED)]
        title = "── log "
        dashes = max(0, self.size.width - length(right) - len(title) - 1)
        self.rule.put([Cell(title + "─" * dashes, Tone.MUTED)], right)

    def on_key(self, event: events.Key) -> None:
        self.call_after_refresh(self.draw_rule)

    # --- its own actions

    async def own_command(self, name: str) -> None:
        view = self.log_view
        if name == "log.follow":
            view.follow()
        elif name == "log.wrap":
            view.wrap()
        elif name == "log.next":
            view.find_next()
        self.draw_rule()

    def filter_to(self, text: str) -> None:
        self.log_view.search(text)
        self.draw_rule()

    def focus_body(self) -> None:
        self.set_focus(self.log_view)


def counts_cells(run: Run) -> list[Cell]:
    """Return what a run has counted so far; a plan tells what it would do."""
    if run.kind is RunKind.PLAN and run.state.ended and run.result is not None:
        return [Cell("A run would: ", Tone.STRONG), Cell(plan_words(run.result))]
    counts = run.counts
    parts = [("added", counts.added), ("removed", counts.removed), ("unchanged", counts.unchanged)]
    if run.state.ended:
        parts = []  # the sentence above it has said so
    parts += [("failed", counts.failed), ("missing", counts.missing), ("shadowed", counts.shadowed)]
    shown = [f"{count(value)} {name}" for name, value in parts if value]
    shown += [f"{count(each.count)} dropped by {clean(each.reason)}" for each in counts.filtered if each.count]
    if run.bytes_done:
        shown.append(f"{size(run.bytes_done)} downloaded")
    return [Cell(" · ".join(shown), Tone.MUTED)]


def plan_words(result: dict[str, Any]) -> str:
    """Return a plan's result in words: what a run would add, remove and download, and what speaks against it."""
    told: list[str] = []
    for name, verb in (("adds", "add"), ("removes", "remove"), ("missing_dependencies", "leave unmet")):
        value = result.get(name)
        if isinstance(value, int) and (value or name != "missing_dependencies"):
            told.append(f"{verb} {count(value)}")
    for name, verb in (("bytes", "download now"), ("bytes_all", "hold in all")):
        value = result.get(name)
        if isinstance(value, int):
            told.append(f"{verb} {size(value)}")
    warnings = result.get("warnings")
    if isinstance(warnings, list):
        told += [clean(str(warning)) for warning in warnings]
    return ", ".join(told) or clean(msgspec.json.encode(result).decode(), 200)
