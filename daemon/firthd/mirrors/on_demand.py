"""The only place that fetches a file because a client asked for it: once per artifact, verified, then stored."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Protocol

from msgspec import Struct

from firth_protocol.errors import FirthError, Internal, Invalid, NoSpace, NotFound, TooLarge, Unavailable, Upstream
from firthd.clock import Clock
from firthd.mirrors.in_flight import InFlight
from firthd.mirrors.nearby import Nearby
from firthd.mirrors.places import Places
from firthd.mirrors.transfer import MAX_UNKNOWN, Hooks, Incoming, Opener, Patience, transfer
from firthd.store.artifacts import FileRow
from firthd.store.blobs import Kept
from firthd.store.disk import is_full
from firthd.store.incoming import BlobMismatch, BlobWriter
from firthd.store.promises import Promise
from firthd.upstream.failures import Passing, Slow, Unreachable
from firthd.upstream.hosts import Lane
from firthd.upstream.source import Source, budget_of

log = logging.getLogger(__name__)

BAD_S = 3600.0
"""Seconds for which a file that came wrong is not asked for again, unless a run of its mirror ends before."""
FAILED_S = 15.0
"""Seconds for which a file that could not be had is not asked for again: clients get their 502 at once."""
DOWN_S = 15.0
"""Seconds for which nothing is asked of a mirror's source that is down."""
DOWN_AFTER = 5
"""Different files that must fail one after the other before a source counts as down: one may just be broken."""
NEAR_S = 8.0
"""Seconds after which clients get what a near place has sent so far, before it is verified."""
START_S = 30.0
"""Seconds that a client waits for the source's first answer; the fetch goes on without it."""
PATIENCE = Patience(pauses_s=(0.5, 1.5, 3.0), within_s=10.0, answer_s=(3.0, 3.0), slow=False)
"""Before a client hears of a failure the source is asked again, three times within ten seconds.

A source that is silent is asked anew soon, for the connection may be dead; the last time it may think for long."""
FLUSHERS = 2
"""Threads that bring what clients wait for onto the disk while more of it comes."""
_MAX_REMEMBERED = 10_000

_Key = tuple[int, object, int | None]
"""Which bytes a fetch brings: channel, sha256 (else the artifact), size."""


class Blobs(Protocol):
    """The store of package files."""

    async def open_writer(
        self, *, size: int | None, sha256: str | None, md5: str | None = None, max_bytes: int | None = None
    ) -> BlobWriter: ...
    async def keep(self, writer: BlobWriter, channel_id: int, /) -> Kept: ...


async def _no_promise(_: FileRow) -> Promise | None:
    return None


class Helpers(Struct, frozen=True, kw_only=True):
    """What the rest of the house knows about fetching one file.

    `locate`: the source and the path below it (or the whole URL). `space`: raises NoSpace when that many bytes more
    (None: unknown) would go below the floor. `check_archive`: blocks; raises ValueError with a sentence when the file
    at a path is no whole archive of the kind that its name says. `present`: the file when its channel has it, or may
    take it over from another one; None: it must be fetched, whatever lies in the store. `stored`: counts a file that
    has come, and records its digest where the source gives none. `spelled`: remembers whether the file's source takes
    names with `+`, `!` and `~` percent-encoded. `near`: places that are asked before the source, and the path there.
    `elsewhere`: where the source may have moved a file. `promised`: a digest of a file without sha256.
    `holder`: a file that holds this one too, and what takes it out.
    """

    locate: Callable[[FileRow], Awaitable[tuple[Source, str]]]
    space: Callable[[int | None], Awaitable[None]]
    check_archive: Callable[[FileRow, Path], None]
    present: Callable[[FileRow], Awaitable[Kept | None]]
    stored: Callable[[FileRow, Kept], Awaitable[None]]
    spelled: Callable[[FileRow, bool], Awaitable[None]] | None = None
    near: Callable[[FileRow], Awaitable[tuple[Sequence[Source], str | None]]] | None = None
    elsewhere: Callable[[FileRow], str | None] = lambda _: None
    promised: Callable[[FileRow], Awaitable[Promise | None]] = _no_promise
    holder: Callable[[FileRow], Awaitable[tuple[FileRow, Callable[[Kept], bytes]] | None]] | None = None


class _Missing(Upstream):
    """The source lists this file and does not have it."""


class _Bad(Upstream):
    """The source gives this file, but not the bytes that its index promises; asking again does not help."""


class _Down(Upstream):
    """The source counts as down: not asked, so nothing new was learnt."""


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
        per_host: int = 14,
        start_s: float = START_S,
    ) -> None:
        self._upstream = upstream
        self._blobs = blobs
        self._clock = clock
        self._helpers = helpers
        self.places = Places(per_host)
        self.near = Nearby(upstream, blobs, clock)
        self._with_near: set[int] = set()  # mirrors whose files may be had nearer than at their source
        self._start_s = start_s
        self._flights: dict[_Key, InFlight] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._flushers = ThreadPoolExecutor(FLUSHERS, thread_name_prefix="flush beside")
        self._failed: dict[int, _Remembered] = {}  # by file
        self._down: dict[int, _Remembered] = {}  # by mirror
        self._in_a_row: dict[int, set[int]] = {}  # mirror -> its files that failed since one came
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
        await asyncio.to_thread(self._flushers.shutdown)

    @property
    def under_way(self) -> int:
        """How many files are being fetched, or wait for their turn."""
        return len(self._flights)

    def forget(self, mirror_id: int) -> None:
        """A run of this mirror has ended: ask its source again, also for files that came wrong before."""
        for remembered in (self._failed, self._down):
            for key in [key for key, entry in remembered.items() if entry.mirror_id == mirror_id]:
                del remembered[key]
        self._in_a_row.pop(mirror_id, None)

    @contextlib.asynccontextmanager
    async def open(self, file: FileRow, client: str = "") -> AsyncIterator[InFlight]:
        """Give the file's fetch, started by this call or by somebody else's, once the source has answered.

        `client` says who asks: no client has all places. Raises Upstream (also for a while afterwards, without asking
        the source again), NoSpace or Unavailable.
        The fetch goes on when the caller leaves.
        """
        live = self._join(file, client)
        try:
            try:
                await self._answered(live)
            except FirthError:
                if live.file.id == file.id or not live.ended:
                    raise
                other, live = live, self._join(file, client)  # the same bytes from another source: not this failure
                other.leave(client)
                await self._answered(live)
            yield live
        finally:
            live.leave(client)
            self.places.deal()

    async def _answered(self, live: InFlight) -> None:
        try:
            async with asyncio.timeout(self._start_s):
                await live.started()
        except TimeoutError:
            if live.waits_for is not None:
                raise Unavailable(
                    f"{live.file.filename} waits for its turn: {live.waits_for}", hint="ask again in a minute"
                ) from None
            raise Unavailable(
                f"the source has not sent {live.file.filename} yet; the download goes on", hint="ask again in a minute"
            ) from None

    def _join(self, file: FileRow, client: str) -> InFlight:
        """Return the fetch of these bytes that is under way, else a new one. The caller has joined it."""
        if self._closed:
            raise Unavailable("the daemon is stopping", hint="ask again in a minute")
        # Inside a channel only: who names a digest gets no bytes that another channel's source sends.
        key = (file.channel_id, file.sha256 or file.id, file.size)
        live = self._flights.get(key)
        if live is None:
            self._raise_remembered(file)
            live = self._flights[key] = InFlight(file)
            task = asyncio.create_task(self._fly(key, live), name=f"fetch {file.filename}")
            self._tasks.add(task)
            task.add_done_callback(partial(self._landed, key, live))
        live.join(client)
        return live

    def _landed(self, key: _Key, live: InFlight, task: asyncio.Task[None]) -> None:
        """Whatever ended the task, nobody waits for it any more; a task cancelled early has not run a single line."""
        self._tasks.discard(task)
        if not live.ended:
            self._away(key, live)
            live.fail(Unavailable("the daemon is stopping", hint="ask again in a minute"))

    # --- what failed before

    def _raise_remembered(self, file: FileRow) -> None:
        now = self._clock.monotonic()
        down = None if file.mirror_id in self._with_near else self._down.get(file.mirror_id)
        for entry in (self._failed.get(file.id), down):
            if entry is not None and now < entry.until:
                raise entry.error.again()

    def _raise_if_down(self, mirror_id: int) -> None:
        entry = self._down.get(mirror_id)
        if entry is not None and self._clock.monotonic() < entry.until:
            raise _Down(entry.error.message, hint=entry.error.hint, **entry.error.data)

    def _remember(self, file: FileRow, error: Upstream, *, begun: bool) -> None:
        """Keep a failure for its own file; note whether it says something about the whole source."""
        if isinstance(error, _Down):
            return
        now = self._clock.monotonic()
        if isinstance(error, _Bad) or not begun or isinstance(error, Slow):
            if len(self._failed) >= _MAX_REMEMBERED:
                self._failed = {key: entry for key, entry in self._failed.items() if now < entry.until}
                self._failed.pop(next(iter(self._failed), file.id), None)
            lasts_s = BAD_S if isinstance(error, _Bad) else FAILED_S
            self._failed[file.id] = _Remembered(error, now + lasts_s, file.mirror_id)
        if not isinstance(error, Passing | Slow | Unreachable):
            return  # an answer about this file: the source is there
        in_a_row = self._in_a_row.setdefault(file.mirror_id, set())
        if len(in_a_row) < DOWN_AFTER:
            in_a_row.add(file.id)
        if not isinstance(error, Unreachable):
            if len(in_a_row) < DOWN_AFTER:
                return
            error = Upstream(
                f"{DOWN_AFTER} files in a row could not be had from this source, the last: {error.message}",
                hint=error.hint,
                **error.data,
            )
        self._down[file.mirror_id] = _Remembered(error, now + DOWN_S, file.mirror_id)

    # --- one fetch

    async def _fly(self, key: _Key, live: InFlight) -> None:
        error: FirthError
        try:
            try:
                kept = await self._bring(key, live)
            except _Missing as missing:
                kept = await self._taken_out(live.file, missing)
        except FirthError as caught:
            error = caught
        except Exception:
            log.exception("fetching %r failed", live.file.filename)
            error = Internal(f"{live.file.filename} could not be fetched; the daemon's log says why")
        else:
            self._away(key, live)
            live.finish(kept)
            return
        self._away(key, live)
        if isinstance(error, Upstream):
            log.warning("%s could not be fetched for a client: %s", live.file.filename, error.message)
            self._remember(live.file, error, begun=live.begun)
        live.fail(error)

    def _away(self, key: _Key, live: InFlight) -> None:
        """Take a fetch out of those under way; whoever asks for the file from now on starts another."""
        if self._flights.get(key) is live:
            del self._flights[key]

    async def _bring(self, key: _Key, live: InFlight) -> Kept:
        file = live.file
        if (there := await self._helpers.present(file)) is not None:
            return there  # of another channel that is as open: no source is asked
        task = asyncio.current_task()
        assert task is not None

        def give_up() -> None:
            self._away(key, live)
            task.cancel()

        if self._helpers.near is not None and (near := await self._from_near(live, give_up)) is not None:
            await self._count(file, near)
            return near
        try:
            source, address = await self._helpers.locate(file)
            host = budget_of(source, address)
        except Invalid as error:
            raise _Bad(f"{file.filename} cannot be fetched: {error.message}", hint=error.hint) from None
        self._raise_if_down(file.mirror_id)
        async with self.places.place(live, host, give_up):
            if (there := await self._helpers.present(file)) is not None:
                return there  # a run brought it while this one waited
            self._raise_if_down(file.mirror_id)
            await self._helpers.space(file.size)
            writer = await self._blobs.open_writer(
                size=file.size, sha256=file.sha256, md5=file.md5, max_bytes=MAX_UNKNOWN
            )
            try:
                writer.promise(await self._helpers.promised(file))
                await self._download(live, writer, source, address)
                await self._check(file, live, writer)
            except BaseException as error:
                writer.abort()
                if is_full(error):
                    raise NoSpace("the disk is full", hint="free space on the store's file system") from error
                raise
            kept = await self._keep(file, writer)
        self._down.pop(file.mirror_id, None)
        self._in_a_row.pop(file.mirror_id, None)
        await self._count(file, kept)
        return kept

    async def _taken_out(self, file: FileRow, missing: _Missing) -> Kept:
        """Return a file that its source lacks, out of another one that holds it; raise `missing` when none does."""
        found = None if self._helpers.holder is None else await self._helpers.holder(file)
        if found is None:
            raise missing
        holder, take_out = found
        try:
            async with self.open(holder) as other:
                content = await asyncio.to_thread(take_out, await other.whole())
        except (FirthError, ValueError, OSError) as error:
            log.info("%s is not to be had out of %s either: %s", file.filename, holder.filename, error)
            raise missing from None
        await self._helpers.space(len(content))
        writer = await self._blobs.open_writer(size=len(content), sha256=file.sha256, md5=file.md5)
        try:
            writer.promise(await self._helpers.promised(file))
            await asyncio.to_thread(writer.write, content)
        except BaseException:
            writer.abort()
            raise
        kept = await self._keep(file, writer)
        await self._count(file, kept)
        return kept

    async def _from_near(self, live: InFlight, give_up: Callable[[], None]) -> Kept | None:
        """Return a file that was to be had nearer than at its source; None when it was not.

        Clients get it when it is verified: what lies there may be anything. Only for what takes long they follow it
        as it comes, and hear of a mismatch; the next one is sent to the source.
        """
        file = live.file
        assert self._helpers.near is not None
        places, path = await self._helpers.near(file)
        (self._with_near.add if places else self._with_near.discard)(file.mirror_id)
        for place in self.near.asked(places, file.sha256 or file.md5):
            if path is None:
                return None
            kept = await self._near_file(live, place, path, give_up)
            if kept is not None:
                return kept
            if live.begun:
                self.near.not_again(place, file.sha256 or file.md5)
                raise Upstream(f"{file.filename} was not what it should be near by", hint="ask again: it comes anew")
        return None

    async def _near_file(self, live: InFlight, place: Source, path: str, give_up: Callable[[], None]) -> Kept | None:
        file = live.file
        try:
            host = budget_of(place, path)
        except Invalid:
            return None
        async with self.places.place(live, host, give_up):
            await self._helpers.space(file.size)
            began = self._clock.monotonic()
            writing: list[BlobWriter] = []

            def wrote(size: int) -> None:
                late = self._clock.monotonic() - began > NEAR_S
                if writing and size > 0 and late and file.size is not None and not live.begun:
                    live.begin(writing[0].path, file.size)
                if live.begun and writing and size > 0:
                    live.wrote(writing[0].written)

            try:
                return await self.near.bring(
                    place,
                    path,
                    size=file.size,
                    sha256=file.sha256,
                    md5=file.md5,
                    channel_id=file.channel_id,
                    lane=Lane.CLIENT,
                    wrote=wrote,
                    opened=writing.append,
                )
            except OSError as error:
                if is_full(error):
                    raise NoSpace("the disk is full", hint="free space on the store's file system") from error
                raise

    async def _count(self, file: FileRow, kept: Kept) -> None:
        try:
            await self._helpers.stored(file, kept)
        except FirthError as error:  # the file is stored and good, whatever becomes of the counts
            log.warning("%s was stored, but could not be counted: %s", file.filename, error.message)

    async def _download(self, live: InFlight, writer: BlobWriter, source: Source, address: str) -> None:
        file = live.file

        def asks(attempt: int) -> None:
            if attempt > 1:
                log.info("asks for %s again", file.filename)
                self._raise_if_down(file.mirror_id)  # another file has found out meanwhile

        async def answered(body: Incoming) -> None:
            length = None if body.length is None else body.offset + body.length
            if length is not None and live.size is not None and length != live.size:
                raise _bad(file, f"it has {length} bytes, {live.size} were promised")
            if not live.begun:
                live.begin(writer.path, live.size if live.size is not None else length)

        try:
            encoded = await transfer(
                self._upstream,
                source,
                address,
                writer,
                self._clock,
                digest=writer.promised is not None,
                lane=Lane.CLIENT,
                patience=PATIENCE,
                hooks=Hooks(asks=asks, answered=answered, wrote=lambda size: live.wrote(writer.written)),
                elsewhere=self._helpers.elsewhere(file),
                flushers=self._flushers,
            )
            if encoded != source.encoded and self._helpers.spelled is not None:
                await self._helpers.spelled(file, encoded)
        except NotFound:
            raise _Missing(f"the source lists {file.filename} but does not have it", hint="run the mirror") from None
        except Invalid as error:
            raise _Bad(f"{file.filename} cannot be fetched: {error.message}", hint="look at the source") from None
        except TooLarge:
            raise _bad(file, f"it has more than the {live.size} bytes promised") from None

    async def _check(self, file: FileRow, live: InFlight, writer: BlobWriter) -> None:
        """Check what the store cannot: a length that only the source told, and an archive without any digest."""
        if live.size is not None and writer.written != live.size:
            raise _bad(file, f"{writer.written} bytes came, {live.size} were promised")
        if writer.promised is None:
            try:
                await asyncio.to_thread(self._helpers.check_archive, file, writer.path)
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
