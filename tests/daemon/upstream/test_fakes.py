"""What other tests rely on: the fake clock and the fake source themselves."""

import asyncio

import aiohttp
import pytest
from yarl import URL

from tests.support.clock import START_MS, FakeClock
from tests.support.http_rules import ENCODERS
from tests.support.upstream import Fault, FaultyUpstream, Seen
from tests.support.web import until


async def test_time_moves_only_when_told_and_wakes_sleepers_in_order() -> None:
    clock = FakeClock()
    woken: list[tuple[str, float]] = []

    async def sleeper(name: str, *seconds: float) -> None:
        for pause in seconds:
            await clock.sleep(pause)
            woken.append((name, clock.monotonic()))

    async with asyncio.TaskGroup() as group:
        group.create_task(sleeper("long", 10))
        group.create_task(sleeper("twice", 2, 3))
        await clock.asleep(2)
        await clock.advance(1)
        assert clock.sleepers == 2
        await clock.advance(1)
        assert woken == [("twice", 2.0)]
        await clock.advance(3)
        assert woken[1:] == [("twice", 5.0)]
        await clock.advance(100)
    assert woken[-1] == ("long", 10.0)
    assert clock.now_ms() == START_MS + 105_000
    assert sorted(clock.slept) == [2, 3, 10]


async def test_an_automatic_clock_never_waits_and_a_cancelled_sleep_is_forgotten() -> None:
    clock = FakeClock(auto=True)
    await clock.sleep(3600)
    assert (clock.monotonic(), clock.slept) == (3600, [3600])
    clock.auto = False
    sleeping = asyncio.create_task(clock.sleep(1))
    await clock.asleep()
    sleeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sleeping
    assert clock.sleepers == 0
    await clock.advance(2)


async def test_the_fake_source_keeps_to_the_rules_of_http() -> None:
    async with FaultyUpstream({"a": b"0123456789"}) as server, aiohttp.ClientSession(server.url) as session:
        etag = server.etag("a")

        async def ask(**headers: str) -> tuple[int, bytes, str | None]:
            names = {name.replace("_", "-"): value for name, value in headers.items()}
            async with session.get("/a", headers=names) as reply:
                return reply.status, await reply.read(), reply.headers.get("Content-Range")

        assert await ask() == (200, b"0123456789", None)
        assert await ask(If_None_Match=etag) == (304, b"", None)
        assert await ask(If_None_Match=f'"x", W/{etag}') == (304, b"", None)
        assert await ask(If_None_Match='"x"', If_Modified_Since="Fri, 20 Mar 2026 09:46:40 GMT") == (
            200,
            b"0123456789",
            None,
        )
        assert await ask(If_Modified_Since="Fri, 20 Mar 2026 09:46:40 GMT") == (304, b"", None)
        assert await ask(Range="bytes=8-") == (206, b"89", "bytes 8-9/10")
        assert await ask(Range="bytes=2-3") == (206, b"23", "bytes 2-3/10")
        assert await ask(Range="bytes=-3") == (206, b"789", "bytes 7-9/10")
        assert await ask(Range="bytes=-30") == (206, b"0123456789", "bytes 0-9/10")
        assert await ask(Range="bytes=10-") == (416, b"", "bytes */10")
        assert await ask(Range="bytes=8-", If_Range=etag) == (206, b"89", "bytes 8-9/10")
        assert await ask(Range="bytes=8-", If_Range='"x"') == (200, b"0123456789", None)
        assert [(seen.method, seen.path, seen.status) for seen in server.asked("a")][:2] == [
            ("GET", "a", 200),
            ("GET", "a", 304),
        ]


async def test_faults_are_met_in_order_and_as_often_as_planned() -> None:
    async with FaultyUpstream({"a": b"x"}) as server, aiohttp.ClientSession(server.url) as session:
        server.fail("a", Fault(status=500), times=2)
        server.fail("*", Fault(status=418), times=None)
        statuses = []
        for _ in range(4):
            async with session.get("/a") as reply:
                statuses.append(reply.status)
        server.heal()
        async with session.head("/a") as reply:
            statuses.append(reply.status)
        assert statuses == [500, 500, 418, 418, 200]


async def test_routes_say_what_stands_at_a_path_and_faults_go_by_method_and_turn() -> None:
    def signed(seen: Seen) -> bytes | Fault | None:
        if seen.query != "signature=a%2Bb":
            return Fault(status=403, body=b"a wrong signature")
        return b"signed" if seen.path.endswith("here") else None

    async with FaultyUpstream({"a": b"aa"}, missing=Fault(status=403, body=b"no list")) as server:
        server.route("signed/*", signed)
        server.fail("a", Fault(status=405), times=None, method="HEAD")
        server.fail("a", Fault(status=500), times=None, method="GET", every=3)
        async with aiohttp.ClientSession() as session:

            async def ask(path: str, method: str = "GET") -> tuple[int, bytes]:
                address = URL(f"{server.url}/{path}", encoded=True)
                async with session.request(method, address) as reply:
                    return reply.status, await reply.read()

            assert await ask("signed/here?signature=a%2Bb") == (200, b"signed")
            assert await ask("signed/here") == (403, b"a wrong signature")
            assert await ask("signed/gone?signature=a%2Bb") == (403, b"no list")
            assert await ask("other") == (403, b"no list")
            assert [(await ask("a"))[0] for _ in range(6)] == [200, 200, 500, 200, 200, 500]
            assert (await ask("a", "HEAD"))[0] == 405


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "deflate", "zstd", "none"])
async def test_an_encoding_is_named_and_done_unless_it_is_only_a_label(encoding: str) -> None:
    async with FaultyUpstream({"a": b"text"}) as server, aiohttp.ClientSession(auto_decompress=False) as session:
        server.fail("a", Fault(encoding=encoding))
        server.fail("a", Fault(encoding=encoding, label_only=True))
        for coded in (ENCODERS.get(encoding, bytes)(b"text"), b"text"):
            async with session.get(f"{server.url}/a") as reply:
                assert reply.headers["Content-Encoding"] == encoding
                assert await reply.read() == coded


async def test_an_endless_answer_ends_when_the_client_leaves() -> None:
    async with FaultyUpstream({"a": b""}) as server:
        server.fail("a", Fault(endless=b"x" * 1000))
        async with aiohttp.ClientSession() as session, session.get(f"{server.url}/a") as reply:
            assert await reply.content.readexactly(100_000) == b"x" * 100_000
        await until(lambda: server.in_flight == 0)
