"""The table: columns that give way, and a cursor that stays on its key."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from textual.app import App, ComposeResult

from firth_protocol.types import Page
from firth_tui.format import Cell
from firth_tui.rows import PagedRows
from firth_tui.widgets.keyed_table import Column, KeyedTable, fit, into
from firth_tui.widgets.progress import bar
from firth_tui.widgets.sparkline import outcomes, spark


def column(name: str, width: int, *, grow: int = 0, drop: int = 0) -> Column[int]:
    return Column(id=name, title=name, width=width, grow=grow, drop=drop, cell=lambda n: Cell(f"{name}{n}"))


COLUMNS = (column("a", 10, grow=1), column("b", 10, drop=2), column("c", 10, drop=1), column("d", 10, drop=3))


@pytest.mark.parametrize(
    ("width", "names"), [(60, "abcd"), (46, "abcd"), (45, "abc"), (34, "abc"), (33, "ac"), (21, "a"), (5, "a")]
)
def test_columns_go_in_the_stated_order(width: int, names: str) -> None:
    assert "".join(each.id for each, _ in fit(COLUMNS, width)) == names


def test_a_growing_column_takes_what_is_left() -> None:
    assert [cells for _, cells in fit(COLUMNS, 60)] == [24, 10, 10, 10]


@given(st.text(alphabet=st.characters(exclude_categories=("Cc", "Cs"))), st.integers(2, 40), st.booleans())
def test_a_cell_has_exactly_its_width(text: str, width: int, right: bool) -> None:
    assert cell_len(into(text, width, right)) == width


def test_what_is_cut_says_so() -> None:
    assert into("abcdefgh", 5) == "abcd…"
    assert into("7", 3, right=True) == "  7"


@given(st.integers(0, 10**9), st.integers(1, 10**9), st.integers(1, 80))
def test_a_bar_has_its_width(done: int, total: int, width: int) -> None:
    assert len(bar(done, total, width)) == width


def test_a_spark_is_highest_at_the_largest() -> None:
    assert spark([0, 1, 2, 4], 6) == "  ▁▂▄█"
    assert spark([0, 0], 2) == "▁▁"


def test_outcomes_can_be_told_apart_without_colour() -> None:
    assert len({cell.text for cell in outcomes(["completed", "failed", "incomplete", "stopped"])}) == 4


class Numbers:
    def __init__(self, items: list[int]) -> None:
        self.items = items

    async def __call__(self, cursor: str | None, limit: int) -> Page[int]:
        start = int(cursor or 0)
        more = str(start + limit) if start + limit < len(self.items) else None
        return Page(items=self.items[start : start + limit], next_cursor=more, total=len(self.items), as_of="e:1")


class Host(App[None]):
    def __init__(self, numbers: Numbers) -> None:
        super().__init__()
        self.rows: PagedRows[int] = PagedRows(numbers, lambda n: n)
        self.table: KeyedTable[int] = KeyedTable((column("n", 8),), self.rows)

    def compose(self) -> ComposeResult:
        yield self.table


async def test_selection_and_line_stay_with_the_key_when_rows_come_before_it() -> None:
    numbers = Numbers(list(range(0, 4000, 2)))
    async with Host(numbers).run_test(size=(30, 20)) as pilot:
        app = pilot.app
        assert isinstance(app, Host)
        await pilot.pause()
        await pilot.press(*["j"] * 30)
        line = app.table.cursor_index - app.table.window[0]
        assert app.table.cursor_key == 60
        numbers.items = sorted([*numbers.items, 1, 3, 5, 7, 9])
        await app.rows.refresh(app.table.cursor_key, app.table.window[1])
        app.table.changed()
        await pilot.pause()
        assert app.table.cursor_key == 60
        assert app.table.cursor_index == 35
        assert app.table.cursor_index - app.table.window[0] == line


async def test_when_the_row_goes_the_cursor_stays_at_its_place() -> None:
    numbers = Numbers(list(range(50)))
    async with Host(numbers).run_test(size=(30, 20)) as pilot:
        app = pilot.app
        assert isinstance(app, Host)
        await pilot.pause()
        await pilot.press(*["j"] * 5)
        numbers.items.remove(5)
        await app.rows.refresh(app.table.cursor_key, app.table.window[1])
        app.table.changed()
        await pilot.pause()
        assert app.table.cursor_index == 5
        assert app.table.cursor_key == 6


async def test_another_order_keeps_the_cursor_on_its_key() -> None:
    numbers = Numbers(list(range(50)))
    async with Host(numbers).run_test(size=(30, 20)) as pilot:
        app = pilot.app
        assert isinstance(app, Host)
        await pilot.pause()
        await pilot.press(*["j"] * 5)
        reverse: PagedRows[int] = PagedRows(Numbers(list(range(50))[::-1]), lambda n: n)
        app.table.show(reverse)
        app.table.seek(5)
        await pilot.pause()
        await pilot.pause()
        assert (app.table.cursor_key, app.table.cursor_index) == (5, 44)


async def test_first_last_and_pages() -> None:
    async with Host(Numbers(list(range(3000)))).run_test(size=(30, 20)) as pilot:
        app = pilot.app
        assert isinstance(app, Host)
        await pilot.pause()
        await pilot.press("G")
        assert app.table.cursor_index == 2999
        await pilot.pause()
        await pilot.press("pageup")
        assert app.table.cursor_index == 2981
        await pilot.press("g")
        assert app.table.cursor_index == 0


async def test_a_key_draws_two_lines_not_the_table() -> None:
    drawn: list[int] = []

    class Counting(KeyedTable[int]):
        def render_line(self, y: int) -> object:  # type: ignore[override]
            drawn.append(y)
            return super().render_line(y)

    class CountingHost(Host):
        def __init__(self, numbers: Numbers) -> None:
            super().__init__(numbers)
            self.table = Counting((column("n", 8),), self.rows)

    async with CountingHost(Numbers(list(range(100_000)))).run_test(size=(80, 40)) as pilot:
        await pilot.pause()
        drawn.clear()
        await pilot.press("j")
        await pilot.pause()
        assert 0 < len(set(drawn)) <= 2


class Unknown(Numbers):
    """A list that does not tell its length."""

    async def __call__(self, cursor: str | None, limit: int) -> Page[int]:
        page = await super().__call__(cursor, limit)
        return Page(items=page.items, next_cursor=page.next_cursor, total=None, as_of=page.as_of)


async def test_the_end_of_a_list_of_unknown_length_is_found() -> None:
    async with Host(Unknown(list(range(4321)))).run_test(size=(30, 20)) as pilot:
        app = pilot.app
        assert isinstance(app, Host)
        await pilot.pause()
        await pilot.press("G")
        async with asyncio.timeout(5):
            while app.table.cursor_key != 4320:
                await pilot.pause(0.01)
        assert app.table.cursor_index == 4320
        assert app.table.window[1] == 4320
        await pilot.press("g")
        assert app.table.cursor_index == 0


async def test_moving_on_the_way_to_the_end_stays_where_it_went() -> None:
    async with Host(Unknown(list(range(90_000)))).run_test(size=(30, 20)) as pilot:
        app = pilot.app
        assert isinstance(app, Host)
        await pilot.pause()
        await pilot.press("G", "g")
        await pilot.pause(0.2)
        assert app.table.cursor_index == 0
        assert app.table.cursor_key == 0
