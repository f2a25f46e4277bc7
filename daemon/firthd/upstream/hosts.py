"""The only place that knows how many requests one host may have in flight, and which host asked us to wait."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from firthd.clock import Clock


class Held(Exception):
    """The host asked us to stay away for longer than the caller is willing to wait."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"asked us to wait {seconds:.0f} s")
        self.seconds = seconds


class _Host:
    def __init__(self, limit: int) -> None:
        self.slots = asyncio.Semaphore(limit)
        self.users = 0
        self.free_at = 0.0  # monotonic seconds; before this moment nothing is asked


class Hosts:
    """One budget a host, shared by all mirrors and by clients' own fetches."""

    def __init__(self, limit: int, clock: Clock) -> None:
        self._limit = limit
        self._clock = clock
        self._hosts: dict[str, _Host] = {}

    @asynccontextmanager
    async def slot(self, name: str, *, patience_s: float) -> AsyncIterator[None]:
        """Hold one of the host's connections; raise Held when the host asked for a longer pause than `patience_s`."""
        host = self._hosts.setdefault(name, _Host(self._limit))
        host.users += 1
        try:
            await self._enter(host, patience_s)
            try:
                yield
            finally:
                host.slots.release()
        finally:
            host.users -= 1
            self._forget(name, host)

    def hold(self, name: str, seconds: float) -> None:
        """Let nothing be asked of the host for so long (it sent Retry-After)."""
        host = self._hosts.setdefault(name, _Host(self._limit))
        host.free_at = max(host.free_at, self._clock.monotonic() + seconds)

    async def _enter(self, host: _Host, patience_s: float) -> None:
        while True:
            pause = host.free_at - self._clock.monotonic()
            if pause > patience_s:
                raise Held(pause)
            if pause > 0:
                await self._clock.sleep(pause)
            await host.slots.acquire()
            if host.free_at <= self._clock.monotonic():
                return
            host.slots.release()  # the host asked for a pause while we stood in the queue

    def _forget(self, name: str, host: _Host) -> None:
        # Redirects name hosts too, so the table must not only grow.
        if host.users == 0 and host.free_at <= self._clock.monotonic():
            self._hosts.pop(name, None)
