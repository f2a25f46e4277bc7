"""What is told outside, through a command or an address, and what becomes of a hook that fails, hangs or is slow."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

from firth_protocol.errors import Upstream
from firth_protocol.types import HealthProblem, RunCounts, RunError, RunKind, RunState
from firthd.config import NotifySettings
from firthd.notify import command, message
from firthd.notify.message import Item, Kind
from firthd.notify.notifications import LOOK_S, Notifications
from firthd.store.database import Database, Tx
from firthd.store.runs import RunRow
from firthd.upstream.post import post
from tests.support.clock import FakeClock
from tests.support.daemon import settings_in
from tests.support.upstream import Fault
from tests.support.web import until
from tests.support.world import world

SLEEPER = "import time; time.sleep(60)"


def run_row(state: RunState = RunState.FAILED, kind: RunKind = RunKind.MIRROR, **fields: Any) -> RunRow:
    values: dict[str, Any] = dict.fromkeys(RunRow.__struct_fields__) | {
        "id": 7,
        "kind": kind,
        "state": state,
        "channel": "main",
        "mirror_name": "forge",
        "created_at": 0,
        "counts": RunCounts(failed=3),
        "error": RunError(kind="upstream", message="it answered 500", hint="ask again")
        if state is RunState.FAILED
        else None,
    }
    return RunRow(**values | fields)


def ill(subject: str) -> HealthProblem:
    return HealthProblem(subject=subject, text="is wrong", since="2026-05-01T00:00:00.000Z", hint="look")


# --- what is said -------------------------------------------------------------------------------------------------


def test_runs_that_went_wrong_are_told_and_others_are_not() -> None:
    failed, partly = message.of_run(run_row()), message.of_run(run_row(RunState.INCOMPLETE))
    assert failed is not None
    assert partly is not None
    assert (failed.kind, failed.subject, failed.text) == (
        Kind.RUN_FAILED,
        "mirror main:forge",
        "run 7 (mirror) failed: it answered 500",
    )
    assert partly.text == "run 7 (mirror) is incomplete: 3 artifacts could not be had"
    for silent in (
        run_row(RunState.COMPLETED),
        run_row(RunState.STOPPED),
        run_row(kind=RunKind.PLAN),
        run_row(error=RunError(kind="interrupted", message="the daemon stopped", hint="")),
    ):
        assert message.of_run(silent) is None


def test_health_is_told_by_what_is_new_and_what_has_gone() -> None:
    items = message.of_health(frozenset({"a", "b"}), [ill("b"), ill("c")], 0)
    assert [(item.kind, item.subject) for item in items] == [(Kind.HEALTH_WORSE, "c"), (Kind.HEALTH_BETTER, "a")]


def test_a_run_that_failed_is_told_once_and_a_long_list_is_cut() -> None:
    run = message.of_run(run_row())
    assert run is not None
    worse = message.of_health(frozenset(), [ill("mirror main:forge"), *(ill(f"s{n}") for n in range(30))], 0)
    told = message.notification([run, *worse], more=5, host="h", now_ms=0)
    assert [item.subject for item in told.items][:2] == ["mirror main:forge", "s0"]
    assert len(told.items) == 31
    assert told.text.splitlines()[0] == "firthd on h: mirror main:forge: run 7 (mirror) failed: it answered 500"
    assert told.text.splitlines()[-1] == "and 16 more"


@pytest.mark.parametrize(
    ("template", "media_type", "read"),
    [
        (None, "application/json", lambda body: json.loads(body)["text"]),
        ('{"a": {"text": "say: {text}"}}', "application/json", lambda body: json.loads(body)["a"]["text"][5:]),
        ("{text}", "text/plain; charset=utf-8", lambda body: body.decode()),
    ],
)
def test_a_text_breaks_out_of_no_template(template: str | None, media_type: str, read: Callable[[bytes], str]) -> None:
    item = Item(kind=Kind.TEST, time="t", subject='"}, {"evil": "', text="a\\b\nc\u2028\x01{text}")
    told = message.notification([item], more=0, host="h", now_ms=0)
    body, sort = message.body(told, template)
    assert (read(body), sort) == (told.text, media_type)


# --- the command --------------------------------------------------------------------------------------------------


async def test_a_command_gets_the_json_and_nothing_of_the_daemons_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://user:secret@proxy.example.org")
    out = tmp_path / "out"
    code = "import sys, os, json; open(sys.argv[1], 'w').write(json.dumps([sys.stdin.read(), dict(os.environ)]))"
    await command.run([sys.executable, "-c", code, str(out)], b'{"a": 1}' * 100_000, 10)
    read, environ = json.loads(out.read_text())
    assert read == '{"a": 1}' * 100_000
    assert "secret" not in str(environ)
    assert set(environ) <= {*command.KEPT_ENVIRONMENT, "LC_CTYPE"}


async def test_a_command_that_cannot_do_it_is_an_error_with_its_reason(tmp_path: Path) -> None:
    for argv, reason in (
        (["/nowhere/tell"], "/nowhere/tell cannot be started: No such file or directory"),
        ([str(tmp_path)], f"{tmp_path} cannot be started: Permission denied"),
        (["/bin/sh", "-c", "exit 3"], "/bin/sh ended with status 3"),
        (["/bin/sh", "-c", "kill -9 $$"], "/bin/sh ended by signal 9"),
    ):
        with pytest.raises(Upstream) as caught:
            await command.run(argv, b"x" * 1_000_000, 10)  # none of them reads it
        assert caught.value.message == reason


async def test_a_command_that_floods_fills_no_log(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(Upstream, match="took longer"):
        await command.run(["/bin/sh", "-c", "yes 'no end\x1b[2J' >&2"], b"", 0.3)
    (line,) = caplog.messages
    assert line.startswith("/bin/sh says: no end")
    assert len(line) < 2 * command.SAID_MAX_BYTES
    assert line.isprintable()
    caplog.clear()
    await command.run(["/bin/sh", "-c", "echo once >&2; setsid sleep 3 & exit 0"], b"", 10)  # it holds the pipe open
    assert caplog.messages == ["/bin/sh says: once"]


def alive(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@pytest.mark.parametrize("end", ["time", "stop", "by itself"])
async def test_what_a_command_has_started_ends_with_it(tmp_path: Path, end: str) -> None:
    pids = tmp_path / "pids"
    wait = "" if end == "by itself" else "wait"
    script = f"trap '' TERM; {sys.executable} -c '{SLEEPER}' & echo $$ $! > {pids}.new; mv {pids}.new {pids}; {wait}"
    work = asyncio.create_task(command.run(["/bin/sh", "-c", script], b"", 0.3 if end == "time" else 30))
    await until(pids.exists, 20)
    if end == "stop":
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
    elif end == "time":
        with pytest.raises(Upstream, match=r"took longer than 0\.3 s"):
            await work
    else:
        await work
    await until(lambda: not any(alive(int(pid)) for pid in pids.read_text().split()), 20)


# --- the address --------------------------------------------------------------------------------------------------


@asynccontextmanager
async def listening(answer: Callable[[web.Request], Any]) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/hooks/KEY"
    finally:
        await runner.cleanup()


async def test_an_address_is_posted_to_and_its_key_is_in_no_error() -> None:
    got: list[tuple[str, str, bytes]] = []
    hang = asyncio.Event()

    async def answer(request: web.Request) -> web.Response:
        got.append((request.method, request.content_type, await request.read()))
        if request.query_string == "hang":
            await hang.wait()
        if request.query_string == "away":
            raise web.HTTPFound("/elsewhere")
        return web.Response(status=500 if request.query_string == "fail" else 204)

    async with listening(answer) as url:
        await post(url, b"{}", "application/json", 5)
        assert got == [("POST", "application/json", b"{}")]
        errors = []
        for bad in (f"{url}?fail", f"{url}?away", f"{url}?hang", "http://127.0.0.1:1/hooks/KEY", "http://[KEY/x"):
            with pytest.raises((Upstream, ValueError)) as caught:
                await post(bad, b"{}", "application/json", 0.3)
            errors.append(getattr(caught.value, "message", ""))
        hang.set()
    assert errors[:3] == ["127.0.0.1 answered 500", "127.0.0.1 answered 302", "127.0.0.1 did not answer within 0.3 s"]
    assert not any("KEY" in error for error in errors)


# --- when ---------------------------------------------------------------------------------------------------------


class Hook:
    """An address that notes what it is told; `status` is what it answers with."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.status = 204

    async def answer(self, request: web.Request) -> web.Response:
        if self.status == 204:
            self.told.append(json.loads(await request.read()))
        return web.Response(status=self.status)

    @property
    def kinds(self) -> list[list[tuple[str, str]]]:
        return [[(item["kind"], item["subject"]) for item in told["items"]] for told in self.told]


class Rig(msgspec.Struct):
    hook: Hook
    clock: FakeClock
    db: Database
    problems: list[HealthProblem]
    settings: NotifySettings

    async def health(self) -> list[HealthProblem]:
        return list(self.problems)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Notifications]:
        notifications = Notifications(self.db, self.clock, self.settings, self.health)
        work = asyncio.create_task(notifications.serve())
        await self.clock.asleep()
        try:
            yield notifications
        finally:
            work.cancel()
            with suppress(asyncio.CancelledError):
                await work

    async def passes(self, seconds: float = LOOK_S) -> None:
        """Let time go by, a look at a time."""
        for _ in range(round(seconds / LOOK_S)):
            await self.clock.advance(LOOK_S)
            await self.clock.asleep()


@asynccontextmanager
async def rigged(folder: Path) -> AsyncIterator[Rig]:
    hook, clock = Hook(), FakeClock()
    db = await Database.open(folder / "firth.sqlite", clock)
    try:
        async with listening(hook.answer) as url:
            yield Rig(hook, clock, db, [], NotifySettings(url=url, every_s=60))
    finally:
        await db.close()


async def _nothing(tx: Tx, row: RunRow) -> None:
    pass


async def test_what_happens_within_a_minute_is_told_together_and_nothing_twice(tmp_path: Path) -> None:
    async with rigged(tmp_path) as rig, rig.serving() as notifications:
        rig.problems.append(ill("space"))
        await rig.passes()
        assert rig.hook.kinds == [[("health_worse", "space")]]
        rig.problems.clear()
        await rig.passes()
        ended = notifications.beside(_nothing)
        for number in range(130):
            await rig.db.write(lambda tx, number=number: ended(tx, run_row(id=number)))  # type: ignore[misc]
        await rig.passes(50)
        assert len(rig.hook.told) == 1
        await rig.passes(20)
        assert len(rig.hook.told) == 2
        assert (len(rig.hook.told[1]["items"]), rig.hook.told[1]["more"]) == (100, 31)
        await rig.passes(200)
        assert len(rig.hook.told) == 2


async def test_a_hook_that_fails_is_said_once_and_what_it_was_to_tell_waits(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with rigged(tmp_path) as rig, rig.serving() as notifications:
        rig.hook.status = 500
        rig.problems.append(ill("space"))
        await rig.passes(600)
        problem = notifications.problem()
        assert problem is not None
        assert problem.text == "notifications cannot be sent: 127.0.0.1 answered 500"
        assert caplog.text.count("notifications cannot be sent") == 1
        rig.problems.append(problem)  # health has it among the others; nobody is notified of it
        rig.hook.status = 204
        await rig.passes(1000)
        assert rig.hook.kinds == [[("health_worse", "space")]]
        assert notifications.problem() is None


async def test_the_next_daemon_tells_what_the_last_one_could_not(tmp_path: Path) -> None:
    async with rigged(tmp_path) as rig:
        rig.problems.append(ill("space"))
        async with rig.serving():
            await rig.passes()
        rig.problems.append(ill("store"))
        rig.hook.status = 500
        async with rig.serving():
            await rig.passes()
        rig.hook.status = 204
        rig.problems.pop(0)
        async with rig.serving():
            await rig.passes()
    assert rig.hook.kinds == [
        [("health_worse", "space")],
        [("health_worse", "store"), ("health_better", "space")],
    ]


# --- in a daemon --------------------------------------------------------------------------------------------------


async def test_a_daemon_tells_of_a_run_that_failed_and_that_it_is_well_again(tmp_path: Path) -> None:
    out = tmp_path / "told"
    script = tmp_path / "tell"
    script.write_text(f"#!/bin/sh\ncat > {out}.new && echo >> {out}.new && cat {out}.new >> {out}\n")
    script.chmod(0o755)
    notify = NotifySettings(command=[str(script)], every_s=1)
    settings = msgspec.structs.replace(settings_in(tmp_path), notify=notify)

    def kinds() -> list[str]:
        lines = out.read_text().splitlines() if out.exists() else []
        return [item["kind"] for line in lines for item in json.loads(line)["items"]]

    async with world(tmp_path, settings=settings) as w:
        await w.mirror("passive")
        w.upstream.fail("*", Fault(status=500), times=None)
        await w.run()
        await until(lambda: kinds() == ["run_failed"])
        w.upstream.heal()
        await w.run()
        await until(lambda: kinds() == ["run_failed", "health_better"])
        tried = await w.call("notify.test")
        assert (tried.ok, kinds()[-1]) == (True, "test")
        script.unlink()
        tried = await w.call("notify.test")
        assert not tried.ok
        assert tried.text == f"{script} cannot be started: No such file or directory"
