"""The only place that knows where the daemon's socket is looked for, what it takes at once, and what silence means."""

import errno
import grp
import os
from collections.abc import Mapping
from pathlib import Path

SYSTEM_SOCKET = Path("/run/firth/firth.sock")

REQUEST_LIMIT = 1024 * 1024
"""Bytes of one request at the most."""
DOCUMENT_METHOD = "config.apply"
DOCUMENT_LIMIT = 8 * 1024 * 1024
"""Bytes of a request that brings the document of an installation, by itself and with a Content-Length."""
BATCH_LIMIT = 50
"""Calls in one batch at the most."""
SILENCE_S = 45.0
"""Seconds without a line after which a stream of events is dead: three of the daemon's empty lines."""


def find_socket(given: str | None, environ: Mapping[str, str], system: Path = SYSTEM_SOCKET) -> Path:
    """Return the socket to use: as given, FIRTH_SOCKET, the system's if it is there, else the user's.

    The user's lies where his own firthd puts it: in XDG_RUNTIME_DIR, or without that in the state folder.
    """
    named = given or environ.get("FIRTH_SOCKET")
    if named:
        return Path(named).expanduser()
    user = _user_socket(environ)
    return system if system.exists() or (not user.exists() and os.getuid() == 0) else user


def unreachable_text(socket: Path | str, error: Exception) -> str:
    """Return the sentence for a daemon that cannot be reached: the cause, and what to do."""
    number = getattr(error, "errno", None)
    if isinstance(error, TimeoutError):
        cause = "it does not answer in time"
    elif isinstance(number, int) and number > 0:
        cause = os.strerror(number)
    else:
        cause = str(error) or type(error).__name__
    if number in {errno.EACCES, errno.EPERM}:
        return f"firthd cannot be reached on {socket}: {cause}; {_who_may(Path(socket))}"
    return f"firthd cannot be reached on {socket}: {cause}; start it, or name its socket with --socket or FIRTH_SOCKET"


def _who_may(socket: Path) -> str:
    """Return what lets somebody connect who may not: the group of the socket, as far as it can be seen."""
    try:
        group = grp.getgrgid(socket.stat().st_gid).gr_name
    except (OSError, KeyError):
        return "its socket lies in a folder that you may not enter"
    return f"an administrator lets you in by making you a member of group {group} (then log in anew)"


def _user_socket(environ: Mapping[str, str]) -> Path:
    runtime = environ.get("XDG_RUNTIME_DIR")
    if runtime:
        return Path(runtime) / "firth/firth.sock"
    home = Path(environ.get("HOME") or "~").expanduser()
    return Path(environ.get("XDG_STATE_HOME") or home / ".local/state") / "firth/firth.sock"
