"""The only place that spreads the render of a family over two workers: one renders its largest part, one the others.

A third one sums up what both have shown, so that what they leave is what one alone would leave.
"""

import asyncio
from collections.abc import Mapping, Sequence
from operator import attrgetter
from pathlib import Path

from msgspec.structs import replace

from firth_protocol.types import Family
from firthd.channels.plan import Plan
from firthd.index.messages import Rendered, RenderParams, RenderResult, Share
from firthd.store import artifacts
from firthd.store.database import Database
from firthd.worker import Report, TaskProgress
from firthd.workers import Workers

RENDER = "firthd.index.render:render_task"
WORTH_RECORDS = 20_000
"""In the largest part and in all others: below this more workers take longer to start than they save."""
GOES_ON_RECORDS = 100_000
"""The same where little has changed: each part is written whole, but goes on from what is served."""


async def render(workers: Workers, params: RenderParams, tell: Report, apart: str | None) -> Rendered:
    """Render by one worker, or the part `apart` by one of its own; raises the error of the first to fail.

    All that is written lies in the folders of `params.out_dir` and `params.run_file`.
    """
    if apart is not None:
        return await _in_two(workers, params, tell, apart)
    return await alone(workers, params, tell)


async def alone(workers: Workers, params: RenderParams, tell: Report) -> Rendered:
    """Render by one worker."""
    result = await workers.run(RENDER, params, RenderResult, progress=tell, pressed=True)
    packs = [] if result.pack is None else [result.pack]
    return Rendered(result=result, run_files=[params.run_file], packs=packs)


async def _in_two(workers: Workers, params: RenderParams, tell: Report, apart: str) -> Rendered:
    """Let two workers make it, and one sum it up."""

    async def share(part: Share, tell: Report) -> Rendered:
        file, out = (f"{path}.{int(part.others)}" for path in (params.run_file, params.out_dir))
        await asyncio.to_thread(Path(out).mkdir, parents=True)
        return await alone(workers, replace(params, out_dir=out, run_file=file, share=part), tell)

    parts = [Share(part=apart, others=others, sums=f"{params.run_file}.{others}.sums") for others in (False, True)]
    try:
        async with asyncio.TaskGroup() as tasks:
            shares = [tasks.create_task(share(part, unheard if part.others else tell)) for part in parts]
    except BaseExceptionGroup as several:
        raise several.exceptions[0] from None
    last = await alone(workers, replace(params, shares=[part.sums for part in parts]), tell)
    return together([last, *(task.result() for task in reversed(shares))])


def unheard(_: TaskProgress) -> None:
    """Another task tells how far all of it is."""


def together(rendered: Sequence[Rendered]) -> Rendered:
    """Return what several tasks have made as one; the first of them has summed up what the others show."""
    results = [one.result for one in rendered]
    packs = [pack for one in rendered for pack in one.packs]
    return Rendered(
        result=replace(
            results[0],
            pack=packs[0] if packs else None,
            files=sorted((file for result in results for file in result.files), key=attrgetter("path")),
            slices_new=sum(result.slices_new for result in results),
            left_out=sum(result.left_out for result in results),
            notes=[note for result in results for note in result.notes],
        ),
        run_files=[file for one in rendered for file in one.run_files],
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
