"""What a Python index's pages may look like: odd ones are read, wrong ones are refused with what they are."""

import json
import string
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firth_protocol.errors import Upstream
from firth_protocol.types import Filters
from firthd.families.base import Entry, FetchPlace, Form, InvalidRecordError, Spool
from firthd.families.python.addresses import HTML, JSON, negotiated
from firthd.families.python.filters import taker
from firthd.families.python.formats import FORMATS
from firthd.families.python.html import links_of
from firthd.families.python.names import normalised, platforms_of, taken_apart, valid_project
from firthd.families.python.page import GATE, LIST, ProjectPage, marks
from firthd.families.python.paths import fetch_url
from firthd.families.python.render import ListedFile, html_page, json_page
from firthd.families.python.requests import encoding, instead

SHA = "ab" * 32


def read(folder: Path, content: str | bytes, *, part: str = "numpy", form: str = "json", **kind: Any) -> ProjectPage:
    file = folder / "page"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    listing = FORMATS.read(Spool(part=part, file=str(file), encoding=form, **kind), 1 << 20)
    assert isinstance(listing, ProjectPage)
    return listing


def page_of(*files: dict[str, Any], **top: Any) -> str:
    return json.dumps({"meta": {"api-version": "1.4"}, "name": "numpy", "files": list(files)} | top)


def names(listing: ProjectPage) -> list[str]:
    return [entry.filename for entry in listing]


@pytest.mark.parametrize("number", ["\u00b2", "\u0663", "9" * 5000, "-1", "1e3", ""])
def test_a_number_that_is_none_is_passed_over(tmp_path: Path, number: str) -> None:
    meta = {"api-version": number, "_last-serial": number}
    name = f"numpy-{number}.0-py3-none-any.whl"
    said = {"filename": name, "url": name, "hashes": {}, "requires-python": f">={number}"}
    listing = read(tmp_path, page_of(said, meta=meta), mark="\u00b2")
    assert names(read(tmp_path, page_of(said, meta=meta), mark="7")) == names(listing) == [name]
    takes = taker(Filters(python_versions=["3.12"], prereleases=False))
    assert takes is not None
    (entry,) = listing
    assert takes(entry) or len(number) < 9  # a version that is none by PEP 440 is no reason to leave it out


def test_what_no_file_is_called_is_not_taken_apart() -> None:
    takes = taker(Filters(package_types=["sdist"]))
    assert takes is not None
    began = time.process_time()
    assert takes(Entry(f"{'a-' * 50_000}.tar.gz", "files", b"{}", "numpy"))
    needs = json.dumps({"filename": "x", "url": "x", "hashes": {}, "requires-python": ">=3," * 60_000}).encode()
    takes = taker(Filters(python_versions=["3.12"]))
    assert takes is not None
    assert takes(Entry("numpy-1.0.tar.gz", "files", needs, "numpy"))
    assert taken_apart(f"{'a-' * 50_000}.tar.gz", "numpy").version == ""
    assert time.process_time() - began < 0.5


@pytest.mark.parametrize(
    ("links", "expected"),
    [
        ('<a href="numpy-1.0.tar.gz#sha256=' + SHA + '">numpy-1.0.tar.gz</a>', ["numpy-1.0.tar.gz"]),
        ("<A HREF='numpy-1.0.zip' >x</A>", ["numpy-1.0.zip"]),
        ('<a href="/d/NumPy-1.0.tar.gz"><b>NumPy-1.0.tar.gz</b></a', ["NumPy-1.0.tar.gz"]),
        ('<a href="n%2Bu-1.0+local.tar.gz">n+u-1.0+local.tar.gz</a>', ["n+u-1.0+local.tar.gz"]),
        ('<a href="download?id=7">numpy-1.0.tar.gz</a>', ["numpy-1.0.tar.gz"]),
        ('<a href="numpy-1.0.tar.gz?sig=a&amp;b=c">numpy-1.0.tar.gz</a>', ["numpy-1.0.tar.gz"]),
        ('<a name="x">x</a><a href="../">up</a><a href="?C=N">N</a><a href="numpy-1.0.egg">e</a>', ["numpy-1.0.egg"]),
        ('<a href="numpy-1.0.tar.gz.asc">s</a><a href="numpy-1.0.tar.gz">f</a>', ["numpy-1.0.tar.gz"]),
        (
            '<a href="numpy-1.0-py3-none-any.whl" data-dist-info-metadata="true">w</a>',
            ["numpy-1.0-py3-none-any.whl", "numpy-1.0-py3-none-any.whl.metadata"],
        ),
        ('<a href="numpy-1.0-py3-none-any.whl" data-core-metadata="false">w</a>', ["numpy-1.0-py3-none-any.whl"]),
        ("", []),
        ("<h1>Links for numpy</h1>", []),
    ],
)  # fmt: skip
def test_links_of_many_spellings_are_files(tmp_path: Path, links: str, expected: list[str]) -> None:
    assert names(read(tmp_path, f"<!DOCTYPE html><html><body>{links}</body></html>", form="html")) == expected


def test_an_attribute_becomes_what_the_json_form_says(tmp_path: Path) -> None:
    link = (
        f'<a href="f/numpy-1.0-py3-none-any.whl#sha256={SHA.upper()}" data-requires-python="&gt;=3.8" data-yanked=""'
        f' data-core-metadata="sha256={SHA}" data-gpg-sig="true" data-provenance="https://x.example.org/p">w</a>'
    )
    page = '<meta name="pypi:repository-version" content="1.4"><meta name="pypi:project-status" content="archived">'
    listing = read(tmp_path, f'{page}<base href="https://files.example.org/b/">{link}', form="html")
    assert listing.status is not None
    assert listing.status.status == "archived"
    file, metadata = (json.loads(bytes(entry.raw)) for entry in listing)
    assert file == {
        "filename": "numpy-1.0-py3-none-any.whl",
        "url": "https://files.example.org/b/f/numpy-1.0-py3-none-any.whl",
        "hashes": {"sha256": SHA},
        "requires-python": ">=3.8",
        "yanked": True,
        "core-metadata": {"sha256": SHA},
        "gpg-sig": True,
        "provenance": "https://x.example.org/p",
    }
    assert metadata["hashes"] == {"sha256": SHA}
    assert metadata["url"] == file["url"] + ".metadata"


@pytest.mark.parametrize(
    ("content", "form", "said"),
    [
        ('{"meta":{},"projects":[]}', "json", "a list of projects"),
        ('{"info":{},"releases":{}}', "json", "JSON about a release"),
        ('{"numpy":["1.0","2.0"]}', "json", "versions for names"),
        ('{"type":"root","result":{}}', "json", "JSON with type, result"),
        ('{"files":{"a":1}}', "json", "files are not as they should be"),
        ("{", "json", "not the JSON"),
        ('{"files":[],"name":"scipy"}', "json", "the page of scipy"),
        ('{"files":[],"meta":{"api-version":"2.0"}}', "json", "version 2.0"),
        ("<form><input type='password'></form>", "html", "a login page"),
        ("<a href='numpy/'>numpy</a><a href='scipy/'>scipy</a>", "html", "a list of projects"),
        ("<title>Down for repairs</title><a href='x.css'>s</a>", "html", "a web page (Down for repairs)"),
        ('<meta name="pypi:repository-version" content="9.1">', "html", "version 9.1"),
    ],
)
def test_what_is_no_page_is_refused_with_what_it_is(tmp_path: Path, content: str, form: str, said: str) -> None:
    with pytest.raises(Upstream) as caught:
        read(tmp_path, content, form=form)
    assert said in caught.value.message


def test_an_old_page_is_not_taken_for_what_the_list_says(tmp_path: Path) -> None:
    page = page_of(meta={"api-version": "1.4", "_last-serial": 7})
    assert names(read(tmp_path, page, mark="7")) == []
    with pytest.raises(Upstream, match="older"):
        read(tmp_path, page, mark="8")
    with pytest.raises(Upstream, match="older"):
        read(tmp_path, "<h1>Links for numpy</h1><!--SERIAL 7-->", form="html", mark="8")


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ({"filename": "../numpy-1.0.tar.gz"}, "characters"),
        ({"filename": "a\nb.whl"}, "characters"),
        ({"filename": "a\u202eb.whl"}, "characters"),
        ({"filename": ""}, "names no file"),
        ({"filename": ".."}, "names no file"),
        ({"filename": ".hidden.whl"}, "begins"),
        ({"filename": "x" * 300 + ".whl"}, "longer"),
        ({"filename": "a.whl.metadata"}, "another file's metadata"),
        ({"url": ""}, "no address"),
        ({"url": 7}, "not as it should be"),
        ({"hashes": {"sha256": "zz"}}, "sha256"),
        ({"size": -1}, "size"),
        ({"size": 2**60}, "size"),
        ({"yanked": 3}, "not as it should be"),
        ({"requires-python": ["3"]}, "not as it should be"),
        ({"x": "y" * 300_000}, "more than"),
    ],
)
def test_a_record_that_cannot_be_taken_says_why(tmp_path: Path, file: dict[str, Any], reason: str) -> None:
    whole = {"filename": "numpy-1.0.tar.gz", "url": "f/x", "hashes": {}} | file
    (entry,) = read(tmp_path, page_of(whole))
    with pytest.raises(InvalidRecordError, match=reason):
        FORMATS.record(entry, FORMATS.fingerprint(entry.raw))


@pytest.mark.parametrize(
    ("filename", "kind", "version"),
    [
        ("numpy-1.26.0-cp312-cp312-manylinux_2_17_x86_64.manylinux2014_x86_64.whl", "wheel", "1.26.0"),
        ("numpy-1.0-1-py3-none-any.whl", "wheel", "1.0"),
        ("numpy-1.0RC1.tar.gz", "sdist", "1.0rc1"),
        ("NumPy-1.0.zip", "sdist", "1.0"),
        ("numpy-1.0-beta-2.tar.gz", "sdist", "1.0-beta-2"),
        ("numpy-1.0-py2.7.egg", "other", "1.0"),
        ("numpy-1.0.win32-py2.7.exe", "other", "1.0"),
        ("something.bin", "other", ""),
        ("other-1.0.tar.gz", "sdist", ""),
        ("broken.whl", "wheel", ""),
    ],
)
def test_a_file_name_says_kind_and_version(filename: str, kind: str, version: str) -> None:
    told = taken_apart(filename, "numpy")
    assert (told.kind, told.version.replace("1.0b2", "1.0-beta-2")) == (kind, version)


def test_old_names_hold_dashes_and_dots() -> None:
    assert taken_apart("python-dateutil-2.8.tar.gz", "python-dateutil").version == "2.8"
    assert taken_apart("zope.interface-5.0.tar.gz", "zope-interface").version == "5.0"
    assert normalised("Zope._-.Interface") == "zope-interface"


def test_a_tag_means_platforms() -> None:
    assert platforms_of("manylinux_2_28_x86_64") == ("linux-64",)
    assert platforms_of("musllinux_1_2_aarch64") == ("linux-aarch64",)
    assert platforms_of("macosx_11_0_universal2") == ("osx-64", "osx-arm64")
    assert platforms_of("win_amd64") == ("win-64",)
    assert platforms_of("any") == ("noarch",)
    assert platforms_of("strange") == ("strange",)


@pytest.mark.parametrize(
    ("filters", "kept"),
    [
        (Filters(), "abcdefg"),
        (Filters(package_types=["sdist"]), "d"),
        (Filters(package_types=["wheel"]), "abcefg"),
        (Filters(prereleases=False), "abcdf"),
        (Filters(platforms=["linux-64"]), "adeg"),
        (Filters(platforms=["osx-arm64", "any"]), "bdeg"),
        (Filters(python_versions=["3.12"]), "abdg"),
        (Filters(python_versions=["3.9"]), "bcdeg"),
        (Filters(python_versions=["3.9"], prereleases=False, platforms=["win-64"]), "cd"),
    ],
)
def test_filters_choose_among_the_files_of_a_project(filters: Filters, kept: str) -> None:
    files = {
        "a": ("p-1-cp312-cp312-manylinux_2_17_x86_64.whl", None),
        "b": ("p-1-cp38-abi3-macosx_11_0_arm64.whl", None),
        "c": ("p-1-cp39-cp39-win_amd64.whl", None),
        "d": ("p-1.tar.gz", None),
        "e": ("p-2rc1-py3-none-any.whl", "<3.10"),
        "f": ("p-1-cp311-cp311-musllinux_1_1_aarch64.whl", None),
        "g": ("p-2.dev1-py2.py3-none-any.whl", ">=3"),
    }
    chooses = taker(filters)
    found = ""
    for letter, (filename, required) in files.items():
        record: dict[str, Any] = {"filename": filename, "url": "x", "hashes": {}, "requires-python": required}
        entry = Entry(filename, "files", json.dumps(record).encode(), "p")
        found += letter if chooses is None or chooses(entry) else ""
    assert found == kept


@pytest.mark.parametrize(
    ("page", "url", "expected"),
    [
        ("/simple/p/", "../../files/p.whl#sha256=x", "/files/p.whl"),
        ("/t/{token}/simple/p/", "../../files/p.whl", "/t/{token}/files/p.whl"),
        ("simple/p/index.html", "../../files/p.whl", "files/p.whl"),
        ("/simple/p/", "p.whl", "/simple/p/p.whl"),
        ("/simple/p/", "/d/p.whl", "/d/p.whl"),
        ("/simple/p/", "//cdn.example.org/p.whl", "//cdn.example.org/p.whl"),
        ("/simple/p/", "https://cdn.example.org/p.whl?a=b", "https://cdn.example.org/p.whl?a=b"),
    ],
)
def test_a_file_is_where_its_page_says(page: str, url: str, expected: str) -> None:
    raw = json.dumps({"filename": "p.whl", "url": url, "hashes": {}}).encode()
    assert fetch_url(FetchPlace(part="p", section="files", filename="p.whl", page=page, raw=raw)) == expected


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", "text/html"),
        ("*/*", "text/html"),
        (JSON, JSON),
        (f"{JSON}, {HTML}; q=0.1, text/html; q=0.01", JSON),
        (f"{HTML};q=0.9, {JSON};q=0.2", HTML),
        ("application/vnd.pypi.simple.latest+json", JSON),
        (f"{JSON};q=0, text/html;q=0.1", "text/html"),
        ("application/json", "text/html"),
        (f"{JSON};q=x", "text/html"),
        ("text/html,application/xhtml+xml;q=0.9,*/*;q=0.8", "text/html"),
    ],
)
def test_a_page_has_the_type_that_a_client_likes_best(accept: str, expected: str) -> None:
    assert negotiated(accept) == expected


@pytest.mark.parametrize(
    ("start", "kind", "expected"),
    [
        (b'{"files":[]}', JSON, "json"),
        (b'{"files":[]}', "application/json", "json"),
        (b"<!DOCTYPE html>", "text/html", "html"),
        (b"\xef\xbb\xbf\n <html>", "", "html"),
        (b"<html>", "application/json", None),
        (b"[]", JSON, None),
        (b"", "text/html", None),
        (b"not here", "text/plain", None),
    ],
)
def test_an_answer_is_known_by_type_and_beginning(start: bytes, kind: str, expected: str | None) -> None:
    assert encoding(Form("simple/"), start, kind) == expected


def test_the_beginning_of_an_answer_tells_what_it_is_instead() -> None:
    form = Form("")
    assert instead(LIST, form, b'{"meta":{"api-version":"1.0"},"projects":[{"na', JSON) is None
    assert instead(LIST, form, b'<a href="numpy/">numpy</a>', "text/html") is None
    assert instead(LIST, form, b'{"type":"root"}', JSON) == "JSON with type"
    welcome = b'<title>Welcome!</title><a href="/simple/">simple</a><a href="/packages/">packages</a>'
    assert instead(LIST, form, welcome, "text/html") == "a web page that leads to /simple/"
    assert instead(LIST, form, b'<a href="numpy-1.0.tar.gz">x</a>', "text/html") == "the page of a project, with files"
    assert instead(LIST, form, b"<title>Sign in</title><input type=password>", "text/html") == "a login page"


HOSTILE = """"><script>alert(1)</script>&'"""


def test_what_a_source_says_cannot_leave_its_attribute() -> None:
    record: dict[str, Any] = {
        "requires-python": HOSTILE,
        "yanked": HOSTILE,
        "provenance": f"https://{HOSTILE}",
        "gpg-sig": False,
    }
    file = ListedFile(f"p-1{HOSTILE}.whl".replace("/", ""), record, 1, bytes(32), declared=False, metadata=True)
    found = links_of(html_page("p", [file], None))
    (link,) = found.links
    assert link.attributes["data-requires-python"] == HOSTILE
    assert link.attributes["data-yanked"] == HOSTILE
    assert link.attributes["data-provenance"] == f"https://{HOSTILE}"
    assert link.text == file.filename


def test_a_page_says_what_its_source_says_and_where_we_have_it() -> None:
    record: dict[str, Any] = {
        "filename": "p-1.whl",
        "url": "https://far.example.org/p-1.whl",
        "hashes": {"sha256": SHA},
        "upload-time": "2024-01-01T00:00:00Z",
        "yanked": "broken",
        "size": 5,
        "provenance": "/relative",
        "dist-info-metadata": True,
        "_private": 1,
        "new-key": {"a": [1]},
    }
    shown = json.loads(
        json_page("p", [ListedFile("p-1.whl", record, 5, bytes(32), declared=True, metadata=None)], None)
    )
    assert shown["files"] == [
        {
            "filename": "p-1.whl",
            "url": "../../packages/p/p-1.whl",
            "hashes": {"sha256": SHA},
            "upload-time": "2024-01-01T00:00:00Z",
            "yanked": "broken",
            "size": 5,
            "new-key": {"a": [1]},
        }
    ]


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(
    ["filename", "url", "hashes", "size", "yanked", "core-metadata", "requires-python", "upload-time", "x"]
)


FILE = st.fixed_dictionaries({"filename": st.text(max_size=12), "url": st.just("x")})


@settings(max_examples=25)
@given(
    st.lists(
        st.tuples(FILE, st.dictionaries(KEYS, JSON_VALUES, max_size=3)).map(lambda two: two[0] | two[1]), max_size=4
    )
)
def test_no_record_breaks_a_page(tmp_path_factory: pytest.TempPathFactory, files: list[dict[str, Any]]) -> None:
    """Whatever a record is, it is taken or refused by itself; what is taken can be shown in both forms."""
    listing = read(tmp_path_factory.getbasetemp(), page_of(*files))
    taken = []
    for entry in listing:
        try:
            taken.append(FORMATS.record(entry, FORMATS.fingerprint(entry.raw)))
        except InvalidRecordError:
            continue
    shown = json.loads(FORMATS.page("numpy", "json", taken, listing))
    links = links_of(FORMATS.page("numpy", "html", taken, listing)).links
    assert [file["filename"] for file in shown["files"]] == [link.text.strip() for link in links]


@given(st.text(alphabet="<>aA/='\" \n#?hrefdata-yanked.whltargz&;!-\x00é", max_size=200) | st.binary(max_size=100))
def test_no_html_breaks_the_reader(tmp_path_factory: pytest.TempPathFactory, content: str | bytes) -> None:
    try:
        listing = read(tmp_path_factory.getbasetemp(), content, form="html")
    except Upstream:
        return
    assert all(entry.filename for entry in listing)


@given(st.text(alphabet=string.ascii_letters + string.digits + "-_./", min_size=1, max_size=30))
def test_a_normalised_name_stays_as_it_is(name: str) -> None:
    assert normalised(normalised(name)) == normalised(name)
    if valid_project(name):
        assert normalised(name) == name


def test_a_list_says_how_often_each_project_changed(tmp_path: Path) -> None:
    file = tmp_path / "list"
    projects = [{"name": "Foo_Bar", "_last-serial": 7}, {"name": "x"}, {"name": "../../etc"}]
    file.write_text(json.dumps({"projects": projects}))
    spool = Spool(part=GATE, file=str(file), encoding="json")
    found = marks(spool, None, 1 << 20)
    assert {name: (one.spelled, one.mark) for name, one in found.items()} == {
        "foo-bar": ("Foo_Bar", "7"),
        "x": ("x", None),
    }
    assert set(marks(spool, frozenset({"x", "y"}), 1 << 20)) == {"x"}
    assert msgspec.msgpack.encode(found)


def test_the_files_of_a_listed_folder_are_no_projects(tmp_path: Path) -> None:
    file = tmp_path / "list"
    file.write_text(
        '<title>Directory listing</title><a href="beta/">beta/</a><a href="index.json">i</a>'
        '<a href="gamma/index.html">gamma</a>'
    )
    assert set(marks(Spool(part=GATE, file=str(file), encoding="html"), None, 1 << 20)) == {"beta", "gamma"}
