"""The service manager's protocols, spoken over real sockets and with real child processes."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from firthd.systemd import Inherited, Notifier, take_notifier, take_sockets, watchdog_interval_s

CHILD = """
import json, os, sys
from firthd.systemd import take_sockets
os.environ["LISTEN_PID"] = str(os.getpid())
found = take_sockets(os.environ, os.getpid())
print(json.dumps({
    "rpc": [s.getsockname() for s in found.rpc],
    "web": [s.getsockname() for s in found.web],
    "inheritable": [s.get_inheritable() for s in found.rpc + found.web],
    "blocking": [s.getblocking() for s in found.rpc + found.web],
    "left": [name for name in os.environ if name.startswith("LISTEN_")],
}))
sys.stdout.flush()
sys.stdin.readline()
for s in found.rpc:
    connection, _ = s.accept()
    connection.sendall(b"hello from the child")
    connection.close()
"""


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(5)
        yield listener


def test_the_manager_hears_ready_watchdog_and_stopping(manager: socket.socket) -> None:
    environ = {"NOTIFY_SOCKET": manager.getsockname()}
    notifier = take_notifier(environ)
    assert environ == {}
    notifier.ready("serving\nat 127.0.0.1:8470")
    notifier.alive()
    notifier.stopping()
    heard = [manager.recv(4096).decode().split("\n") for _ in range(3)]
    assert heard == [
        ["READY=1", "STATUS=serving at 127.0.0.1:8470"],
        ["WATCHDOG=1"],
        ["STOPPING=1", "STATUS=stopping"],
    ]


def test_an_abstract_address_is_reached() -> None:
    name = f"firth-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(f"\0{name}")
        listener.settimeout(5)
        Notifier(f"@{name}").alive()
        assert listener.recv(100) == b"WATCHDOG=1"


@pytest.mark.parametrize("address", [None, "", "/nonexistent/notify"])
def test_no_manager_is_no_error(address: str | None) -> None:
    Notifier(address).ready("serving")


def test_a_manager_that_does_not_read_never_blocks(manager: socket.socket) -> None:
    notifier = Notifier(manager.getsockname())
    for _ in range(5000):  # more than any queue of the kernel holds
        notifier.alive()
    assert manager.recv(100) == b"WATCHDOG=1"


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7"}, 30.0),
        ({"WATCHDOG_USEC": "500000"}, 0.5),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "8"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_interval(environ: dict[str, str], seconds: float | None) -> None:
    assert watchdog_interval_s(environ, 7) == seconds


def start_child(listeners: list[socket.socket], names: str | None) -> subprocess.Popen[str]:
    """Start CHILD with the listeners at descriptors 3, 4, … as the service manager does."""

    def place() -> None:
        copies = [os.dup(listener.fileno()) for listener in listeners]
        for index, copy in enumerate(copies):
            os.dup2(copy, 3 + index)

    environ = {**os.environ, "LISTEN_FDS": str(len(listeners))}
    if names is not None:
        environ["LISTEN_FDNAMES"] = names
    return subprocess.Popen(
        [sys.executable, "-c", CHILD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environ,
        close_fds=False,
        preexec_fn=place,
    )


@pytest.mark.parametrize("names", ["rpc:web", "firthd.socket:unknown", None])
def test_a_child_serves_on_the_sockets_it_inherits(tmp_path: Path, names: str | None) -> None:
    path = str(tmp_path / "firth.sock")
    with socket.socket(socket.AF_UNIX) as unix, socket.socket(socket.AF_INET) as tcp:
        unix.bind(path)
        unix.listen()
        tcp.bind(("127.0.0.1", 0))
        tcp.listen()
        with start_child([unix, tcp], names) as child:
            assert child.stdout is not None
            assert child.stdin is not None
            told = json.loads(child.stdout.readline())
            assert told == {
                "rpc": [path],
                "web": [list(tcp.getsockname())],
                "inheritable": [False, False],
                "blocking": [False, False],
                "left": [],
            }
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(5)
                client.connect(path)
                child.stdin.write("go\n")
                child.stdin.flush()
                assert client.recv(100) == b"hello from the child"


def test_sockets_of_another_process_are_left_alone() -> None:
    environ = {"LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "rpc"}
    assert take_sockets(environ, 7) == Inherited()
    assert environ == {}


def test_nothing_inherited() -> None:
    assert take_sockets({}, 7) == Inherited()
    assert take_sockets({"LISTEN_PID": "7", "LISTEN_FDS": "many"}, 7) == Inherited()
