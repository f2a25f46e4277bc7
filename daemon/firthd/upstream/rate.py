"""The only place that measures how fast bytes come in: from all sources together, for one run, in one answer."""

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


class Pace:
    """Tells whether bytes came too slowly over a sliding window, measured on whatever seconds the caller counts."""

    def __init__(self, window_s: float) -> None:
        self.window_s = window_s
        self._marks: deque[tuple[float, int]] = deque()  # (when it began, bytes), the oldest first
        self._sum = 0
        self._began: float | None = None

    def add(self, now_s: float, size: int) -> None:
        """Count `size` bytes (none: the window begins here if it has not) at this moment."""
        if self._began is None:
            self._began = now_s
        self._sum += size
        if self._marks and now_s - self._marks[-1][0] < self.window_s / 60:
            began, counted = self._marks[-1]
            self._marks[-1] = (began, counted + size)
        elif size:
            self._marks.append((now_s, size))
            self._forget(now_s)

    def below(self, now_s: float, bytes_s: float) -> bool:
        """Tell whether less than `bytes_s` a second came; never before a whole window has passed."""
        if self._began is None or now_s - self._began < self.window_s:
            return False
        self._forget(now_s)
        return self._sum < bytes_s * self.window_s

    def _forget(self, now_s: float) -> None:
        while self._marks and now_s - self._marks[0][0] > self.window_s:
            self._sum -= self._marks.popleft()[1]
