"""PACKAGES as sources write it: what is taken, what is left out and told, and that R takes what we publish of it."""

import asyncio
import gzip
import random
import time
from pathlib import Path

import pytest

from firth_protocol.errors import Invalid, Upstream
from firth_protocol.types import Filters
from firthd.families.base import Form, InvalidRecordError, SourceRecord, Spool
from firthd.families.r import filters, names, requests
from firthd.families.r.dcf import fields_of
from firthd.families.r.document import Index
from firthd.families.r.formats import FORMATS
from firthd.families.r.names import ARCHIVE, SOURCES
from firthd.families.r.records import depended_on, facts
from firthd.families.r.render import COLUMNS_MAX, columns_of, packages_rds
from firthd.families.r.requirement import numbers, requirement, sort_versions
from firthd.families.r.source import normalise
from tests.support.cran import packages, stanza
from tests.support.r_client import needs_r, r


def read(
    folder: Path, content: bytes, part: str = SOURCES, encoding: str = "txt"
) -> tuple[list[SourceRecord], list[str]]:
    """Return what is taken of a part's index, and what is told of the rest, as a run does it."""
    file = folder / "spool"
    file.write_bytes(content)
    taken, told = [], []
    for entry in Index(Spool(part=part, file=str(file), encoding=encoding), 1 << 30):
        try:
            taken.append(FORMATS.record(entry, FORMATS.fingerprint(entry.raw)))
        except InvalidRecordError as error:
            told.append(f"{entry.filename}: {error}")
    return taken, told


A = b"Package: alpha\nVersion: 1.0"
B = b"Package: beta\nVersion: 2.0-1"


@pytest.mark.parametrize(
    ("content", "files"),
    [
        pytest.param(A + b"\n\n" + B + b"\n", ["alpha_1.0.tar.gz", "beta_2.0-1.tar.gz"], id="plain"),
        pytest.param(A + b"\n\n" + B, ["alpha_1.0.tar.gz", "beta_2.0-1.tar.gz"], id="no last newline"),
        pytest.param(
            (A + b"\n\n" + B + b"\n\n").replace(b"\n", b"\r\n"), ["alpha_1.0.tar.gz", "beta_2.0-1.tar.gz"], id="crlf"
        ),
        pytest.param(
            b"\n \n\t\n" + A + b"\n \t \n\n\n" + B + b"\n\n \n", ["alpha_1.0.tar.gz", "beta_2.0-1.tar.gz"], id="blanks"
        ),
        pytest.param(b" \n\t\n" + A + b"\n \n", ["alpha_1.0.tar.gz"], id="blank lines at the ends"),
        pytest.param(b"\xef\xbb\xbf" + A, ["alpha_1.0.tar.gz"], id="byte order mark"),
        pytest.param(b"Package:alpha\nVersion:1.0", ["alpha_1.0.tar.gz"], id="no blank behind the colon"),
        pytest.param(A + b"\nX-Own: y\n z\n .\n w", ["alpha_1.0.tar.gz"], id="unknown fields, several lines"),
        pytest.param(
            b"Version: 1.0\nPackage: zeta\nPackage: alpha", ["alpha_1.0.tar.gz"], id="the last of a field counts"
        ),
        pytest.param(A + b"\n\n" + A, ["alpha_1.0.tar.gz"], id="the same stanza twice"),
        pytest.param(A + b"\nFile: 0af3.tar.gz", ["0af3.tar.gz"], id="File"),
        pytest.param(A + b"\nPath: 4.3.0/Recommended", ["4.3.0/Recommended/alpha_1.0.tar.gz"], id="Path"),
        pytest.param(
            A + b"\n\n" + A + b"\nPath: 4.3.0/Recommended\n\n" + A + b"\nPath: 4.4.0/Recommended",
            ["4.3.0/Recommended/alpha_1.0.tar.gz", "4.4.0/Recommended/alpha_1.0.tar.gz", "alpha_1.0.tar.gz"],
            id="the same version in several places",
        ),
        pytest.param(
            A + b"\n\nPackage: alpha\nVersion: 0.9", ["alpha_0.9.tar.gz", "alpha_1.0.tar.gz"], id="several versions"
        ),
        pytest.param(A + b"\nDepends: R (>= 3.5.0), methods", ["alpha_1.0.tar.gz"], id="needs a version of R"),
        pytest.param(b"", [], id="nothing"),
        pytest.param(b"\n \n", [], id="only blanks"),
    ],
)
def test_odd_documents_are_read(tmp_path: Path, content: bytes, files: list[str]) -> None:
    taken, told = read(tmp_path, content)
    assert ([record.filename for record in taken], told) == (files, [])
    assert [record.filename for record in read(tmp_path, gzip.compress(content))[0]] == files
    again, told = read(tmp_path, packages(bytes(record.raw) for record in taken))
    assert ([one.fingerprint for one in again], told) == ([one.fingerprint for one in taken], [])
    table, told = read(tmp_path, packages_rds([bytes(record.raw) for record in taken]), encoding="rds")
    assert ([one.fingerprint for one in table], told) == ([one.fingerprint for one in taken], [])


LEFT_OUT = [
    (b"Package: alpha\nVersion: 1.0a", "cannot compare the version"),
    (b"Package: alpha\nVersion: 1", "cannot compare the version"),
    (b"Package: alpha\nVersion: 1..0", "cannot compare the version"),
    (b"Package: alpha\nVersion: 99999999999.1", "cannot compare the version"),
    (b"Package: alpha", "cannot compare the version"),
    (b"Version: 1.0", "the record's name"),
    (b"Package: al pha\nVersion: 1.0", "the record's name"),
    (b"Package: alpha.\nVersion: 1.0", "the record's name"),
    (b"Package : alpha\nVersion: 1.0", "is no field"),
    (b"Package: ../alpha\nVersion: 1.0", "the record's name"),
    (A + b"\n# a comment", "is no field"),
    (A + b"\njunk", "is no field"),
    (b" Package: alpha\nVersion: 1.0", "begins with a line that goes on"),
    (A + b"\nTitle: a\0b", "NUL"),
    (A + b"\nDepends: R (>=3.5)", "would refuse the whole repository"),
    (A + b"\nDepends: methods, R (>=3.5)", "would refuse the whole repository"),
    (A + b"\nDepends: R (>= 3.5 )", "would refuse the whole repository"),
    (A + b"\nDepends: R (>= r12345)", "would refuse the whole repository"),
    (A + b"\nDepends: R (= 3.5)", "would refuse the whole repository"),
    (A + b"\nDepends: R (3.5)", "would refuse the whole repository"),
    (A + b"\nDepends: R\n (>=3.5)", "would refuse the whole repository"),
    (A + b"\nMD5sum: 12", "32 hexadecimal"),
    (A + b"\nFile: ../alpha_1.0.tar.gz", "no package file name has"),
    (A + b"\nFile: /etc/passwd", "no package file name has"),
    (A + b"\nFile: alpha.sh", "does not end in"),
    (A + b"\nPath: ../x", "no package file name has"),
    (A + b"\nPath: Meta", "among the index's own"),
    (A + b"\nPath: a/b/c/d/e", "too deep"),
    (A + b"\nPath: a%2fb", "no package file name has"),
    (A + b"\nTitle: " + b"x" * (1 << 20), "at most"),
    (A + b"".join(b"\nX%d: y" % number for number in range(300)), "more than 200 fields"),
]


@pytest.mark.parametrize(("raw", "reason"), LEFT_OUT)
def test_what_r_or_a_path_cannot_take_is_left_out_alone(tmp_path: Path, raw: bytes, reason: str) -> None:
    taken, told = read(tmp_path, b"Package: beta\nVersion: 1.0\n\n" + raw + b"\n\nPackage: gamma\nVersion: 1.0\n")
    assert [record.name for record in taken] == ["beta", "gamma"]
    assert len(told) == 1
    assert reason in told[0]


@pytest.mark.parametrize("content", [b"<html><body>Log in</body></html>", b"hello", b'{"a": 1}', b"error: none\n"])
def test_what_is_no_index_is_no_index(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(Upstream, match="no record that is one"):
        read(tmp_path, content)


def test_nothing_but_line_ends_takes_no_time(tmp_path: Path) -> None:
    content = b"\n" * 1_000_000 + A + b"\n \n" * 200_000
    assert [record.filename for record in read(tmp_path, content)[0]] == ["alpha_1.0.tar.gz"]


def test_a_value_of_many_lines_takes_no_time(tmp_path: Path) -> None:
    lines = 300_000
    began = time.process_time()
    (record,), _ = read(tmp_path, A + b"\nTitle: x\n Title: y" + b"\n ." * lines + b"\nTitle:z\n y\n .\n x")
    assert time.process_time() - began < 2
    assert facts(SOURCES, bytes(record.raw)).name == "alpha"
    assert fields_of(bytes(record.raw))["Title"] == "z\ny\n\nx"


def test_fields_of_ones_own_are_in_the_table_up_to_a_limit() -> None:
    records = [{"Package": f"p{number}", f"Own{number % 300}": "x", "Usual": "y"} for number in range(600)]
    columns = columns_of(records)
    assert len(columns) == COLUMNS_MAX
    assert "Usual" in columns
    assert columns[:4] == ["Package", "Version", "Priority", "Depends"]


def test_old_encodings_are_kept(tmp_path: Path) -> None:
    (record,), _ = read(tmp_path, A + b"\nTitle: h\xe9")
    assert bytes(record.raw) == A + "\nTitle: h\u00e9".encode()


def test_a_list_of_the_archive_is_read(tmp_path: Path) -> None:
    lines = (
        b"alpha/alpha_0.9.tar.gz\t10\t1600000000\nalpha/README\t\t\nalpha_0.8.tar.gz\nbeta/alpha_1.tar.gz\n"
        b"alpha/alpha_1.0-pre.tar.gz\nalpha/..%2fx_1.tar.gz\n"
    )
    taken, told = read(tmp_path, lines, ARCHIVE, "list")
    assert [(one.filename, one.version, one.size) for one in taken] == [
        ("alpha/alpha_0.8.tar.gz", "0.8", None),
        ("alpha/alpha_0.9.tar.gz", "0.9", 10),
        ("alpha/alpha_1.0-pre.tar.gz", "1.0-pre", None),
    ]
    assert told == []


def test_r_takes_what_is_published_of_anything(tmp_path: Path) -> None:
    """Stanzas of random pieces: `available.packages` reads what is left of them, and lists all that R can have here."""
    needs_r()
    rng = random.Random(7)
    pieces: dict[str, list[str | None]] = {
        "Package": ["alpha", "beta", "data.table", "a", "x2"],
        "Version": ["1.0", "1", "1.0-3", "1.0a", "", "2147483648.1", "0.1.2.3.4", "01.0"],
        "Depends": [
            *(f"R ({op}{blank}{version})" for op in (">=", "<", "=", "!=", "=>") for blank in ("", " ", "\n")
              for version in ("3.5", "4", "3.5 ", "r1", "3.x", "99999999999")),
            "R", "methods", "R (>= 3.5), methods", "R(>= 3.5),", "x R (>=3)", "R (>= 3.5", "R (>= 3.5))",
        ],
        "Path": [None, None, "4.3.0/Recommended", "x"],
        "OS_type": [None, "unix", "windows", "odd"],
        "Archs": [None, "i386, x64"],
        "Own": [None, "a\n\nb", "\u00e9"],
    }  # fmt: skip
    raws = []
    for _ in range(1500):
        chosen = {name: rng.choice(several) for name, several in pieces.items()}
        fields = {name: value for name, value in chosen.items() if value is not None}
        raws.append(stanza(fields.pop("Package"), fields.pop("Version"), None, **fields))
    taken, told = read(tmp_path, packages(raws))
    assert len(taken) > 100
    assert len(told) > 100
    contrib = tmp_path / "src" / "contrib"
    contrib.mkdir(parents=True)
    shown = [bytes(record.raw) for record in taken]
    code = f'cat(nrow(available.packages(contriburl = "file://{contrib}", filters = {{filters}})), "")'
    (contrib / "PACKAGES").write_bytes(packages(shown))
    everything = "list()"
    usual = "NULL"
    count = asyncio.run(r(code.format(filters=everything) + ";" + code.format(filters=usual)))
    (contrib / "PACKAGES.rds").write_bytes(packages_rds(shown))
    assert asyncio.run(r(code.format(filters=everything) + ";" + code.format(filters=usual))) == count
    assert count.split()[0] == str(len(shown))


def test_versions_are_ordered_as_r_does() -> None:
    newest = ["10.0", "2.0.1", "2.0-1", "2.0", "1.10", "1.9.9", "1.9-8", "1.0-pre", "odd"]
    shuffled = newest[:]
    random.Random(1).shuffle(shuffled)
    found = sort_versions(shuffled)
    assert found[:1] + found[3:] == newest[:1] + newest[3:]
    assert set(found[1:3]) == {"2.0.1", "2.0-1"}  # one version in two spellings
    assert numbers("1.6-5") == numbers("1.6.5")


@pytest.mark.parametrize(
    ("spec", "fits"),
    [
        ("dplyr", True),
        ("dplyr >=1.0,<2", True),
        ("dplyr (>= 1.0.10)", True),
        ("dplyr >= 1.0-10", True),
        ("dplyr ==1.0.10", True),
        ("dplyr ==1.0.10.0", True),
        ("dplyr (==1.0.10.0)", True),
        ("dplyr ==1.0.*", True),
        ("dplyr <1.0.2", False),
        ("dplyr !=1.0.10", False),
        ("Dplyr", False),
    ],
)
def test_specs(spec: str, fits: bool) -> None:
    raw = b"Package: dplyr\nVersion: 1.0.10\nLicense: MIT\n   + file LICENSE"
    assert requirement(spec).matches(facts(SOURCES, raw)) is fits


@pytest.mark.parametrize(
    "spec",
    ["", "a b", "dplyr >=", "dplyr 1.0", "dplyr ()", "dplyr >=x", "dplyr (>= 1", "1dplyr", "x" * 2000, "dplyr >=1,,"],
)
def test_what_is_no_spec(spec: str) -> None:
    with pytest.raises(Invalid):
        requirement(spec)


def test_what_a_record_depends_on() -> None:
    raw = stanza(
        "a1", "1.0", Depends="R (>= 3.5), methods, zoo", Imports="rlang (>=\n 1.0),\n utils,", LinkingTo="Rcpp"
    )
    assert list(depended_on(raw)) == ["zoo", "rlang", "Rcpp"]
    assert facts(SOURCES, raw).depends == ["R (>= 3.5)", "methods", "zoo", "rlang (>= 1.0)", "utils", "Rcpp"]


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ("https://cran.example.org/", "https://cran.example.org"),
        ("https://cran.example.org/src/contrib/", "https://cran.example.org"),
        ("https://cran.example.org/r/src/contrib/PACKAGES.gz", "https://cran.example.org/r"),
        ("https://cran.example.org/r/bin/windows/contrib/4.3", "https://cran.example.org/r"),
        ("https://cran.example.org/bin/macosx/big-sur-arm64/contrib/4.3/PACKAGES", "https://cran.example.org"),
        ("https://cran.example.org/src/contrib/Archive/", "https://cran.example.org"),
        ("https://x.example.org/__linux__/jammy/latest", "https://x.example.org/__linux__/jammy/latest"),
        ("https://x.example.org/t/SECRETSECRET/repo/stats/cran", "https://x.example.org/t/{token}/repo/stats/cran"),
        ("https://x.example.org/api/repo/stats/cran", "https://x.example.org/api/repo/stats/cran"),
        ("file:///srv/cran/src/contrib", "file:///srv/cran"),
    ],
)
def test_addresses_of_sources(given: str, stored: str) -> None:
    assert normalise(given).source == stored


@pytest.mark.parametrize(
    ("given", "path"),
    [
        (Filters(packages=[]), "$.filters.packages"),
        (Filters(packages=["ggplot2", "a b"]), "$.filters.packages[1]"),
        (Filters(packages=["ggplot2>=1"]), "$.filters.packages[0]"),
        (Filters(platforms=["linux-64"]), "$.filters.platforms[0]"),
        (Filters(r_versions=["4.3.1"]), "$.filters.r_versions[0]"),
        (Filters(r_versions=["4"]), "$.filters.r_versions[0]"),
    ],
)
def test_filters_that_name_nothing(given: Filters, path: str) -> None:
    with pytest.raises(Invalid) as caught:
        filters.check_filters(given)
    assert caught.value.data["path"] == path
    assert caught.value.hint


def test_filters_say_what_is_taken() -> None:
    assert filters.parts_of(Filters()) == [SOURCES, ARCHIVE]
    assert filters.parts_of(Filters(archive=False)) == [SOURCES]
    binaries = filters.parts_of(Filters(platforms=["windows", "macos"], r_versions=["4.3"]))
    assert binaries[0] == "bin/windows/contrib/4.3"
    assert "bin/macosx/big-sur-arm64/contrib/4.3" in binaries
    assert all(map(names.valid_part, binaries))
    assert "add windows or macos" in filters.check_filters(Filters(r_versions=["4.3"]))[0]
    assert "depend on" in filters.check_filters(Filters(packages=["ggplot2"]))[0]


@pytest.mark.parametrize(
    ("path", "start", "kind", "told"),
    [
        ("PACKAGES", b"Package: a", "text/plain", "txt"),
        ("PACKAGES", b"", "", "txt"),
        ("PACKAGES", b"\r\n\xef\xbb\xbfPackage: a", "", "txt"),
        ("PACKAGES", b"<html>", "text/html", None),
        ("PACKAGES", b"Error: no such thing", "text/html", None),
        ("PACKAGES", b"PACKAGES not here", "", None),
        ("PACKAGES.gz", b"\x1f\x8b\x08", "", "txt"),
        ("PACKAGES.gz", b"Package: a", "", "txt"),
        ("PACKAGES.gz", b"", "", None),
        ("PACKAGES.rds", b"\xfd7zXZ\x00", "", "rds"),
        ("PACKAGES.rds", b"X\n\x00", "", "rds"),
        ("PACKAGES.rds", b"Package: a", "", None),
        ("PACKAGES.rds", b"<html>", "text/html", None),
    ],
)
def test_what_answers_are_told_by(path: str, start: bytes, kind: str, told: str | None) -> None:
    assert requests.encoding(Form(f"src/contrib/{path}"), start, kind) == told
