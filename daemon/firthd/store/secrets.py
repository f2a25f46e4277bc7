"""The only place that keeps the sources' secrets: one 0600 file beside the state, never in the database."""

import asyncio
import os
from contextlib import suppress
from pathlib import Path

import msgspec
from msgspec import Struct

from firth_protocol.errors import Invalid
from firth_protocol.types import Credentials
from firthd.store.disk import sync

_MOST_BYTES = 65_536
"""Bytes of a credential that the service manager gives; a larger file is none of ours."""


class Named(Credentials, frozen=True, kw_only=True):
    """Secrets that the service manager keeps under a name; only the name is written down."""

    name: str


class Secrets(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one mirror keeps secret: the source's credentials, and a proxy's address when it holds a password.

    `host`: the one that the credentials are for. The row and this file are written one after the other, and a crash
    may come between: credentials never go to the host of a newer row. `named`: the credentials are those that the
    service manager keeps under this name; the file does not hold them.
    """

    credentials: Credentials | None = None
    proxy: str | None = None
    host: str = ""
    named: str = ""


class SecretFile:
    """Secrets by mirror id, held in memory and written through.

    `given` is the folder in which the service manager gives the daemon credentials, one a file.
    """

    def __init__(self, path: Path, given: Path | None = None) -> None:
        self._path = path
        self._given = given
        self._lock = asyncio.Lock()
        self._secrets: dict[int, Secrets] = {}
        self._named: dict[str, bytes] = {}

    def load(self) -> None:
        """Read the file; a missing one is empty. Blocks."""
        if self._given is not None:
            with suppress(OSError):
                self._named = dict(_read(self._given))
        try:
            raw = self._path.read_bytes()
        except FileNotFoundError:
            return
        self._secrets = msgspec.json.decode(raw, type=dict[int, Secrets], strict=False)

    def get(self, mirror: int) -> Secrets:
        """Return a mirror's secrets; named ones without `credentials` where the service manager does not give them."""
        kept = self._secrets.get(mirror, Secrets())
        if kept.named:
            with suppress(Invalid):
                return msgspec.structs.replace(kept, credentials=self.named(f"@{kept.named}"))
        return kept

    def named(self, text: str) -> Named:
        """Return the credentials that `@name` means; raise Invalid when there are none. Shows nothing of them."""
        name = text.removeprefix("@")
        raw = self._named.get(name)
        if raw is None:
            raise Invalid(
                f"the service manager gives no credential {name!r}",
                hint=f"LoadCredential={name}:FILE in a drop-in of firthd.service, then restart it",
                path="$.credentials",
            )
        try:
            found = msgspec.json.decode(raw, type=Credentials)
        except msgspec.MsgspecError:
            raise Invalid(
                f"the credential {name!r} of the service manager is not what `credentials` may be",
                hint='write a JSON object into its file, such as {"token": "..."}',
                path="$.credentials",
            ) from None
        return Named(**msgspec.structs.asdict(found), name=name)

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


def _read(folder: Path) -> list[tuple[str, bytes]]:
    return [
        (file.name, file.read_bytes())
        for file in folder.iterdir()
        if file.is_file() and file.stat().st_size <= _MOST_BYTES
    ]
