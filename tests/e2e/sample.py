"""Makes small sources to mirror, in a folder and without a network; made again, they have newer versions."""

import argparse
import sys
import tempfile
from pathlib import Path

from tests.support.python import sample_index
from tests.support.sample import build_sample_channel
from tests.support.sample_r import build_sample_cran

TIDES = 2
"""Versions of the package tides at first."""
INDEXES = (".json", ".zst", ".html", ".gz", ".rds", "")
MARK = ".firth-sample"
"""How often the sources were made stands in here; a folder without it is somebody else's."""


def make(folder: Path) -> int:
    """Make the sources, or let their next versions appear; return how often that was done before."""
    folder.mkdir(parents=True, exist_ok=True)
    mark = folder / MARK
    before = int(mark.read_text()) if mark.exists() else 0
    mark.write_text(f"{before + 1}\n")
    with tempfile.TemporaryDirectory(dir=folder) as made:
        build_sample_channel(Path(made, "conda"), TIDES + before)
        build_sample_cran(Path(made, "cran"))
        sample_index(plain=True).write(Path(made, "python"))
        # Indexes come last, each in one step: a mirror may be reading.
        for file in sorted(Path(made).rglob("*"), key=lambda file: file.suffix in INDEXES):
            if file.is_file():
                target = folder / file.relative_to(made)
                target.parent.mkdir(parents=True, exist_ok=True)
                file.replace(target)
    return before


def main() -> int:
    parser = argparse.ArgumentParser(prog="./run sample", description=__doc__)
    parser.add_argument("folder", nargs="?", default="sample", metavar="FOLDER", help="where they are made (./sample)")
    folder = Path(parser.parse_args().folder).absolute()
    if folder.exists() and any(folder.iterdir()) and not (folder / MARK).exists():
        print(f"{folder} holds something else; name a folder that is empty, or not there yet", file=sys.stderr)
        return 1
    if before := make(folder):
        print(f"the conda source has tides 2026.{TIDES + before} now")
    print(f"conda  {(folder / 'conda').as_uri()}")
    print(f"R      {(folder / 'cran').as_uri()}")
    print(f"Python {(folder / 'python/simple').as_uri()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
