"""A small HTTP proxy: tunnels with CONNECT, and passes on requests for whole http addresses."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit


class SmallProxy:
    """`asked` has each request's method and target as they came, `authorization` the header for the proxy."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.authorization: list[str | None] = []
        self.port = 0
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                await self._pass_on(reader, writer)
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *fields = head.split("\r\n")
        method, target, _ = first.split(" ")
        self.asked.append((method, target))
        given = [field for field in fields if field.lower().startswith("proxy-authorization:")]
        self.authorization.append(given[0].partition(":")[2].strip() if given else None)
        parts = urlsplit(target if "://" in target else f"//{target}")
        there_reader, there = await asyncio.open_connection(parts.hostname, parts.port or 80)
        try:
            if method == "CONNECT":
                writer.write(b"HTTP/1.1 200 there you are\r\n\r\n")
            else:  # one request a connection
                kept = [field for field in fields if field and not field.lower().startswith(("proxy-", "connection:"))]
                path = target.split(parts.netloc, 1)[1] or "/"
                there.write("\r\n".join([f"{method} {path} HTTP/1.1", *kept, "Connection: close", "", ""]).encode())
            async with asyncio.TaskGroup() as group:
                out = group.create_task(_copy(reader, there))
                await _copy(there_reader, writer)
                out.cancel()
        finally:
            there.close()

    def end(self) -> None:
        for task in self._tasks:
            task.cancel()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while chunk := await reader.read(65_536):
            writer.write(chunk)
            await writer.drain()


@asynccontextmanager
async def small_proxy() -> AsyncIterator[SmallProxy]:
    """Give a proxy on a free port."""
    proxy = SmallProxy()
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        proxy.end()
