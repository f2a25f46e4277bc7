"""What a process has used of the processors, for the benchmarks."""

import os
from contextlib import suppress
from pathlib import Path

_PARENT, _OWN, _WITH_ENDED = 1, slice(11, 13), slice(11, 15)


def cpu_seconds(pid: int) -> float:
    """Return what a daemon, its workers that have ended, and those at work have used."""
    ticks = sum(map(int, _fields(pid)[_WITH_ENDED]))
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError, IndexError):
                fields = _fields(int(entry.name))
                if int(fields[_PARENT]) == pid:
                    ticks += sum(map(int, fields[_OWN]))
    return ticks / os.sysconf("SC_CLK_TCK")


def _fields(pid: int) -> list[str]:
    """Return the fields of a process behind its name."""
    return Path(f"/proc/{pid}/stat").read_text("ascii", "replace").rpartition(")")[2].split()
