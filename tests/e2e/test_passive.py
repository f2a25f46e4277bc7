"""Passive mirrors under load and before bad sources: one request upstream, and no client completes a wrong file."""

import asyncio
import hashlib
import json
import random
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from msgspec import Struct

from firth_protocol.types import RunState
from firthd.config import UpstreamSettings
from tests.support.conda import PackageSpec
from tests.support.daemon import settings_in
from tests.support.upstream import Fault
from tests.support.world import World, world

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

CLIENTS = 30
NAME = "large-1.0-0.conda"
PATH = f"noarch/{NAME}"
URL = f"/repo/main/{PATH}"
CHUNK = 256 * 1024
QUICK_S = 3.0
"""Seconds in which a client is told that its file cannot be had; whatever its source does."""


class Got(Struct, frozen=True, kw_only=True):
    """What one client got; `cut`: the connection ended before the announced length."""

    status: int
    reason: str
    body: bytes
    cut: bool

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.body).hexdigest()


async def listed(w: World) -> dict[str, Any]:
    """Let the source list a file of some MB and the channel mirror it passively; return the file's record."""
    noise = random.Random(7).randbytes(2_000_000).hex()
    w.source.add(PackageSpec(name="large", content=noise))
    await w.mirror("passive")
    run = await w.run()
    assert run.state is RunState.COMPLETED, run.error
    assert not w.upstream.asked(PATH)
    record = w.source.records["noarch"][NAME]
    assert record["size"] > 2_000_000
    return record


async def fetch(w: World, path: str = URL, begun: asyncio.Semaphore | None = None) -> Got:
    """Ask for a file and take all that comes; `begun` is released when the first bytes are there."""
    parts: list[bytes] = []
    async with w.http.get(w.daemon.url + path) as reply:
        cut = False
        try:
            async for part in reply.content.iter_any():
                if not parts and begun is not None:
                    begun.release()
                parts.append(part)
        except aiohttp.ClientError:
            cut = True
    return Got(status=reply.status, reason=reply.reason or "", body=b"".join(parts), cut=cut)


def temporary(w: World) -> list[Path]:
    return list((w.daemon.state / "blobs" / "tmp").iterdir())


async def let_go(drip: asyncio.Semaphore, record: dict[str, Any]) -> None:
    """Let the source send all of the file."""
    for _ in range(record["size"] // CHUNK + 1):
        drip.release()


async def test_thirty_clients_make_one_request_and_each_gets_the_right_bytes(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        record = await listed(w)
        drip, begun = asyncio.Semaphore(1), asyncio.Semaphore(0)
        w.upstream.fail(PATH, Fault(drip=drip, chunk_bytes=CHUNK))
        clients = [asyncio.create_task(fetch(w, begun=begun)) for _ in range(CLIENTS)]
        for _ in clients:
            await begun.acquire()  # each has bytes while the source has sent one chunk: nobody waits for the whole
        assert w.upstream.asked(PATH)[0].sent <= CHUNK
        await let_go(drip, record)
        replies = await asyncio.gather(*clients)
        assert {(reply.status, reply.cut, reply.sha256) for reply in replies} == {(200, False, record["sha256"])}
        assert len(w.upstream.asked(PATH)) == 1
        assert (await fetch(w)).sha256 == record["sha256"]  # from the store
        assert len(w.upstream.asked(PATH)) == 1
        assert (await w.call("mirror.get", mirror="main:m")).stored == 1
        assert temporary(w) == []


async def test_the_fetch_goes_on_when_all_clients_leave(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        record = await listed(w)
        drip, begun = asyncio.Semaphore(1), asyncio.Semaphore(0)
        w.upstream.fail(PATH, Fault(drip=drip, chunk_bytes=CHUNK))
        clients = [asyncio.create_task(fetch(w, begun=begun)) for _ in range(3)]
        for _ in clients:
            await begun.acquire()
        for client in clients:
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
        await let_go(drip, record)
        assert (await fetch(w)).sha256 == record["sha256"]
        assert len(w.upstream.asked(PATH)) == 1


async def test_a_source_that_breaks_off_is_asked_for_the_rest(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        record = await listed(w)
        middle = asyncio.Event()
        w.upstream.fail(PATH, Fault(cut_after=1_000_000, cut_when=middle))
        begun = asyncio.Semaphore(0)
        clients = [asyncio.create_task(fetch(w, begun=begun)) for _ in range(5)]
        for _ in clients:
            await begun.acquire()
        middle.set()
        replies = await asyncio.gather(*clients)
        assert {(reply.status, reply.cut, reply.sha256) for reply in replies} == {(200, False, record["sha256"])}
        first, second = w.upstream.asked(PATH)
        assert "range" not in first.headers
        assert second.headers["range"].startswith("bytes=")
        assert second.sent < record["size"]


async def test_a_source_that_always_breaks_off_completes_nothing(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        record = await listed(w)
        w.upstream.fail(PATH, Fault(cut_after=record["size"] - 10, no_ranges=True, no_validators=True), times=None)
        replies = await asyncio.gather(*(fetch(w) for _ in range(5)))
        for reply in replies:
            assert reply.cut or reply.status == 502
            assert len(reply.body) < record["size"]
        assert temporary(w) == []
        w.upstream.heal()
        reply = await fetch(w)
        assert (reply.status, reply.sha256) == (200, record["sha256"])  # it was the line, not the file: no waiting


async def test_wrong_bytes_reach_nobody_whole_and_are_refused_until_a_run(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        record = await listed(w)
        good = (w.source.path / PATH).read_bytes()
        wrong = good[:-1] + bytes([good[-1] ^ 1])
        drip, begun = asyncio.Semaphore(1), asyncio.Semaphore(0)
        w.upstream.fail(PATH, Fault(body=wrong, drip=drip, chunk_bytes=CHUNK))
        clients = [asyncio.create_task(fetch(w, begun=begun)) for _ in range(10)]
        for _ in clients:
            await begun.acquire()
        await let_go(drip, record)
        for reply in await asyncio.gather(*clients):
            assert (reply.status, reply.cut) == (200, True)
            assert len(reply.body) < len(wrong)
        assert temporary(w) == []
        assert not list((w.daemon.state / "blobs").glob("??/??/*"))
        # The source would have the right bytes now, but it is not asked: the next run settles it.
        refused = await fetch(w)
        assert refused.status == 502
        assert "sha256" in refused.reason
        assert "sha256" in json.loads(refused.body)["detail"]
        assert len(w.upstream.asked(PATH)) == 1
        assert (await w.run()).state is RunState.COMPLETED
        reply = await fetch(w)
        assert (reply.status, reply.sha256) == (200, record["sha256"])


async def test_a_small_wrong_file_is_a_502_with_the_reason_from_the_first_request(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await listed(w)
        good = (w.source.path / "noarch" / "beta-2.0-0.conda").read_bytes()
        w.upstream.fail("noarch/beta*", Fault(body=b"x" * len(good)))
        first, second = [await fetch(w, "/repo/main/noarch/beta-2.0-0.conda") for _ in range(2)]
        assert (first.status, second.status) == (502, 502)
        assert "beta-2.0-0.conda is not what its index promises" in first.reason
        assert first.reason == second.reason
        assert len(w.upstream.asked("noarch/beta*")) == 1
        # Of another file nobody says anything bad.
        assert (await fetch(w, "/repo/main/noarch/alpha-1.9-0.conda")).status == 200


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        (Fault(status=403, reason="No Access"), "403"),
        (Fault(status=404), "does not have it"),
        (Fault(status=500), "500"),
        (Fault(content_length=17), "17 bytes, "),
        (Fault(drop=True), "closed the connection"),
    ],
    ids=["403", "404", "500", "other length", "dropped"],
)
async def test_what_a_source_refuses_is_a_502_that_says_why(tmp_path: Path, fault: Fault, why: str) -> None:
    async with world(tmp_path) as w:
        await w.mirror("passive")
        await w.run()
        w.upstream.fail("noarch/beta*", fault, times=None)
        began = time.monotonic()
        replies = await asyncio.gather(*(fetch(w, "/repo/main/noarch/beta-2.0-0.conda") for _ in range(5)))
        assert time.monotonic() - began < QUICK_S
        for reply in replies:
            assert reply.status == 502
            assert why in json.loads(reply.body)["detail"]
        w.upstream.heal()
        await w.run()
        assert (await fetch(w, "/repo/main/noarch/beta-2.0-0.conda")).status == 200


async def test_a_source_that_is_down_costs_only_what_is_not_stored(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        record = await listed(w)
        assert (await fetch(w)).sha256 == record["sha256"]
        await w.upstream.__aexit__(None, None, None)  # the port is closed
        began = time.monotonic()
        stored, *others = await asyncio.gather(
            fetch(w), *(fetch(w, "/repo/main/noarch/alpha-1.9-0.conda") for _ in range(10))
        )
        assert time.monotonic() - began < QUICK_S
        assert (stored.status, stored.sha256) == (200, record["sha256"])
        for reply in others:
            assert reply.status == 502
            assert "cannot be reached" in reply.reason
        assert len(await w.names()) == 6  # the index is all there
        run = await w.run()
        assert run.state is RunState.FAILED
        assert (await fetch(w)).sha256 == record["sha256"]


async def test_a_source_that_says_nothing_is_no_hang(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, upstream=UpstreamSettings(timeout_s=0.3))
    async with world(tmp_path, settings=settings) as w:
        record = await listed(w)
        assert (await fetch(w)).sha256 == record["sha256"]
        never = asyncio.Event()
        w.upstream.fail("noarch/beta*", Fault(until=never), times=None)
        waiting = asyncio.create_task(fetch(w, "/repo/main/noarch/beta-2.0-0.conda"))
        await w.upstream.arrived("noarch/beta*")
        assert (await fetch(w)).sha256 == record["sha256"]  # others do not wait behind it
        async with asyncio.timeout(QUICK_S):
            reply = await waiting
        assert (reply.status, "sent nothing for 0.3 s" in reply.reason) == (502, True)
        never.set()
