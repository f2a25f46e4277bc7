"""The line of a channel's or mirror's form where its policy is picked, and the words that say which is in force."""

from firth_protocol.errors import FirthError, MethodNotFound
from firth_protocol.methods import ChannelGet
from firth_protocol.types import Policy
from firth_tui.format import Tone, clean
from firth_tui.screens.forms.fields import Field
from firth_tui.screens.forms.picked import picked, picked_field
from firth_tui.screens.place import Application

LISTED = 1000
"""Policies that are offered; nobody has as many."""
READING = "reading…"
NO_POLICY = "none of its own"
"""What stands for a mirror without one."""


def policy_field(now: str | None, *, nobody: str, help: str) -> Field:
    """Return the line; `nobody` says what it means when none is picked. `offer_policies` fills it."""
    options = [("", nobody), *([(now, now)] if now else [])]
    return picked_field("policy", "Policy", help, options, now or "", reason=READING)


async def offer_policies(app: Application, field: Field, nobody: str) -> None:
    """Let one of all policies be picked; where there is none, say what makes one."""
    control = picked(field)
    found: list[Policy] = []
    try:
        cursor = None
        while True:
            page = await app.link.page(Policy, "policy.list", cursor=cursor, limit=LISTED)
            found += page.items
            cursor = page.next_cursor
            if cursor is None or len(found) >= LISTED:
                break
    except MethodNotFound:
        control.offer([("", nobody)], reason="needs a newer daemon")
        return
    except (FirthError, OSError):
        control.offer([("", nobody)], reason="the list could not be read")
        return
    missing = "" if found or control.value else "there is no policy yet: 7, then n makes one"
    control.offer([("", nobody), *((each.name, each.name) for each in found)], reason=missing)


async def say_in_force(app: Application, field: Field, channel: str) -> None:
    """Say below a mirror's line which policy would be in force and why."""
    own = field.value
    try:
        given = await app.link.ask(ChannelGet, "channel.get", channel=channel) if channel else None
    except (FirthError, OSError):
        given = None
    if field.is_attached and own == field.value:
        text, tone = in_force_words(own, given.policy if given else None, clean(channel))
        field.say(text, tone)


def in_force_words(own: str, of_channel: str | None, channel: str) -> tuple[str, Tone]:
    """Return which policy is in force for a mirror, and why; of one on both, that it will be refused."""
    if own and own == of_channel:
        return f"! {clean(own)} is that of channel {channel} already: pick none of its own", Tone.WARN
    if own and of_channel:
        return f"in force: {clean(own)}, its own; it replaces the channel's {clean(of_channel)}", Tone.MUTED
    if own:
        return f"in force: {clean(own)}, its own", Tone.MUTED
    if of_channel:
        return f"in force: {clean(of_channel)}, that of channel {channel}", Tone.MUTED
    return "", Tone.MUTED
