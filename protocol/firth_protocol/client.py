"""The only place where a Python program talks to the daemon in asyncio: call, batch, follow events, resume."""

import asyncio
import io
import itertools
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
import msgspec
from msgspec import UNSET, inspect

from firth_protocol.address import DOCUMENT_LIMIT, DOCUMENT_METHOD, REQUEST_LIMIT, SILENCE_S, unreachable_text
from firth_protocol.errors import CursorExpired, FirthError, Internal, TooLarge, Unavailable, from_wire
from firth_protocol.events import LOST
from firth_protocol.methods import METHODS
from firth_protocol.types import Event

CONNECT_TIMEOUT_S = 5.0
CALL_TIMEOUT_S = 60.0
LINE_LIMIT = 4 * 1024 * 1024

_FIRST_WAIT_S = 0.1
_LONGEST_WAIT_S = 5.0


class DaemonUnreachable(OSError):
    """The daemon cannot be reached, or went away before it had answered."""


class Client:
    """One program's connection to the daemon's Unix socket; an async context manager.

    Every method raises the tree of `firth_protocol.errors` for an error reply, and DaemonUnreachable when there
    is none. `timeout_s` bounds a call; one that is asked to wait itself (`timeout=`) may take that much longer.
    """

    def __init__(self, socket: Path | str, *, timeout_s: float = CALL_TIMEOUT_S) -> None:
        self.socket = os.fspath(socket)
        self._timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None
        self._ids = itertools.count(1)

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(self.socket, limit=0),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def call(self, method: str, /, **params: Any) -> Any:
        """Call a method of the table; return its Result struct. Structs and UNSET are fine as parameters."""
        request = self._request(method, params)
        most = DOCUMENT_LIMIT if method == DOCUMENT_METHOD else REQUEST_LIMIT
        reply = await self._post(msgspec.json.encode(request), _patience(params), most)
        return _outcome(method, reply)

    async def batch(self, calls: Sequence[tuple[str, Mapping[str, Any]]]) -> list[Any]:
        """Make up to 50 calls in one request, worked in order; return a Result or a FirthError for each.

        Raises the error when the batch as a whole is refused.
        """
        if not calls:
            return []
        requests = [self._request(method, params) for method, params in calls]
        patience = sum(_patience(params) for _, params in calls)
        replies = await self._post(msgspec.json.encode(requests), patience)
        if not isinstance(replies, list):
            return [_outcome("", replies)]  # raises: only a refusal is a single object
        by_id = {reply.get("id"): reply for reply in replies if isinstance(reply, dict)}
        return [_result_or_error(request["method"], by_id.get(request["id"])) for request in requests]

    async def follow(self, topics: Iterable[str] = (), after: str | None = None) -> AsyncGenerator[Event, None]:
        """Yield events over one connection: after a cursor (`as_of` of a list), or from now on.

        Never ends by itself: raises DaemonUnreachable when the stream breaks off, CursorExpired when the cursor is
        too old or this reader was too slow (list again, then follow). Without topics all are followed.
        """
        query = {"topics": ",".join(topics)} if (topics := list(topics)) else {}
        if after is not None:
            query["after"] = after
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=SILENCE_S)
        try:
            async with self._open().get("http://firth/events", params=query, timeout=timeout) as response:
                if response.status != 200:
                    raise _refusal(response.status, await response.read())
                async for line in _lines(response.content):
                    event = msgspec.json.decode(line, type=Event)
                    if event.type == LOST:
                        raise CursorExpired("this reader was too slow", hint="list again and follow from its as_of")
                    yield event
        except DaemonUnreachable:
            raise
        except (aiohttp.ClientError, OSError, msgspec.DecodeError) as error:
            raise self._unreachable(error) from error
        raise DaemonUnreachable(f"the daemon on {self.socket} closed the stream of events; is it being stopped?")

    async def follow_forever(
        self,
        topics: Iterable[str] = (),
        after: str | None = None,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> AsyncGenerator[Event, None]:
        """Yield events as `follow` does, and resume after the last cursor when the daemon was away for a while.

        Without `after`, what happens between a broken and the next connection is missed until the first fact
        has come; so pass the `as_of` of a list. Raises CursorExpired: list again.
        """
        topics = list(topics)
        wait = _FIRST_WAIT_S
        while True:
            try:
                async with aclosing(self.follow(topics, after)) as events:
                    async for event in events:
                        wait = _FIRST_WAIT_S
                        after = event.cursor or after
                        yield event
            except (DaemonUnreachable, Unavailable):
                await sleep(wait)
                wait = min(wait * 2, _LONGEST_WAIT_S)

    def _request(self, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
        given = {name: value for name, value in params.items() if value is not UNSET}
        return {"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": given}

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("use the client as an async context manager: async with Client(socket) as client")
        return self._session

    async def _post(self, body: bytes, patience_s: float, most: int = REQUEST_LIMIT) -> Any:
        if len(body) > most:
            raise TooLarge(f"the request is over {most:,} bytes", hint="send less at once", limit=most)
        timeout = aiohttp.ClientTimeout(total=self._timeout_s + patience_s, sock_connect=CONNECT_TIMEOUT_S)
        try:
            data = body if len(body) <= REQUEST_LIMIT else io.BytesIO(body)  # aiohttp warns of large ones
            async with self._open().post("http://firth/rpc", data=data, timeout=timeout) as response:
                answer = await response.read()
                if response.status != 200:
                    raise _refusal(response.status, answer)
                return msgspec.json.decode(answer)
        except DaemonUnreachable:
            raise
        except (aiohttp.ClientError, OSError, msgspec.DecodeError) as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: Exception) -> DaemonUnreachable:
        return DaemonUnreachable(unreachable_text(self.socket, error))


def _patience(params: Mapping[str, Any]) -> float:
    """Return the seconds that a call asks the daemon itself to wait."""
    timeout = params.get("timeout")
    return float(timeout) if isinstance(timeout, int | float) and timeout > 0 else 0.0


async def _lines(content: aiohttp.StreamReader) -> AsyncGenerator[bytes, None]:
    """Yield the lines of a stream that are not empty; what follows the last line end was cut off and is left out."""
    rest = b""
    async for chunk in content.iter_any():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line.strip():
                yield line
        if len(rest) > LINE_LIMIT:
            raise aiohttp.ClientPayloadError("a line of the stream of events is too long")


def _refusal(status: int, body: bytes) -> Exception:
    """Return the error that an HTTP answer other than 200 stands for."""
    try:
        reply = msgspec.json.decode(body)
        return from_wire(reply["error"])
    except (msgspec.DecodeError, KeyError, TypeError):
        return DaemonUnreachable(f"what answers on the socket is no firthd (HTTP {status})")


def _outcome(method: str, reply: Any) -> Any:
    result = _result_or_error(method, reply)
    if isinstance(result, FirthError):
        raise result
    return result


def _result_or_error(method: str, reply: Any) -> Any:
    if not isinstance(reply, dict) or not ("result" in reply or isinstance(reply.get("error"), dict)):
        return Internal("the daemon's reply is no JSON-RPC", hint="look whether the socket is really firthd's")
    if "error" in reply:
        return from_wire(reply["error"])
    row = METHODS.get(method)
    if row is None:
        return reply["result"]
    try:
        return lenient(reply["result"], row.result)
    except msgspec.ValidationError as error:
        return Internal(
            f"the daemon's reply to {method} is not what this client expects: {error}",
            hint="bring daemon and client to the same version",
        )


def lenient(value: Any, kind: Any) -> Any:
    """Convert JSON to a type of the protocol; fields that it does not know are ignored, however deep.

    Some structs are strict because they are input too (Filters); in replies a newer daemon may add to them.
    Raises msgspec.ValidationError.
    """
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError:
        return msgspec.convert(_known(value, inspect.type_info(kind)), kind)


def _known(value: Any, kind: inspect.Type) -> Any:
    """Return the JSON value without the object members that `kind` does not have."""
    if isinstance(kind, inspect.Metadata):
        return _known(value, kind.type)
    if isinstance(kind, inspect.UnionType):
        fitting = (inspect.StructType, inspect.DictType) if isinstance(value, dict) else inspect.ListType
        chosen = next((member for member in kind.types if isinstance(member, fitting)), None)
        return value if chosen is None else _known(value, chosen)
    if isinstance(kind, inspect.StructType) and isinstance(value, dict):
        fields = {field.encode_name: field.type for field in kind.fields}
        return {name: _known(item, fields[name]) for name, item in value.items() if name in fields}
    if isinstance(kind, inspect.ListType) and isinstance(value, list):
        return [_known(item, kind.item_type) for item in value]
    if isinstance(kind, inspect.DictType) and isinstance(value, dict):
        return {name: _known(item, kind.value_type) for name, item in value.items()}
    return value
