"""The preview beside lists on wide terminals: it follows the cursor, is asked when that rests, and takes no key."""

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from firth_protocol import types as t
from firth_tui.screens.explain import ExplainScreen
from firth_tui.widgets.keyed_table import KeyedTable
from tests.support.fake_daemon import FakeDaemon
from tests.support.fake_world import generated_packages
from tests.support.tui import WIDE, Terminal, terminal

SKETCHED = (160, 30)


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[FakeDaemon]:
    daemon = FakeDaemon(tmp_path / "firth.sock")
    draft = t.Draft(change_sets=1, added=61, removed=3)
    daemon.add_channel("bio", description="what the wet lab installs from", frozen=True, frozen_by="ann", draft=draft)
    for number in range(30):
        daemon.add_channel(f"c{number:02}", packages=20)
    daemon.add_mirror("bio", "bioforge")
    daemon.packages["bio"] = [
        msgspec.structs.replace(one, name=name, downloads=downloads)
        for one, (name, downloads) in zip(
            generated_packages(3), (("samtools", 40), ("numpy", 311), ("unasked", 0)), strict=True
        )
    ]
    async with daemon:
        yield daemon


async def started(term: Terminal) -> None:
    await term.sees("● connected", "▸bio")
    await term.until(lambda: term.app.session.methods)


async def test_a_wide_terminal_shows_what_enter_would(daemon: FakeDaemon) -> None:
    async with terminal(daemon.socket, SKETCHED, now=lambda: daemon.now) as term:
        await started(term)
        await term.sees("what the wet lab installs from", "61 to add, 3 to go wait", "bioforge", "○ never ran")
        await term.sees("fetched numpy 311, samtools 40", "times in 30 days")
        assert isinstance(term.app.screen.focused, KeyedTable)
        await term.press("j")
        await term.sees("▸c00", "20 packages, 24.7 MB")
        await term.press("enter")
        await term.sees("▸package-000000", "needed by")
        await term.press("2")
        await term.sees("▸bio", "https://conda.example.org/bioforge", "fetched numpy 311, samtools 40")
        await term.press("tab")
        await term.pilot.pause()
        assert isinstance(term.app.screen.focused, KeyedTable)  # there is nothing else to go to


async def test_a_package_of_which_nothing_is_left_says_why_and_opens_the_reasons(daemon: FakeDaemon) -> None:
    hidden = msgspec.structs.replace(
        generated_packages(1)[0], name="readline", files=0, left_out=3, rule="licenses", why="GPL-3.0-only is GPL3"
    )
    daemon.packages["bio"] = [hidden]
    async with terminal(daemon.socket, SKETCHED, now=lambda: daemon.now) as term:
        await started(term)
        await term.press("enter")
        await term.sees("▸readline", "– licenses", "3 files kept out: licenses", "GPL-3.0-only is GPL3")
        await term.press("enter")
        await term.until(lambda: isinstance(term.app.screen, ExplainScreen))
        await term.sees("why hidden? › readline")


@pytest.mark.deep
async def test_a_narrower_one_has_the_list_alone_and_asks_nothing(daemon: FakeDaemon) -> None:
    async with terminal(daemon.socket, WIDE, now=lambda: daemon.now) as term:
        await started(term)
        await term.press("j", "k")
        await term.pilot.pause(0.3)
        assert "61 to add" not in term.text
        assert daemon.called("channel.get") == []


@pytest.mark.deep
async def test_rows_that_are_passed_by_are_not_asked_for(daemon: FakeDaemon) -> None:
    async with terminal(daemon.socket, SKETCHED, now=lambda: daemon.now) as term:
        await started(term)
        await term.sees("bioforge")
        asked = len(daemon.called("channel.get"))
        await term.press(*"jjjjjjjjjjjjjjjjjjjj")
        await term.sees("▸c19")
        await term.until(lambda: daemon.called("channel.get")[-1] == {"channel": "c19"})
        assert len(daemon.called("channel.get")) - asked <= 10


async def test_the_header_counts_mirrors_and_the_list_walks_through_their_states(daemon: FakeDaemon) -> None:
    daemon.finish(daemon.begin_run(daemon.add_mirror("c00", "bad").id).id, t.RunState.FAILED)
    daemon.finish(daemon.begin_run(daemon.add_mirror("c00", "good").id).id)
    async with terminal(daemon.socket, SKETCHED, now=lambda: daemon.now) as term:
        await started(term)
        await term.sees("✓ 1 ok   ✗ 1 failed   ● connected")
        daemon.begin_run(daemon.add_mirror("c00", "busy").id)
        await term.sees("✓ 1 ok   ✗ 1 failed   ● 1 running")
        await term.press("2")
        await term.sees("▸bio", "4 mirrors")
        for only, name in (("faults only", "bad"), ("running only", "busy"), ("ok only", "good")):
            await term.press("exclamation_mark")
            await term.sees(only, f"▸c00 {name}")
        await term.press("exclamation_mark")
        await term.sees("4 mirrors")
        await term.until(lambda: "only" not in term.lines[1])
        await term.press("exclamation_mark", "escape")
        await term.until(lambda: "only" not in term.lines[1])
