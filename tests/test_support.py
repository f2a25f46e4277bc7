"""What the tests themselves lean on."""

import os
import signal
import subprocess
import sys
from pathlib import Path

STARTER = """
import os, subprocess, time
from tests.support.bound import ends_with
child = subprocess.Popen(["sleep", "60"], preexec_fn=ends_with(os.getpid()))
print(child.pid, flush=True)
time.sleep(60)
"""


def test_a_daemon_ends_with_the_tests_however_they_end() -> None:
    root = Path(__file__).parent.parent
    starter = subprocess.Popen([sys.executable, "-c", STARTER], stdout=subprocess.PIPE, cwd=root)
    assert starter.stdout is not None
    with starter, starter.stdout:
        child = Path("/proc") / starter.stdout.readline().decode().strip()
        assert (child / "comm").read_text() == "sleep\n"
        os.kill(starter.pid, signal.SIGKILL)
        starter.wait()
        for _ in range(5000):
            if not child.exists() or "Z" in (child / "stat").read_text().rpartition(")")[2]:
                return
    raise AssertionError("it goes on")
