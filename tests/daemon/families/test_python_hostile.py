"""What pages and lists of a Python index may say that they should not: it is read record by record, and told."""

import gc
import json
import logging
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import zstandard

from firth_protocol.errors import TooLarge, Upstream
from firth_protocol.types import RunState
from firthd.families.base import FetchPlace, InvalidRecordError, SourceRecord, Spool
from firthd.families.python.formats import FORMATS
from firthd.families.python.page import FILES_MAX, GATE, LIST, ProjectPage, marks
from firthd.families.python.paths import fetch_url
from firthd.families.python.records import fingerprint_without_addresses
from firthd.families.python.render import html_page, json_page, listed
from firthd.upstream.masking import starred
from tests.support.python import JSON, Installer, PythonIndex, python_world, sdist, wheel
from tests.support.upstream import Fault

WHEEL = "numpy-1.0-py3-none-any.whl"
SHA = "ab" * 32


def spool(folder: Path, content: str | bytes, part: str, form: str) -> Spool:
    file = folder / "page"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return Spool(part=part, file=str(file), encoding=form)


def taken(folder: Path, content: str | bytes, form: str = "json") -> tuple[list[SourceRecord], list[str]]:
    """Return the records of a page of numpy, and why others are left out."""
    records, reasons, last = [], [], None
    for entry in FORMATS.read(spool(folder, content, "numpy", form), 1 << 24):
        try:
            if entry[:2] == last:
                raise InvalidRecordError("the file name is listed twice")
            records.append(FORMATS.record(entry, FORMATS.fingerprint(entry.raw)))
        except InvalidRecordError as error:
            reasons.append(str(error))
        last = entry[:2]
    return records, reasons


def page_of(*files: dict[str, Any], **top: Any) -> str:
    return json.dumps({"meta": {"api-version": "1.4"}, "name": "numpy", "files": list(files)} | top)


def said(name: str = WHEEL, **fields: Any) -> dict[str, Any]:
    return {"filename": name, "url": f"../../f/{name}", "hashes": {"sha256": SHA}} | fields


def served(records: list[SourceRecord]) -> tuple[dict[str, Any], str]:
    return json.loads(json_page("numpy", listed(records), None)), html_page("numpy", listed(records), None).decode()


@pytest.mark.parametrize(
    ("told", "declared", "shown"),
    [
        ({"sha256": SHA.upper()}, 2, {"sha256": SHA}),
        ({"SHA256": SHA}, 2, {"sha256": SHA}),
        ({"md5": "AB" * 16}, 1, {"md5": "ab" * 16}),
        ({"blake2b_256": SHA}, 0, {}),
        ({"blake2b": SHA * 2, "crc": "1"}, 1, {"blake2b": SHA * 2}),
        ({"sha512": SHA * 2}, 1, {"sha512": SHA * 2}),
        ({"sha256": None}, 0, {}),
        ({}, 0, {}),
    ],
)
def test_digests_are_told_as_clients_know_them(
    tmp_path: Path, told: dict[str, str | None], declared: int, shown: dict[str, str]
) -> None:
    (record,), _ = taken(tmp_path, page_of(said(hashes=told)))
    page, _ = served([record])
    assert (record.declared, page["files"][0]["hashes"]) == (declared, shown)
    fragment = "&amp;".join(f"{name}={value}" for name, value in told.items() if value)
    (record,), _ = taken(tmp_path, f'<a href="{WHEEL}#{fragment}">{WHEEL}</a>', "html")
    assert record.declared == declared


def test_a_file_that_is_listed_twice_in_the_same_words_says_nothing_new(tmp_path: Path) -> None:
    assert [len(each) for each in taken(tmp_path, page_of(said(), said(), said()))] == [1, 0]
    other = said(hashes={"sha256": "cd" * 32})
    records, reasons = taken(tmp_path, page_of(said(), other, said(), other))
    assert (records[0].sha256, reasons) == (bytes.fromhex(SHA), ["the file name is listed twice"])
    many = taken(tmp_path, page_of(*(said(url=f"x{number}") for number in range(3000))))
    assert [len(each) for each in many] == [1, 2999]


def test_one_wrong_value_costs_one_record(tmp_path: Path) -> None:
    """Half of a pair of surrogates stops the decoder for the whole page."""
    for wrong in ('"\\ud800"', '{"a": "\\udfff"}'):
        other = json.dumps(said("numpy-2.0.zip"))[:-1] + f', "yanked": {wrong}}}'
        page = page_of(said())[:-2] + f", {other}]}}"
        records, reasons = taken(tmp_path, page)
        assert ([one.filename for one in records], len(reasons)) == ([WHEEL], 1)
    with pytest.raises(Upstream, match="not the JSON"):
        taken(tmp_path, '{"files": [{"filename":')


def test_one_wrong_name_costs_one_project(tmp_path: Path) -> None:
    names = ['"alpha"', '"\\ud800"', "5", '".."', '"a\\u001bb"', '"a\\u202eb"', f'"{"x" * 10_000}"', '"beta"']
    listing = ", ".join(f'{{"name": {name}, "_last-serial": 7}}' for name in names)
    content = f'{{"meta": {{"api-version": "1.0"}}, "projects": [{listing}, {{"name": "gamma", "_last-serial": [1]}}]}}'
    found = marks(spool(tmp_path, content, GATE, "json"), None, 1 << 24)
    assert {name: one.mark for name, one in found.items()} == {"alpha": "7", "beta": "7", "gamma": None}
    (note,) = FORMATS.read(spool(tmp_path, content, LIST, "json"), 1 << 24).notes
    assert note.startswith("5 names of the list")
    assert note.isprintable()


def test_a_quarantined_project_has_no_files_whatever_its_page_lists(tmp_path: Path) -> None:
    content = page_of(said(), **{"project-status": {"status": "quarantined", "reason": "malware"}})
    listing = FORMATS.read(spool(tmp_path, content, "numpy", "json"), 1 << 24)
    assert isinstance(listing, ProjectPage)
    assert (len(listing), listing.refused) == (0, "the source has put the project in quarantine: malware")


def test_users_and_passwords_of_addresses_are_shown_nowhere(tmp_path: Path) -> None:
    secret = "https://user:secret@h.example.org/p"
    told: dict[str, Any] = {
        "url": secret,
        "provenance": secret,
        "x-own": {"a": [secret]},
        "yanked": f"see {secret} <b>\0\x1b",
    }
    (record,), _ = taken(tmp_path, page_of(said(**told)))
    page, html = served([record])
    assert "secret" not in json.dumps(page) + html
    assert (page["files"][0]["x-own"], "provenance" in page["files"][0]) == ({"a": ["https://h.example.org/p"]}, False)
    assert "\0" not in html
    assert "<b>" not in html
    clean: dict[str, Any] = {"x-own": {"a": ["https://h.example.org/p"]}, "yanked": "x"}
    records = [
        taken(tmp_path, page_of(said(**fields)))[0][0]
        for fields in (clean, clean | {"x-own": {"a": [secret]}, "provenance": secret})
    ]
    assert len({fingerprint_without_addresses(bytes(one.raw)) for one in records}) == 1


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (b'"https://u:s3cret@h.example.org/p"', b'"https://********@h.example.org/p"'),
        (rb'"https:\/\/u:s3cret@h.example.org\/p"', rb'"https:\/\/********@h.example.org\/p"'),
        (rb'"https:\u002F\u002fu:s3cret\u0040h"', rb'"https:\u002F\u002f********\u0040h"'),
        (b"<a href=//u:s3cret@h/p>", b"<a href=//********@h/p>"),
        (b"<a href='https:&#x2f;&#x2F;u:s3cret&#64;h/p'>", b"<a href='https:&#x2f;&#x2F;********&#64;h/p'>"),
        (b'"https://u&amp;:s3@cret@h/p"', b'"https://**************@h/p"'),
        (b'"https://h.example.org/a@1.0.whl", "x@y"', b'"https://h.example.org/a@1.0.whl", "x@y"'),
        (rb'"https:\/\/h\/a@1", "https://h\u002fa@1"', rb'"https:\/\/h\/a@1", "https://h\u002fa@1"'),
    ],
)
def test_what_is_kept_of_a_page_has_stars_for_users(sent: bytes, kept: bytes) -> None:
    assert starred(sent) == kept
    assert len(kept) == len(sent)
    for place in (131_050, 131_060, 131_072, 131_080):  # a long one is looked at stretch by stretch
        before, behind = b'"' + b"x" * (place - 2) + b'"', b' "y@z"' * 30_000
        assert starred(before + sent + behind) == before + kept + behind


@pytest.mark.parametrize(
    ("page", "url", "expected"),
    [
        ("/simple/numpy/", "../../../../etc/passwd", "/etc/passwd"),
        ("/a/simple/numpy/", "../../../f/x.whl", "/f/x.whl"),
        ("simple/numpy/", "../../../../etc/passwd", "etc/passwd"),
        ("/simple/numpy/", "//h.example.org/x.whl", "//h.example.org/x.whl"),
        ("/simple/numpy/", "../../f/x.whl", "/f/x.whl"),
    ],
)
def test_an_address_that_climbs_ends_at_the_root_of_its_host(page: str, url: str, expected: str) -> None:
    raw = json.dumps(said(url=url)).encode()
    assert fetch_url(FetchPlace(part="numpy", section="files", filename=WHEEL, page=page, raw=raw)) == expected


@pytest.mark.parametrize("page", ["<html><body>Service unavailable</body></html>", "<p>Welcome</p>"])
def test_a_page_of_words_alone_is_no_page_of_no_files(tmp_path: Path, page: str) -> None:
    with pytest.raises(Upstream, match="it is a web page"):
        taken(tmp_path, page, "html")


def of_links(count: int) -> str:
    links = (f'<a href="../../f/numpy-{n}.0.tar.gz#sha256={n:064x}">numpy-{n}.0.tar.gz</a>' for n in range(count))
    return "<title>Links for numpy</title>" + "".join(links)


@pytest.mark.deep
def test_a_long_page_takes_as_long_as_its_length_and_one_without_end_is_refused(tmp_path: Path) -> None:
    def once(content: str, count: int) -> float:
        gc.collect()  # what other tests have left is not counted
        began = time.process_time()
        records, _ = taken(tmp_path, content, "html")
        page, _ = served(records)
        assert len(page["files"]) == count
        return time.process_time() - began

    def seconds(count: int) -> float:
        content = of_links(count)
        return min(once(content, count) for _ in range(3))

    gc.disable()
    try:
        few, many = seconds(500), seconds(2_000)
    finally:
        gc.enable()
    assert many < 10 * few  # four times as many; what grows with the square takes sixteen times as long
    listed = json.dumps([{"filename": "x.whl"}] * (FILES_MAX + 1))
    with pytest.raises(TooLarge, match="200,001 files"):
        taken(tmp_path, f'{{"files": {listed}}}')


@pytest.mark.deep
async def test_a_page_that_cannot_be_read_fails_no_run_that_a_policy_judges(tmp_path: Path) -> None:
    async with python_world(tmp_path) as w:
        await w.call("policy.create", name="few", rules={"packages": {"exclude": ["gamma"]}})
        await w.python("active", policy="few")
        bad = Fault(status=200, body=b'{"files": [{"filename":', headers={"Content-Type": JSON})
        w.upstream.fail("simple/alpha-one/", bad, times=None)
        run = await w.run("main:p")
        assert run.state is RunState.INCOMPLETE, run
        assert len(await w.files("beta")) == 2
        w.upstream.heal()
        assert (await w.run("main:p")).state is RunState.COMPLETED
        assert len(await w.files("alpha-one")) == 1
        rules = {"packages": {"allow": ["alpha-one"], "include_dependencies": True}}
        await w.call("policy.create", name="closed", rules=rules, families=["python"])
        await w.call("mirror.update", mirror="main:p", revision=1, policy="closed")
        w.index.add("alpha.one", "2.0")
        w.upstream.fail("simple/alpha-one/", bad, times=None)
        assert (await w.run("main:p")).state is RunState.INCOMPLETE


@pytest.mark.parametrize("lazy", [False, pytest.param(True, marks=pytest.mark.deep)])
async def test_users_and_passwords_of_file_addresses_are_kept_nowhere(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, lazy: bool
) -> None:
    """They are told, the files are asked for without, and the copy of the page serves as before."""
    index = PythonIndex(core=False)
    file = index.add("beta", "1.0")
    async with python_world(tmp_path, index) as w:
        index.files_at = f"http://user:s3cret-pw@127.0.0.1:{w.upstream.url.rpartition(':')[2]}/files"
        await w.python("passive" if lazy else "active", filters={} if lazy else {"projects": ["beta"]})
        for mirrored in (False, True):
            run = await w.run("main:p")
            assert run.state is RunState.COMPLETED
            assert await w.files("beta") == [file.filename]
            told = [line.text for line in (await w.call("run.log", run=run.id)).items]
            told += [record.getMessage() for record in caplog.records]
            assert mirrored or any("1 files have a user or a password in their addresses" in one for one in told)
            assert "s3cret" not in "".join(told)
        assert (await w.get(f"/repo/main/packages/beta/{file.filename}")).body == file.content
        with closing(sqlite3.connect(w.daemon.state / "firth.sqlite")) as state:
            for (body,) in state.execute("SELECT body FROM page WHERE body IS NOT NULL"):
                assert b"s3cret" not in zstandard.ZstdDecompressor().decompress(body)
    kept = [one for one in (tmp_path).rglob("*") if one.is_file()]
    assert kept
    assert [one for one in kept if b"s3cret" in one.read_bytes()] == []


@pytest.mark.parametrize("form", [pytest.param("json", id="json"), pytest.param("html", id="html")])
def test_a_record_is_kept_without_users(tmp_path: Path, form: str) -> None:
    told = "https:\\/\\/u:s3cret@h.example.org\\/f" if form == "json" else "https://u:s3cret&#64;h.example.org/f"
    json_form = page_of(said(url="PLACE")).replace("PLACE", told)
    html = f'<a href="{told}/{WHEEL}">{WHEEL}</a>'
    listing = ProjectPage(spool(tmp_path, json_form if form == "json" else html, "numpy", form), 1 << 24)
    (entry,) = listing
    assert b"s3cret" not in bytes(entry.raw)
    assert b"https://h.example.org/f" in bytes(entry.raw)
    assert any("1 files have a user or a password" in note for note in listing.notes)


@pytest.mark.deep
async def test_hostile_addresses_are_told_and_never_asked(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    index = PythonIndex(core=False)
    index.add("alpha", "1.0")
    bad = {
        "2.0": "file:///etc/passwd",
        "3.0": "javascript:alert(1)",
        "4.0": "http://[::1",
        "5.0": "http://user:hidden7secret@127.0.0.1:9/x.whl",
        "6.0": "../../loop/x.whl",
        "7.0": "../../../../../files/alpha/alpha-1.0-py3-none-any.whl",
    }
    for version, url in bad.items():
        index.add("alpha", version, url=url)
    (tmp_path / "secret").write_text("root")
    async with python_world(tmp_path, index) as w:
        w.upstream.fail("loop/*", Fault(redirect="/loop/x.whl"), times=None)
        await w.python("active", filters={"projects": ["alpha"]})
        run = await w.run("main:p")
        assert run.state is RunState.INCOMPLETE, run
        details = await w.call("mirror.details", mirror="main:p")
        failed = {one.filename.split("-")[1]: one.reason for one in details.failed}
        assert failed.keys() == {"2.0", "3.0", "4.0", "5.0", "6.0", "7.0"}, failed
        assert all(failed.values())
        assert "sha256" in failed["7.0"]  # the file is there, and another one: the address climbs to the root
        assert await w.files("alpha") == ["alpha-1.0-py3-none-any.whl"]
        await w.python("passive", "lazy", channel="main", filters={"projects": ["alpha"]})
        told = str(details) + str(run) + str(await w.call("run.get", run=run.id)) + caplog.text
        assert "hidden7secret" not in told


@pytest.mark.deep
async def test_odd_files_are_published_and_installed_from(tmp_path: Path) -> None:
    index = PythonIndex(core=False)
    good = index.add("alpha", "1.0", yanked='<b>no</b> & "never"')
    index.add("alpha", "2.0", hashes={"md5": "00" * 16})
    index.add("beta", "1.0", hashes={"blake2b_256": SHA})
    index.add("beta", "0.9", size=7)
    index.add("gamma", "1.0", hashes={"sha256": ""})
    for name in ("gamma-final-py3-none-any.whl", "gamma-1.0-py3-none-any.wheel.whl", "Gamma_1.0.whl", "gamma 2.whl"):
        file = index.add("gamma", "3.0", body=name)
        file.filename = name
        file.said["url"] = f"../../files/gamma/{name.replace(' ', '%20')}"
    zipped = index.add("delta", "1.0", kind="sdist")
    zipped.filename, zipped.content = "delta-1.0.zip", wheel("delta", "1.0")
    twin = index.add("delta", "2.0", kind="sdist")
    index.projects["delta"].append(twin)
    other = index.add("delta", "2.0", kind="sdist")
    other.content = sdist("delta", "2.0") + b"\0"
    async with python_world(tmp_path, index) as w:
        await w.python("active")
        run = await w.run("main:p")
        details = await w.call("mirror.details", mirror="main:p")
        reasons = {(one.part, one.filename): one.reason for one in details.failed}
        assert reasons.keys() == {
            ("alpha", "alpha-2.0-py3-none-any.whl"),
            ("beta", "beta-0.9-py3-none-any.whl"),
            ("delta", "delta-2.0.tar.gz"),
        }, reasons
        assert "md5" in reasons["alpha", "alpha-2.0-py3-none-any.whl"]
        assert "twice" in reasons["delta", "delta-2.0.tar.gz"]
        assert run.counts.unhashed >= 2
        assert set(await w.files("delta")) == {"delta-1.0.zip", "delta-2.0.tar.gz"}
        assert len(await w.files("gamma")) == 5
        assert good.filename in await w.page("alpha", accept="text/html")
        address = f"{w.daemon.url}/repo/main/simple/"
        tools = Installer(tmp_path / "pip")
        for install in (tools.pip, tools.uv):
            status, words = await install(address, "alpha==1.0", "beta", "gamma==1.0")
            assert status == 0, words
        page = json.loads((await w.get("/repo/main/simple/beta/", {"Accept": JSON})).body)
        assert set(page["files"][0]["hashes"]) == {"sha256"}
