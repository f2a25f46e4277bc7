"""Measures reading, rendering and whole runs beside another checkout: `python -m tests.bench.all --against PATH`.

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
Figures = dict[str, list[float]]


def figures_of(bench: str, said: str) -> dict[str, float]:
    """Return name -> figure of what a benchmark has printed."""
    found: dict[str, float] = {}
    if bench == "conda_index":
        for name, wall, cpu, peak in STAGE.findall(said):
            found |= {f"{name}, s": float(wall), f"{name}, CPU s": float(cpu), f"{name}, MB": float(peak)}
        return found
    for name, wall, cpu in RUN.findall(said):
        found |= {f"{name}, s": float(wall), f"{name}, CPU s": float(cpu)}
    peaks = [tuple(map(float, figures)) for figures in MEMORY.findall(said)]
    for name, each in zip(("daemon, MB", "workers, MB", "stall p99, ms"), zip(*peaks, strict=True), strict=False):
        found[name] = max(each)
    return found


def run(checkout: Path, bench: str, records: int) -> dict[str, float]:
    """Run one benchmark in a checkout; raises CalledProcessError when it fails.

    Whole runs are measured by the program that lies here, with the modules of the checkout: it uses what each has.
    """
    file = (HERE if bench == "whole_channel" else checkout) / f"tests/bench/{bench}.py"
    command = [str(checkout / ".venv/bin/python"), str(file), "--records", str(records)]
    if bench == "whole_channel":
        command.append("--runs-only")
    environ = os.environ | {"PYTHONPATH": str(checkout)}
    said = subprocess.run(command, cwd=checkout, env=environ, check=True, stdout=subprocess.PIPE, text=True).stdout
    print(f"{checkout}:\n{said}", file=sys.stderr, flush=True)
    return figures_of(bench, said)


def table(here: Figures, there: Figures) -> str:
    """Return one line a figure: this checkout's median, the other's, and the ratio."""
    lines = [f"{'':<32}{'here':>10}{'there':>10}{'ratio':>8}"]
    for name, values in here.items():
        one = statistics.median(values)
        other = statistics.median(there[name]) if there.get(name) else None
        told = f"{'':>10}{'':>8}" if other is None else f"{other:>10.2f}{one / other if other else 0:>8.2f}"
        lines.append(f"{name:<32}{one:>10.2f}{told}")
    return "\n".join(lines)


def main() -> None:
    """Print the table, after each round what is known so far."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--against", type=Path, help="another checkout, in which `./run env test` has made .venv")
    parser.add_argument("--records", type=int, default=100_000, help="records of the channel (100,000)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured (3)")
    parser.add_argument("--only", choices=["conda_index", "whole_channel"], help="one of the two benchmarks")
    options = parser.parse_args()
    here: Figures = defaultdict(list)
    there: Figures = defaultdict(list)
    benches = [options.only] if options.only else ["conda_index", "whole_channel"]
    for number in range(options.rounds):
        for bench in benches:
            for checkout, figures in ((options.against, there), (HERE, here)):
                if checkout is not None:
                    for name, figure in run(checkout.resolve(), bench, options.records).items():
                        figures[name].append(figure)
        print(f"{options.records:,} records, median of {number + 1}\n{table(here, there)}", flush=True)


if __name__ == "__main__":
    main()
