"""What happens to an active mirror whose first files come while they are rendered: nothing half is ever shown."""

import asyncio
import hashlib
import json
import os
import random
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from firth_protocol.client import Client
from firth_protocol.errors import FirthError
from tests.daemon.mirrors.test_early import found
from tests.deep.test_early_kills import counted
from tests.deep.test_early_nights import LIVE, NIGHTS, TWICE, UNFINISHED, Night, blocked, edited, judged, settled
from tests.deep.test_full_disk import small_disk
from tests.support import outside
from tests.support.daemon import DaemonProcess
from tests.support.python import PythonIndex
from tests.support.upstream import FaultyUpstream

pytestmark = [pytest.mark.deep, pytest.mark.e2e, pytest.mark.timeout(300)]

RECORDS = 6_000
GONE = 18
"""Records of `p1`, in both parts."""
KILLS = 12


def write_source(folder: Path) -> str:
    """Write a channel with a small file for each record, whose run files a worker renders."""
    for part, count in (("linux-64", RECORDS * 2 // 3), ("noarch", RECORDS // 3)):
        (folder / part).mkdir(parents=True)
        records = {}
        for number in range(count):
            name, content = f"p{number // 9}-1.{number}-0.conda", f"{part} {number}".encode()
            (folder / part / name).write_bytes(content)
            records[name] = {
                "name": f"p{number // 9}",
                "version": f"1.{number}",
                "build": "0",
                "sha256": hashlib.sha256(content).hexdigest(),
                "size": len(content),
                "license": "x" * 600,
            }
        (folder / part / "repodata.json").write_text(json.dumps({"packages.conda": records}))
    return folder.as_uri()


async def begun(state: Path) -> None:
    """Wait until a worker has begun to render beside the downloads."""
    async with asyncio.timeout(60):
        while not await asyncio.to_thread(lambda: list((state / "rendered" / "work").glob("*.early/*"))):
            await asyncio.sleep(0.005)  # of another process


async def worker_lost(process: DaemonProcess, client: Client) -> Client:
    for task in Path(f"/proc/{process.pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            with suppress(OSError):
                if b"firthd.worker" in Path(f"/proc/{child}/cmdline").read_bytes():
                    os.kill(int(child), signal.SIGKILL)
    return client


async def shown(client: Client) -> int:
    families = (await client.call("channel.get", channel="main")).families
    return sum(family.artifacts for family in families)


async def started(process: DaemonProcess, source: str) -> Client:
    client = await process.start()
    await client.call("channel.create", name="main")
    await client.call("mirror.create", channel="main", name="m", type="conda", mode="active", source=source)
    return client


async def looked_at(process: DaemonProcess, client: Client, wanted: int) -> None:
    assert (await client.call("run.list")).items[0].state == "completed"
    assert await shown(client) == wanted
    assert await asyncio.to_thread(counted, process.state, LIVE) == wanted
    assert await asyncio.to_thread(counted, process.state, UNFINISHED) == 0
    assert list((process.state / "runs").rglob("*")) == []
    assert list((process.state / "rendered").glob("work/*")) == []
    await process.terminate()
    assert await asyncio.to_thread(outside.sound, process.state) == []
    assert await asyncio.to_thread(counted, process.state, TWICE) == 0


@pytest.mark.parametrize("night", [*NIGHTS, worker_lost], ids=lambda night: night.__name__)
async def test_a_night_of_first_files(tmp_path: Path, night: Night) -> None:
    source = await asyncio.to_thread(write_source, tmp_path / "source")
    async with DaemonProcess(tmp_path) as process:
        client = await started(process, source)
        await client.call("mirror.run", mirror="main:m")
        await begun(process.state)
        client = await night(process, client)
        await settled(client)
        assert 0 <= await shown(client) <= RECORDS
        assert await asyncio.to_thread(counted, process.state, UNFINISHED) == 0
        with suppress(FirthError):
            await client.call("mirror.run", mirror="main:m")
        await settled(client)
        left = RECORDS - (GONE if night in {blocked, judged} else 0)
        await looked_at(process, client, RECORDS // 3 if night is edited else left)


async def test_kills_while_first_files_come(tmp_path: Path) -> None:
    source = await asyncio.to_thread(write_source, tmp_path / "source")
    chance = random.Random(7)
    async with DaemonProcess(tmp_path) as process:
        client = await started(process, source)
        for _ in range(KILLS):
            with suppress(FirthError):
                await client.call("mirror.run", mirror="main:m")  # or the one that goes on by itself
            await begun(process.state)
            await asyncio.sleep(chance.random() * 1.5)  # any moment of what follows
            await process.kill()
            client = await process.start()
            if await shown(client):
                break
        await settled(client)
        with suppress(FirthError):
            await client.call("mirror.run", mirror="main:m")
        await settled(client)
        await process.terminate()
        client = await process.start()  # it tidies up behind runs that were cut off
        async with asyncio.timeout(30):
            while any((process.state / "runs").iterdir()):
                await asyncio.sleep(0.05)  # of another process
        await looked_at(process, client, RECORDS)


async def test_kills_while_pages_are_read_as_they_come(tmp_path: Path) -> None:
    """What is shown in the end is what a run shows that nobody cut off, byte for byte."""
    index = PythonIndex(core=False)
    for number in range(200):
        for version in range(4):
            index.add(f"p{number:03}", f"{version}.0")
    chance, shows = random.Random(11), list[list[tuple[object, ...]]]()
    async with FaultyUpstream() as upstream:
        index.serve(upstream)
        fields = {"type": "python", "mode": "active", "source": f"{upstream.url}/simple", "check": False}
        for kills in (0, KILLS):
            (folder := tmp_path / str(kills)).mkdir()
            async with DaemonProcess(folder) as process:
                client = await process.start()
                await client.call("channel.create", name="main")
                await client.call("mirror.create", channel="main", name="m", **fields)
                for _ in range(kills):
                    with suppress(FirthError):
                        await client.call("mirror.run", mirror="main:m")
                    await asyncio.sleep(chance.random() * 0.8)  # any moment of a run
                    await process.kill()
                    client = await process.start()
                await settled(client)
                with suppress(FirthError):
                    await client.call("mirror.run", mirror="main:m")
                await settled(client)
                assert (await client.call("run.list")).items[0].state == "completed"
                assert await shown(client) == 800
                shows.append(await asyncio.to_thread(found, process.state, "SELECT DISTINCT path, sha256 FROM object"))
                await process.terminate()
                assert await asyncio.to_thread(outside.sound, process.state) == []
    pages = [{row for row in rows if str(row[0]).count("/") == 2} for rows in shows]
    assert pages[0] == pages[1]


@pytest.mark.parametrize("wrong", ["gone", "other bytes"])
async def test_one_file_that_does_not_come_is_all_that_is_not_shown(tmp_path: Path, wrong: str) -> None:
    source = await asyncio.to_thread(write_source, tmp_path / "source")
    lost = tmp_path / "source" / "noarch" / "p5-1.50-0.conda"
    lost.unlink() if wrong == "gone" else lost.write_bytes(b"x" * lost.stat().st_size)
    async with DaemonProcess(tmp_path) as process:
        client = await started(process, source)
        run = (await client.call("mirror.run", mirror="main:m")).run
        ended = await client.call("run.wait", run=run.id, timeout=120)
        assert (ended.state, ended.counts.failed) == ("incomplete", 1)
        assert await shown(client) == RECORDS - 1
        lost.write_bytes(b"noarch 50")
        await client.call("mirror.run", mirror="main:m")
        await settled(client)
        await looked_at(process, client, RECORDS)


async def test_two_mirrors_of_a_channel_bring_their_first_files_at_once(tmp_path: Path) -> None:
    source = await asyncio.to_thread(write_source, tmp_path / "source")
    async with DaemonProcess(tmp_path) as process:
        client = await started(process, source)
        await client.call("mirror.run", mirror="main:m")
        await begun(process.state)
        await client.call("mirror.create", channel="main", name="n", type="conda", mode="active", source=source)
        await client.call("mirror.run", mirror="main:n")
        await settled(client)
        assert [run.state for run in (await client.call("run.list")).items] == ["completed", "completed"]
        assert await shown(client) == RECORDS
        await process.terminate()
        assert await asyncio.to_thread(outside.sound, process.state) == []
        assert await asyncio.to_thread(counted, process.state, TWICE) == 0


@pytest.mark.skipif(os.getuid() != 0, reason="NOT TESTED: a full disk; only root can mount a small file system")
async def test_a_disk_that_fills_while_first_files_come(tmp_path: Path) -> None:
    source = await asyncio.to_thread(write_source, tmp_path / "source")
    with small_disk(tmp_path / "disk") as disk:
        async with DaemonProcess(disk.path) as process:
            client = await started(process, source)
            run = (await client.call("mirror.run", mirror="main:m")).run
            await begun(process.state)
            await asyncio.to_thread(disk.fill)
            async with asyncio.timeout(60):
                while any((process.state / "runs").iterdir()):
                    await asyncio.sleep(0.05)  # of another process
            disk.free()
            await settled(client)
            ended = await client.call("run.get", run=run.id)
            assert ended.error is not None
            assert ended.error.kind == "no_space"
            await client.call("mirror.run", mirror="main:m")
            await settled(client)
            await looked_at(process, client, RECORDS)
