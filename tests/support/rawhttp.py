"""A client that sends exactly the bytes it is told to, and shows exactly those that come back."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple


class Reply(NamedTuple):
    """One HTTP/1.1 response. `headers` have lower-case names; `body` may be short of Content-Length (`cut`)."""

    status: int
    reason: str
    headers: dict[str, str]
    body: bytes
    cut: bool

    @property
    def length(self) -> int:
        return int(self.headers["content-length"])


class RawClient:
    """One connection, kept open between requests."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, method: str, target: str, headers: dict[str, str] | None = None) -> None:
        lines = [f"{method} {target} HTTP/1.1", "Host: firth.example.org"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        self.writer.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
        await self.writer.drain()

    async def head_of_reply(self) -> Reply:
        """Read the status line and the headers, nothing of the body."""
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        _, status, reason = lines[0].split(" ", 2)
        headers = {}
        for line in filter(None, lines[1:]):
            name, _, value = line.partition(": ")
            assert name.lower() not in headers, f"{name} comes twice"
            headers[name.lower()] = value
        return Reply(int(status), reason, headers, b"", cut=False)

    async def reply(self, method: str = "GET") -> Reply:
        """Read one whole response, or as much of it as comes before the connection ends."""
        head = await self.head_of_reply()
        if method == "HEAD" or head.status in {204, 304}:
            return head
        try:
            body = await self.reader.readexactly(head.length)
        except asyncio.IncompleteReadError as error:
            return head._replace(body=error.partial, cut=True)
        except ConnectionError:
            return head._replace(cut=True)
        return head._replace(body=body)

    async def ask(self, method: str, target: str, headers: dict[str, str] | None = None) -> Reply:
        await self.send(method, target, headers)
        return await self.reply(method)

    async def get(self, target: str, headers: dict[str, str] | None = None) -> Reply:
        return await self.ask("GET", target, headers)

    async def head(self, target: str, headers: dict[str, str] | None = None) -> Reply:
        return await self.ask("HEAD", target, headers)


@asynccontextmanager
async def raw_client(host: str, port: int, *, limit: int = 2**16) -> AsyncIterator[RawClient]:
    reader, writer = await asyncio.open_connection(host, port, limit=limit)
    try:
        yield RawClient(reader, writer)
    finally:
        writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
