"""What holds a stored file, after a hundred publications: exactly what indexes, drafts, snapshots and grace name."""

import asyncio
from pathlib import Path

from firthd.store import catalog, generations, pages, roots
from firthd.store.blobs import BlobStore
from firthd.store.database import Tx
from tests.support.clock import START_MS
from tests.support.state import Shelf, sha, shelf

DAY_MS = 86_400_000
GRACE_MS = 7 * DAY_MS
NOW = START_MS + 200 * DAY_MS


async def held(s: Shelf, now_ms: int = NOW) -> dict[str, int]:
    found: dict[str, int] = {}
    after = b""
    while page := await s.db.read(lambda r, after=after: roots.page(r, after, now_ms, GRACE_MS)):  # type: ignore[misc]
        found |= {one.sha256.hex(): one.by for one in page}
        after = page[-1].sha256
    return found


async def test_after_a_hundred_runs_what_stays_is_what_roots_name(tmp_path: Path) -> None:
    store = BlobStore(tmp_path / "blobs")
    await asyncio.to_thread(store.prepare)
    async with shelf(tmp_path) as s:
        before: dict[str, int] = {}
        for day in range(100):
            before = await s.change(add=[f"moving-{day}"], close=before.values(), gap=10_000)
            await s.publish(time=START_MS + (day + 100) * DAY_MS)
            await s.store(f"moving-{day}")
        await s.change(add=["waiting-1"])
        await s.store("waiting-1")
        await s.store("nobodys-1")
        dropped = [number for number in range(1, 91) if number % 10]
        await s.db.write(lambda tx: generations.drop_generations(tx, s.channel_id, dropped))
        for name in [*(f"moving-{day}" for day in range(100)), "waiting-1", "nobodys-1"]:
            file = store.path(sha(name))
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(name.encode())
        found = await held(s)
        kept = {f"moving-{number - 1}" for number in range(1, 101) if number not in dropped}
        graced = {f"moving-{day}" for day in range(100) if 200 - (day + 101) < 7}
        assert set(found.values()) == {
            roots.INDEX,
            roots.DRAFT,
            roots.GRACE,
            roots.SNAPSHOT,
            roots.NOTHING,
        }
        assert found[sha("moving-99")] == roots.INDEX
        assert found[sha("waiting-1")] == roots.DRAFT
        assert found[sha("moving-98")] == roots.GRACE
        assert found[sha("moving-9")] == roots.SNAPSHOT
        free = [bytes.fromhex(sha256) for sha256, by in found.items() if by == roots.NOTHING]
        gone = await s.db.write(lambda tx: roots.let_go(tx, free, NOW, GRACE_MS))
        assert all([await asyncio.to_thread(store.take_away, sha256, NOW * 2) for sha256 in gone])
        there = {file.read_text() for file in (tmp_path / "blobs").glob("??/??/*")}
        assert there == kept | graced | {"moving-99", "waiting-1"}
        assert {row[0].hex() for row in await s.db.read(lambda r: r.rows("SELECT sha256 FROM blob"))} == {
            sha(name) for name in there
        }
        assert await s.db.read(lambda r: r.value("SELECT count(*) FROM delivered")) == len(there)


async def test_what_has_come_to_be_needed_since_the_look_stays(tmp_path: Path) -> None:
    async with shelf(tmp_path) as s:
        await s.store("back-1")
        assert await held(s) == {sha("back-1"): roots.NOTHING}
        await s.change(add=["back-1"])
        gone = await s.db.write(lambda tx: roots.let_go(tx, [bytes.fromhex(sha("back-1"))], NOW, GRACE_MS))
        assert gone == []


async def test_young_files_and_channels_that_are_gone(tmp_path: Path) -> None:
    async with shelf(tmp_path) as s:
        await s.change(add=["shown-1"])
        await s.publish()
        await s.store("shown-1", "young-1")
        assert set((await held(s, START_MS + DAY_MS)).values()) == {roots.INDEX, roots.GRACE}
        await s.db.write(lambda tx: catalog.mark_channel_deleted(tx, s.channel_id, NOW))
        assert set((await held(s)).values()) == {roots.NOTHING}


async def page(s: Shelf, at_ms: int, add: list[str], close: list[int]) -> dict[str, int]:
    """Let a lazy page be read that lists `add` and no longer `close`."""
    ids = await s.change(add=add, close=close)

    async def body(tx: Tx) -> None:
        change_set = int(await tx.value("SELECT max(id) FROM change_set WHERE state = 'finished'"))
        await pages.take_in(
            tx,
            channel_id=s.channel_id,
            mirror_id=1,
            family="conda",
            part="noarch",
            fresh=pages.Fresh(url_path="noarch/", body=b"x"),
            change_set=change_set,
            now_ms=at_ms,
        )

    await s.db.write(body)
    await s.store(*add)
    return ids


async def test_what_an_earlier_version_of_a_lazy_page_lists_stays_as_long_as_the_version(tmp_path: Path) -> None:
    async with shelf(tmp_path) as s:
        await s.publish()
        first = await page(s, START_MS, ["old-1"], [])
        await page(s, START_MS + DAY_MS, ["new-1"], list(first.values()))
        assert await held(s, START_MS + 5 * DAY_MS) == {sha("old-1"): roots.GRACE, sha("new-1"): roots.INDEX}
        assert await held(s) == {sha("old-1"): roots.SNAPSHOT, sha("new-1"): roots.INDEX}
        (snapshot,) = [
            one.snapshot for one in await s.db.read(lambda r: roots.page(r, b"", NOW, GRACE_MS)) if one.snapshot
        ]
        assert snapshot[1] == 1
        await s.publish(time=START_MS + 2 * DAY_MS)  # the page had lost the file by then
        again = [one.snapshot for one in await s.db.read(lambda r: roots.page(r, b"", NOW, GRACE_MS)) if one.snapshot]
        assert again == [snapshot]
        await s.db.write(lambda tx: tx.execute("DELETE FROM page WHERE read_at = ?", (START_MS,)))
        assert await held(s) == {sha("old-1"): roots.NOTHING, sha("new-1"): roots.INDEX}


def test_a_file_that_was_written_again_stays(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    store.prepare()
    file = store.path(sha("x"))
    file.parent.mkdir(parents=True)
    file.write_bytes(b"x")
    assert not store.take_away(sha("x"), 0)
    assert file.read_bytes() == b"x"
    assert store.take_away(sha("x"), NOW * 2)
    assert not file.exists()
    assert not store.take_away(sha("x"), 0)
