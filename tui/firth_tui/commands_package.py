"""The only place that turns an action on a package into calls."""

from collections.abc import Awaitable, Callable, Mapping

from firth_protocol.methods import ChannelGet
from firth_protocol.types import Channel, Package
from firth_tui.actions import Context, subject
from firth_tui.dialogue import confirmed
from firth_tui.format import counted
from firth_tui.screens.place import PlaceScreen
from firth_tui.widgets.dialogs import Question


async def _package_remove(place: PlaceScreen, context: Context) -> None:
    channel = subject(context, "channel", Channel)
    package = subject(context, "package", Package)
    question = Question(
        title=f"Remove {package.name} from {channel.name}?",
        lines=[
            f"Its {counted(package.files, 'file')} leave the channel at once.",
            "No run brings them back until the package is restored.",
        ],
        verb="Remove",
    )
    if await confirmed(place, question):
        await place.firth.link.call("package.remove", channel=channel.name, spec=package.name, family=package.family)
        place.firth.tell(f"Removed {package.name} from {channel.name}.")


async def _package_restore(place: PlaceScreen, context: Context) -> None:
    channel = subject(context, "channel", Channel)
    detail = await place.firth.link.ask(ChannelGet, "channel.get", channel=channel.name)
    blocks = detail.blocks[:12]
    if not blocks:
        place.firth.tell(f"Nothing has been removed from {channel.name} by hand.")
        return
    question = Question(
        title=f"Restore which package of {channel.name}?",
        lines=["It comes back at once."],
        verb="Restore",
        choices=[(str(number), block.spec) for number, block in enumerate(blocks)],
    )
    answer = await confirmed(place, question)
    if answer:
        block = blocks[int(answer.choice)]
        await place.firth.link.call("package.restore", channel=channel.name, spec=block.spec, family=block.family)
        place.firth.tell(f"{block.spec} comes back to {channel.name}.")


PACKAGE_COMMANDS: Mapping[str, Callable[[PlaceScreen, Context], Awaitable[None]]] = {
    "package.remove": _package_remove,
    "package.restore": _package_restore,
}
