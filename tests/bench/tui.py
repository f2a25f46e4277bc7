"""Measures the terminal UI in a pseudo terminal: first paint, first list, bytes, CPU, key to paint.

Once as most terminals are, once so wide that a preview stands beside each list. CPU seconds are told beside what a
clock says: on a machine that does other things too they are what can be compared.
`python -m tests.bench.tui` needs nothing but this checkout; it starts the stand-in for the daemon by itself.
"""

import argparse
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
from pathlib import Path

SIZES = ((120, 40), (200, 60))
"""Columns and lines: without and with a preview."""


class Terminal:
    """firth in a pseudo terminal."""

    def __init__(self, socket: Path, size: tuple[int, int] = SIZES[0]) -> None:
        self.began = time.perf_counter()
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.environ.update(TERM="xterm-256color", COLORTERM="truecolor")
            os.environ.pop("COLUMNS", None)
            os.environ.pop("LINES", None)
            os.execv(sys.executable, [sys.executable, "-m", "firth_tui", "--socket", str(socket)])
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))

    def read(self, seconds: float, until: bytes = b"") -> tuple[bytes, float]:
        """Return what comes within `seconds`, or up to `until`, and when that was."""
        end = time.perf_counter() + seconds
        got = b""
        while (left := end - time.perf_counter()) > 0:
            ready, _, _ = select.select([self.fd], [], [], left)
            if ready:
                got += os.read(self.fd, 65536)
                if until and until in got:
                    break
        return got, time.perf_counter()

    def press(self, keys: bytes) -> None:
        os.write(self.fd, keys)

    def key_to_paint(self, key: bytes) -> float:
        """Return the seconds from a key to the first byte of its picture."""
        begun = time.perf_counter()
        self.press(key)
        select.select([self.fd], [], [], 5)
        seconds = time.perf_counter() - begun
        self.read(0.15)
        return seconds

    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def rss_mb(self) -> float:
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6

    def close(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.fd)


def idle(term: Terminal, seconds: float) -> tuple[float, float]:
    """Return CPU in percent of a core and bytes a second over a while without keys."""
    cpu, begun = term.cpu_seconds(), time.perf_counter()
    got, ended = term.read(seconds)
    return (term.cpu_seconds() - cpu) / (ended - begun) * 100, len(got) / (ended - begun)


def start(socket: Path, *options: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, "-m", "tests.support.fake_daemon", str(socket), *options])
    while not socket.exists():
        time.sleep(0.05)
    return process


def starts(socket: Path, count: int, size: tuple[int, int]) -> None:
    for _ in range(count):
        term = Terminal(socket, size)
        first, at = term.read(5, b"Channels")
        cpu = term.cpu_seconds()
        _, listed = term.read(5, b"team-0010")
        print(
            f"first paint {at - term.began:.2f} s ({cpu:.2f} s of CPU), list of channels {listed - at:.2f} s after,"
            f" {len(first)} bytes"
        )
        term.close()


def keys(term: Terminal, key: bytes, count: int, what: str) -> None:
    """Press a key again and again; tell how long it takes until the first byte of its picture, and what it costs."""
    cpu = term.cpu_seconds()
    times = sorted(term.key_to_paint(key) for _ in range(count))
    cost = (term.cpu_seconds() - cpu) / count
    median, worst = times[count // 2], times[-1]
    print(f"{what}: median {median * 1000:.0f} ms, worst {worst * 1000:.0f} ms, {cost * 1000:.0f} ms of CPU a key")


def measure_at(socket: Path, size: tuple[int, int], seconds: float) -> None:
    starts(socket, 3, size)
    term = Terminal(socket, size)
    term.read(2)
    cpu, flow = idle(term, seconds)
    print(f"idle: {cpu:.2f} % of a core, {flow:.0f} bytes/s, {term.rss_mb():.0f} MB")
    term.press(b"g\r")
    term.read(2)
    keys(term, b"j", 60, "key to paint over 100,000 packages")
    keys(term, b"\x1b[6~", 30, "page down")
    cpu, flow = idle(term, seconds)
    print(f"idle over 100,000 packages: {cpu:.2f} % of a core, {flow:.0f} bytes/s")
    end = term.key_to_paint(b"G")
    begun = time.perf_counter()
    _, there = term.read(20, b"package-099999")
    print(f"to the end: {end * 1000:.0f} ms to paint, rows after {there - begun:.2f} s, {term.rss_mb():.0f} MB")
    term.close()


def measure(seconds: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        quiet = Path(folder) / "quiet.sock"
        daemon = start(quiet, "--channels", "1000", "--running", "0")
        try:
            for size in SIZES:
                print(f"-- {size[0]} x {size[1]}")
                measure_at(quiet, size, seconds)
        finally:
            daemon.terminate()
            daemon.wait()
        busy = Path(folder) / "busy.sock"
        daemon = start(busy, "--channels", "20", "--running", "20", "--packages", "1000")
        try:
            views = ((b"2", "list of 20 running mirrors"), (b"3\r", "one run watched"))
            for size, (pressed, name) in ((size, view) for size in SIZES for view in views):
                term = Terminal(busy, size)
                term.read(2)
                term.press(pressed)
                term.read(2)
                cpu, flow = idle(term, seconds)
                print(f"{name}, {size[0]} x {size[1]}: {cpu:.1f} % of a core, {flow / 1000:.1f} kB/s")
                term.close()
        finally:
            daemon.terminate()
            daemon.wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=20)
    measure(parser.parse_args().seconds)
