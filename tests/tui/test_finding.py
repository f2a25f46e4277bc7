"""The palette finds objects by name, shows each action's key, and numbers lead to the views from everywhere."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from textual import events

from firth_tui.finding import EXACT, score
from firth_tui.screens.channel import ChannelScreen
from firth_tui.screens.mirror import MirrorScreen
from firth_tui.screens.mirrors import MirrorsScreen
from firth_tui.screens.package import PackageScreen
from firth_tui.screens.policy import PolicyScreen
from firth_tui.screens.run import RunScreen
from tests.support.fake_daemon import FakeDaemon
from tests.support.tui import NARROW, Terminal, terminal


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[FakeDaemon]:
    daemon = FakeDaemon(tmp_path / "firth.sock")
    daemon.add_channel("lab")
    daemon.add_channel("main", packages=1_000)
    daemon.add_policy("nopython")
    daemon.begin_run(daemon.add_mirror("main", "forge").id)
    async with daemon:
        yield daemon


async def started(term: Terminal) -> None:
    await term.sees("● connected", "▸lab")
    await term.until(lambda: term.app.session.methods)


@pytest.mark.parametrize(
    ("typed", "kind"),
    [
        ("main", ChannelScreen),
        ("forge", MirrorScreen),
        ("package-000777", PackageScreen),
        ("run", RunScreen),
        ("nopython", PolicyScreen),
    ],
)
async def test_what_is_typed_after_a_colon_is_found_and_opened(daemon: FakeDaemon, typed: str, kind: type) -> None:
    text = f"run {next(iter(daemon.runs))}" if typed == "run" else typed
    async with terminal(daemon.socket, NARROW) as term:
        await started(term)
        for each in (":", *text, "enter"):  # all in one write
            key = {" ": "space", "-": "minus", ":": "colon"}.get(each, each)
            term.app.post_message(events.Key(key, each if len(each) == 1 else None))
        await term.until(lambda: isinstance(term.app.screen, kind))


async def test_each_action_is_shown_with_its_key(daemon: FakeDaemon) -> None:
    async with terminal(daemon.socket, NARROW) as term:
        await started(term)
        await term.press("colon")
        await term.type("freeze")
        await term.sees("Freeze  (z)")


async def test_numbers_lead_to_the_views_from_inside_a_channel(daemon: FakeDaemon) -> None:
    async with terminal(daemon.socket, NARROW) as term:
        await started(term)
        await term.press("enter")
        await term.until(lambda: isinstance(term.app.screen, ChannelScreen))
        await term.press("M")
        await term.sees("┤ M Mirrors ├")
        await term.press("2")
        await term.until(lambda: isinstance(term.app.screen, MirrorsScreen))
        await term.sees("▸main forge")


def test_a_name_that_is_the_whole_of_what_was_typed_stands_above() -> None:
    assert score("Main", "main") == EXACT > score("main-2", "main") > score("the-main", "main")
