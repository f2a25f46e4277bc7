"""The only place that says what reading a source's index gave, and tells the run of it."""

import asyncio
import os
from collections.abc import Mapping, Set
from pathlib import Path

from msgspec import Struct

from firth_protocol.errors import Upstream
from firthd.families.base import FamilyRules, Listed, Spool
from firthd.index.marks import MarksParams, MarksResult, marks_of, read_marks
from firthd.index.messages import JudgedBy, JudgementResult, PartResult, ReadParams
from firthd.mirrors.context import Context
from firthd.mirrors.fetch_index import Marks
from firthd.mirrors.index import Index
from firthd.mirrors.parts import note_parts
from firthd.mirrors.pieces import tell_disagreement
from firthd.mirrors.source import Job, rules_of
from firthd.runs.run import LiveRun
from firthd.store.runs import Failure

ABSENT_SHOWN = 10
MARKS = "firthd.index.marks:marks_task"
SMALL_LIST_BYTES = 1 << 20
"""A list up to here is read by a thread, which holds the loop for 5 ms: a worker takes 150 to start."""


class Reading(Struct, frozen=True, kw_only=True):
    """What reading the source's index gave: the differences lie in the run file."""

    index: Index
    parts: list[PartResult]
    stamp: str  # of the policy by which it was judged
    judgement: JudgementResult | None = None

    @property
    def bytes_to_store(self) -> int:
        return sum(part.bytes_to_store for part in self.parts)

    def renewed(self, signed_before: set[str], *, empty: bool) -> list[str]:
        """Return the parts that are to be rendered although no record of them may have changed.

        `empty`: the parts too that the source has, and nothing in them that is taken.
        """
        signed = {part.part for part in self.parts if part.signed or part.part in signed_before}
        there = {part.row.part for part in self.index.parts if part.row.file}
        bare = {part.part for part in self.parts if empty and not part.kept and part.part in there}
        return sorted({*self.index.renewed, *signed, *bare})

    @property
    def failed(self) -> int:
        """Records that cannot be taken, and parts that could not be had or read."""
        unreadable = sum(part.unreadable is not None for part in self.parts)
        return self.total("invalid_count") + unreadable + self.index.failed

    @property
    def lists(self) -> list[tuple[int, int]]:
        """Of each list of parts that was read: how many names it had before, and has now."""
        now = {part.part: part.records for part in self.parts}
        read = [part.row for part in self.index.parts if part.lists and part.row.part in now]
        return [(row.records, now[row.part]) for row in read]

    def total(self, field: str) -> int:
        return sum(getattr(part, field) for part in self.parts)


def note_read(live: LiveRun, read: Reading) -> None:
    """Tell what is to be known of what was read; raise Upstream when none of it could be."""
    unread = [part for part in read.parts if part.unreadable is not None]
    if unread and len(unread) == len(read.parts):
        raise Upstream(unread[0].unreadable or "", hint="look at the source")
    for part in unread:
        live.fail_artifact(Failure(part=part.part, filename="", reason=part.unreadable or "", attempts=1))
        live.log(f"{part.part}: {part.unreadable}; it stays as it was", "error")
    for part in read.parts:
        if part.unexpected:
            tell_disagreement(live, part.part, part.unexpected, part.surprise)
        if part.emptied:
            live.note(f"{part.part} lists nothing any more, without a word: its {part.kept:,} files stay")
        if part.refused is not None:
            live.log(f"{part.part}: {part.refused}", "warning")
    note_parts(live, read.parts)


def tell_read(live: LiveRun, read: Reading, *, lazily: bool) -> None:
    """Tell how far the step is that reads, at its end; `lazily`: what was read is only a list."""
    records = read.total("records")
    text = f"{records:,} read, {read.total('kept'):,} kept"
    if lazily:
        text = f"{records:,} listed, each read when a client first asks for it"
    live.progress(text, done=records, total=records, unit="records")


def note_absent(live: LiveRun, read: Reading, wanted: Set[str]) -> None:
    """Tell of parts that the filters name and the source has not."""
    there = {part.row.part for part in read.index.parts if part.row.file}
    absent = sorted(wanted - there)
    if absent:
        more = f" and {len(absent) - ABSENT_SHOWN:,} more" if len(absent) > ABSENT_SHOWN else ""
        live.note(f"the source has no {', '.join(absent[:ABSENT_SHOWN])}{more}")


def read_params(
    context: Context, live: LiveRun, job: Job, folder: Path, spools: list[Spool], policy: JudgedBy | None
) -> ReadParams:
    """Return what a run is to read; what it finds lies in `folder`."""
    rules = rules_of(context.families, job.type)
    only = rules.only(job.filters)
    return ReadParams(
        formats=rules.formats,
        state_db=str(context.db.path),
        run_file=str(folder / "run.sqlite"),
        channel_id=job.channel_id,
        mirror_id=job.mirror_id,
        spools=spools,
        only=None if only is None else sorted(only),
        filters=job.filters,
        keep=job.keep,
        singly=rules.small_parts,
        accept_removals=bool(live.row.params.get("accept_removals")),
        grows=job.grows,
        policy=policy,
        max_part_bytes=context.max_part_bytes,
    )


def marks_reader(context: Context, rules: FamilyRules, folder: Path) -> Marks:
    """Return what lets a worker read a list of parts; `folder` takes its answer."""

    async def marks(spool: Spool, names: Set[str] | None) -> Mapping[str, Listed]:
        if spool.file is not None and (await asyncio.to_thread(os.stat, spool.file)).st_size <= SMALL_LIST_BYTES:
            return await asyncio.to_thread(marks_of, rules.formats, spool, names, context.max_part_bytes)
        out = folder / "marks"
        params = MarksParams(
            formats=rules.formats,
            spool=spool,
            names=None if names is None else sorted(names),
            max_bytes=context.max_part_bytes,
            out=str(out),
        )
        await context.workers.run(MARKS, params, MarksResult)
        return await asyncio.to_thread(read_marks, out)

    return marks
