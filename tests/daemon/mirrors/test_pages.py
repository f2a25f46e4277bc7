"""Which versions of a page stay."""

import pytest

from firthd.mirrors.read_page import unneeded


@pytest.mark.parametrize(
    ("read_at", "moments", "gone"),
    [
        pytest.param([10], [], [], id="the newest stays"),
        pytest.param([10, 20, 30], [], [10, 20], id="what no moment shows goes"),
        pytest.param([10, 20, 30], [20], [10], id="a moment shows what was read then"),
        pytest.param([10, 20, 30], [29], [10], id="until the next was read"),
        pytest.param([10, 20, 30], [5], [20], id="the first stands for the time before it"),
        pytest.param([10, 20, 30], [30, 40], [10, 20], id="the newest stands for the time after it"),
    ],
)
def test_a_superseded_version_stays_for_a_moment_that_shows_it(
    read_at: list[int], moments: list[int], gone: list[int]
) -> None:
    assert unneeded(read_at, moments) == gone
