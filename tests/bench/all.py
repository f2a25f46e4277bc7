"""Measures reading, rendering and whole runs beside another checkout: `python -m tests.bench.all --against PATH`.

Whole runs are those of each family, with a made-up source of bounded size; a checkout that does not know a family, or
cannot run it, has no figures of it. The floor of a first run is what `tests.bench.sources.floor` measures.
The benchmarks of each checkout run in turn, with the Python of its own .venv; every figure is the median of `--rounds`.
Ratios are this checkout's to the other's: below 1 this one is better. On a machine that does other work too, compare
CPU seconds.
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

HERE = Path(__file__).resolve().parents[2]
STAGE = re.compile(r"(?m)^((?:first|second) (?:read|render)) +([\d.]+) s +([\d.]+) s CPU.*?([\d.]+) MB")
RUN = re.compile(
    r"(?m)^(everything new|nothing changed|one of a thousand changed): completed, ([\d.]+) s, ([\d.]+) s CPU"
)
MEMORY = re.compile(r"daemon (\d+) MB, workers so far at most (\d+) MB, stall p99 ([\d.]+) ms")
FLOOR = re.compile(r"(?m)^floor: ([\d.]+) s CPU")
FAMILIES = ["conda", "conda-shards", "python", "r"]
Figures = dict[str, list[float]]


def figures_of(bench: str, said: str, family: str | None) -> dict[str, float]:
    """Return name -> figure of what a benchmark has printed."""
    if family is not None:
        return {f"{family}: {name}": figure for name, figure in figures_of(bench, said, None).items()}
    found: dict[str, float] = {}
    if bench == "conda_index":
        for name, wall, cpu, peak in STAGE.findall(said):
            found |= {f"{name}, s": float(wall), f"{name}, CPU s": float(cpu), f"{name}, MB": float(peak)}
        return found
    for cpu in FLOOR.findall(said):
        found["floor of the first, CPU s"] = float(cpu)
    for name, wall, cpu in RUN.findall(said):
        found |= {f"{name}, s": float(wall), f"{name}, CPU s": float(cpu)}
    peaks = [tuple(map(float, figures)) for figures in MEMORY.findall(said)]
    for name, each in zip(("daemon, MB", "workers, MB", "stall p99, ms"), zip(*peaks, strict=True), strict=False):
        found[name] = max(each)
    return found


def run(checkout: Path, bench: str, family: str | None, records: int) -> dict[str, float]:
    """Run one benchmark in a checkout; nothing comes of one that fails there.

    Whole runs are measured by the program that lies here, with the modules of the checkout: it uses what each has.
    """
    file = (HERE if bench == "whole_channel" else checkout) / f"tests/bench/{bench}.py"
    command = [str(checkout / ".venv/bin/python"), str(file), "--records", str(records)]
    if bench == "whole_channel":
        command += ["--runs-only", "--family", family or "conda"]
    environ = os.environ | {"PYTHONPATH": str(checkout)}
    done = subprocess.run(command, cwd=checkout, env=environ, check=False, stdout=subprocess.PIPE, text=True)
    print(f"{checkout}:\n{done.stdout}", file=sys.stderr, flush=True)
    return figures_of(bench, done.stdout, family) if done.returncode == 0 else {}


def table(here: Figures, there: Figures) -> str:
    """Return one line a figure: this checkout's median, the other's, and the ratio."""
    lines = [f"{'':<44}{'here':>10}{'there':>10}{'ratio':>8}"]
    for name, values in here.items():
        one = statistics.median(values)
        other = statistics.median(there[name]) if there.get(name) else None
        told = f"{'':>10}{'':>8}" if other is None else f"{other:>10.2f}{one / other if other else 0:>8.2f}"
        lines.append(f"{name:<44}{one:>10.2f}{told}")
    return "\n".join(lines)


def main() -> None:
    """Print the table, after each round what is known so far."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--against", type=Path, help="another checkout, in which `./run env test` has made .venv")
    parser.add_argument("--records", type=int, default=100_000, help="records of the channel (100,000)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured (3)")
    parser.add_argument("--only", choices=["conda_index", "whole_channel"], help="one of the two benchmarks")
    parser.add_argument("--family", choices=FAMILIES, action="append", help="whose whole runs (all)")
    options = parser.parse_args()
    here: Figures = defaultdict(list)
    there: Figures = defaultdict(list)
    benches: list[tuple[str, str | None]] = [("conda_index", None)]
    benches += [("whole_channel", family) for family in options.family or FAMILIES]
    for number in range(options.rounds):
        for bench, family in benches:
            if options.only not in (None, bench):
                continue
            for checkout, figures in ((options.against, there), (HERE, here)):
                if checkout is not None:
                    for name, figure in run(checkout.resolve(), bench, family, options.records).items():
                        figures[name].append(figure)
        print(f"{options.records:,} records, median of {number + 1}\n{table(here, there)}", flush=True)


if __name__ == "__main__":
    main()
