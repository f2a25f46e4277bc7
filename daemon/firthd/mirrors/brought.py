"""The only place that counts the files which clients' requests have brought."""

from firthd.channels.published import Published
from firthd.store import artifacts, catalog
from firthd.store.artifacts import FileRow
from firthd.store.blobs import Kept
from firthd.store.database import Database, Tx


class Brought:
    """Notes files of mirrors that a client's request has brought into the store."""

    def __init__(self, db: Database, published: Published) -> None:
        self._db = db
        self._published = published

    async def note(self, file: FileRow, kept: Kept) -> None:
        """Count a file; record its digest where the source gives none."""

        async def body(tx: Tx) -> None:
            if file.sha256 is None:
                await artifacts.record_first_sight(tx, file.id, kept.sha256, kept.size)
            await catalog.add_stored(tx, file.mirror_id, 1, kept.size)

        await self._db.write(body)
        if file.sha256 is None:
            self._published.forget_files()
