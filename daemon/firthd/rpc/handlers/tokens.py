"""The handlers of the group token."""

from firth_protocol.methods import TokenCreate, TokenCreated, TokenList, TokenReply, TokenRevoke
from firth_protocol.types import Page, Token
from firthd.engine import Engine
from firthd.rpc.dispatch import Context, Handler


def handlers(engine: Engine) -> dict[str, Handler]:
    async def create(context: Context, params: TokenCreate) -> TokenCreated:
        return await engine.tokens.create(params, context.caller.user)

    async def list_(context: Context, params: TokenList) -> Page[Token]:
        return await engine.tokens.page(params)

    async def revoke(context: Context, params: TokenRevoke) -> TokenReply:
        return await engine.tokens.revoke(params)

    return {"token.create": create, "token.list": list_, "token.revoke": revoke}
