"""The only place that reads a source's index against a mirror's rows; it runs in a worker process."""

from operator import attrgetter
from typing import TYPE_CHECKING

from firth_protocol.errors import Invalid
from firthd.families import load_formats
from firthd.families.base import COLUMNS, Formats
from firthd.index.compare import FILTERED, PartReader, changed_offers
from firthd.index.messages import PartResult, ReadParams, ReadResult
from firthd.store.run_file import RunFile
from firthd.store.worker_reads import WorkerState
from firthd.worker import Report

if TYPE_CHECKING:
    from firthd.index.early import EarlyRender

PART_SHOWN = 64


def read_task(params: ReadParams, report: Report) -> ReadResult:
    """Read each part's spool file and write into the run file what to add and to close.

    Parts are read in the order of their names. Records keep their bytes. Two records are the same when their
    fingerprints are: a hotfix closes a row and adds another.
    """
    formats = load_formats(params.formats)
    for spool in params.spools:
        if not formats.valid_part(spool.part):
            raise Invalid(f"{spool.part[:PART_SHOWN]!r} is no part of a {formats.family} index.")
    state = WorkerState(params.state_db)
    state.count_sets(state.lasting_sets(params.channel_id))
    results: list[PartResult] = []
    judgement, made = None, None
    with RunFile(params.run_file) as run_file:
        run_file.start_read(COLUMNS, anew=not params.goes_on)
        only = None if params.only is None else frozenset(params.only)  # a list of names may have tens of thousands
        spools = [spool for spool in params.spools if only is None or spool.part in only or spool.lists]
        spools.sort(key=attrgetter("part"))
        if params.policy is None:
            early = early_render(formats, params, state, report)
            for number, spool in enumerate(spools, 1):
                results.append(PartReader(formats, params, spool, state, run_file, report, early=early).read())
                if early is not None:
                    early.end(spool.part, last=number == len(spools))
            made = None if early is None else early.finish()
        else:
            # What they import would cost a run without a policy 40 ms.
            from firthd.index.judge import PolicyPass, Unreadable
            from firthd.store.judge_reads import JudgeState

            known = JudgeState(params.state_db)
            with PolicyPass(params, params.policy, formats, known, report) as judged:
                for spool, listing in judged.judge_all(spools):
                    reader = PartReader(formats, params, spool, state, run_file, report, judged)
                    if isinstance(listing, Unreadable):
                        results.append(reader.unreadable(listing.message))
                    else:
                        results.append(reader.compare(listing))
                judgement = judged.finish()
            run_file.sights(judged.sights.new)
            known.close()
        if only is not None and params.close_filtered:
            offered = state.parts_offered(params.channel_id, params.mirror_id, formats.family)
            for part in sorted({*state.parts(params.channel_id, formats.family), *offered}):
                if part not in only:
                    results.extend(close_part(formats, params, part, state, run_file))
    state.close()
    return ReadResult(parts=results, judgement=judgement, made=made)


def early_render(formats: Formats, params: ReadParams, state: WorkerState, report: Report) -> "EarlyRender | None":
    """Return what renders the parts while they are read; None where nobody asks for that, or there was an index."""
    if params.early is None or state.packed(params.channel_id, formats.family):
        return None
    from firthd.index.early import EarlyRender  # what it imports would cost other reads 20 ms

    return EarlyRender(formats, params, params.early, state, report)


def close_part(
    formats: Formats, params: ReadParams, part: str, state: WorkerState, run_file: RunFile
) -> list[PartResult]:
    """Close all live rows of a part that the mirror's filter does not name; nothing to tell when there are none."""
    rows = list(state.live_rows(params.channel_id, params.mirror_id, formats.family, part))
    run_file.close_rows((row.id, formats.family, part, row.name, FILTERED) for row in rows)
    run_file.offers(changed_offers(state, params, formats, part, set()))
    nothing = PartResult(
        part=part, records=0, kept=0, before=len(rows), added=0, replaced=0, unchanged=0, gone=0, filtered=len(rows)
    )
    return [nothing] if rows else []
