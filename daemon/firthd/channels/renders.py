"""The only place that spreads the render of a family over two workers: one makes the objects of its largest part.

The other one makes all else and sums every package up, so that what they leave is what one alone would leave.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from operator import attrgetter
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from firthd.index.messages import RenderedFile, RenderParams, RenderResult
from firthd.workers import Report, Workers

RENDER = "firthd.index.render:render_task"
WORTH_RECORDS = 20_000
"""In the largest part and in all others: below this a second worker reads more rows again than it saves time."""
APART = "apart"

_Alone = Callable[[RenderParams, Report], Coroutine[None, None, RenderResult]]


class Rendered(Struct, frozen=True, kw_only=True):
    """What a render left: its run files and packs too."""

    result: RenderResult  # of all parts; its pack is the first one
    run_files: list[Path]
    packs: list[RenderedFile]


async def render(workers: Workers, params: RenderParams, tell: Report, apart: str | None) -> Rendered:
    """Render by one worker, or the objects of the part `apart` by a second one; raises the error of the first to fail.

    All that is written lies in the folders of `params.out_dir` and `params.run_file`.
    """

    async def alone(params: RenderParams, tell: Report) -> RenderResult:
        return await workers.run(RENDER, params, RenderResult, progress=tell, pressed=True)

    if apart is not None:
        both = await _in_two(params, tell, apart, alone)
        if both is not None:
            return both
    result = await alone(params, tell)
    return Rendered(
        result=result, run_files=[Path(params.run_file)], packs=[result.pack] if result.pack is not None else []
    )


async def _in_two(params: RenderParams, tell: Report, apart: str, alone: _Alone) -> Rendered | None:
    """Return what two workers have made; None when one shows other records than the other has counted."""
    second = replace(
        params, objects_of=[apart], out_dir=f"{params.out_dir}.{APART}", run_file=f"{params.run_file}.{APART}"
    )
    await asyncio.to_thread(Path(second.out_dir).mkdir, parents=True)
    try:
        async with asyncio.TaskGroup() as tasks:
            large = tasks.create_task(alone(second, lambda progress: None))
            rest = tasks.create_task(alone(replace(params, objects_elsewhere=[apart]), tell))
    except BaseExceptionGroup as several:
        raise several.exceptions[0] from None
    theirs, result = large.result(), rest.result()
    counted = [part for part in result.parts if part.part == apart]
    if theirs.left_out or result.left_out or theirs.parts != counted:
        return None
    return Rendered(
        result=replace(
            result,
            files=sorted([*result.files, *theirs.files], key=attrgetter("path")),
            slices_new=result.slices_new + theirs.slices_new,
            notes=[*result.notes, *theirs.notes],
        ),
        run_files=[Path(params.run_file), Path(second.run_file)],
        packs=[pack for pack in (result.pack, theirs.pack) if pack is not None],
    )


def worth_apart(records: Mapping[str, int], added: int) -> str | None:
    """Return the part whose objects a second worker is to make; None when there is too little to gain.

    `records`: how many each part has; `added`: how many records a publication adds, without which little is written.
    """
    if len(records) < 2 or added < 2 * WORTH_RECORDS:
        return None
    largest = max(sorted(records), key=lambda part: records[part])
    rest = sum(records.values()) - records[largest]
    return largest if min(rest, records[largest]) >= WORTH_RECORDS else None
