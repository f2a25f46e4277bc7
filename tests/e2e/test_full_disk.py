"""A disk that takes nothing more stops changes, not service: after an orderly end, after kill -9, while at work."""

import asyncio
import contextlib
import itertools
import sqlite3
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from pathlib import Path

import aiohttp
import pytest

from firth_protocol.client import Client
from firth_protocol.errors import FirthError, NoSpace, Unavailable
from firth_protocol.types import RunKind, RunState
from tests.support.daemon import DaemonProcess

pytestmark = pytest.mark.e2e


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Give a small file system of its own for the state folder."""
    folder = tmp_path / "state"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m,nr_inodes=300", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("only root mounts a file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def fill(disk: Path) -> None:
    with (disk / "ballast").open("ab", buffering=0) as ballast:
        try:
            while True:
                ballast.write(bytes(4096))
        except OSError:
            pass


def take_inodes(disk: Path) -> None:
    try:
        for number in range(1000):
            (disk / f"ballast{number}").touch()
    except OSError:
        pass


def make_read_only(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)


def make_room(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
    for ballast in disk.glob("ballast*"):
        ballast.unlink()


def cut_off_a_run(disk: Path) -> None:
    """Leave a run behind as a daemon leaves it that is killed."""
    with closing(sqlite3.connect(disk / "firth.sqlite")) as db, db:
        db.execute(
            "INSERT INTO run(kind, state, channel_id, cause, by, params, created_at, started_at, steps, notes)"
            " SELECT ?, ?, id, 'test', 'test', '{\"resume\": false}', 1, 1, '[]', '[]' FROM channel",
            (RunKind.PUBLISH, RunState.RUNNING),
        )


@pytest.fixture
async def process(disk: Path, tmp_path: Path) -> AsyncIterator[DaemonProcess]:
    async with DaemonProcess(tmp_path) as process:
        yield process


async def get(url: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return answer.status, await answer.text()


async def is_limited(process: DaemonProcess, client: Client, why: str, kind: type[FirthError]) -> None:
    """Everything that is stored is served, changes are refused, and it is said."""
    url = await process.url(client)
    assert (await get(f"{url}/repo/main/noarch/repodata.json"))[0] == 200
    assert [channel.name for channel in (await client.call("channel.list")).items] == ["main"]
    for method, params in (("channel.create", {"name": "two"}), ("channel.freeze", {"channel": "main"})):
        with pytest.raises(kind, match=why):
            await client.call(method, **params)
    health = (await client.call("daemon.status")).health
    assert [problem.subject for problem in health] == ["space"]
    assert why in health[0].text
    status, body = await get(f"{url}/healthz")
    assert status == 200
    assert '"status":"limited"' in body
    assert why in body


async def write_until_refused(client: Client, kind: type[FirthError]) -> None:
    """Use up the room that the log of writes has of its own."""
    async with asyncio.timeout(20):
        with contextlib.suppress(kind):
            for method in itertools.cycle(("channel.freeze", "channel.unfreeze")):
                await client.call(method, channel="main")


async def goes_on(client: Client) -> None:
    """The first change after there is room is made, without a wait."""
    await client.call("channel.create", name="two")
    async with asyncio.timeout(20):
        while any("cannot be written" in problem.text for problem in (await client.call("daemon.status")).health):
            await asyncio.sleep(0.05)  # a condition of another process: there is nothing to wait on


@pytest.mark.parametrize(
    ("use_up", "end", "why", "kind"),
    [
        pytest.param(fill, "in order", "disk is full", NoSpace, id="no byte, ended in order"),
        pytest.param(fill, "killed", "disk is full", NoSpace, id="no byte, killed"),
        pytest.param(
            fill, "lost", "disk is full", NoSpace, id="no byte, killed, the -shm is lost", marks=pytest.mark.deep
        ),
        pytest.param(take_inodes, "in order", "disk is full", NoSpace, id="no inode, ended in order"),
        pytest.param(take_inodes, "lost", "disk is full", NoSpace, id="no inode, killed, the -shm is lost"),
        pytest.param(
            make_read_only, "in order", "read-only", Unavailable, id="read-only, ended in order", marks=pytest.mark.deep
        ),
        pytest.param(make_read_only, "killed", "read-only", Unavailable, id="read-only, killed"),
    ],
)
async def test_it_starts_serves_and_goes_on_by_itself(
    process: DaemonProcess, disk: Path, use_up: Callable[[Path], None], end: str, why: str, kind: type[FirthError]
) -> None:
    client = await process.start()
    await client.call("channel.create", name="main")
    await client.__aexit__(None, None, None)
    if end == "in order":
        assert await process.terminate() == 0
        cut_off_a_run(disk)
    else:
        await process.kill()
    if end == "lost":
        (disk / "firth.sqlite-shm").unlink()
    use_up(disk)
    client = await process.start()
    try:
        if end == "killed":
            await write_until_refused(client, kind)
        await is_limited(process, client, why, kind)
        runs = (await client.call("run.list")).items
        assert [(run.state, run.error and run.error.kind) for run in runs] == (
            [(RunState.FAILED, "interrupted")] if end == "in order" else []
        )
        make_room(disk)
        await goes_on(client)
        assert all(run.state is RunState.FAILED for run in (await client.call("run.list")).items)
    finally:
        await client.__aexit__(None, None, None)
    assert await process.terminate() == 0
    assert "Traceback" not in process.log.read_text("utf-8")
    with closing(sqlite3.connect(disk / "firth.sqlite")) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


async def test_a_disk_that_gets_full_at_work_is_told_at_once(process: DaemonProcess, disk: Path) -> None:
    client = await process.start()
    await client.call("channel.create", name="main")
    fill(disk)
    await write_until_refused(client, NoSpace)
    await is_limited(process, client, "disk is full", NoSpace)
    make_room(disk)
    await goes_on(client)
    await client.__aexit__(None, None, None)
    assert "Traceback" not in process.log.read_text("utf-8")


async def test_a_state_that_must_be_migrated_first_says_so_and_does_not_start(
    process: DaemonProcess, disk: Path
) -> None:
    client = await process.start()
    await client.__aexit__(None, None, None)
    assert await process.terminate() == 0
    with closing(sqlite3.connect(disk / "firth.sqlite")) as db:
        db.execute("PRAGMA user_version = 0")
    fill(disk)
    with pytest.raises(AssertionError, match="it must be migrated before it is served"):
        await process.start()
    assert "Traceback" not in process.log.read_text("utf-8")
    assert list((disk / "runs").iterdir()) == []
