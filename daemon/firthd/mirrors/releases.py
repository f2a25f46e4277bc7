"""The only place that brings what a judgement wants to know of releases: their licences, and what they need.

A worker that judges says what it wants; it is read out of files that the channel has or that the source gives, and the
worker judges once more, until nothing new is wanted. What cannot be had stays unknown, is told, and stops no run.
"""

import asyncio
import hashlib
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path

from msgspec import Struct

from firth_protocol.errors import FirthError, NoSpace, Upstream
from firth_protocol.types import MirrorMode, RunKind
from firthd.families import load_policing
from firthd.families.base import FetchPlace
from firthd.families.policing import ToldApart
from firthd.index.messages import ReadParams, ReadResult, Teller, WantedRelease
from firthd.mirrors import readers
from firthd.mirrors.context import Context
from firthd.mirrors.source import NO_MIRROR, Job, rules_of
from firthd.mirrors.wanted import WantedParts, queue_run
from firthd.runs.run import LiveRun
from firthd.store import delivered, policies
from firthd.store.policies import ReleaseRow
from firthd.store.promises import broken_in
from firthd.upstream.source import is_file, page_address
from firthd.worker import Report

ROUNDS_MAX = 50
AT_ONCE = 8
SMALL_MAX_BYTES = 16 << 20
LARGE_MAX_BYTES = 32 << 20
"""Larger archives are not fetched for what they say of themselves."""
FETCH_S = 60.0
TOLD_MAX = 20
SHA256 = 64
"""Characters of one."""
BATCH = 100
ASKED_AGAIN_MS = 86_400_000
"""What the source does not have is asked for again after that long."""
ABSENT_MAX = 100_000


class Absent:
    """What sources were found not to have: an address below a source's, and the digest of what should be there."""

    def __init__(self) -> None:
        self._since: dict[tuple[str, str, str], int] = {}

    def note(self, source: str, address: str, digest: str, now_ms: int) -> None:
        """Take note of what a source does not have now."""
        if len(self._since) >= ABSENT_MAX:
            self._since.clear()
        self._since[source, address, digest] = now_ms

    def known(self, source: str, address: str, digest: str, now_ms: int) -> bool:
        """Tell whether the source said less than a day ago that it does not have it."""
        since = self._since.get((source, address, digest))
        return since is not None and now_ms - since < ASKED_AGAIN_MS


class Release(Struct, frozen=True):
    """A release that is to be read, and where its part's files are."""

    wanted: WantedRelease
    page: str | None
    base_url: str | None


class Releases:
    """Reads what workers want to know of releases."""

    def __init__(self, context: Context) -> None:
        self._p = context
        self._absent = Absent()

    async def judge(self, live: LiveRun, job: Job, parts: WantedParts, params: ReadParams, tell: Report) -> ReadResult:
        """Let parts be read and judged, as often as it takes; raises what `readers.read` raises."""
        tried: set[tuple[str, str]] = set()
        for _ in range(ROUNDS_MAX):
            result = await readers.read(self._p.workers, params, tell)
            wanted = result.judgement.wanted if result.judgement is not None else []
            fresh = [one for one in wanted if (one.part, one.version) not in tried]
            if job.mirror_id == NO_MIRROR:
                break
            tried |= {(one.part, one.version) for one in fresh}
            pages = {part.row.part: part.row.url_path for part in parts.index.parts}
            bases = {part.part: part.base_url for part in result.parts}
            releases = [Release(one, pages.get(one.part), bases.get(one.part)) for one in fresh]
            read = await self._read(live, job, releases, Path(params.run_file).parent) if releases else 0
            if await parts.bring(result.judgement.parts_wanted if result.judgement is not None else []):
                params = parts.params(params)
            elif not read:
                break
        if wanted:
            await self._note_unread(live, job, wanted)
        if parts.left:
            live.note(f"what is needed of {parts.told} was not read")
            if live.row.kind is RunKind.REFILTER:
                await queue_run(self._p, live, job)
        return result

    async def _note_unread(self, live: LiveRun, job: Job, wanted: list[WantedRelease]) -> None:
        names = ", ".join(f"{one.part} {one.version}" for one in wanted[:3])
        more = f" and {len(wanted) - 3:,} more" if len(wanted) > 3 else ""
        live.note(f"nobody knows what {names}{more} say of themselves: their metadata could not be read")
        takes = takes_archives(job)
        may_be_had = any(worth(teller, takes) for one in wanted for teller in one.tellers)
        if live.row.kind is RunKind.REFILTER and may_be_had:
            await queue_run(self._p, live, job)

    async def _read(self, live: LiveRun, job: Job, releases: list[Release], folder: Path) -> int:
        """Read releases; return how many are known now."""
        place = self._p.in_force(job)
        if place is None or not place.policing:
            return 0
        policing = load_policing(place.policing)
        if not isinstance(policing, ToldApart):
            return 0
        reader, known = _Reader(self._p, live, job, policing, folder, self._absent), 0
        for start in range(0, len(releases), BATCH):
            rows = await reader.rows(releases[start : start + BATCH])
            await self._p.db.write(partial(policies.note_told, channel_id=job.channel_id, rows=rows))
            known += len(rows)
            live.progress(
                "reads what releases say of themselves",
                done=min(start + BATCH, len(releases)),
                total=len(releases),
                unit="releases",
            )
        return known


def takes_archives(job: Job) -> bool:
    """Tell whether whole archives are fetched for what they say: a mirror takes them anyway, or a folder has them."""
    return job.mode is MirrorMode.ACTIVE or is_file(job.source)


def worth(teller: Teller, archives: bool) -> bool:
    """Tell whether a file is fetched for what it says."""
    return teller.small or (archives and (teller.size or 0) <= LARGE_MAX_BYTES)


class _Reader:
    """Reads some releases after the others."""

    def __init__(
        self, context: Context, live: LiveRun, job: Job, policing: ToldApart, folder: Path, absent: Absent
    ) -> None:
        self._p = context
        self._absent = absent
        self._live = live
        self._job = job
        self._policing = policing
        self._present: Collection[str] = ()
        self._folder = folder
        self._told = 0
        rules = rules_of(context.families, job.type)
        self._fetch_url: Callable[[FetchPlace], str] = rules.fetch_url
        self._promised = rules.promised
        self._asks = live.row.kind is not RunKind.REFILTER  # a refilter needs no network

    async def rows(self, releases: Sequence[Release]) -> list[ReleaseRow]:
        """Return what releases tell, as far as anybody knows. Raises NoSpace."""
        digests = [one.digest for release in releases for one in release.wanted.tellers if len(one.digest) == SHA256]
        self._present = (await delivered.present(self._p.db, self._job.channel_id, digests)).all
        places = asyncio.Semaphore(AT_ONCE)

        async def one(number: int, release: Release) -> ReleaseRow | None:
            async with places:
                return await self._row(release, number)

        try:
            async with asyncio.TaskGroup() as tasks:
                reads = [tasks.create_task(one(number, release)) for number, release in enumerate(releases)]
        except BaseExceptionGroup as several:
            raise several.exceptions[0] from None
        return [row for row in (read.result() for read in reads) if row is not None]

    async def _row(self, release: Release, number: int) -> ReleaseRow | None:
        """Return what a release tells; None: nobody knows, which the log tells. Raises NoSpace."""
        wanted, problem = release.wanted, ""
        for teller in wanted.tellers:
            try:
                document = await self._document(release, teller, self._folder / f"release-{number}")
            except NoSpace:
                raise
            except (FirthError, OSError) as error:
                problem = str(error)
                continue
            if document is not None:
                return ReleaseRow(wanted.part, wanted.version, teller.filename, teller.digest, document)
        if problem and self._told < TOLD_MAX:
            self._told += 1
            self._live.log(f"{wanted.part} {wanted.version}: its metadata cannot be read: {problem}", "warning")
        return None

    async def _document(self, release: Release, teller: Teller, file: Path) -> bytes | None:
        if teller.digest in self._present:
            return await asyncio.to_thread(self._policing.told, self._p.blobs.path(teller.digest), teller.filename)
        if not self._asks or not worth(teller, takes_archives(self._job)):
            return None
        source = self._job.source
        place = FetchPlace(
            part=release.wanted.part,
            section=teller.section,
            filename=teller.filename,
            base_url=release.base_url,
            page=None if release.page is None else page_address(source, release.page),
            raw=teller.raw,
        )
        address, now = self._fetch_url(place), self._p.clock.now_ms()
        if self._absent.known(source.url, address, teller.digest, now):
            raise Upstream(f"the source has no {teller.filename}; it is asked again a day after it said so")
        try:
            fetched = await self._p.upstream.fetch(
                source,
                address,
                file,
                max_bytes=SMALL_MAX_BYTES if teller.small else LARGE_MAX_BYTES,
                until=self._p.clock.monotonic() + FETCH_S,
                room=self._p.space.enough,
            )
            if fetched.status != "fetched":
                self._absent.note(source.url, address, teller.digest, now)
                raise Upstream(f"the source has no {teller.filename}")
            return await asyncio.to_thread(self._checked, teller, file)
        finally:
            await asyncio.to_thread(file.unlink, missing_ok=True)

    def _checked(self, teller: Teller, file: Path) -> bytes:
        if teller.digest:
            kind = hashlib.sha256 if len(teller.digest) == SHA256 else hashlib.md5
            with file.open("rb") as content:
                if hashlib.file_digest(content, kind).hexdigest() != teller.digest:
                    raise Upstream(f"{teller.filename} is not what the index promises")
        promise = self._promised(teller.raw) if len(teller.digest) != SHA256 else None
        if promise is not None and (why := broken_in(promise, file)) is not None:
            raise Upstream(f"{teller.filename} is not what the index promises: {why}")
        return self._policing.told(file, teller.filename)
