"""What allowed packages need comes along, bound by what is allowed; what nothing meets is told with its chain."""

from typing import Any

from firthd.families.base import Facts
from tests.daemon.policies.records import facts, judged, rules_of, verdicts

LINUX, WIN = "linux-64", "win-64"


def closed(*allow: str, **more: Any) -> Any:
    packages = {"allow": list(allow), "include_dependencies": True, **more.pop("packages", {})}
    return rules_of(packages=packages, **more)


def files(rules: Any, *records: Facts) -> set[str]:
    return {one.facts.filename for one in judged(rules, *records).chosen}


def test_what_is_needed_comes_along_and_nothing_else() -> None:
    records = [
        facts("app", depends=["lib >=1.1", "__glibc >=2.17"]),
        facts("lib", "1.0"),
        facts("lib", "1.2", depends=["base"]),
        facts("base"),
        facts("other"),
    ]
    assert verdicts(closed("app"), *records) == [None, "packages", None, None, "packages"]
    assert judged(closed("app"), *records).missing == []


def test_builds_count() -> None:
    records = [
        facts("app", depends=["python_abi 3.12.* *_cp312"]),
        facts("python_abi", "3.12", build="5_cp312"),
        facts("python_abi", "3.12", build="5_cp310"),
    ]
    assert verdicts(closed("app"), *records) == [None, None, "packages"]


def test_what_is_allowed_binds_what_is_needed() -> None:
    records = [facts("app", depends=["lib >=1"]), facts("lib", "1.5"), facts("lib", "2.0")]
    assert verdicts(closed("app", "lib <2"), *records) == [None, None, "packages"]
    narrow = judged(closed("app", "lib <1"), *records)
    assert [(one.requirement, one.why) for one in narrow.missing] == [
        ("lib <1", "what there is is left out by packages: not among the versions that are allowed"),
        ("lib >=1", "what there is is left out by packages: not among the versions that are allowed"),
    ]


def test_cycles_end() -> None:
    records = [facts("a", depends=["b"]), facts("b", depends=["a", "c"]), facts("c", depends=["b"])]
    assert verdicts(closed("a"), *records) == [None, None, None]


def test_what_is_missing_is_told_with_the_chain_and_the_reason() -> None:
    records = [
        facts("app", depends=["lib"]),
        facts("lib", depends=["base >=3", "gone", "tainted"]),
        facts("base", "2.0"),
        facts("tainted", license="GPL-3.0-only"),
    ]
    found = judged(closed("app", licenses={"not_in": ["GPL3"]}), *records)
    chain = ["app-1.0-0.conda", "lib-1.0-0.conda"]
    assert [(one.requirement, one.chain, one.why) for one in found.missing] == [
        ("base >=3", chain, "no version that is kept meets it"),
        ("gone", chain, "the source has no such package"),
        ("tainted", chain, "what there is is left out by licenses: GPL3: GPL-3.0-only"),
    ]


def test_an_allowed_spec_that_nothing_matches_is_missing() -> None:
    (one,) = judged(closed("nothing >=1"), facts("app")).missing
    assert (one.requirement, one.chain, one.why) == ("nothing >=1", [], "the source has no such package")


def test_each_platform_is_looked_at_for_itself() -> None:
    records = [
        facts("app", depends=["lib"], part=LINUX),
        facts("app", depends=["lib"], part=WIN),
        facts("lib", part=LINUX, build="l"),
    ]
    found = judged(closed("app"), *records)
    assert [(one.requirement, one.platform) for one in found.missing] == [("lib", WIN)]
    shared = [*records, facts("lib", part="noarch", build="n")]
    assert judged(closed("app"), *shared).missing == []
    assert files(closed("app"), *shared) >= {"lib-1.0-n.conda", "lib-1.0-l.conda"}


def test_what_only_some_platforms_have_is_no_lack_of_what_is_for_all() -> None:
    records = [
        facts("app", depends=["pywin"]),
        facts("pywin", part=WIN),
        facts("any", part=LINUX),
    ]
    assert judged(closed("app"), *records).missing == []
    gone = [records[0], facts("any", part=LINUX), facts("any", part=WIN)]
    assert [one.platform for one in judged(closed("app"), *gone).missing] == ["noarch"]


def test_a_wanted_platform_brings_what_is_for_all_and_is_needed() -> None:
    records = [
        facts("app", depends=["tool"], part=LINUX),
        facts("app", depends=["tool"], part=WIN),
        facts("tool"),
        facts("unneeded"),
    ]
    rules = closed("app", platforms={"in": [LINUX]})
    assert verdicts(rules, *records) == [None, "platforms", None, "packages"]


def test_a_requirement_that_cannot_be_read_is_told_and_stops_nothing() -> None:
    records = [facts("app", depends=["lib >=1.8,", "base"]), facts("base")]
    found = judged(closed("app"), *records)
    (one,) = found.missing
    assert one.requirement == "lib >=1.8,"
    assert one.why.startswith("it cannot be read")
    assert files(closed("app"), *records) == {"app-1.0-0.conda", "base-1.0-0.conda"}


def test_each_requirement_gets_the_newest_that_meet_it() -> None:
    records = [
        facts("old", depends=["lib <2"]),
        facts("new", depends=["lib >=2"]),
        *(facts("lib", version) for version in ("1.0", "1.5", "2.0", "2.5")),
    ]
    assert verdicts(closed("old", "new", keep_latest=1), *records) == [None, None, "packages", None, "packages", None]


def test_an_exception_meets_a_requirement_and_excluding_takes_it_away() -> None:
    records = [facts("app", depends=["lib"]), facts("lib", license="GPL-3.0-only")]
    assert verdicts(closed("app", licenses={"in": ["MIT"]}, exceptions=["lib"]), *records) == [None, None]
    found = judged(closed("app", packages={"exclude": ["lib"]}), *records)
    assert [one.why for one in found.missing] == ["what there is is left out by packages: excluded by `lib`"]


def test_names_are_offered_as_long_as_no_rule_about_packages_gives_them_up() -> None:
    records = [
        facts("app", depends=["lib"]),
        facts("lib", license="GPL-3.0-only"),
        facts("other"),
        facts("unwanted", license="GPL-3.0-only"),
    ]
    assert judged(closed("app", licenses={"in": ["MIT"]}), *records).offered == {"noarch": {"app", "lib"}}
    plain = judged(rules_of(packages={"exclude": ["other"]}, licenses={"in": ["MIT"]}), *records)
    assert plain.offered == {"noarch": {"app", "lib", "unwanted"}}
