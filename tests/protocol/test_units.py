"""Sizes and rates for people: one way to write them in daemon, terminal UI and firthctl."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import firth_protocol
import firth_tui
import firthd
from firth_protocol import units


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (999.6, "1.0 kB"),
        (1000, "1.0 kB"),
        (99_949, "99.9 kB"),
        (99_950, "100 kB"),
        (999_499, "999 kB"),
        (999_500, "1.0 MB"),
        (31_200_000, "31.2 MB"),
        (999_960_000, "1.0 GB"),
        (2e15, "2.0 PB"),
        (5 * 10**18, "5.0 EB"),
    ],
)
def test_sizes(number: float, text: str) -> None:
    assert units.size(number) == text
    assert units.rate(number) == f"{text}/s"


@given(st.integers(0, 10**20) | st.floats(0, 1e20))
def test_a_size_is_short_and_true_to_three_digits(number: float) -> None:
    text = units.size(number)
    assert len(text) <= 8
    value, unit = text.split(" ")
    factor = 1000 ** ["B", "kB", "MB", "GB", "TB", "PB", "EB"].index(unit)
    assert float(value) * factor == pytest.approx(number, rel=0.05, abs=0.5)


def test_nobody_else_writes_a_unit() -> None:
    """`KB`, and a unit of bytes behind a number that a line works out by itself, stand in no other module."""
    unit = re.compile(r"\bKB\b|\} ?[kMGTP]i?B\b|1e[369]\b")
    for package in (firth_protocol, firthd, firth_tui):
        for file in Path(package.__path__[0]).rglob("*.py"):
            if file.name != "units.py":
                assert not unit.search(file.read_text("utf-8")), file
