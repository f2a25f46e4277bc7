"""The hash of a set: whatever way its elements came and went, equal sets have equal states, and no others."""

import random
from hashlib import shake_256

from hypothesis import given
from hypothesis import strategies as st

from firthd.index.set_hash import EMPTY, LANES, SetHash, entry_digest, name_digest, pressed

elements = st.lists(st.binary(max_size=40), max_size=12, unique=True)


def state_of(values: list[bytes]) -> bytes:
    found = SetHash()
    for value in values:
        found.add(value)
    return found.state


@given(elements, st.randoms())
def test_the_order_makes_no_difference(values: list[bytes], chance: random.Random) -> None:
    shuffled = list(values)
    chance.shuffle(shuffled)
    assert state_of(shuffled) == state_of(values)


@given(elements, elements)
def test_taking_away_undoes_adding_in_whatever_order(stay: list[bytes], go: list[bytes]) -> None:
    go = [value for value in go if value not in stay]
    found = SetHash()
    for value in go:  # also before anything is there
        found.subtract(value)
    found = SetHash(found.state)
    for value in [*stay, *go]:
        found.add(value)
    assert found.state == state_of(stay)


@given(elements, elements)
def test_other_sets_have_other_states(one: list[bytes], other: list[bytes]) -> None:
    assert (state_of(one) == state_of(other)) == (set(one) == set(other))


@given(elements)
def test_lanes_are_added_each_for_itself(values: list[bytes]) -> None:
    sums = [0] * LANES
    for value in values:
        raw = shake_256(value).digest(2 * LANES)
        sums = [(lane + int.from_bytes(raw[2 * at : 2 * at + 2], "little")) % 65536 for at, lane in enumerate(sums)]
    assert state_of(values) == b"".join(lane.to_bytes(2, "little") for lane in sums)


def test_nothing_has_the_empty_state() -> None:
    assert SetHash().state == EMPTY
    assert state_of([b""]) != EMPTY


def test_fields_cannot_be_moved_from_one_to_the_next() -> None:
    assert pressed(b"ab", b"c") != pressed(b"a", b"bc")
    assert entry_digest(b"noarch", "a", "", b"x", None) != entry_digest(b"noarc", "ha", "", b"x", None)
    one, two = entry_digest(b"noarch", "a", "s", b"x", None), entry_digest(b"noarch", "b", "s", b"x", b"d")
    assert name_digest(one + two) == name_digest(bytearray(two + one))
    assert name_digest(one) != name_digest(one + one)
