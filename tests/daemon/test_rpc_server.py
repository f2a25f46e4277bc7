"""The Unix socket for real: HTTP statuses, the stream of events, who is at the other end, the socket's file."""

import asyncio
import io
import json
import os
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from firth_protocol.address import DOCUMENT_LIMIT, REQUEST_LIMIT
from firth_protocol.errors import InUse, Invalid
from firth_protocol.events import READER_LIMIT
from firth_protocol.methods import SeqReply
from firth_protocol.types import Role
from firthd.access import Access, Caller
from firthd.clock import SystemClock
from firthd.config import AccessSettings
from firthd.rpc.dispatch import Context
from firthd.rpc.listen import listen_at
from firthd.serving import rpc_limits
from tests.support.clock import settle
from tests.support.rpc import Server, rig, server

URL = "http://firth"


class AsSomebody(Access):
    """Takes the caller for somebody else than root, which tests may run as."""

    def __init__(self, someone: Caller) -> None:
        super().__init__(AccessSettings(), own_uid=0)
        self._someone = someone

    def caller(self, peer: Any) -> Caller:
        return self._someone


def somebody(role: Role, channels: tuple[str, ...] | None = None) -> Access:
    return AsSomebody(Caller(uid=5, pid=1, user="kim", role=role, channels=channels))


def call(method: str, **params: Any) -> str:
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})


async def who(context: Context, params: Any) -> dict[str, Any]:
    return {"uid": context.caller.uid, "pid": context.caller.pid, "role": context.caller.role}


# --- calls ----------------------------------------------------------------------------------------------


async def test_a_call_knows_who_calls(tmp_path: Path) -> None:
    async with (
        server(tmp_path, rig(daemon_status=who)) as up,
        up.http.post(f"{URL}/rpc", data=call("daemon.status")) as reply,
    ):
        assert (reply.status, reply.content_type) == (200, "application/json")
        assert (await reply.json())["result"] == {"uid": os.getuid(), "pid": os.getpid(), "role": "admin"}


async def test_any_content_type_will_do(tmp_path: Path) -> None:
    async with server(tmp_path, rig(daemon_status=who)) as up:
        for kind in ("application/json", "application/x-www-form-urlencoded", "text/plain; charset=latin-1"):
            headers = {"Content-Type": kind}
            async with up.http.post(f"{URL}/rpc", data=call("daemon.status"), headers=headers) as reply:
                assert "result" in await reply.json()


async def test_a_notification_is_answered_with_204(tmp_path: Path) -> None:
    body = '{"jsonrpc":"2.0","method":"daemon.status"}'
    async with server(tmp_path, rig(daemon_status=who)) as up, up.http.post(f"{URL}/rpc", data=body) as reply:
        assert (reply.status, await reply.read()) == (204, b"")


@pytest.mark.parametrize("chunked", [False, True])
async def test_over_one_mebibyte_is_too_much(tmp_path: Path, chunked: bool) -> None:
    async def pieces(size: int) -> AsyncIterator[bytes]:
        for start in range(0, size, 65536):
            yield b" " * min(65536, size - start)

    async with server(tmp_path) as up:
        for size, status in ((REQUEST_LIMIT, 200), (REQUEST_LIMIT + 1, 413)):
            body = pieces(size) if chunked else io.BytesIO(b" " * size)
            async with up.http.post(f"{URL}/rpc", data=body) as reply:
                error = (await reply.json())["error"]
                assert reply.status == status
                assert error["data"]["kind"] == ("parse" if status == 200 else "too_large")
        assert "1,048,576 bytes" in error["message"]


async def test_an_installation_may_be_larger(tmp_path: Path) -> None:
    seen = []

    async def apply(context: Context, params: Any) -> object:
        seen.append(len(params.document))
        raise Invalid("read")

    async with server(tmp_path, rig(config_apply=apply)) as up:
        for method, size, kind in (
            ("config.apply", 2 * REQUEST_LIMIT, "invalid"),
            ("config.apply", DOCUMENT_LIMIT, "too_large"),
            ("policy.create", 2 * REQUEST_LIMIT, "too_large"),
        ):
            async with up.http.post(f"{URL}/rpc", data=io.BytesIO(call(method, document="#" * size).encode())) as reply:
                assert (await reply.json())["error"]["data"]["kind"] == kind
    assert seen == [2 * REQUEST_LIMIT]


async def test_while_starting_calls_and_events_are_put_off(tmp_path: Path) -> None:
    up_now = False
    async with server(tmp_path, rig(daemon_status=who), ready=lambda: up_now) as up:
        for request in (up.http.post(f"{URL}/rpc", data=call("daemon.status")), up.http.get(f"{URL}/events")):
            async with request as reply:
                assert (reply.status, reply.headers["Retry-After"]) == (503, "1")
                assert (await reply.json())["error"]["data"]["kind"] == "unavailable"
        up_now = True
        async with up.http.post(f"{URL}/rpc", data=call("daemon.status")) as reply:
            assert reply.status == 200


async def test_the_greeting_says_where_to_look(tmp_path: Path) -> None:
    async with server(tmp_path) as up, up.http.get(f"{URL}/") as reply:
        greeting = await reply.json()
    assert (greeting["program"], greeting["api"], greeting["ready"]) == ("firthd", 1, True)
    assert greeting["version"]
    assert any("/events" in place for place in greeting["look"])


async def test_metrics(tmp_path: Path) -> None:
    async with server(tmp_path) as up, up.http.get(f"{URL}/metrics") as reply:
        assert reply.content_type == "text/plain"
        assert await reply.text() == "firth_up 1\n"


async def test_looking_ends_when_the_client_leaves(tmp_path: Path) -> None:
    begun, left = asyncio.Event(), asyncio.Event()

    async def wait(context: Context, params: Any) -> SeqReply:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            left.set()
            raise
        raise AssertionError

    async with server(tmp_path, rig(run_wait=wait)) as up:
        asked = asyncio.ensure_future(up.http.post(f"{URL}/rpc", data=call("run.wait", run=1)))
        await begun.wait()
        asked.cancel()
        await left.wait()


async def test_a_change_is_finished_when_the_client_leaves(tmp_path: Path) -> None:
    begun, go, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def freeze(context: Context, params: Any) -> SeqReply:
        begun.set()
        await go.wait()
        ended.set()
        return SeqReply(seq=1)

    async with server(tmp_path, rig(channel_freeze=freeze)) as up:
        _, writer = await asyncio.open_unix_connection(str(up.socket))
        body = call("channel.freeze", channel="main")
        writer.write(f"POST /rpc HTTP/1.1\r\nHost: f\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        await begun.wait()
        writer.close()
        await writer.wait_closed()
        await settle(100)  # the server sees that the client is gone
        go.set()
        async with asyncio.timeout(5):
            await ended.wait()
    assert [entry.outcome for entry in up.rig.audited] == ["ok"]


# --- events ---------------------------------------------------------------------------------------------


class Lines:
    """The lines of an open stream of events."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response

    async def event(self) -> dict[str, Any]:
        """Return the next line that is an event."""
        while True:
            line = await self.response.content.readline()
            assert line, "the stream has ended"
            if line.strip():
                found: dict[str, Any] = json.loads(line)
                return found

    async def empty(self) -> None:
        assert await self.response.content.readline() == b"\n"


async def follow(up: Server, query: str = "") -> Lines:
    response = await up.http.get(f"{URL}/events{query}")
    up.streams.append(response)
    assert response.status == 200, await response.text()
    lines = Lines(response)
    await lines.empty()
    return lines


async def test_events_come_one_a_line(tmp_path: Path) -> None:
    async with server(tmp_path) as up:
        lines = await follow(up)
        assert lines.response.content_type == "application/x-ndjson"
        up.rig.facts.tell("channel.frozen", channel="main")
        up.rig.facts.tell("run.queued", channel="main", run=4)
        first, second = await lines.event(), await lines.event()
    assert first == {
        "cursor": "e1:1",
        "time": "2026-05-01T00:00:00.000Z",
        "topic": "channel",
        "type": "channel.frozen",
        "ids": {"channel": "main"},
    }
    assert (second["cursor"], second["ids"]["run"]) == ("e1:2", 4)


async def test_progress_has_no_cursor(tmp_path: Path) -> None:
    async with server(tmp_path) as up:
        lines = await follow(up, "?topics=progress")
        up.rig.facts.progress(4, {"run": 4, "channel": "main"}, {"done": 5})
        event = await lines.event()
    assert (event["topic"], event["data"], "cursor" in event) == ("progress", {"done": 5}, False)


async def test_only_the_topics_asked_for(tmp_path: Path) -> None:
    async with server(tmp_path) as up:
        lines = await follow(up, "?topics=run,mirror")
        for kind in ("channel.frozen", "mirror.created", "token.created", "run.queued"):
            up.rig.facts.tell(kind)
        assert [(await lines.event())["type"] for _ in range(2)] == ["mirror.created", "run.queued"]


async def test_a_cursor_goes_on_where_it_stands(tmp_path: Path) -> None:
    async with server(tmp_path) as up:
        for _ in range(3):
            up.rig.facts.tell("channel.frozen", channel="main")
        lines = await follow(up, "?after=e1:1")
        up.rig.facts.tell("channel.unfrozen", channel="main")
        assert [(await lines.event())["cursor"] for _ in range(3)] == ["e1:2", "e1:3", "e1:4"]


@pytest.mark.parametrize("cursor", ["e0:1", "e1:1", "e1:99", "e1:", "nonsense", "e1:-1"])
async def test_a_cursor_that_is_foreign_or_too_old(tmp_path: Path, cursor: str) -> None:
    async with server(tmp_path) as up:
        up.rig.facts.first = 5
        async with up.http.get(f"{URL}/events?after={cursor}") as reply:
            assert reply.status == 410
            error = (await reply.json())["error"]
    assert (error["data"]["kind"], error["data"]["hint"]) == (
        "cursor_expired",
        "list again and follow from its as_of",
    )


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("?topics=runs", "there is no topic 'runs'; did you mean `run`?"),
        ("?topic=run", "/events takes no 'topic'; did you mean `topics`?"),
    ],
)
async def test_a_question_that_makes_no_sense(tmp_path: Path, query: str, text: str) -> None:
    async with server(tmp_path) as up, up.http.get(f"{URL}/events{query}") as reply:
        assert (reply.status, (await reply.json())["error"]["message"]) == (400, text)


async def test_silence_is_broken_by_empty_lines(tmp_path: Path) -> None:
    async with server(tmp_path, keepalive_s=0.02) as up:
        lines = await follow(up)
        await lines.empty()
        await lines.empty()
        up.rig.facts.tell("channel.frozen")
        assert (await lines.event())["type"] == "channel.frozen"


async def test_events_of_other_channels_are_left_out(tmp_path: Path) -> None:
    async with server(tmp_path, access=somebody(Role.READER, ("bio", "bio/*"))) as up:
        lines = await follow(up)
        for kind, ids in (
            ("channel.frozen", {"channel": "main"}),
            ("channel.frozen", {"channel": "bio"}),
            ("token.created", {"token": 3}),
            ("mirror.created", {"channel": "bio/dev", "mirror": 2}),
            ("daemon.health", {}),
        ):
            up.rig.facts.tell(kind, **ids)
        assert [(await lines.event())["cursor"] for _ in range(3)] == ["e1:2", "e1:4", "e1:5"]


async def test_administrators_see_events_of_tokens(tmp_path: Path) -> None:
    async with server(tmp_path) as up:
        lines = await follow(up)
        up.rig.facts.tell("token.created", token=3)
        assert (await lines.event())["ids"] == {"token": 3}


async def test_who_has_no_role_sees_no_event(tmp_path: Path) -> None:
    async with (
        server(tmp_path, access=somebody(Role.NONE)) as up,
        up.http.get(f"{URL}/events") as reply,
    ):
        assert reply.status == 403
        error = (await reply.json())["error"]
    assert error["message"] == "following events needs the role reader; kim has no role"


async def test_a_reader_that_is_too_slow_is_told_and_closed(tmp_path: Path) -> None:
    async with server(tmp_path) as up:
        lines = await follow(up)
        for _ in range(READER_LIMIT + 2):  # without a pause in which the reader could be served
            up.rig.facts.tell("channel.frozen", channel="main")
        assert (await lines.event())["type"] == "lost"
        assert await lines.response.content.read() == b""


async def test_a_reader_that_takes_nothing_is_cut_off(tmp_path: Path) -> None:
    async with server(tmp_path, stuck_s=0.1) as up:
        plug = socket.socket(socket.AF_UNIX)
        plug.setblocking(False)
        plug.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        with plug:
            loop = asyncio.get_running_loop()
            await loop.sock_connect(plug, str(up.socket))
            await loop.sock_sendall(plug, b"GET /events HTTP/1.1\r\nHost: f\r\n\r\n")
            first = await loop.sock_recv(plug, 4096)
            assert first.startswith(b"HTTP/1.1 200")
            for _ in range(50):
                up.rig.facts.tell("channel.frozen", channel="main" * 10_000)
            await up.rig.facts.nobody_reads()


async def test_a_reader_that_leaves_is_forgotten(tmp_path: Path) -> None:
    async with server(tmp_path) as up:
        lines = await follow(up)
        assert up.rig.facts.reading == 1
        lines.response.close()
        await up.rig.facts.nobody_reads()


async def test_stopping_ends_the_streams_at_once(tmp_path: Path) -> None:
    async with server(tmp_path) as up:
        lines = await follow(up)
        async with asyncio.timeout(2):
            await up.rpc.stop()
        assert await lines.response.content.read() == b""


# --- the socket's file ----------------------------------------------------------------------------------


async def test_the_socket_is_for_owner_and_group_and_goes_away(tmp_path: Path) -> None:
    async with server(tmp_path / "deep" / "down") as up:
        assert stat.S_IMODE(up.socket.stat().st_mode) == 0o660
        assert stat.S_ISSOCK(up.socket.stat().st_mode)
    assert not up.socket.exists()


async def test_an_inherited_socket_is_served_and_left_where_it_is(tmp_path: Path) -> None:
    path = tmp_path / "inherited.sock"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    listener.setblocking(False)
    async with server(tmp_path) as up:
        other = type(up.rpc)(
            up.rig.dispatcher,
            up.rig.access,
            up.rig.facts,
            _no_metrics,
            lambda: True,
            clock=SystemClock(),
            limits=rpc_limits(1024),
        )
        await other.start(listener)
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as http,
            http.get(f"{URL}/") as reply,
        ):
            assert reply.status == 200
        await other.stop()
    assert path.exists()


async def _no_metrics(seen: object) -> bytes:
    return b""


def test_a_dead_socket_is_cleared_away(tmp_path: Path) -> None:
    path = tmp_path / "firth.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with listen_at(path), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


def test_a_living_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "firth.sock"
    with listen_at(path):
        with pytest.raises(InUse, match=f"another daemon answers on {path}"):
            listen_at(path)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))


def test_what_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "firth.sock"
    path.write_text("precious")
    with pytest.raises(Invalid, match="is there and is no socket"):
        listen_at(path)
    assert path.read_text() == "precious"


def test_a_path_that_is_too_long(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="at most 107 bytes"):
        listen_at(tmp_path / ("x" * 120))


def test_a_place_where_no_socket_can_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Invalid, match="no socket can be made here: File exists"):
        listen_at(tmp_path / "file" / "firth.sock")
