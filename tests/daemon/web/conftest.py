"""Each test of the web room runs on both event loops: uvloop has no sendfile and other transports than asyncio."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import pytest
import uvloop

from tests.support.web import Site, SlowSource, running_site, slow_source


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with running_site(tmp_path) as running:
        yield running


@pytest.fixture
async def source(site: Site) -> AsyncIterator[SlowSource]:
    """A source that `site` fetches from."""
    from firthd.upstream.source import Source

    async with slow_source() as running:
        site.source = Source(url=running.url)
        yield running
