"""Measures policies over a large channel through a real daemon: `python -m tests.bench.policy_pass [--records N]`.

Each line is one edit of the mirror's policy, from the call until what it made of the channel is published, and what the
worker that judged took of memory: a policy that names a few packages, five rules with the dependencies of twenty
packages, and one that leaves nearly all as it is. `--source FOLDER` takes a channel on disk instead of a made-up one;
`--dense` makes one up in which all that is needed is there, so that dependencies reach nearly all of it; else most of
what is needed is missing. `--edits N` stops after the first ones.
"""

import argparse
import asyncio
import re
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from firth_protocol.client import Client
from firth_protocol.types import Run
from firthd.clock import SystemClock
from firthd.families.base import Spool
from firthd.families.conda.formats import FORMATS
from firthd.families.conda.policing import POLICING
from tests.bench.conda_index import SUBDIRS
from tests.bench.cpu import cpu_seconds
from tests.bench.sources import conda
from tests.bench.whole_channel import seconds
from tests.support.daemon import DaemonProcess

KEPT = 5000
ROOTS = 20
STRICT = {
    "platforms": {"in": ["linux-64"]},
    "licenses": {"not_in": ["GPL3", "AGPL"], "unknown": "allow"},
    "dates": {"from": "2015-01-01"},
    "legacy": False,
}

Rules = Mapping[str, Any]


def names_in(folder: Path) -> Counter[str]:
    """Return how many records of each name a channel on disk has."""
    found: Counter[str] = Counter()
    for subdir in SUBDIRS:
        file = folder / subdir / "repodata.json.zst"
        for entry in FORMATS.read(Spool(part=subdir, file=str(file), encoding="zst"), 1 << 30):
            found[POLICING.brief(entry).name] += 1
    return found


def few(names: Counter[str], least: int, skipped: int) -> list[str]:
    """Return names with at least so many records together."""
    chosen, total = [], 0
    for name in sorted(names)[skipped:]:
        if total >= least:
            break
        chosen.append(name)
        total += names[name]
    return chosen


def edits(names: Counter[str]) -> list[tuple[str, Rules]]:
    """Return what is measured, in order; an edit begins where the one before it left the channel."""
    often = [name for name, _ in names.most_common(ROOTS)]
    closure = {"allow": often, "include_dependencies": True}
    return [
        ("a few packages", {"packages": {"allow": few(names, KEPT, 0)}}),
        ("others", {"packages": {"allow": few(names, KEPT, 2)}}),
        ("five rules", {**STRICT, "packages": closure}),
        ("one package less", {**STRICT, "packages": {**closure, "allow": often[1:]}}),
        ("all licences", {"licenses": {"not_in": ["AGPL"], "unknown": "allow"}}),
        ("all but a few", {"licenses": {"not_in": ["AGPL"], "unknown": "allow"}, "packages": {"exclude": often[:2]}}),
    ]


async def ended(client: Client, run: Run) -> Run:
    while not run.state.ended:
        run = await client.call("run.wait", run=run.id, timeout=60)
    return run


async def edit(process: DaemonProcess, client: Client, title: str, rules: Rules) -> None:
    """Change the policy, print what came of it."""
    clock = SystemClock()
    policy = await client.call("policy.get", policy="p")
    began, used = clock.monotonic(), await asyncio.to_thread(cpu_seconds, process.pid)
    reply = await client.call("policy.update", policy="p", revision=policy.revision, rules=rules)
    (run,) = [await ended(client, run) for run in reply.runs]
    took = clock.monotonic() - began
    cpu = await asyncio.to_thread(cpu_seconds, process.pid) - used
    peaks = re.findall(r"read_task.*peak memory ([\d.]+ [MG]B)", process.log.read_text("utf-8"))
    shown = sum(family.artifacts for family in (await client.call("channel.get", channel="big")).families)
    print(f"{title:<18}{run.state:<11}{took:>7.2f} s {cpu:>7.2f} s CPU {shown:>8,} shown  {peaks[-1]}", flush=True)
    for step in run.steps:
        if step.started_at and step.finished_at:
            print(f"    {step.name:<12}{seconds(step.started_at, step.finished_at):>8.2f} s  {step.description}")


async def bench(folder: Path, records: int, source: Path | None, *, dense: bool, most: int | None) -> None:
    """Start the daemon, edit, stop it."""
    if source is None:
        source = folder / "source"
        await asyncio.to_thread(conda, source, records, False, dense=dense)
    steps = edits(await asyncio.to_thread(names_in, source))[:most]
    async with DaemonProcess(folder) as process:
        client = await process.start()
        try:
            await client.call("policy.create", name="p", families=["conda"], rules={"packages": {"allow": []}})
            await client.call("channel.create", name="big", policy="p")
            await client.call("mirror.create", channel="big", name="m", type="conda", source=source.as_uri())
            await ended(client, (await client.call("mirror.run", mirror="big:m")).run)
            for title, rules in steps:
                await edit(process, client, title, rules)
        finally:
            await client.__aexit__(None, None, None)
        await process.terminate()


def main() -> None:
    """Print one line an edit, and the steps of its run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--records", type=int, default=100_000, help="records of the made-up channel (100,000)")
    parser.add_argument("--source", type=Path, help="a folder with a conda channel")
    parser.add_argument("--dense", action="store_true", help="what the made-up channel needs is there")
    parser.add_argument("--edits", type=int, help="so many of the edits (all)")
    options = parser.parse_args()
    source = options.source and options.source.resolve()
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(bench(Path(folder), options.records, source, dense=options.dense, most=options.edits))


if __name__ == "__main__":
    main()
