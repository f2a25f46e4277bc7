"""What a caller may not see answers, in every method, exactly as what does not exist."""

import json
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from firth_protocol.describe import fields_of
from firth_protocol.methods import METHODS
from firth_protocol.types import Role
from firthd.access import Access, Caller
from firthd.config import AccessSettings
from firthd.mirrors.report import Finder
from firthd.rpc.dispatch import Dispatcher
from firthd.rpc.handlers import handlers
from firthd.rpc.server import _may_see
from firthd.store.audit import AuditLog
from tests.support.clock import FakeClock
from tests.support.conda import sample_channel
from tests.support.daemon import Running, in_process_daemon

NOWHERE = 777_777
"""An id that nothing has."""
SECRET = "zq-hidden"
"""Stands in every name that a caller limited to `team` may not learn."""


class Hidden:
    """A daemon with a channel `team`, its child, and one that its callers may not see; both have mirrors and runs."""

    def __init__(self, running: Running) -> None:
        engine = running.daemon.engine
        self.running = running
        self.dispatcher = Dispatcher(
            handlers(engine),
            Access(AccessSettings(), own_uid=os.getuid()),
            Finder(engine.db, engine.queue),
            AuditLog(engine.db).open,
            FakeClock(),
        )
        self.mirrors: dict[str, int] = {}
        self.runs: dict[str, int] = {}

    async def ask(self, method: str, params: dict[str, Any], caller: Caller) -> dict[str, Any]:
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        reply = await self.dispatcher.handle(json.dumps(request).encode(), caller)
        assert reply is not None
        found: dict[str, Any] = json.loads(reply)
        return found


@pytest.fixture
async def hidden(tmp_path: Path) -> AsyncIterator[Hidden]:
    source = sample_channel(tmp_path / "source")
    async with in_process_daemon(tmp_path) as running:
        parts = Hidden(running)
        call = running.client.call
        for channel in ("team", f"team/{SECRET}", SECRET):
            await call("channel.create", name=channel, description=channel)
            name = "tm" if channel == "team" else f"{SECRET}-mirror"
            reply = await call(
                "mirror.create",
                channel=channel,
                name=name,
                type="conda",
                source=f"file://{source.path}",
                run_now=True,
                schedule="hourly",
            )
            parts.mirrors[channel] = reply.mirror.id
            parts.runs[channel] = (await running.ended(reply.run.id)).id
        # Something is wrong with what they may not see.
        reply = await call(
            "mirror.create", channel=SECRET, name=f"{SECRET}-broken", type="conda", source="file:///none", check=False
        )
        await running.run(reply.mirror.id)
        await call("token.create", name=SECRET, channels=[SECRET])
        yield parts


def limited(role: Role) -> Caller:
    return Caller(uid=4_000_001, pid=1, user="kim", role=role, channels=("team",))


ROLES = [Role.READER, Role.OPERATOR, Role.MANAGER, Role.ADMIN]
VALUES: dict[str, Any] = {
    "revision": 1,
    "generation": 1,
    "confirm": "tm",
    "name": "new",
    "type": "conda",
    "source": "file:///none",
    "dry_run": True,
    "check": False,
    "timeout": 0.01,
    "id": 1,
}


def calls(channel: str, mirror: int | str, run: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Give, for every method, a call with what it needs, and one for each reference that it may also take."""
    references: dict[str, Any] = {"channel": channel, "mirror": mirror, "run": run}
    for method in METHODS.values():
        fields = fields_of(method.params)
        needed = {field.name: VALUES[field.name] for field in fields if field.required and field.name in VALUES}
        if any(field.name == "dry_run" for field in fields):
            needed["dry_run"] = True
        needed |= {
            field.name: references[field.name] for field in fields if field.required and field.name in references
        }
        if not references.keys().isdisjoint(needed) or not references.keys() & {field.name for field in fields}:
            yield method.name, needed
        for field in fields:
            if field.name in references and not field.required:
                # What is needed besides is theirs to see: the answer is about this reference alone.
                seen = {"mirror": "team:tm"} if "mirror" in needed else {}
                yield method.name, {**needed, **seen, field.name: references[field.name]}


def told(reply: dict[str, Any], *names: Any) -> str:
    """Return an error with the names that the call itself gave taken out: what is left must not differ."""
    text = json.dumps(reply["error"])
    for name in sorted((str(name) for name in names), key=len, reverse=True):
        text = text.replace(name, "?")
    return text


async def test_hidden_references_answer_as_those_to_nothing(hidden: Hidden) -> None:
    for role in ROLES:
        await answers_as_nothing(hidden, role)


async def answers_as_nothing(hidden: Hidden, role: Role) -> None:
    for channel in (SECRET, f"team/{SECRET}"):
        mirror, run = hidden.mirrors[channel], hidden.runs[channel]
        for there_ref, gone_ref in (
            (mirror, NOWHERE),
            (str(mirror), str(NOWHERE)),
            (f"{channel}:{SECRET}-mirror", f"{channel}:none"),
            (f"{channel}:{SECRET}-mirror", "none:none"),
        ):
            there, gone = calls(channel, there_ref, run), calls("none", gone_ref, NOWHERE)
            for (method, params), (_, absent) in zip(there, gone, strict=True):
                answer = await hidden.ask(method, params, limited(role))
                other = await hidden.ask(method, absent, limited(role))
                if "error" not in answer:
                    assert not {"channel", "mirror", "run"} & params.keys(), (method, params, answer)
                    assert SECRET not in json.dumps(answer), (method, answer)
                    continue
                given = (channel, there_ref, mirror, run, gone_ref, NOWHERE, "none")
                assert answer["error"]["code"] == other["error"]["code"], (method, params)
                assert told(answer, *given) == told(other, *given), (method, params)


async def test_what_a_caller_sees_holds_nothing_of_what_he_may_not(hidden: Hidden) -> None:
    for role in ROLES:
        for method, params in calls("team", "team:tm", hidden.runs["team"]):
            answer = await hidden.ask(method, params, limited(role))
            assert SECRET not in json.dumps(answer), (role, method, answer)
        for run in (hidden.runs[SECRET], NOWHERE):
            answer = await hidden.ask("mirror.details", {"mirror": "team:tm", "run": run}, limited(role))
            assert answer["error"]["message"] == f"there is no run {run}"


async def test_what_is_counted_is_what_the_caller_sees(hidden: Hidden) -> None:
    status = (await hidden.ask("daemon.status", {}, limited(Role.ADMIN)))["result"]
    assert (status["counts"]["channels"], status["counts"]["mirrors"]) == (1, 1)
    assert (
        status["counts"]["artifacts"]
        == (await hidden.ask("mirror.get", {"mirror": 1}, limited(Role.READER)))["result"]["artifacts"]
    )
    assert [due["channel"] for due in status["next_runs"]] == ["team"]
    assert status["health"] == []
    channel = (await hidden.ask("channel.get", {"channel": "team"}, limited(Role.READER)))["result"]
    assert (channel["subchannels"], channel["subchannel_list"]) == (0, [])
    everything = Caller(uid=0, pid=1, user="root", role=Role.ADMIN)
    channel = (await hidden.ask("channel.get", {"channel": "team"}, everything))["result"]
    assert (channel["subchannels"], channel["subchannel_list"]) == (1, [f"team/{SECRET}"])


async def test_events_of_hidden_channels_are_not_told(hidden: Hidden) -> None:
    daemon = hidden.running.daemon
    events = await daemon.db.read(lambda r: daemon.journal.after(r, 0, 1000))
    seen = [event for _, event in events if _may_see(limited(Role.MANAGER), event)]
    assert seen
    assert SECRET not in msgspec.json.encode(seen).decode()
