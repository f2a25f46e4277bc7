"""The only place that keeps the sources' secrets: one 0600 file beside the state, never in the database."""

import asyncio
import os
from pathlib import Path

import msgspec
from msgspec import Struct

from firth_protocol.types import Credentials
from firthd.store.disk import sync


class Secrets(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one mirror keeps secret: the source's credentials, and a proxy's address when it holds a password.

    `host`: the one that the credentials are for. The row and this file are written one after the other, and a crash
    may come between: credentials never go to the host of a newer row.
    """

    credentials: Credentials | None = None
    proxy: str | None = None
    host: str = ""


class SecretFile:
    """Secrets by mirror id, held in memory and written through."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = asyncio.Lock()
        self._secrets: dict[int, Secrets] = {}

    def load(self) -> None:
        """Read the file; a missing one is empty. Blocks."""
        try:
            raw = self._path.read_bytes()
        except FileNotFoundError:
            return
        self._secrets = msgspec.json.decode(raw, type=dict[int, Secrets], strict=False)

    def get(self, mirror: int) -> Secrets:
        return self._secrets.get(mirror, Secrets())

    def mirrors(self) -> set[int]:
        """Return the ids of the mirrors that have secrets."""
        return set(self._secrets)

    async def put(self, mirror: int, secrets: Secrets) -> None:
        """Keep a mirror's secrets, or forget them when there are none; durable when this returns."""
        async with self._lock:
            if secrets == Secrets():
                if self._secrets.pop(mirror, None) is None:
                    return
            else:
                self._secrets[mirror] = secrets
            await asyncio.shield(asyncio.to_thread(self._save, msgspec.json.encode(self._secrets)))

    def _save(self, raw: bytes) -> None:
        fresh = self._path.with_name(self._path.name + ".new")
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._path)
        sync(self._path.parent, os.O_DIRECTORY)
