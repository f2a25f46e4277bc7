"""Envelopes, strict parameters, authorisation, the audit log, and errors that were not foreseen."""

import asyncio
import json
import logging
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firth_protocol.address import BATCH_LIMIT
from firth_protocol.errors import ChannelFrozen, Conflict
from firth_protocol.methods import (
    METHODS,
    ChannelChangeState,
    ChannelParams,
    MirrorCreate,
    NoParams,
    SeqReply,
)
from firth_protocol.types import MirrorMode, Role
from firthd.access import Access, Caller
from firthd.config import AccessSettings
from firthd.rpc.dispatch import Context, Dispatcher
from firthd.store.audit import Audited
from tests.support.clock import START_MS, FakeClock, settle
from tests.support.rpc import Line, Mirrors, Rig, caller, handlers, rig


async def done(context: Context, params: Any) -> SeqReply:
    return SeqReply(seq=7)


async def handle(parts: Rig, body: bytes | str | list[Any] | dict[str, Any], by: Caller | None = None) -> Any:
    """Send bytes, or JSON made of a value; return what comes back, decoded."""
    raw = body if isinstance(body, bytes) else body.encode() if isinstance(body, str) else json.dumps(body).encode()
    reply = await parts.dispatcher.handle(raw, by or caller())
    return None if reply is None else json.loads(reply)


def request(method: str = "channel.freeze", params: Any = None, **members: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params or {"channel": "main"}} | members


# --- envelopes ------------------------------------------------------------------------------------------


async def test_a_call_is_answered_with_its_result() -> None:
    seen: list[tuple[Context, ChannelChangeState]] = []

    async def freeze(context: Context, params: ChannelChangeState) -> SeqReply:
        seen.append((context, params))
        return SeqReply(seq=7)

    reply = await handle(rig(channel_freeze=freeze), request())
    assert reply == {"jsonrpc": "2.0", "id": 1, "result": {"seq": 7}}
    context, params = seen[0]
    assert params == ChannelChangeState(channel="main")
    assert (context.caller, context.method) == (caller(), METHODS["channel.freeze"])
    assert context.visible("main")


@pytest.mark.parametrize("request_id", [1, -5, 0, 1.5, "a", "", "ä\n", None, 2**70])
async def test_the_id_comes_back_as_it_was(request_id: Any) -> None:
    reply = await handle(rig(channel_freeze=done), request(id=request_id))
    assert reply["id"] == request_id
    assert "result" in reply


async def test_a_request_without_id_is_worked_and_not_answered() -> None:
    parts = rig(channel_freeze=done)
    note = request()
    del note["id"]
    assert await handle(parts, note) is None
    assert await handle(parts, note | {"method": "no.such"}) is None
    assert [entry.outcome for entry in parts.audited] == ["ok"]


@pytest.mark.parametrize(
    ("body", "code", "request_id", "text"),
    [
        (b"", -32700, None, "the request is no JSON"),
        (b"{", -32700, None, "the request is no JSON"),
        (b'{"a":1}x', -32700, None, "the request is no JSON"),
        (b'"\xff"', -32700, None, "the request is no JSON"),
        (b"[" * 100_000, -32700, None, "the request is no JSON"),
        (b"[]", -32600, None, "the batch is empty"),
        (b"1", -32600, None, "a request is a JSON object"),
        (b"null", -32600, None, "a request is a JSON object"),
        (b"{}", -32600, None, 'the member `jsonrpc` must be "2.0"'),
        (b'{"jsonrpc":2.0,"id":3,"method":"x"}', -32600, 3, 'the member `jsonrpc` must be "2.0"'),
        (b'{"jsonrpc":"2.0","id":3}', -32600, 3, "the member `method` must be a string"),
        (b'{"jsonrpc":"2.0","id":3,"method":5}', -32600, 3, "the member `method` must be a string"),
        (b'{"jsonrpc":"2.0","id":[],"method":"x"}', -32600, None, "the member `id` must be"),
        (b'{"jsonrpc":"2.0","id":true,"method":"x"}', -32600, None, "the member `id` must be"),
        (
            b'{"jsonrpc":"2.0","id":3,"method":"x","param":{}}',
            -32600,
            3,
            "a request has no member `param`; did you mean `params`?",
        ),
        (b'{"jsonrpc":"2.0","id":3,"method":"channel.frezee"}', -32601, 3, "did you mean `channel.freeze`?"),
        (b'{"jsonrpc":"2.0","id":3,"method":""}', -32601, 3, "the daemon knows no method ''"),
    ],
)
async def test_what_is_no_call(body: bytes, code: int, request_id: Any, text: str) -> None:
    reply = await handle(rig(), body)
    assert (reply["id"], reply["error"]["code"]) == (request_id, code)
    assert text in reply["error"]["message"]
    assert reply["error"]["data"]["hint"]


async def test_a_long_method_name_is_not_repeated_whole() -> None:
    reply = await handle(rig(), request("x" * 500_000))
    assert len(reply["error"]["message"]) < 300


async def test_a_batch_is_worked_in_order() -> None:
    order: list[str] = []

    async def get(context: Context, params: ChannelParams) -> SeqReply:
        await asyncio.sleep(0)
        order.append(params.channel)
        return SeqReply(seq=len(order))

    names = ["c", "a", "b"]
    batch: list[Any] = [request("channel.get", {"channel": name}, id=name) for name in names]
    batch.insert(1, request("no.such", id="x"))
    batch.insert(2, {key: value for key, value in request("channel.get", {"channel": "n"}).items() if key != "id"})
    batch.append(5)
    reply = await handle(rig(channel_get=get), batch)
    assert order == ["c", "n", "a", "b"]
    assert [(item["id"], item.get("result", {}).get("seq")) for item in reply] == [
        ("c", 1),
        ("x", None),
        ("a", 3),
        ("b", 4),
        (None, None),
    ]


async def test_a_batch_of_notifications_is_not_answered() -> None:
    note = {"jsonrpc": "2.0", "method": "channel.freeze", "params": {"channel": "main"}}
    assert await handle(rig(channel_freeze=done), [note, note]) is None


async def test_a_batch_that_is_too_long_is_refused_as_a_whole() -> None:
    parts = rig(channel_freeze=done)
    reply = await handle(parts, [request()] * (BATCH_LIMIT + 1))
    assert (reply["id"], reply["error"]["code"], reply["error"]["data"]["limit"]) == (None, -32012, 50)
    assert parts.audited == []
    assert len(await handle(parts, [request()] * BATCH_LIMIT)) == BATCH_LIMIT


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()))
async def test_no_bytes_break_the_dispatcher(body: bytes) -> None:
    reply = await rig().dispatcher.handle(body, caller())
    assert reply is not None  # none of these has a method
    found = json.loads(reply)
    for item in found if isinstance(found, list) else [found]:
        assert item["jsonrpc"] == "2.0"
        assert item["error"]["code"] in (-32700, -32600, -32012)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(sorted(METHODS)), JSON | st.dictionaries(st.sampled_from(["channel", "mirror", "run"]), JSON))
async def test_no_parameters_break_a_method(method: str, params: Any) -> None:
    reply = await rig().call(method, params)
    assert reply["id"] == 1
    assert reply["error"]["code"] in (-32602, -32001)
    assert reply["error"]["data"]["kind"] in ("invalid_params", "not_found")
    if reply["error"]["code"] == -32602:
        assert reply["error"]["data"]["path"].startswith("$")
        assert reply["error"]["data"]["hint"]


# --- parameters -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "params", "path", "text"),
    [
        ("channel.get", ["main"], "$", "channel.get takes parameters by name, in an object"),
        ("channel.get", "main", "$", "channel.get takes parameters by name, in an object"),
        ("channel.get", {}, "$.channel", "`$.channel`: the field is needed"),
        ("channel.get", {"channel": 5}, "$.channel", "`$.channel`: expected `str`, got `int`"),
        ("channel.get", {"channel": ""}, "$.channel", "`$.channel`: expected `str` of length >= 1"),
        (
            "channel.get",
            {"chanel": "main"},
            "$.chanel",
            "`$.chanel`: the daemon knows no such field (api 1, version 0.1.0); did you mean `channel`?",
        ),
        ("mirror.update", {"mirror": 1, "revision": 1, "mode": "active"}, "$.mode", "`$.mode` is fixed after creation"),
        ("rpc.discover", {"x": 1}, "$.x", "`$.x`: the daemon knows no such field (api 1, version 0.1.0)"),
        (
            "mirror.create",
            {"filters": {"subdir": ["noarch"]}},
            "$.filters.subdir",
            "`$.filters.subdir`: the daemon knows no such field (api 1, version 0.1.0); did you mean `subdirs`?",
        ),
        (
            "mirror.create",
            {"filters": {"subdirs": ["noarch", 5]}},
            "$.filters.subdirs[1]",
            "`$.filters.subdirs[1]`: expected `str`, got `int`",
        ),
        (
            "mirror.update",
            {"credentials": {"tokn": "s3cret"}},
            "$.credentials.tokn",
            "`$.credentials.tokn`: the daemon knows no such field (api 1, version 0.1.0); did you mean `token`?",
        ),
        (
            "mirror.create",
            {"type": "condo"},
            "$.type",
            "`$.type`: 'condo' is not one of conda, python, r; did you mean `conda`?",
        ),
        ("run.get", {"run": 0}, "$.run", "`$.run`: expected `int` >= 1"),
        ("mirror.plan", {}, "$.mirror", "`$.mirror`: the field is needed here"),
    ],
)
async def test_what_is_wrong_with_parameters(method: str, params: Any, path: str, text: str) -> None:
    error = (await rig().call(method, params))["error"]
    assert (error["code"], error["message"], error["data"]["path"]) == (-32602, text, path)
    assert error["data"]["hint"]
    assert "s3cret" not in json.dumps(error)


async def test_an_unknown_field_is_answered_with_the_known_ones() -> None:
    error = (await rig().call("run.wait", {"zzz": 1}))["error"]
    assert error["data"]["hint"] == "its fields are run, timeout"


# --- who may --------------------------------------------------------------------------------------------


BIO = Caller(uid=5, pid=1, user="kim", role=Role.MANAGER, channels=("bio", "bio/*"))


@pytest.mark.parametrize(
    ("method", "params", "allowed"),
    [
        ("channel.freeze", {"channel": "bio"}, True),
        ("channel.freeze", {"channel": "main"}, False),
        ("channel.create", {"name": "bio/new"}, True),
        ("channel.create", {"name": "new"}, False),
        ("mirror.run", {"mirror": 2}, True),
        ("mirror.run", {"mirror": 1}, False),
        ("mirror.run", {"mirror": "bio/dev:forge"}, True),
        ("mirror.run", {"mirror": "main:bio"}, False),
        ("run.get", {"run": 2}, True),
        ("run.get", {"run": 1}, False),
        ("channel.list", {}, True),
        ("mirror.list", {}, True),
        ("mirror.list", {"channel": "bio"}, True),
        ("mirror.list", {"channel": "main"}, False),
        ("run.list", {"mirror": 1}, False),
        ("mirror.plan", {"mirror": 2}, True),
        ("mirror.plan", {"mirror": 2, "channel": "main"}, False),
        ("mirror.plan", {"channel": "bio", "source": "file:///x"}, True),
        ("mirror.check", {"type": "conda", "source": "file:///x"}, True),
        ("mirror.check", {"type": "conda", "source": "file:///x", "mirror": 2}, True),
        # Another mirror's credentials would be sent to an address of the caller's choice.
        ("mirror.check", {"type": "conda", "source": "file:///x", "mirror": 1}, False),
        ("token.list", {}, False),
        ("daemon.status", {}, True),
    ],
)
async def test_a_caller_for_some_channels(method: str, params: dict[str, Any], allowed: bool) -> None:
    parts = rig(**{method.replace(".", "_", 1): done})
    reply = await parts.call(method, params, by=BIO)
    if allowed:
        assert reply.get("result") == {"seq": 7}, reply
    else:
        # What he may not see is not there; what belongs to no channel that there is, he is told that he may not.
        hidden = method not in {"channel.create", "token.list"}
        assert reply["error"]["code"] == (-32001 if hidden else -32003)
        assert ("there is no" if hidden else "kim has") in reply["error"]["message"]


async def test_who_may_do_nothing_learns_nothing() -> None:
    parts = rig()
    for params in ({}, {"mirror": 1}, {"mirror": 99}, {"nonsense": 1}):
        error = (await parts.call("mirror.run", params, by=caller(Role.NONE)))["error"]
        assert error["message"] == "mirror.run needs the role operator; kim has no role"
    assert parts.audited == []


async def test_a_refusal_does_not_tell_which_mirrors_there_are() -> None:
    for there, not_there in (("main:forge", "main:none1"), (1, 9), ("1", "9")):
        hidden = (await rig().call("mirror.run", {"mirror": there}, by=BIO))["error"]
        absent = (await rig().call("mirror.run", {"mirror": not_there}, by=BIO))["error"]
        assert hidden["message"] == f"there is no mirror {there!r}"
        assert absent["message"] == f"there is no mirror {not_there!r}"
        assert (hidden["code"], hidden["data"]) == (absent["code"], absent["data"])


# --- the audit log --------------------------------------------------------------------------------------


async def test_a_change_is_audited_with_who_and_what() -> None:
    parts = rig(channel_freeze=done)
    await parts.call("channel.freeze", {"channel": "main"})
    assert parts.audited == [
        Audited(
            time_ms=START_MS,
            uid=caller().uid,
            pid=1,
            user="kim",
            role=Role.ADMIN,
            method="channel.freeze",
            params={"channel": "main"},
            outcome="ok",
        )
    ]


async def test_looking_and_trying_are_not_audited() -> None:
    parts = rig(channel_get=done, channel_freeze=done)
    await parts.call("channel.get", {"channel": "main"})
    await parts.call("channel.freeze", {"channel": "main", "dry_run": True})
    assert parts.audited == []


async def test_a_change_that_fails_or_is_refused_is_audited_with_the_kind() -> None:
    async def conflict(context: Context, params: Any) -> SeqReply:
        raise Conflict("somebody was faster")

    async def broken(context: Context, params: Any) -> SeqReply:
        raise ZeroDivisionError

    parts = rig(channel_freeze=conflict, channel_unfreeze=broken)
    await parts.call("channel.freeze", {"channel": "main"})
    await parts.call("channel.unfreeze", {"channel": "main"})
    await parts.call("channel.freeze", {"channel": "main"}, by=BIO)
    await parts.call("channel.freeze", {"channel": "main"}, by=caller(Role.READER))
    await parts.call("channel.freeze", {"channel": "main", "dry_run": True}, by=caller(Role.READER))
    await parts.call("channel.freeze", {"nonsense": 1}, by=caller(Role.READER))
    assert [entry.outcome for entry in parts.audited] == ["conflict", "internal", "not_found", "forbidden"]


async def test_secrets_do_not_reach_the_audit_log() -> None:
    parts = rig(mirror_create=done, mirror_update=done)
    await parts.call(
        "mirror.create",
        {
            "channel": "main",
            "name": "forge",
            "type": "conda",
            "mode": "active",
            "source": "https://user:s3cret@mirror.example.org/t/s3cret/main?key=s3cret",
            "proxy": "http://user:s3cret@proxy.example.org:3128",
            "credentials": {"user": "kim", "password": "s3cret"},
            "filters": {"subdirs": ["noarch"]},
        },
    )
    await parts.call("mirror.update", {"mirror": 1, "revision": 3, "credentials": None, "proxy": "u:s3cret@proxy:1"})
    create, update = (entry.params for entry in parts.audited)
    assert "s3cret" not in json.dumps([create, update])
    assert create["credentials"] == {"user": "***", "password": "***"}
    assert "mirror.example.org" in create["source"]
    assert create["proxy"] == "http://***@proxy.example.org:3128"
    assert create["filters"] == {"subdirs": ["noarch"]}
    assert create["mode"] == "active"
    assert update == {"mirror": 1, "revision": 3, "credentials": None, "proxy": "***@proxy:1"}


async def test_a_line_of_the_audit_log_has_its_bounds() -> None:
    parts = rig(token_create=done)
    await parts.call("token.create", {"name": "ci", "channels": ["x" * 100] * 5_000})
    assert parts.audited[0].params.keys() == {"cut", "name"}
    assert parts.audited[0].params["cut"] > 500_000


async def test_an_audit_log_that_cannot_be_written_is_told_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    class Full(Line):
        async def end(self, outcome: str) -> None:
            raise OSError("disk full")

    dispatcher = Dispatcher(
        handlers(channel_freeze=done),
        Access(AccessSettings(), 0),
        Mirrors(),
        lambda entry: Full(entry, []),
        FakeClock(),
    )
    reply = await dispatcher.handle(json.dumps(request()).encode(), caller())
    assert reply is not None
    assert json.loads(reply)["result"] == {"seq": 7}
    assert "the audit log cannot be written: channel.freeze by kim: ok" in caplog.text


# --- errors, leaving, the table -------------------------------------------------------------------------


async def test_a_domain_error_travels_whole() -> None:
    async def frozen(context: Context, params: Any) -> SeqReply:
        raise ChannelFrozen("channel main is frozen", hint="unfreeze it first", channel="main")

    reply = await rig(channel_freeze=frozen).call("channel.freeze", {"channel": "main"})
    assert reply["error"] == {
        "code": -32005,
        "message": "channel main is frozen",
        "data": {"kind": "channel_frozen", "hint": "unfreeze it first", "retryable": False, "channel": "main"},
    }


async def test_an_unforeseen_error_goes_to_the_log_under_an_id(caplog: pytest.LogCaptureFixture) -> None:
    async def broken(context: Context, params: Any) -> SeqReply:
        raise ZeroDivisionError("inner matter")

    with caplog.at_level(logging.ERROR):
        error = (await rig(channel_get=broken).call("channel.get", {"channel": "main"}))["error"]
    correlation = error["data"]["correlation"]
    assert (error["code"], error["data"]["kind"]) == (-32603, "internal")
    assert correlation in error["message"]
    assert "inner matter" not in json.dumps(error)
    assert f"channel.get failed unforeseen, correlation {correlation}" in caplog.text
    assert "ZeroDivisionError: inner matter" in caplog.text


async def test_a_result_that_is_no_json_is_an_unforeseen_error(caplog: pytest.LogCaptureFixture) -> None:
    async def odd(context: Context, params: Any) -> object:
        return object()

    assert (await rig(channel_get=odd).call("channel.get", {"channel": "main"}))["error"]["code"] == -32603


class Slow:
    """A handler that tells when it has begun, waits to be let go, and notes whether it came to its end."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.go = asyncio.Event()
        self.ended = False

    async def __call__(self, context: Context, params: Any) -> SeqReply:
        self.begun.set()
        await self.go.wait()
        self.ended = True
        return SeqReply(seq=1)


async def test_a_change_is_finished_although_its_caller_leaves() -> None:
    slow = Slow()
    parts = rig(channel_freeze=slow)
    call = asyncio.ensure_future(parts.call("channel.freeze", {"channel": "main"}))
    await slow.begun.wait()
    call.cancel()
    await settle()
    assert not call.done()
    slow.go.set()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert slow.ended
    assert [entry.outcome for entry in parts.audited] == ["ok"]


async def test_a_change_can_be_ended_by_force() -> None:
    slow = Slow()
    call = asyncio.ensure_future(rig(channel_freeze=slow).call("channel.freeze", {"channel": "main"}))
    await slow.begun.wait()
    call.cancel()
    await settle()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert not slow.ended


async def test_looking_is_given_up_when_the_caller_leaves() -> None:
    slow = Slow()
    call = asyncio.ensure_future(rig(channel_get=slow).call("channel.get", {"channel": "main"}))
    await slow.begun.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert not slow.ended


async def test_stopping_answers_who_looks_and_lets_changes_finish() -> None:
    looking, changing = Slow(), Slow()
    parts = rig(run_wait=looking, channel_freeze=changing)
    look = asyncio.ensure_future(parts.call("run.wait", {"run": 1}))
    change = asyncio.ensure_future(parts.call("channel.freeze", {"channel": "main"}))
    await looking.begun.wait()
    await changing.begun.wait()
    parts.dispatcher.stop()
    assert (await look)["error"]["data"]["kind"] == "unavailable"
    assert (await parts.call("run.wait", {"run": 1}))["error"]["message"] == "the daemon is stopping"
    changing.go.set()
    assert (await change)["result"] == {"seq": 1}
    assert not looking.ended


def test_every_method_needs_a_handler() -> None:
    some = handlers()
    del some["channel.freeze"], some["run.log"]

    with pytest.raises(LookupError, match=r"no handler for channel\.freeze, run\.log"):
        Dispatcher(some, Access(AccessSettings(), 0), Mirrors(), lambda entry: Line(entry, []), FakeClock())


async def test_defaults_reach_the_handler() -> None:
    seen: list[MirrorCreate] = []

    async def create(context: Context, params: MirrorCreate) -> SeqReply:
        seen.append(params)
        return SeqReply(seq=1)

    await rig(mirror_create=create).call(
        "mirror.create", {"channel": "main", "name": "forge", "type": "conda", "source": "file:///x"}
    )
    assert (seen[0].mode, seen[0].schedule, seen[0].check) == (MirrorMode.PASSIVE, "0 0 1 * *", True)


async def test_methods_without_parameters_take_none() -> None:
    seen: list[NoParams] = []

    async def discover(context: Context, params: NoParams) -> dict[str, Any]:
        seen.append(params)
        return {"openrpc": "1"}

    bare = {"jsonrpc": "2.0", "id": 1, "method": "rpc.discover"}
    assert (await handle(rig(rpc_discover=discover), bare))["result"] == {"openrpc": "1"}
    assert seen == [NoParams()]
