"""Specs of three families: what is taken, what is refused with a hint, what matches; and the order of versions.

The expected answers are those of CEP 29, CEP 33, PEP 440 and PEP 508, and of the operators of R's `package_version`.
"""

from collections.abc import Callable
from typing import Any

import pytest

from firth_protocol.errors import Invalid
from firthd.families.conda.policing import POLICING
from firthd.families.policing import Need
from firthd.families.python import requirement as python
from firthd.families.r import requirement as r
from firthd.policies.specs import Specs, check_specs
from tests.daemon.policies.records import facts

Parse = Callable[[str], Need]
FAMILIES: dict[str, Parse] = {"c": POLICING.requirement, "p": python.requirement, "r": r.requirement}

TAKEN = {
    "n": "cpr",
    "n >=1.26,<3": "cpr",
    "n >=1.26, <3": "cpr",
    "n>=1.26": "cpr",
    "n ==1.*": "cpr",
    "n ==1.26": "cpr",
    "n ~=1.4": "cpr",
    "n !=2.0": "cpr",
    "n ~=1": "",
    "n =1.26": "c",
    "n 1.*": "c",
    "n 1.26 py311_0": "c",
    "n ===1.26": "",
    "n >=1.26,": "",
    "n >=1.26 <3": "",
    "my pkg >=1": "",
    "n>=1;": "",
    "n ; python_version<'3'": "",
    "n >=1.1.1w": "c",
    "n >=latest": "c",
    "n[extra] >=1": "p",
    "n[build='py*']": "c",
    "n[build_number='>=1']": "c",
    "n[subdir=linux-64]": "c",
    "c::n": "c",
    "linux-64::n": "",
    "n[license=MIT]": "",
    "n[when='x']": "",
    "n[url=https://example.org/n-1-0.conda]": "",
    "n[md5=abababababababababababababababab]": "",
    "https://example.org/n-1-0.conda": "",
    "n pandas": "",
    "n >=1|<0.5": "c",
    "num*": "",
    "*": "",
    "": "",
    "_libgcc_mutex": "c",
    "n >=1.0+x": "c",
    "n @ https://example.org/n.whl": "",
}


@pytest.mark.parametrize(("spec", "families"), TAKEN.items())
@pytest.mark.parametrize("family", "cpr")
def test_a_spec_is_taken_or_refused_with_a_hint(spec: str, families: str, family: str) -> None:
    if family in families:
        assert FAMILIES[family](spec).name
        return
    with pytest.raises(Invalid) as refused:
        FAMILIES[family](spec)
    assert refused.value.hint


MATCHES: list[tuple[str, str, str, bool]] = [
    # family, spec, version, whether it matches
    ("c", "n =1.8", "1.8.2", True),
    ("c", "n =1.8", "1.80", False),
    ("c", "n ==1.8", "1.8.0", True),
    ("c", "n 1.8", "1.8.2", False),
    ("c", "n !=1.8", "1.8.2", True),
    ("c", "n !=1.8.*", "1.8.2", False),
    ("c", "n ~=1.8.1", "1.8.9", True),
    ("c", "n ~=1.8.1", "1.9", False),
    ("c", "n ==1.*", "1.2", True),
    ("c", "n >=1.8|<1", "0.5", True),
    ("c", "n <2", "2.0rc1", True),
    ("c", "n >=1.1.1", "1.1.1w", False),
    ("c", "n >=1.0", "1!0.5", True),
    ("c", "n >1.0", "1.0.post1", True),
    ("c", "n ==1.0", "1.0+x", False),
    ("p", "n <2", "2.0rc1", False),
    ("p", "n >=1.0", "2.0rc1", True),
    ("p", "n >1.0", "1.0.post1", False),
    ("p", "n ==1.0", "1.0+x", True),
    ("p", "n !=2.0", "2.0+x", False),
    ("p", "n ==1.*", "1.0rc1", True),
    ("p", "n >=1.0", "1!0.5", True),
    ("p", "n ~=1.4", "1.5.dev1", True),
    ("p", "n >=1", "latest", False),
    ("p", "n", "latest", True),
    ("p", "N_x", "1", False),
    ("r", "n ==1.0", "1.0.0", True),
    ("r", "n >=1.0-1", "1.0.1", True),
    ("r", "n <0.9-10", "0.9.2", True),
    ("r", "n ==1.*", "1.9-3", True),
    ("r", "n ==1.*", "2.0", False),
    ("r", "n !=1.*", "2.0", True),
    ("r", "n ~=1.4", "1.10", True),
    ("r", "n ~=1.4", "2.0", False),
    ("r", "n >=1.0", "1.0a", False),
    ("r", "n", "1.0a", True),
    ("r", "n >=1", "3000000000", False),
]


@pytest.mark.parametrize(("family", "spec", "version", "matches"), MATCHES)
def test_a_version_matches_as_the_family_says(family: str, spec: str, version: str, matches: bool) -> None:
    assert FAMILIES[family](spec).matches(facts("n", version)) is matches


ORDERS: list[tuple[Callable[[str], Any], str, str, str]] = [
    (POLICING.version_key, "1.0", "=", "1.0.0"),
    (POLICING.version_key, "1.0-1", "=", "1.0.1"),
    (POLICING.version_key, "1.1.1w", "<", "1.1.1"),
    (POLICING.version_key, "2.0rc1", "<", "2"),
    (POLICING.version_key, "1.0.dev1", ">", "1.0a1"),
    (POLICING.version_key, "1!0.5", ">", "2024.1"),
    (python.version_key, "1.0-1", "<", "1.0.1"),
    (python.version_key, "1.0.dev1", "<", "1.0a1"),
    (python.version_key, "1.0+local", ">", "1.0"),
    (python.version_key, "0.9-10", "<", "0.9.2"),
    (python.version_key, "latest", "<", "0.1"),
    (r.version_key, "1.0", "=", "1.0.0"),
    (r.version_key, "0.9-10", ">", "0.9.2"),
    (r.version_key, "0.9-10", "=", "0.9.10"),
    (r.version_key, "1.4.1", "<", "1.4-2"),
    (r.version_key, "0.99.2", "<", "1.0-0"),
    (r.version_key, "00.1", "=", "0.1"),
    (r.version_key, "1.0a", "<", "0.0"),
]


@pytest.mark.parametrize(("key", "one", "sign", "other"), ORDERS)
def test_versions_are_ordered_as_the_family_says(key: Callable[[str], Any], one: str, sign: str, other: str) -> None:
    found = "=" if key(one) == key(other) else "<" if key(one) < key(other) else ">"
    assert found == sign


@pytest.mark.parametrize(
    ("text", "read"),
    [("Rcpp", True), ("Rcpp (>= 1.0)", True), ("R (>= 4.1.0)", True), ("foo(>= 1.0)", True)]
    + [(bad, False) for bad in ("R (>=3.5)", "R (>= 3.5", "R (>= r12345)", "R (3.5)", "R (>= 3)", "", "1foo")],
)
def test_the_grammar_of_an_r_dependency(text: str, read: bool) -> None:
    if read:
        assert r.dependency(text).name
    else:
        with pytest.raises(ValueError):
            r.dependency(text)


def test_names_go_by_the_familys_own_rule() -> None:
    assert POLICING.requirement("Rcpp").name == "rcpp"
    assert python.requirement("Foo_Bar").matches(facts("foo.bar"))
    assert not r.requirement("rcpp").matches(facts("Rcpp"))


def test_virtual_packages_are_given_and_odd_records_are_read() -> None:
    assert POLICING.dependency("__glibc >=2.17") is None
    assert POLICING.dependency("__osx>=10.12") is None
    for text in (
        "_libgcc_mutex 0.1 conda_forge",
        "vc 14",
        "x =*=cpu",
        "cuda-version  >= 11.0",
        "libopenblas >=0.3, !=0.4",
    ):
        need = POLICING.dependency(text)
        assert need is not None
        assert need.name
    with pytest.raises(ValueError):
        POLICING.dependency("n >=1.8,")


def test_a_build_counts_and_a_digest_does() -> None:
    need = POLICING.requirement("python_abi * *_cp310")
    assert need.matches(facts("python_abi", "3.10", build="5_cp310"))
    assert not need.matches(facts("python_abi", "3.12", build="5_cp312"))
    digest = "ab" * 32
    assert POLICING.requirement(f"n[sha256={digest}]").matches(facts("n", sha256=digest))
    assert not POLICING.requirement(f"n[sha256={digest}]").matches(facts("n", sha256="cd" * 32))


def test_a_platform_in_a_spec_counts() -> None:
    need = POLICING.requirement("n[subdir=linux-64]")
    assert [need.matches(facts("n", part=part)) for part in ("linux-64", "win-64", "noarch")] == [True, False, False]


def test_specs_are_found_by_name_and_refused_with_their_place() -> None:
    specs = Specs(["a >=1", "a ==0.5", "b"], POLICING)
    assert specs.match("a", facts("a", "0.5")) == "a ==0.5"
    assert specs.match("a", facts("a", "0.7")) is None
    assert specs.match("c", facts("c")) is None
    with pytest.raises(Invalid) as refused:
        check_specs(["a", "b >=1 <2"], POLICING, "$.rules.packages.allow")
    assert refused.value.data["path"] == "$.rules.packages.allow[1]"


@pytest.mark.parametrize(
    ("version", "early"),
    [("1.0rc1", True), ("2.0b2", True), ("1.0a1", True), ("1.0.dev1", True), ("1.0alpha", True)]
    + [(final, False) for final in ("1.1.1a", "2024a", "1.1.1w", "9e", "1.0.post1", "1.0")],
)
def test_a_pre_release_is_told_from_a_letter_of_a_release(version: str, early: bool) -> None:
    assert POLICING.prerelease(version) is early
