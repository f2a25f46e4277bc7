"""The only place that moves a reply's body onto the client's socket.

uvloop has no sendfile, and its fallback reads through a thread pool. So the kernel copies: once the transport's own
buffer is empty, os.sendfile writes to the socket, and a duplicate of its descriptor tells when it takes more.
"""

import asyncio
import contextlib
import errno
import os
from collections.abc import AsyncIterator

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

STALL_S = 120.0
"""Seconds without a byte taken after which a client counts as gone."""
SENDFILE_CHUNK = 1024 * 1024
"""Bytes of one sendfile call: 0.2 ms of the loop from the page cache."""
WRITE_CHUNK = 256 * 1024
"""Bytes read and written at a time where sendfile cannot be had."""

_NO_SENDFILE = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EOVERFLOW}


class ShortFile(OSError):
    """A file ended before its known length."""


class Wire:
    """One reply's way to its client, after the headers are written. Used as an async context manager.

    Every method raises ConnectionError when the client is gone or has taken nothing for `stall_s`.
    """

    def __init__(self, request: web.BaseRequest, writer: AbstractStreamWriter, *, stall_s: float = STALL_S) -> None:
        self._transport = request.transport
        self._stall_s = stall_s
        self._writer = writer
        self._socket_fd: int | None = None
        self._asked = False

    async def __aenter__(self) -> "Wire":
        if self._transport is None or self._transport.is_closing():
            raise ConnectionResetError("the client is gone")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._socket_fd is not None:
            os.close(self._socket_fd)
            self._socket_fd = None
        if self._transport is not None and not self._transport.is_closing():
            self._transport.set_write_buffer_limits()

    async def _take_socket(self) -> None:
        """Get hold of the socket itself, once everything written so far is with the kernel. TLS has none for us."""
        transport = self._transport
        if self._asked or transport is None or transport.get_extra_info("sslcontext") is not None:
            return
        self._asked = True
        sock = transport.get_extra_info("socket")
        if sock is None:
            return
        transport.set_write_buffer_limits(0)  # from now on drain() means: nothing is left to be written
        async with _stall_limit(self._stall_s):
            await self._writer.drain()
        if transport.is_closing():
            raise ConnectionResetError("the client is gone")
        if transport.get_write_buffer_size() == 0:
            self._socket_fd = os.dup(sock.fileno())

    async def send_file(self, fd: int, offset: int, count: int) -> None:
        """Send `count` bytes of an open file from `offset`. Raises ShortFile when it does not hold them."""
        end = offset + count
        await self._take_socket()
        if self._socket_fd is not None and count:
            offset = await _Pump(self._socket_fd, fd, offset, end).run(self._stall_s)
        while offset < end:
            chunk = await asyncio.to_thread(os.pread, fd, min(end - offset, WRITE_CHUNK), offset)
            if not chunk:
                raise ShortFile(f"{end - offset} bytes are lacking")
            await self.send(chunk)
            offset += len(chunk)

    async def send(self, data: bytes | memoryview) -> None:
        """Send bytes that are in memory, a piece at a time, so that a slow client holds little of them."""
        view = memoryview(data)
        for start in range(0, len(view), WRITE_CHUNK):
            async with _stall_limit(self._stall_s):
                await self._writer.write(view[start : start + WRITE_CHUNK])
                await self._writer.drain()


class _Pump:
    """Lets the kernel copy a part of a file onto a socket, each time that the socket takes more."""

    def __init__(self, socket_fd: int, fd: int, offset: int, end: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._socket_fd = socket_fd
        self._fd = fd
        self._offset = offset
        self._end = end
        self._done: asyncio.Future[None] = self._loop.create_future()
        self._timer: asyncio.TimerHandle | None = None

    async def run(self, stall_s: float) -> int:
        """Return the offset that was reached: the end, or where this file system turned out to know no sendfile."""
        self._step()
        if not self._done.done():
            self._loop.add_writer(self._socket_fd, self._step)
            self._watch(stall_s, None)
        try:
            await self._done
        finally:
            if self._timer is not None:
                self._loop.remove_writer(self._socket_fd)
                self._timer.cancel()
        return self._offset

    def _step(self) -> None:
        """Send a piece; between two pieces everybody else has a turn."""
        if self._done.done():
            return
        try:
            sent = os.sendfile(self._socket_fd, self._fd, self._offset, min(self._end - self._offset, SENDFILE_CHUNK))
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno in _NO_SENDFILE:
                self._done.set_result(None)
            else:
                self._done.set_exception(error)
            return
        self._offset += sent
        if sent == 0:
            self._done.set_exception(ShortFile(f"{self._end - self._offset} bytes are lacking"))
        elif self._offset == self._end:
            self._done.set_result(None)

    def _watch(self, stall_s: float, seen: int | None) -> None:
        """Give up when nothing was taken since the last look."""
        if self._offset == seen and not self._done.done():
            self._done.set_exception(ConnectionAbortedError("the client takes nothing"))
        self._timer = self._loop.call_later(stall_s, self._watch, stall_s, self._offset)


class SmallBody(web.Response):
    """A body of some kilobytes that goes out in one write with its headers."""

    _sent_by: asyncio.Transport | None = None

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        self._sent_by = request.transport
        return await super().prepare(request)

    async def write_eof(self, data: bytes = b"") -> None:
        """Write all of it. Only behind replies that the client has not taken yet can this wait at all."""
        if self._sent_by is None or self._sent_by.get_write_buffer_size() == 0:
            return await super().write_eof(data)
        try:
            async with _stall_limit(STALL_S):
                return await super().write_eof(data)
        except ConnectionError:
            self._sent_by.abort()
            raise


@contextlib.asynccontextmanager
async def _stall_limit(seconds: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise ConnectionAbortedError("the client takes nothing") from None
