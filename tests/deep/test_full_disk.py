"""A disk without any room (a file system of memory): what is stored is served, changes are refused, all recovers."""

import asyncio
import json
import os
import random
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import aiohttp
import pytest
from msgspec import Struct

from firth_protocol.client import Client
from firth_protocol.errors import FirthError, NoSpace
from firth_protocol.types import RunState
from tests.support import outside
from tests.support.conda import ChannelFolder, PackageSpec
from tests.support.daemon import DaemonProcess
from tests.support.outside import Truth
from tests.support.upstream import FaultyUpstream, Seen

pytestmark = [
    pytest.mark.deep,
    pytest.mark.e2e,
    pytest.mark.timeout(300),
    pytest.mark.skipif(os.getuid() != 0, reason="NOT TESTED: a full disk; only root can mount a small file system"),
]

SIZE_MB = 1200  # 1 GiB is left alone by downloads; memory is used only while the disk is full
TOLD_S = 30.0
"""How long the daemon may take to notice that the disk is full, or has room again."""


class Disk:
    """A file system that can be filled to the last byte."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / "ballast"

    def fill(self) -> None:
        with self._ballast.open("ab", buffering=0) as file:
            for size in (1 << 20, 4096, 512, 1):
                try:
                    while file.write(b"\0" * size) == size:
                        pass
                except OSError:
                    continue

    def free(self) -> None:
        self._ballast.unlink(missing_ok=True)


class Setting(Struct, frozen=True, kw_only=True):
    """A daemon whose state lies on a small disk, with a passive and an active mirror of one source that have run."""

    disk: Disk
    process: DaemonProcess
    source: ChannelFolder
    upstream: FaultyUpstream
    truth: Truth
    http: aiohttp.ClientSession

    async def served(self, client: Client) -> int:
        """Ask for everything that the active mirror's channel shows; return how many files came."""
        base = f"{await self.process.url(client)}/repo/active"
        count = await outside.all_served(self.http, base, self.truth)
        assert self.truth.wrong == []
        return count


@contextmanager
def small_disk(path: Path) -> Iterator[Disk]:
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MB}m", "tmpfs", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"NOT TESTED: a full disk; no file system can be mounted here: {mounted.stderr.strip()}")
    try:
        yield Disk(path)
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


@asynccontextmanager
async def on_a_small_disk(folder: Path) -> AsyncIterator[tuple[Setting, Client]]:
    async with AsyncExitStack() as stack:
        disk = stack.enter_context(small_disk(folder / "disk"))
        (folder / "state").symlink_to(disk.path / "state")
        (disk.path / "state").mkdir()
        source = ChannelFolder(folder / "source")
        source.add(*(PackageSpec(name=f"p{number}", content=_content(number)) for number in range(20)))
        truth = Truth()
        truth.learn(source)
        upstream = await stack.enter_async_context(FaultyUpstream(folder=source.path))
        process = await stack.enter_async_context(DaemonProcess(folder, settings="[store]\nfloor_percent = 0\n"))
        client = await process.start()
        for mode in ("active", "passive"):
            await client.call("channel.create", name=mode)
            made = await client.call(
                "mirror.create", channel=mode, name="m", type="conda", mode=mode, source=upstream.url, run_now=True
            )
            run = await client.call("run.wait", run=made.run.id, timeout=30)
            assert run.state is RunState.COMPLETED, run
        http = await stack.enter_async_context(aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)))
        setting = Setting(disk=disk, process=process, source=source, upstream=upstream, truth=truth, http=http)
        yield setting, client
        log = process.log.read_text("utf-8", "replace")
        print(f"{len(log)} bytes of log")
        assert "unforeseen" not in log, log[log.index("unforeseen") - 200 :][:2000]
        assert len(log) < 1_000_000


async def test_a_disk_that_fills_while_a_run_downloads(tmp_path: Path) -> None:
    async with on_a_small_disk(tmp_path) as (setting, client):
        names = [f"n{number}" for number in range(30)]
        setting.source.add(*(PackageSpec(name=name, content=_content(name)) for name in names))
        setting.truth.learn(setting.source)

        def the_last_that_fits(seen: Seen) -> bytes:
            setting.disk.fill()
            return (setting.source.path / seen.path).read_bytes()

        setting.upstream.route("noarch/n7-*", the_last_that_fits)
        run = (await client.call("mirror.run", mirror="active:m")).run
        ended = await client.call("run.wait", run=run.id, timeout=60)
        assert ended.state in (RunState.FAILED, RunState.RUNNING), ended  # its end may wait until it can be written
        await _full(setting, client)
        setting.disk.free()
        setting.upstream.route("noarch/n7-*", lambda seen: (setting.source.path / seen.path).read_bytes())
        await _well_again(setting, client, 50)
        await client.close()


async def test_a_passive_file_that_cannot_be_stored_is_a_503_with_the_reason(tmp_path: Path) -> None:
    async with on_a_small_disk(tmp_path) as (setting, client):
        # Only the passive mirror reads these: the store has no file of theirs.
        setting.source.add(*(PackageSpec(name=f"n{number}", content=_content(f"n{number}")) for number in range(2)))
        made = await client.call("mirror.run", mirror="passive:m")
        assert (await client.call("run.wait", run=made.run.id)).state is RunState.COMPLETED
        base = f"{await setting.process.url(client)}/repo/passive/noarch"
        assert (await outside.fetch(setting.http, f"{base}/n0-1.0-0.conda"))[0] == 200
        setting.disk.fill()
        assert (await outside.fetch(setting.http, f"{base}/n0-1.0-0.conda"))[0] == 200
        async with setting.http.get(f"{base}/n1-1.0-0.conda") as reply:
            assert reply.status == 503
            assert "free" in (reply.reason or "")
        setting.disk.free()
        await _until(lambda: _gives(setting.http, f"{base}/n1-1.0-0.conda"))
        await client.close()


@pytest.mark.parametrize("end", ["stopped", "killed", "killed and its index of the log is lost"])
async def test_a_start_on_a_full_disk_serves_and_changes_nothing(tmp_path: Path, end: str) -> None:
    async with on_a_small_disk(tmp_path) as (setting, client):
        if end == "stopped":
            setting.disk.fill()
            await client.close()
            await setting.process.terminate()
        else:
            await client.close()
            await setting.process.kill()
            if end != "killed":
                (setting.process.state / "firth.sqlite-shm").unlink(missing_ok=True)
        setting.disk.fill()
        client = await setting.process.start()
        await _full(setting, client)
        setting.disk.free()
        await _well_again(setting, client, 20)
        await client.close()


async def test_what_is_answered_on_a_full_disk_is_not_lost(tmp_path: Path) -> None:
    async with on_a_small_disk(tmp_path) as (setting, client):
        setting.disk.fill()
        answered: list[int] = []
        refused: list[FirthError] = []
        for number in range(500):
            method = "channel.unfreeze" if number % 2 else "channel.freeze"
            try:
                answered.append((await client.call(method, channel="active")).seq)
            except FirthError as error:
                refused.append(error)
                break
        print(f"{len(answered)} changes before {refused}")
        assert all(isinstance(error, NoSpace) for error in refused)
        await client.close()
        await setting.process.kill()
        setting.disk.free()
        assert outside.sound(setting.process.state) == []
        assert set(answered) <= {fact.seq for fact in outside.facts(setting.process.state)}
        lines = outside.audit_lines(setting.process.state)
        written = sum(line.method in ("channel.freeze", "channel.unfreeze") and line.outcome == "ok" for line in lines)
        turned = sum(
            fact.type in ("channel.frozen", "channel.unfrozen") for fact in outside.facts(setting.process.state)
        )
        assert written == turned >= len(answered)
        client = await setting.process.start()
        assert (await client.call("channel.get", channel="active")).frozen == bool(turned % 2)
        await client.close()


async def _full(setting: Setting, client: Client) -> None:
    """Look at a daemon whose disk is full: it says so, serves what it has, refuses changes and answers reads."""

    await _until(lambda: _told(client))
    setting.disk.fill()  # what was cleared away meanwhile is taken again
    assert await setting.served(client) == 20
    status, body = await outside.fetch(setting.http, f"{await setting.process.url(client)}/healthz")
    assert json.loads(body)["status"] != "ok", (status, body)
    for method, params in (("channel.list", {}), ("mirror.get", {"mirror": "active:m"}), ("run.list", {})):
        await client.call(method, **params)
    with pytest.raises(NoSpace):
        await _create_many(client)


async def _told(client: Client) -> bool:
    """Tell whether health says that the disk is full; a mirror that failed for it is told by itself."""
    return any(problem.subject == "space" for problem in (await client.call("daemon.status")).health)


async def _create_many(client: Client) -> None:
    for number in range(200):  # one change or two may fit into what a page of the database has left
        await client.call("channel.create", name=f"new{number}")


async def _well_again(setting: Setting, client: Client, files: int) -> None:
    """Wait until the daemon goes on by itself, with room on its disk; then all of the source is there."""

    async def has_room() -> bool:
        return not await _told(client)

    async def well() -> bool:
        return not (await client.call("daemon.status")).health

    await _until(has_room)
    for mode in ("active", "passive"):
        run = (await client.call("mirror.run", mirror=f"{mode}:m")).run
        ended = await client.call("run.wait", run=run.id, timeout=60)
        if ended.state is not RunState.COMPLETED:  # one that was cut off by the full disk comes to its end first
            run = (await client.call("mirror.run", mirror=f"{mode}:m")).run
            ended = await client.call("run.wait", run=run.id, timeout=60)
        assert ended.state is RunState.COMPLETED, ended
    await _until(well)
    assert await setting.served(client) == files
    check = await client.call("daemon.check")
    assert check.ok, check


async def _until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(TOLD_S):
        while not await condition():
            await asyncio.sleep(0.1)  # a condition of another process: there is nothing to wait on


async def _gives(http: aiohttp.ClientSession, address: str) -> bool:
    return (await outside.fetch(http, address))[0] == 200


def _content(seed: object) -> str:
    """Return 200 kB of text that does not compress."""
    return random.Random(str(seed)).randbytes(100_000).hex()
