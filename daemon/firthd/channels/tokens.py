"""The only place that creates, lists and revokes web tokens; what a request may do with one is `access`'s."""

import contextlib

from firth_protocol.errors import Invalid, NoSpace, NotFound, Unavailable
from firth_protocol.events import Fact
from firth_protocol.methods import TokenCreate, TokenCreated, TokenList, TokenReply, TokenRevoke
from firth_protocol.types import Page, Token
from firthd.access import WebTokens, new_token, token_hash
from firthd.channels import browse
from firthd.channels.manage import write
from firthd.clock import Clock, from_rfc3339
from firthd.store import paging, tokens
from firthd.store.database import Database, Reader, Tx
from firthd.store.journal import Journal


class Tokens:
    """The tokens as administrators see them; `in_force` is told of each change."""

    def __init__(self, db: Database, journal: Journal, clock: Clock, in_force: WebTokens) -> None:
        self._db = db
        self._journal = journal
        self._clock = clock
        self._in_force = in_force

    async def create(self, params: TokenCreate, by: str) -> TokenCreated:
        """Create a token; its secret is in the reply alone. Raises Invalid, NotFound for a channel."""
        now_ms = self._clock.now_ms()
        expires_at = _expiry(params.expires_at, now_ms)
        secret = new_token()

        async def body(tx: Tx) -> TokenCreated:
            for name in params.channels or []:
                await browse.channel(tx, name.removesuffix("/*"))
            token_id = await tokens.insert(
                tx,
                name=params.name,
                hash_=token_hash(secret),
                channels=params.channels or [],
                created_by=by,
                expires_at=expires_at,
                now_ms=now_ms,
            )
            seq = await self._journal.fact(tx, Fact.TOKEN_CREATED, ids={"token": token_id}, data={"name": params.name})
            return TokenCreated(token=secret, item=await _item(tx, token_id), seq=seq)

        reply = await write(self._db, body, dry_run=params.dry_run)
        await self._in_force.load()
        return reply

    async def page(self, params: TokenList) -> Page[Token]:
        """Return one page of tokens, by when they were created."""
        with contextlib.suppress(NoSpace, Unavailable):  # a full disk keeps nobody from what is written already
            await self._in_force.flush()

        async def body(r: Reader) -> Page[Token]:
            after = paging.decode(params.cursor, "tokens")["page_key"]
            found = await tokens.page(r, query=params.query, after=after, limit=params.limit + 1)
            items, following = paging.cut("tokens", found, params.limit, lambda item: (None, item.id))
            return Page(items=items, next_cursor=following, as_of=await self._journal.as_of(r))

        return await self._db.read(body)

    async def revoke(self, params: TokenRevoke) -> TokenReply:
        """Let a token open nothing from now on; raise NotFound."""

        async def body(tx: Tx) -> TokenReply:
            await _item(tx, params.id)
            await tokens.revoke(tx, params.id, self._clock.now_ms())
            seq = await self._journal.fact(tx, Fact.TOKEN_REVOKED, ids={"token": params.id})
            return TokenReply(item=await _item(tx, params.id), seq=seq)

        reply = await write(self._db, body, dry_run=params.dry_run)
        await self._in_force.load()
        return reply


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
