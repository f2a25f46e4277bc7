"""The only place that reads R requirements and orders R versions as the operators of `package_version` do.

R has two orders: `compareVersion` takes 1.0 for less than 1.0.0, the operators, which every client uses, for equal. A
dependency field knows one comparison in parentheses; people write several, there or after the name.
"""

import operator
import re
from collections.abc import Callable, Collection
from functools import lru_cache

from msgspec import Struct

from firth_protocol.errors import Invalid
from firthd.families.base import Facts

SPEC_MAX = 1024
HINT = "write it such as `Rcpp >=1.0,<2`"

Key = tuple[int, ...]

_VERSION = re.compile(r"[0-9]+(?:[.-][0-9]+)*")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9.]*")
_SPEC = re.compile(r"\s*(?P<name>[A-Za-z][A-Za-z0-9.]*)\s*(?P<rest>.*?)\s*", re.DOTALL)
_COMPARISON = re.compile(r"(?P<op>>=|<=|==|!=|~=|>|<)\s*(?P<version>[0-9]+(?:[.-][0-9]+)*)(?P<star>\.\*)?")
_OPERATORS: dict[str, Callable[[Key, Key], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
}
_RUNS = re.compile(r"[0-9]{1,20}|[^0-9]+|[0-9]+")
INTEGER_MAX = 2**31
"""R's integers end here; larger ones become NA."""


class Comparison(Struct, frozen=True):
    """One bound: `prefix` compares as many components as it names."""

    op: str
    key: Key
    prefix: int = 0

    def holds(self, version: Key) -> bool:
        """Tell whether a version, as `numbers` gives it, keeps to the bound."""
        if self.prefix:
            same = (version + (0,) * self.prefix)[: self.prefix] == self.key
            return same if self.op == "==" else not same
        return _OPERATORS[self.op](filled(version), filled(self.key))


class RRequirement(Struct, frozen=True):
    """A name, in its exact case, and bounds that all hold."""

    name: str
    bounds: tuple[Comparison, ...] = ()
    versions_only: bool = True
    extras: tuple[str, ...] = ()

    def matches(self, facts: Facts) -> bool:
        """Tell whether a record meets it; a version that R refuses meets no bound."""
        if facts.name != self.name:
            return False
        if not self.bounds:
            return True
        version = numbers(facts.version)
        return version is not None and all(bound.holds(version) for bound in self.bounds)


def requirement(spec: str) -> RRequirement:
    """Parse a spec such as `Rcpp >=1.0,<2` or `Rcpp (>= 1.0)`; raises Invalid with the reason."""
    match = _SPEC.fullmatch(spec)
    if match is None or len(spec) > SPEC_MAX:
        raise Invalid(f"{spec[:SPEC_MAX]!r} is no R spec: it begins with the name of a package", hint=HINT)
    rest = match["rest"]
    if rest.startswith("(") and rest.endswith(")"):
        rest = rest[1:-1].strip() or "()"
    return RRequirement(match["name"], _bounds(spec, rest))


def dependency(text: str) -> RRequirement:
    """Parse one entry of a dependency field, `Rcpp (>= 1.0)`; raises ValueError for what R could not read."""
    name, opened, rest = text.strip().partition("(")
    name = name.strip()
    if _NAME.fullmatch(name) is None:
        raise ValueError(f"{text!r} names no package")
    if not opened:
        return RRequirement(name)
    match = re.fullmatch(r"\s*(>=|<=|==|!=|>|<)\s+([0-9]+(?:[.-][0-9]+)+)\s*\)", rest)
    if match is None or (key := numbers(match[2])) is None:
        raise ValueError(f"{text!r} is no requirement that R reads")
    return RRequirement(name, (Comparison(match[1], key),))


def _bounds(spec: str, rest: str) -> tuple[Comparison, ...]:
    if not rest:
        return ()
    found: list[Comparison] = []
    for part in rest.split(","):
        match = _COMPARISON.fullmatch(part.strip())
        key = numbers(match["version"]) if match is not None else None
        if match is None or key is None:
            raise Invalid(f"{spec!r} is no R spec: {part.strip()!r} is no comparison", hint=_hint(part))
        op, star = match["op"], match["star"]
        if star and op not in {"==", "!="}:
            raise Invalid(f"{spec!r}: `.*` goes with == and != only", hint=HINT)
        if op == "~=":
            if len(key) < 2:
                raise Invalid(
                    f"{spec!r}: `~=` with one number has no upper bound", hint="write two numbers, such as `~=1.4`"
                )
            found += [Comparison(">=", key), Comparison("==", key[:-1], len(key) - 1)]
        else:
            found.append(Comparison(op, key, len(key) if star else 0))
    return tuple(found)


def _hint(part: str) -> str:
    bare = part.strip().lstrip("=").strip()
    return f"write ==1.26 or ==1.26.*, not {part.strip()!r}" if _VERSION.match(bare) else HINT


@lru_cache(maxsize=65536)
def numbers(version: str) -> Key | None:
    """Return a version's numbers; None for what R refuses or turns into NA."""
    if _VERSION.fullmatch(version) is None:
        return None
    if len(version) > SPEC_MAX:  # nothing that R keeps in integers is as long
        return None
    found = tuple(int(part) for part in re.split(r"[.-]", version))
    return found if max(found) < INTEGER_MAX else None


def filled(version: Key) -> Key:
    """Return numbers as the operators compare them: zeros at the end make no difference."""
    end = len(version)
    while end > 1 and not version[end - 1]:
        end -= 1
    return version[:end]


def version_key(version: str) -> tuple[int, Key, str]:
    """Return a sort key in which spellings of one version are equal; what R refuses comes before all others."""
    found = numbers(version)
    return (0, (), version) if found is None else (1, filled(found), "")


def sort_versions(versions: Collection[str]) -> list[str]:
    """Return versions, newest first; spellings of one version beside each other, what R refuses in a natural order."""
    return sorted(versions, key=lambda version: (version_key(version)[:2], _natural(version)), reverse=True)


def _natural(version: str) -> list[tuple[int, int, str]]:
    runs = _RUNS.findall(version)
    return [(1, int(run), "") if run.isascii() and run.isdigit() and len(run) <= 20 else (0, 0, run) for run in runs]


def prerelease(version: str) -> bool:
    """Tell whether a version comes before a release: R knows none."""
    return False
