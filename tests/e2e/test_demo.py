"""The demo itself, as a newcomer runs it: without a terminal, to its end, leaving nothing behind."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


def start(tmp_path: Path, *args: str) -> subprocess.Popen[str]:
    environ = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "tests.e2e.demo", *args],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environ,
        cwd=tmp_path,
    )


def processes_below(folder: Path) -> list[str]:
    """Return the command lines of the processes that name the folder."""
    lines = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = file.read_text().replace("\0", " ")
        except OSError:
            continue
        if str(folder) in line:
            lines.append(line)
    return lines


@pytest.mark.e2e
@pytest.mark.timeout(120)
def test_the_demo_runs_to_its_end_and_cleans_up(tmp_path: Path) -> None:
    with start(tmp_path) as demo:
        out, err = demo.communicate(timeout=110)
    assert (demo.returncode, err) == (0, ""), out
    for number, step in enumerate(
        ("connect", "fetch_index", "filter", "resolve", "plan", "download", "publish", "clean"), 1
    ):
        assert f"{number}/8  {step}" in out
    assert "clients still see 0 packages" in out
    assert "installed: " in out
    assert ("installed by R: greeting, words" in out) == (shutil.which("Rscript") is not None)
    assert "Where it is" not in out, "nothing is any more"
    last = out[out.index("Done; ") :]
    assert "http" not in last
    assert str(tmp_path) not in last
    assert list(tmp_path.iterdir()) == []
    assert processes_below(tmp_path) == []


@pytest.mark.e2e
@pytest.mark.timeout(120)
def test_a_source_that_is_not_there_is_said_in_a_sentence(tmp_path: Path) -> None:
    with start(tmp_path, f"file://{tmp_path}/nowhere") as demo:
        _, err = demo.communicate(timeout=110)
    assert demo.returncode == 1
    assert "The demo failed: " in err
    assert "nowhere" in err
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.deep
@pytest.mark.e2e
@pytest.mark.timeout(120)
def test_a_demo_that_stays_ends_when_it_is_told_to(tmp_path: Path) -> None:
    with start(tmp_path, "--stay") as demo:
        assert demo.stdout is not None
        told = ""
        for line in demo.stdout:
            told += line
            if "Staying up" in line:
                break
        else:
            pytest.fail("the demo did not stay")
        assert "conda install -c http://127.0.0.1:" in told
        assert f"./run tui --socket {tmp_path}/" in told
        assert processes_below(tmp_path) != []
        demo.send_signal(signal.SIGTERM)
        demo.communicate(timeout=60)
    assert demo.returncode == 130
    assert list(tmp_path.iterdir()) == []
    assert processes_below(tmp_path) == []
