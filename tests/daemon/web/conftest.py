"""Each test of the web room runs on both event loops: uvloop has no sendfile and other transports than asyncio."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import pytest
import uvloop

from firthd.upstream.source import Source
from tests.support.upstream import FaultyUpstream
from tests.support.web import Site, running_site


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with running_site(tmp_path) as running:
        yield running


@pytest.fixture
async def source(site: Site) -> AsyncIterator[FaultyUpstream]:
    """A source that `site` fetches from."""
    async with FaultyUpstream() as upstream:
        site.source = Source(url=upstream.url)
        yield upstream
