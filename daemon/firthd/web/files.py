"""The only place that knows how a file goes out: headers, validators, ranges, and which way its bytes take.

GET and HEAD have the same headers; a body always has its exact Content-Length, and never a Content-Encoding: what is
compressed is what the client asked for (RFC 9110; conda decodes a labelled .zst twice).
"""

import asyncio
import contextlib
import hashlib
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from urllib.parse import quote

import msgspec
from aiohttp import web
from msgspec import Struct

from firth_protocol.errors import FirthError
from firthd.mirrors.in_flight import InFlight
from firthd.store.joined import JointAt, shown
from firthd.store.unpacking import Unpacked
from firthd.web.conditions import Content, Span, Verdict, http_date, judge
from firthd.web.hot import HotObject, HotObjects
from firthd.web.problems import Problem
from firthd.web.wire import ShortFile, SmallBody, Wire

log = logging.getLogger(__name__)

INLINE_READ = 64 * 1024
"""Bytes up to which a file is read in the event loop: cheaper than the way to a thread and back."""
UNPACK_CHUNK = 1024 * 1024
JOINED_AT_ONCE = 16
"""Pieces that are read and sent in one go: about a megabyte."""
BROKEN = web.RequestKey("broken", bool)
"""Key of a request whose reply broke off because of the file, not of the client."""


class DamagedFile(OSError):
    """A file does not hold the bytes that its name promises."""


class Place(Struct, frozen=True, kw_only=True):
    """Bytes at rest: a file or, from `offset`, a part of one; `sha256` is that of the part.

    `local` is asked where the file lies only when the bytes are not in memory. `size` in bytes; None: as many as the
    file has.
    """

    local: Callable[[], Awaitable[Path]]
    sha256: str
    size: int | None
    offset: int | None = None


class Accel(Struct, frozen=True, kw_only=True):
    """nginx sends large files itself: `prefix` is its internal location, which holds the folder `root`."""

    prefix: str
    root: Path


class Files:
    """Sends files. Every method returns the response, sent or ready to be sent by aiohttp."""

    def __init__(self, hot: HotObjects, accel: Accel | None = None) -> None:
        self._hot = hot
        self._accel = accel

    async def stored(
        self, request: web.Request, content: Content, place: Place, *, by_proxy: bool = False
    ) -> web.StreamResponse:
        """Send bytes at rest. `content.modified_ms` None: the file's own time is taken.

        `by_proxy`: the peer is the proxy for which `accel` was set. Raises FileNotFoundError when the file is not
        there, DamagedFile when it is not what its name promises.
        """
        found = self._hot.get(place.sha256)
        if found is not None:
            return await self._from_memory(request, _exactly(content, len(found.data), found.modified_ms), found.data)
        path = await place.local()
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            stat = os.fstat(fd)
            offset = place.offset or 0
            size = stat.st_size if place.size is None else place.size
            if stat.st_size < offset + size or (place.offset is None and stat.st_size != size):
                raise DamagedFile(f"{path.name} has {stat.st_size} bytes, {offset + size} are needed")
            written_ms = stat.st_mtime_ns // 1_000_000
            if size <= self._hot.max_object:
                found = HotObject(await _read(fd, offset, size, place.sha256), written_ms)
                self._hot.put(place.sha256, found)
                return await self._from_memory(request, _exactly(content, size, written_ms), found.data)
            content = _exactly(content, size, written_ms)
            answer = judge(request.headers, content, head=request.method == "HEAD")
            bodily = answer is Verdict.WHOLE or isinstance(answer, Span)
            if by_proxy and bodily and self._accel is not None and place.offset is None:
                return self._redirected(content, path, self._accel)
            response, span = _response(request, content, answer)
            if span is not None:
                async with _sending(request, response) as wire:
                    await wire.send_file(fd, offset + span.start, span.count)
            return response
        finally:
            os.close(fd)

    async def made(self, request: web.Request, content: Content, data: bytes) -> web.StreamResponse:
        """Send bytes that are made for the answer; of what has no time of its own none is told."""
        return await self._from_memory(request, content, data)

    async def growing(self, request: web.Request, content: Content, live: InFlight) -> web.StreamResponse:
        """Send a file while it is fetched; the connection breaks when it turns out wrong. `content.size` is known."""
        response, span = _response(request, content, Verdict.WHOLE)
        if span is None:
            return response
        async with _sending(request, response) as wire:
            sent = 0
            while sent < span.count:
                safe = await live.beyond(sent)
                await wire.send_file(live.fd, sent, safe - sent)
                sent = safe
        return response

    async def unpacked(self, request: web.Request, content: Content, packed: Path) -> web.StreamResponse:
        """Send what a compressed file holds; `content.size` is that of the plain bytes. Raises FileNotFoundError."""
        with await asyncio.to_thread(packed.open, "rb") as source:
            answer = judge(request.headers, content, head=request.method == "HEAD")
            response, span = _response(request, content, answer)
            if span is not None:
                async with _sending(request, response) as wire:
                    await _unpack(wire, await asyncio.to_thread(Unpacked, source), span)
            return response

    async def joined(self, request: web.Request, content: Content, pieces: Sequence[JointAt]) -> web.StreamResponse:
        """Send what pieces show, one behind the other; `content.size` is that of all of it."""
        answer = judge(request.headers, content, head=request.method == "HEAD")
        response, span = _response(request, content, answer)
        if span is not None:
            async with _sending(request, response) as wire:
                await _join(wire, pieces, span)
        return response

    async def _from_memory(self, request: web.Request, content: Content, data: bytes) -> web.StreamResponse:
        answer = judge(request.headers, content, head=request.method == "HEAD")
        if answer is Verdict.WHOLE and len(data) <= INLINE_READ and request.method == "GET":
            return SmallBody(body=data, headers=_headers(content))
        response, span = _response(request, content, answer)
        if span is not None:
            async with _sending(request, response) as wire:
                await wire.send(memoryview(data)[span.start : span.start + span.count])
        return response

    def _redirected(self, content: Content, path: Path, accel: Accel) -> web.Response:
        """Leave the body to nginx: it answers ranges and says so, and sets Content-Length and Last-Modified."""
        inside = path.relative_to(accel.root).as_posix()
        headers = _headers(content)
        del headers["Accept-Ranges"]  # nginx adds its own to what it is given
        headers["X-Accel-Redirect"] = f"{accel.prefix.rstrip('/')}/{quote(inside)}"
        return web.Response(headers=headers)


def without_body(request: web.Request, content: Content) -> web.StreamResponse | None:
    """Return the answer that needs no bytes of a file which is not here: to HEAD, and when the client has it already.

    None: the bytes are needed. Raises Problem for a condition that does not hold.
    """
    answer = judge(request.headers, content, head=request.method == "HEAD")
    if answer is Verdict.WHOLE and request.method == "HEAD":
        response = web.StreamResponse(headers=_headers(content))
        if content.size is not None:
            response.content_length = content.size
        return response
    if answer is Verdict.WHOLE or isinstance(answer, Span):
        return None
    return _response(request, content, answer)[0]


async def _read(fd: int, offset: int, size: int, sha256: str) -> bytes:
    """Read bytes for memory; they are verified, for whoever asks for this sha256 later gets them."""
    if size <= INLINE_READ:
        return _read_verified(fd, offset, size, sha256)
    return await asyncio.to_thread(_read_verified, fd, offset, size, sha256)


def _read_verified(fd: int, offset: int, size: int, sha256: str) -> bytes:
    data = os.pread(fd, size, offset)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise DamagedFile(f"the file for sha256 {sha256} holds other bytes")
    return data


async def _join(wire: Wire, pieces: Sequence[JointAt], span: Span) -> None:
    position, end = 0, span.start + span.count
    for start in range(0, len(pieces), JOINED_AT_ONCE):
        some = pieces[start : start + JOINED_AT_ONCE]
        size = sum(one.joint.size for one in some)
        if position < end and position + size > span.start:
            chunk = b"".join(await asyncio.to_thread(list, shown(some)))
            await wire.send(memoryview(chunk)[max(0, span.start - position) : end - position])
        position += size
    if position < end:
        raise ShortFile("the pieces hold less than was published")


async def _unpack(wire: Wire, reader: Unpacked, span: Span) -> None:
    position, end = 0, span.start + span.count
    while position < end:
        chunk = await asyncio.to_thread(reader.read, UNPACK_CHUNK)
        if not chunk:
            raise ShortFile("the compressed file holds less than was published")
        wanted = chunk[max(0, span.start - position) : end - position]
        if wanted:
            await wire.send(wanted)
        position += len(chunk)


@contextlib.asynccontextmanager
async def _sending(request: web.Request, response: web.StreamResponse) -> AsyncIterator[Wire]:
    """Send the headers and give the wire for the body.

    Whatever goes wrong from here on, the status is out: the connection is aborted, so that the client sees fewer
    bytes than were announced. A client that left is nothing to report.
    """
    try:
        writer = await response.prepare(request)
        assert writer is not None
        async with Wire(request, writer) as wire:
            yield wire
    except ConnectionError:
        _abort(request)
    except FirthError:  # a fetch failed; who fetches has said so
        request[BROKEN] = True
        _abort(request)
    except OSError as error:
        log.warning("a reply broke off: %s", error)
        request[BROKEN] = True
        _abort(request)
    except BaseException:
        _abort(request)
        raise


def _abort(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()


def _response(request: web.Request, content: Content, answer: Verdict | Span) -> tuple[web.StreamResponse, Span | None]:
    """Return the response for an answer, and the bytes to be sent in it; None: there are none."""
    if answer is Verdict.UNSATISFIABLE:
        raise Problem(416, "the file has no such bytes", {"Content-Range": f"bytes */{content.size}"})
    if answer is Verdict.PRECONDITION_FAILED:
        raise Problem(412, "the file here is another one than the request is about")
    headers = _headers(content)
    if answer is Verdict.NOT_MODIFIED:
        return web.Response(status=304, headers=headers), None
    assert content.size is not None
    span = answer if isinstance(answer, Span) else Span(0, content.size)
    response = web.StreamResponse(status=206 if isinstance(answer, Span) else 200, headers=headers)
    if isinstance(answer, Span):
        response.headers["Content-Range"] = f"bytes {span.start}-{span.start + span.count - 1}/{content.size}"
    response.content_length = span.count
    return response, span if span.count and request.method == "GET" else None


def _headers(content: Content) -> dict[str, str]:
    headers = {
        "Content-Type": content.media_type,
        "Cache-Control": content.cache_control,
        "Accept-Ranges": "bytes",
        "X-Content-Type-Options": "nosniff",
    }
    if content.encoding is not None:
        headers["Content-Encoding"] = content.encoding
    if content.vary is not None:
        headers["Vary"] = content.vary
    if content.etag is not None:
        headers["ETag"] = content.etag
    if content.modified_ms is not None:
        headers["Last-Modified"] = http_date(content.modified_ms)
    return headers


def _exactly(content: Content, size: int, written_ms: int) -> Content:
    """Return the content with the size of the bytes that are there, and their time when it has none of its own."""
    if content.size == size and content.modified_ms is not None:
        return content
    modified_ms = written_ms if content.modified_ms is None else content.modified_ms
    return msgspec.structs.replace(content, size=size, modified_ms=modified_ms)
