"""The only place that knows the chores which keep the state small and its numbers true, each with its own try."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from firth_protocol.errors import FirthError
from firthd.access import WebTokens
from firthd.channels.history import History
from firthd.channels.usage import Usage
from firthd.clock import Clock
from firthd.config import StoreSettings
from firthd.health import Health
from firthd.mirrors.caretakers import Caretakers
from firthd.mirrors.govern import Governor
from firthd.mirrors.take_in import TakeIn
from firthd.store import disk, journal, pages, runs, upkeep
from firthd.store.blobs import BlobStore
from firthd.store.database import Database
from firthd.store.object_store import ObjectStore

log = logging.getLogger(__name__)

UPKEEP_S = 60.0

Chore = tuple[str, Callable[[], Awaitable[object]]]


class Upkeep:
    """Does every chore now and then; one that fails keeps none of the others from being done."""

    def __init__(
        self,
        *,
        db: Database,
        clock: Clock,
        blobs: BlobStore,
        objects: ObjectStore,
        take_in: TakeIn,
        tokens: WebTokens,
        health: Health,
        keepers: Caretakers,
        governor: Governor,
        usage: Usage,
        settings: StoreSettings,
    ) -> None:
        self._governor = governor
        self._db = db
        self._clock = clock
        self._blobs = blobs
        self._objects = objects
        self._take_in = take_in
        self._tokens = tokens
        self._health = health
        self._keepers = keepers
        self._usage = usage
        self._history = History(db, clock, settings)
        self.blobs_named = True
        """False: a daemon was killed on this state, maybe between a file's name and its row."""

    def note_named(self, named: bool) -> None:
        """Take note whether every stored file has its row, as it has where the last daemon ended in order."""
        self.blobs_named = named

    async def serve(self) -> None:
        """Work until cancelled."""
        while True:
            await self.round()
            await self._clock.sleep(UPKEEP_S)

    async def round(self) -> None:
        """Do every chore once."""
        for name, chore in self._chores():
            try:
                await chore()
            except FirthError as error:
                log.warning("upkeep: %s: %s", name, error.message)
            except OSError as error:
                told = disk.told(error)
                log.warning("upkeep: %s: %s", name, told.message if told else error)
            except Exception:
                log.exception("upkeep: %s failed unforeseen", name)

    def _chores(self) -> list[Chore]:
        return [
            ("taking away half a backup", self._clear_backups),
            ("naming stored files", self._name_blobs),
            ("discarding what was abandoned", self._take_in.discard_abandoned),
            ("forgetting deleted mirrors", self._take_in.forget_deleted),
            ("forgetting ended runs", self._take_in.forget_ended),
            ("purging deleted channels", lambda: upkeep.purge_deleted(self._db, self._clock.now_ms())),
            ("purging pages of deleted mirrors", lambda: pages.purge_deleted(self._db)),
            ("cleaning quiet channels", self._take_in.clean_quiet_channels),
            ("taking away files that nothing names", self._objects.take_away),
            ("looking after damaged files", self._keepers.repairs.note_mended),
            ("counting after damage", self._keepers.damage.count),
            ("judging anew what has come of age", self._governor.daily),
            ("scrubbing once a month", self._keepers.care.scrub_monthly),
            ("taking up deletions", self._keepers.deletions.take_up),
            ("dropping what nobody asks for", self._keepers.unused.look),
            ("forgetting old events", self._forget_events),
            ("forgetting old logs", self._history.forget_logs),
            ("forgetting old runs", self._history.forget_runs),
            ("forgetting old lines of the audit log", self._history.forget_audit),
            ("forgetting what no kept generation shows", self._history.forget_generations),
            ("forgetting old downloads", self._usage.forget),
            ("noting used tokens", self._tokens.flush),
            ("health", self._health.forget_gone),
            ("mirrors that are overdue", self._health.note_overdue),
        ]

    async def _clear_backups(self) -> None:
        """Take away what backups left that were at work when the last daemon was killed."""
        if not self.blobs_named:
            paths = await self._db.read(runs.broken_off_backups)
            await asyncio.to_thread(self._keepers.backups.clear, paths)

    async def _name_blobs(self) -> None:
        """Give every stored file its row, take away objects without one: kill -9 may have come between the two."""
        if self.blobs_named:
            return
        for first in range(256):
            await self._blobs.name(await asyncio.to_thread(self._blobs.listed, f"{first:02x}"))
        await self._objects.find_orphans()
        await upkeep.forget_unfinished(self._db)
        await self._keepers.damage.count_all()
        self.blobs_named = True

    async def _forget_events(self) -> None:
        now = self._clock.now_ms()
        await self._db.write(lambda tx: journal.forget_old_events(tx, now))
