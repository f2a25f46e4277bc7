"""The only place that gives the page of a lazy part: read once however many ask, as of a moment, stale if need be."""

import asyncio
import contextlib
import gzip
import logging
import shutil
from collections import Counter, OrderedDict
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from firth_protocol.errors import FirthError, Internal, NoSpace, NotFound, Unavailable, Upstream
from firth_protocol.types import Family, Filters
from firthd.families.addresses import PageAt
from firthd.families.base import Ask, FamilyRules, LazyParts
from firthd.index.page import PageParams, PageResult, small_page
from firthd.mirrors.context import Context
from firthd.mirrors.judgement import judged_by
from firthd.mirrors.read_page import (
    PAGE_MAX_BYTES,
    SMALL_BYTES,
    PageReader,
    SourceDown,
    working_folder,
)
from firthd.mirrors.source import Job, job_of
from firthd.store import advisories, catalog, disk, pages
from firthd.store.catalog import MirrorRow
from firthd.store.made_pages import MadePage, MadePages
from firthd.store.pages import PageRow
from firthd.upstream.source import budget_of

log = logging.getLogger(__name__)
T = TypeVar("T")

RENDER = "firthd.index.page:page_task"
WAIT_S = 30.0
"""Seconds that a client waits for a page that was never read; reading it goes on without the client."""
FAILED_S = 15.0
"""Seconds for which a page, or a source that gave no answer, is not asked for again after a failure."""
REMEMBERED = 10_000
GZIP_LEVEL = 6

_Key = tuple[int, str]
"""A page: mirror, part."""
_Rendering = tuple[int, str, bytes, bool]
"""A version of a page, its form, what of it is shown, and whether it is compressed."""


class _Flight:
    """One page that is being read: who waits for it, and for what it waits itself."""

    def __init__(self, channel_id: int) -> None:
        self.channel_id = channel_id
        self.clients: Counter[str] = Counter()
        self.waits_for: str | None = None
        self.task: asyncio.Task[PageRow | None] | None = None


class _Shows(Struct, frozen=True):
    """What a page shows of its version: what filters take and the policy keeps, nothing blocked, none that is younger.

    `judged`: what the policy's verdicts hang on.
    """

    filters: Filters
    left_out: frozenset[str]
    until_ms: int | None
    mirror_id: int
    judged: str


class _Failure(Struct, frozen=True):
    error: FirthError
    until: float  # monotonic seconds


class LazyPages:
    """Pages of lazy parts. `ttl_s`: the age at which a page is asked for again, and an absence is forgotten."""

    def __init__(
        self,
        context: Context,
        forget_files: Callable[[], None],
        grace_ms: int,
        *,
        ttl_s: float,
        wait_s: float = WAIT_S,
    ) -> None:
        self._p = context
        self._reader = PageReader(context, forget_files, grace_ms)
        self._ttl_s = ttl_s
        self._wait_s = wait_s
        self._flights: dict[_Key, _Flight] = {}
        self._rendering: dict[_Rendering, asyncio.Task[MadePage]] = {}
        self._made_pages = MadePages(self._reader.folder / "made", context.space.enough)
        self._absent: OrderedDict[_Key, float] = OrderedDict()  # until when, monotonic seconds
        self._failed: OrderedDict[_Key, _Failure] = OrderedDict()
        self._down: dict[int, _Failure] = {}  # by mirror
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False

    async def prepare(self) -> None:
        """Empty the folder of what was being worked on."""
        await asyncio.to_thread(_emptied, self._reader.folder)

    async def close(self) -> None:
        """Stop all that is being read; who waits for it gets an error."""
        self._closed = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def page(
        self,
        channel_id: int,
        family: Family,
        at: PageAt,
        as_of_ms: int | None,
        client: str,
        *,
        gzipped: bool = False,
    ) -> MadePage | None:
        """Return a page as it was at a moment (None: now), of the oldest mirror that has it, `gzipped` if need be.

        None: no mirror that reads the part lazily has it, or an older one lists the part by its runs. Raises Upstream
        (also for a while afterwards, without asking), NoSpace or Unavailable when it was never read and cannot be.
        """
        rules = self._p.families[family]
        if rules.lazy is None:
            return None
        mirrors = await self._p.db.read(lambda r: catalog.mirrors_of(r, channel_id))
        mirrors = [mirror for mirror in mirrors if mirror.type.value == family.value]
        takes = {mirror.id: self._p.policies.filters_of(mirror) for mirror in mirrors}
        if not any(rules.lazy.is_lazy(at.part, takes[mirror.id], mirror.mode) for mirror in mirrors):
            return None
        for mirror in mirrors:
            if not rules.lazy.is_lazy(at.part, takes[mirror.id], mirror.mode):
                if await self._listed(channel_id, mirror.id, family, at.part):
                    return None
                continue
            version = await self._version(mirror, rules.lazy, at.part, as_of_ms, client)
            if version is not None and version.there:
                until_ms = as_of_ms if as_of_ms is not None and version.read_at > as_of_ms else None
                blocked = await self._p.blocks.out_of_part(channel_id, mirror.id, family, at.part)
                stamp = self._p.policies.stamp(self._p.policies.of_mirror(mirror.id))
                shows = _Shows(mirror.filters, blocked, until_ms, mirror.id, stamp)
                return await self._render(rules, rules.lazy, shows, version, at.form, gzipped)
        return None

    async def read_again(self, mirror: MirrorRow, rules: FamilyRules, part: str) -> bool:
        """Ask for a page now and wait for it; return whether its source answered."""
        row = await self._p.db.read(lambda r: pages.page_as_of(r, mirror.id, part, self._p.clock.now_ms()))
        ask = rules.lazy.ask(part) if rules.lazy is not None else None
        if ask is None:
            return False
        try:
            await self._wait(self._flight(job_of(mirror, self._p.secrets), ask, row), part, "")
        except FirthError:  # it is in the log, and asked for again when a client wants it
            return False
        return True

    async def _listed(self, channel_id: int, mirror_id: int, family: Family, part: str) -> bool:
        return await self._p.db.read(lambda r: pages.lists(r, channel_id, mirror_id, family, part))

    # --- which version

    async def _version(
        self, mirror: MirrorRow, lazy: LazyParts, part: str, as_of_ms: int | None, client: str
    ) -> PageRow | None:
        job = job_of(mirror, self._p.secrets)
        now_ms = self._p.clock.now_ms()
        row = await self._p.db.read(lambda r: pages.page_as_of(r, job.mirror_id, part, as_of_ms))
        if row is not None:
            # The mirror was edited since, maybe to another source: what was said is void.
            anew = row.checked_at < mirror.updated_at <= now_ms
            if as_of_ms is None and (anew or not 0 <= now_ms - row.checked_at < self._ttl_s * 1000):
                self._look_again(job, lazy, part, row, anew=anew)
            return row
        ask = lazy.ask(part)
        if ask is None or self._absent.get((job.mirror_id, part), 0.0) > self._p.clock.monotonic():
            return None
        return await self._wait(self._flight(job, ask, None), part, client)

    def _look_again(self, job: Job, lazy: LazyParts, part: str, row: PageRow, *, anew: bool = False) -> None:
        """Let a page be asked for anew while the one that is there is served."""
        ask = lazy.ask(part)
        if ask is not None:
            with contextlib.suppress(FirthError):
                self._flight(job, ask, row, anew=anew)

    async def _wait(self, flight: _Flight, part: str, client: str) -> PageRow | None:
        assert flight.task is not None
        flight.clients[client] += 1
        try:
            async with asyncio.timeout(self._wait_s):
                return await asyncio.shield(flight.task)
        except TimeoutError:
            why = (
                f" waits for its turn: {flight.waits_for}" if flight.waits_for else " has not come from its source yet"
            )
            raise Unavailable(f"{part}{why}", hint="ask again in a minute") from None
        except asyncio.CancelledError:
            if flight.task.cancelled():
                raise Unavailable(f"reading {part} was given up", hint="ask again in a minute") from None
            raise
        except FirthError as error:
            raise error.again() from None
        finally:
            flight.clients[client] -= 1
            flight.clients += Counter()
            self._p.on_demand.places.deal()

    # --- reading

    def _flight(self, job: Job, ask: Ask, had: PageRow | None, *, anew: bool = False) -> _Flight:
        """Return the reading of a page that is under way, else a new one; raise what it failed with a moment ago."""
        if self._closed:
            raise Unavailable("the daemon is stopping", hint="ask again in a minute")
        key = (job.mirror_id, ask.part)
        flight = self._flights.get(key)
        if flight is None:
            now = self._p.clock.monotonic()
            for failure in (self._failed.get(key), self._down.get(job.mirror_id)):
                if failure is not None and failure.until > now:
                    raise failure.error.again()
            flight = self._flights[key] = _Flight(job.channel_id)
            flight.task = self._task(self._fly(key, flight, job, ask, had, anew=anew), f"read {ask.part}")
            flight.task.add_done_callback(lambda _: self._landed(key, flight))
        return flight

    def _landed(self, key: _Key, flight: _Flight) -> None:
        """Take a reading out of those under way; whoever asks from now on starts another."""
        if self._flights.get(key) is flight:
            del self._flights[key]

    def _task(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waits has it; where nobody does it is in the log

    async def _fly(
        self, key: _Key, flight: _Flight, job: Job, ask: Ask, had: PageRow | None, *, anew: bool
    ) -> PageRow | None:
        task = asyncio.current_task()
        assert task is not None

        def give_up() -> None:
            self._landed(key, flight)
            task.cancel()

        try:
            host = budget_of(job.source, ask.forms[0].path)
            async with self._p.on_demand.places.place(flight, host, give_up):
                row = await self._reader.read(job, ask, had, anew=anew)
        except (Upstream, NoSpace, NotFound, Unavailable) as error:
            log.warning("%s could not be read for a client: %s", ask.part, error.message)
            failure = _Failure(error, self._p.clock.monotonic() + FAILED_S)
            if isinstance(error, SourceDown):
                self._down[key[0]] = failure
            _remember(self._failed, key, failure)
            raise
        except FirthError:
            raise
        except Exception as error:
            if isinstance(error, OSError) and (full := disk.told(error)) is not None:
                raise full from None
            log.exception("reading %r failed", ask.part)
            raise Internal(f"{ask.part} could not be read; the daemon's log says why") from None
        self._down.pop(key[0], None)
        self._failed.pop(key, None)
        if row is None:
            _remember(self._absent, key, self._p.clock.monotonic() + self._ttl_s)
        return row

    # --- rendering

    async def _render(
        self,
        rules: FamilyRules,
        lazy: LazyParts,
        shows: "_Shows",
        version: PageRow,
        form: str,
        gzipped: bool,
    ) -> MadePage:
        """Return a page that is remembered, is being made for others, or is made now: once, however many ask."""
        key = (version.id, form, msgspec.json.encode(shows, order="deterministic"), gzipped)
        made = await self._made_pages.get(key)
        if made is not None:
            return made
        task = self._rendering.get(key)
        if task is None:

            async def make() -> MadePage:
                return await self._made_pages.keep(key, await self._made(rules, lazy, shows, version, form, gzipped))

            task = self._rendering[key] = self._task(make(), "render a page")
            task.add_done_callback(lambda _: self._rendering.pop(key, None))
        return await asyncio.shield(task)

    async def _made(
        self,
        rules: FamilyRules,
        lazy: LazyParts,
        shows: "_Shows",
        version: PageRow,
        form: str,
        gzipped: bool,
    ) -> bytes:
        if gzipped:
            plain = await self._render(rules, lazy, shows, version, form, gzipped=False)
            return await asyncio.to_thread(gzip.compress, await plain.whole(), GZIP_LEVEL, mtime=0)
        body = await self._p.db.read(lambda r: pages.body(r, version.id))
        if body is None:
            raise Unavailable(f"{version.part} was read anew in this moment", hint="ask again")
        in_force = self._p.policies.of_mirror(shows.mirror_id)
        policy = judged_by(in_force, shows.judged, self._p.clock.now_ms(), None)
        flaws: list[bytes] = []
        if policy is not None and policy.rules.cve is not None:
            flaws = await self._p.db.read(lambda r: advisories.about(r, rules.family, version.part))
        params = PageParams(
            formats=rules.formats,
            pages=lazy.pages,
            part=version.part,
            form=form,
            encoding=version.encoding,
            max_bytes=PAGE_MAX_BYTES,
            until_ms=shows.until_ms,
            filters=shows.filters,
            left_out=sorted(shows.left_out),
            policy=policy,
            flaws=flaws,
        )
        if version.size < SMALL_BYTES:
            return await asyncio.to_thread(small_page, params, body)
        async with working_folder(self._reader.folder) as folder:
            packed, out = folder / "packed", folder / "page"
            await asyncio.to_thread(packed.write_bytes, body)
            params = replace(params, packed=str(packed), out=str(out))
            await self._p.workers.run(RENDER, params, PageResult, pressed=True)
            return await asyncio.to_thread(out.read_bytes)


def _remember(remembered: OrderedDict[_Key, T], key: _Key, value: T) -> None:
    """Keep what was learnt of a page, and forget the oldest beyond some thousands."""
    remembered.pop(key, None)
    remembered[key] = value
    while len(remembered) > REMEMBERED:
        remembered.popitem(last=False)


def _emptied(folder: Path) -> None:
    with contextlib.suppress(OSError):  # a full disk keeps no daemon from starting
        for left in folder.iterdir():
            shutil.rmtree(left, ignore_errors=True)
