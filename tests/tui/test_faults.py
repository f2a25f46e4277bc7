"""What is wrong: worst first, one line a cause, and each leads to what it is about."""

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from firth_protocol import types as t
from firth_tui.faults import faults
from firth_tui.screens.channel import ChannelScreen
from firth_tui.screens.health import HealthScreen, host_lines
from firth_tui.screens.mirror import MirrorScreen
from firth_tui.screens.mirrors import MirrorsScreen
from firth_tui.screens.run import RunScreen
from tests.support.fake_daemon import FakeDaemon
from tests.support.fake_world import START
from tests.support.tui import NARROW, Terminal, terminal

SINCE = "2026-11-22T11:00:00.000Z"


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[FakeDaemon]:
    daemon = FakeDaemon(tmp_path / "firth.sock")
    for name in ("main", "team"):
        daemon.add_channel(name)
    async with daemon:
        yield daemon


def ended(daemon: FakeDaemon, name: str, state: t.RunState, message: str = "") -> t.Mirror:
    run = daemon.begin_run(daemon.add_mirror("main", name).id)
    if state is t.RunState.INCOMPLETE:
        daemon.runs[run.id] = msgspec.structs.replace(daemon.runs[run.id], counts=t.RunCounts(failed=3_691))
    daemon.finish(run.id, state, t.RunError(kind="upstream", message=message) if message else None)
    assert run.mirror is not None
    return daemon.mirrors[run.mirror]


def wrong(subject: str, text: str = "something is wrong", hint: str = "") -> t.HealthProblem:
    return t.HealthProblem(subject=subject, text=text, since=SINCE, hint=hint)


def test_the_worst_comes_first_and_one_cause_makes_one_line() -> None:
    daemon = FakeDaemon(Path("/nowhere"))
    daemon.add_channel("main")
    part = ended(daemon, "part", t.RunState.INCOMPLETE)
    alone = ended(daemon, "alone", t.RunState.FAILED, "the index is no JSON")
    for name in ("a", "b", "c", "d", "e"):
        ended(daemon, name, t.RunState.FAILED, "conda.example.org refuses connections")
    daemon.health = [wrong("runs", "run 7 of main:a waits for a place"), wrong("mirror main:alone"), wrong("space")]
    status = msgspec.convert(msgspec.to_builtins(daemon._do_daemon_status()), t.DaemonStatus)
    found = faults(status, list(daemon.mirrors.values()), START)
    assert [fault.subject for fault in found] == ["space", "main: alone", "5 mirrors", "main: part", "runs"]
    assert [fault.mirrors for fault in found][1::2] == [(alone.id,), (part.id,)]
    assert found[2].text == "failed: conda.example.org refuses connections"
    assert found[3].text == "incomplete: 3,691 files are missing"
    assert found[4].run == 7


async def shown(term: Terminal) -> None:
    await term.sees("● connected", "main")
    await term.until(lambda: term.app.session.methods)
    await term.press("4")
    await term.until(lambda: isinstance(term.app.screen, HealthScreen))


async def test_every_fault_leads_to_what_it_is_about(daemon: FakeDaemon) -> None:
    mirror = ended(daemon, "forge", t.RunState.FAILED, "the source answers 503")
    run = next(iter(daemon.runs))
    ok = daemon.add_mirror("team", "late")
    daemon.health = [
        wrong("space", "the disk is full", "delete something"),
        wrong("publication of team"),
        wrong("schedule of team:late"),
        wrong("runs", f"run {run} of main:forge waits for a place"),
    ]
    daemon.mirrors[ok.id] = msgspec.structs.replace(ok, source="https://near.example.org/late")
    daemon.upstreams = [host("near.example.org", fails=True), host("conda.example.org", fails=True)]
    async with terminal(daemon.socket, NARROW, now=lambda: daemon.now) as term:
        await shown(term)
        await term.sees("6 things to look at", "space: the disk is full", "since 1 h; delete something")
        await term.sees("812 GB free", "throughput", "active", "process 4242")  # all of it on the first screen
        await term.press("enter")
        await term.sees("delete something", "40.0 GB what channels show now", "Close")
        await term.press("escape")
        for kind, number in ((ChannelScreen, None), (MirrorScreen, mirror.id), (MirrorScreen, ok.id), (RunScreen, run)):
            await term.press("j", "enter")
            await term.until(lambda kind=kind: isinstance(term.app.screen, kind))  # type: ignore[misc]
            if number is not None:
                assert getattr(term.app.screen, "number", None) == number
            await term.press("escape")
            await term.until(lambda: isinstance(term.app.screen, HealthScreen))
        await term.press("G", "enter")
        await term.until(lambda: isinstance(term.app.screen, MirrorsScreen))
        await term.sees("filter: near.example.org", "1 mirror with “near.example.org”")
        await term.press("escape")
        await term.until(lambda: "filter:" not in term.text)


def host(name: str, *, fails: bool = False) -> t.UpstreamHost:
    return t.UpstreamHost(
        host=name,
        rate_bytes_s=1.2e6,
        answers=311,
        failures=2 if fails else 0,
        answered_at=SINCE,
        status=200,
        failed_at=SINCE if fails else None,
        failure=f"{name} refuses connections" if fails else "",
        fails=fails,
    )


def test_each_host_is_told_with_its_rate_its_failures_and_its_last_answer() -> None:
    hosts = [host("a", fails=True), host("b")]
    first, second = ("".join(text for text, _ in line) for line in host_lines(hosts, START))
    assert "sources" in first
    assert "! a  1.2 MB/s, 311 answers, last 200 1 h ago, 2 failures, last 1 h ago" in first
    assert second.strip() == "✓ b  1.2 MB/s, 311 answers, last 200 1 h ago"
    many = host_lines([host(f"h{number}") for number in range(9)], START)
    assert many[-1][-1].text == "and 3 more"


@pytest.mark.deep
async def test_many_mirrors_of_one_cause_lead_to_their_list(daemon: FakeDaemon) -> None:
    for name in ("a", "b", "c"):
        ended(daemon, name, t.RunState.FAILED, "refused")
    daemon.add_mirror("main", "fine")
    async with terminal(daemon.socket, NARROW, now=lambda: daemon.now) as term:
        await shown(term)
        await term.sees("3 mirrors")
        await term.press("enter")
        await term.until(lambda: isinstance(term.app.screen, MirrorsScreen))
        await term.sees("faults only", "refused")
        assert "fine" not in term.text


async def test_what_somebody_did_opens_with_all_parameters(daemon: FakeDaemon) -> None:
    async with terminal(daemon.socket, NARROW, now=lambda: daemon.now) as term:
        await shown(term)
        await term.sees("nothing is wrong")
        await term.press("5")
        await term.sees("channel.freeze")
        await term.press("enter")
        await term.sees("channel.freeze, by ada", "as manager", 'channel       "main"')
