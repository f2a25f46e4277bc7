"""The only place that measures the daemon itself: stall of the event loop, memory, and the metrics page."""

import asyncio
import resource
from array import array
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from msgspec import Struct
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from firth_protocol.types import LoopLag
from firthd.clock import Clock

SAMPLE_S = 0.01
_BUCKET_S = 0.0005
_BUCKETS = 4000  # up to 2 s; what is longer counts as the last
_WINDOW = 60_000  # samples that are remembered: ten minutes


class LoopSampler:
    """Sleeps 10 ms over and over and counts how much later than that it wakes up."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._counts = [0] * _BUCKETS
        self._ring = array("H", bytes(2 * _WINDOW))
        self._place = 0
        self._samples = 0
        self._longest_s = 0.0

    async def serve(self) -> None:
        """Sample until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            before = loop.time()
            await asyncio.sleep(SAMPLE_S)
            self.add(loop.time() - before - SAMPLE_S)

    def add(self, late_s: float) -> None:
        """Count one sample, seconds."""
        bucket = max(0, min(_BUCKETS - 1, int(late_s / _BUCKET_S)))
        if self._samples >= _WINDOW:
            self._counts[self._ring[self._place]] -= 1
        self._ring[self._place] = bucket
        self._counts[bucket] += 1
        self._place = (self._place + 1) % _WINDOW
        self._samples += 1
        self._longest_s = max(self._longest_s, late_s)

    def lag(self) -> LoopLag:
        """Return the stall over the last ten minutes; `max_ms` since the start."""
        seen = min(self._samples, _WINDOW)
        return LoopLag(
            p50_ms=self._quantile(seen, 0.5),
            p99_ms=self._quantile(seen, 0.99),
            max_ms=round(self._longest_s * 1000, 1),
            samples=self._samples,
        )

    def _quantile(self, seen: int, share: float) -> float:
        rest = seen * share
        for bucket, count in enumerate(self._counts):
            rest -= count
            if rest <= 0 and seen:
                return bucket * _BUCKET_S * 1000
        return 0.0


def rss_bytes() -> int:
    """Return the daemon's resident memory in bytes (proc(5), statm)."""
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * resource.getpagesize()


class Sample(Struct, frozen=True, kw_only=True):
    """One number that there are several of, told apart by its labels."""

    name: str
    text: str
    labels: Mapping[str, str]
    value: float


class _Page(Collector):
    def __init__(self, values: Mapping[str, tuple[str, float]], samples: Iterable[Sample]) -> None:
        self._values = values
        self._samples = samples

    def collect(self) -> Iterator[Metric]:
        for name, (text, value) in self._values.items():
            yield GaugeMetricFamily(name, text, value=value)
        families: dict[str, GaugeMetricFamily] = {}
        for one in self._samples:
            if one.name not in families:
                families[one.name] = GaugeMetricFamily(one.name, one.text, labels=list(one.labels))
            families[one.name].add_metric(list(one.labels.values()), one.value)
        yield from families.values()


def page(values: Mapping[str, tuple[str, float]], samples: Iterable[Sample] = ()) -> bytes:
    """Return Prometheus' page; `values` is name → (help, value). 20 ms for the mirrors of a large house."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Page(values, samples))
    return generate_latest(registry)
