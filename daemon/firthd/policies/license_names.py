"""The tables by which licence texts are mapped to families: names that people write, SPDX ids, classifiers, R's names.

A name that stands in no table is unknown: it is told, never guessed.
"""

import re
from collections.abc import Mapping, Sequence

GPL_ANY = frozenset({"GPL2", "GPL3"})


def _table(rows: Mapping[str, Sequence[str]], **several: Sequence[str]) -> dict[str, frozenset[str]]:
    found = {name: frozenset({family}) for family, names in rows.items() for name in names}
    return found | dict.fromkeys(several.get("gpl_any", ()), GPL_ANY)


FIELDS: Mapping[str, str] = {
    "AGPL": "AGPL",
    "APACHE": "APACHE",
    "BSD": "BSD",
    "CC": "CC",
    "GPL": "GPL",
    "GPL2": "GPL2",
    "GPL3": "GPL3",
    "LGPL": "LGPL",
    "MIT": "MIT",
    "MOZILLA": "MOZILLA",
    "PSF": "PSF",
    "PUBLIC-DOMAIN": "PUBLIC-DOMAIN",
    "PUBLICDOMAIN": "PUBLIC-DOMAIN",
    "PROPRIETARY": "PROPRIETARY",
    "OTHER": "OTHER",
}
"""What a record's own field for the family may say, in upper case; it counts only where the text says nothing."""

SPDX: Sequence[tuple[re.Pattern[str], frozenset[str]]] = [
    (re.compile(pattern), frozenset(families.split()))
    for pattern, families in (
        (r"AGPL-.*", "AGPL"),
        (r"LGPL-.*", "LGPL"),
        (r"GPL-1\.0.*", "GPL"),
        (r"GPL-2\.0-or-later.*", "GPL2 GPL3"),
        (r"GPL-2\.0.*", "GPL2"),
        (r"GPL-3\.0.*", "GPL3"),
        (r"Apache-.*", "APACHE"),
        (r"MPL-.*", "MOZILLA"),
        (r"BSD-Protection", "OTHER"),
        (r"BSD-.*|0BSD", "BSD"),
        (r"MIT|MIT-.*|MITNFA|X11", "MIT"),
        (r"CC-PDDC|CC-PDM-1\.0|Unlicense|blessing|SAX-PD.*", "PUBLIC-DOMAIN"),
        (r"CC-.*|CC0-1\.0", "CC"),
        (r"PSF-2\.0|Python-2\.0(\.1)?|CNRI-Python", "PSF"),
    )
]
"""Ids of SPDX, the first pattern that matches a whole id; every other id of SPDX is OTHER."""

ALIASES: Mapping[str, frozenset[str]] = _table(
    {
        "AGPL": ["agpl", "agplv3", "agpl-3", "agpl 3", "gnu agpl", "gnu agplv3"],
        "APACHE": [
            "apache",
            "apache 2",
            "apache 2.0",
            "apache v2",
            "apache license",
            "apache license 2.0",
            "apache license, version 2.0",
            "apache license version 2.0",
            "apache software license",
            "apache software license 2.0",
            "asl 2.0",
        ],
        "BSD": [
            "bsd",
            "bsd license",
            "bsd 2-clause",
            "bsd 2-clause license",
            "bsd 3-clause",
            "bsd 3-clause license",
            "bsd-3",
            "bsd-2",
            "new bsd",
            "new bsd license",
            "modified bsd",
            "simplified bsd",
            "netbsd",
            "freebsd",
        ],
        "GPL": ["gpl", "gnu gpl", "gnu general public license"],
        "GPL2": ["gpl 2", "gpl2", "gpl-2", "gplv2", "gpl v2", "gnu gplv2", "gnu gpl v2"],
        "GPL3": ["gpl 3", "gpl3", "gpl-3", "gplv3", "gpl v3", "gnu gplv3", "gnu gpl v3", "gplv3+", "gpl-3+"],
        "LGPL": [
            "lgpl",
            "lgplv2",
            "lgplv2.1",
            "lgplv3",
            "lgpl v2.1",
            "lgpl v3",
            "lgpl 2.1",
            "lgpl 3",
            "lgpl-2",
            "lgpl-3",
            "gnu lgpl",
            "gnu lesser general public license",
        ],
        "MIT": ["mit license", "the mit license", "expat", "expat license", "mit-style"],
        "MOZILLA": ["mpl", "mpl 2", "mpl 2.0", "mpl2", "mozilla public license 2.0"],
        "PSF": ["psf", "psf 2", "psf license", "python software foundation license", "python license"],
        "PUBLIC-DOMAIN": [
            "public domain",
            "public-domain",
            "publicdomain",
            "the unlicense",
            "public-domain (http://www.sqlite.org/copyright.html)",
        ],
        "PROPRIETARY": ["proprietary", "commercial", "proprietary license", "other/proprietary license"],
        "CC": ["cc0", "cc0 1.0"],
        "OTHER": [
            "mit/x derivate (http://curl.haxx.se/docs/copyright.html)",
            "tcl/tk",
            "bzip2",
            "apache-style (http://www.openssl.org/source/license.html)",
            "zlib (http://zlib.net/zlib_license.html)",
            "unlimited",
            "isc license",
        ],
    },
    gpl_any=["gplv2+", "gpl-2+", "gpl 2+", "gpl >= 2"],
)
"""What people write, folded, with single blanks."""

CLASSIFIERS: Mapping[str, frozenset[str]] = _table(
    {
        "AGPL": [
            "GNU Affero General Public License v3",
            "GNU Affero General Public License v3 or later (AGPLv3+)",
        ],
        "APACHE": ["Apache Software License"],
        "BSD": ["BSD License", "Zero-Clause BSD (0BSD)"],
        "CC": ["CC0 1.0 Universal (CC0 1.0) Public Domain Dedication"],
        "GPL": ["GNU General Public License (GPL)"],
        "GPL2": ["GNU General Public License v2 (GPLv2)"],
        "GPL3": [
            "GNU General Public License v3 (GPLv3)",
            "GNU General Public License v3 or later (GPLv3+)",
        ],
        "LGPL": [
            "GNU Lesser General Public License v2 (LGPLv2)",
            "GNU Lesser General Public License v2 or later (LGPLv2+)",
            "GNU Lesser General Public License v3 (LGPLv3)",
            "GNU Lesser General Public License v3 or later (LGPLv3+)",
            "GNU Library or Lesser General Public License (LGPL)",
        ],
        "MIT": ["MIT License", "MIT No Attribution License (MIT-0)", "CMU License (MIT-CMU)"],
        "MOZILLA": [
            "Mozilla Public License 1.0 (MPL)",
            "Mozilla Public License 1.1 (MPL 1.1)",
            "Mozilla Public License 2.0 (MPL 2.0)",
        ],
        "PSF": ["Python Software Foundation License", "Python License (CNRI Python License)"],
        "PUBLIC-DOMAIN": ["Public Domain", "The Unlicense (Unlicense)"],
        "PROPRIETARY": [
            "Other/Proprietary License",
            "Free For Educational Use",
            "Free For Home Use",
            "Free To Use But Restricted",
            "Free for non-commercial use",
            "Freeware",
        ],
        "OTHER": [
            "Aladdin Free Public License (AFPL)",
            "CeCILL-B Free Software License Agreement (CECILL-B)",
            "CeCILL-C Free Software License Agreement (CECILL-C)",
            "Eiffel Forum License (EFL)",
            "GUST Font License 1.0",
            "GUST Font License 2006-09-30",
            "Netscape Public License (NPL)",
            "Nokia Open Source License (NOKOS)",
            "Repoze Public License",
        ],
    },
    gpl_any=["GNU General Public License v2 or later (GPLv2+)"],
)
"""Trove classifiers less `License :: ` and `OSI Approved :: `; any other one of OSI is OTHER."""

UNKNOWN_CLASSIFIERS = frozenset({"OSI Approved", "DFSG approved", "Freely Distributable"})
"""They name no licence."""

R_NAMES: Mapping[str, frozenset[str]] = _table(
    {
        "AGPL": ["AGPL", "GNU Affero General Public License"],
        "APACHE": ["Apache License", "Apache License 2.0", "Apache Software License"],
        "BSD": ["BSD", "BSD License", "BSD_2_clause", "BSD_3_clause", "FreeBSD"],
        "CC": [
            "CC0",
            "CC BY 4.0",
            "CC BY-SA 4.0",
            "CC BY-NC 4.0",
            "CC BY-NC-SA 4.0",
            "CC BY-NC-ND 4.0",
            "CC BY-ND 4.0",
        ],
        "GPL2": ["GPL2", "GPL version 2"],
        "GPL3": ["GPL3", "GPL version 3"],
        "LGPL": ["LGPL", "GNU Lesser General Public License", "GNU Library General Public License"],
        "MIT": ["MIT", "MIT License"],
        "MOZILLA": ["MPL", "Mozilla Public License", "Mozilla Public License 2.0"],
        "OTHER": [
            "ACM",
            "ACM Software License Agreement",
            "Artistic",
            "Artistic License",
            "Artistic License 2.0",
            "BSL",
            "Boost Software License",
            "CeCILL",
            "CPL",
            "Common Public License",
            "EPL",
            "Eclipse Public License",
            "EUPL",
            "Lucent Public License",
            "Unlimited",
            "Zlib",
        ],
    },
    gpl_any=["GPL", "GNU General Public License"],
)
"""Names of R's own table of licences; those with a version in their text are taken apart."""
