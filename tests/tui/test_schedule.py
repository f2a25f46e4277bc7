"""When a mirror would run next: the same answers as the daemon's cron."""

from datetime import UTC, datetime

import pytest
from croniter import croniter
from hypothesis import given, settings
from hypothesis import strategies as st

from firth_tui.schedule import PRESETS, next_times, preset_of

NOW = datetime(2026, 11, 22, 14, 2, 11, tzinfo=UTC).timestamp()


def field(least: int, most: int) -> st.SearchStrategy[str]:
    number = st.integers(least, most)
    spans = st.tuples(st.integers(least, most - 1), st.integers(1, 9)).map(
        lambda pair: f"{pair[0]}-{min(most, sum(pair))}"  # a range of one value is every value to croniter
    )
    lists = st.lists(number, min_size=1, max_size=3).map(lambda values: ",".join(map(str, values)))
    return st.one_of(st.just("*"), number.map(str), spans, lists, st.just("*/7"))


@settings(max_examples=60, deadline=None)
@given(st.tuples(field(0, 59), field(0, 23), field(1, 28), field(1, 12), st.just("*")))
def test_dates_are_those_of_the_daemon(fields: tuple[str, ...]) -> None:
    expression = " ".join(fields)
    cron = croniter(expression, datetime.fromtimestamp(NOW, UTC))
    assert next_times(expression, NOW) == [cron.get_next(float) for _ in range(3)]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 23), st.sampled_from(["*", "1", "15,28"]), st.sampled_from(["0", "1-5", "sun", "7", "mon,wed"]))
def test_weekdays_are_those_of_the_daemon(hour: int, day: str, weekday: str) -> None:
    expression = f"30 {hour} {day} * {weekday}"
    cron = croniter(expression, datetime.fromtimestamp(NOW, UTC))
    assert next_times(expression, NOW) == [cron.get_next(float) for _ in range(3)]


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("* * * *", "five fields"),
        ("60 * * * *", "minute"),
        ("* * 31 2 *", "never comes"),
        ("* 5-1 * * *", "backwards"),
        ("*/0 * * * *", "minute"),
        ("R R * * *", "minute"),
        ("", "five fields"),
    ],
)
def test_nonsense_is_told(expression: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        next_times(expression, NOW)


def test_presets_are_found_again() -> None:
    assert {name: preset_of(cron) for name, cron in PRESETS.items()} == {name: name for name in PRESETS}
    assert preset_of("30 2 * * 1-5") is None
