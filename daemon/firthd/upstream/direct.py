"""The only place that receives a body in a thread: straight from its socket, through one piece of memory.

What comes fast is neither copied from hand to hand nor told of chunk by chunk. A source that sends nothing keeps no
thread: it is waited for in the loop.
"""

import asyncio
import os
import select
import socket
from collections.abc import Callable, Sequence

import aiohttp

from firthd.clock import Clock
from firthd.upstream.files import in_thread

LEAST_BYTES = 1024 * 1024
"""Of a body that is worth it."""
BUFFER_BYTES = 1024 * 1024
TOLD_BYTES = 1024 * 1024
"""Bytes after which the loop hears of them."""
TURN_BYTES = 32 * 1024 * 1024
"""Bytes after which a thread is given back: other files wait for theirs."""
DRY_S = 0.005
"""Seconds that a thread waits for more before it is given back."""

Take = Callable[[memoryview], None]
"""Takes bytes in a thread; they are gone when it returns."""
Came = Callable[[int, float], None]
"""Hears in the loop of so many bytes more, and for how many seconds the source was waited for.

Of none it hears when the source is waited for again, and may raise then."""


class Direct:
    """The rest of a body, `left` bytes, on a socket from which nobody else reads meanwhile. To be closed."""

    def __init__(self, fd: int, left: int, clock: Clock, loop: asyncio.AbstractEventLoop) -> None:
        self.left = left
        self._socket = socket.socket(fileno=os.dup(fd))
        self._clock = clock
        self._loop = loop
        self._buffer = memoryview(bytearray(min(left, BUFFER_BYTES)))
        self._waited_s = 0.0

    def close(self) -> None:
        self._socket.close()

    async def pump(self, before: Sequence[bytes | memoryview], take: Take, came: Came, *, silent_s: float) -> None:
        """Give `take` the bytes `before` and all that is left; nothing goes on once this has ended.

        Raises TimeoutError when nothing comes for so long, EOFError when the source ends, aiohttp.ClientOSError when
        the connection breaks, and what `take` raises.
        """
        while before or self.left:
            dry = await in_thread(self._turn, before, take, came)
            before = ()
            if dry:
                waited_s, self._waited_s = self._waited_s, 0.0
                came(0, waited_s)
                await self._readable(silent_s)

    def _turn(self, before: Sequence[bytes | memoryview], take: Take, came: Came) -> bool:
        """Take what comes as long as it comes fast, in a thread; return whether it has to be waited for."""
        untold = 0
        try:
            for chunk in before:
                take(memoryview(chunk))
                untold += len(chunk)
            end = max(0, self.left - TURN_BYTES)
            while self.left > end:
                if not (size := self._received()):
                    return True
                take(self._buffer[:size])
                self.left -= size
                untold += size
                if untold >= TOLD_BYTES:
                    self._tell(came, untold)
                    untold = 0
            return False
        finally:
            if untold:
                self._tell(came, untold)

    def _received(self) -> int:
        """Receive some bytes; return how many, 0 when none come for a while."""
        while True:
            try:
                size = self._socket.recv_into(self._buffer[: self.left])
            except BlockingIOError:
                if self._more():
                    continue
                return 0
            except OSError as error:
                raise aiohttp.ClientOSError(*error.args) from None
            if not size:
                raise EOFError
            return size

    def _more(self) -> bool:
        began = self._clock.monotonic()
        waiting = select.poll()
        waiting.register(self._socket, select.POLLIN)
        found = waiting.poll(DRY_S * 1000)
        self._waited_s += self._clock.monotonic() - began
        return bool(found)

    def _tell(self, came: Came, size: int) -> None:
        waited_s, self._waited_s = self._waited_s, 0.0
        self._loop.call_soon_threadsafe(came, size, waited_s)

    async def _readable(self, within_s: float) -> None:
        ready = self._loop.create_future()
        self._loop.add_reader(self._socket, _set, ready)
        began = self._clock.monotonic()
        try:
            async with asyncio.timeout(within_s):
                await ready
        finally:
            self._loop.remove_reader(self._socket)
            self._waited_s += self._clock.monotonic() - began


def _set(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
