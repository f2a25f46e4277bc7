"""The request sequences of the conda clients, as observed with the real ones, replayed word by word."""

import asyncio

import pytest

from tests.support.rawhttp import RawClient, Reply
from tests.support.web import Site, conda_index, sha256

REPO = "/repo/main"
PACKAGE = b"PK" + bytes(range(256)) * 400
INDEX = conda_index("noarch", "linux-64", filler=100)


@pytest.fixture
async def channel(site: Site) -> Site:
    site.shelf.channel("main", INDEX)
    site.shelf.artifact("main", "linux-64", "a-1.0-0.conda", PACKAGE)
    return site


async def in_parallel(site: Site, *asked: tuple[str, str, dict[str, str]]) -> list[Reply]:
    async def one(method: str, target: str, headers: dict[str, str]) -> Reply:
        async with site.connection() as client:
            return await client.ask(method, REPO + target, headers)

    return await asyncio.gather(*(one(*request) for request in asked))


async def test_conda_with_the_classic_solver(channel: Site) -> None:
    async with channel.connection() as client:
        assert (await client.get(f"{REPO}/notices.json")).status == 404
        for subdir in ("linux-64", "noarch"):
            for name in ("current_repodata.json.zst", "current_repodata.json"):
                assert (
                    await client.get(f"{REPO}/{subdir}/{name}", {"Accept-Encoding": "gzip, deflate, br, zstd"})
                ).status == 404
            path = f"{REPO}/{subdir}/repodata.json.zst"
            first = await client.get(path, {"Accept-Encoding": "gzip, deflate, br, zstd"})
            assert (first.status, first.body) == (200, INDEX[f"{subdir}/repodata.json.zst"])
            assert "content-encoding" not in first.headers  # conda would decode twice
            assert "max-age=60" in first.headers["cache-control"]  # conda looks for the digits
            # The next day: only If-None-Match.
            again = await client.get(path, {"If-None-Match": first.headers["etag"]})
            assert (again.status, again.headers["etag"]) == (304, first.headers["etag"])


async def test_conda_asks_for_the_shard_index_with_both_validators(channel: Site) -> None:
    path = f"{REPO}/noarch/repodata_shards.msgpack.zst"
    async with channel.connection() as client:
        first = await client.get(path)
        again = await client.get(
            path, {"If-None-Match": first.headers["etag"], "If-Modified-Since": first.headers["last-modified"]}
        )
    assert (first.status, again.status) == (200, 304)


async def test_conda_resumes_a_package_without_if_range(channel: Site) -> None:
    path = f"{REPO}/linux-64/a-1.0-0.conda"
    reply = await channel.get(path, {"Range": "bytes=1000-"})
    assert (reply.status, PACKAGE[:1000] + reply.body) == (206, PACKAGE)


async def test_conda_moves_its_token_to_the_front(channel: Site) -> None:
    assert (await channel.get(f"/t/tk-1{REPO}/noarch/repodata.json.zst")).status == 200


async def test_rattler_probes_with_head_and_gets_the_best(channel: Site) -> None:
    zst, bz2 = await in_parallel(
        channel,
        ("HEAD", "/linux-64/repodata.json.zst", {}),
        ("HEAD", "/linux-64/repodata.json.bz2", {}),
    )
    assert (zst.status, bz2.status) == (200, 404)
    assert zst.length == len(INDEX["linux-64/repodata.json.zst"])
    reply = await channel.get(f"{REPO}/linux-64/repodata.json.zst", {"Accept-Encoding": "gzip"})
    assert reply.body == INDEX["linux-64/repodata.json.zst"]
    assert "content-encoding" not in reply.headers


async def test_rattler_takes_shards(channel: Site) -> None:
    (name,) = channel.shelf.shard("main", b"the shard of a", subdir="linux-64")
    index = await channel.get(f"{REPO}/linux-64/repodata_shards.msgpack.zst")
    assert index.status == 200
    empty = await channel.get(f"{REPO}/osx-arm64/repodata_shards.msgpack.zst")
    assert empty.status == 200  # a 404 would be remembered for ever
    missing = await channel.get(f"{REPO}/plan9-vax/repodata_shards.msgpack.zst")
    assert missing.status == 404  # 401, 403 and 500 would end rattler
    shard = await channel.get(f"{REPO}/linux-64/shards/{name}.msgpack.zst", {"Cache-Control": "no-store"})
    assert (shard.status, shard.body) == (200, b"the shard of a")


async def test_rattler_downloads_a_package(channel: Site) -> None:
    reply = await channel.get(f"{REPO}/linux-64/a-1.0-0.conda", {"x-expected-sha256": sha256(PACKAGE)})
    assert (reply.status, reply.body) == (200, PACKAGE)


async def test_build_tools_read_a_package_by_ranges(channel: Site) -> None:
    async with channel.connection() as client:
        tail = await client.get(f"{REPO}/linux-64/a-1.0-0.conda", {"Range": "bytes=-65536"})
        assert (tail.status, tail.body) == (206, PACKAGE[-65536:])
        member = await client.get(
            f"{REPO}/linux-64/a-1.0-0.conda",
            {"Range": "bytes=10-19", "Accept-Encoding": "identity", "If-Range": tail.headers["etag"]},
        )
    assert (member.status, member.body) == (206, PACKAGE[10:20])


async def test_a_small_package_is_opened_with_a_suffix_longer_than_itself(channel: Site) -> None:
    channel.shelf.artifact("main", "noarch", "tiny-1-0.conda", b"tiny")
    reply = await channel.get(f"{REPO}/noarch/tiny-1-0.conda", {"Range": "bytes=-65536"})
    assert (reply.status, reply.body, reply.headers["content-range"]) == (206, b"tiny", "bytes 0-3/4")


async def test_libmamba_sends_the_validators_of_another_file(channel: Site) -> None:
    async with channel.connection() as client:
        head = await client.head(f"{REPO}/noarch/repodata_shards.msgpack.zst")
        assert head.status == 200
        held = await validators(client, f"{REPO}/noarch/repodata.json")
        index = await client.get(f"{REPO}/noarch/repodata_shards.msgpack.zst", held)
        assert (index.status, index.body) == (200, INDEX["noarch/repodata_shards.msgpack.zst"])


async def test_libmamba_gets_the_full_index(channel: Site) -> None:
    async with channel.connection() as client:
        assert (await client.head(f"{REPO}/noarch/repodata.json.zst")).status == 200
        path = f"{REPO}/noarch/repodata.json.zst"
        first = await client.get(path, {"Content-Type": "application/json"})
        assert first.body == INDEX["noarch/repodata.json.zst"]
        again = await client.get(path, {"Content-Type": "application/json", **await validators(client, path)})
        assert again.status == 304


async def test_every_variant_has_a_tag_of_its_own(channel: Site) -> None:
    replies = [await channel.head(f"{REPO}/{path}") for path in INDEX]
    assert len({reply.headers["etag"] for reply in replies}) == len(INDEX) == 6
    assert not any(reply.headers["etag"].startswith("W/") for reply in replies)


async def validators(client: RawClient, path: str) -> dict[str, str]:
    """Return the headers with which a client asks whether what it has of `path` is still good."""
    reply = await client.head(path)
    return {"If-None-Match": reply.headers["etag"], "If-Modified-Since": reply.headers["last-modified"]}
