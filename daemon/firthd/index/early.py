"""The only place that renders records while they are read: those that a channel's first mirror brings first.

What comes out is what `index.render` makes of the same rows once they are in the state, byte for byte; they need not
be read from there and taken apart anew. Whoever publishes decides whether it is what is to be shown. Where it fails
nothing is lost: the rows are rendered from the state.
"""

import logging
from operator import itemgetter
from pathlib import Path

from firthd.families.base import COLUMNS, Formats, PartRenderer
from firthd.index.messages import EarlyParams, ReadParams, Rendered, RenderedPart
from firthd.index.outputs import Outputs
from firthd.index.render import UNWRITABLE, count_of, once, share_of
from firthd.index.summaries import PartSums, Summaries, write_sums
from firthd.store.run_file import AddRow, RunFile
from firthd.store.worker_objects import PAGE_ROWS
from firthd.store.worker_reads import ShownRow, WorkerState
from firthd.worker import Report, TaskProgress

log = logging.getLogger(__name__)

_FIELDS = ("family", "part", *(column.name for column in COLUMNS), "replaces", "id", "mirror_id")
_FILENAME = _FIELDS.index("filename")
_shown = itemgetter(*map(_FIELDS.index, ShownRow._fields))


class EarlyRender:
    """Renders the parts that one task reads whole, one after the other."""

    def __init__(
        self, formats: Formats, params: ReadParams, early: EarlyParams, state: WorkerState, report: Report
    ) -> None:
        self._formats = formats
        self._mirror_id = params.mirror_id
        self._files = f"{params.run_file}.made"
        self._report = report
        folder = Path(early.folder) / Path(params.run_file).name  # each task has its own
        folder.mkdir(parents=True)
        self.out = Outputs(folder, {}, state, params.channel_id, formats.family, early.sides, number=early.number)
        self._parts: list[RenderedPart] = []
        self._sums: list[PartSums] = []
        self._renderer: PartRenderer | None = None
        self._summaries = Summaries(formats)
        self._page: list[AddRow] = []
        self._rows = self._artifacts = 0
        self._failed = False

    def add(self, part: str, row: AddRow) -> None:
        """Take a row as the run's file gets it; those of a part come by file name and section."""
        page = self._page
        if len(page) >= PAGE_ROWS and row[_FILENAME] != page[-1][_FILENAME]:
            self._turn(part)
            page = self._page
        page.append(row)

    def end(self, part: str, *, last: bool) -> None:
        """Write the objects of a part of which all rows have come.

        Before those of the `last` part it is told what all of them show: another task can sum that up meanwhile.
        """
        self._turn(part)
        renderer, self._renderer = self._renderer, None
        if renderer is not None:
            self._parts.append(RenderedPart(part=part, artifacts=self._artifacts))
            self._sums.append(PartSums(part, self._artifacts, self._summaries.sums()))
            self._summaries, self._artifacts = Summaries(self._formats), 0
        if self._failed:
            return
        if last:
            sums = f"{self._files}.sums"
            write_sums(Path(sums), self._sums)
            self._report(TaskProgress(0, None, "objects", f"{part}: what it shows is known", sums=sums))
        try:
            if renderer is not None:
                renderer.finish(self._tell)
        except UNWRITABLE:
            self._give_up()

    def finish(self) -> Rendered | None:
        """Return what was made; None when it could not be: it is to be rendered from the state."""
        with RunFile(self._files) as run_file:
            run_file.start_render()
            result = share_of(self.out, run_file, self._parts)
        if self._failed:
            return None
        packs = [] if result.pack is None else [result.pack]
        return Rendered(result=result, run_files=[self._files], packs=packs)

    def _turn(self, part: str) -> None:
        """Take up the rows of a page; those of one file name are all in it."""
        page, self._page = self._page, []
        if not page or self._failed:
            return
        first, mirror_id, new = self._rows, self._mirror_id, tuple.__new__
        self._rows += len(page)
        # A number is as good as the id that the row is to get: that rises too.
        rows = [new(ShownRow, _shown((*row, number, mirror_id))) for number, row in enumerate(page, first)]
        try:
            if self._renderer is None:
                self._renderer = self._formats.renderer(part, None, self.out)
            rows = once(rows)
            self._summaries.add(part, rows)
            for row in rows:
                self._renderer.add(row)
            self._artifacts += count_of(rows)
        except UNWRITABLE:
            self._give_up()

    def _give_up(self) -> None:
        log.exception("a record could not be written while it was read")
        self._failed, self._renderer = True, None

    def _tell(self, what: str, done: int, total: int) -> None:
        self._report(TaskProgress(done, total, "objects", what))
