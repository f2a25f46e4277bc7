"""A state database with a channel and rows of artifacts, for tests of what reads and writes it."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from msgspec.structs import astuple

from firth_protocol.types import Cause, MirrorMode, MirrorType, OnUpstreamRemoval, Privacy
from firthd.clock import Clock
from firthd.families.base import COLUMNS, SourceRecord
from firthd.store import catalog, generations, offers
from firthd.store.blobs import Kept
from firthd.store.database import Database, Tx
from firthd.store.generations import GenerationRow
from firthd.store.run_file import RunFile
from firthd.store.upkeep import name_blobs
from tests.support.clock import START_MS, FakeClock


@asynccontextmanager
async def opened(folder: Path, clock: Clock | None = None) -> AsyncIterator[Database]:
    """Give the state of a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    database = await Database.open(folder / "firth.sqlite", clock or FakeClock())
    try:
        yield database
    finally:
        await database.close()


async def add_channel(tx: Tx, name: str = "main") -> int:
    return await catalog.insert_channel(
        tx,
        name=name,
        parent_id=None,
        description="",
        privacy=Privacy.PUBLIC,
        keep_days=90,
        keep_months=12,
        now_ms=START_MS,
    )


async def add_mirror(tx: Tx, channel_id: int, name: str = "m", **fields: Any) -> int:
    values = {
        "channel_id": channel_id,
        "name": name,
        "type": MirrorType.CONDA,
        "mode": MirrorMode.PASSIVE,
        "source": f"https://source.example.org/{name}",
        "schedule": "0 0 1 * *",
        "on_upstream_removal": OnUpstreamRemoval.FOLLOW,
    }
    return await catalog.insert_mirror(tx, values | fields, START_MS)


def sha(text: str) -> str:
    """Return a sha256 in hex that stands for a file."""
    return hashlib.sha256(text.encode()).hexdigest()


_END_OFFERS = (
    "UPDATE offered AS o SET closed_set = :set WHERE closed_set IS NULL AND mirror_id = :mirror AND NOT EXISTS"
    " (SELECT 1 FROM artifact a WHERE a.mirror_id = :mirror AND a.name = o.name AND a.closed_set IS NULL)"
)


class Shelf:
    """Change sets, artifacts and generations of one channel, written as runs and publications write them."""

    def __init__(self, db: Database, channel_id: int) -> None:
        self.db = db
        self.channel_id = channel_id
        self.number = 0
        self._open: list[int] = []

    async def change(
        self, *, mirror: int = 1, add: Iterable[str] = (), close: Iterable[int] = (), reason: str = "gone", gap: int = 1
    ) -> dict[str, int]:
        """Write a finished change set: adds `name-version` files, closes rows; return the new rows' ids by name.

        `gap` is how far each id is from the one before: a large one makes a state of many artifacts out of few.
        """
        ids: dict[str, int] = {}

        async def body(tx: Tx) -> None:
            change_set = await generations.open_change_set(
                tx, channel_id=self.channel_id, mirror_id=mirror, run_id=None, cause=Cause.RUN, now_ms=START_MS
            )
            self._open.append(change_set)
            closed = list(close)
            await tx.many(
                "UPDATE artifact SET closed_set = ?, closed_reason = ? WHERE id = ?",
                [(change_set, reason, row) for row in closed],
            )
            for what in add:
                name, _, version = what.partition("-")
                ids[what] = await tx.insert(
                    "INSERT INTO artifact(id, channel_id, mirror_id, family, part, section, filename, name, version,"
                    " build, build_number, size, sha256, declared, fingerprint, added_set)"
                    " VALUES ((SELECT coalesce(max(id), 0) + ? FROM artifact), ?, ?, 'conda', 'noarch',"
                    " 'packages.conda', ?, ?, ?, '0', 0, 10, ?, 2, x'00', ?)",
                    (
                        gap,
                        self.channel_id,
                        mirror,
                        f"{what}.conda",
                        name,
                        version,
                        bytes.fromhex(sha(what)),
                        change_set,
                    ),
                )
                await tx.insert("INSERT INTO artifact_record VALUES (?, ?)", (ids[what], what.encode()))
            for row in ids.values():
                await offers.begin_with_files(tx, change_set, row, row)
            await tx.execute(_END_OFFERS, {"set": change_set, "mirror": mirror})
            await tx.execute("UPDATE artifact_id_range SET next = (SELECT coalesce(max(id), 0) + 1 FROM artifact)")
            await generations.finish_change_set(tx, change_set, added=len(ids), closed=len(closed), now_ms=START_MS)

        await self.db.write(body)
        return ids

    def take_up(self, change_set: int) -> None:
        """Let the next publication publish a change set that somebody else has finished."""
        self._open.append(change_set)

    async def publish(self, *, time: int = START_MS, shows: int | None = None) -> int:
        """Publish what is finished, or an earlier generation again; return the number."""
        self.number += 1
        row = GenerationRow(
            number=self.number,
            shows=shows or self.number,
            time=time,
            cause=Cause.ROLLBACK if shows else Cause.RUN,
            run_id=None,
            added=0,
            removed=0,
            artifacts=0,
            packages=0,
            bytes=0,
            digest="",
            kept=True,
        )
        sets = [] if shows else self._open

        async def body(tx: Tx) -> None:
            await generations.publish(tx, channel_id=self.channel_id, row=row, families=[], change_sets=sets)
            await catalog.set_generation(tx, self.channel_id, row.number, time)

        await self.db.write(body)
        if not shows:
            self._open = []
        return self.number

    async def store(self, *names: str, channel_id: int | None = None) -> None:
        """Say of files that the store has them, and this channel (or another one) was given them."""
        kept = [Kept(sha256=sha(name), size=10, channel_id=channel_id or self.channel_id) for name in names]
        await self.db.write(lambda tx: name_blobs(tx, kept, START_MS))


@asynccontextmanager
async def shelf(folder: Path) -> AsyncIterator[Shelf]:
    """Give a state with the channel `main`, which has three mirrors, 1 to 3."""
    async with opened(folder) as db:

        async def body(tx: Tx) -> int:
            channel_id = await add_channel(tx)
            for name in ("first", "second", "third"):
                await add_mirror(tx, channel_id, name)
            return channel_id

        yield Shelf(db, await db.write(body))


def record_of(what: str) -> SourceRecord:
    """Return the record of `name-version`."""
    name, _, version = what.partition("-")
    return SourceRecord(
        section="packages.conda",
        filename=f"{what}.conda",
        name=name,
        version=version,
        build="0",
        build_number=0,
        size=10,
        sha256=bytes.fromhex(sha(what)),
        md5=None,
        declared=2,
        license=None,
        timestamp=None,
        fingerprint=b"0" * 16,
        raw=what.encode(),
    )


async def write_run_file(
    path: Path, *, add: Iterable[tuple[str, int | None]] = (), close: Iterable[int] = (), reason: str = "gone"
) -> None:
    """Write a run's own file as a worker does: `add` holds (name-version, the row that it replaces)."""
    await asyncio.to_thread(_write_run_file, path, add, close, reason)


def _write_run_file(path: Path, add: Iterable[tuple[str, int | None]], close: Iterable[int], reason: str) -> None:
    with RunFile(str(path)) as file:
        file.start_read(COLUMNS)
        file.add(
            (
                "conda",
                "noarch",
                *astuple(record_of(what)),
                replaces,
            )
            for what, replaces in add
        )
        file.close_rows((row, "conda", "noarch", "", reason) for row in close)
        file.offers(("conda", "noarch", name, True) for name in sorted({what.partition("-")[0] for what, _ in add}))
