"""The script `run`: what it says where something is missing, and that it leaves a complete .venv alone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
INTERPRETERS = ("python3", "python3.14", "python3.13", "python3.12", "python3.11")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of what the script needs, in a folder whose name holds a space."""
    tree = tmp_path / "a tree"
    (tree / "bin").mkdir(parents=True)
    for name in ("run", "pyproject.toml"):
        (tree / name).write_bytes((ROOT / name).read_bytes())
    stub(tree, "uv", "exit 1")
    stub(tree, "id", "echo 1000")
    stub(tree, "apt-get", "echo apt-get was called; exit 1")
    return tree


def stub(tree: Path, name: str, body: str) -> None:
    file = tree / "bin" / name
    file.write_text(f"#!/bin/sh\n{body}\n")
    file.chmod(0o755)


def run(tree: Path, *args: str) -> subprocess.CompletedProcess[str]:
    environ = {"PATH": f"{tree}/bin:/usr/bin:/bin", "HOME": str(tree)}
    return subprocess.run(
        ["/bin/sh", str(tree / "run"), *args], capture_output=True, text=True, env=environ, timeout=9, check=False
    )


def test_a_python_that_is_too_old_is_named(tree: Path) -> None:
    for name in INTERPRETERS:
        stub(tree, name, 'case "$1" in -V) echo Python 3.9.2 ;; *) exit 1 ;; esac')
    done = run(tree, "env")
    assert done.returncode == 1
    assert "Firth needs Python 3.11 or later; python3 here is Python 3.9.2." in done.stderr


def test_who_may_not_install_is_told_the_line(tree: Path) -> None:
    stub(tree, "python3", 'case "$2" in *ensurepip*) exit 1 ;; *) exit 0 ;; esac')
    done = run(tree, "env")
    assert done.returncode == 1
    assert "    sudo apt-get update && sudo apt-get install -y python3-venv\n" in done.stderr
    assert "apt-get was called" not in done.stdout + done.stderr


def test_root_gets_it_installed(tree: Path) -> None:
    stub(tree, "id", "echo 0")
    stub(tree, "apt-get", f"echo apt-get $* >>'{tree}/called'")
    stub(
        tree,
        "python3",
        f'case "$2" in *ensurepip*) exit 1 ;; esac; [ "$1" != -m ] || echo made >>\'{tree}/called\'; exit 0',
    )
    run(tree, "env")
    called = (tree / "called").read_text().splitlines()
    assert called[:2] == ["apt-get update -qq", "apt-get install -y -qq --no-install-recommends python3-venv"]
    assert called[2] == "made"


def test_libraries_are_installed_once_and_again_when_pyproject_changes(tree: Path) -> None:
    interpreter = f"""
if [ "$1 $2" = '-m venv' ]; then mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; fi
if [ "$1 $2 $3" = '-m pip install' ]; then shift 5; echo "$*" >>'{tree}/called'; fi
exit 0"""
    stub(tree, "python3", interpreter)

    def installed() -> list[str]:
        done = run(tree, "env")
        assert done.returncode == 0, done.stderr
        return (tree / "called").read_text().splitlines()

    assert installed() == [f"-e {tree}"]
    assert installed() == [f"-e {tree}"]
    with (tree / "pyproject.toml").open("a") as file:
        file.write("# changed\n")
    assert installed() == [f"-e {tree}"] * 2


WORKS_WITHOUT_PIP = """
if [ "$1 $2" = '-m venv' ]; then mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; fi
exit 0"""


@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_a_venv_of_somebody_else_is_never_removed(tree: Path, kind: str) -> None:
    stub(tree, "python3", WORKS_WITHOUT_PIP)
    venv, elsewhere = tree / ".venv", tree / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "work").write_text("of a week")
    match kind:
        case "folder":
            elsewhere.rename(venv)
        case "file":
            venv.write_text("of a week")
        case "link":
            venv.symlink_to(elsewhere)
    done = run(tree, "env")
    assert done.returncode == 1
    assert done.stderr == f"run: {venv} does not work, and is not of this script's making; please move it away\n"
    kept = venv if kind == "file" else venv / "work"
    assert kept.read_text() == "of a week"


def test_a_venv_that_was_cut_off_is_made_anew(tree: Path) -> None:
    stub(tree, "python3", 'if [ "$1 $2" = "-m venv" ]; then kill -9 $PPID; fi')
    assert run(tree, "env").returncode == -9
    assert not (tree / ".venv/bin/python").exists()
    stub(tree, "python3", WORKS_WITHOUT_PIP)
    done = run(tree, "env")
    assert done.returncode == 0, done.stderr
    assert (tree / ".venv/bin/python").exists()


def test_an_unknown_word_shows_what_there_is(tree: Path) -> None:
    done = run(tree, "dmeo")
    assert done.returncode == 2
    assert "./run demo" in done.stderr
    assert run(tree).stdout.startswith("./run demo")


def test_the_script_is_plain_sh() -> None:
    for shell in ("/bin/sh", "/usr/bin/dash"):
        if os.access(shell, os.X_OK):
            assert subprocess.run([shell, "-n", str(ROOT / "run")], check=False).returncode == 0
    assert (ROOT / "run").read_text().startswith("#!/bin/sh\n")
    assert os.access(ROOT / "run", os.X_OK)
    assert os.access(ROOT / ".ci/run", os.X_OK)


@pytest.mark.parametrize(("options", "found"), [([], False), (["--deep"], True)])
def test_what_takes_minutes_is_run_only_when_it_is_asked_for(options: list[str], found: bool) -> None:
    command = [sys.executable, "-m", "pytest", "-n", "0", "--collect-only", "-q", *options, "tests/deep/test_kills.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=25, check=False)
    assert ("::test_" in done.stdout) == found, done.stdout + done.stderr
    assert "--deep" not in (ROOT / ".ci/run").read_text()
    assert "./run test --deep" in (ROOT / "run").read_text()
