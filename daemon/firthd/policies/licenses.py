"""The only place that maps licence texts to licence families, and judges by them: unknown ones are told, not guessed.

The families are those of conda-build. A text means an expression over families: a choice of several (`or later`,
`OR`), several that all hold (`AND`), or nothing that anybody can know.
"""

import re
from functools import lru_cache
from typing import Any

from license_expression import (  # type: ignore[import-untyped]
    AND,
    OR,
    LicenseSymbol,
    LicenseWithExceptionSymbol,
    Licensing,
    get_spdx_licensing,
)
from msgspec import Struct

from firthd.families.base import Facts
from firthd.families.policing import LicenseSyntax
from firthd.policies.license_names import ALIASES, CLASSIFIERS, FIELDS, R_NAMES, SPDX, UNKNOWN_CLASSIFIERS

FAMILIES = (
    "AGPL",
    "APACHE",
    "BSD",
    "CC",
    "GPL",
    "GPL2",
    "GPL3",
    "LGPL",
    "MIT",
    "MOZILLA",
    "PSF",
    "PUBLIC-DOMAIN",
    "PROPRIETARY",
    "OTHER",
    "NONE",
)
COVERS = {"GPL": frozenset({"GPL", "GPL2", "GPL3"})}
"""A family in a rule stands for these."""
TEXT_MAX = 2000
"""Characters of a text that is read: an expression parser is no place for a whole licence."""
OSI = "OSI Approved :: "


class Choice(Struct, frozen=True):
    """One licence: it may be taken as any of these families; none: nobody knows which licence it is."""

    families: frozenset[str]


class All(Struct, frozen=True):
    """Licences that hold side by side."""

    parts: tuple["Meaning", ...]


class Either(Struct, frozen=True):
    """Licences of which the user picks one."""

    parts: tuple["Meaning", ...]


class Several(Struct, frozen=True):
    """Licences of which the source does not say whether they hold side by side or are a choice."""

    parts: tuple["Meaning", ...]


Meaning = Choice | All | Either | Several
UNKNOWN = Choice(frozenset())
NONE = Choice(frozenset({"NONE"}))


def one(*families: str) -> Choice:
    """Return the meaning of a licence that may be taken as any of these families."""
    return Choice(frozenset(families))


class LicenseTest(Struct, frozen=True):
    """What a rule wants: `families` are the only ones that pass, or those that do not."""

    families: frozenset[str]
    only: bool

    def passes(self, meaning: Meaning) -> bool | None:
        """Tell whether a licence passes; None: that hangs on a licence that nobody knows."""
        if isinstance(meaning, Choice):
            if not meaning.families:
                return None
            if self.only:
                return bool(meaning.families & self.families)
            return bool(meaning.families - self.families)
        found = [self.passes(part) for part in meaning.parts]
        if isinstance(meaning, All) or (isinstance(meaning, Several) and not self.only):
            return False if False in found else None if None in found else True
        return True if True in found else None if None in found else False


def license_test(families: list[str], *, only: bool) -> LicenseTest:
    """Return the test of a rule; `GPL` stands for each version of it."""
    covered = [COVERS.get(family, frozenset({family})) for family in families]
    return LicenseTest(frozenset().union(*covered), only)


def meaning_of(syntax: LicenseSyntax, facts: Facts) -> Meaning:
    """Return what the licence of a record means."""
    return _meaning(syntax, facts.license, facts.license_family, facts.classifiers)


def families_in(meaning: Meaning) -> frozenset[str]:
    """Return every family that a licence names."""
    if isinstance(meaning, Choice):
        return meaning.families
    return frozenset().union(*map(families_in, meaning.parts))


def is_known(meaning: Meaning) -> bool:
    """Tell whether nothing in a licence is unknown."""
    return bool(meaning.families) if isinstance(meaning, Choice) else all(map(is_known, meaning.parts))


@lru_cache(maxsize=10_000)
def _meaning(syntax: LicenseSyntax, text: str | None, field: str | None, classifiers: tuple[str, ...]) -> Meaning:
    text = (text or "").strip()[:TEXT_MAX]
    if syntax is LicenseSyntax.R:
        return r_meaning(text)
    found = NONE if _says_none(text) else expression_meaning(text)
    if classifiers and not (is_known(found) and found != NONE):
        named = classifiers_meaning(classifiers)
        if named != NONE:
            return named
    if field and (found in (NONE, UNKNOWN)):
        return _field_meaning(field) or found
    return found


def _says_none(text: str) -> bool:
    return text.casefold() in {"", "none"}


def _field_meaning(field: str) -> Meaning | None:
    family = FIELDS.get(field.strip().upper().replace("_", "-").replace(" ", "-"))
    return None if family is None else one(family)


# --- SPDX, and what people write instead -------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _licensing() -> Licensing:
    return get_spdx_licensing()


def expression_meaning(text: str) -> Meaning:
    """Return the meaning of an SPDX expression, or of a text that the table of names knows."""
    named = ALIASES.get(" ".join(text.casefold().split()))
    if named is not None:
        return one(*named)
    try:
        parsed = _licensing().parse(text)
    except Exception:  # the library's own classes; AttributeError and others for some texts
        return UNKNOWN
    return NONE if parsed is None else _of_node(parsed)


def _of_node(node: Any) -> Meaning:
    if isinstance(node, AND | OR):
        parts = tuple(_of_node(part) for part in node.args)
        return All(parts) if isinstance(node, AND) else Either(parts)
    if isinstance(node, LicenseWithExceptionSymbol):
        exception = _known(node.exception_symbol.key)
        widens = exception is not None and exception.is_exception
        return _of_node(node.license_symbol) if widens else UNKNOWN
    return id_meaning(node.key) if isinstance(node, LicenseSymbol) else UNKNOWN


def _known(key: str) -> LicenseSymbol | None:
    symbol: LicenseSymbol | None = _licensing().known_symbols.get(key)
    return symbol


def id_meaning(key: str) -> Choice:
    """Return the meaning of one SPDX id."""
    named = ALIASES.get(key.casefold())
    if named is not None:
        return one(*named)
    if key.startswith("LicenseRef-"):
        return _reference(key)
    if _known(key) is None:
        return UNKNOWN
    for pattern, families in SPDX:
        if pattern.fullmatch(key):
            return one(*families)
    return one("OTHER")


_PROPRIETARY = re.compile(r"proprietary|commercial|eula|end-?user|nvidia|intel|microsoft", re.IGNORECASE)
_PUBLIC_DOMAIN = re.compile(r"public-?domain", re.IGNORECASE)


def _reference(key: str) -> Choice:
    if _PUBLIC_DOMAIN.search(key):
        return one("PUBLIC-DOMAIN")
    if _PROPRIETARY.search(key):
        return one("PROPRIETARY")
    return one("OTHER") if _known(key) is not None else UNKNOWN


# --- classifiers ---------------------------------------------------------------------------------------------------


def classifiers_meaning(classifiers: tuple[str, ...]) -> Meaning:
    """Return the meaning of licence classifiers, with or without `License :: ` before them."""
    found = [meaning for meaning in map(_classifier, classifiers) if meaning is not None]
    named = tuple(dict.fromkeys(meaning for meaning in found if meaning != UNKNOWN))
    if not named:
        return UNKNOWN if found else NONE
    return named[0] if len(named) == 1 else Several(named)


def _classifier(text: str) -> Choice | None:
    before, between, last = text.partition("License :: ")
    if between and before.strip():
        return None
    name = (last if between else text).strip()
    if "::" in text and not between and not text.startswith(OSI):
        return None  # of another kind than licences
    if name in UNKNOWN_CLASSIFIERS:
        return UNKNOWN
    families = CLASSIFIERS.get(name.removeprefix(OSI))
    if families is not None:
        return one(*families)
    return one("OTHER") if name.startswith(OSI) else UNKNOWN


# --- R -------------------------------------------------------------------------------------------------------------

_FILE = re.compile(r"\s*\+\s*file\s+LICEN[CS]E$")
_VERSIONED = re.compile(r"(?P<name>[^()]+?)\s*\((?P<conditions>[^()]*)\)")
_CONDITION = re.compile(r"(>=|<=|==|!=|>|<)\s*v?([0-9]+(?:[.-][0-9]+)*)")
_DASHED = re.compile(r"(?P<name>[A-Za-z]+)-(?P<version>[0-9]+(?:\.[0-9]+)*)")
_GPL_VERSIONS = {"GPL2": (2,), "GPL3": (3,)}


def r_meaning(text: str) -> Meaning:
    """Return the meaning of a package's License field (Writing R Extensions, 1.1.2)."""
    if _says_none(text):
        return NONE
    parts = tuple(_r_alternative(part.strip()) for part in text.split("|"))
    found = parts[0] if len(parts) == 1 else Either(parts)
    return found if is_known(found) else expression_if_better(text, found)


def expression_if_better(text: str, found: Meaning) -> Meaning:
    """Return what SPDX makes of a text that R's own grammar does not know, where that says more."""
    other = expression_meaning(text)
    return other if is_known(other) and other != NONE else found


def _r_alternative(text: str) -> Choice:
    text = " ".join(_FILE.sub("", text).split())
    named = R_NAMES.get(text)
    if named is not None:
        return one(*named)
    match = _VERSIONED.fullmatch(text)
    if match is not None:
        return _versioned(match["name"].strip(), match["conditions"])
    match = _DASHED.fullmatch(text)
    return UNKNOWN if match is None else _versioned(match["name"], f"== {match['version']}")


def _versioned(name: str, conditions: str) -> Choice:
    base = R_NAMES.get(name)
    asked = [_CONDITION.fullmatch(part.strip()) for part in conditions.split(",")]
    if base is None or not all(asked):
        return UNKNOWN
    if not base <= _GPL_VERSIONS.keys():
        return one(*base)
    met = {
        family
        for family in base
        if all(_holds(_GPL_VERSIONS[family], match[1], _numbers(match[2])) for match in asked if match)
    }
    return one(*met)


def _numbers(version: str) -> tuple[int, ...]:
    numbers = [int(part) for part in re.split(r"[.-]", version)]
    while len(numbers) > 1 and not numbers[-1]:
        numbers.pop()
    return tuple(numbers)


def _holds(version: tuple[int, ...], operator: str, other: tuple[int, ...]) -> bool:
    return {
        ">=": version >= other,
        "<=": version <= other,
        "==": version == other,
        "!=": version != other,
        ">": version > other,
        "<": version < other,
    }[operator]
