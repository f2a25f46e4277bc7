"""A fixed number of turns: the first in line is who is pressed, then who came first."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Turns:
    """Gives at most `count` turns at once."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._waiting: dict[bool, deque[asyncio.Future[None]]] = {True: deque(), False: deque()}

    @property
    def none_free(self) -> bool:
        """Whether somebody who comes now would have to wait."""
        return self._free <= 0

    @asynccontextmanager
    async def turn(self, *, pressed: bool = False) -> AsyncIterator[None]:
        """Hold a turn; whoever is pressed gets the next one that is free, before all who are not."""
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[pressed].append(mine)
        self._deal()
        try:
            await mine
        except asyncio.CancelledError:
            if mine.cancelled():
                self._waiting[pressed].remove(mine)
            else:  # it was given at the same moment
                self._free += 1
                self._deal()
            raise
        try:
            yield
        finally:
            self._free += 1
            self._deal()

    def _deal(self) -> None:
        for line in (self._waiting[True], self._waiting[False]):
            for one in [one for one in line if not one.done()][: max(0, self._free)]:
                line.remove(one)
                self._free -= 1
                one.set_result(None)
