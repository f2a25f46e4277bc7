"""A hundred publications: what lies on the disk afterwards is what kept generations, and their clients, need."""

import hashlib
import random
from pathlib import Path

import aiohttp
import pytest

from firth_protocol.types import RunState
from tests.support import outside
from tests.support.conda import PackageSpec
from tests.support.world import World, world

pytestmark = [pytest.mark.deep, pytest.mark.e2e, pytest.mark.timeout(600)]

RUNS = 100
PACKAGES = 200
INDEX_FILES = ("repodata.json.zst", "repodata_shards.msgpack.zst")
"""The objects of an index that a kept generation has on disk, besides shards; the newest has `repodata.json` too."""


class Seen:
    """What clients were told over time: every shard that an index named, with its bytes."""

    def __init__(self) -> None:
        self.shards: dict[str, bytes] = {}

    async def look(self, http: aiohttp.ClientSession, base: str) -> None:
        """Read the shard index of now, and those shards that are new."""
        for subdir in ("noarch", "linux-64"):
            for digest in (await outside.shard_index(http, base, subdir)).values():
                if digest not in self.shards:
                    self.shards[digest] = await _bytes(http, f"{base}/{subdir}/shards/{digest}.msgpack.zst")


async def test_after_a_hundred_runs_only_what_is_named_is_left(tmp_path: Path) -> None:
    chance, seen = random.Random(3), Seen()
    async with world(tmp_path) as w:
        live = [f"n{number}" for number in range(PACKAGES)]
        w.source.add(*(PackageSpec(name=name) for name in live))
        await w.mirror("passive")
        for number in range(RUNS):
            for name in chance.sample(live, 3):
                live.remove(name)
                w.source.remove("noarch", f"{name}-1.0-0.conda")
            again = chance.sample(live, 5)
            live += (new := [f"r{number}-{n}" for n in range(4)])
            w.source.add(*(PackageSpec(name=name, content=f"{number}\n") for name in [*again, *new]))
            run = await w.run()
            assert run.state is RunState.COMPLETED, run
            await seen.look(w.http, f"{w.daemon.url}/repo/main")
        assert [path for path in (w.daemon.state / "runs").rglob("*") if path.is_file()] == []
        kept = await _kept(w)
        print(f"{len(kept)} of {RUNS} generations are kept, {len(seen.shards)} shards were told")
        assert len(kept) <= 11  # the newest ten, and the one that is shown
        named, left = await _named(w, kept), _left(w)
        assert named <= left
        unnamed = left - named
        # Shards lie in packs, and all of them are younger than the grace period: clients may still ask for them.
        for digest in sorted(unnamed):
            pack = _rendered(w, digest)
            assert any(shard in pack for shard in seen.shards.values()), (
                f"{digest} ({len(pack)} bytes) is named by none"
            )
        total = sum(len(_rendered(w, digest)) for digest in left)
        print(f"{len(left)} files, {total} bytes; {len(unnamed)} of them packs")
        for digest, shard in seen.shards.items():
            address = f"/repo/main/noarch/shards/{digest}.msgpack.zst"
            other = f"/repo/main/linux-64/shards/{digest}.msgpack.zst"
            assert shard in ((await w.get(address)).body, (await w.get(other)).body), "a client has it in its index"


async def _kept(w: World) -> list[int]:
    generations = (await w.call("channel.generations", channel="main", limit=1000)).items
    return [generation.number for generation in generations if generation.kept]


async def _named(w: World, kept: list[int]) -> set[str]:
    """Return the digests of all index files that kept generations serve and must have on disk."""
    addresses = [f"/snapshot/{number}/main" for number in kept]
    found = {
        hashlib.sha256((await w.get(f"{address}/{subdir}/{name}")).body).hexdigest()
        for address in addresses
        for subdir in ("noarch", "linux-64")
        for name in INDEX_FILES
    }
    # The plain form is kept as it is for the newest generation only; elsewhere it is streamed out of the .zst.
    for subdir in ("noarch", "linux-64"):
        found.add(hashlib.sha256((await w.get(f"/repo/main/{subdir}/repodata.json")).body).hexdigest())
    return found


def _left(w: World) -> set[str]:
    return outside.stored(w.daemon.state / "rendered")


def _rendered(w: World, digest: str) -> bytes:
    return (w.daemon.state / "rendered" / digest[:2] / digest[2:4] / digest).read_bytes()


async def _bytes(http: aiohttp.ClientSession, address: str) -> bytes:
    status, body = await outside.fetch(http, address)
    assert status == 200, address
    return body
