"""The only place that orders versions of R packages, and reads comparisons with them."""

import operator
import re
from collections.abc import Callable, Collection, Mapping
from functools import lru_cache

Numbers = tuple[int, ...]
Key = tuple[int, tuple[object, ...], str]

_NUMBERS = re.compile(r"[0-9]{1,20}(?:[.-][0-9]{1,20})*")
_RUNS = re.compile(r"[0-9]{1,20}|[^0-9]+|[0-9]+")

COMPARISONS: Mapping[str, Callable[[Numbers, Numbers], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
}


def numbers(version: str) -> Numbers | None:
    """Return the numbers that a version is compared by, None for what R cannot compare; 1.6-5 and 1.6.5 are equal."""
    if _NUMBERS.fullmatch(version) is None:
        return None
    return tuple(int(number) for number in version.replace("-", ".").split("."))


@lru_cache(maxsize=65536)
def version_key(version: str) -> Key:
    """Return a sort key; what R cannot compare comes before all that it can, in a natural order of its own."""
    found = numbers(version)
    if found is not None:
        return (1, found, version)
    return (
        0,
        tuple((1, int(run)) if run.isascii() and run.isdigit() else (0, run) for run in _RUNS.findall(version)),
        version,
    )


def sort_versions(versions: Collection[str]) -> list[str]:
    """Return versions, newest first."""
    return sorted(versions, key=version_key, reverse=True)
