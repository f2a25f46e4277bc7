"""Measures a whole mirror run of a large channel through a real daemon: `python -m tests.bench.whole_channel`.

`--family` says of which kind the made-up source is; conda-shards has shards too, and is read by them an hour later.
Three runs: everything new, nothing changed, one record of a thousand changed; then back by a generation, and forth.
`--source FOLDER` takes a channel on disk instead of a made-up one, and then stops after the second run. Memory is the
daemon's and its workers' peak; the stall of the event loop is the one that the daemon's own 10 ms sampler reports.
"""

import argparse
import asyncio
import re
import tempfile
from datetime import datetime
from pathlib import Path

import tests.bench
from firth_protocol.client import Client
from firth_protocol.types import Run
from tests.support.daemon import DaemonProcess

# What is measured may be another checkout, which has no such sources.
tests.bench.__path__.append(str(Path(__file__).parent))
from tests.bench.cpu import cpu_seconds  # noqa: E402
from tests.bench.sources import MADE, floor, type_of  # noqa: E402


async def measure(process: DaemonProcess, client: Client, title: str) -> float:
    """Run the mirror, print its steps; return the seconds it took."""
    before = await asyncio.to_thread(cpu_seconds, process.pid)
    run: Run = (await client.call("mirror.run", mirror="big:source")).run
    peak = 0
    while not run.state.ended:
        run = await client.call("run.wait", run=run.id, timeout=0.5)
        peak = max(peak, (await client.call("daemon.status")).rss_bytes)
    status = await client.call("daemon.status")
    told = re.findall(r"peak memory ([\d.]+) (MB|GB)", process.log.read_text("utf-8"))
    workers = [float(size) * (1000 if unit == "GB" else 1) for size, unit in told]
    total = seconds(run.started_at, run.finished_at)
    used = await asyncio.to_thread(cpu_seconds, process.pid) - before
    print(f"{title}: {run.state}, {total:.2f} s, {used:.2f} s CPU" + (f", {run.error.message}" if run.error else ""))
    for step in run.steps:
        if step.started_at and step.finished_at:
            print(f"  {step.name:<12}{seconds(step.started_at, step.finished_at):>8.2f} s  {step.description}")
    lag = status.loop_lag
    print(
        f"  daemon {peak / 1e6:.0f} MB, workers so far at most {max(workers, default=0):.0f} MB,"
        f" stall p99 {lag.p99_ms:.1f} ms, max {lag.max_ms:.1f} ms"
    )
    return total


async def back_and_forth(client: Client) -> None:
    """Roll the channel back by one generation and return; print how long clients wait for each."""
    for method, params in (("channel.rollback", {"generation": 2}), ("channel.unfreeze", {})):
        run: Run = (await client.call(method, channel="big", **params)).run
        while not run.state.ended:
            run = await client.call("run.wait", run=run.id, timeout=60)
        step = next(step for step in run.steps if step.name == "publish")
        print(f"{method}: {run.state}, {seconds(step.started_at, step.finished_at):.2f} s, {step.description}")


def seconds(start: str | None, end: str | None) -> float:
    return (datetime.fromisoformat(end or "") - datetime.fromisoformat(start or "")).total_seconds()


async def bench(folder: Path, family: str, records: int, source: str | None, *, runs_only: bool) -> None:
    """Start the daemon, run everything, stop it."""
    made, how = folder / "source", MADE[family]
    records = records if how.most is None else min(records, how.most)
    if source is None:
        await asyncio.to_thread(how.write, made, records, False)
        print(f"floor: {await asyncio.to_thread(floor, made):.2f} s CPU")
    filters = how.filters(records)
    async with DaemonProcess(folder) as process:
        client = await process.start()
        try:
            await client.call("channel.create", name="big")
            fields = {"type": type_of(family), "source": source or made.as_uri() + how.path}
            await client.call(
                "mirror.create", channel="big", name="source", **fields, **({"filters": filters} if filters else {})
            )
            first = await measure(process, client, "everything new")
            same = await measure(process, client, "nothing changed")
            print(f"  {same / first:.4f} of the first run")
            if source is None:
                await asyncio.to_thread(how.write, made, records, True)
                later = await measure(process, client, "one of a thousand changed")
                print(f"  {later / first:.2f} of the first run")
                if not runs_only:
                    await back_and_forth(client)
        finally:
            await client.__aexit__(None, None, None)
        await process.terminate()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--family", choices=sorted(MADE), default="conda", help="of the made-up source (conda)")
    parser.add_argument("--records", type=int, default=100_000, help="size of the made-up channel")
    parser.add_argument("--source", help="address of a conda channel, such as file:///srv/channel")
    parser.add_argument("--runs-only", action="store_true", help="leave out the way back by a generation")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(
            bench(Path(folder), arguments.family, arguments.records, arguments.source, runs_only=arguments.runs_only)
        )


if __name__ == "__main__":
    main()
