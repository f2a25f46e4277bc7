"""Files that were lost or damaged on the disk: never served, fetched or rendered again without a person, told."""

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from firth_protocol.types import RunState
from tests.support.world import World, world

ALPHA = "/repo/main/noarch/alpha-1.9-0.conda"
INDEXES = [f"noarch/{name}" for name in ("repodata.json", "repodata.json.zst", "repodata_shards.msgpack.zst")]


def lose(path: Path) -> None:
    path.unlink()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGES = [lose, cut, lengthen, empty, flip]


def blob(w: World, body: bytes) -> Path:
    return w.daemon.daemon.blobs.path(hashlib.sha256(body).hexdigest())


async def stored(w: World, mode: str) -> bytes:
    """Have a file stored that nobody was given from the store yet: small ones stay in memory. Return its bytes."""
    await w.mirror(mode)
    await w.run()
    if mode == "passive":
        assert (await w.get(ALPHA)).status == 200
    return (w.source.path / "noarch/alpha-1.9-0.conda").read_bytes()


def rendered(w: World) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in w.daemon.daemon.rendered.root.glob("[0-9a-f][0-9a-f]/*/*")}


async def index_files(w: World) -> dict[str, Path]:
    sql = "SELECT path, file FROM object WHERE until IS NULL AND offset IS NULL"
    rows = await w.daemon.daemon.db.read(lambda r: r.rows(sql))
    return {path: w.daemon.daemon.rendered.path(file.hex()) for path, file in rows if path in INDEXES}


async def told(w: World) -> list[str]:
    return [problem.text for problem in (await w.call("daemon.status")).health if problem.subject == "store"]


@pytest.mark.parametrize(("mode", "damage"), [("active", cut), *(("passive", damage) for damage in DAMAGES)])
async def test_a_package_that_is_not_whole_is_fetched_again(
    tmp_path: Path, mode: str, damage: Callable[[Path], None]
) -> None:
    async with world(tmp_path) as w:
        right = await stored(w, mode)
        damage(blob(w, right))
        for method in ("HEAD", "GET", "GET"):
            reply = await w.get(ALPHA, method=method)
            assert (reply.status, reply.headers["Content-Length"]) == (200, str(len(right)))
            assert reply.body == (right if method == "GET" else b"")
        assert blob(w, right).read_bytes() == right
        (text,) = await told(w)
        assert text.startswith("1 stored files were lost or damaged")
        await w.daemon.daemon.upkeep.round()
        assert "the right ones have come again" in (await told(w))[0]


async def test_a_hundred_clients_that_find_it_at_once_all_get_it(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        right = await stored(w, "passive")
        cut(blob(w, right))
        replies = await asyncio.gather(*(w.get(ALPHA) for _ in range(100)))
        assert {reply.status for reply in replies} == {200}
        assert {reply.body for reply in replies} == {right}
        assert len(w.upstream.asked("*alpha-1.9-0.conda", method="GET")) == 2
        events = await w.daemon.daemon.db.read(
            lambda r: r.value("SELECT count(*) FROM event WHERE type = 'store.damaged'")
        )
        assert events == 1


@pytest.mark.parametrize("damage", DAMAGES)
async def test_index_files_are_made_anew_when_somebody_asks(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    async with world(tmp_path) as w:
        await w.mirror("passive")
        await w.run()
        files = await index_files(w)
        before = {path: file.read_bytes() for path, file in files.items()}
        assert len(before) == 3
        for file in files.values():
            damage(file)
        replies = [await w.get(f"/repo/main/{path}") for path in INDEXES]
        assert replies[0].status == 503
        for path, reply in zip(INDEXES, replies, strict=True):  # the later ones may be there again by now
            assert reply.status == 503 or (reply.status, reply.body) == (200, before[path])
        assert await told(w)
        await runs_end(w)
        for path in INDEXES:
            reply = await w.get(f"/repo/main/{path}")
            assert (reply.status, reply.body) == (200, before[path])
        assert (await w.call("channel.get", channel="main")).generation == 2  # nothing has changed


async def runs_end(w: World) -> None:
    while open_runs := [run for run in (await w.call("run.list")).items if not run.state.ended]:
        for run in open_runs:
            assert (await w.daemon.ended(run.id)).state is RunState.COMPLETED


@pytest.mark.parametrize("way", ["run", "check"])
async def test_everything_rendered_is_lost_and_comes_again(tmp_path: Path, way: str) -> None:
    async with world(tmp_path) as w:
        await w.mirror("passive")
        await w.run()
        files = rendered(w)
        assert len(files) > 6
        for file in files:
            file.unlink()
        if way == "run":
            assert (await w.run()).state is RunState.COMPLETED
        else:
            reply = await w.call("daemon.check")
            assert [check.name for check in reply.checks if not check.ok] == ["indexes"]
            await runs_end(w)
            assert (await w.call("daemon.check")).ok
        assert rendered(w) == files
        assert len(await w.names()) == 5
        for number in (1, 2):
            assert (await w.get(f"/snapshot/{number}/main/noarch/repodata.json")).status == 200
        assert await w.daemon.daemon.keepers.damage.check_indexes() == []


async def test_a_lost_pack_gives_every_shard_again(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.mirror("passive")
        await w.run()
        rows = await w.daemon.daemon.db.read(
            lambda r: r.rows("SELECT path, sha256, file FROM object WHERE lasting AND until IS NULL")
        )
        packs = {w.daemon.daemon.rendered.path(file.hex()) for _, _, file in rows}
        for pack in packs:
            flip(pack)
        replies = [await w.get(f"/repo/main/{path}") for path, _, _ in rows]
        assert 503 in {reply.status for reply in replies}  # one pack may hold several, and not all of them are flipped
        await w.daemon.daemon.keepers.damage.check_indexes()
        await runs_end(w)
        for path, sha256, _ in rows:
            reply = await w.get(f"/repo/main/{path}")
            assert (reply.status, hashlib.sha256(reply.body).digest()) == (200, sha256)


async def test_a_frozen_channel_and_one_that_was_rolled_back_are_mended_too(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.mirror("passive")
        await w.run()
        reply = await w.call("channel.rollback", channel="main", generation=1)
        assert (await w.daemon.ended(reply.run.id)).state is RunState.COMPLETED
        files = rendered(w)
        for file in files:
            file.unlink()
        assert (await w.call("daemon.check")).ok is False
        await runs_end(w)
        assert await w.names(subdirs=("noarch",)) == set()
        assert (await w.get("/snapshot/2/main/noarch/repodata.json")).status == 200
        assert await w.daemon.daemon.keepers.damage.check_indexes() == []
