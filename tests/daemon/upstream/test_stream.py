"""Opening a stream, looking at a head, peeking."""

import asyncio
import contextlib

import pytest

from firth_protocol import errors
from firth_protocol.types import Credentials
from firthd.config import UpstreamSettings
from firthd.upstream.client import Body, Source, Upstream
from firthd.upstream.failures import Passing, Slow, Unreachable
from firthd.upstream.hosts import Lane
from tests.support.clock import FakeClock, settle
from tests.support.upstream import Fault, FaultyUpstream

FILE = "noarch/a-1-0.conda"
CONTENT = bytes(range(256)) * 1024


async def read(upstream: Upstream, source: Source, path: str = FILE, **options: object) -> bytes:
    async with upstream.open(source, path, **options) as body:  # type: ignore[arg-type]
        return b"".join([chunk async for chunk in body])


async def test_a_stream_gives_bytes_as_they_come(server: FaultyUpstream, upstream: Upstream) -> None:
    server.files[FILE] = CONTENT
    permits = asyncio.Semaphore(1)
    server.fail("*", Fault(drip=permits, chunk_bytes=100_000))
    async with upstream.open(Source(url=server.url), FILE) as body:
        assert (body.length, body.offset, body.status) == (len(CONTENT), 0, 200)
        assert body.validators.etag == server.etag(FILE)
        got = await anext(body)
        assert got == CONTENT[: len(got)]
        assert len(got) <= 100_000  # the rest has not left the server yet
        for _ in range(2):
            permits.release()
        got += b"".join([chunk async for chunk in body])
    assert got == CONTENT
    assert body.received == len(CONTENT)


async def test_one_attempt_only(server: FaultyUpstream, upstream: Upstream, clock: FakeClock) -> None:
    server.fail("*", Fault(status=503, retry_after=3))
    with pytest.raises(errors.Upstream) as told:
        await read(upstream, Source(url=server.url))
    assert (told.value.data["status"], told.value.data["retry_after_s"]) == (503, 3)
    assert clock.slept == []


async def test_what_is_not_there_is_not_found(server: FaultyUpstream, upstream: Upstream) -> None:
    with pytest.raises(errors.NotFound, match=f"{server.host} does not have {server.url}/{FILE}"):
        await read(upstream, Source(url=server.url))


@pytest.mark.parametrize(
    "fault", [Fault(cut_after=1000), Fault(content_length=10**7), Fault(chunked=True, cut_after=9)]
)
async def test_a_broken_stream_raises_while_it_is_read(
    server: FaultyUpstream, upstream: Upstream, fault: Fault
) -> None:
    server.files[FILE] = CONTENT
    server.fail("*", fault)
    with pytest.raises(errors.Upstream, match="broke off after"):
        await read(upstream, Source(url=server.url))


async def test_the_rest_of_a_file_can_be_asked_for(server: FaultyUpstream, upstream: Upstream) -> None:
    server.files[FILE] = CONTENT
    source = Source(url=server.url)
    async with upstream.open(source, FILE, offset=1000, if_range=server.etag(FILE)) as body:
        assert (body.status, body.offset, body.length) == (206, 1000, len(CONTENT) - 1000)
        assert b"".join([chunk async for chunk in body]) == CONTENT[1000:]
    async with upstream.open(source, FILE, offset=1000, if_range='"another"') as body:
        assert (body.status, body.offset, body.length) == (200, 0, len(CONTENT))


async def test_leaving_a_stream_early_frees_its_place(server: FaultyUpstream) -> None:
    upstream = Upstream(UpstreamSettings(connections_per_host=1), FakeClock(auto=True))
    await upstream.start()
    server.files[FILE] = CONTENT * 40
    source = Source(url=server.url)
    for _ in range(3):
        async with upstream.open(source, FILE) as body:
            await anext(body)
    assert len(await read(upstream, source)) == len(CONTENT) * 40
    await upstream.close()


async def test_a_long_pause_that_the_host_asked_for_is_told_to_who_waits(
    server: FaultyUpstream, upstream: Upstream
) -> None:
    server.files[FILE] = CONTENT
    server.fail("*", Fault(status=429, retry_after=120))
    for _ in range(2):
        with pytest.raises(errors.Upstream) as told:
            await read(upstream, Source(url=server.url), lane=Lane.CLIENT)
        assert told.value.data["retry_after_s"] == 120
    assert len(server.requests) == 1
    assert await read(upstream, Source(url=server.url)) == CONTENT  # a run has the time


async def test_the_timeout_of_one_stream(server: FaultyUpstream, upstream: Upstream) -> None:
    server.files[FILE] = CONTENT
    server.fail("*", Fault(drip=asyncio.Semaphore(1)))
    with pytest.raises(errors.Upstream, match=r"sent nothing for 0\.1 s"):
        await read(upstream, Source(url=server.url), timeout_s=0.1)


@pytest.mark.parametrize(
    ("server_wants", "credentials"),
    [
        ({"basic": ("me", "pä:ss")}, Credentials(user="me", password="pä:ss")),
        ({"bearer": "abc.def"}, Credentials(bearer="abc.def")),
        ({"token": "tk-1"}, Credentials(token="tk-1")),
    ],
)
async def test_each_form_of_credentials_opens_its_source(
    upstream: Upstream, server_wants: dict[str, str], credentials: Credentials
) -> None:
    async with FaultyUpstream({FILE: CONTENT}, **server_wants) as server:  # type: ignore[arg-type]
        url = f"{server.url}/t/{{token}}" if credentials.token else server.url
        assert await read(upstream, Source(url=url, credentials=credentials)) == CONTENT
        with pytest.raises(errors.Upstream) as told:
            await read(upstream, Source(url=server.url))
        assert told.value.data["status"] in {401, 403}
        assert "credentials" in told.value.hint


async def test_credentials_go_to_another_address_only_on_the_same_host(upstream: Upstream) -> None:
    async with FaultyUpstream({FILE: CONTENT}, basic=("me", "pw")) as home, FaultyUpstream({FILE: b"other"}) as other:
        source = Source(url=f"{home.url}/channel", credentials=Credentials(user="me", password="pw"))
        assert await read(upstream, source, f"{home.url}/{FILE}") == CONTENT
        assert await read(upstream, source, f"{other.url}/{FILE}") == b"other"
        assert "authorization" in home.requests[0].headers
        assert "authorization" not in other.requests[0].headers


async def test_a_stream_before_the_start_or_after_the_end_is_refused() -> None:
    upstream = Upstream(UpstreamSettings(), FakeClock())
    with pytest.raises(errors.Unavailable):
        await read(upstream, Source(url="http://conda.example.org"))


async def test_a_head_tells_what_is_there(server: FaultyUpstream, upstream: Upstream) -> None:
    server.files |= {FILE: CONTENT, "empty": b""}
    server.content_types[FILE] = "application/zip"
    source = Source(url=server.url)
    head = await upstream.head(source, FILE)
    assert (head.found, head.length, head.content_type) == (True, len(CONTENT), "application/zip")
    assert head.validators.etag == server.etag(FILE)
    assert [seen.method for seen in server.requests] == ["HEAD"]
    assert (await upstream.head(source, "nothing")).status == 404
    server.fail("*", Fault(status=401))
    assert (await upstream.head(source, FILE)).status == 401


async def test_where_head_is_refused_the_first_byte_is_asked_for(server: FaultyUpstream, upstream: Upstream) -> None:
    server.files |= {FILE: CONTENT, "empty": b""}
    source = Source(url=server.url)
    server.fail("*", Fault(no_head=True))
    head = await upstream.head(source, FILE)
    assert (head.status, head.length) == (200, len(CONTENT))
    assert (server.requests[-1].method, server.requests[-1].sent) == ("GET", 1)
    server.fail("*", Fault(no_head=True))
    assert (await upstream.head(source, "empty")).length == 0
    server.fail("*", Fault(no_head=True))
    server.fail("*", Fault(no_ranges=True))
    assert (await upstream.head(source, FILE)).length == len(CONTENT)
    server.fail("*", Fault(no_head=True))
    assert (await upstream.head(source, "nothing")).status == 404


async def test_a_peek_reads_no_more_than_asked_whatever_the_status(server: FaultyUpstream, upstream: Upstream) -> None:
    server.files[FILE] = CONTENT
    server.fail("page", Fault(status=403, headers={"Content-Type": "text/html; charset=utf-8"}, body=b"<html>no"))
    source = Source(url=server.url)
    assert (await upstream.peek(source, FILE, max_bytes=10)).body == CONTENT[:10]
    page = await upstream.peek(source, "page")
    assert (page.status, page.content_type, page.body) == (403, "text/html", b"<html>no")


async def test_a_source_below_the_least_rate_is_broken_whatever_it_still_sends(server: FaultyUpstream) -> None:
    clock = FakeClock()
    upstream = Upstream(UpstreamSettings(timeout_s=5), clock)
    await upstream.start()
    server.files[FILE] = CONTENT
    drip = asyncio.Semaphore(0)
    server.fail("*", Fault(drip=drip, chunk_bytes=4_000))
    slow = rf"{server.host} sent less than 1.0 kB/s for 60 s; .* after 48,000 of 262,144"

    async def chunk(body: Body) -> None:
        waiting = asyncio.ensure_future(anext(body))
        await settle()
        await clock.advance(5)
        drip.release()
        await waiting

    async with upstream.open(Source(url=server.url), FILE) as body:
        for _ in range(11):
            await chunk(body)
        with pytest.raises(Slow, match=slow):
            await chunk(body)
    assert clock.monotonic() == 60
    await upstream.close()


async def test_time_that_we_take_is_not_the_sources_fault(server: FaultyUpstream) -> None:
    clock = FakeClock()
    upstream = Upstream(UpstreamSettings(timeout_s=5), clock)
    await upstream.start()
    server.files[FILE] = CONTENT
    server.fail("*", Fault(chunk_bytes=4_000))
    got = b""
    async with upstream.open(Source(url=server.url), FILE) as body:
        async for chunk in body:
            got += chunk
            await clock.advance(120)
    assert got == CONTENT
    await upstream.close()


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault(status=500), Passing),
        (Fault(drop=True), Passing),
        (Fault(cut_after=10), Passing),
        (Fault(status=429), Passing),
    ],
)
async def test_what_may_pass_is_told_from_what_will_not(
    server: FaultyUpstream, upstream: Upstream, fault: Fault, kind: type[errors.Upstream]
) -> None:
    server.files[FILE] = CONTENT
    server.fail("*", fault, times=None)
    with pytest.raises(kind):
        await read(upstream, Source(url=server.url))
    server.heal()
    server.fail("*", Fault(status=403))
    with pytest.raises(errors.Upstream) as told:
        await read(upstream, Source(url=server.url))
    assert not isinstance(told.value, Passing)
    with pytest.raises(Unreachable):
        await read(upstream, Source(url="http://127.0.0.1:1"))


async def test_the_head_of_an_answer_has_its_own_limit(server: FaultyUpstream, upstream: Upstream) -> None:
    server.files[FILE] = CONTENT
    server.fail("*", Fault(until=asyncio.Event()))
    with pytest.raises(Passing, match=r"sent nothing for 0\.05 s"):
        await read(upstream, Source(url=server.url), answer_s=0.05)


async def test_a_head_that_drips_is_not_waited_for(upstream: Upstream) -> None:
    leave, left = asyncio.Event(), asyncio.Event()

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        while not leave.is_set():  # each byte begins the silence anew
            writer.write(b"x")
            await asyncio.sleep(0.01)
        writer.close()
        with contextlib.suppress(ConnectionError):  # the other side has hung up
            await writer.wait_closed()
        left.set()

    async with await asyncio.start_server(drip, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        try:
            with pytest.raises(Passing, match="sent nothing"):
                await read(upstream, Source(url=f"http://127.0.0.1:{port}"), answer_s=0.1)
        finally:
            leave.set()
            await left.wait()  # the server waits for none of its connections
