"""The only place that knows firthctl's exit statuses and the errors that lead to them."""

from enum import IntEnum


class Exit(IntEnum):
    DONE = 0
    ERROR = 1  # an error reply, or a run that failed or was stopped
    UNREACHABLE = 2  # the daemon cannot be reached
    USAGE = 3  # the command line makes no sense
    INCOMPLETE = 4  # a run ended, but some artifacts could not be had
    UNFINISHED = 5  # run.wait came back at its time-out and the run goes on
    INTERRUPTED = 130  # ctrl-C, as shells say it
    BROKEN_PIPE = 141  # who reads our output has gone, as shells say it


class UsageError(Exception):
    """The command line makes no sense; the message says what to write instead."""


class Unreachable(Exception):
    """The daemon cannot be reached; the message says on which socket, and what to do."""
