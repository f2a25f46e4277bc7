"""The only place that receives a body in a thread: straight from its socket, through one piece of memory.

What comes fast is neither copied from hand to hand nor told of chunk by chunk. A source that does not send so fast
keeps no thread: what is left of its body is read in the loop.
"""

import asyncio
import select
import socket
from collections.abc import Callable, Sequence

import aiohttp

from firthd.clock import Clock
from firthd.threads import in_thread

LEAST_BYTES = 1024 * 1024
"""Of a body that is worth it."""
FAST_BYTES_S = 16_000_000
"""A source that sends less does not keep a thread busy."""
BUFFER_BYTES = 262_144
TOLD_BYTES = 1024 * 1024
"""Bytes after which the loop hears of them."""
TURN_S = 0.02
"""Seconds after which a thread is given back: other files wait for theirs."""
DRY_S = 0.005
"""Seconds that a thread waits for more, and after which it looks how fast that comes."""

Take = Callable[[memoryview], None]
"""Takes bytes in a thread; they are gone when it returns."""
Came = Callable[[int], None]
"""Hears in the loop of so many bytes more."""


class Direct:
    """The rest of a body, `left` bytes, on a socket from which nobody else reads meanwhile. To be closed."""

    def __init__(self, connection: socket.socket, left: int, clock: Clock, loop: asyncio.AbstractEventLoop) -> None:
        self.left = left
        self._socket = connection
        self._clock = clock
        self._loop = loop
        self._buffer = memoryview(bytearray(min(left, BUFFER_BYTES)))

    def close(self) -> None:
        self._socket.close()

    async def pump(self, before: Sequence[bytes | memoryview], take: Take, came: Came) -> None:
        """Give `take` the bytes `before`, and what is left as long as it comes fast; nothing goes on behind this.

        Raises EOFError when the source ends, aiohttp.ClientOSError when the connection breaks, and what `take` raises.
        """
        while await in_thread(self._turn, before, take, came):
            before = ()

    def _turn(self, before: Sequence[bytes | memoryview], take: Take, came: Came) -> bool:
        """Take what comes, in a thread; return whether more will come as fast."""
        began = self._clock.monotonic()
        moved, told, passed_s = 0, 0, 0.0
        try:
            for chunk in before:
                take(memoryview(chunk))
                moved += len(chunk)
            while self.left and (passed_s := self._clock.monotonic() - began) < TURN_S:
                try:
                    size = self._socket.recv_into(self._buffer[: self.left])
                except BlockingIOError:
                    if (passed_s > DRY_S and moved < passed_s * FAST_BYTES_S) or not self._more():
                        return False
                    continue
                except OSError as error:
                    raise aiohttp.ClientOSError(*error.args) from None
                if not size:
                    raise EOFError
                take(self._buffer[:size])
                self.left -= size
                moved += size
                if moved - told >= TOLD_BYTES:
                    self._loop.call_soon_threadsafe(came, moved - told)
                    told = moved
            return self.left > 0 and moved >= passed_s * FAST_BYTES_S
        finally:
            if moved > told:
                self._loop.call_soon_threadsafe(came, moved - told)

    def _more(self) -> bool:
        waiting = select.poll()
        waiting.register(self._socket, select.POLLIN)
        return bool(waiting.poll(DRY_S * 1000))
