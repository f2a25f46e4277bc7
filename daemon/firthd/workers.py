"""The only place that starts processes for index work: one short-lived child for each task.

Parsing a large index holds the interpreter's lock for seconds, so it happens in a child: spawned, niced, without the
cyclic garbage collector, killed when whoever waits for it is cancelled. Parameters go in as one JSON document on
stdin; progress and the result come back as JSON lines on stdout; all else goes through files.

`python -m firthd.workers package.module:function` is the child's side; it imports little.
"""

import asyncio
import contextlib
import ctypes
import errno
import gc
import importlib
import logging
import os
import resource
import signal
import subprocess
import sys
import typing
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from firth_protocol import units
from firth_protocol.errors import FirthError, Invalid, NoSpace, TooLarge, WorkerLost, from_wire
from firthd.clock import Clock
from firthd.turns import Turns

T = TypeVar("T")

log = logging.getLogger(__name__)

TASK_ROOMS = ("firthd.index.", "firthd.store.")
MESSAGE_MAX_BYTES = 64 * 1024 * 1024
STDERR_KEPT_LINES = 200
STDERR_LINE_MAX_BYTES = 4096
KEPT_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "TMPDIR", "PYTHONPATH", "LD_LIBRARY_PATH")
PARENT = "FIRTHD_PID"
"""Tells the child whose child it is; in a container that may well be process 1."""
NICENESS = 15
STAND_BACK_TRIES, STAND_BACK_S = 5, 0.2
STANDING_BACK, YIELDING = 10, 19
"""How far a worker's session stands back behind the daemon's, and one that has less to do than those beside it."""
PR_SET_PDEATHSIG = 1
M_ARENA_MAX = -8
MEMORY = "FIRTHD_WORKER_MEMORY"
"""Tells the child how many bytes of memory it may use."""
MEMORY_SETTING = "upstream.max_index_bytes"
BASE_MEMORY_BYTES = 256 * 1000**2


def memory_for(part_bytes: int) -> int:
    """Return how much memory a task may use when one part of an index has at most `part_bytes`."""
    return 3 * part_bytes + BASE_MEMORY_BYTES


class TaskProgress(Struct, frozen=True):
    """How far a task is; `total` is None where it cannot be known."""

    done: int
    total: int | None
    unit: str
    description: str
    file: str | None = None  # one that the task is done with: the caller may take it while the task goes on
    sums: str | None = None  # such a file too: what the task is about to write shows


class Message(Struct, frozen=True, omit_defaults=True):
    """One line from the child: progress, or the end of the task as a result or an error."""

    progress: TaskProgress | None = None
    result: msgspec.Raw = msgspec.Raw(b"null")
    error: dict[str, Any] | None = None
    peak_rss_bytes: int = 0


Report = Callable[[TaskProgress], None]


class Workers:
    """Runs index tasks, at most `slots` at once; others wait: who is pressed goes first, then who came first."""

    def __init__(self, slots: int, clock: Clock, *, memory_bytes: int | None = None) -> None:
        self.places = slots
        self._memory_bytes = memory_bytes
        self._turns = Turns(slots)
        self._clock = clock
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
            process = await self._spawn(task)
            try:
                return await self._converse(process, task, params, result, progress, yielding=yielding)
            finally:
                await end(process)
                log.info("worker %s was at work for %.1f s", task, self._clock.monotonic() - began)

    async def _spawn(self, task: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # the working folder is no place to import from
            "-m",
            "firthd.workers",
            task,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            close_fds=True,
            start_new_session=True,  # a terminal's Ctrl-C is the daemon's to answer, not the child's
            env={name: os.environ[name] for name in KEPT_ENVIRONMENT if name in os.environ}
            | {PARENT: str(os.getpid())}
            | ({} if self._memory_bytes is None else {MEMORY: str(self._memory_bytes)}),
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
        result: type[T],
        progress: Report | None,
        *,
        yielding: bool,
    ) -> T:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        async with asyncio.TaskGroup() as group:
            said = group.create_task(last_lines(process.stderr))
            group.create_task(feed(process.stdin, msgspec.json.encode(params)))
            standing = group.create_task(self._stand_back(process.pid, yielding=yielding))
            end_message = await self._listen(process.stdout, progress)
            standing.cancel()
            status = await process.wait()
        if end_message is None:
            raise lost(task, status, said.result())
        self.last_peak_rss_bytes = end_message.peak_rss_bytes
        log.info("worker %s ended, peak memory %s", task, units.size(end_message.peak_rss_bytes))
        if end_message.error is not None:
            raise from_wire(end_message.error)
        return msgspec.json.decode(end_message.result, type=result)

    async def _listen(self, stdout: asyncio.StreamReader, progress: Report | None) -> Message | None:
        """Read lines until the pipe closes; return the one that ends the task, None when there is none."""
        decoder = msgspec.json.Decoder(Message)
        last: Message | None = None
        while True:
            try:
                line = await stdout.readline()
            except ValueError:  # a line over the limit: as good as none
                return None
            if not line:
                return last
            try:
                message = decoder.decode(line)
            except msgspec.DecodeError:  # cut off by a death in the middle of a line
                return None
            if message.progress is None:
                last = message
            elif progress is not None:
                progress(message.progress)


def check_task(task: str) -> None:
    """Refuse a task that does not live in a room that may have one; raises ValueError."""
    if not task.startswith(TASK_ROOMS) or task.count(":") != 1:
        raise ValueError(f"{task!r} is no worker task")


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


async def feed(stdin: asyncio.StreamWriter, body: bytes) -> None:
    """Write the parameters; a child that died early is noticed by its missing result, not here."""
    with contextlib.suppress(ConnectionError):
        stdin.write(body)
        await stdin.drain()
    with contextlib.suppress(ConnectionError):
        stdin.close()
        await stdin.wait_closed()


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


# --- the child's side ---------------------------------------------------------------------------------------------


def apart(task: str, params: Struct, result: type[T], *, memory_bytes: int, timeout_s: float) -> T | None:
    """Let a task be done by a process of its own, from within a task, and wait for it; it blocks.

    None: it took too long, too much memory, or it failed or died: whoever asks can do without.
    """
    check_task(task)
    kept = {name: os.environ[name] for name in KEPT_ENVIRONMENT if name in os.environ}
    try:
        ended = subprocess.run(
            [sys.executable, "-P", "-m", "firthd.workers", task],
            input=msgspec.json.encode(params),
            stdout=subprocess.PIPE,
            timeout=timeout_s,
            env=kept | {PARENT: str(os.getpid()), MEMORY: str(memory_bytes)},
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


def peak_rss_bytes() -> int:
    """Return the peak resident memory of this process image; 0 where the system does not tell.

    ru_maxrss will not do: across fork and exec it starts with the parent's size.
    """
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text("ascii", "replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def die_with_parent() -> None:
    """Ask the kernel to kill this process when the daemon dies, however it dies."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.environ.get(PARENT, str(os.getppid())) != str(os.getppid()):  # it died between the fork and the request
        sys.exit(1)


def limit_memory() -> int | None:
    """Keep this process to the memory that it may use, so that a hostile index cannot take the machine's; return it.

    Address space is counted, because a private anonymous mapping is what every large allocation is; a failed one ends
    the task with a sentence, while the kernel's way out of a full machine might end the daemon.
    """
    told = os.environ.get(MEMORY)
    if told is None:
        return None
    # glibc reserves 64 MB of addresses for each thread's arena: two do for the threads that compress.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 2)
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    allowed = int(told) if hard == resource.RLIM_INFINITY else min(int(told), hard)
    resource.setrlimit(resource.RLIMIT_AS, (allowed, allowed))
    return allowed


def too_much_memory(allowed: int | None) -> TooLarge:
    """Return the error for a task that needs more memory than it may use."""
    limit = "" if allowed is None else f" than the {units.size(allowed)} that it may use"
    return TooLarge(
        f"The index work needs more memory{limit}.",
        hint=f"look at the source; if it is right, raise {MEMORY_SETTING} in firth.toml",
    )


def no_room(error: BaseException | None) -> NoSpace | None:
    """Return the error for a task that a full disk ended, whatever else went wrong when it did; None for any other."""
    while error is not None:
        full = isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}
        if full or getattr(error, "sqlite_errorname", None) == "SQLITE_FULL":
            return NoSpace(
                "the disk is full", hint="free some space below the state folder; it is safe to run it again"
            )
        error = error.__context__
    return None


def find_function(task: str) -> tuple[Callable[[Any, Report], Any], type[Struct]]:
    """Import a task's function; return it with the type of its parameters."""
    check_task(task)
    module, _, name = task.partition(":")
    function = getattr(importlib.import_module(module), name)
    return function, typing.get_type_hints(function)["params"]


def child(task: str) -> None:
    """Do one task: parameters from stdin, messages to what was stdout; print() goes to stderr from here on."""
    die_with_parent()
    allowed = limit_memory()
    gc.disable()
    os.nice(NICENESS)
    with os.fdopen(os.dup(1), "wb", buffering=0) as pipe:
        os.dup2(2, 1)

        def send(message: Message) -> None:
            line = memoryview(msgspec.json.encode(message) + b"\n")
            while line:
                line = line[pipe.write(line) :]

        function, params_type = find_function(task)
        params = msgspec.json.decode(sys.stdin.buffer.read(), type=params_type)
        failed: FirthError | None = None
        try:
            result = function(params, lambda progress: send(Message(progress=progress)))
        except FirthError as error:
            failed = error
        except MemoryError:
            failed = too_much_memory(allowed)
        except Exception as error:
            failed = no_room(error)
            if failed is None:
                raise
        # Outside the handlers, where nothing holds what the task held: there may be no memory before that.
        if failed is not None:
            send(Message(error=failed.wire(), peak_rss_bytes=peak_rss_bytes()))
        else:
            send(Message(result=msgspec.Raw(msgspec.json.encode(result)), peak_rss_bytes=peak_rss_bytes()))
        # Taking a large heap apart object by object is wasted time: the kernel frees it at once.
        sys.stderr.flush()
        os._exit(0)


def main(arguments: list[str]) -> None:
    """Run the task that the one argument names."""
    if len(arguments) != 1:
        raise Invalid("A worker takes the name of one task.")
    child(arguments[0])


if __name__ == "__main__":
    main(sys.argv[1:])
