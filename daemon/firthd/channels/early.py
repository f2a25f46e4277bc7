"""The only place that decides whether what was rendered early is what a publication is to show.

It is where a channel shows nothing yet, only one mirror ever had a place in it, and all that is published is what that
mirror's reading has added. Whatever else there is: all is rendered from rows.
"""

import asyncio
import logging
from collections.abc import Iterable
from operator import attrgetter
from pathlib import Path

from msgspec import Struct

from firth_protocol.types import Family
from firthd.channels.plan import Plan
from firthd.families.base import Side
from firthd.index.messages import Rendered, RenderParams
from firthd.index.set_hash import EMPTY
from firthd.store import catalog, generations, offers
from firthd.store.database import Database, Reader

log = logging.getLogger(__name__)
_name = attrgetter("name")

FIRST_GENERATION = 1


class Early(Struct, frozen=True, kw_only=True):
    """What a reading has rendered, and of which change set its rows are."""

    family: Family
    change_set: int
    sides: list[Side]  # the files that were taken from beside the index
    made: Rendered

    def covers(self, parts: Iterable[str]) -> bool:
        """Tell whether these parts are rendered, but for what belongs to no single one."""
        return {*parts, ""} - {part.part for part in self.made.result.parts} == {""}


async def shows_nothing(r: Reader, channel_id: int, family: Family) -> bool:
    """Tell whether a channel has been given nothing since it was made, and has had one mirror only."""
    channel = await catalog.channel_by_id(r, channel_id)
    if channel is None or channel.generation != FIRST_GENERATION or not await offers.sole_mirror(r, channel_id):
        return False
    shown = await generations.generation_families(r, channel_id, FIRST_GENERATION)
    return any(row.family == family and row.state == EMPTY and not row.artifacts for row in shown)


async def usable(
    db: Database, plan: Plan, family: Family, params: RenderParams, early: Early | None
) -> Rendered | None:
    """Return what need not be rendered, because it is there; None where a render would make something else."""
    if early is None or early.family != family or plan.full or plan.number != FIRST_GENERATION + 1:
        return None
    if plan.rendered_sets != [early.change_set] or sorted(params.sides, key=_name) != sorted(early.sides, key=_name):
        return None
    if not await db.read(lambda r: shows_nothing(r, plan.channel.id, family)):
        return None
    if not await asyncio.to_thread(all_there, early.made):
        return None
    log.info("channel %s shows what was rendered while it was read", plan.channel.name)
    return early.made


def all_there(made: Rendered) -> bool:
    """Tell whether every file is where it was written: a publication takes them away."""
    files = [file.file for file in (*made.result.files, *made.packs)]
    return all(Path(file).exists() for file in (*files, *made.run_files))
