"""The only clock that tests move: time stands still until `advance`, or jumps over every sleep in `auto` mode."""

import asyncio
import heapq
import itertools

START_MS = 1_777_593_600_000
"""2026-05-01T00:00:00Z, where a fake clock begins unless told otherwise."""


class FakeClock:
    """A clock of tests.

    `auto`: a sleep moves the time on and returns at once; `slept` records the seconds of each sleep in either mode.
    """

    def __init__(self, now_ms: int = START_MS, *, auto: bool = False) -> None:
        self.auto = auto
        self.slept: list[float] = []
        self._start_ms = now_ms
        self._passed_s = 0.0
        self._order = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._fell_asleep = asyncio.Condition()

    def now_ms(self) -> int:
        return self._start_ms + round(self._passed_s * 1000)

    def monotonic(self) -> float:
        return self._passed_s

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        if self.auto or seconds <= 0:
            self._passed_s += max(0.0, seconds)
            await asyncio.sleep(0)
            return
        woken = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._passed_s + seconds, next(self._order), woken))
        async with self._fell_asleep:
            self._fell_asleep.notify_all()
        await woken

    @property
    def sleepers(self) -> int:
        """How many sleeps wait for the time to come."""
        return sum(not woken.done() for _, _, woken in self._sleepers)

    async def asleep(self, count: int = 1) -> None:
        """Wait until so many sleeps are waiting."""
        async with asyncio.timeout(5), self._fell_asleep:
            await self._fell_asleep.wait_for(lambda: self.sleepers >= count)

    async def advance(self, seconds: float) -> None:
        """Move the time on, waking each sleeper at its moment; what it does next may sleep again and be woken too."""
        end = self._passed_s + seconds
        while self._sleepers and self._sleepers[0][0] <= end:
            moment, _, woken = heapq.heappop(self._sleepers)
            self._passed_s = max(self._passed_s, moment)
            if not woken.done():
                woken.set_result(None)
                await settle()
        self._passed_s = end
        await settle()


async def settle(rounds: int = 20) -> None:
    """Let the tasks that can run, run: a few turns of the loop without any time passing."""
    for _ in range(rounds):
        await asyncio.sleep(0)
