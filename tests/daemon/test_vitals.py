"""What the daemon measures of itself: the loop's stall, its memory, the metrics page."""

import asyncio
import resource
from collections import deque
from statistics import quantiles

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firthd.vitals import LoopSampler, Sample, page, rss_bytes
from tests.support.clock import FakeClock

WINDOW = 60_000


def test_without_a_sample_nothing_is_claimed() -> None:
    lag = LoopSampler(FakeClock()).lag()
    assert (lag.p50_ms, lag.p99_ms, lag.max_ms, lag.samples) == (0, 0, 0, 0)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-0.001, 2.5), min_size=1, max_size=300))
def test_quantiles_are_those_of_the_samples(late: list[float]) -> None:
    sampler = LoopSampler(FakeClock())
    for one in late:
        sampler.add(one)
    lag = sampler.lag()
    ordered = sorted(min(1.9995, max(0.0, one)) for one in late)
    for share, told in ((0.5, lag.p50_ms), (0.99, lag.p99_ms)):
        rank = max(0, -(-len(ordered) * int(share * 100) // 100) - 1)
        assert told == pytest.approx(ordered[rank] * 1000, abs=0.501)
    assert lag.max_ms == pytest.approx(max(0.0, *late) * 1000, abs=0.051)
    assert lag.samples == len(late)


def test_what_is_older_than_the_window_no_longer_counts_but_the_longest_stall_does() -> None:
    sampler = LoopSampler(FakeClock())
    recent: deque[float] = deque(maxlen=WINDOW)
    for number in range(WINDOW + 5000):
        late = 1.5 if number < 5000 else (number % 100) / 1000
        sampler.add(late)
        recent.append(late)
    cuts = quantiles(recent, n=100)
    lag = sampler.lag()
    assert lag.p50_ms == pytest.approx(cuts[49] * 1000, abs=1)
    assert lag.p99_ms == pytest.approx(cuts[98] * 1000, abs=1.1)
    assert lag.max_ms == 1500


async def test_a_stall_of_the_loop_is_seen() -> None:
    sampler = LoopSampler(FakeClock())
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        task = group.create_task(sampler.serve())
        while sampler.lag().samples < 2:
            await asyncio.sleep(0)
        busy_until = loop.time() + 0.08
        while loop.time() < busy_until:  # what no coroutine should do
            pass
        seen = sampler.lag().samples
        while sampler.lag().samples == seen:
            await asyncio.sleep(0)
        task.cancel()
    assert sampler.lag().max_ms >= 60


def test_resident_memory_is_that_of_this_process() -> None:
    rss = rss_bytes()
    assert 10_000_000 < rss <= resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 * 1.05
    ballast = bytearray(60_000_000)
    ballast[::4096] = b"x" * len(ballast[::4096])
    assert rss_bytes() - rss > 40_000_000


def test_the_page_tells_what_it_is_given() -> None:
    assert page({}) == b""
    told = page({"firth_channels": ("Channels.", 3), "firth_rss_bytes": ("Memory.", 1.5e9)}).decode()
    assert "# HELP firth_channels Channels." in told
    assert "# TYPE firth_channels gauge\nfirth_channels 3.0\n" in told
    assert "firth_rss_bytes 1.5e+09" in told


def test_numbers_that_there_are_several_of_have_labels_that_break_no_line() -> None:
    samples = [
        Sample(name="firth_mirror_bytes", text="Bytes.", labels={"channel": "main", "mirror": name}, value=5)
        for name in ("forge", 'a"b\\c')
    ]
    told = page({}, samples).decode()
    assert told.count("# TYPE firth_mirror_bytes gauge") == 1
    assert 'firth_mirror_bytes{channel="main",mirror="forge"} 5.0\n' in told
    assert 'firth_mirror_bytes{channel="main",mirror="a\\"b\\\\c"} 5.0\n' in told
