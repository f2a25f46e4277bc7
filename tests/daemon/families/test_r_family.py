"""A mirror of a CRAN-like source, from its index to what R's clients get."""

import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from msgspec import Struct

from firth_protocol.types import Run, RunState
from firthd.families.r import rds
from tests.support.cran import CONTRIB, Cran, tarball
from tests.support.daemon import HastyClock, Running, in_process_daemon
from tests.support.upstream import FaultyUpstream
from tests.support.world import Reply


class World(Struct, frozen=True):
    """A CRAN root, a daemon, and the channel `stats`."""

    upstream: FaultyUpstream
    cran: Cran
    daemon: Running
    clock: HastyClock
    http: aiohttp.ClientSession

    async def call(self, method: str, **params: Any) -> Any:
        return await self.daemon.client.call(method, **params)

    async def mirror(self, mode: str = "passive", **fields: Any) -> Run:
        await self.call(
            "mirror.create",
            **{"channel": "stats", "name": "m", "type": "r", "mode": mode, "source": self.upstream.url, **fields},
        )
        return await self.run()

    async def run(self, mirror: str = "stats:m", **params: Any) -> Run:
        return await self.daemon.run(mirror, **params)

    async def get(self, path: str, *, at: str = "/repo/stats/cran/", **headers: str) -> Reply:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.http.get(self.daemon.url + at + path, headers=named) as response:
            return Reply(response.status, response.headers.copy(), await response.read())

    async def listed(self, part: str = CONTRIB, *, at: str = "/repo/stats/cran/") -> list[str]:
        """Return what a part's index lists, as `name version`; all three forms must agree."""
        plain, packed, table = [await self.get(f"{part}/PACKAGES{end}", at=at) for end in ("", ".gz", ".rds")]
        assert [reply.status for reply in (plain, packed, table)] == [200, 200, 200], plain
        assert gzip.decompress(packed.body) == plain.body
        fields = [
            dict(line.split(": ", 1) for line in one.split("\n") if ": " in line)
            for one in plain.body.decode().split("\n\n")
            if one
        ]
        found = [f"{one['Package']} {one['Version']}" for one in fields]
        matrix = rds.read(gzip.decompress(table.body))
        names = matrix.attribute("dimnames").things()[0].texts()
        assert list(names) == [one["Package"] for one in fields]
        return found


@asynccontextmanager
async def world(folder: Path) -> AsyncIterator[World]:
    clock = HastyClock()
    async with (
        FaultyUpstream() as upstream,
        in_process_daemon(folder, clock=clock) as daemon,
        aiohttp.ClientSession(auto_decompress=False, skip_auto_headers={"Accept-Encoding"}) as http,
    ):
        await daemon.client.call("channel.create", name="stats")
        cran = Cran(upstream.files)
        cran.put("alpha", "1.0")
        cran.put("alpha", "1.1")
        cran.put("beta", "2.0-1", Imports="alpha (>= 1.0)", Depends="R (>= 3.5.0), methods")
        yield World(upstream, cran, daemon, clock, http)


async def test_a_passive_mirror_is_served_and_browsed(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        assert (await w.get("src/contrib/PACKAGES")).status == 404
        run = await w.mirror()
        assert run.state is RunState.COMPLETED, run
        assert await w.listed() == ["alpha 1.1", "beta 2.0-1"]
        assert not w.upstream.asked("src/contrib/alpha_1.1.tar.gz")
        assert (await w.get("src/contrib/alpha_1.1.tar.gz")).body == tarball("alpha", "1.1")
        assert (await w.get("src/contrib/Archive/alpha/alpha_1.0.tar.gz")).body == tarball("alpha", "1.0")
        for absent in ("src/contrib/alpha_9.tar.gz", "bin/windows/contrib/4.3/PACKAGES", "web/packages/", "../x", ""):
            assert (await w.get(absent)).status == 404, absent
