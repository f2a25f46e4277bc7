"""A hundred publications: what lies on the disk afterwards is what kept generations, and their clients, need."""

import asyncio
import contextlib
import hashlib
import random
from pathlib import Path

import aiohttp
import pytest

from firth_protocol.types import RunState
from tests.support import outside
from tests.support.conda import PackageSpec
from tests.support.daemon import HastyClock
from tests.support.world import World, world

pytestmark = [pytest.mark.deep, pytest.mark.e2e, pytest.mark.timeout(600)]

RUNS = 100
PACKAGES = 200
CLEANED_S = 150.0
"""An hour of the daemon's upkeep is 36 s here."""
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
    chance, seen, clock = random.Random(3), Seen(), HastyClock()
    async with world(tmp_path, clock=clock) as w:
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
        # A file goes a little later than the last that named it: who has just looked it up may still open it.
        clock.shift_ms += 10 * 60_000
        w.source.add(PackageSpec(name="last"))
        assert (await w.run()).state is RunState.COMPLETED
        await seen.look(w.http, f"{w.daemon.url}/repo/main")
        assert [path for path in (w.daemon.state / "runs").rglob("*") if path.is_file()] == []
        kept = await _kept(w)
        print(f"{len(kept)} of {RUNS} generations are kept, {len(seen.shards)} shards were told")
        assert len(kept) <= 11  # the newest ten, and the one that is shown
        named = await _named(w, kept)
        clock.shift_ms += 10 * 60_000
        async with asyncio.timeout(CLEANED_S):
            while unnamed := _unnamed(w, named, seen):
                print(f"{len(unnamed)} files that nothing names, such as {unnamed[0]}")
                await asyncio.sleep(1)  # the daemon cleans when it comes to it, and tells nobody
        left = _left(w)
        assert named <= left
        total = sum(len(_rendered(w, digest)) for digest in left)
        print(f"{len(left)} files, {total} bytes; {len(left - named)} of them packs")
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


def _unnamed(w: World, named: set[str], seen: Seen) -> list[str]:
    """Return the files that are neither an object of a kept generation nor a pack with a shard that was told.

    All shards are younger than the grace period: clients may still ask for each.
    """
    others = sorted(_left(w) - named)
    return [digest for digest in others if not any(shard in _rendered(w, digest) for shard in seen.shards.values())]


def _left(w: World) -> set[str]:
    return outside.stored(w.daemon.state / "rendered")


def _rendered(w: World, digest: str) -> bytes:
    """Return a file's bytes; none of one that has been taken away since it was listed."""
    with contextlib.suppress(FileNotFoundError):
        return (w.daemon.state / "rendered" / digest[:2] / digest[2:4] / digest).read_bytes()
    return b""


async def _bytes(http: aiohttp.ClientSession, address: str) -> bytes:
    status, body = await outside.fetch(http, address)
    assert status == 200, address
    return body
