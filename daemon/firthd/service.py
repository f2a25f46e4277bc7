"""The composition root: builds the daemon's rooms, starts them in order, and stops them in order."""

import asyncio
import contextlib
import fcntl
import logging
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TextIO

from aiohttp import web

from firth_protocol import API
from firth_protocol.errors import FirthError, InUse
from firth_protocol.events import Fact
from firth_protocol.types import Cause, Family, Package, RunKind
from firthd import __version__
from firthd.access import Access, WebTokens
from firthd.channels import browse
from firthd.channels.manage import Channels
from firthd.channels.publish import Publisher
from firthd.channels.published import Published
from firthd.clock import Clock, SystemClock
from firthd.condition import Condition
from firthd.config import Settings, parse_listen
from firthd.engine import Engine
from firthd.events import EventHub
from firthd.families import families as all_families
from firthd.mirrors.deliveries import Deliveries
from firthd.mirrors.find import find
from firthd.mirrors.manage import Mirrors
from firthd.mirrors.on_demand import Helpers, OnDemand
from firthd.mirrors.parts import Parts
from firthd.mirrors.publications import PublishRuns
from firthd.mirrors.report import Reports
from firthd.mirrors.run import MirrorRuns
from firthd.mirrors.settle import Settle
from firthd.mirrors.source import Locator
from firthd.mirrors.space import SpaceGuard
from firthd.rpc.dispatch import Dispatcher
from firthd.rpc.handlers import handlers
from firthd.rpc.server import RpcServer
from firthd.runs import recovery
from firthd.runs.queue import RunQueue
from firthd.scheduler import CronSchedules, Scheduler
from firthd.store import catalog, generations, journal, tokens, upkeep
from firthd.store import runs as run_rows
from firthd.store.blobs import BlobStore, Kept
from firthd.store.catalog import MirrorRow
from firthd.store.database import Database, Tx
from firthd.store.journal import Journal
from firthd.store.secrets import SecretFile
from firthd.systemd import Inherited, Notifier, take_notifier, watchdog_interval_s
from firthd.upstream.client import Upstream
from firthd.vitals import LoopSampler
from firthd.web.app import build_app, build_runner
from firthd.web.parts import WebParts
from firthd.workers import Workers

log = logging.getLogger(__name__)

DAY_MS = 86_400_000
UPKEEP_S = 60.0
LOGS_KEPT_MS = 90 * DAY_MS
PACKAGES_SHOWN = 100
_AT_WORK = "at work"
"""The setting that is there while a daemon works, so that the next one sees whether it ended in order."""


class Daemon:
    """The daemon's rooms; `start` opens them, `serve` keeps them at work, `stop` closes them."""

    def __init__(self, settings: Settings, clock: Clock, sockets: Inherited, notifier: Notifier) -> None:
        self.settings = settings
        self._clock = clock
        self._sockets = sockets
        self._notifier = notifier
        self._stack = contextlib.AsyncExitStack()
        self._ready = False
        self._stopping = False
        self._blobs_named = False
        self.sampler = LoopSampler(clock)
        self.web_addresses: list[str] = []
        self._trouble: str | None = "starting"

    # --- start ------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Open the state, recover what a crash left, and listen. Raises InUse, SchemaTooNew, OSError."""
        state = self.settings.state
        await asyncio.to_thread(self._prepare, state)
        self.db = await Database.open(state / "firth.sqlite", self._clock)
        self._stack.push_async_callback(self.db.close)
        epoch = await self._epoch()
        self.journal = Journal(epoch, self._clock)
        self.hub = EventHub(
            epoch,
            self._clock,
            lambda after, limit: self.db.read(lambda r: self.journal.after(r, after, limit)),
            lambda: self.db.read(journal.span),
        )
        self.journal.publish = self.hub.publish
        await self._build(state)
        await self._recover()
        await self._listen()
        await self.db.write(
            lambda tx: self.journal.fact(tx, Fact.DAEMON_STARTED, data={"version": __version__, "api": API})
        )
        self._blobs_named = not await self.db.write(self._note_at_work)
        self._ready = True
        self._trouble = None

    def _prepare(self, state: Path) -> None:
        for folder in (state, state / "sources", state / "runs", state / "out"):
            folder.mkdir(parents=True, exist_ok=True, mode=0o750)
        self._lock = _lock(state)

    async def _epoch(self) -> str:
        async def body(tx: Tx) -> str:
            epoch = await journal.setting(tx, "epoch")
            if epoch is None:
                epoch = os.urandom(6).hex()
                await journal.set_setting(tx, "epoch", epoch)
            return epoch

        return await self.db.write(body)

    async def _note_at_work(self, tx: Tx) -> bool:
        """Note that a daemon works on this state; return whether the last one did not end in order."""
        cut_off = bool(await journal.setting(tx, _AT_WORK))
        await journal.set_setting(tx, _AT_WORK, "1")
        return cut_off

    async def _build(self, state: Path) -> None:
        settings, clock, db = self.settings, self._clock, self.db
        families = await asyncio.to_thread(all_families)  # it imports what is large

        async def name_blobs(kept: list[Kept]) -> None:
            await db.write(lambda tx: upkeep.name_blobs(tx, kept, clock.now_ms()))

        self.blobs = BlobStore(state / "blobs", name_blobs, lambda kept: db.write(lambda tx: upkeep.give(tx, kept)))
        self.rendered = BlobStore(state / "rendered")
        for store in (self.blobs, self.rendered):
            await asyncio.to_thread(store.prepare)
            self._stack.push_async_callback(store.close)
        self.secrets = SecretFile(state / "secrets.json")
        await asyncio.to_thread(self.secrets.load)
        self.upstream = Upstream(settings.upstream, clock)
        await self.upstream.start()
        self._stack.push_async_callback(self.upstream.close)
        self.space = SpaceGuard(self.blobs, settings.store.floor_percent, clock)
        locator = Locator(db, self.secrets, families)
        self.published = Published(db, self.rendered, clock, settings.store.grace_days * DAY_MS)
        conda = families[Family.CONDA]
        deliveries = Deliveries(db, self.blobs, self.published.forget_files)
        self.on_demand = OnDemand(
            self.upstream,
            self.blobs,
            clock,
            Helpers(
                locate=locator.locate,
                space=self.space.enough,
                check_archive=conda.check_archive,
                present=deliveries.present,
                stored=deliveries.stored,
            ),
        )
        self._stack.push_async_callback(self.on_demand.close)
        self.schedules = CronSchedules()
        self.condition = Condition(
            db=db,
            journal=self.journal,
            clock=clock,
            space=self.space,
            blobs=self.blobs,
            upstream=self.upstream,
            schedules=self.schedules,
            sampler=self.sampler,
            socket=settings.socket,
            addresses=lambda: self.web_addresses,
        )
        self.workers = Workers(settings.runs.index_workers, clock)
        self.queue = RunQueue(
            db,
            self.journal,
            self.hub,
            clock,
            max_active=settings.runs.max_active,
            resume=settings.runs.resume_interrupted,
        )
        publisher = Publisher(db, self.journal, clock, self.workers, self.rendered, self.published, families)
        parts = Parts(
            db=db,
            journal=self.journal,
            clock=clock,
            queue=self.queue,
            workers=self.workers,
            upstream=self.upstream,
            blobs=self.blobs,
            space=self.space,
            secrets=self.secrets,
            publisher=publisher,
            on_demand=self.on_demand,
            families=families,
            state=state,
        )
        publications = PublishRuns(parts)
        self.runs = MirrorRuns(parts, publications)
        self.settle = Settle(parts)
        self.queue.connect(
            {
                RunKind.MIRROR: self.runs.mirror,
                RunKind.PLAN: self.runs.plan,
                RunKind.PUBLISH: publications.publish,
                RunKind.ROLLBACK: publications.rollback,
            },
            self.condition.run_ended,
        )
        reports = Reports(db, clock, self.queue, families, self.schedules.next_due)
        self.mirrors = Mirrors(
            db=db,
            journal=self.journal,
            clock=clock,
            queue=self.queue,
            runs=self.runs,
            settle=self.settle,
            reports=reports,
            secrets=self.secrets,
            upstream=self.upstream,
            families=families,
            schedules=self.schedules,
        )
        self.scheduler = Scheduler(db, clock, self.schedules, self._start_due)
        self.tokens = WebTokens(
            lambda: db.read(tokens.in_force), lambda used: db.write(lambda tx: tokens.touch(tx, used)), clock
        )
        self.engine = Engine(
            db=db,
            journal=self.journal,
            clock=clock,
            queue=self.queue,
            channels=Channels(db, self.journal, clock, self.queue, publisher, self.published, families),
            mirrors=self.mirrors,
            reports=reports,
            tokens=self.tokens,
            families=families,
            base_url=self.base_url,
            status=self.condition.status,
            check=self.condition.check,
        )

    async def _recover(self) -> None:
        await self.db.write(generations.abandon_open)
        for sentence in await recovery.recover(
            self.db, self.queue, self._clock, resume=self.settings.runs.resume_interrupted
        ):
            log.warning(sentence)
        await self.db.write(self._render_anew)
        await self.published.load()
        await self.tokens.load()

    async def _render_anew(self, tx: Tx) -> None:
        """Queue the publication of each channel whose indexes a migration found wrong."""
        for channel in await catalog.all_to_render_anew(tx):
            await self.queue.submit(
                tx,
                RunKind.PUBLISH,
                channel_id=channel.id,
                channel=channel.name,
                cause="its index listed files twice",
                by="firthd",
                params={"cause": Cause.REMOVAL},
            )

    async def _listen(self) -> None:
        access = Access(self.settings.access, os.geteuid())
        dispatcher = Dispatcher(handlers(self.engine), access, self, self._audit, self._clock)
        self._rpc = RpcServer(
            dispatcher, access, self.hub, self.condition.scrape, lambda: self._ready and not self._stopping
        )
        app = build_app(
            WebParts(
                published=self.published,
                blobs=self.blobs,
                rendered=self.rendered,
                on_demand=self.on_demand,
                tokens=self.tokens,
                settings=self.settings.web,
                clock=self._clock,
                state=self.settings.state,
                absent_index=self.engine.families[Family.CONDA].absent_index,
                packages=self._packages,
                health=lambda: self._trouble,
                metrics=self.condition.metrics,
            )
        )
        runner = build_runner(app)
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        for listener in self._sockets.web or [await self._bind()]:
            await web.SockSite(runner, listener).start()
            host, port = listener.getsockname()[:2]
            self.web_addresses.append(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")
        await self._rpc.start(self._sockets.rpc[0] if self._sockets.rpc else self.settings.socket)
        self._stack.push_async_callback(self._rpc.stop)

    async def _bind(self) -> socket.socket:
        host, port = parse_listen(self.settings.web.listen)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            listener.listen(512)
        except OSError as error:
            listener.close()
            raise InUse(
                f"cannot listen on {self.settings.web.listen}: {error.strerror}",
                hint="give another address with --listen, FIRTH_LISTEN or [web] listen",
            ) from None
        listener.setblocking(False)
        return listener

    # --- at work ------------------------------------------------------------------------------------------

    async def serve(self, stop: asyncio.Event, watchdog_s: float | None = None) -> None:
        """Work until `stop` is set, then end runs in order."""
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self.queue.serve(), name="queue"),
                group.create_task(self.scheduler.serve(), name="scheduler"),
                group.create_task(self.sampler.serve(), name="sampler"),
                group.create_task(self._upkeep(), name="upkeep"),
            ]
            if watchdog_s is not None:
                tasks.append(group.create_task(self._watchdog(watchdog_s / 2), name="watchdog"))
            await stop.wait()
            self._stopping = True
            self._trouble = "stopping"
            with contextlib.suppress(FirthError):
                await self.db.write(lambda tx: self.journal.fact(tx, Fact.DAEMON_STOPPING))
            for task in tasks:
                task.cancel()

    async def stop(self) -> None:
        """Close what `start` opened, in reverse order."""
        self._stopping = True
        if hasattr(self, "hub"):
            self.hub.close()
        with contextlib.suppress(FirthError):
            if hasattr(self, "tokens"):
                await self.tokens.flush()
            if self._ready and self._blobs_named:
                await self.db.write(lambda tx: journal.set_setting(tx, _AT_WORK, ""))
        await self._stack.aclose()
        if hasattr(self, "_lock"):
            self._lock.close()

    async def _watchdog(self, interval_s: float) -> None:
        """Tell the service manager that the loop turns and the database answers, for as long as both are true."""
        while True:
            try:
                async with asyncio.timeout(interval_s):
                    await self.db.read(journal.newest)
                    await self.db.write(journal.newest)
            except (FirthError, TimeoutError) as error:
                log.error("the state does not answer: %s", error or "too slow")  # the manager decides what follows
            else:
                self._notifier.alive()
            await self._clock.sleep(interval_s)

    async def _upkeep(self) -> None:
        """Do, now and then, what keeps the state small and the status true."""
        while True:
            try:
                if not self._blobs_named:
                    await self._name_blobs()
                await self._tidy()
            except FirthError as error:
                log.warning("upkeep: %s", error.message)
            await self._clock.sleep(UPKEEP_S)

    async def _name_blobs(self) -> None:
        """Give every stored file its row: kill -9 may have come between a file's name and its row."""
        for first in range(256):
            await self.blobs.name(await asyncio.to_thread(self.blobs.listed, f"{first:02x}"))
        await upkeep.forget_unfinished(self.db)
        self._blobs_named = True

    async def _tidy(self) -> None:
        await self.settle.discard_abandoned()
        await self.settle.forget_deleted()
        await self.settle.forget_ended()
        await upkeep.purge_deleted(self.db)
        now = self._clock.now_ms()
        await self.db.write(lambda tx: journal.forget_old_events(tx, now))
        await self.db.write(lambda tx: run_rows.forget_old_logs(tx, now - LOGS_KEPT_MS))
        await self.tokens.flush()
        await self.condition.forget_gone()
        await self.condition.watch_space()
        await self.condition.gather()

    # --- what others ask -------------------------------------------------------------------------------------

    def base_url(self) -> str:
        """Return the address that clients are told."""
        return (self.settings.web.public_url or self.web_addresses[0]).rstrip("/")

    async def by_mirror(self, ref: int | str) -> str:
        return (await self.db.read(lambda r: find(r, ref))).channel

    async def by_run(self, run: int) -> str:
        return (await self.queue.row(run)).channel

    async def _packages(self, channel: str, query: str) -> tuple[list[Package], int]:
        """Return the first packages whose name holds a text, for a channel's page."""
        found, _, total = await self.db.read(
            lambda r: browse.packages_page(
                r,
                channel,
                family=None,
                query=query or None,
                platform=None,
                state=None,
                sort="name",
                cursor=None,
                limit=PACKAGES_SHOWN,
            )
        )
        return found, total

    async def _audit(self, entry: journal.Audited) -> None:
        await self.db.write(lambda tx: journal.audit(tx, entry))

    async def _start_due(self, mirror: MirrorRow, cause: str) -> None:
        await self.mirrors.run(mirror.id, "schedule", cause=cause)


def _lock(state: Path) -> TextIO:
    """Take the state folder's lock; raise InUse, which names the daemon that has it."""
    file = (state / "lock").open("a+", encoding="ascii")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        pid = file.read().strip() or "unknown"
        file.close()
        raise InUse(
            f"another firthd (pid {pid}) works on {state}", hint="stop it, or give another folder with --state"
        ) from None
    file.seek(0)
    file.truncate()
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file


@contextlib.asynccontextmanager
async def running(
    settings: Settings,
    *,
    clock: Clock | None = None,
    sockets: Inherited | None = None,
    notifier: Notifier | None = None,
    watchdog_s: float | None = None,
) -> AsyncIterator[Daemon]:
    """Give a daemon that works for as long as the block lasts."""
    daemon = Daemon(settings, clock or SystemClock(), sockets or Inherited(), notifier or Notifier(None))
    stop = asyncio.Event()
    try:
        await daemon.start()
        failure: Exception | None = None
        async with asyncio.TaskGroup() as group:
            group.create_task(daemon.serve(stop, watchdog_s), name="daemon")
            try:
                yield daemon
            except Exception as error:  # the block's own error is raised as it is, not in a group
                failure = error
            finally:
                stop.set()
        if failure is not None:
            raise failure
    finally:
        await daemon.stop()


async def serve(settings: Settings, sockets: Inherited, stop: asyncio.Event) -> None:
    """Run the daemon until `stop` is set; tell the service manager when it is ready, alive and stopping."""
    notifier = take_notifier(os.environ)
    watchdog_s = watchdog_interval_s(os.environ, os.getpid())
    async with running(settings, sockets=sockets, notifier=notifier, watchdog_s=watchdog_s) as daemon:
        log.info("firthd %s is ready: %s, %s", __version__, daemon.base_url(), settings.socket)
        notifier.ready(f"serving on {daemon.base_url()}")
        await stop.wait()
        notifier.stopping()
        log.info("firthd stops")
