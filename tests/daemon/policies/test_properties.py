"""What holds for every policy and every set of records."""

from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from firth_protocol.types import Rules
from firthd.families.base import Facts
from firthd.families.conda.policing import POLICING
from tests.daemon.policies.records import DAY_MS, NOW_MS, facts, judged, rules_of, verdicts

NAMES = ["a", "b", "c", "d"]
VERSIONS = ["0.9", "1.0", "1.0rc1", "1.5", "2.0"]
SPECS = [f"{name}{bound}" for name in NAMES for bound in ("", " >=1.0", " <1.5", " ==1.0", " !=1.5", " 1.0 0")]
NEEDS = [*SPECS, "gone >=1", "__glibc >=2.17", "a >=1.8,"]
specs = st.lists(st.sampled_from(SPECS), max_size=3)

records = st.lists(
    st.builds(
        facts,
        st.sampled_from(NAMES),
        st.sampled_from(VERSIONS),
        part=st.sampled_from(["noarch", "linux-64", "win-64"]),
        build=st.sampled_from(["0", "1"]),
        license=st.sampled_from(["MIT", "GPL-3.0-only", "MIT OR GPL-3.0-only", "Custom", None]),
        timestamp=st.sampled_from([None, NOW_MS, NOW_MS - 30 * DAY_MS]),
        depends=st.lists(st.sampled_from(NEEDS), max_size=3),
        signed=st.booleans(),
    ),
    max_size=14,
    unique_by=lambda one: (one.part, one.filename),
)

PARTS: dict[str, st.SearchStrategy[Any]] = {
    "platforms": st.sampled_from([{"in": ["linux-64"]}, {"not_in": ["win-64"]}, {"not_in": ["noarch"]}]),
    "licenses": st.sampled_from([{"in": ["MIT"]}, {"not_in": ["GPL3"], "unknown": "allow"}]),
    "exceptions": specs,
    "signed_only": st.booleans(),
    "legacy": st.booleans(),
    "dates": st.just({"to": "2026-09-01"}),
    "min_age": st.integers(1, 40),
    "keep_latest": st.integers(1, 3),
}
packages = st.one_of(
    st.fixed_dictionaries({"exclude": specs}),
    st.fixed_dictionaries({"allow": specs, "exclude": specs, "include_dependencies": st.booleans()}),
)
policies = st.fixed_dictionaries({}, optional={**PARTS, "packages": packages}).map(lambda found: rules_of(**found))


def kept(rules: Rules, some: list[Facts]) -> set[tuple[str, str]]:
    found = verdicts(rules, *some)
    return {(one.part, one.filename) for one, rule in zip(some, found, strict=True) if rule is None}


@settings(max_examples=30, deadline=None)
@given(policies, records)
def test_each_record_is_kept_or_dropped_by_one_rule(rules: Rules, some: list[Facts]) -> None:
    found = judged(rules, *some)
    assert found.kept + sum(found.counts.values()) == found.records == len(some)
    assert len(kept(rules, some)) == found.kept


@settings(max_examples=30, deadline=None)
@given(policies, records)
def test_an_exception_is_kept_whatever_the_rules_say(rules: Rules, some: list[Facts]) -> None:
    excepted = {
        (one.part, one.filename)
        for one in some
        if any(POLICING.requirement(spec).matches(one) for spec in rules.exceptions)
    }
    assert excepted <= kept(rules, some)


@settings(max_examples=30, deadline=None)
@given(policies, records, st.randoms())
def test_neither_the_order_of_records_nor_that_of_specs_matters(rules: Rules, some: list[Facts], shuffle: Any) -> None:
    mixed = list(some)
    shuffle.shuffle(mixed)
    written = msgspec.to_builtins(rules)
    for place in (written, written.get("packages", {})):
        for name in ("exceptions", "allow", "exclude"):
            if place.get(name):
                place[name] = place[name][::-1]
    assert kept(rules_of(**written), mixed) == kept(rules, some)


@settings(max_examples=30, deadline=None)
@given(policies, records)
def test_rules_without_a_count_keep_what_each_of_them_keeps(rules: Rules, some: list[Facts]) -> None:
    if rules.keep_latest is not None or not rules.legacy or (rules.packages and rules.packages.include_dependencies):
        return
    exceptions = {"exceptions": rules.exceptions}
    one_by_one = {(one.part, one.filename) for one in some}
    for name, value in msgspec.to_builtins(rules).items():
        if name != "exceptions":
            one_by_one &= kept(rules_of(**{name: value}, **exceptions), some)
    assert kept(rules, some) == one_by_one


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(SPECS), min_size=1, max_size=3), records)
def test_a_closure_needs_nothing_more(allow: list[str], some: list[Facts]) -> None:
    rules = rules_of(packages={"allow": allow, "include_dependencies": True})
    found = judged(rules, *some)
    again = judged(rules, *[one.facts for one in found.chosen])
    assert again.kept == found.kept
    told = {one.requirement for one in found.missing}
    for one in found.chosen:
        for text in one.facts.depends:
            try:
                need = POLICING.dependency(text)
            except ValueError:
                assert text in told
                continue
            met = need is None or any(need.matches(other.facts) for other in found.chosen)
            assert met or text in told
