"""The tour of the README by copy and paste: every command in its order, in a folder and a home of the test's own."""

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.documents import ROOT, blocks, commands, section

pytestmark = [pytest.mark.deep, pytest.mark.e2e, pytest.mark.timeout(300)]

TOUR = "Five minutes"
CLIENTS = ("conda", "Rscript")
ENDS_BY_TIME = 28
"""curl's status where it has listened to the end of --max-time."""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        port: int = one.getsockname()[1]
    return port


@contextmanager
def newcomer(folder: Path) -> Iterator[tuple[dict[str, str], int]]:
    """Give the environment of somebody with an empty home and a checkout; the first block's daemon runs."""
    port = free_port()
    (folder / "run").write_text(f'#!/bin/sh\nexec {ROOT}/run "$@"\n')
    (folder / "run").chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FIRTH", "XDG_", "PYTEST"))}
    environ = kept | {
        "HOME": str(folder), "FIRTH_STATE": f"{folder}/state", "FIRTH_SOCKET": f"{folder}/firth.sock",
        "FIRTH_LISTEN": f"127.0.0.1:{port}", "NO_PROXY": "127.0.0.1", "HTTP_PROXY": "http://127.0.0.1:9", "HTTPS_PROXY":
        "http://127.0.0.1:9",
    }  # fmt: skip
    with (folder / "log").open("w") as log:
        (start,) = commands(blocks(section("README.md", TOUR), "sh")[0])
        daemon = subprocess.Popen(
            start.split(), cwd=folder, env=environ, stdout=log, stderr=log, start_new_session=True
        )
    try:
        end = time.monotonic() + 30
        while not (folder / "firth.sock").exists():
            assert daemon.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < end, "the daemon did not start"
            time.sleep(0.05)
        yield environ, port
    finally:
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(20) == 0


def there(line: str) -> bool:
    """Tell whether the client that a line calls is on this machine."""
    if line.startswith("python3 -m pip"):
        return subprocess.run(["python3", "-m", "pip", "--version"], capture_output=True, check=False).returncode == 0
    return line.split()[0] not in CLIENTS or shutil.which(line.split()[0]) is not None


def test_every_command_of_the_tour_works_in_its_order(tmp_path: Path) -> None:
    text = section("README.md", TOUR)
    said: dict[str, str] = {}
    with newcomer(tmp_path) as (environ, port):
        for line in (line for block in blocks(text, "sh")[1:] for line in commands(block)):
            if not there(line):
                print(f"NOT TESTED: {line}")
                continue
            keep = tmp_path / "variables"
            script = f"set -u -o pipefail; [ ! -e {keep} ] || . {keep}\n{line}\nstatus=$?\n"
            script += f"declare -p TOKEN SOCKET 2>/dev/null >{keep}; exit $status"
            done = subprocess.run(
                ["bash", "-c", script.replace(":8470", f":{port}")],
                cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=120, check=False,
            )  # fmt: skip
            allowed = {0, ENDS_BY_TIME} if "--max-time" in line else {0}
            assert done.returncode in allowed, f"{line}\n{done}"
            assert "Traceback" not in done.stderr
            said[line] = done.stdout
    changes = next(out for line, out in said.items() if "channel.changes" in line)
    assert "tides-2026.3" in changes, "there is something to see in what has accumulated"
    assert re.search(
        r"^greeting +0.2.1", next(out for line, out in said.items() if "package.list" in line), re.MULTILINE
    )
    after = next(out for line, out in said.items() if "package.list main query=tides" in line)
    assert re.search(r"^tides +2026.3 +1 ", after, re.MULTILINE), "the policy keeps one"
    assert not there("python3 -m pip") or (tmp_path / "library/python/alpha_one.py").exists()
    private = [out for line, out in said.items() if "$TOKEN" in line]
    assert ["tides-2026.3-0.conda" in out for out in private] == [True]
    assert any('"result"' in out for line, out in said.items() if "--unix-socket" in line)
    if shutil.which("Rscript"):
        assert (tmp_path / "library/greeting").is_dir()


def test_the_sources_grow_and_leave_other_folders_alone(tmp_path: Path) -> None:
    def sample(folder: str) -> subprocess.CompletedProcess[str]:
        command = [str(ROOT / "run"), "sample", folder]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)

    first, second = sample("a b"), sample("a b")
    assert (
        first.stdout
        == f"conda  file://{tmp_path}/a%20b/conda\nR      file://{tmp_path}/a%20b/cran\nPython file://{tmp_path}/a%20b/python/simple\n"
    )
    assert second.stdout.startswith("the conda source has tides 2026.3 now\n")
    assert sorted(file.name for file in (tmp_path / "a b/conda/noarch").glob("tides*")) == [
        f"tides-2026.{number}-0.conda" for number in (1, 2, 3)
    ]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/work").touch()
    refused = sample("mine")
    assert (refused.returncode, [file.name for file in (tmp_path / "mine").iterdir()]) == (1, ["work"])
