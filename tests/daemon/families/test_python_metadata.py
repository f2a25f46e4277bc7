"""What Python releases tell of themselves: core metadata, its hostile forms, and policies that judge by it."""

import gzip
import io
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import msgspec
import pytest

from firth_protocol.types import Rules, RunState
from firthd.families.base import Entry
from firthd.families.python import core_metadata
from firthd.families.python.core_metadata import Told, needed, of_headers, tellers, told
from firthd.families.python.policing import POLICING
from firthd.families.python.records import FILES, METADATA
from firthd.index.judge import NOT_NAMED
from firthd.mirrors.releases import ASKED_AGAIN_MS, Absent
from firthd.policies.judge import Judge
from tests.support.python import PythonIndex, PythonWorld, python_world
from tests.support.upstream import Fault

HEAD = b"Metadata-Version: 2.3\nName: n\nVersion: 1\n"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (b"", Told()),
        (b"License-Expression: MIT\nClassifier: License :: OSI Approved :: BSD License\n", Told(license="MIT")),
        (
            b"License: anything\nClassifier: License :: OSI Approved :: BSD License\nClassifier: Topic :: A\n",
            Told(classifiers=("License :: OSI Approved :: BSD License",)),
        ),
        (b"License: BSD\n", Told(license="BSD")),
        (b"License: MIT\nLicense: BSD\n", Told(license="MIT; BSD")),
        (b"License: Some\n  folded\n  text\n", Told(license="Some folded text")),
        (b"License: " + b"a" * 100_000 + b"\n", Told(license="a" * 1000)),
        (b"Requires-Dist: a >=1\nRequires-Dist: b; extra == 'x'\n", Told(requires=("a >=1", "b; extra == 'x'"))),
        (b"\n" + b"Requires-Dist: body\n" * 3, Told()),
        (b"Requires-Dist: a\n" * 2001, Told(problem="it names more than 2,000 requirements")),
    ],
)
def test_what_headers_say(headers: bytes, expected: Told) -> None:
    assert of_headers(HEAD + headers) == expected
    assert core_metadata.decode(core_metadata.encode(expected)) == expected


def packed(name: str, content: bytes, before: int = 0) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for path, body in ((f"{name}/big", bytes(before)), (f"{name}/PKG-INFO", content)):
            entry = tarfile.TarInfo(path)
            entry.size = len(body)
            archive.addfile(entry, io.BytesIO(body))
    return out.getvalue()


def zipped(path: str, content: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(path, content)
    return out.getvalue()


@pytest.mark.parametrize(
    ("filename", "content", "problem"),
    [
        ("n-1-py3-none-any.whl.metadata", b"\xff\xfe\x00" * 1000, "no core metadata"),
        ("n-1-py3-none-any.whl.metadata", b"", "no core metadata"),
        ("n-1-py3-none-any.whl.metadata", b"<html>404</html>", "no core metadata"),
        ("n-1-py3-none-any.whl", b"PK\x03\x04", "does not open"),
        ("n-1-py3-none-any.whl", zipped("n/METADATA", HEAD), "holds no core metadata"),
        ("n-1.tar.gz", b"no archive", "ot a gzipped file"),
        ("n-1.tar.gz", gzip.compress(b"no tar"), "truncated header"),
        ("n-1.tar.gz", packed("n-1", HEAD)[:-40], ""),
        ("n-1.tar.gz", packed("n-1/deeper", HEAD), "holds no core metadata"),
        ("n-1.zip", zipped("n-1/PKG-INFO", b"Metadata-Version: 2.1\nName: n\n"), "only when it is built"),
        ("n-1.tar.gz", packed("n-1", HEAD + b"Dynamic: Requires-Dist\n"), "only when it is built"),
    ],
)
def test_what_cannot_be_read_is_a_problem_and_no_more(
    tmp_path: Path, filename: str, content: bytes, problem: str
) -> None:
    (tmp_path / "file").write_bytes(content)
    found = told(tmp_path / "file", filename)
    assert found.problem is not None
    assert problem in found.problem


def test_an_archive_is_not_unpacked_without_end(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(packed("n-1", HEAD, before=core_metadata.ARCHIVE_MAX_BYTES))
    assert "in its first" in (told(tmp_path / "file", "n-1.tar.gz").problem or "")


def test_an_sdist_of_today_says_what_it_needs(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(packed("n-1", HEAD + b"License-Expression: MIT\nRequires-Dist: a\n"))
    assert told(tmp_path / "file", "n-1.tar.gz") == Told(license="MIT", requires=("a",))


@pytest.mark.parametrize(
    ("text", "platform", "extra", "expected"),
    [
        ("a >=1", "linux-64", "", True),
        ("a >=1", "linux-64", "x", False),
        ("a; python_version < '3.11'", "linux-64", "", True),
        ("a; python_version < '3.7'", "linux-64", "", False),
        ("a; sys_platform == 'win32'", "linux-64", "", False),
        ("a; sys_platform == 'win32'", "win-64", "", True),
        ("a; sys_platform == 'win32'", "noarch", "", True),
        ("a; platform_machine == 'x86_64'", "win-64", "", False),
        ("a; platform_machine == 'AMD64'", "win-64", "", True),
        ("a; sys_platform == 'darwin' and platform_machine == 'arm64'", "osx-arm64", "", True),
        ("a; extra == 'x'", "linux-64", "", False),
        ("a; extra == 'X_y'", "linux-64", "x-y", True),
        ("a; extra == 'x'", "linux-64", "y", False),
        ("a; extra == 'x' and os_name == 'nt'", "linux-64", "x", False),
        ("a; platform_release >= '20'", "linux-64", "", True),
        ("a; 'x' in extras", "linux-64", "", True),
        ("a; " + "(" * 5000, "linux-64", "", True),
        ("a b c", "linux-64", "", True),
    ],
)
def test_markers(text: str, platform: str, extra: str, expected: bool) -> None:
    assert needed(text, platform, extra) is expected


def test_who_tells_of_a_release() -> None:
    def entry(filename: str, section: str = FILES) -> Entry:
        return Entry(filename, section, b"{}", "n")

    files = ["n-1-cp311-none-any.whl", "n-1-py3-none-any.whl", "n-1.tar.gz", "n-2.tar.gz", "n.exe", "n-3.egg"]
    entries = [*map(entry, files), entry("n-1-py3-none-any.whl.metadata", METADATA)]
    found = {version: [one.filename for one in some] for version, some in tellers(entries, "n").items()}
    assert found == {
        "1": ["n-1-py3-none-any.whl.metadata", "n-1-cp311-none-any.whl", "n-1.tar.gz"],
        "2": ["n-2.tar.gz"],
    }


def test_facts_with_what_was_told() -> None:
    raw = msgspec.json.encode({"filename": "n-1-py3-none-any.whl", "url": "../n"})
    facts = POLICING.facts("n", Entry("n-1-py3-none-any.whl", FILES, raw, "n"))
    mit = Judge(msgspec.convert({"licenses": {"in": ["MIT"]}}, Rules), POLICING)
    for document, passes in (
        (Told(license="MIT"), True),
        (Told(classifiers=("License :: OSI Approved :: MIT License",)), True),
        (Told(license="GPL-3.0-only"), False),
        (Told(problem="damaged"), False),
        (Told(), False),
    ):
        found = POLICING.with_told(facts, core_metadata.encode(document))
        assert (mit.alone(found) is None) is passes
    (text,) = POLICING.with_told(facts, core_metadata.encode(Told(problem="damaged"))).depends
    with pytest.raises(ValueError, match="damaged"):
        POLICING.dependency(text)


# --- the whole way --------------------------------------------------------------------------------------------------


def index() -> PythonIndex:
    made = PythonIndex()
    mit = ["License-Expression: MIT"]
    made.add("app", "1.0", says=mit, needs=["lib[fast] >=2", "newer; python_version < '3.5'"])
    made.add("app", "0.9", says=["License-Expression: GPL-3.0-only"], needs=["old"])
    made.add("lib", "1.0", says=mit)
    made.add("lib", "2.0", says=mit, needs=["speed; extra == 'fast'"])
    made.add("speed", "1.0", says=["Classifier: License :: OSI Approved :: BSD License"])
    made.add("stranger", "1.0", says=mit)
    return made


PROJECTS = {"projects": ["app", "lib", "speed", "stranger"]}
CLOSED: dict[str, Any] = {"allow": ["app"], "include_dependencies": True}


async def shown(w: PythonWorld) -> set[str]:
    found = set()
    for project in PROJECTS["projects"]:
        page = await w.page(project)
        if not isinstance(page, int):
            found |= {"-".join(file["filename"].split("-")[:2]) for file in page["files"]}
    return found


@pytest.mark.parametrize("mode", ["passive", pytest.param("active", marks=pytest.mark.deep)])
async def test_a_policy_judges_by_core_metadata(tmp_path: Path, mode: str) -> None:
    async with python_world(tmp_path, index()) as w:
        await w.call("policy.create", name="p", families=["python"], rules={"packages": CLOSED})
        await w.python(mode, policy="p", filters=PROJECTS)
        run = await w.run("main:p")
        assert run.state is RunState.COMPLETED, run
        assert await shown(w) == {"app-0.9", "app-1.0", "lib-2.0", "speed-1.0"}
        report = await w.call("mirror.dependency_report", mirror="main:p")
        (old,) = [one for one in report.rows if one.state == "missing"]
        assert (old.name, old.reason) == ("old", NOT_NAMED)
        reply = await w.call("policy.get", policy="p")
        rules = {"packages": CLOSED, "licenses": {"in": ["MIT", "BSD"]}}
        changed = await w.call("policy.update", policy="p", revision=reply.revision, rules=rules)
        for one in changed.runs:
            assert (await w.daemon.ended(one.id)).state is RunState.COMPLETED
        assert await shown(w) == {"app-1.0", "lib-2.0", "speed-1.0"}


@pytest.mark.deep
async def test_metadata_that_the_source_does_not_have_is_asked_for_once_a_day(tmp_path: Path) -> None:
    lacking = "files/*app-1.0*.metadata"
    async with python_world(tmp_path, index()) as w:
        w.upstream.route(lacking, lambda seen: Fault(status=404))
        await w.call("policy.create", name="p", families=["python"], rules={"packages": CLOSED})
        await w.python("passive", policy="p", filters=PROJECTS)
        for minor in range(3):
            w.index.add("stranger", f"2.{minor}")  # something has changed, so that all is judged anew
            assert (await w.run("main:p")).state is RunState.COMPLETED
        assert len(w.upstream.asked(lacking)) == 1
        report = await w.call("mirror.dependency_report", mirror="main:p")
        assert "what" in {one.name for one in report.rows if one.state == "missing"}


def test_what_is_absent_is_known_for_a_day() -> None:
    absent, place = Absent(), ("https://index.example.org/simple", "../files/n-1.whl.metadata", "00")
    absent.note(*place, 1000)
    assert absent.known(*place, 1000 + ASKED_AGAIN_MS - 1)
    assert not absent.known(*place, 1000 + ASKED_AGAIN_MS)
    assert not absent.known(*place[:2], "01", 1000)


async def unseen(w: PythonWorld, mirror: str) -> list[str]:
    notes = (await w.call("mirror.details", mirror=mirror)).notes
    return [note for note in notes if "read when a client first asks" in note]


@pytest.mark.deep
async def test_a_mirror_whose_pages_clients_read_tells_what_its_policy_cannot_see(tmp_path: Path) -> None:
    async with python_world(tmp_path, index()) as w:
        rules = {"packages": {"allow": ["app"]}, "licenses": {"in": ["MIT"], "unknown": "deny"}}
        await w.call("policy.create", name="p", families=["python"], rules=rules)
        await w.python("passive", policy="p")
        await w.run("main:p")
        (note,) = await unseen(w, "main:p")
        assert "every licence is unknown, and denied" in note
        await w.python("passive", "q", policy="p", filters=PROJECTS)
        await w.run("main:q")
        assert await unseen(w, "main:q") == []
