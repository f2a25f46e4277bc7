"""The only place that knows how much of a file still being fetched a client may have."""

import asyncio
import os
from collections import Counter
from pathlib import Path

from firth_protocol.errors import FirthError
from firthd.store.artifacts import FileRow
from firthd.store.blobs import Kept

HELD_BACK = 64 * 1024
"""Bytes at the end that nobody gets before size and digest are known to match: no client completes a wrong file."""


class InFlight:
    """One file on its way from its source into the store. One task feeds it, any number of clients follow.

    `size` in bytes, None while nobody knows it; `kept` is set once the file is verified and stored; `fd` is open for
    reading at given offsets for as long as somebody has joined. `clients` says who, `waits_for` what keeps the source
    from being asked, None once it is.
    """

    def __init__(self, file: FileRow) -> None:
        self.file = file
        self.size = file.size
        self.kept: Kept | None = None
        self.error: FirthError | None = None
        self.fd = -1
        self.begun = False
        self.clients: Counter[str] = Counter()
        self.waits_for: str | None = None
        self._safe = 0
        self._change = asyncio.Event()

    @property
    def channel_id(self) -> int:
        return self.file.channel_id

    @property
    def ended(self) -> bool:
        return self.kept is not None or self.error is not None

    # --- clients

    def join(self, client: str) -> None:
        self.clients[client] += 1

    def leave(self, client: str) -> None:
        self.clients[client] -= 1
        self.clients += Counter()  # whoever has left altogether is not named any more
        self._close_unread()

    async def started(self) -> None:
        """Wait until the source has answered; raise the error with which the fetch failed."""
        while not self.begun and not self.ended:
            await self._change.wait()
        if self.error is not None:
            raise self.error

    async def beyond(self, position: int) -> int:
        """Wait until a client may have more than `position` bytes; return how many it may have.

        Raises the error with which the fetch failed: what the client got so far must not be completed.
        """
        while self._safe <= position and not self.ended:
            await self._change.wait()
        if self.error is not None:
            raise self.error
        return self._safe

    async def whole(self) -> Kept:
        """Wait until the file is verified and stored; raise the error with which the fetch failed."""
        while not self.ended:
            await self._change.wait()
        if self.kept is None:
            assert self.error is not None
            raise self.error
        return self.kept

    # --- the fetching task

    def begin(self, path: Path, size: int | None) -> None:
        """The source has answered; what comes is written to `path`."""
        self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.size = size
        self.begun = True
        self._tell()

    def wrote(self, total: int) -> None:
        """`total` bytes have come so far."""
        if self.size is not None:
            safe = min(total, self.size - HELD_BACK)
            if safe > self._safe:
                self._safe = safe
                self._tell()

    def finish(self, kept: Kept) -> None:
        self.kept = kept
        self.size = self._safe = kept.size
        self._tell()
        self._close_unread()

    def fail(self, error: FirthError) -> None:
        self.error = error
        self._tell()
        self._close_unread()

    def _tell(self) -> None:
        change, self._change = self._change, asyncio.Event()
        change.set()

    def _close_unread(self) -> None:
        if self.ended and not self.clients and self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
