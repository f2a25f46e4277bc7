"""The composition root: builds the daemon's rooms, starts them in order, and stops them in order."""

import asyncio
import contextlib
import gc
import logging
import os
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

from firth_protocol.errors import FirthError, Invalid, NoSpace, Unavailable
from firth_protocol.events import Fact
from firth_protocol.types import Family, RunKind
from firthd import __version__
from firthd.access import Access, WebTokens
from firthd.channels.blocks import Blocks
from firthd.channels.drops import Retention
from firthd.channels.manage import Channels
from firthd.channels.mend import Mender
from firthd.channels.needs import Needs
from firthd.channels.policies import Policies
from firthd.channels.publish import Publisher
from firthd.channels.published import Published
from firthd.channels.showcase import Showcase
from firthd.channels.tokens import Tokens
from firthd.channels.usage import Usage
from firthd.clock import Clock, SystemClock
from firthd.config import Settings
from firthd.doors import web_listeners
from firthd.engine import Engine
from firthd.events import EventHub
from firthd.families import families as all_families
from firthd.families.base import FamilyRules
from firthd.health import Health
from firthd.mirrors.caretakers import caretakers
from firthd.mirrors.context import Context
from firthd.mirrors.deliveries import Deliveries, helpers
from firthd.mirrors.dropped_pages import DroppedPages
from firthd.mirrors.governance import governance
from firthd.mirrors.installation import Installations
from firthd.mirrors.manage import Mirrors
from firthd.mirrors.on_demand import OnDemand
from firthd.mirrors.pages import LazyPages
from firthd.mirrors.publish_run import PublishRuns
from firthd.mirrors.report import Finder, Reports
from firthd.mirrors.run import MirrorRuns
from firthd.mirrors.source import Locator
from firthd.mirrors.space import SpaceGuard
from firthd.mirrors.take_in import TakeIn
from firthd.notify.notifications import Notifications
from firthd.rpc.dispatch import Dispatcher
from firthd.rpc.handlers import handlers
from firthd.rpc.server import RpcServer
from firthd.runs.queue import RunQueue
from firthd.scheduler import CronSchedules, Scheduler
from firthd.serving import raise_file_limit, rpc_limits, web_limits
from firthd.settling import Settling
from firthd.store import folder, journal, tokens, upkeep
from firthd.store.audit import AuditLog
from firthd.store.blobs import BlobStore
from firthd.store.database import Database
from firthd.store.journal import Journal
from firthd.store.object_store import ObjectStore
from firthd.store.opening import SchemaTooNew
from firthd.store.partials import Partials
from firthd.store.quarantine import Room
from firthd.store.repairs import Repairs
from firthd.store.scribe import Scribe
from firthd.store.secrets import SecretFile
from firthd.store.together import Together
from firthd.systemd import Inherited, Notifier, credentials_folder, take_notifier, watchdog_interval_s
from firthd.upkeep import Upkeep
from firthd.upstream.client import Upstream
from firthd.upstream.hosts import lane_limit
from firthd.upstream.proxies import NO_PROXIES, Proxies, from_environment
from firthd.vitals import LoopSampler
from firthd.web.app import build_app, serving
from firthd.web.context import WebContext
from firthd.workers import Workers, memory_for

log = logging.getLogger(__name__)

COLLECTED_FROM = 5_000
"""Objects that have come since the last look for circles of them; Python's own 700 make a run look 80 times."""
WATCH_S = 2.0


class Daemon:
    """The daemon's rooms; `start` opens them, `serve` keeps them at work, `stop` closes them."""

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        sockets: Inherited,
        notifier: Notifier,
        families: Callable[[], Mapping[Family, FamilyRules]] = all_families,
        proxies: Proxies = NO_PROXIES,
    ) -> None:
        self._families, self._proxies = families, proxies
        self.settings = settings
        self._clock = clock
        self._sockets = sockets
        self._notifier = notifier
        self._stack = contextlib.AsyncExitStack()
        self._ready = False
        self._stopping = False
        self._files = raise_file_limit()
        self.sampler = LoopSampler(clock)
        self.web_addresses: list[str] = []
        self._trouble: str | None = "starting"

    # --- start ------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Open the state, recover what a crash left, and listen. Raises InUse, SchemaTooNew, OSError."""
        state = self.settings.state
        self._stack.callback(os.close, await asyncio.to_thread(folder.prepare, state))
        self.db = await Database.open(state / "firth.sqlite", self._clock)
        self._stack.push_async_callback(self.db.close)
        epoch = await self.db.read(lambda r: journal.setting(r, "epoch")) or os.urandom(6).hex()
        self.journal = Journal(epoch, self._clock)
        self.hub = EventHub(
            epoch,
            self._clock,
            lambda after, limit: self.db.read(lambda r: self.journal.after(r, after, limit)),
            lambda: self.db.read(journal.span),
        )
        self.journal.publish = self.hub.publish
        await self._build(state)
        await self.settling.settle()
        await self.published.load()
        await self.blocks.load()
        await self.policies.load()
        await self.tokens.load()
        if self.settling.done:
            await self.keepers.damage.after_restoring()
        self._ready = True
        self._trouble = None
        await self._listen()

    async def _build(self, state: Path) -> None:
        settings, clock, db = self.settings, self._clock, self.db
        families = await asyncio.to_thread(self._families)  # it imports what is large
        self.blobs = BlobStore(
            state / "blobs",
            upkeep.naming(db, clock),
            lambda kept: db.write(lambda tx: upkeep.give(tx, kept)),
            Together(state / "blobs", clock),
            Scribe(state / "blobs"),
        )
        self.rendered = BlobStore(state / "rendered")
        for store in (self.blobs, self.rendered):
            await asyncio.to_thread(store.prepare)
            self._stack.push_async_callback(store.close)
        self.secrets = SecretFile(state / "secrets.json", credentials_folder(os.environ))
        await asyncio.to_thread(self.secrets.load)
        self.upstream = Upstream(settings.upstream, clock, proxies=self._proxies)
        await self.upstream.start()
        self._stack.push_async_callback(self.upstream.close)
        self.space = SpaceGuard(self.blobs, settings.store.floor_percent, clock)
        grace_ms = settings.store.grace_ms
        self.blocks = Blocks(db, families)
        self.policies = Policies(db, clock, families, state / "judgements", self.blocks)
        self.published = Published(db, clock, grace_ms, self.policies.refuse, self.policies.refuse_absent)
        self.objects = ObjectStore(db, self.rendered, clock)
        retention = Retention(db, self.objects, self.published, clock, grace_ms)
        deliveries = Deliveries(db, self.blobs, self.published.forget_files, families)
        self.on_demand = OnDemand(
            self.upstream,
            self.blobs,
            clock,
            helpers(Locator(db, self.secrets, families), deliveries, self.space, families),
            per_host=lane_limit(settings.upstream.connections_per_host),
        )
        self._stack.push_async_callback(self.on_demand.close)
        self.schedules = CronSchedules()
        self.health = Health(
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
            waiting=lambda: self.queue.waiting(),
            check_indexes=lambda: self.keepers.damage.check_indexes(),
            also=lambda: self.notifications.problem(),
        )
        self.notifications = Notifications(db, clock, settings.notify, self.health.health)
        slots = settings.runs.index_workers or min(2, os.cpu_count() or 1)
        self.workers = Workers(slots, clock, memory_bytes=memory_for(settings.upstream.max_index_bytes))
        at_once, resume = settings.runs.max_active, settings.runs.resume_interrupted
        self.queue = RunQueue(db, self.journal, self.hub, clock, max_active=at_once, resume=resume)
        publisher = Publisher(
            db, self.journal, clock, self.workers, self.objects, self.published, retention, families, state / "sources"
        )
        rooms = {Room.BLOBS: self.blobs, Room.RENDERED: self.rendered}
        repairs = Repairs(db, self.journal, clock, rooms, self.published.forget_files)
        mender = Mender(db, self.workers, self.objects, repairs, publisher, self.published, families)
        context = Context(
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
            mender=mender,
            blocks=self.blocks,
            policies=self.policies,
            on_demand=self.on_demand,
            partials=Partials(self.blobs, clock),
            families=families,
            state=state,
            max_part_bytes=settings.upstream.max_index_bytes,
        )
        publications = PublishRuns(context)
        self.take_in = TakeIn(context)
        self.keepers = caretakers(context, repairs, self.take_in, rooms, settings, self.published.forget_files)
        self.runs = MirrorRuns(context, publications, self.keepers.fills)
        self.governance = governance(context, self.runs)
        self.pages = LazyPages(context, self.published.forget_files, grace_ms, ttl_s=settings.upstream.page_ttl_s)
        await self.pages.prepare()
        self._stack.push_async_callback(self.pages.close)
        self.queue.connect(
            {
                RunKind.MIRROR: DroppedPages(context, self.pages).behind(self.runs.mirror),
                RunKind.PLAN: self.runs.plan,
                RunKind.PUBLISH: publications.publish,
                RunKind.ROLLBACK: publications.rollback,
                **self.keepers.executors(),
                **self.governance.executors(),
            },
            self.notifications.beside(self.health.run_ended),
        )
        reports = Reports(db, clock, self.queue, self.policies, self.schedules.next_due)
        self.mirrors = Mirrors(
            db=db,
            journal=self.journal,
            clock=clock,
            queue=self.queue,
            runs=self.runs,
            take_in=self.take_in,
            reports=reports,
            secrets=self.secrets,
            blocks=self.blocks,
            upstream=self.upstream,
            policies=self.policies,
            families=families,
            schedules=self.schedules,
        )
        start = self.mirrors.run
        self.scheduler = Scheduler(db, clock, self.schedules, lambda m, cause: start(m.id, "schedule", cause=cause))
        self.tokens = WebTokens(
            lambda: db.read(tokens.in_force), lambda used: db.write(lambda tx: tokens.touch(tx, used)), clock
        )
        self.usage = Usage(db, clock)
        self.upkeep = Upkeep(
            governor=self.governance.governor,
            db=db,
            clock=clock,
            blobs=self.blobs,
            objects=self.objects,
            take_in=self.take_in,
            tokens=self.tokens,
            health=self.health,
            keepers=self.keepers,
            usage=self.usage,
            settings=settings.store,
        )
        self.settling = Settling(db, self.journal, clock, self.queue, self.upkeep.note_named)
        channels = Channels(db, self.journal, clock, self.queue, publisher, self.published, self.policies, families)
        self.engine = Engine(
            governance=self.governance,
            installations=Installations(context, channels, self.mirrors, self.governance, self.schedules, AuditLog(db)),
            db=db,
            journal=self.journal,
            clock=clock,
            queue=self.queue,
            channels=channels,
            mirrors=self.mirrors,
            reports=reports,
            keepers=self.keepers,
            tokens=Tokens(db, self.journal, clock, self.tokens),
            usage=self.usage,
            needs=Needs(db, self.blobs.path, families),
            notifications=self.notifications,
            families=families,
            base_url=self.base_url,
            status=self.health.status,
            coming=self.schedules.coming,
            check=self.health.check,
        )

    async def _listen(self) -> None:
        access = Access(self.settings.access, os.geteuid())
        finder, audit = Finder(self.db, self.queue), AuditLog(self.db)
        dispatcher = Dispatcher(handlers(self.engine), access, finder, audit.open, self._clock)
        self._rpc = RpcServer(
            dispatcher,
            access,
            self.hub,
            self.health.metrics,
            lambda: self._ready and not self._stopping,
            clock=self._clock,
            limits=rpc_limits(self._files),
        )
        app = build_app(
            WebContext(
                published=self.published,
                blobs=self.blobs,
                rendered=self.rendered,
                on_demand=self.on_demand,
                pages=self.pages,
                tokens=self.tokens,
                settings=self.settings.web,
                clock=self._clock,
                state=self.settings.state,
                families=self.engine.families,
                showcase=Showcase(
                    self.db, self.engine.families, self.engine.needs, self.pages, takes=self.policies.takes
                ),
                health=lambda: self._trouble,
                limited=self.health.limited,
                metrics=self.health.metrics,
                package_lost=self.keepers.damage.package,
                asked=self.keepers.unused.note,
                index_lost=self.keepers.damage.index,
                index_kept=self.objects.kept,
                downloaded=self.usage.note,
                changes=lambda: self.db.changes,
            )
        )
        listeners = web_listeners(self._sockets.web, self.settings.web.listen)
        for listener in listeners:
            host, port = listener.getsockname()[:2]
            self.web_addresses.append(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")
        server = serving(app, self.settings.web, web_limits(self._files), self._clock)
        self._stack.push_async_callback(self.usage.close)  # after the last client
        await server.start(listeners)
        self._stack.push_async_callback(server.stop)
        self._stack.push_async_callback(self._rpc.stop)
        await self._listen_to_callers()
        self._stack.push_async_callback(self._leave_in_order)

    async def _listen_to_callers(self) -> None:
        """Open the Unix socket; where the disk has no inode for it that waits, and packages are served."""
        try:
            await self._rpc.start(self._sockets.rpc[0] if self._sockets.rpc else self.settings.socket)
        except (NoSpace, Unavailable) as error:
            log.error("%s cannot be made: %s", self.settings.socket, error.message)

    # --- at work ------------------------------------------------------------------------------------------

    async def serve(self, stop: asyncio.Event, watchdog_s: float | None = None) -> None:
        """Work until `stop` is set, then end runs in order."""
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self.settling.once(self.queue.serve), name="queue"),
                group.create_task(self.settling.once(self.scheduler.serve), name="scheduler"),
                group.create_task(self.settling.once(self.upkeep.serve), name="upkeep"),
                group.create_task(self.settling.once(self.usage.serve), name="usage"),
                group.create_task(self.notifications.serve(), name="notify"),  # a full disk is to be told, too
                group.create_task(self.workers.keep_ready(), name="workers"),
                group.create_task(self.sampler.serve(), name="sampler"),
                group.create_task(self._watch(), name="watch"),
            ]
            if watchdog_s is not None:
                tasks.append(group.create_task(self.health.answer_for(self._notifier, watchdog_s / 2), name="watchdog"))
            await stop.wait()
            self._stopping = True
            self._trouble = "stopping"
            if self._sockets.rpc:
                self._rpc.accept_nobody()
            with contextlib.suppress(FirthError):
                await self.db.write(lambda tx: self.journal.fact(tx, Fact.DAEMON_STOPPING))
            for task in tasks:
                task.cancel()

    async def stop(self) -> None:
        """Close what `start` opened, in reverse order."""
        self._stopping = True
        await self._stack.aclose()

    async def _leave_in_order(self) -> None:
        """End what follows the daemon, and note that it has ended in order."""
        self.hub.close()
        with contextlib.suppress(FirthError):
            await self.tokens.flush()
        if self.upkeep.blobs_named:
            await self.settling.leave()

    async def _watch(self) -> None:
        """Look at the disk, and make up for what it kept from being done; nothing else delays this."""
        while True:
            await self.health.watch_disk()
            if not self._rpc.started:
                await self._listen_to_callers()
            await self.settling.make_up()
            await self._clock.sleep(WATCH_S)

    # --- what others ask -------------------------------------------------------------------------------------

    def base_url(self) -> str:
        """Return the address that clients are told."""
        return (self.settings.web.public_url or self.web_addresses[0]).rstrip("/")


@contextlib.asynccontextmanager
async def running(
    settings: Settings,
    *,
    clock: Clock | None = None,
    sockets: Inherited | None = None,
    notifier: Notifier | None = None,
    watchdog_s: float | None = None,
    families: Callable[[], Mapping[Family, FamilyRules]] = all_families,
    proxies: Proxies = NO_PROXIES,
) -> AsyncIterator[Daemon]:
    """Give a daemon that works for as long as the block lasts."""
    clock, notifier = clock or SystemClock(), notifier or Notifier(None)
    daemon = Daemon(settings, clock, sockets or Inherited(), notifier, families, proxies)
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
    """Run the daemon until `stop` is set; tell the service manager when it is ready, alive and stopping.

    Raises Invalid where somebody must act before it can start, InUse, NoSpace and Unavailable where that may pass.
    """
    notifier = take_notifier(os.environ)
    beat_s, proxies = watchdog_interval_s(os.environ, os.getpid()), from_environment(os.environ)
    try:
        async with running(settings, sockets=sockets, notifier=notifier, watchdog_s=beat_s, proxies=proxies) as daemon:
            log.info("firthd %s is ready: %s, %s", __version__, daemon.base_url(), settings.socket)
            notifier.ready(f"serving on {daemon.base_url()}")
            # A run makes many objects, and few circles: of what lives as long as the daemon none are looked for.
            gc.freeze()
            gc.set_threshold(COLLECTED_FROM)
            await stop.wait()
            notifier.stopping()
            log.info("firthd stops")
    except SchemaTooNew as error:
        raise Invalid(str(error)) from error
