"""How fast Python pages and files go out and come in: `python -m tests.bench.python_serving [--rounds 5]`.

Out: a project's page in JSON and HTML, and a file of 50 KB, in requests a second beside simple-repository-server, which
gets an environment of its own from the Python index. In: an active run of 300 projects with 3,000 files, beside
`curl --parallel` for the same files, then sha256sum of them, then sync. Everything of one line happens in the same run,
in turns; figures are medians. Ratios are what to trust: above 1 Firth is faster going out, below 1 coming in.
"""

import argparse
import asyncio
import os
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urljoin, urlsplit

import aiohttp

from tests.bench.serving import cpu_s, take
from tests.deep.test_python_servers import PLACE, free_port, server
from tests.support.daemon import DaemonProcess
from tests.support.python import HTML, JSON, PythonIndex
from tests.support.upstream import FaultyUpstream

FILE_BYTES = 50_000
SERVER = "simple-repository-server"
CONNECTIONS = 16
CURL_AT_ONCE = 14
PROJECT = "project-000"


class Run(NamedTuple):
    """An active run: its seconds, the daemon's CPU seconds until its end, and the seconds of a run of no change."""

    seconds: float
    cpu_s: float
    unchanged: float
    url: str


class Answer(NamedTuple):
    """A request that is made again and again, and how long each answer to it is."""

    port: int
    request: bytes
    size: int


def made_index(projects: int, files: int) -> PythonIndex:
    """Return an index whose wheels have 50 KB each."""
    index = PythonIndex(core=False)
    for number in range(projects):
        for version in range(files // projects):
            index.add(f"project-{number:03}", f"{version}.0", body=os.urandom(FILE_BYTES // 2).hex())
    return index


def write_packages(index: PythonIndex, folder: Path) -> None:
    for project, files in index.projects.items():
        (folder / project).mkdir(parents=True)
        for file in files:
            (folder / project / file.filename).write_bytes(file.content)


def installed() -> str:
    """Return the other server's program, installed if need be."""
    program = PLACE / "bin" / SERVER
    if not program.is_file():
        subprocess.run(["python3", "-m", "venv", str(PLACE)], check=True, capture_output=True)
        subprocess.run(
            [str(PLACE / "bin" / "python"), "-m", "pip", "install", "-q", SERVER], check=True, capture_output=True
        )
    return str(program)


# --- out --------------------------------------------------------------------------------------------------


def answer_to(url: str, accept: str) -> Answer:
    """Ask once and see how long an answer is; raises AssertionError for one that is none."""
    place = urlsplit(url)
    port = place.port or 80
    text = f"GET {place.path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAccept: {accept}\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(text)
        reply = b""
        while b"\r\n\r\n" not in reply:
            reply += connection.recv(65_536)
        head, _, body = reply.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 "), head[:300]
        lengths = [
            int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")
        ]
        if lengths:
            return Answer(port, text, len(head) + 4 + lengths[0])
        while not body.endswith(b"0\r\n\r\n"):
            body += connection.recv(65_536)
        return Answer(port, text, len(head) + 4 + len(body))


def requests_a_second(answer: Answer, seconds: float) -> float:
    connections = [socket.create_connection(("127.0.0.1", answer.port)) for _ in range(CONNECTIONS)]
    done, buffer = 0, bytearray(1 << 20)
    began = time.perf_counter()
    while time.perf_counter() - began < seconds:
        for connection in connections:
            connection.sendall(answer.request)
        for connection in connections:
            take(connection, answer.size, buffer)
        done += len(connections)
    took = time.perf_counter() - began
    for connection in connections:
        connection.close()
    return done / took


async def asked(index_url: str) -> dict[str, Answer]:
    """Return what is asked of a server: both forms of a page, and the page's first file."""
    page = f"{index_url}/{PROJECT}/"
    async with aiohttp.ClientSession(headers={"Accept": JSON}) as http, http.get(page) as reply:
        found = await reply.json(content_type=None)
    file = urljoin(page, found["files"][0]["url"]).partition("#")[0]
    places = {"page, JSON": (page, JSON), "page, HTML": (page, HTML), "file of 50 KB": (file, "*/*")}
    return {name: await asyncio.to_thread(answer_to, *place) for name, place in places.items()}


async def out(firth: str, folder: Path, index: PythonIndex, seconds: float, rounds: int) -> None:
    packages = folder / "packages"
    await asyncio.to_thread(write_packages, index, packages)
    port = free_port()
    command = [await asyncio.to_thread(installed), "--host", "127.0.0.1", "--port", str(port), str(packages)]
    async with server(command, f"http://127.0.0.1:{port}/simple/", folder):
        ours, theirs = await asked(firth), await asked(f"http://127.0.0.1:{port}/simple")
        print(f"{'requests a second':<28}{'Firth':>10}{SERVER:>28}{'ratio':>8}")
        for name in ours:
            figures: dict[str, list[float]] = {"ours": [], "theirs": []}
            for _ in range(rounds):
                for whose, answer in (("ours", ours[name]), ("theirs", theirs[name])):
                    figures[whose].append(await asyncio.to_thread(requests_a_second, answer, seconds))
            one, other = (statistics.median(figures[whose]) for whose in ("ours", "theirs"))
            print(f"{name:<28}{one:>10,.0f}{other:>28,.0f}{one / other:>8.1f}")


# --- in ---------------------------------------------------------------------------------------------------


async def curl(index: PythonIndex, url: str, folder: Path) -> float:
    """Bring every file by curl, check it, bring it to the disk; return the seconds."""
    folder.mkdir()
    lines, sums = [], []
    for project, files in index.projects.items():
        for file in files:
            lines.append(f'url = "{url}/files/{project}/{file.filename}"\noutput = "{folder}/{file.filename}"\n')
            sums.append(f"{file.sha256}  {folder}/{file.filename}\n")
    (folder / "list").write_text("".join(lines))
    (folder / "sums").write_text("".join(sums))

    def bring() -> float:
        began = time.perf_counter()
        parallel = ["--parallel", "--parallel-max", str(CURL_AT_ONCE), "--config", str(folder / "list")]
        subprocess.run(["curl", "-s", "-f", *parallel], check=True, stderr=subprocess.DEVNULL)
        subprocess.run(["sha256sum", "--quiet", "-c", str(folder / "sums")], check=True)
        subprocess.run(["sync", "-f", str(folder)], check=True)
        return time.perf_counter() - began

    return await asyncio.to_thread(bring)


async def run_of(process: DaemonProcess, source: str, again: Callable[[], None]) -> Run:
    """Make a mirror of everything and run it twice."""
    client = await process.start()
    await client.call("channel.create", name="main")
    fields = {"type": "python", "mode": "active", "source": source, "check": False}
    await client.call("mirror.create", channel="main", name="p", **fields)
    seconds, cpu = [], 0.0
    for _ in range(2):
        began = time.perf_counter()
        run = (await client.call("mirror.run", mirror="main:p")).run
        ended = await client.call("run.wait", run=run.id, timeout=600)
        seconds.append(time.perf_counter() - began)
        assert ended.state == "completed", ended
        cpu = cpu or cpu_s(process.pid)
        again()
    return Run(seconds[0], cpu, seconds[1], await process.url(client))


async def measure(folder: Path, projects: int, files: int, seconds: float, rounds: int) -> None:
    index = made_index(projects, files)
    ours: list[Run] = []
    theirs: list[float] = []
    async with FaultyUpstream() as upstream:
        index.serve(upstream)
        for number in range(rounds):
            (place := folder / str(number)).mkdir()
            async with DaemonProcess(place) as process:
                ours.append(await run_of(process, f"{upstream.url}/simple", upstream.requests.clear))
                theirs.append(await curl(index, upstream.url, place / "curl"))
                if number == rounds - 1:
                    one, other = statistics.median(run.seconds for run in ours), statistics.median(theirs)
                    cpu = statistics.median(run.cpu_s for run in ours)
                    print(
                        f"active run of {projects:,} projects, {files:,} files: {one:.2f} s, {cpu:.2f} s of daemon CPU"
                    )
                    print(f"curl --parallel, sha256sum, sync: {other:.2f} s, ratio {one / other:.2f}")
                    print(f"a run of no change: {statistics.median(run.unchanged for run in ours):.2f} s")
                    await out(f"{ours[-1].url}/repo/main/simple", place, index, seconds, rounds)


def main() -> None:
    """Print one line a measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--projects", type=int, default=300)
    parser.add_argument("--files", type=int, default=3_000)
    parser.add_argument("--seconds", type=float, default=1.5, help="of each measurement of requests (1.5)")
    parser.add_argument("--rounds", type=int, default=5, help="figures are medians of so many (5)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="firth-bench-") as folder:
        asyncio.run(measure(Path(folder), given.projects, given.files, given.seconds, given.rounds))


if __name__ == "__main__":
    main()
