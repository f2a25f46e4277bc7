"""The files of served objects: held until their rows are there, gone a while after the last one; packs stay dense."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import zstandard
from msgspec import Struct

from firthd.store import object_files, objects
from firthd.store.blobs import BlobStore
from firthd.store.database import Database
from firthd.store.incoming import BlobMismatch
from firthd.store.object_files import MANY_SMALL
from firthd.store.object_store import LINGER_MS, ObjectStore
from firthd.store.objects import ObjectRow
from tests.support.clock import FakeClock
from tests.support.state import opened
from tests.support.web import sha256

CHANNEL = 1


class Room(Struct, frozen=True):
    db: Database
    clock: FakeClock
    files: BlobStore
    store: ObjectStore

    async def pack(self, number: int, *shards: bytes, channel: int = CHANNEL) -> str:
        """Publish shards that lie in one pack, whole as a publication leaves it; return the pack."""
        async with self.store.arriving() as hold:
            body = b"".join(shards)
            pack = await hold.put(body)
            await self.db.write(lambda tx: objects.name_pack(tx, channel, pack, len(body)))
            rows = [
                ObjectRow(
                    family="conda",
                    path=f"noarch/shards/{sha256(shard)}",
                    sha256=sha256(shard),
                    size=len(shard),
                    file=pack,
                    offset=body.index(shard),
                    lasting=True,
                )
                for shard in shards
            ]
            await self.db.write(lambda tx: objects.show(tx, channel, number, rows))
        return pack

    async def forget(self, *shards: bytes, channel: int = CHANNEL) -> set[bytes]:
        """Say of shards that no kept generation has named them for long."""
        keys = [(bytes.fromhex(sha256(shard)), channel) for shard in shards]
        await self.db.write(
            lambda tx: tx.many("UPDATE object SET until = 1, unnamed_at = 1 WHERE sha256 = ? AND channel_id = ?", keys)
        )
        return await object_files.drop_lasting(self.db, channel, 2, self.clock.now_ms())

    async def read(self, shard: bytes, channel: int = CHANNEL) -> bytes:
        """Return a shard's bytes from where its row says that they lie."""
        path = f"noarch/shards/{sha256(shard)}"
        row = await self.db.read(lambda r: objects.find(r, channel, 99, "conda", path))
        assert row is not None
        assert row.offset is not None
        body = await asyncio.to_thread((await self.store.local(row.file)).read_bytes)
        return body[row.offset : row.offset + row.size]

    async def later(self) -> int:
        await self.clock.advance(LINGER_MS / 1000)
        return await self.store.take_away()

    async def on_disk(self) -> set[str]:
        found = await asyncio.to_thread(lambda: [self.files.listed(f"{first:02x}") for first in range(256)])
        return {kept.sha256 for some in found for kept in some}


@pytest.fixture
async def room(tmp_path: Path) -> AsyncIterator[Room]:
    clock = FakeClock()
    async with opened(tmp_path, clock) as db:
        files = BlobStore(tmp_path / "rendered")
        await asyncio.to_thread(files.prepare)
        yield Room(db, clock, files, ObjectStore(db, files, clock))
        await files.close()


A, B, C, D = b"a" * 100, b"b" * 100, b"c" * 100, b"d" * 100


async def test_a_file_goes_a_minute_after_its_last_row(room: Room) -> None:
    pack = await room.pack(1, A)
    assert await room.later() == 0
    await room.forget(A)
    assert await room.store.take_away() == 0  # somebody may be about to open it
    assert await room.on_disk() == {pack}
    assert await room.later() == 1
    assert await room.on_disk() == set()
    assert await room.db.read(lambda r: r.rows("SELECT * FROM unnamed_file")) == []


async def test_a_file_that_is_named_again_stays(room: Room) -> None:
    pack = await room.pack(1, A)
    await room.forget(A)
    assert await room.pack(2, A) == pack
    assert await room.later() == 0
    assert await room.read(A) == A
    await room.forget(A)
    assert await room.store.take_away() == 0  # its minute begins anew
    assert await room.later() == 1


async def test_a_file_that_waits_for_its_row_stays(room: Room) -> None:
    pack = await room.pack(1, A)
    await room.forget(A)
    async with room.store.arriving() as hold:
        assert await hold.put(A) == pack
        assert await room.later() == 0
        assert await room.on_disk() == {pack}
    assert await room.later() == 1  # no row came, the file was on the list still


async def test_a_file_that_somebody_reads_stays(room: Room) -> None:
    pack, other = await room.pack(1, A), await room.pack(1, B)
    await room.forget(A, B)
    async with room.store.kept({pack}):
        assert await room.later() == 1
        assert await room.on_disk() == {pack}
    assert await room.later() == 1
    assert other != pack


async def test_what_a_crash_left_without_a_row_is_found(room: Room) -> None:
    pack = await room.pack(1, A)
    async with room.store.arriving() as hold:
        await hold.put(B)  # kill -9 between the file and its row
    assert await room.store.find_orphans() == 1
    assert await room.later() == 1
    assert await room.on_disk() == {pack}


async def test_what_a_cut_off_publication_brought_goes(room: Room) -> None:
    async def cut_off() -> None:
        async with room.store.arriving() as hold:
            await hold.put(B)
            raise ValueError("cut off")

    with pytest.raises(ValueError, match="cut off"):
        await cut_off()
    assert await room.later() == 1
    assert await room.on_disk() == set()


async def test_an_object_in_force_is_unpacked_and_verified(room: Room) -> None:
    plain, wrong = b"{}" * 9000, b"[]" * 9000
    async with room.store.arriving() as hold:
        rows = [
            ObjectRow(
                family="conda",
                path=f"{text[:1].decode()}/repodata.json",
                sha256=sha256(plain),
                size=len(plain),
                file=await hold.put(zstandard.compress(text)),
                encoding="zstd",
            )
            for text in (plain, wrong)
        ]
        await room.db.write(lambda tx: objects.show(tx, CHANNEL, 1, rows))
    with pytest.raises(BlobMismatch):
        await room.store.unpack(CHANNEL)
    found = await room.db.read(lambda r: objects.find(r, CHANNEL, 1, "conda", "{/repodata.json"))
    assert found is not None
    assert (found.file, found.encoding) == (sha256(plain), None)
    assert await asyncio.to_thread(room.files.path(sha256(plain)).read_bytes) == plain
    assert await asyncio.to_thread(lambda: list((room.files.root / "tmp").iterdir())) == []


async def test_a_pack_of_waste_gives_its_living_parts_to_the_next(room: Room) -> None:
    old = await room.pack(1, A, B, C, D)
    touched = await room.forget(A, B)
    assert not await room.store.tidy_packs(CHANNEL, touched)  # half of it is named
    touched = await room.forget(C)
    assert await room.store.tidy_packs(CHANNEL, touched)
    assert await room.read(D) == D
    assert await room.on_disk() == {old, sha256(D)}
    assert await room.later() == 1
    assert await room.on_disk() == {sha256(D)}
    assert await room.read(D) == D
    assert await room.db.read(lambda r: r.rows("SELECT file, size FROM pack")) == [(bytes.fromhex(sha256(D)), 100)]


async def test_another_channel_keeps_its_parts_of_the_same_pack(room: Room) -> None:
    pack = await room.pack(1, A, B, C)
    assert await room.pack(1, A, B, C, channel=2) == pack
    touched = await room.forget(A, B)
    assert await room.store.tidy_packs(CHANNEL, touched)
    assert await room.later() == 0
    assert [await room.read(shard, 2) for shard in (A, B, C)] == [A, B, C]
    assert await room.read(C) == C


async def test_many_small_packs_become_one(room: Room) -> None:
    shards = [b"%04d" % number * 10 for number in range(MANY_SMALL)]
    for shard in shards[:-1]:
        await room.pack(1, shard)
    assert not await room.store.tidy_packs(CHANNEL, set())
    await room.pack(1, shards[-1])
    assert await room.store.tidy_packs(CHANNEL, set())
    assert [await room.read(shard) for shard in shards] == shards
    assert await room.later() == MANY_SMALL
    assert len(await room.on_disk()) == 1


async def test_packs_are_joined_some_at_a_time(room: Room) -> None:
    shards = [b"%04d" % number * 10 for number in range(MANY_SMALL)]
    for shard in shards:
        await room.pack(1, shard)
    bounded = ObjectStore(room.db, room.files, room.clock, joined=MANY_SMALL // 2)
    assert await bounded.tidy_packs(CHANNEL, set())
    assert [await room.read(shard) for shard in shards] == shards
    assert await room.later() == MANY_SMALL
    assert len(await room.on_disk()) == 2


async def test_a_pack_in_which_nothing_lives_is_forgotten(room: Room) -> None:
    await room.pack(1, A, B)
    assert await room.store.tidy_packs(CHANNEL, await room.forget(A, B))
    assert await room.db.read(lambda r: r.rows("SELECT * FROM pack")) == []
    assert await room.later() == 1


async def test_a_damaged_pack_is_told_and_left_as_it_is(room: Room) -> None:
    pack = await room.pack(1, A, B, C)
    await asyncio.to_thread(room.files.path(pack).write_bytes, b"z" * 300)
    touched = await room.forget(A, B)
    with pytest.raises(OSError, match="does not hold"):
        await room.store.tidy_packs(CHANNEL, touched)
    assert await room.on_disk() == {pack}
    assert await asyncio.to_thread(lambda: list((room.files.root / "tmp").iterdir())) == []
