"""The only place that turns an action on a policy, or on what one keeps out, into calls."""

from collections.abc import Awaitable, Callable, Mapping

from firth_protocol.methods import PolicyReply, RunReply, SeqReply
from firth_protocol.types import Channel, Mirror, Package, Policy
from firth_tui.actions import Context, Place, Target, subject
from firth_tui.dependency_report import ReportFile
from firth_tui.dialogue import confirmed
from firth_tui.format import counted
from firth_tui.policy_rules import where_used
from firth_tui.screens.place import PlaceScreen
from firth_tui.widgets.dialogs import Question


async def _policy_create(place: PlaceScreen, context: Context) -> None:
    from firth_tui.screens.forms.policy import PolicyForm

    reply = await place.firth.asked(place, PolicyForm())
    if isinstance(reply, PolicyReply):
        name = reply.policy.name
        place.firth.tell(f"Created the policy {name}. The form of a channel or a mirror picks it.")
        place.seek(name)


async def _advisory_import(place: PlaceScreen, context: Context) -> None:
    from firth_tui.screens.forms.advisories import AdvisoryForm

    reply = await place.firth.asked(place, AdvisoryForm())
    if isinstance(reply, RunReply):
        place.firth.tell("Reads the advisories; the list shows them as soon as they are there.")
        place.reload()


async def _policy_edit(place: PlaceScreen, context: Context) -> None:
    from firth_tui.screens.forms.policy import PolicyForm

    reply = await place.firth.asked(place, PolicyForm(subject(context, "policy", Policy)))
    if isinstance(reply, PolicyReply):
        runs = f" It acts at once: {counted(len(reply.runs), 'run')} judge anew." if reply.runs else ""
        place.firth.tell(f"Saved the policy {reply.policy.name}.{runs}")
        for warning in reply.warnings:
            place.firth.tell(warning, warning=True)
        place.reload()


async def _policy_delete(place: PlaceScreen, context: Context) -> None:
    policy = subject(context, "policy", Policy)
    question = Question(
        title=f"Delete the policy {policy.name}?",
        lines=[f"It is in force {where_used(policy)}; nothing changes for clients. This cannot be undone."],
        verb="Delete",
    )
    if await confirmed(place, question):
        await place.firth.link.ask(SeqReply, "policy.delete", policy=policy.name)
        place.firth.tell(f"Deleted the policy {policy.name}.")
        if place.where() is Place.POLICY:
            await place.firth.close(place)
        else:
            place.reload()


async def _mirror_policy(place: PlaceScreen, context: Context) -> None:
    in_force = subject(context, "mirror", Mirror).in_force
    if in_force is not None:
        place.firth.open(Target(place=Place.POLICY, name=in_force.name))


async def _channel_policy(place: PlaceScreen, context: Context) -> None:
    policy = subject(context, "channel", Channel).policy
    if policy is not None:
        place.firth.open(Target(place=Place.POLICY, name=policy))


async def _mirror_excluded(place: PlaceScreen, context: Context) -> None:
    place.firth.open(Target(place=Place.EXCLUDED, number=subject(context, "mirror", Mirror).id))


async def _mirror_report(place: PlaceScreen, context: Context) -> None:
    from firth_tui.screens.forms.report import ReportForm

    written = await place.firth.asked(place, ReportForm(subject(context, "mirror", Mirror)))
    if isinstance(written, ReportFile):
        place.firth.tell(f"Wrote {counted(written.rows, 'row')} to {written.path}")


async def _package_explain(place: PlaceScreen, context: Context) -> None:
    channel = subject(context, "channel", Channel)
    package = subject(context, "package", Package)
    place.firth.open(Target(place=Place.EXPLAIN, channel=channel.name, package=package))


async def _package_find_hidden(place: PlaceScreen, context: Context) -> None:
    channel = subject(context, "channel", Channel)
    typed = place.pane.wanted.query if place.pane is not None else ""
    place.firth.open(Target(place=Place.EXPLAIN, channel=channel.name, name=typed))


POLICY_COMMANDS: Mapping[str, Callable[[PlaceScreen, Context], Awaitable[None]]] = {
    "advisory.import": _advisory_import,
    "policy.create": _policy_create,
    "policy.edit": _policy_edit,
    "policy.delete": _policy_delete,
    "mirror.policy": _mirror_policy,
    "channel.policy": _channel_policy,
    "mirror.excluded": _mirror_excluded,
    "mirror.report": _mirror_report,
    "package.explain": _package_explain,
    "package.find_hidden": _package_find_hidden,
}
