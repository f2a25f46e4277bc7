"""The decisions of step 5: did the source shrink too far, does it fit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firthd.mirrors.plan import (
    GIB,
    SHRINK_COUNT,
    SHRINK_PERCENT,
    PartChange,
    Space,
    floor_bytes,
    shrink_notes,
    shrink_reason,
    space_reason,
)


def part(name: str = "linux-64", *, before: int, stopped: int = 0, kept: int | None = None) -> PartChange:
    """A part of the source; `kept` is what its index lists now and the filters let through."""
    return PartChange(
        part=name,
        before=before,
        kept=before - stopped if kept is None else kept,
        added=0,
        replaced=0,
        removed=stopped,
        stopped=stopped,
    )


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ([], None),
        ([part(before=0, kept=0)], None),
        ([part(before=0, kept=500)], None),
        ([part(before=1000, stopped=200)], None),  # exactly 20 %
        ([part(before=1000, stopped=201)], "201 of 1,000 artifacts of linux-64"),
        ([part(before=400, stopped=100)], None),  # exactly 100
        ([part(before=400, stopped=101)], "101 of 400 artifacts of linux-64"),
        ([part(before=100, stopped=99)], None),  # not more than 100
        ([part(before=3, stopped=3), part("noarch", before=5)], "linux-64 is empty or gone"),
        ([part(before=3, stopped=3)], "lists nothing any more; 3 artifacts"),
        # No part alone, but all together.
        ([part(str(n), before=100, stopped=50) for n in range(3)], "150 of 300 artifacts"),
        ([part(str(n), before=1000, stopped=150) for n in range(3)], None),
        # A part that gains does not make up for one that loses.
        ([part(before=1000, stopped=300, kept=5000)], "300 of 1,000 artifacts of linux-64"),
        # What our own filters drop is no loss of the source's.
        ([part(before=1000, stopped=0, kept=0)], None),
        ([part(before=1000, stopped=0, kept=0), part("noarch", before=9)], None),
    ],
)
def test_the_shrink_guard(parts: list[PartChange], says: str | None) -> None:
    reason = shrink_reason(parts)
    if says is None:
        assert reason is None
    else:
        assert reason is not None
        assert says in reason


@pytest.mark.parametrize(
    ("parts", "notes"),
    [
        ([part(before=1000, stopped=200)], []),
        ([part(before=400, stopped=100)], ["100 of 400 artifacts of linux-64"]),
        ([part(before=2, stopped=1), part("noarch", before=9)], ["1 of 2 artifacts of linux-64"]),
        ([part("a", before=100, stopped=20), part("b", before=100, stopped=21)], ["21 of 100 artifacts of b"]),
    ],
)
def test_losses_below_the_guard_are_noted(parts: list[PartChange], notes: list[str]) -> None:
    assert shrink_notes(parts) == [f"the source stopped listing {note}" for note in notes]


def test_a_loss_that_was_read_in_part_is_compared_with_the_whole() -> None:
    assert shrink_notes([part(before=100, stopped=20)], 1000) == []


@st.composite
def changes(draw: st.DrawFn) -> PartChange:
    before = draw(st.integers(0, 2000))
    stopped = draw(st.integers(0, before))
    kept = before - stopped + draw(st.integers(0, 500))
    return part(f"part-{draw(st.integers(0, 99))}", before=before, stopped=stopped, kept=kept)


@given(st.lists(changes(), max_size=6))
def test_the_shrink_guard_holds_exactly_what_the_rule_says(parts: list[PartChange]) -> None:
    before, stopped = sum(p.before for p in parts), sum(p.stopped for p in parts)
    counted = [(p.before, p.stopped) for p in parts] + [(before, stopped)]
    too_many = any(s > SHRINK_COUNT and s / b > SHRINK_PERCENT / 100 for b, s in counted if b)
    emptied = any(p.before and p.stopped and not p.kept for p in parts)
    assert (shrink_reason(parts) is not None) == (too_many or emptied)


@given(st.lists(changes(), max_size=6))
def test_a_source_that_stops_listing_nothing_is_never_held(parts: list[PartChange]) -> None:
    assert shrink_reason([part(p.part, before=p.before, kept=p.kept) for p in parts]) is None


# --- space ------------------------------------------------------------------------------------------------------


@given(
    free=st.integers(0, 10**13),
    floor=st.integers(0, 10**12),
    reserved=st.integers(0, 10**12),
    needed=st.integers(0, 10**13),
)
def test_what_is_let_in_leaves_the_floor_and_what_others_reserved(
    free: int, floor: int, reserved: int, needed: int
) -> None:
    space = Space(free=free, floor=floor, reserved=reserved)
    reason = space_reason(needed, space)
    assert space.usable >= 0
    if reason is None:
        assert needed == 0 or free - needed >= floor + reserved
    else:
        assert free - needed < floor + reserved
        for figure in (needed, space.usable, free, floor, reserved):
            assert f"{figure:,}" in reason


def test_to_the_last_byte() -> None:
    space = Space(free=100, floor=30, reserved=20)
    assert space_reason(50, space) is None
    assert space_reason(51, space) == (
        "51 bytes are to be downloaded, 50 may be used: 100 are free, 30 stay free, 20 are reserved by other runs"
    )
    assert space_reason(0, Space(free=1, floor=30, reserved=0)) is None  # nothing to bring needs nothing


@pytest.mark.parametrize(
    ("total", "percent", "floor"),
    [(0, 5, GIB), (10 * GIB, 5, GIB), (100 * GIB, 5, 5 * GIB), (100 * GIB, 0, GIB), (40 * GIB, 2.5, GIB)],
)
def test_the_floor_is_a_share_but_at_least_a_gibibyte(total: int, percent: float, floor: int) -> None:
    assert floor_bytes(total, percent) == floor
