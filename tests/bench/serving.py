"""How fast files go out, against aiohttp's own FileResponse in the same run.

    python -m tests.bench.serving [--seconds 1.5] [--rounds 3] [--json]

The server runs on the first core, the client on the second. Rounds go over all servers in turn; figures are medians.
Ratios and CPU are what to trust: over loopback the client is often the limit, and machines are noisy.
"""

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import uvloop
from aiohttp import web

from tests.support.web import conda_index, running_site

FILES = {"hot-1-0.conda": 50_000, "middle-1-0.conda": 5_000_000, "large-1-0.conda": 100_000_000}
CONNECTIONS = {"hot-1-0.conda": 16, "middle-1-0.conda": 4, "large-1-0.conda": 2}
SERVERS = ("firth", "FileResponse on uvloop", "FileResponse on asyncio")
PATH = "/repo/main/noarch/"
_TICK = os.sysconf("SC_CLK_TCK")


class Figure(NamedTuple):
    """What one server did with one file in one round."""

    requests_s: float
    mb_s: float
    cpu_us: float  # of the server, for one request


# --- servers, each in a process of its own ----------------------------------------------------------------


async def serve_firth(folder: Path) -> None:
    async with running_site(folder) as site:
        site.shelf.channel("main", conda_index("noarch"))
        for name, size in FILES.items():
            site.shelf.artifact("main", "noarch", name, os.urandom(1000) * (size // 1000))
        await until_told(site.port)


async def serve_stock(folder: Path) -> None:
    for name, size in FILES.items():
        (folder / name).write_bytes(os.urandom(1000) * (size // 1000))

    async def handle(request: web.Request) -> web.StreamResponse:
        return web.FileResponse(folder / request.match_info["name"])

    app = web.Application()
    app.router.add_get(PATH + "{name}", handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    await until_told(runner.addresses[0][1])
    await runner.cleanup()


async def until_told(port: int) -> None:
    """Tell the parent the port; go on once it closes our standard input."""
    print(port, flush=True)
    await asyncio.to_thread(sys.stdin.read)


def serve(kind: str, folder: Path) -> None:
    pin(0)
    body = serve_firth(folder) if kind == "firth" else serve_stock(folder)
    factory = asyncio.new_event_loop if kind.endswith("asyncio") else uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(body)


@contextmanager
def server(kind: str) -> Iterator[tuple[int, int]]:
    """Start a server; give its process id and port."""
    with tempfile.TemporaryDirectory(prefix="firth-bench-") as folder:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.serving", "--serve", kind, "--folder", folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield process.pid, int(process.stdout.readline())
        finally:
            process.stdin.close()
            process.wait(30)
            process.stdout.close()


# --- the client -------------------------------------------------------------------------------------------


def load(port: int, name: str, seconds: float) -> tuple[int, int, float]:
    """Ask for a file over and over; return requests, bytes and the seconds that they took."""
    counts: list[int] = []
    size = reply_bytes(port, name)
    stop = time.perf_counter() + seconds
    began = time.perf_counter()
    if size < 1_000_000:
        counts.append(many_connections(port, name, size, stop))
    else:
        threads = [
            threading.Thread(target=lambda: counts.append(one_connection(port, name, size, stop)))
            for _ in range(CONNECTIONS[name])
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return sum(counts), sum(counts) * size, time.perf_counter() - began


def request(name: str) -> bytes:
    return f"GET {PATH}{name} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


def reply_bytes(port: int, name: str) -> int:
    """Return how many bytes a reply has, headers included: the same for every reply to the same request."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(request(name).replace(b"\r\n\r\n", b"\r\nConnection: keep-alive\r\n\r\n"))
        head = b""
        while b"\r\n\r\n" not in head:
            head += connection.recv(4096)
    assert head.startswith(b"HTTP/1.1 200 "), head[:200]
    return head.index(b"\r\n\r\n") + 4 + FILES[name]


def take(connection: socket.socket, count: int, buffer: bytearray) -> None:
    """Let the kernel throw away what comes: copying it would only measure the client."""
    while count:
        done = connection.recv_into(buffer, min(count, len(buffer)), socket.MSG_TRUNC)
        if not done:
            raise ConnectionError("the server closed the connection")
        count -= done


def one_connection(port: int, name: str, size: int, stop: float) -> int:
    done, buffer = 0, bytearray(1024 * 1024)
    with socket.create_connection(("127.0.0.1", port)) as connection:
        while time.perf_counter() < stop:
            connection.sendall(request(name))
            take(connection, size, buffer)
            done += 1
    return done


def many_connections(port: int, name: str, size: int, stop: float) -> int:
    done, buffer, text = 0, bytearray(1024 * 1024), request(name)
    connections = [socket.create_connection(("127.0.0.1", port)) for _ in range(CONNECTIONS[name])]
    while time.perf_counter() < stop:
        for connection in connections:
            connection.sendall(text)
        for connection in connections:
            take(connection, size, buffer)
        done += len(connections)
    for connection in connections:
        connection.close()
    return done


# --- the run ----------------------------------------------------------------------------------------------


def pin(core: int) -> None:
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[core % len(cores)]})


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def measure(pid: int, port: int, name: str, seconds: float) -> Figure:
    before = cpu_s(pid)
    requests, received, took = load(port, name, seconds)
    return Figure(requests / took, received / took / 1e6, (cpu_s(pid) - before) / requests * 1e6)


def run(seconds: float, rounds: int) -> dict[str, dict[str, Figure]]:
    """Return the median figures: file to server to figure."""
    found: dict[str, dict[str, list[Figure]]] = {name: {kind: [] for kind in SERVERS} for name in FILES}
    with server(SERVERS[0]) as first, server(SERVERS[1]) as second, server(SERVERS[2]) as third:
        pin(1)  # not before: the servers would inherit it
        for turn in range(rounds + 1):
            for kind, (pid, port) in zip(SERVERS, (first, second, third), strict=True):
                for name in FILES:
                    figure = measure(pid, port, name, seconds if turn else 0.1)
                    if turn:  # the first one only warms up
                        found[name][kind].append(figure)
    return {
        name: {kind: Figure(*(statistics.median(column) for column in zip(*figures, strict=True)))
               for kind, figures in kinds.items()}
        for name, kinds in found.items()
    }  # fmt: skip


def show(result: dict[str, dict[str, Figure]]) -> None:
    print(f"{'MB':<10}{'server':<26}{'req/s':>10}{'MB/s':>10}{'CPU us/req':>13}{'x FileResponse':>16}{'CPU x':>8}")
    for name, kinds in result.items():
        base = kinds[SERVERS[1]]
        for kind, figure in kinds.items():
            row = f"{FILES[name] / 1e6:<10g}{kind:<26}{figure.requests_s:>10,.0f}{figure.mb_s:>10,.0f}"
            row += f"{figure.cpu_us:>13,.0f}{figure.requests_s / base.requests_s:>16.2f}"
            print(f"{row}{figure.cpu_us / base.cpu_us:>8.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1.5, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="figures as JSON")
    parser.add_argument("--serve", choices=SERVERS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve, arguments.folder)
        return
    result = run(arguments.seconds, arguments.rounds)
    if arguments.json:
        print(json.dumps({n: {k: f._asdict() for k, f in kinds.items()} for n, kinds in result.items()}))
    else:
        show(result)


if __name__ == "__main__":
    main()
