"""The only place that spreads the render of a family over two workers: one renders its largest part, one the others.

A third one sums up what both have shown, so that what they leave is what one alone would leave.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from operator import attrgetter
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from firth_protocol.types import Family
from firthd.channels.plan import Plan
from firthd.index.messages import RenderedFile, RenderParams, RenderResult, Share
from firthd.store import artifacts
from firthd.store.database import Database
from firthd.worker import Report
from firthd.workers import Workers

RENDER = "firthd.index.render:render_task"
WORTH_RECORDS = 20_000
"""In the largest part and in all others: below this more workers take longer to start than they save."""
GOES_ON_RECORDS = 100_000
"""The same where little has changed: each part is written whole, but goes on from what is served."""

_Alone = Callable[[RenderParams, Report], Coroutine[None, None, RenderResult]]


class Rendered(Struct, frozen=True, kw_only=True):
    """What a render left: its run files and packs too."""

    result: RenderResult  # of all parts; its pack is the first one
    run_files: list[Path]
    packs: list[RenderedFile]


async def render(workers: Workers, params: RenderParams, tell: Report, apart: str | None) -> Rendered:
    """Render by one worker, or the part `apart` by one of its own; raises the error of the first to fail.

    All that is written lies in the folders of `params.out_dir` and `params.run_file`.
    """

    async def alone(params: RenderParams, tell: Report) -> RenderResult:
        return await workers.run(RENDER, params, RenderResult, progress=tell, pressed=True)

    if apart is not None:
        return await _in_two(params, tell, apart, alone)
    result = await alone(params, tell)
    return Rendered(
        result=result, run_files=[Path(params.run_file)], packs=[result.pack] if result.pack is not None else []
    )


async def _in_two(params: RenderParams, tell: Report, apart: str, alone: _Alone) -> Rendered:
    """Return what two workers have made, and one that puts it together."""

    async def share(number: int, tell: Report) -> tuple[RenderParams, RenderResult]:
        file, out = f"{params.run_file}.{number}", f"{params.out_dir}.{number}"
        await asyncio.to_thread(Path(out).mkdir, parents=True)
        part = Share(part=apart, others=bool(number), sums=f"{file}.sums")
        mine = replace(params, out_dir=out, run_file=file, share=part)
        return mine, await alone(mine, tell)

    try:
        async with asyncio.TaskGroup() as tasks:
            shares = [tasks.create_task(share(0, tell)), tasks.create_task(share(1, lambda progress: None))]
    except BaseExceptionGroup as several:
        raise several.exceptions[0] from None
    (large, theirs), (rest, others) = (task.result() for task in shares)
    sums = [one.share.sums for one in (large, rest) if one.share is not None]
    last = await alone(replace(params, shares=sums), tell)
    results = (last, others, theirs)
    packs = [result.pack for result in results if result.pack is not None]
    return Rendered(
        result=replace(
            last,
            pack=packs[0] if packs else None,
            files=sorted((file for result in results for file in result.files), key=attrgetter("path")),
            slices_new=sum(result.slices_new for result in results),
            left_out=sum(result.left_out for result in results),
            notes=[note for result in results for note in result.notes],
        ),
        run_files=[Path(params.run_file), Path(rest.run_file), Path(large.run_file)],
        packs=packs,
    )


async def part_apart(db: Database, plan: Plan, family: Family) -> str | None:
    """Return the part whose objects a second worker is to make, if there is one."""
    records = await db.read(lambda r: artifacts.records_by_part(r, plan.channel.id, family))
    if sum(one.added + one.closed for one in plan.draft) >= 2 * WORTH_RECORDS:
        return worth_apart(records, WORTH_RECORDS)
    changed = await db.read(lambda r: artifacts.parts_changed(r, family, plan.rendered_sets))
    return worth_apart({part: records.get(part, 0) for part in changed}, GOES_ON_RECORDS)


def worth_apart(records: Mapping[str, int], least: int) -> str | None:
    """Return the part that a worker of its own is to render; None when there is too little to gain.

    `records`: how many each part has that is rendered; `least`: how many both workers must have.
    """
    if len(records) < 2:
        return None
    largest = max(sorted(records), key=lambda part: records[part])
    rest = sum(records.values()) - records[largest]
    return largest if min(rest, records[largest]) >= least else None
