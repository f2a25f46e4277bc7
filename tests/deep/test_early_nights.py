"""What happens to a mirror whose first index is being read and taken in: nothing half, and the next run has it all."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from firth_protocol.client import Client
from firth_protocol.errors import FirthError
from tests.deep.test_early_kills import RECORDS, counted, reached, write_source
from tests.deep.test_full_disk import small_disk
from tests.support import outside
from tests.support.daemon import DaemonProcess

pytestmark = [pytest.mark.deep, pytest.mark.e2e, pytest.mark.timeout(300)]

UNFINISHED = "SELECT count(*) FROM change_set WHERE state = 'open'"
LIVE = (
    "SELECT count(*) FROM artifact WHERE closed_set IS NULL AND channel_id IN"
    " (SELECT id FROM channel WHERE deleted_at IS NULL)"
)
"""The rows of a deleted channel go when the daemon tidies up."""
TWICE = (
    "SELECT count(*) - count(DISTINCT mirror_id || '/' || part || '/' || name) FROM offered WHERE closed_set IS NULL"
)
GONE = 9
"""Records of `p1` in each of the two parts."""

Night = Callable[[DaemonProcess, Client], Awaitable[Client]]


def workers_of(pid: int) -> list[int]:
    """Return the processes of a daemon that read an index."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            with suppress(OSError):
                if b"firthd.index.read" in Path(f"/proc/{child}/cmdline").read_bytes():
                    found.append(int(child))
    return found


async def revision_of(client: Client) -> int:
    return int((await client.call("mirror.list", channel="main")).items[0].revision)


async def stopped(process: DaemonProcess, client: Client) -> Client:
    await client.call("mirror.stop", mirror="main:m", publish=False)
    return client


async def stopped_and_published(process: DaemonProcess, client: Client) -> Client:
    await client.call("mirror.stop", mirror="main:m", publish=True)
    return client


async def worker_lost(process: DaemonProcess, client: Client) -> Client:
    for worker in await asyncio.to_thread(workers_of, process.pid):
        os.kill(worker, signal.SIGKILL)
    return client


async def restarted(process: DaemonProcess, client: Client) -> Client:
    assert await process.terminate() == 0
    assert await asyncio.to_thread(outside.sound, process.state) == []
    return await process.start()


async def blocked(process: DaemonProcess, client: Client) -> Client:
    await client.call("package.remove", channel="main", spec="p1")
    return client


async def edited(process: DaemonProcess, client: Client) -> Client:
    revision = await revision_of(client)
    await client.call("mirror.update", mirror="main:m", revision=revision, filters={"subdirs": ["noarch"]})
    return client


async def judged(process: DaemonProcess, client: Client) -> Client:
    await client.call("policy.create", name="few", rules={"packages": {"exclude": ["p1"]}})
    revision = await revision_of(client)
    await client.call("mirror.update", mirror="main:m", revision=revision, policy="few")
    return client


async def deleted(process: DaemonProcess, client: Client) -> Client:
    told = await client.call("mirror.delete", mirror="main:m", confirm="m")
    assert (told.kept, told.dropped) == (0, 0)
    await client.call("run.wait", run=told.run.id, timeout=60)
    await client.call(
        "mirror.create", channel="main", name="m", type="conda", source=(process.folder / "source").as_uri()
    )
    return client


async def channel_deleted(process: DaemonProcess, client: Client) -> Client:
    await client.call("channel.delete", channel="main", confirm="main")
    await client.call("channel.create", name="main")
    await client.call(
        "mirror.create", channel="main", name="m", type="conda", source=(process.folder / "source").as_uri()
    )
    return client


async def frozen(process: DaemonProcess, client: Client) -> Client:
    await client.call("channel.freeze", channel="main")
    await settled(client)
    assert sum(family.artifacts for family in (await client.call("channel.get", channel="main")).families) == 0
    await client.call("channel.unfreeze", channel="main")
    return client


async def collected(process: DaemonProcess, client: Client) -> Client:
    await client.call("run.wait", run=(await client.call("store.gc")).run.id, timeout=60)
    return client


async def backed_up(process: DaemonProcess, client: Client) -> Client:
    run = (await client.call("daemon.backup", path=str(process.state / "out" / "backup"))).run
    assert (await client.call("run.wait", run=run.id, timeout=60)).state == "completed"
    return client


async def settled(client: Client) -> None:
    """Wait until no run is open."""
    async with asyncio.timeout(120):
        while [run for run in (await client.call("run.list")).items if run.finished_at is None]:
            await asyncio.sleep(0.05)  # of another process


NIGHTS: Sequence[Night] = (
    stopped,
    stopped_and_published,
    restarted,
    blocked,
    edited,
    judged,
    deleted,
    channel_deleted,
    frozen,
    collected,
)
"""What may happen to any first run."""


@pytest.mark.parametrize("night", [*NIGHTS, worker_lost, backed_up], ids=lambda night: night.__name__)
async def test_a_night_of_a_first_reading(tmp_path: Path, night: Night) -> None:
    source = await asyncio.to_thread(write_source, tmp_path / "source")
    async with DaemonProcess(tmp_path) as process:
        client = await process.start()
        await client.call("channel.create", name="main")
        await client.call("mirror.create", channel="main", name="m", type="conda", source=source)
        await client.call("mirror.run", mirror="main:m")
        await asyncio.to_thread(reached, process.state, 1)
        client = await night(process, client)
        await settled(client)
        shown = sum(family.artifacts for family in (await client.call("channel.get", channel="main")).families)
        assert shown in {0, RECORDS, RECORDS - 2 * GONE}
        assert await asyncio.to_thread(counted, process.state, UNFINISHED) == 0
        with suppress(FirthError):
            await client.call("mirror.run", mirror="main:m")
        await settled(client)
        assert (await client.call("run.list")).items[0].state == "completed"
        wanted = RECORDS // 3 if night is edited else RECORDS - (2 * GONE if night in {blocked, judged} else 0)
        shown = sum(family.artifacts for family in (await client.call("channel.get", channel="main")).families)
        assert shown == wanted
        assert await asyncio.to_thread(counted, process.state, LIVE) == wanted
        assert await asyncio.to_thread(counted, process.state, UNFINISHED) == 0
        assert list((process.state / "runs").rglob("*")) == []
        assert list((process.state / "rendered" / "work").rglob("*")) == []
        await process.terminate()
        assert await asyncio.to_thread(outside.sound, process.state) == []
        assert await asyncio.to_thread(counted, process.state, TWICE) == 0


async def test_two_mirrors_of_a_channel_read_their_first_index_at_once(tmp_path: Path) -> None:
    """Names belong to the older one, whichever comes first."""
    async with DaemonProcess(tmp_path) as process:
        client = await process.start()
        await client.call("channel.create", name="main")
        for name in ("m", "n"):
            source = await asyncio.to_thread(write_source, tmp_path / name)
            await client.call("mirror.create", channel="main", name=name, type="conda", source=source)
        for name in ("n", "m"):
            await client.call("mirror.run", mirror=f"main:{name}")
        await settled(client)
        runs = (await client.call("run.list")).items
        assert [run.state for run in runs] == ["completed", "completed"]
        shown = (await client.call("channel.get", channel="main")).families
        assert sum(family.artifacts for family in shown) == RECORDS
        hidden = await client.call("mirror.details", mirror="main:n")
        assert (hidden.artifacts, len(hidden.shadowed) > 0) == (RECORDS, True)
        assert (await client.call("mirror.details", mirror="main:m")).shadowed == []
        await process.terminate()
        assert await asyncio.to_thread(outside.sound, process.state) == []
        assert await asyncio.to_thread(counted, process.state, TWICE) == 0


@pytest.mark.skipif(os.getuid() != 0, reason="NOT TESTED: a full disk; only root can mount a small file system")
async def test_a_disk_that_fills_while_a_first_index_is_taken_in(tmp_path: Path) -> None:
    source = await asyncio.to_thread(write_source, tmp_path / "source")
    with small_disk(tmp_path / "disk") as disk:
        async with DaemonProcess(disk.path) as process:
            client = await process.start()
            await client.call("channel.create", name="main")
            await client.call("mirror.create", channel="main", name="m", type="conda", source=source)
            run = (await client.call("mirror.run", mirror="main:m")).run
            await asyncio.to_thread(reached, process.state, 1)
            await asyncio.to_thread(disk.fill)
            async with asyncio.timeout(30):
                while any((process.state / "runs").iterdir()):
                    await asyncio.sleep(0.05)  # of another process
            disk.free()
            await settled(client)
            ended = await client.call("run.get", run=run.id)
            assert ended.error is not None
            assert ended.error.kind == "no_space"
            await client.call("mirror.run", mirror="main:m")
            await settled(client)
            assert (await client.call("run.list")).items[0].state == "completed"
            shown = (await client.call("channel.get", channel="main")).families
            assert sum(family.artifacts for family in shown) == RECORDS
            assert await asyncio.to_thread(counted, process.state, LIVE) == RECORDS
            assert await asyncio.to_thread(counted, process.state, UNFINISHED) == 0
            assert list((process.state / "runs").rglob("*")) == []
            assert list((process.state / "rendered" / "work").rglob("*")) == []
            await process.terminate()
            assert await asyncio.to_thread(outside.sound, process.state) == []
