"""Measures an active mirror of many small and some large files: `python -m tests.bench.active [--against PATH]`.

nginx sends 2,000 conda packages of 50 KB and 50 of 20 MB. Beside each run stands the floor of the same round: `curl
--parallel` of the same files, then sha256sum with as many processes as there are cores, then sync; and, with
`--against`, the run of another checkout. Then one file of a hundred changes and both run again. Figures are medians of
wall seconds, with the CPU seconds of the daemon and its workers beside. Needs nginx, curl and 4 GB of disk.
"""

import argparse
import asyncio
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import suppress
from pathlib import Path

import tests.bench
from tests.support.daemon import DaemonProcess

# What is measured may be another checkout, which has no such helpers.
tests.bench.__path__.append(str(Path(__file__).parent))
from tests.bench.cpu import cpu_seconds  # noqa: E402

SMALL, SMALL_BYTES = 2_000, 50_000
LARGE, LARGE_BYTES = 50, 20_000_000
AT_ONCE = 32
SUBDIRS = {"linux-64": (SMALL, SMALL_BYTES), "noarch": (LARGE, LARGE_BYTES)}


def write_source(folder: Path, *, later: bool) -> list[tuple[Path, str]]:
    """Write a channel, or make one of a hundred of its packages anew; return each file's path and sha256. Blocks."""
    listed = []
    for subdir, (count, size) in SUBDIRS.items():
        (folder / subdir).mkdir(parents=True, exist_ok=True)
        records = {}
        for number in range(count):
            build = "1" if later and number % 100 == 0 else "0"
            name = f"package-{size}-{number:04}"
            filename = f"{name}-1.0-{build}.conda"
            file = folder / subdir / filename
            if not file.exists():
                file.write_bytes(os.urandom(size))
            sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
            records[filename] = {
                "build": build,
                "build_number": int(build),
                "depends": [],
                "name": name,
                "sha256": sha256,
                "size": size,
                "subdir": subdir,
                "version": "1.0",
            }
            listed.append((file, sha256))
        index = {"info": {"subdir": subdir}, "packages": {}, "packages.conda": records, "repodata_version": 1}
        (folder / subdir / "repodata.json").write_text(json.dumps(index))
    return listed


def floor(listed: list[tuple[Path, str]], source: Path, url: str, folder: Path) -> float:
    """Bring every file by curl, check it, bring it to the disk; return the seconds. Blocks."""
    folder.mkdir()
    places = [(f"{url}/{file.relative_to(source)}", folder / file.name, sha256) for file, sha256 in listed]
    (folder / "list").write_text("".join(f'url = "{at}"\noutput = "{file}"\n' for at, file, _ in places))
    cores = os.cpu_count() or 1
    for core in range(cores):
        (folder / f"sums{core}").write_text("".join(f"{sha256}  {file}\n" for _, file, sha256 in places[core::cores]))
    began = time.perf_counter()
    parallel = ["--parallel", "--parallel-max", str(AT_ONCE), "--config", str(folder / "list")]
    subprocess.run(["curl", "-s", "-f", *parallel], check=True, stderr=subprocess.DEVNULL)
    checks = [subprocess.Popen(["sha256sum", "--quiet", "-c", str(folder / f"sums{core}")]) for core in range(cores)]
    assert not any(check.wait() for check in checks)
    subprocess.run(["sync", "-f", str(folder)], check=True)
    return time.perf_counter() - began


async def run(folder: Path, url: str) -> None:
    """Mirror everything, wait for a line on standard input, run again; print seconds and CPU seconds of each."""
    async with DaemonProcess(folder) as process:
        client = await process.start()
        await client.call("channel.create", name="main")
        fields = {"type": "conda", "mode": "active", "source": url, "check": False}
        await client.call("mirror.create", channel="main", name="source", **fields)
        for number in range(2):
            before, began = cpu_seconds(process.pid), time.perf_counter()
            ended = (await client.call("mirror.run", mirror="main:source")).run
            ended = await client.call("run.wait", run=ended.id, timeout=600)
            took = time.perf_counter() - began
            assert ended.state == "completed", ended
            print(json.dumps([took, cpu_seconds(process.pid) - before]), flush=True)
            if not number:
                await asyncio.to_thread(sys.stdin.readline)
        await client.__aexit__(None, None, None)
        await process.terminate()


def run_of(checkout: Path, folder: Path, url: str, source: Path) -> list[list[float]]:
    """Run a checkout's daemon, and once more after some of the source has changed; return what each printed. Blocks."""
    folder.mkdir()
    command = [str(checkout / ".venv/bin/python"), str(Path(__file__).resolve()), "--run", str(folder), url]
    with subprocess.Popen(
        command,
        cwd=checkout,
        env=os.environ | {"PYTHONPATH": str(checkout)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        first = json.loads(process.stdout.readline())
        write_source(source, later=True)
        subprocess.run(["sync"], check=True)
        process.stdin.write("\n")
        process.stdin.flush()
        return [first, json.loads(process.stdout.readline())]


def measure(folder: Path, against: Path | None, rounds: int) -> None:
    """Print a line for each of what is compared, after each round what is known so far."""
    from tests.bench.others import nginx  # what runs in the other checkout does without

    here = Path(__file__).resolve().parents[2]
    source = folder / "static"
    first = write_source(source, later=False)
    indexes = {subdir: (source / subdir / "repodata.json").read_bytes() for subdir in SUBDIRS}
    port = 18_000 + os.getpid() % 10_000
    command = nginx(folder, port, {})
    assert command is not None, "nginx is not installed"
    server = subprocess.Popen(command)
    url = f"http://127.0.0.1:{port}"
    figures: dict[str, list[list[float]]] = defaultdict(list)
    try:
        for number in range(rounds):
            for who, checkout in (("here", here), ("there", against)):
                for subdir, content in indexes.items():
                    (source / subdir / "repodata.json").write_bytes(content)
                if checkout is not None:
                    place = folder / f"{who}-{number}"
                    for name, told in zip(("first", "later"), run_of(checkout, place, url, source), strict=True):
                        figures[f"{who}, {name}"].append(told)
                    subprocess.run(["rm", "-rf", str(place)], check=True)
            place = folder / f"floor-{number}"
            figures["floor"].append([floor(first, source, url, place), 0])
            subprocess.run(["rm", "-rf", str(place)], check=True)
            show(figures)
    finally:
        server.terminate()
        with suppress(subprocess.TimeoutExpired):
            server.wait(10)


def show(figures: dict[str, list[list[float]]]) -> None:
    """Print medians, and the ratios to the floor and to the other checkout."""
    wall = {name: statistics.median(one for one, _ in told) for name, told in figures.items()}
    for name, told in figures.items():
        cpu = statistics.median(one for _, one in told)
        line = f"{name:<14}{wall[name]:>7.2f} s {cpu:>7.2f} s CPU   of the floor {wall[name] / wall['floor']:>5.2f}"
        other = wall.get(name.replace("here", "there"))
        print(line + (f"   of the other {wall[name] / other:>5.2f}" if other and "here" in name else ""))
    print(flush=True)


def main() -> None:
    """Measure, or be the one that runs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--against", type=Path, help="another checkout, in which `./run env test` has made .venv")
    parser.add_argument("--rounds", type=int, default=3, help="figures are medians of so many (3)")
    parser.add_argument("--run", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.run:
        asyncio.run(run(Path(given.run[0]), given.run[1]))
        return
    with tempfile.TemporaryDirectory(prefix="firth-bench-") as folder:
        measure(Path(folder), given.against and given.against.resolve(), given.rounds)


if __name__ == "__main__":
    main()
