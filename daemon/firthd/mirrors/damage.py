"""The only place that decides what follows when a file turns out lost or damaged: it comes again, and is told."""

from collections.abc import Sequence
from functools import partial

from firth_protocol.types import Cause, Json, MirrorMode, RunKind, RunState
from firthd.channels.mend import Mender
from firthd.clock import Clock
from firthd.mirrors.take_in import TakeIn
from firthd.runs.queue import RunQueue
from firthd.store import backup, catalog, journal, roots, runs
from firthd.store.artifacts import FileRow
from firthd.store.catalog import ChannelRow, MirrorRow
from firthd.store.database import Database, Tx
from firthd.store.quarantine import Room
from firthd.store.repairs import Repairs

AGAIN_S = 60.0
"""How soon a file is to be mended again: what could not be mended is not tried with every request."""
MENDING = "index files were lost or damaged"


class Damage:
    """What the web, the self test and scrubs tell of files."""

    def __init__(
        self, db: Database, clock: Clock, queue: RunQueue, repairs: Repairs, mender: Mender, take_in: TakeIn
    ) -> None:
        self._db = db
        self._clock = clock
        self._queue = queue
        self._repairs = repairs
        self._mender = mender
        self._take_in = take_in
        self._asked: dict[tuple[int, str], float] = {}  # channel and file -> when it was to be mended
        self._to_count: set[int] = set()  # mirrors

    async def package(self, file: FileRow) -> None:
        """A stored file could not be opened as what it is; it is absent from now on, if it is not right after all."""
        if file.sha256 is not None and await self._repairs.look(Room.BLOBS, file.sha256, file.size) is not None:
            self._to_count.add(file.mirror_id)

    async def index(self, channel_id: int, file: str) -> None:
        """A file of an index could not be read as what it is: a run makes it anew, if it is not right after all."""
        if await self._repairs.look(Room.RENDERED, file) is not None:
            await self.mend(channel_id, file)

    async def mend(self, channel_id: int, file: str = "") -> None:
        """Queue the run that makes a channel's lost index files anew, unless one waits or `file` was told lately."""
        now = self._clock.monotonic()
        self._asked = {asked: at for asked, at in self._asked.items() if now - at < AGAIN_S}
        if (channel_id, file) in self._asked:
            return
        self._asked[channel_id, file] = now
        channel = await self._db.read(lambda r: catalog.channel_by_id(r, channel_id))
        if channel is not None:
            await self._db.write(lambda tx: self._queue_mending(tx, channel))

    async def _queue_mending(self, tx: Tx, channel: ChannelRow) -> None:
        for run in await runs.open_runs(tx):
            if run.state is RunState.PENDING and (run.channel_id, run.cause) == (channel.id, MENDING):
                return
        await self._queue.submit(
            tx,
            RunKind.PUBLISH,
            channel_id=channel.id,
            channel=channel.name,
            cause=MENDING,
            by="firthd",
            params={"cause": Cause.RUN},
        )

    async def come_again(self, packages: Sequence[str], indexes: Sequence[str], by: str) -> list[int]:
        """Let files that were found damaged come again, each from its own source; return the packages' runs."""
        for channel in await self._db.read(catalog.all_channels):
            if indexes and await self._mender.needed(channel.id):
                await self.mend(channel.id)
        wanted = await self._db.read(lambda r: roots.missing_again(r, packages))
        queued = []
        for mirror_id, artifacts in wanted.items():
            self._to_count.add(mirror_id)
            mirror = await self._db.read(partial(catalog.mirror_by_id, mirror_id=mirror_id))
            if mirror is not None:
                run = await self._db.write(
                    partial(
                        self._fill, mirror=mirror, cause="files were damaged", params={"artifacts": artifacts}, by=by
                    )
                )
                queued.append(run)
        return queued

    async def after_restoring(self) -> None:
        """Forget what a restored state names and the store has not: it comes again when asked for, or by a fill."""
        if not await self._db.read(lambda r: journal.setting(r, backup.RESTORED)):
            return
        for mirror in await self._db.read(catalog.all_mirrors):
            self._to_count.add(mirror.id)
        await self._repairs.forget_absent()
        await self.count()
        for mirror in await self._db.read(catalog.all_mirrors):
            if mirror.mode is MirrorMode.ACTIVE and mirror.stored < mirror.artifacts:
                await self._db.write(partial(self._fill, mirror=mirror, cause="the state was restored", params={}))
        await self._db.write(lambda tx: journal.set_setting(tx, backup.RESTORED, ""))

    async def _fill(self, tx: Tx, mirror: MirrorRow, cause: str, params: Json, by: str = "firthd") -> int:
        run_id, _ = await self._queue.submit(
            tx,
            RunKind.FILL,
            channel_id=mirror.channel_id,
            channel=mirror.channel,
            mirror_id=mirror.id,
            cause=cause,
            by=by,
            params=params,
        )
        return run_id

    async def check_indexes(self) -> list[str]:
        """Look at the files of every channel's indexes; return the channels that had lost some. They are mended."""
        found = []
        for channel in await self._db.read(catalog.all_channels):
            if await self._mender.needed(channel.id):
                found.append(channel.name)
                await self.mend(channel.id)
        return found

    async def count_all(self) -> None:
        """Let every mirror be counted anew: a run may have been killed before it counted what it had taken in."""
        self._to_count.update([mirror.id for mirror in await self._db.read(catalog.all_mirrors)])

    async def count(self) -> None:
        """Count anew what mirrors have stored that have lost files."""
        while self._to_count:
            mirror_id = self._to_count.pop()
            mirror = await self._db.read(partial(catalog.mirror_by_id, mirror_id=mirror_id))
            if mirror is not None:
                await self._take_in.count(mirror.channel_id, mirror.id)
