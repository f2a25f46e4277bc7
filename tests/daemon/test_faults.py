"""Each kind of fault, in the index and in files, of active and passive mirrors: told with a reason, and overcome."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from firth_protocol.types import Run, RunState
from firthd.config import UpstreamSettings
from tests.support.daemon import Running, in_process_daemon, settings_in
from tests.support.faults import FAMILIES, KINDS, FamilySource, PythonSource
from tests.support.upstream import FaultyUpstream

READ_BY_RUNS = [
    (make, mode) for make in FAMILIES for mode in ("active", "passive") if (make, mode) != (PythonSource, "passive")
]
"""A Python index that a passive mirror has whole is read when clients ask: what they get is tried elsewhere."""


class Table:
    """One daemon with one mirror of a family's source, on which fault after fault is tried."""

    def __init__(
        self, source: FamilySource, upstream: FaultyUpstream, daemon: Running, http: aiohttp.ClientSession
    ) -> None:
        self.source = source
        self.upstream = upstream
        self.daemon = daemon
        self._http = http

    def breaks(self, path: str, kind: str) -> None:
        self.upstream.fail(path, KINDS[kind](self.source.content(path)), times=None)

    async def run(self) -> Run:
        return await self.daemon.run("main:m")

    async def get(self, address: str) -> tuple[int, bytes]:
        async with self._http.get(f"{self.daemon.url}/repo/main/{address}") as response:
            try:
                return response.status, await response.read()
            except aiohttp.ClientPayloadError:
                return response.status, b""  # never completed

    async def serves(self, kind: str) -> bool:
        right = self.source.content(self.source.files[kind])
        return await self.get(self.source.address(kind)) == (200, right)


@asynccontextmanager
async def table(
    folder: Path, make: Callable[[Path], FamilySource], mode: str, *, whole: bool = False
) -> AsyncIterator[Table]:
    source = make(folder / "source")
    settings = settings_in(folder, upstream=UpstreamSettings(timeout_s=1))
    async with (
        FaultyUpstream() as upstream,
        in_process_daemon(folder, settings=settings) as daemon,
        aiohttp.ClientSession() as http,
    ):
        source.serve(upstream)
        await daemon.client.call("channel.create", name="main")
        fields: dict[str, object] = {"channel": "main", "name": "m", "type": source.type, "mode": mode}
        fields |= {"source": f"{upstream.url}{source.below}", "filters": source.whole if whole else source.filters}
        await daemon.client.call("mirror.create", **fields)
        yield Table(source, upstream, daemon, http)


def told(run: Run) -> str:
    assert run.error is not None, run
    assert run.error.message
    return f"{run.error.kind}: {run.error.message}"


@pytest.mark.deep
@pytest.mark.timeout(120)
@pytest.mark.parametrize(("make", "mode"), READ_BY_RUNS)
async def test_an_index_that_cannot_be_had_fails_the_run_and_the_next_one_makes_up_for_it(
    tmp_path: Path, make: Callable[[Path], FamilySource], mode: str
) -> None:
    async with table(tmp_path, make, mode, whole=True) as t:
        assert (await t.run()).state is RunState.COMPLETED
        reasons = {}
        grown = t.source.grow()
        kinds = [kind for kind in KINDS if kind not in t.source.bears]
        for kind in kinds:
            for path in t.source.indexes:
                t.breaks(path, kind)
            run = await t.run()
            assert run.state is RunState.FAILED, kind
            reasons[kind] = told(run)
            assert await t.serves("gone") or mode == "active", kind  # what was published before stays
            assert (await t.get(grown))[0] == 404
            t.upstream.heal()
        assert len(reasons) == len(kinds) >= 14
        assert (await t.run()).state is RunState.COMPLETED
        assert (await t.get(grown))[0] == 200


@pytest.mark.deep
@pytest.mark.timeout(120)
@pytest.mark.parametrize("make", FAMILIES)
async def test_files_that_cannot_be_had_leave_a_run_incomplete_and_the_next_one_brings_them(
    tmp_path: Path, make: Callable[[Path], FamilySource]
) -> None:
    async with table(tmp_path, make, "active") as t:
        for kind, path in t.source.files.items():
            t.breaks(path, kind)
        good = t.source.grow()
        run = await t.run()
        assert run.state is RunState.INCOMPLETE
        details = await t.daemon.client.call("mirror.details", mirror="main:m")
        failed = {one.filename: one.reason for one in details.failed}
        assert failed.keys() == {path.rpartition("/")[2] for path in t.source.files.values()}
        assert all(failed.values())
        assert (await t.get(good))[0] == 200
        for kind in KINDS:
            assert (await t.get(t.source.address(kind)))[0] == 404, kind
        t.upstream.heal()
        assert (await t.run()).state is RunState.COMPLETED
        assert [kind for kind in KINDS if not await t.serves(kind)] == []


@pytest.mark.timeout(120)
@pytest.mark.parametrize("make", [FAMILIES[0], *(pytest.param(make, marks=pytest.mark.deep) for make in FAMILIES[1:])])
async def test_a_client_is_told_why_a_file_cannot_be_had_and_gets_it_afterwards(
    tmp_path: Path, make: Callable[[Path], FamilySource]
) -> None:
    async with table(tmp_path, make, "passive") as t:
        assert (await t.run()).state is RunState.COMPLETED
        for kind, path in t.source.files.items():
            t.breaks(path, kind)
            status, body = await t.get(t.source.address(kind))
            assert status == 502 or body == b"", kind
            assert status != 502 or b"detail" in body, kind
            t.upstream.heal()
            assert (await t.run()).state is RunState.COMPLETED  # what failed is forgotten
            assert await t.serves(kind), kind
