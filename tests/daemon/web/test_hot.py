"""The memory for hot objects stays inside its bounds and keeps what is asked for."""

from hypothesis import given
from hypothesis import strategies as st

from firthd.web.hot import HotObject, HotObjects

NAMES = st.sampled_from("abcdefgh")


@given(st.lists(st.tuples(NAMES, st.integers(0, 70))))
def test_it_never_holds_more_than_it_may(puts: list[tuple[str, int]]) -> None:
    hot = HotObjects(max_total=100, max_object=50)
    for name, size in puts:
        hot.put(name, HotObject(b"x" * size, 0))
        held = [found for name in "abcdefgh" if (found := hot.get(name)) is not None]
        assert sum(len(found.data) for found in held) == hot.bytes <= 100
        assert all(len(found.data) <= 50 for found in held)


def test_the_one_asked_for_longest_ago_goes_first() -> None:
    hot = HotObjects(max_total=3, max_object=3)
    for name in "abc":
        hot.put(name, HotObject(b"1", 0))
    assert hot.get("a") is not None
    hot.put("d", HotObject(b"1", 0))
    assert hot.get("b") is None
    assert [hot.get(name) is not None for name in "acd"] == [True, True, True]
