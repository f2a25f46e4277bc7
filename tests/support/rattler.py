"""A real conda client for tests: rattler with caches of its own, which outlive each of its processes."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import rattler
from aiohttp import web

from tests.support.upstream import Seen

PLATFORM = rattler.Subdir("linux-64")
NOARCH = rattler.Subdir("noarch")


class CondaClient:
    """What one user has: a cache of indexes, a cache of packages, and environments, all below one folder.

    Each call works as a new process does: of what it has seen before it knows only what lies in the caches.
    """

    def __init__(self, folder: Path, *, sharded: bool = True) -> None:
        self.folder = folder
        self._config = rattler.SourceConfig(sharded_enabled=sharded)
        self._environments = 0

    async def solve(self, address: str, *specs: str) -> list[rattler.RepoDataRecord]:
        """Return what would be installed from a channel. Raises what rattler raises; it has no common error class."""
        gateway = rattler.Gateway(
            cache_dir=self.folder / "indexes", default_config=self._config, client=rattler.Client()
        )
        return await rattler.solve(
            sources=[rattler.Channel(address)],
            specs=list(specs),
            gateway=gateway,
            platforms=[PLATFORM, NOARCH],
            virtual_packages=[],
        )

    async def files(self, address: str, *specs: str) -> set[str]:
        """Return the names of the files that would be installed."""
        return {record.file_name for record in await self.solve(address, *specs)}

    async def install(self, address: str, *specs: str) -> Path:
        """Make a new environment from a channel; return its folder."""
        return await self.install_records(await self.solve(address, *specs))

    async def install_records(self, records: Sequence[rattler.RepoDataRecord]) -> Path:
        """Make a new environment of what was solved before, as a lock file does; return its folder."""
        self._environments += 1
        prefix = self.folder / f"environment-{self._environments}"
        await rattler.install(
            list(records),
            prefix,
            cache_dir=self.folder / "packages",
            platform=PLATFORM,
            show_progress=False,
            client=rattler.Client(),
        )
        return prefix


class Front:
    """A reverse proxy before the daemon that lets clients keep nothing unasked but what is immutable.

    It stands for the minute that passes until a client asks for an index again: rattler reads the machine's clock.
    `seen` has each request with the daemon's answer, `url` is the proxy's address.
    """

    def __init__(self, behind: str, session: aiohttp.ClientSession) -> None:
        self.url = ""
        self.seen: list[Seen] = []
        self._behind = behind
        self._session = session

    def asked(self, ending: str) -> list[Seen]:
        """Return the GET requests whose path ends so."""
        return [seen for seen in self.seen if seen.path.endswith(ending) and seen.method == "GET"]

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        headers = {name: value for name, value in request.headers.items() if name.lower() != "host"}
        async with self._session.request(request.method, self._behind + request.raw_path, headers=headers) as reply:
            body = await reply.read()
            told = {name: value for name, value in reply.headers.items() if name.lower() != "connection"}
            if "immutable" not in told.get("Cache-Control", ""):
                told["Cache-Control"] = "no-cache"
            seen = Seen(
                method=request.method, path=request.path, raw_path=request.raw_path, headers=dict(request.headers)
            )
            seen.status, seen.sent = reply.status, len(body)
            self.seen.append(seen)
            response = web.StreamResponse(status=reply.status, reason=reply.reason, headers=told)
            await response.prepare(request)
            if body:
                await response.write(body)
            await response.write_eof()
            return response


@asynccontextmanager
async def in_front_of(url: str) -> AsyncIterator[Front]:
    """Give a reverse proxy before a daemon's address."""
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        front = Front(url, session)
        runner = web.ServerRunner(web.Server(front.handle, access_log=None), shutdown_timeout=0.01)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            front.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            yield front
        finally:
            await runner.cleanup()
