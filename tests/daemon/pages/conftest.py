"""A server two hours after everything was published. One event loop will do: bytes are sent as everywhere."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.clock import FakeClock
from tests.support.web import PUBLISHED_MS, Site, running_site


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with running_site(tmp_path, clock=FakeClock(PUBLISHED_MS + 2 * 3_600_000, auto=True)) as running:
        yield running
