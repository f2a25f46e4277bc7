"""The only place that turns an action into calls, with the dialogs before and the words after."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from firth_protocol.errors import FirthError
from firth_protocol.methods import ChannelReply, FreezeReply, MirrorDeleteReply, MirrorReply, RunReply, SeqReply
from firth_protocol.types import Channel, Generation, Mirror, Package, Run
from firth_tui.actions import Action, Place, at, menu
from firth_tui.format import clean, count, counted, size
from firth_tui.screens.place import PlaceScreen
from firth_tui.widgets.dialogs import Answer, Confirm, Failure, Help, Menu, Question

T = TypeVar("T")

Deed = Callable[[PlaceScreen], Awaitable[None]]


async def do(place: PlaceScreen, action: Action) -> None:
    """Do `action` on what `place` has under its cursor; whatever goes wrong is shown until it has been read."""
    deed = DEEDS.get(action.id)
    try:
        if deed is not None:
            await deed(place)
        else:
            await place.own_deed(action.id)
    except FirthError as error:
        place.firth.push_screen(Failure(f"{action.label} did not work", error))
    except OSError as error:
        place.firth.push_screen(Failure(f"{action.label}: the daemon did not answer", error))


async def _confirmed(place: PlaceScreen, question: Question) -> Answer | None:
    return await place.firth.push_screen_wait(Confirm(question))


def _subject(place: PlaceScreen, name: str, kind: type[T]) -> T:
    """Return what the action acts on; the table has already made sure that it is there."""
    found = getattr(place.context(), name)
    assert isinstance(found, kind)
    return found


def _tell_run(place: PlaceScreen, run: Run | None, text: str, warnings: list[str] | None = None) -> None:
    place.firth.tell(f"{text} {run_words(run)}".strip())
    for warning in warnings or []:
        place.firth.tell(warning, warning=True)


def run_words(run: Run | None) -> str:
    """Return where to look for a run: `Run 42; l shows it.`"""
    return f"It is run {run.id}." if run is not None else ""


# --- the application


async def _quit(place: PlaceScreen) -> None:
    place.firth.exit()


async def _help(place: PlaceScreen) -> None:
    context = place.context()
    place.firth.push_screen(Help(place.crumbs()[-1], at(context.place), context, place.words))


async def _palette(place: PlaceScreen) -> None:
    place.firth.action_command_palette()


async def _back(place: PlaceScreen) -> None:
    if not place.go_back() and len(place.firth.screen_stack) > 1:
        await place.firth.pop_screen()


async def _theme(place: PlaceScreen) -> None:
    place.firth.switch_colours()


async def _mouse(place: PlaceScreen) -> None:
    ours = place.firth.switch_mouse()
    place.firth.tell(
        "The mouse works in firth again." if ours else "The mouse is the terminal's now: select text with it."
    )


async def _view_channels(place: PlaceScreen) -> None:
    from firth_tui.screens.channels import ChannelsScreen

    await place.firth.view(ChannelsScreen())


async def _view_mirrors(place: PlaceScreen) -> None:
    from firth_tui.screens.mirrors import MirrorsScreen

    await place.firth.view(MirrorsScreen())


async def _view_runs(place: PlaceScreen) -> None:
    from firth_tui.screens.runs import RunsScreen

    await place.firth.view(RunsScreen())


async def _view_health(place: PlaceScreen) -> None:
    from firth_tui.screens.health import HealthScreen

    await place.firth.view(HealthScreen())


async def _view_audit(place: PlaceScreen) -> None:
    from firth_tui.screens.health import AuditScreen

    await place.firth.view(AuditScreen())


# --- lists


async def _filter(place: PlaceScreen) -> None:
    place.filter_bar.open()


async def _sort(place: PlaceScreen) -> None:
    if place.pane is not None:
        place.pane.sort_next()


async def _reverse(place: PlaceScreen) -> None:
    if place.pane is not None:
        place.pane.reverse()


async def _faults(place: PlaceScreen) -> None:
    if place.pane is not None:
        place.pane.toggle_faults()


async def _refresh(place: PlaceScreen) -> None:
    place.firth.retry_now()
    place.reload()


async def _open(place: PlaceScreen) -> None:
    await place.open_row()


async def _copy_name(place: PlaceScreen) -> None:
    _copied(place, place.name_to_copy())


async def _copy_url(place: PlaceScreen) -> None:
    _copied(place, await place.url_to_copy())


def _copied(place: PlaceScreen, text: str | None) -> None:
    if text is None:
        place.firth.tell("There is nothing to copy here.", warning=True)
        return
    text = clean(text, 2000)
    place.firth.copy_to_clipboard(text)
    place.firth.tell(f"Copied {text}")


# --- channels


async def _channel_create(place: PlaceScreen) -> None:
    await _new_channel(place, "")


async def _subchannel_create(place: PlaceScreen) -> None:
    channel = place.context().channel
    await _new_channel(place, f"{channel.name}/" if channel is not None else "")


async def _new_channel(place: PlaceScreen, prefix: str) -> None:
    from firth_tui.screens.forms.channel import ChannelForm

    reply = await place.firth.push_screen_wait(ChannelForm(prefix=prefix))
    if isinstance(reply, ChannelReply):
        place.firth.tell(f"Created the channel {reply.channel.name}. It needs a mirror to fill it.")
        for warning in reply.warnings:
            place.firth.tell(warning, warning=True)
        place.seek(reply.channel.name)


async def _channel_edit(place: PlaceScreen) -> None:
    from firth_tui.screens.forms.channel import ChannelForm

    channel = _subject(place, "channel", Channel)
    reply = await place.firth.push_screen_wait(ChannelForm(channel))
    if isinstance(reply, ChannelReply):
        place.firth.tell(f"Saved {reply.channel.name}.")


async def _channel_freeze(place: PlaceScreen) -> None:
    channel = _subject(place, "channel", Channel)
    if channel.frozen:
        await _unfreeze(place, channel)
        return
    reply = await place.firth.link.ask(FreezeReply, "channel.freeze", channel=channel.name)
    place.firth.tell(f"{channel.name} is frozen: clients keep seeing generation {reply.channel.generation}.")
    if reply.not_stored:
        files = counted(reply.not_stored, "file")
        place.firth.tell(f"{files} of it are not stored and still come from the source. {reply.hint}", warning=True)


async def _unfreeze(place: PlaceScreen, channel: Channel) -> None:
    draft = channel.draft
    waiting = (
        f"{counted(draft.added, 'addition')} and {counted(draft.removed, 'removal')} wait; they are published at once."
        if draft is not None
        else "Nothing waits to be published."
    )
    question = Question(
        title=f"Unfreeze the channel {channel.name}?",
        lines=[waiting, "From then on clients see what mirrors bring, as usual."],
        verb="Unfreeze",
    )
    if draft is None or await _confirmed(place, question):
        reply = await place.firth.link.ask(FreezeReply, "channel.unfreeze", channel=channel.name)
        publishing = f"Run {reply.run.id} publishes what waited." if reply.run else "There was nothing to publish."
        place.firth.tell(f"{channel.name} is live again. {publishing}")


async def _channel_mirrors(place: PlaceScreen) -> None:
    from firth_tui.screens.channel import ChannelScreen

    channel = _subject(place, "channel", Channel)
    place.firth.push_screen(ChannelScreen(channel.name, Place.CHANNEL_MIRRORS))


async def _channel_delete(place: PlaceScreen) -> None:
    channel = _subject(place, "channel", Channel)
    packages = sum(each.packages for each in channel.families)
    stored = sum(each.bytes for each in channel.families)
    question = Question(
        title=f"Delete the channel {channel.name}?",
        lines=[
            f"Its {counted(channel.mirrors, 'mirror')}, {counted(packages, 'package')} ({size(stored)}) "
            "and every generation go with it.",
            "Clients that use it get an error from then on. This cannot be undone.",
        ],
        verb="Delete",
        type_name=channel.name,
    )
    answer = await _confirmed(place, question)
    if answer:
        await place.firth.link.ask(SeqReply, "channel.delete", channel=channel.name, confirm=answer.typed)
        place.firth.tell(f"Deleted the channel {channel.name}.")
        if place.where() is not Place.CHANNELS:
            await place.firth.pop_screen()


async def _rollback(place: PlaceScreen) -> None:
    channel = _subject(place, "channel", Channel)
    generation = _subject(place, "generation", Generation)
    question = Question(
        title=f"Take {channel.name} back to generation {generation.number}?",
        lines=[
            f"Clients then see its {counted(generation.artifacts, 'file')} instead of generation {channel.generation}.",
            "The channel is frozen as well, so that no mirror undoes it. Unfreezing returns to the present.",
        ],
        verb="Go back",
    )
    if await _confirmed(place, question):
        reply = await place.firth.link.ask(
            RunReply, "channel.rollback", channel=channel.name, generation=generation.number
        )
        _tell_run(place, reply.run, f"{channel.name} goes back to generation {generation.number}.", reply.warnings)


# --- mirrors


async def _mirror_create(place: PlaceScreen) -> None:
    from firth_tui.screens.forms.mirror import MirrorForm

    channel = place.context().channel
    mirror = place.context().mirror
    name = channel.name if channel is not None else mirror.channel if mirror is not None else ""
    _after_form(place, await place.firth.push_screen_wait(MirrorForm(channel=name)))


async def _mirror_edit(place: PlaceScreen) -> None:
    from firth_tui.screens.forms.mirror import MirrorForm

    mirror = _subject(place, "mirror", Mirror)
    _after_form(place, await place.firth.push_screen_wait(MirrorForm(mirror=mirror)))


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


def show_run(place: PlaceScreen, run: Run) -> None:
    """Open the screen of a run."""
    from firth_tui.screens.run import RunScreen

    place.firth.push_screen(RunScreen(run.id))


async def _mirror_run(place: PlaceScreen) -> None:
    mirror = _subject(place, "mirror", Mirror)
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
        answer = await _confirmed(place, question)
        if answer is None:
            return
        accept = answer.choice == "accept"
    given = {"accept_removals": True} if accept else {}
    reply = await place.firth.link.ask(RunReply, "mirror.run", mirror=mirror.id, **given)
    said = f"{mirror.name} was running already." if reply.already else f"{mirror.name} runs."
    _tell_run(place, reply.run, said, reply.warnings)


async def _mirror_stop(place: PlaceScreen) -> None:
    mirror = _subject(place, "mirror", Mirror)
    question = Question(
        title=f"Stop the run of {mirror.name}?",
        lines=["It ends within 5 seconds. What it has verified stays stored and is not fetched again."],
        verb="Stop",
        choices=[
            ("leave", "publish nothing of it"),
            ("publish", "publish what is already there (adds, never removes)"),
        ],
    )
    answer = await _confirmed(place, question)
    if answer:
        given = {"publish": True} if answer.choice == "publish" else {}
        reply = await place.firth.link.ask(RunReply, "mirror.stop", mirror=mirror.id, **given)
        _tell_run(place, reply.run, f"{mirror.name} stops.", reply.warnings)


async def _mirror_restart(place: PlaceScreen) -> None:
    mirror = _subject(place, "mirror", Mirror)
    question = Question(
        title=f"Restart the run of {mirror.name}?",
        lines=["A run in progress is stopped; what it has verified is kept. Then it begins again at step 1."],
        verb="Restart",
    )
    if await _confirmed(place, question):
        reply = await place.firth.link.ask(RunReply, "mirror.restart", mirror=mirror.id)
        _tell_run(place, reply.run, f"{mirror.name} begins again.", reply.warnings)


async def _mirror_plan(place: PlaceScreen) -> None:
    mirror = _subject(place, "mirror", Mirror)
    reply = await place.firth.link.ask(RunReply, "mirror.plan", mirror=mirror.id)
    if reply.run is not None:
        show_run(place, reply.run)


async def _mirror_fill(place: PlaceScreen) -> None:
    mirror = _subject(place, "mirror", Mirror)
    await place.firth.link.call("mirror.fill", mirror=mirror.id)
    missing = max(0, mirror.artifacts - mirror.stored)
    place.firth.tell(f"Filling {mirror.name}: {counted(missing, 'file')} to download. See its runs.")


async def _mirror_report(place: PlaceScreen) -> None:
    from firth_tui.screens.report import write_report

    mirror = _subject(place, "mirror", Mirror)
    file = await write_report(place.firth.link, mirror)
    place.firth.copy_to_clipboard(str(file))
    place.firth.tell(f"Wrote {file} (its path is in your clipboard).")


async def _mirror_details(place: PlaceScreen) -> None:
    from firth_tui.screens.mirror import MirrorScreen

    place.firth.push_screen(MirrorScreen(_subject(place, "mirror", Mirror).id))


async def _mirror_open_run(place: PlaceScreen) -> None:
    from firth_tui.screens.run import RunScreen

    mirror = _subject(place, "mirror", Mirror)
    if mirror.last_run is not None:
        place.firth.push_screen(RunScreen(mirror.last_run.id))


async def _mirror_menu(place: PlaceScreen) -> None:
    context = place.context()
    mirror = _subject(place, "mirror", Mirror)
    title = f"{mirror.channel} / {mirror.name}"
    chosen = await place.firth.push_screen_wait(Menu(title, menu(context), context))
    if chosen is not None:
        await DEEDS[chosen](place)


async def _mirror_delete(place: PlaceScreen) -> None:
    mirror = _subject(place, "mirror", Mirror)
    question = Question(
        title=f"Delete the mirror {mirror.name} of {mirror.channel}?",
        lines=[
            f"It lists {counted(mirror.artifacts, 'file')}, of which {count(mirror.stored)} are stored. "
            "A run in progress is stopped first. This cannot be undone.",
        ],
        verb="Delete",
        type_name=mirror.name,
        choices=[
            ("keep", f"keep the {counted(mirror.stored, 'stored file')} in the channel"),
            ("remove", "take all of its packages out of the channel"),
        ],
    )
    answer = await _confirmed(place, question)
    if answer:
        reply = await place.firth.link.ask(
            MirrorDeleteReply, "mirror.delete", mirror=mirror.id, packages=answer.choice, confirm=answer.typed
        )
        place.firth.tell(f"Deleted {mirror.name}: {count(reply.kept)} files kept, {count(reply.dropped)} dropped.")
        if place.where() is Place.MIRROR:
            await place.firth.pop_screen()


# --- packages


async def _package_remove(place: PlaceScreen) -> None:
    channel = _subject(place, "channel", Channel)
    package = _subject(place, "package", Package)
    question = Question(
        title=f"Remove {package.name} from {channel.name}?",
        lines=[
            f"Its {counted(package.files, 'file')} leave the channel at once.",
            "No run brings them back until the package is restored.",
        ],
        verb="Remove",
    )
    if await _confirmed(place, question):
        await place.firth.link.call("package.remove", channel=channel.name, spec=package.name)
        place.firth.tell(f"Removed {package.name} from {channel.name}.")


async def _package_restore(place: PlaceScreen) -> None:
    from firth_protocol.methods import ChannelGet

    channel = _subject(place, "channel", Channel)
    detail = await place.firth.link.ask(ChannelGet, "channel.get", channel=channel.name)
    specs = [str(block["spec"]) for block in detail.blocks if "spec" in block]
    if not specs:
        place.firth.tell(f"Nothing has been removed from {channel.name} by hand.")
        return
    question = Question(
        title=f"Restore which package of {channel.name}?",
        lines=["It comes back with the next run of its mirror."],
        verb="Restore",
        choices=[(str(number), spec) for number, spec in enumerate(specs[:12])],
    )
    answer = await _confirmed(place, question)
    if answer:
        spec = specs[int(answer.choice)]
        await place.firth.link.call("package.restore", channel=channel.name, spec=spec)
        place.firth.tell(f"{spec} may come back to {channel.name}.")


DEEDS: Mapping[str, Deed] = {
    "app.quit": _quit,
    "app.help": _help,
    "app.palette": _palette,
    "app.back": _back,
    "app.theme": _theme,
    "app.mouse": _mouse,
    "view.channels": _view_channels,
    "view.mirrors": _view_mirrors,
    "view.runs": _view_runs,
    "view.health": _view_health,
    "view.audit": _view_audit,
    "list.filter": _filter,
    "list.sort": _sort,
    "list.reverse": _reverse,
    "list.faults": _faults,
    "list.refresh": _refresh,
    "open": _open,
    "copy.name": _copy_name,
    "copy.url": _copy_url,
    "channel.create": _channel_create,
    "subchannel.create": _subchannel_create,
    "channel.edit": _channel_edit,
    "channel.freeze": _channel_freeze,
    "channel.mirrors": _channel_mirrors,
    "channel.delete": _channel_delete,
    "channel.rollback": _rollback,
    "mirror.create": _mirror_create,
    "mirror.edit": _mirror_edit,
    "mirror.run": _mirror_run,
    "mirror.stop": _mirror_stop,
    "mirror.restart": _mirror_restart,
    "mirror.plan": _mirror_plan,
    "mirror.fill": _mirror_fill,
    "mirror.report": _mirror_report,
    "mirror.details": _mirror_details,
    "mirror.open_run": _mirror_open_run,
    "mirror.menu": _mirror_menu,
    "mirror.delete": _mirror_delete,
    "package.remove": _package_remove,
    "package.restore": _package_restore,
}
