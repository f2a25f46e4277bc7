"""A table of rules and edges with the verdicts that their meaning demands; what makes no sense is refused at saving."""

from typing import Any

import msgspec
import pytest

from firth_protocol.errors import Invalid
from firth_protocol.types import Family, Rules
from firthd.families.base import Facts
from firthd.families.conda.policing import POLICING
from firthd.policies.judge import Judge
from firthd.policies.rules import check_rules, in_words
from tests.daemon.policies.records import DAY_MS, NOW_MS, facts, rules_of, verdicts

SINGLE: list[tuple[str, dict[str, Any], dict[str, Any], str | None]] = [
    # what is shown, the rules, the record, the rule that decides
    ("no rule keeps all", {}, {}, None),
    ("a platform in the list", {"platforms": {"in": ["linux-64"]}}, {"part": "linux-64"}, None),
    ("a platform not in the list", {"platforms": {"in": ["linux-64"]}}, {"part": "win-64"}, "platforms"),
    ("what is for all passes a list", {"platforms": {"in": ["linux-64"]}}, {"part": "noarch"}, None),
    ("what is for all goes when it is named", {"platforms": {"not_in": ["noarch"]}}, {"part": "noarch"}, "platforms"),
    ("what is for all stays when others are named", {"platforms": {"not_in": ["win-64"]}}, {"part": "noarch"}, None),
    ("a licence in the list", {"licenses": {"in": ["MIT", "BSD"]}}, {"license": "BSD-3-Clause"}, None),
    ("a licence not in the list", {"licenses": {"in": ["MIT"]}}, {"license": "GPL-3.0-only"}, "licenses"),
    ("an unknown licence is denied", {"licenses": {"not_in": ["GPL3"]}}, {"license": "Custom"}, "licenses"),
    (
        "an unknown licence is allowed",
        {"licenses": {"not_in": ["GPL3"], "unknown": "allow"}},
        {"license": "Custom"},
        None,
    ),
    ("no licence is one of its own", {"licenses": {"not_in": ["NONE"]}}, {"license": None}, "licenses"),
    ("a choice of licences", {"licenses": {"in": ["MIT"]}}, {"license": "MIT OR GPL-3.0-only"}, None),
    ("allowed by name", {"packages": {"allow": ["n"]}}, {}, None),
    ("allowed by version", {"packages": {"allow": ["n >=1,<2"]}}, {"version": "1.9"}, None),
    ("a version that is not allowed", {"packages": {"allow": ["n >=1,<2"]}}, {"version": "2.0"}, "packages"),
    ("a name that is not allowed", {"packages": {"allow": ["m"]}}, {}, "packages"),
    ("an empty list keeps nothing", {"packages": {"allow": []}}, {}, "packages"),
    ("excluded", {"packages": {"exclude": ["n <2"]}}, {}, "packages"),
    ("excluded and allowed", {"packages": {"allow": ["n"], "exclude": ["n 1.0"]}}, {}, "packages"),
    ("an exception to excluding", {"packages": {"exclude": ["n"]}, "exceptions": ["n 1.0"]}, {}, None),
    ("an exception to a licence", {"licenses": {"in": ["BSD"]}, "exceptions": ["n"]}, {}, None),
    ("an exception of another name", {"licenses": {"in": ["BSD"]}, "exceptions": ["m"]}, {}, "licenses"),
    ("signed", {"signed_only": True}, {"signed": True}, None),
    ("not signed", {"signed_only": True}, {"signed": False}, "signed_only"),
    ("nobody knows whether it is signed", {"signed_only": True}, {"signed": None}, "signed_only"),
    ("the first day counts", {"dates": {"from": "2026-01-01"}}, {"timestamp": 1767225600000}, None),
    ("the day before", {"dates": {"from": "2026-01-01"}}, {"timestamp": 1767225599999}, "dates"),
    ("the last day counts to its end", {"dates": {"to": "2026-01-01"}}, {"timestamp": 1767311999999}, None),
    ("the day after", {"dates": {"to": "2026-01-01"}}, {"timestamp": 1767312000000}, "dates"),
    (
        "the upload counts before the build",
        {"dates": {"from": "2026-01-01"}},
        {"timestamp": 0, "indexed": 1767225600000},
        None,
    ),
    ("without a date", {"dates": {"from": "2026-01-01"}}, {"timestamp": None}, "dates"),
    ("old enough", {"min_age": 7}, {"indexed": NOW_MS - 7 * DAY_MS}, None),
    ("too young", {"min_age": 7}, {"indexed": NOW_MS - 6 * DAY_MS}, "min_age"),
    ("whole days count, not hours", {"min_age": 1}, {"indexed": NOW_MS // DAY_MS * DAY_MS - 1}, None),
    ("today is too young", {"min_age": 1}, {"indexed": NOW_MS // DAY_MS * DAY_MS}, "min_age"),
    ("the server's time counts before the first sight", {"min_age": 7}, {"timestamp": 0, "indexed": NOW_MS}, "min_age"),
]


@pytest.mark.parametrize(("rules", "record", "rule"), [pytest.param(*row[1:], id=row[0]) for row in SINGLE])
def test_one_record(rules: dict[str, Any], record: dict[str, Any], rule: str | None) -> None:
    assert verdicts(rules_of(**rules), facts("n", **record)) == [rule]


def test_the_old_form_goes_where_the_new_one_is_there_and_passes() -> None:
    old = facts("n", filename="n-1.0-0.tar.bz2")
    alone = facts("n", "2.0", filename="n-2.0-0.tar.bz2")
    new = facts("n")
    assert verdicts(rules_of(legacy=False), new, old, alone) == [None, "legacy", None]
    assert verdicts(rules_of(), new, old, alone) == [None, None, None]
    # in another part there is no twin, and one that another rule leaves out is none
    elsewhere = facts("n", filename="n-1.0-0.tar.bz2", part="linux-64")
    assert verdicts(rules_of(legacy=False), new, elsewhere) == [None, None]
    bad = facts("n", license="GPL-3.0-only")
    rules = rules_of(legacy=False, licenses={"in": ["MIT"]})
    assert verdicts(rules, bad, old) == ["licenses", None]
    assert verdicts(rules_of(legacy=False, exceptions=["n"]), new, old) == [None, None]


def test_the_newest_versions_stay_in_each_part() -> None:
    records = [facts("n", version) for version in ("1.0", "1.10", "1.9", "2.0rc1")]
    assert verdicts(rules_of(keep_latest=1), *records) == ["keep_latest", None, "keep_latest", "keep_latest"]
    assert verdicts(rules_of(keep_latest=2), *records) == ["keep_latest", None, None, "keep_latest"]
    early = [facts("n", "2.0rc1"), facts("n", "2.0rc2")]
    assert verdicts(rules_of(keep_latest=1), *early) == ["keep_latest", None]
    builds = [facts("n", build="0"), facts("n", build="1"), facts("n", "1", build="2"), facts("n", "0.9")]
    assert verdicts(rules_of(keep_latest=1), *builds) == [None, None, None, "keep_latest"]
    parts = [facts("n", "1.0", part="linux-64"), facts("n", "2.0", part="win-64")]
    assert verdicts(rules_of(keep_latest=1), *parts) == [None, None]


def test_the_newest_are_counted_among_what_all_other_rules_keep() -> None:
    records = [facts("n", "1.0"), facts("n", "2.0", license="GPL-3.0-only"), facts("n", "0.5")]
    rules = rules_of(keep_latest=1, licenses={"in": ["MIT"]})
    assert verdicts(rules, *records) == [None, "licenses", "keep_latest"]
    assert verdicts(rules_of(keep_latest=1, exceptions=["n 0.5"]), *records) == ["keep_latest", None, None]


NONSENSE: list[tuple[dict[str, Any], str]] = [
    ({"platforms": {}}, "$.rules.platforms"),
    ({"platforms": {"in": ["linux-64"], "not_in": ["win-64"]}}, "$.rules.platforms"),
    ({"platforms": {"in": ["linux64"]}}, "$.rules.platforms.in[0]"),
    ({"licenses": {"not_in": ["MIT", "GPLv3"]}}, "$.rules.licenses.not_in[1]"),
    ({"packages": {"include_dependencies": True}}, "$.rules.packages.include_dependencies"),
    ({"packages": {"allow": ["numpy", "numpy >=1 <2"]}}, "$.rules.packages.allow[1]"),
    ({"packages": {"exclude": ["numpy >>1"]}}, "$.rules.packages.exclude[0]"),
    ({"exceptions": [""]}, "$.rules.exceptions[0]"),
    ({"dates": {}}, "$.rules.dates"),
    ({"dates": {"from": "2026-02-30"}}, "$.rules.dates.from"),
    ({"dates": {"from": "2026-02-02", "to": "2026-02-01"}}, "$.rules.dates"),
    ({"cve": {}}, "$.rules.cve"),
]


@pytest.mark.parametrize(("rules", "path"), NONSENSE)
def test_nonsense_is_refused_with_its_place(rules: dict[str, Any], path: str) -> None:
    made = Rules(exceptions=[""]) if rules == {"exceptions": [""]} else rules_of(**rules)
    with pytest.raises(Invalid) as refused:
        check_rules(made, {Family.CONDA: POLICING})
    assert refused.value.data["path"] == path


def test_rules_are_told_in_words() -> None:
    rules = rules_of(
        packages={"allow": ["numpy >=1.26,<3"], "exclude": ["pandas"], "include_dependencies": True},
        licenses={"not_in": ["GPL"]},
        min_age=7,
        keep_latest=1,
    )
    assert in_words(rules, list(Family)) == [
        "Only numpy >=1.26,<3, with what they depend on.",
        "Not pandas.",
        "Licences: all but GPL; unknown ones are left out.",
        "Only what is 7 days old or older; what is younger enters by itself.",
        "Of each package the newest 1 version.",
    ]
    assert in_words(Rules(), [Family.CONDA]) == ["It judges conda packages only.", "It keeps everything."]


def test_rules_survive_being_written_down() -> None:
    for _, rules, _, _ in SINGLE:
        made = rules_of(**rules)
        assert msgspec.json.decode(msgspec.json.encode(made), type=Rules) == made


def test_an_age_counts_from_the_first_sight_also_of_what_other_rules_keep_out_today() -> None:
    seen: list[str] = []

    def first_seen(one: Facts) -> int:
        seen.append(one.filename)
        return NOW_MS - DAY_MS

    rules = rules_of(min_age=3, packages={"allow": ["m"]})
    assert verdicts(rules, facts("n"), facts("m", indexed=0), first_seen=first_seen) == ["packages", None]
    assert set(seen) == {"n-1.0-0.conda"}
    assert Judge(rules, POLICING).cut is None
