"""The forms: what they send, errors beside their field, and cancelling that asks only after a change."""

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from firth_protocol import types as t
from firth_tui.screens.channels import ChannelsScreen
from firth_tui.screens.forms.channel import ChannelForm
from firth_tui.screens.forms.form import Form
from firth_tui.screens.forms.mirror import MirrorForm
from firth_tui.screens.forms.mirror_lists import found_words
from firth_tui.screens.forms.picked_many import known_and_found
from firth_tui.screens.mirrors import MirrorsScreen
from firth_tui.screens.run import RunScreen
from firth_tui.widgets.dialogs import Confirm
from tests.support.fake_daemon import FakeDaemon
from tests.support.tui import NARROW, WIDE, Terminal, terminal


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[FakeDaemon]:
    daemon = FakeDaemon(tmp_path / "firth.sock")
    daemon.add_channel("main")
    daemon.add_mirror("main", "forge", credentials="a token", filters=t.Filters(subdirs=["noarch"]))
    async with daemon:
        yield daemon


async def form(term: Terminal, *keys: str) -> Form:
    await term.sees("● connected", "main")
    await term.until(lambda: term.app.session.methods)
    for key in keys:
        await term.press(key)
        await term.pilot.pause()
    await term.until(lambda: isinstance(term.app.screen, Form))
    await term.pilot.pause()
    return term.shown(Form)


async def test_a_channel_is_created_and_selected(daemon: FakeDaemon) -> None:
    async with terminal(daemon.socket, NARROW) as term:
        await form(term, "n")
        await term.type("team-x")
        await term.press("tab")
        await term.type("for the team")
        await term.press("tab", "right", "tab", "tab", "tab", "tab", "enter")
        await term.sees("Created the channel team-x", "▸team-x")
        assert daemon.called("channel.create") == [
            {
                "name": "team-x",
                "description": "for the team",
                "privacy": "authenticated",
                "keep_generations": {"days": 90, "months": 12},
            }
        ]


async def test_a_wrong_name_is_told_while_it_is_typed_and_not_sent(daemon: FakeDaemon) -> None:
    async with terminal(daemon.socket, NARROW) as term:
        await form(term, "n")
        await term.type("Team")
        await term.sees("✗ small letters")
        await term.press("tab", "tab", "tab", "tab", "tab", "tab", "enter")
        await term.pilot.pause()
        assert daemon.called("channel.create") == []
        assert isinstance(term.app.screen, ChannelForm)


async def test_a_name_that_is_taken_is_told_beside_it(daemon: FakeDaemon) -> None:
    async with terminal(daemon.socket, NARROW) as term:
        await form(term, "n")
        await term.type("main")
        await term.press("tab", "tab", "tab", "tab", "tab", "tab", "enter")
        await term.sees("✗ there is a channel main already")


async def test_cancelling_asks_only_after_a_change(daemon: FakeDaemon) -> None:
    async with terminal(daemon.socket, NARROW) as term:
        await form(term, "n")
        await term.press("escape")
        await term.until(lambda: isinstance(term.app.screen, ChannelsScreen))
        await form(term, "n")
        await term.type("x")
        await term.press("escape")
        await term.until(lambda: isinstance(term.app.screen, Confirm))
        await term.sees("Leave without saving?")
        await term.press("enter")  # Cancel: back to the form
        await term.until(lambda: isinstance(term.app.screen, ChannelForm))
        await term.press("escape")
        await term.until(lambda: isinstance(term.app.screen, Confirm))
        await term.press("right", "enter")
        await term.until(lambda: isinstance(term.app.screen, ChannelsScreen))


async def test_an_edit_sends_only_what_changed(daemon: FakeDaemon) -> None:
    async with terminal(daemon.socket, NARROW) as term:
        await form(term, "e")
        await term.sees("Edit the channel main", "fixed: it stands in clients' addresses")
        await term.type("better")
        await term.press("tab", "tab", "tab", "tab", "tab", "enter")
        await term.sees("Saved main")
        assert daemon.called("channel.update") == [{"channel": "main", "revision": 1, "description": "better"}]


@pytest.mark.parametrize("size", [NARROW, pytest.param(WIDE, marks=pytest.mark.deep)])
async def test_a_mirror_is_created_and_run(daemon: FakeDaemon, size: tuple[int, int]) -> None:
    async with terminal(daemon.socket, size, now=lambda: daemon.now) as term:
        form_now = await form(term, "m", "n")
        await term.type("cran")
        await term.press("tab", "right", "right", "tab", "right", "tab")
        await term.type("https://cran.example.org")
        await term.sees("✓ Std R", "next: 2026-12-01 00:00, 2027-01-01 00:00")
        await term.until(lambda: "Only R" in term.text and "Only packages" in term.text)
        assert max(map(len, term.lines)) <= size[0]
        form_now.field("r-packages").value = "zoo, xts"
        form_now.field("r-archive").value = "yes"
        form_now.field("schedule").value = "weekly"
        await term.sees("next: 2026-11-29 00:00")
        form_now.query_one("#run").focus()
        await term.press("enter")
        await term.until(lambda: isinstance(term.app.screen, RunScreen))
        sent = next(call for call in daemon.called("mirror.create") if not call.get("dry_run"))
        assert sent == {
            "channel": "main",
            "name": "cran",
            "type": "r",
            "mode": "active",
            "source": "https://cran.example.org",
            "schedule": "0 0 * * 0",
            "filters": {"packages": ["zoo", "xts"], "archive": True},
            "on_upstream_removal": "follow",
            "enabled": True,
            "run_now": True,
        }


async def test_a_source_that_does_not_answer_is_told_but_hinders_nothing(daemon: FakeDaemon) -> None:
    async with terminal(daemon.socket, NARROW) as term:
        form_now = await form(term, "m", "n")
        form_now.field("source").value = "https://nowhere.example.org"
        await term.sees("! https://nowhere.example.org does not answer; check the", "address")
        form_now.field("name").value = "later"
        form_now.query_one("#save").focus()
        await term.press("enter")
        await term.until(lambda: daemon.called("mirror.create"))


async def test_nonsense_of_a_schedule_is_told(daemon: FakeDaemon) -> None:
    async with terminal(daemon.socket, NARROW) as term:
        form_now = await form(term, "m", "n")
        form_now.field("schedule").value = "cron"
        await term.sees("Cron")
        form_now.field("cron").value = "0 0 31 2 *"
        await term.sees("never comes: there is no such date")
        form_now.field("cron").value = "30 2 * * 1-5"
        await term.sees("next: ")
        assert "✗" not in "\n".join(term.lines[1:])


async def test_a_mirror_without_a_name_is_not_sent(daemon: FakeDaemon) -> None:
    async with terminal(daemon.socket, NARROW) as term:
        form_now = await form(term, "m", "n")
        form_now.query_one("#save").focus()
        await term.press("enter")
        await term.sees("✗ a name is needed")
        assert daemon.called("mirror.create") == []


async def test_editing_a_mirror_shows_what_is_fixed_and_never_its_secret(daemon: FakeDaemon) -> None:
    async with terminal(daemon.socket, NARROW) as term:
        form_now = await form(term, "2", "e")
        await term.sees("Conda   (fixed after creation)", "as they are (never shown)", "noarch")
        form_now.field("name").value = "forge-2"
        form_now.query_one("#save").focus()
        await term.press("enter")
        await term.until(lambda: daemon.called("mirror.update"))
        assert daemon.called("mirror.update") == [{"mirror": 2, "revision": 1, "name": "forge-2"}]
        await term.until(lambda: isinstance(term.app.screen, MirrorsScreen))
        await term.sees("Saved the mirror forge-2", "▸main forge-2")


async def test_credentials_can_be_taken_away_and_replaced(daemon: FakeDaemon) -> None:
    async with terminal(daemon.socket, NARROW) as term:
        form_now = await form(term, "2", "e")
        form_now.field("credentials").value = "user"
        await term.sees("User", "Secret")
        form_now.field("user").value = "ada"
        form_now.field("secret").value = "pa55word"
        await term.pilot.pause()
        assert "pa55word" not in term.text
        form_now.query_one("#save").focus()
        await term.press("enter")
        await term.until(lambda: daemon.called("mirror.update"))
        assert daemon.called("mirror.update")[0]["credentials"] == {"user": "ada", "password": "pa55word"}


async def test_a_plan_leaves_the_form_open(daemon: FakeDaemon) -> None:
    async with terminal(daemon.socket, NARROW) as term:
        form_now = await form(term, "m", "n")
        form_now.field("name").value = "new"
        form_now.field("source").value = "https://conda.example.org/new"
        form_now.query_one("#plan").focus()
        await term.press("enter")
        await term.until(lambda: isinstance(term.app.screen, RunScreen))
        assert daemon.called("mirror.plan")[0]["source"] == "https://conda.example.org/new"
        run = max(daemon.runs)
        done = msgspec.structs.replace(
            daemon.runs[run], result={"adds": 1204, "removes": 17, "bytes": 2_100_000_000, "warnings": []}
        )
        daemon.runs[run] = done
        daemon.finish(run)
        await term.sees("A run would: add 1,204, remove 17, download now 2.1 GB")
        await term.press("escape")
        await term.until(lambda: isinstance(term.app.screen, MirrorForm))
        assert form_now.field("name").value == "new"


async def test_where_files_come_from_and_how_fast_is_sent_as_numbers(daemon: FakeDaemon) -> None:
    async with terminal(daemon.socket, NARROW) as term:
        form_now = await form(term, "2", "e")
        for name, value in (
            ("also_from", "file:///srv/old, https://near.example.org/main"),
            ("drop_unused_days", "many"),
            ("max_rate", "12.5"),
            ("max_rate_hours", "8-18"),
        ):
            form_now.field(name).value = value
        form_now.query_one("#save").focus()
        await term.press("enter")
        await term.sees("✗ days are whole numbers, not 'many'")
        form_now.field("drop_unused_days").value = "90"
        form_now.query_one("#save").focus()
        await term.press("enter")
        await term.until(lambda: daemon.called("mirror.update"))
        sent = daemon.called("mirror.update")[0]
        assert {name: sent[name] for name in sent if name not in {"mirror", "revision"}} == {
            "also_from": ["file:///srv/old", "https://near.example.org/main"],
            "drop_unused_days": 90,
            "max_rate": 12_500_000,
            "max_rate_hours": "8-18",
        }


async def test_enter_and_letters_never_change_a_choice_and_ctrl_o_saves(daemon: FakeDaemon) -> None:
    async with terminal(daemon.socket, NARROW) as term:
        form_now = await form(term, "m", "n")
        await term.type("second")
        await term.press("tab")
        for key in ("h", "l", "h", "enter", "l"):  # type, then mode
            await term.press(key)
        assert (form_now.field("type").value, form_now.field("mode").value) == ("conda", "passive")
        await term.press("tab")
        await term.type("file:///srv/sample")
        await term.sees("! main has another mirror of that type")  # before it is saved
        created = [params for params in daemon.called("mirror.create") if not params.get("dry_run")]
        assert created == []
        await term.press("ctrl+o")
        await term.sees("Saved the mirror second")
        await term.sees("! main has another mirror of that type")  # and after


async def test_a_platform_that_the_source_has_not_is_told_beside_it(daemon: FakeDaemon) -> None:
    async with terminal(daemon.socket, NARROW) as term:
        form_now = await form(term, "m", "n")
        form_now.field("source").value = "https://conda.example.org/x"
        await term.sees("the source has linux-64, noarch", "all that the source has", "enter: pick from 34")
        form_now.field("conda-subdirs").control.focus()
        await term.press("h", "escape", "left", "right", "space")  # a letter opens the list, no more
        await term.until(lambda: isinstance(term.app.screen, Form))
        assert form_now.field("conda-subdirs").value == ""
        await term.press("enter")
        await term.sees("○ linux-64  the source has it", "○ linux-aarch64  the source has none")
        await term.press("enter")  # the first that the source has
        await term.type("linux-99")
        await term.sees("○ linux-99  ! no client is known to have it")
        await term.press("enter")
        await term.sees("◉ linux-64", "◉ linux-99  ! no client")
        await term.press("ctrl+o")
        await term.sees("◉ linux-64   ◉ linux-99", "! no linux-99; the source has linux-64, noarch")
        assert form_now.field("conda-subdirs").value == "linux-64, linux-99"


def test_what_stands_at_a_source_is_told_in_words() -> None:
    found = t.SourceFound(
        type=t.MirrorType.PYTHON,
        source="https://index.example.org/simple",
        subdirs=[],
        projects=1234,
        index_bytes=None,
        warnings=["it is slow"],
        python_versions=[f"3.{minor}" for minor in range(15, 5, -1)],
    )
    assert found_words(found) == (
        "Std Python, 1,234 projects, for Python 3.15, 3.14, 3.13, 3.12, 3.11, 3.10 …; it is slow"
    )
    assert known_and_found(["1", "2"], ["2"], all_of_it=False) == [("2", "the source has it"), ("1", "")]


@pytest.mark.deep
async def test_what_a_python_source_has_is_picked_from(daemon: FakeDaemon) -> None:
    async with terminal(daemon.socket, WIDE) as term:
        form_now = await form(term, "m", "n")
        form_now.field("type").value = "python"
        await term.until(lambda: form_now.query("#field-python-python_versions"))
        form_now.field("source").value = "https://index.example.org/simple/"
        await term.sees("✓ Std Python, 1,234 projects, for Python 3.13, 3.12, index 62.9 MB")
        await term.sees("there are 3.13, 3.12, by some pages", "there are linux-64, win-64, by some pages")
        form_now.field("python-python_versions").control.focus()
        await term.press("enter")
        await term.sees("○ 3.13  the source has it", "○ 3.15")
        await term.press("enter")
        await term.type("py3")
        await term.sees("○ py3  ! a version has two numbers, such as 3.12")
        await term.press("ctrl+o")
        assert form_now.field("python-python_versions").value == "3.13"
        form_now.field("python-platforms").value = "osx-64"
        await term.sees("there are linux-64, win-64, by some pages")  # others may have it


@pytest.mark.deep
async def test_what_an_r_source_has_is_picked_from(daemon: FakeDaemon) -> None:
    async with terminal(daemon.socket, WIDE) as term:
        form_now = await form(term, "m", "n")
        form_now.field("type").value = "r"
        await term.until(lambda: form_now.query("#field-r-r_versions"))
        form_now.field("source").value = "https://cran.example.org"
        await term.sees("✓ Std R, binaries for R 4.5, 4.4, index 62.9 MB")
        await term.sees("the source has source, windows", "the source has 4.5, 4.4")
        form_now.field("r-r_versions").value = "4.5, 4.1"
        await term.sees("! no 4.1; the source has 4.5, 4.4")
        form_now.field("r-r_versions").control.focus()
        await term.press("enter")
        await term.sees("◉ 4.5  the source has it", "○ 4.0  the source has none")


async def test_the_channel_is_picked_from_those_there_are(daemon: FakeDaemon) -> None:
    daemon.add_channel("team")
    async with terminal(daemon.socket, NARROW) as term:
        form_now = await form(term, "2", "n")
        await term.sees("▸ main   enter: pick from 3", "Any name, unique")  # that under the cursor is likely meant
        form_now.field("channel").control.focus()
        await term.sees("The channel that it fills")
        await term.press("t", "e")
        await term.sees("enter: take it", "team")
        await term.press("enter")
        assert form_now.field("channel").value == "team"
        form_now.field("channel").value = ""
        form_now.query_one("#save").focus()
        await term.press("enter")
        await term.sees("✗ a channel is needed")


def test_what_the_source_has_comes_first() -> None:
    assert known_and_found(["noarch", "linux-64"], ["osx-64", "noarch"]) == [
        ("osx-64", "the source has it"),
        ("noarch", "the source has it"),
        ("linux-64", "the source has none"),
    ]


async def test_a_source_that_is_down_is_taken_when_it_is_saved_again(daemon: FakeDaemon) -> None:
    async with terminal(daemon.socket, NARROW) as term:
        form_now = await form(term, "m", "n")
        form_now.field("name").value = "later"
        form_now.field("source").value = "https://down.example.org/x"
        await term.press("ctrl+o")
        await term.sees("saving again takes the address")
        assert "check: false" not in term.text
        await term.press("ctrl+o")
        await term.sees("Saved the mirror later")


async def test_nothing_is_cut_at_60_columns_and_buttons_explain_themselves(daemon: FakeDaemon) -> None:
    async with terminal(daemon.socket, (60, 24)) as term:
        await form(term, "2", "e")
        await term.sees("as they are (never shown)", "user and password", "bearer")
        await term.sees("○ hourly", "◉ monthly", "○ other", "(fixed after creation)")
        assert "…" not in "".join(term.lines[1:])
        term.app.screen.query_one("#plan").focus()
        await term.sees("Tells what a run would add, remove and download")
