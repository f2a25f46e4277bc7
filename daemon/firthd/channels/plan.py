"""The only place that decides what a publication starts from, and what it must render."""

from msgspec import Struct

from firth_protocol.errors import NotFound
from firthd.store import catalog, generations
from firthd.store.catalog import ChannelRow
from firthd.store.database import Reader
from firthd.store.generations import FamilyRow, GenerationRow


class Plan(Struct, frozen=True, kw_only=True):
    """What one publication is going to do."""

    channel: ChannelRow
    current: GenerationRow
    families: list[FamilyRow]  # of what is to be shown before anything is rendered
    draft: list[generations.ChangeSetRow]
    number: int
    shows: int  # of the generation to be
    begins_with: GenerationRow  # the kept generation whose objects and summaries it starts from
    rendered_shows: int  # published sets that its content holds, beside those below
    rendered_sets: list[int]
    full: bool  # nothing is there to start from: all is made anew
    renders: bool = True
    touched: frozenset[str] | None = None  # families that those sets may change; None: any


async def plan_publication(r: Reader, channel_id: int, roll_back_to: int | None, wanted: set[int]) -> Plan:
    """Return how the change sets in `wanted` are published, or an earlier generation again; raise NotFound."""
    channel = await catalog.channel_by_id(r, channel_id)
    if channel is None:
        raise NotFound("the channel was deleted")
    current = await generations.generation(r, channel_id, channel.generation)
    assert current is not None
    number = channel.generation + 1
    if roll_back_to is not None:
        return await plan_rollback(r, channel, current, roll_back_to)
    draft = [one for one in await generations.finished_change_sets(r, channel_id) if one.id in wanted]
    own = await generations.newest_own(r, channel_id, current.number)
    # A channel that was rolled back, and what was shown before is gone; or a migration found its indexes wrong.
    full = own is None or not own.kept or await catalog.to_render_anew(r, channel_id)
    start = current if own is None else own
    between = await generations.sets_numbered(r, channel_id, start.number, channel.generation)
    rendered_sets = [one.id for one in draft] + ([] if full else between)
    return Plan(
        channel=channel,
        current=current,
        families=await generations.generation_families(r, channel_id, current.number if full else start.number),
        draft=draft,
        number=number,
        shows=number,
        begins_with=current if full else start,
        rendered_shows=channel.generation if full else start.number,
        rendered_sets=rendered_sets,
        touched=await generations.families_of(r, rendered_sets),
        full=full,
        renders=full or bool(draft) or bool(between),
    )


async def owes_its_present(r: Reader, channel_id: int) -> bool:
    """Tell whether clients are to see something else though nothing new has come: after a rollback, or a migration."""
    channel = await catalog.channel_by_id(r, channel_id)
    current = None if channel is None else await generations.generation(r, channel_id, channel.generation)
    return current is not None and (current.shows != current.number or await catalog.to_render_anew(r, channel_id))


async def plan_rollback(r: Reader, channel: ChannelRow, current: GenerationRow, roll_back_to: int) -> Plan:
    target = await generations.generation(r, channel.id, roll_back_to)
    if target is None or not target.kept:
        raise NotFound(f"generation {roll_back_to} of {channel.name} is not kept")
    return Plan(
        channel=channel,
        current=current,
        families=await generations.generation_families(r, channel.id, target.number),
        draft=[],
        number=channel.generation + 1,
        shows=target.shows,
        begins_with=target,
        rendered_shows=target.shows,
        rendered_sets=[],
        full=False,
        renders=False,
    )
