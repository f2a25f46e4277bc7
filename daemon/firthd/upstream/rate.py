"""The only place that measures how fast bytes come in: from all sources together, and for one run."""

from collections import deque

from firthd.clock import Clock

WINDOW_S = 5.0
_BUCKET_S = 0.25


class Meter:
    """Counts received bytes over a sliding window of five seconds."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._buckets: deque[tuple[float, int]] = deque()  # (when it began, bytes), the oldest first

    def add(self, size: int) -> None:
        now = self._clock.monotonic()
        if self._buckets and now - self._buckets[-1][0] < _BUCKET_S:
            began, counted = self._buckets[-1]
            self._buckets[-1] = (began, counted + size)
        else:
            self._buckets.append((now, size))
            self._forget(now)

    def bytes_s(self) -> float:
        """Return bytes a second over the last five seconds, or since the flow began, but over one second at least."""
        now = self._clock.monotonic()
        self._forget(now)
        if not self._buckets:
            return 0.0
        return sum(size for _, size in self._buckets) / max(1.0, now - self._buckets[0][0])

    def _forget(self, now: float) -> None:
        while self._buckets and now - self._buckets[0][0] >= WINDOW_S:
            self._buckets.popleft()
