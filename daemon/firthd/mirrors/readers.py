"""The only place that has an index read by several workers at once, each of which writes a file of its own."""

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter
from pathlib import Path

from msgspec.structs import replace

from firth_protocol.errors import FirthError
from firthd.channels.renders import alone, together, unheard
from firthd.families.base import Spool
from firthd.index.compare import joined, judged_together
from firthd.index.messages import PartResult, ReadParams, ReadResult, Rendered, summing
from firthd.index.read import read_task
from firthd.store.judgement_file import join
from firthd.store.run_file import forget_more, numbered
from firthd.threads import in_thread
from firthd.worker import Report, TaskProgress, no_room
from firthd.workers import Workers

log = logging.getLogger(__name__)

READ = "firthd.index.read:read_task"
SMALL_BYTES = 1 << 20
"""Of copies of small parts: a thread reads these in 50 ms at most, a worker takes 150 to start."""
WORTH_BYTES = 2 << 20
"""Of copies, as they came: below this, a second worker takes longer to start than it saves."""


async def read(workers: Workers, params: ReadParams, tell: Report, *, worth_bytes: int = WORTH_BYTES) -> ReadResult:
    """Let the parts of `params` be read, by one worker or more; raises what the first of them raises that fails.

    What each has found lies in a file of its own, of those that `store.run_file.files_of` names.
    """
    sizes = await asyncio.to_thread(_prepare, params)
    if params.singly and params.policy is None and sum(sizes.values()) <= SMALL_BYTES:
        return await _read_here(params)
    # What a policy makes of one record may hang on those of other parts: one worker sees them all.
    places = workers.places if params.policy is None or params.policy.by_part else 1
    groups = spread(params.spools, sizes, places, worth_bytes)
    # Taking in beside it keeps about half a place busy: a cut, which costs, gains less then.
    room = 1.5 if params.early_rows is not None else 1.1
    most = max(weight(group, sizes) for group in groups)
    # Who renders what it reads must have all of a part.
    if (
        params.first
        and params.early is None
        and params.policy is None
        and most * places > room * weight(params.spools, sizes)
    ):
        groups = cut(params.spools, sizes, places, worth_bytes)
    # Who has most to do is the last to end: the others yield to it, or it would be alone in the end.
    heaviest = max(weight(group, sizes) for group in groups)
    progress: dict[int, TaskProgress] = {}
    sums = Sums(len(groups))

    def told(number: int, one: TaskProgress) -> None:
        if one.sums is not None:
            sums.found(number, one.sums)
            return
        if one.file is not None:  # it says nothing of how far its worker is
            tell(one)
            return
        progress[number] = one
        every = progress.values()
        totals = [each.total for each in every if each.total is not None]
        tell(TaskProgress(sum(each.done for each in every), sum(totals), one.unit, one.description))

    async def group(number: int, spools: list[Spool]) -> ReadResult:
        file, order = str(numbered(Path(params.run_file), number)), params.policy
        if order is not None and len(groups) > 1:
            judgement = None if order.file is None else str(numbered(Path(order.file), number))
            order = replace(order, file=judgement, share=number)
        mine = replace(params, spools=spools, run_file=file, close_filtered=number == 0, policy=order)
        mine = replace(mine, goes_on=params.goes_on and number == 0)
        less = weight(spools, sizes) < heaviest
        try:
            return await workers.run(READ, mine, ReadResult, progress=lambda one: told(number, one), yielding=less)
        finally:
            sums.ended(number)

    try:
        async with asyncio.TaskGroup() as tasks:
            results = [tasks.create_task(group(number, spools)) for number, spools in enumerate(groups)]
            summing = tasks.create_task(summed_up(workers, params, sums))
    except BaseExceptionGroup as several:
        raise several.exceptions[0] from None
    judgements = [one for result in results if (one := result.result().judgement) is not None]
    if params.policy is not None and params.policy.file is not None and len(groups) > 1:
        await _join([numbered(Path(params.policy.file), number) for number in range(len(groups))])
    parts: dict[str, PartResult] = {}
    for result in results:
        for part in result.result().parts:
            before = parts.get(part.part)
            parts[part.part] = part if before is None else joined(before, part)
    made = [summing.result(), *(result.result().made for result in results)]
    rendered = [one for one in made if one is not None]
    return ReadResult(
        parts=sorted(parts.values(), key=attrgetter("part")),
        judgement=judged_together(judgements) if judgements else None,
        made=together(rendered) if len(rendered) == len(made) else None,
    )


async def _join(judgements: Sequence[Path]) -> None:
    """Let a thread put together what several workers have judged; raises NoSpace on a full disk."""
    try:
        await asyncio.to_thread(join, judgements)
    except Exception as error:
        if (told := no_room(error)) is not None:
            raise told from error
        raise


class Sums:
    """The files in which workers have written what the parts show that they read."""

    def __init__(self, workers: int) -> None:
        self._files: list[str | None] = [None] * workers
        self._left = set(range(workers))
        self._done = asyncio.Event()

    def found(self, number: int, file: str) -> None:
        """Take the file of a worker, which may go on."""
        self._files[number] = file
        self.ended(number)

    def ended(self, number: int) -> None:
        """Expect no file of a worker any more."""
        self._left.discard(number)
        if not self._left:
            self._done.set()

    async def all(self) -> list[str] | None:
        """Return the files once every worker has written its own; None when one has not."""
        await self._done.wait()
        files = [file for file in self._files if file is not None]
        return files if len(files) == len(self._files) else None


async def summed_up(workers: Workers, params: ReadParams, sums: Sums) -> Rendered | None:
    """Let a worker sum up what others render while they read, beside them; None when there is no such thing."""
    if params.early is None or (files := await sums.all()) is None:
        return None
    render = summing(params, files)
    await asyncio.to_thread(Path(render.out_dir).mkdir)
    try:
        return await alone(workers, render, unheard)
    except FirthError as error:
        log.warning("what was rendered early is rendered again: %s", error.message)
        return None


async def _read_here(params: ReadParams) -> ReadResult:
    """Let a thread read a few small parts; whoever is cancelled waits until it has let go of the run's file."""
    try:
        return await in_thread(read_task, params, unheard)
    except Exception as error:
        if (told := no_room(error)) is not None:
            raise told from error
        raise


def spread(spools: Sequence[Spool], sizes: Mapping[str, int], places: int, worth_bytes: int) -> list[list[Spool]]:
    """Return the parts in at most `places` groups of about the same size; in one when there is too little to gain."""
    groups: list[list[Spool]] = [[] for _ in range(max(1, places))]
    weights = [0] * len(groups)
    for spool in sorted(spools, key=lambda one: (-sizes.get(one.part, 0), one.part)):
        lightest = weights.index(min(weights))
        groups[lightest].append(spool)
        weights[lightest] += sizes.get(spool.part, 0)
    if sum(weights) - max(weights) < worth_bytes:
        return [list(spools)]
    return [one for one in groups if one]


def weight(spools: Iterable[Spool], sizes: Mapping[str, int]) -> int:
    """Return the bytes of all copies of these parts."""
    return sum(sizes.get(spool.part, 0) for spool in spools)


def cut(spools: Sequence[Spool], sizes: Mapping[str, int], places: int, worth_bytes: int) -> list[list[Spool]]:
    """Return the parts in `places` groups of the same size, cut where need be; in one when there is too little to gain.

    Whoever reads a share of a part takes all of it apart first: it is cut in as few places as there can be.
    """
    whole = weight(spools, sizes)
    if places < 2 or whole - whole / places < worth_bytes:
        return [list(spools)]
    groups: list[list[Spool]] = [[]]
    room = whole / places
    for spool in sorted(spools, key=lambda one: (-sizes.get(one.part, 0), one.part)):
        size, begins = sizes.get(spool.part, 0), 0.0
        while len(groups) < places and size * (1 - begins) > room:
            ends = begins + room / size
            if room >= worth_bytes:
                groups[-1].append(replace(spool, share=(begins, ends)))
                begins = ends
            groups.append([])
            room = whole / places
        groups[-1].append(spool if not begins else replace(spool, share=(begins, 1.0)))
        room -= size * (1 - begins)
    return [one for one in groups if one]


def _prepare(params: ReadParams) -> dict[str, int]:
    """Take away what an earlier reading of the run has left, and return the sizes of the copies by part."""
    forget_more(Path(params.run_file))
    return {spool.part: Path(spool.file).stat().st_size for spool in params.spools if spool.file is not None}
