"""The only place that gives a package file to a client: from the store, or from its source while it is fetched."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

import msgspec
from aiohttp import web

from firthd.mirrors.in_flight import InFlight
from firthd.store.artifacts import FileRow
from firthd.store.blobs import Kept
from firthd.store.columns import goes_along
from firthd.web.admission import Visitor
from firthd.web.conditions import Content
from firthd.web.context import Fetches, Store
from firthd.web.files import BROKEN, DamagedFile, Files, Place, without_body
from firthd.web.problems import Problem
from firthd.web.quick import AGAIN, Again
from firthd.web.wire import SmallBody

RANGE_WAIT_S = 60.0
"""Seconds that a request for a range waits until the file is there whole."""
WHOLE_WAIT_S = 600.0
"""Seconds that a client waits for a file which nobody knows the length of, so that nothing can be sent before."""


class Packages:
    """Sends the files of artifacts, whatever their family."""

    def __init__(
        self,
        files: Files,
        blobs: Store,
        on_demand: Fetches,
        lost: Callable[[FileRow], Awaitable[None]],
        downloaded: Callable[[FileRow, Visitor], None],
        asked: Callable[[FileRow], None] = lambda _: None,
        free: Callable[[str, FileRow], bool] = lambda *_: False,
        *,
        range_wait_s: float = RANGE_WAIT_S,
    ) -> None:
        self._files = files
        self._blobs = blobs
        self._on_demand = on_demand
        self._lost = lost
        self._asked = asked
        self._free = free
        self._downloaded = downloaded
        self._range_wait_s = range_wait_s

    async def send(
        self,
        request: web.Request,
        visitor: Visitor,
        file: FileRow,
        *,
        channel: str,
        media_type: str,
        cache_control: str,
    ) -> web.StreamResponse:
        """Send one file and count it; its ETag comes from its sha256, for its name may be given to other bytes one day.

        Raises Upstream, NoSpace and Unavailable when it must be fetched and cannot be, Problem 504 when it takes long.
        """
        self._asked(file)
        content = Content(
            size=file.size,
            etag=_etag(file.sha256),
            modified_ms=None,
            media_type=media_type,
            cache_control=cache_control,
        )
        response = await self._sent(request, visitor, file, content)
        counts = is_download(request, response) and not goes_along(file.section)
        if counts:
            self._downloaded(file, visitor)
        if file.delivered and not file.retired:
            response[AGAIN] = Again(
                allowed=partial(self._free, channel, file), told=partial(self._told, file, visitor, counts)
            )
        return response

    def _told(self, file: FileRow, visitor: Visitor, counts: bool) -> None:
        self._asked(file)
        if counts:
            self._downloaded(file, visitor)

    async def _sent(
        self, request: web.Request, visitor: Visitor, file: FileRow, content: Content
    ) -> web.StreamResponse:
        if file.sha256 is not None and file.delivered:
            place = Place(local=partial(self._blobs.local, file.sha256), sha256=file.sha256, size=file.size)
            try:
                return await self._files.stored(request, content, place, by_proxy=visitor.by_proxy)
            except (FileNotFoundError, DamagedFile):
                await self._lost(file)  # out of service now: it is fetched again
        answer = without_body(request, content)
        if answer is not None:
            return answer
        async with self._on_demand.open(file, visitor.client) as live:
            return await self._arriving(request, visitor, content, live)

    async def _arriving(
        self, request: web.Request, visitor: Visitor, content: Content, live: InFlight
    ) -> web.StreamResponse:
        if live.kept is None and live.size is not None and "Range" not in request.headers:
            await live.beyond(0)  # what fails before the first byte can go out still gets a status and a reason
            content = msgspec.structs.replace(content, size=live.size)
            return await self._files.growing(request, content, live)
        wait_s = self._range_wait_s if "Range" in request.headers else WHOLE_WAIT_S
        try:
            async with asyncio.timeout(wait_s):
                kept: Kept = await live.whole()
        except TimeoutError:
            raise Problem(504, f"{live.file.filename} is still being fetched; ask again in a minute") from None
        content = msgspec.structs.replace(content, size=kept.size, etag=_etag(kept.sha256))
        place = Place(local=partial(self._blobs.local, kept.sha256), sha256=kept.sha256, size=kept.size)
        return await self._files.stored(request, content, place, by_proxy=visitor.by_proxy)


def is_download(request: web.Request, response: web.StreamResponse) -> bool:
    """Tell whether an answer is a download: of a file that comes in ranges, the one from its first byte on is.

    So what was broken off and goes on, or comes in several ranges at once, counts once; a look at a file's end or at a
    single byte does not.
    """
    if request.method != "GET":
        return False
    if isinstance(response, SmallBody):  # whole, from memory: the way of most
        return True
    if BROKEN in request:
        return False
    if response.status == 206:
        span = response.headers.get("Content-Range", "")
        return span.startswith("bytes 0-") and not span.startswith("bytes 0-0/")
    # nginx answers the range itself where the file is left to it.
    asked = request.headers.get("Range") if "X-Accel-Redirect" in response.headers else None
    return response.status == 200 and (asked is None or asked.strip().startswith("bytes=0-"))


def _etag(sha256: str | None) -> str | None:
    return None if sha256 is None else f'"{sha256}"'
