"""The asyncio client against a real server: results, errors, batches, events, resuming."""

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import UNSET
from tests.support.rpc import rig, server

from firth_protocol.client import Client, DaemonUnreachable, lenient
from firth_protocol.errors import (
    CursorExpired,
    Internal,
    InvalidParams,
    NotFound,
    TooLarge,
    Unavailable,
)
from firth_protocol.events import READER_LIMIT
from firth_protocol.methods import ChannelParams, MirrorUpdate, SeqReply
from firth_protocol.types import Filters, Mirror, Page
from firthd.rpc.dispatch import Context


async def seq(context: Context, params: Any) -> SeqReply:
    return SeqReply(seq=7)


async def test_a_call_gives_the_result_of_the_table(tmp_path: Path) -> None:
    async with server(tmp_path, rig(channel_delete=seq)) as up, Client(up.socket) as client:
        assert await client.call("channel.delete", channel="main", confirm="main") == SeqReply(seq=7)


async def test_structs_and_unset_go_in(tmp_path: Path) -> None:
    seen: list[MirrorUpdate] = []

    async def update(context: Context, params: MirrorUpdate) -> SeqReply:
        seen.append(params)
        raise NotFound("enough")

    async with server(tmp_path, rig(mirror_update=update)) as up, Client(up.socket) as client:
        with pytest.raises(NotFound, match="enough"):
            await client.call(
                "mirror.update", mirror=1, revision=3, filters=Filters(subdirs=["noarch"]), name=UNSET, proxy=None
            )
    assert seen == [MirrorUpdate(mirror=1, revision=3, filters=Filters(subdirs=["noarch"]), proxy=None)]


async def test_an_error_reply_is_raised_as_its_class(tmp_path: Path) -> None:
    async with server(tmp_path) as up, Client(up.socket) as client:
        with pytest.raises(InvalidParams) as caught:
            await client.call("channel.get", chanel="main")
    assert caught.value.data["path"] == "$.chanel"
    assert caught.value.hint == "its fields are channel"


async def test_a_batch_gives_results_and_errors_in_order(tmp_path: Path) -> None:
    async def get(context: Context, params: ChannelParams) -> dict[str, Any]:
        raise NotFound(f"there is no channel {params.channel}")

    async with server(tmp_path, rig(channel_get=get, channel_delete=seq)) as up, Client(up.socket) as client:
        found = await client.batch(
            [("channel.get", {"channel": "a"}), ("channel.delete", {"channel": "b", "confirm": "b"})]
        )
        assert await client.batch([]) == []
        with pytest.raises(TooLarge, match="the batch has 51 requests"):
            await client.batch([("rpc.discover", {})] * 51)
    assert isinstance(found[0], NotFound)
    assert found[1] == SeqReply(seq=7)


async def test_a_request_that_is_too_large_is_not_sent(tmp_path: Path) -> None:
    async with server(tmp_path) as up, Client(up.socket) as client:
        with pytest.raises(TooLarge):
            await client.call("channel.get", channel="x" * 1_100_000)


async def test_no_daemon(tmp_path: Path) -> None:
    path = tmp_path / "none.sock"
    async with Client(path) as client:
        with pytest.raises(DaemonUnreachable) as caught:
            await client.call("daemon.status")
        assert str(caught.value) == (
            f"firthd cannot be reached on {path}: No such file or directory;"
            " start it, or name its socket with --socket or FIRTH_SOCKET"
        )
        with pytest.raises(DaemonUnreachable):
            await anext(client.follow())


async def test_a_daemon_that_is_starting(tmp_path: Path) -> None:
    async with server(tmp_path, ready=lambda: False) as up, Client(up.socket) as client:
        with pytest.raises(Unavailable):
            await client.call("daemon.status")
        with pytest.raises(Unavailable):
            await anext(client.follow())


async def test_a_daemon_that_does_not_answer_in_time(tmp_path: Path) -> None:
    async def never(context: Context, params: Any) -> object:
        return await asyncio.Event().wait()

    async with server(tmp_path, rig(daemon_status=never)) as up, Client(up.socket, timeout_s=0.05) as client:
        with pytest.raises(DaemonUnreachable, match="does not answer in time"):
            await client.call("daemon.status")


async def test_a_call_that_waits_itself_gets_the_time_for_it(tmp_path: Path) -> None:
    async def wait(context: Context, params: Any) -> object:
        await asyncio.sleep(0.2)
        raise NotFound("after a while")

    async with server(tmp_path, rig(run_wait=wait)) as up, Client(up.socket, timeout_s=0.05) as client:
        with pytest.raises(NotFound, match="after a while"):
            await client.call("run.wait", run=1, timeout=5)


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", b"HTTP/1.1 404 x\r\n\r\n", b"SSH-2.0\r\n", b""]
)
async def test_somebody_else_on_the_socket(tmp_path: Path, answer: bytes) -> None:
    async def other(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()
        await writer.wait_closed()

    path = tmp_path / "other.sock"
    async with await asyncio.start_unix_server(other, path), Client(path) as client:
        with pytest.raises(DaemonUnreachable):
            await client.call("daemon.status")
        with pytest.raises(DaemonUnreachable):
            await anext(client.follow())


async def test_a_client_that_was_not_opened_says_how() -> None:
    with pytest.raises(RuntimeError, match="async with Client"):
        await Client("/nowhere").call("daemon.status")


# --- events ---------------------------------------------------------------------------------------------


async def test_events_come_as_structs(tmp_path: Path) -> None:
    async with server(tmp_path) as up, Client(up.socket) as client:
        up.rig.facts.tell("channel.frozen", channel="main")
        async with aclosing(client.follow(["channel"], "e1:0")) as events:
            first = await anext(events)
            up.rig.facts.tell("run.queued")
            told = up.rig.facts.tell("channel.unfrozen", channel="main")
            assert await anext(events) == told
    assert (first.type, first.ids, first.cursor) == ("channel.frozen", {"channel": "main"}, "e1:1")


async def test_a_foreign_cursor_is_an_error(tmp_path: Path) -> None:
    async with server(tmp_path) as up, Client(up.socket) as client:
        with pytest.raises(CursorExpired):
            await anext(client.follow(after="other:1"))
        with pytest.raises(CursorExpired):
            await anext(client.follow_forever(after="other:1"))


async def test_being_too_slow_is_an_expired_cursor(tmp_path: Path) -> None:
    async with server(tmp_path) as up, Client(up.socket) as client, aclosing(client.follow(after="e1:0")) as events:
        up.rig.facts.tell("channel.frozen")
        await anext(events)
        for _ in range(READER_LIMIT + 2):
            up.rig.facts.tell("channel.frozen")
        with pytest.raises(CursorExpired, match="too slow"):
            async for _ in events:
                pass


async def test_the_end_of_the_stream_is_told(tmp_path: Path) -> None:
    async with server(tmp_path) as up, Client(up.socket) as client, aclosing(client.follow(after="e1:0")) as events:
        up.rig.facts.tell("channel.frozen")
        await anext(events)
        await up.rpc.stop()
        with pytest.raises(DaemonUnreachable, match="closed the stream"):
            await anext(events)


async def test_following_goes_on_after_a_restart(tmp_path: Path) -> None:
    parts = rig()
    waited: list[float] = []
    back = asyncio.Event()

    async def sleep(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 3:
            await back.wait()

    async with (
        Client(tmp_path / "firth.sock") as client,
        aclosing(client.follow_forever(["channel"], "e1:0", sleep=sleep)) as events,
    ):
        async with server(tmp_path, parts):
            for name in ("a", "b"):
                parts.facts.tell("channel.frozen", channel=name)
            assert [(await anext(events)).ids["channel"] for _ in range(2)] == ["a", "b"]
        missed = asyncio.ensure_future(anext(events))
        await until(lambda: len(waited) == 3)
        parts.facts.tell("channel.frozen", channel="c")
        async with server(tmp_path, parts):
            back.set()
            assert (await missed).ids["channel"] == "c"
    assert waited == [0.1, 0.2, 0.4]


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


# --- newer daemons --------------------------------------------------------------------------------------


MIRROR = {
    "id": 1, "channel": "main", "name": "forge", "type": "conda", "mode": "passive", "source": "file:///x",
    "schedule": "daily", "filters": {}, "on_upstream_removal": "follow", "proxy": None, "ca_file": None,
    "credentials": None, "enabled": True, "state": "pending", "last_run": None, "last_success_at": None,
    "last_success_age_s": None, "next_run_at": None, "artifacts": 0,
    "stored": 0, "shadowed": 0, "bytes": 0, "created_at": "", "updated_at": "", "revision": 1,
}  # fmt: skip


def test_fields_of_a_newer_daemon_are_ignored_however_deep() -> None:
    newer = MIRROR | {"brand_new": 1, "filters": {"subdirs": ["noarch"], "colour": "red"}}
    page = lenient({"items": [newer], "as_of": "e1:1", "more": {}}, Page[Mirror])
    assert page.items[0].filters == Filters(subdirs=["noarch"])


def test_a_reply_of_the_wrong_shape_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError):
        lenient({"items": [MIRROR | {"id": "one"}], "as_of": "e1:1"}, Page[Mirror])


async def test_a_reply_of_the_wrong_shape_says_what_to_do(tmp_path: Path) -> None:
    async def odd(context: Context, params: Any) -> dict[str, Any]:
        return {"seq": "seven"}

    async with server(tmp_path, rig(channel_delete=odd)) as up, Client(up.socket) as client:
        with pytest.raises(Internal) as caught:
            await client.call("channel.delete", channel="main", confirm="main")
    assert "channel.delete is not what this client expects" in caught.value.message
    assert caught.value.hint == "bring daemon and client to the same version"
