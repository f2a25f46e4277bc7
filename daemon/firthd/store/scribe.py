"""The only place that lets a process of its own write many small files: hashed, flushed and named as `Batches` does.

Each step of writing a file lets go of the interpreter's lock and waits for it again, beside an event loop that
is busy receiving the next ones. So the bytes of a whole batch go to a child in one piece. It does what this process
would do, which goes on by itself where there is no child; everything that is decided is decided here.

`python -m firthd.store.scribe FOLDER FD FD` is the child's side: requests come over two sockets.
"""

import contextlib
import gc
import logging
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from firthd.clock import SystemClock
from firthd.store.batches import Arrived, Batches, throw_away
from firthd.store.incoming import BlobMismatch, MemoryWriter
from firthd.store.promises import Promise
from firthd.store.together import Together
from firthd.worker import die_with_parent, environment

log = logging.getLogger(__name__)

IOV_MOST = 512
"""Pieces that are handed to the kernel at once."""
_LENGTH = struct.Struct("!I")


class Sent(Struct, frozen=True, array_like=True):
    """A file of a request. Its bytes follow the request; it has its digest already where they have come before."""

    path: str
    size: int
    sha256: str | None = None
    md5: str | None = None
    also: Promise | None = None
    bytes: int = 0


class Request(Struct, frozen=True, array_like=True):
    """What is to be done with files: written and flushed, or given their names."""

    write: bool
    files: list[Sent]


class Done(Struct, frozen=True, array_like=True):
    """What became of a file. `number`: of the error of the disk; None with a `why`: it is not what was promised."""

    sha256: str
    size: int
    there: bool
    number: int | None = None
    why: str = ""
    at: str | None = None

    @property
    def error(self) -> BaseException | None:
        if self.number is not None:
            return OSError(self.number, self.why, self.at)
        return BlobMismatch(self.why) if self.why else None


class Scribe:
    """A child that writes below one folder, from `ready` or the first batch on until `rest`. Everything here blocks.

    It has two lines: files are given their names while it writes the next ones.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writing, self._naming = threading.Lock(), threading.Lock()  # taken in this order, `_handling` last
        self._handling = threading.Lock()
        self._child: _Child | None = None

    def ready(self) -> None:
        """Begin to begin: many files are about to come."""
        self._started()

    def make_durable(self, batch: Sequence[Arrived]) -> bool:
        """Let files that are in memory be written and flushed; False: there is no child, and nothing was done."""
        held = [arrived.held for arrived in batch if arrived.held is not None]
        if len(held) != len(batch):
            return False
        files = [
            Sent(arrived.path, one.size, one.told.sha256, one.told.md5, one.told.also, one.written)
            for arrived, one in zip(batch, held, strict=True)
        ]
        if not self._ask(Request(True, files), batch, [chunk for one in held for chunk in one.chunks]):
            throw_away(arrived.path for arrived in batch)  # the child may have begun
            return False
        for arrived in batch:
            arrived.held = None
        return True

    def rename(self, batch: Sequence[Arrived]) -> bool:
        """Let files be given their names; False: there is no child, or what it did is not known."""
        files = [Sent(arrived.path, arrived.size, arrived.sha256) for arrived in batch]
        return self._ask(Request(False, files), batch, [])

    def rest(self) -> None:
        """End the child until there is a batch again."""
        with self._writing, self._naming:
            self._end(self._child)

    def _ask(self, request: Request, batch: Sequence[Arrived], chunks: Sequence[bytes | memoryview]) -> bool:
        child = None
        try:
            with self._writing if request.write else self._naming:
                child = self._started()
                done = child.ask(request, chunks)
        except (OSError, EOFError, msgspec.MsgspecError) as error:
            log.warning("the process that writes small files was lost: %s", error)
            self._end(child)
            return False
        for arrived, one in zip(batch, done, strict=True):
            arrived.sha256, arrived.size, arrived.there = one.sha256, one.size, one.there
            arrived.error = one.error
        return True

    def _started(self) -> "_Child":
        with self._handling:
            if self._child is None:
                self._child = _Child(self._folder)
            return self._child

    def _end(self, child: "_Child | None") -> None:
        """End a child; the other line may have lost it too, and begun another."""
        with self._handling:
            if child is not None:
                child.end()
            if self._child is child:
                self._child = None


class _Child:
    """The process, and the two lines to it."""

    def __init__(self, folder: Path) -> None:
        lines = [socket.socketpair() for _ in range(2)]
        self._lines = [ours for ours, _ in lines]
        theirs = [other for _, other in lines]
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "firthd.store.scribe", str(folder)]
                + [str(other.fileno()) for other in theirs],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[other.fileno() for other in theirs],
                start_new_session=True,  # a terminal's Ctrl-C is the daemon's to answer, not the child's
                env=environment(),
            )
        except OSError:
            self._close()
            raise
        finally:
            for other in theirs:
                other.close()

    def ask(self, request: Request, chunks: Sequence[bytes | memoryview]) -> list[Done]:
        """Return what became of the files; raises OSError or EOFError when the child is lost."""
        line = self._lines[0 if request.write else 1]
        head = msgspec.msgpack.encode(request)
        _send(line, [_LENGTH.pack(len(head)), head, *chunks])
        return msgspec.msgpack.decode(_reply(line), type=list[Done])

    def end(self) -> None:
        """Kill it: it has nothing to do, or is not to be trusted with it. Whoever waits for an answer is told."""
        self._process.kill()
        self._process.wait()
        self._close()

    def _close(self) -> None:
        for line in self._lines:
            with contextlib.suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)
            line.close()


def _send(connection: socket.socket, pieces: Sequence[bytes | memoryview]) -> None:
    """Send everything, with few calls: each lets go of the interpreter's lock, and waits for it."""
    for first in range(0, len(pieces), IOV_MOST):
        some = pieces[first : first + IOV_MOST]
        sent = connection.sendmsg(some)
        for piece in some:
            if sent < len(piece):
                connection.sendall(memoryview(piece)[sent:])
            sent = max(0, sent - len(piece))


def _reply(connection: socket.socket) -> bytes:
    (length,) = _LENGTH.unpack(_take(connection, bytearray(_LENGTH.size)))
    return bytes(_take(connection, bytearray(length)))


def _take(connection: socket.socket, room: bytearray, size: int | None = None) -> memoryview:
    """Fill `room`, or `size` bytes of it; raise EOFError when the other side is gone."""
    size = len(room) if size is None else size
    into = memoryview(room)[:size]
    at = 0
    while at < size:
        got = connection.recv_into(into[at:])
        if not got:
            raise EOFError("it ended")
        at += got
    return into


# --- the child's side ---------------------------------------------------------------------------------------------


def serve(connection: socket.socket, batches: Batches) -> None:
    """Answer requests until the other side is gone."""
    decode = msgspec.msgpack.Decoder(Request).decode
    room = bytearray()  # kept from batch to batch: to be given memory anew costs half of what it takes to fill it
    while True:
        try:
            request = decode(_reply(connection))
            size = sum(sent.bytes for sent in request.files)
            if size > len(room):
                room = bytearray(size)
            data = _take(connection, room, size)
        except EOFError:
            return
        batch, at = [], 0
        for sent in request.files:
            if request.write:
                held = MemoryWriter(size=sent.size, sha256=sent.sha256, md5=sent.md5)
                held.promise(sent.also)
                held.hold(data[at : at + sent.bytes])
                batch.append(Arrived(sent.path, held=held))
                at += sent.bytes
            else:
                batch.append(Arrived(sent.path, sha256=sent.sha256 or "", size=sent.size))
        (batches.make_durable if request.write else batches.rename)(batch, together=True)
        reply = msgspec.msgpack.encode([_done(arrived) for arrived in batch])
        connection.sendall(_LENGTH.pack(len(reply)) + reply)


def _done(arrived: Arrived) -> Done:
    error = arrived.error
    told: dict[str, Any] = {}
    if isinstance(error, OSError):
        told = {"number": error.errno or 0, "why": error.strerror or str(error), "at": str(error.filename or "")}
    elif error is not None:
        told = {"why": str(error)}
    return Done(arrived.sha256, arrived.size, arrived.there, **told)


def main(arguments: Sequence[str]) -> None:
    """Serve the daemon that began this process, for files below a folder."""
    die_with_parent()
    folder = Path(arguments[0])
    gc.disable()
    writing, naming = (socket.socket(fileno=int(number)) for number in arguments[1:])
    batches = Batches(folder, Together(folder, SystemClock()))
    threading.Thread(target=serve, args=(naming, batches), daemon=True).start()
    serve(writing, batches)


if __name__ == "__main__":
    main(sys.argv[1:])
