"""Measures publications of a channel with two mirrors: `python -m tests.bench.two_mirrors [--records N]`.

Both mirrors list N made-up records, half of whose names are the other's too. Printed is what the render of a
publication takes in its worker that touches 100 records, five times, beside the same with one mirror.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
from pathlib import Path

import zstandard

from firthd.clock import SystemClock
from firthd.index.messages import RenderResult
from firthd.workers import Workers
from tests.bench.conda_index import RENDER, records
from tests.support.conda_state import CondaState

TOUCHED = 100


def write_index(path: Path, count: int, *, first: int, edition: int) -> None:
    """Write records from number `first` on, of which each edition changes some of its own."""
    packages = {}
    for number, (filename, record) in enumerate(records("noarch", first + count)):
        if number < first:
            continue
        if edition and number % (count // TOUCHED) == edition:
            record["depends"].append(f"hotfix {edition}")
        packages[filename] = record
    sections: dict[str, dict[str, object]] = {"packages": {}, "packages.conda": {}}
    for filename, record in packages.items():
        sections["packages" if filename.endswith(".bz2") else "packages.conda"][filename] = record
    body = json.dumps({"info": {"subdir": "noarch"}, **sections}, separators=(",", ":")).encode()
    path.write_bytes(zstandard.ZstdCompressor(level=1, threads=2).compress(body))


async def bench(folder: Path, count: int, mirrors: int, rounds: int) -> None:
    state, clock = CondaState(folder, mirrors=mirrors), SystemClock()
    workers = Workers(1, clock)
    times = []
    for edition in range(rounds + 1):
        for mirror in range(1, mirrors + 1) if not edition else (1,):
            path = folder / f"index-{edition}-{mirror}.json.zst"
            await asyncio.to_thread(write_index, path, count, first=(mirror - 1) * count // 2, edition=edition)
            await asyncio.to_thread(state.take, {"noarch": path}, mirror=mirror)
        params = state.render_params()
        began = clock.monotonic()
        result = await workers.run(RENDER, params, RenderResult)
        times.append(clock.monotonic() - began)
        await asyncio.to_thread(state.switch, result, Path(params.run_file))
        print(f"  {result.changed_packages:,} packages changed, {times[-1]:.2f} s", flush=True)
    print(f"{mirrors} mirrors of {count:,} records: the first publication {times[0]:.2f} s, then", end=" ")
    print(f"{statistics.median(times[1:]):.2f} s (median of {rounds})", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--mirrors", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()
    for mirrors in options.mirrors:
        with tempfile.TemporaryDirectory() as folder:
            asyncio.run(bench(Path(folder), options.records, mirrors, options.rounds))


if __name__ == "__main__":
    main()
