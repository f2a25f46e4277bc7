"""Downloads that a real daemon counts: kill -9 costs one batch at most, an ordered stop and a full house nothing."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import aiohttp
import pytest

from firthd.channels.usage import WRITE_S
from tests.support.conda import sample_channel
from tests.support.daemon import DaemonProcess

pytestmark = [pytest.mark.deep, pytest.mark.e2e, pytest.mark.timeout(300)]

CLIENTS, EACH = 20, 50


def written(daemon: DaemonProcess) -> int:
    with closing(sqlite3.connect(f"file:{daemon.state / 'firth.sqlite'}?mode=ro", uri=True)) as connection:
        return int(connection.execute("SELECT coalesce(sum(downloads), 0) FROM usage").fetchone()[0])


async def fetch(url: str, names: list[str], times: int) -> None:
    """Let many clients at once fetch files, and leave without a word."""

    async def one() -> None:
        async with aiohttp.ClientSession() as http:
            for number in range(times):
                async with http.get(f"{url}/repo/main/noarch/{names[number % len(names)]}") as reply:
                    assert reply.status == 200
                    await reply.read()

    await asyncio.gather(*(one() for _ in range(CLIENTS)))


async def test_kill_loses_one_batch_at_most_and_a_stop_nothing(tmp_path: Path) -> None:
    source = sample_channel(tmp_path / "source")
    names = sorted(source.records["noarch"])
    async with DaemonProcess(tmp_path) as daemon:
        client = await daemon.start()
        await client.call("channel.create", name="main")
        fields = {"channel": "main", "name": "m", "type": "conda", "source": source.path.as_uri(), "run_now": True}
        made = await client.call("mirror.create", **fields)
        await client.call("run.wait", run=made.run.id, timeout=60)
        counted = 0
        for _ in range(2):
            url = await daemon.url(client)
            await fetch(url, names, EACH)
            counted += CLIENTS * EACH
            async with asyncio.timeout(WRITE_S * 3):
                while await asyncio.to_thread(written, daemon) < counted:
                    await asyncio.sleep(0.2)  # another process writes it
            await fetch(url, names, EACH)
            await daemon.kill()
            client = await daemon.start()
            left = await asyncio.to_thread(written, daemon)
            assert counted <= left <= counted + CLIENTS * EACH
            counted = left
        await fetch(await daemon.url(client), names, EACH)
        assert await daemon.terminate() == 0
        assert await asyncio.to_thread(written, daemon) == counted + CLIENTS * EACH
