"""The only place that orders conda versions (CEP 33, which is not PEP 440)."""

from collections.abc import Collection
from functools import cache, lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rattler import Version

Key = tuple[int, object, str]

DIGITS_MAX = 1000


@lru_cache(maxsize=65536)
def version_key(version: str) -> Key:
    """Return a sort key; versions that do not parse come before all that do, in a natural order of their own.

    Spellings of one version (1.8 and 1.8.0) differ in the last place only, so that the order is total.
    """
    try:
        return (1, _version()(version), version)
    except Exception:  # py-rattler's own error class; old indexes do hold such versions
        return (0, natural(version), version)


@cache
def _version() -> "type[Version]":
    """Return what reads versions; importing it takes 40 ms, and most workers compare none."""
    from rattler import Version

    return Version


@lru_cache(maxsize=65536)
def order_key(version: str) -> tuple[int, object]:
    """Return a sort key in which spellings of one version are equal."""
    return version_key(version)[:2]


def natural(text: str) -> tuple[tuple[int, int | str], ...]:
    """Split into runs of digits, compared as numbers, and of other characters, compared as text."""
    runs: list[list[str]] = []
    for character in text:
        if runs and character.isdecimal() == runs[-1][0].isdecimal():
            runs[-1].append(character)
        else:
            runs.append([character])
    return tuple(run_key("".join(run)) for run in runs)


def run_key(run: str) -> tuple[int, int | str]:
    """Return the key of one run: text before numbers; a number of more digits than any has is text."""
    return (1, int(run)) if run.isdecimal() and len(run) <= DIGITS_MAX else (0, run)


def sort_versions(versions: Collection[str]) -> list[str]:
    """Return versions, newest first."""
    return sorted(versions, key=version_key, reverse=True)
