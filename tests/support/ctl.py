"""firthctl as a real process, into pipes or on a terminal of its own."""

import asyncio
import os
import pty
import struct
import sys
import termios
from collections.abc import Mapping
from fcntl import ioctl
from pathlib import Path

from msgspec import Struct


class Done(Struct):
    """How a call of firthctl ended."""

    status: int
    out: str
    err: str


async def ctl(
    *words: str, socket: Path | None = None, stdin: str = "", environ: Mapping[str, str] | None = None
) -> Done:
    """Run firthctl into pipes until it ends."""
    process = await asyncio.create_subprocess_exec(
        *_command(words, socket),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=_environ(environ),
    )
    out, err = await process.communicate(stdin.encode())
    assert process.returncode is not None
    return Done(process.returncode, out.decode(), err.decode())


async def ctl_on_a_terminal(*words: str, socket: Path, columns: int = 80) -> Done:
    """Run firthctl with stdout and stderr on one terminal; `out` is what it wrote there."""
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = await asyncio.create_subprocess_exec(
        *_command(words, socket), stdin=asyncio.subprocess.DEVNULL, stdout=theirs, stderr=theirs, env=_environ(None)
    )
    os.close(theirs)
    reading = asyncio.to_thread(_read, ours)
    out, status = await asyncio.gather(reading, process.wait())
    os.close(ours)
    return Done(status, out.decode(), "")


def _read(terminal: int) -> bytes:
    found = b""
    while True:
        try:
            part = os.read(terminal, 65536)
        except OSError:  # Linux says EIO when the last writer has closed the terminal
            return found
        if not part:
            return found
        found += part


def _command(words: tuple[str, ...], socket: Path | None) -> list[str]:
    where = [] if socket is None else ["--socket", str(socket)]
    return [sys.executable, "-m", "firth_protocol.ctl", *where, *words]


def _environ(more: Mapping[str, str] | None) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FIRTH", "COLUMNS", "LINES"))}
    return kept | dict(more or {})
