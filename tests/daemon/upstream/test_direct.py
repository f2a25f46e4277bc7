"""A large body that comes straight from its socket: all of it, once, and whatever goes wrong is told as ever."""

import asyncio
import errno
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from firthd.config import UpstreamSettings
from firthd.upstream.body import Body
from firthd.upstream.client import Source, Upstream
from firthd.upstream.direct import LEAST_BYTES, Direct
from firthd.upstream.failures import Passing
from tests.support.clock import FakeClock
from tests.support.upstream import Fault, FaultyUpstream

FILE = "noarch/a-1-0.conda"
LARGE = bytes(range(256)) * 20_000


class Taken:
    """What was taken in threads, and what was told of it in the loop."""

    def __init__(self, most: int | None = None) -> None:
        self.bytes = bytearray()
        self.told = 0
        self._most = most

    def take(self, chunk: memoryview) -> None:
        if self._most is not None and len(self.bytes) + len(chunk) > self._most:
            raise OSError(errno.ENOSPC, "full")
        self.bytes += chunk

    def came(self, size: int) -> None:
        self.told += size
        assert self.told <= len(self.bytes)

    async def all_of(self, body: Body) -> bool:
        """Take all of a body; return whether any of it was pumped."""
        await body.pump(self.take, self.came)
        pumped = bool(self.bytes)
        async for chunk in body:
            self.take(memoryview(chunk))
            self.came(len(chunk))
        return pumped


class Ticking(FakeClock):
    """A clock that each look at it moves by a millisecond."""

    looks = 0

    def monotonic(self) -> float:
        self.looks += 1
        return self.looks / 1000


@asynccontextmanager
async def asking(timeout_s: float = 5, clock: FakeClock | None = None) -> AsyncIterator[Upstream]:
    upstream = Upstream(UpstreamSettings(timeout_s=timeout_s), clock or FakeClock(auto=True))
    await upstream.start()
    yield upstream
    await upstream.close()


async def test_all_of_it_comes_and_its_connection_is_used_again(server: FaultyUpstream) -> None:
    server.files[FILE] = LARGE * 10
    async with asking() as upstream:
        for _ in range(2):
            taken = Taken()
            async with upstream.open(Source(url=server.url), FILE) as body:
                assert await taken.all_of(body)
            assert taken.bytes == server.files[FILE]
            assert taken.told == body.received == len(server.files[FILE])
        (host,) = upstream.hosts()
        assert host.answers == 2


@pytest.mark.parametrize(
    "fault",
    [
        Fault(chunked=True),
        Fault(encoding="gzip"),
        Fault(headers={"Connection": "close"}),
    ],
    ids=["chunked", "encoded", "the last"],
)
async def test_what_is_not_plain_is_iterated_over(server: FaultyUpstream, fault: Fault) -> None:
    server.files[FILE] = LARGE
    server.fail(FILE, fault)
    async with asking() as upstream, upstream.open(Source(url=server.url), FILE) as body:
        taken = Taken()
        assert not await taken.all_of(body)
        assert taken.bytes == LARGE


@pytest.mark.parametrize("size", [0, 10, LEAST_BYTES - 1])
async def test_what_is_not_worth_it_is_iterated_over(server: FaultyUpstream, size: int) -> None:
    server.files[FILE] = LARGE[:size]
    async with asking() as upstream, upstream.open(Source(url=server.url), FILE) as body:
        taken = Taken()
        assert not await taken.all_of(body)
        assert taken.bytes == LARGE[:size]


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (Fault(cut_after=3_000_000), "broke off after 3,000,000 of 5,120,000 bytes"),
        (Fault(cut_after=3_000_000, reset=True), "5,120,000 bytes|reset"),
        (Fault(drip=asyncio.Semaphore(20), chunk_bytes=100_000), r"sent nothing for 0\.2 s"),
    ],
    ids=["cut", "reset", "silent"],
)
async def test_what_goes_wrong_is_told_and_what_came_is_counted(
    server: FaultyUpstream, fault: Fault, told: str
) -> None:
    server.files[FILE] = LARGE
    server.fail(FILE, fault)
    async with asking(0.2) as upstream:
        taken = Taken()
        with pytest.raises(Passing, match=told):
            async with upstream.open(Source(url=server.url), FILE) as body:
                await taken.all_of(body)
        assert taken.told == len(taken.bytes)
        assert LARGE.startswith(taken.bytes)
        again = Taken()
        async with upstream.open(Source(url=server.url), FILE) as body:
            assert await again.all_of(body)
        assert again.bytes == LARGE


async def test_a_source_that_stops_being_fast_keeps_no_thread(server: FaultyUpstream) -> None:
    server.files[FILE] = LARGE
    permits = asyncio.Semaphore(20)
    server.fail(FILE, Fault(drip=permits, chunk_bytes=100_000))
    async with asking() as upstream, upstream.open(Source(url=server.url), FILE) as body, asyncio.timeout(5):
        taken = Taken()
        assert not await body.pump(taken.take, taken.came)
        assert taken.told == len(taken.bytes) == 2_000_000
        for _ in range(100):
            permits.release()
        assert await taken.all_of(body)
        assert taken.bytes == LARGE


async def test_a_source_that_always_sends_but_slowly_keeps_no_thread() -> None:
    here, there = socket.socketpair()
    here.setblocking(False)
    taken = Taken()
    direct = Direct(here, 10_000_000, Ticking(), asyncio.get_running_loop())

    def take(chunk: memoryview) -> None:
        taken.take(chunk)
        there.send(bytes(1000))  # a megabyte a second

    there.send(bytes(1000))
    async with asyncio.timeout(5):
        await direct.pump((), take, taken.came)
    assert len(taken.bytes) < 50_000
    direct.close()
    there.close()


async def test_what_cannot_be_taken_ends_it_and_nothing_is_left_on_the_connection(server: FaultyUpstream) -> None:
    server.files |= {FILE: LARGE, "other": b"other"}
    async with asking() as upstream:
        taken = Taken(most=2_000_000)
        with pytest.raises(OSError, match="full"):
            async with upstream.open(Source(url=server.url), FILE) as body:
                await taken.all_of(body)
        assert taken.told == len(taken.bytes)
        async with upstream.open(Source(url=server.url), "other") as body:
            assert b"".join([chunk async for chunk in body]) == b"other"


async def test_whoever_goes_away_ends_it(server: FaultyUpstream) -> None:
    server.files |= {FILE: LARGE, "other": b"other"}
    server.fail(FILE, Fault(drip=asyncio.Semaphore(3), chunk_bytes=100_000))
    async with asking(60) as upstream, asyncio.timeout(5):
        taken = Taken()

        async def bring() -> None:
            async with upstream.open(Source(url=server.url), FILE) as body:
                await taken.all_of(body)

        bringing = asyncio.create_task(bring())
        while taken.told < 300_000:
            await asyncio.sleep(0)
        bringing.cancel()
        await asyncio.wait([bringing])
        assert bringing.cancelled()
        async with upstream.open(Source(url=server.url), "other") as body:
            assert b"".join([chunk async for chunk in body]) == b"other"
