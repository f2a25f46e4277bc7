"""What a process has used of the processors, for the benchmarks."""

import os
from pathlib import Path


def cpu_seconds(pid: int) -> float:
    """Return what a daemon and its workers that have ended have used."""
    used = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[11:15]
    return sum(map(int, used)) / os.sysconf("SC_CLK_TCK")
