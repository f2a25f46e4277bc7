"""The only place that speaks with the service manager: readiness, watchdog, inherited sockets, credentials
(sd_notify(3), sd_listen_fds(3), sd_watchdog_enabled(3), systemd.exec(5))."""

import os
import socket
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_FIRST_FD = 3  # SD_LISTEN_FDS_START


@dataclass(frozen=True)
class Inherited:
    """Listening sockets that the service manager opened; the daemon neither binds nor unlinks those."""

    rpc: tuple[socket.socket, ...] = ()
    web: tuple[socket.socket, ...] = ()


class Notifier:
    """Tells the service manager how the daemon is; does nothing where there is none."""

    def __init__(self, address: str | None) -> None:
        self._address = "\0" + address[1:] if address and address.startswith("@") else address

    def ready(self, status: str) -> None:
        self._send("READY=1", f"STATUS={_one_line(status)}")

    def status(self, text: str) -> None:
        self._send(f"STATUS={_one_line(text)}")

    def alive(self) -> None:
        """Answer the watchdog; to be called at least twice in each interval, from the event loop."""
        self._send("WATCHDOG=1")

    def stopping(self, status: str = "stopping") -> None:
        self._send("STOPPING=1", f"STATUS={_one_line(status)}")

    def _send(self, *fields: str) -> None:
        if not self._address:
            return
        # A manager that went away, or whose queue is full, is no reason to fail or to wait.
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.setblocking(False)
            channel.connect(self._address)
            channel.sendall("\n".join(fields).encode())


def take_notifier(environ: MutableMapping[str, str]) -> Notifier:
    """Return the notifier for NOTIFY_SOCKET and take the variable away, so that no worker process speaks for us."""
    return Notifier(environ.pop("NOTIFY_SOCKET", None))


def watchdog_interval_s(environ: Mapping[str, str], pid: int) -> float | None:
    """Return the seconds after which the manager takes the daemon for hung, or None where it does not watch."""
    usec = environ.get("WATCHDOG_USEC", "")
    if not usec.isdigit() or int(usec) == 0 or environ.get("WATCHDOG_PID", str(pid)) != str(pid):
        return None
    return int(usec) / 1_000_000


def take_sockets(environ: MutableMapping[str, str], pid: int) -> Inherited:
    """Return the sockets passed to process `pid`, closed on exec, and take the variables away.

    Sockets named `rpc` or `web` (FileDescriptorName=) go where they are named; others by their address family.
    Variables meant for another process are ignored. Raises OSError for a descriptor that is not a socket.
    """
    meant_for = environ.pop("LISTEN_PID", "")
    count = environ.pop("LISTEN_FDS", "")
    names = environ.pop("LISTEN_FDNAMES", "").split(":")
    if meant_for != str(pid) or not count.isdigit():
        return Inherited()
    found: dict[str, list[socket.socket]] = {"rpc": [], "web": []}
    for index in range(int(count)):
        os.set_inheritable(_FIRST_FD + index, False)
        listener = socket.socket(fileno=_FIRST_FD + index)
        listener.setblocking(False)
        name = names[index] if index < len(names) else ""
        if name not in found:
            name = "rpc" if listener.family == socket.AF_UNIX else "web"
        found[name].append(listener)
    return Inherited(rpc=tuple(found["rpc"]), web=tuple(found["web"]))


def credentials_folder(environ: Mapping[str, str]) -> Path | None:
    """Return the folder in which the manager gives the service its secrets, one a file (LoadCredential=)."""
    folder = environ.get("CREDENTIALS_DIRECTORY")
    return Path(folder) if folder else None


def _one_line(text: str) -> str:
    return " ".join(text.split())
