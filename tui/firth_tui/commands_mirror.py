"""The only place that turns an action on a mirror into calls."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from firth_protocol.methods import MirrorDeleteReply, MirrorReply, RunReply
from firth_protocol.types import Mirror
from firth_tui.actions import Context, Place, Target, subject
from firth_tui.dialogue import confirmed, show_run, tell_run
from firth_tui.format import count, counted
from firth_tui.screens.place import PlaceScreen
from firth_tui.widgets.dialogs import Question


async def _mirror_create(place: PlaceScreen, context: Context) -> None:
    from firth_tui.screens.forms.mirror import MirrorForm

    channel, mirror = context.channel, context.mirror
    likely = mirror.channel if channel is None and mirror is not None else ""
    form = MirrorForm(channel=channel.name if channel is not None else "", likely=likely)
    _after_form(place, await place.firth.asked(place, form))


async def _mirror_edit(place: PlaceScreen, context: Context) -> None:
    from firth_tui.screens.forms.mirror import MirrorForm

    mirror = subject(context, "mirror", Mirror)
    _after_form(place, await place.firth.asked(place, MirrorForm(mirror=mirror)))


def _after_form(place: PlaceScreen, reply: Any) -> None:
    if isinstance(reply, RunReply) and reply.run is not None:
        show_run(place, reply.run)
    elif isinstance(reply, MirrorReply):
        place.firth.tell(f"Saved the mirror {reply.mirror.name}.")
        for warning in reply.warnings:
            place.firth.tell(warning, warning=True)
        place.seek(reply.mirror.id)
        if reply.run is not None:
            show_run(place, reply.run)


async def _mirror_run(place: PlaceScreen, context: Context) -> None:
    mirror = subject(context, "mirror", Mirror)
    accept = False
    error = mirror.last_run.error if mirror.last_run else None
    if error is not None and error.kind == "shrink_guard":
        question = Question(
            title=f"Run {mirror.name} although its source lost much?",
            lines=[
                f"The last run ended because of this: {error.message}",
                "Going ahead takes out of the channel what the source no longer lists.",
            ],
            verb="Run",
            choices=[("guard", "run, and end again if so much is missing"), ("accept", "run, and take it out")],
        )
        answer = await confirmed(place, question)
        if answer is None:
            return
        accept = answer.choice == "accept"
    given = {"accept_removals": True} if accept else {}
    reply = await place.firth.link.ask(RunReply, "mirror.run", mirror=mirror.id, **given)
    said = f"{mirror.name} was running already." if reply.already else f"{mirror.name} runs."
    tell_run(place, reply.run, said, reply.warnings)


async def _mirror_stop(place: PlaceScreen, context: Context) -> None:
    mirror = subject(context, "mirror", Mirror)
    question = Question(
        title=f"Stop the run of {mirror.name}?",
        lines=["It ends within 5 seconds. What it has verified stays stored and is not fetched again."],
        verb="Stop",
        choices=[
            ("leave", "publish nothing of it"),
            ("publish", "publish what is already there (adds, never removes)"),
        ],
    )
    answer = await confirmed(place, question)
    if answer:
        given = {"publish": True} if answer.choice == "publish" else {}
        reply = await place.firth.link.ask(RunReply, "mirror.stop", mirror=mirror.id, **given)
        place.reload()
        tell_run(place, reply.run, f"{mirror.name} stops.", reply.warnings)


async def _mirror_restart(place: PlaceScreen, context: Context) -> None:
    mirror = subject(context, "mirror", Mirror)
    question = Question(
        title=f"Restart the run of {mirror.name}?",
        lines=["A run in progress is stopped; what it has verified is kept. Then it begins again at step 1."],
        verb="Restart",
    )
    if await confirmed(place, question):
        reply = await place.firth.link.ask(RunReply, "mirror.restart", mirror=mirror.id)
        tell_run(place, reply.run, f"{mirror.name} begins again.", reply.warnings)


async def _mirror_plan(place: PlaceScreen, context: Context) -> None:
    mirror = subject(context, "mirror", Mirror)
    reply = await place.firth.link.ask(RunReply, "mirror.plan", mirror=mirror.id)
    if reply.run is not None:
        show_run(place, reply.run)


async def _mirror_fill(place: PlaceScreen, context: Context) -> None:
    mirror = subject(context, "mirror", Mirror)
    reply = await place.firth.link.ask(RunReply, "mirror.fill", mirror=mirror.id)
    missing = max(0, mirror.artifacts - mirror.stored)
    tell_run(place, reply.run, f"Filling {mirror.name}: {counted(missing, 'file')} to download.")


async def _mirror_details(place: PlaceScreen, context: Context) -> None:
    place.firth.open(Target(place=Place.MIRROR, number=subject(context, "mirror", Mirror).id))


async def _mirror_open_run(place: PlaceScreen, context: Context) -> None:
    mirror = subject(context, "mirror", Mirror)
    if mirror.last_run is not None:
        place.firth.open(Target(place=Place.RUN, number=mirror.last_run.id))


async def _mirror_delete(place: PlaceScreen, context: Context) -> None:
    mirror = subject(context, "mirror", Mirror)
    question = Question(
        title=f"Delete the mirror {mirror.name} of {mirror.channel}?",
        lines=[
            f"It lists {counted(mirror.artifacts, 'file')}, of which {count(mirror.stored)} are stored.",
            "A run in progress is stopped first. This cannot be undone.",
        ],
        verb="Delete",
        type_name=mirror.name,
        choices=[
            ("keep", f"keep the {counted(mirror.stored, 'stored file')} in the channel"),
            ("remove", "take all of its packages out of the channel"),
        ],
    )
    answer = await confirmed(place, question)
    if answer:
        reply = await place.firth.link.ask(
            MirrorDeleteReply, "mirror.delete", mirror=mirror.id, packages=answer.choice, confirm=answer.typed
        )
        place.firth.tell(f"Deleted {mirror.name}: {count(reply.kept)} files kept, {count(reply.dropped)} dropped.")
        if place.where() is Place.MIRROR:
            await place.firth.close(place)


MIRROR_COMMANDS: Mapping[str, Callable[[PlaceScreen, Context], Awaitable[None]]] = {
    "mirror.create": _mirror_create,
    "mirror.edit": _mirror_edit,
    "mirror.run": _mirror_run,
    "mirror.stop": _mirror_stop,
    "mirror.restart": _mirror_restart,
    "mirror.plan": _mirror_plan,
    "mirror.fill": _mirror_fill,
    "mirror.details": _mirror_details,
    "mirror.open_run": _mirror_open_run,
    "mirror.delete": _mirror_delete,
}
