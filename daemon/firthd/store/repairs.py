"""The only place that takes files out of service which are not what their names say; who needs them gets them again."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial

from firth_protocol.events import Fact
from firthd.clock import Clock
from firthd.store import object_files, quarantine
from firthd.store.blobs import BlobStore
from firthd.store.database import Database, Tx
from firthd.store.journal import Journal
from firthd.store.quarantine import Damaged, Room

log = logging.getLogger(__name__)

_WHAT = {Room.BLOBS: "package", Room.RENDERED: "index"}
_PAGE = 200


class Repairs:
    """Looks at single files of both rooms. `forget_files` is called when a file of a package has gone."""

    def __init__(
        self,
        db: Database,
        journal: Journal,
        clock: Clock,
        rooms: dict[Room, BlobStore],
        forget_files: Callable[[], None],
    ) -> None:
        self._db = db
        self._journal = journal
        self._clock = clock
        self._rooms = rooms
        self._forget_files = forget_files

    async def look(
        self, room: Room, sha256: str, size: int | None = None, hurry: Callable[[int], None] | None = None
    ) -> Damaged | None:
        """Take a file out of service when it is not what its name says; return what was wrong with it.

        Whoever asks for the file after that finds it absent: a package's file is fetched again, an index is rendered.
        """
        wrong = await asyncio.to_thread(self._rooms[room].set_aside_if_wrong, sha256, size, hurry)
        if wrong is None:
            return None
        found = Damaged(room=room, sha256=sha256, size=wrong.size, reason=wrong.reason)
        if await self._db.write(lambda tx: self._note(tx, found)):
            log.error("a stored file (%s) was damaged: %s: %s", _WHAT[room], sha256, wrong.reason)
        if room is Room.BLOBS:
            self._forget_files()
        return found

    async def _note(self, tx: Tx, found: Damaged) -> bool:
        """Write it down; return whether that is news. Of many who find it at once only the first one tells."""
        if self._rooms[found.room].has(found.sha256):
            return False  # the right one has come meanwhile
        if await quarantine.is_waiting(tx, found.room, found.sha256):
            if found.size:  # who found it gone was faster than who took it away
                await quarantine.note(tx, found, self._clock.now_ms())
            return False
        await quarantine.note(tx, found, self._clock.now_ms())
        if found.room is Room.BLOBS:
            await quarantine.forget_blob(tx, found.sha256)
        data = {"what": _WHAT[found.room], "sha256": found.sha256, "reason": found.reason}
        await self._journal.fact(tx, Fact.STORE_DAMAGED, data=data)
        await self._journal.fact(tx, Fact.HEALTH_CHANGED, data={"subject": "store", "text": found.reason})
        return True

    async def lost_objects(self, channel_id: int) -> list[str]:
        """Return the files of a channel's objects that are not there, or have another size than they should.

        The latter go into quarantine. Their content is not read.
        """
        store = self._rooms[Room.RENDERED]
        named = await self._db.read(lambda r: object_files.sizes(r, channel_id))

        def wrong() -> list[tuple[str, int | None]]:
            return [
                (file, size) for file, size in named if (there := store.size(file)) is None or size not in {None, there}
            ]

        suspects = await asyncio.to_thread(wrong)
        return [file for file, size in suspects if await self.look(Room.RENDERED, file, size) is not None]

    async def forget_absent(self) -> None:
        """Take away the rows of packages' files that are not there, without a word: nobody promised that they are."""
        after: bytes = b""
        while rows := await self._db.read(partial(quarantine.blobs_after, after=after, limit=_PAGE)):
            after = rows[-1]
            names = [row.hex() for row in rows]
            gone = await asyncio.to_thread(self._absent, names)
            await self._db.write(partial(self._forget_still_absent, names=gone))
        self._forget_files()

    def _absent(self, names: Sequence[str]) -> list[str]:
        return [name for name in names if not self._rooms[Room.BLOBS].has(name)]

    async def _forget_still_absent(self, tx: Tx, names: Sequence[str]) -> None:
        for sha256 in self._absent(names):
            await quarantine.forget_blob(tx, sha256)

    async def note_mended(self) -> None:
        """Note which files are right again, or needed by nobody; forget what has been right for long."""
        done = []
        for room, sha256 in await self._db.read(lambda r: quarantine.waiting(r, _PAGE)):
            there = await asyncio.to_thread(self._rooms[room].has, sha256)
            needed = room is Room.BLOBS or await self._named(sha256)
            if there or not needed:
                done.append((room, sha256))
        now = self._clock.now_ms()
        if done:
            await self._db.write(lambda tx: quarantine.mended(tx, done, now))
        old = await self._db.read(lambda r: quarantine.outlived(r, now - quarantine.KEPT_MS, _PAGE))
        if old:
            await asyncio.to_thread(self._drop, old)
            await self._db.write(lambda tx: quarantine.forget(tx, old))

    async def _named(self, file: str) -> bool:
        return bool(await self._db.read(lambda r: object_files.named_of(r, [file])))

    def _drop(self, files: Sequence[tuple[Room, str]]) -> None:
        for room, sha256 in files:
            self._rooms[room].drop_from_quarantine(sha256)
