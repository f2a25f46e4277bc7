"""The only place that writes what is being fetched into a file, and knows from where a broken transfer may go on."""

import errno
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

from firth_protocol.errors import NoSpace
from firthd.upstream.failures import http_date_ms
from firthd.upstream.source import Validators

_DATE_IS_STRONG_MS = 60_000
_ROOM_BYTES = 4 << 20
"""How many bytes are written between two looks at the free space: a look costs more than writing a chunk."""

Room = Callable[[int], Awaitable[None]]
"""Raises errors.NoSpace when that many bytes may not be written."""


class Spool:
    """One file under construction. It exists from the first byte on and is removed unless it was kept."""

    def __init__(self, path: Path, room: Room | None = None) -> None:
        self._path = path
        self._room = room
        self._room_left = 0
        self._fd: int | None = None
        self._if_range: str | None = None
        self.written = 0

    def restart(self, validators: Validators, date: str | None) -> None:
        """Begin with the first byte of the file that `validators` name; `date`: when the server answered."""
        if self._fd is None:
            # Spools live in the daemon's own folder; O_NOFOLLOW all the same, the name comes from outside this module.
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
            self._fd = os.open(self._path, flags, 0o600)
        elif self.written:
            os.ftruncate(self._fd, 0)
            os.lseek(self._fd, 0, os.SEEK_SET)
        self.written = 0
        self._if_range = strong(validators, date)

    async def make_room(self, size: int) -> None:
        """Ask whether that many bytes more may be written; raises NoSpace when they may not."""
        if self._room is not None and size > self._room_left:
            more = max(size, _ROOM_BYTES)
            await self._room(more)
            self._room_left = more
        self._room_left -= size

    def write(self, chunk: bytes) -> None:
        """Append; raise NoSpace when the disk is full. Done in the loop: measured less than 0.3 ms a chunk."""
        assert self._fd is not None
        rest = memoryview(chunk)
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise NoSpace("the disk is full", hint="free some space below the state folder") from None
            raise
        self.written += len(chunk)

    def resume(self) -> dict[str, str]:
        """Return the headers that ask for the rest, none when the transfer must begin anew (RFC 9110, 13.1.5)."""
        if not self.written or self._if_range is None:
            return {}
        return {"Range": f"bytes={self.written}-", "If-Range": self._if_range}

    def forget(self) -> None:
        """Do not resume from here."""
        self._if_range = None

    def close(self, *, keep: bool) -> None:
        """Close the file, and remove it unless it is to be kept. Blocks."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
            if not keep:
                self._path.unlink(missing_ok=True)


def strong(validators: Validators, date: str | None) -> str | None:
    """Return the validator that proves the same bytes: a strong ETag, or a date a minute older than the answer."""
    if validators.etag and not validators.etag.startswith("W/"):
        return validators.etag
    changed, answered = http_date_ms(validators.last_modified), http_date_ms(date)
    if changed is not None and answered is not None and answered - changed >= _DATE_IS_STRONG_MS:
        return validators.last_modified
    return None
