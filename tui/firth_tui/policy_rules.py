"""The only place that knows how the rules of a policy stand in the lines of a form. Nothing here knows Textual."""

import re
from collections.abc import Callable, Mapping
from typing import TypeVar

import msgspec

from firth_protocol.errors import Invalid
from firth_protocol.types import (
    CveRule,
    DateRule,
    Family,
    LicenseRule,
    Membership,
    PackageRule,
    Policy,
    Rules,
    ScoreRule,
    StatusRule,
    Verdicts,
)

T = TypeVar("T")

ANY, ONLY, NOT = "any", "only", "not"
YES, NO = "yes", "no"

FIELDS: tuple[tuple[str, str], ...] = (
    ("packages.allow", "allow"),
    ("packages.exclude", "exclude"),
    ("packages.include_dependencies", "dependencies"),
    ("exceptions", "exceptions"),
    ("platforms", "platforms"),
    ("licenses", "licenses"),
    ("dates.to", "until"),
    ("dates", "since"),
    ("min_age", "min_age"),
    ("keep_latest", "keep_latest"),
    ("cve.statuses", "statuses"),
    ("cve", "score"),
)
"""Where a rule stands: the beginning of an error's place below `$.rules`, and the line of the form."""

_SEPARATOR = re.compile(r"(?<!\\);")
_SCORE = re.compile(r"(<=|>=|==|<|>)?\s*([0-9]+(?:\.[0-9]+)?)")
_PLACE = re.compile(r"\[\d+\]")


def specs(text: str) -> list[str]:
    r"""Return what stands between semicolons: a spec may hold commas; `\;` is a semicolon of its own."""
    return [part.strip().replace("\\;", ";") for part in _SEPARATOR.split(text) if part.strip()]


def joined(given: list[str]) -> str:
    """Return specs as one line that `specs` reads."""
    return "; ".join(each.replace(";", "\\;") for each in given)


def words(text: str) -> list[str]:
    """Return what stands between commas or blanks."""
    return text.replace(",", " ").split()


def families_of(values: Mapping[str, str]) -> list[Family] | None:
    """Return the families that are named, None for all; raise Invalid for one that there is not."""
    found = []
    for word in words(values["families"].lower()):
        try:
            found.append(Family(word))
        except ValueError:
            raise Invalid(f"{word[:20]} is none of {', '.join(Family)}", path="families") from None
    return found or None


def rules_of(values: Mapping[str, str]) -> Rules:
    """Return the rules that the lines of a form say; raise Invalid, with the line as `path`, for nonsense."""
    packages = PackageRule(
        allow=specs(values["allow"]) if values["takes"] == ONLY else None,
        exclude=specs(values["exclude"]),
        include_dependencies=values["takes"] == ONLY and values["dependencies"] == YES,
    )
    since, until = values["since"] or None, values["until"] or None
    rules = Rules(
        packages=None if packages == PackageRule() else packages,
        exceptions=specs(values["exceptions"]),
        platforms=_membership(Membership, values, "platforms"),
        licenses=_licenses(values),
        signed_only=values["signed_only"] == YES,
        legacy=values["legacy"] == YES,
        dates=DateRule(from_=since, to=until) if since or until else None,
        min_age=_number(values, "min_age", "days"),
        keep_latest=_number(values, "keep_latest", "versions"),
        cve=_flaws(values) if values["flaws"] == YES else None,
    )
    return _checked(rules)


def lines_of(rules: Rules) -> dict[str, str]:
    """Return the lines of a form that say `rules`."""
    packages = rules.packages or PackageRule()
    dates, cve = rules.dates or DateRule(), rules.cve or CveRule()
    score = f"{cve.score.op} {cve.score.value:.12g}" if cve.score else ""
    return {
        "takes": ANY if packages.allow is None else ONLY,
        "allow": joined(packages.allow or []),
        "dependencies": _yes(packages.include_dependencies),
        "exclude": joined(packages.exclude),
        "exceptions": joined(rules.exceptions),
        **_members("platforms", rules.platforms),
        **_members("licenses", rules.licenses),
        "unknown": (rules.licenses or LicenseRule()).unknown,
        "signed_only": _yes(rules.signed_only),
        "legacy": _yes(rules.legacy),
        "since": dates.from_ or "",
        "until": dates.to or "",
        "min_age": str(rules.min_age or ""),
        "keep_latest": str(rules.keep_latest or ""),
        "flaws": _yes(rules.cve is not None),
        "score": score,
        "statuses": ", ".join(cve.statuses.not_in) if cve.statuses else "",
        "unreviewed": cve.unreviewed,
        "unscored": cve.unscored,
    }


def field_of(path: str) -> str:
    """Return the line of the form that an error's place means: `allow` of `$.rules.packages.allow[1]`."""
    place = _PLACE.sub("", path).removeprefix("$").removeprefix(".")
    place = place.removeprefix("rules").removeprefix(".")
    return next((line for start, line in FIELDS if place == start or place.startswith(f"{start}.")), place)


def where_used(policy: Policy) -> str:
    """Return where a policy is in force, in words."""
    used = [one.channel if one.mirror_name is None else f"{one.channel}: {one.mirror_name}" for one in policy.used_by]
    return ", ".join(used) or "nowhere"


def _membership(kind: Callable[..., T], values: Mapping[str, str], name: str, **given: object) -> T | None:
    how = values[f"{name}_how"]
    if how == ANY:
        return None
    named = words(values[name])
    if not named:
        raise Invalid(f"name the {name}, with commas between", path=name)
    return kind(**{"in_" if how == ONLY else "not_in": named}, **given)


def _licenses(values: Mapping[str, str]) -> LicenseRule | None:
    upper = {**values, "licenses": values["licenses"].upper()}
    return _membership(LicenseRule, upper, "licenses", unknown=Verdicts(values["unknown"]))


def _flaws(values: Mapping[str, str]) -> CveRule:
    score, text = None, values["score"]
    if text:
        found = _SCORE.fullmatch(text)
        if found is None:
            raise Invalid(f"{text[:20]!r} is no score; such as >= 7", path="score")
        score = _convert({"op": found[1] or ">=", "value": float(found[2])}, ScoreRule, "score")
    named = words(values["statuses"].lower())
    return CveRule(
        score=score,
        statuses=_convert({"not_in": named}, StatusRule, "statuses") if named else None,
        unreviewed=Verdicts(values["unreviewed"]),
        unscored=Verdicts(values["unscored"]),
    )


def _number(values: Mapping[str, str], name: str, noun: str) -> int | None:
    text = values[name]
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise Invalid(f"{noun} are whole numbers, not {text[:20]!r}", path=name)
    return int(text)


def _convert(value: object, kind: type[T], path: str) -> T:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise Invalid(str(error).split(" - at ")[0], path=path) from None


def _checked(rules: Rules) -> Rules:
    """Return `rules` as they go over the wire; raise Invalid for what lies beyond a limit."""
    try:
        return msgspec.convert(msgspec.to_builtins(rules), Rules)
    except msgspec.ValidationError as error:
        said, _, place = str(error).partition(" - at ")
        raise Invalid(said, path=field_of(place.strip("`"))) from None


def _members(name: str, rule: Membership | None) -> dict[str, str]:
    if rule is None:
        return {f"{name}_how": ANY, name: ""}
    only = rule.in_ is not None
    return {f"{name}_how": ONLY if only else NOT, name: ", ".join((rule.in_ if only else rule.not_in) or [])}


def _yes(value: bool) -> str:
    return YES if value else NO
