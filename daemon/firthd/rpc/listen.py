"""The only place that makes the daemon's Unix socket: a dead one is cleared away, a living one never."""

import contextlib
import grp
import logging
import os
import socket
import stat
from pathlib import Path

from firth_protocol.errors import InUse, Invalid
from firthd.access import FIRTH_GROUP
from firthd.store import disk

log = logging.getLogger(__name__)

BACKLOG = 128
MODE = 0o660
PATH_LIMIT = 107
"""Bytes of a Unix socket's path at the most (unix(7): 108 with the NUL)."""

_UMASK = 0o777 & ~MODE


def listen_at(path: Path, group: str = FIRTH_GROUP) -> socket.socket:
    """Bind and listen at `path`, mode 0660, owned by `group` when there is such a group.

    Called before the event loop has other work: it may wait a second for the answer of another daemon. Raises
    InUse when another daemon answers there, Invalid when the path cannot take a socket.
    """
    if len(os.fsencode(path)) > PATH_LIMIT:
        raise Invalid(
            f"{path}: the path of a Unix socket has at most {PATH_LIMIT} bytes",
            hint="name a shorter one with --socket or FIRTH_SOCKET",
        )
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _clear(path)
        # The mode is right from the first moment on; afterwards would leave a gap for anybody.
        before = os.umask(_UMASK)
        try:
            listener.bind(os.fspath(path))
        finally:
            os.umask(before)
        _give_to(path, group)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        if told := disk.told(error):
            raise told from error
        raise Invalid(
            f"{path}: no socket can be made here: {error.strerror or error}",
            hint="name another one with --socket or FIRTH_SOCKET",
        ) from error
    except BaseException:
        listener.close()
        raise
    listener.setblocking(False)
    return listener


def remove(path: Path, listener: socket.socket) -> None:
    """Take away the file of our own socket; one that somebody else has put there since stays."""
    with contextlib.suppress(OSError):
        if listener.getsockname() == os.fspath(path):
            path.unlink()


def _clear(path: Path) -> None:
    """Unlink a socket that nobody listens on any more."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise Invalid(
            f"{path} is there and is no socket", hint="move it away, or name another path with --socket or FIRTH_SOCKET"
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(os.fspath(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
        except TimeoutError:
            pass  # somebody listens and is busy
    raise InUse(
        f"another daemon answers on {path}", hint="stop it first, or name another path with --socket or FIRTH_SOCKET"
    )


def _give_to(path: Path, group: str) -> None:
    try:
        os.chown(path, -1, grp.getgrnam(group).gr_gid)
    except KeyError:
        log.info("there is no group %s; the socket %s is for its owner's group only", group, path)
    except PermissionError:
        log.info("the socket %s stays with its owner's group: this user may not give it to group %s", path, group)
