"""Places and time-outs of connections, descriptors that run out, and what is no request at all."""

import asyncio
import gzip
import json
import logging
import os
import resource
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from firthd.clock import SystemClock
from firthd.serving import Limits, Serving, raise_file_limit, rpc_limits, web_limits
from tests.support.rpc import server
from tests.support.web import running_site

REFUSAL = b"HTTP/1.1 503 Full\r\nRetry-After: 5\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
GET = b"GET / HTTP/1.1\r\nHost: firth.example.org\r\n\r\n"
LARGE = bytes(50_000_000)

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Connect = Callable[..., "asyncio.Future[Connection]"]


class Door:
    """A small application on a port of its own."""

    def __init__(self, serving: Serving, listener: socket.socket) -> None:
        self.serving = serving
        self.listener = listener
        self.port = listener.getsockname()[1]
        self.opened: list[asyncio.StreamWriter] = []

    async def connect(self, source: str = "127.0.0.1") -> Connection:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, local_addr=(source, 0))
        self.opened.append(writer)
        return reader, writer

    async def ask(self, connection: Connection) -> bytes:
        """Ask on a connection; return the status line, empty when it ends without one."""
        reader, writer = connection
        try:
            writer.write(GET)
            head = await reader.readuntil(b"\r\n\r\n")
        except (ConnectionError, asyncio.IncompleteReadError):
            return b""
        return head.split(b"\r\n")[0]


def address(connection: socket.socket) -> str | None:
    host: str = connection.getpeername()[0]
    return None if host == "127.0.0.9" else host


@asynccontextmanager
async def door(limits: Limits, body: bytes = b"") -> AsyncIterator[Door]:
    async def handle(request: web.Request) -> web.Response:
        return web.Response(body=body)

    app = web.Application()
    app.router.add_get("/", handle)
    serving = Serving(
        app,
        limits,
        peer=address,
        refusal=REFUSAL,
        unread=lambda status: web.Response(status=status),
        clock=SystemClock(),
        name="test",
        shutdown_s=0.1,
    )
    listener = socket.create_server(("127.0.0.1", 0))
    found = Door(serving, listener)
    await serving.start([listener])
    try:
        yield found
    finally:
        for writer in found.opened:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for writer in found.opened), return_exceptions=True)
        await serving.stop()


async def test_who_gets_no_place_is_told_and_gets_one_when_somebody_leaves() -> None:
    async with door(Limits(places=3, places_each=3)) as at:
        held = [await at.connect() for _ in range(3)]
        assert await at.ask(await at.connect()) == b"HTTP/1.1 503 Full"
        held[0][1].close()
        await held[0][1].wait_closed()
        async with asyncio.timeout(5):
            while await at.ask(await at.connect()) != b"HTTP/1.1 200 OK":
                await asyncio.sleep(0)


async def test_one_address_never_has_all_places_but_a_trusted_one_may() -> None:
    async with door(Limits(places=6, places_each=3)) as at:
        greedy = [await at.connect() for _ in range(5)]
        answers = [await at.ask(connection) for connection in greedy]
        assert answers == [b"HTTP/1.1 200 OK"] * 3 + [b"HTTP/1.1 503 Full"] * 2
        assert await at.ask(await at.connect("127.0.0.2")) == b"HTTP/1.1 200 OK"
    async with door(Limits(places=6, places_each=3)) as at:
        proxy = [await at.connect("127.0.0.9") for _ in range(5)]
        assert [await at.ask(connection) for connection in proxy] == [b"HTTP/1.1 200 OK"] * 5


async def test_places_are_kept_for_those_who_may_take_all() -> None:
    async with door(Limits(places=4, places_each=4, reserve=2)) as at:
        others = [await at.connect() for _ in range(3)]
        assert [await at.ask(other) for other in others].count(b"HTTP/1.1 503 Full") == 1
        assert await at.ask(await at.connect("127.0.0.9")) == b"HTTP/1.1 200 OK"


async def test_idle_connections_give_their_places_back_when_places_run_out() -> None:
    async with door(Limits(places=4, places_each=4)) as at:
        for _ in range(4):
            assert await at.ask(await at.connect()) == b"HTTP/1.1 200 OK"
        async with asyncio.timeout(5):
            while await at.ask(await at.connect()) != b"HTTP/1.1 200 OK":
                await asyncio.sleep(0)


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHo"])
async def test_a_client_that_never_finishes_its_request_is_cut_off(sent: bytes) -> None:
    async with door(Limits(places=4, places_each=4, header_s=0.1, sweep_s=0.02)) as at:
        reader, writer = await at.connect()
        writer.write(sent)
        async with asyncio.timeout(5):
            assert await reader.read() == b""


async def test_a_client_that_takes_nothing_is_cut_off_and_its_place_is_free() -> None:
    async with door(Limits(places=1, places_each=1, stall_s=0.2, sweep_s=0.05), body=LARGE) as at:
        deaf = await at.connect()
        deaf[1].transport.pause_reading()  # type: ignore[attr-defined]  # of a socket: it reads too
        deaf[1].write(GET)
        async with asyncio.timeout(9):
            while await at.ask(await at.connect()) != b"HTTP/1.1 200 OK":
                await asyncio.sleep(0)


async def test_a_client_that_takes_nothing_of_small_answers_is_cut_off_too() -> None:
    async with door(Limits(places=1, places_each=1, stall_s=0.2, sweep_s=0.05), body=bytes(200_000)) as at:
        deaf = await at.connect()
        deaf[1].transport.pause_reading()  # type: ignore[attr-defined]  # of a socket: it reads too
        deaf[1].write(GET * 200)
        async with asyncio.timeout(9):
            while await at.ask(await at.connect()) != b"HTTP/1.1 200 OK":
                await asyncio.sleep(0)


async def test_a_client_that_reads_gets_the_whole_however_slow_it_is() -> None:
    async with door(Limits(places=1, places_each=1, stall_s=0.2, sweep_s=0.02), body=LARGE) as at:
        reader, writer = await at.connect()
        writer.write(GET)
        await reader.readuntil(b"\r\n\r\n")
        came = 0
        while came < len(LARGE):
            came += len(await reader.read(100_000))


async def test_lacking_descriptors_are_told_once_and_pass(caplog: pytest.LogCaptureFixture) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with door(Limits(places=100, places_each=100)) as at:
        first = await at.connect()
        assert await at.ask(first) == b"HTTP/1.1 200 OK"
        client = socket.socket()
        used = max(int(name) for name in os.listdir("/proc/self/fd")) + 1  # noqa: PTH208 - names are what is asked
        spare = [os.dup(0) for _ in range(used)]  # no descriptor below the limit stays free
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(spare) + 1, hard))
        try:
            client.setblocking(False)
            await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", at.port))
            client.send(GET)
            async with asyncio.timeout(5):
                while "nobody can be accepted" not in caplog.text:
                    await asyncio.sleep(0)
            assert await at.ask(first) == b"HTTP/1.1 200 OK"
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for fd in spare:
                os.close(fd)
        async with asyncio.timeout(5):
            answer = await asyncio.get_running_loop().sock_recv(client, 1000)
        assert answer.startswith(b"HTTP/1.1 200 OK")
        client.close()
    assert caplog.text.count("nobody can be accepted") == 1


def test_the_limit_is_raised_as_far_as_it_may_be_and_shared_out() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, before[1]))
        assert raise_file_limit(300) == 300
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (300, before[1])
        assert raise_file_limit(100) == 300
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    for files in (1024, 4096, 65_536):
        # A web client may hold three descriptors; whatever they do, callers on the socket have theirs.
        assert web_limits(files).places * 3 + rpc_limits(files).places < files - 100
    assert web_limits(65_536).places_each * 2 <= web_limits(65_536).places


# --- what is no request --------------------------------------------------------------------------------------------

CALL = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "daemon.status", "params": {}}).encode()


def post(*headers: bytes, body: bytes = CALL, length: bool = True) -> bytes:
    lines = [b"POST /rpc HTTP/1.1", b"Host: firth.example.org", *headers]
    if length:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join([*lines, b"", body])


def get(*headers: bytes, target: bytes = b"/", version: bytes = b"HTTP/1.1") -> bytes:
    return b"\r\n".join([b"GET " + target + b" " + version, b"Host: firth.example.org", *headers, b"", b""])


MALFORMED = {
    "bad chunk size": post(b"Transfer-Encoding: chunked", body=b"zz\r\nabc\r\n0\r\n\r\n", length=False),
    "bad chunk end": post(b"Transfer-Encoding: chunked", body=b"2\r\nabXX\r\n0\r\n\r\n", length=False),
    "two lengths": post(b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
    "negative length": post(b"Content-Length: -5", length=False),
    "header without colon": get(b"nonsense"),
    "header with a space": get(b"X y: z"),
    "NUL": get(b"X: a\x00b"),
    "huge header": get(b"X: " + b"a" * 100_000),
    "many headers": get(*(b"X%d: a" % number for number in range(5000))),
    "huge address": get(target=b"/" + b"a" * 100_000),
    "bytes in the address": get(target=b"/\xff\xfe"),
    "version": get(version=b"HTTP/9.9"),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00",
    "TLS": bytes.fromhex("16030100f8010000f40303") + bytes(range(256)),
    "noise": bytes(range(255, 0, -1)) * 4,
}


@asynccontextmanager
async def served(where: str, folder: Path) -> AsyncIterator[Callable[[bytes], "asyncio.Future[bytes]"]]:
    """Give a function that sends bytes to the web port or to the Unix socket and returns the answer's first part."""

    async def send(raw: bytes) -> bytes:
        reader, writer = await connect()
        writer.write(raw)
        async with asyncio.timeout(5):
            answer = await reader.read(20_000)
        writer.close()
        return answer

    if where == "web":
        async with running_site(folder) as site:

            def connect() -> "asyncio.Future[Connection]":
                return asyncio.ensure_future(asyncio.open_connection("127.0.0.1", site.port))

            yield lambda raw: asyncio.ensure_future(send(raw))
    else:
        async with server(folder) as up:

            def connect() -> "asyncio.Future[Connection]":
                return asyncio.ensure_future(asyncio.open_unix_connection(str(up.socket)))

            yield lambda raw: asyncio.ensure_future(send(raw))


@pytest.mark.parametrize("where", ["web", "socket"])
async def test_what_is_no_request_gets_an_answer_and_a_line_a_minute(
    where: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with served(where, tmp_path) as send:
        for what, raw in MALFORMED.items():
            answer = await send(raw)
            assert answer.split(b" ", 2)[1][:1] == b"4", (what, answer[:200])
            body = json.loads(answer.split(b"\r\n\r\n", 1)[1])
            assert body.keys() & {"jsonrpc", "status"}, what
        lines = [record for record in caplog.records if record.levelno >= logging.WARNING]
        assert len(lines) <= 1
        assert all(record.exc_info is None for record in lines)


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(post(b"Content-Type: application/json; charset=utf-16"), id="wrong charset"),
        pytest.param(post(b"Content-Type: text/plain; charset=nonsense"), id="no charset"),
        pytest.param(post(b"Content-Type: ;;;="), id="no type"),
        pytest.param(post(b"Content-Type: \xff"), id="bytes"),
        pytest.param(post(b"Content-Type: multipart/form-data"), id="form"),
        pytest.param(post(b"Content-Encoding: gzip"), id="said to be compressed"),
        pytest.param(post(b"Content-Encoding: br", body=b"\xff"), id="another compression"),
        pytest.param(post(b"Content-Encoding: gzip", body=gzip.compress(bytes(20_000_000))), id="bomb"),
        pytest.param(post(body=b"\xff\xfe{}"), id="bad UTF-8"),
        pytest.param(post(body=b""), id="nothing"),
    ],
)
async def test_any_body_to_rpc_is_answered_as_a_call(
    raw: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with served("socket", tmp_path) as send:
        answer = await send(raw)
    head, body = answer.split(b"\r\n\r\n", 1)
    assert head.startswith(b"HTTP/1.1 200 OK")
    assert b"application/json" in head
    assert json.loads(body)["jsonrpc"] == "2.0"
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


# --- a stop that loses nobody


async def test_who_was_accepted_before_a_stop_is_answered_and_who_comes_after_waits_for_the_next() -> None:
    async with door(Limits(places=9, places_each=9)) as at:
        first = await at.connect()
        assert await at.ask(first) == b"HTTP/1.1 200 OK"
        accepted = [await at.connect() for _ in range(3)]
        with socket.socket(fileno=os.dup(at.listener.fileno())) as the_managers:
            stopping = asyncio.ensure_future(at.serving.stop())
            await asyncio.sleep(0)
            answers = [await at.ask(connection) for connection in accepted]
            await stopping
            assert answers == [b"HTTP/1.1 200 OK"] * 3
            late = await at.connect()
            late[1].write(GET)
            the_managers.setblocking(False)
            connection, _ = await asyncio.get_running_loop().sock_accept(the_managers)
            with connection:
                connection.setblocking(False)
                assert await asyncio.get_running_loop().sock_recv(connection, 1000) == GET


async def test_who_says_nothing_delays_a_stop_by_a_moment_only() -> None:
    async with door(Limits(places=9, places_each=9)) as at:
        await at.connect()
        async with asyncio.timeout(2):
            await at.serving.stop()
