"""A real conda client installs from the daemon: what it finds, what it installs, and what it never sees."""

import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from firth_protocol.types import RunState
from tests.support.conda import PackageSpec
from tests.support.rattler import CondaClient, in_front_of
from tests.support.world import World, world

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

CLOSURE = {"gamma-0.1-0.conda", "beta-2.0-0.conda", "alpha-1.10-0.conda"}
"""What `gamma` of the sample channel needs, from both of its subdirs."""
NEWEST = "ten\n"
"""What the newest alpha of the sample channel installs."""
OLD = "alpha-1.0-0.tar.bz2"


async def active(w: World) -> None:
    await w.mirror("active")
    assert (await w.run()).state is RunState.COMPLETED


async def passive(w: World) -> None:
    await w.mirror("passive")
    assert (await w.run()).state is RunState.COMPLETED


async def frozen(w: World) -> None:
    """Freeze, then let the source have what clients must not see."""
    await passive(w)
    await w.call("channel.freeze", channel="main")
    w.source.add(PackageSpec(name="alpha", version="2.0", content="two\n"))
    assert (await w.run()).counts.added == 1


@pytest.mark.parametrize("sharded", [True, False], ids=["shards", "whole-index"])
@pytest.mark.parametrize("prepare", [active, passive, frozen])
async def test_a_client_installs_a_package_with_what_it_needs(
    tmp_path: Path, prepare: Callable[[World], Awaitable[None]], sharded: bool
) -> None:
    async with world(tmp_path) as w, in_front_of(w.daemon.url) as front:
        await prepare(w)
        client = CondaClient(tmp_path / "client", sharded=sharded)
        assert await client.files(f"{front.url}/repo/main", "gamma") == CLOSURE
        prefix = await client.install(f"{front.url}/repo/main", "gamma")
        assert installed(prefix) == {"alpha": NEWEST, "beta": "hello\n", "gamma": "hello\n"}
        assert bool(front.asked(".msgpack.zst")) is sharded
        assert bool(front.asked("repodata.json.zst")) is not sharded
        for name in CLOSURE:
            assert stored_right(w, name)


@pytest.mark.parametrize("sharded", [True, False], ids=["shards", "whole-index"])
async def test_both_package_formats_can_be_installed(tmp_path: Path, sharded: bool) -> None:
    async with world(tmp_path) as w:
        await passive(w)
        client = CondaClient(tmp_path / "client", sharded=sharded)
        assert await client.files(f"{w.daemon.url}/repo/main", "alpha ==1.0") == {OLD}
        assert installed(await client.install(f"{w.daemon.url}/repo/main", "alpha ==1.0")) == {"alpha": "hello\n"}


@pytest.mark.parametrize("sharded", [True, False], ids=["shards", "whole-index"])
async def test_an_unfreeze_is_seen_by_a_client_that_keeps_its_cache(tmp_path: Path, sharded: bool) -> None:
    async with world(tmp_path) as w, in_front_of(w.daemon.url) as front:
        await frozen(w)
        client = CondaClient(tmp_path / "client", sharded=sharded)
        address = f"{front.url}/repo/main"
        assert await client.files(address, "alpha") == {"alpha-1.10-0.conda"}
        front.seen.clear()
        assert await client.files(address, "alpha") == {"alpha-1.10-0.conda"}
        index = "repodata_shards.msgpack.zst" if sharded else "repodata.json.zst"
        assert {seen.status for seen in front.asked(index)} == {304}
        reply = await w.call("channel.unfreeze", channel="main")
        assert (await w.daemon.ended(reply.run.id)).state is RunState.COMPLETED
        assert await client.files(address, "alpha") == {"alpha-2.0-0.conda"}
        assert installed(await client.install(address, "alpha")) == {"alpha": "two\n"}
        # What the channel showed before is still there for lock files.
        assert (await w.get("/repo/main/noarch/alpha-1.10-0.conda")).status == 200


async def test_a_client_that_knew_the_empty_channel_finds_shards_later(tmp_path: Path) -> None:
    """rattler remembers for ever that a shard index was missing: a channel has them from its first generation."""
    async with world(tmp_path) as w, in_front_of(w.daemon.url) as front:
        client = CondaClient(tmp_path / "client")
        address = f"{front.url}/repo/main"
        with pytest.raises(Exception, match="alpha"):
            await client.solve(address, "alpha")
        assert [seen.status for seen in front.asked("noarch/repodata_shards.msgpack.zst")] == [200]
        await passive(w)
        front.seen.clear()
        assert await client.files(address, "alpha") == {"alpha-1.10-0.conda"}
        assert front.asked("noarch/repodata_shards.msgpack.zst")
        assert not front.asked("noarch/repodata.json.zst")
        assert await client.files(address, "gamma") == CLOSURE


async def test_a_private_channel_opens_with_the_token_in_the_path_and_looks_absent_without(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.call("channel.create", name="secret", privacy="private")
        await w.mirror("passive", channel="secret")
        assert (await w.run("secret:m")).state is RunState.COMPLETED
        token = (await w.call("token.create", name="builder", channels=["secret"])).token
        other = (await w.call("token.create", name="other", channels=["main"])).token
        for sharded in (True, False):
            client = CondaClient(tmp_path / f"client-{sharded}", sharded=sharded)
            prefix = await client.install(f"{w.daemon.url}/t/{token}/repo/secret", "gamma")
            assert installed(prefix)["alpha"] == NEWEST
        for address in (f"{w.daemon.url}/repo/secret", f"{w.daemon.url}/t/{other}/repo/secret"):
            stranger = CondaClient(tmp_path / "stranger")
            with pytest.raises(Exception, match="noarch"):
                await stranger.solve(address, "gamma")
        revoked = (await w.call("token.list")).items
        await w.call("token.revoke", id=next(item.id for item in revoked if item.name == "builder"))
        with pytest.raises(Exception, match="noarch"):
            await CondaClient(tmp_path / "late").solve(f"{w.daemon.url}/t/{token}/repo/secret", "gamma")


@pytest.mark.parametrize("sharded", [True, False], ids=["shards", "whole-index"])
async def test_a_subchannel_has_packages_of_its_own(tmp_path: Path, sharded: bool) -> None:
    async with world(tmp_path) as w:
        await passive(w)
        await w.call("channel.create", name="main/dev")
        w.source.add(PackageSpec(name="alpha", version="2.0", content="two\n"))
        await w.mirror("active", channel="main/dev")
        assert (await w.run("main/dev:m")).state is RunState.COMPLETED
        client = CondaClient(tmp_path / "client", sharded=sharded)
        assert installed(await client.install(f"{w.daemon.url}/repo/main/dev", "gamma"))["alpha"] == "two\n"
        assert installed(await client.install(f"{w.daemon.url}/repo/main", "gamma"))["alpha"] == NEWEST


@pytest.mark.parametrize("sharded", [True, False], ids=["shards", "whole-index"])
async def test_a_snapshot_stays_as_it_was(tmp_path: Path, sharded: bool) -> None:
    async with world(tmp_path) as w:
        await passive(w)
        before = (await w.call("channel.get", channel="main")).generation
        w.source.remove("noarch", "alpha-1.10-0.conda")
        w.source.add(PackageSpec(name="alpha", version="2.0", content="two\n"))
        run = await w.run()
        assert (run.counts.added, run.counts.removed) == (1, 1)
        client = CondaClient(tmp_path / "client", sharded=sharded)
        now = await client.install(f"{w.daemon.url}/repo/main", "gamma")
        assert installed(now)["alpha"] == "two\n"
        current = await client.install(f"{w.daemon.url}/snapshot/{run.generation}/main", "gamma")
        assert installed(current)["alpha"] == "two\n"
        snapshot = f"{w.daemon.url}/snapshot/{before}/main"
        assert await client.files(snapshot, "gamma") == CLOSURE


@pytest.mark.parametrize("sharded", [True, False], ids=["shards", "whole-index"])
async def test_what_left_the_channel_can_be_installed_from_a_snapshot(tmp_path: Path, sharded: bool) -> None:
    async with world(tmp_path) as w:
        await active(w)
        before = (await w.call("channel.get", channel="main")).generation
        w.source.remove("noarch", "alpha-1.10-0.conda")
        assert (await w.run()).counts.removed == 1
        client = CondaClient(tmp_path / "client", sharded=sharded)
        assert installed(await client.install(f"{w.daemon.url}/repo/main", "alpha"))["alpha"] == "nine\n"
        prefix = await client.install(f"{w.daemon.url}/snapshot/{before}/main", "alpha")
        assert installed(prefix)["alpha"] == NEWEST


def installed(prefix: Path) -> dict[str, str]:
    """Return what each package of an environment has put there."""
    return {file.parent.name: file.read_text() for file in prefix.glob("share/*/hello.txt")}


def stored_right(w: World, filename: str) -> bool:
    """Tell whether the daemon now has a file of its own with the bytes that the source's index promises."""
    (record,) = (records[filename] for records in w.source.records.values() if filename in records)
    sha256: str = record["sha256"]
    blob = w.daemon.state / "blobs" / sha256[:2] / sha256[2:4] / sha256
    return blob.is_file() and hashlib.sha256(blob.read_bytes()).hexdigest() == sha256
