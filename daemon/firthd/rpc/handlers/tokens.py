"""The handlers of the group token."""

from firth_protocol.errors import Invalid, NotFound
from firth_protocol.events import Fact
from firth_protocol.methods import TokenCreate, TokenCreated, TokenList, TokenReply, TokenRevoke
from firth_protocol.types import Page, Token
from firthd.access import new_token, token_hash
from firthd.channels import browse
from firthd.channels.manage import write
from firthd.clock import from_rfc3339
from firthd.engine import Engine
from firthd.rpc.dispatch import Context, Handler
from firthd.store import paging, tokens
from firthd.store.database import Reader, Tx


def handlers(engine: Engine) -> dict[str, Handler]:
    async def create(context: Context, params: TokenCreate) -> TokenCreated:
        expires_at = _expiry(params.expires_at, engine.clock.now_ms())
        secret = new_token()

        async def body(tx: Tx) -> TokenCreated:
            for name in params.channels or []:
                await browse.channel(tx, name.removesuffix("/*"))
            token_id = await tokens.insert(
                tx,
                name=params.name,
                hash_=token_hash(secret),
                channels=params.channels or [],
                created_by=context.caller.user,
                expires_at=expires_at,
                now_ms=engine.clock.now_ms(),
            )
            seq = await engine.journal.fact(tx, Fact.TOKEN_CREATED, ids={"token": token_id}, data={"name": params.name})
            return TokenCreated(token=secret, item=await _item(tx, token_id), seq=seq)

        reply = await write(engine.db, body, dry_run=params.dry_run)
        await engine.tokens.load()
        return reply

    async def list_(context: Context, params: TokenList) -> Page[Token]:
        await engine.tokens.flush()

        async def body(r: Reader) -> Page[Token]:
            after = paging.decode(params.cursor, "tokens")["page_key"]
            found = await tokens.page(r, query=params.query, after=after, limit=params.limit + 1)
            items, following = paging.cut("tokens", found, params.limit, lambda item: (None, item.id))
            return Page(items=items, next_cursor=following, as_of=await engine.journal.as_of(r))

        return await engine.db.read(body)

    async def revoke(context: Context, params: TokenRevoke) -> TokenReply:
        async def body(tx: Tx) -> TokenReply:
            await _item(tx, params.id)
            await tokens.revoke(tx, params.id, engine.clock.now_ms())
            seq = await engine.journal.fact(tx, Fact.TOKEN_REVOKED, ids={"token": params.id})
            return TokenReply(item=await _item(tx, params.id), seq=seq)

        reply = await write(engine.db, body, dry_run=params.dry_run)
        await engine.tokens.load()
        return reply

    return {"token.create": create, "token.list": list_, "token.revoke": revoke}


def _expiry(text: str | None, now_ms: int) -> int | None:
    if text is None:
        return None
    try:
        moment = from_rfc3339(text)
    except ValueError as error:
        raise Invalid(f"expires_at: {error}", hint="such as 2027-01-31T00:00:00Z", path="$.expires_at") from None
    if moment <= now_ms:
        raise Invalid("expires_at lies in the past", path="$.expires_at")
    return moment


async def _item(r: Reader, token_id: int) -> Token:
    item = await tokens.by_id(r, token_id)
    if item is None:
        raise NotFound(f"there is no token {token_id}", hint="`token.list` shows the tokens")
    return item
