"""Policies in the terminal: list, editor, what is kept out and why, the report, and which one is in force."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from firth_tui.screens.excluded import ExcludedScreen
from firth_tui.screens.explain import ExplainScreen
from firth_tui.screens.forms.form import Form
from firth_tui.screens.forms.picked import PickList
from firth_tui.screens.mirror import MirrorScreen
from firth_tui.screens.policy import PolicyScreen
from firth_tui.widgets.dialogs import Confirm
from tests.support.fake_daemon import FakeDaemon
from tests.support.fake_policies import excluded
from tests.support.tui import NARROW, WIDE, Terminal, terminal


def judged_world(socket: Path) -> FakeDaemon:
    """Return a daemon with a policy for a channel, one for a mirror of it, and one for nobody."""
    daemon = FakeDaemon(socket)
    daemon.add_channel("main", packages=20, policy="no-gpl")
    daemon.add_mirror("main", "forge")
    daemon.add_mirror("main", "own", policy="few")
    daemon.add_policy("no-gpl", licenses={"not_in": ["GPL"]})
    daemon.add_policy("few", packages={"allow": ["numpy >=1.26,<3", "scipy"], "include_dependencies": True})
    daemon.add_policy("unused", keep_latest=2)
    daemon.left_out = [
        excluded("readline", "licenses", "GPL-3.0-only is GPL3"),
        excluded("old", "keep_latest", "newer versions are there"),
    ]
    daemon.assign()
    return daemon


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[FakeDaemon]:
    async with judged_world(tmp_path / "firth.sock") as daemon:
        yield daemon


async def at(term: Terminal, *keys: str) -> None:
    await term.sees("● connected", "main")
    await term.until(lambda: term.app.session.methods)
    await term.press(*keys)


async def form(term: Terminal, *keys: str) -> Form:
    await at(term, *keys)
    await term.until(lambda: isinstance(term.app.screen, Form))
    await term.pilot.pause()
    return term.shown(Form)


async def press_button(term: Terminal, name: str = "save") -> None:
    term.app.screen.query_one(f"#{name}").focus()
    await term.press("enter")


async def test_the_list_tells_rules_in_words_and_where_each_is_in_force(daemon: FakeDaemon) -> None:
    async with terminal(daemon.socket, NARROW, now=lambda: daemon.now) as term:
        await at(term, "7")
        await term.sees("3 policies", "no-gpl", "Licences: all but GPL", "main: own", "nowhere", "e edit policy")
        assert max(map(len, term.lines)) <= NARROW[0]
        await term.press("G", "d")
        await term.until(lambda: isinstance(term.app.screen, Confirm))
        await term.sees("Delete the policy unused?")
        await term.press("tab", "enter")
        await term.sees("Deleted the policy unused", "2 policies")
        await term.press("g", "d")
        await term.sees("it is in force for main: own: take it away there first")
        assert len(daemon.called("policy.delete")) == 1
        await term.press("j", "enter")
        await term.until(lambda: isinstance(term.app.screen, PolicyScreen))
        await term.sees("Policies › no-gpl", "channel main: its mirrors that have none")
        await term.press("p")
        await term.sees("998 of 1,000 files kept", "keep_latest 1, licenses 1", "zlib >=1.3 in noarch, for app")
        assert daemon.called("policy.preview") == [{"policy": "no-gpl", "channel": "main"}]
        assert max(map(len, term.lines)) <= NARROW[0]


async def test_a_policy_is_made_while_its_meaning_and_effect_are_told(daemon: FakeDaemon) -> None:
    async with terminal(daemon.socket, NARROW) as term:
        form_now = await form(term, "7", "n")
        await term.sees("It keeps everything.", "On forge", "998 of 1,000")
        await term.type("cool")
        form_now.field("licenses_how").value = "not"
        form_now.field("licenses").value = "gpl, agpl"
        form_now.field("min_age").value = "14"
        await term.sees("Licences: all but GPL, AGPL; unknown ones are left out.", "14 days old")
        await term.until(lambda: daemon.called("policy.preview")[-1]["rules"].get("min_age") == 14)
        assert max(map(len, term.lines)) <= NARROW[0]
        await press_button(term)
        await term.sees("Created the policy cool", "▸cool")
        assert daemon.called("policy.create")[-1] == {
            "name": "cool",
            "description": "",
            "families": None,
            "rules": {"licenses": {"not_in": ["GPL", "AGPL"]}, "min_age": 14},
        }
        assert all(each.get("dry_run") for each in daemon.called("policy.create")[:-1])


async def test_details_say_which_is_in_force_and_why_with_the_list_behind_each_reason(daemon: FakeDaemon) -> None:
    async with terminal(daemon.socket, NARROW) as term:
        await at(term, "2", "enter")
        await term.until(lambda: isinstance(term.app.screen, MirrorScreen))
        await term.sees("no-gpl  that of its channel; the mirror has none of its own", "Licences: all but GPL")
        await term.press("x")
        await term.until(lambda: isinstance(term.app.screen, ExcludedScreen))
        await term.sees("2 files", "policy no-gpl", "readline-1.0-0.conda", "licenses: GPL-3.0-only is GPL3")
        await term.press("v", "v")
        await term.sees("kept out by licenses", "1 file")
        assert "old-1.0" not in term.text
        await term.press("v")
        await term.sees("2 files")
        assert max(map(len, term.lines)) <= NARROW[0]
        await term.press("escape", "i")
        await term.sees("Policies › no-gpl")


async def test_why_a_package_is_hidden_also_of_one_that_no_list_shows(daemon: FakeDaemon) -> None:
    async with terminal(daemon.socket, NARROW) as term:
        await at(term, "enter", "slash")
        await term.type("readline")
        await term.sees("Nothing matches")
        await term.press("enter", "w")
        await term.sees("there is no package under the cursor")
        await term.press("h")
        await term.until(lambda: isinstance(term.app.screen, ExplainScreen))
        await term.sees("✗ excluded", "licenses of policy no-gpl: GPL-3.0-only is GPL3")
        await term.press("slash")
        await term.type("a<<b")
        await term.sees("'a<<b' is no spec")
        await term.press("escape", "escape", "escape", "w")
        await term.sees("why hidden? › package-000000", "No source of the channel lists package-000000")


async def test_a_policy_is_picked_from_a_list_in_the_forms_of_mirror_and_channel(daemon: FakeDaemon) -> None:
    async with terminal(daemon.socket, WIDE) as term:
        form_now = await form(term, "2", "e")
        await term.sees("▸ none of its own", "in force: no-gpl, that of channel main")
        form_now.field("policy").control.focus()
        await term.press("enter")
        await term.until(lambda: isinstance(term.app.screen, PickList))
        await term.type("unu")
        await term.press("enter")
        await term.sees("▸ unused", "in force: unused, its own; it replaces the channel's no-gpl")
        form_now.field("policy").value = "no-gpl"
        await term.sees("! no-gpl is that of channel main already")
        form_now.field("policy").value = "unused"
        await press_button(term)
        await term.until(lambda: daemon.called("mirror.update"))
        assert daemon.called("mirror.update")[0] == {"mirror": daemon_mirror(daemon), "revision": 1, "policy": "unused"}
        form_now = await form(term, "1", "e")
        await term.sees("Edit the channel main", "▸ no-gpl")
        form_now.field("policy").value = ""
        await press_button(term)
        await term.until(lambda: daemon.called("channel.update"))
        assert daemon.called("channel.update")[0] == {"channel": "main", "revision": 1, "policy": None}


def daemon_mirror(daemon: FakeDaemon) -> int:
    return next(each.id for each in daemon.mirrors.values() if each.name == "forge")
