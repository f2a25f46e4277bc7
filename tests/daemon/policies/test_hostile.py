"""Specs, versions, licences and requirements that somebody made up to break a policy: refused, or judged, at once."""

from contextlib import suppress

import pytest

from firth_protocol.errors import Invalid
from firthd.families.conda.policing import POLICING as CONDA
from firthd.families.policing import LicenseSyntax, Policing
from firthd.families.python.policing import POLICING as PYTHON
from firthd.families.r.policing import POLICING as R
from firthd.policies.licenses import license_test, meaning_of
from tests.daemon.policies.records import facts, judged, rules_of

FAMILIES = pytest.mark.parametrize("policing", [CONDA, PYTHON, R], ids=["conda", "python", "r"])
PACKAGES = 10_000

SPECS = (
    f"n {'>=1,' * 3000}<2",
    "n >=" + "9" * 5000,
    "n >=" + "1." * 500 + "1",
    "n" * 10_000,
    "(a+)+$",
    "^(a|a)*$",
    "n[version='>=1'",
    "n >=1" + "," * 500,
    "n ==1!2.0.post999999999999999999999",
    "n >=1|" * 150 + "2",
    "n (" * 200,
    "[" * 500,
    "n\x00",
    "n\n>=1",
    "é",
    "*",
)
VERSIONS = (
    "1!2.0.post999999999999999999999",
    "9" * 5000,
    "1." * 3000 + "1",
    "",
    "1.2-3",
    "..",
    "v1",
    "1e5",
    "\x00",
    "é",
    "1.0+" + "a." * 300 + "b",
    "*",
)
LICENSES = (
    "MIT OR " * 20_000 + "MIT",
    "(" * 50_000,
    "a" * 100_000,
    "GPL (>= 2) | " * 5000,
    "MIT WITH " * 100,
    "(MIT) AND (" * 60,
    "\x00",
)


@FAMILIES
def test_specs(policing: Policing) -> None:
    for spec in SPECS:
        with suppress(Invalid):
            policing.requirement(spec)


@FAMILIES
def test_versions_and_requirements(policing: Policing) -> None:
    need = policing.requirement("n >=1,<3")
    for version in VERSIONS:
        need.matches(facts("n", version))
        policing.prerelease(version)
        assert len(sorted(policing.version_key(one) for one in (version, "1.0", "0.1"))) == 3
        for text in (f"n {version}", f"n >={version}", f"n (>= {version})"):
            with suppress(ValueError):
                policing.dependency(text)


@pytest.mark.parametrize("syntax", LicenseSyntax)
def test_licences(syntax: LicenseSyntax) -> None:
    test = license_test(["MIT"], only=True)
    for text in LICENSES:
        assert test.passes(meaning_of(syntax, facts("n", license=text))) in {True, False, None}


def test_ten_thousand_packages_in_a_circle() -> None:
    circle = [facts(f"p{n}", depends=[f"p{(n + 1) % PACKAGES} >=1"]) for n in range(PACKAGES)]
    judging = judged(rules_of(packages={"allow": ["p0"], "include_dependencies": True}), *circle)
    assert (judging.kept, judging.missing) == (PACKAGES, [])
