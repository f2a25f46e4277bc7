"""Measures reading and rendering of a large conda channel: `python -m tests.bench.conda_index [--records N]`.

The channel is made up here: records in the shape of real ones, with names, versions and builds in believable numbers.
It is read and rendered twice, the second time with a change in one record of a thousand. Times are wall seconds and CPU
seconds of the worker, memory is its peak; the ratio is to the first read.
"""

import argparse
import asyncio
import hashlib
import json
import random
import resource
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import zstandard
from msgspec import Struct

from firthd.clock import SystemClock
from firthd.index.messages import ReadResult, RenderResult
from firthd.workers import Workers
from tests.support.conda_state import CondaState

T = TypeVar("T")
READ = "firthd.index.read:read_task"
RENDER = "firthd.index.render:render_task"
SUBDIRS = {"linux-64": 0.7, "noarch": 0.3}
BUILDS_PER_VERSION = 4
VERSIONS_PER_NAME = 6


class Stage(Struct, frozen=True):
    """One measured stage."""

    name: str
    seconds: float
    cpu_seconds: float
    peak_mb: float
    records: int

    def line(self, first: "Stage") -> str:
        each = self.seconds / self.records * 1e6
        ratio = self.seconds / first.seconds
        times = f"{self.seconds:>8.2f} s {self.cpu_seconds:>7.2f} s CPU {each:>7.1f} us/record"
        return f"{self.name:<16}{times} {self.peak_mb:>7.0f} MB {ratio:>6.2f} x"


def children_cpu_seconds() -> float:
    """Return the CPU time of every child that has ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def records(subdir: str, count: int, *, dense: bool = False) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield made-up records, the same each time; `dense`: what they need is there."""
    names = count // (VERSIONS_PER_NAME * BUILDS_PER_VERSION) + 1
    highest = 3 if dense else 9  # of the lower bounds
    chance = random.Random(subdir)
    for number in range(count):
        name = f"package-{number // (VERSIONS_PER_NAME * BUILDS_PER_VERSION):06}"
        version = f"{number // BUILDS_PER_VERSION % VERSIONS_PER_NAME}.{chance.randrange(10)}.1"
        build = f"py3{10 + number % BUILDS_PER_VERSION}h{chance.randrange(16**7):07x}_{number % 3}"
        sha256 = hashlib.sha256(f"{subdir} {number}".encode()).hexdigest()
        among = names if dense else count
        depends = [
            f"package-{chance.randrange(among):06} >={chance.randrange(highest)}.0,<10" for _ in range(number % 9)
        ]
        extension = ".tar.bz2" if number % 5 == 0 else ".conda"
        yield (
            f"{name}-{version}-{build}{extension}",
            {
                "build": build,
                "build_number": number % 3,
                "depends": ["python >=3.10", *depends],
                "license": "BSD-3-Clause",
                "md5": sha256[:32],
                "name": name,
                "sha256": sha256,
                "size": chance.randrange(1000, 10**7),
                "subdir": subdir,
                "timestamp": 1_700_000_000_000 + number,
                "version": version,
            },
        )


def write_index(path: Path, subdir: str, count: int, *, later: bool, dense: bool = False) -> None:
    """Write a compressed repodata.json; the later one has a hotfix in every thousandth record, and lacks as many."""
    sections: dict[str, dict[str, Any]] = {"packages": {}, "packages.conda": {}}
    for number, (filename, record) in enumerate(records(subdir, count, dense=dense)):
        if later and number % 1000 == 500:
            continue
        if later and number % 1000 == 0:
            record["depends"].append("hotfix")
        sections["packages" if filename.endswith(".bz2") else "packages.conda"][filename] = record
    body = json.dumps({"info": {"subdir": subdir}, **sections}, separators=(",", ":")).encode()
    path.write_bytes(zstandard.ZstdCompressor(level=3, threads=2).compress(body))


async def measure(folder: Path, total: int) -> list[Stage]:
    """Read and render the channel twice; return what each stage took."""
    state, clock = CondaState(folder), SystemClock()
    workers = Workers(1, clock)
    stages: list[Stage] = []

    async def timed(name: str, task: str, params: Struct, result: type[T]) -> T:
        began, cpu_before = clock.monotonic(), children_cpu_seconds()
        value = await workers.run(task, params, result)
        seconds, cpu = clock.monotonic() - began, children_cpu_seconds() - cpu_before
        stages.append(Stage(name, seconds, cpu, (workers.last_peak_rss_bytes or 0) / 1e6, total))
        return value

    for later in (False, True):
        which = "second" if later else "first"
        spools: dict[str, Path | None] = {}
        for subdir, share in SUBDIRS.items():
            path = folder / f"{which}-{subdir}.zst"
            write_index(path, subdir, int(total * share), later=later)
            spools[subdir] = path
        read_params = state.read_params(spools)
        await timed(f"{which} read", READ, read_params, ReadResult)
        state.apply(Path(read_params.run_file))
        render_params = state.render_params()
        rendered = await timed(f"{which} render", RENDER, render_params, RenderResult)
        state.switch(rendered, Path(render_params.run_file))
        sizes = sum(file.size for file in rendered.files) / 1e6
        print(f"{which}: {sizes:.1f} MB in {len(rendered.files)} files, {rendered.slices_new:,} new shards")
    return stages


def main() -> None:
    """Print one line a stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=100_000, help="records of the channel (100,000)")
    total = parser.parse_args().records
    with tempfile.TemporaryDirectory() as folder:
        stages = asyncio.run(measure(Path(folder), total))
    for stage in stages:
        print(stage.line(stages[0]))


if __name__ == "__main__":
    main()
