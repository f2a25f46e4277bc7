"""The ways a body takes beside sendfile, and clients that take nothing."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from firthd.web.wire import ShortFile, Wire
from tests.support.rawhttp import raw_client

DATA = os.urandom(1_000_003)


@pytest.fixture
def fd(tmp_path: Path) -> int:
    path = tmp_path / "file"
    path.write_bytes(DATA)
    return os.open(path, os.O_RDONLY)


class Sink:
    """A connection without a socket of its own, such as one over TLS; what is written is kept."""

    def __init__(self) -> None:
        self.transport = self
        self.taken = b""
        self.pieces: list[int] = []

    def is_closing(self) -> bool:
        return False

    def get_extra_info(self, name: str) -> object:
        return object() if name == "sslcontext" else None

    def set_write_buffer_limits(self, high: int | None = None) -> None:
        pass

    async def write(self, chunk: memoryview) -> None:
        self.taken += bytes(chunk)
        self.pieces.append(len(chunk))

    async def drain(self) -> None:
        pass


async def test_without_a_socket_of_its_own_the_file_is_read_in_pieces(fd: int) -> None:
    sink = Sink()
    async with Wire(sink, sink) as wire:  # type: ignore[arg-type]  # the parts of both that are used
        await wire.send_file(fd, 3, len(DATA) - 3)
    os.close(fd)
    assert sink.taken == DATA[3:]
    assert max(sink.pieces) <= 256 * 1024


async def test_a_file_that_ends_early_is_an_error_on_every_way(fd: int) -> None:
    sink = Sink()
    with pytest.raises(ShortFile):
        async with Wire(sink, sink) as wire:  # type: ignore[arg-type]
            await wire.send_file(fd, 0, len(DATA) + 1)
    with pytest.raises(ShortFile):
        await sent_by_a_server(fd, len(DATA) + 1, read=True)
    os.close(fd)


async def test_sendfile_sends_every_byte(fd: int) -> None:
    assert await sent_by_a_server(fd, len(DATA), read=True) == DATA
    os.close(fd)


async def test_a_client_that_takes_nothing_is_given_up(fd: int, tmp_path: Path) -> None:
    os.close(fd)
    path = tmp_path / "huge"
    path.touch()
    os.truncate(path, 64 * 1024 * 1024)  # more than the kernel's buffers take
    huge = os.open(path, os.O_RDONLY)
    with pytest.raises(ConnectionAbortedError, match="takes nothing"):
        await sent_by_a_server(huge, 64 * 1024 * 1024, read=False)
    os.close(huge)


async def sent_by_a_server(fd: int, count: int, *, read: bool) -> bytes:
    """Send from a real server to a client that reads, or does not; raise what the wire raised."""
    outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(count)})
        writer = await response.prepare(request)
        assert writer is not None
        try:
            async with Wire(request, writer, stall_s=0.2) as wire:
                await wire.send_file(fd, 0, count)
        except OSError as error:
            outcome.set_exception(error)
            assert request.transport is not None
            request.transport.abort()
        else:
            outcome.set_result(None)
        return response

    async with serving(handle) as (host, port), raw_client(host, port) as client:
        await client.send("GET", "/", {"Connection": "close"})
        received = await client.reader.read(-1) if read else b""
        await outcome
    return received.partition(b"\r\n\r\n")[2]


@asynccontextmanager
async def serving(handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[tuple[str, int]]:
    app = web.Application()
    app.router.add_get("/", handler)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield runner.addresses[0]
    finally:
        await runner.cleanup()
