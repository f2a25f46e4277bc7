"""The only place that tells what a package needs whose index does not say so: out of what is stored of its files."""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path

from msgspec.structs import replace

from firth_protocol.types import Family, PackageDetail
from firthd.families.base import FamilyRules
from firthd.store import artifacts, catalog, generations
from firthd.store.database import Database, Reader

MOST_FILES = 4
MOST_BYTES = 16 << 20
"""Of a file that has to be opened to say it: a larger one would keep people waiting."""


class Needs:
    """Reads at the most four files of a package's newest version, each time that somebody looks at it."""

    def __init__(self, db: Database, path: Callable[[str], Path], families: Mapping[Family, FamilyRules]) -> None:
        self._db = db
        self._path = path
        self._families = families

    async def told(self, detail: PackageDetail) -> PackageDetail:
        """Return a package with what it needs; where nothing that says so is stored, as one of which it is unknown."""
        if self._families[detail.family].needs is None:
            return detail
        found = await self.of(detail.channel, detail.family, detail.name, detail.version)
        return replace(detail, dependencies=found or [], dependencies_known=found is not None, dependants_known=False)

    async def of(self, channel: str, family: Family, name: str, version: str) -> list[str] | None:
        """Return what a version needs whose record does not say it; None: nothing that says so is stored."""
        needs = self._families[family].needs
        if needs is None:
            return None
        for filename, sha256 in await self._files(channel, family, name, version):
            try:
                return await asyncio.to_thread(needs, self._path(sha256), filename)
            except (OSError, ValueError):  # lost, damaged, or of a kind that does not say it
                continue
        return None

    async def _files(self, name: str, family: Family, package: str, version: str) -> list[tuple[str, str]]:
        async def body(r: Reader) -> list[tuple[str, str]]:
            channel = await catalog.channel_by_name(r, name)
            current = None if channel is None else await generations.generation(r, channel.id, channel.generation)
            if channel is None or current is None:
                return []
            return await artifacts.stored_files(
                r,
                channel.id,
                current.shows,
                family,
                package,
                version,
                max_bytes=MOST_BYTES,
                limit=MOST_FILES,
            )

        return await self._db.read(body)
