"""A thousand clients that keep their connections while a run goes on: no error, and how long the slowest waited."""

import asyncio
import hashlib
import time
from pathlib import Path

import pytest

from firth_protocol.types import RunState
from tests.deep.test_connections import crowded
from tests.support.conda import PackageSpec

pytestmark = [pytest.mark.deep, pytest.mark.e2e, pytest.mark.timeout(400)]

CLIENTS = 1000
ROUNDS = 4
NEW_FILES = 1500
P99_S = 10.0
"""On two cores that other work shares; the figure itself is printed."""


async def test_a_thousand_clients_while_a_run_goes_on(tmp_path: Path) -> None:
    async with crowded(tmp_path, "-Sn 4096") as crowd:
        names = sorted(crowd.digests)[:20]
        paths = [*(f"noarch/{name}" for name in names), "noarch/repodata.json.zst"]
        specs = [PackageSpec(name=f"more{number}") for number in range(NEW_FILES)]
        await asyncio.to_thread(crowd.source.add, *specs)
        assert await crowd.connect(CLIENTS) == CLIENTS
        took: list[float] = []
        wrong: list[str] = []

        async def visit(number: int) -> None:
            client = crowd.clients[number]
            for turn in range(ROUNDS):
                path = paths[(number + turn) % len(paths)]
                began = time.perf_counter()
                try:
                    async with asyncio.timeout(60):
                        reply = await client.get(f"/repo/main/{path}")
                except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
                    wrong.append(f"{path}: {error!r}")
                    return
                took.append(time.perf_counter() - began)
                digest = crowd.digests.get(path.removeprefix("noarch/"))
                if reply.status != 200 or (digest and hashlib.sha256(reply.body).hexdigest() != digest):
                    wrong.append(f"{path}: {reply.status}")

        made = await crowd.client.call("mirror.run", mirror="main:m")
        during = 0
        while True:
            run = await crowd.client.call("run.get", run=made.run.id)
            if run.state.ended:
                break
            await asyncio.gather(*(visit(number) for number in range(CLIENTS)))
            during += 1
        took.sort()
        told = ", ".join(f"p{share:g} {took[int(len(took) * share / 100) - 1]:.3f} s" for share in (50, 99, 100))
        print(f"{len(took):,} answers in {during} rounds during the run: {told}")
        assert wrong == []
        assert during > 0
        assert run.state is RunState.COMPLETED, run
        assert took[int(len(took) * 0.99) - 1] < P99_S
        assert "Traceback" not in crowd.log()
