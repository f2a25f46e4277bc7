"""What a channel serves and keeps on disk over many publications, rollbacks and days."""

import hashlib
from pathlib import Path

import pytest

from firth_protocol.types import RunState
from firthd.channels.drops import gaps
from firthd.families.conda.shards import read_index
from tests.support.conda import ChannelFolder, PackageSpec, sample_channel
from tests.support.daemon import HastyClock, Running, in_process_daemon
from tests.support.served import VARIANTS, get, named, on_disk, rows, until, variants
from tests.support.world import World, world

DAY_MS = 86_400_000


def test_gaps_lie_between_kept_neighbours() -> None:
    assert gaps([9, 4, 7], [5, 6]) == [(4, 7)]
    assert gaps([4, 7, 9], [1, 8]) == [(0, 4), (7, 9)]
    assert gaps([4], [5]) == []  # nothing newer is kept: the pointer always is, so this never happens


async def mirrored(daemon: Running, source: ChannelFolder) -> None:
    await daemon.client.call("channel.create", name="main")
    await daemon.client.call(
        "mirror.create", channel="main", name="m", type="conda", mode="passive", source=source.path.as_uri()
    )
    await daemon.run("main:m")


@pytest.mark.deep
@pytest.mark.timeout(120)  # fourteen runs of a mirror
async def test_nothing_is_left_but_what_kept_generations_name_and_shards_in_their_grace(tmp_path: Path) -> None:
    source = sample_channel(tmp_path / "source")
    clock = HastyClock()
    async with in_process_daemon(tmp_path, clock=clock) as daemon:
        await mirrored(daemon, source)
        state = daemon.state
        first = read_index((await variants(daemon.url))[VARIANTS[2]])
        for number in range(12):
            for filename in [name for name in source.records["noarch"] if name.startswith("changing-")]:
                source.remove("noarch", filename)
            source.add(PackageSpec(name="changing", version=str(number)), PackageSpec(name=f"new{number}"))
            if number == 1:
                gone = read_index((await variants(daemon.url))[VARIANTS[2]])["changing"]
            await daemon.run("main:m")
        kept = [number for (number,) in rows(state, "SELECT number FROM generation WHERE kept")]
        assert len(kept) == 10 + 1  # the newest beside the one in force
        for number in kept:
            await variants(daemon.url, f"/snapshot/{number}/main")
        assert (await get(daemon.url, "/snapshot/3/main/noarch/repodata.json")).status == 404

        clock.shift_ms += 2 * 60_000
        await until(lambda: on_disk(state) == named(state))
        indexes = rows(state, "SELECT count(DISTINCT file) FROM object WHERE NOT lasting")
        assert indexes == [(2 * 11 + 1 + 3,)]  # two files a kept generation, plain ones of today, and linux-64's
        address = f"/repo/main/noarch/shards/{gone.hex()}.msgpack.zst"
        assert (await get(daemon.url, address)).status == 200  # a client's shard index of yesterday may name it

        clock.shift_ms += 8 * DAY_MS
        source.add(PackageSpec(name="later"))
        await daemon.run("main:m")
        assert (await get(daemon.url, address)).status == 404
        assert first["alpha"] in read_index((await variants(daemon.url))[VARIANTS[2]]).values()
        clock.shift_ms += 2 * 60_000
        await until(lambda: on_disk(state) == named(state))
        await until(lambda: rows(state, "SELECT count(*) FROM unnamed_file") == [(0,)])


async def test_a_rollback_and_the_way_back_render_nothing(tmp_path: Path) -> None:
    source = sample_channel(tmp_path / "source")
    async with in_process_daemon(tmp_path) as daemon:
        await mirrored(daemon, source)
        old = await variants(daemon.url)
        source.add(PackageSpec(name="delta"))
        source.remove("noarch", next(name for name in source.records["noarch"] if name.startswith("alpha")))
        await daemon.run("main:m")
        new = await variants(daemon.url)
        packages = await daemon.client.call("package.list", channel="main")
        total = rows(daemon.state, "SELECT count(*) FROM object")[0][0]
        files = on_disk(daemon.state)

        reply = await daemon.client.call("channel.rollback", channel="main", generation=2)
        run = await daemon.ended(reply.run.id)
        assert (run.state, run.generation) == (RunState.COMPLETED, 4)
        assert await variants(daemon.url) == old
        assert on_disk(daemon.state) <= files
        assert rows(daemon.state, "SELECT count(*) FROM object WHERE since = 4") == [(3 + 1,)]  # alpha's shard is back
        assert rows(daemon.state, "SELECT count(DISTINCT digest) FROM generation WHERE number IN (2, 4)") == [(1,)]

        reply = await daemon.client.call("channel.unfreeze", channel="main")
        assert (await daemon.ended(reply.run.id)).generation == 5
        assert await variants(daemon.url) == new
        assert (await daemon.client.call("package.list", channel="main")).items == packages.items
        assert on_disk(daemon.state) <= files
        for number, content in ((2, old), (3, new), (4, old), (5, new)):
            assert await variants(daemon.url, f"/snapshot/{number}/main") == content
        assert rows(daemon.state, "SELECT count(*) FROM object")[0][0] <= total + 10


async def test_what_a_rollback_shows_lies_plain_again_soon(tmp_path: Path) -> None:
    source = sample_channel(tmp_path / "source")
    clock = HastyClock()
    async with in_process_daemon(tmp_path, clock=clock) as daemon:
        await mirrored(daemon, source)
        old = await variants(daemon.url)
        source.add(PackageSpec(name="delta"))
        await daemon.run("main:m")
        plain = hashlib.sha256(old["repodata.json"]).hexdigest()
        clock.shift_ms += 2 * 60_000
        await until(lambda: plain not in on_disk(daemon.state))
        assert (await variants(daemon.url, "/snapshot/2/main")) == old
        reply = await daemon.client.call("channel.rollback", channel="main", generation=2)
        await daemon.ended(reply.run.id)
        assert plain in on_disk(daemon.state)
        assert rows(daemon.state, "SELECT count(*) FROM object WHERE until IS NULL AND encoding IS NOT NULL") == [(0,)]
        assert await variants(daemon.url) == old


async def test_what_came_while_a_channel_was_rolled_back_joins_what_it_returns_to(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.mirror("passive")
        await w.run()
        old = await w.names()
        w.source.add(PackageSpec(name="delta"))
        await w.run()
        await _rolled_back(w, 2)
        w.source.add(PackageSpec(name="epsilon"))
        await w.run()
        assert await w.names() == old
        await _unfrozen(w)
        assert await w.names() == old | {"delta-1.0-0.conda", "epsilon-1.0-0.conda"}
        await variants(w.daemon.url)


async def test_a_draft_that_makes_the_earlier_content_the_present_one_is_not_lost(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.mirror("passive")
        await w.run()
        old = await w.names()
        w.source.add(PackageSpec(name="delta"))
        await w.run()
        await _rolled_back(w, 2)
        w.source.remove("noarch", "delta-1.0-0.conda")
        await w.run()
        await _unfrozen(w)  # what it shows already: no new generation
        assert await w.names() == old
        w.source.add(PackageSpec(name="epsilon"))
        await w.run()
        assert await w.names() == old | {"epsilon-1.0-0.conda"}
        listed = await w.call("package.list", channel="main")
        assert "delta" not in {package.name for package in listed.items}
        await variants(w.daemon.url)


async def test_what_a_rolled_back_channel_returns_to_is_kept(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.mirror("passive")
        await w.run()
        w.source.add(PackageSpec(name="delta"))
        await w.run()
        present = await variants(w.daemon.url)
        for number in range(16):
            await _rolled_back(w, (1, 2)[number % 2] if number < 2 else w_newest(w) - 1)
        await _unfrozen(w)
        assert await variants(w.daemon.url) == present


def w_newest(w: World) -> int:
    return int(rows(w.daemon.state, "SELECT max(number) FROM generation")[0][0])


async def _rolled_back(w: World, generation: int) -> None:
    reply = await w.call("channel.rollback", channel="main", generation=generation)
    assert (await w.daemon.ended(reply.run.id)).state is RunState.COMPLETED


async def _unfrozen(w: World) -> None:
    reply = await w.call("channel.unfreeze", channel="main")
    assert (await w.daemon.ended(reply.run.id)).state is RunState.COMPLETED


async def test_a_trial_leaves_no_files(tmp_path: Path) -> None:
    clock = HastyClock()
    async with in_process_daemon(tmp_path, clock=clock) as daemon:
        await daemon.client.call("channel.create", name="main", dry_run=True)
        assert on_disk(daemon.state)
        clock.shift_ms += 2 * 60_000
        await until(lambda: not on_disk(daemon.state))
        await daemon.client.call("channel.create", name="main")
        await variants(daemon.url)


async def test_the_files_of_a_deleted_channel_go(tmp_path: Path) -> None:
    source = sample_channel(tmp_path / "source")
    clock = HastyClock()
    async with in_process_daemon(tmp_path, clock=clock) as daemon:
        await mirrored(daemon, source)
        assert on_disk(daemon.state)
        await daemon.client.call("channel.delete", channel="main", confirm="main")
        await until(lambda: rows(daemon.state, "SELECT count(*) FROM object") == [(0,)])
        clock.shift_ms += 2 * 60_000
        await until(lambda: not on_disk(daemon.state))
