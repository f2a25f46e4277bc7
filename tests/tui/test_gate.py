"""Keys and a screen that changes under them: an action does what was shown, or says why it does nothing."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from textual import events

from firth_protocol import types as t
from firth_protocol.events import Fact
from firth_tui.screens.channels import ChannelsScreen
from firth_tui.screens.mirrors import MirrorsScreen
from firth_tui.widgets.dialogs import Confirm, Menu
from tests.support.fake_daemon import FakeDaemon
from tests.support.tui import NARROW, Terminal, terminal

CHANGES = ("channel.freeze", "channel.unfreeze", "mirror.run", "mirror.stop", "channel.delete", "mirror.delete")


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[FakeDaemon]:
    daemon = FakeDaemon(tmp_path / "firth.sock")
    for name in ("main", "robotics", "team", "vision"):
        daemon.add_channel(name, generation=4)
    daemon.add_mirror("main", "forge")
    daemon.add_mirror("main", "other")
    async with daemon:
        yield daemon


async def started(term: Terminal) -> None:
    await term.sees("● connected", "▸main")
    await term.until(lambda: term.app.session.methods)


def burst(term: Terminal, *keys: str) -> None:
    """Have keys come as they do in one write: all of them before the first is taken."""
    for key in keys:
        term.app.post_message(events.Key(key, key if len(key) == 1 else None))


def done(daemon: FakeDaemon) -> list[str]:
    return [name for name, params in daemon.calls if name in CHANGES and not params.get("dry_run")]


async def test_enter_ends_typing_and_the_next_key_acts_on_what_was_found(daemon: FakeDaemon) -> None:
    async with terminal(daemon.socket, NARROW) as term:
        await started(term)
        burst(term, "slash", *"vision", "enter", "z")
        await term.sees("vision is frozen", "▸vision")
        assert daemon.called("channel.freeze") == [{"channel": "vision"}]


async def test_text_after_a_slash_is_text(daemon: FakeDaemon) -> None:
    async with terminal(daemon.socket, NARROW) as term:
        await started(term)
        burst(term, "2", "slash", *"rstd", "backspace", "backspace", "backspace", "backspace", *"other")
        await term.sees("filter: other", "▸main other", "1 mirror with")
        term.app.post_message(events.Key("escape", None))
        await term.sees("2 mirrors")
        burst(term, "slash")
        term.app.post_message(events.Paste("forge"))
        burst(term, "enter", "r")
        await term.until(lambda: daemon.called("mirror.run"))
        assert daemon.called("mirror.run") == [{"mirror": 5}]
        assert done(daemon) == ["mirror.run"]


async def test_nothing_is_done_where_nothing_was_found(daemon: FakeDaemon) -> None:
    async with terminal(daemon.socket, NARROW) as term:
        await started(term)
        burst(term, "slash", *"nowhere", "enter", "z", "d", "e")
        await term.sees("Nothing matches", "there is no channel under the cursor")
        assert done(daemon) == []


@pytest.mark.parametrize("keys", ["oz", "Oz", "oe", "od", "!z", "!e", "!d"])
async def test_a_key_while_rows_are_read_waits_for_them(daemon: FakeDaemon, keys: str) -> None:
    async with terminal(daemon.socket, NARROW) as term:
        await started(term)
        daemon.delay_s = 0.1
        burst(term, *({"!": "exclamation_mark"}.get(key, key) for key in keys))
        if keys[0] == "!":
            await term.sees("Nothing matches", "there is no channel under the cursor")
            assert done(daemon) == []
        else:
            await term.sees(
                {"z": "main is frozen", "e": "Edit the channel main", "d": "Delete the channel main?"}[keys[1]]
            )


async def test_an_object_that_goes_while_its_key_is_pressed(daemon: FakeDaemon) -> None:
    async with terminal(daemon.socket, NARROW) as term:
        await started(term)
        daemon.delay_s = 0.2
        del daemon.channels["main"]
        daemon.tell(Fact.CHANNEL_DELETED, {"channel": "main"})
        await term.until(lambda: term.place.readings()[0].at_work)
        burst(term, "z")
        await term.sees("main is not under the cursor any more; nothing was done", "▸robotics")
        assert done(daemon) == []


async def test_an_object_that_changes_while_its_key_is_pressed(daemon: FakeDaemon) -> None:
    async with terminal(daemon.socket, NARROW) as term:
        await started(term)
        daemon.delay_s = 0.2
        daemon.channels["main"] = msgspec.structs.replace(daemon.channels["main"], frozen=True)
        daemon.tell(Fact.CHANNEL_FROZEN, {"channel": "main"})
        await term.until(lambda: term.place.readings()[0].at_work)
        burst(term, "z")
        await term.sees("main has changed meanwhile; nothing was done")
        assert done(daemon) == []


async def test_a_slow_daemon_keeps_nobody_and_nothing_is_done_blindly(daemon: FakeDaemon) -> None:
    async with terminal(daemon.socket, NARROW) as term:
        await started(term)
        daemon.delay_s = 30
        burst(term, "ctrl+r", "z")
        await term.sees("the list is still being read; nothing was done")
        burst(term, "question_mark")
        await term.sees("Keys of Channels")
        burst(term, "escape", "q")
        await term.until(lambda: term.app._exit)
        assert done(daemon) == []


@pytest.mark.parametrize("way", ["a", "colon"])
async def test_a_menu_acts_on_the_mirror_that_it_was_opened_for(daemon: FakeDaemon, way: str) -> None:
    async with terminal(daemon.socket, NARROW) as term:
        await started(term)
        burst(term, "2")
        await term.sees("▸main forge")
        burst(term, way)
        if way == "a":
            await term.until(lambda: isinstance(term.app.screen, Menu))
        else:
            burst(term, *"run", "space", *"now")
            await term.sees("Run now")
        del daemon.mirrors[5]
        daemon.tell(Fact.MIRROR_DELETED, {"channel": "main", "mirror": 5})
        burst(term, *(["r"] if way == "a" else ["enter"]))
        await term.sees("main: forge is not under the cursor any more", "▸main other")
        assert done(daemon) == []


async def test_a_question_that_comes_late_is_not_asked_over_another_place(daemon: FakeDaemon) -> None:
    daemon.rolled_back["main"] = t.ContentChange(added=1, removed=0, from_generation=4, to_generation=5)
    daemon.channels["main"] = msgspec.structs.replace(daemon.channels["main"], frozen=True)
    async with terminal(daemon.socket, NARROW) as term:
        await started(term)
        daemon.delay_s = 3
        burst(term, "z", "2")
        await term.until(lambda: isinstance(term.app.screen, MirrorsScreen))
        await term.sees("You had gone on meanwhile; nothing was done")
        assert done(daemon) == []


async def test_unfreezing_asks_after_a_rollback_and_only_when_clients_would_see_a_change(daemon: FakeDaemon) -> None:
    daemon.rolled_back["main"] = t.ContentChange(added=61, removed=2, from_generation=4, to_generation=5)
    for name in ("main", "robotics"):
        daemon.channels[name] = msgspec.structs.replace(daemon.channels[name], frozen=True)
    async with terminal(daemon.socket, NARROW) as term:
        await started(term)
        burst(term, "z")
        await term.sees("Unfreeze the channel main?", "61 additions and 2 removals wait", "from generation 4 to 5")
        burst(term, "enter")  # Cancel has the focus
        await term.until(lambda: isinstance(term.app.screen, ChannelsScreen))
        assert done(daemon) == []
        burst(term, "j", "z")
        await term.sees("robotics is live again", "▸robotics")
        burst(term, "k", "z", "tab", "enter")
        await term.sees("main is live again")


async def test_a_name_typed_ahead_goes_into_the_dialog(daemon: FakeDaemon) -> None:
    async with terminal(daemon.socket, NARROW) as term:
        await started(term)
        burst(term, "d", *"zzmz", "enter", "z")
        await term.sees("Delete the channel main?", "“zzmzz” is not the name; nothing is deleted")
        assert term.shown(Confirm).query_one("#go").disabled
        burst(term, *["backspace"] * 5, *"main", "enter", "enter")
        await term.sees("Deleted the channel main", "▸robotics")
        assert done(daemon) == ["channel.delete"]


async def test_keys_are_taken_while_facts_come_without_a_pause(daemon: FakeDaemon) -> None:
    async def others() -> None:
        while True:
            daemon.tell(Fact.CHANNEL_FROZEN, {"channel": "robotics"})
            await asyncio.sleep(0.002)

    async with terminal(daemon.socket, NARROW) as term, asyncio.TaskGroup() as tasks:
        await started(term)
        work = tasks.create_task(others())
        burst(term, "slash", *"nowhere", *["backspace"] * 7, *"vision", "enter", "z")
        await term.until(lambda: daemon.called("channel.freeze"), seconds=20)  # far below 2 s a key
        work.cancel()
        assert daemon.called("channel.freeze") == [{"channel": "vision"}]
