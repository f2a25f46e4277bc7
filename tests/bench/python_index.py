"""Measures Python indexes as large as public ones: `python -m tests.bench.python_index [--names N] [--pages N]`.

First a whole index: a project list of 800,000 names, its first run, one after ten names have changed, and how long a
page takes that was never read, and again. Then a name list of 10,000 projects with a page each: the first run, one in
which nothing changed, one after ten changes, and how many objects that publication wrote. Times are wall seconds and
seconds of the processors, memory is the peak of the daemon and of its worker processes together. The daemon is a
process of its own, the sources are not.
"""

import argparse
import asyncio
import json
import sqlite3
import statistics
import tempfile
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import aiohttp

from firth_protocol.client import Client
from firthd.clock import SystemClock
from tests.bench.cpu import cpu_seconds
from tests.support.daemon import DaemonProcess
from tests.support.python import JSON, PythonIndex
from tests.support.upstream import Fault, FaultyUpstream, Seen

CLOCK = SystemClock()
PAGES_ASKED = 200
CHANGED = 10


class Memory:
    """The peak of a process and its children, looked at again and again."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.peak_mb = 0.0

    def look(self) -> None:
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        total = 0
        for pid in (str(self.pid), *children):
            with suppress(OSError, IndexError):
                lines = Path(f"/proc/{pid}/status").read_text().splitlines()
                total += sum(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))
        self.peak_mb = max(self.peak_mb, total / 1000)

    async def watch(self) -> None:
        while True:
            self.look()
            await asyncio.sleep(0.05)


class Index(PythonIndex):
    """An index whose list is made once: of many names, of which few have files."""

    def __init__(self, names: int) -> None:
        super().__init__()
        self.names = names
        self.moved = 0
        self.body = b""

    def make(self) -> None:
        step = max(1, self.names // CHANGED)
        projects = [
            {"_last-serial": number + 1 + (self.moved if number % step == 0 else 0), "name": f"project-{number:07}"}
            for number in range(self.names)
        ]
        self.body = json.dumps({"meta": {"api-version": "1.4"}, "projects": projects}).encode()

    def answer(self, seen: Seen) -> bytes | Fault | None:
        if seen.path == "simple/":
            tag = f'"{self.moved}"'
            if seen.headers.get("if-none-match") == tag:
                return Fault(status=304, headers={"ETag": tag})
            return Fault(status=200, body=self.body, headers={"Content-Type": JSON, "ETag": tag})
        project = seen.path.removeprefix("simple/").strip("/")
        if seen.path.startswith("simple/") and project not in self.projects:
            self.add(project, "1.0")
            self.serial[project] = 10**9
        return super().answer(seen)


async def timed(name: str, client: Client, mirror: str, memory: Memory) -> None:
    memory.peak_mb = 0
    began, used = CLOCK.monotonic(), cpu_seconds(memory.pid)
    run = (await client.call("mirror.run", mirror=mirror)).run
    ended = await client.call("run.wait", run=run.id, timeout=3600)
    seconds, used = CLOCK.monotonic() - began, cpu_seconds(memory.pid) - used
    told = f"{ended.state} {ended.counts.added:,} added"
    print(f"{name:<44}{seconds:>8.2f} s {used:>7.2f} CPU s {memory.peak_mb:>7.0f} MB  {told}")


async def page(http: aiohttp.ClientSession, url: str, project: str) -> float:
    began = CLOCK.monotonic()
    async with http.get(f"{url}/simple/{project}/", headers={"Accept": JSON}) as reply:
        await reply.read()
        assert reply.status == 200, reply.status
    return (CLOCK.monotonic() - began) * 1000


async def whole(client: Client, url: str, index: Index, source: str, memory: Memory) -> None:
    index.make()
    print(f"project list of {index.names:,} names, {len(index.body) / 1e6:.0f} MB")
    fields = {"type": "python", "mode": "passive", "source": source, "check": False}
    await client.call("mirror.create", channel="whole", name="p", **fields)
    await timed("whole: first run", client, "whole:p", memory)
    index.moved += 1
    index.make()
    await timed(f"whole: a run after {CHANGED} changes", client, "whole:p", memory)
    await timed("whole: a run of no change", client, "whole:p", memory)
    async with aiohttp.ClientSession() as http:
        for name in ("never read", "read before"):
            times = [await page(http, f"{url}/repo/whole", f"project-{number:07}") for number in range(PAGES_ASKED)]
            high = statistics.quantiles(times, n=20)[-1]
            print(f"whole: page {name:<32}{statistics.median(times):>8.1f} ms, 95 % {high:.1f} ms")
        began = CLOCK.monotonic()
        async with http.get(f"{url}/repo/whole/simple/", headers={"Accept": JSON}) as reply:
            size = len(await reply.read())
        print(f"whole: the list to a client {CLOCK.monotonic() - began:>24.2f} s, {size / 1e6:.0f} MB")


async def listed(client: Client, index: PythonIndex, source: str, memory: Memory, state: Path, pages: int) -> None:
    names = [f"listed-{number:05}" for number in range(pages)]
    for name in names:
        index.add(name, "1.0")
    print(f"a name list of {pages:,} projects")
    fields: dict[str, Any] = {"type": "python", "mode": "passive", "source": source, "check": False}
    await client.call("mirror.create", channel="listed", name="p", filters={"projects": names}, **fields)
    await timed("list: first run", client, "listed:p", memory)
    await timed("list: a run of no change", client, "listed:p", memory)
    for name in names[:: pages // CHANGED]:
        index.add(name, "2.0")
    await timed(f"list: a run after {CHANGED} changes", client, "listed:p", memory)
    with closing(sqlite3.connect(state / "firth.sqlite")) as connection:
        newest = connection.execute(
            "SELECT max(since) FROM object o JOIN channel c ON c.id = o.channel_id WHERE c.name = 'listed'"
        ).fetchone()[0]
        rows = connection.execute(
            "SELECT count(*), sum(size) FROM object o JOIN channel c ON c.id = o.channel_id"
            " WHERE c.name = 'listed' AND since = ?",
            (newest,),
        ).fetchone()
    print(f"list: that publication wrote {rows[0]:,} objects, {rows[1] / 1e6:.2f} MB")


async def measure(folder: Path, names: int, pages: int) -> None:
    many, few = Index(names), PythonIndex()
    async with FaultyUpstream() as first, FaultyUpstream() as second, DaemonProcess(folder) as process:
        many.serve(first)
        few.serve(second)
        client = await process.start()
        memory = Memory(process.pid)
        async with asyncio.TaskGroup() as group:
            watch = group.create_task(memory.watch())
            for channel in ("whole", "listed"):
                await client.call("channel.create", name=channel)
            url = await process.url(client)
            await whole(client, url, many, f"{first.url}/simple", memory)
            await listed(client, few, f"{second.url}/simple", memory, folder / "state", pages)
            watch.cancel()


def main() -> None:
    """Print one line a measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--names", type=int, default=800_000, help="names of the project list (800,000)")
    parser.add_argument("--pages", type=int, default=10_000, help="projects of the name list (10,000)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(measure(Path(folder), given.names, given.pages))


if __name__ == "__main__":
    main()
