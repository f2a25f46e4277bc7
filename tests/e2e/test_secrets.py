"""A secret goes in and never comes out: not in a reply, an event, the log, the state, a process list or an error."""

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import aiohttp
import msgspec
import pytest
import zstandard
from msgspec import Struct

from firth_protocol.client import Client
from firth_protocol.errors import FirthError, NotFound, WrongState
from firth_protocol.methods import METHODS
from firth_protocol.types import Event, Run, RunState
from tests.support.conda import ChannelFolder, PackageSpec, sample_channel
from tests.support.daemon import DaemonProcess
from tests.support.upstream import Fault, FaultyUpstream

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

TOKEN = "tk-5eCrEt-in-the-path"
PASSWORD = "pw/5eCrEt+of=the&user"
BEARER = "br-5eCrEt.of.the-bearer"
PROXY_PASSWORD = "px:5eCrEt@of/the proxy"
WRONG = "no-5eCrEt-that-is-right"
SECRETS = (TOKEN, PASSWORD, BEARER, PROXY_PASSWORD, WRONG)
BESIDE = "conda.example.org"
"""The host that only the proxy reaches."""

FILES = 5  # of the sample channel
FORMS = ("token", "token-in-url", "basic", "basic-in-url", "bearer", "proxy")


def _spellings() -> Iterator[bytes]:
    for secret in SECRETS:
        yield from {
            spelling.encode()
            for spelling in (
                secret,
                quote(secret),
                quote(secret, safe=""),
                quote(secret, safe="").lower(),
                quote_plus(secret),
                json.dumps(secret)[1:-1],
                secret.encode().hex(),
            )
        }
    for user, password in (("me", PASSWORD), ("px", PROXY_PASSWORD), ("me", WRONG)):
        yield base64.b64encode(f"{user}:{password}".encode()).rstrip(b"=")[:-1]
    for secret in SECRETS:
        yield base64.b64encode(secret.encode()).rstrip(b"=")[:-1]


SPELLINGS = sorted({spelling.lower() for spelling in _spellings()})


def clean(told: bytes | str, where: str) -> None:
    """Fail when a secret stands in what was told."""
    raw = told if isinstance(told, bytes) else told.encode("utf-8", "surrogateescape")
    lowered = raw.lower()  # a plain search for each is some ten times as quick as one pattern of all, in any case
    for spelling in SPELLINGS:
        if (start := lowered.find(spelling)) >= 0:
            around = raw[max(0, start - 120) : start + len(spelling) + 40]
            pytest.fail(f"{where} tells the secret {spelling!r}: ... {around!r} ...")


class Place(Struct, frozen=True, kw_only=True):
    """A source that asks for a secret, and the fields of a mirror that give it."""

    upstream: FaultyUpstream
    secret: str
    fields: dict[str, Any]
    wrong: dict[str, Any]


ALSO: dict[str, dict[str, Any]] = {
    "advisory.get": {"id": "OWN-1"},
    "package.get": {"name": "alpha"},
    "package.explain": {"spec": "alpha"},
    "policy.get": {"policy": "open"},
    "policy.preview": {"policy": "open", "channel": "main"},
    "schedule.next": {"schedule": "daily"},
}
"""What methods that read need beside a channel, mirror or run."""


class Everything:
    """The daemon as everybody around it sees it: replies, events, replies to package clients, processes."""

    def __init__(self, process: DaemonProcess, client: Client) -> None:
        self.process = process
        self.client = client
        self.events: list[Event] = []
        self.workers_seen: set[int] = set()

    async def call(self, method: str, /, **params: Any) -> Any:
        """Call and look at the reply, or at the error, which is raised."""
        try:
            reply = await self.client.call(method, **params)
        except FirthError as error:
            clean(msgspec.json.encode(error.wire()), f"the error of {method}")
            raise
        clean(msgspec.json.encode(reply), f"the reply of {method}")
        return reply

    async def follow(self, after: str) -> None:
        async for event in self.client.follow([], after):
            self.events.append(event)

    async def watch_processes(self) -> None:
        """Look at what any user of the machine may see of the daemon and its workers, again and again."""
        while True:
            for pid in (self.process.pid, *self._children()):
                for name in ("cmdline", "environ"):
                    with contextlib.suppress(OSError):  # a worker that has just ended
                        told = Path(f"/proc/{pid}/{name}").read_bytes()
                        clean(told, f"/proc/{pid}/{name}")
                        if b"firthd.worker" in told:
                            self.workers_seen.add(pid)
            await asyncio.sleep(0.02)  # a condition of other processes: there is nothing to wait on

    def _children(self) -> list[int]:
        found = []
        for file in Path(f"/proc/{self.process.pid}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found += [int(pid) for pid in file.read_text().split()]
        return found

    async def read_all(self, mirrors: list[int], runs: list[int], family: str = "conda") -> set[str]:
        """Call every method that reads, for every mirror and run; return the names of those called."""
        each: dict[str, list[dict[str, Any]]] = {
            "channel": [{"channel": "main"}],
            "mirror": [{"mirror": mirror} for mirror in mirrors],
            "run": [{"run": run} for run in runs],
        }
        called = set()
        for name, method in METHODS.items():
            if method.changes or name in {"mirror.check", "mirror.plan", "notify.test"}:
                continue
            needs = [field for field in ("channel", "mirror", "run") if field in required(method.params)]
            for params in each[needs[0]] if needs else [{}]:
                extra = ALSO.get(name, {}) | ({"family": family} if name in {"package.get", "package.explain"} else {})
                with contextlib.suppress(
                    WrongState, NotFound
                ):  # a report that nothing is there for yet: the error was looked at
                    await self.call(name, **params, **extra)
                called.add(name)
        return called

    async def fetch(self, url: str) -> int:
        """Ask as a package client does, look at all that comes, return the status."""
        async with aiohttp.ClientSession(auto_decompress=False) as http, http.get(url) as reply:
            clean(f"{reply.reason} {dict(reply.headers)}", f"the head of {url}")
            with contextlib.suppress(aiohttp.ClientPayloadError):
                clean(await reply.read(), f"the body of {url}")
            return reply.status

    def look_at_state(self) -> None:
        """Look into every file of the state folder and the log; only one file may hold secrets, for one user."""
        clean(self.process.log.read_bytes(), "the log")
        secrets = self.process.state / "secrets.json"
        names = set()
        for path in self.process.state.rglob("*"):
            if not path.is_file() or path == secrets:
                continue
            clean(str(path), "a file's name")
            try:
                body = path.read_bytes()
            except FileNotFoundError:
                continue
            names.add(path.name)
            clean(body, str(path))
            if body.startswith(zstandard.FRAME_HEADER):
                clean(zstandard.ZstdDecompressor().decompressobj().decompress(body), f"{path}, unpacked")
        assert {"firth.sqlite", "firth.sqlite-wal"} <= names


def required(params: type[Struct]) -> set[str]:
    return {field.name for field in msgspec.structs.fields(params) if field.required}


@asynccontextmanager
async def places(source: ChannelFolder) -> AsyncIterator[dict[str, Place]]:
    """Give a source for each form of a secret; each serves the same channel."""
    async with AsyncExitStack() as stack:

        async def upstream(**secret: Any) -> FaultyUpstream:
            return await stack.enter_async_context(FaultyUpstream(folder=source.path, **secret))

        tokens = [await upstream(token=TOKEN) for _ in range(2)]
        basics = [await upstream(basic=("me", PASSWORD)) for _ in range(2)]
        bearer = await upstream(bearer=BEARER)
        proxy = await upstream()
        proxied = f"http://px:{quote(PROXY_PASSWORD, safe='')}@{proxy.host}"
        yield {
            "token": Place(
                upstream=tokens[0],
                secret=TOKEN,
                fields={"source": tokens[0].url + "/t/{token}", "credentials": {"token": TOKEN}},
                wrong={"source": tokens[0].url + "/t/{token}", "credentials": {"token": WRONG}},
            ),
            "token-in-url": Place(
                upstream=tokens[1],
                secret=TOKEN,
                fields={"source": f"{tokens[1].url}/t/{TOKEN}"},
                wrong={"source": f"{tokens[1].url}/t/{WRONG}"},
            ),
            "basic": Place(
                upstream=basics[0],
                secret=PASSWORD,
                fields={"source": basics[0].url, "credentials": {"user": "me", "password": PASSWORD}},
                wrong={"source": basics[0].url, "credentials": {"user": "me", "password": WRONG}},
            ),
            "basic-in-url": Place(
                upstream=basics[1],
                secret=PASSWORD,
                fields={"source": f"http://me:{quote(PASSWORD, safe='')}@{basics[1].host}"},
                wrong={"source": f"http://me:{WRONG}@{basics[1].host}"},
            ),
            "bearer": Place(
                upstream=bearer,
                secret=BEARER,
                fields={"source": bearer.url, "credentials": {"bearer": BEARER}},
                wrong={"source": bearer.url, "credentials": {"bearer": WRONG}},
            ),
            "proxy": Place(
                upstream=proxy,
                secret=PROXY_PASSWORD,
                fields={"source": f"http://{BESIDE}", "proxy": proxied},
                wrong={"source": f"http://{BESIDE}", "proxy": f"http://px:{WRONG}@127.0.0.1:1"},
            ),
        }


@asynccontextmanager
async def watched(folder: Path, settings: str = "[runs]\nmax_active = 6\n") -> AsyncIterator[Everything]:
    """Give a daemon that is looked at from all sides; what it told of events is judged at the end."""
    config = folder / "firth.toml"
    config.write_text(settings)
    async with DaemonProcess(folder, environ={"FIRTH_CONFIG": str(config)}) as process:
        client = await process.start()
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(client.close)
            daemon = Everything(process, client)
            start = (await daemon.call("daemon.status")).as_of
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(daemon.follow(start)), group.create_task(daemon.watch_processes())]
                try:
                    yield daemon
                    newest = (await daemon.call("daemon.status")).as_of
                    async with asyncio.timeout(10):
                        while not any(event.cursor == newest for event in daemon.events):
                            await asyncio.sleep(0.01)  # what another process still has to send
                finally:
                    for task in tasks:
                        task.cancel()
            for event in daemon.events:
                clean(msgspec.json.encode(event), "an event")


async def ended(daemon: Everything, run: Run) -> Run:
    found: Run = await daemon.call("run.wait", run=run.id, timeout=60)
    assert found.state.ended
    return found


@pytest.mark.parametrize(
    ("tried", "closes"),
    [
        pytest.param([3], False, id="a fault"),
        pytest.param([0, 3], False, id="two faults", marks=pytest.mark.deep),
        pytest.param([0, 1, 2, 3, 4], True, id="all, and it closes", marks=pytest.mark.deep),
    ],
)
async def test_no_secret_of_a_source_ever_comes_out(tmp_path: Path, tried: list[int], closes: bool) -> None:
    source = sample_channel(tmp_path / "source")
    async with places(source) as sources, watched(tmp_path) as daemon:
        assert set(sources) == set(FORMS)
        await daemon.call("channel.create", name="main")
        await asyncio.gather(*(refused_with_a_wrong_secret(daemon, place) for place in sources.values()))
        mirrors = await mirrored(daemon, sources)
        proxied = sources["proxy"].upstream.requests[-1]
        assert proxied.raw_path.startswith(f"http://{BESIDE}/")  # the secrets were really needed and really sent
        assert "proxy-authorization" in proxied.headers

        for number in tried:
            source.add(PackageSpec(name=f"new-{number}"))  # what was brought before is not asked for again
            for place in sources.values():
                pattern, fault, _ = faults(place.secret)[number]
                place.upstream.fail(pattern, fault, times=None)
            states = await asyncio.gather(*(run_to_the_end(daemon, mirror) for mirror in mirrors.values()))
            assert set(states) == {faults("")[number][2]}, number
            for place in sources.values():
                place.upstream.heal()
        if closes:
            for place in sources.values():
                await place.upstream.__aexit__(None, None, None)  # the ports are closed
            await asyncio.gather(*(run_to_the_end(daemon, mirror) for mirror in mirrors.values()))

        runs = [run.id for run in (await daemon.call("run.list", limit=1000)).items]
        assert len(runs) >= len(FORMS) * len(tried)
        await daemon.call("policy.create", name="open", rules={})
        called = await daemon.read_all([*mirrors.values()], runs)
        assert {"mirror.get", "mirror.details", "run.log", "audit.list", "channel.get", "daemon.status"} <= called
        daemon.look_at_state()
        secrets = daemon.process.state / "secrets.json"
        assert secrets.stat().st_mode & 0o777 == 0o600
        assert TOKEN.encode() in secrets.read_bytes()  # what is searched for would be found
        assert any(spelling in secrets.read_bytes().lower() for spelling in SPELLINGS)
        assert daemon.workers_seen

        # A mirror that goes takes its secret with it.
        for form, mirror in mirrors.items():
            await daemon.call("mirror.delete", mirror=mirror, confirm=form)
        clean(secrets.read_bytes(), "secrets.json after the mirrors are gone")
        daemon.look_at_state()


async def mirrored(daemon: Everything, sources: dict[str, Place]) -> dict[str, int]:
    """Mirror every source actively into `main`; return the mirrors by form."""

    async def one(form: str, place: Place) -> int:
        assert (await daemon.call("mirror.check", type="conda", **place.fields)).subdirs
        made = await daemon.call(
            "mirror.create", channel="main", name=form, type="conda", mode="active", run_now=True, **place.fields
        )
        run = await ended(daemon, made.run)
        assert (run.state, run.counts.added) == (RunState.COMPLETED, FILES), run.error
        plan = await daemon.call("mirror.plan", channel="main", type="conda", **place.fields)
        assert (await ended(daemon, plan.run)).state is RunState.COMPLETED
        return run.mirror or 0

    mirrors = await asyncio.gather(*(one(form, place) for form, place in sources.items()))
    return dict(zip(sources, mirrors, strict=True))


async def run_to_the_end(daemon: Everything, mirror: int) -> RunState:
    reply = await daemon.call("mirror.run", mirror=mirror)
    return (await ended(daemon, reply.run)).state


async def refused_with_a_wrong_secret(daemon: Everything, place: Place) -> None:
    with pytest.raises(FirthError) as caught:
        await daemon.call("mirror.check", type="conda", **place.wrong)
    assert caught.value.kind == "upstream"
    with pytest.raises(FirthError):
        await daemon.call("mirror.create", channel="main", name="wrong", type="conda", **place.wrong)


def faults(secret: str) -> list[tuple[str, Fault, RunState]]:
    """Return ways for a source to fail, on which files, and how an active run then ends.

    Where it can, the source repeats what it was told, as bad servers do.
    """
    there = f"http://me:{quote(secret, safe='')}@127.0.0.1:1/t/{quote(secret, safe='')}/x?sig={quote(secret, safe='')}"
    said = f"t/{secret} is no good, see {there}"
    return [
        ("*.conda", Fault(status=403, reason=said, body=said.encode()), RunState.INCOMPLETE),
        ("*.conda", Fault(body=b"wrong bytes"), RunState.INCOMPLETE),
        ("*.conda", Fault(redirect=there), RunState.INCOMPLETE),
        (
            "*repodata*",
            Fault(status=403, reason=said, headers={"X-Asked": secret}, body=said.encode()),
            RunState.FAILED,
        ),
        ("*repodata*", Fault(body=f"<html>{secret}".encode()), RunState.FAILED),
    ]


async def test_no_secret_reaches_a_package_client(tmp_path: Path) -> None:
    source = sample_channel(tmp_path / "source")
    failing = [
        (fault, f"fails-{number}") for number, (pattern, fault, _) in enumerate(faults("")) if "conda" in pattern
    ]
    source.add(*(PackageSpec(name=name) for _, name in failing), PackageSpec(name="late"))
    async with places(source) as sources, watched(tmp_path) as daemon:
        url = await daemon.process.url(daemon.client)

        async def one(form: str, place: Place) -> None:
            await daemon.call("channel.create", name=form)
            made = await daemon.call(
                "mirror.create", channel=form, name="m", type="conda", run_now=True, **place.fields
            )
            assert (await ended(daemon, made.run)).state is RunState.COMPLETED
            assert await daemon.fetch(f"{url}/repo/{form}/noarch/alpha-1.9-0.conda") == 200
            for number, (_, name) in enumerate(failing):
                place.upstream.fail("*.conda", faults(place.secret)[number][1], times=None)
                assert await daemon.fetch(f"{url}/repo/{form}/noarch/{name}-1.0-0.conda") == 502
                place.upstream.heal()
            await place.upstream.__aexit__(None, None, None)
            assert await daemon.fetch(f"{url}/repo/{form}/noarch/late-1.0-0.conda") == 502
            for path in ("", "noarch/repodata.json", "noarch/gone-1-0.conda"):
                await daemon.fetch(f"{url}/repo/{form}/{path}")

        async with asyncio.TaskGroup() as group:
            for form, place in sources.items():
                group.create_task(one(form, place))
        await daemon.fetch(f"{url}/")
        await daemon.fetch(f"{url}/metrics")
        daemon.look_at_state()


async def test_stored_secrets_go_to_their_own_host_only(tmp_path: Path) -> None:
    source = sample_channel(tmp_path / "source")
    async with (
        FaultyUpstream(folder=source.path, bearer=BEARER) as home,
        FaultyUpstream(folder=source.path) as elsewhere,
        watched(tmp_path) as daemon,
    ):
        await daemon.call("channel.create", name="main")
        made = await daemon.call(
            "mirror.create", channel="main", name="m", type="conda", source=home.url, credentials={"bearer": BEARER}
        )
        check = {"type": "conda", "mirror": "main:m"}
        assert (await daemon.call("mirror.check", source=home.url, **check)).subdirs  # the stored ones are used
        assert (await daemon.call("mirror.check", source=elsewhere.url, **check)).subdirs
        for proxy in (elsewhere.url, f"http://me:{WRONG}@{elsewhere.host}"):
            with contextlib.suppress(FirthError):
                await daemon.call("mirror.check", source=home.url, proxy=proxy, **check)
        moved = await daemon.call("mirror.update", mirror="main:m", revision=made.mirror.revision, source=elsewhere.url)
        assert any("given anew" in warning for warning in moved.warnings)
        home.requests.clear()
        home.fail("*.zst", Fault(redirect=f"{elsewhere.url}/noarch/repodata.json.zst"), times=None)
        await daemon.call("mirror.check", type="conda", source=home.url, credentials={"bearer": BEARER})
        assert home.requests[0].headers["authorization"] == f"Bearer {BEARER}"
        assert len(elsewhere.requests) > 6
        assert [seen for seen in elsewhere.requests if "authorization" in seen.headers] == []


async def test_a_channel_that_goes_takes_its_mirrors_secrets_with_it(tmp_path: Path) -> None:
    source = sample_channel(tmp_path / "source")
    async with FaultyUpstream(folder=source.path, bearer=BEARER) as upstream, watched(tmp_path) as daemon:
        fields = {"type": "conda", "source": upstream.url, "credentials": {"bearer": BEARER}, "run_now": True}
        for name in ("going", "staying"):
            await daemon.call("channel.create", name=name)
            made = await daemon.call("mirror.create", channel=name, name="m", **fields)
            assert (await ended(daemon, made.run)).state is RunState.COMPLETED
        secrets = daemon.process.state / "secrets.json"
        assert secrets.read_text().count(BEARER) == 2
        await daemon.call("channel.delete", channel="going", confirm="going")
        assert secrets.read_text().count(BEARER) == 1
        assert [folder.name for folder in (daemon.process.state / "sources").iterdir()] == [str(made.mirror.id)]
        upstream.requests.clear()
        assert (await ended(daemon, (await daemon.call("mirror.run", mirror="staying:m")).run)).state.ended
        # The other mirror still has its copy of the index.
        assert 304 in {seen.status for seen in upstream.asked(method="GET")} <= {304, 404}
        await daemon.call("mirror.update", mirror="staying:m", revision=1, credentials=None, check=False)
        clean(secrets.read_bytes(), "secrets.json after the credentials were taken back")


SLIPS: list[dict[str, Any]] = [
    {"source": f"http://me:{WRONG}@[conda.example.org/main"},
    {"source": f"http://me:{WRONG}@conda\u2100.example.org/main"},
    {"source": f"me:{WRONG}@conda.example.org/main"},
    {"source": f"http://me:{WRONG}@conda.example.org/main?token={WRONG}"},
    {"source": f"http://conda.example.org:x/t/{WRONG}/main"},
    {"source": f"file://me:{WRONG}@/srv/channel"},
    {"proxy": f"http://me:{WRONG}@[proxy.example.org:3128"},
    {"proxy": f"http://me:{WRONG}@proxy\u2100.example.org:3128"},
    {"proxy": f"http://me:{WRONG}@proxy.example.org:port"},
    {"proxy": f"me:{WRONG}@proxy.example.org:3128"},
    {"credentials": {"token": WRONG, "bearer": WRONG}},
    {"credentials": {"bearer": f"{WRONG}\r\nX: y"}},
    {"credentials": [WRONG]},
    {"credentials": {"token": [WRONG]}},
]


async def test_a_slip_in_an_address_does_not_show_the_secret_beside_it(tmp_path: Path) -> None:
    async with watched(tmp_path) as daemon:
        await daemon.call("channel.create", name="main")
        made = await daemon.call(
            "mirror.create", channel="main", name="m", type="conda", source="http://127.0.0.1:1/x", check=False
        )
        methods: dict[str, dict[str, Any]] = {
            "mirror.check": {"type": "conda", "source": "http://127.0.0.1:1/x"},
            "mirror.create": {"type": "conda", "channel": "main", "name": "n", "source": "http://127.0.0.1:1/x"},
            "mirror.plan": {"type": "conda", "channel": "main", "source": "http://127.0.0.1:1/x"},
            "mirror.update": {"mirror": "main:m", "revision": made.mirror.revision},
        }
        kinds = {}
        for slip in SLIPS:
            for method, params in methods.items():
                try:
                    await daemon.call(method, **(params | slip))
                    kinds[f"{method} {slip}"] = "accepted"
                except FirthError as error:
                    kinds[f"{method} {slip}"] = error.kind
        assert {what: kind for what, kind in kinds.items() if kind not in {"invalid", "invalid_params"}} == {}
        await daemon.call("audit.list")
        daemon.look_at_state()
