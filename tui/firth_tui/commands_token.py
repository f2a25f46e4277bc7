"""The only place that turns an action on tokens into calls; a secret is shown once and kept nowhere."""

from collections.abc import Awaitable, Callable, Mapping

from firth_protocol.methods import TokenCreated, TokenReply
from firth_protocol.types import Privacy, Token
from firth_tui.actions import Context, Place, subject
from firth_tui.dialogue import confirmed
from firth_tui.format import age
from firth_tui.screens.place import PlaceScreen
from firth_tui.widgets.dialogs import Question, Secret


async def _create(place: PlaceScreen, context: Context) -> None:
    from firth_tui.screens.forms.token import TokenForm

    channel = context.channel
    private = channel is not None and channel.privacy is Privacy.PRIVATE
    made = await place.firth.asked(place, TokenForm(channel.name if channel is not None and private else ""))
    if isinstance(made, TokenCreated):
        place.firth.copy_to_clipboard(made.token)
        await place.firth.asked(place, Secret(made.item.name, made.token))
        if place.where() is Place.TOKENS:
            place.seek(made.item.id)


async def _revoke(place: PlaceScreen, context: Context) -> None:
    token = subject(context, "token", Token)
    used = age(token.last_used_at, place.now())
    question = Question(
        title=f"Revoke the token {token.name}?",
        lines=[f"Clients that show it are turned away from then on (last used: {used}). This cannot be undone."],
        verb="Revoke",
    )
    if await confirmed(place, question):
        await place.firth.link.ask(TokenReply, "token.revoke", id=token.id)
        place.reload()
        place.firth.tell(f"Revoked the token {token.name}.")


TOKEN_COMMANDS: Mapping[str, Callable[[PlaceScreen, Context], Awaitable[None]]] = {
    "token.create": _create,
    "token.revoke": _revoke,
}
