"""The only place that gathers how the daemon is: its status, its self test, its metrics, and what is wrong."""

import asyncio
import contextlib
import logging
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from firth_protocol import API, units
from firth_protocol.errors import FirthError, Interrupted, NoSpace, Unavailable
from firth_protocol.events import Fact
from firth_protocol.types import (
    Counts,
    DaemonStatus,
    HealthProblem,
    NextRun,
    RunKind,
    RunState,
    StoreStatus,
    UpstreamHost,
)
from firthd import __version__
from firthd.access import Caller
from firthd.clock import Clock, maybe_rfc3339, rfc3339
from firthd.freshness import SUBJECT, Freshness
from firthd.mirrors.space import SpaceGuard
from firthd.runs.queue import Waiting
from firthd.scheduler import CronSchedules
from firthd.store import catalog, generations, journal, quarantine, upkeep
from firthd.store.blobs import BlobStore
from firthd.store.catalog import MirrorRow
from firthd.store.database import Database, Reader, Tx
from firthd.store.journal import Journal
from firthd.store.runs import RunRow
from firthd.systemd import Notifier
from firthd.upstream.client import Upstream
from firthd.upstream.known import Told
from firthd.upstream.source import host_of
from firthd.vitals import LoopSampler, Sample, page, rss_bytes

log = logging.getLogger(__name__)

NEXT_RUNS_SHOWN = 20
UPSTREAMS_SHOWN = 50
WAITS_TOLD_MS = 30_000
"""How long a run must have waited for a place before that counts as something to look at."""
LOOK_S = 1.0
"""How long a look at the disk holds: a disk that takes nothing is asked by writing."""
_DISK = "space"
"""The subject of what is wrong with the disk. It lives in memory: a full disk could not take the note."""
DAMAGE_TOLD_MS = 86_400_000
"""How long damaged files are told of when the right ones have come again: the disk may be about to fail."""
_SERVED = "nothing is changed, what is stored is served"
_MIRROR, _PUBLICATION, _POLICY = "mirror ", "publication of ", "policy of "
"""How the subjects of what is wrong begin."""


class Health:
    """How the daemon is."""

    def __init__(
        self,
        *,
        db: Database,
        journal: Journal,
        clock: Clock,
        space: SpaceGuard,
        blobs: BlobStore,
        upstream: Upstream,
        schedules: CronSchedules,
        sampler: LoopSampler,
        socket: Path,
        addresses: Callable[[], Sequence[str]],
        waiting: Callable[[], Sequence[Waiting]],
        check_indexes: Callable[[], Awaitable[list[str]]],
        also: Callable[[], HealthProblem | None],
    ) -> None:
        self._db = db
        self._journal = journal
        self._clock = clock
        self._space = space
        self._blobs = blobs
        self._upstream = upstream
        self._schedules = schedules
        self._sampler = sampler
        self._socket = socket
        self._addresses = addresses
        self._waiting = waiting
        self._check_indexes = check_indexes
        self._also = also
        self._freshness = Freshness(db, clock, schedules)
        self._started_at = clock.now_ms()
        self._numbers: tuple[float, Mapping[str, tuple[str, float]], Mapping[str, list[Sample]]] | None = None
        self._gathering = asyncio.Lock()
        self._disk: HealthProblem | None = None
        self._looked_at = -LOOK_S

    async def status(self, caller: Caller) -> DaemonStatus:
        """Return how the daemon is, as `daemon.status` shows it."""
        await self.look_at_disk()
        space = await self._space.now()

        patterns = caller.patterns()

        async def body(r: Reader) -> tuple[upkeep.Totals, list[HealthProblem], list[MirrorRow], str]:
            return (
                await upkeep.totals(r, patterns),
                await self._problems(r),
                await catalog.all_mirrors(r),
                await self._journal.as_of(r),
            )

        totals, problems, mirrors, as_of = await self._db.read(body)
        now = self._clock.now_ms()
        due = self._next_runs([mirror for mirror in mirrors if caller.sees(mirror.channel)], now)
        return DaemonStatus(
            program="firthd",
            version=__version__,
            api=API,
            started_at=rfc3339(self._started_at),
            uptime_s=(now - self._started_at) / 1000,
            now=rfc3339(now),
            pid=os.getpid(),
            role=caller.role,
            user=caller.user,
            addresses=list(self._addresses()),
            socket=str(self._socket),
            store=StoreStatus(bytes=totals.blob_bytes, blobs=totals.blobs, free=space.free, floor=space.floor),
            counts=Counts(
                channels=totals.channels,
                mirrors=totals.mirrors,
                runs_active=totals.runs_active,
                runs_pending=totals.runs_pending,
                artifacts=totals.artifacts,
            ),
            next_runs=due[:NEXT_RUNS_SHOWN],
            next_runs_total=len(due),
            health=[problem for problem in problems if _seen(caller, problem.subject)] + self._waits(caller, now),
            loop_lag=self._sampler.lag(),
            rss_bytes=rss_bytes(),
            throughput_bytes_s=self._upstream.rate_bytes_s(),
            upstreams=told_hosts(self._upstream.hosts(), caller, mirrors)[:UPSTREAMS_SHOWN],
            as_of=as_of,
        )

    def _waits(self, caller: Caller, now_ms: int) -> list[HealthProblem]:
        """Return what is to be said of runs that have waited long for a place; nothing is written down for it."""
        long = [one for one in self._waiting() if caller.sees(one.run.channel) and now_ms - one.since >= WAITS_TOLD_MS]
        if not long:
            return []
        first = long[0]
        who = f"{first.run.channel}:{first.run.mirror_name}"
        more = f", and {len(long) - 1} more" if len(long) > 1 else ""
        return [
            HealthProblem(
                subject="runs",
                text=f"run {first.run.id} of {who} waits for {first.reason}{more}",
                since=rfc3339(first.since),
                hint="they start by themselves; `runs.max_active` sets how many work at once",
            )
        ]

    def _next_runs(self, mirrors: list[MirrorRow], now_ms: int) -> list[NextRun]:
        enabled = [mirror for mirror in mirrors if mirror.enabled]
        # Most mirrors share their schedule, and cron takes its time.
        times = {text: self._schedules.next_due(text, now_ms) for text in {mirror.schedule for mirror in enabled}}
        due = []
        for mirror in enabled:
            at = times[mirror.schedule]
            if at is not None:
                due.append((at, mirror))
        due.sort(key=lambda pair: (pair[0], pair[1].id))
        return [
            NextRun(mirror=mirror.id, channel=mirror.channel, name=mirror.name, at=rfc3339(at)) for at, mirror in due
        ]

    async def check(self) -> list[tuple[str, bool, str]]:
        """Test the daemon itself: (what, whether it is well, a sentence)."""
        found = await self._db.read(upkeep.integrity)
        results = [("database", not found, "; ".join(found) or "SQLite finds nothing wrong")]
        try:
            writer = self._blobs.writer(size=5, sha256=None)
            writer.write(b"check")
            writer.abort()
            results.append(("store", True, "a file could be written and taken away again"))
        except OSError as error:
            results.append(("store", False, f"the store is not writable: {error.strerror}"))
        lost = await self._check_indexes()
        text = f"files were lost or damaged and are made anew: {', '.join(lost)}" if lost else "every file is there"
        results.append(("indexes", not lost, text))
        now = self._clock.now_ms()
        newest = await self._db.read(journal.newest_at)
        ahead = newest is not None and newest > now + 60_000
        results.append(("clock", not ahead, "the clock went back" if ahead else f"it is {rfc3339(now)}"))
        results.append(("sockets", bool(self._addresses()), f"{', '.join(self._addresses())}, {self._socket}"))
        return results

    async def health(self) -> list[HealthProblem]:
        return await self._db.read(self._problems)

    async def _problems(self, r: Reader) -> list[HealthProblem]:
        noted = [problem for problem in await journal.health(r) if problem.subject != _DISK]
        damage = damaged(await quarantine.tally(r), self._clock.now_ms())
        noted += [one for one in (damage, self._also()) if one is not None]
        return [self._disk, *noted] if self._disk is not None else noted

    async def metrics(self, seen: Callable[[str], bool]) -> bytes:
        """Return Prometheus' page as it is now, with the mirrors of channels that whoever asks may know of."""
        async with self._gathering:
            now = self._clock.monotonic()
            if self._numbers is None or now - self._numbers[0] >= LOOK_S:
                self._numbers = (now, await self._gather(), await self._freshness.numbers())
        _, values, mirrors = self._numbers
        samples = [one for channel, of_channel in mirrors.items() if seen(channel) for one in of_channel]
        return await asyncio.to_thread(page, values, samples)

    async def _gather(self) -> dict[str, tuple[str, float]]:
        totals = await self._db.read(lambda r: upkeep.totals(r))
        space = await self._space.now()
        lag = self._sampler.lag()
        return {
            "firth_channels": ("Channels", totals.channels),
            "firth_mirrors": ("Mirrors", totals.mirrors),
            "firth_runs_active": ("Runs at work", totals.runs_active),
            "firth_runs_pending": ("Runs that wait", totals.runs_pending),
            "firth_artifacts": ("Artifacts that mirrors offer", totals.artifacts),
            "firth_store_blobs": ("Files in the store", totals.blobs),
            "firth_store_bytes": ("Bytes in the store", totals.blob_bytes),
            "firth_store_free_bytes": ("Bytes free on the store's file system", space.free),
            "firth_store_floor_bytes": ("Bytes that stay free", space.floor),
            "firth_upstream_bytes_per_second": ("Bytes a second from all sources", self._upstream.rate_bytes_s()),
            "firth_resident_memory_bytes": ("Resident memory of the daemon", rss_bytes()),
            "firth_loop_stall_p99_seconds": ("Stall of the event loop, 99th percentile", lag.p99_ms / 1000),
            "firth_loop_stall_max_seconds": ("Longest stall of the event loop", lag.max_ms / 1000),
        }

    async def note_overdue(self) -> None:
        """Note which mirrors should have succeeded by now, and take back what is no longer so."""
        overdue = {one.subject: one.text for one in await self._freshness.overdue()}
        hint = "`run.list` tells what became of its runs; a disabled mirror is expected to do nothing"

        problems = await self._db.read(journal.health)
        noted = {one.subject: one.text for one in problems if one.subject.startswith(SUBJECT)}

        async def body(tx: Tx) -> None:
            for subject, text in overdue.items():
                if noted.get(subject) != text and await journal.ill(tx, subject, text, hint, self._clock.now_ms()):
                    await self._health_fact(tx, subject, text)
            for subject in noted.keys() - overdue.keys():
                await self._well(tx, subject)

        if overdue != noted:
            await self._db.write(body)

    async def answer_for(self, notifier: Notifier, interval_s: float) -> None:
        """Tell the service manager that the loop turns and the database answers, for as long as both are true."""
        while True:
            try:
                async with asyncio.timeout(interval_s):
                    # A refusal is an answer: starting again would not make room on a full disk.
                    with contextlib.suppress(NoSpace, Unavailable):
                        await self._db.read(journal.newest)
                    with contextlib.suppress(NoSpace, Unavailable):
                        await self._db.write(journal.newest)
            except TimeoutError:
                log.error("the state does not answer: too slow")  # the manager decides what follows
            else:
                notifier.alive()
            await self._clock.sleep(interval_s)

    async def run_ended(self, tx: Tx, row: RunRow) -> None:
        """Keep health in step with how runs end, inside the transaction that writes the end."""
        if row.kind is RunKind.MIRROR:
            subject = f"{_MIRROR}{row.channel}:{row.mirror_name}"
        elif row.kind is RunKind.REFILTER:
            subject = f"{_POLICY}{row.channel}:{row.mirror_name}"
        elif row.kind in {RunKind.PUBLISH, RunKind.ROLLBACK, RunKind.DELETE}:
            subject = f"{_PUBLICATION}{row.channel}"
        else:
            return
        now = self._clock.now_ms()
        if row.state is RunState.FAILED and row.error is not None and row.error.kind != Interrupted.kind:
            text = f"run {row.id} failed: {row.error.message}"
            if await journal.ill(tx, subject, text, row.error.hint, now):
                await self._health_fact(tx, subject, text)
        elif row.state is RunState.INCOMPLETE:
            text = f"run {row.id} is incomplete: {row.counts.failed:,} artifacts could not be had"
            if await journal.ill(tx, subject, text, "`mirror.details` lists each with its reason", now):
                await self._health_fact(tx, subject, text)
        elif row.state is RunState.COMPLETED:
            await self._well(tx, subject)
        if row.kind is RunKind.MIRROR and row.state in {RunState.COMPLETED, RunState.INCOMPLETE}:
            await self._well(tx, f"{SUBJECT}{row.channel}:{row.mirror_name}")
            await self._well(tx, f"{_POLICY}{row.channel}:{row.mirror_name}")  # it has judged by the policy in force
        done = row.state in {RunState.COMPLETED, RunState.INCOMPLETE}
        if done and row.channel_id is not None and not await generations.finished_change_sets(tx, row.channel_id):
            await self._well(tx, f"{_PUBLICATION}{row.channel}")  # what a failed one owed has come with this one

    async def _well(self, tx: Tx, subject: str) -> None:
        if await journal.well(tx, subject):
            await self._health_fact(tx, subject, None)

    async def _health_fact(self, tx: Tx, subject: str, text: str | None) -> None:
        channel = _channel_of(subject)
        ids = {} if channel is None else {"channel": channel}
        await self._journal.fact(tx, Fact.HEALTH_CHANGED, ids=ids, data={"subject": subject, "text": text})

    async def forget_gone(self) -> None:
        """Take back what was wrong with mirrors and channels that are no more, or have another name now."""

        async def gone(r: Reader) -> list[str]:
            there = {f"{_MIRROR}{mirror.channel}:{mirror.name}" for mirror in await catalog.all_mirrors(r)}
            there |= {f"{_POLICY}{mirror.channel}:{mirror.name}" for mirror in await catalog.all_mirrors(r)}
            there |= {f"{SUBJECT}{mirror.channel}:{mirror.name}" for mirror in await catalog.all_mirrors(r)}
            there |= {f"{_PUBLICATION}{channel.name}" for channel in await catalog.all_channels(r)}
            subjects = [problem.subject for problem in await journal.health(r)]
            return [subject for subject in subjects if _channel_of(subject) is not None and subject not in there]

        for subject in await self._db.read(gone):
            await self._db.write(partial(self._well, subject=subject))

    def limited(self) -> str | None:
        """Return what the disk keeps the daemon from doing, None when nothing: it serves all the same."""
        return self._disk.text if self._disk is not None else None

    async def watch_disk(self) -> None:
        """Look at the disk and tell whoever follows events of what has changed, as far as a full one lets us."""
        before = self.limited()
        await self.look_at_disk()
        if (before is None) != (self.limited() is None):
            log.warning("the disk: %s", self.limited() or "there is room again")
            with contextlib.suppress(FirthError):
                await self._db.write(lambda tx: self._health_fact(tx, _DISK, self.limited()))

    async def look_at_disk(self) -> None:
        """Note whether the disk takes writes and has the room that downloads need."""
        now = self._clock.monotonic()
        found: tuple[str, str] | None = None
        try:
            if now - self._looked_at >= LOOK_S:
                self._looked_at = now
                await self._db.look_again()
            space = await self._space.now()
        except OSError as error:
            found = (f"the disk does not answer: {error.strerror}", "look at the disk and its mount")
        else:
            if (refusal := self._db.refusal) is not None:
                found = (f"{refusal.text}; {_SERVED}", refusal.hint)
            elif (held := self._db.held) is not None:
                found = (f"{held.message}; {_SERVED}", held.hint)
            elif space.free < space.floor:
                free, floor = units.size(space.free), units.size(space.floor)
                found = (
                    f"{free} are free, {floor} must stay free: nothing is downloaded",
                    "free space on the store's file system",
                )
        since = rfc3339(self._clock.now_ms()) if self._disk is None else self._disk.since
        self._disk = HealthProblem(subject=_DISK, text=found[0], hint=found[1], since=since) if found else None


def damaged(tally: quarantine.Tally, now_ms: int) -> HealthProblem | None:
    """Return what is to be said of damaged files: as long as one waits for the right one, and a day after the last."""
    if not tally.waiting and now_ms - tally.newest_at >= DAMAGE_TOLD_MS:
        return None
    again = "the right ones have come again" if not tally.waiting else f"{tally.waiting:,} have not come again yet"
    return HealthProblem(
        subject="store",
        text=f"{tally.files:,} stored files were lost or damaged, {again}; the last: {tally.newest_reason}",
        since=rfc3339(tally.oldest_at),
        hint="look at the disk: `store.scrub` reads every file; `store.status` counts what lies in quarantine",
    )


def _channel_of(subject: str) -> str | None:
    """Return the channel that something wrong belongs to, None when it is the daemon's own."""
    for kind in (_MIRROR, _PUBLICATION, _POLICY, SUBJECT):
        if subject.startswith(kind):
            return subject.removeprefix(kind).partition(":")[0]
    return None


def _seen(caller: Caller, subject: str) -> bool:
    channel = _channel_of(subject)
    return channel is None or caller.sees(channel)


def told_hosts(hosts: Sequence[Told], caller: Caller, mirrors: Sequence[MirrorRow]) -> list[UpstreamHost]:
    """Return what a caller may know of hosts: who does not see every channel, those of the sources of his, no words."""
    everything = caller.patterns() is None
    own = {host_of(mirror.source) for mirror in mirrors if caller.sees(mirror.channel)}
    return [
        UpstreamHost(
            host=one.host,
            rate_bytes_s=one.rate_bytes_s,
            answers=one.answers,
            failures=one.failures,
            answered_at=maybe_rfc3339(one.answered_at),
            status=one.status,
            failed_at=maybe_rfc3339(one.failed_at),
            failure=one.failure if everything else "",
            fails=one.fails,
        )
        for one in hosts
        if everything or one.host in own
    ]
