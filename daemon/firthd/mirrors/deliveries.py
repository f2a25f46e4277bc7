"""Says whether a file that a client asks for is its channel's already, and counts what has come for one."""

from collections.abc import Callable, Mapping

from firth_protocol.types import Family
from firthd.families.base import FamilyRules
from firthd.mirrors.on_demand import Helpers
from firthd.mirrors.source import Locator
from firthd.mirrors.space import SpaceGuard
from firthd.store import artifacts, catalog, delivered
from firthd.store.artifacts import FileRow
from firthd.store.blobs import BlobStore, Kept
from firthd.store.columns import goes_along
from firthd.store.database import Database, Tx


class Deliveries:
    """What passive fetches ask of the state. `forget_files` is called when a file's digest has become known."""

    def __init__(
        self, db: Database, blobs: BlobStore, forget_files: Callable[[], None], families: Mapping[Family, FamilyRules]
    ) -> None:
        self._db = db
        self._blobs = blobs
        self._forget_files = forget_files
        self._families = families

    async def present(self, file: FileRow) -> Kept | None:
        """Return a file that its channel has, or takes over from one that is as open; None when it must be fetched."""
        if file.sha256 is None:
            return None
        found = await delivered.present(self._db, file.channel_id, {file.sha256})
        size = self._blobs.size(file.sha256) if found.all else None
        if size is None or file.size not in {None, size}:
            return None
        if found.taken:
            await self._db.write(lambda tx: _add(tx, file, size))
        return Kept(sha256=file.sha256, size=size, channel_id=file.channel_id)

    async def stored(self, file: FileRow, kept: Kept) -> None:
        """Count a file that a client's request has brought; record its digest where the source gives none."""

        async def body(tx: Tx) -> None:
            if file.sha256 is None:
                await artifacts.record_first_sight(tx, file.id, kept.sha256, kept.size)
            await _add(tx, file, kept.size)

        await self._db.write(body)
        if file.sha256 is None:
            self._forget_files()

    async def holder(self, file: FileRow) -> tuple[FileRow, Callable[[Kept], bytes]] | None:
        """Return the file of the same mirror that holds this one too, and what takes it out of that; it blocks."""
        found = self._families[Family(file.family)].inside(file.filename)
        if found is None:
            return None
        row = await self._db.read(lambda r: artifacts.beside(r, file, found.filename))
        return None if row is None else (row, lambda kept: found.take_out(self._blobs.path(kept.sha256)))


async def _add(tx: Tx, file: FileRow, size: int) -> None:
    if not goes_along(file.section):
        await catalog.add_stored(tx, file.mirror_id, 1, size)


def helpers(
    locator: Locator, deliveries: Deliveries, space: SpaceGuard, families: Mapping[Family, FamilyRules]
) -> Helpers:
    """Return what passive fetches know of the rest of the house."""
    return Helpers(
        locate=locator.locate,
        spelled=locator.spelled,
        near=locator.near,
        elsewhere=locator.elsewhere,
        promised=locator.promised,
        space=space.enough,
        check_archive=lambda file, path: families[Family(file.family)].check_archive(path, file.filename),
        present=deliveries.present,
        holder=deliveries.holder,
        stored=deliveries.stored,
    )
