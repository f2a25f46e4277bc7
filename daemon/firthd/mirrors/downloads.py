"""The only place that downloads what a run is to add: many at once, verified into the store, each failure noted."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from msgspec import Struct
from msgspec.structs import replace

from firth_protocol import units
from firth_protocol.errors import FirthError, Invalid, NoSpace, NotFound, TooLarge, Upstream
from firthd.clock import Clock
from firthd.families.base import FetchPlace
from firthd.mirrors.context import Context
from firthd.mirrors.nearby import Nearby
from firthd.mirrors.source import Job, elsewhere, near_path, rules_of
from firthd.mirrors.transfer import LARGE_BYTES, MAX_UNKNOWN, Hooks, Incoming, Patience, transfer
from firthd.runs.run import LiveRun
from firthd.store import catalog, delivered
from firthd.store.blobs import BlobStore, Kept
from firthd.store.columns import goes_along
from firthd.store.disk import is_full
from firthd.store.incoming import BlobMismatch, BlobWriter, MemoryWriter
from firthd.store.partials import IN_MEMORY, Partials
from firthd.store.promises import Promise
from firthd.store.run_reads import Wanted
from firthd.store.runs import Failure
from firthd.upstream.client import Source
from firthd.upstream.client import Upstream as Upstreams
from firthd.upstream.failures import Passing, Slow
from firthd.upstream.hosts import Lane
from firthd.upstream.source import page_address

TRANSFERS = 14
"""Files that one run brings at once: two fewer than a host has connections, so that clients find one free."""
IN_HAND = 640
"""Files under way at once, those included that wait for the disk: they share its flushes."""
HELD_BYTES = 32 << 20
"""Bytes of small files, which lie in memory, that are under way at once."""
AHEAD = 4 * TRANSFERS
"""Files that wait to be brought."""
PAGE = 500
FLUSHERS = 2
"""Threads that begin to bring large files onto the disk while more of them comes."""
PATIENCE = Patience(pauses_s=(1.0, 2.0))
REFUSALS_IN_A_ROW = 20
FLUSH_S = 1.0
TELL_S = 0.2
"""Seconds between two words of how far a run is: readers hear of it as often."""

CheckArchive = Callable[[Path, str], None]
"""Raises ValueError with a sentence when the file at a path is no whole archive of its name's kind. Blocks."""


class Files(Protocol):
    """What is to be brought, in the order of ordinals, and what is to be noted of it."""

    async def wanted(self, after: int, limit: int, /) -> list[Wanted]: ...
    async def record_digests(self, digests: Sequence[tuple[int, str, int]], /) -> None: ...
    async def mark_failed(self, failed: Sequence[tuple[int, str]], /) -> None: ...
    async def leave_out(self, ordinals: Sequence[int], /) -> None: ...


class Result(Struct, frozen=True, kw_only=True):
    """What came of a download: `changed` lists failures that look as if the source had changed meanwhile."""

    stored: int
    present: int
    failed: int
    changed: int


class _Bad(Exception):
    """The file came, but it is not what the source's index promises."""


class _Tries:
    """How often a file was asked for."""

    made = 0


class Downloads:
    """One run's downloads."""

    def __init__(
        self,
        live: LiveRun,
        upstream: Upstreams,
        blobs: BlobStore,
        clock: Clock,
        *,
        source: Source,
        address: Callable[[Wanted], str],
        elsewhere: Callable[[Wanted], str | None] = lambda _: None,
        promised: Callable[[Wanted], Promise | None] = lambda _: None,
        check_archive: CheckArchive,
        spent: Callable[[int], None],
        enough_space: Callable[[int | None], Awaitable[None]],
        channel_id: int,
        present: Callable[[Collection[str]], Awaitable[set[str]]],
        partials: Partials,
        near: Nearby,
        places: Sequence[Source],
        near_path: Callable[[Wanted], str | None],
    ) -> None:
        self._live = live
        self._upstream = upstream
        self._blobs = blobs
        self._clock = clock
        self._source = source
        self._address = address
        self._elsewhere = elsewhere
        self._promised = promised
        self._check_archive = check_archive
        self._spent = spent
        self._enough_space = enough_space
        self._channel_id = channel_id
        self._present_among = present
        self._partials = partials
        self._near = near
        self._places = places
        self._near_path = near_path
        self._flushers: Executor | None = None  # while it runs
        self.from_near = 0
        self._queue: asyncio.Queue[Wanted | None] = asyncio.Queue(maxsize=AHEAD)
        self._transfers = asyncio.Semaphore(TRANSFERS)
        self._held = 0  # bytes of small files on their way
        self._less = asyncio.Event()
        self._failed: list[tuple[int, str]] = []  # ordinal and package name; the run keeps the reasons
        self._digests: list[tuple[int, str, int]] = []
        self._refusals: Counter[str] = Counter()
        self._refused: Upstream | None = None
        self._lacking: list[Wanted] = []
        self._changed = 0
        self._stored = 0
        self._present = 0
        self._done = 0
        self._total = 0
        self._told = float("-inf")  # monotonic seconds
        self._latest = ""  # name of the file that came or began last

    @property
    def encoded(self) -> bool:
        """Whether the source takes file names with `+`, `!` and `~` percent-encoded."""
        return self._source.encoded

    async def run(self, reads: Files, total: int) -> Result:
        """Bring every file that is wanted and the channel has not been given.

        Raises Upstream when a host refuses 20 requests in a row, NoSpace when the disk is full.
        """
        self._total = total
        self._flushers = ThreadPoolExecutor(FLUSHERS, thread_name_prefix="flush beside")
        try:
            async with asyncio.TaskGroup() as group:
                workers = [group.create_task(self._work()) for _ in range(IN_HAND)]
                flusher = group.create_task(self._flush())
                await self._blobs.expect(total)
                await self._feed(reads)
                for _ in workers:
                    await self._queue.put(None)
                await asyncio.gather(*workers)
                flusher.cancel()
        except* FirthError as group_of:
            raise _first(group_of.exceptions) from None
        finally:
            self._flushers.shutdown(wait=False)  # whoever gave them something has waited for it
        if self._digests:
            await reads.record_digests(self._digests)
        if self._lacking:
            await reads.leave_out([wanted.ordinal for wanted in self._lacking])
            self._live.note(lacks(self._lacking))
        if self._failed:
            await reads.mark_failed(self._failed)
        return Result(stored=self._stored, present=self._present, failed=len(self._failed), changed=self._changed)

    async def _feed(self, reads: Files) -> None:
        coming = asyncio.create_task(self._page(reads, 0))
        try:
            while page := await coming:
                coming = asyncio.create_task(self._page(reads, page[-1][0].ordinal))  # while these are brought
                for wanted, there in sorted(page, key=_large_first):
                    if there:
                        self._present += counts(wanted)
                        self._done += counts(wanted)
                    else:
                        await self._offer(wanted)
        finally:
            coming.cancel()
            await asyncio.gather(coming, return_exceptions=True)

    async def _page(self, reads: Files, after: int) -> list[tuple[Wanted, bool]]:
        """Return the next files, and whether they need not be brought."""
        page = await reads.wanted(after, PAGE)
        given = await self._present_among({wanted.sha256 for wanted in page if wanted.sha256 is not None})
        there = await asyncio.to_thread(self._there, page, given) if given else set[int]()
        return [(wanted, wanted.ordinal in there) for wanted in page]

    async def _offer(self, wanted: Wanted) -> None:
        while self._held + _held(wanted) > HELD_BYTES:
            self._less.clear()
            await self._less.wait()
        self._held += _held(wanted)
        await self._queue.put(wanted)

    def _there(self, page: Sequence[Wanted], given: set[str]) -> set[int]:
        """Return the ordinals of the files that the channel has been given and that lie in the store."""
        return {
            wanted.ordinal
            for wanted in page
            if wanted.sha256 is not None
            and wanted.sha256 in given
            and (size := self._blobs.size(wanted.sha256)) is not None
            and wanted.size in {None, size}
        }

    async def _flush(self) -> None:
        while True:
            await self._clock.sleep(FLUSH_S)
            self._tell(self._latest)
            await self._live.flush()

    async def _work(self) -> None:
        while (wanted := await self._queue.get()) is not None:
            await self._one(wanted)
            self._held -= _held(wanted)
            self._less.set()

    async def _one(self, wanted: Wanted) -> None:
        """Bring one file; what keeps the whole run from going on is raised."""
        tries = _Tries()
        self._latest = wanted.filename
        try:
            kept = await self._bring(wanted, tries)
        except _Bad as error:
            self._changed += 1
            self._fail(wanted, str(error), tries)
        except NotFound as error:
            if not counts(wanted):  # what it goes along with is good without it
                self._lacking.append(wanted)
                return
            self._changed += 1
            self._fail(wanted, error.message, tries)
        except Upstream as error:
            self._fail(wanted, error.message, tries)
            self._count_refusal(error)
        except Invalid as error:  # the source names an address that is not asked; others of its files may do
            self._fail(wanted, error.message, tries)
        except OSError as error:
            if not is_full(error):
                raise
            raise NoSpace("the disk is full", hint="free space on the store's file system") from None
        else:
            self._refusals.clear()
            self._stored += counts(wanted)
            self._live.moved(kept.size, verified=True)
            self._spent(kept.size)
            if wanted.sha256 is None:
                self._digests.append((wanted.ordinal, kept.sha256, kept.size))
        self._done += counts(wanted)
        if (now := self._clock.monotonic()) - self._told >= TELL_S or self._done == self._total:
            self._told = now
            self._tell(wanted.filename)

    def _tell(self, filename: str) -> None:
        self._live.progress(
            f"{self._done:,} / {self._total:,} files, {units.rate(self._live.rate())}, {filename}",
            done=self._done,
            total=self._total,
            unit="files",
        )

    def _fail(self, wanted: Wanted, reason: str, tries: "_Tries") -> None:
        self._failed.append((wanted.ordinal, wanted.name))
        self._live.fail_artifact(
            Failure(part=wanted.part, filename=wanted.filename, reason=reason, attempts=tries.made)
        )
        self._live.log(f"{wanted.part}/{wanted.filename}: {reason}", "error")

    def _count_refusal(self, error: Upstream) -> None:
        status = error.data.get("status")
        if status not in {None, 401, 403}:
            return
        host = str(error.data.get("host", ""))
        self._refusals[host] += 1
        if self._refusals[host] >= REFUSALS_IN_A_ROW:
            raise Upstream(
                f"{host} refused {REFUSALS_IN_A_ROW} requests in a row; the last: {error.message}",
                hint=error.hint or "check the address and the credentials, then run again",
                host=host,
                status=status,
            )

    async def _bring(self, wanted: Wanted, tries: "_Tries") -> Kept:
        async with self._transfers:  # taken first, so that files come in the order of the index
            await self._enough_space(wanted.size)
            if (kept := await self._from_near(wanted)) is not None:
                return kept
            writer = await self._written(wanted, tries)
        resumed = writer.resumed_at > 0
        try:
            return await self._blobs.keep(writer, self._channel_id)
        except BlobMismatch as error:
            self._live.moved(writer.resumed_at - writer.written)
            if not resumed:
                raise _Bad(f"not what the source's index promises: {error.reason}") from None
        finally:
            self._partials.done(writer)
        self._live.log(f"{wanted.filename}: what had come of it before did not belong to the rest; it comes anew")
        return await self._bring(wanted, tries)

    async def _from_near(self, wanted: Wanted) -> Kept | None:
        """Return a file that was to be had nearer than at the source; None when it was not."""
        for place in self._near.asked(self._places, wanted.sha256 or wanted.md5):
            if (path := self._near_path(wanted)) is None:
                return None
            kept = await self._near.bring(
                place,
                path,
                size=wanted.size,
                sha256=wanted.sha256,
                md5=wanted.md5,
                channel_id=self._channel_id,
                lane=Lane.RUN,
                wrote=self._live.moved,
            )
            if kept is not None:
                self.from_near += 1
                return kept
        return None

    async def _written(self, wanted: Wanted, tries: "_Tries") -> BlobWriter | MemoryWriter:
        """Return the writer with the whole file in it; what came of one that broke off is kept for the next run."""
        writer, proof = await self._partials.open(
            size=wanted.size, sha256=wanted.sha256, md5=wanted.md5, max_bytes=MAX_UNKNOWN
        )
        writer.promise(self._promised(wanted))
        try:
            await self._transfer(wanted, writer, tries, proof)
            if writer.promised is None and isinstance(writer, BlobWriter):
                try:
                    await asyncio.to_thread(self._check_archive, writer.path, wanted.filename)
                except ValueError as error:
                    raise _Bad(str(error)) from None
        except BaseException as error:
            self._live.moved(writer.resumed_at - writer.written)
            if isinstance(error, Passing | Slow | asyncio.CancelledError):
                self._partials.leave(writer)
                raise
            self._partials.drop(writer)
            if not isinstance(error, _Bad) or not writer.resumed_at:
                raise
            return await self._written(wanted, tries)  # it may be what had come before that was wrong
        return writer

    async def _transfer(
        self, wanted: Wanted, writer: BlobWriter | MemoryWriter, tries: "_Tries", proof: str | None
    ) -> None:
        async def answered(body: Incoming) -> None:
            if body.as_sent:
                self._partials.proven(writer, body.proof)
            else:
                self._partials.done(writer)  # of what an encoding was undone of no rest can be asked for

        def asks(attempt: int) -> None:
            tries.made = attempt

        try:
            encoded = await transfer(
                self._upstream,
                self._source,
                self._address(wanted),
                writer,
                self._clock,
                digest=writer.promised is not None,
                lane=Lane.RUN,
                patience=PATIENCE,
                hooks=Hooks(asks=asks, answered=answered, wrote=self._live.moved),
                resume=proof,
                elsewhere=self._elsewhere(wanted),
                flushers=self._flushers,
                small=isinstance(writer, MemoryWriter),
            )
            if encoded != self._source.encoded:
                self._source = replace(self._source, encoded=encoded)
        except TooLarge:
            raise _Bad(f"longer than the {wanted.size} bytes that the source's index promises") from None
        finally:
            await self._partials.settled(writer)


def _large_first(one: tuple[Wanted, bool]) -> int:
    """Order a page: what takes long begins first, so that nothing waits for it alone; else as the index has it."""
    size = one[0].size or 0
    return -size if size >= LARGE_BYTES else 0


async def bring(
    live: LiveRun,
    context: Context,
    job: Job,
    places: Mapping[str, tuple[str, str | None]],
    files: Files,
    total: int,
) -> Result:
    """Download for a run inside the step in progress, and remember how the mirror's source takes names.

    `places`: where below the source each part's index was, and the base of addresses that it gives. Raises as
    `Downloads.run` does.
    """
    rules = rules_of(context.families, job.type)

    def place(wanted: Wanted) -> FetchPlace:
        page, base_url = places.get(wanted.part, (None, None))
        return FetchPlace(
            part=wanted.part,
            section=wanted.section,
            filename=wanted.filename,
            base_url=base_url,
            page=None if page is None else page_address(job.source, page),
            raw=wanted.raw,
        )

    async def present(digests: Collection[str]) -> set[str]:
        return (await delivered.present(context.db, job.channel_id, digests)).all

    downloads = Downloads(
        live,
        context.upstream,
        context.blobs,
        context.clock,
        source=job.source,
        address=lambda wanted: rules.fetch_url(place(wanted)),
        elsewhere=lambda wanted: elsewhere(rules, wanted.part, wanted.section, wanted.filename),
        promised=lambda wanted: rules.promised(wanted.raw) if wanted.raw and wanted.sha256 is None else None,
        check_archive=rules.check_archive,
        spent=lambda size: context.space.spent(live.id, size),
        enough_space=context.space.enough,
        channel_id=job.channel_id,
        present=present,
        partials=context.partials,
        near=context.on_demand.near,
        places=job.near,
        near_path=lambda wanted: near_path(rules, place(wanted)),
    )
    result = await downloads.run(files, total)
    if downloads.from_near:
        live.note(f"{downloads.from_near:,} files came from nearer than the source (also_from)")
    if downloads.encoded != job.source.encoded:
        encoded = int(downloads.encoded)
        await context.db.write(lambda tx: catalog.note_mirror(tx, job.mirror_id, {"encoded": encoded}))
    return result


def counts(wanted: Wanted) -> bool:
    """Tell whether this is a file that people count."""
    return not goes_along(wanted.section)


def _held(wanted: Wanted) -> int:
    """Return how many bytes of a file lie in memory until it is whole."""
    return wanted.size if wanted.size is not None and wanted.size <= IN_MEMORY else 0


def lacks(files: Sequence[Wanted]) -> str:
    """Return what to tell of files that the source lists beside others and does not have."""
    more = f" and {len(files) - 1:,} more" if len(files) > 1 else ""
    return f"the source lists {files[0].filename}{more} and does not have them: they are left out"


def _first(errors: Sequence[BaseException]) -> BaseException:
    error = errors[0]
    return _first(error.exceptions) if isinstance(error, BaseExceptionGroup) else error
