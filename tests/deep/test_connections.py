"""More clients than descriptors, and clients that never read: the socket answers, the log stays small, all recovers."""

import asyncio
import contextlib
import hashlib
import resource
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import aiohttp
import pytest
from msgspec import Struct

from firth_protocol.client import Client
from firth_protocol.types import RunState
from tests.support.conda import ChannelFolder, PackageSpec
from tests.support.daemon import DaemonProcess
from tests.support.rawhttp import RawClient, Reply
from tests.support.upstream import FaultyUpstream

pytestmark = [pytest.mark.deep, pytest.mark.e2e, pytest.mark.timeout(400)]

LIMIT = 1024
CLIENTS = 1100
SERVED = 64
"""Clients that are served at the least; how many descriptors each may need is the daemon's to say."""

STATUS_S = 5.0
STALLED_S = 200.0
"""How long clients that never read may keep others out; the write time-out is shorter, the rest is for the machine."""

LOG_BYTES = 100_000


class Crowded(Struct, frozen=True, kw_only=True):
    """A daemon with a limit, an active mirror of 40 files, and whoever wants to be its client."""

    process: DaemonProcess
    client: Client
    source: ChannelFolder
    port: int
    url: str
    clients: list[RawClient]

    @property
    def digests(self) -> dict[str, str]:
        return {name: record["sha256"] for name, record in self.source.records["noarch"].items()}

    async def connect(self, count: int) -> int:
        """Let there be so many connections, anew where the daemon has closed one; return how many there are."""
        for client in [client for client in self.clients if client.reader.at_eof() or client.writer.is_closing()]:
            client.writer.transport.abort()
            self.clients.remove(client)
        for _ in range(count - len(self.clients)):
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                self.clients.append(RawClient(reader, writer))
        return len(self.clients)

    async def one_round(self, names: list[str]) -> Counter[int | str]:
        """Let every client ask for one file; return how many got which status, or what else happened to them."""

        async def one(client: RawClient, name: str) -> int | str:
            try:
                async with asyncio.timeout(60):
                    reply = await client.get(f"/repo/main/noarch/{name}")
            except TimeoutError:
                return "no answer"
            except (OSError, asyncio.IncompleteReadError):
                return "closed"
            return self._judged(reply, name)

        asking = (one(client, names[number % len(names)]) for number, client in enumerate(self.clients))
        return Counter(await asyncio.gather(*asking))

    def _judged(self, reply: Reply, name: str) -> int | str:
        if reply.status == 200 and hashlib.sha256(reply.body).hexdigest() != self.digests[name]:
            return "wrong bytes"
        return reply.status

    def leave(self) -> None:
        for client in self.clients:
            client.writer.transport.abort()
        self.clients.clear()

    async def served(self) -> bool:
        """Tell whether a new client gets a file."""
        name, digest = next(iter(self.digests.items()))
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as http,
                http.get(f"{self.url}/repo/main/noarch/{name}") as reply,
            ):
                return reply.status == 200 and hashlib.sha256(await reply.read()).hexdigest() == digest
        except (aiohttp.ClientError, OSError, TimeoutError):
            return False

    def log(self) -> str:
        return self.process.log.read_text("utf-8", "replace")


@contextmanager
def descriptors(count: int) -> Iterator[None]:
    """Let this process have so many; the tests' own connections need them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        pytest.skip(f"NOT TESTED: this user may open {hard} files only, and {count} are needed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@asynccontextmanager
async def crowded(folder: Path, limit: str, *, content: int = 5_000) -> AsyncIterator[Crowded]:
    """Start a daemon behind `ulimit -n` with a flag and a number, such as `-Sn 1024`."""
    source = ChannelFolder(folder / "source")
    async with AsyncExitStack() as stack:
        stack.enter_context(descriptors(3 * CLIENTS))
        source.add(
            *(PackageSpec(name=f"p{n}", content=hashlib.sha512(str(n).encode()).hexdigest()) for n in range(40)),
            PackageSpec(name="large", extension=".tar.bz2", content=_noise(content)),
        )
        upstream = await stack.enter_async_context(FaultyUpstream(folder=source.path))
        within = ("sh", "-c", f'ulimit {limit} && exec "$@"', "sh")
        process = await stack.enter_async_context(DaemonProcess(folder, within=within))
        client = await process.start()
        stack.push_async_callback(client.close)
        await client.call("channel.create", name="main")
        made = await client.call(
            "mirror.create", channel="main", name="m", type="conda", mode="active", source=upstream.url, run_now=True
        )
        run = await client.call("run.wait", run=made.run.id, timeout=30)
        assert run.state is RunState.COMPLETED, run
        url = await process.url(client)
        port = int(url.rpartition(":")[2])
        found = Crowded(process=process, client=client, source=source, port=port, url=url, clients=[])
        stack.callback(found.leave)
        yield found


async def test_beyond_the_limit_clients_are_refused_and_the_administrator_is_not(tmp_path: Path) -> None:
    async with crowded(tmp_path, f"-n {LIMIT}") as crowd:
        names = sorted(crowd.digests)[:20]
        print(f"{await crowd.connect(CLIENTS)} connected of {CLIENTS}")
        crowd.source.add(*(PackageSpec(name=f"q{n}") for n in range(100)))
        made = await crowd.client.call("mirror.run", mirror="main:m")
        answers: Counter[int | str] = Counter()
        for _ in range(3):
            await crowd.connect(CLIENTS)
            asking = asyncio.create_task(crowd.one_round(names))
            while not asking.done():
                async with asyncio.timeout(STATUS_S):
                    async with Client(crowd.process.socket) as another:  # a new connection: it needs a descriptor
                        await another.call("daemon.status")
                await asyncio.wait([asking], timeout=0.2)
            answers += asking.result()
        print(dict(answers))
        assert set(answers) <= {200, 503, "closed"}
        assert answers[200] >= 3 * SERVED
        run = await crowd.client.call("run.wait", run=made.run.id, timeout=60)
        assert run.state is RunState.COMPLETED, run
        crowd.leave()
        await _until_served(crowd, 10)
        log = crowd.log()
        print(f"{len(log)} bytes of log")
        assert "Traceback" not in log
        assert len(log) < LOG_BYTES


async def test_a_low_soft_limit_is_raised(tmp_path: Path) -> None:
    async with crowded(tmp_path, f"-Sn {LIMIT}") as crowd:
        assert await crowd.connect(CLIENTS) == CLIENTS
        assert await crowd.one_round(sorted(crowd.digests)[:20]) == {200: CLIENTS}
        assert "Traceback" not in crowd.log()


async def test_clients_that_never_read_keep_others_out_for_a_while_only(tmp_path: Path) -> None:
    async with crowded(tmp_path, f"-n {LIMIT}", content=6_000_000) as crowd:
        await crowd.connect(CLIENTS)
        for client in crowd.clients:
            client.reader._transport.pause_reading()  # type: ignore[attr-defined]  # there is no public way
            with contextlib.suppress(OSError):
                await client.send("GET", "/repo/main/noarch/large-1.0-0.tar.bz2")
        async with asyncio.timeout(STATUS_S):
            await crowd.client.call("daemon.status")
        await _until_served(crowd, STALLED_S)
        assert "Traceback" not in crowd.log()


async def _until_served(crowd: Crowded, seconds: float) -> None:
    async with asyncio.timeout(seconds):
        while not await crowd.served():
            await asyncio.sleep(0.2)  # a condition of another process: there is nothing to wait on


def _noise(count: int) -> str:
    """Return text that does not compress well, so that a package is about as large as what it installs."""
    parts = (hashlib.sha512(str(n).encode()).hexdigest() for n in range(count // 128 + 1))
    return "".join(parts)
