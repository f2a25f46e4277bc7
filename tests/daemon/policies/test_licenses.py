"""Licence texts mean what their documents say: SPDX, what people write, trove classifiers, R's licence database."""

import pytest

from firthd.families.policing import LicenseSyntax
from firthd.policies.licenses import (
    FAMILIES,
    All,
    Choice,
    Either,
    Meaning,
    Several,
    classifiers_meaning,
    expression_meaning,
    license_test,
    meaning_of,
    r_meaning,
)
from tests.daemon.policies.records import facts


def told(meaning: Meaning) -> str:
    """Return a meaning as the tables below write it: | a choice, + all needed, ; nobody knows which of the two."""
    if isinstance(meaning, Choice):
        return "|".join(sorted(meaning.families)) or "?"
    sign = {All: " + ", Either: " | ", Several: " ; "}[type(meaning)]
    return sign.join(told(part) for part in meaning.parts)


SPDX = {
    "MIT": "MIT",
    "X11": "MIT",
    "MIT-CMU": "MIT",
    "Apache-2.0": "APACHE",
    "Apache-2.0 WITH LLVM-exception": "APACHE",
    "BSD-3-Clause": "BSD",
    "0BSD": "BSD",
    "BSD-Protection": "OTHER",
    "LGPL-2.1-or-later": "LGPL",
    "AGPL-3.0-only": "AGPL",
    "SSPL-1.0": "OTHER",
    "GPL": "GPL",
    "GPL-1.0-or-later": "GPL",
    "GPL-2.0-only": "GPL2",
    "GPL-2.0-or-later": "GPL2|GPL3",
    "GPL-3.0": "GPL3",
    "GPL-3.0+": "GPL3",
    "GPL-3.0-with-GCC-exception": "GPL3",
    "GPL-3.0-only WITH GCC-exception-3.1": "GPL3",
    "GFDL-1.3-only": "OTHER",
    "MPL-2.0": "MOZILLA",
    "Python-2.0": "PSF",
    "PSF-2.0": "PSF",
    "CC0-1.0": "CC",
    "CC-BY-4.0": "CC",
    "CC-PDDC": "PUBLIC-DOMAIN",
    "Unlicense": "PUBLIC-DOMAIN",
    "blessing": "PUBLIC-DOMAIN",
    "LicenseRef-Public-Domain": "PUBLIC-DOMAIN",
    "LicenseRef-NVIDIA-End-User-License-Agreement": "PROPRIETARY",
    "LicenseRef-ProprietaryMicrosoft": "PROPRIETARY",
    "LicenseRef-IntelSimplifiedSoftwareOct2022": "PROPRIETARY",
    "ISC": "OTHER",
    "curl": "OTHER",
    "OpenSSL": "OTHER",
    "WTFPL": "OTHER",
    "BUSL-1.1": "OTHER",
    "zlib": "OTHER",
    "NOASSERTION": "?",
    "UNKNOWN": "?",
    "MIT WITH Classpath-exception-2.0": "MIT",
    "GPL-2.0-only WITH MIT": "?",
    "Apache-2.0 OR MIT": "APACHE | MIT",
    "GPL-2.0-only OR FTL": "GPL2 | OTHER",
    "GPL-2.0-or-later and LGPL-2.1-or-later": "GPL2|GPL3 + LGPL",
    "MIT AND LicenseRef-Public-Domain": "MIT + PUBLIC-DOMAIN",
    "LicenseRef-Commercial or GPL-3.0-only": "PROPRIETARY | GPL3",
    "LGPL-2.1-or-later AND LicenseRef-LGPL-2.1-or-later-with-unRAR-restriction": "LGPL + ?",
}

FREE = {
    "BSD": "BSD",
    "BSD 3-clause": "BSD",
    "NetBSD": "BSD",
    "GPL 3": "GPL3",
    "PSF 2": "PSF",
    "Public-Domain (http://www.sqlite.org/copyright.html)": "PUBLIC-DOMAIN",
    "MIT/X derivate (http://curl.haxx.se/docs/copyright.html)": "OTHER",
    "Tcl/Tk": "OTHER",
    "bzip2": "OTHER",
    "Unlimited": "OTHER",
    "MIT License": "MIT",
    "Custom": "?",
    "MIT/X11 Derivative": "?",
    "Free software (MIT-like)": "?",
    "Public Domain/BSD 2-Clause": "?",
    "Qwt, Version 1.0": "?",
    "GPL, LGPL, FDL, custom": "?",
    "MIT AND": "?",
    "(MIT": "?",
}

R_TEXTS = {
    "GPL-2": "GPL2",
    "GPL (== 2)": "GPL2",
    "GPL2": "GPL2",
    "GPL-3": "GPL3",
    "GPL (> 2)": "GPL3",
    "GPL (!= 2)": "GPL3",
    "GPL": "GPL2|GPL3",
    "GPL (>= 2)": "GPL2|GPL3",
    "GPL(>= 2)": "GPL2|GPL3",
    "GPL (>=2)": "GPL2|GPL3",
    "GPL (<= 3)": "GPL2|GPL3",
    "GPL (>= 2.0)": "GPL2|GPL3",
    "GPL-2 | GPL-3": "GPL2 | GPL3",
    "GNU General Public License": "GPL2|GPL3",
    "LGPL": "LGPL",
    "LGPL-2.1": "LGPL",
    "LGPL (>= 2.1)": "LGPL",
    "AGPL-3": "AGPL",
    "Apache License (== 2.0)": "APACHE",
    "Apache License 2.0": "APACHE",
    "MIT + file LICENSE": "MIT",
    "MIT + file LICENCE": "MIT",
    "BSD_3_clause + file LICENSE": "BSD",
    "FreeBSD": "BSD",
    "MPL (>= 2)": "MOZILLA",
    "MPL-1.1": "MOZILLA",
    "CC BY-NC 4.0": "CC",
    "CC0": "CC",
    "file LICENSE": "?",
    "Unlimited": "OTHER",
    "Unlimited | file LICENSE": "OTHER | ?",
    "Artistic-2.0": "OTHER",
    "ACM": "OTHER",
    "EUPL (>= 1.1)": "OTHER",
    "BSL-1.0": "OTHER",
    "GPL-2 | MIT + file LICENSE": "GPL2 | MIT",
    "Apache-2.0": "APACHE",
    "GPL-3.0": "GPL3",
    "file license": "?",
    "": "NONE",
}

OSI = "License :: OSI Approved :: "
CLASSIFIERS = {
    (f"{OSI}MIT License",): "MIT",
    (f"{OSI}Apache Software License",): "APACHE",
    (f"{OSI}GNU General Public License v2 or later (GPLv2+)",): "GPL2|GPL3",
    (f"{OSI}GNU General Public License (GPL)",): "GPL",
    (f"{OSI}GNU Affero General Public License v3",): "AGPL",
    (f"{OSI}Python License (CNRI Python License)",): "PSF",
    (f"{OSI}ISC License (ISCL)",): "OTHER",
    ("License :: CC0 1.0 Universal (CC0 1.0) Public Domain Dedication",): "CC",
    ("License :: Public Domain",): "PUBLIC-DOMAIN",
    ("License :: Other/Proprietary License",): "PROPRIETARY",
    ("License :: Repoze Public License",): "OTHER",
    ("License :: OSI Approved",): "?",
    ("License :: OSI Approved", f"{OSI}BSD License"): "BSD",
    (f"{OSI}BSD License", f"{OSI}MIT License"): "BSD ; MIT",
    ("Topic :: Software Development",): "NONE",
    (): "NONE",
}


@pytest.mark.parametrize(("text", "wanted"), [*SPDX.items(), *FREE.items()])
def test_an_expression_or_what_people_write_instead(text: str, wanted: str) -> None:
    assert told(expression_meaning(text)) == wanted


@pytest.mark.parametrize(("text", "wanted"), R_TEXTS.items())
def test_the_licence_field_of_r(text: str, wanted: str) -> None:
    assert told(r_meaning(text)) == wanted


@pytest.mark.parametrize(("names", "wanted"), CLASSIFIERS.items())
def test_classifiers(names: tuple[str, ...], wanted: str) -> None:
    assert told(classifiers_meaning(names)) == wanted


@pytest.mark.parametrize(
    ("license_", "field", "wanted"),
    [
        ("GPL-3.0-only", "MIT", "GPL3"),
        ("MIT/X11 Derivative", "MIT", "MIT"),
        (None, "Apache", "APACHE"),
        (None, None, "NONE"),
        ("None", "", "NONE"),
        ("Custom", "nonsense", "?"),
    ],
)
def test_the_field_beside_counts_only_where_the_text_says_nothing(
    license_: str | None, field: str | None, wanted: str
) -> None:
    record = facts("n", license=license_, license_family=field)
    assert told(meaning_of(LicenseSyntax.CONDA, record)) == wanted


@pytest.mark.parametrize(
    ("text", "only", "families", "passes"),
    [
        ("GPL-3.0-only", False, ["GPL"], False),
        ("GPL-2.0-only", True, ["GPL"], True),
        ("LGPL-3.0-only", False, ["GPL"], True),
        ("AGPL-3.0-only", False, ["GPL"], True),
        ("GPL-2.0-or-later", False, ["GPL3"], True),
        ("GPL-2.0-or-later", True, ["GPL2"], True),
        ("GPL-1.0-or-later", True, ["GPL3"], False),
        ("Apache-2.0 OR GPL-3.0-only", False, ["GPL3"], True),
        ("Apache-2.0 AND GPL-3.0-only", False, ["GPL3"], False),
        ("Apache-2.0 AND MIT", True, ["MIT"], False),
        ("Apache-2.0 OR MIT", True, ["MIT"], True),
        ("MIT OR Custom-Thing", True, ["MIT"], True),
        ("MIT AND LicenseRef-fitsio", True, ["MIT"], None),
        ("GPL-3.0-only AND LicenseRef-fitsio", False, ["GPL3"], False),
        ("Custom", False, ["GPL3"], None),
        ("None", True, ["NONE"], True),
        ("None", False, ["NONE"], False),
    ],
)
def test_a_choice_needs_one_part_that_passes_and_a_sum_all(
    text: str, only: bool, families: list[str], passes: bool | None
) -> None:
    assert license_test(families, only=only).passes(meaning_of(LicenseSyntax.CONDA, facts("n", license=text))) is passes


def test_several_classifiers_are_a_choice_for_a_list_of_good_ones_and_a_sum_for_one_of_bad_ones() -> None:
    meaning = classifiers_meaning((f"{OSI}BSD License", f"{OSI}GNU General Public License v3 (GPLv3)"))
    assert license_test(["BSD"], only=True).passes(meaning) is True
    assert license_test(["GPL3"], only=False).passes(meaning) is False


def test_every_family_of_the_tables_is_one_that_rules_know() -> None:
    from firthd.policies import license_names as names

    tables = (names.ALIASES, names.CLASSIFIERS, names.R_NAMES)
    found = {family for table in tables for families in table.values() for family in families}
    found |= {family for _, families in names.SPDX for family in families} | set(names.FIELDS.values())
    assert found <= set(FAMILIES)
