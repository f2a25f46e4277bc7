"""A source, a daemon and a channel that mirrors the one into the other: where most tests of runs begin."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import zstandard
from msgspec import Struct

from firth_protocol.types import Mirror, Run
from firthd.clock import Clock
from firthd.config import Settings
from tests.support.conda import ChannelFolder, PackageSpec, sample_channel
from tests.support.daemon import Running, in_process_daemon
from tests.support.upstream import FaultyUpstream


class Reply(Struct, frozen=True):
    status: int
    headers: Mapping[str, str]  # in any case
    body: bytes


class World(Struct, frozen=True, kw_only=True):
    """The pieces. The channel is `main`; `mirror` makes its mirror."""

    upstream: FaultyUpstream
    source: ChannelFolder
    daemon: Running
    http: aiohttp.ClientSession

    async def call(self, method: str, **params: Any) -> Any:
        return await self.daemon.client.call(method, **params)

    async def mirror(self, mode: str = "active", name: str = "m", **params: Any) -> Mirror:
        """Create a mirror of the source in `main`."""
        fields = {"channel": "main", "type": "conda", "source": self.upstream.url} | params
        reply = await self.call("mirror.create", name=name, mode=mode, **fields)
        made: Mirror = reply.mirror
        return made

    async def run(self, mirror: int | str = "main:m", **params: Any) -> Run:
        """Run the mirror to its end."""
        return await self.daemon.run(mirror, **params)

    async def get(self, path: str, headers: dict[str, str] | None = None, method: str = "GET") -> Reply:
        """Ask the daemon as a package client does."""
        async with self.http.request(method, self.daemon.url + path, headers=headers) as response:
            return Reply(response.status, response.headers.copy(), await response.read())

    async def records(self, subdir: str, channel: str = "main") -> dict[str, bytes]:
        """Return each served record's bytes by file name; every variant must agree."""
        plain = await self.get(f"/repo/{channel}/{subdir}/repodata.json")
        packed = await self.get(f"/repo/{channel}/{subdir}/repodata.json.zst")
        assert plain.status == packed.status == 200
        assert zstandard.ZstdDecompressor().decompressobj().decompress(packed.body) == plain.body
        return raw_records(plain.body)

    async def names(self, channel: str = "main", subdirs: tuple[str, ...] = ("noarch", "linux-64")) -> set[str]:
        return {name for subdir in subdirs for name in await self.records(subdir, channel)}


def raw_records(document: bytes) -> dict[str, bytes]:
    """Return each record's bytes in an index by file name."""
    found: dict[str, bytes] = {}
    top = msgspec.json.decode(document, type=dict[str, msgspec.Raw])
    for section in ("packages", "packages.conda"):
        if section in top:
            records = msgspec.json.decode(top[section], type=dict[str, msgspec.Raw])
            found.update({name: bytes(raw) for name, raw in records.items()})
    return found


@asynccontextmanager
async def world(
    folder: Path, *, settings: Settings | None = None, token: str | None = None, clock: Clock | None = None
) -> AsyncIterator[World]:
    """Give a world whose source is the sample channel."""
    source = sample_channel(folder / "source")
    async with (
        FaultyUpstream(folder=source.path, token=token) as upstream,
        in_process_daemon(folder, settings=settings, clock=clock) as daemon,
        aiohttp.ClientSession(auto_decompress=False) as http,
    ):
        await daemon.client.call("channel.create", name="main")
        yield World(upstream=upstream, source=source, daemon=daemon, http=http)


def edit(source: ChannelFolder, subdir: str, filename: str, **changes: Any) -> bytes:
    """Change a record of the source as a hotfix does; return its new bytes."""
    source.records[subdir][filename] = source.records[subdir][filename] | changes
    source.write()
    return json.dumps(source.records[subdir][filename]).encode()


def plain(name: str, **fields: Any) -> PackageSpec:
    return PackageSpec(name=name, **fields)
