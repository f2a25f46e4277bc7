"""A disk that fills while a policy is applied: what was published stays, the reason is told, the next run goes on."""

import asyncio
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import pytest
import zstandard

from firth_protocol.client import Client
from firth_protocol.errors import FirthError, NoSpace, Unavailable
from firth_protocol.types import Run, RunState
from tests.bench.conda_index import BUILDS_PER_VERSION, VERSIONS_PER_NAME, write_index
from tests.support import outside
from tests.support.daemon import DaemonProcess

pytestmark = [pytest.mark.deep, pytest.mark.e2e, pytest.mark.timeout(600)]

PACKAGES = 600
EACH = BUILDS_PER_VERSION * VERSIONS_PER_NAME
SIZE_MB = 1200  # runs leave 1 GiB alone; memory is used only while the disk is full
ROOM_KB = (0, 64, 1024, 4096, 8192, 12288, 16384, 24576)
"""What is left when the policy changes: for its rows, its file of verdicts, the indexes, or none of them."""
PATH = "noarch/repodata.json.zst"


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MB}m", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("NOT TESTED: a full disk; only root mounts a file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def fill(disk: Path, room_kb: int) -> None:
    """Leave so much."""
    ballast = disk / "ballast"
    with ballast.open("ab", buffering=0) as file:
        for size in (1 << 20, 4096):
            try:
                while file.write(bytes(size)) == size:
                    pass
            except OSError:
                continue
    with ballast.open("rb+") as file:
        file.truncate(max(0, ballast.stat().st_size - room_kb * 1024))


async def index(http: aiohttp.ClientSession, base: str) -> frozenset[str]:
    """Return the names of packages that clients see; what is cut off or damaged fails."""
    async with http.get(f"{base}/{PATH}") as reply:
        assert reply.status == 200
        shown = json.loads(zstandard.ZstdDecompressor().decompressobj().decompress(await reply.read()))
    return frozenset(one["name"] for bucket in ("packages", "packages.conda") for one in shown[bucket].values())


def excluded(step: int) -> list[str]:
    return [f"package-{number:06}" for number in range(step % 3, PACKAGES, 3)]


async def ended(client: Client, run: Run) -> Run:
    while not run.state.ended:
        run = await client.call("run.wait", run=run.id, timeout=30)
    return run


@pytest.mark.parametrize("closes", [False, True])
async def test_a_disk_that_fills_while_a_policy_is_applied(tmp_path: Path, *, closes: bool) -> None:
    source = tmp_path / "source"
    for subdir in ("noarch", "linux-64"):
        (source / subdir).mkdir(parents=True)
    write_index(source / PATH, "noarch", PACKAGES * EACH, later=False, dense=True)
    every = frozenset(f"package-{number:06}" for number in range(PACKAGES))
    with small_disk(tmp_path / "disk") as disk:
        (disk / "state").mkdir()
        (tmp_path / "state").symlink_to(disk / "state")
        settings = "[store]\nfloor_percent = 0\n"
        async with DaemonProcess(tmp_path, settings=settings) as process, aiohttp.ClientSession() as http:
            client = await process.start()
            try:
                await client.call("policy.create", name="p", families=["conda"], rules={})
                await client.call("channel.create", name="main", policy="p")
                await client.call("mirror.create", channel="main", name="m", type="conda", source=source.as_uri())
                run = await ended(client, (await client.call("mirror.run", mirror="main:m")).run)
                assert run.state is RunState.COMPLETED, run
                base = f"{await process.url(client)}/repo/main"
                before = await index(http, base)
                assert before == every
                for step, room in enumerate(ROOM_KB):
                    before = await _one(client, http, process, disk, base, before, step, room, closes=closes)
            finally:
                await client.close()
            log = process.log.read_text("utf-8", "replace")
            assert "unforeseen" not in log, log[log.index("unforeseen") - 2000 :][:6000]
            await process.terminate()
        assert outside.sound(disk / "state") == []


async def _one(
    client: Client,
    http: aiohttp.ClientSession,
    process: DaemonProcess,
    disk: Path,
    base: str,
    before: frozenset[str],
    step: int,
    room: int,
    *,
    closes: bool,
) -> frozenset[str]:
    """Fill the disk, change the policy, look, make room, wait for what it says."""
    packages: dict[str, object] = {"exclude": excluded(step)}
    if closes:
        packages |= {"allow": [f"package-{number:06}" for number in range(20)], "include_dependencies": True}
    policy = await client.call("policy.get", policy="p")
    fill(disk, room)
    runs: list[Run] = []
    try:
        runs = (
            await client.call("policy.update", policy="p", revision=policy.revision, rules={"packages": packages})
        ).runs
    except (NoSpace, Unavailable) as error:
        print(f"{room} kB: the change is refused: {error.message}")
    for run in runs:
        try:
            async with asyncio.timeout(20):
                run = await ended(client, run)
        except (TimeoutError, FirthError) as error:  # its end may wait until it can be written
            print(f"{room} kB: {error!r}")
            continue
        print(f"{room} kB: {run.state} {run.error}")
        if run.state is RunState.FAILED:
            assert run.error is not None
            assert "full" in f"{run.error.message} {run.error.hint}", run.error
    now = await index(http, base)
    gone = frozenset(excluded(step))
    assert now == before or not now & gone, "neither the one nor the other"
    (disk / "ballast").unlink()
    async with asyncio.timeout(60):
        while any(problem.subject == "space" for problem in (await client.call("daemon.status")).health):
            await asyncio.sleep(0.2)  # a condition of another process: there is nothing to wait on
    if not runs:
        policy = await client.call("policy.get", policy="p")
        if policy.rules.packages is None or policy.rules.packages.exclude != excluded(step):
            await client.call("policy.update", policy="p", revision=policy.revision, rules={"packages": packages})
    for run in (await client.call("run.list", limit=20)).items:
        await ended(client, run)
    await ended(client, (await client.call("mirror.run", mirror="main:m")).run)
    after = await index(http, base)
    assert not after & gone
    assert after == frozenset(f"package-{number:06}" for number in range(PACKAGES)) - gone or closes
    assert (await client.call("daemon.check")).ok
    return after
