"""The daemon as a whole: one for a state folder, started and stopped without a trace, watched, ended in order."""

import asyncio
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from firth_protocol.client import Client, DaemonUnreachable
from firth_protocol.errors import InUse
from firth_protocol.types import RunState
from firthd.config import WebSettings
from firthd.service import running, serve
from firthd.store.database import Tx
from firthd.store.opening import SchemaTooNew
from firthd.systemd import Inherited, Notifier
from tests.support.daemon import HastyClock, in_process_daemon, settings_in
from tests.support.upstream import Fault
from tests.support.world import world


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """A service manager's end of the notification socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.setblocking(False)
        yield listener


def drain(manager: socket.socket) -> list[str]:
    """Return the first field of each message that waits to be read."""
    found = []
    while True:
        try:
            found.append(manager.recv(4096).decode().split("\n")[0])
        except BlockingIOError:
            return found


async def hears(manager: socket.socket) -> str:
    async with asyncio.timeout(5):
        raw = await asyncio.get_running_loop().sock_recv(manager, 4096)
    return raw.decode().split("\n")[0]


# --- one daemon for a state folder --------------------------------------------------------------------------------


async def test_a_second_daemon_is_refused_and_names_the_first(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    async with in_process_daemon(tmp_path, settings=settings) as first:
        with pytest.raises(InUse, match=rf"another firthd \(pid {os.getpid()}\) works on ") as caught:
            async with running(settings):
                pytest.fail("two daemons work on one state")
        assert "--state" in caught.value.hint
        assert (await first.client.call("daemon.status")).pid == os.getpid()
    async with in_process_daemon(tmp_path, settings=settings) as again:
        assert (await again.client.call("daemon.status")).pid == os.getpid()


async def test_an_address_in_use_is_told_and_leaves_the_state_free(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        settings = settings_in(tmp_path)
        wrong = msgspec.structs.replace(settings, web=WebSettings(listen=listen))
        with pytest.raises(InUse, match=f"cannot listen on {listen}"):
            async with running(wrong):
                pytest.fail("it listens where somebody else does")
    async with in_process_daemon(tmp_path, settings=settings) as daemon:
        assert (await daemon.client.call("daemon.status")).pid == os.getpid()


async def test_a_state_of_a_newer_daemon_is_refused_and_left_alone(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    async with in_process_daemon(tmp_path, settings=settings) as daemon:
        await daemon.daemon.db.outside(lambda tx: tx.rows("PRAGMA user_version = 999"))
    with pytest.raises(SchemaTooNew, match="999"):
        async with running(settings):
            pytest.fail("it works on what it does not know")
    assert not settings.socket.exists()


async def test_folders_that_were_there_are_closed_to_the_other_users_of_the_machine(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    for folder, mode in ((settings.state, 0o755), (settings.state / "out", 0o777), (settings.state / "runs", 0o700)):
        folder.mkdir()
        folder.chmod(mode)
    async with in_process_daemon(tmp_path, settings=settings):
        modes = {name: (settings.state / name).stat().st_mode & 0o777 for name in (".", "out", "runs", "sources")}
    assert modes == {".": 0o750, "out": 0o770, "runs": 0o700, "sources": 0o750}


# --- without a trace -----------------------------------------------------------------------------------------------


def descriptors() -> dict[str, str]:
    found = {}
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found[entry.name] = str(entry.readlink())
        except FileNotFoundError:
            continue  # that of the listing itself
    return found


def threads() -> set[str]:
    """Return the threads but for those of the loop's own pool, which ends with the loop."""
    return {thread.name for thread in threading.enumerate() if not thread.name.startswith("asyncio_")}


async def closed_connections() -> None:
    """Wait until the threads of closed database connections are gone: each ends a moment after its last answer."""
    async with asyncio.timeout(5):
        while any("_connection_worker" in name for name in threads()):
            await asyncio.sleep(0)


async def test_start_and_stop_leave_no_task_no_thread_and_no_descriptor(tmp_path: Path) -> None:
    async with world(tmp_path / "first") as w:  # what is loaded once stays
        await w.mirror("passive")
        await w.run()
    await closed_connections()
    before = (asyncio.all_tasks(), threads(), descriptors())
    for turn in range(2):
        async with world(tmp_path / str(turn)) as w:
            await w.mirror("active")
            await w.run()
            await w.names()
            assert len(asyncio.all_tasks()) > len(before[0])
            socket_path = w.daemon.socket
        assert not socket_path.exists()
    await closed_connections()
    assert asyncio.all_tasks() == before[0]
    assert threads() == before[1]
    left = {name: target for name, target in descriptors().items() if before[2].get(name) != target}
    assert [target for target in left.values() if str(tmp_path) in target or "socket" in target] == []
    assert len(descriptors()) <= len(before[2])


# --- watched -------------------------------------------------------------------------------------------------------


async def test_the_watchdog_is_answered_only_while_the_state_answers(
    tmp_path: Path, manager: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    notifier = Notifier(manager.getsockname())
    settings = settings_in(tmp_path)
    reached, go = asyncio.Event(), asyncio.Event()

    async def hang(tx: Tx) -> None:
        reached.set()
        await go.wait()

    async with running(settings, clock=HastyClock(), notifier=notifier, watchdog_s=0.4) as daemon:
        try:
            for _ in range(3):
                assert await hears(manager) == "WATCHDOG=1"
            hung = asyncio.create_task(daemon.db.write(hang))
            await reached.wait()
            caplog.clear()
            drain(manager)
            async with asyncio.timeout(5):
                while caplog.text.count("the state does not answer") < 2:
                    await asyncio.sleep(0)
            assert len(drain(manager)) <= 1  # one that was on its way
        finally:
            go.set()
        await hung
        assert await hears(manager) == "WATCHDOG=1"


# --- in order ------------------------------------------------------------------------------------------------------


async def test_the_manager_and_the_readers_of_events_are_told_of_the_end(
    tmp_path: Path, manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", manager.getsockname())
    monkeypatch.setenv("WATCHDOG_USEC", "")
    settings = settings_in(tmp_path)
    stop = asyncio.Event()
    heard: list[str] = []
    following = asyncio.Event()

    async def follow(client: Client) -> None:
        status = await client.call("channel.list")
        following.set()
        async for event in client.follow([], after=status.as_of):
            heard.append(event.type)  # noqa: PERF401 - looked at while it grows

    serving = asyncio.create_task(serve(settings, Inherited(), stop))
    assert await hears(manager) == "READY=1"
    assert "NOTIFY_SOCKET" not in os.environ  # no worker speaks for the daemon
    async with Client(settings.socket) as client:
        reader = asyncio.create_task(follow(client))
        await following.wait()
        await client.call("channel.create", name="main")
        async with asyncio.timeout(5):
            while "channel.created" not in heard:
                await asyncio.sleep(0)
        stop.set()
        async with asyncio.timeout(5):
            await serving
            await asyncio.wait([reader])
        assert reader.exception() is None or isinstance(reader.exception(), DaemonUnreachable)
        assert heard[-1] == "daemon.stopping"
        with pytest.raises(DaemonUnreachable):
            await client.call("daemon.status")
    assert drain(manager) == ["STOPPING=1"]
    assert not settings.socket.exists()


async def test_a_run_in_progress_is_interrupted_in_order_and_goes_on_at_the_next_start(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.mirror("active")
        w.upstream.fail("noarch/beta*", Fault(until=asyncio.Event()), times=None)
        run = (await w.call("mirror.run", mirror="main:m")).run
        await w.upstream.arrived("noarch/beta*")
        settings = w.daemon.daemon.settings
    async with in_process_daemon(tmp_path, settings=settings) as daemon:
        first = await daemon.client.call("run.get", run=run.id)
        assert (first.state, first.error.kind) == (RunState.FAILED, "interrupted")
        runs = (await daemon.client.call("run.list", mirror="main:m")).items
        assert [one.id for one in runs] == [run.id + 1, run.id]
        assert runs[0].cause == f"after run {run.id} was interrupted"
        facts = [
            (event.type, event.ids.get("run"))
            for _, event in await daemon.daemon.db.read(lambda r: daemon.daemon.journal.after(r, 0, 100))
        ]
        # Written by the daemon that stopped, not found by the one after it.
        stopping, ended = facts.index(("daemon.stopping", None)), facts.index(("run.finished", run.id))
        started_again = facts.index(("daemon.started", None), stopping)
        assert stopping < ended < started_again
