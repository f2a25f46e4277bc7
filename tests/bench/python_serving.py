"""How fast Python pages and files go out and come in: `python -m tests.bench.python_serving [--rounds 5]`.

Out: a project's page in JSON and HTML, and a file of 50 KB, in requests a second beside simple-repository-server, which
gets an environment of its own from the Python index, and beside nginx with one worker, which sends the same bytes as
files. First: a file of 20 MB that a passive mirror fetches for one client, beside the source itself. In: an active run
of 300 projects with 3,000 files, beside `curl --parallel` for the same files, then sha256sum of them, then sync, and
beside bandersnatch; `--active` measures only that, and without bandersnatch. Everything of one line happens in the same
run, in turns; figures are medians. Ratios are what to trust: above 1 Firth is faster going out, below 1 coming in.
"""

import argparse
import asyncio
import os
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urljoin, urlsplit

import aiohttp

from tests.bench import others
from tests.bench.cpu import cpu_seconds
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
LARGE_BYTES = 20_000_000


class Run(NamedTuple):
    """An active run: its seconds, CPU seconds of the daemon and its workers, and the seconds of a run of no change."""

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


async def places_of(index_url: str) -> dict[str, tuple[str, str]]:
    """Return what is asked of a server (URL, Accept header): both forms of a page, and the page's first file."""
    page = f"{index_url}/{PROJECT}/"
    async with aiohttp.ClientSession(headers={"Accept": JSON}) as http, http.get(page) as reply:
        found = await reply.json(content_type=None)
    file = urljoin(page, found["files"][0]["url"]).partition("#")[0]
    return {"page, JSON": (page, JSON), "page, HTML": (page, HTML), "file of 50 KB": (file, "*/*")}


async def beside_nginx(stack: AsyncExitStack, folder: Path, places: Mapping[str, tuple[str, str]]) -> dict[str, Answer]:
    """Let nginx send what these places (URL, Accept header) send; nothing without nginx."""
    bodies = {}
    async with aiohttp.ClientSession() as http:
        for number, (name, (url, accept)) in enumerate(places.items()):
            async with http.get(url, headers={"Accept": accept}) as reply:
                bodies[name] = (f"{number}.whl", await reply.read())
    port = free_port()
    command = await asyncio.to_thread(others.nginx, folder, port, dict(bodies.values()))
    if command is None:
        return {}
    at = f"http://127.0.0.1:{port}"
    await stack.enter_async_context(server(command, f"{at}/0.whl", folder))
    return {name: await asyncio.to_thread(answer_to, f"{at}/{file}", "*/*") for name, (file, _) in bodies.items()}


async def out(firth: str, pid: int, folder: Path, index: PythonIndex, seconds: float, rounds: int) -> None:
    packages = folder / "packages"
    await asyncio.to_thread(write_packages, index, packages)
    port = free_port()
    command = [await asyncio.to_thread(installed), "--host", "127.0.0.1", "--port", str(port), str(packages)]
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(server(command, f"http://127.0.0.1:{port}/simple/", folder))
        places = await places_of(firth)
        servers = {
            "Firth": {name: await asyncio.to_thread(answer_to, *place) for name, place in places.items()},
            SERVER: {
                name: await asyncio.to_thread(answer_to, *place)
                for name, place in (await places_of(f"http://127.0.0.1:{port}/simple")).items()
            },
            "nginx": await beside_nginx(stack, folder, places),
        }
        print(f"{'requests a second':<18}{'Firth':>9}{'CPU us':>8}{SERVER:>26}{'ratio':>7}{'nginx':>9}{'ratio':>7}")
        for name in places:
            figures: dict[str, list[float]] = {whose: [] for whose in servers}
            cpu = []
            for _ in range(rounds):
                for whose, answers in servers.items():
                    if name in answers:
                        before = cpu_s(pid)
                        figures[whose].append(await asyncio.to_thread(requests_a_second, answers[name], seconds))
                        if whose == "Firth":
                            cpu.append((cpu_s(pid) - before) / (figures[whose][-1] * seconds) * 1e6)
            one, other = (statistics.median(figures[whose]) for whose in ("Firth", SERVER))
            line = f"{name:<18}{one:>9,.0f}{statistics.median(cpu):>8.0f}{other:>26,.0f}{one / other:>7.1f}"
            if figures["nginx"]:
                static = statistics.median(figures["nginx"])
                line += f"{static:>9,.0f}{one / static:>7.2f}"
            print(line)


# --- first fetches ----------------------------------------------------------------------------------------


def got(url: str) -> float:
    """Get a file by curl; return the seconds. Blocks."""
    began = time.perf_counter()
    subprocess.run(["curl", "-sf", "-o", "/dev/null", url], check=True)
    return time.perf_counter() - began


async def first_fetches(folder: Path, rounds: int) -> None:
    """Get files of 20 MB of their source, through a passive mirror, and once more."""
    index = PythonIndex(core=False)
    names = [f"large-{number}" for number in range(3 * rounds)]
    for name in names:
        index.add(name, "1.0", body=os.urandom(LARGE_BYTES // 2).hex())
    async with FaultyUpstream() as upstream, DaemonProcess(folder) as process:
        index.serve(upstream)
        client = await process.start()
        await client.call("channel.create", name="main")
        fields = {"type": "python", "mode": "passive", "source": f"{upstream.url}/simple", "check": False}
        await client.call("mirror.create", channel="main", name="p", filters={"projects": names}, **fields)
        run = (await client.call("mirror.run", mirror="main:p")).run
        await client.call("run.wait", run=run.id, timeout=600)
        url = await process.url(client)
        took: dict[str, list[float]] = {"direct": [], "first": [], "again": []}
        before = cpu_s(process.pid)
        for name in names:
            path = f"{name}/{index.projects[name][0].filename}"
            took["direct"].append(await asyncio.to_thread(got, f"{upstream.url}/files/{path}"))
            for which in ("first", "again"):
                took[which].append(await asyncio.to_thread(got, f"{url}/repo/main/packages/{path}"))
        cpu = (cpu_s(process.pid) - before) / len(names)
    direct, first, again = (statistics.median(times) for times in took.values())
    print(
        f"a first fetch of 20 MB: {first:.3f} s, of its source {direct:.3f} s, ratio {first / direct:.2f};"
        f" again {again:.3f} s; {cpu:.3f} s of daemon CPU for both"
    )


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
        used = await asyncio.to_thread(cpu_seconds, process.pid)
        began = time.perf_counter()
        run = (await client.call("mirror.run", mirror="main:p")).run
        ended = await client.call("run.wait", run=run.id, timeout=600)
        seconds.append(time.perf_counter() - began)
        assert ended.state == "completed", ended
        cpu = cpu or await asyncio.to_thread(cpu_seconds, process.pid) - used
        again()
    return Run(seconds[0], cpu, seconds[1], await process.url(client))


async def measure(folder: Path, projects: int, files: int, seconds: float, rounds: int, *, active: bool) -> None:
    index = made_index(projects, files)
    ours: list[Run] = []
    theirs: list[float] = []
    mirrored: list[float] = []
    program = None if active else await asyncio.to_thread(others.bandersnatch)
    async with FaultyUpstream() as upstream:
        index.serve(upstream)
        others.serve(index, upstream)
        for number in range(rounds):
            (place := folder / str(number)).mkdir()
            async with DaemonProcess(place) as process:
                ours.append(await run_of(process, f"{upstream.url}/simple", upstream.requests.clear))
                theirs.append(await curl(index, upstream.url, place / "curl"))
                if program is not None:
                    more = (program, upstream.url, place / "bandersnatch", sum(map(len, index.projects.values())))
                    mirrored.append(await asyncio.to_thread(others.mirrored, *more))
                upstream.requests.clear()
                if number == rounds - 1:
                    one, other = statistics.median(run.seconds for run in ours), statistics.median(theirs)
                    cpu = statistics.median(run.cpu_s for run in ours)
                    print(f"active run of {projects:,} projects, {files:,} files: {one:.2f} s, {cpu:.2f} s CPU")
                    print(f"curl --parallel, sha256sum, sync: {other:.2f} s, ratio {one / other:.2f}")
                    if mirrored:
                        slow = statistics.median(mirrored)
                        print(f"bandersnatch, sync: {slow:.2f} s, ratio {one / slow:.2f}")
                    print(f"a run of no change: {statistics.median(run.unchanged for run in ours):.2f} s")
                    if not active:
                        await out(f"{ours[-1].url}/repo/main/simple", process.pid, place, index, seconds, rounds)
    if not active:
        (large := folder / "large").mkdir()
        await first_fetches(large, rounds)


def main() -> None:
    """Print one line a measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--projects", type=int, default=300)
    parser.add_argument("--files", type=int, default=3_000)
    parser.add_argument("--seconds", type=float, default=1.5, help="of each measurement of requests (1.5)")
    parser.add_argument("--rounds", type=int, default=5, help="figures are medians of so many (5)")
    parser.add_argument("--active", action="store_true", help="only the active run, beside curl")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="firth-bench-") as folder:
        asyncio.run(
            measure(Path(folder), given.projects, given.files, given.seconds, given.rounds, active=given.active)
        )


if __name__ == "__main__":
    main()
