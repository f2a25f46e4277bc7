"""The forms of policies for longer: what is wrong, overtaken or lacking, at a wide terminal; and a whole workflow."""

import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import pytest

from firth_protocol import types as t
from firth_tui.screens.forms.form import Form
from firth_tui.screens.forms.policy import PolicyForm
from firth_tui.screens.policies import PoliciesScreen
from tests.support.daemon import DaemonProcess
from tests.support.fake_daemon import FakeDaemon
from tests.support.sample import build_sample_channel
from tests.support.tmux import HAS_TMUX, firth_in_tmux
from tests.support.tui import WIDE, terminal
from tests.tui.test_policies import at, form, judged_world, press_button

pytestmark = [pytest.mark.deep, pytest.mark.timeout(120)]


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[FakeDaemon]:
    async with judged_world(tmp_path / "firth.sock") as daemon:
        yield daemon


async def test_what_is_wrong_is_told_beside_its_line_and_not_saved(daemon: FakeDaemon) -> None:
    async with terminal(daemon.socket, WIDE) as term:
        form_now = await form(term, "7", "n")
        await term.type("bad")
        form_now.field("takes").value = "only"
        form_now.field("allow").value = "numpy; scipy << 2"
        await term.sees("✗ 'scipy << 2' is no spec; numpy >=2")
        form_now.field("allow").value = "numpy"
        form_now.field("keep_latest").value = "few"
        await term.sees("✗ versions are whole numbers, not 'few'")
        await press_button(term)
        await term.pilot.pause()
        assert "bad" not in daemon.policies
        assert isinstance(term.app.screen, PolicyForm)


async def test_a_name_that_is_taken_and_an_edit_that_was_overtaken_keep_what_was_typed(daemon: FakeDaemon) -> None:
    async with terminal(daemon.socket, WIDE) as term:
        form_now = await form(term, "7", "n")
        await term.type("few")
        await press_button(term)
        await term.sees("✗ policy few exists already")
        form_now.dismiss(None)
        form_now = await form(term, "e")
        await term.sees("Edit the policy few", "numpy >=1.26,<3; scipy")
        await term.sees("On own")
        daemon.policies["few"] = msgspec.structs.replace(daemon.policies["few"], revision=7)
        form_now.field("keep_latest").value = "3"
        await press_button(term)
        await term.sees("was changed meanwhile", "put your values in place of theirs")
        await press_button(term)
        await term.sees("Saved the policy few. It acts at once: 1 run judge")
        sent = daemon.called("policy.update")[-1]
        assert sent["revision"] == 7
        assert sent["rules"]["keep_latest"] == 3
        assert "description" not in sent


async def test_the_report_is_written_where_somebody_says_and_greyed_with_what_is_lacking(
    daemon: FakeDaemon, tmp_path: Path
) -> None:
    daemon.report = [
        t.DependencyRow(
            name=f"dep{number}",
            version="1",
            build="0",
            part="noarch",
            filename="f",
            role="direct",
            required_by="",
            license=None,
            size=1,
            state="present",
            reason="",
        )
        for number in range(5)
    ]
    target = tmp_path / "report.csv"
    async with terminal(daemon.socket, WIDE) as term:
        form_now = await form(term, "2", "c")
        form_now.field("file").value = str(target)
        await press_button(term)
        await term.sees("Wrote 5 rows to")
        assert target.read_text().splitlines() == ["name,state", *(f'"dep{number}",present' for number in range(5))]
        form_now = await form(term, "c")
        form_now.field("file").value = str(target)
        form_now.field("format").value = "json"
        await term.until(lambda: form_now.field("file").value.endswith("report.json"))
        form_now.field("file").value = str(target)
        await press_button(term)
        await term.sees("! it is there already")
        assert target.read_text().startswith("name,state")
        await press_button(term)
        await term.until(lambda: not isinstance(term.app.screen, Form))
        assert [row["name"] for row in msgspec.json.decode(target.read_bytes())] == [f"dep{n}" for n in range(5)]
        assert [each.name for each in tmp_path.iterdir() if "report" in each.name] == ["report.csv"]
        daemon.report_lacks = "policy no-gpl names no packages"
        daemon.assign()
        await term.press("ctrl+r")
        await term.until(lambda: term.place.context().mirror.in_force.report_lacks)  # type: ignore[union-attr]
        await term.press("c")
        await term.sees("Dependency report: policy no-gpl names no packages")


async def test_without_a_policy_the_forms_say_what_makes_one(tmp_path: Path) -> None:
    daemon = FakeDaemon(tmp_path / "firth.sock")
    daemon.add_channel("main")
    async with daemon, terminal(daemon.socket, WIDE) as term:
        await form(term, "e")
        await term.sees("there is no policy yet: 7, then n makes one")
        await term.press("escape")
        await at(term, "7")
        await term.sees("There is no policy yet", "Press n to make one")
        assert isinstance(term.app.screen, PoliciesScreen)


async def test_a_reader_is_told_what_he_cannot_do(daemon: FakeDaemon) -> None:
    daemon.role = t.Role.READER
    async with terminal(daemon.socket, WIDE) as term:
        await at(term, "7")
        await term.sees("3 policies")
        await term.press("e")
        await term.sees("Edit policy: needs the role manager; yours is reader")
        await term.press("enter", "p")
        await term.sees("Effect: needs the role operator; yours is reader")


@pytest.mark.skipif(not HAS_TMUX, reason="tmux is not installed")
async def test_from_a_new_policy_to_a_channel_that_follows_its_edit(tmp_path: Path) -> None:
    build_sample_channel(tmp_path / "source")
    async with DaemonProcess(tmp_path) as process, AsyncExitStack() as opened:
        client = await process.start()
        opened.push_async_callback(client.close)
        await client.call("channel.create", name="main")
        async with firth_in_tmux(tmp_path, process.socket, (80, 24)) as term:
            await term.sees("● connected", "▸main")
            await term.press("7")
            await term.sees("There is no policy yet")
            await term.press("n")
            await term.sees("New policy", "It keeps everything")
            await term.type("few")
            await term.press("Tab", "Tab", "Tab", "Right", "Tab")  # packages: only
            await term.sees("No package at all", "Specs with semicolons")
            await term.type("hello; tides >=2026.2")
            await term.press("Tab", "Right")
            await term.sees("Only hello, tides >=2026.2, with what they depend on.")
            await term.press(*["BTab"] * 6)  # round to Create
            await term.press("Enter")
            await term.sees("Created the policy few", "▸few", "nowhere")

            await term.press("2")
            await term.press("n")
            await term.sees("New mirror", "The channel that it fills")
            await term.type("main")
            await term.sees("enter: take it")
            await term.press("Enter", "Tab")
            await term.type("forge")
            await term.press("Tab", "Tab", "Tab")
            await term.type(f"file://{tmp_path}/source")
            await term.sees("✓ Conda, 1 platform (noarch)")
            await term.press("Tab", "Tab", "Tab")
            await term.sees("The rules for what it may bring in")
            await term.press("Enter")
            await term.sees("type part of a name", "few")
            await term.type("few")
            await term.press("Enter")
            await term.sees("in force: few, its own")
            await term.press(*["BTab"] * 9, "Enter")  # round to Save & Run
            await term.sees("✓ completed", "run 1")
            await term.press("Escape")
            await term.sees("1 mirror", "✓ completed")
            await term.press("v")
            await term.sees("few  its own", "Only hello, tides >=2026.2", "2 by packages, rule of policy few")
            await term.press("x")
            shown = await term.sees("kept out", "tides-2026.1-0.conda", "packages")
            assert max(map(len, shown.splitlines())) <= 80
            await term.press("Escape")
            await term.sees("2 by packages, rule of policy few")
            await term.press("c")
            await term.sees("Dependency report of main: forge", "-dependencies.csv")
            await term.press("C-u")
            await term.type(str(tmp_path / "report.csv"))
            await term.press("BTab", "Enter")
            await term.sees("rows to")
            assert "greetings" in (tmp_path / "report.csv").read_text()

            await term.press("7")
            await term.sees("▸few", "main: forge")
            await term.press("e")
            await term.sees("Edit the policy few", "On forge", "Only hello")
            await term.press("Tab", "Tab", "Tab")
            await term.sees("Specs with semicolons")
            await term.press("C-u")
            await term.type("tides")
            await term.sees("Only tides, with")
            await term.press(*["BTab"] * 4, "Enter")
            await term.sees("It acts at once: 1 run")
            await term.press("1", "Enter")
            await term.sees("3 packages", "tides", "– packages")
            await term.press("h")
            await term.sees("Type the name of a package")
            await term.type("hello")
            await term.press("Enter")
            shown = await term.sees("✗ excluded", "packages of policy few")
            assert re.search(r"hello-1.10", shown)
