"""The only place that speaks HTTP on the Unix socket: calls, the stream of events, metrics, and a greeting."""

import asyncio
import contextlib
import logging
import os
import secrets
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Hashable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import msgspec
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from msgspec import Struct

from firth_protocol import API
from firth_protocol.address import DOCUMENT_LIMIT, DOCUMENT_METHOD, REQUEST_LIMIT
from firth_protocol.errors import (
    CursorExpired,
    FirthError,
    Forbidden,
    Internal,
    InvalidParams,
    InvalidRequest,
    TooLarge,
    Unavailable,
)
from firth_protocol.events import Topic, parse_cursor
from firth_protocol.types import Event, Role
from firthd import __version__
from firthd.access import Access, Caller, peer_of
from firthd.clock import Clock
from firthd.rpc.dispatch import Dispatcher
from firthd.rpc.listen import listen_at, remove
from firthd.rpc.params import did_you_mean
from firthd.serving import Limits, Serving

log = logging.getLogger(__name__)

BODY_TIMEOUT_S = 30.0
KEEPALIVE_S = 15.0
STUCK_S = 60.0
"""A reader of events that takes nothing for so long is cut off."""
STOP_S = 3.0

_JSON = "application/json"
_HTTP_STATUS = {CursorExpired: 410, Forbidden: 403, TooLarge: 413, Unavailable: 503}


class Events(Protocol):
    """What the server needs of the event hub."""

    @property
    def epoch(self) -> str: ...

    def subscribe(
        self, topics: frozenset[str] | None, after: int | None, visible: Callable[[Event], bool]
    ) -> AbstractAsyncContextManager[AsyncIterator[Event]]: ...


class RpcServer:
    """The daemon's server on the Unix socket.

    `ready` tells whether calls may be worked; `metrics` gives Prometheus' text, with the
    mirrors of the channels that it is told may be named.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        access: Access,
        events: Events,
        metrics: Callable[[Callable[[str], bool]], Awaitable[bytes]],
        ready: Callable[[], bool],
        *,
        clock: Clock,
        limits: Limits,
        keepalive_s: float = KEEPALIVE_S,
        stuck_s: float = STUCK_S,
    ) -> None:
        self._dispatcher = dispatcher
        self._access = access
        self._events = events
        self._metrics = metrics
        self._ready = ready
        self._keepalive_s = keepalive_s
        self._stuck_s = stuck_s
        self._callers: WeakKeyDictionary[asyncio.BaseTransport, Caller] = WeakKeyDictionary()
        self._stopping = asyncio.Event()
        self._clock = clock
        self._limits = limits
        self._serving: Serving | None = None
        self._listener: socket.socket | None = None
        self._path: Path | None = None  # of a socket that we made and take away again

    @property
    def started(self) -> bool:
        return self._serving is not None

    async def start(self, at: Path | socket.socket) -> None:
        """Serve at a path, or on an inherited socket that listens already.

        Raises InUse and Invalid; NoSpace and Unavailable when the disk takes no socket.
        """
        if isinstance(at, socket.socket):
            self._listener = at
        else:
            self._listener, self._path = await asyncio.to_thread(listen_at, at), at
        app = web.Application(client_max_size=REQUEST_LIMIT, middlewares=[_always_json])
        app.router.add_post("/rpc", self._rpc)
        app.router.add_get("/events", self._follow)
        app.router.add_get("/metrics", self._scrape)
        app.router.add_get("/", self._greet)
        # A handler is cancelled when its client leaves; the dispatcher finishes changes all the same.
        self._serving = Serving(
            app,
            self._limits,
            peer=_peer,
            refusal=refusal(Unavailable("too many connections are open", hint="close some")),
            unread=_unread,
            clock=self._clock,
            name="socket",
            shutdown_s=STOP_S,
        )
        await self._serving.start([self._listener])

    def accept_nobody(self) -> None:
        """Leave those who call from now on waiting on an inherited socket: the next daemon answers them."""
        if self._serving is not None:
            self._serving.accept_nobody()

    async def stop(self) -> None:
        """End the streams and the calls that only look; let changes finish for up to three seconds."""
        self._stopping.set()
        self._dispatcher.stop()
        if self._path is not None and self._listener is not None:
            await asyncio.to_thread(remove, self._path, self._listener)
        if self._serving is not None:
            await self._serving.stop()

    # --- what is asked ------------------------------------------------------------------------------

    async def _rpc(self, request: web.Request) -> web.StreamResponse:
        if not self._ready():
            return _refused(_starting())
        encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
        if encoding not in {"", "identity"}:
            return _refused(
                InvalidRequest(
                    f"the body is said to be compressed ({encoding[:40]!r})", hint="send the JSON text itself"
                ),
                200,
            )
        most = REQUEST_LIMIT
        if (request.content_length or 0) > REQUEST_LIMIT and (await self._caller(request)).role.covers(Role.MANAGER):
            most = DOCUMENT_LIMIT
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                body = await request.clone(client_max_size=most).read()
            if len(body) > REQUEST_LIMIT and not await asyncio.to_thread(_brings_document, body):
                raise web.HTTPRequestEntityTooLarge(REQUEST_LIMIT, len(body))
        except (web.RequestPayloadError, HttpProcessingError) as error:
            return _refused(
                InvalidRequest(f"the body could not be read: {type(error).__name__}", hint="nothing was done")
            )
        except web.HTTPRequestEntityTooLarge:
            return _refused(
                TooLarge(
                    f"the request is over {REQUEST_LIMIT:,} bytes",
                    hint=f"send less at once; nothing was done (limit {REQUEST_LIMIT} bytes,"
                    f" {DOCUMENT_LIMIT} for {DOCUMENT_METHOD})",
                    limit=REQUEST_LIMIT,
                )
            )
        except TimeoutError:
            return _refused(
                InvalidRequest(
                    f"the request did not arrive within {BODY_TIMEOUT_S:.0f} s", hint="send it again; nothing was done"
                ),
                408,
            )
        answer = await self._dispatcher.handle(body, await self._caller(request))
        if answer is None:
            return web.Response(status=204)
        return web.Response(body=answer, content_type=_JSON)

    async def _scrape(self, request: web.Request) -> web.StreamResponse:
        caller = await self._caller(request)
        return web.Response(
            body=await self._metrics(caller.sees), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        )

    async def _greet(self, request: web.Request) -> web.StreamResponse:
        greeting = {
            "program": "firthd",
            "version": __version__,
            "api": API,
            "ready": self._ready(),
            "look": {
                "POST /rpc": '{"jsonrpc":"2.0","id":1,"method":"daemon.status","params":{}}',
                "POST /rpc rpc.discover": "every method with its parameters, as an OpenRPC document",
                "GET /events?topics=run,mirror&after=CURSOR": "events, one JSON object a line",
                "GET /metrics": "Prometheus",
            },
        }
        return web.Response(body=msgspec.json.encode(greeting), content_type=_JSON)

    async def _follow(self, request: web.Request) -> web.StreamResponse:
        if not self._ready():
            return _refused(_starting())
        caller = await self._caller(request)
        try:
            if not caller.role.covers(Role.READER):
                raise Forbidden(
                    f"following events needs the role {Role.READER}; {caller.user} has no role",
                    hint="an administrator gives roles to users and groups under [access] in firth.toml",
                )
            topics, after = self._asked_for(request)
            async with self._events.subscribe(topics, after, lambda event: _may_see(caller, event)) as events:
                return await self._stream(request, events)
        except FirthError as error:
            return _refused(error)

    def _asked_for(self, request: web.Request) -> tuple[frozenset[str] | None, int | None]:
        """Return the topics and the number to start after; raise InvalidParams and CursorExpired."""
        for name in request.query:
            if name not in {"topics", "after"}:
                raise InvalidParams(
                    f"/events takes no {name[:100]!r}{did_you_mean(name, ('topics', 'after'))}",
                    hint="ask for /events?topics=run,mirror&after=CURSOR",
                )
        known = [topic.value for topic in Topic]
        given = [topic for topic in request.query.get("topics", "").split(",") if topic]
        for topic in given:
            if topic not in known:
                raise InvalidParams(
                    f"there is no topic {topic[:100]!r}{did_you_mean(topic, known)}",
                    hint=f"the topics are {', '.join(known)}",
                )
        after = request.query.get("after")
        return frozenset(given) or None, None if after is None else parse_cursor(after, self._events.epoch)

    # --- how events are sent ------------------------------------------------------------------------

    async def _stream(self, request: web.Request, events: AsyncIterator[Event]) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson", "Cache-Control": "no-store"})
        await response.prepare(request)
        # The first empty line tells the client that from here on nothing is missed.
        await self._send(request, response, b"\n")
        stopping: asyncio.Future[Any] = asyncio.ensure_future(self._stopping.wait())
        following: asyncio.Future[Any] | None = None
        try:
            while True:
                if following is None:
                    following = asyncio.ensure_future(anext(events))
                done, _ = await asyncio.wait(
                    {following, stopping}, timeout=self._keepalive_s, return_when=asyncio.FIRST_COMPLETED
                )
                if following in done:
                    event = following.result()
                    following = None
                    await self._send(request, response, msgspec.json.encode(event) + b"\n")
                elif stopping in done:
                    break
                else:
                    await self._send(request, response, b"\n")
        except (StopAsyncIteration, ConnectionError, TimeoutError, Unavailable):
            pass  # the hub has ended the stream, the reader is gone, or the state is being closed
        finally:
            await _cancel(stopping, following)
            if isinstance(events, AsyncGenerator):
                await events.aclose()
        with contextlib.suppress(ConnectionError):
            await response.write_eof()
        return response

    async def _send(self, request: web.Request, response: web.StreamResponse, line: bytes) -> None:
        """Write a line; a reader that takes nothing for `stuck_s` is cut off with TimeoutError."""
        try:
            async with asyncio.timeout(self._stuck_s):
                await response.write(line)
        except TimeoutError:
            if request.transport is not None:
                request.transport.abort()
            raise

    async def _caller(self, request: web.Request) -> Caller:
        """Return who is at the other end; asked once a connection, as roles cannot change hands inside one."""
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the client is gone")
        caller = self._callers.get(transport)
        if caller is None:
            peer = peer_of(transport.get_extra_info("socket"))
            caller = await asyncio.to_thread(self._access.caller, peer)
            self._callers[transport] = caller
        return caller


class _Named(Struct):
    method: object = None


def _brings_document(body: bytes) -> bool:
    """Tell whether a request may be as large as an installation's document."""
    try:
        return msgspec.json.decode(body, type=_Named).method == DOCUMENT_METHOD
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return False


@web.middleware
async def _always_json(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Answer what is no call at all, and what went wrong unforeseen, as calls are answered."""
    try:
        return await handler(request)
    except web.HTTPException as answer:
        error = InvalidRequest(
            f"{request.method} {request.path[:100]}: {answer.reason}", hint="GET / says what there is; calls: POST /rpc"
        )
        response = _refused(error, answer.status)
        if "Allow" in answer.headers:
            response.headers["Allow"] = answer.headers["Allow"]
        return response
    except ConnectionError:
        raise  # the client is gone
    except Exception as error:
        correlation = secrets.token_hex(6)
        log.exception("a request on the socket failed unforeseen, correlation %s", correlation)
        return _refused(
            Internal(
                f"an unforeseen error; the daemon's log has it under {correlation}",
                hint=f"look for {correlation} in the daemon's log and report what stands there",
                correlation=correlation,
            ),
            500,
        )


def _unread(status: int) -> web.Response:
    return _refused(InvalidRequest("this could not be read as an HTTP request", hint="nothing was done"), status)


def _peer(connection: socket.socket) -> Hashable | None:
    """One user of the machine; root and the daemon's own may take every place."""
    uid = peer_of(connection).uid
    return None if uid in {0, os.geteuid()} else uid


def refusal(error: FirthError) -> bytes:
    """Return a whole response, for connections that no server works."""
    body = msgspec.json.encode({"jsonrpc": "2.0", "id": None, "error": error.wire()})
    return (
        b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\n"
        b"Connection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    )


def _may_see(caller: Caller, event: Event) -> bool:
    """Tell whether an event is for this caller: those of tokens are for administrators, as token.list is."""
    channel = event.ids.get("channel")
    if isinstance(channel, str):
        return caller.sees(channel)
    if event.topic == Topic.TOKEN:
        return caller.role_on(None).covers(Role.ADMIN)
    return caller.role.covers(Role.READER)


def _starting() -> Unavailable:
    return Unavailable("the daemon is starting or stopping", hint="try again in a moment")


def _refused(error: FirthError, status: int | None = None) -> web.Response:
    """Answer with an HTTP status; the body is a JSON-RPC error without an id."""
    body = msgspec.json.encode({"jsonrpc": "2.0", "id": None, "error": error.wire()})
    headers = {"Retry-After": "1"} if error.retryable else {}
    status = status or _HTTP_STATUS.get(type(error), 400)
    return web.Response(status=status, body=body, content_type=_JSON, headers=headers)


async def _cancel(*futures: asyncio.Future[Any] | None) -> None:
    running = [future for future in futures if future is not None and not future.done()]
    for future in running:
        future.cancel()
    await asyncio.gather(*running, return_exceptions=True)
