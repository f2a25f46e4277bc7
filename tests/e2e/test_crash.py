"""kill -9 at work: the state stays sound, no served byte is wrong, nothing verified is fetched again."""

import asyncio
import hashlib
import random
import sqlite3
from pathlib import Path

import aiohttp
import pytest

from firth_protocol.client import Client
from firth_protocol.types import RunState
from tests.support.conda import ChannelFolder, PackageSpec
from tests.support.daemon import DaemonProcess
from tests.support.upstream import Fault, FaultyUpstream
from tests.support.world import raw_records

KILLS = 5
STAGE = 10
PACKAGES = 60


@pytest.mark.e2e
@pytest.mark.timeout(120)
async def test_five_kills_during_an_active_run(tmp_path: Path) -> None:
    source = _source(tmp_path / "source")
    sha256 = {name: record["sha256"] for name, record in source.records["noarch"].items()}
    async with FaultyUpstream(folder=source.path) as upstream, DaemonProcess(tmp_path) as process:
        _hold_after(upstream, sha256, STAGE)
        client = await process.start()
        await client.call("channel.create", name="main")
        await client.call(
            "mirror.create", channel="main", name="m", type="conda", mode="active", source=upstream.url, run_now=True
        )
        for kill in range(1, KILLS + 1):
            await _until_stored(process.state, kill * STAGE)
            await process.kill()
            await client.__aexit__(None, None, None)
            _sound(process.state / "firth.sqlite")
            stored = _stored(process.state)
            assert len(stored) == kill * STAGE
            upstream.heal()
            upstream.requests.clear()
            _hold_after(upstream, sha256, (kill + 1) * STAGE if kill < KILLS else PACKAGES)
            client = await process.start()
            assert _stored(process.state) >= stored
            assert await _serves_only_right_bytes(await process.url(client), sha256) == set()
            await _until_stored(process.state, min(PACKAGES, (kill + 1) * STAGE))
            names = {name for name, digest in sha256.items() if digest in stored}
            asked = {seen.path.rpartition("/")[2] for seen in upstream.asked("*.conda", method="GET")}
            assert not asked & names  # what was verified is not fetched again
        run = await _last_run_ended(client)
        assert run.state is RunState.COMPLETED, run.error
        assert await _serves_only_right_bytes(await process.url(client), sha256) == set(sha256)
        await client.__aexit__(None, None, None)
        assert await process.terminate() == 0
        assert len(_stored(process.state)) == PACKAGES


@pytest.mark.e2e
@pytest.mark.timeout(120)
async def test_sigterm_ends_in_order_and_the_run_goes_on_afterwards(tmp_path: Path) -> None:
    source = _source(tmp_path / "source")
    async with FaultyUpstream(folder=source.path) as upstream, DaemonProcess(tmp_path) as process:
        client = await process.start()
        await client.call("channel.create", name="main")
        await client.call(
            "mirror.create", channel="main", name="m", type="conda", mode="active", source=upstream.url, run_now=True
        )
        await upstream.arrived("*.conda", count=10)
        async with asyncio.timeout(10):
            assert await process.terminate() == 0
        await client.__aexit__(None, None, None)
        client = await process.start()
        runs = (await client.call("run.list", mirror="main:m")).items
        assert runs[-1].error is not None
        assert runs[-1].error.kind == "interrupted"
        run = await _last_run_ended(client)
        await client.__aexit__(None, None, None)
        assert run.state is RunState.COMPLETED


def _hold_after(upstream: FaultyUpstream, names: dict[str, str], count: int) -> None:
    """Let the source answer for the first files in the index's order, and hold all others for ever."""
    never = asyncio.Event()
    for name in sorted(names)[count:]:
        upstream.fail(f"noarch/{name}", Fault(until=never), times=None)


async def _until_stored(state: Path, count: int) -> None:
    async with asyncio.timeout(30):
        while len(list((state / "blobs").glob("??/??/*"))) < count:
            await asyncio.sleep(0.01)  # a condition of another process: there is nothing to wait on


def _source(folder: Path) -> ChannelFolder:
    source = ChannelFolder(folder)
    noise = random.Random(1)
    source.add(
        *(PackageSpec(name=f"p{n}", content=noise.randbytes(60_000).hex()) for n in range(PACKAGES)),
    )
    return source


def _stored(state: Path) -> set[str]:
    """The files at their final names, each of them checked."""
    found = set()
    for path in (state / "blobs").glob("??/??/*"):
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name
        found.add(path.name)
    return found


def _sound(database: Path) -> None:
    connection = sqlite3.connect(database)
    try:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    finally:
        connection.close()


async def _serves_only_right_bytes(url: str, sha256: dict[str, str]) -> set[str]:
    """Ask for the index and every file that it lists; return their names."""
    async with aiohttp.ClientSession() as http:
        async with http.get(f"{url}/repo/main/noarch/repodata.json") as reply:
            assert reply.status == 200
            listed = raw_records(await reply.read())
        for name in listed:
            async with http.get(f"{url}/repo/main/noarch/{name}") as reply:
                assert reply.status == 200
                assert hashlib.sha256(await reply.read()).hexdigest() == sha256[name]
    return set(listed)


async def _last_run_ended(client: Client):  # type: ignore[no-untyped-def]
    runs = (await client.call("run.list", mirror="main:m", limit=1)).items
    return await client.call("run.wait", run=runs[0].id, timeout=60)
