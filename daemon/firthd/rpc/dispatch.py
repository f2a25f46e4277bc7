"""The only place that turns bytes into method calls and results into bytes; it knows no transport."""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

import msgspec
from msgspec import Raw, Struct

from firth_protocol import API
from firth_protocol.address import BATCH_LIMIT
from firth_protocol.errors import (
    FirthError,
    Internal,
    InvalidParams,
    InvalidRequest,
    MethodNotFound,
    NotFound,
    ParseError,
    TooLarge,
    Unavailable,
)
from firth_protocol.methods import METHODS, Method, Params, ScopeBy
from firth_protocol.types import Json, Role
from firthd import __version__
from firthd.absent import no_channel, no_mirror, no_run
from firthd.access import Access, Caller
from firthd.clock import Clock
from firthd.rpc.params import decode_params, did_you_mean, mask_params
from firthd.store import disk
from firthd.store.audit import INTERRUPTED, OK, Audited

log = logging.getLogger(__name__)
T = TypeVar("T")

_MEMBERS = ("jsonrpc", "id", "method", "params")
_JSON_SPACE = b" \t\r\n"


class Context(Struct, frozen=True):
    """What a handler is told of the call besides its parameters."""

    caller: Caller
    method: Method

    def visible(self, channel: str) -> bool:
        """Tell whether the caller may know of a channel; lists leave the others out."""
        return self.caller.sees(channel)


Handler = Callable[[Context, Any], Awaitable[object]]
"""Takes the context and the method's own Params struct, returns the method's Result."""


class AuditLine(Protocol):
    """The line of one call in the audit log."""

    def beside(self) -> AbstractContextManager[None]:
        """Write the line with the first transaction inside this block that changes anything."""

    async def end(self, outcome: str) -> None:
        """Set how the call has ended."""


OpenAudit = Callable[[Audited], AuditLine]


class ChannelFinder(Protocol):
    """Finds the channel that a mirror or a run belongs to."""

    async def by_mirror(self, ref: int | str) -> str:
        """Return the channel's name; raise NotFound."""

    async def by_run(self, run: int) -> str:
        """Return the channel's name; raise NotFound."""


class _Request(Struct, frozen=True):
    """One call as it came: `id` is JSON to be sent back as it is, or None for a notification."""

    id: Raw | None
    method: str
    params: Raw


class _Refused(Exception):
    """An envelope that is no call, with what is known of its id."""

    def __init__(self, error: FirthError, request_id: Raw | None) -> None:
        super().__init__(error.message)
        self.error = error
        self.request_id = request_id


_NULL = Raw(b"null")
_NO_PARAMS = Raw(b"{}")


class Dispatcher:
    """Checks, authorises, calls, audits and answers. `handlers` must have one for each method of the table."""

    def __init__(
        self,
        handlers: Mapping[str, Handler],
        access: Access,
        finder: ChannelFinder,
        open_audit: OpenAudit,
        clock: Clock,
        methods: Mapping[str, Method] = METHODS,
    ) -> None:
        lacking = sorted(methods.keys() - handlers.keys())
        if lacking:
            raise LookupError(f"no handler for {', '.join(lacking)}")
        self._handlers = handlers
        self._methods = methods
        self._access = access
        self._finder = finder
        self._open_audit = open_audit
        self._clock = clock
        self._looking: set[asyncio.Task[Any]] = set()
        self._stopping = False

    def stop(self) -> None:
        """Answer whoever only looks, or calls from now on, that the daemon is stopping; changes go on to their end."""
        self._stopping = True
        for task in self._looking:
            task.cancel()

    async def handle(self, body: bytes, caller: Caller) -> bytes | None:
        """Answer one request or a batch; None when nothing is to be answered (only notifications).

        Never raises but for cancellation. A change that has begun is finished before a cancellation goes on.
        """
        try:
            body.decode()
            whole = msgspec.json.decode(body, type=Raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return _answer(_NULL, ParseError(f"the request is no JSON: {error}", hint="send one JSON object"))
        if bytes(whole).lstrip(_JSON_SPACE)[:1] != b"[":
            return await self._one(whole, caller)
        items = msgspec.json.decode(whole, type=list[Raw])
        if not items:
            return _answer(_NULL, InvalidRequest("the batch is empty", hint=f"send 1 to {BATCH_LIMIT} requests"))
        if len(items) > BATCH_LIMIT:
            return _answer(
                _NULL,
                TooLarge(
                    f"the batch has {len(items)} requests; {BATCH_LIMIT} is the most",
                    hint="send several batches; nothing of this one was done",
                    limit=BATCH_LIMIT,
                ),
            )
        answers = [answer for item in items if (answer := await self._one(item, caller)) is not None]
        return b"[" + b",".join(answers) + b"]" if answers else None

    async def _one(self, raw: Raw, caller: Caller) -> bytes | None:
        try:
            request = _parse(raw)
        except _Refused as refused:
            return _answer(refused.request_id or _NULL, refused.error)
        try:
            answer = await self._call(request, caller)
        except FirthError as error:
            answer = error
        return None if request.id is None else _answer(request.id, answer)

    async def _call(self, request: _Request, caller: Caller) -> bytes | FirthError:
        """Return the result as JSON, or the error to be sent."""
        method = self._methods.get(request.method)
        if method is None:
            raise _no_such_method(request.method, self._methods)
        try:
            self._access.require_anywhere(caller, method)
        except FirthError as refusal:
            await self._refused(method, request.params, caller, refusal)
            raise
        params = decode_params(method, request.params)
        if self._stopping:
            raise _is_stopping()
        work = self._work(method, params, caller)
        return await (_to_the_end(work) if method.changes else self._look(work))

    async def _look(self, work: Coroutine[Any, Any, T]) -> T:
        """Await a call that changes nothing; it is given up when its caller leaves or the daemon stops."""
        task = asyncio.current_task()
        assert task is not None
        self._looking.add(task)
        try:
            return await work
        except asyncio.CancelledError:
            if not self._stopping:
                raise
            task.uncancel()
            raise _is_stopping() from None
        finally:
            self._looking.discard(task)

    async def _work(self, method: Method, params: Params, caller: Caller) -> bytes | FirthError:
        if not method.changes or getattr(params, "dry_run", False):
            return await self._done(method, params, caller)
        line = self._open_audit(self._audited(method, mask_params(params), caller))
        try:
            with line.beside():
                answer = await self._done(method, params, caller)
        except asyncio.CancelledError:
            await asyncio.shield(self._end(line, method, caller, INTERRUPTED))
            raise
        await self._end(line, method, caller, answer.kind if isinstance(answer, FirthError) else OK)
        return answer

    async def _done(self, method: Method, params: Params, caller: Caller) -> bytes | FirthError:
        try:
            await self._authorise(method, params, caller)
            return msgspec.json.encode(await self._handlers[method.name](Context(caller, method), params))
        except FirthError as error:
            return error
        except Exception as error:
            return _unforeseen(method.name, error)

    async def _authorise(self, method: Method, params: Params, caller: Caller) -> None:
        """Raise NotFound for what the caller may not see, Forbidden unless he may do this on every channel named."""
        named = await self._named(method, params)
        for channel, absent in named:
            if not caller.sees(channel):
                raise absent
            self._access.require(caller, method, channel)
        if method.scope is ScopeBy.NEW_CHANNEL:
            self._access.require(caller, method, getattr(params, "name", None))
        elif not named:
            self._access.require(caller, method, None)

    async def _named(self, method: Method, params: Params) -> list[tuple[str, NotFound]]:
        """Return the channels that the call is about, each with the answer for whoever may not see it."""
        found: list[tuple[str, NotFound]] = []
        channel: str | None = getattr(params, "channel", None)
        if channel is not None:
            found.append((channel, no_channel(channel)))
        mirror: int | str | None = getattr(params, "mirror", None)
        if mirror is not None:
            found.append((await self._channel_of_mirror(mirror), no_mirror(mirror)))
        if method.scope is ScopeBy.RUN:
            run: int = getattr(params, "run", 0)
            found.append((await self._finder.by_run(run), no_run(run)))
        if not found and method.scope in {ScopeBy.CHANNEL, ScopeBy.MIRROR, ScopeBy.RUN}:
            raise InvalidParams(
                f"`$.{method.scope}`: the field is needed here",
                path=f"$.{method.scope}",
                hint=f"`firthctl {method.name} --help` lists the fields",
            )
        return found

    async def _channel_of_mirror(self, ref: int | str) -> str:
        # `channel:name` names its channel itself: nobody learns by a refusal which mirrors there are.
        if isinstance(ref, str) and ":" in ref:
            return ref.partition(":")[0]
        return await self._finder.by_mirror(ref)

    def _audited(self, method: Method, params: Json, caller: Caller) -> Audited:
        return Audited(
            time_ms=self._clock.now_ms(),
            uid=caller.uid,
            pid=caller.pid,
            user=caller.user,
            role=caller.role,
            method=method.name,
            params=params,
        )

    async def _refused(self, method: Method, raw: Raw, caller: Caller, refusal: FirthError) -> None:
        """Write down that somebody asked for a change that his roles do not reach; strangers fill no log."""
        if not method.changes or caller.role is Role.NONE:
            return
        try:
            params = decode_params(method, raw)
        except FirthError:
            return  # it was no call
        if not getattr(params, "dry_run", False):
            line = self._open_audit(self._audited(method, mask_params(params), caller))
            await self._end(line, method, caller, refusal.kind)

    async def _end(self, line: AuditLine, method: Method, caller: Caller, outcome: str) -> None:
        try:
            await line.end(outcome)
        except FirthError as error:  # a full disk, or the end: the log is where such a line is looked for
            log.error(
                "the audit log cannot be written (%s): %s by %s: %s", error.message, method.name, caller.user, outcome
            )
        except Exception:
            # The change is done or refused already; what is left is to say it where somebody looks.
            log.exception("the audit log cannot be written: %s by %s: %s", method.name, caller.user, outcome)


# --- envelopes ------------------------------------------------------------------------------------------


def _parse(raw: Raw) -> _Request:
    """Take a JSON-RPC 2.0 request apart (its section 4); raise _Refused."""
    try:
        members = msgspec.json.decode(raw, type=dict[str, Raw])
    except msgspec.ValidationError:
        raise _Refused(InvalidRequest("a request is a JSON object", hint="see GET / for an example"), None) from None
    request_id = _id(members)
    for name in members:
        if name not in _MEMBERS:
            raise _Refused(
                InvalidRequest(
                    f"a request has no member `{name[:100]}`{did_you_mean(name, _MEMBERS)}",
                    hint="its members are jsonrpc, id, method and params; put parameters into params",
                ),
                request_id,
            )
    if _text(members.get("jsonrpc")) != "2.0":
        raise _Refused(InvalidRequest('the member `jsonrpc` must be "2.0"', hint="this is JSON-RPC 2.0"), request_id)
    method = _text(members.get("method"))
    if method is None:
        raise _Refused(
            InvalidRequest("the member `method` must be a string", hint="rpc.discover lists the methods"), request_id
        )
    return _Request(id=request_id, method=method, params=members.get("params", _NO_PARAMS))


def _id(members: Mapping[str, Raw]) -> Raw | None:
    """Return the id as it came, None without one; raise _Refused when it is neither a string, a number nor null."""
    raw = members.get("id")
    if raw is None:
        return None
    if bytes(raw).lstrip(_JSON_SPACE)[:1] in (b"{", b"[", b"t", b"f"):
        raise _Refused(
            InvalidRequest("the member `id` must be a string, a number or null", hint="leave it out: no answer"), None
        )
    return raw


def _text(raw: Raw | None) -> str | None:
    if raw is None:
        return None
    try:
        return msgspec.json.decode(raw, type=str)
    except msgspec.ValidationError:
        return None


def _answer(request_id: Raw, answer: bytes | FirthError) -> bytes:
    if isinstance(answer, FirthError):
        member, value = b"error", msgspec.json.encode(answer.wire())
    else:
        member, value = b"result", answer
    return b'{"jsonrpc":"2.0","id":' + bytes(request_id).strip(_JSON_SPACE) + b',"' + member + b'":' + value + b"}"


def _no_such_method(name: str, methods: Mapping[str, Method]) -> MethodNotFound:
    name = name[:100]
    return MethodNotFound(
        f"the daemon knows no method {name!r}{did_you_mean(name, methods)} (api {API}, version {__version__})",
        hint="`firthctl --help` lists the methods; so does rpc.discover",
        method=name,
    )


def _is_stopping() -> Unavailable:
    return Unavailable("the daemon is stopping", hint="try again when it is up")


def _unforeseen(method: str, error: Exception) -> FirthError:
    if told := disk.told(error):
        return told
    correlation = secrets.token_hex(6)
    log.error("%s failed unforeseen, correlation %s", method, correlation, exc_info=error)
    return Internal(
        f"an unforeseen error in {method}; the daemon's log has it under {correlation}",
        hint=f"look for {correlation} in the daemon's log (journalctl -u firthd) and report what stands there",
        correlation=correlation,
    )


async def _to_the_end(work: Coroutine[Any, Any, T]) -> T:
    """Await a change; a caller that leaves meanwhile does not leave it half done. A second cancellation ends it."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.wait({task})
        raise
