from collections.abc import AsyncIterator

import pytest

from firthd.config import UpstreamSettings
from firthd.upstream.client import Upstream
from tests.support.clock import FakeClock
from tests.support.upstream import FaultyUpstream


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(auto=True)


@pytest.fixture
async def server() -> AsyncIterator[FaultyUpstream]:
    async with FaultyUpstream() as server:
        yield server


@pytest.fixture
async def upstream(clock: FakeClock) -> AsyncIterator[Upstream]:
    upstream = Upstream(UpstreamSettings(timeout_s=5), clock, jitter=lambda: 0.5)
    await upstream.start()
    yield upstream
    await upstream.close()
