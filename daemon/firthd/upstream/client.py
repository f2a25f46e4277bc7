"""The only place through which the house asks its sources: fetch into a spool, open a stream, look at a head."""

import logging
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

from msgspec import Struct

from firth_protocol import errors
from firthd import __version__
from firthd.clock import Clock
from firthd.config import UpstreamSettings
from firthd.threads import in_thread
from firthd.upstream.body import MIN_BYTES_S, PACE_S, Body
from firthd.upstream.failures import Asked, Failure, Limit
from firthd.upstream.files import HOST, SMALL_BYTES, OpenFile, open_below
from firthd.upstream.hosts import Lane
from firthd.upstream.http import MAX_PAUSE_S, Asking, Http, Reply
from firthd.upstream.known import Told
from firthd.upstream.masking import mask
from firthd.upstream.proxies import NO_PROXIES, Proxies
from firthd.upstream.rate import Meter
from firthd.upstream.shape import Shaper, parse_hours
from firthd.upstream.source import Source, Validators, holds_secret, is_absolute, is_file
from firthd.upstream.spool import Room, Spool

__all__ = ["Body", "Fetched", "Head", "Peek", "Source", "Upstream", "Validators", "mask"]

ATTEMPTS = 5
_PROGRESS_BYTES = 1024 * 1024  # an attempt that brought this much starts the count of attempts anew
_BACKOFF_S = 1.0
_BACKOFF_MAX_S = 30.0
_STREAM_PATIENCE_S = 10.0  # somebody waits for a stream: a longer pause is told, not waited out
_ABSENT = frozenset({404, 410})
_BUSY = frozenset({407, 408, 421, 425, 429})  # what says nothing of the file: try again, or look at the proxy
_NO_HEAD = frozenset({400, 403, 405, 406, 501})  # what servers answer that do not do HEAD, or sign GET only

LOOK_BYTES = 64
"""How much of a file is looked at to see whether it is what was asked for."""

Look = Callable[[bytes, str], bool]
"""(first bytes, content type) -> whether this is what was asked for"""

_log = logging.getLogger("firthd.upstream")


class Fetched(Struct, frozen=True, kw_only=True):
    """What a fetch brought. `bytes` is 0 unless fetched; `url` is masked."""

    status: Literal["fetched", "not_modified", "absent"]
    bytes: int = 0
    validators: Validators = Validators()
    url: str
    content_type: str = ""
    answered: int = 200  # HTTP's status, for folders 200 or 404
    landed: str | None = (
        None  # the address that answered in the end, where the source sent us on to one without secrets
    )


class Head(Struct, frozen=True, kw_only=True):
    """What stands at an address, without its bytes. `status` is HTTP's, for folders 200 or 404."""

    status: int
    length: int | None = None
    content_type: str = ""
    validators: Validators = Validators()
    url: str

    @property
    def found(self) -> bool:
        return self.status == 200


class Peek(Struct, frozen=True, kw_only=True):
    """The first bytes of whatever stands at an address, whatever its status."""

    status: int
    content_type: str = ""
    body: bytes = b""
    length: int | None = None  # of all of it, when told
    url: str


class _Wanted(Struct, frozen=True, kw_only=True):
    """What a fetch is about, through all of its attempts."""

    path: str
    validators: Validators
    limit: Limit
    until: float | None  # monotonic seconds at which it must be done
    progress: Callable[[int, int | None], None] | None
    accept: str | None
    look: Look | None
    lane: Lane
    attempts: int
    small: bool


class Upstream:
    """All sources; one for the daemon, so that a host's budget is shared by everybody who asks it."""

    def __init__(
        self,
        settings: UpstreamSettings,
        clock: Clock,
        *,
        jitter: Callable[[], float] = random.random,
        proxies: Proxies = NO_PROXIES,
    ) -> None:
        self._clock = clock
        self._jitter = jitter
        self._meter = Meter(clock)
        self._index_deadline_s = settings.index_deadline_s
        shaper = Shaper(clock, settings.max_rate, parse_hours(settings.max_rate_hours))
        self._http = Http(settings, clock, self._meter, shaper, proxies, user_agent=f"firth/{__version__}")

    async def start(self) -> None:
        await self._http.start()

    async def close(self) -> None:
        await self._http.close()

    def rate_bytes_s(self) -> float:
        """Return bytes a second received from all sources over the last five seconds."""
        return self._meter.bytes_s()

    def hosts(self) -> list[Told]:
        """Return what became of asking each host since the start."""
        return self._http.known.told()

    def index_deadline(self) -> float:
        """Return the monotonic seconds at which an index that is asked for from now on must be there."""
        return self._clock.monotonic() + self._index_deadline_s

    async def fetch(
        self,
        source: Source,
        path: str,
        spool: Path,
        *,
        validators: Validators | None = None,
        max_bytes: int,
        setting: str = "",
        until: float | None = None,
        progress: Callable[[int, int | None], None] | None = None,
        accept: str | None = None,
        look: Look | None = None,
        room: Room | None = None,
        lane: Lane = Lane.RUN,
        attempts: int = ATTEMPTS,
        small: bool = False,
    ) -> Fetched:
        """Bring a file of the source into `spool`, which afterwards exists if and only if the status is `fetched`.

        A file that `spool` names already is overwritten when there is something to fetch. Broken transfers are
        resumed, passing troubles are tried again, so many `attempts` without progress, until the clock's monotonic
        seconds are `until`. `progress` gets bytes done and in all. 404 and 410 give `absent`.
        Raises errors.Upstream (data: status, host, url, retry_after_s) for everything else, also when more than
        `max_bytes` come, which `setting` says; errors.Invalid for an address that cannot be asked; errors.NoSpace when
        the disk is full. `room` is asked before bytes are written, and raises errors.NoSpace when they may not be.

        `small`: it is one of many small ones, and nobody watches each of them come.
        With `look` the file is one of several that may be there: it is given the first bytes and the content type, and
        where it says no, or the status is one that servers give for what they lack, the answer is `absent` too.
        """
        file = Spool(spool, room)
        keep = False
        try:
            wanted = _Wanted(
                path=path,
                validators=validators or Validators(),
                limit=Limit(max_bytes, setting),
                until=until,
                progress=progress,
                accept=accept,
                look=look,
                lane=lane,
                attempts=attempts,
                small=small,
            )
            fetched = await self._until_done(source, file, wanted)
            keep = fetched.status == "fetched"
        finally:
            if keep and file.written < SMALL_BYTES:
                file.close(keep=True)
            else:
                await in_thread(file.close, keep=keep)  # taking a file of gigabytes away takes its time
        return fetched

    async def whole(
        self, source: Source, path_or_url: str, *, lane: Lane = Lane.RUN
    ) -> bytes | memoryview | Asking | None:
        """Return a small file that came in one piece; else what `open` is to be given, which goes on with it.

        None: there is nothing to go on with. Raises as `open` does.
        """
        if is_file(source) and not _is_http(path_or_url):
            return None
        asking = self._http.ask(source, path_or_url, lane=lane, small=True)
        try:
            data = await asking.whole()
        except Failure as failure:
            raise failure.error from None
        return asking if data is None else data

    @asynccontextmanager
    async def open(
        self,
        source: Source,
        path_or_url: str,
        *,
        timeout_s: float | None = None,
        offset: int = 0,
        if_range: str | None = None,
        answer_s: float | None = None,
        lane: Lane = Lane.RUN,
        begun: Asking | None = None,
    ) -> AsyncIterator[Body]:
        """Open one file of the source, or of an address that its index names; one attempt, the caller retries.

        `timeout_s` limits how long nothing may come (default: the configured time), `answer_s` how long the beginning
        of an answer may take, once there is a connection to ask on. With `offset` the rest of the file is asked for,
        if it is still the one of the validator `if_range`; look at `Body.offset` for what came. `begun`:
        what `whole` has asked for and not brought. Raises errors.NotFound
        for 404 and 410, otherwise as `fetch` does, Passing where asking again may help, Unreachable where no file of
        the host can be had; iterating raises errors.Upstream, Slow below the least rate.
        """
        try:
            if is_file(source) and not _is_http(path_or_url):
                opened = await self._opened(source, path_or_url)
                try:
                    if 0 < offset <= opened.size and (if_range is None or if_range == opened.validators.etag):
                        await opened.seek(offset)
                        yield self._file_body(opened, offset)
                    else:
                        yield self._file_body(opened)
                finally:
                    opened.close_now()
                return
            headers = {"Range": f"bytes={offset}-"} if offset else {}
            if offset and if_range:
                headers["If-Range"] = if_range
            asking = begun or self._http.ask(
                source,
                path_or_url,
                headers=headers,
                patience_s=_STREAM_PATIENCE_S if lane is Lane.CLIENT else MAX_PAUSE_S,
                idle_s=timeout_s,
                answer_s=answer_s,
                lane=lane,
            )
            async with asking as reply:
                yield await _stream(reply, offset, path_or_url)
        except Failure as failure:
            raise failure.error from None

    async def head(self, source: Source, path: str) -> Head:
        """Ask what stands at a path, once; a server that refuses HEAD is asked for the first byte instead.

        Raises errors.Upstream when nobody answers; a status such as 401 is returned.
        """
        try:
            if is_file(source):
                file = await open_below(source, path)
                if file is None:
                    return Head(status=404, url=mask(f"{source.url}/{path}"))
                file.close_now()
                return Head(status=200, length=file.size, validators=file.validators, url=file.asked.url)
            async with self._http.ask(source, path, method="HEAD", patience_s=_STREAM_PATIENCE_S) as reply:
                if reply.status not in _NO_HEAD:
                    return _head(reply, reply.status, reply.length)
            async with self._http.ask(
                source, path, headers={"Range": "bytes=0-0"}, patience_s=_STREAM_PATIENCE_S
            ) as reply:
                if reply.status == 206:
                    return _head(reply, 200, reply.part[2] if reply.part else None)
                if reply.status == 416:
                    return _head(reply, 200, 0)  # no first byte: the file is there and empty
                return _head(reply, reply.status, reply.length)
        except Failure as failure:
            raise failure.error from None

    async def peek(self, source: Source, path: str, *, max_bytes: int = 65_536, accept: str | None = None) -> Peek:
        """Read the first `max_bytes` of what stands at a path, whatever the status; errors.Upstream if silent."""
        try:
            if is_file(source):
                file = await open_below(source, path)
                if file is None:
                    return Peek(status=404, url=mask(f"{source.url}/{path}"))
                try:
                    start = await _first(self._file_body(file), max_bytes)
                    return Peek(status=200, body=start, length=file.size, url=file.asked.url)
                finally:
                    file.close_now()
            headers = {"Accept": accept} if accept else {}
            async with self._http.ask(source, path, headers=headers, patience_s=_STREAM_PATIENCE_S) as reply:
                body = await reply.body(path=path)
                start = await _first(body, max_bytes)
                return Peek(
                    status=reply.status,
                    content_type=reply.content_type,
                    body=start,
                    length=body.length,
                    url=reply.url,
                )
        except Failure as failure:
            raise failure.error from None

    async def _until_done(self, source: Source, file: Spool, wanted: _Wanted) -> Fetched:
        failed = 0
        while True:
            had = file.written
            try:
                if is_file(source) and not _is_http(wanted.path):
                    return await self._copy(source, file, wanted)
                return await self._attempt(source, file, wanted)
            except Failure as failure:
                failed = 1 if file.written - had >= _PROGRESS_BYTES else failed + 1
                pause_s = self._pause_s(failure, failed, wanted.attempts)
                late = wanted.until is not None and self._clock.monotonic() + (pause_s or 0) >= wanted.until
                if pause_s is None or late:
                    raise _final(failure, failed) from None
                _log.info("%s; trying again in %.1f s", failure.error.message, pause_s)
            await self._clock.sleep(pause_s)

    def _pause_s(self, failure: Failure, failed: int, attempts: int) -> float | None:
        """Return how long to wait before the next attempt, None when there is to be none."""
        asked_s = failure.retry_after_s or 0.0
        if not failure.again or failed >= attempts or asked_s > MAX_PAUSE_S:
            return None
        # Half to one and a half of the nominal time: mirrors of one host must not come back in step.
        return max(asked_s, min(_BACKOFF_MAX_S, _BACKOFF_S * 2.0 ** (failed - 1)) * (0.5 + self._jitter()))

    async def _attempt(self, source: Source, file: Spool, wanted: _Wanted) -> Fetched:
        resume = file.resume()
        headers = resume or _conditions(wanted.validators)
        if wanted.accept:
            headers = {**headers, "Accept": wanted.accept}
        async with self._http.ask(source, wanted.path, headers=headers, lane=wanted.lane, small=wanted.small) as reply:
            if reply.status in _ABSENT or (wanted.look is not None and _lacking(reply.status)):
                return Fetched(status="absent", url=reply.url, answered=reply.status)
            if reply.status == 304 and not resume and wanted.validators != Validators():
                validators = _newest(reply.validators, wanted.validators)
                return Fetched(status="not_modified", validators=validators, url=reply.url)
            if reply.status == 206 and resume and reply.part and reply.part[0] == file.written:
                body = await reply.body(file.written, path=wanted.path)
            elif resume and reply.status in {206, 416}:
                file.forget()  # what is there is not the beginning of what the server has now
                raise reply.asked.cut(file.written, None)
            elif reply.status == 200:
                body = await reply.body(path=wanted.path)
                _check_size(reply.asked, body.length, wanted.limit)
                file.restart(reply.validators, reply.date)
                if not body.as_sent:
                    file.forget()
            else:
                raise reply.refused()
            if not await self._pump(body, file, reply.asked, wanted, reply.content_type):
                return Fetched(status="absent", url=reply.url, content_type=reply.content_type)
            return Fetched(
                status="fetched",
                bytes=file.written,
                validators=reply.validators,
                url=reply.url,
                content_type=reply.content_type,
                landed=reply.landed if reply.landed and not holds_secret(source, reply.landed) else None,
            )

    async def _copy(self, source: Source, file: Spool, wanted: _Wanted) -> Fetched:
        opened = await open_below(source, wanted.path, small=True)
        if opened is None:
            return Fetched(status="absent", url=mask(f"{source.url}/{wanted.path}"), answered=404)
        try:
            url = opened.asked.url
            if wanted.validators.etag == opened.validators.etag:
                return Fetched(status="not_modified", validators=opened.validators, url=url)
            _check_size(opened.asked, opened.size, wanted.limit)
            file.restart(opened.validators, None)
            if not await self._pump(self._file_body(opened), file, opened.asked, wanted, ""):
                return Fetched(status="absent", url=url)
            return Fetched(status="fetched", bytes=file.written, validators=opened.validators, url=url)
        finally:
            opened.close_now()

    async def _pump(self, body: Body, file: Spool, asked: Asked, wanted: _Wanted, content_type: str) -> bool:
        """Write a body; return whether it is what was wanted, by its first bytes."""
        total = None if body.length is None else body.length + body.offset
        _check_size(asked, total, wanted.limit)
        await file.make_room(body.length or 0)
        start = bytearray()
        looking = wanted.look if body.offset == 0 else None  # what goes on was looked at when it began
        try:
            async for chunk in body:
                _check_size(asked, file.written + len(chunk), wanted.limit)
                await file.make_room(len(chunk))
                file.write(chunk)
                if looking is not None:
                    start += chunk[: LOOK_BYTES - len(start)]
                    if len(start) >= LOOK_BYTES:
                        if not looking(bytes(start), content_type):
                            return False
                        looking = None
                if wanted.progress is not None:
                    wanted.progress(file.written, total)
                if wanted.until is not None and self._clock.monotonic() >= wanted.until and file.written != total:
                    raise asked.too_late(file.written)
        except errors.Upstream as error:
            raise Failure(error, again=True) from None
        return looking is None or looking(bytes(start), content_type)

    async def _opened(self, source: Source, path: str) -> OpenFile:
        opened = await open_below(source, path)
        if opened is None:
            raise _not_found(HOST, mask(f"{source.url}/{path}" if not is_absolute(path) else path), 404)
        return opened

    def _file_body(self, opened: OpenFile, offset: int = 0) -> Body:
        return Body(
            pull=opened.pull,
            cut=lambda received: opened.asked.cut(received, opened.size - offset),
            slow=lambda received: opened.asked.slow(
                received, opened.size - offset, bytes_s=MIN_BYTES_S, window_s=PACE_S
            ),
            clock=self._clock,
            meter=self._meter,
            url=opened.asked.url,
            status=206 if offset else 200,
            length=opened.size - offset,
            offset=offset,
            validators=opened.validators,
            proof=opened.validators.etag,
        )


async def _first(body: Body, max_bytes: int) -> bytes:
    read = bytearray()
    async for chunk in body:
        read += chunk
        if len(read) >= max_bytes:
            break
    return bytes(read[:max_bytes])


async def _stream(reply: Reply, offset: int, path: str) -> Body:
    if reply.status in _ABSENT:
        raise _not_found(reply.asked.host, reply.url, reply.status)
    if reply.status == 206 and offset and reply.part and reply.part[0] == offset:
        return await reply.body(offset, path=path)
    if reply.status == 200:
        return await reply.body(path=path)
    raise reply.refused()


def _head(reply: Reply, status: int, length: int | None) -> Head:
    return Head(
        status=status, length=length, content_type=reply.content_type, validators=reply.validators, url=reply.url
    )


def _lacking(status: int) -> bool:
    """Tell whether servers answer so for a file that they do not have: buckets 403, some hosts 400, 405 or 501."""
    return (400 <= status < 500 and status not in {401, *_BUSY}) or status == 501


def _check_size(asked: Asked, size: int | None, limit: Limit) -> None:
    if size is not None and size > limit.max_bytes:
        raise asked.too_large(size, limit)


def _conditions(validators: Validators) -> dict[str, str]:
    headers = {"If-None-Match": validators.etag, "If-Modified-Since": validators.last_modified}
    return {name: value for name, value in headers.items() if value is not None}


def _newest(told: Validators, known: Validators) -> Validators:
    """Return the validators to ask with next: a 304 repeats only some of them."""
    return Validators(etag=told.etag or known.etag, last_modified=told.last_modified or known.last_modified)


def _final(failure: Failure, attempts: int) -> errors.Upstream:
    error = failure.error
    message = error.message if attempts == 1 else f"{error.message}; tried {attempts} times"
    return error.again(message)


def _not_found(host: str, url: str, status: int) -> errors.NotFound:
    return errors.NotFound(
        f"{host} does not have {url}", hint="look at the source's index", status=status, host=host, url=url
    )


def _is_http(path_or_url: str) -> bool:
    return is_absolute(path_or_url) and path_or_url[:5].lower() != "file:"
