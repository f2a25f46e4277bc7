"""The form that makes a token."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from firth_protocol.errors import Invalid
from firth_protocol.methods import TokenCreated
from firth_tui.format import Tone
from firth_tui.screens.forms.fields import Field, choice_field, text_field, words
from firth_tui.screens.forms.form import Form

DAYS = (("", "never"), ("30", "30 days"), ("90", "90 days"), ("365", "a year"))


class TokenForm(Form):
    """Dismisses with a TokenCreated, or None when cancelled."""

    def __init__(self, channel: str = "") -> None:
        super().__init__(f"New token for {channel}" if channel else "New token")
        self._channel = channel

    def fields(self) -> list[Field]:
        return [
            text_field("name", "Name", "What it is for: a person, a machine.", placeholder="such as ci-runner"),
            text_field(
                "channels",
                "Private ones",
                "Private channels that it opens, with commas between; team/* is all below team.",
                self._channel,
            ),
            choice_field("expires", "Expires", "After that it opens nothing any more.", DAYS, ""),
        ]

    def buttons(self) -> Sequence[tuple[str, str]]:
        return [("save", "Make")]

    def changed_field(self, name: str) -> None:
        if name == "name" and len(self.field(name).value) > 100:
            self.field(name).say("at most 100 letters", Tone.BAD)

    async def press(self, button: str) -> None:
        values = self.values()
        if not values["name"]:
            raise Invalid("a name is needed", path="name")
        given: dict[str, Any] = {"channels": channels} if (channels := words(values["channels"])) else {}
        if values["expires"]:
            end = datetime.fromtimestamp(self.firth.now(), UTC) + timedelta(days=int(values["expires"]))
            given["expires_at"] = end.strftime("%Y-%m-%dT%H:%M:%S.000Z")
        self.dismiss(await self.firth.link.ask(TokenCreated, "token.create", name=values["name"], **given))
