"""The only place that fetches a file because a client asked for it: once per artifact, verified, then stored."""

import asyncio
import contextlib
import errno
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import Protocol

from msgspec import Struct

from firth_protocol.errors import FirthError, Internal, Invalid, NoSpace, NotFound, TooLarge, Unavailable, Upstream
from firthd.clock import Clock
from firthd.mirrors.live import Live
from firthd.mirrors.receiving import receive
from firthd.store.artifacts import FileRow
from firthd.store.blobs import BlobMismatch, BlobWriter, Kept
from firthd.upstream.source import Source, Validators

log = logging.getLogger(__name__)

BAD_S = 3600.0
"""Seconds for which a file that came wrong is not asked for again, unless a run of its mirror ends before."""
DOWN_S = 15.0
"""Seconds for which a source that could not be reached is not tried again: clients get their 502 at once."""
START_S = 30.0
"""Seconds that a client waits for the source's first answer; the fetch goes on without it."""
ATTEMPTS = 3
"""Transfers tried for one file when it breaks off in the middle."""
MAX_UNKNOWN = 16 * 1024**3
"""Bytes taken at the most of a file whose length nobody tells."""
_MAX_REMEMBERED = 10_000

_Key = tuple[int, object, int | None]
"""Which bytes a fetch brings: channel, sha256 (else the artifact), size."""


class Incoming(Protocol):
    """The body of a source's answer: chunks from `offset` of the file on. Iterating raises errors.Upstream."""

    @property
    def length(self) -> int | None:
        """Bytes that this body delivers; None when the source does not say."""

    @property
    def offset(self) -> int: ...
    @property
    def validators(self) -> Validators: ...
    def __aiter__(self) -> AsyncIterator[bytes]: ...


class Opener(Protocol):
    """What asks a source for a file: one attempt; NotFound when the source does not have it, else Upstream."""

    def open(
        self, source: Source, path_or_url: str, /, *, offset: int = 0, if_range: str | None = None
    ) -> AbstractAsyncContextManager[Incoming]: ...


class Blobs(Protocol):
    """The store of package files."""

    async def open_writer(
        self, *, size: int | None, sha256: str | None, md5: str | None = None, max_bytes: int | None = None
    ) -> BlobWriter: ...
    async def keep(self, writer: BlobWriter, channel_id: int, /) -> Kept: ...


class Helpers(Struct, frozen=True, kw_only=True):
    """What the rest of the house knows about fetching one file.

    `locate`: the source and the path below it (or the whole URL). `space`: raises NoSpace when that many bytes more
    (None: unknown) would go below the floor. `check_archive`: blocks; raises ValueError with a sentence when the file
    at a path is no whole archive of the kind that its name says. `present`: the file when its channel has it, or may
    take it over from another one; None: it must be fetched, whatever lies in the store. `stored`: counts a file that
    has come, and records its digest where the source gives none.
    """

    locate: Callable[[FileRow], Awaitable[tuple[Source, str]]]
    space: Callable[[int | None], Awaitable[None]]
    check_archive: Callable[[Path, str], None]
    present: Callable[[FileRow], Awaitable[Kept | None]]
    stored: Callable[[FileRow, Kept], Awaitable[None]]


class _Bad(Upstream):
    """The source gives this file, but not the bytes that its index promises; asking again does not help."""


class _Remembered(Struct, frozen=True):
    error: Upstream
    until: float  # monotonic seconds
    mirror_id: int


class OnDemand:
    """Passive fetches under way. `async with` it, or call `close`: then nothing is left running."""

    def __init__(
        self,
        upstream: Opener,
        blobs: Blobs,
        clock: Clock,
        helpers: Helpers,
        *,
        fetches: int = 16,
        start_s: float = START_S,
    ) -> None:
        self._upstream = upstream
        self._blobs = blobs
        self._clock = clock
        self._helpers = helpers
        self._slots = asyncio.Semaphore(fetches)
        self._start_s = start_s
        self._flights: dict[_Key, Live] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._bad: dict[int, _Remembered] = {}
        self._down: dict[int, _Remembered] = {}
        self._closed = False

    async def __aenter__(self) -> "OnDemand":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Stop every fetch; clients that follow one get an error. What was not verified is thrown away."""
        self._closed = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def under_way(self) -> int:
        """How many files are being fetched, or wait for their turn."""
        return len(self._flights)

    def forget(self, mirror_id: int) -> None:
        """A run of this mirror has ended: ask its source again, also for files that came wrong before."""
        for remembered in (self._bad, self._down):
            for key in [key for key, entry in remembered.items() if entry.mirror_id == mirror_id]:
                del remembered[key]

    @contextlib.asynccontextmanager
    async def open(self, file: FileRow) -> AsyncIterator[Live]:
        """Give the file's fetch, started by this call or by somebody else's, once the source has answered.

        Raises Upstream (also for a while afterwards, without asking the source again), NoSpace or Unavailable.
        The fetch goes on when the caller leaves.
        """
        live = self._join(file)
        try:
            try:
                await self._answered(live)
            except FirthError:
                if live.file.id == file.id or not live.ended:
                    raise
                other, live = live, self._join(file)  # the same bytes from another source: not this one's failure
                other.leave()
                await self._answered(live)
            yield live
        finally:
            live.leave()

    async def _answered(self, live: Live) -> None:
        try:
            async with asyncio.timeout(self._start_s):
                await live.started()
        except TimeoutError:
            raise Unavailable(
                f"the source has not sent {live.file.filename} yet; the download goes on", hint="ask again in a minute"
            ) from None

    def _join(self, file: FileRow) -> Live:
        """Return the fetch of these bytes that is under way, else a new one. The caller has joined it."""
        if self._closed:
            raise Unavailable("the daemon is stopping", hint="ask again in a minute")
        # Inside a channel only: who names a digest gets no bytes that another channel's source sends.
        key = (file.channel_id, file.sha256 or file.id, file.size)
        live = self._flights.get(key)
        if live is None:
            self._raise_remembered(file)
            live = self._flights[key] = Live(file)
            task = asyncio.create_task(self._fly(key, live), name=f"fetch {file.filename}")
            self._tasks.add(task)
            task.add_done_callback(partial(self._landed, key, live))
        live.join()
        return live

    def _landed(self, key: _Key, live: Live, task: asyncio.Task[None]) -> None:
        """Whatever ended the task, nobody waits for it any more; a task cancelled early has not run a single line."""
        self._tasks.discard(task)
        if not live.ended:
            self._flights.pop(key, None)
            live.fail(Unavailable("the daemon is stopping", hint="ask again in a minute"))

    # --- what failed before

    def _raise_remembered(self, file: FileRow) -> None:
        now = self._clock.monotonic()
        for entry in (self._bad.get(file.id), self._down.get(file.mirror_id)):
            if entry is not None and now < entry.until:
                error = entry.error  # a fresh one: an exception raised again and again grows by its traceback
                raise type(error)(error.message, hint=error.hint, **error.data)

    def _remember(self, file: FileRow, error: Upstream, *, begun: bool) -> None:
        now = self._clock.monotonic()
        if isinstance(error, _Bad):
            if len(self._bad) >= _MAX_REMEMBERED:
                self._bad = {key: entry for key, entry in self._bad.items() if now < entry.until}
                self._bad.pop(next(iter(self._bad), file.id), None)
            self._bad[file.id] = _Remembered(error, now + BAD_S, file.mirror_id)
        elif not begun and ((status := error.data.get("status")) is None or status >= 500):
            self._down[file.mirror_id] = _Remembered(error, now + DOWN_S, file.mirror_id)

    # --- one fetch

    async def _fly(self, key: _Key, live: Live) -> None:
        error: FirthError
        try:
            kept = await self._bring(live)
        except FirthError as caught:
            error = caught
        except Exception:
            log.exception("fetching %r failed", live.file.filename)
            error = Internal(f"{live.file.filename} could not be fetched; the daemon's log says why")
        else:
            del self._flights[key]
            self._down.pop(live.file.mirror_id, None)
            live.finish(kept)
            return
        del self._flights[key]
        if isinstance(error, Upstream):
            log.warning("%s could not be fetched for a client: %s", live.file.filename, error.message)
            self._remember(live.file, error, begun=live.begun)
        live.fail(error)

    async def _bring(self, live: Live) -> Kept:
        file = live.file
        async with self._slots:
            if (there := await self._helpers.present(file)) is not None:
                return there  # of another channel that is as open, or a run brought it while this one waited
            await self._helpers.space(file.size)
            try:
                source, address = await self._helpers.locate(file)
            except Invalid as error:
                raise _Bad(f"{file.filename} cannot be fetched: {error.message}", hint=error.hint) from None
            writer = await self._blobs.open_writer(
                size=file.size, sha256=file.sha256, md5=file.md5, max_bytes=MAX_UNKNOWN
            )
            try:
                await self._download(live, writer, source, address)
                await self._check(file, live, writer)
            except BaseException as error:
                writer.abort()
                if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
                    raise NoSpace("the disk is full", hint="free space or run store.gc") from error
                raise
            kept = await self._keep(file, writer)
        try:
            await self._helpers.stored(file, kept)
        except FirthError as error:  # the file is stored and good, whatever becomes of the counts
            log.warning("%s was stored, but could not be counted: %s", file.filename, error.message)
        return kept

    async def _download(self, live: Live, writer: BlobWriter, source: Source, address: str) -> None:
        """Write the file, going on where it broke off; the digest over all of it guards the seams."""
        tag: str | None = None
        for attempt in range(1, ATTEMPTS + 1):
            try:
                known = writer.written if tag is not None else 0
                async with self._upstream.open(source, address, offset=known, if_range=tag) as body:
                    length = None if body.length is None else body.offset + body.length
                    if length is not None and live.size is not None and length != live.size:
                        raise _bad(live.file, f"it has {length} bytes, {live.size} were promised")
                    if not live.begun:
                        live.begin(writer.path, live.size if live.size is not None else length)
                    tag = body.validators.etag
                    await receive(body, writer, lambda size: live.wrote(writer.written))
                return
            except NotFound:
                raise _Bad(
                    f"the source lists {live.file.filename} but does not have it", hint="run the mirror"
                ) from None
            except Invalid as error:
                raise _Bad(
                    f"{live.file.filename} cannot be fetched: {error.message}", hint="look at the source"
                ) from None
            except TooLarge:
                raise _bad(live.file, f"it has more than the {live.size} bytes promised") from None
            except _Bad:
                raise
            except Upstream as error:
                if not live.begun or attempt == ATTEMPTS:
                    raise
                log.info("%s broke off, trying again: %s", live.file.filename, error.message)
            await self._clock.sleep(attempt)

    async def _check(self, file: FileRow, live: Live, writer: BlobWriter) -> None:
        """Check what the store cannot: a length that only the source told, and an archive without any digest."""
        if live.size is not None and writer.written != live.size:
            raise _bad(file, f"{writer.written} bytes came, {live.size} were promised")
        if file.sha256 is None and file.md5 is None:
            try:
                await asyncio.to_thread(self._helpers.check_archive, writer.path, file.filename)
            except ValueError as error:
                raise _bad(file, str(error)) from None

    async def _keep(self, file: FileRow, writer: BlobWriter) -> Kept:
        """Verify and store; from here on the store owns the written file, whatever happens to this task."""
        try:
            return await self._blobs.keep(writer, file.channel_id)
        except BlobMismatch as error:
            raise _bad(file, error.reason) from None


def _bad(file: FileRow, reason: str) -> _Bad:
    return _Bad(
        f"the source's {file.filename} is not what its index promises: {reason}",
        hint="run the mirror: its source may have replaced the file",
    )
