"""The terminal UI against the real daemon on a real socket: the whole workflow, and several readers at once."""

from pathlib import Path

import pytest
import rattler  # noqa: F401 - reads the working folder when it is imported, which the loop's guard would take amiss

from firth_tui.screens.run import RunScreen
from tests.support.daemon import Running, in_process_daemon
from tests.support.sample import build_sample_channel
from tests.support.tui import NARROW, WIDE, Terminal, terminal


async def ready(term: Terminal) -> None:
    await term.sees("● connected")
    await term.until(lambda: term.app.session.methods)


async def new_channel(term: Terminal, name: str) -> None:
    await term.press("n")
    await term.sees("New channel", "Keep days")
    await term.type(name)
    await term.press("tab", "tab", "tab", "tab", "tab", "tab", "enter")
    await term.sees(f"▸{name}", "no mirror")


async def new_mirror(term: Terminal, name: str, source: Path) -> None:
    """Fill in the form and press Save & Run."""
    await term.press("n")
    await term.sees("New mirror of", "CA file")
    await term.type(name)
    await term.press("tab", "tab", "tab")
    await term.paste(f"file://{source}")
    await term.sees("✓ Conda, 1 platform (noarch)")
    term.app.screen.query_one("#run").focus()
    await term.press("enter")
    await term.until(lambda: isinstance(term.app.screen, RunScreen))


@pytest.mark.deep
@pytest.mark.timeout(40)
@pytest.mark.parametrize("size", [NARROW, WIDE])
async def test_the_whole_workflow(tmp_path: Path, size: tuple[int, int]) -> None:
    build_sample_channel(tmp_path / "source")
    async with in_process_daemon(tmp_path) as daemon, terminal(daemon.socket, size) as term:
        await ready(term)
        await term.sees("There is no channel yet", "Press n to create")
        await new_channel(term, "main")
        await term.press("z")
        await term.sees("main is frozen", "❄ frozen")
        await term.press("m")
        await term.sees("This channel has no mirror yet")
        await new_mirror(term, "forge", tmp_path / "source")
        await term.sees("✓ completed", "✓ 8 Clean up", "Completed: 8 added")
        await term.press("escape")
        await term.sees("✓ completed", "8 files", "8 added and 0 removed wait")
        await term.press("P")
        await term.sees("The channel is frozen with nothing in it; 8 files wait")
        await term.press("z")
        await term.sees("Unfreeze the channel main?", "8 additions and 0 removals wait")
        await term.press("tab", "enter")
        await term.sees("3 packages", "greetings", "hello", "tides", "generation 2")
        await term.press("enter")
        await term.sees("needed by   hello", "○ on demand")
        await term.press("escape", "V")
        await term.sees("2 generations", "● published", "unfreeze")
        await term.press("U")
        await term.sees(f"{daemon.url}/repo/main")
        assert max(map(len, term.lines)) <= size[0]


@pytest.mark.timeout(40)
async def test_a_run_that_fails_says_why_and_health_names_it(tmp_path: Path) -> None:
    build_sample_channel(tmp_path / "source")
    async with in_process_daemon(tmp_path) as daemon:
        await daemon.client.call("channel.create", name="main")
        source = f"file://{tmp_path}/source"
        mirror = await daemon.client.call("mirror.create", channel="main", name="forge", type="conda", source=source)
        (tmp_path / "source").rename(tmp_path / "gone")
        async with terminal(daemon.socket) as term:
            await ready(term)
            await term.press("2")
            await term.sees("▸main forge", "never ran")
            await term.press("r")
            await daemon.ended(1)
            await term.sees("✗ failed")
            await term.press("l")
            await term.sees("run 1", "Failed:")
            await term.press("escape", "4")
            await term.sees("✗  main: forge", "failed: ", "to look at")
        assert mirror.mirror.id == 1


@pytest.mark.timeout(40)
async def test_two_terminals_and_a_client_see_each_other_within_a_second(tmp_path: Path) -> None:
    build_sample_channel(tmp_path / "source")
    async with in_process_daemon(tmp_path) as daemon, terminal(daemon.socket) as first:
        await ready(first)
        async with terminal(daemon.socket, WIDE) as second:
            await ready(second)
            await daemon.client.call("channel.create", name="by-client")
            await first.until(lambda: "by-client" in first.text, seconds=1.5)
            await second.until(lambda: "by-client" in second.text, seconds=1.5)
            await second.press("z")
            await first.until(lambda: "❄ frozen" in first.text, seconds=1.5)
            assert (await daemon.client.call("channel.get", channel="by-client")).frozen


@pytest.mark.timeout(40)
async def test_an_edit_that_somebody_else_overtook_keeps_what_was_typed(tmp_path: Path) -> None:
    async with in_process_daemon(tmp_path) as daemon, terminal(daemon.socket) as term:
        await daemon.client.call("channel.create", name="main")
        await ready(term)
        await term.sees("▸main")
        await term.press("e")
        await term.sees("Edit the channel main")
        await daemon.client.call("channel.update", channel="main", revision=1, description="theirs")
        await term.type("mine")
        term.app.screen.query_one("#save").focus()
        await term.press("enter")
        await term.sees("was changed meanwhile", "put your values in place of theirs", "mine")
        await term.press("enter")
        await term.sees("Saved main")
        assert (await daemon.client.call("channel.get", channel="main")).description == "mine"


@pytest.mark.timeout(40)
async def test_going_back_to_an_earlier_generation(tmp_path: Path) -> None:
    build_sample_channel(tmp_path / "source")
    async with in_process_daemon(tmp_path) as daemon:
        await _published(daemon, tmp_path / "source")
        async with terminal(daemon.socket) as term:
            await ready(term)
            await term.sees("▸main")
            await term.press("enter", "V")
            await term.sees("● published", "▸     2")
            await term.press("b")
            await term.sees("generation 2 is the published one")
            await term.press("j", "b")
            await term.sees("Take main back to generation 1?", "frozen as well")
            await term.press("tab", "enter")
            await term.sees("3 generations", "rollback", "❄ frozen")


async def _published(daemon: Running, source: Path) -> None:
    await daemon.client.call("channel.create", name="main")
    await daemon.client.call("mirror.create", channel="main", name="forge", type="conda", source=f"file://{source}")
    await daemon.run("main:forge")
