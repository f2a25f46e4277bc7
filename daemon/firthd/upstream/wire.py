"""The only place that reads an answer past aiohttp: an ordinary one, small and in one piece, or large as it comes.

Of thousands of small files, most of what each costs is what a client for anything needs around its bytes; of a large
one, what is copied between the connection and whoever reads. Connections are aiohttp's own (pool, names, TLS), and
whatever is not the plainest of answers goes to its parser, as if it had been from the beginning.
"""

import asyncio
import os
import re
import socket
from collections import deque
from collections.abc import Sequence
from functools import partial
from ssl import SSLContext
from typing import Protocol

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.http import HttpProcessingError
from yarl import URL

from firthd.clock import Clock
from firthd.upstream.direct import LEAST_BYTES, Came, Direct, Take
from firthd.upstream.source import ROOT

HEADER_BYTES = 65_536
"""Of one line: security policies and signed addresses are longer than the usual 8 KiB."""
HEADERS_MOST = 1024
SMALL_BYTES = 262_144
"""Of a body that is read in one piece."""
UNREAD_BYTES = 524_288
"""Of a body that is held before no more is taken from its connection."""
PIECE_S = 1.0
"""Seconds after which what has come of a body is handed on, and between two looks at the clock."""

_HEAD_BYTES = 16_384
"""Of a head that is taken for ordinary."""
_END = b"\r\n\r\n"
_HEAD = re.compile(rb"HTTP/1\.1 200(?: [\x20-\x7e]*)?(?:\r\n[A-Za-z0-9!#$%&'*+.^_`|~-]+:[\t\x20-\x7e]*)*")
_LENGTH = re.compile(r"[0-9]{1,15}")
_UNUSUAL = frozenset({"transfer-encoding", "content-encoding", "connection", "upgrade", "trailer", "content-range"})
_DOORS_MOST = 256
_TARGET = re.compile(r"/[\x21-\x22\x24-\x7e]*")
_VALUE = re.compile(r"[\x20-\x7e]*")


class Content(Protocol):
    """The bytes of an answer, in aiohttp's words."""

    @property
    def total_bytes(self) -> int: ...
    async def readany(self) -> bytes: ...
    async def read(self, n: int = -1, /) -> bytes: ...


class Headers(Protocol):
    """Those of an answer; of a name that comes more than once `get` returns the first value."""

    def __contains__(self, name: object, /) -> bool: ...
    def get(self, name: str, /) -> str | None: ...
    def getall(self, name: str, default: Sequence[str], /) -> Sequence[str]: ...


class PlainHeaders:
    """Headers of which names are asked for in any spelling."""

    def __init__(self) -> None:
        self._values: dict[str, str] = {}

    def add(self, name: str, value: str) -> None:
        """Add one; `name` is in lower case."""
        self._values.setdefault(name, value)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._values

    def get(self, name: str) -> str | None:
        return self._values.get(name.lower())

    def getall(self, name: str, default: Sequence[str]) -> Sequence[str]:
        found = self.get(name)
        return default if found is None else [found]


def ordinary(head: bytes) -> tuple[PlainHeaders, int] | None:
    """Return the headers and the length of the body; None for the head of an answer that is less than plain.

    `head`: all before the empty line. Plain is: 200, one length, no coding, nothing that needs to be understood.
    """
    if _HEAD.fullmatch(head) is None:
        return None
    headers = PlainHeaders()
    length = None
    for line in head.decode("ascii").split("\r\n")[1:]:
        name, _, value = line.partition(":")
        value = value.strip(" \t")
        small = name.lower()
        if small == "content-length":
            if length is not None or not _LENGTH.fullmatch(value):
                return None
            length = int(value)
        elif small in _UNUSUAL and not (small == "connection" and value.lower() == "keep-alive"):
            return None
        headers.add(small, value)
    return (headers, length) if length is not None else None


class Wire(ResponseHandler):
    """A connection of aiohttp's that may be read past its parser, answer by answer."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._clock = loop
        self._reading: Plain | None = None
        self._quiet = False  # nothing is asked for: nothing may come
        self._looking: asyncio.TimerHandle | None = None

    def expect(self, answer: "Plain") -> None:
        self._reading, self._quiet = answer, False
        if self._looking is None:
            self._looking = self._clock.call_later(answer.tick_s, self._tick)

    def done(self, *, quiet: bool) -> None:
        """The answer has been read, or is aiohttp's from here on."""
        self._reading, self._quiet = None, quiet

    def data_received(self, data: bytes) -> None:
        if self._reading is not None:
            self._reading.take(data)
        elif not self._quiet:
            super().data_received(data)
        else:
            self.force_close()
            if self.transport is not None:
                self.transport.close()

    def set_response_params(self, **params: object) -> None:
        self._quiet = False
        super().set_response_params(**params)  # type: ignore[arg-type]  # aiohttp's own, whatever they are

    def connection_lost(self, exc: BaseException | None) -> None:
        reading, self._reading = self._reading, None
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None
        super().connection_lost(exc)
        if reading is not None:
            reading.lost(exc)

    def _tick(self) -> None:
        self._looking = None
        if self._reading is not None:
            self._looking = self._clock.call_later(self._reading.tick_s, self._tick)
            self._reading.look()


class Plain:
    """One answer that is asked for over a wire; what comes of its body is handed on at once where it is `watched`.

    Else a small one comes in one piece, or in what came within a second each. It has what is used of an
    aiohttp.ClientResponse.
    """

    def __init__(
        self,
        connection: Connection,
        wire: Wire,
        *,
        idle_s: float,
        until: float,
        watched: bool,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.status = 200
        self.reason: str | None = "OK"
        self.headers: Headers = PlainHeaders()
        self.total_bytes = 0
        self._payload: Content | None = None  # the parser's, where the answer is its
        self.tick_s = min(PIECE_S, idle_s)
        self._connection = connection
        self._wire = wire
        self._loop = loop
        self._idle_s = idle_s
        self._until = until  # the loop's seconds at which the head must be there
        self._watched = watched
        self._unread = 0
        self._paused = False
        self._heard = loop.time()
        self._length: int | None = None  # None until the head is there
        self._chunks: deque[bytes | memoryview] = deque()
        self._ready: asyncio.Future[None] | None = None
        self._error: BaseException | None = None
        self._whole = self._usual = False

    # --- who asks

    async def head(self) -> None:
        """Wait for the head, and a moment for the body behind it. Raises aiohttp.ClientError and TimeoutError."""
        await self._wait()
        if self._error is not None and self._length is None:
            raise self._error
        if not self._usual:
            return  # what the body lacks is told to whoever reads it
        async with asyncio.timeout_at(self._until):
            while True:
                message, payload = await self._wire.read()
                if not 100 <= message.code <= 199 or message.code == 101:
                    break
        self.status, self.reason, self.headers, self._payload = message.code, message.reason, message.headers, payload

    @property
    def content(self) -> Content:
        return self._payload or self

    def everything(self) -> bytes | memoryview | None:
        """Return all of the body when it has come; None: it has not, or the answer is not an ordinary one."""
        if not self._whole:
            return None
        chunks, self._chunks = self._chunks, deque()
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def readany(self) -> bytes:
        """Return some of what has come, as it came; nothing behind the end. Raises aiohttp.ClientError."""
        if not self._chunks and not self._whole:
            await self._wait()
        if self._chunks:
            chunk = self._chunks.popleft()
            self._unread -= len(chunk)
            if self._paused and self._unread <= UNREAD_BYTES // 2:
                self._hold(paused=False)
            return bytes(chunk)  # which is the same one where it is bytes already
        if self._error is not None:
            raise self._error
        return b""

    async def read(self, n: int = -1, /) -> bytes:
        """Return what has come: nobody who counts bytes asks for an answer in one piece."""
        return await self.readany()

    async def pump(self, take: Take, came: Came, clock: Clock) -> bool:
        """Give `take` what is left of a large body, in a thread, as long as it comes fast; return whether that was all.

        `came` hears in the loop how much it is. What is left then is to be read. Raises aiohttp.ClientError, and what
        `take` raises.
        """
        transport = self._wire.transport
        left = 0 if self._length is None or self._usual else self._length - self.total_bytes
        if left < LEAST_BYTES or transport is None or transport.is_closing() or self._error is not None:
            return False
        plain = transport.get_extra_info("sslcontext") is None
        connection = transport.get_extra_info("socket") if plain else None
        if connection is None:
            return False
        self._hold(paused=True)
        direct = Direct(socket.socket(fileno=os.dup(connection.fileno())), left, clock, self._loop)
        before, self._chunks, self._unread = self._chunks, deque(), 0
        try:
            await direct.pump(before, take, came)
        except EOFError:
            raise aiohttp.ClientPayloadError("Response payload is not completed") from None
        finally:
            self.total_bytes += left - direct.left
            direct.close()
        if direct.left:
            self._hold(paused=False)
        else:
            self._ended()
        return not direct.left

    @property
    def content_type(self) -> str:
        return (self.headers.get("Content-Type") or "").partition(";")[0].strip().lower()

    def release(self) -> None:
        """Give the connection back; it is closed when the answer was not read to its end."""
        if self._whole or self._payload is not None:
            self._connection.release()
        else:
            self._wire.done(quiet=True)
            self._connection.close()

    async def _wait(self) -> None:
        if self._error is None and not self._whole and not self._usual:
            self._ready = self._loop.create_future()
            await self._ready

    # --- the wire

    def take(self, came: bytes) -> None:
        """Take what has come."""
        self._heard = self._loop.time()
        data = self._behind_head(came) if self._length is None else came
        if self._length is None:
            return
        if (beyond := self.total_bytes + len(data) - self._length) > 0:  # nobody asked for it: no answer comes any more
            data = data[:-beyond]
            self._wire.force_close()
        if data:
            self._chunks.append(data)
            self.total_bytes += len(data)
            self._unread += len(data)
        if self.total_bytes == self._length:
            self._ended()
            self._wake()
        elif self._watched:
            if self._unread > UNREAD_BYTES:
                self._hold(paused=True)
            self._wake()

    def _ended(self) -> None:
        self._whole = True
        self._wire.done(quiet=True)
        self._hold(paused=False)

    def _hold(self, *, paused: bool) -> None:
        """Take nothing more from the connection while much is unread."""
        transport = self._wire.transport
        if paused != self._paused and transport is not None and not transport.is_closing():
            self._paused = paused
            self._heard = self._loop.time()
            if paused:
                transport.pause_reading()
            else:
                transport.resume_reading()

    def _behind_head(self, data: bytes) -> bytes | memoryview:
        """Read the head, where this is all of it and an ordinary one; else the parser takes what comes.

        Return what stands behind it.
        """
        end = data.find(_END, 0, _HEAD_BYTES)
        found = ordinary(data[:end]) if end >= 0 else None
        if found is None:
            self._to_the_parser(data)
            return b""
        self.headers, self._length = found
        self._watched = self._watched or self._length > SMALL_BYTES
        return memoryview(data)[end + len(_END) :]  # to copy it is what costs most of a small file

    def _to_the_parser(self, data: bytes) -> None:
        self._usual = True
        self._wire.done(quiet=False)
        self._wire.set_response_params(
            read_until_eof=True,
            auto_decompress=False,
            read_timeout=self._idle_s,
            read_bufsize=SMALL_BYTES,
            max_line_size=HEADER_BYTES,
            max_field_size=HEADER_BYTES,
            max_headers=HEADERS_MOST,
        )
        self._wire.data_received(data)
        self._wake()

    def look(self) -> None:
        """Hand on what has come; fail when nothing has for too long."""
        now = self._loop.time()
        if self._paused:
            return  # it is not the source that everything waits for
        if now - self._heard >= self._idle_s:
            self._fail(aiohttp.SocketTimeoutError("Timeout on reading data from socket"))
        elif self._length is None and now >= self._until:
            self._fail(TimeoutError())
        elif self._chunks:
            self._wake()

    def lost(self, error: BaseException | None) -> None:
        """The connection is gone."""
        if self._length is None:
            text = error if isinstance(error, OSError) else None
            self._fail(aiohttp.ClientOSError(*text.args) if text is not None else aiohttp.ServerDisconnectedError())
        else:
            self._fail(aiohttp.ClientPayloadError("Response payload is not completed"))

    def _fail(self, error: BaseException) -> None:
        self._error = error
        self._wake()

    def _wake(self) -> None:
        if self._ready is not None and not self._ready.done():
            self._ready.set_result(None)


class Door:
    """What all requests to one host have in common: what aiohttp connects with, and the fixed part of a request."""

    def __init__(self, request: aiohttp.ClientRequest, fixed: str) -> None:
        self.request = request
        self.fixed = fixed


class Wires:
    """Asks for files over the connections of a session."""

    def __init__(self, user_agent: str) -> None:
        self._user_agent = user_agent
        self._doors: dict[tuple[str, object], Door] = {}

    @staticmethod
    def connector() -> aiohttp.TCPConnector:
        """Return what makes the session's connections."""
        return _Connector(limit=0)  # hosts.py counts: the connector counts each proxy apart

    async def ask(
        self,
        session: aiohttp.ClientSession,
        url: str,
        headers: dict[str, str],
        *,
        ssl: SSLContext | bool,
        limits: aiohttp.ClientTimeout,
        head_s: float,
        watched: bool,
    ) -> Plain | None:
        """Return the answer with its head read; None where it has to be asked for by the session.

        `watched`: what comes of the body is wanted at once, however little it is.

        Raises aiohttp.ClientError, OSError and TimeoutError. A request that a connection which was kept does not take
        any more is made once again.
        """
        root = ROOT.match(url)
        target = url[root.end() :] if root is not None else ""
        if root is None or not _TARGET.fullmatch(target) or not all(map(_VALUE.fullmatch, headers.values())):
            return None
        loop = asyncio.get_running_loop()
        door = self._door(session, root[0], ssl, loop)
        more = "".join([f"{name}: {value}\r\n" for name, value in headers.items()]) if headers else ""
        if "Accept" not in headers:
            more += "Accept: */*\r\n"
        request = f"GET {target} HTTP/1.1\r\n{door.fixed}{more}\r\n".encode("ascii")
        until = loop.time() + head_s
        idle_s = limits.sock_read or head_s
        again = True
        while True:
            connection = await _connected(session, door.request, limits)
            wire = connection.protocol
            if not isinstance(wire, Wire) or wire.transport is None:
                connection.release()
                return None
            answer = Plain(connection, wire, idle_s=idle_s, until=until, watched=watched, loop=loop)
            try:
                wire.expect(answer)
                wire.transport.write(request)
                await answer.head()
                return answer
            except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError):
                answer.release()
                if not again:
                    raise
                again = False
            except HttpProcessingError as error:
                answer.release()
                raise aiohttp.ClientResponseError(
                    door.request.request_info, (), status=error.code, message=error.message
                ) from None
            except BaseException:
                answer.release()
                raise

    def _door(self, session: aiohttp.ClientSession, root: str, ssl: object, loop: asyncio.AbstractEventLoop) -> Door:
        door = self._doors.get((root, ssl))
        if door is None:
            if len(self._doors) >= _DOORS_MOST:
                self._doors.clear()
            request = aiohttp.ClientRequest("GET", URL(f"{root}/"), loop=loop, session=session, ssl=ssl)  # type: ignore[arg-type]
            host = request.headers["Host"]
            fixed = f"Host: {host}\r\nAccept-Encoding: identity\r\nUser-Agent: {self._user_agent}\r\n"
            door = self._doors[(root, ssl)] = Door(request, fixed)
        return door


async def _connected(
    session: aiohttp.ClientSession, request: aiohttp.ClientRequest, limits: aiohttp.ClientTimeout
) -> Connection:
    if session.connector is None:
        raise aiohttp.ClientConnectionError("the session is closed")
    try:
        return await session.connector.connect(request, traces=[], timeout=limits)
    except TimeoutError as error:
        raise aiohttp.ConnectionTimeoutError(f"Connection timeout to host {request.host}") from error


class _Connector(aiohttp.TCPConnector):
    """Makes wires; where another version of aiohttp makes connections of its own, nothing is read past its parser."""

    def __init__(self, *, limit: int) -> None:
        super().__init__(limit=limit)
        self._factory = partial(_wire, asyncio.get_running_loop())


def _wire(loop: asyncio.AbstractEventLoop) -> ResponseHandler:
    return Wire(loop)
