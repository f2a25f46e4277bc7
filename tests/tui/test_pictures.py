"""Pictures of the main places, over a small world whose clock stands still; the README shows them.

A picture that differs from the committed one fails; `FIRTH_PICTURES=write` puts the new ones in their place.
"""

import os
import re
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from textual.widgets import Input

from firth_protocol import types as t
from firth_protocol.types import RunState, StepName
from firth_tui.app import FirthApp
from firth_tui.model import History
from firth_tui.theme import LIGHT, SIXTEEN
from tests.support.fake_daemon import FakeDaemon
from tests.support.fake_world import rfc3339
from tests.support.tui import Terminal, terminal

FOLDER = Path(__file__).parent / "pictures"
SIZE = (120, 40)


def totals(family: t.Family, packages: int, files: int, gigabytes: float) -> t.FamilyTotals:
    return t.FamilyTotals(family=family, artifacts=files, packages=packages, bytes=int(gigabytes * 1e9))


def package(name: str, version: str, versions: int, files: int, stored: int, megabytes: float) -> t.Package:
    return t.Package(
        family=t.Family.CONDA,
        name=name,
        version=version,
        versions=versions,
        files=files,
        stored=stored,
        bytes=int(megabytes * 1e6),
        platforms=["linux-64", "noarch", "osx-arm64"],
        downloads=stored * 7,
    )


PACKAGES = [
    package("arrow-cpp", "22.0.0", 41, 380, 12, 9_400),
    package("attrs", "25.4.0", 30, 44, 44, 2.6),
    package("biopython", "1.86", 22, 310, 0, 1_040),
    package("cmake", "4.2.0", 61, 402, 402, 7_900),
    package("numpy", "2.4.0", 88, 1_204, 311, 8_210),
    package("pandas", "3.0.1", 54, 866, 120, 11_700),
    package("python", "3.14.1", 97, 622, 622, 14_300),
    package("samtools", "1.23", 19, 121, 3, 84),
    package("zstd", "1.6.0", 12, 96, 96, 52),
]


def fill(daemon: FakeDaemon) -> int:
    """Make a small world; return the number of the run that is under way."""
    now = daemon.now
    conda, python, r = t.Family.CONDA, t.Family.PYTHON, t.Family.R
    daemon.add_channel(
        "main",
        description="What everybody here installs from.",
        generation=42,
        families=[totals(conda, 29_871, 702_114, 2_140), totals(python, 42_118, 611_004, 890)],
        published_at=rfc3339(now - 3 * 3600),
    )
    daemon.packages["main"] = PACKAGES
    daemon.add_channel(
        "bio",
        privacy=t.Privacy.AUTHENTICATED,
        generation=7,
        frozen=True,
        frozen_at=rfc3339(now - 2 * 86400),
        families=[totals(conda, 9_204, 88_120, 214)],
        draft=t.Draft(change_sets=2, added=1_204, removed=17),
        published_at=rfc3339(now - 2 * 86400),
    )
    daemon.add_channel("bio/dev", generation=3, families=[totals(conda, 64, 310, 1.2)], published_at=rfc3339(now - 600))
    daemon.add_channel(
        "statistics",
        privacy=t.Privacy.PRIVATE,
        generation=12,
        families=[totals(r, 22_104, 22_104, 31)],
        published_at=rfc3339(now - 86400),
    )
    daemon.add_channel("attic", generation=1)
    neighbours(daemon)
    forge = daemon.add_mirror(
        "main",
        "forge",
        artifacts=702_114,
        stored=61_200,
        source="https://conda.example.org/forge",
        bytes=2_140_000_000_000,
    )
    daemon.add_mirror("main", "python-index", type=t.MirrorType.PYTHON, source="https://python.example.org/simple/")
    daemon.add_mirror("bio", "bioforge", mode=t.MirrorMode.ACTIVE, artifacts=88_120, stored=88_120)
    cran = daemon.add_mirror("statistics", "cran", type=t.MirrorType.R, artifacts=22_104, stored=22_101)
    daemon.add_mirror("bio/dev", "nightly", schedule="0 * * * *")
    for name, _, kind in NEIGHBOURS:
        mirror = daemon.add_mirror(
            name,
            "upstream",
            type=list(t.MirrorType)[kind - 1],
            source=f"https://{'conda' if kind == 1 else 'python' if kind == 2 else 'cran'}.example.org/{name}",
            artifacts=2_310,
            stored=1_204,
        )
        failed = name == "data-eng"
        ended(daemon, mirror.id, RunState.FAILED if failed else RunState.COMPLETED, 120, now - 3 * 3600)
    ended(daemon, cran.id, RunState.INCOMPLETE, 9, now - 86400)
    run = daemon.begin_run(forge.id)
    return watched(daemon, run.id)


NEIGHBOURS = (
    ("astro", "telescopes and their pipelines", 1),
    ("climate", "models and what reads their output", 1),
    ("climate/dev", "", 1),
    ("data-eng", "what the pipelines need", 1),
    ("genomics", "sequencing", 3),
    ("genomics/nightly", "", 1),
    ("gis", "maps", 1),
    ("hpc", "built for the cluster", 1),
    ("imaging", "microscopes", 2),
    ("ml", "training and inference", 2),
    ("ml/nightly", "", 1),
    ("ml/stable", "", 1),
    ("ml-gpu", "built for CUDA", 1),
    ("neuro", "recordings", 1),
    ("physics", "detectors", 1),
    ("proteomics", "mass spectra", 1),
    ("r-course", "the statistics course", 3),
    ("robotics", "arms and cars", 1),
    ("seismo", "earthquakes", 1),
    ("social", "surveys", 3),
    ("teaching", "first-year students", 2),
    ("tools", "linters and the like", 2),
    ("vision", "cameras", 1),
    ("web", "what the portal runs on", 2),
    ("weather", "forecasts", 1),
)
"""Channels of one family each: the first, second or third."""


def neighbours(daemon: FakeDaemon) -> None:
    """Add what makes an installation look lived in."""
    for number, (name, about, kind) in enumerate(NEIGHBOURS):
        family = list(t.Family)[kind - 1]
        packages = 64 + (number * 7919) % 21_000
        daemon.add_channel(
            name,
            description=about,
            generation=2 + number % 40,
            families=[totals(family, packages, packages * 9, packages / 90)],
            published_at=rfc3339(daemon.now - 1800 * (1 + number * number)),
            privacy=t.Privacy.AUTHENTICATED if number % 5 == 4 else t.Privacy.PUBLIC,
        )


def ended(daemon: FakeDaemon, mirror: int, state: RunState, added: int, at: float) -> None:
    run = daemon.begin_run(mirror)
    held = daemon.runs[run.id]
    partly = state is RunState.INCOMPLETE
    daemon.runs[run.id] = msgspec.structs.replace(held, counts=t.RunCounts(added=added, failed=3 if partly else 0))
    moment, daemon.now = daemon.now, at
    refused = t.RunError(kind="upstream", message="conda.example.org refuses connections")
    daemon.finish(run.id, state, refused if state is RunState.FAILED else None)
    daemon.now = moment


def watched(daemon: FakeDaemon, run: int) -> int:
    """Bring a run to the middle of its downloads."""
    now = daemon.now
    story = (
        (192.0, StepName.CONNECT, "source answers 200, 812 GB may be used"),
        (191.8, StepName.FETCH_INDEX, "3 indexes, 62.9 MB"),
        (187.7, StepName.FILTER, "702,114 read, 700,091 kept"),
        (181.0, StepName.RESOLVE, "nothing asks for dependencies"),
        (180.9, StepName.PLAN, "1,204 to add, 17 to remove, 2.1 GB to download"),
        (180.2, StepName.DOWNLOAD, "numpy-2.4.0-py314h2c1d8a0_0.conda"),
    )
    daemon.runs[run] = msgspec.structs.replace(daemon.runs[run], started_at=rfc3339(now - 192))
    for ago, step, text in story:
        daemon.now = now - ago
        daemon.step(run, step, description=text)
        daemon.log(run, text, step)
    daemon.now = now
    held = daemon.runs[run]
    counts = t.RunCounts(added=1_204, removed=17, unchanged=698_870, active=311)
    daemon.runs[run] = msgspec.structs.replace(
        held, bytes_done=540_000_000, bytes_total=2_100_000_000, eta_s=38.0, counts=counts
    )
    daemon.progress(run, done=311, total=1_204, rate=41e6, description="numpy-2.4.0-py314h2c1d8a0_0.conda")
    return run


@pytest.fixture
async def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FakeDaemon]:
    monkeypatch.chdir(tmp_path)  # a short name of the socket, the same everywhere
    daemon = FakeDaemon(Path("firth.sock"))
    fill(daemon)
    async with daemon:
        yield daemon


class Still(History):
    """Throughput that stays as it is, however long a test takes."""

    def __init__(self, values: list[float]) -> None:
        super().__init__()
        self._values.extend(values)

    def add(self, value: float) -> None:
        return None


PLACES: dict[str, tuple[list[str], tuple[str, ...]]] = {
    "channels": ([], ("statistics", "❄ frozen")),
    "packages": (["slash", *"main", "enter", "enter"], ("zstd",)),
    "mirrors": (["2"], ("running 6/8", "python-index")),
    "run": (["3", "enter"], ("311 of 1,204 files", "following", "62.9 MB")),
    "mirror-form": (["2", "j", "j", "e"], ("next: ", "Any name", "index 62.9 MB", "the source has", "no policy yet")),
    "health": (["4"], ("812 GB free", "data-eng: upstream")),
    "delete": (["2", "j", "j", "d"], ("Type the name",)),
}


async def picture(term: Terminal, keys: list[str], texts: tuple[str, ...]) -> str:
    await term.sees("● connected", "attic")
    await term.until(lambda: term.app.session.methods)
    term.app.session.rates = Still([abs(number % 17 - 8) * 5e6 for number in range(40)])
    for key in keys:
        await term.press(key)
        await term.pilot.pause(0.05)
    await term.sees(*texts)
    for field in term.app.screen.query(Input):
        field.cursor_blink = False
    await term.pilot.pause()
    return without_fonts(term.app.export_screenshot(title="firth"))


def without_fonts(svg: str) -> str:
    """Return a picture that asks nobody for fonts: any monospaced one will do."""
    svg = re.sub(r"\s*@font-face \{.*?\}", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->\s*", "", svg, flags=re.DOTALL)
    svg = svg.replace("<svg ", '<svg xml:space="preserve" ', 1)
    return re.sub(r"font-family: [^;]*;", "font-family: Menlo, Consolas, 'DejaVu Sans Mono', monospace;", svg)


def compare(name: str, svg: str) -> None:
    file = FOLDER / f"{name}.svg"
    if os.environ.get("FIRTH_PICTURES") == "write":
        file.write_text(svg)
    assert file.exists(), "run once with FIRTH_PICTURES=write"
    assert svg == file.read_text(), f"{file.name} looks different now; look at it with FIRTH_PICTURES=write"


@pytest.mark.parametrize("name", list(PLACES))
async def test_pictures(daemon: FakeDaemon, name: str) -> None:
    async with terminal(Path("firth.sock"), SIZE, now=lambda: daemon.now) as term:
        compare(name, await picture(term, *PLACES[name]))


@pytest.mark.parametrize("theme", [LIGHT, SIXTEEN])
async def test_other_colours(daemon: FakeDaemon, theme: str) -> None:
    async with terminal(Path("firth.sock"), SIZE, now=lambda: daemon.now) as term:
        app: FirthApp = term.app
        app.theme = theme
        compare(f"mirrors-{theme}", await picture(term, *PLACES["mirrors"]))
