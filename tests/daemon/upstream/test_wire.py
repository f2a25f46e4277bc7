"""What is plain comes past the parser, small in one piece and large as it comes; all else is told as ever."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from firth_protocol import errors
from firth_protocol.types import Credentials
from firthd.config import UpstreamSettings
from firthd.upstream.client import Source, Upstream
from firthd.upstream.failures import Passing
from firthd.upstream.http import Asking
from firthd.upstream.source import Validators
from firthd.upstream.wire import SMALL_BYTES, UNREAD_BYTES, ordinary
from tests.support.clock import FakeClock
from tests.support.upstream import Fault, FaultyUpstream

FILE = "noarch/a-1-0.conda"
SMALL = bytes(range(256)) * 200
LARGE = SMALL * 200
PLAIN = b'HTTP/1.1 200 OK\r\nDate: today\r\nETag: "a"\r\nContent-Length: 5\r\nConnection: keep-alive'


async def brought(upstream: Upstream, source: Source, path: str = FILE) -> bytes:
    """Bring a file as a transfer does: in one piece, or by going on with what came."""
    data = await upstream.whole(source, path)
    if isinstance(data, bytes | memoryview):
        return bytes(data)
    async with upstream.open(source, path, begun=data) as body:
        return b"".join([chunk async for chunk in body])


@asynccontextmanager
async def saying(*answers: bytes, heard: list[bytes] | None = None) -> AsyncIterator[Source]:
    """Answer each request of all connections with the next of these bytes."""
    left = iter(answers)
    requests = [] if heard is None else heard

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while request := await reader.readuntil(b"\r\n\r\n"):
            requests.append(request)
            said = next(left)
            writer.write(said)
            if b"Connection: close" in said:
                break
        writer.close()

    async def quietly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(quietly, "127.0.0.1", 0)
    async with server:
        yield Source(url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")


def answer(body: bytes, *more: bytes) -> bytes:
    return b"\r\n".join((b"HTTP/1.1 200 OK", b"Content-Length: %d" % len(body), *more, b"", body))


def test_a_plain_head_is_understood() -> None:
    found = ordinary(PLAIN)
    assert found is not None
    headers, length = found
    assert length == 5
    assert (headers.get("etag"), headers.get("ETag"), headers.get("Location")) == ('"a"', '"a"', None)
    assert "date" in headers
    assert headers.getall("Content-Encoding", ()) == ()


@pytest.mark.parametrize(
    "head",
    [
        PLAIN.replace(b"200", b"206"),
        PLAIN.replace(b"200", b"302"),
        PLAIN.replace(b"HTTP/1.1", b"HTTP/1.0"),
        PLAIN.replace(b"HTTP/1.1", b"http/1.1"),
        PLAIN.replace(b"keep-alive", b"close"),
        PLAIN.replace(b"keep-alive", b"keep-alive, upgrade"),
        PLAIN.replace(b": 5", b": 5, 5"),
        PLAIN.replace(b": 5", b": +5"),
        PLAIN.replace(b": 5", b": 0x5"),
        PLAIN.replace(b"Content-Length: 5", b"X: y"),
        PLAIN + b"\r\nContent-Length: 5",
        PLAIN + b"\r\ncontent-length: 6",
        PLAIN + b"\r\nTransfer-Encoding: chunked",
        PLAIN + b"\r\nTRANSFER-ENCODING: identity",
        PLAIN + b"\r\nContent-Encoding: gzip",
        PLAIN + b"\r\nContent-Range: bytes 0-4/5",
        PLAIN + b"\r\nX: a\r\n folded",
        PLAIN + b"\r\nX : a",
        PLAIN + b"\r\nX: a\nTransfer-Encoding: chunked",
        PLAIN + b"\r\nX: a\rb",
        PLAIN + b"\r\nX: \xe9",
        PLAIN + b"\r\nX: \0",
        PLAIN + b"\r\nno colon",
        b"",
    ],
)
def test_a_head_that_is_less_than_plain_is_left_to_the_parser(head: bytes) -> None:
    assert ordinary(head) is None


async def test_a_small_file_comes_in_one_piece_over_one_connection(server: FaultyUpstream, upstream: Upstream) -> None:
    server.basic = ("user", "password")
    source = Source(url=server.url, credentials=Credentials(user="user", password="password"))
    for number in range(3):
        server.files[f"{number}"] = SMALL + bytes([number])
        assert await upstream.whole(source, f"{number}") == SMALL + bytes([number])
    assert [seen.status for seen in server.requests] == [200] * 3
    sent = [
        {name: value for name, value in seen.headers.items() if name != "authorization"} for seen in server.requests
    ]
    server.basic = None
    async with upstream.open(source, "0") as body:
        assert [chunk async for chunk in body]
    usual = {name: value for name, value in server.requests[-1].headers.items() if name != "authorization"}
    assert sent == [usual] * 3  # nobody can tell how a file was asked for
    assert upstream.hosts()[0].answers == 4


async def test_a_request_says_each_thing_once(upstream: Upstream, tmp_path: Path) -> None:
    heard: list[bytes] = []
    async with saying(answer(b"[]"), answer(b"[]"), heard=heard) as source:
        for small in (True, False):
            await upstream.fetch(
                source,
                "simple/a/",
                tmp_path / "page",
                max_bytes=99,
                validators=Validators(etag='"a"'),
                accept="x/y",
                small=small,
            )
    headers = [sorted(request.lower().split(b"\r\n")) for request in heard]
    assert headers[0] == headers[1]
    assert len({line.partition(b":")[0] for line in headers[0]}) == len(headers[0]) - 1  # two empty lines end it


@pytest.mark.parametrize(
    "fault",
    [
        Fault(chunked=True),
        Fault(encoding="gzip", label_only=True),
        Fault(headers={"Connection": "close"}),
        Fault(headers={"X-Long": "x" * 20_000}),
    ],
    ids=["chunked", "label", "close", "long"],
)
async def test_what_is_not_plain_is_gone_on_with(server: FaultyUpstream, upstream: Upstream, fault: Fault) -> None:
    server.files[FILE] = SMALL
    server.fail("*", fault)
    begun = await upstream.whole(Source(url=server.url), FILE)
    assert isinstance(begun, Asking)
    async with upstream.open(Source(url=server.url), FILE, begun=begun) as body:
        assert b"".join([chunk async for chunk in body]) == SMALL
    assert len(server.requests) == 1  # and is not asked for again
    assert await brought(upstream, Source(url=server.url)) == SMALL


async def test_a_larger_file_than_was_told_is_gone_on_with(server: FaultyUpstream, upstream: Upstream) -> None:
    server.files[FILE] = SMALL * 100
    assert await brought(upstream, Source(url=server.url)) == SMALL * 100
    assert len(server.requests) == 1


async def test_a_large_file_is_taken_no_faster_than_it_is_read(server: FaultyUpstream) -> None:
    server.files[FILE] = LARGE * 5
    upstream = Upstream(UpstreamSettings(timeout_s=0.2), FakeClock(auto=True))
    await upstream.start()
    async with upstream.open(Source(url=server.url), FILE) as body:
        chunks = [await anext(body)]
        await asyncio.sleep(0.5)  # longer than a silence may be: it is not the source that everything waits for
        assert UNREAD_BYTES < server.requests[0].sent < len(LARGE) * 3
        chunks += [chunk async for chunk in body]
    assert b"".join(chunks) == LARGE * 5
    server.files["next"] = SMALL
    assert await brought(upstream, Source(url=server.url), "next") == SMALL
    await upstream.close()


@pytest.mark.parametrize("size", [100, SMALL_BYTES + 1])
async def test_what_is_watched_comes_as_soon_as_it_was_sent(
    server: FaultyUpstream, upstream: Upstream, size: int
) -> None:
    server.files[FILE] = LARGE[:size]
    permits = asyncio.Semaphore(0)
    server.fail(FILE, Fault(drip=permits, chunk_bytes=10))
    async with asyncio.timeout(5), upstream.open(Source(url=server.url), FILE) as body:
        for number in range(5):
            permits.release()
            assert await anext(body) == LARGE[10 * number : 10 * number + 10]


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (Fault(cut_after=3_000_000, cut_when=None), "broke off after [0-9,]+ of 10,240,000 bytes"),
        (Fault(drip=asyncio.Semaphore(20), chunk_bytes=100_000), r"sent nothing for 0\.2 s"),
    ],
    ids=["cut", "silent"],
)
async def test_a_large_file_that_does_not_end_is_told(server: FaultyUpstream, fault: Fault, told: str) -> None:
    server.files[FILE] = LARGE
    server.fail(FILE, fault)
    upstream = Upstream(UpstreamSettings(timeout_s=0.2), FakeClock(auto=True))
    await upstream.start()
    with pytest.raises(Passing, match=told):
        await brought(upstream, Source(url=server.url))
    assert await brought(upstream, Source(url=server.url)) == LARGE
    await upstream.close()


async def test_more_than_was_told_of_a_large_file_ends_the_connection(upstream: Upstream) -> None:
    more = answer(LARGE) + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
    async with saying(more, answer(b"second")) as source:
        assert await brought(upstream, source) == LARGE
        assert await brought(upstream, source) == b"second"


async def test_a_redirect_is_followed_without_credentials(server: FaultyUpstream, upstream: Upstream) -> None:
    async with FaultyUpstream({"there": SMALL}) as other:
        server.fail("*", Fault(redirect=f"{other.url}/there"))
        source = Source(url=server.url, credentials=Credentials(bearer="sesame"))
        assert await brought(upstream, source) == SMALL
        assert server.requests[0].headers["authorization"] == "Bearer sesame"
        assert "authorization" not in other.requests[0].headers
        assert (len(server.requests), len(other.requests)) == (1, 1)


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (Fault(status=404), "does not have"),
        (Fault(status=503), "answered 503"),
        (Fault(cut_after=1000), f"broke off after 1,000 of {len(SMALL):,} bytes"),
        (Fault(drop=True), "closed the connection without an answer"),
    ],
)
async def test_what_goes_wrong_is_told_as_ever(
    server: FaultyUpstream, upstream: Upstream, fault: Fault, told: str
) -> None:
    server.files[FILE] = SMALL
    server.fail("*", fault, times=None)
    with pytest.raises((errors.Upstream, errors.NotFound), match=told):
        await brought(upstream, Source(url=server.url))
    asked = len(server.requests)
    assert asked == (2 if fault.drop else 1)  # as aiohttp does, once more where a connection gave no answer
    server.heal()
    assert await brought(upstream, Source(url=server.url)) == SMALL


@pytest.mark.parametrize("fault", [Fault(until=asyncio.Event()), Fault(drip=asyncio.Semaphore(1), chunk_bytes=10)])
async def test_a_source_that_falls_silent_is_given_up(server: FaultyUpstream, fault: Fault) -> None:
    upstream = Upstream(UpstreamSettings(timeout_s=0.1), FakeClock(auto=True))
    await upstream.start()
    server.files[FILE] = SMALL
    server.fail("*", fault)
    with pytest.raises(Passing, match=r"sent nothing for 0\.1 s"):
        await brought(upstream, Source(url=server.url))
    await upstream.close()


@pytest.mark.parametrize(
    "first",
    [
        answer(b"first") + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
        b"HTTP/1.1 100 Continue\r\n\r\n" + answer(b"first"),
        answer(b"first").replace(b"\r\n", b"\n"),
        answer(b"first", b"Connection: close"),
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nfirst",
    ],
    ids=["more than was asked for", "an interim answer", "bare line feeds", "the last", "without a length"],
)
async def test_an_answer_never_reaches_the_next_request(upstream: Upstream, first: bytes) -> None:
    async with saying(first, answer(b"second")) as source:
        assert await brought(upstream, source) == b"first"
        assert await brought(upstream, source) == b"second"


async def test_what_comes_without_being_asked_for_ends_the_connection(upstream: Upstream) -> None:
    arrived = asyncio.Event()
    ended: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer(b"asked"))
        await arrived.wait()
        writer.write(answer(b"unasked"))
        ended.append(await reader.read())
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server, asyncio.timeout(5):
        source = Source(url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        assert await upstream.whole(source, FILE) == b"asked"
        arrived.set()
        while not ended:
            await asyncio.sleep(0)
        assert ended == [b""]
        assert await upstream.whole(source, FILE) == b"asked"


async def test_whoever_goes_away_leaves_no_answer_behind(server: FaultyUpstream, upstream: Upstream) -> None:
    server.files |= {FILE: SMALL, "other": b"other"}
    gate = asyncio.Event()
    server.fail(FILE, Fault(until=gate))
    asking = asyncio.create_task(upstream.whole(Source(url=server.url), FILE))
    await server.arrived(FILE)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    gate.set()
    assert await brought(upstream, Source(url=server.url), "other") == b"other"


async def test_a_folder_has_no_connection(upstream: Upstream) -> None:
    assert await upstream.whole(Source(url="file:///nowhere"), FILE) is None
