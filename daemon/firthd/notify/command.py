"""The only place that starts an administrator's command: JSON on its standard input, in a process group of its own.

Nothing stands in its arguments but what the settings say, and its environment holds nothing of the daemon's own.
"""

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Sequence
from pathlib import Path

from firth_protocol.errors import Upstream
from firthd import sandbox
from firthd.upstream.masking import printable

log = logging.getLogger(__name__)

SAID_MAX_BYTES = 4096
"""What the log takes of what a command writes to standard error; the rest is read and let go."""
KEPT_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "TZ")
END_S = 1.0
"""Seconds that a command which is not wanted any more has to end in order."""


async def run(command: Sequence[str], data: bytes, timeout_s: float) -> None:
    """Run a command to its end; what it has started and left behind ends with it. Raises Upstream when it fails.

    The beginning of what it writes to standard error goes to the daemon's log; a caller who is cancelled waits until
    it has ended.
    """
    stdin, nowhere = await asyncio.to_thread(_opened, data)
    # A pipe of our own: what has left the group and holds it open keeps nobody from knowing that the command has ended.
    reading, stderr = os.pipe()
    said = _Said()
    listening = await said.listen(reading)
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=stdin,
            stdout=nowhere,
            stderr=stderr,
            cwd="/",
            start_new_session=True,
            env={name: os.environ[name] for name in KEPT_ENVIRONMENT if name in os.environ},
        )
    except BaseException as error:
        listening.close()
        if not isinstance(error, OSError | ValueError):
            raise
        hidden = await asyncio.to_thread(sandbox.hint, Path(command[0]))
        why = hidden or getattr(error, "strerror", None) or "it is no program"
        raise Upstream(f"{command[0]} cannot be started: {why}") from None
    finally:
        os.close(stdin)
        os.close(nowhere)
        os.close(stderr)
    ended = asyncio.ensure_future(process.wait())
    try:
        async with asyncio.timeout(timeout_s):
            status = await asyncio.shield(ended)
    except TimeoutError:
        raise Upstream(f"{command[0]} took longer than {timeout_s:g} s") from None
    finally:
        await asyncio.shield(_end(process.pid, ended, said.whole))
        listening.close()
        if told := said.kept.decode("utf-8", "replace").strip():
            log.warning("%s says: %s", command[0], printable(told))
    if status != 0:
        how = f"by signal {-status}" if status < 0 else f"with status {status}"
        raise Upstream(f"{command[0]} ended {how}")


class _Said(asyncio.Protocol):
    """Keeps the beginning of what comes through a pipe, and reads the rest, so that nobody waits for a full one."""

    def __init__(self) -> None:
        self.kept = b""
        self.whole: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def listen(self, pipe: int) -> asyncio.BaseTransport:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_read_pipe(lambda: self, os.fdopen(pipe, "rb", buffering=0))
        return transport

    def data_received(self, data: bytes) -> None:
        self.kept += data[: SAID_MAX_BYTES - len(self.kept)]

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.whole.done():
            self.whole.set_result(None)


async def _end(group: int, ended: "asyncio.Future[int]", said: "asyncio.Future[None]") -> None:
    if not ended.done():
        _signal(group, signal.SIGTERM)
        await asyncio.wait({ended}, timeout=END_S)
    _signal(group, signal.SIGKILL)  # also what a command that has ended left running
    await ended
    await asyncio.wait({said}, timeout=END_S)


def _signal(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _opened(data: bytes) -> tuple[int, int]:
    """Return a descriptor to read the bytes from, and one that swallows what is written.

    The bytes lie in memory, not in a pipe: a command that does not read them holds nobody up.
    """
    fd = os.memfd_create("notification")
    with os.fdopen(os.dup(fd), "wb") as writer:
        writer.write(data)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd, os.open(os.devnull, os.O_WRONLY)
