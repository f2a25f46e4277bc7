"""A wheel that is built from the tree, installed by pipx and uv as a user does it: programs, units, manual pages."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from firth_protocol.methods import METHODS
from tests.support.documents import ROOT

pytestmark = [pytest.mark.deep, pytest.mark.e2e, pytest.mark.timeout(300)]

SHARED = [
    *(f"share/firth/systemd/{file.name}" for file in sorted((ROOT / "systemd").iterdir()) if file.suffix != ".sh"),
    "share/man/man1/firth.1",
    "share/man/man1/firthctl.1",
    "share/man/man8/firthd.8",
]


def run(*command: object, **environ: object) -> subprocess.CompletedProcess[str]:
    words = [str(word) for word in command]
    more = {name: str(value) for name, value in environ.items()}
    return subprocess.run(words, env=os.environ | more, capture_output=True, text=True, timeout=280, check=False)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    built = run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT)
    assert built.returncode == 0, built
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with pipx and uv: those of this machine, else fetched."""
    folder = tmp_path_factory.mktemp("installers")
    if all(shutil.which(name) for name in ("pipx", "uv")):
        return Path(shutil.which("pipx") or "").parent
    run(sys.executable, "-m", "venv", folder)
    got = run(folder / "bin/python", "-m", "pip", "install", "--quiet", "pipx", "uv")
    if got.returncode:
        pytest.skip(f"NOT TESTED, pipx and uv: they could not be fetched: {got.stderr[-300:]}")
    return folder / "bin"


def test_the_wheel_holds_units_and_manual_pages(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name.partition(".data/data/")[2] for name in archive.namelist() if ".data/data/" in name}
        assert names == set(SHARED)
        (page,) = [name for name in archive.namelist() if name.endswith("man1/firthctl.1")]
        text = archive.read(page).decode()
    assert all(f".SS {name}\n" in text for name in METHODS)


def programs_work(bin_folder: Path, home: Path) -> None:
    for words in (["firthd", "--version"], ["firthctl", "--version"], ["firth", "--help"]):
        done = run(bin_folder / words[0], *words[1:])
        assert done.returncode == 0, done
    missing = [name for name in SHARED if not (home / name).is_file()]
    assert missing == []


def test_pipx_installs_it(wheel: Path, installers: Path, tmp_path: Path) -> None:
    places = {"PIPX_HOME": tmp_path, "PIPX_BIN_DIR": tmp_path / "bin", "PIPX_MAN_DIR": tmp_path / "man"}
    done = run(installers / "pipx", "install", "--python", sys.executable, wheel, **places)
    assert done.returncode == 0, done
    programs_work(tmp_path / "bin", tmp_path / "venvs/firth")
    assert (tmp_path / "man/man1/firthctl.1").is_file()
    assert (tmp_path / "man/man8/firthd.8").is_file()


def test_uv_installs_it(wheel: Path, installers: Path, tmp_path: Path) -> None:
    places = {"UV_TOOL_DIR": tmp_path / "tools", "UV_TOOL_BIN_DIR": tmp_path / "bin"}
    done = run(installers / "uv", "tool", "install", "--python", sys.executable, wheel, **places)
    assert done.returncode == 0, done
    programs_work(tmp_path / "bin", tmp_path / "tools/firth")
