"""How values are written for people."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.segment import Segment
from textual.color import Color

from firth_tui import format as f
from firth_tui.format import Tone
from firth_tui.theme import AsciiOnly

NOON = "2026-11-22T12:00:00.000Z"
NOW = f.seconds_of(NOON) or 0.0


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (62_900_000, "62.9 MB"),
        (812_000_000_000, "812 GB"),
        (999_999, "1.0 MB"),
        (None, "unknown"),
        (5 * 10**18, "5.0 EB"),
    ],
)
def test_sizes(value: int | None, text: str) -> None:
    assert f.size(value) == text


@given(st.integers(min_value=0, max_value=10**20))
def test_a_size_is_short(value: int) -> None:
    assert len(f.size(value)) <= 8


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "just now"), (12, "12 s ago"), (200, "3 m ago"), (7300, "2 h ago"), (3 * 86400, "3 d ago")],
)
def test_ages(seconds: int, text: str) -> None:
    assert f.age(NOON, NOW + seconds) == text


def test_an_age_of_months_is_a_date() -> None:
    assert f.age("2026-05-03T00:00:00.000Z", NOW) == "3 May 2026"


def test_no_time_is_never() -> None:
    assert (f.age(None, NOW), f.moment(None), f.ahead(None, NOW)) == ("never", "never", "–")


def test_a_moment_states_its_zone() -> None:
    assert f.moment(NOON) == "2026-11-22 12:00:00 UTC"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.21, "0.2 s"), (41, "41 s"), (192, "3:12"), (3723, "1:02:03"), (None, "")]
)
def test_durations(seconds: float | None, text: str) -> None:
    assert f.duration(seconds) == text


@pytest.mark.parametrize("state", ["pending", "running", "stopping", "stopped", "completed", "incomplete", "failed"])
def test_a_state_is_glyph_and_word(state: str) -> None:
    glyph, _, word = f.state_cell(state).text.partition(" ")
    assert len(glyph) == 1
    assert word == state


def test_a_state_of_a_newer_daemon_is_shown_as_it_is() -> None:
    assert f.state_cell("napping").text == "○ napping"


@pytest.mark.parametrize(
    "text", ["\x1b[31mred", "a\nb", "a\x07", "\u202eevil", "a\u2028b", "\x9b31m", "zero\u200bwidth", "\ud800"]
)
def test_nothing_can_steer_the_terminal(text: str) -> None:
    assert not any(unicodedata.category(each) in {"Cc", "Cf", "Cs", "Zl", "Zp"} for each in f.clean(text))


@given(st.text())
def test_cleaned_text_is_one_line_of_printable_characters(text: str) -> None:
    cleaned = f.clean(text)
    assert cleaned.isprintable() or " " in cleaned or any(unicodedata.category(c) == "Zs" for c in cleaned)
    assert "\n" not in cleaned
    assert "\x1b" not in cleaned


def test_long_text_is_cut_with_a_mark() -> None:
    assert f.clean("x" * 30, 10) == "xxxxxxxxx…"


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_categories=("Cc", "Cs"))))
def test_ascii_keeps_every_cell_in_its_place(text: str) -> None:
    shown = "".join(part.text for part in AsciiOnly().apply([Segment(text)], Color(0, 0, 0)))
    assert shown.isascii()
    assert cell_len(shown) == cell_len(text)


def test_tones_have_words_beside_them() -> None:
    assert {f.state_cell(state).tone for state in ("completed", "failed", "incomplete")} == {
        Tone.OK,
        Tone.BAD,
        Tone.WARN,
    }
