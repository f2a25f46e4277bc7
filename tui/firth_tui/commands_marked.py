"""The only place that turns an action on marked rows into calls: one dialog says what becomes of each, then it is done.

Each marked object is read anew before the dialog: what is named in it is how things stand, not how they were marked.
"""

from collections.abc import Hashable, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from firth_protocol.errors import FirthError, NotFound
from firth_protocol.methods import ChannelGet, FreezeReply, MirrorGet, RunReply
from firth_tui.actions import Action, Context, why_not
from firth_tui.dialogue import confirmed, unfreezing
from firth_tui.format import Sign, clean, counted
from firth_tui.screens.place import PlaceScreen
from firth_tui.widgets.dialogs import Question

MOST_TOLD = 6
"""More objects than this are counted in a dialog, not named."""


class Sorted(Struct, frozen=True):
    """What an action would be done to, by name and by what the calls take; and what it leaves alone, each with why."""

    does: list[tuple[str, Hashable]]
    leaves: list[tuple[str, str]]


async def on_marks(place: PlaceScreen, action: Action, context: Context) -> None:
    """Do `action` on every marked row that it fits, after one dialog that tells which these are."""
    if action.id == "channel.freeze":
        await _freeze(place, context)
        return
    found = await _mirrors(place, action, context)
    verb = action.label
    choices = (
        [("leave", "publish nothing of them"), ("publish", "publish what is already there (adds, never removes)")]
        if action.id == "mirror.stop"
        else []
    )
    answer = await _asked(place, found, verb, "mirror", choices)
    if answer is None:
        return
    given = {"publish": True} if answer == "publish" else {}

    async def do(number: Hashable) -> None:
        assert action.method is not None
        await place.firth.link.ask(RunReply, action.method, mirror=number, **given)

    await _done(place, found, verb, "mirror", do)


async def _mirrors(place: PlaceScreen, action: Action, context: Context) -> Sorted:
    found = Sorted([], [])
    for number in sorted(context.marks, key=str):
        try:
            mirror = await place.firth.link.ask(MirrorGet, "mirror.get", mirror=number)
        except NotFound:
            found.leaves.append((_marked_name(place, number), "it has been deleted"))
            continue
        name = f"{mirror.channel}: {mirror.name}"
        alone = msgspec.structs.replace(context, mirror=mirror, run=None, marks=frozenset())
        reason = why_not(action, alone)
        if reason:
            found.leaves.append((name, reason))
        else:
            found.does.append((name, mirror.id))
    return found


async def _freeze(place: PlaceScreen, context: Context) -> None:
    """Freeze the marked channels that are live; when none is, unfreeze them all."""
    link = place.firth.link
    channels: list[ChannelGet] = []
    gone: list[tuple[str, str]] = []
    for name in sorted(map(str, context.marks)):
        try:
            channels.append(await link.ask(ChannelGet, "channel.get", channel=name))
        except NotFound:
            gone.append((name, "it has been deleted"))
    live = [channel for channel in channels if not channel.frozen]
    if live or not channels:
        frozen = [(channel.name, "it is frozen already") for channel in channels if channel.frozen]
        found, verb, method = (
            Sorted([(each.name, each.name) for each in live], [*frozen, *gone]),
            "Freeze",
            "channel.freeze",
        )
    else:
        found = Sorted([], gone)
        for channel in channels:
            told = await link.ask(FreezeReply, "channel.unfreeze", channel=channel.name, dry_run=True)
            waits = unfreezing(told)
            found.does.append((channel.name + (f" ({waits[0].rstrip('.')})" if waits else ""), channel.name))
        verb, method = "Unfreeze", "channel.unfreeze"
    if await _asked(place, found, verb, "channel", []) is None:
        return

    async def do(name: Hashable) -> None:
        await link.ask(FreezeReply, method, channel=name)

    await _done(place, found, verb, "channel", do)


async def _asked(
    place: PlaceScreen, found: Sorted, verb: str, noun: str, choices: Sequence[tuple[str, str]]
) -> str | None:
    """Ask whether to go ahead; return what was chosen, None for nothing. Without anything to do it is only told."""
    if not found.does:
        reasons = "; ".join(f"{name}: {why}" for name, why in found.leaves[:2])
        place.firth.tell(f"{verb}: none of the marked rows; {reasons}", warning=True)
        return None
    question = Question(
        title=f"{verb} {counted(len(found.does), noun)}?",
        lines=[
            *_told([name for name, _ in found.does]),
            *([f"Left alone: {counted(len(found.leaves), noun)}"] if found.leaves else []),
            *_told([f"{name}: {why}" for name, why in found.leaves]),
        ],
        verb=f"{verb} {len(found.does):,}",
        choices=choices,
    )
    answer = await confirmed(place, question)
    return None if answer is None else answer.choice


def _told(names: Sequence[str]) -> list[str]:
    more = [f"  and {counted(len(names) - MOST_TOLD, 'more', 'more')}"] if len(names) > MOST_TOLD else []
    return [*(f"  {clean(name)}" for name in names[:MOST_TOLD]), *more]


async def _done(place: PlaceScreen, found: Sorted, verb: str, noun: str, do: Any) -> None:
    """Do it to one after the other; what fails does not hold up the others."""
    failed: list[str] = []
    for name, key in found.does:
        try:
            await do(key)
        except FirthError as error:
            failed.append(f"{name}: {error.message}")
    if place.pane is not None:
        place.pane.table.unmark()
    place.reload()
    place.redraw()
    well = len(found.does) - len(failed)
    place.firth.tell(f"{verb}: {counted(well, noun)} {Sign.OK}")
    if failed:
        place.firth.tell(f"{counted(len(failed), 'one', 'ones')} not: {'; '.join(failed[:3])}", warning=True)


def _marked_name(place: PlaceScreen, key: Hashable) -> str:
    row = place.pane.table.marks.get(key) if place.pane is not None else None
    return f"{row.channel}: {row.name}" if row is not None else str(key)
