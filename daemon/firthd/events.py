"""The only place that hands events to their readers: facts in order, progress coalesced, slow readers cut off."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from firth_protocol.errors import CursorExpired
from firth_protocol.events import LOST, PROGRESS, READER_LIMIT, Topic, cursor
from firth_protocol.types import Event
from firthd.clock import Clock, rfc3339

PROGRESS_INTERVAL_S = 0.25
"""A run's progress is told at most four times a second."""
REPLAY_PAGE = 200

Replay = Callable[[int, int], Awaitable[list[tuple[int, Event]]]]
"""(after, limit) → the next facts after that number, as (number, event)."""
Span = Callable[[], Awaitable[tuple[int, int]]]
"""() → the number before the oldest fact kept, and that of the newest."""


class _Subscription:
    def __init__(self, topics: frozenset[str] | None, visible: Callable[[Event], bool]) -> None:
        self.topics = topics
        self.visible = visible
        self.facts: deque[tuple[int, Event]] = deque()
        self.progress: dict[int, Event] = {}
        self.lost = False
        self.closed = False
        self.wake = asyncio.Event()

    def wants(self, event: Event) -> bool:
        return (self.topics is None or event.topic in self.topics) and self.visible(event)

    def offer(self, seq: int, event: Event) -> None:
        if self.lost or not self.wants(event):
            return
        if len(self.facts) >= READER_LIMIT:
            self.lost = True
            self.facts.clear()
            self.progress.clear()
        else:
            self.facts.append((seq, event))
        self.wake.set()


class _Progress:
    def __init__(self) -> None:
        self.told_at = float("-inf")
        self.waiting: Event | None = None
        self.timer: asyncio.TimerHandle | None = None


class EventHub:
    """Facts arrive from the journal after their commit, in order; readers follow from a cursor."""

    def __init__(self, epoch: str, clock: Clock, replay: Replay, span: Span) -> None:
        self.epoch = epoch
        self._clock = clock
        self._replay = replay
        self._span = span
        self._subscriptions: set[_Subscription] = set()
        self._progress: dict[int, _Progress] = {}

    def publish(self, seq: int, event: Event) -> None:
        """Hand a committed fact to every reader."""
        for subscription in self._subscriptions:
            subscription.offer(seq, event)

    def progress(self, run: int, ids: dict[str, Any], data: dict[str, Any]) -> None:
        """Tell a run's progress; of values that come faster than four a second the newest wins."""
        event = Event(time=rfc3339(self._clock.now_ms()), topic=Topic.PROGRESS, type=PROGRESS, ids=ids, data=data)
        state = self._progress.setdefault(run, _Progress())
        loop = asyncio.get_running_loop()
        wait = state.told_at + PROGRESS_INTERVAL_S - loop.time()
        state.waiting = event
        if wait <= 0:
            self._tell(run)
        elif state.timer is None:
            state.timer = loop.call_later(wait, self._tell, run)

    def forget_progress(self, run: int) -> None:
        """Drop what is left of a run's progress; called when it has ended."""
        state = self._progress.pop(run, None)
        if state is not None and state.timer is not None:
            state.timer.cancel()
        for subscription in self._subscriptions:  # a slow reader is not told of it after the end
            subscription.progress.pop(run, None)

    def _tell(self, run: int) -> None:
        state = self._progress.get(run)
        if state is None or state.waiting is None:
            return
        if state.timer is not None:
            state.timer.cancel()
            state.timer = None
        state.told_at = asyncio.get_running_loop().time()
        event, state.waiting = state.waiting, None
        for subscription in self._subscriptions:
            if subscription.wants(event):
                subscription.progress[run] = event
                subscription.wake.set()

    @asynccontextmanager
    async def subscribe(
        self,
        topics: frozenset[str] | None = None,
        after: int | None = None,
        visible: Callable[[Event], bool] = lambda event: True,
    ) -> AsyncIterator[AsyncIterator[Event]]:
        """Give the events after number `after` (None: from now on), facts strictly in order.

        Raises CursorExpired at entry when facts after that number are no longer kept, or it is not reached yet.
        A reader that falls READER_LIMIT facts behind gets one event of type `lost`, then the end.
        """
        subscription = _Subscription(topics, visible)
        self._subscriptions.add(subscription)
        try:
            if after is not None:
                oldest, newest = await self._span()
                if after < oldest or after > newest:
                    raise CursorExpired(
                        "the events after this cursor are no longer kept",
                        hint="list again and follow from its as_of",
                    )
            yield self._iterate(subscription, after)
        finally:
            self._subscriptions.discard(subscription)

    async def _iterate(self, subscription: _Subscription, after: int | None) -> AsyncIterator[Event]:
        last = 0
        if after is not None:
            last = after
            while page := await self._replay(last, REPLAY_PAGE):
                for seq, event in page:
                    last = seq
                    if subscription.wants(event):
                        yield event
        while True:
            while subscription.facts:
                seq, event = subscription.facts.popleft()
                if seq > last:
                    yield event
            if subscription.lost:
                yield Event(time=rfc3339(self._clock.now_ms()), topic=Topic.DAEMON, type=LOST)
                return
            if subscription.progress:
                told, subscription.progress = subscription.progress, {}
                for event in told.values():
                    yield event
                continue
            if subscription.closed:
                return
            subscription.wake.clear()
            await subscription.wake.wait()

    def close(self) -> None:
        """End every reader's stream after what it still has to read."""
        for subscription in self._subscriptions:
            subscription.closed = True
            subscription.wake.set()
        for state in self._progress.values():
            if state.timer is not None:
                state.timer.cancel()
        self._progress.clear()

    def cursor(self, seq: int) -> str:
        return cursor(self.epoch, seq)
