"""Blobs: verified, durable in batches, named by their digest; what a crash or a failure leaves behind."""

import asyncio
import hashlib
import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firth_protocol.errors import TooLarge, Unavailable
from firthd.store.blobs import BATCH, BlobStore, Kept
from firthd.store.incoming import BlobMismatch, BlobWriter, MemoryWriter
from firthd.store.promises import ALGORITHMS, broken_in, promise_of


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Names:
    """Takes the names of blobs as the state does, and looks whether each is at its final place by then."""

    def __init__(self) -> None:
        self.batches: list[list[Kept]] = []
        self.absent: list[str] = []
        self.error: Exception | None = None
        self.store: BlobStore | None = None
        self.go = asyncio.Event()
        self.go.set()

    async def __call__(self, kept: list[Kept]) -> None:
        assert self.store is not None
        self.absent += [one.sha256 for one in kept if self.store.size(one.sha256) != one.size]
        self.batches.append(kept)
        await self.go.wait()
        if self.error is not None:
            raise self.error


@pytest.fixture
async def names() -> Names:
    return Names()


@pytest.fixture
async def store(tmp_path: Path, names: Names) -> AsyncIterator[BlobStore]:
    store = BlobStore(tmp_path / "blobs", names)
    await asyncio.to_thread(store.prepare)
    names.store = store
    yield store
    await store.close()


def written(store: BlobStore, data: bytes, **promised: object) -> BlobWriter:
    fields: dict[str, object] = {"size": len(data), "sha256": sha(data)} | promised
    writer = store.writer(**fields)  # type: ignore[arg-type]
    writer.write(data)
    return writer


def leftovers(store: BlobStore) -> list[Path]:
    return list((store.root / "tmp").iterdir())


# --- keeping ---------------------------------------------------------------------------------------------


async def test_what_is_kept_lies_under_its_digest(store: BlobStore, names: Names) -> None:
    assert not store.has(sha(b"hello"))
    kept = await store.keep(written(store, b"hello"))
    assert kept == Kept(sha256=sha(b"hello"), size=5)
    path = store.path(kept.sha256)
    assert path.read_bytes() == b"hello"
    assert path.relative_to(store.root).as_posix() == f"{kept.sha256[:2]}/{kept.sha256[2:4]}/{kept.sha256}"
    assert (store.has(kept.sha256), store.size(kept.sha256)) == (True, 5)
    assert names.batches == [[kept]]
    assert leftovers(store) == []


@given(chunks=st.lists(st.binary(max_size=40), max_size=8))
def test_any_way_of_cutting_into_chunks_gives_the_same_blob(
    tmp_path_factory: pytest.TempPathFactory, chunks: list[bytes]
) -> None:
    data = b"".join(chunks)
    path = tmp_path_factory.mktemp("blob") / "file"
    promised = hashlib.md5(data, usedforsecurity=False).hexdigest()
    writer = BlobWriter(path, size=len(data), sha256=None, md5=promised, limit=None)
    for chunk in chunks:
        writer.write(chunk)
    writer.verify()
    writer.close()
    assert (path.read_bytes(), writer.written, writer.sha256) == (data, len(data), sha(data))


@pytest.mark.parametrize(
    ("promised", "reason"),
    [
        ({"size": 6}, "5 bytes came, 6 were promised"),
        ({"sha256": "0" * 64}, f"sha256 is {sha(b'hello')}, {'0' * 64} was promised"),
        ({"sha256": None, "md5": "0" * 32}, "md5 is 5d41402abc4b2a76b9719d911017c592"),
        ({"size": None, "sha256": "f" * 64, "md5": None}, "sha256 is"),
    ],
)
async def test_what_is_not_as_promised_is_refused_and_leaves_nothing(
    store: BlobStore, names: Names, promised: dict[str, object], reason: str
) -> None:
    with pytest.raises(BlobMismatch, match=reason) as caught:
        await store.keep(written(store, b"hello", **promised))
    assert caught.value.reason == str(caught.value)
    assert leftovers(store) == []
    assert not store.has(sha(b"hello"))
    assert names.batches == []


@pytest.mark.parametrize("promised", [{"size": 5}, {"size": None, "max_bytes": 5}, {"size": 5, "max_bytes": 100}])
async def test_one_byte_more_than_promised_is_refused_while_it_comes(
    store: BlobStore, promised: dict[str, object]
) -> None:
    writer = written(store, b"hello", sha256=None, **promised)
    with pytest.raises(TooLarge, match="5 bytes"):
        writer.write(b"!")
    assert writer.path.read_bytes() == b"hello"
    writer.abort()
    writer.abort()  # twice is no error
    assert leftovers(store) == []


async def test_a_file_without_any_promise_gets_our_digest(store: BlobStore) -> None:
    kept = await store.keep(written(store, b"x", size=None, sha256=None))
    assert kept == Kept(sha256=sha(b"x"), size=1)


async def test_more_than_a_batch_at_once_are_named_in_batches(store: BlobStore, names: Names) -> None:
    data = [f"file {number}".encode() for number in range(BATCH + 40)]
    kept = await asyncio.gather(*(store.keep(written(store, one)) for one in data))
    assert [one.sha256 for one in kept] == [sha(one) for one in data]
    assert all(store.path(one.sha256).read_bytes() == body for one, body in zip(kept, data, strict=True))
    assert sorted(one.sha256 for batch in names.batches for one in batch) == sorted(map(sha, data))
    assert max(map(len, names.batches)) == BATCH
    assert len(names.batches) <= 3
    assert names.absent == []
    assert leftovers(store) == []


def held(data: bytes, **promised: object) -> MemoryWriter:
    """Return a small file that has come and lies in memory."""
    fields: dict[str, object] = {"size": len(data), "sha256": sha(data), "md5": None} | promised
    writer = MemoryWriter(**fields)  # type: ignore[arg-type]
    for start in range(0, len(data), 3):
        writer.write(data[start : start + 3])
    return writer


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_a_file_is_held_to_any_digest_where_there_is_no_sha256(store: BlobStore, algorithm: str) -> None:
    right, wrong = (
        promise_of({algorithm: hashlib.new(algorithm, data).hexdigest().upper()}) for data in (b"hello", b"other")
    )
    for promised, good in ((right, True), (wrong, False)):
        writer = store.writer(size=None, sha256=None)
        small = MemoryWriter(size=5, sha256=None, md5=None)
        for one in (writer, small):
            one.promise(promised)
            one.write(b"hel")
            one.restart()
            one.write(b"hello")
            if good:
                assert (await store.keep(one)).sha256 == sha(b"hello")
            else:
                with pytest.raises(BlobMismatch, match=f"{algorithm} is [0-9a-f]+, [0-9a-f]+ was promised"):
                    await store.keep(one)
    assert leftovers(store) == []


@pytest.mark.parametrize(
    ("hashes", "found"),
    [
        ({}, None),
        ({"crc32": "00", "sha256": "00"}, None),
        ({"sha1": "0" * 40, "sha512": "A" * 128}, "sha512"),
        ({"sha512": None, "sha1": "0" * 40}, "sha1"),
        ({"blake2b": "0" * 64}, "blake2b"),
    ],
)
def test_the_strongest_digest_counts(tmp_path: Path, hashes: dict[str, str | None], found: str | None) -> None:
    promise = promise_of(hashes)
    assert (promise and promise.algorithm) == found
    file = tmp_path / "file"
    file.write_bytes(b"hello")
    assert promise is None or "was promised" in (broken_in(promise, file) or "")
    assert promise is None or promise.value == promise.value.lower()


@pytest.mark.parametrize(
    ("algorithm", "value"),
    [("sha512", "0" * 127), ("sha512", "0" * 64), ("sha1", "x" * 40), ("blake2s", "0" * 66), ("sha1", "00 " * 20)],
)
def test_what_is_no_digest_is_told(algorithm: str, value: str) -> None:
    with pytest.raises(ValueError, match="is none"):
        promise_of({algorithm: value})


async def test_small_files_are_written_with_their_batch(store: BlobStore, names: Names) -> None:
    data = [f"file {number}".encode() for number in range(50)]
    kept = await asyncio.gather(*(store.keep(held(one)) for one in data))
    assert kept == [Kept(sha256=sha(one), size=len(one)) for one in data]
    assert all(store.path(one.sha256).read_bytes() == body for one, body in zip(kept, data, strict=True))
    assert names.absent == []
    assert leftovers(store) == []
    md5 = hashlib.md5(b"by md5", usedforsecurity=False).hexdigest()
    assert (await store.keep(held(b"by md5", sha256=None, md5=md5))).sha256 == sha(b"by md5")
    assert await store.keep(held(data[0])) == kept[0]  # which the store has


@pytest.mark.parametrize(
    ("promised", "reason"),
    [
        ({"size": 6}, "5 bytes came, 6 were promised"),
        ({"sha256": "0" * 64}, f"sha256 is {sha(b'hello')}, {'0' * 64} was promised"),
        ({"sha256": None, "md5": "0" * 32}, "md5 is 5d41402abc4b2a76b9719d911017c592"),
    ],
)
async def test_a_small_file_that_is_not_as_promised_is_refused_alone(
    store: BlobStore, names: Names, promised: dict[str, object], reason: str
) -> None:
    good, told = await asyncio.gather(
        store.keep(held(b"good")), store.keep(held(b"hello", **promised)), return_exceptions=True
    )
    assert isinstance(told, BlobMismatch)
    assert reason in told.reason
    assert good == Kept(sha256=sha(b"good"), size=4)
    assert names.batches == [[good]]
    assert (store.has(sha(b"hello")), leftovers(store)) == (False, [])


def test_a_small_file_takes_no_byte_more_than_promised_and_begins_anew() -> None:
    writer = held(b"hello")
    with pytest.raises(TooLarge, match="5 bytes"):
        writer.write(b"!")
    writer.restart()
    writer.write(b"hello")
    assert writer.whole() == (b"hello", sha(b"hello"))


async def test_the_same_bytes_from_many_at_once_are_one_file(store: BlobStore) -> None:
    kept = await asyncio.gather(*(store.keep(written(store, b"same")) for _ in range(20)))
    assert set(kept) == {Kept(sha256=sha(b"same"), size=4)}
    assert [path.name for path in store.root.glob("??/??/*")] == [sha(b"same")]
    assert leftovers(store) == []


async def test_nobody_is_told_before_the_name_is_written(store: BlobStore, names: Names) -> None:
    names.go.clear()
    keeping = asyncio.create_task(store.keep(written(store, b"hello")))
    async with asyncio.timeout(5):
        while not names.batches:
            await asyncio.sleep(0)
    assert store.has(sha(b"hello"))  # a crash now leaves the file, which is what counts
    assert not keeping.done()
    names.go.set()
    await keeping


async def test_a_cancelled_keeper_does_not_undo_it(store: BlobStore, names: Names) -> None:
    names.go.clear()
    keeping = asyncio.create_task(store.keep(written(store, b"hello")))
    behind = asyncio.create_task(store.keep(written(store, b"behind")))
    async with asyncio.timeout(5):
        while not names.batches:
            await asyncio.sleep(0)
    keeping.cancel()
    behind.cancel()
    await asyncio.wait([keeping, behind])
    assert keeping.cancelled()
    names.go.set()
    await store.close()
    assert store.has(sha(b"hello"))
    assert store.has(sha(b"behind"))
    assert leftovers(store) == []


async def test_a_name_that_cannot_be_written_is_told_to_its_batch_only(store: BlobStore, names: Names) -> None:
    names.error = OSError("the state is out of reach")
    for _ in range(2):
        with pytest.raises(OSError, match="out of reach"):
            await store.keep(written(store, b"hello"))
    names.error = None
    assert (await store.keep(written(store, b"hello"))).size == 5


async def test_one_file_that_cannot_be_settled_does_not_hurt_those_beside_it(store: BlobStore, names: Names) -> None:
    good = [store.keep(written(store, f"good {number}".encode())) for number in range(3)]
    lost = written(store, b"lost")
    lost.path.unlink()
    told = await asyncio.gather(good[0], store.keep(lost), *good[1:], return_exceptions=True)
    assert isinstance(told[1], FileNotFoundError)
    for number in range(3):
        assert store.has(sha(f"good {number}".encode()))
    assert [one for one in told if isinstance(one, BaseException)] == [told[1]]
    assert sorted(one.sha256 for batch in names.batches for one in batch) == sorted(
        sha(f"good {number}".encode()) for number in range(3)
    )
    assert leftovers(store) == []


async def test_a_file_that_cannot_get_its_name_is_thrown_away(store: BlobStore) -> None:
    digest = sha(b"hello")
    (store.root / digest[:2]).write_bytes(b"in the way of a folder")
    with pytest.raises(OSError, match=r"directory|exists"):
        await store.keep(written(store, b"hello"))
    assert leftovers(store) == []


async def test_a_closed_store_takes_no_more(store: BlobStore) -> None:
    await store.close()
    with pytest.raises(Unavailable):
        await store.keep(written(store, b"hello"))
    assert leftovers(store) == []


async def test_what_a_worker_wrote_is_adopted(store: BlobStore, names: Names) -> None:
    path = store.temporary()
    path.write_bytes(b"rendered")
    await store.adopt(path, sha(b"rendered"), 8)
    assert store.path(sha(b"rendered")).read_bytes() == b"rendered"
    assert names.batches == [[Kept(sha256=sha(b"rendered"), size=8)]]


async def test_a_store_that_is_closed_has_no_thread_left(store: BlobStore) -> None:
    await store.keep(written(store, b"data"))
    await store.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("flush ")]


# --- after a crash, sweeping -----------------------------------------------------------------------------


def test_what_a_crash_left_half_written_is_swept_at_start_and_nothing_else(tmp_path: Path) -> None:
    store = BlobStore(tmp_path / "blobs")
    store.prepare()
    whole = store.path(sha(b"whole"))
    whole.parent.mkdir(parents=True)
    whole.write_bytes(b"whole")
    store.temporary().write_bytes(b"half")
    store.temporary().write_bytes(b"")
    BlobStore(tmp_path / "blobs").prepare()
    assert leftovers(store) == []
    assert whole.read_bytes() == b"whole"


def test_deleting_what_is_gone_is_no_error(tmp_path: Path) -> None:
    store = BlobStore(tmp_path / "blobs")
    store.prepare()
    store.delete(sha(b"absent"))


@pytest.mark.parametrize(
    "name", ["", "..", "../../etc/passwd", "0" * 63, "0" * 65, "A" * 64, "0" * 64 + "\n", "０" * 64]
)
def test_only_a_digest_is_a_place(tmp_path: Path, name: str) -> None:
    store = BlobStore(tmp_path)
    for asked in (store.path, store.size, store.has):
        with pytest.raises(ValueError, match="sha256"):
            asked(name)


async def test_free_and_total_bytes_are_those_of_the_file_system(store: BlobStore) -> None:
    free, total = await store.free_bytes(), await store.total_bytes()
    assert 0 <= free <= total
    stat = os.statvfs(store.root)
    assert total == stat.f_blocks * stat.f_frsize


def test_what_is_written_apart_is_hashed_behind_it(tmp_path: Path) -> None:
    content = os.urandom(3_000_000)
    writer = BlobWriter(tmp_path / "x", size=len(content), sha256=sha(content), md5=None, limit=None)
    writer.write(content[:1000])
    writer.append([memoryview(content)[1000:1_500_000], content[1_500_000:2_000_000]])
    assert writer.written == 2_000_000
    writer.hash_behind([499_000, 1_500_000])
    writer.append([content[2_000_000:]])
    writer.hash([content[2_000_000:]])
    writer.verify()
    with pytest.raises(TooLarge):
        writer.append([b"more"])
    with pytest.raises(OSError, match="cannot be read again"):
        writer.hash_behind([1])
    writer.restart()
    writer.append([content])
    writer.hash_behind([len(content)])
    writer.verify()
    writer.close()
    assert (tmp_path / "x").read_bytes() == content
