"""Naming a digest opens nothing: a channel serves what it was given, whatever lies in the store for others."""

import asyncio
import contextlib
import hashlib
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from msgspec import Struct

from firth_protocol.types import ArtifactState, Privacy, RunState
from tests.support.conda import ChannelFolder, PackageSpec, build_package
from tests.support.upstream import Fault, FaultyUpstream
from tests.support.world import Reply, World, world

SEALED = build_package(PackageSpec(name="sealed", content=random.Random(7).randbytes(200_000).hex()))
NAME = SEALED.filename
AT = f"noarch/{NAME}"
URL = f"/repo/open/{AT}"
UNKNOWN = "unknown-1.0-0.conda"
"""A file whose digest nobody has: what a channel answers for it is what it must answer for a stranger's file."""


class Stage(Struct, frozen=True):
    """A private channel that has the file, and the folder of a hostile source that names its digest."""

    w: World
    hostile: ChannelFolder
    upstream: FaultyUpstream

    async def mirror(self, channel: str = "open", mode: str = "passive", **params: Any) -> Any:
        return await self.w.mirror(mode, name="h", channel=channel, source=self.upstream.url, **params)

    async def ask(self, path: str, headers: dict[str, str] | None = None, method: str = "GET") -> Reply:
        """Ask as a client does that takes what came before the connection broke."""
        parts: list[bytes] = []
        async with self.w.http.request(method, self.w.daemon.url + path, headers=headers) as reply:
            with contextlib.suppress(aiohttp.ClientError):
                while part := await reply.content.readany():
                    parts.append(part)
        return Reply(reply.status, reply.headers.copy(), b"".join(parts))

    async def privacy(self, channel: str, privacy: Privacy) -> None:
        revision = (await self.w.call("channel.get", channel=channel)).revision
        await self.w.call("channel.update", channel=channel, revision=revision, privacy=privacy)

    async def token(self, *channels: str) -> dict[str, str]:
        made = await self.w.call("token.create", name="a reader", channels=list(channels))
        return {"Authorization": f"Bearer {made.token}"}


@asynccontextmanager
async def stage(folder: Path, privacy: Privacy = Privacy.PRIVATE) -> AsyncIterator[Stage]:
    async with world(folder) as w:
        (w.source.path / AT).write_bytes(SEALED.body)
        w.source.records["noarch"][NAME] = SEALED.record
        w.source.write()
        await w.call("channel.create", name="secret", privacy=privacy)
        await w.call("channel.create", name="open")
        await w.mirror("active", channel="secret")
        assert (await w.run("secret:m")).state is RunState.COMPLETED
        hostile = ChannelFolder(folder / "hostile")
        hostile.records["noarch"][NAME] = SEALED.record
        hostile.records["noarch"][UNKNOWN] = SEALED.record | {"name": "unknown", "sha256": "12" * 32, "md5": "34" * 16}
        hostile.write()
        async with FaultyUpstream(folder=hostile.path) as upstream:
            yield Stage(w, hostile, upstream)


def told(reply: Reply, name: str) -> tuple[Any, ...]:
    """Return all that an answer tells of a file, but for its own names and digests."""
    body = reply.body
    if reply.status >= 400:
        body = body.replace(name.encode(), b"NAME").replace(name.split("-")[0].encode(), b"NAME")
    hidden = {"date", "etag", "content-length"} if body else {"date", "etag"}
    headers = {key.lower(): value for key, value in reply.headers.items() if key.lower() not in hidden}
    return reply.status, headers, body


ASKED: list[tuple[str, dict[str, str]]] = [
    ("GET", {}),
    ("HEAD", {}),
    ("GET", {"Range": "bytes=0-99"}),
    ("GET", {"Range": "bytes=-1"}),
    ("HEAD", {"Range": "bytes=0-0"}),
]


@pytest.mark.parametrize("junk", [None, b"x" * len(SEALED.body), SEALED.body[:-1] + b"x"])
async def test_a_source_that_names_a_private_files_digest_gets_it_to_nobody(tmp_path: Path, junk: bytes | None) -> None:
    async with stage(tmp_path) as s:
        if junk is not None:
            for name in (NAME, UNKNOWN):
                (s.hostile.path / "noarch" / name).write_bytes(junk)
        await s.mirror()
        assert (await s.w.run("open:h")).state is RunState.COMPLETED
        for method, headers in ASKED:
            named, unknown = [
                told(await s.ask(f"/repo/open/noarch/{name}", headers, method), name) for name in (NAME, UNKNOWN)
            ]
            assert named[:2] == unknown[:2], (method, headers)
            if method == "HEAD" or junk is None:
                assert (named[0], named[2]) == (200 if method == "HEAD" else 502, unknown[2])
            elif named[0] == 200:  # broken off: what the source itself has sent
                assert junk.startswith(named[2])
                assert len(named[2]) < len(junk)
        for name in (NAME, UNKNOWN):
            assert (await s.ask(f"/repo/open/noarch/{name}")).status == 502
        package = await s.w.call("package.get", channel="open", family="conda", name="sealed")
        assert package.files[0].state is ArtifactState.ON_DEMAND
        assert (await s.w.call("mirror.get", mirror="open:h")).stored == 0
        held = await s.w.call("channel.freeze", channel="open", dry_run=True)
        assert held.not_stored == 2
        assert [one.stored for one in (await s.w.call("package.list", channel="open")).items] == [0, 0]


async def test_a_growing_answer_is_made_of_what_the_source_sends(tmp_path: Path) -> None:
    async with stage(tmp_path) as s:
        (s.hostile.path / AT).write_bytes(b"x" * len(SEALED.body))
        drip = asyncio.Semaphore(1)
        s.upstream.fail(AT, Fault(drip=drip, chunk_bytes=4096), times=None)
        await s.mirror()
        await s.w.run("open:h")
        async with s.w.http.get(s.w.daemon.url + URL) as reply:
            first = await reply.content.read(2000) if reply.status == 200 else b"x"
            assert set(first) == {ord("x")}


async def test_an_active_run_does_not_find_it_there(tmp_path: Path) -> None:
    async with stage(tmp_path) as s:
        await s.mirror(mode="active")
        run = await s.w.run("open:h")
        assert (run.state, run.counts.failed, run.counts.active) == (RunState.INCOMPLETE, 2, 0)
        assert await s.w.records("noarch", "open") == {}
        assert (await s.w.get(URL)).status == 404


async def test_a_folder_as_source_opens_nothing_either(tmp_path: Path) -> None:
    async with stage(tmp_path) as s:
        (s.hostile.path / AT).write_bytes(b"x" * len(SEALED.body))
        await s.w.mirror("passive", name="h", channel="open", source=f"file://{s.hostile.path}")
        await s.w.run("open:h")
        assert len((await s.ask(URL)).body) < len(SEALED.body)
        assert (await s.ask(URL)).status == 502


async def test_deleting_the_mirror_keeps_nothing_that_was_only_named(tmp_path: Path) -> None:
    async with stage(tmp_path) as s:
        mirror = await s.mirror()
        await s.w.run("open:h")
        for dry_run in (True, False):
            reply = await s.w.call("mirror.delete", mirror=mirror.id, confirm="h", packages="keep", dry_run=dry_run)
            assert (reply.kept, reply.dropped) == (0, 2)
        await s.w.daemon.ended(reply.run.id)
        assert await s.w.records("noarch", "open") == {}
        assert (await s.w.get(URL)).status == 404
        assert (await s.w.get(f"/snapshot/2{URL.removeprefix('/repo')}")).status == 404


async def test_a_rollback_brings_back_the_name_and_not_the_file(tmp_path: Path) -> None:
    async with stage(tmp_path) as s:
        await s.mirror()
        await s.w.run("open:h")
        del s.hostile.records["noarch"][NAME]
        s.hostile.write()
        await s.w.run("open:h")
        await s.w.daemon.ended((await s.w.call("channel.rollback", channel="open", generation=2)).run.id)
        assert NAME in await s.w.records("noarch", "open")
        assert (await s.w.get(URL)).status == 502


async def test_what_a_source_gives_is_served_and_the_store_keeps_one_copy(tmp_path: Path) -> None:
    async with stage(tmp_path) as s:
        (s.hostile.path / AT).write_bytes(SEALED.body)
        await s.mirror()
        await s.w.run("open:h")
        stored = s.w.daemon.daemon.blobs.path(hashlib.sha256(SEALED.body).hexdigest())
        before = stored.stat()
        assert (await s.w.get(URL)).body == SEALED.body
        assert len(s.upstream.asked(AT)) == 1
        assert stored.stat().st_ino == before.st_ino
        assert not list((s.w.daemon.state / "blobs" / "tmp").iterdir())
        (s.hostile.path / AT).unlink()
        assert (await s.w.get(URL)).body == SEALED.body  # it has been given it
        async with asyncio.timeout(10):
            while (await s.w.call("mirror.get", mirror="open:h")).stored != 1:  # the client has not waited for it
                await asyncio.sleep(0.02)
        assert (await s.w.call("daemon.status")).store.blobs == 6


# --- what may be taken over ---------------------------------------------------------------------------------------

PUBLIC, AUTHENTICATED, PRIVATE = Privacy.PUBLIC, Privacy.AUTHENTICATED, Privacy.PRIVATE


@pytest.mark.parametrize(
    ("has", "asks", "taken", "mode"),
    [
        (PUBLIC, PUBLIC, True, "active"),
        (PRIVATE, AUTHENTICATED, False, "active"),
        pytest.param(PUBLIC, PUBLIC, True, "passive", marks=pytest.mark.deep),
        pytest.param(PUBLIC, AUTHENTICATED, True, "passive", marks=pytest.mark.deep),
        (PUBLIC, PRIVATE, True, "passive"),
        (AUTHENTICATED, PUBLIC, False, "passive"),
        pytest.param(AUTHENTICATED, AUTHENTICATED, True, "passive", marks=pytest.mark.deep),
        pytest.param(AUTHENTICATED, PRIVATE, True, "passive", marks=pytest.mark.deep),
        (PRIVATE, PUBLIC, False, "passive"),
        pytest.param(PRIVATE, AUTHENTICATED, False, "passive", marks=pytest.mark.deep),
        (PRIVATE, PRIVATE, False, "passive"),
    ],
)
async def test_a_file_is_taken_over_from_where_all_readers_may_read_it(
    tmp_path: Path, has: Privacy, asks: Privacy, taken: bool, mode: str
) -> None:
    async with stage(tmp_path, has) as s:
        await s.privacy("open", asks)
        await s.mirror(mode=mode)
        run = await s.w.run("open:h")
        headers = await s.token("open")
        reply = await s.w.get(URL, headers)
        if taken:
            assert (reply.status, reply.body) == (200, SEALED.body)
            assert not s.upstream.asked(AT)
            assert (await s.w.call("mirror.get", mirror="open:h")).stored == 1
            await s.privacy("secret", PRIVATE)  # it stays, whatever becomes of the channel that it came from
            assert (await s.w.get(URL, headers)).body == SEALED.body
        else:
            assert reply.status == (502 if mode == "passive" else 404)
            assert s.upstream.asked(AT)
        assert run.counts.active == (1 if taken and mode == "active" else 0)


async def test_two_private_children_of_one_team_share_nothing(tmp_path: Path) -> None:
    async with stage(tmp_path) as s:
        await s.w.call("channel.create", name="secret/child", privacy=PRIVATE)
        await s.mirror("secret/child")
        await s.w.run("secret/child:h")
        headers = await s.token("secret/*", "secret")
        assert (await s.w.get(f"/repo/secret/child/{AT}", headers)).status == 502
        assert (await s.w.get(f"/repo/secret/{AT}", headers)).body == SEALED.body


async def test_a_channel_that_was_public_for_a_while_gives_what_was_asked_for_then_only(tmp_path: Path) -> None:
    async with stage(tmp_path) as s:
        await s.mirror()
        await s.w.run("open:h")
        assert (await s.w.get(URL)).status == 502
        await s.privacy("secret", PUBLIC)
        await s.privacy("secret", PRIVATE)
        await s.w.run("open:h")  # the failure is forgotten with a run
        assert (await s.w.get(URL)).status == 502


async def test_a_deleted_channel_gives_nothing(tmp_path: Path) -> None:
    async with stage(tmp_path, PUBLIC) as s:
        await s.mirror()
        await s.w.run("open:h")
        await s.w.call("channel.delete", channel="secret", confirm="secret")
        assert (await s.w.get(URL)).status == 502


async def test_a_wrong_size_beside_a_right_digest_is_not_served_in_part(tmp_path: Path) -> None:
    async with stage(tmp_path, PUBLIC) as s:
        s.hostile.records["noarch"][NAME] = SEALED.record | {"size": len(SEALED.body) - 1}
        s.hostile.write()
        (s.hostile.path / AT).write_bytes(SEALED.body)
        await s.mirror()
        await s.w.run("open:h")
        assert (await s.w.get(URL)).status == 502


async def test_the_record_is_served_as_the_source_wrote_it(tmp_path: Path) -> None:
    async with stage(tmp_path) as s:
        await s.mirror()
        await s.w.run("open:h")
        assert json.loads((await s.w.records("noarch", "open"))[NAME])["sha256"] == SEALED.record["sha256"]
