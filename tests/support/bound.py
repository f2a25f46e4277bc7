"""Processes that end with the tests that started them, also when those are killed."""

import ctypes
import os
import signal
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)  # loaded here: between fork and exec nothing is to be loaded


def ends_with(parent: int) -> Callable[[], None]:
    """Return what a new process does before its program begins, so that it ends when the tests do, however they end.

    The kernel kills it when its parent's thread is gone (prctl(2)); one that went before is noticed.
    """

    def bind() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    return bind
