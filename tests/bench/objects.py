"""Measures served objects of a made-up family: `python -m tests.bench.objects`.

200,000 objects are published; then 100 of them change, then a channel goes back. Printed are the rows written, the
longest that the writer was held by one transaction, and the time of a snapshot's lookup through a cold memory.
"""

import argparse
import asyncio
import hashlib
import resource
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from firth_protocol.types import Cause
from firthd.channels.published import Published
from firthd.clock import SystemClock
from firthd.store import catalog, generations, object_files, objects, summaries
from firthd.store.database import Database, Tx
from firthd.store.generations import GenerationRow
from firthd.store.run_file import RunFile
from tests.support.state import add_channel

T = TypeVar("T")
FAMILY = "made-up"


class TimedDatabase(Database):
    """The state, with a watch on how long each write holds the writer."""

    held_s: list[float]

    async def write(self, body: Callable[[Tx], Awaitable[T]], *, lasting: bool = True) -> T:
        async def watched(tx: Tx) -> T:
            begun = time.perf_counter()
            try:
                return await body(tx)
            finally:
                self.held_s.append(time.perf_counter() - begun)

        return await super().write(watched, lasting=lasting)


def digest(*what: object) -> str:
    return hashlib.sha256(repr(what).encode()).hexdigest()


def write_run_file(path: Path, numbers: range, edition: int) -> None:
    with RunFile(str(path)) as file:
        file.start_render()
        file.files((f"simple/project-{number:07}/", digest(number, edition), 1000) for number in numbers)


async def stage(db: TimedDatabase, channel: int, number: int, path: Path) -> None:
    async with db.attached(path) as schema:
        await objects.copy_in(db, SystemClock(), schema, channel, FAMILY, number)


async def switch(db: TimedDatabase, channel: int, number: int) -> None:
    row = GenerationRow(
        number=number, shows=number, time=number, cause=Cause.RUN, run_id=None, added=0, removed=0, artifacts=0,
        packages=0, bytes=0, digest="", kept=True,
    )  # fmt: skip

    async def body(tx: Tx) -> None:
        await generations.publish(tx, channel_id=channel, row=row, families=[], change_sets=[])
        await catalog.set_generation(tx, channel, number, number)

    await db.write(body)


async def measured(db: TimedDatabase, title: str, work: Awaitable[object]) -> None:
    db.held_s = []
    begun = time.perf_counter()
    await work
    took = time.perf_counter() - begun
    median, longest = statistics.median(db.held_s or [0]) * 1000, max(db.held_s, default=0.0) * 1000
    print(f"{title}: {took:.3f} s, {len(db.held_s)} transactions of {median:.1f} ms, the longest {longest:.1f} ms")


async def counted(db: TimedDatabase, where: str) -> int:
    return int(await db.read(lambda r: r.value(f"SELECT count(*) FROM object WHERE {where}")))


async def look_up(db: TimedDatabase, total: int) -> None:
    published = Published(db, SystemClock(), 0)
    await published.load()
    times = []
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(0, total, max(1, total // 2000)):
        begun = time.perf_counter()
        view = await published.at("main", "1", 1 << 50)
        found = await published.object(view, FAMILY, f"simple/project-{number:07}/")
        times.append((time.perf_counter() - begun) * 1000)
        assert found is not None
        assert found.sha256 == digest(number, 1)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    p99 = statistics.quantiles(times, n=100)[98]
    print(f"snapshot lookup: median {statistics.median(times):.2f} ms, p99 {p99:.2f} ms, memory +{grown} kB")


async def bench(folder: Path, total: int) -> None:
    db = await TimedDatabase.open(folder / "firth.sqlite", SystemClock())
    assert isinstance(db, TimedDatabase)
    db.held_s = []
    channel = await db.write(add_channel)
    for number, numbers, title in (
        (1, range(total), f"{total:,} objects"),
        (2, range(0, total, total // 100), "100 of them changed"),
    ):
        path = folder / f"run-{number}"
        await asyncio.to_thread(write_run_file, path, numbers, number)
        await measured(db, title, stage(db, channel, number, path))
        await measured(db, "  the pointer", switch(db, channel, number))
        rows = await counted(db, f"since = {number} OR until = {number}")
        print(f"  {rows:,} rows touched, {await counted(db, '1'):,} in all")
    await look_up(db, total)
    await measured(db, "back to generation 1", objects.show_again(db, channel, 3, 1))
    await measured(db, "  its summaries", summaries.show_again(db, channel, 3, 1))
    print(f"  {await counted(db, 'since = 3 OR until = 3'):,} rows touched")
    await switch(db, channel, 3)
    await measured(db, "generation 2 dropped", object_files.drop_between(db, channel, 1, 3, 0))
    print(f"  {await counted(db, '1'):,} rows in all")
    await measured(db, "looking for differences", db.read(lambda r: objects.differences(r, channel, 3)))
    await db.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=200_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(bench(Path(folder), options.objects))


if __name__ == "__main__":
    main()
