"""What a worker process does: a task, told to the daemon as it goes on; it imports little.

`python -m firthd.worker package.module:function` takes the parameters as one JSON document from stdin. With `-` for the
task it imports the modules that are named after it, and waits to be told on stdin: a line with the task and the length
of the parameters, then these. Behind a small task it may wait for another. Progress and the result go out as JSON lines
on stdout; all else goes through files.
"""

import contextlib
import ctypes
import errno
import gc
import importlib
import os
import resource
import signal
import sys
import threading
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from firth_protocol import units
from firth_protocol.errors import FirthError, Invalid, NoSpace, TooLarge

TASK_ROOMS = ("firthd.index.", "firthd.store.")
PARENT = "FIRTHD_PID"
"""Tells the child whose child it is; in a container that may well be process 1."""
NICENESS = 15
PR_SET_PDEATHSIG = 1
M_ARENA_MAX = -8
MEMORY = "FIRTHD_WORKER_MEMORY"
"""Tells the child how many bytes of memory it may use."""
MEMORY_SETTING = "upstream.max_index_bytes"
LATER = "-"
"""In place of a task: it is told later."""
STAYS_BYTES = 100_000_000
"""A process that has had more memory does no other task: what a heap once had it keeps."""
KEPT_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "TMPDIR", "PYTHONPATH", "LD_LIBRARY_PATH")


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
    stays: bool = False  # the process waits for another task


Report = Callable[[TaskProgress], None]


def check_task(task: str) -> None:
    """Refuse a task that does not live in a room that may have one; raises ValueError."""
    if not task.startswith(TASK_ROOMS) or task.count(":") != 1:
        raise ValueError(f"{task!r} is no worker task")


def environment(memory_bytes: int | None = None) -> dict[str, str]:
    """Return what a child of this process is told: whose it is, how much memory it may use, and no secret."""
    told = {name: os.environ[name] for name in KEPT_ENVIRONMENT if name in os.environ}
    told[PARENT] = str(os.getpid())
    return told if memory_bytes is None else told | {MEMORY: str(memory_bytes)}


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


def few_arenas() -> None:
    """Let all threads share two of glibc's arenas: each reserves 64 MB of addresses, and keeps what it once had."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 2)


def limit_memory() -> int | None:
    """Keep this process to the memory that it may use, so that a hostile index cannot take the machine's; return it.

    Address space is counted, because a private anonymous mapping is what every large allocation is; a failed one ends
    the task with a sentence, while the kernel's way out of a full machine might end the daemon.
    """
    told = os.environ.get(MEMORY)
    if told is None:
        return None
    few_arenas()
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


def do(task: str, params: bytes, allowed: int | None, send: Callable[[Message], None]) -> Message:
    """Do a task, and return the message that ends it; what nobody foresaw is raised."""
    function, params_type = find_function(task)
    failed: FirthError | None = None
    try:
        result = function(
            msgspec.json.decode(params, type=params_type), lambda progress: send(Message(progress=progress))
        )
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
        return Message(error=failed.wire(), peak_rss_bytes=peak_rss_bytes())
    return Message(result=msgspec.Raw(msgspec.json.encode(result)), peak_rss_bytes=peak_rss_bytes())


def held() -> int:
    """Return how many files and threads this process holds; 0 where the system does not tell."""
    with contextlib.suppress(OSError):
        return len(list(Path("/proc/self/fd").iterdir())) + threading.active_count()
    return 0


def begin_anew() -> None:
    """Let go of what a task has left, so that the next one's peak of memory is its own."""
    gc.collect()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", "ascii")


def child(task: str, ahead: Sequence[str] = ()) -> None:
    """Do one task: parameters from stdin, messages to what was stdout; print() goes to stderr from here on.

    `ahead`: modules to import before it is known, where tasks are told on stdin: one after the other, as long as each
    went well, took little and left nothing open.
    """
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

        for module in ahead:
            importlib.import_module(module)
        if task != LATER:
            send(do(task, sys.stdin.buffer.read(), allowed, send))
            leave()
        gc.freeze()
        before = held()
        while told := sys.stdin.buffer.readline().split():  # else none comes any more
            ended = do(told[0].decode(), sys.stdin.buffer.read(int(told[1])), allowed, send)
            stays = ended.error is None and ended.peak_rss_bytes <= STAYS_BYTES and 0 < held() <= before
            send(msgspec.structs.replace(ended, stays=stays))
            if not stays:
                break
            del ended
            begin_anew()
        leave()


def leave() -> None:
    """End this process: taking a large heap apart object by object is wasted time, the kernel frees it at once."""
    sys.stderr.flush()
    os._exit(0)


def main(arguments: Sequence[str]) -> None:
    """Run the task that the first argument names, or that is told later; then modules follow."""
    task, *ahead = arguments or [""]
    if not task or (ahead and task != LATER):
        raise Invalid("A worker takes the name of one task.")
    child(task, ahead)


if __name__ == "__main__":
    main(sys.argv[1:])
