"""The places, over generated data: what they show, how keys move, at both sizes of terminal."""

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from firth_protocol import types as t
from firth_protocol.events import Fact
from firth_tui.screens.channel import ChannelScreen
from firth_tui.screens.channels import ChannelsScreen
from firth_tui.screens.health import HealthScreen
from firth_tui.screens.mirror import MirrorScreen
from firth_tui.screens.mirrors import MirrorsScreen
from firth_tui.screens.package import PackageScreen
from firth_tui.screens.run import RunScreen
from firth_tui.widgets.dialogs import Confirm, Help, Menu
from tests.support.fake_daemon import FakeDaemon
from tests.support.tui import NARROW, WIDE, Terminal, terminal


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[FakeDaemon]:
    daemon = FakeDaemon(tmp_path / "firth.sock")
    daemon.add_channel("main", packages=100_000, generation=4)
    daemon.add_channel("team", frozen=True, frozen_at="2026-11-22T10:00:00.000Z")
    daemon.add_mirror("main", "forge", artifacts=700_000, stored=12)
    daemon.add_mirror("main", "extra", type=t.MirrorType.PYTHON, state=t.RunState.FAILED)
    async with daemon:
        yield daemon


async def started(term: Terminal) -> None:
    await term.sees("● connected", "main")
    await term.until(lambda: term.app.session.methods)


@pytest.mark.parametrize("size", [NARROW, WIDE])
async def test_the_list_of_channels(daemon: FakeDaemon, size: tuple[int, int]) -> None:
    async with terminal(daemon.socket, size, now=lambda: daemon.now) as term:
        await started(term)
        await term.sees("2 channels", "100,000", "❄ frozen", "admin", "? help", "q quit", "12:00:00 UTC")
        assert max(map(len, term.lines)) <= size[0]
        assert len(term.lines) == size[1]
        assert ("FAMILIES" in term.text) == (size == WIDE)


@pytest.mark.parametrize("size", [NARROW, WIDE])
async def test_every_tab_of_a_channel(daemon: FakeDaemon, size: tuple[int, int]) -> None:
    async with terminal(daemon.socket, size, now=lambda: daemon.now) as term:
        await started(term)
        await term.press("enter")
        await term.sees("Channels › main", "100,000 packages", "package-000000", "U Use it")
        for key, text in (
            ("M", "forge"),
            ("B", "There is no subchannel"),
            ("V", "● published"),
            ("C", "Nothing was changed"),
            ("U", "conda config --add channels"),
            ("P", "package-000000"),
        ):
            await term.press(key)
            await term.sees(text)
            assert max(map(len, term.lines)) <= size[0]


async def test_a_list_of_100_000_rows_is_scrolled_to_its_end_and_back(daemon: FakeDaemon) -> None:
    async with terminal(daemon.socket, NARROW) as term:
        await started(term)
        await term.press("enter")
        await term.sees("package-000000")
        await term.press("G")
        await term.sees("▸package-099999")
        await term.press("k", "k")
        await term.sees("▸package-099997")
        await term.press("g")
        await term.sees("▸package-000000", "package-000010")


async def test_filtering_asks_the_daemon_and_esc_clears(daemon: FakeDaemon) -> None:
    async with terminal(daemon.socket, NARROW) as term:
        await started(term)
        await term.press("enter")
        await term.sees("package-000000")
        await term.press("slash")
        await term.type("0777")
        await term.sees("package-007770", "with “0777”", "filter: 0777")
        await term.press("enter", "j")
        await term.sees("▸package-007770")
        await term.press("escape")
        await term.sees("100,000 packages")
        assert "filter:" not in term.text


async def test_each_tab_keeps_its_filter_and_shows_it(daemon: FakeDaemon) -> None:
    async with terminal(daemon.socket, NARROW) as term:
        await started(term)
        await term.press("enter")
        await term.sees("package-000000")
        await term.press("slash")
        await term.type("0777")
        await term.press("enter", "M")
        await term.sees("┤ M Mirrors ├", "▸extra")
        await term.until(lambda: "filter:" not in term.text)
        await term.press("P")
        await term.sees("┤ P Packages ├", "package-007770", "with “0777”", "filter: 0777")
        await term.press("escape")
        await term.sees("100,000 packages")
        assert "filter:" not in term.text


async def test_sorting_keeps_the_selected_row(daemon: FakeDaemon) -> None:
    async with terminal(daemon.socket, NARROW) as term:
        await started(term)
        await term.press("2", "j")
        await term.sees("▸main forge", "CHANNEL ▲")
        await term.press("O")
        await term.sees("CHANNEL ▼", "▸main forge")
        await term.press("o")
        await term.sees("NAME ▲", "▸main forge")
        assert daemon.called("mirror.list")[-1]["sort"] == "mirror"


async def test_faults_only(daemon: FakeDaemon) -> None:
    async with terminal(daemon.socket, NARROW) as term:
        await started(term)
        await term.press("2")
        await term.sees("forge")
        await term.press("exclamation_mark")
        await term.sees("faults only", "✗ failed")
        assert "forge" not in term.text
        await term.press("escape")
        await term.sees("forge")


async def test_what_others_do_is_seen_and_the_selection_stays(daemon: FakeDaemon) -> None:
    async with terminal(daemon.socket, NARROW) as term:
        await started(term)
        await term.press("j")
        await term.sees("▸team")
        daemon.add_channel("alpha")
        daemon.tell(Fact.CHANNEL_CREATED, {"channel": "alpha"})
        await term.sees("alpha", "▸team", "3 channels")


async def test_a_burst_of_events_makes_few_calls(daemon: FakeDaemon) -> None:
    async with terminal(daemon.socket, NARROW) as term:
        await started(term)
        before = len(daemon.called("channel.list"))
        for number in range(200):
            daemon.add_channel(f"c{number}")
            daemon.tell(Fact.CHANNEL_CREATED, {"channel": f"c{number}"})
        await term.sees("202 channels")
        assert len(daemon.called("channel.list")) - before <= 3


@pytest.mark.parametrize("size", [NARROW, WIDE])
async def test_a_run_is_watched_live(daemon: FakeDaemon, size: tuple[int, int]) -> None:
    mirror = next(iter(daemon.mirrors))
    async with terminal(daemon.socket, size, now=lambda: daemon.now) as term:
        await started(term)
        run = daemon.begin_run(mirror)
        await term.press("2", "j", "l")
        await term.sees(f"run {run.id}", "1 Connect to source", "● running", "log is empty")
        daemon.step(run.id, t.StepName.FILTER, total=700_000)
        daemon.log(run.id, "license NONE: 3,120 dropped", t.StepName.FILTER)
        daemon.progress(run.id, done=412_000, total=700_000, rate=41e6, description="412,000 read")
        await term.sees("412,000 / 700,000", "█████", "41.0 MB/s", "license NONE", "following")
        error = t.RunError(kind="upstream", message="the source answers 503", hint="try later")
        daemon.finish(run.id, t.RunState.FAILED, error)
        await term.sees("✗ failed", "Failed: the source answers 503")
        assert max(map(len, term.lines)) <= size[0]


async def test_the_log_follows_stops_wraps_and_searches(daemon: FakeDaemon) -> None:
    run = daemon.begin_run(next(iter(daemon.mirrors)))
    for number in range(700):
        daemon.log(run.id, f"line {number} {'long ' * 20}end{number}")
    async with terminal(daemon.socket, NARROW) as term:
        await started(term)
        await term.press("3", "enter")
        await term.sees("line 699", "following")
        assert "end699" not in term.text
        await term.press("w")
        await term.sees("end699", "wrapped")
        await term.press("k")
        await term.sees("not following")
        daemon.log(run.id, "one more")
        daemon.step(run.id, t.StepName.FILTER)
        await term.sees("● 3 Filter")
        assert "one more" not in term.text
        await term.press("G")
        await term.sees("one more", "── log")
        await term.press("slash")
        await term.type("line 41 ")
        await term.press("enter")
        await term.sees("▸", "line 41 ")


async def test_mirror_details(daemon: FakeDaemon) -> None:
    async with terminal(daemon.socket, WIDE, now=lambda: daemon.now) as term:
        await started(term)
        await term.press("2", "j", "enter")
        await term.until(lambda: isinstance(term.app.screen, MirrorScreen))
        await term.sees(
            "12 of 700,000 files stored",
            "412,000 by subdir, rule of filters",
            "zlib-1.3-h0_0.conda",
            "the source says 404",
            "shadowed",
        )
        await term.press("escape")
        await term.until(lambda: isinstance(term.app.screen, MirrorsScreen))


async def test_a_package(daemon: FakeDaemon) -> None:
    async with terminal(daemon.socket, NARROW) as term:
        await started(term)
        await term.press("enter")
        await term.sees("package-000000")
        await term.press("j", "enter")
        await term.until(lambda: isinstance(term.app.screen, PackageScreen))
        await term.sees("py_0", "○ on demand", "✓ stored", "needs       python >=3.9, numpy", "package-000002")
        await term.sees("file        package-000001-2.1.0-py_0.conda", "sha256      " + "ab" * 32)
        await term.sees("fetched     0 times in the last 30 days")
        await term.press("enter")
        await term.sees("Copied http")


async def test_the_hook_is_tried_from_the_health_screen(daemon: FakeDaemon) -> None:
    async with terminal(daemon.socket, NARROW, now=lambda: daemon.now) as term:
        await started(term)
        await term.press("4")
        await term.until(lambda: isinstance(term.app.screen, HealthScreen))
        await term.press("t")
        await term.sees("The notification was taken.")


async def test_the_store_is_freed_and_read_from_the_health_screen(daemon: FakeDaemon) -> None:
    async with terminal(daemon.socket, NARROW, now=lambda: daemon.now) as term:
        await started(term)
        await term.press("4")
        await term.until(lambda: isinstance(term.app.screen, HealthScreen))
        await term.press("x")
        await term.sees("Take away 3 files, 5.0 MB?", "7.0 MB in indexes")
        await term.press("tab", "enter")
        await term.until(lambda: daemon.freed == 1)
        await term.press("s")
        await term.sees("Read every stored file?")
        await term.press("tab", "enter")
        await term.until(lambda: daemon.scrubs == 1)


async def test_health_and_audit_log(daemon: FakeDaemon) -> None:
    daemon.health.append(
        t.HealthProblem(
            subject="team",
            text="its publication failed",
            since="2026-11-22T11:00:00.000Z",
            hint="unfreeze it again",
        )
    )
    async with terminal(daemon.socket, NARROW, now=lambda: daemon.now) as term:
        await started(term)
        await term.press("4")
        await term.until(lambda: isinstance(term.app.screen, HealthScreen))
        await term.sees("✗ team: its publication failed", "since 1 h; unfreeze it again", "812 GB free", "main: extra")
        await term.press("5")
        await term.sees("Audit log", "channel.freeze", "ada", "✓ ok")


async def test_help_says_the_keys_the_words_and_the_reasons(daemon: FakeDaemon) -> None:
    daemon.role = t.Role.READER
    async with terminal(daemon.socket, WIDE) as term:
        await started(term)
        await term.press("question_mark")
        await term.until(lambda: isinstance(term.app.screen, Help))
        await term.sees("Keys of Channels", "New channel", "needs the role manager; yours is reader")
        await term.press("escape")
        await term.until(lambda: isinstance(term.app.screen, ChannelsScreen))


async def test_a_greyed_key_says_why(daemon: FakeDaemon) -> None:
    daemon.role = t.Role.READER
    async with terminal(daemon.socket, NARROW) as term:
        await started(term)
        await term.sees("(new channel)", "(freeze)", "reader")
        await term.press("z")
        await term.sees("needs the role operator; yours is reader")
        assert daemon.called("channel.freeze") == []


async def test_read_only_is_shown_and_held(daemon: FakeDaemon) -> None:
    async with terminal(daemon.socket, NARROW, read_only=True) as term:
        await started(term)
        await term.sees("read only")
        await term.press("z")
        await term.sees("--read-only")
        assert daemon.called("channel.freeze") == []


async def test_freezing_and_unfreezing(daemon: FakeDaemon) -> None:
    async with terminal(daemon.socket, NARROW) as term:
        await started(term)
        await term.press("z")
        await term.sees("main is frozen: clients keep seeing generation 4", "37 files of it are not stored", "unfreeze")
        held = daemon.channels["main"]
        draft = t.Draft(change_sets=2, added=120, removed=3)
        daemon.channels["main"] = msgspec.structs.replace(held, draft=draft)
        daemon.tell(Fact.DRAFT_GREW, {"channel": "main"})
        row = term.shown(ChannelsScreen)
        await term.until(lambda: row.subjects()["channel"].draft == draft)
        await term.press("z")
        await term.sees("Unfreeze the channel main?", "120 additions and 3 removals wait")
        await term.press("enter")  # Cancel has the focus
        await term.until(lambda: isinstance(term.app.screen, ChannelsScreen))
        assert daemon.channels["main"].frozen
        await term.press("z")
        await term.sees("Unfreeze the channel main?")
        await term.press("tab", "enter")
        await term.until(lambda: not daemon.channels["main"].frozen)


async def test_deleting_a_mirror_wants_its_name(daemon: FakeDaemon) -> None:
    async with terminal(daemon.socket, NARROW) as term:
        await started(term)
        await term.press("2", "j")
        await term.sees("▸main forge")
        await term.press("d")
        await term.until(lambda: isinstance(term.app.screen, Confirm))
        await term.sees("Delete the mirror forge of main?", "700,000 files", "Type the name forge")
        await term.press("enter")
        await term.sees("the name is needed; esc leaves")
        await term.type("fork")
        await term.sees("“fork” is not the name; nothing is deleted")
        await term.press("escape")
        await term.until(lambda: isinstance(term.app.screen, MirrorsScreen))
        await term.press("d")
        await term.until(lambda: isinstance(term.app.screen, Confirm))
        await term.type("forg")
        await term.press("tab", "tab", "enter")  # round to the first choice: Delete cannot be pressed yet
        assert len(daemon.mirrors) == 2
        await term.press("escape")
        await term.until(lambda: isinstance(term.app.screen, MirrorsScreen))
        await term.press("d")
        await term.until(lambda: isinstance(term.app.screen, Confirm))
        await term.type("forge")
        await term.press("tab", "tab", "enter")
        await term.until(lambda: len(daemon.mirrors) == 1)
        assert daemon.called("mirror.delete") == [{"mirror": 3, "packages": "keep", "confirm": "forge"}]
        await term.sees("Deleted forge: 12 files kept, 699,988 dropped")


async def test_the_menu_does_what_its_line_says(daemon: FakeDaemon) -> None:
    async with terminal(daemon.socket, NARROW) as term:
        await started(term)
        await term.press("2", "j", "a")
        await term.until(lambda: isinstance(term.app.screen, Menu))
        await term.sees("main / forge", "Stop", "forge is not running")
        await term.press("r")
        await term.until(lambda: daemon.called("mirror.run"))
        await term.sees("forge runs. It is run")


async def test_a_mirror_is_filled(daemon: FakeDaemon) -> None:
    async with terminal(daemon.socket, NARROW) as term:
        await started(term)
        await term.press("2", "j")
        await term.sees("▸main forge")
        await term.press("f")
        await term.until(lambda: daemon.called("mirror.fill"))


async def test_a_package_is_removed_and_restored(daemon: FakeDaemon) -> None:
    async with terminal(daemon.socket, NARROW) as term:
        await started(term)
        await term.press("enter")
        await term.sees("▸package-000000")
        await term.until(lambda: term.place.context().channel)
        await term.press("b")
        await term.sees("Nothing has been removed from main by hand")
        await term.press("d")
        await term.sees("Remove package-000000 from main?", "2 files leave the channel at once")
        await term.press("tab", "enter")
        await term.sees("Removed package-000000 from main")
        assert [block["spec"] for block in daemon.blocks] == ["package-000000"]
        await term.press("b")
        await term.sees("Restore which package of main?", "◉ package-000000")
        await term.press("tab", "enter")
        await term.until(lambda: daemon.blocks == [])


async def test_an_error_stays_until_it_is_read_and_can_be_copied(daemon: FakeDaemon) -> None:
    async with terminal(daemon.socket, NARROW) as term:
        await started(term)
        await term.press("2", "j")
        await term.sees("▸main forge")
        daemon.mirrors.clear()
        await term.press("r")
        await term.sees("✗ Run now did not work", "there is no mirror 3")
        await term.press("y")
        assert "there is no mirror 3" in term.app.clipboard
        await term.press("escape")
        await term.until(lambda: isinstance(term.app.screen, MirrorsScreen))


async def test_copying(daemon: FakeDaemon) -> None:
    async with terminal(daemon.socket, NARROW) as term:
        await started(term)
        await term.press("y")
        await term.sees("Copied main")
        await term.press("u")
        await term.until(lambda: term.app.clipboard == "http://127.0.0.1:8470/repo/main")


async def test_the_palette_has_every_action(daemon: FakeDaemon) -> None:
    async with terminal(daemon.socket, NARROW) as term:
        await started(term)
        await term.press("colon")
        await term.sees("New channel")
        await term.type("audit")
        await term.until(lambda: "New channel" not in term.text and "Audit log" in term.text)
        await term.press("enter")
        await term.sees("Health › Audit log")


async def test_the_mouse_opens_sorts_and_changes_tabs(daemon: FakeDaemon) -> None:
    async with terminal(daemon.socket, NARROW) as term:
        await started(term)
        await term.pilot.click(offset=(3, 4))
        await term.sees("▸team")
        await term.pilot.click(offset=(3, 4))
        await term.until(lambda: isinstance(term.app.screen, ChannelScreen))
        await term.pilot.click(offset=(18, 2))
        await term.sees("This channel has no mirror yet")


async def test_a_reader_of_hostile_names_is_safe(daemon: FakeDaemon) -> None:
    evil = "\x1b[31m[bold]evil[/bold]\n\u202e"
    daemon.add_mirror("main", evil, source=f"https://conda.example.org/{evil}")
    package = msgspec.structs.replace(daemon.packages["main"][0], name=f"aaa{evil}", version="[red]1[/red]")
    daemon.packages["main"][0] = package
    async with terminal(daemon.socket, WIDE) as term:
        await started(term)
        await term.press("enter")
        await term.sees("aaa?[31m[bold]evil[/bold]", "[red]1[/red]")
        await term.press("M")
        await term.sees("?[31m[bold]evil[/bo")
        await term.press("g", "enter")
        await term.until(lambda: isinstance(term.app.screen, MirrorScreen))
        await term.sees("?[31m[bold]evil[/bold] ?")
        await term.press("d")
        await term.sees("[bold]evil[/bold]")
        assert "\x1b" not in term.text


@pytest.mark.parametrize("size", [NARROW, WIDE])
async def test_ascii_draws_nothing_but_ascii(daemon: FakeDaemon, size: tuple[int, int]) -> None:
    async with terminal(daemon.socket, size, ascii=True) as term:
        await term.until(lambda: "connected" in term.text and "team" in term.text)
        for keys in (["enter"], ["escape", "2", "a"], ["escape", "question_mark"], ["escape", "4"], ["colon"]):
            await term.press(*keys)
            await term.pilot.pause()
            strips = term.app.screen._compositor.render_strips()
            filters = term.app.get_line_filters()
            for strip in strips:
                shown = strip.apply_filter(filters[-1], term.app.background_colors[1]).text
                assert shown.isascii(), shown


async def test_the_daemon_goes_away_and_comes_back(daemon: FakeDaemon) -> None:
    async with terminal(daemon.socket, NARROW, now=lambda: daemon.now) as term:
        await started(term)
        await daemon.stop()
        await term.sees("✗ disconnected", "trying again", "what is shown is from 12:00:00 UTC", "main")
        await term.press("z")
        await term.sees("the daemon does not answer; firth keeps trying")
        daemon.add_channel("while-away")
        await daemon.start()
        await term.sees("● connected", "while-away")
        assert "trying again" not in term.text


async def test_a_watched_run_is_true_after_a_restart(daemon: FakeDaemon) -> None:
    run = daemon.begin_run(next(iter(daemon.mirrors)))
    daemon.step(run.id, t.StepName.DOWNLOAD, total=100)
    async with terminal(daemon.socket, NARROW) as term:
        await started(term)
        await term.press("3", "enter")
        await term.until(lambda: isinstance(term.app.screen, RunScreen))
        await term.sees("● 6 Download")
        await daemon.stop()
        await term.sees("✗ disconnected")
        error = t.RunError(kind="interrupted", message="the daemon stopped while this was running")
        daemon.finish(run.id, t.RunState.FAILED, error)
        await daemon.start()
        await term.sees("✗ failed", "the daemon stopped while this was running", "● connected")


async def test_a_slow_daemon_does_not_hold_up_the_keys(daemon: FakeDaemon) -> None:
    async with terminal(daemon.socket, NARROW) as term:
        await started(term)
        daemon.delay_s = 30.0
        await term.press("2")
        await term.sees("Mirrors", "Reading…")
        await term.press("1")
        await term.sees("Channels", "Reading…")
        daemon.delay_s = 0.0
        await term.press("ctrl+r")


async def test_another_version_is_told(daemon: FakeDaemon) -> None:
    daemon.api = 9
    async with terminal(daemon.socket, WIDE) as term:
        await term.sees("firthd speaks protocol 9, this firth speaks 1", "● connected", "main")


async def test_esc_and_q(daemon: FakeDaemon) -> None:
    async with terminal(daemon.socket, NARROW) as term:
        await started(term)
        await term.press("escape", "escape")
        assert isinstance(term.app.screen, ChannelsScreen)
        await term.press("enter")
        await term.sees("package-000000")
        await term.press("q")
        await term.until(lambda: not term.app.is_running or term.app._exit)


async def test_the_order_of_a_list_is_remembered(daemon: FakeDaemon) -> None:
    async with terminal(daemon.socket, NARROW) as term:
        await started(term)
        await term.press("2")
        await term.sees("CHANNEL ▲", "main forge")
        await term.press("O")
        await term.sees("CHANNEL ▼")
        await term.press("1")
        await term.sees("Channels", "team")
        await term.press("2")
        await term.sees("CHANNEL ▼", "main forge")


async def test_colours_and_mouse_can_be_switched(daemon: FakeDaemon) -> None:
    async with terminal(daemon.socket, NARROW) as term:
        await started(term)
        await term.place.run_action("act('app.theme')")
        await term.until(lambda: term.app.theme == "firth-light")
        await term.place.run_action("act('app.mouse')")
        await term.sees("The mouse is the terminal's now")
        await term.place.run_action("act('app.mouse')")
        await term.sees("The mouse works in firth again")


async def test_ctrl_c_leaves(daemon: FakeDaemon) -> None:
    async with terminal(daemon.socket, NARROW) as term:
        await started(term)
        await term.press("ctrl+c")
        await term.until(lambda: term.app._exit)


async def test_ages_grow_by_themselves(daemon: FakeDaemon) -> None:
    now = [daemon.now]
    async with terminal(daemon.socket, NARROW, now=lambda: now[0]) as term:
        await started(term)
        await term.sees("2 h ago")
        now[0] += 3600
        for _ in range(20):
            term.place.tick(now[0])
        await term.sees("3 h ago", "13:00:00 UTC")


async def test_a_long_sheet_scrolls_with_the_keys_of_lists(daemon: FakeDaemon) -> None:
    async with terminal(daemon.socket, (80, 14)) as term:
        await started(term)
        await term.press("2", "j", "enter")
        await term.until(lambda: isinstance(term.app.screen, MirrorScreen))
        await term.sees("source  ")
        assert "could not be had" not in term.text
        await term.press("G")
        await term.sees("could not be had")
        await term.press("g")
        await term.sees("source  ")


async def test_somebody_without_a_role_is_told_so(daemon: FakeDaemon) -> None:
    daemon.role = t.Role.NONE
    async with terminal(daemon.socket, WIDE) as term:
        await term.sees("✗ refused", "daemon.status needs the role reader; yours is none")
        daemon.role = t.Role.READER
        await term.sees("● connected", "reader", "main")


async def test_a_heading_sorts_and_a_larger_terminal_shows_more(daemon: FakeDaemon) -> None:
    async with terminal(daemon.socket, NARROW) as term:
        await started(term)
        await term.sees("NAME ▲")
        await term.pilot.click(offset=(3, 2))
        await term.sees("NAME ▼", "2 channels")
        assert "FAMILIES" not in term.text
        await term.pilot.resize_terminal(*WIDE)
        await term.sees("FAMILIES", "▸main")
        await term.until(lambda: len(term.lines) == WIDE[1])
        await term.pilot.resize_terminal(60, 16)
        await term.sees("NAME ▼", "▸main", "q quit")
        await term.until(lambda: max(map(len, term.lines)) <= 60)
