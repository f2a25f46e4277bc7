"""The real daemon under a service manager: inherited socket, readiness, watchdog, an orderly stop."""

import os
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from firth_protocol.client import Client

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

# Puts descriptor 3 and LISTEN_PID in place as the manager does between fork and exec.
LAUNCH = "import os, sys; os.environ['LISTEN_PID'] = str(os.getpid()); os.execv(sys.argv[1], sys.argv[1:])"

JOURNAL = "import os; s = os.fstat(2); os.environ['JOURNAL_STREAM'] = f'{s.st_dev}:{s.st_ino}'; "


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(30)
        yield listener


def start(tmp_path: Path, *sockets: socket.socket, journal: bool = False) -> subprocess.Popen[str]:
    """Start the daemon with its sockets, that of the callers first; `journal`: what it says goes to the journal."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("FIRTH_")}
    environ |= {
        "STATE_DIRECTORY": str(tmp_path / "state"),
        "RUNTIME_DIRECTORY": str(tmp_path),
        "CONFIGURATION_DIRECTORY": str(tmp_path),
        "FIRTH_LISTEN": "127.0.0.1:0",
        "NOTIFY_SOCKET": str(tmp_path / "notify"),
        "WATCHDOG_USEC": "1000000",
        "LISTEN_FDS": str(len(sockets)),
        "LISTEN_FDNAMES": "rpc:web" if len(sockets) > 1 else "rpc",
    }

    def place() -> None:
        for number, copy in enumerate([os.dup(listener.fileno()) for listener in sockets]):
            os.dup2(copy, 3 + number)

    return subprocess.Popen(
        [sys.executable, "-c", JOURNAL + LAUNCH if journal else LAUNCH, sys.executable, "-m", "firthd"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environ,
        close_fds=False,
        preexec_fn=place,
    )


def wait_for(manager: socket.socket, field: str) -> list[str]:
    """Return the message that holds the field; what comes before it is left out."""
    while True:
        fields = manager.recv(4096).decode().split("\n")
        if field in fields:
            return fields


async def test_the_daemon_does_what_a_service_manager_expects(tmp_path: Path, manager: socket.socket) -> None:
    path = tmp_path / "firth.sock"
    with socket.socket(socket.AF_UNIX) as rpc:
        rpc.bind(str(path))
        rpc.listen()
        with start(tmp_path, rpc) as daemon:
            try:
                ready = wait_for(manager, "READY=1")
                assert any("http://127.0.0.1:" in field for field in ready)
                async with Client(path) as client:
                    status = await client.call("daemon.status")
                assert status.pid == daemon.pid
                assert status.socket == str(path)
                wait_for(manager, "WATCHDOG=1")
                wait_for(manager, "WATCHDOG=1")
                daemon.send_signal(signal.SIGTERM)
                wait_for(manager, "STOPPING=1")
                _, log = daemon.communicate(timeout=30)
            finally:
                daemon.kill()
        assert daemon.returncode == 0, log
        assert path.is_socket(), "the socket is the manager's and stays"


def test_a_second_daemon_on_the_same_state_is_refused_in_a_sentence(tmp_path: Path, manager: socket.socket) -> None:
    with socket.socket(socket.AF_UNIX) as rpc:
        rpc.bind(str(tmp_path / "firth.sock"))
        rpc.listen()
        with start(tmp_path, rpc) as first:
            try:
                wait_for(manager, "READY=1")
                command = [
                    sys.executable,
                    "-m",
                    "firthd",
                    "--state",
                    str(tmp_path / "state"),
                    "--listen",
                    "127.0.0.1:0",
                ]
                second = subprocess.run(
                    [*command, "--socket", str(tmp_path / "other.sock")],
                    capture_output=True,
                    text=True,
                    timeout=60,
                    check=False,
                )
            finally:
                first.terminate()
                first.communicate(timeout=30)
    assert second.returncode == 75  # it may pass by itself
    assert str(first.pid) in second.stderr
    assert "Traceback" not in second.stderr


async def test_the_call_that_starts_the_daemon_is_answered(tmp_path: Path, manager: socket.socket) -> None:
    path = tmp_path / "firth.sock"
    with socket.socket(socket.AF_UNIX) as rpc, socket.socket(socket.AF_UNIX) as caller:
        rpc.bind(str(path))
        rpc.listen()
        caller.settimeout(30)
        caller.connect(str(path))
        call = b'{"jsonrpc":"2.0","id":1,"method":"daemon.status","params":{}}'
        caller.sendall(b"POST /rpc HTTP/1.1\r\nHost: firth\r\nContent-Length: %d\r\n\r\n%b" % (len(call), call))
        with start(tmp_path, rpc) as daemon:
            try:
                answer = caller.recv(65_536)
                assert answer.startswith(b"HTTP/1.1 200 OK"), answer
                assert b'"result"' in answer
            finally:
                daemon.send_signal(signal.SIGTERM)
                daemon.communicate(timeout=30)


def test_the_call_that_meets_a_daemon_which_cannot_start_is_told_why(tmp_path: Path, manager: socket.socket) -> None:
    newer(tmp_path / "state")
    with socket.socket(socket.AF_UNIX) as rpc, socket.socket(socket.AF_UNIX) as caller:
        rpc.bind(str(tmp_path / "firth.sock"))
        rpc.listen()
        caller.settimeout(30)
        caller.connect(str(tmp_path / "firth.sock"))
        caller.sendall(b"POST /rpc HTTP/1.1\r\nHost: firth\r\nContent-Length: 2\r\n\r\n{}")
        with start(tmp_path, rpc) as daemon:
            answer = caller.recv(65_536)
            daemon.terminate()  # it would answer others for a while
            daemon.communicate(timeout=30)
    assert answer.startswith(b"HTTP/1.1 503")
    assert b"has schema 999" in answer


@pytest.mark.deep
def test_wrong_settings_are_one_line_for_the_journal_and_an_answer_for_all_who_wait(
    tmp_path: Path, manager: socket.socket
) -> None:
    (tmp_path / "firth.toml").write_text('[web]\nlisten = "nowhere"\nlisen = 1\n')
    with socket.socket(socket.AF_UNIX) as rpc, socket.socket(socket.AF_INET) as tcp:
        rpc.bind(str(tmp_path / "firth.sock"))
        tcp.bind(("127.0.0.1", 0))
        for listener in (rpc, tcp):
            listener.listen()
        with socket.socket(socket.AF_UNIX) as caller, socket.create_connection(tcp.getsockname()) as client:
            caller.connect(str(tmp_path / "firth.sock"))
            for waiting in (caller, client):
                waiting.settimeout(30)
                waiting.sendall(b"GET /healthz HTTP/1.1\r\nHost: firth.example.org\r\n\r\n")
            with start(tmp_path, rpc, tcp, journal=True) as daemon:
                told, seen = caller.recv(65_536), client.recv(65_536)
                _, log = daemon.communicate(timeout=30)
    assert daemon.returncode == 78
    assert told.startswith(b"HTTP/1.1 503")
    assert b"did you mean listen?" in told
    assert seen.startswith(b"HTTP/1.1 503")
    assert b"listen" not in seen, "clients are told nothing of the settings"
    assert len(log.splitlines()) == 1, log
    assert log.startswith("<3>")
    assert "did you mean listen?" in log


@pytest.mark.parametrize(
    ("spoil", "status", "said"),
    [
        pytest.param(lambda state: newer(state), 78, "has schema 999", id="a newer state"),
        pytest.param(lambda state: state.write_text("no folder"), 78, "cannot go on", id="a file in its place"),
        pytest.param(lambda state: damaged(state), 78, "is damaged", id="a damaged state"),
    ],
)
def test_what_keeps_the_daemon_from_starting_is_one_sentence_and_a_status(
    spoil: Callable[[Path], object], status: int, said: str, tmp_path: Path, manager: socket.socket
) -> None:
    spoil(tmp_path / "state")
    with socket.socket(socket.AF_UNIX) as rpc:
        rpc.bind(str(tmp_path / "firth.sock"))
        rpc.listen()
        with start(tmp_path, rpc) as daemon:
            _, told = daemon.communicate(timeout=30)
    assert daemon.returncode == status, told
    assert said in told
    assert "Traceback" not in told
    assert len(told.splitlines()) == 1, told


def newer(state: Path) -> None:
    state.mkdir()
    with closing(sqlite3.connect(state / "firth.sqlite")) as db:
        db.execute("PRAGMA user_version = 999")


def damaged(state: Path) -> None:
    state.mkdir()
    (state / "firth.sqlite").write_bytes(b"no database" * 1000)
