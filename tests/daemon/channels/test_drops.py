"""Dropping generations when something breaks half-way, and what is remembered of what lies where."""

import asyncio
from pathlib import Path

import pytest

from firth_protocol.errors import NoSpace
from firth_protocol.types import Privacy
from firthd.channels.drops import Retention
from firthd.channels.published import Published, View
from firthd.store import objects
from firthd.store.blobs import BlobStore
from firthd.store.object_store import ObjectStore
from tests.support.clock import START_MS, FakeClock
from tests.support.state import Shelf, sha, shelf


class FullStore(ObjectStore):
    """A store whose disk is full the first time that packs are to be moved."""

    asked: list[set[bytes] | None]

    async def tidy_packs(self, channel_id: int, touched: set[bytes] | None) -> bool:
        self.asked.append(touched)
        if len(self.asked) == 2:
            raise NoSpace("the disk is full")
        return await super().tidy_packs(channel_id, touched)


def view(s: Shelf, number: int) -> View:
    return View(
        channel_id=s.channel_id,
        channel="main",
        privacy=Privacy.PUBLIC,
        generation=number,
        shows=number,
        published_at_ms=START_MS,
    )


async def test_a_drop_that_breaks_leaves_nothing_remembered_and_is_made_up_for(tmp_path: Path) -> None:
    clock = FakeClock()
    async with shelf(tmp_path) as s:
        for number in range(1, 5):
            await s.change(add=[f"p-{number}"])
            await s.publish(time=START_MS + number)
            row = objects.whole("conda", "noarch/x", sha(str(number)), 1)
            await s.db.write(lambda tx, number=number, row=row: objects.show(tx, s.channel_id, number, [row]))  # type: ignore[misc]
        await s.db.write(lambda tx: tx.execute("UPDATE channel SET generation = 4"))
        store = FullStore(s.db, BlobStore(tmp_path / "objects"), clock)
        store.asked = []
        published = Published(s.db, clock, 0)
        retention = Retention(s.db, store, published, clock, 0)
        await retention.drop(s.channel_id, [1])
        assert await published.object(view(s, 2), "conda", "noarch/x") is not None
        with pytest.raises(NoSpace):
            await retention.drop(s.channel_id, [2])
        assert await published.object(view(s, 2), "conda", "noarch/x") is None
        await retention.drop(s.channel_id, [])
        assert [touched is None for touched in store.asked] == [True, False, True]


async def test_a_file_that_was_looked_up_before_all_was_forgotten_is_not_remembered(tmp_path: Path) -> None:
    async with shelf(tmp_path) as s:
        await s.change(add=["p-1"])
        await s.publish()
        digest = bytes.fromhex(sha("p-1"))
        await s.db.write(
            lambda tx: tx.execute("INSERT INTO blob(sha256, size, created_at) VALUES (?, 10, 0)", (digest,))
        )
        await s.db.write(
            lambda tx: tx.execute("INSERT INTO delivered(channel_id, sha256) VALUES (?, ?)", (s.channel_id, digest))
        )
        published = Published(s.db, FakeClock(), 0)

        async def look() -> bool:
            found = await published.file(view(s, 1), "conda", "noarch", "p-1.conda")
            return found is not None and found.delivered

        under_way = asyncio.create_task(look())
        await asyncio.sleep(0)  # it has begun to read
        published.forget_files()
        assert await under_way
        await s.db.write(lambda tx: tx.execute("DELETE FROM delivered"))
        assert not await look()
