"""The form that creates and edits a channel."""

from collections.abc import Sequence
from typing import Any

from firth_protocol import names
from firth_protocol.errors import Conflict, Invalid
from firth_protocol.methods import ChannelGet, ChannelReply
from firth_protocol.types import Channel, KeepGenerations, Privacy
from firth_tui.format import Tone
from firth_tui.screens.forms.fields import Field, choice_field, text_field
from firth_tui.screens.forms.form import Form
from firth_tui.screens.forms.policy_choice import offer_policies, policy_field
from firth_tui.widgets.work import start

PRIVACY = (
    (Privacy.PUBLIC, "anyone"),
    (Privacy.AUTHENTICATED, "any token"),
    (Privacy.PRIVATE, "its own tokens only"),
)
NO_POLICY = "none"


class ChannelForm(Form):
    """Dismisses with a ChannelReply, or None when cancelled."""

    def __init__(self, channel: Channel | None = None, *, prefix: str = "") -> None:
        what = f"Edit the channel {channel.name}" if channel else "New subchannel" if prefix else "New channel"
        super().__init__(what)
        self.channel = channel
        self._prefix = prefix
        self._revision = channel.revision if channel else 0

    def fields(self) -> list[Field]:
        channel = self.channel
        keep = channel.keep_generations if channel else KeepGenerations()
        name = (
            choice_field(
                "name",
                "Name",
                "",
                [(channel.name, channel.name)],
                channel.name,
                reason="fixed: it stands in clients' addresses",
            )
            if channel
            else text_field(
                "name",
                "Name",
                "Small letters, digits, - and _; fixed, for it is in the address. team/dev is a subchannel.",
                self._prefix,
                placeholder="such as main",
            )
        )
        return [
            name,
            text_field("description", "Description", "A sentence for people.", channel.description if channel else ""),
            choice_field(
                "privacy",
                "Open to",
                "Anyone who reaches the port; clients with any token; or those whose token names this channel.",
                PRIVACY,
                channel.privacy if channel else Privacy.PUBLIC,
            ),
            text_field(
                "keep_days",
                "Keep days",
                "For how many days the last content of each day can be gone back to.",
                str(keep.days),
            ),
            text_field(
                "keep_months",
                "Keep months",
                "For how many months the last content of each month can be gone back to.",
                str(keep.months),
            ),
            policy_field(
                channel.policy if channel else None,
                nobody=NO_POLICY,
                help="The rules for what its mirrors may bring in that have no policy of their own.",
            ),
        ]

    def on_mount(self) -> None:
        start(self, offer_policies, self.firth, self.field("policy"), NO_POLICY, group="policies")

    def buttons(self) -> Sequence[tuple[str, str]]:
        return [("save", "Save" if self.channel else "Create")]

    def changed_field(self, name: str) -> None:
        value = self.field(name).value
        if name == "name" and value and not value.endswith("/"):
            try:
                names.check(value)
            except Invalid as error:
                self.field(name).say(error.hint or error.message, Tone.BAD)
        elif name in {"keep_days", "keep_months"} and not value.isdigit():
            self.field(name).say("a whole number is needed", Tone.BAD)

    async def press(self, button: str) -> None:
        values = self.values()
        if not values["name"] or values["name"].endswith("/"):
            raise Invalid("a name is needed", path="name")
        keep = KeepGenerations(days=int(values["keep_days"]), months=int(values["keep_months"]))
        if self.channel is None:
            reply = await self.firth.link.ask(
                ChannelReply,
                "channel.create",
                name=values["name"],
                description=values["description"],
                privacy=values["privacy"],
                keep_generations=keep,
                **({"policy": values["policy"]} if values["policy"] else {}),
            )
        else:
            reply = await self.firth.link.ask(
                ChannelReply,
                "channel.update",
                channel=self.channel.name,
                revision=self._revision,
                **self._differences(values, keep),
            )
        self.dismiss(reply)

    def _differences(self, values: dict[str, str], keep: KeepGenerations) -> dict[str, Any]:
        changed: dict[str, Any] = {
            name: values[name] for name in ("description", "privacy") if values[name] != self._before[name]
        }
        if self.channel is not None and keep != self.channel.keep_generations:
            changed["keep_generations"] = keep
        if self.channel is not None and (values["policy"] or None) != self.channel.policy:
            changed["policy"] = values["policy"] or None
        return changed

    def overtaken(self, error: Conflict) -> None:
        if self.channel is None:
            self.complain(Conflict(error.message, hint=error.hint, path="name"))
            return
        start(self, self._take_over, error, group="form")

    async def _take_over(self, error: Conflict) -> None:
        assert self.channel is not None
        current = await self.firth.link.ask(ChannelGet, "channel.get", channel=self.channel.name)
        self._revision = current.revision
        self.complain(Invalid(f"{error.message}; save again to put your values in place of theirs"))
