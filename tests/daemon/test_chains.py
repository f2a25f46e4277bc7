"""A daemon that mirrors a channel of another one, all families of it, with a token: the same content, one digest."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct

from firth_protocol.types import RunState
from tests.support.conda import ChannelFolder, PackageSpec, sample_channel
from tests.support.cran import CONTRIB, Cran, current_rds
from tests.support.daemon import HastyClock, Running, in_process_daemon
from tests.support.python import JSON, Installer, PythonWorld, python_world, sample_index
from tests.support.r_client import r

MIRRORS = ("c", "p", "r")
QUARANTINED = {"status": "quarantined", "reason": "malware"}


class Chain(Struct, frozen=True):
    """Sources of three families, a daemon whose channel `main` mirrors them, and one that mirrors that channel."""

    first: PythonWorld
    second: Running
    conda: ChannelFolder
    cran: Cran

    async def run(self, mirrors: tuple[str, ...] = MIRRORS) -> None:
        """Run the mirrors of the first daemon, then those of the second."""
        for daemon, channel in ((self.first.daemon, "main"), (self.second, "copy")):
            for name in mirrors:
                run = await daemon.run(f"{channel}:{name}")
                assert run.state is RunState.COMPLETED, (channel, name, run)

    async def digests(self) -> list[str]:
        return [
            (await client.call("channel.generations", channel=name)).items[0].digest
            for client, name in ((self.first.daemon.client, "main"), (self.second.client, "copy"))
        ]

    async def shown(self, at: str) -> dict[str, list[str]]:
        """Return what clients of each family see at an address of the second daemon: file names, or lines of names."""
        url = f"{self.second.url}{at}"

        async def get(path: str, accept: str = "*/*") -> bytes:
            async with self.first.http.get(f"{url}/{path}", headers={"Accept": accept}) as reply:
                assert reply.status == 200, (path, reply.status)
                return await reply.read()

        conda = json.loads(await get("noarch/repodata.json"))
        beta = json.loads(await get("simple/beta/", JSON))
        stanzas = (await get("cran/src/contrib/PACKAGES")).decode().split("\n")
        return {
            "conda": sorted(conda["packages.conda"]),
            "python": [file["filename"] for file in beta["files"]],
            "r": [line for line in stanzas if line.startswith(("Package:", "Version:"))],
        }


@asynccontextmanager
async def chain(folder: Path, mode: str) -> AsyncIterator[Chain]:
    index, clock = sample_index(), HastyClock()
    index.add("beta", "2.1", yanked="bad", provenance="https://x.example.org/p", key=[1, {"a": None}])
    index.add("odd", "1.0", hint="see https://user:secret@x.example.org/")
    index.status["gamma"] = {"status": "archived"}
    async with (
        python_world(folder / "one", index, clock=clock) as w,
        in_process_daemon(folder / "two") as second,
    ):
        conda = sample_channel(folder / "conda")
        cran = Cran(w.upstream.files)
        for version in ("1.0", "1.1"):
            cran.put("alpha", version, Depends="R (>= 3.5.0)")
        cran.put("beta", "2.0-1", Imports="alpha", Published="2024-05-06")
        w.upstream.files[f"{CONTRIB}/Meta/current.rds"] = current_rds(w.upstream.files)
        await w.call("channel.update", channel="main", revision=1, privacy="authenticated")
        token = (await w.call("token.create", name="copy", channels=[])).token
        await second.client.call("channel.create", name="copy")
        there = f"{w.daemon.url}/repo/main"
        kinds: tuple[tuple[str, str, str, str, dict[str, Any]], ...] = (
            ("c", "conda", f"file://{conda.path}", there, {}),
            ("p", "python", f"{w.upstream.url}/simple", f"{there}/simple/", {"password": token, "user": "any"}),
            ("r", "r", w.upstream.url, f"{there}/cran", {}),
        )
        for name, kind, source, copied, credentials in kinds:
            fields = {"name": name, "type": kind, "mode": mode if kind != "python" else "active", "check": False}
            await w.call("mirror.create", channel="main", source=source, **fields)
            await second.client.call(
                "mirror.create", channel="copy", source=copied, credentials=credentials or {"token": token}, **fields
            )
        yield Chain(w, second, conda, cran)


async def serials(c: Chain) -> dict[str, int]:
    """Return what the first daemon's project list says of each project."""
    token = (await c.first.call("token.create", name="look", channels=[])).token
    headers = {"Accept": JSON, "Authorization": f"Bearer {token}"}
    async with c.first.http.get(f"{c.first.daemon.url}/repo/main/simple/", headers=headers) as reply:
        listed = json.loads(await reply.read())["projects"]
    return {one["name"]: one["_last-serial"] for one in listed}


@pytest.mark.deep
@pytest.mark.timeout(180)
async def test_a_channel_of_three_families_is_the_same_through_a_second_daemon(tmp_path: Path) -> None:
    async with chain(tmp_path, "passive") as c:
        await c.run()
        before = await c.digests()
        assert before[0] == before[1]
        counted = await serials(c)
        assert counted.keys() == {"alpha-one", "beta", "gamma", "odd"}
        c.conda.add(PackageSpec(name="grown"))
        c.cran.put("alpha", "1.2")
        c.first.index.add("beta", "3.0")
        await c.run()
        after = await c.digests()
        assert after[0] == after[1] != before[0]
        moved = await serials(c)
        assert {name for name in moved if moved[name] != counted[name]} == {"beta"}
        assert moved["beta"] > max(counted.values())
        c.first.index.status["beta"] = QUARANTINED
        c.first.index.touch("beta")
        await c.run(("p",))
        assert (await c.digests())[0] == (await c.digests())[1]
        async with c.first.http.get(f"{c.second.url}/repo/copy/packages/beta/beta-1.0-py3-none-any.whl") as reply:
            assert (reply.status, b"malware" in await reply.read()) == (403, True)


@pytest.mark.deep
@pytest.mark.timeout(180)
async def test_a_channel_of_three_families_is_frozen_dated_rolled_back_and_installed_from(tmp_path: Path) -> None:
    async with chain(tmp_path, "active") as c:
        await c.run()
        client = c.second.client
        number = (await client.call("channel.get", channel="copy")).generation
        before = await c.shown("/repo/copy")
        await client.call("channel.freeze", channel="copy")
        c.conda.add(PackageSpec(name="grown"))
        c.cran.put("alpha", "1.2")
        c.first.index.add("beta", "3.0")
        await c.run()
        assert await c.shown("/repo/copy") == before
        ended = (await client.call("channel.unfreeze", channel="copy")).run
        assert (await c.second.ended(ended.id)).state is RunState.COMPLETED
        after = await c.shown("/repo/copy")
        assert [family for family in after if after[family] == before[family]] == []
        assert await c.shown(f"/snapshot/{number}/copy") == before
        listed = await client.call("package.list", channel="copy", query="alpha")
        assert {(one.family, one.name) for one in listed.items} >= {("python", "alpha-one"), ("r", "alpha")}
        ended = (await client.call("channel.rollback", channel="copy", generation=number)).run
        assert (await c.second.ended(ended.id)).state is RunState.COMPLETED
        assert await c.shown("/repo/copy") == before
        tools = Installer(tmp_path / "pip")
        status, words = await tools.pip(f"{c.second.url}/repo/copy/simple/", "alpha.one")
        assert (status, tools.version("beta")) == (0, "2.0"), words
        library = tmp_path / "library"
        library.mkdir()
        code = f'install.packages("beta", repos = "{c.second.url}/repo/copy/cran", quiet = TRUE); cat(alpha::f())'
        assert await r(code, library) == "alpha 1.1"
