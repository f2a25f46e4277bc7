"""The only place that turns an action into calls, with the dialogs before and the words after."""

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

from firth_protocol.errors import FirthError
from firth_protocol.methods import ChannelReply, FreezeReply, RunReply, SeqReply
from firth_protocol.types import Channel, Generation, Mirror
from firth_tui.action_table import BY_ID, menu, sections
from firth_tui.actions import Action, Context, Place, Target, subject
from firth_tui.commands_marked import on_marks
from firth_tui.commands_mirror import MIRROR_COMMANDS
from firth_tui.commands_package import PACKAGE_COMMANDS
from firth_tui.commands_policy import POLICY_COMMANDS
from firth_tui.commands_store import STORE_COMMANDS
from firth_tui.commands_token import TOKEN_COMMANDS
from firth_tui.dialogue import confirmed, tell_run, unfreezing
from firth_tui.format import clean, counted, moment, size
from firth_tui.screens.place import PlaceScreen
from firth_tui.widgets.dialogs import Failure, Help, Menu, Question

T = TypeVar("T")

Command = Callable[[PlaceScreen, Context], Awaitable[None]]


async def do(place: PlaceScreen, action: Action, context: Context) -> None:
    """Do `action` on what `context` holds; whatever goes wrong is shown until it has been read."""
    command = COMMANDS.get(action.id)
    try:
        if action.on_marks(context):
            await on_marks(place, action, context)
        elif command is not None:
            await command(place, context)
        else:
            await place.own_command(action.id)
    except FirthError as error:
        place.firth.push_screen(Failure(f"{action.label} did not work", error))
    except OSError as error:
        place.firth.push_screen(Failure(f"{action.label}: the daemon did not answer", error))


# --- the application


async def _quit(place: PlaceScreen, context: Context) -> None:
    place.firth.exit()


async def _help(place: PlaceScreen, context: Context) -> None:
    place.firth.push_screen(Help(place.crumbs()[-1], sections(context.place), context, place.words))


async def _palette(place: PlaceScreen, context: Context) -> None:
    place.firth.action_command_palette()


async def _back(place: PlaceScreen, context: Context) -> None:
    if not place.go_back():
        await place.firth.close(place)


async def _theme(place: PlaceScreen, context: Context) -> None:
    place.firth.switch_colours()


async def _mouse(place: PlaceScreen, context: Context) -> None:
    ours = place.firth.switch_mouse()
    place.firth.tell(
        "The mouse works in firth again." if ours else "The mouse is the terminal's now: select text with it."
    )


def _view(to: Place) -> Command:
    async def view(place: PlaceScreen, context: Context) -> None:
        await place.firth.view(Target(place=to))

    return view


# --- lists


async def _filter(place: PlaceScreen, context: Context) -> None:
    place.filter_bar.open()


async def _mark(place: PlaceScreen, context: Context) -> None:
    if place.pane is not None:
        place.pane.table.mark()
        place.redraw()


async def _sort(place: PlaceScreen, context: Context) -> None:
    if place.pane is not None:
        place.pane.sort_next()


async def _reverse(place: PlaceScreen, context: Context) -> None:
    if place.pane is not None:
        place.pane.reverse()


async def _faults(place: PlaceScreen, context: Context) -> None:
    if place.pane is not None:
        place.pane.toggle_faults()


async def _refresh(place: PlaceScreen, context: Context) -> None:
    place.firth.retry_now()
    place.reload()


async def _open(place: PlaceScreen, context: Context) -> None:
    await place.open_row(context.row)


async def _copy_name(place: PlaceScreen, context: Context) -> None:
    _copied(place, place.name_to_copy(context.row))


async def _copy_url(place: PlaceScreen, context: Context) -> None:
    _copied(place, await place.url_to_copy(context.row))


def _copied(place: PlaceScreen, text: str | None) -> None:
    if text is None:
        place.firth.tell("There is nothing to copy here.", warning=True)
        return
    text = clean(text, 2000)
    place.firth.copy_to_clipboard(text)
    place.firth.tell(f"Copied {text}")


# --- channels


async def _channel_create(place: PlaceScreen, context: Context) -> None:
    await _new_channel(place, "")


async def _subchannel_create(place: PlaceScreen, context: Context) -> None:
    channel = context.channel
    await _new_channel(place, f"{channel.name}/" if channel is not None else "")


async def _new_channel(place: PlaceScreen, prefix: str) -> None:
    from firth_tui.screens.forms.channel import ChannelForm

    reply = await place.firth.asked(place, ChannelForm(prefix=prefix))
    if isinstance(reply, ChannelReply):
        place.firth.tell(f"Created the channel {reply.channel.name}. It needs a mirror to fill it.")
        for warning in reply.warnings:
            place.firth.tell(warning, warning=True)
        place.seek(reply.channel.name)


async def _channel_edit(place: PlaceScreen, context: Context) -> None:
    from firth_tui.screens.forms.channel import ChannelForm

    channel = subject(context, "channel", Channel)
    reply = await place.firth.asked(place, ChannelForm(channel))
    if isinstance(reply, ChannelReply):
        judged = f" {len(reply.runs):,} runs judge by its policy now." if reply.runs else ""
        place.firth.tell(f"Saved {reply.channel.name}.{judged}")


async def _channel_freeze(place: PlaceScreen, context: Context) -> None:
    channel = subject(context, "channel", Channel)
    if channel.frozen:
        await _unfreeze(place, channel)
        return
    reply = await place.firth.link.ask(FreezeReply, "channel.freeze", channel=channel.name)
    place.reload()
    if not reply.changed:
        place.firth.tell(f"{channel.name} was frozen already, since {moment(reply.channel.frozen_at)}.")
        return
    place.firth.tell(f"{channel.name} is frozen: clients keep seeing generation {reply.channel.generation}.")
    if reply.not_stored:
        files = counted(reply.not_stored, "file")
        place.firth.tell(f"{files} of it are not stored and still come from the source. {reply.hint}", warning=True)


async def _unfreeze(place: PlaceScreen, channel: Channel) -> None:
    told = await place.firth.link.ask(FreezeReply, "channel.unfreeze", channel=channel.name, dry_run=True)
    lines = unfreezing(told)
    question = Question(title=f"Unfreeze the channel {channel.name}?", lines=lines, verb="Unfreeze")
    if not lines or await confirmed(place, question):
        reply = await place.firth.link.ask(FreezeReply, "channel.unfreeze", channel=channel.name)
        place.reload()
        if not reply.changed:
            place.firth.tell(f"{channel.name} was live already.")
            return
        publishing = f"Run {reply.run.id} publishes what waited." if reply.run else "There was nothing to publish."
        place.firth.tell(f"{channel.name} is live again. {publishing}")


async def _channel_mirrors(place: PlaceScreen, context: Context) -> None:
    channel = subject(context, "channel", Channel)
    place.firth.open(Target(place=Place.CHANNEL_MIRRORS, channel=channel.name))


async def _channel_delete(place: PlaceScreen, context: Context) -> None:
    channel = subject(context, "channel", Channel)
    packages = sum(each.packages for each in channel.families)
    stored = sum(each.bytes for each in channel.families)
    question = Question(
        title=f"Delete the channel {channel.name}?",
        lines=[
            f"It goes with {counted(channel.mirrors, 'mirror')}, {counted(packages, 'package')} ({size(stored)}).",
            "Clients that use it get an error from then on. This cannot be undone.",
        ],
        verb="Delete",
        type_name=channel.name,
    )
    answer = await confirmed(place, question)
    if answer:
        await place.firth.link.ask(SeqReply, "channel.delete", channel=channel.name, confirm=answer.typed)
        place.firth.tell(f"Deleted the channel {channel.name}.")
        if place.where() is not Place.CHANNELS:
            await place.firth.close(place)


async def _rollback(place: PlaceScreen, context: Context) -> None:
    channel = subject(context, "channel", Channel)
    generation = subject(context, "generation", Generation)
    question = Question(
        title=f"Take {channel.name} back to generation {generation.number}?",
        lines=[
            f"Clients then see its {counted(generation.artifacts, 'file')} instead of generation {channel.generation}.",
            "The channel is frozen as well, so that no mirror undoes it. Unfreezing returns to the present.",
        ],
        verb="Go back",
    )
    if await confirmed(place, question):
        reply = await place.firth.link.ask(
            RunReply, "channel.rollback", channel=channel.name, generation=generation.number
        )
        tell_run(place, reply.run, f"{channel.name} goes back to generation {generation.number}.", reply.warnings)


async def _mirror_menu(place: PlaceScreen, context: Context) -> None:
    mirror = subject(context, "mirror", Mirror)
    title = f"{mirror.channel} / {mirror.name}"
    chosen = await place.firth.asked(place, Menu(title, menu(context), context))
    if chosen is not None:
        # the menu named a mirror: no other may have come under the cursor
        now = await place.firth.chosen(place, BY_ID[chosen], context)
        if now is not None:
            await COMMANDS[chosen](place, now)


COMMANDS: Mapping[str, Command] = {
    "app.quit": _quit,
    "app.help": _help,
    "app.palette": _palette,
    "app.back": _back,
    "app.theme": _theme,
    "app.mouse": _mouse,
    "view.channels": _view(Place.CHANNELS),
    "view.mirrors": _view(Place.MIRRORS),
    "view.runs": _view(Place.RUNS),
    "view.health": _view(Place.HEALTH),
    "view.audit": _view(Place.AUDIT),
    "view.policies": _view(Place.POLICIES),
    "view.advisories": _view(Place.ADVISORIES),
    "view.tokens": _view(Place.TOKENS),
    "list.filter": _filter,
    "list.mark": _mark,
    "list.sort": _sort,
    "list.reverse": _reverse,
    "list.faults": _faults,
    "list.refresh": _refresh,
    "open": _open,
    "copy.name": _copy_name,
    "copy.url": _copy_url,
    "copy.file": _copy_url,
    "channel.create": _channel_create,
    "subchannel.create": _subchannel_create,
    "channel.edit": _channel_edit,
    "channel.freeze": _channel_freeze,
    "channel.mirrors": _channel_mirrors,
    "channel.delete": _channel_delete,
    "channel.rollback": _rollback,
    **MIRROR_COMMANDS,
    **PACKAGE_COMMANDS,
    **POLICY_COMMANDS,
    **STORE_COMMANDS,
    **TOKEN_COMMANDS,
    "mirror.menu": _mirror_menu,
}
