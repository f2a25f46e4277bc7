"""The only place that takes files from nearer than the source: an old mirror's folder, a mirror close by.

What it gives is verified by the digests of the source's own index. Nothing that goes wrong here is a failure: the
source is asked then. Nothing is ever written to a folder, and a copy shares bytes with it only where the file system
makes a private copy of what is changed later.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol

from firth_protocol.errors import Invalid, NotFound, TooLarge, Upstream
from firthd.clock import Clock
from firthd.mirrors.transfer import MAX_UNKNOWN, Hooks, Incoming, Opener, Patience, transfer
from firthd.store.blobs import Kept
from firthd.store.disk import is_full
from firthd.store.incoming import BlobMismatch, BlobWriter
from firthd.upstream.client import mask
from firthd.upstream.failures import Passing, Slow, Unreachable
from firthd.upstream.files import clone
from firthd.upstream.hosts import Lane
from firthd.upstream.source import Source, is_file

log = logging.getLogger(__name__)

AWAY_S = 60.0
"""Seconds for which a place that cannot be reached is not asked: each file would wait for it."""
IDLE_S = 15.0
"""Seconds in which nothing may come: the source is there, too."""
AWAY_AFTER = 5
"""Files in a row that must fail before a place that answers is left alone."""
WRONG_S = 3600.0
"""Seconds for which a file that lies there with other bytes is not taken from there again."""
_REMEMBERED = 10_000
_TOLD = 100
"""Such files that the log names: a whole mirror may be another."""
PATIENCE = Patience(pauses_s=(), answer_s=(3.0,), slow=False)


class NearBlobs(Protocol):
    """The store of package files."""

    async def open_writer(
        self, *, size: int | None, sha256: str | None, md5: str | None = None, max_bytes: int | None = None
    ) -> BlobWriter: ...
    async def keep(self, writer: BlobWriter, channel_id: int, /) -> Kept: ...


class Nearby:
    """Takes files from places that are asked before a source."""

    def __init__(
        self, upstream: Opener, blobs: NearBlobs, clock: Clock, *, idle_s: float = IDLE_S, most: int = MAX_UNKNOWN
    ) -> None:
        self._upstream = upstream
        self._blobs = blobs
        self._clock = clock
        self._idle_s = idle_s
        self._most = most
        self._away: dict[str, float] = {}  # place -> monotonic seconds until which it is left alone
        self._wrong: dict[tuple[str, str], float] = {}  # (place, digest) -> likewise
        self._in_a_row: Counter[str] = Counter()  # place -> files that could not be had since one came

    def asked(self, places: Sequence[Source], digest: str | None) -> list[Source]:
        """Return those of the places that may have a file; without a digest nothing would tell whether it is right."""
        if digest is None:
            return []
        now = self._clock.monotonic()
        return [
            place
            for place in places
            if self._away.get(place.url, 0.0) <= now and self._wrong.get((place.url, digest), 0.0) <= now
        ]

    async def bring(
        self,
        place: Source,
        path: str,
        *,
        size: int | None,
        sha256: str | None,
        md5: str | None,
        channel_id: int,
        lane: Lane,
        wrote: Callable[[int], None] = lambda _: None,
        opened: Callable[[BlobWriter], None] = lambda _: None,
    ) -> Kept | None:
        """Store a file as it lies in one place; None where it is not to be had there, for whatever reason.

        `wrote` is told how many new bytes came, and takes them back (negative) when they do not count; `opened`
        gets what they are written to. Raises OSError when the disk is full, and what the store raises.
        """
        writer = await self._blobs.open_writer(size=size, sha256=sha256, md5=md5, max_bytes=self._most)
        opened(writer)
        told = 0  # less than was written, where a copy broke off in the middle of a stretch

        def came(more: int) -> None:
            nonlocal told
            told += more
            wrote(more)

        def give_back() -> None:
            wrote(-told)
            writer.abort()

        try:
            if not await self._copy(place, path, writer, size, lane, came):
                give_back()
                return None
        except BaseException:
            give_back()
            raise
        try:
            return await self._blobs.keep(writer, channel_id)
        except BlobMismatch as error:
            self._note_wrong(place, sha256 or md5 or "", path, error.reason)
            wrote(-told)
            return None

    def not_again(self, place: Source, digest: str | None) -> None:
        """Leave a file to others for an hour: a client has followed it, and it did not come to its end."""
        if len(self._wrong) >= _REMEMBERED:
            self._wrong.clear()
        self._wrong[(place.url, digest or "")] = self._clock.monotonic() + WRONG_S

    async def _copy(
        self,
        place: Source,
        path: str,
        writer: BlobWriter,
        size: int | None,
        lane: Lane,
        wrote: Callable[[int], None],
    ) -> bool:
        async def answered(body: Incoming) -> None:
            if body.length is not None and size is not None and body.length != size:
                raise TooLarge(f"it has {body.length} bytes, {size} were promised")

        try:
            if is_file(place):
                return await clone(place, path, writer, wrote)
            async with asyncio.timeout(self._idle_s) as idle:

                def came(size: int) -> None:
                    idle.reschedule(asyncio.get_running_loop().time() + self._idle_s)
                    wrote(size)

                await transfer(
                    self._upstream,
                    place,
                    path,
                    writer,
                    self._clock,
                    digest=True,
                    lane=lane,
                    patience=PATIENCE,
                    hooks=Hooks(asks=lambda _: None, answered=answered, wrote=came),
                )
        except (NotFound, Invalid):
            return False
        except TooLarge as error:
            self._note_wrong(place, writer.promised or "", path, error.message)
            return False
        except TimeoutError:
            self._note_failure(place, Slow(f"nothing came for {self._idle_s:g} s"))
            return False
        except Upstream as error:
            self._note_failure(place, error)
            return False
        except OSError as error:
            if is_full(error):
                raise
            log.warning("%s: %s cannot be read: %s", mask(place.url), path, error.strerror)
            return False
        self._in_a_row.pop(place.url, None)
        return True

    def _note_failure(self, place: Source, error: Upstream) -> None:
        if not isinstance(error, Passing | Slow) and not is_file(place):
            return  # an answer about this file: the place is there
        self._in_a_row[place.url] += 1
        if isinstance(error, Slow | Unreachable) or is_file(place) or self._in_a_row[place.url] >= AWAY_AFTER:
            log.warning("%s is left alone for a minute: %s", mask(place.url), error.message)
            self._away[place.url] = self._clock.monotonic() + AWAY_S

    def _note_wrong(self, place: Source, digest: str, path: str, reason: str) -> None:
        if len(self._wrong) < _TOLD:
            log.warning("%s has another %s than the source: %s", mask(place.url), path, reason)
        self.not_again(place, digest)
