"""A CRAN root, a daemon and the channel `stats`: where tests of mirrors of R packages begin."""

import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from msgspec import Struct

from firth_protocol.types import Run
from firthd.families.r import rds
from tests.support.cran import CONTRIB, Cran
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
        wanted = {"channel": "stats", "name": "m", "type": "r", "mode": mode, "source": self.upstream.url, **fields}
        if wanted["channel"] != "stats":
            await self.call("channel.create", name=wanted["channel"])
        await self.call("mirror.create", **wanted)
        return await self.run(f"{wanted['channel']}:{wanted['name']}")

    async def run(self, mirror: str = "stats:m", **params: Any) -> Run:
        return await self.daemon.run(mirror, **params)

    async def digest(self, channel: str) -> str:
        """Return the digest of a channel's newest generation."""
        digest: str = (await self.call("channel.generations", channel=channel)).items[0].digest
        return digest

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
