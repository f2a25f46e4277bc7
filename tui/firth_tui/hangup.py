"""Ends the process when its terminal is gone: nobody can see it or type into it any more.

The kernel tells it by SIGHUP only to those whose controlling terminal it was, and only to those who do not ignore it.
The others would read an end of file over and over, and stand still when what they draw cannot be written. That is why
this looks from a thread of its own, and does not ask the rest of the program to stop.
"""

import os
import select
import signal
from collections.abc import Callable
from threading import Thread

LOOK_MS = 1000
"""How long a hang-up may be missed: not every kind of terminal wakes who waits for nothing else."""
STATUS = 128 + signal.SIGHUP
"""The exit status, as a shell tells that of a process that a hang-up has ended."""


def _end() -> None:
    os._exit(STATUS)


def wait_for_hangup(terminal: int) -> None:
    """Return when the terminal of a file descriptor is gone, or the descriptor is closed."""
    poll = select.poll()
    poll.register(terminal, 0)
    while not poll.poll(LOOK_MS):
        pass


def end_with(terminal: int, end: Callable[[], object] = _end) -> None:
    """Have the process end, at once and with STATUS, when the terminal of a file descriptor is gone."""

    def watch() -> None:
        wait_for_hangup(terminal)
        end()

    Thread(target=watch, name="hangup", daemon=True).start()
