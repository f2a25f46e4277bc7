"""The only place that makes up for what the last daemon left: a crash's open ends, or what a full disk kept from it."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from firth_protocol import API
from firth_protocol.errors import FirthError, NoSpace, Unavailable
from firth_protocol.events import Fact
from firthd import __version__
from firthd.clock import Clock
from firthd.mirrors.publish_run import queue_rendering_anew
from firthd.runs.queue import RunQueue
from firthd.store import generations, journal
from firthd.store.audit import interrupt_begun
from firthd.store.database import Database, Tx
from firthd.store.journal import Journal

log = logging.getLogger(__name__)

_AT_WORK = "at work"
"""The setting that is there while a daemon works, so that the next one sees whether it ended in order."""


class Settling:
    """Settles the state before anything changes it; where the disk takes no write, as soon as it does."""

    def __init__(self, db: Database, journal: Journal, clock: Clock, queue: RunQueue, named: Callable[[bool], None]):
        """`named` is told whether the last daemon ended in order: then every file that has a name has a row."""
        self._db = db
        self._journal = journal
        self._clock = clock
        self._queue = queue
        self._named = named
        self._settled = asyncio.Event()
        self._settling = asyncio.Lock()
        self._later = False

    @property
    def done(self) -> bool:
        """Whether the state is settled."""
        return self._settled.is_set()

    async def make_up(self) -> None:
        """Settle the state now where that was not possible before."""
        async with self._settling:
            if not self.done:
                await self.settle()

    async def settle(self) -> None:
        """Settle what a crash left open and note the start; on a disk that takes no write that waits.

        Until then nothing is changed: a change must not come between what a crash left and what becomes of it.
        """
        try:
            await self._db.reopen(self._clock.now_ms())
            self._db.release()
            await self._db.write(lambda tx: journal.set_setting(tx, "epoch", self._journal.epoch))
            await self._recover()
            await self._db.write(
                lambda tx: self._journal.fact(tx, Fact.DAEMON_STARTED, data={"version": __version__, "api": API})
            )
            self._named(not await self._db.write(_note_at_work))
        except (NoSpace, Unavailable) as error:
            kind, message, hint = type(error), error.message, error.hint
            self._db.hold(lambda: kind(message, hint=hint), self.make_up)
            if not self._later:
                log.error("%s; nothing is changed until that is over, what is stored is served", message)
                self._queue.unsettled(self._clock.now_ms())
            self._later = True
            return
        self._queue.unsettled(None)
        self._settled.set()
        if self._later:
            log.info("the state can be written again: work goes on")

    async def _recover(self) -> None:
        await self._db.write(generations.abandon_open)
        await self._db.write(interrupt_begun)
        for sentence in await self._queue.recover():
            log.warning(sentence)
        await self._db.write(lambda tx: queue_rendering_anew(tx, self._queue))

    async def once(self, work: Callable[[], Awaitable[None]]) -> None:
        """Work from the moment on that the state is settled."""
        await self._settled.wait()
        await work()

    async def leave(self) -> None:
        """Note that the daemon has ended in order."""
        with contextlib.suppress(FirthError):
            await self._db.write(lambda tx: journal.set_setting(tx, _AT_WORK, ""))


async def _note_at_work(tx: Tx) -> bool:
    """Note that a daemon works on this state; return whether the last one did not end in order."""
    cut_off = bool(await journal.setting(tx, _AT_WORK))
    await journal.set_setting(tx, _AT_WORK, "1")
    return cut_off
