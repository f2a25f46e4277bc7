"""The only place that says what the rules of a policy mean: whether they make sense, and how they read to people."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from difflib import get_close_matches

from firth_protocol.errors import Invalid
from firth_protocol.types import CveRule, DateRule, Family, Membership, PackageRule, Rules, Verdicts
from firthd.families.policing import Policing
from firthd.policies.licenses import FAMILIES
from firthd.policies.specs import check_specs

RETIRING = frozenset({"legacy", "keep_latest"})
"""Rules whose files leave the index but stay to be fetched for their grace period; all others refuse."""
SHOWN = 3


def check_rules(rules: Rules, families: Mapping[Family, Policing]) -> None:
    """Raise Invalid, with the place and a hint, for rules that mean nothing in a family that they judge."""
    check_membership(rules.platforms, "platforms", frozenset().union(*(one.platforms for one in families.values())))
    check_membership(rules.licenses, "licenses", frozenset(FAMILIES))
    packages = rules.packages or PackageRule()
    if packages.include_dependencies and packages.allow is None:
        raise Invalid(
            "dependencies of what? `include_dependencies` goes with a list of what is allowed",
            hint="give `allow`, or leave `include_dependencies` out: without `allow` nothing is left out",
            path="$.rules.packages.include_dependencies",
        )
    lists = (
        (packages.allow or [], "$.rules.packages.allow"),
        (packages.exclude, "$.rules.packages.exclude"),
        (rules.exceptions, "$.rules.exceptions"),
    )
    for family, policing in families.items():
        for texts, path in lists:
            try:
                check_specs(texts, policing, path)
            except Invalid as error:
                if len(families) == 1:
                    raise
                hint = f"{error.hint}; or let `families` name those that it is about: this one is {family}"
                raise Invalid(error.message, hint=hint, path=error.data.get("path")) from None
    if rules.dates is not None:
        check_dates(rules.dates)
    if rules.cve is not None and rules.cve == CveRule():
        raise Invalid(
            "the rule about flaws says nothing", hint="give `score`, such as {op: >=, value: 7}", path="$.rules.cve"
        )


def check_membership(rule: Membership | None, name: str, known: frozenset[str]) -> None:
    """Raise Invalid unless a rule names one list, of known words."""
    if rule is None:
        return
    path = f"$.rules.{name}"
    if (rule.in_ is None) == (rule.not_in is None):
        raise Invalid(f"the rule about {name} takes either `in` or `not_in`", path=path)
    for place, words in (("in", rule.in_ or []), ("not_in", rule.not_in or [])):
        for number, word in enumerate(words):
            if word not in known:
                near = get_close_matches(word, known, n=3) or sorted(known)
                raise Invalid(
                    f"{word!r} is none of the {name} that there are",
                    hint=f"one of {', '.join(near)}",
                    path=f"{path}.{place}[{number}]",
                )


def check_dates(rule: DateRule) -> None:
    """Raise Invalid for days that there are not, or that exclude each other."""
    for name, day in (("from", rule.from_), ("to", rule.to)):
        try:
            if day is not None:
                date.fromisoformat(day)
        except ValueError:
            raise Invalid(f"{day!r} is no day", hint="write it as 2026-01-31", path=f"$.rules.dates.{name}") from None
    if rule.from_ is None and rule.to is None:
        raise Invalid("the rule about dates names none", hint="give `from`, `to` or both", path="$.rules.dates")
    if rule.from_ and rule.to and rule.from_ > rule.to:
        raise Invalid(f"{rule.from_} is after {rule.to}", path="$.rules.dates")


def asks_nothing(rules: Rules) -> bool:
    """Tell whether rules keep everything."""
    return rules == Rules(exceptions=rules.exceptions)


def in_words(rules: Rules, families: Sequence[Family]) -> list[str]:
    """Return what a policy does, a sentence a rule."""
    if len(families) < len(Family):
        told = " and ".join(families) or "no"
        families_told = [f"It judges {told} packages only."]
    else:
        families_told = []
    if asks_nothing(rules):
        return [*families_told, "It keeps everything."]
    return [*families_told, *_sentences(rules)]


def _sentences(rules: Rules) -> Iterator[str]:
    if rules.packages is not None:
        yield from _of_packages(rules.packages)
    if rules.platforms is not None:
        yield f"Platforms: {_members(rules.platforms)}."
    if rules.licenses is not None:
        unknown = "kept" if rules.licenses.unknown is Verdicts.ALLOW else "left out"
        yield f"Licences: {_members(rules.licenses)}; unknown ones are {unknown}."
    if rules.signed_only:
        yield "Only what is signed."
    if rules.dates is not None:
        since = f" from {rules.dates.from_}" if rules.dates.from_ else ""
        until = f" to {rules.dates.to}" if rules.dates.to else ""
        yield f"Only what was uploaded{since}{until}."
    if rules.min_age is not None:
        yield f"Only what is {_days(rules.min_age)} old or older; what is younger enters by itself."
    if rules.cve is not None:
        yield _of_flaws(rules.cve)
    if not rules.legacy:
        yield "No file in an old form where the new one is there."
    if rules.keep_latest is not None:
        yield f"Of each package the newest {_count(rules.keep_latest, 'version')}."
    if rules.exceptions:
        yield f"Kept whatever the rules say: {_some(rules.exceptions)}."


def _of_packages(rule: PackageRule) -> Iterator[str]:
    if rule.allow is not None:
        more = ", with what they depend on" if rule.include_dependencies else ""
        yield f"Only {_some(rule.allow)}{more}." if rule.allow else "No package at all."
    if rule.exclude:
        yield f"Not {_some(rule.exclude)}."


def _of_flaws(rule: CveRule) -> str:
    score = f" with a score {rule.score.op} {rule.score.value:g}" if rule.score else ""
    statuses = f", but for those that are {', '.join(rule.statuses.not_in)}" if rule.statuses else ""
    lenient = [
        name for name, what in (("unreviewed", rule.unreviewed), ("unscored", rule.unscored)) if what is Verdicts.ALLOW
    ]
    kept = f"; {' and '.join(lenient)} ones count for nothing" if lenient else ""
    return f"Nothing that has a known flaw{score}{statuses}{kept}."


def _members(rule: Membership) -> str:
    return f"only {', '.join(rule.in_)}" if rule.in_ is not None else f"all but {', '.join(rule.not_in or [])}"


def _some(texts: Sequence[str]) -> str:
    more = f" and {len(texts) - SHOWN:,} more" if len(texts) > SHOWN else ""
    return ", ".join(texts[:SHOWN]) + more


def _days(number: int) -> str:
    return _count(number, "day")


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
