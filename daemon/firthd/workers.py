"""The only place that starts processes for index work: a child for each task, which ends with it or does the next.

Parsing a large index holds the interpreter's lock for seconds, so it happens in a child: spawned, niced, without the
cyclic garbage collector, killed when whoever waits for it is cancelled. What it does there stands in `firthd.worker`.
"""

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
import sys
from collections import deque
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Struct

from firth_protocol import units
from firth_protocol.errors import WorkerLost, from_wire
from firthd.clock import Clock
from firthd.turns import Turns
from firthd.worker import LATER, NICENESS, Message, Report, TaskProgress, check_task, environment

T = TypeVar("T")

log = logging.getLogger(__name__)

MESSAGE_MAX_BYTES = 64 * 1024 * 1024
STDERR_KEPT_LINES = 200
STDERR_LINE_MAX_BYTES = 4096
READY_S = 60.0
"""How long a process waits for a task before it is ended."""
SOON_S = 1.0
"""A task that has not ended by then is no small one: for the next a process is made ready meanwhile."""
STAND_BACK_TRIES, STAND_BACK_S = 5, 0.2
STANDING_BACK, YIELDING = 10, 19
"""How far a worker's session stands back behind the daemon's, and one that has less to do than those beside it."""
BASE_MEMORY_BYTES = 256 * 1000**2


def memory_for(part_bytes: int) -> int:
    """Return how much memory a task may use when one part of an index has at most `part_bytes`."""
    return 3 * part_bytes + BASE_MEMORY_BYTES


class Workers:
    """Runs index tasks, at most `slots` at once; others wait: who is pressed goes first, then who came first."""

    def __init__(self, slots: int, clock: Clock, *, memory_bytes: int | None = None) -> None:
        self.places = slots
        self._memory_bytes = memory_bytes
        self._turns = Turns(slots)
        self._clock = clock
        self._modules: dict[str, None] = {}  # that tasks were found in so far
        self._moved = asyncio.Event()  # a process was told a task, or waits for one
        self._keeps = False
        self._waiting: asyncio.subprocess.Process | None = None
        self.last_peak_rss_bytes: int | None = None

    @property
    def busy(self) -> bool:
        """Whether a task would have to wait for its turn."""
        return self._turns.none_free

    async def run(
        self,
        task: str,
        params: Struct,
        result: type[T],
        *,
        progress: Report | None = None,
        pressed: bool = False,
        yielding: bool = False,
    ) -> T:
        """Run `task` ("package.module:function" below the families or the store) and return what it returns.

        `pressed`: it goes before tasks that are not, for clients wait for what it makes. `yielding`: at work it leaves
        the processors to workers beside it, which have more to do.

        Raises the FirthError that the task raised, or WorkerLost when the process ended without a result; what it
        wrote to stderr goes to the log. When the caller is cancelled, the process is killed before this returns.
        """
        check_task(task)
        if self.busy and progress is not None:
            progress(TaskProgress(0, None, "", "waits for a free place: another run's index task is at work"))
        async with self._turns.turn(pressed=pressed):
            began = self._clock.monotonic()
            process = await self._process(task, params)
            stays = False
            try:
                ended = await self._converse(process, task, params, progress, yielding=yielding)
                stays = ended.stays and not yielding  # one that stands back further never comes forward
            finally:
                if not (stays and self._waits(process)):
                    await end(process)
                log.info("worker %s was at work for %.1f s", task, self._clock.monotonic() - began)

        if ended.error is not None:
            raise from_wire(ended.error)
        return msgspec.json.decode(ended.result, type=result)

    async def keep_ready(self) -> None:
        """Have a process ready behind each task, for a minute; runs until it is cancelled.

        It is the one that did a small task; else a new one, which has imported what tasks were found in before, and
        holds nothing else. Whoever finds none starts one.
        """
        self._keeps = True
        try:
            while True:
                await self._moved.wait()
                while self._moved.is_set():
                    self._moved.clear()
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(READY_S if self._one_waits() else SOON_S):
                            await self._moved.wait()
                if self._one_waits() and (process := self._taken()) is not None:
                    await end(process)
                    continue
                with contextlib.suppress(OSError):  # too many processes: the task itself is told
                    spawned = await self._spawn(LATER, *self._modules)
                    if not self._waits(spawned):
                        await end(spawned)
        finally:
            self._keeps = False
            if (process := self._taken()) is not None:
                await end(process)

    def _waits(self, process: asyncio.subprocess.Process) -> bool:
        """Let a process wait for the next task; return False where another one does, or none is to."""
        if not self._keeps or self._one_waits():
            return False
        self._waiting = process
        self._moved.set()
        return True

    def _one_waits(self) -> bool:
        return self._waiting is not None and not has_ended(self._waiting)

    def _taken(self) -> asyncio.subprocess.Process | None:
        process, self._waiting = self._waiting, None
        return process

    async def _process(self, task: str, params: Struct) -> asyncio.subprocess.Process:
        """Return a process that waits to be told its task."""
        process = self._taken()
        places = (task, getattr(params, "formats", ""))
        self._modules |= dict.fromkeys(place.partition(":")[0] for place in places if place)
        self._moved.set()
        if process is None or has_ended(process):
            process = await self._spawn(LATER)
        return process

    async def _spawn(self, *arguments: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # the working folder is no place to import from
            "-m",
            "firthd.worker",
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            close_fds=True,
            start_new_session=True,  # a terminal's Ctrl-C is the daemon's to answer, not the child's
            env=environment(self._memory_bytes),
            limit=MESSAGE_MAX_BYTES,
        )

    async def _stand_back(self, pid: int, *, yielding: bool) -> None:
        """Let a worker stand back; a daemon without privileges may say so of one session every tenth of a second."""
        for _ in range(STAND_BACK_TRIES):
            if await asyncio.to_thread(stand_back, pid, YIELDING if yielding else STANDING_BACK):
                return
            await self._clock.sleep(STAND_BACK_S)

    async def _converse(
        self,
        process: asyncio.subprocess.Process,
        task: str,
        params: Struct,
        progress: Report | None,
        *,
        yielding: bool,
    ) -> Message:
        """Tell a process its task and hear it to the end of that; raises WorkerLost when there is none."""
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        async with asyncio.TaskGroup() as group:
            said = group.create_task(last_lines(process.stderr))
            group.create_task(tell(process.stdin, task, msgspec.json.encode(params)))
            standing = group.create_task(self._stand_back(process.pid, yielding=yielding))
            ended = await self._listen(process.stdout, progress)
            standing.cancel()
            if ended is None:
                status = await process.wait()
            else:
                said.cancel()
        if ended is None:
            raise lost(task, status, said.result())
        self.last_peak_rss_bytes = ended.peak_rss_bytes
        log.info("worker %s ended, peak memory %s", task, units.size(ended.peak_rss_bytes))
        return ended

    async def _listen(self, stdout: asyncio.StreamReader, progress: Report | None) -> Message | None:
        """Read lines until one ends the task, and return that; None when there is none."""
        decoder = msgspec.json.Decoder(Message)
        while True:
            try:
                line = await stdout.readline()
            except ValueError:  # a line over the limit: as good as none
                return None
            try:
                message = decoder.decode(line)
            except msgspec.DecodeError:  # nothing, or cut off by a death in the middle of a line
                return None
            if message.progress is None:
                return message
            if progress is not None:
                progress(message.progress)


def stand_back(pid: int, niceness: int) -> bool:
    """Let a worker stand back behind others, as far as the system has that; return False when it is to be told later.

    Where the kernel shares the processors out among sessions, how nice a process is counts only inside its own.
    """
    try:
        if niceness > NICENESS:
            os.setpriority(os.PRIO_PROCESS, pid, niceness)
        Path(f"/proc/{pid}/autogroup").write_text(str(niceness), "ascii")
    except BlockingIOError:
        return False
    except OSError:  # the system has no such thing, or the process has ended
        return True
    return True


async def tell(stdin: asyncio.StreamWriter, task: str, params: bytes) -> None:
    """Write a task and its parameters; a child that died early is noticed by its missing result, not here."""
    with contextlib.suppress(ConnectionError):
        stdin.write(b"%s %d\n%s" % (task.encode(), len(params), params))
        await stdin.drain()


async def last_lines(stderr: asyncio.StreamReader) -> list[str]:
    """Read to the end; return the last lines, each cut to a bounded length."""
    kept: deque[bytes] = deque(maxlen=STDERR_KEPT_LINES)
    rest = b""
    while chunk := await stderr.read(65536):
        *lines, rest = (rest + chunk).split(b"\n")
        kept.extend(line[:STDERR_LINE_MAX_BYTES] for line in lines)
        rest = rest[:STDERR_LINE_MAX_BYTES]
    if rest:
        kept.append(rest)
    return [line.decode("utf-8", "backslashreplace") for line in kept]


def has_ended(process: asyncio.subprocess.Process) -> bool:
    """Tell whether a process has ended, even if nobody has been told yet."""
    with contextlib.suppress(ChildProcessError):
        look = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return process.returncode is not None or os.waitid(os.P_PID, process.pid, look) is not None
    return True


async def end(process: asyncio.subprocess.Process) -> None:
    """Make sure that the process is gone: killed if need be, and reaped."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await asyncio.shield(process.wait())


def lost(task: str, status: int, said: list[str]) -> WorkerLost:
    """Log what the dead worker said, and return the error for its run."""
    how = f"by signal {signal.Signals(-status).name}" if status < 0 else f"with exit code {status}"
    log.error("worker %s ended %s without a result; its last words:\n%s", task, how, "\n".join(said))
    hint = "It is safe to run it again; the daemon's log has what the process said last."
    if status == -signal.SIGKILL:
        hint = "It may have been killed for want of memory; the system's log tells."
    return WorkerLost(f"The worker process ended {how} before its task was done.", hint=hint)


def apart(task: str, params: Struct, result: type[T], *, memory_bytes: int, timeout_s: float) -> T | None:
    """Let a task be done by a process of its own, from within a task, and wait for it; it blocks.

    None: it took too long, too much memory, or it failed or died: whoever asks can do without.
    """
    check_task(task)
    try:
        ended = subprocess.run(
            [sys.executable, "-P", "-m", "firthd.worker", task],
            input=msgspec.json.encode(params),
            stdout=subprocess.PIPE,
            timeout=timeout_s,
            env=environment(memory_bytes),
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    for line in reversed(ended.stdout.splitlines()):
        with contextlib.suppress(msgspec.DecodeError, msgspec.ValidationError):
            message = msgspec.json.decode(line, type=Message)
            if message.error is None and message.progress is None:
                return msgspec.json.decode(message.result, type=result)
        break
    return None
