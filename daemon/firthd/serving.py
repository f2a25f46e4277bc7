"""The only place that puts an HTTP application on its listening sockets: who gets a place, for how long, and how many.

The event loop's own servers close themselves at the first accept that finds no descriptor left; this one goes on.
"""

import asyncio
import errno
import logging
import resource
import socket
import sys
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from contextlib import suppress
from typing import Any, Protocol, cast

from aiohttp import web
from msgspec import Struct

from firthd.clock import Clock
from firthd.doors import GOODBYE_S

log = logging.getLogger(__name__)

WANTED_FILES = 65_536
"""Descriptors that the daemon asks for; the service's unit says the same."""
OWN_FILES = 192
"""Descriptors kept for the state, for sources, workers and files being written."""
FILES_A_CLIENT = 3
"""Descriptors that a web client may take: its socket, the file it is sent, and the socket's double for sendfile."""
LEAST_PLACES = 32

KEEPALIVE_S = 75.0
"""Seconds that an idle connection is kept, and that a further request's head may take."""
HEADER_S = 30.0
"""Seconds that a client has for sending a request, from the first byte or the connection on."""
STALL_S = 120.0
"""Seconds without a byte taken after which a client counts as gone."""
SWEEP_S = 5.0
LOG_S = 60.0
PAUSE_S = 0.1
"""How long nobody is accepted when there is no descriptor for it."""
GOODBYES = 64
FIRST_S = 0.25
"""How long those who have just come are waited for when the server stops: what they ask is under way."""
ACCEPTED_AT_ONCE = 64
PRESSED = 0.9
"""The share of places taken from which on those are asked back that are not used."""
PRESSED_S = 0.2
PRESSED_HEADER_S = 5.0
SAID_CHARS = 200

_PASSING = frozenset({errno.ECONNABORTED, errno.EPROTO, errno.EINTR, errno.ECONNRESET, errno.EPERM, errno.EAGAIN})


def raise_file_limit(wanted: int = WANTED_FILES) -> int:
    """Let this process have as many descriptors as it wants and may have; return how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft == resource.RLIM_INFINITY or soft >= most:
        return wanted if soft == resource.RLIM_INFINITY else soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most


class Limits(Struct, frozen=True, kw_only=True):
    """What clients are given: places in all, places of one peer, places kept for peers that may take them all."""

    places: int
    places_each: int
    reserve: int = 0
    header_s: float = HEADER_S
    stall_s: float = STALL_S
    sweep_s: float = SWEEP_S


def web_limits(files: int) -> Limits:
    """Return what web clients are given when the process may have `files` descriptors.

    One address has half of the places at the most; trusted proxies may take them all.
    """
    places = max(LEAST_PLACES, (files - OWN_FILES - rpc_limits(files).places) // FILES_A_CLIENT)
    return Limits(places=places, places_each=places // 2)


def rpc_limits(files: int) -> Limits:
    """Return what callers on the Unix socket are given; some places are kept for root and the daemon's user."""
    places = max(LEAST_PLACES, min(1024, files // 8))
    return Limits(places=places, places_each=places // 4, reserve=places // 4)


class _Client:
    """What was seen of a connection at the last look."""

    __slots__ = ("peer", "requests", "since", "stalled_since", "unsent")

    def __init__(self, peer: Hashable | None, now: float) -> None:
        self.peer = peer
        self.requests = 0
        self.since = now  # the connection, or the moment when the last request was seen
        self.unsent = 0
        self.stalled_since = now

    def look(self, handler: "_Handler", now: float) -> None:
        if handler.asked != self.requests:
            self.requests, self.since = handler.asked, now
        unsent = handler.wire.get_write_buffer_size() if handler.wire is not None else 0
        if unsent != self.unsent:
            self.unsent, self.stalled_since = unsent, now

    def never_asked(self, handler: "_Handler") -> bool:
        """Whether no request has come yet; the next one has the time that idle connections are kept."""
        return not self.requests and handler.waits


class Quick(Protocol):
    """What may know the answer to a request without its being worked out."""

    def get(self, asked: bytes, /) -> Sequence[bytes] | None:
        """Return the pieces of the whole answer to a request that is these bytes, None when it is not known."""


Peer = Callable[[socket.socket], Hashable | None]
"""Tells connections of one peer from those of others; None for one that may take every place."""


class Serving:
    """One application on its listeners; `start` and `stop` open and close it."""

    def __init__(
        self,
        app: web.Application,
        limits: Limits,
        *,
        peer: Peer,
        refusal: bytes,
        unread: Callable[[int], web.Response],
        clock: Clock,
        name: str,
        shutdown_s: float,
        keepalive_s: float = KEEPALIVE_S,
        quick: Quick | None = None,
    ) -> None:
        # A handler ends when its client leaves; what must go on without the client is no part of a handler.
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=shutdown_s)
        self._keepalive_s = keepalive_s
        self._quick = quick
        self._limits = limits
        self._peer = peer
        self._refusal = refusal  # a whole response, which closes the connection
        self._unread = unread  # the answer, by status, to what is no request
        self._clock = clock
        self._name = name
        self._log = _HttpLog(self._tell)
        self._clients: dict[_Handler, _Client] = {}
        self._taken = 0
        self._each: Counter[Hashable] = Counter()
        self._leaving: set[socket.socket] = set()
        self._told: dict[str, tuple[float, int]] = {}
        self._pressed_at = -SWEEP_S
        self._listeners: list[socket.socket] = []
        self._doors: list[asyncio.Task[None]] = []
        self._awake: list[asyncio.Event] = []
        self._closed = False
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, listeners: Iterable[socket.socket]) -> None:
        """Serve on sockets that listen already."""
        await self._runner.setup()
        for listener in listeners:
            listener.setblocking(False)
            self._listeners.append(listener)
            self._doors.append(asyncio.create_task(self._accept(listener), name=f"{self._name} accepts"))
        self._tasks.append(asyncio.create_task(self._sweep(), name=f"{self._name} sweeps"))

    async def stop(self) -> None:
        """Accept nobody any more, let replies under way end as the runner says, and close."""
        self.accept_nobody()
        if self._doors:
            # Whoever was accepted gets his connection; a door that pauses is not waited for.
            await asyncio.wait(self._doors, timeout=FIRST_S)
        tasks = [*self._doors, *self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for listener in self._listeners:
            listener.close()
        await self._last_requests()
        await self._runner.cleanup()
        for leaving in list(self._leaving):
            self._close(leaving)

    def accept_nobody(self) -> None:
        """Leave those who come from now on waiting: where the service manager listens, for the next daemon."""
        self._closed = True
        for awake in self._awake:
            awake.set()

    async def _last_requests(self) -> None:
        """Wait a moment for the requests of those who came last: closed before it is read, a request is lost."""
        loop = asyncio.get_running_loop()
        for _ in range(50):
            if not any(handler.just_came(loop.time()) for handler in self._clients):
                return
            await asyncio.sleep(FIRST_S / 50)

    # --- who comes in -----------------------------------------------------------------------------------

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        waiting = asyncio.Event()
        self._awake.append(waiting)
        loop.add_reader(listener.fileno(), waiting.set)
        try:
            async with asyncio.TaskGroup() as group:
                while not self._closed:
                    await waiting.wait()
                    waiting.clear()  # it is set again as long as somebody waits
                    try:
                        for _ in range(0 if self._closed else ACCEPTED_AT_ONCE):
                            self._welcome(group, listener.accept()[0])
                    except OSError as error:
                        if error.errno not in _PASSING:
                            self._tell("accept", f"nobody can be accepted: {error.strerror}")
                            loop.remove_reader(listener.fileno())
                            await self._clock.sleep(PAUSE_S)
                            loop.add_reader(listener.fileno(), waiting.set)
        finally:
            loop.remove_reader(listener.fileno())

    def _welcome(self, group: asyncio.TaskGroup, connection: socket.socket) -> None:
        """Give a connection its place, or say that there is none."""
        try:
            connection.setblocking(False)
            peer = self._peer(connection)
        except OSError:
            connection.close()  # it is gone already
            return
        if self._taken >= self._limits.places * PRESSED:
            self._ask_places_back()
        if not self._has_place(peer):
            self._tell("places", f"no place for another client: {self._taken} are connected")
            self._refuse(connection)
            return
        self._taken += 1
        self._each[peer] += 1
        group.create_task(self._connect(connection, peer))

    def _has_place(self, peer: Hashable | None) -> bool:
        limits = self._limits
        if peer is None:
            return self._taken < limits.places
        return self._taken < limits.places - limits.reserve and self._each[peer] < limits.places_each

    async def _connect(self, connection: socket.socket, peer: Hashable | None) -> None:
        server = self._runner.server
        assert server is not None  # it goes after the listeners
        handler = _Handler(
            server,
            self._log,
            self._keepalive_s,
            unread=self._unread,
            on_end=lambda: self._left(handler),
            quick=self._quick,
        )
        self._clients[handler] = _Client(peer, self._clock.monotonic())
        try:
            await asyncio.get_running_loop().connect_accepted_socket(lambda: handler, connection)
        except Exception as error:  # one client's end is not that of those who come after it
            self._tell("connect", f"a client was lost as it came: {error}")
            self._left(handler)
            connection.close()

    def _left(self, handler: "_Handler") -> None:
        client = self._clients.pop(handler, None)
        if client is None:
            return
        self._taken -= 1
        self._each[client.peer] -= 1
        if not self._each[client.peer]:
            del self._each[client.peer]

    def _refuse(self, connection: socket.socket) -> None:
        """Say why, and leave the client a moment for reading it: what closes with bytes unread resets the rest."""
        try:
            with suppress(BlockingIOError):
                connection.recv(65_536)
            connection.send(self._refusal)
            connection.shutdown(socket.SHUT_WR)
        except OSError:
            connection.close()
            return
        if len(self._leaving) >= GOODBYES:
            connection.close()
            return
        self._leaving.add(connection)
        asyncio.get_running_loop().call_later(GOODBYE_S, self._close, connection)

    def _close(self, leaving: socket.socket) -> None:
        self._leaving.discard(leaving)
        leaving.close()

    # --- who must go ------------------------------------------------------------------------------------

    async def _sweep(self) -> None:
        """Cut off clients that never finish a request, or take nothing of an answer."""
        while True:
            await self._clock.sleep(self._limits.sweep_s)
            now = self._clock.monotonic()
            for handler, client in list(self._clients.items()):
                client.look(handler, now)
                unasked = client.never_asked(handler) and now - client.since > self._limits.header_s
                stalled = client.unsent and now - client.stalled_since > self._limits.stall_s
                if unasked or stalled:
                    handler.abort()

    def _ask_places_back(self) -> None:
        """Close the connections that have been idle for longest, and those of clients that are slow to ask."""
        now = self._clock.monotonic()
        if now - self._pressed_at < PRESSED_S:
            return
        self._pressed_at = now
        idle = []
        for handler, client in self._clients.items():
            client.look(handler, now)
            if handler.waits and (client.requests or now - client.since > PRESSED_HEADER_S):
                idle.append((client.since, handler))
        idle.sort(key=lambda pair: pair[0])
        for _, handler in idle[: max(1, self._limits.places // 10)]:
            handler.abort()

    def _tell(self, kind: str, text: str) -> None:
        """Write one line a minute of each kind, with how many came since the last one."""
        now = self._clock.monotonic()
        at, more = self._told.get(kind, (-LOG_S, 0))
        if now - at < LOG_S:
            self._told[kind] = (at, more + 1)
            return
        log.warning("%s: %s%s", self._name, text, f" ({more:,} more before)" if more else "")
        self._told[kind] = (now, 0)


class _HttpLog(logging.Logger):
    """Takes what aiohttp says of requests that are none: one line, no traceback, as anybody can cause it."""

    def __init__(self, tell: Callable[[str, str], None]) -> None:
        super().__init__("firthd.http")
        self._tell = tell

    def exception(self, msg: object, *args: object, exc_info: Any = True, **_: Any) -> None:
        error = exc_info if isinstance(exc_info, BaseException) else sys.exc_info()[1]
        said = " ".join(str(error).split("\n\n")[0].split())[:SAID_CHARS]  # what follows is the client's own text
        self._tell("request", f"a request could not be read: {type(error).__name__}: {said}")


class _Handler(web.RequestHandler):
    """aiohttp's side of one connection, which says when it ends."""

    __slots__ = ("_came", "_on_end", "_quick", "_unread", "_whole", "raw", "wire")

    def __init__(
        self,
        server: web.Server,
        http_log: logging.Logger,
        keepalive_s: float,
        *,
        unread: Callable[[int], web.Response],
        on_end: Callable[[], None],
        quick: Quick | None,
    ) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            logger=http_log,
            access_log=None,  # type: ignore[arg-type]  # it costs more than half of the requests
            keepalive_timeout=keepalive_s,
            auto_decompress=False,  # nobody sends us a compressed body, but for bombs
        )
        self._unread = unread
        self._on_end = on_end
        self._came = asyncio.get_running_loop().time()
        self._quick = quick
        self._whole = quick is not None  # whether each request so far came in one piece: the parser is between two
        self.raw: bytes | None = None
        """The request that is being worked, as it came; None when it is not that simple."""
        self.wire: asyncio.Transport | None = None
        """The connection itself: a handler that was told to close has lost its own while bytes are still unsent."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.wire = cast(asyncio.Transport, transport)  # uvloop's is none by name
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Answer at once what was answered so before; anything else goes aiohttp's way."""
        if self._whole:
            self._whole = data.startswith(b"GET ") and data.find(b"\r\n\r\n") == len(data) - 4
            idle = not self._messages and (self._waiter is not None or not self._request_count)
            if self._whole and idle and self._answered(data):
                return
            self.raw = data if self._whole and idle else None
        super().data_received(data)

    def _answered(self, data: bytes) -> bool:
        """Answer from memory, if the answer is there and goes out at once; the connection stays as it would have."""
        wire, waiter = self.wire, self._waiter
        if wire is None or waiter is None or waiter.done() or self._force_close or self._close:
            return False
        if self._quick is None or wire.is_closing() or wire.get_write_buffer_size():
            return False
        answer = self._quick.get(data)
        if answer is None:
            return False
        self._request_count += 1
        self._keepalive = True
        loop = self._loop
        self._next_keepalive_close_time = loop.time() + self._keepalive_timeout
        if self._keepalive_handle is None:
            self._keepalive_handle = loop.call_at(self._next_keepalive_close_time, self._process_keepalive)
        wire.write(b"".join(answer))
        return True

    def abort(self) -> None:
        """End the connection now, whatever has not been sent."""
        self.force_close()
        if self.wire is not None:
            self.wire.abort()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what could not be read as the application answers; nothing of the error is shown."""
        super().handle_error(request, status, exc, message)  # logs it; raises where an answer has begun
        answer = self._unread(status)
        answer.force_close()
        return answer

    @property
    def waits(self) -> bool:
        """Whether no request is being worked: none has come, or not the whole of its head."""
        return self._waiter is not None

    @property
    def asked(self) -> int:
        return self._request_count

    def just_came(self, now: float) -> bool:
        """Whether the first request may be under way; `now` is the loop's time."""
        return not self.asked and now - self._came < FIRST_S

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self._on_end()


def asked_with(request: web.BaseRequest) -> bytes | None:
    """Return the bytes that a request came as; None when it did not come alone and in one piece."""
    handler = request.protocol
    return handler.raw if isinstance(handler, _Handler) else None
