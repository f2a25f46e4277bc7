"""The only place that holds bytes from sources back: a limit for each mirror, and one for all of them together."""

import asyncio
from collections import deque

from msgspec import Struct

from firthd.clock import Clock, utc

_GRAIN_S = 0.01
"""A shorter wait is not waited but added to the next: timers are no finer."""
_LEAST, _MOST = 1024, 65_536
_IDLE_S = 0.25
"""What a flow that paused for longer did not use is not made up for."""


class Hours(Struct, frozen=True):
    """Hours of the UTC day, from one on and before another; 22-6 goes over midnight."""

    first: int
    end: int

    def hold(self, now_ms: int) -> bool:
        hour = utc(now_ms).hour
        if self.first < self.end:
            return self.first <= hour < self.end
        return hour >= self.first or hour < self.end


class RateLimit(Struct, frozen=True, kw_only=True):
    """Who brings bytes, and how many a second he may; `bytes_s` None: as many as come."""

    who: int = 0  # the mirror
    bytes_s: int | None = None
    hours: Hours | None = None  # None: always

    def now(self, now_ms: int) -> int | None:
        """Return the bytes a second that hold at a moment."""
        return self.bytes_s if self.hours is None or self.hours.hold(now_ms) else None


def parse_hours(text: str | None) -> Hours | None:
    """Return what `8-18` means; both ends the same is all day."""
    if text is None:
        return None
    first, _, end = text.partition("-")
    return Hours(int(first), int(end))


class _Line:
    """One limit, given away chunk by chunk: of those who wait, to who has had the least."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._waiting: dict[object, deque[tuple[asyncio.Future[None], int]]] = {}
        self._had: dict[object, int] = {}  # bytes, as if nobody had ever paused
        self._level = 0  # what who was served last had before
        self._taken = False
        self._free_at = 0.0  # monotonic seconds

    async def take(self, who: object, size: int, bytes_s: int) -> None:
        """Wait until these bytes are within the limit; cancelled, nobody else waits for longer."""
        await self._turn(who, size)
        try:
            now = self._clock.monotonic()
            self._free_at = max(self._free_at, now - _IDLE_S) + size / bytes_s
            if self._free_at - now > _GRAIN_S:
                await self._clock.sleep(self._free_at - now)
        except asyncio.CancelledError:
            self._free_at = min(self._free_at, self._clock.monotonic())
            raise
        finally:
            self._pass_on()

    async def _turn(self, who: object, size: int) -> None:
        if who not in self._waiting:
            self._had[who] = max(self._had.get(who, 0), self._level)  # what was not used is not made up for
        if not self._taken:
            self._taken = True
            self._serve(who, size)
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(who, deque()).append((turn, size))
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # it was given at the same moment
                self._pass_on()
            raise

    def _serve(self, who: object, size: int) -> None:
        self._level = self._had[who]
        self._had[who] += size

    def _pass_on(self) -> None:
        while self._waiting:
            who = min(self._waiting, key=lambda one: self._had[one])
            queue = self._waiting[who]
            turn, size = queue.popleft()
            if not queue:
                del self._waiting[who]
            if not turn.done():
                self._serve(who, size)
                turn.set_result(None)
                return
        self._taken = False
        self._had = {who: had for who, had in self._had.items() if had > self._level}

    @property
    def idle(self) -> bool:
        return not self._taken and self._free_at <= self._clock.monotonic()


class Shaper:
    """Lets bytes through at the rates that hold now; runs and clients of a mirror take turns."""

    def __init__(self, clock: Clock, bytes_s: int | None = None, hours: Hours | None = None) -> None:
        self._clock = clock
        self._common = RateLimit(bytes_s=bytes_s, hours=hours)
        self._all = _Line(clock)
        self._lines: dict[int, _Line] = {}

    def free(self, limit: RateLimit) -> bool:
        """Tell whether nothing is ever held back of what a mirror brings, whatever the hour."""
        return limit.bytes_s is None and self._common.bytes_s is None

    def piece(self, limit: RateLimit) -> int | None:
        """Return how many bytes to take at a time, so that what is held back still flows; None: all that there are."""
        if self.free(limit):
            return None
        now = self._clock.now_ms()
        rates = [rate for rate in (limit.now(now), self._common.now(now)) if rate is not None]
        return min(_MOST, max(_LEAST, min(rates) // 4)) if rates else None

    async def passed(self, limit: RateLimit, lane: object, size: int) -> None:
        """Wait until so many bytes more may have come for a mirror, in one of its lanes."""
        now = self._clock.now_ms()
        own, common = limit.now(now), self._common.now(now)
        if own is not None:
            line = self._lines.get(limit.who)
            if line is None:
                self._lines = {who: line for who, line in self._lines.items() if not line.idle}
                line = self._lines[limit.who] = _Line(self._clock)
            await line.take(lane, size, own)
        if common is not None:
            await self._all.take((limit.who, lane), size, common)
