"""A real server of ours on a real Unix socket; the handlers of the table's methods are the test's."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
from msgspec import Struct

from firth_protocol.errors import NotFound
from firth_protocol.events import Topic, cursor
from firth_protocol.methods import METHODS
from firth_protocol.types import Event, Role
from firthd.absent import no_mirror, no_run
from firthd.access import Access, Caller
from firthd.clock import SystemClock, rfc3339
from firthd.config import AccessSettings
from firthd.events import EventHub
from firthd.rpc.dispatch import Context, Dispatcher, Handler
from firthd.rpc.server import RpcServer
from firthd.serving import Limits, rpc_limits
from firthd.store.audit import Audited
from tests.support.clock import FakeClock

NOBODY_UID = 4_000_000
"""A uid that is neither root's nor the daemon's."""


def caller(role: Role = Role.ADMIN, channels: tuple[str, ...] | None = None) -> Caller:
    return Caller(uid=NOBODY_UID, pid=1, user="kim", role=role, channels=channels)


async def absent(context: Context, params: Any) -> object:
    raise NotFound(f"nothing behind {context.method.name} in this test")


def handlers(**given: Handler) -> dict[str, Handler]:
    """Return a handler for each method; `channel_get=f` gives that of channel.get, others answer NotFound."""
    known: dict[str, Handler] = dict.fromkeys(METHODS, absent)
    for name, handler in given.items():
        method = name.replace("_", ".", 1)
        assert method in METHODS, method
        known[method] = handler
    return known


class Mirrors:
    """Finds channels for mirrors 1 and 12 (of main) and 2 (of bio/dev), and for runs of the same numbers."""

    channels: Mapping[int, str] = {1: "main", 2: "bio/dev", 12: "main"}

    async def by_mirror(self, ref: int | str) -> str:
        if not isinstance(ref, int) or ref not in self.channels:
            raise no_mirror(ref)
        return self.channels[ref]

    async def by_run(self, run: int) -> str:
        if run not in self.channels:
            raise no_run(run)
        return self.channels[run]


class Facts:
    """A hub over facts that the test writes; each is kept for readers that come later."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self.told: list[tuple[int, Event]] = []
        self.first = 0  # the number before the oldest fact kept
        self.reading = 0
        self._left = asyncio.Event()
        self._hub = EventHub("e1", clock, self._replay, self._span)

    @property
    def epoch(self) -> str:
        return self._hub.epoch

    @asynccontextmanager
    async def subscribe(
        self, topics: frozenset[str] | None, after: int | None, visible: Callable[[Event], bool]
    ) -> AsyncIterator[AsyncIterator[Event]]:
        """Subscribe at the hub, and count who does."""
        async with self._hub.subscribe(topics, after, visible) as events:
            self.reading += 1
            try:
                yield events
            finally:
                self.reading -= 1
                self._left.set()

    async def nobody_reads(self) -> None:
        """Wait until the last reader has left."""
        while self.reading:
            self._left.clear()
            await self._left.wait()

    async def _replay(self, after: int, limit: int) -> list[tuple[int, Event]]:
        return [(seq, event) for seq, event in self.told if seq > after][:limit]

    async def _span(self) -> tuple[int, int]:
        return self.first, self.told[-1][0] if self.told else self.first

    def progress(self, run: int, ids: dict[str, Any], data: dict[str, Any]) -> None:
        self._hub.progress(run, ids, data)

    def tell(self, kind: str, **ids: Any) -> Event:
        seq = (self.told[-1][0] if self.told else self.first) + 1
        event = Event(
            cursor=cursor("e1", seq),
            time=rfc3339(self._clock.now_ms()),
            topic=Topic(kind.split(".")[0]),
            type=kind,
            ids=ids,
        )
        self.told.append((seq, event))
        self._hub.publish(seq, event)
        return event


class Line:
    """An audit line of a call whose handler changes nothing in a database: it stands in a list at its end."""

    def __init__(self, entry: Audited, lines: list[Audited]) -> None:
        self._entry = entry
        self._lines = lines

    def beside(self) -> AbstractContextManager[None]:
        return nullcontext()

    async def end(self, outcome: str) -> None:
        self._lines.append(msgspec.structs.replace(self._entry, outcome=outcome))


class Rig(Struct):
    """What a test of a dispatcher or a server holds in its hands."""

    dispatcher: Dispatcher
    access: Access
    audited: list[Audited]
    facts: Facts
    clock: FakeClock

    async def call(self, method: str, params: Any = None, by: Caller | None = None) -> dict[str, Any]:
        """Call a method through the dispatcher; return the reply."""
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {} if params is None else params}
        reply = await self.dispatcher.handle(json.dumps(request).encode(), by or caller())
        assert reply is not None
        found: dict[str, Any] = json.loads(reply)
        return found


def rig(access: AccessSettings | None = None, /, **given: Handler) -> Rig:
    """Return a dispatcher with its collaborators, over the test's handlers."""
    clock = FakeClock()
    audited: list[Audited] = []

    rules = Access(access or AccessSettings(), own_uid=os.getuid())
    dispatcher = Dispatcher(handlers(**given), rules, Mirrors(), lambda entry: Line(entry, audited), clock)
    return Rig(dispatcher=dispatcher, access=rules, audited=audited, facts=Facts(clock), clock=clock)


class Server(Struct):
    """A server that listens."""

    rig: Rig
    rpc: RpcServer
    socket: Path
    http: aiohttp.ClientSession
    streams: list[aiohttp.ClientResponse]


@asynccontextmanager
async def server(
    folder: Path,
    parts: Rig | None = None,
    *,
    ready: Callable[[], bool] = lambda: True,
    access: Access | None = None,
    limits: Limits | None = None,
    **options: float,
) -> AsyncIterator[Server]:
    """Serve on a socket in `folder` for as long as the block lasts."""
    parts = parts or rig()

    async def metrics(seen: Callable[[str], bool]) -> bytes:
        return b"firth_up 1\n"

    rpc = RpcServer(
        parts.dispatcher,
        access or parts.access,
        parts.facts,
        metrics,
        ready,
        clock=SystemClock(),
        limits=limits or rpc_limits(1024),
        **options,
    )
    path = folder / "firth.sock"
    await rpc.start(path)
    try:
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as http:
            streams: list[aiohttp.ClientResponse] = []
            yield Server(rig=parts, rpc=rpc, socket=path, http=http, streams=streams)
            for stream in streams:
                stream.close()
    finally:
        await rpc.stop()
