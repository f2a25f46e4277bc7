"""The only fake source: a real HTTP server on the loopback that keeps to the rules until a test tells it to fail.

It knows no family: what stands at a path comes from `files`, a folder or a route, and what goes wrong there from
faults, scripted by path.
"""

import asyncio
import base64
import email.utils
import fnmatch
import itertools
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

from aiohttp import web

from tests.support.http_rules import ENCODERS, etag_of, span_of, unchanged

CHANGED_MS = 1_774_000_000_000
"""When every file was last changed, unless told otherwise: weeks before the fake clock begins."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What goes wrong with an answer; the fields can be combined.

    `until`: nothing is answered before this event. `drip`: each chunk of the body needs one permit of it. `cut_after`:
    so many bytes of the body are sent, then (after the event `cut_when`) the connection is closed; with `reset` it is
    aborted. `drop`: closed without any answer. `content_length`: what the header claims, whatever is sent. `chunked`:
    no length at all. What the client has not read when a connection is cut may be lost to it: `cut_when` is for that.
    `pace_s`: real seconds before each chunk, for a client whose clock cannot be set. `encoding`: the label of the
    body, which is encoded so unless `label_only` or unknown. `endless`: these bytes again and again, until the client
    leaves.
    """

    status: int | None = None
    reason: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    retry_after: str | int | None = None
    redirect: str | None = None
    until: asyncio.Event | None = None
    drip: asyncio.Semaphore | None = None
    pace_s: float = 0.0
    chunk_bytes: int = 16_384
    cut_after: int | None = None
    cut_when: asyncio.Event | None = None
    reset: bool = False
    drop: bool = False
    content_length: int | None = None
    chunked: bool = False
    no_head: bool = False
    no_ranges: bool = False
    no_validators: bool = False
    weak_etag: bool = False
    encoding: str | None = None
    label_only: bool = False
    endless: bytes | None = None


@dataclass(kw_only=True)
class Seen:
    """A request as it came, and what was answered."""

    method: str
    path: str  # decoded
    raw_path: str
    headers: dict[str, str]  # names in lower case
    query: str = ""  # as sent
    status: int = 0
    sent: int = 0  # bytes of the body


Route = Callable[[Seen], bytes | Fault | None]
"""What stands at a path: its bytes, an answer of its own, or None for nothing."""


@dataclass(kw_only=True)
class _Planned:
    pattern: str
    fault: Fault
    times: int | None
    method: str | None
    turns: Iterator[bool]


class FaultyUpstream:
    """Serves `files` (path → bytes) or a folder; paths have no leading slash.

    `async with FaultyUpstream({"noarch/repodata.json": b"{}"}) as upstream:` then `upstream.url`. The attributes
    `basic`, `bearer` and `token` make it ask for credentials; with `token` everything lies below `/t/<token>/`.
    `missing` is the answer where nothing stands; without it a plain 404.
    """

    def __init__(
        self,
        files: dict[str, bytes] | None = None,
        *,
        folder: Path | None = None,
        tls: ssl.SSLContext | None = None,
        basic: tuple[str, str] | None = None,
        bearer: str | None = None,
        token: str | None = None,
        missing: Fault | None = None,
    ) -> None:
        self.files = dict(files or {})
        self.folder = folder
        self.basic = basic
        self.bearer = bearer
        self.token = token
        self.missing = missing
        self.requests: list[Seen] = []
        self.content_types: dict[str, str] = {}
        self.changed_ms = CHANGED_MS  # when every file was changed last
        self.in_flight = 0
        self.most_in_flight = 0
        self._tls = tls
        self._planned: list[_Planned] = []
        self._routes: list[tuple[str, Route]] = []
        self._arrival = asyncio.Condition()
        self._runner: web.ServerRunner | None = None
        self._port = 0

    async def __aenter__(self) -> "FaultyUpstream":
        self._runner = web.ServerRunner(web.Server(self._handle, access_log=None), shutdown_timeout=0.01)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self._tls)
        await site.start()
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    @property
    def url(self) -> str:
        """The source's address, without a trailing slash and without the token."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self._port}"

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self._port}"

    def route(self, pattern: str, answer: Route) -> None:
        """Let a function say what stands at the paths that match the glob; the newest route that matches is asked."""
        self._routes.insert(0, (pattern, answer))

    def fail(
        self, pattern: str, fault: Fault, *, times: int | None = 1, method: str | None = None, every: int = 1
    ) -> None:
        """Let the next `times` requests (None: all) whose path matches the glob meet this fault; oldest first.

        With `method` only such requests count; with `every` only each so many-th of them meets it.
        """
        turns = (number % every == 0 for number in itertools.count(1))
        self._planned.append(_Planned(pattern=pattern, fault=fault, times=times, method=method, turns=turns))

    def heal(self) -> None:
        """Forget every fault not met yet."""
        self._planned.clear()

    def asked(self, pattern: str = "*", method: str | None = None) -> list[Seen]:
        """Return the requests whose path matches."""
        return [
            seen
            for seen in self.requests
            if fnmatch.fnmatchcase(seen.path, pattern) and (method is None or seen.method == method)
        ]

    async def arrived(self, pattern: str = "*", count: int = 1, seconds: float = 5.0) -> None:
        """Wait until so many requests have come."""
        async with asyncio.timeout(seconds), self._arrival:
            await self._arrival.wait_for(lambda: len(self.asked(pattern)) >= count)

    def etag(self, path: str) -> str:
        """Return the strong ETag of what stands at a path now."""
        return etag_of(self.files[path])

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.path.lstrip("/")
        seen = Seen(
            method=request.method,
            path=path,
            raw_path=request.raw_path,
            headers={name.lower(): value for name, value in request.headers.items()},
            query=request.raw_path.partition("?")[2],
        )
        self.requests.append(seen)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            async with self._arrival:
                self._arrival.notify_all()
            return await self._answer(request, seen, self._next_fault(seen))
        except ConnectionError:  # a client that leaves, or is killed, is no fault of ours
            return _gone(request, reset=True)
        finally:
            self.in_flight -= 1

    def _next_fault(self, seen: Seen) -> Fault:
        for planned in self._planned:
            meant = planned.method in (None, seen.method) and fnmatch.fnmatchcase(seen.path, planned.pattern)
            if meant and next(planned.turns):
                if planned.times is not None:
                    planned.times -= 1
                    if planned.times <= 0:
                        self._planned.remove(planned)
                return planned.fault
        return Fault()

    async def _answer(self, request: web.BaseRequest, seen: Seen, fault: Fault) -> web.StreamResponse:
        if fault.until is not None:
            await fault.until.wait()
        if fault.drop:
            return _gone(request, reset=fault.reset)
        if fault.no_head and request.method == "HEAD":
            return await _plain(request, seen, 405, {}, b"")
        if fault.redirect is not None:
            headers = {"Location": fault.redirect, **fault.headers}
            return await _plain(request, seen, fault.status or 302, headers, b"over there")
        if fault.endless is not None:
            return await _endless(request, seen, fault, fault.endless)
        if fault.status is not None:
            headers = dict(fault.headers)
            if fault.retry_after is not None:
                headers["Retry-After"] = str(fault.retry_after)
            return await _plain(request, seen, fault.status, headers, fault.body or b"", fault.reason)
        if (refusal := self._refusal(request, seen.path)) is not None:
            return await _plain(request, seen, refusal, {"WWW-Authenticate": "Basic"} if refusal == 401 else {}, b"no")
        content = await self._content(seen)
        if isinstance(content, Fault):
            return await self._answer(request, seen, content)
        if content is None:
            if self.missing is not None and fault is not self.missing:
                return await self._answer(request, seen, self.missing)
            return await _plain(request, seen, 404, {}, b"not here")
        return await self._file(request, seen, fault, content)

    def _refusal(self, request: web.BaseRequest, path: str) -> int | None:
        given = request.headers.get("Authorization")
        if self.basic is not None:
            wanted = "Basic " + base64.b64encode(":".join(self.basic).encode()).decode()
            return None if given == wanted else 401
        if self.bearer is not None:
            return None if given == f"Bearer {self.bearer}" else 401
        if self.token is not None and not path.startswith(f"t/{self.token}/"):
            return 403
        return None

    def _without_token(self, path: str) -> str:
        return path.removeprefix(f"t/{self.token}/") if self.token is not None else path

    async def _content(self, seen: Seen) -> bytes | Fault | None:
        path = self._without_token(seen.path)
        for pattern, route in self._routes:
            if fnmatch.fnmatchcase(path, pattern):
                return route(seen)
        if self.folder is None or path in self.files:
            return self.files.get(path)
        file = self.folder / path

        def read() -> bytes | None:
            return file.read_bytes() if file.is_file() else None

        return await asyncio.to_thread(read)

    async def _file(self, request: web.BaseRequest, seen: Seen, fault: Fault, content: bytes) -> web.StreamResponse:
        etag = ("W/" if fault.weak_etag else "") + etag_of(content)
        changed = email.utils.formatdate(self.changed_ms / 1000, usegmt=True)
        headers = {"Accept-Ranges": "bytes"}
        if not fault.no_validators:
            headers |= {"ETag": etag, "Last-Modified": changed}
        kind = self.content_types.get(self._without_token(seen.path))
        if kind is not None:
            headers["Content-Type"] = kind
        if not fault.no_validators and unchanged(request, etag, changed):
            return await _plain(request, seen, 304, headers, b"")
        body, status = content if fault.body is None else fault.body, 200
        if fault.encoding is not None:
            headers |= {"Content-Encoding": fault.encoding, "Vary": "Accept-Encoding"}
            body = body if fault.label_only else ENCODERS.get(fault.encoding, bytes)(body)
        span = None if fault.no_ranges else span_of(request, len(body), etag, changed)
        if span is not None:
            first, last = span
            if first >= len(body):
                return await _plain(request, seen, 416, {"Content-Range": f"bytes */{len(body)}"}, b"")
            headers["Content-Range"] = f"bytes {first}-{last}/{len(body)}"
            body, status = body[first : last + 1], 206
        return await _send(request, seen, fault, status, headers | fault.headers, body)


async def _send(
    request: web.BaseRequest, seen: Seen, fault: Fault, status: int, headers: dict[str, str], body: bytes
) -> web.StreamResponse:
    response = web.StreamResponse(status=status, reason=fault.reason, headers=headers)
    if fault.chunked:
        response.enable_chunked_encoding()
    else:
        response.content_length = len(body) if fault.content_length is None else fault.content_length
    seen.status = status
    await response.prepare(request)
    if request.method == "HEAD":
        return response
    end = len(body) if fault.cut_after is None else fault.cut_after
    for start in range(0, end, fault.chunk_bytes):
        if fault.drip is not None:
            await fault.drip.acquire()
        if fault.pace_s:
            await asyncio.sleep(fault.pace_s)
        chunk = body[start : min(end, start + fault.chunk_bytes)]
        await response.write(chunk)
        seen.sent += len(chunk)
    if fault.cut_after is not None or (fault.content_length or 0) > len(body):
        if fault.cut_when is not None:
            await fault.cut_when.wait()
        _gone(request, reset=fault.reset)
    else:
        await response.write_eof()
    return response


async def _endless(request: web.BaseRequest, seen: Seen, fault: Fault, chunk: bytes) -> web.StreamResponse:
    response = web.StreamResponse(status=fault.status or 200, headers=fault.headers)
    response.enable_chunked_encoding()
    seen.status = response.status
    await response.prepare(request)
    while request.method != "HEAD":
        if fault.pace_s:
            await asyncio.sleep(fault.pace_s)
        try:
            await response.write(chunk)
        except ConnectionError:  # the client has had enough
            break
        seen.sent += len(chunk)
    return response


async def _plain(
    request: web.BaseRequest, seen: Seen, status: int, headers: dict[str, str], body: bytes, reason: str | None = None
) -> web.StreamResponse:
    seen.status, seen.sent = status, len(body) if request.method != "HEAD" else 0
    response = web.Response(status=status, reason=reason, headers=headers, body=body if status != 304 else None)
    await response.prepare(request)
    await response.write_eof()
    return response


def _gone(request: web.BaseRequest, *, reset: bool) -> web.StreamResponse:
    """Take the connection away: after what was written, or (reset) at once."""
    if request.transport is not None:
        if reset:
            request.transport.abort()
        else:
            request.transport.close()
    return web.Response()


def token_url(upstream: FaultyUpstream, path: str = "") -> str:
    """Return the address below the upstream's token."""
    return f"{upstream.url}/t/{quote(upstream.token or '', safe='')}/{path}".rstrip("/")
