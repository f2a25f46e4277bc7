"""The whole workflow in a real terminal with real processes: keys in, screen out."""

import asyncio
import re
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import pytest

from firth_protocol.client import Client
from tests.support.conda import ChannelFolder, PackageSpec
from tests.support.daemon import DaemonProcess
from tests.support.sample import build_sample_channel
from tests.support.tmux import HAS_TMUX, Tmux, firth_in_tmux
from tests.support.upstream import Fault, FaultyUpstream

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(120),
    pytest.mark.skipif(not HAS_TMUX, reason="tmux is not installed"),
]


@pytest.mark.parametrize("size", [(80, 24), pytest.param((120, 40), marks=pytest.mark.deep)])
async def test_the_workflow_from_an_empty_daemon_to_packages(tmp_path: Path, size: tuple[int, int]) -> None:
    build_sample_channel(tmp_path / "source")
    async with DaemonProcess(tmp_path) as process, AsyncExitStack() as opened:
        client = await _started(process, opened)
        async with firth_in_tmux(tmp_path, process.socket, size) as term:
            await _channel(term)
            await term.press("z")
            await term.sees("main is frozen: clients keep seeing generation 1", "❄ frozen")
            await _mirror(term, f"file://{tmp_path}/source")
            await _sees_all(term, size, "✓ completed", "✓ 8 Clean up", "Completed: 8 added", "── log")
            await term.press("Escape")
            await _sees_all(term, size, "✓ completed", "❄ frozen", "8 added and 0 removed wait")
            await term.press("P")
            await term.sees("The channel is frozen with nothing in it; 8 files wait")
            await term.press("z")
            await term.sees("Unfreeze the channel main?", "8 additions and 0 removals wait")
            await term.press("Tab")
            await term.press("Enter")
            await _sees_all(term, size, "3 packages", "▸greetings", "hello", "tides")
            await term.press("U")
            await _sees_all(term, size, "/repo/main", "conda")
            await term.press("q")
            await term.sees("")
        channel = await client.call("channel.get", channel="main")
        assert not channel.frozen
        assert channel.generation == 2


@pytest.mark.deep
@pytest.mark.parametrize("size", [(60, 20), (80, 24), (120, 40), (200, 60)])
async def test_every_place_is_read(tmp_path: Path, size: tuple[int, int]) -> None:
    build_sample_channel(tmp_path / "source")
    flaw = {"id": "OWN-1", "name": "hello", "spec": "hello <1.10", "score": 9.1, "summary": "It greets anybody."}
    (tmp_path / "flaws.jsonl").write_bytes(msgspec.json.encode(flaw))
    async with DaemonProcess(tmp_path) as process, AsyncExitStack() as opened:
        client = await _started(process, opened)
        await client.call("policy.create", name="few", rules={"packages": {"exclude": ["tides <2026.2"]}})
        await client.call("channel.create", name="main", policy="few")
        await client.call("channel.create", name="main/dev")
        await client.call("token.create", name="build-farm")
        source = f"file://{tmp_path}/source"
        reply = await client.call("mirror.create", channel="main", name="forge", type="conda", source=source)
        run = await client.call("mirror.run", mirror=reply.mirror.id)
        await client.call("run.wait", run=run.run.id, timeout=30)
        flaws = await client.call("advisory.import", source=str(tmp_path / "flaws.jsonl"), format="lines")
        await client.call("run.wait", run=flaws.run.id, timeout=30)
        async with firth_in_tmux(tmp_path, process.socket, size) as term:
            await _reads(term, size, "● connected", "▸main", "main/dev")
            await term.press("Enter")
            await _reads(term, size, "3 packages", "▸greetings", "hello", "tides")
            for key, *texts in (
                ("M", "▸forge", "✓ completed"),
                ("B", "▸main/dev"),
                ("V", "● published", "○ kept"),
                ("C", "+ added", "conda"),
                ("U", "conda", "/repo/main"),
            ):
                await term.press(key)
                await _reads(term, size, *texts)
            await term.press("P", "Enter")
            await _reads(term, size, "greetings", "on demand", "needs")
            await term.press("w")
            await _reads(term, size, "why hidden?", "kept")
            await term.press("2")
            await _reads(term, size, "▸main", "1 mirror", "✓ completed")
            await term.press("x")
            await _reads(term, size, "kept out", "packages")
            await term.press("Escape")
            await _reads(term, size, "1 mirror")
            await term.press("Enter")
            await _reads(term, size, "last success", "few")
            await term.press("3")
            await _reads(term, size, "2 runs", "▸", "✓ completed")
            await term.press("Enter")
            await _reads(term, size, "── log")
            await term.press("4")
            await _reads(term, size, "all well", "store", "free")
            await term.press("5")
            await _reads(term, size, "▸", "advisory.import", "✓ ok")
            await term.press("6")
            await _reads(term, size, "▸build-farm", "✓ valid")
            await term.press("7")
            await _reads(term, size, "▸few", "Not tides")
            await term.press("Enter")
            await _reads(term, size, "Policies › few", "in force in 1 place")
            await term.press("8")
            await _reads(term, size, "▸OWN-1", "✗ 9.1", "1 advisory")
            await term.press("Enter")
            await _reads(term, size, "Advisories › OWN-1", "▸main", "hello", "few", "It greets anybody.")
            await term.press(":")
            await term.type("few")
            await term.sees("policy few")


async def _reads(term: Tmux, size: tuple[int, int], *texts: str) -> None:
    """See texts on a screen on which every line is whole: none is too long, and an ellipsis stands at an edge only."""
    lines = (await term.sees(*texts)).splitlines()
    assert max(map(len, lines)) <= size[0]
    assert len(lines) == size[1], "\n".join(lines)
    room = [line for line in lines[1:] if line.endswith("…") and len(line) < size[0] - 3]
    assert room == []
    assert lines[-1].rstrip().endswith("q quit")


@pytest.mark.deep
async def test_a_killed_daemon_and_its_restart_while_a_run_is_watched(tmp_path: Path) -> None:
    source = ChannelFolder(tmp_path / "source", ("noarch",))
    source.add(*(PackageSpec(name=f"package{number:02}", content=f"{number}\n") for number in range(12)))
    async with (
        FaultyUpstream(folder=source.path) as upstream,
        DaemonProcess(tmp_path) as process,
        AsyncExitStack() as opened,
    ):
        held = Fault(drip=_nothing())
        upstream.fail("noarch/package1*.conda", held, times=None)
        client = await _started(process, opened)
        await client.call("channel.create", name="main")
        await client.call("mirror.create", channel="main", name="m", type="conda", mode="active", source=upstream.url)
        async with firth_in_tmux(tmp_path, process.socket, (80, 24)) as term:
            await term.sees("● connected", "▸main")
            await term.press("2")
            await term.sees("▸main ", "never ran")
            await term.press("r")
            await term.sees("● running")
            await term.press("l")
            await term.sees("● 6 Download packages", "10 of 12 files")
            await process.kill()
            await term.sees("✗ disconnected", "trying again", "what is shown is from", "● 6 Download packages")
            upstream.heal()
            await _started(process, opened)
            await term.sees("✗ failed", "● connected", "Failed:")  # the run that was killed, as it is now
            await term.press("Escape")
            await term.sees("✓ completed", "12 files", seconds=40)  # begun again by the daemon, seen without a key


@pytest.mark.deep
async def test_two_terminals_and_a_script_at_once(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    async with DaemonProcess(tmp_path) as process, AsyncExitStack() as opened:
        client = await _started(process, opened)
        async with (
            firth_in_tmux(tmp_path / "a", process.socket, (80, 24)) as first,
            firth_in_tmux(tmp_path / "b", process.socket, (120, 40), "--read-only") as second,
        ):
            await first.sees("There is no channel yet")
            await second.sees("There is no channel yet", "read only")
            await client.call("channel.create", name="by-script")
            await first.sees("by-script", seconds=2)
            await second.sees("by-script", seconds=2)
            await first.press("z")
            await second.sees("❄ frozen", seconds=2)
            await second.press("z")
            await second.sees("firth was started with --read-only")


async def test_a_poor_terminal_says_the_same(tmp_path: Path) -> None:
    async with DaemonProcess(tmp_path) as process, AsyncExitStack() as opened:
        client = await _started(process, opened)
        await client.call("channel.create", name="main")
        await client.call("channel.freeze", channel="main")
        async with firth_in_tmux(
            tmp_path, process.socket, (80, 24), "--ascii", NO_COLOR="1", COLORTERM="", TERM="screen"
        ) as term:
            shown = await term.sees(">main", "* frozen", "* connected", "? help")
            assert shown.isascii()
            await term.press("d")
            await term.sees("Delete the channel main?")
            assert not re.search(r"\x1b\[(\d+;)*[34]8;", await term.text(styled=True))


async def _started(process: DaemonProcess, opened: AsyncExitStack) -> Client:
    client = await process.start()
    opened.push_async_callback(client.close)
    return client


def _nothing() -> asyncio.Semaphore:
    """A body that never gets further than its first bytes."""
    return asyncio.Semaphore(0)


async def _channel(term: Tmux) -> None:
    await term.sees("● connected", "There is no channel yet")
    await term.press("n")
    await term.sees("New channel", "it is in the address")
    await term.type("main")
    await term.press("Tab", "Tab", "Tab", "Tab", "Tab", "Tab", "Enter")
    await term.sees("▸main", "Created the channel main")


async def _mirror(term: Tmux, source: str) -> None:
    """Fill in the form, have it asked, and press Save & Run, which stands before Save."""
    await term.press("m")
    await term.sees("This channel has no mirror yet")
    await term.press("n")
    await term.sees("New mirror of main", "Save & Run", "Any name, unique in its channel")
    await term.type("forge")
    await term.press("Tab", "Tab", "Tab")
    await term.sees("The address: https")
    await term.type(source)
    await term.sees("✓ Conda, 1 platform (noarch)")
    await term.press("BTab", "BTab", "BTab")
    await term.sees("Any name, unique")
    await term.press("BTab", "BTab", "Enter")  # round to Save, then Save & Run
    await term.sees("run 1", "1 Connect to source")


async def _sees_all(term: Tmux, size: tuple[int, int], *texts: str) -> None:
    """See texts, on a screen whose lines all fit and whose header and footer are whole."""
    lines = (await term.sees(*texts)).splitlines()
    assert max(map(len, lines)) <= size[0]
    assert len(lines) == size[1], "\n".join(lines)
    assert lines[0].startswith(" Firth  firthd ")
    assert lines[0].endswith(" UTC")
    assert lines[-1].endswith("? help · q quit")
