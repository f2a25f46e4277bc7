"""Marked rows: what is done to all of them is named and counted first, and each is done or left alone with a reason."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from textual import events

from firth_protocol import types as t
from firth_protocol.events import Fact
from firth_tui.format import Cell
from firth_tui.widgets.dialogs import Confirm
from firth_tui.widgets.keyed_table import Column, fit, heading
from tests.support.fake_daemon import FakeDaemon
from tests.support.tui import NARROW, Terminal, terminal


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[FakeDaemon]:
    daemon = FakeDaemon(tmp_path / "firth.sock")
    for name in ("main", "robotics", "vision"):
        daemon.add_channel(name)
    for name in ("a", "b", "c"):
        daemon.add_mirror("main", name)
    async with daemon:
        yield daemon


async def started(term: Terminal) -> None:
    await term.sees("● connected", "▸main")
    await term.until(lambda: term.app.session.methods)


def burst(term: Terminal, *keys: str) -> None:
    for key in keys:
        term.app.post_message(events.Key(key, " " if key == "space" else key if len(key) == 1 else None))


async def test_marked_mirrors_run_after_one_dialog_and_one_that_runs_is_left_alone(daemon: FakeDaemon) -> None:
    a, b, c = daemon.mirrors
    daemon.begin_run(b)
    async with terminal(daemon.socket, NARROW) as term:
        await started(term)
        await term.press("2")
        await term.sees("▸main a")
        burst(term, "space", "j", "space", "j", "space", "r")  # all in one write: marks first, then what is marked
        await term.until(lambda: isinstance(term.app.screen, Confirm))
        await term.sees(
            "Run now 2 mirrors?", "main: a", "main: c", "main: b: b is running already", "Left alone: 1 mirror"
        )
        assert daemon.called("mirror.run") == []
        await term.press("tab", "enter")
        await term.sees("Run now: 2 mirrors ✓")
        assert daemon.called("mirror.run") == [{"mirror": a}, {"mirror": c}]
        await term.until(lambda: "marked" not in term.lines[1])


async def test_marks_stay_through_filters_and_what_is_gone_is_left_alone(daemon: FakeDaemon) -> None:
    async with terminal(daemon.socket, NARROW) as term:
        await started(term)
        await term.press("j", "space")
        await term.sees("◈robotics", "3 channels, 1 marked")
        burst(term, "slash", *"vision", "enter", "space")
        await term.sees("◈vision", "2 marked")
        del daemon.channels["robotics"]
        daemon.tell(Fact.CHANNEL_DELETED, {"channel": "robotics"})
        await term.press("escape")
        await term.sees("2 channels, 2 marked")
        await term.press("z")
        await term.sees("Freeze 1 channel?", "vision", "robotics: it has been deleted")
        await term.press("tab", "enter")
        await term.sees("Freeze: 1 channel ✓")
        assert daemon.called("channel.freeze") == [{"channel": "vision"}]


async def test_what_is_frozen_is_unfrozen_together_and_esc_unmarks(daemon: FakeDaemon) -> None:
    for name in ("main", "robotics"):
        draft = t.Draft(change_sets=1, added=61, removed=3)
        daemon.add_channel(name, frozen=True, frozen_at="2026-11-22T10:00:00.000Z", draft=draft)
    async with terminal(daemon.socket, NARROW) as term:
        await started(term)
        await term.press("space", "j", "space", "z")
        await term.sees("Unfreeze 2 channels?", "main (61 additions and 3 removals wait")
        await term.press("escape")
        await term.sees("2 marked")
        await term.press("escape")
        await term.until(lambda: "marked" not in term.text)
        assert [params for params in daemon.called("channel.unfreeze") if not params.get("dry_run")] == []


async def test_other_rows_marked_meanwhile_stop_what_was_asked_for_before(daemon: FakeDaemon) -> None:
    async with terminal(daemon.socket, NARROW) as term:
        await started(term)
        await term.press("space")
        await term.sees("1 marked")
        seen = term.place.context()
        await term.press("j", "space")
        await term.sees("2 marked")
        term.place.action_act("channel.freeze", seen)
        await term.sees("other rows are marked now; nothing was done")
        assert daemon.called("channel.freeze") == []


async def test_sorting_goes_through_the_columns_in_view(daemon: FakeDaemon) -> None:
    async with terminal(daemon.socket, NARROW) as term:
        await started(term)
        await term.press("2")
        await term.sees("CHANNEL ▲")
        orders = []
        for _ in range(5):
            await term.press("o")
            await term.until(lambda: "▲" in term.lines[2])
            orders.append(daemon.called("mirror.list")[-1]["sort"])
        assert orders[:4] == ["mirror", "state", "last_updated", "name"]


def column(name: str, width: int, drop: int) -> Column[int]:
    return Column(id=name, title=name.upper(), width=width, drop=drop, cell=lambda n: Cell(str(n)), sort=name)


def test_the_column_that_a_list_is_sorted_by_stays_in_view() -> None:
    columns = (column("a", 10, 0), column("b", 10, 1), column("c", 10, 2))
    assert [each.id for each, _ in fit(columns, 22)] == ["a", "b"]
    assert [each.id for each, _ in fit(columns, 22, "-c")] == ["a", "c"]
    assert [each.id for each, _ in fit(columns, 10, "c")] == ["a"]


@pytest.mark.parametrize(
    ("title", "right", "told"),
    [
        ("NAME", False, "NAME ▲    "),
        ("SUCCESS", False, "SUCCESS ▲ "),
        ("LAST 123", False, "LAST 123▲ "),
        ("N", True, "     N ▲  "),
    ],
)
def test_the_arrow_is_never_cut(title: str, right: bool, told: str) -> None:
    assert heading(title, 8, right, "▲") == told.ljust(10)
