"""kill -9 at random moments of an active run of a Python index: in the end every file is there, the state sound."""

import asyncio
import hashlib
import json
import os
import random
from pathlib import Path

import aiohttp
import pytest

from firth_protocol.types import RunState
from tests.support import outside
from tests.support.daemon import DaemonProcess
from tests.support.python import JSON, PythonIndex
from tests.support.upstream import FaultyUpstream

pytestmark = [pytest.mark.deep, pytest.mark.e2e, pytest.mark.timeout(600)]

SEED = int(os.environ.get("FIRTH_TEST_SEED", "20261"))
KILLS = 20
PROJECTS = 60
LONGEST_LIFE_S = 3.0


async def shown(http: aiohttp.ClientSession, url: str, project: str) -> dict[str, str]:
    """Return the files that a project's page shows, with the sha256 that their addresses really give."""
    async with http.get(f"{url}/repo/main/simple/{project}/", headers={"Accept": JSON}) as reply:
        assert reply.status == 200, (project, reply.status)
        page = json.loads(await reply.read())
    found = {}
    for file in page["files"]:
        async with http.get(f"{url}/repo/main/packages/{project}/{file['filename']}") as reply:
            digest = hashlib.sha256(await reply.read()).hexdigest()
        assert digest == file["hashes"]["sha256"], file
        found[file["filename"]] = digest
    return found


async def test_twenty_kills_of_an_active_run_lose_no_file(tmp_path: Path) -> None:
    print(f"seed {SEED}")
    chance = random.Random(SEED)
    index = PythonIndex()
    names = [f"p{number}" for number in range(PROJECTS)]
    for name in names:
        index.add(name, "1.0", body=chance.randbytes(20_000).hex())
    async with FaultyUpstream() as upstream, DaemonProcess(tmp_path) as process:
        index.serve(upstream)
        client = await process.start()
        await client.call("channel.create", name="main")
        source = f"{upstream.url}/simple"
        filters = {"projects": names}
        await client.call(
            "mirror.create", channel="main", name="p", type="python", mode="active", source=source, filters=filters
        )
        for kill in range(KILLS):
            for name in chance.sample(names, 10):
                index.add(name, f"{kill + 2}.0", body=chance.randbytes(20_000).hex())
            await client.call("mirror.run", mirror="main:p")
            await asyncio.sleep(chance.random() * LONGEST_LIFE_S)
            await client.close()
            await process.kill()
            client = await process.start()
        while True:  # the run that was cut off goes on by itself; another one is the last word
            run = (await client.call("mirror.run", mirror="main:p")).run
            run = await client.call("run.wait", run=run.id, timeout=120)
            if run.state is RunState.COMPLETED and run.cause == "by hand":
                break
        async with aiohttp.ClientSession() as http:
            for name in names:
                expected = {file.filename: file.sha256 for file in index.projects[name]}
                assert await shown(http, await process.url(client), name) == expected
        await client.close()
        await process.terminate()
    assert await asyncio.to_thread(outside.sound, tmp_path / "state") == []
