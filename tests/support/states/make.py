"""Makes the stored states of a release: a real daemon of this tree writes them, and what it serves is noted.

`python -m tests.support.states.make FILE` writes FILE, a .tar.zst.
"""

import asyncio
import hashlib
import io
import json
import shutil
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import zstandard

from firth_protocol.client import Client
from tests.support.conda import ChannelFolder, PackageSpec
from tests.support.daemon import DaemonProcess
from tests.support.upstream import FaultyUpstream

SUBDIRS = ("noarch", "linux-64")
INDEXES = ("repodata.json", "repodata.json.zst", "repodata_shards.msgpack.zst")


def numbered(prefix: str, count: int, *, version: str = "1.0", **fields: Any) -> list[PackageSpec]:
    return [PackageSpec(name=f"{prefix}{number}", version=version, **fields) for number in range(count)]


class Maker:
    """One daemon and its sources."""

    def __init__(self, client: Client, url: str) -> None:
        self.client = client
        self.url = url
        self.token = ""

    async def call(self, method: str, **params: Any) -> Any:
        return await self.client.call(method, **params)

    async def ended(self, run: Any) -> None:
        found = await self.call("run.wait", run=run.id, timeout=60)
        assert found.state == "completed", found

    async def mirror(self, channel: str, name: str, source: FaultyUpstream, mode: str = "active") -> None:
        await self.call(
            "mirror.create", channel=channel, name=name, type="conda", mode=mode, source=source.url, run_now=False
        )
        await self.run(f"{channel}:{name}")

    async def run(self, mirror: str, **params: Any) -> None:
        await self.ended((await self.call("mirror.run", mirror=mirror, **params)).run)

    async def delete(self, channel: str, name: str, packages: str = "keep") -> None:
        reply = await self.call("mirror.delete", mirror=f"{channel}:{name}", packages=packages, confirm=name)
        if reply.run:
            await self.ended(reply.run)

    async def rollback(self, channel: str, generation: int) -> None:
        await self.ended((await self.call("channel.rollback", channel=channel, generation=generation)).run)


async def plain(m: Maker, folder: Path) -> None:
    source = ChannelFolder(folder / "a", SUBDIRS)
    source.add(*numbered("pkg", 6), *numbered("lib", 4, subdir="linux-64", depends=("pkg0",)))
    source.add(*numbered("old", 3, extension=".tar.bz2"))
    other = ChannelFolder(folder / "b", SUBDIRS)
    other.add(*numbered("pkg", 3, content="another build\n"), *numbered("own", 5))
    async with FaultyUpstream(folder=source.path) as a, FaultyUpstream(folder=other.path) as b:
        for channel in ("frozen", "back", "two", "kept", "lazy", "secret", "empty"):
            await m.call("channel.create", name=channel, privacy="private" if channel == "secret" else "public")
        for channel in ("frozen", "back", "two", "kept", "secret"):
            await m.mirror(channel, "m", a)
        await m.mirror("two", "n", b)
        await m.mirror("lazy", "m", a, mode="passive")
        await m.mirror("secret", "n", b)
        async with aiohttp.ClientSession() as http:
            for name in ("noarch/pkg0-1.0-0.conda", "linux-64/lib1-1.0-0.conda"):
                async with http.get(f"{m.url}/repo/lazy/{name}") as reply:
                    assert reply.status == 200, reply.status
                    await reply.read()
        await m.delete("kept", "m")
        await m.call("channel.freeze", channel="frozen")
        source.remove("noarch", "pkg5-1.0-0.conda")
        source.add(*numbered("pkg", 4, version="2.0"), PackageSpec(name="pkg1", content="again\n"))
        for channel in ("frozen", "back", "two", "lazy"):
            await m.run(f"{channel}:m")
        await m.rollback("back", 2)
        await m.mirror("kept", "n", b, mode="passive")
        made = await m.call("token.create", name="reader of the secret channel", channels=["secret"])
        m.token = made.token


async def doubled(m: Maker, folder: Path) -> None:
    source = ChannelFolder(folder / "a", SUBDIRS)
    source.add(*numbered("pkg", 5), *numbered("lib", 3, subdir="linux-64"))
    async with FaultyUpstream(folder=source.path) as a:
        for channel in ("twice", "iced", "turned"):
            await m.call("channel.create", name=channel)
            for _ in range(2):
                await m.mirror(channel, "m", a)
                await m.delete(channel, "m")
        source.add(*(PackageSpec(name=f"pkg{number}", content="again\n") for number in range(2)))
        for channel in ("twice", "turned"):
            await m.mirror(channel, "m", a)
            await m.delete(channel, "m")
        await m.call("channel.freeze", channel="iced")
        await m.rollback("turned", 3)
        await m.mirror("twice", "m", a, mode="passive")


async def served(m: Maker) -> dict[str, Any]:
    """Ask for every address that is published, kept or retired."""
    answers: dict[str, Any] = {}
    async with aiohttp.ClientSession(auto_decompress=False) as http:

        async def ask(path: str, *, note: bool = True) -> bytes:
            headers = {"Authorization": f"Bearer {m.token}"} if path.split("/")[-3] == "secret" and m.token else {}
            async with http.get(m.url + path, headers=headers) as reply:
                body = await reply.read()
            if note and reply.status != 502:
                answers[path] = {
                    "status": reply.status,
                    "sha256": hashlib.sha256(body).hexdigest(),
                    "etag": reply.headers.get("ETag"),
                }
            return body if reply.status == 200 else b""

        for channel in (await m.call("channel.list")).items:
            generations = (await m.call("channel.generations", channel=channel.name)).items
            roots = [f"/repo/{channel.name}", *(f"/snapshot/{one.number}/{channel.name}" for one in generations)]
            files: dict[str, set[str]] = {subdir: set() for subdir in SUBDIRS}
            for root in roots:
                for subdir in SUBDIRS:
                    bodies = [await ask(f"{root}/{subdir}/{name}") for name in INDEXES]
                    document = json.loads(bodies[0] or b"{}")
                    files[subdir] |= {name for key in ("packages", "packages.conda") for name in document.get(key, {})}
                    if bodies[2]:
                        shards = msgspec.msgpack.decode(
                            zstandard.ZstdDecompressor().decompressobj().decompress(bodies[2])
                        )
                        for digest in shards["shards"].values():
                            answers |= await shard(http, m, channel.name, subdir, digest.hex())
            for root in roots:
                for subdir, names in files.items():
                    for name in sorted(names):
                        await ask(f"{root}/{subdir}/{name}")
    return {"made_at_ms": int(time.time() * 1000), "token": m.token, "answers": answers}


async def shard(http: aiohttp.ClientSession, m: Maker, channel: str, subdir: str, digest: str) -> dict[str, Any]:
    path = f"/repo/{channel}/{subdir}/shards/{digest}.msgpack.zst"
    headers = {"Authorization": f"Bearer {m.token}"} if channel == "secret" else {}
    async with http.get(m.url + path, headers=headers) as reply:
        body = await reply.read()
    assert (reply.status, hashlib.sha256(body).hexdigest()) == (200, digest), path
    return {path: {"status": 200, "sha256": digest, "etag": reply.headers.get("ETag")}}


async def one(make: Any, folder: Path) -> None:
    folder.mkdir(parents=True)
    sources = folder.with_name(folder.name + "-sources")
    async with DaemonProcess(folder) as daemon:
        client = await daemon.start()
        try:
            m = Maker(client, await daemon.url(client))
            await make(m, sources)
        finally:
            await client.__aexit__(None, None, None)
        await daemon.terminate()
    # The sources are gone now: what is noted is what the state alone can serve.
    async with DaemonProcess(folder) as daemon:
        client = await daemon.start()
        try:
            again = Maker(client, await daemon.url(client))
            again.token = m.token
            noted = await served(again)
        finally:
            await client.__aexit__(None, None, None)
        await daemon.terminate()
    (folder / "served.json").write_text(json.dumps(noted, indent=1, sort_keys=True))


async def main(out: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="firth-states-") as name:
        room = Path(name)
        for make in (plain, doubled):
            await one(make, room / make.__name__)
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for make in (plain, doubled):
                folder = room / make.__name__
                shutil.rmtree(folder / "state" / "out", ignore_errors=True)
                (folder / "state" / "lock").unlink(missing_ok=True)
                for part in ("state", "served.json"):
                    archive.add(folder / part, arcname=f"{make.__name__}/{part}")
        out.write_bytes(zstandard.ZstdCompressor(level=19).compress(buffer.getvalue()))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
