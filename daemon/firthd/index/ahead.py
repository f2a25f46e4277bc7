"""The only place that renders what a run is about to add while its files come; it runs in a worker process.

The rows are those of the run's own files, which `index.early` renders as if they were being read.
"""

import logging
from collections.abc import Iterable
from itertools import groupby
from operator import itemgetter
from pathlib import Path

from firthd.families import load_formats
from firthd.families.base import COLUMNS
from firthd.index.early import EarlyRender
from firthd.index.messages import AheadResult, ReadParams, Rendered, summing
from firthd.index.render import UNWRITABLE, Renderer
from firthd.store.run_file import AddRow, RunFile, added, files_of
from firthd.store.worker_objects import PAGE_ROWS
from firthd.store.worker_reads import WorkerState
from firthd.worker import Report, TaskProgress

log = logging.getLogger(__name__)

_part = itemgetter(1)
_SHA256 = 2 + [column.name for column in COLUMNS].index("sha256")


def ahead_task(params: ReadParams, report: Report) -> AheadResult:
    """Render what the files of `params.run_file` add, into the folder of `params.early`; nothing is read of spools.

    Nothing comes out where that would not be all that is shown: a file tells its digest only when it is there, or
    there was an index.
    """
    early, state = params.early, WorkerState(params.state_db)
    assert early is not None
    try:
        formats = load_formats(params.formats)
        if state.packed(params.channel_id, formats.family):
            return AheadResult()
        sums: list[str] = []

        def tell(progress: TaskProgress) -> None:
            if progress.sums is not None:
                sums.append(progress.sums)
            else:
                report(progress)

        render = EarlyRender(formats, params, early, state, tell)
        if (
            not _render(render, added(files_of(Path(params.run_file)), COLUMNS, PAGE_ROWS, shared=not params.singly))
            or not sums
        ):
            render.finish()
            return AheadResult()
        last = summing(params, sums)
        with RunFile(last.run_file) as run_file:
            run_file.start_render()
            result = Renderer(formats, last, state, run_file, report, render.out).render()
    except UNWRITABLE:
        log.exception("what a run adds could not be written while its files came")
        return AheadResult()
    finally:
        state.close()
    packs = [] if result.pack is None else [result.pack]
    return AheadResult(made=Rendered(result=result, run_files=[last.run_file], packs=packs))


def _render(render: EarlyRender, rows: Iterable[AddRow]) -> bool:
    """Make the objects of each part; return whether there are any, and all of it is known."""
    last = None
    for part, of_part in groupby(rows, key=_part):
        if last is not None:
            render.end(last, last=False)
        last = str(part)
        for row in of_part:
            if row[_SHA256] is None:
                return False
            render.add(last, row)
    if last is not None:
        render.end(last, last=True)
    return last is not None
