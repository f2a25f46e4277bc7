"""Rules of a policy as lines of a form: read back as what they were, and nonsense told with its line."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from firth_protocol.errors import Invalid
from firth_protocol.types import AdvisoryStatus, Comparison, Rules
from firth_tui.policy_rules import families_of, field_of, lines_of, rules_of, specs

LINES = lines_of(Rules())
SPECS = st.lists(st.sampled_from(["numpy >=1.26,<3", "scipy", "a;b", "x 1.0 py*", "c[build='h;1']"]), max_size=4)
PLATFORMS = st.lists(st.sampled_from(["linux-64", "noarch"]), min_size=1, max_size=3)
LICENSES = st.lists(st.sampled_from(["GPL", "PUBLIC-DOMAIN"]), min_size=1, max_size=3)
VERDICT = st.sampled_from(["allow", "deny"])


def members(words: st.SearchStrategy[list[str]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.builds(lambda how, words: {how: words}, st.sampled_from(["in", "not_in"]), words)


RULES = st.fixed_dictionaries(
    {},
    optional={
        "platforms": members(PLATFORMS),
        "licenses": st.builds(lambda rule, unknown: {**rule, "unknown": unknown}, members(LICENSES), VERDICT),
        "packages": st.one_of(
            st.fixed_dictionaries({"allow": SPECS, "exclude": SPECS, "include_dependencies": st.booleans()}),
            st.fixed_dictionaries({"exclude": SPECS.filter(bool)}),
        ),
        "exceptions": SPECS,
        "signed_only": st.booleans(),
        "legacy": st.booleans(),
        "dates": st.sampled_from(
            [{"from": "2024-01-01"}, {"to": "2025-02-03"}, {"from": "2024-01-01", "to": "2024-02-01"}]
        ),
        "min_age": st.integers(1, 36500),
        "keep_latest": st.integers(1, 10_000),
        "cve": st.fixed_dictionaries(
            {"unreviewed": VERDICT, "unscored": VERDICT},
            optional={
                "score": st.builds(
                    lambda op, value: {"op": op, "value": value / 10},
                    st.sampled_from(list(Comparison)),
                    st.integers(0, 100),
                ),
                "statuses": st.builds(lambda one: {"not_in": [one]}, st.sampled_from(list(AdvisoryStatus))),
            },
        ),
    },
)


@given(RULES)
def test_an_edit_that_changes_nothing_sends_what_was_there(given_rules: dict[str, Any]) -> None:
    rules = msgspec.convert(given_rules, Rules)
    assert rules_of(lines_of(rules)) == rules


@pytest.mark.parametrize(
    ("line", "text", "said"),
    [
        ("min_age", "-1", "whole numbers"),
        ("min_age", "0", ">= 1"),
        ("min_age", "٣", "whole numbers"),
        ("keep_latest", "999999999", "<= 10000"),
        ("since", "2024-1-1", "matching regex"),
        ("until", "soon", "matching regex"),
        ("score", "high", "is no score"),
        ("score", "> 11", "<= 10"),
        ("statuses", "gone", "Invalid enum value"),
        ("allow", "x" * 1025, "<= 1024"),
        ("platforms", " , ", "name the platforms"),
    ],
)
def test_nonsense_is_told_with_its_line(line: str, text: str, said: str) -> None:
    values = {**LINES, "takes": "only", "flaws": "yes", line: text}
    if line == "platforms":
        values["platforms_how"] = "not"
    with pytest.raises(Invalid) as refused:
        rules_of(values)
    assert refused.value.data["path"] == line
    assert said in refused.value.message


def test_no_spec_at_all_is_not_every_package() -> None:
    rules = rules_of({**LINES, "takes": "only"})
    assert rules.packages is not None
    assert rules.packages.allow == []
    assert rules_of(LINES).packages is None


def test_families() -> None:
    assert families_of({"families": "Conda, r"}) == ["conda", "r"]
    assert families_of({"families": ""}) is None
    with pytest.raises(Invalid):
        families_of({"families": "cobol"})


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("$.rules.packages.allow[1]", "allow"),
        ("$.rules.exceptions[0]", "exceptions"),
        ("$.rules.licenses.not_in[2]", "licenses"),
        ("$.rules.dates", "since"),
        ("$.rules.dates.to", "until"),
        ("$.rules.cve.score.value", "score"),
        ("$.families", "families"),
        ("$.name", "name"),
    ],
)
def test_where_a_place_stands(path: str, line: str) -> None:
    assert field_of(path) == line


def test_specs_hold_commas_and_marked_semicolons() -> None:
    assert specs("numpy >=1,<2; a\\;b;; ") == ["numpy >=1,<2", "a;b"]
