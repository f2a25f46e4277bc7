"""kill -9 at random moments of active runs of R packages: every index is whole, and every file what its index says."""

import asyncio
import contextlib
import gzip
import hashlib
import os
import random
from pathlib import Path

import aiohttp
import pytest

from firth_protocol.client import DaemonUnreachable
from firth_protocol.errors import FirthError
from firth_protocol.types import RunState
from firthd.families.r.dcf import fields_of, stanzas
from tests.support import outside
from tests.support.cran import CONTRIB, Cran
from tests.support.daemon import DaemonProcess
from tests.support.upstream import Fault, FaultyUpstream

pytestmark = [pytest.mark.deep, pytest.mark.e2e, pytest.mark.timeout(600)]

SEED = int(os.environ.get("FIRTH_TEST_SEED", "20260"))
KILLS = 20
LONGEST_LIFE_S = 1.5
NAMES = [f"pkg{number}" for number in range(60)]


async def test_twenty_kills_of_active_runs(tmp_path: Path) -> None:
    print(f"seed {SEED}")
    chance = random.Random(SEED)
    async with FaultyUpstream() as upstream, DaemonProcess(tmp_path) as process:
        cran = Cran(upstream.files)
        for name in NAMES:
            cran.put(name, "1.0")
        upstream.fail("*.tar.gz", Fault(pace_s=0.005, chunk_bytes=128), times=None)
        client = await process.start()
        await client.call("channel.create", name="stats")
        await client.call("mirror.create", channel="stats", name="m", type="r", mode="active", source=upstream.url)
        await client.close()
        await process.kill()
        seen = 0
        for kill in range(1, KILLS + 1):
            for name in chance.sample(NAMES, 12):
                cran.put(name, f"1.{kill}")
            client = await process.start()
            with contextlib.suppress(FirthError):  # the run that the kill before cut off may be at work again
                await client.call("mirror.run", mirror="stats:m")
            url = await process.url(client)
            reader = asyncio.create_task(_reads(f"{url}/repo/stats/cran"))
            await asyncio.sleep(chance.random() * LONGEST_LIFE_S)  # the moment is the test's subject
            await process.kill()
            seen += await reader
            await client.close()
            assert outside.sound(process.state) == []
            print(f"kill {kill}: {seen} files read")
        client = await process.start()
        run = await client.call("mirror.run", mirror="stats:m")
        run = await client.call("run.wait", run=run.run.id, timeout=120)
        if run.state is not RunState.COMPLETED or run.counts.failed:
            run = await client.call("mirror.run", mirror="stats:m")
            run = await client.call("run.wait", run=run.run.id, timeout=120)
        assert run.state is RunState.COMPLETED, run
        url = f"{await process.url(client)}/repo/stats/cran"
        async with aiohttp.ClientSession() as http:
            status, body = await outside.fetch(http, f"{url}/{CONTRIB}/PACKAGES.gz")
            assert status == 200
            assert set(stanzas(gzip.decompress(body))) == set(stanzas(upstream.files[f"{CONTRIB}/PACKAGES"]))
            for path, content in upstream.files.items():
                if path.endswith(".tar.gz"):
                    assert await outside.fetch(http, f"{url}/{path}") == (200, content), path
        assert (await client.call("daemon.check")).ok
        await client.close()
        outside.stored(process.state / "blobs")
    assert seen > 100


async def _reads(root: str) -> int:
    """Read the index and what it lists until the daemon is dead; a file must have the sum that the index gives."""
    read = 0
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as http:
        with contextlib.suppress(*outside.UNREADABLE, DaemonUnreachable):
            while True:
                status, body = await outside.fetch(http, f"{root}/{CONTRIB}/PACKAGES.gz")
                if status == 404:  # nothing is published yet
                    await asyncio.sleep(0.05)
                    continue
                for raw in stanzas(gzip.decompress(body)):
                    fields = fields_of(raw)
                    path = f"{root}/{CONTRIB}/{fields['Package']}_{fields['Version']}.tar.gz"
                    status, body = await outside.fetch(http, path)
                    assert status == 200, (path, status)
                    assert hashlib.md5(body).hexdigest() == fields["MD5sum"], path
                    read += 1
    return read
