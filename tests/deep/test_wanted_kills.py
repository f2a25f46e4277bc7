"""kill -9 while a run follows what packages need, page by page: in the end all of it is there, the state sound."""

import asyncio
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

pytestmark = [pytest.mark.deep, pytest.mark.e2e, pytest.mark.timeout(300)]

SEED = int(os.environ.get("FIRTH_TEST_SEED", "20262"))
KILLS, PROJECTS, LONGEST_LIFE_S = 8, 10, 3.0


async def test_kills_of_a_run_that_follows_dependencies(tmp_path: Path) -> None:
    print(f"seed {SEED}")
    chance, index = random.Random(SEED), PythonIndex()
    names = [f"p{number}" for number in range(PROJECTS)]
    for number, name in enumerate(names):
        index.add(name, "1.0", needs=[f"p{number + 1}"] if number + 1 < PROJECTS else ["lost"])
        index.add(f"other-{name}", "1.0")
    rules = {"packages": {"allow": ["p0"], "include_dependencies": True}}
    async with FaultyUpstream() as upstream, DaemonProcess(tmp_path) as process:
        index.serve(upstream)
        client = await process.start()
        await client.call("policy.create", name="p", families=["python"], rules=rules)
        await client.call("channel.create", name="main", policy="p")
        source = f"{upstream.url}/simple"
        await client.call("mirror.create", channel="main", name="p", type="python", source=source)
        for _ in range(KILLS):
            await client.call("mirror.run", mirror="main:p")
            await asyncio.sleep(chance.random() * LONGEST_LIFE_S)
            await client.close()
            await process.kill()
            client = await process.start()
        while True:
            run = (await client.call("mirror.run", mirror="main:p")).run
            run = await client.call("run.wait", run=run.id, timeout=120)
            if run.state is RunState.COMPLETED and run.cause == "by hand":
                break
        url = await process.url(client)
        at = f"{url}/repo/main/simple/"
        async with aiohttp.ClientSession() as http, http.get(at, headers={"Accept": JSON}) as reply:
            assert [one["name"] for one in json.loads(await reply.read())["projects"]] == names
        assert not upstream.asked("simple/other-*")
        report = await client.call("mirror.dependency_report", mirror="main:p")
        assert [one.name for one in report.rows if one.state == "missing"] == ["lost"]
        upstream.requests.clear()
        run = (await client.call("mirror.run", mirror="main:p")).run
        assert (await client.call("run.wait", run=run.id, timeout=120)).state is RunState.COMPLETED
        assert {seen.path.split("/")[-2] for seen in upstream.asked("simple/*/")} <= {*names, "lost"}
        await client.close()
        await process.terminate()
    assert await asyncio.to_thread(outside.sound, tmp_path / "state") == []
