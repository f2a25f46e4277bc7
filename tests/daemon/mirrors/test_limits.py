"""Indexes larger than any: the run fails with the limit and its setting, nothing is left of them, others go on."""

import gzip
from pathlib import Path

import pytest
import zstandard

from firth_protocol.types import RunState
from firthd.config import UpstreamSettings
from tests.support.daemon import settings_in
from tests.support.upstream import Fault, FaultyUpstream
from tests.support.world import world

MAX = 1 << 20


def bomb(size: int) -> bytes:
    """Return blanks as zstd that decompress to `size` bytes without saying so beforehand."""
    packer = zstandard.ZstdCompressor(level=3).compressobj()
    return b"".join(packer.compress(b" " * (1 << 20)) for _ in range(size >> 20)) + packer.flush()


@pytest.mark.parametrize("form", ["zst", "json", "endless"])
async def test_index_over_the_limit_ends_its_run_and_leaves_nothing(tmp_path: Path, form: str) -> None:
    settings = settings_in(tmp_path, upstream=UpstreamSettings(timeout_s=5, max_index_bytes=MAX))
    files = (
        {"noarch/repodata.json.zst": bomb(64 << 20)}
        if form == "zst"
        else {"noarch/repodata.json": b"{" + b" " * (2 * MAX)}
    )
    async with world(tmp_path, settings=settings) as w, FaultyUpstream(files) as hostile:
        await w.mirror("passive", name="big", source=hostile.url, check=False, filters={"subdirs": ["noarch"]})
        if form == "endless":
            hostile.fail("noarch/repodata.json", Fault(chunked=True), times=None)
        run = await w.run("main:big")
        assert run.state is RunState.FAILED
        assert run.error is not None
        assert f"{MAX:,}" in run.error.message
        assert "upstream.max_index_bytes" in run.error.hint
        sources = w.daemon.state / "sources"
        assert [file for file in sources.rglob("*") if file.is_file()] == []
        await w.mirror("passive")
        assert (await w.run()).state is RunState.COMPLETED


async def test_encoded_index_is_never_unpacked_beyond_the_limit(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, upstream=UpstreamSettings(timeout_s=5, max_index_bytes=MAX))
    async with world(tmp_path, settings=settings) as w, FaultyUpstream() as hostile:
        for name in ("noarch/repodata.json", "noarch/repodata.json.zst"):
            hostile.files[name] = gzip.compress(b" " * (64 << 20))
            hostile.fail(name, Fault(headers={"Content-Encoding": "gzip"}), times=None)
        await w.mirror("passive", name="big", source=hostile.url, check=False, filters={"subdirs": ["noarch"]})
        assert (await w.run("main:big")).state is RunState.FAILED
        assert [file for file in (w.daemon.state / "sources").rglob("*") if file.is_file()] == []
