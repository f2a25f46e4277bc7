"""kill -9 at random moments of runs that read an index in pieces: in the end all of it is what the source has."""

import asyncio
import contextlib
import os
import random
from pathlib import Path

import aiohttp
import pytest

from firth_protocol.errors import FirthError
from firth_protocol.types import RunState
from tests.support import outside
from tests.support.conda import ChannelFolder, PackageSpec
from tests.support.daemon import DaemonProcess
from tests.support.upstream import CHANGED_MS, Fault, FaultyUpstream
from tests.support.world import raw_records

pytestmark = [pytest.mark.deep, pytest.mark.e2e, pytest.mark.timeout(600)]

SEED = int(os.environ.get("FIRTH_TEST_SEED", "20261"))
KILLS = 12
LONGEST_LIFE_S = 2.0
NAMES = [f"p{number}" for number in range(60)]


async def test_kills_of_runs_in_pieces(tmp_path: Path) -> None:
    print(f"seed {SEED}")
    chance = random.Random(SEED)
    source = ChannelFolder(tmp_path / "source")
    source.sharded = True
    source.add(*(PackageSpec(name=name) for name in NAMES))
    async with FaultyUpstream(folder=source.path) as upstream, DaemonProcess(tmp_path) as process:
        client = await process.start()
        await client.call("channel.create", name="main")
        await client.call("mirror.create", channel="main", name="m", type="conda", source=upstream.url)
        run = (await client.call("mirror.run", mirror="main:m")).run
        assert (await client.call("run.wait", run=run.id, timeout=60)).state is RunState.COMPLETED
        upstream.fail("*/shards/*", Fault(pace_s=0.05), times=None)
        for kill in range(1, KILLS + 1):
            source.add(*(PackageSpec(name=name, version=f"1.{kill}") for name in chance.sample(NAMES, 8)))
            source.remove("noarch", chance.choice(sorted(source.records["noarch"])))
            upstream.changed_ms = CHANGED_MS + kill * 3_600_000
            with contextlib.suppress(FirthError):  # the run that the kill before cut off may be at work again
                await client.call("mirror.run", mirror="main:m")
            await asyncio.sleep(chance.random() * LONGEST_LIFE_S)  # the moment is the test's subject
            await process.kill()
            await client.close()
            assert outside.sound(process.state) == []
            client = await process.start()
        upstream.heal()
        for _ in range(2):
            with contextlib.suppress(FirthError):
                run = (await client.call("mirror.run", mirror="main:m")).run
            run = await client.call("run.wait", run=run.id, timeout=120)
        assert run.state is RunState.COMPLETED, run
        url = f"{await process.url(client)}/repo/main/noarch/repodata.json"
        async with aiohttp.ClientSession() as http:
            status, body = await outside.fetch(http, url)
        assert status == 200
        assert raw_records(body) == raw_records((source.path / "noarch/repodata.json").read_bytes())
        asked = [seen.path for seen in upstream.asked("*.zst") if seen.status == 200]
        print(f"{sum('/shards/' in path for path in asked)} shards, {len(asked)} fetched")
        assert any("/shards/" in path for path in asked)
        await client.close()
