"""The only place that says where package clients are listened for, and that turns away those who come in vain."""

import logging
import selectors
import socket
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import cast

from firth_protocol.errors import InUse
from firthd.clock import Clock
from firthd.config import WebSettings, parse_listen

log = logging.getLogger(__name__)

BACKLOG = 512
GOODBYE_S = 2.0
"""How long a client that gets no place has for asking, and for reading why."""
LOOK_S = 0.05


def listen_at(place: str) -> socket.socket:
    """Listen at HOST:PORT. Raises InUse when that cannot be."""
    host, port = parse_listen(place)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise InUse(
            f"cannot listen on {place}: {error.strerror}",
            hint="give another address with --listen, FIRTH_LISTEN or [web] listen",
        ) from None
    return listener


def web_listeners(inherited: Sequence[socket.socket], place: str) -> list[socket.socket]:
    """Return what package clients are served on: the service manager's sockets where it has some, else HOST:PORT.

    Says so where the settings ask for another address than the manager's. Raises InUse.
    """
    if not inherited:
        return [listen_at(place)]
    held = [listener.getsockname()[:2] for listener in inherited]
    if place != WebSettings().listen and parse_listen(place) not in held:
        where = ", ".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in held)
        log.warning(
            "web.listen = %r has no effect: the service manager listens on %s; change ListenStream= in a drop-in of"
            " firthd-web.socket, or disable that unit",
            place,
            where,
        )
    return list(inherited)


def turn_away(doors: Iterable[tuple[socket.socket, bytes]], clock: Clock, linger_s: float = 0.0) -> None:
    """Answer whoever waits on sockets of the service manager that nobody is going to serve. Blocks.

    Left waiting, a caller would make the manager start the daemon again at once, over and over. Where somebody waits
    there are more to come: they are answered for `linger_s` seconds, and the daemon is not started for each of them.
    """
    with selectors.DefaultSelector() as selector:
        listening = [(listener, answer) for listener, answer in doors if listener.fileno() >= 0]
        for listener, answer in listening:
            listener.setblocking(False)
            selector.register(listener, selectors.EVENT_READ, answer)
        leaving: dict[socket.socket, float] = {}
        end: float | None = None
        while listening or leaving:
            ready = selector.select(0 if end is None else LOOK_S)
            now = clock.monotonic()
            for key, _ in ready:
                if key.fileobj in leaving:
                    del leaving[_told(selector, key)]
                    continue
                for connection in _waiting_at(cast(socket.socket, key.fileobj)):
                    selector.register(connection, selectors.EVENT_READ, key.data)
                    leaving[connection] = now + GOODBYE_S
            for late in [connection for connection, until in leaving.items() if until <= now]:
                del leaving[_told(selector, selector.get_key(late))]
            end = now + (linger_s if leaving else 0) if end is None else end
            if now >= end:
                for listener, _ in listening:
                    selector.unregister(listener)
                listening = []


def _waiting_at(listener: socket.socket) -> Iterator[socket.socket]:
    with suppress(OSError):
        for _ in range(BACKLOG):
            connection, _ = listener.accept()
            connection.setblocking(False)
            yield connection


def _told(selector: selectors.BaseSelector, key: selectors.SelectorKey) -> socket.socket:
    """Answer a connection that has asked, or has had its time for it, and close it."""
    connection = cast(socket.socket, key.fileobj)
    selector.unregister(connection)
    with connection, suppress(OSError):
        with suppress(BlockingIOError):
            connection.recv(65_536)
        connection.sendall(key.data)
    return connection
