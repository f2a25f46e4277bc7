"""The only place that carries out the runs of the store: what nothing needs leaves it, what it holds is read again."""

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from functools import partial
from threading import Event

from msgspec import Struct

from firth_protocol import units
from firth_protocol.types import HeldBytes, Json, RunKind, RunState, SnapshotBytes, StepName, StoreUse
from firthd.clock import Clock
from firthd.mirrors.damage import Damage
from firthd.mirrors.space import SpaceGuard
from firthd.runs.queue import RunQueue
from firthd.runs.run import LiveRun, Outcome
from firthd.store import journal, quarantine, roots
from firthd.store.blobs import BlobStore
from firthd.store.database import Database, Tx
from firthd.store.quarantine import Room
from firthd.store.repairs import Repairs

SCRUB_BYTES_S = 64_000_000
"""How fast a scrub reads: the disk is there for clients first."""
SCRUB_EVERY_MS = 30 * 86_400_000
USE_HOLDS_S = 30.0
"""How long a look at what holds the store's files is good for: it reads a row for each of them."""
_POSITION, _SCRUBBED = "scrub position", "scrubbed at"
_PREFIXES = [f"{first:02x}" for first in range(256)]


class Found(Struct, frozen=True, kw_only=True):
    """What the store's files are held by, and those that nothing holds."""

    use: StoreUse
    unneeded: list[bytes]
    unneeded_bytes: int


class Care:
    """Takes care of stored files."""

    def __init__(
        self,
        *,
        db: Database,
        clock: Clock,
        queue: RunQueue,
        rooms: dict[Room, BlobStore],
        space: SpaceGuard,
        repairs: Repairs,
        damage: Damage,
        grace_ms: int,
    ) -> None:
        self._db = db
        self._clock = clock
        self._queue = queue
        self._rooms = rooms
        self._space = space
        self._repairs = repairs
        self._damage = damage
        self._grace_ms = grace_ms
        self._looked: tuple[float, StoreUse] | None = None  # until when it holds

    # --- looking ---------------------------------------------------------------------------------------------

    async def status(self) -> StoreUse:
        """Return what lies in the store and what for; half a minute old at the most, or 20 times what a look takes."""
        began = self._clock.monotonic()
        if self._looked is None or began >= self._looked[0]:
            use = (await self.look()).use
            now = self._clock.monotonic()
            self._looked = (now + max(USE_HOLDS_S, 20 * (now - began)), use)
        return self._looked[1]

    async def look(self) -> Found:
        """Look at every stored file; a moment's truth, page by page."""
        bytes_by, files_by = Counter[int](), Counter[int]()
        snapshots, unneeded = Counter[tuple[str, int]](), []
        after, now = b"", self._clock.now_ms()
        while page := await self._db.read(partial(roots.page, after=after, now_ms=now, grace_ms=self._grace_ms)):
            for one in page:
                bytes_by[one.by] += one.size
                files_by[one.by] += 1
                if one.snapshot is not None:
                    snapshots[one.snapshot] += one.size
                if one.by == roots.NOTHING:
                    unneeded.append(one.sha256)
            after = page[-1].sha256
        tally = await self._db.read(quarantine.tally)
        rendered = await asyncio.to_thread(self._weigh, Room.RENDERED)
        space = await self._space.now()
        use = StoreUse(
            bytes=bytes_by.total(),
            blobs=files_by.total(),
            quarantined=tally.files,
            quarantined_waiting=tally.waiting,
            free=space.free,
            floor=space.floor,
            index_files=rendered[0],
            index_bytes=rendered[1],
            held=HeldBytes(
                index=bytes_by[roots.INDEX],
                drafts=bytes_by[roots.DRAFT],
                grace=bytes_by[roots.GRACE],
                snapshots=bytes_by[roots.SNAPSHOT],
            ),
            snapshots=[
                SnapshotBytes(channel=channel, generation=number, bytes=size)
                for (channel, number), size in sorted(snapshots.items())
            ],
            unneeded=files_by[roots.NOTHING],
            unneeded_bytes=bytes_by[roots.NOTHING],
        )
        return Found(use=use, unneeded=unneeded, unneeded_bytes=bytes_by[roots.NOTHING])

    def _weigh(self, room: Room) -> tuple[int, int]:
        files = size = 0
        for prefix in _PREFIXES:
            listed = self._rooms[room].listed(prefix)
            files += len(listed)
            size += sum(kept.size for kept in listed)
        return files, size

    async def queue(self, tx: Tx, kind: RunKind, by: str, cause: str, params: Json | None = None) -> tuple[int, int]:
        """Queue a run of the store in the caller's transaction; return its id and the number of its fact."""
        return await self._queue.submit(tx, kind, cause=cause, by=by, params=params)

    # --- what nothing needs --------------------------------------------------------------------------------------

    async def gc(self, live: LiveRun) -> Outcome:
        """Take away the files that nothing needs: each row in a transaction that looks again, then the file."""
        async with live.step(StepName.PLAN, "looks at what holds each file"):
            found = await self.look()
            total = len(found.unneeded)
            live.progress(
                f"{total:,} of {found.use.blobs:,} files are needed by nothing, {units.size(found.unneeded_bytes)}",
                done=found.use.blobs,
                total=found.use.blobs,
                unit="files",
            )
        gone = 0
        async with live.step(StepName.CLEAN, "nothing to take away"):
            for start in range(0, total, roots.PAGE):
                gone += await self._let_go(found.unneeded[start : start + roots.PAGE])
                live.progress(f"{gone:,} / {total:,} files", done=gone, total=total, unit="files")
        self._looked = None
        await self._forget_unneeded()
        return Outcome(result={"blobs": gone, "bytes": found.unneeded_bytes if gone == total else None})

    async def _let_go(self, digests: Sequence[bytes]) -> int:
        now = self._clock.now_ms()
        blobs, young_ms = self._rooms[Room.BLOBS], now - max(self._grace_ms, roots.YOUNG_MS)
        # What came again lately counts as young, though its row is old: a run may count on it.
        old = await asyncio.to_thread(lambda: [one for one in digests if blobs.written_ms(one.hex()) < young_ms])
        let_go = await self._db.write(lambda tx: roots.let_go(tx, old, now, self._grace_ms))
        # A file that came again in between stays, and whoever brought it writes its row.
        return await asyncio.shield(asyncio.to_thread(lambda: sum(blobs.take_away(one, young_ms) for one in let_go)))

    async def _forget_unneeded(self) -> None:
        """Files in quarantine that no artifact has any more need not come again."""
        waiting = [
            sha256 for room, sha256 in await self._db.read(lambda r: quarantine.waiting(r, 1000)) if room is Room.BLOBS
        ]
        done = await self._db.read(lambda r: roots.unneeded(r, waiting))
        now = self._clock.now_ms()
        await self._db.write(lambda tx: quarantine.mended(tx, [(Room.BLOBS, one) for one in done], now))

    # --- what has changed on the disk ----------------------------------------------------------------------------

    async def scrub(self, live: LiveRun) -> Outcome:
        """Read every stored file at a bounded rate; what is wrong leaves service and comes again.

        A scrub that was cut off goes on where it was.
        """
        position = await self._db.read(lambda r: journal.setting(r, _POSITION))
        room_at, prefix_at = json.loads(position) if position else (Room.BLOBS, "")
        todo = [(room, prefix) for room in Room for prefix in _PREFIXES]
        left = todo[todo.index((Room(room_at), prefix_at)) :] if prefix_at else todo
        async with live.step(StepName.PLAN):
            more = f", goes on at {room_at} {prefix_at}" if prefix_at else ""
            live.progress(f"reads at {units.rate(SCRUB_BYTES_S)}{more}")
        read = 0
        damaged: dict[Room, list[str]] = {Room.BLOBS: [], Room.RENDERED: []}
        async with live.step(StepName.CLEAN):
            for number, (room, prefix) in enumerate(left, len(todo) - len(left)):
                for kept in await asyncio.to_thread(self._rooms[room].listed, prefix):
                    if await self._reread(room, kept.sha256):
                        damaged[room].append(kept.sha256)
                        live.log(f"{room}: {kept.sha256} was damaged and is in quarantine", "error")
                    read += 1
                at = json.dumps([room, prefix])
                await self._db.write(partial(journal.set_setting, key=_POSITION, value=at))
                count = sum(map(len, damaged.values()))
                live.progress(
                    f"{read:,} files read, {count:,} damaged", done=number + 1, total=len(todo), unit="folders"
                )
        await self._db.write(self._scrubbed)
        runs = await self._damage.come_again(damaged[Room.BLOBS], damaged[Room.RENDERED], live.row.by)
        count = sum(map(len, damaged.values()))
        if count:
            live.note(f"{count:,} damaged files are in quarantine; the right ones come again by runs of their own")
        result = {"files": read, "damaged": count, "runs": runs}
        return Outcome(state=RunState.COMPLETED, result=result)

    async def _scrubbed(self, tx: Tx) -> None:
        await journal.set_setting(tx, _POSITION, "")
        await journal.set_setting(tx, _SCRUBBED, str(self._clock.now_ms()))

    async def _reread(self, room: Room, sha256: str) -> bool:
        """Look at one file; whoever is cancelled waits until the thread has let go of it."""
        stopped = Event()

        def hurry(size: int) -> None:
            if stopped.wait(size / SCRUB_BYTES_S):
                raise InterruptedError("not wanted any more")

        look = asyncio.ensure_future(self._repairs.look(room, sha256, None, hurry))
        try:
            found = await asyncio.shield(look)
        except asyncio.CancelledError:
            stopped.set()
            await asyncio.wait({look})
            if not look.cancelled():
                look.exception()
            raise
        return found is not None

    async def scrub_monthly(self) -> None:
        """Queue a scrub when the last one was a month ago; a new store has its first after a month."""
        now = self._clock.now_ms()
        at = await self._db.read(lambda r: journal.setting(r, _SCRUBBED))
        if at is None or int(at) > now:  # or the clock was ahead then
            await self._db.write(lambda tx: journal.set_setting(tx, _SCRUBBED, str(now)))
        elif now - int(at) >= SCRUB_EVERY_MS:

            async def body(tx: Tx) -> None:
                await journal.set_setting(tx, _SCRUBBED, str(now))  # asked for once, whatever becomes of it
                await self.queue(tx, RunKind.SCRUB, "firthd", "schedule")

            await self._db.write(body)
