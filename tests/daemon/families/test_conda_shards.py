"""Shards and their index (CEP 16)."""

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
import rattler
import zstandard
from aiohttp import web
from aiohttp.test_utils import TestServer
from hypothesis import given, settings
from hypothesis import strategies as st

from firthd.families.conda.records import fingerprint
from firthd.families.conda.repodata import Served
from firthd.families.conda.shards import ShardPacker, read_index, shard_index
from firthd.index.messages import PreviousFile, RenderResult
from tests.support.conda import ChannelFolder, PackageSpec, sample_channel
from tests.support.conda_state import CondaState, run_rows

INDEX = "repodata_shards.msgpack.zst"


def unpacked(body: bytes) -> Any:
    return msgspec.msgpack.decode(zstandard.ZstdDecompressor().decompress(body))


def spools(channel: ChannelFolder) -> dict[str, Path | None]:
    return {subdir: channel.path / subdir / "repodata.json" for subdir in channel.records}


def packed_shards(result: RenderResult, run_file: Path) -> dict[bytes, bytes]:
    """Return sha256 -> bytes of the pack's shards, by the places in the run file."""
    if result.pack is None:
        assert not result.slices_new
        return {}
    rows = run_rows(run_file, "object", "sha256, file, offset, size, lasting")
    places = [row[:4] for row in rows if row[4] and row[1] == bytes.fromhex(result.pack.sha256)]
    assert len(places) == result.slices_new
    body = Path(result.pack.file).read_bytes()
    assert (result.pack.size, result.pack.sha256) == (len(body), hashlib.sha256(body).hexdigest())
    assert {pack.hex() for _, pack, _, _ in places} == {result.pack.sha256}
    return {sha256: body[offset : offset + length] for sha256, _, offset, length in places}


def index_of(state: CondaState, subdir: str) -> dict[str, bytes]:
    return read_index(Path(state.published[f"{subdir}/{INDEX}"].file).read_bytes())


@pytest.fixture
def state(tmp_path: Path) -> CondaState:
    return CondaState(tmp_path)


@pytest.fixture
def channel(tmp_path: Path) -> ChannelFolder:
    return sample_channel(tmp_path / "channel")


def test_shard_has_both_sections_and_binary_digests() -> None:
    legacy = "0f" * 16
    record = {"name": "a", "sha256": "AB" * 32, "md5": None, "legacy_bz2_md5": legacy, "x": {"b": [1.5], "a": None}}
    shard = unpacked(ShardPacker().pack([Served("packages.conda", "a-1-0.conda", json.dumps(record).encode())]))
    expected = {"name": "a", "sha256": b"\xab" * 32, "legacy_bz2_md5": legacy, "x": {"a": None, "b": [1.5]}}
    assert shard == {"packages": {}, "packages.conda": {"a-1-0.conda": expected}}


def test_v3_is_there_only_with_content_and_by_its_own_keys() -> None:
    shard = unpacked(ShardPacker().pack([Served("v3.conda", "a-1-0", b'{"name":"a"}')]))
    assert shard == {"packages": {}, "packages.conda": {}, "v3": {"conda": {"a-1-0": {"name": "a"}}}}


def test_index_names_what_clients_insist_on() -> None:
    index = unpacked(shard_index("noarch", {"a": b"1" * 32}, {}))
    info = {"subdir": "noarch", "base_url": "", "shards_base_url": "./shards/"}
    assert index == {"version": 1, "info": info, "shards": {"a": b"1" * 32}}


def test_index_counts_v3_records() -> None:
    index = unpacked(shard_index("noarch", {}, {"v3.conda": [5, None], "v3.whl": [7]}))
    assert index["info"]["repodata_revisions"] == {"v3": {"n_packages": 3, "oldest": 5, "newest": 7}}


@pytest.mark.parametrize("content", [b"", b"x", zstandard.compress(b"\x80"), zstandard.compress(b"\x81\xa6shards\x05")])
def test_what_is_no_index_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match="not a shard index"):
        read_index(content)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.text(min_size=1, max_size=8), st.binary(min_size=32, max_size=32), max_size=8))
def test_index_is_read_as_it_was_written(hashes: dict[str, bytes]) -> None:
    assert read_index(shard_index("noarch", hashes, {})) == hashes
    assert shard_index("noarch", dict(reversed(hashes.items())), {}) == shard_index("noarch", hashes, {})


def test_pack_holds_every_shard_of_the_index_and_records_keep_their_values(
    state: CondaState, channel: ChannelFolder
) -> None:
    state.take(spools(channel))
    result, run_file = state.render()
    shards = packed_shards(result, run_file)
    assert all(hashlib.sha256(body).digest() == sha256 for sha256, body in shards.items())
    (index,) = (Path(file.file) for file in result.files if file.path == f"noarch/{INDEX}")
    hashes = read_index(index.read_bytes())
    assert hashes.keys() == {"alpha", "beta"}
    alpha = unpacked(shards[hashes["alpha"]])
    assert alpha["packages"].keys() == {"alpha-1.0-0.tar.bz2"}
    assert alpha["packages.conda"].keys() == {"alpha-1.10-0.conda", "alpha-1.9-0.conda"}
    for filename, record in (alpha["packages"] | alpha["packages.conda"]).items():
        record |= {"sha256": record["sha256"].hex(), "md5": record["md5"].hex()}
        listed = channel.records["noarch"][filename]
        assert fingerprint(json.dumps(record).encode()) == fingerprint(json.dumps(listed).encode())


def test_untouched_packages_keep_their_hash_and_are_not_packed_again(state: CondaState, channel: ChannelFolder) -> None:
    state.take(spools(channel))
    state.publish()
    before = index_of(state, "noarch")
    channel.add(PackageSpec(name="beta", version="2.1"), PackageSpec(name="delta"))
    state.take(spools(channel))
    result, run_file = state.render()
    assert len(packed_shards(result, run_file)) == 2
    state.publish()
    after = index_of(state, "noarch")
    assert after["alpha"] == before["alpha"]
    assert after["beta"] != before["beta"]
    assert after.keys() == {"alpha", "beta", "delta"}


def test_hash_of_an_untouched_package_comes_from_the_index_before(state: CondaState, channel: ChannelFolder) -> None:
    state.take(spools(channel))
    state.publish()
    marked = index_of(state, "noarch") | {"alpha": b"m" * 32}
    file, content = state.published[f"noarch/{INDEX}"].file, shard_index("noarch", marked, {})
    Path(file).write_bytes(content)
    state.published[f"noarch/{INDEX}"] = PreviousFile(file, hashlib.sha256(content).hexdigest())
    state.execute(
        "INSERT INTO object (channel_id, family, path, since, sha256, size, file, offset, lasting)"
        " VALUES (1, 'conda', ?, 1, ?, 1, x'00', 0, 1)",
        (f"noarch/shards/{'6d' * 32}.msgpack.zst", b"m" * 32),
    )
    channel.add(PackageSpec(name="delta"))
    state.take(spools(channel))
    state.publish()
    assert index_of(state, "noarch")["alpha"] == b"m" * 32


def test_a_shard_that_lies_nowhere_is_packed_again(state: CondaState, channel: ChannelFolder) -> None:
    state.take(spools(channel))
    state.publish()
    before = index_of(state, "noarch")
    state.execute("DELETE FROM object WHERE sha256 = ?", (before["alpha"],))
    channel.add(PackageSpec(name="delta"))
    state.take(spools(channel))
    result, run_file = state.render()
    assert before["alpha"] in packed_shards(result, run_file)


def test_shards_that_an_index_names_no_longer_end(state: CondaState, channel: ChannelFolder) -> None:
    state.take(spools(channel))
    state.publish()
    before = index_of(state, "noarch")
    channel.records["noarch"] = {
        filename: record for filename, record in channel.records["noarch"].items() if record["name"] != "alpha"
    }
    channel.write()
    state.take(spools(channel))
    _, run_file = state.render()
    ended = [path for path, sha256 in run_rows(run_file, "object", "path, sha256") if sha256 is None]
    assert ended == [f"noarch/shards/{before['alpha'].hex()}.msgpack.zst"]


def test_lost_index_is_made_again(state: CondaState, channel: ChannelFolder) -> None:
    state.take(spools(channel))
    state.publish()
    before = index_of(state, "noarch")
    Path(state.published[f"noarch/{INDEX}"].file).write_bytes(b"damaged")
    channel.add(PackageSpec(name="delta"))
    state.take(spools(channel))
    result = state.publish()
    assert index_of(state, "noarch").items() > before.items()
    assert result.slices_new == 1, "shards that a pack holds are not written again"


def test_package_that_is_gone_leaves_the_index(state: CondaState, channel: ChannelFolder) -> None:
    state.take(spools(channel))
    state.publish()
    channel.remove("noarch", "beta-2.0-0.conda")
    state.take(spools(channel))
    result = state.publish()
    assert index_of(state, "noarch").keys() == {"alpha"}
    assert (result.pack, result.slices_new) == (None, 0)


async def test_rattler_solves_from_shards_alone(state: CondaState, channel: ChannelFolder, tmp_path: Path) -> None:
    await asyncio.to_thread(state.take, spools(channel))  # what a worker process does
    result, run_file = await asyncio.to_thread(state.render)
    served = tmp_path / "served"
    for subdir in ("linux-64", "noarch"):
        (served / subdir / "shards").mkdir(parents=True)
    for file in result.files:
        if file.path.endswith(INDEX):
            (served / file.path).write_bytes(Path(file.file).read_bytes())
    for sha256, body in packed_shards(result, run_file).items():
        for subdir in ("linux-64", "noarch"):
            (served / subdir / "shards" / f"{sha256.hex()}.msgpack.zst").write_bytes(body)
    app = web.Application()
    app.router.add_static("/main", served)
    async with TestServer(app) as server:
        url = str(server.make_url("/main"))
        records = await rattler.solve(
            sources=[rattler.Channel(url)],
            specs=[rattler.MatchSpec("gamma")],
            gateway=rattler.Gateway(cache_dir=tmp_path / "cache"),
            platforms=["linux-64", "noarch"],
        )
    found = {record.file_name: (record.url, (record.sha256 or b"").hex()) for record in records}
    listed = channel.records["linux-64"] | channel.records["noarch"]
    assert found == {
        filename: (f"{url}/{listed[filename]['subdir']}/{filename}", listed[filename]["sha256"])
        for filename in ("alpha-1.10-0.conda", "beta-2.0-0.conda", "gamma-0.1-0.conda")
    }
