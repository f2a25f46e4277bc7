"""The only place that knows how many requests one host may have in flight, and which host asked us to wait."""

import asyncio
from collections import Counter, deque
from enum import IntEnum

from firthd.clock import Clock

KEPT_FREE = 2
"""Connections to a host that neither clients' fetches nor runs' downloads take: each finds some beside the other."""


class Lane(IntEnum):
    """Why a host is asked; when a connection gets free, the lowest lane that may have one more is served first."""

    INDEX = 0  # what stands at an address, a part of an index: short, and a whole run waits for it
    CLIENT = 1  # a file that a client waits for
    RUN = 2  # a file that a run brings


_LANES = tuple(Lane)


class Held(Exception):
    """The host asked us to stay away for longer than the caller is willing to wait."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"asked us to wait {seconds:.0f} s")
        self.seconds = seconds


class _Host:
    def __init__(self) -> None:
        self.in_flight: Counter[Lane] = Counter()
        self.waiting: dict[Lane, deque[asyncio.Future[None]]] = {lane: deque() for lane in _LANES}
        self.users = 0
        self.free_at = 0.0  # monotonic seconds; before this moment nothing is asked


class Hosts:
    """One budget a host, shared by all mirrors and by clients' own fetches; no lane can use all of it."""

    def __init__(self, limit: int, clock: Clock) -> None:
        self._limit = limit
        self._clock = clock
        self._hosts: dict[str, _Host] = {}

    def slot(self, name: str, *, patience_s: float, lane: Lane = Lane.INDEX) -> "Slot":
        """Hold one of the host's connections; raise Held when the host asked for a longer pause than `patience_s`."""
        return Slot(self, name, patience_s, lane)

    async def enter(self, name: str, patience_s: float, lane: Lane) -> _Host:
        """Take one of a host's connections, which `leave` gives back; raise Held as `slot` does."""
        host = self._hosts.get(name)
        if host is None:
            host = self._hosts[name] = _Host()
        host.users += 1
        try:
            await self._enter(host, patience_s, lane)
        except BaseException:
            self._gone(name, host)
            raise
        return host

    def leave(self, name: str, host: _Host, lane: Lane) -> None:
        self._release(host, lane)
        self._gone(name, host)

    def hold(self, name: str, seconds: float) -> None:
        """Let nothing be asked of the host for so long (it sent Retry-After)."""
        host = self._hosts.setdefault(name, _Host())
        host.free_at = max(host.free_at, self._clock.monotonic() + seconds)

    async def _enter(self, host: _Host, patience_s: float, lane: Lane) -> None:
        while True:
            pause = host.free_at - self._clock.monotonic()
            if pause > patience_s:
                raise Held(pause)
            if pause > 0:
                await self._clock.sleep(pause)
            await self._acquire(host, lane)
            if host.free_at <= self._clock.monotonic():
                return
            self._release(host, lane)  # the host asked for a pause while we stood in the queue

    async def _acquire(self, host: _Host, lane: Lane) -> None:
        if not any(host.waiting.values()) and self._free(host, lane) > 0:
            host.in_flight[lane] += 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        host.waiting[lane].append(turn)
        self._deal(host)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                host.waiting[lane].remove(turn)
            else:  # it was given at the same moment
                self._release(host, lane)
            raise

    def _release(self, host: _Host, lane: Lane) -> None:
        host.in_flight[lane] -= 1
        self._deal(host)

    def _deal(self, host: _Host) -> None:
        """Give free connections away: lane by lane, inside a lane by arrival."""
        for lane in _LANES:
            if not host.waiting[lane]:
                continue
            waiting = [turn for turn in host.waiting[lane] if not turn.done()]
            for turn in waiting[: max(0, self._free(host, lane))]:
                host.waiting[lane].remove(turn)
                host.in_flight[lane] += 1
                turn.set_result(None)

    def _free(self, host: _Host, lane: Lane) -> int:
        """Return how many connections a lane may have more."""
        most = self._limit if lane is Lane.INDEX else lane_limit(self._limit)
        in_flight = host.in_flight
        return min(self._limit - sum(in_flight.values()), most - in_flight[lane])

    def _gone(self, name: str, host: _Host) -> None:
        host.users -= 1
        # Redirects name hosts too, so the table must not only grow.
        if host.users == 0 and host.free_at <= self._clock.monotonic():
            self._hosts.pop(name, None)


class Slot:
    """One of a host's connections, for as long as `async with` lasts. A class: there is one for every file."""

    def __init__(self, hosts: Hosts, name: str, patience_s: float, lane: Lane) -> None:
        self._hosts = hosts
        self._name = name
        self._patience_s = patience_s
        self._lane = lane
        self._host: _Host | None = None

    async def __aenter__(self) -> None:
        self._host = await self._hosts.enter(self._name, self._patience_s, self._lane)

    async def __aexit__(self, *_: object) -> None:
        self.leave()

    def leave(self) -> None:
        """Give the connection to whoever waits for one."""
        host, self._host = self._host, None
        if host is not None:
            self._hosts.leave(self._name, host, self._lane)


def lane_limit(limit: int) -> int:
    """Return how many of a host's connections clients' fetches, or runs' downloads, may have at once."""
    return max(1, limit - min(KEPT_FREE, limit // 4))
