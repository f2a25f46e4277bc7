"""A daemon in an environment that names a proxy asks its sources through it."""

from pathlib import Path

import pytest

from tests.support.conda import sample_channel
from tests.support.daemon import DaemonProcess
from tests.support.proxy import small_proxy
from tests.support.upstream import FaultyUpstream


@pytest.mark.deep
@pytest.mark.e2e
async def test_the_daemon_heeds_the_environment(tmp_path: Path) -> None:
    source = sample_channel(tmp_path / "source")
    async with FaultyUpstream(folder=source.path) as upstream, small_proxy() as proxy:
        environ = {"HTTP_PROXY": proxy.url, "http_proxy": proxy.url, "NO_PROXY": "", "no_proxy": ""}
        async with DaemonProcess(tmp_path, environ=environ) as process:
            client = await process.start()
            found = await client.call("mirror.check", type="conda", source=upstream.url)
            assert "noarch" in found.subdirs
            assert ("GET", f"{upstream.url}/noarch/repodata.json.zst") in proxy.asked
            assert len(proxy.asked) == len(upstream.requests)
