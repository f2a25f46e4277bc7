"""kill -9 while a channel is published, rolled back and cleaned: what is served is whole, and nothing is left over."""

import asyncio
import contextlib
import random
from pathlib import Path

import pytest

from firth_protocol.client import Client
from firth_protocol.errors import FirthError
from tests.support.conda import ChannelFolder, PackageSpec
from tests.support.daemon import DaemonProcess, HastyClock, in_process_daemon
from tests.support.served import named, on_disk, rows, until, variants

KILLS = 12
ROUNDS = 400


async def _work(client: Client, source: ChannelFolder, chance: random.Random) -> None:
    """Publish, go back and return, for as long as the daemon lives."""
    with contextlib.suppress(FirthError, OSError):
        for number in range(ROUNDS):
            names = sorted(source.records["noarch"])
            source.remove("noarch", chance.choice(names))
            source.add(PackageSpec(name=f"p{chance.randrange(40)}", version=f"{chance.randrange(10**6)}"))
            run = (await client.call("mirror.run", mirror="main:m")).run
            await client.call("run.wait", run=run.id, timeout=30)
            if number % 3 == 2:
                channel = await client.call("channel.get", channel="main")
                back = max(1, channel.generation - chance.randrange(1, 8))
                run = (await client.call("channel.rollback", channel="main", generation=back)).run
                await client.call("run.wait", run=run.id, timeout=30)
            if number % 3 == 0:
                reply = await client.call("channel.unfreeze", channel="main")
                if reply.run is not None:
                    await client.call("run.wait", run=reply.run.id, timeout=30)


@pytest.mark.e2e
@pytest.mark.timeout(180)
@pytest.mark.deep
async def test_kills_at_any_moment_leave_every_kept_generation_whole(tmp_path: Path) -> None:
    source = ChannelFolder(tmp_path / "source")
    chance = random.Random(7)
    source.add(*(PackageSpec(name=f"p{number}", version=f"{number}") for number in range(40)))
    async with DaemonProcess(tmp_path) as process:
        client = await process.start()
        await client.call("channel.create", name="main")
        await client.call(
            "mirror.create", channel="main", name="m", type="conda", mode="passive", source=source.path.as_uri()
        )
        for _ in range(KILLS):
            working = asyncio.create_task(_work(client, source, chance))
            await asyncio.sleep(0.5 + chance.random())  # the moment is what is tried
            await process.kill()
            await working
            await client.__aexit__(None, None, None)
            client = await process.start()
            await _whole(await process.url(client), process.state)
        await client.__aexit__(None, None, None)
        await process.kill()
    clock = HastyClock()
    async with in_process_daemon(tmp_path, clock=clock) as here:
        await here.client.call("channel.unfreeze", channel="main")
        source.add(PackageSpec(name="last"))
        await here.run("main:m")
        await _whole(here.url, here.state)
        clock.shift_ms += 8 * 86_400_000
        source.add(PackageSpec(name="very-last"))
        await here.run("main:m")
        clock.shift_ms += 2 * 60_000
        await until(lambda: on_disk(here.state) == named(here.state))
        assert rows(here.state, "SELECT count(*) FROM object WHERE unnamed_at IS NOT NULL")[0][0] <= 2 * 10
        await _whole(here.url, here.state)


async def _whole(url: str, state: Path) -> None:
    """Look at every variant and shard of every kept generation, and at what the rows say of them."""
    kept = rows(state, "SELECT number FROM generation WHERE kept")
    for (number,) in kept:
        await variants(url, f"/snapshot/{number}/main")
    await variants(url)
    assert rows(state, "PRAGMA integrity_check") == [("ok",)]
