"""The only place that reads one page of a lazy part: asks its source, compares it with the rows, writes a version."""

import asyncio
import logging
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from pathlib import Path

import zstandard
from msgspec.structs import replace

from firth_protocol.errors import FirthError, NotFound, Upstream
from firth_protocol.types import Cause, Family
from firthd.clock import day_end_ms, utc_day
from firthd.families.base import COLUMNS, Ask, FamilyRules, Form, Spool
from firthd.index.messages import ReadParams, ReadResult
from firthd.index.read import read_task
from firthd.mirrors.asking import not_it, odd
from firthd.mirrors.context import Context
from firthd.mirrors.judgement import judged_by
from firthd.mirrors.readers import READ
from firthd.mirrors.source import Job
from firthd.store import catalog, copying, generations, pages
from firthd.store.database import Reader, Tx
from firthd.store.pages import Fresh, PageRow
from firthd.upstream.client import Validators
from firthd.upstream.hosts import Lane
from firthd.upstream.masking import starred
from firthd.upstream.source import is_file
from firthd.worker import TaskProgress

log = logging.getLogger(__name__)

PAGE_MAX_BYTES = 64_000_000
SMALL_BYTES = 65_536
"""A page below this is worked on in a thread: it holds the interpreter for less than a process takes to start."""
ASK_S = 20.0
"""Seconds after which a source is not asked again for a page; clients wait meanwhile."""
DAY_MS = 86_400_000
DAYS = 90
"""Days of which the page that was there at their end is kept, for snapshots by date."""


class SourceDown(Upstream):
    """The source gave no answer at all: it need not be asked for other pages now."""


class PageReader:
    """Reads pages; nobody may read the same page of a mirror twice at once."""

    def __init__(self, context: Context, forget_files: Callable[[], None], grace_ms: int) -> None:
        self._p = context
        self._forget_files = forget_files
        self._grace_ms = grace_ms
        self.folder = context.state / "pages"
        """For files of the moment."""

    async def read(self, job: Job, ask: Ask, had: PageRow | None, *, anew: bool = False) -> PageRow | None:
        """Ask for a page and take it in; return the version that is the source's now, None when it has none.

        `anew`: it is taken in whatever it is, because the mirror has changed.

        Raises Upstream (SourceDown without any answer), NoSpace, NotFound when the mirror is gone.
        """
        async with working_folder(self.folder) as folder:
            fresh = await self._bring(job, ask, None if anew else had, folder / "part")
            now = self._p.clock.now_ms()
            if isinstance(fresh, Validators):
                assert had is not None
                page_id, etag, last_modified = had.id, fresh.etag, fresh.last_modified
                await self._p.db.write(lambda tx: pages.confirm(tx, page_id, etag, last_modified, now))
            elif fresh.body is not None or (had is not None and had.there):
                await self._take_in(job, ask.part, fresh, folder, max(now, had.read_at + 1 if had else 0))
                await self._forget(job, ask.part, now)
            elif had is not None:
                page_id = had.id
                await self._p.db.write(lambda tx: pages.confirm(tx, page_id, None, None, now))
        return await self._p.db.read(lambda r: pages.page_as_of(r, job.mirror_id, ask.part, None))

    # --- asking

    async def _bring(self, job: Job, ask: Ask, had: PageRow | None, file: Path) -> Fresh | Validators:
        """Return what the source has, or its validators when that is what was read before."""
        refusal: Upstream | None = None
        statuses: list[int] = []
        in_folder = is_file(job.source)
        there = (form for form in ask.forms if form.in_folder in {None, in_folder})
        forms = sorted(there, key=lambda form: had is None or form.path != had.url_path)
        for form in forms:
            known = had if had is not None and had.there and had.url_path == form.path else None
            validators = Validators(etag=known.etag, last_modified=known.last_modified) if known else None
            encoding = ""

            def look(start: bytes, content_type: str, form: Form = form) -> bool:
                nonlocal encoding
                encoding = self._rules(job).encoding(form, start, content_type) or ""
                return bool(encoding)

            try:
                fetched = await self._p.upstream.fetch(
                    job.source,
                    form.path,
                    file,
                    validators=validators,
                    max_bytes=PAGE_MAX_BYTES,
                    until=self._p.clock.monotonic() + ASK_S,
                    accept=form.accept,
                    look=look,
                    room=self._p.space.enough,
                    lane=Lane.CLIENT,
                )
            except Upstream as error:
                if "status" not in error.data:
                    raise SourceDown(error.message, hint=error.hint, **error.data) from None
                if error.data["status"] != 401:
                    raise
                refusal = refusal or error
                continue
            if fetched.status == "not_modified":
                return fetched.validators
            if fetched.status == "fetched":
                packed = await asyncio.to_thread(_packed, file)
                if known is not None and packed == await self._body(known.id):
                    return fetched.validators
                return Fresh(
                    url_path=form.path,
                    encoding=encoding,
                    etag=fetched.validators.etag,
                    last_modified=fetched.validators.last_modified,
                    size=fetched.bytes,
                    body=packed,
                    base_url=fetched.landed,
                )
            statuses.append(fetched.answered)
            if fetched.answered == 403:
                refusal = refusal or Upstream(f"the source answered 403 for {form.path}", status=403)
        if refusal is not None:
            raise refusal
        if self._rules(job).small_parts and (said := odd(statuses)) is not None:
            raise not_it(ask.part, said)
        return Fresh(url_path=ask.forms[0].path)

    async def _body(self, page_id: int) -> bytes | None:
        return await self._p.db.read(lambda r: pages.body(r, page_id))

    def _rules(self, job: Job) -> FamilyRules:
        return self._p.families[Family(job.type.value)]

    # --- taking in

    async def _take_in(self, job: Job, part: str, fresh: Fresh, folder: Path, now: int) -> None:
        db, run_file = self._p.db, folder / "run.sqlite"
        refused = await self._compare(job, part, fresh, folder, run_file)
        fresh = replace(fresh, refused=refused)
        change_set = await db.write(
            lambda tx: generations.open_change_set(
                tx, channel_id=job.channel_id, mirror_id=job.mirror_id, run_id=None, cause=Cause.RUN, now_ms=now
            )
        )
        try:
            async with db.attached(run_file) as schema:
                copied = await copying.copy_in(
                    db,
                    schema,
                    change_set=change_set,
                    channel_id=job.channel_id,
                    mirror_id=job.mirror_id,
                    columns=COLUMNS,
                    clock=self._p.clock,
                )

            async def some(tx: Tx) -> int:
                await _still_there(tx, job)
                return await pages.take_in_some(
                    tx, channel_id=job.channel_id, mirror_id=job.mirror_id, change_set=change_set, now_ms=now
                )

            async def finish(tx: Tx) -> None:
                await _still_there(tx, job)
                await pages.take_in(
                    tx,
                    channel_id=job.channel_id,
                    mirror_id=job.mirror_id,
                    family=job.type.value,
                    part=part,
                    fresh=fresh,
                    change_set=change_set,
                    now_ms=now,
                )

            while await db.write(some):
                pass
            await db.write(finish)
        except BaseException:
            await asyncio.shield(db.write(lambda tx: generations.mark_abandoned(tx, change_set)))
            raise
        await self._p.blocks.heed_refused(job.mirror_id, part, refused)
        if copied.closed:
            self._forget_files()

    async def _compare(self, job: Job, part: str, fresh: Fresh, folder: Path, run_file: Path) -> str | None:
        """Write the differences into the run file; return why the source takes the part's files back, if it does."""
        there = fresh.body is not None
        in_force = self._p.in_force(job)
        params = ReadParams(
            formats=self._rules(job).formats,
            state_db=str(self._p.db.path),
            run_file=str(run_file),
            channel_id=job.channel_id,
            mirror_id=job.mirror_id,
            spools=[Spool(part=part, file=str(folder / "part") if there else None, encoding=fresh.encoding)],
            keep=job.keep,
            filters=job.filters,
            singly=self._rules(job).small_parts,
            policy=judged_by(in_force, self._p.policies.stamp(in_force), self._p.clock.now_ms(), None),
            page=True,
            max_part_bytes=PAGE_MAX_BYTES,
        )
        if fresh.size < SMALL_BYTES:
            result = await asyncio.to_thread(read_task, params, unheard)
        else:
            result = await self._p.workers.run(READ, params, ReadResult, pressed=True)
        for read in result.parts:
            for note in read.notes:
                log.warning("%s: %s", part, note)
            if read.invalid:
                first = f"{read.invalid[0].filename}: {read.invalid[0].reason}"
                log.warning("%s: %d records cannot be taken, the first: %s", part, read.invalid_count, first)
        return next((read.refused for read in result.parts if read.refused is not None), None)

    async def _forget(self, job: Job, part: str, now: int) -> None:
        """Take away the versions that nothing needs any more; a failure costs room only."""
        needed = await self._p.db.read(lambda r: _moments(r, job.channel_id, now))
        read = await self._p.db.read(lambda r: pages.read_ats(r, job.mirror_id, part))
        gone = unneeded(read, needed)
        before_ms = now - self._grace_ms
        with suppress(FirthError):
            while await self._p.db.write(
                lambda tx: pages.forget_versions(
                    tx, job.channel_id, job.mirror_id, job.type.value, part, gone, before_ms
                )
            ):
                pass


async def _still_there(tx: Tx, job: Job) -> None:
    """Raise NotFound when a mirror is another one than a page is read for."""
    mirror = await catalog.mirror_by_id(tx, job.mirror_id)
    gone = mirror is None or not job.still_that_of(mirror)
    if gone or await pages.being_deleted(tx, job.channel_id, job.mirror_id):
        raise NotFound("the mirror was changed while this page was read", hint="ask again")


@asynccontextmanager
async def working_folder(parent: Path) -> AsyncIterator[Path]:
    """Give a folder that is there for as long as the block lasts."""

    def make() -> str:
        parent.mkdir(parents=True, exist_ok=True)
        return tempfile.mkdtemp(dir=parent)

    folder = await asyncio.to_thread(make)
    try:
        yield Path(folder)
    finally:
        await asyncio.shield(asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True))


def unneeded(read_at: Sequence[int], moments: Sequence[int]) -> list[int]:
    """Return which superseded versions no moment shows; the first one stands for the time before it."""
    return [
        begin
        for place, (begin, end) in enumerate(pairwise(read_at))
        if not any(moment < end and (place == 0 or begin <= moment) for moment in moments)
    ]


async def _moments(r: Reader, channel_id: int, now: int) -> list[int]:
    days = [day_end_ms(utc_day(now - number * DAY_MS)) for number in range(1, DAYS + 1)]
    return [*await pages.moments(r, channel_id), *days]


def _packed(file: Path) -> bytes:
    """Return what came, without the users and passwords that addresses in it may hold."""
    return zstandard.ZstdCompressor(level=6).compress(starred(file.read_bytes()))


def unheard(_: TaskProgress) -> None:
    """Nobody waits to hear how far a page is."""
