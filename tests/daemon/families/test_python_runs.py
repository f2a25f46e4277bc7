"""Runs of a Python mirror: what is asked for, what a bad source does, and what clients see of it."""

import asyncio
import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from firth_protocol.errors import FirthError, Invalid
from firth_protocol.types import Filters, MirrorMode, RunState, StepName
from firthd.config import UpstreamSettings
from firthd.families.base import Answer, Known, Listed
from firthd.families.python.requests import GATED_FROM, requests
from tests.support.daemon import HastyClock, settings_in
from tests.support.python import HTML, JSON, PythonIndex, PythonWorld, python_world, sample_index
from tests.support.upstream import Fault, FaultyUpstream

NAMES = ["alpha-one", "beta", "gamma"]
TTL_S = 600


async def mirrored(w: PythonWorld, mode: str = "active", **params: Any) -> None:
    await w.python(mode, **({"filters": {"projects": NAMES}} | params))
    run = await w.run("main:p")
    assert run.state is RunState.COMPLETED, run


async def test_pages_come_in_the_form_that_clients_ask_for(tmp_path: Path) -> None:
    async with python_world(tmp_path) as w:
        assert (await w.get("/repo/main/simple/")).status == 404
        await mirrored(w)
        page = await w.page("beta")
        assert page["meta"] == {"api-version": "1.4"}
        assert page["versions"] == ["1.0", "2.0"]
        first = page["files"][0]
        file = w.index.projects["beta"][0]
        assert first["hashes"] == {"sha256": file.sha256}
        assert (first["size"], first["upload-time"]) == (len(file.content), "2024-03-01T12:00:00.000000Z")
        assert set(first["core-metadata"]) == {"sha256"}
        reply = await w.get("/repo/main/simple/beta/", {"Accept": f"{HTML};q=0.5"})
        assert (reply.headers["Content-Type"], reply.headers["Vary"]) == (HTML, "Accept, Accept-Encoding")
        assert f"#sha256={file.sha256}".encode() in reply.body
        plain = await w.get("/repo/main/simple/beta/")
        assert plain.headers["Content-Type"].startswith("text/html")
        as_json = await w.get("/repo/main/simple/beta/", {"Accept": JSON})
        assert as_json.headers["ETag"] != plain.headers["ETag"]
        again = await w.get("/repo/main/simple/beta/", {"Accept": JSON, "If-None-Match": as_json.headers["ETag"]})
        assert (again.status, again.headers["Vary"]) == (304, "Accept, Accept-Encoding")
        packed = await w.get("/repo/main/simple/beta/", {"Accept": JSON, "Accept-Encoding": "gzip, deflate"})
        assert packed.headers["Content-Encoding"] == "gzip"
        assert packed.headers["ETag"] != as_json.headers["ETag"]
        assert gzip.decompress(packed.body) == as_json.body
        for asked, expected in [
            ("Alpha.One/", "/repo/main/simple/alpha-one/"),
            ("alpha-one", "/repo/main/simple/alpha-one/"),
            ("", None),
        ]:
            async with w.http.get(f"{w.daemon.url}/repo/main/simple/{asked}", allow_redirects=False) as answer:
                assert answer.headers.get("Location") == expected
        async with w.http.get(f"{w.daemon.url}/repo/main/simple", allow_redirects=False) as answer:
            assert answer.headers["Location"] == "/repo/main/simple/"
        assert await w.page("unknown") == 404
        served = await w.get(f"/repo/main/packages/beta/{file.filename}")
        assert served.body == file.content
        assert "immutable" in served.headers["Cache-Control"]
        metadata = await w.get(f"/repo/main/packages/beta/{file.filename}.metadata")
        assert metadata.body == file.metadata
        part = await w.get(f"/repo/main/packages/beta/{file.filename}", {"Range": "bytes=-10"})
        assert (part.status, part.body) == (206, file.content[-10:])


async def test_a_run_asks_only_for_what_the_list_says_has_changed(tmp_path: Path) -> None:
    index = PythonIndex()
    for number in range(120):
        index.add(f"p{number}", "1.0")
    async with python_world(tmp_path, index) as w:
        await mirrored(w, "passive", filters={"projects": [*index.projects]})
        assert len(w.upstream.asked("simple/*")) == 122  # one of them was the look at the source
        await mirrored_again(w, 1)
        index.add("p7", "2.0")
        await mirrored_again(w, 2)
        assert await w.files("p7") == ["p7-1.0-py3-none-any.whl", "p7-2.0-py3-none-any.whl"]
        index.touch("p8")  # its page says nothing new
        await mirrored_again(w, 2)
        index.projects.pop("p9")  # off the list: its page is asked for, and is not there
        await mirrored_again(w, 2)
        assert await w.files("p9") == []
        listed = await w.get("/repo/main/simple/", {"Accept": JSON})
        assert len(json.loads(listed.body)["projects"]) == 119
        assert (await w.get("/repo/main/packages/p9/p9-1.0-py3-none-any.whl")).status == 502  # never stored
        index.projects.clear()
        run = await w.run("main:p")
        assert run.state is RunState.FAILED
        assert run.error is not None
        assert run.error.kind == "shrink_guard"


def test_a_page_that_its_list_marks_as_before_is_not_asked_for() -> None:
    """It costs no request, and no more than a name: there may be ten thousand of them."""
    known = {
        name: Known(path=f"{name}/", there=True, mark="1", copy=copy)
        for name, copy in {"as-before": True, "moved": True, "lost": False}.items()
    }
    filters = Filters(projects=[*known, *(f"new-{number}" for number in range(GATED_FROM))])
    marks = {name: Listed(name, "2" if name == "moved" else "1") for name in filters.projects or ()}
    for answer in (marks, None):  # the list has changed, or is as it was
        asking = requests(known, filters, False, MirrorMode.ACTIVE)
        (gate,) = next(asking).asks
        batches = [asking.send([Answer(part=gate.part, form=gate.forms[0], marks=answer)]), *asking]
        same = {part for batch in batches for part in batch.same}
        asked = {one.part for batch in batches for one in batch.asks}
        assert same == ({"as-before"} if answer else {"as-before", "moved"})
        assert asked == set(marks) - same


async def mirrored_again(w: PythonWorld, requests: int) -> None:
    """Run once more as the schedule does; so many requests are sent."""
    before = len(w.upstream.asked("simple/*"))
    run = await w.run("main:p")
    assert run.state is RunState.COMPLETED, run
    assert len(w.upstream.asked("simple/*")) - before == requests


async def test_a_quarantined_project_is_refused_at_once_and_an_emptied_one_is_held(tmp_path: Path) -> None:
    async with python_world(tmp_path) as w:
        await mirrored(w)
        kept, files = w.index.projects["beta"], "/repo/main/packages"
        w.index.projects["beta"] = []
        run = await w.run("main:p")
        assert run.state is RunState.COMPLETED
        assert any("beta lists nothing any more" in note for note in run.notes)
        assert len(await w.files("beta")) == 2
        w.index.status["beta"] = {"status": "quarantined", "reason": "malware"}
        assert (await w.run("main:p")).state is RunState.COMPLETED
        page = await w.page("beta")
        assert (page["files"], page["project-status"]) == ([], {"status": "quarantined", "reason": "malware"})
        refused = await w.get(f"{files}/beta/{kept[0].filename}")
        assert refused.status == 403
        assert b"quarantine" in refused.body
        del w.index.status["beta"]
        w.index.projects["beta"] = kept
        assert (await w.run("main:p")).state is RunState.COMPLETED
        assert (await w.get(f"{files}/beta/{kept[0].filename}")).body == kept[0].content
        w.index.projects["beta"] = []
        await w.run("main:p")
        assert len(await w.files("beta")) == 2
        await w.run("main:p", accept_removals=True)
        assert await w.files("beta") == []


async def test_one_bad_page_or_file_keeps_no_other_from_clients(tmp_path: Path) -> None:
    index = sample_index()
    for number in range(5):
        index.add("delta", f"{number}.0")
    async with python_world(tmp_path, index) as w:
        await w.python("active", filters={"projects": [*NAMES, "delta", "missing"]})
        login = Fault(status=200, body=b"<form><input type=password></form>", headers={"Content-Type": "text/html"})
        w.upstream.fail("simple/gamma/", login, times=None)
        for number in range(3):
            w.upstream.fail(f"files/delta/delta-{number}.0*.whl", Fault(body=b"wrong"), times=None)
        for number in (3, 4):
            w.upstream.fail(f"files/delta/delta-{number}.0*.whl", Fault(status=404), times=None)
        run = await w.run("main:p")
        assert run.state is RunState.INCOMPLETE, run
        failed = (await w.call("mirror.details", mirror="main:p")).failed
        assert sorted((one.part, one.filename[:7]) for one in failed) == [
            *(("delta", f"delta-{number}") for number in range(5)),
            ("gamma", ""),
        ]
        assert await w.files("beta") == ["beta-1.0-py3-none-any.whl", "beta-2.0-py3-none-any.whl"]
        assert await w.files("delta") == []
        w.upstream.heal()
        assert (await w.run("main:p")).state is RunState.COMPLETED
        assert len(await w.files("delta")) == 5
        assert len(await w.files("gamma")) == 1


@pytest.mark.parametrize(
    "kinds",
    [
        pytest.param({"plain": True, "bare": True}, id="html"),
        pytest.param({"serials": False}, id="no-serials", marks=pytest.mark.deep),
    ],
)
async def test_a_source_of_another_kind_is_mirrored_too(tmp_path: Path, kinds: dict[str, bool]) -> None:
    async with python_world(tmp_path, sample_index(**kinds)) as w:
        await mirrored(w, filters={})
        page = await w.page("beta")
        assert [file["hashes"]["sha256"] for file in page["files"]] == [one.sha256 for one in w.index.projects["beta"]]
        assert (await w.run("main:p")).state is RunState.COMPLETED


@pytest.mark.parametrize("mode", ["active", pytest.param("passive", marks=pytest.mark.deep)])
async def test_a_file_with_another_digest_than_sha256_is_held_to_it(tmp_path: Path, mode: str) -> None:
    index = PythonIndex(core=False)
    for version in ("1.0", "2.0"):
        file = index.add("beta", version)
        file.said["hashes"] = {"sha512": hashlib.sha512(file.content).hexdigest()}
    good, bad = index.projects["beta"]
    async with python_world(tmp_path, index) as w:
        await w.python(mode, filters={"projects": ["beta"]})
        w.upstream.fail(f"files/beta/{bad.filename}", Fault(body=bad.content[::-1]), times=None)
        run = await w.run("main:p")
        assert run.counts.unhashed == 0
        assert (await w.get(f"/repo/main/packages/beta/{good.filename}")).body == good.content
        assert (await w.get(f"/repo/main/packages/beta/{bad.filename}")).body != bad.content[::-1]
        if mode == "active":
            assert (run.state, run.counts.failed) == (RunState.INCOMPLETE, 1)
            (failure,) = (await w.call("mirror.details", mirror="main:p")).failed
            assert f"sha512 is {hashlib.sha512(bad.content[::-1]).hexdigest()}" in failure.reason
            assert "was promised" in failure.reason


@pytest.mark.deep
async def test_a_folder_of_files_is_a_source(tmp_path: Path) -> None:
    for plain in (False, True):
        sample_index(plain=plain).write(tmp_path / f"{plain}")
    async with python_world(tmp_path) as w:
        for plain in (False, True):
            source = f"file://{tmp_path}/{plain}/simple"
            await w.call("channel.create", name=f"c{plain}".lower())
            fields = {"channel": f"c{plain}".lower(), "source": source}
            await w.python("active", filters={"projects": NAMES}, **fields)
            run = await w.run(f"c{plain}:p".lower())
            assert run.state is RunState.COMPLETED, run
            assert len(await w.files("beta", at=f"/repo/c{plain}".lower())) == 2


@pytest.mark.deep
async def test_secrets_stay_at_home_when_files_lie_elsewhere(tmp_path: Path) -> None:
    async with FaultyUpstream() as far:
        index = sample_index()
        index.files_at = f"{far.url}/files"
        index.serve(far)
        async with python_world(tmp_path, index, upstream=FaultyUpstream(basic=("u", "secret-word"))) as w:
            fields = {"credentials": {"user": "u", "password": "secret-word"}}
            await mirrored(w, "passive", **fields)
            file = index.projects["beta"][0]
            assert (await w.get(f"/repo/main/packages/beta/{file.filename}")).body == file.content
            assert far.requests
            assert not any("authorization" in seen.headers for seen in far.requests)


async def test_a_wrong_source_is_refused_with_what_was_found(tmp_path: Path) -> None:
    async with python_world(tmp_path) as w, FaultyUpstream() as other:
        sample_index().serve(other)

        def root(path: str, body: bytes, kind: str) -> None:
            other.files[path] = body
            other.content_types[path] = kind

        async def refusal(path: str, **params: Any) -> str:
            with pytest.raises(FirthError) as caught:
                await w.python("passive", source=f"{other.url}{path}", **params)
            return f"{caught.value.message} {caught.value.hint}"

        assert "the page of a project" in await refusal("/simple/beta")
        root("login/", b"<html><form><input type='password'></form></html>", "text/html")
        assert "a login page" in await refusal("/login")
        root("devpi/", b'{"type":"index","result":{}}', "application/json")
        root("devpi/+simple/", sample_index().list_json(), JSON)
        said = await refusal("/devpi")
        assert "/devpi/+simple/" in said
        assert "take that address" in said
        root("pins/", b'{"numpy":["1.0"]}', "application/json")
        assert "versions for names" in await refusal("/pins")
        made = await w.python("passive", source=other.url)
        assert made.source == f"{other.url}/simple"
        with pytest.raises(Invalid, match="no name of a project"):
            await w.python("passive", name="q", filters={"projects": ["numpy>=1"]})


async def test_filters_take_their_files_and_an_empty_page_is_there(tmp_path: Path) -> None:
    index = sample_index()
    index.add("beta", "3.0rc1")
    async with python_world(tmp_path, index, clock=HastyClock()) as w:
        mirror = await w.python(
            "passive", filters={"projects": NAMES, "package_types": ["wheel"], "prereleases": False}
        )
        assert (await w.run("main:p")).state is RunState.COMPLETED
        assert await w.files("beta") == ["beta-1.0-py3-none-any.whl", "beta-2.0-py3-none-any.whl"]
        assert await w.files("gamma") == []  # 200: clients must not look elsewhere for it
        gone = await w.get("/repo/main/packages/gamma/gamma-0.1.tar.gz")
        assert gone.status == 404
        await w.call(
            "mirror.update", mirror=mirror.id, revision=mirror.revision, filters={"projects": ["beta", "gamma"]}
        )
        assert (await w.run("main:p")).state is RunState.COMPLETED
        assert len(await w.files("beta")) == 3
        assert len(await w.files("gamma")) == 1
        assert await w.files("alpha-one") == []


@pytest.mark.deep
async def test_a_yank_shows_and_nothing_is_downloaded_again(tmp_path: Path) -> None:
    async with python_world(tmp_path) as w:
        await mirrored(w)
        asked = len(w.upstream.asked("files/*"))
        w.index.projects["beta"][1].said["yanked"] = "broken <b>"
        run = await w.run("main:p")
        assert run.counts.added == 1
        assert (await w.page("beta"))["files"][1]["yanked"] == "broken <b>"
        assert 'data-yanked="broken &lt;b&gt;"' in await w.page("beta", accept="text/html")
        assert len(w.upstream.asked("files/*")) == asked


@pytest.mark.deep
async def test_metadata_that_cannot_be_had_is_no_missing_file(tmp_path: Path) -> None:
    async with python_world(tmp_path) as w:
        await mirrored(w, "passive")
        file = w.index.projects["beta"][0]
        address = f"/repo/main/packages/beta/{file.filename}.metadata"
        w.upstream.fail("files/*.metadata", Fault(body=b"something else"))
        wrong = await w.get(address)
        assert wrong.status == 502
        await w.call("mirror.run", mirror="main:p")
        w.upstream.fail("files/*.metadata", Fault(status=503), times=None)
        assert (await w.get("/repo/main/packages/alpha-one/alpha_one-1.0-py3-none-any.whl.metadata")).status == 502
        assert (await w.get("/repo/main/packages/beta/beta-9.0-py3-none-any.whl.metadata")).status == 404


@pytest.mark.parametrize("whole", [False, True], ids=["list", "whole"])
async def test_a_blocked_version_is_refused_with_its_metadata(tmp_path: Path, whole: bool) -> None:
    async with python_world(tmp_path) as w:
        params: dict[str, Any] = {"filters": {}} if whole else {}
        await mirrored(w, "passive" if whole else "active", **params)
        assert len(await w.files("beta")) == 2
        await w.call("package.remove", channel="main", family="python", spec="Beta >=2")
        async with asyncio.timeout(10):
            while await w.files("beta") != ["beta-1.0-py3-none-any.whl"]:
                await asyncio.sleep(0.02)  # a run takes it out
        for ending in ("", ".metadata"):
            assert (await w.get(f"/repo/main/packages/beta/beta-2.0-py3-none-any.whl{ending}")).status == 403


async def test_a_lazy_page_follows_its_source_and_the_calendar(tmp_path: Path) -> None:
    clock = HastyClock()
    settings = settings_in(tmp_path, upstream=UpstreamSettings(timeout_s=5, page_ttl_s=TTL_S))
    async with python_world(tmp_path, clock=clock, settings=settings) as w:
        await w.python("passive")
        assert (await w.run("main:p")).state is RunState.COMPLETED
        assert len(await w.files("beta")) == 2
        await w.call("channel.freeze", channel="main")
        w.index.add("beta", "3.0")
        clock.shift_ms += TTL_S * 1000
        assert len(await w.files("beta")) == 2
        await w.call("channel.unfreeze", channel="main")

        async def shows(count: int, status: str | None = None) -> None:
            async with asyncio.timeout(10):
                while True:
                    page = await w.page("beta")
                    if len(page["files"]) == count and page.get("project-status", {}).get("status") == status:
                        return
                    await asyncio.sleep(0.02)  # a page is asked for anew behind the reply

        await shows(3)
        newest = f"/repo/main/packages/beta/{w.index.projects['beta'][2].filename}"
        assert (await w.get(newest)).body == w.index.projects["beta"][2].content
        kept, w.index.projects["beta"] = w.index.projects["beta"], []
        clock.shift_ms += TTL_S * 1000
        await w.files("beta")
        w.index.status["beta"] = {"status": "quarantined"}
        clock.shift_ms += TTL_S * 1000
        await shows(0, "quarantined")
        assert (await w.get(newest)).status == 403
        del w.index.status["beta"]
        w.index.projects["beta"] = kept
        clock.shift_ms += TTL_S * 1000
        await shows(3)
        assert (await w.get(newest)).status == 200
        assert await w.page("nowhere") == 404


async def test_a_lazy_page_that_was_read_while_the_clock_was_ahead_follows_its_source(tmp_path: Path) -> None:
    clock = HastyClock()
    year_ms = 365 * 86_400_000
    async with python_world(tmp_path, clock=clock) as w:
        await w.python("passive")
        assert (await w.run("main:p")).state is RunState.COMPLETED
        assert len(await w.files("beta")) == 2
        clock.shift_ms += year_ms

        async def shows(project: str, *names: str) -> None:
            async with asyncio.timeout(10):
                while await w.files(project) != list(names):
                    await asyncio.sleep(0.02)  # a page is asked for anew behind the reply
            for file in w.index.projects[project]:
                assert (await w.get(f"/repo/main/packages/{project}/{file.filename}")).body == file.content

        wheels = [f"beta-{version}.0-py3-none-any.whl" for version in (1, 2, 3, 4)]
        w.index.add("beta", "3.0")
        await shows("beta", *wheels[:3])
        await shows("gamma", "gamma-0.1.tar.gz")
        clock.shift_ms -= year_ms
        assert await w.files("beta") == wheels[:3]
        w.index.add("beta", "4.0")
        w.index.add("gamma", "0.2", kind="sdist")
        await shows("beta", *wheels)
        await shows("gamma", "gamma-0.1.tar.gz", "gamma-0.2.tar.gz")


async def test_metadata_beside_a_wheel_is_counted_nowhere(tmp_path: Path) -> None:
    async with python_world(tmp_path) as w:
        await w.python("active", filters={"projects": ["alpha-one", "beta", "gamma"]})
        run = await w.run("main:p")
        assert (run.counts.added, run.counts.active, run.counts.active_planned) == (4, 4, 4), run.counts
        said = {step.name: step.description for step in run.steps}
        assert said[StepName.FILTER] == "4 read, 4 kept"
        assert said[StepName.PLAN].startswith("4 to add, 0 to remove")
        assert said[StepName.DOWNLOAD].startswith("4 files")

        mirror = await w.call("mirror.get", mirror="main:p")
        assert (mirror.artifacts, mirror.stored) == (4, 4)
        details = await w.call("mirror.details", mirror="main:p")
        assert details.parts == {"alpha-one": 1, "beta": 2, "gamma": 1}
        channel = await w.call("channel.get", channel="main")
        assert [(one.artifacts, one.stored) for one in channel.families if one.family == "python"] == [(4, 4)]
        newest = (await w.call("channel.generations", channel="main")).items[0]
        assert (newest.added, newest.artifacts) == (4, 4)
        changes = (await w.call("channel.changes", channel="main")).items
        assert sorted(one.filename[-4:] for one in changes) == [".whl", ".whl", ".whl", "r.gz"]
        listed = (await w.call("package.list", channel="main")).items
        assert [(one.name, one.files, one.stored) for one in listed] == [
            ("alpha-one", 1, 1), ("beta", 2, 2), ("gamma", 1, 1),
        ]  # fmt: skip
        package = await w.call("package.get", channel="main", family="python", name="beta")
        assert [one.filename for one in package.files] == ["beta-1.0-py3-none-any.whl", "beta-2.0-py3-none-any.whl"]

        # It is advertised and served all the same; only the wheel is a download.
        page = await w.page("beta")
        assert all(file["core-metadata"]["sha256"] for file in page["files"])
        wheel = "/repo/main/packages/beta/beta-1.0-py3-none-any.whl"
        assert (await w.get(f"{wheel}.metadata")).status == 200
        assert (await w.get(wheel)).status == 200
        report = await w.call("report.downloads", channel="main", by=["version"])
        assert [(row.package, row.version, row.downloads) for row in report.items] == [("beta", "1.0", 1)]

        del w.index.projects["beta"][0]
        w.index.touch("beta")
        run = await w.run("main:p")
        assert (run.counts.added, run.counts.removed, run.counts.unchanged) == (0, 1, 3), run.counts
        kept = await w.call("mirror.delete", mirror="main:p", confirm="p", dry_run=True)
        assert (kept.kept, kept.dropped) == (3, 0)


async def test_a_passive_mirror_counts_and_fills_files_not_their_metadata(tmp_path: Path) -> None:
    async with python_world(tmp_path) as w:
        await w.python("passive", filters={"projects": ["beta"]})
        assert (await w.run("main:p")).counts.passive == 2
        wheel = "/repo/main/packages/beta/beta-1.0-py3-none-any.whl"
        assert (await w.get(f"{wheel}.metadata")).status == 200
        assert (await w.call("mirror.get", mirror="main:p")).stored == 0
        assert (await w.get(wheel)).status == 200
        assert (await w.call("mirror.get", mirror="main:p")).stored == 1
        run = await w.daemon.ended((await w.call("mirror.fill", mirror="main:p")).run.id)
        assert (run.counts.active, run.counts.active_planned) == (1, 1), run
        assert (await w.call("mirror.get", mirror="main:p")).stored == 2


async def test_what_an_administrator_asks_first_is_answered(tmp_path: Path) -> None:
    async with python_world(tmp_path) as w:
        await w.python("passive", "few", filters={"projects": ["Alpha.One", "nothere"]})
        run = await w.run("main:few")
        assert run.notes == ["the source has no nothere"]
        package = await w.call("package.get", channel="main", family="python", name="Alpha.One")
        assert package.name == "alpha-one"
        await w.call("channel.create", name="whole")
        await w.python("passive", channel="whole")
        steps = (await w.run("whole:p")).steps
        assert "3 listed, each read when a client first asks for it" in [step.description for step in steps]


async def test_metadata_that_the_source_lacks_is_left_out_by_an_active_mirror(tmp_path: Path) -> None:
    async with python_world(tmp_path) as w:
        w.upstream.fail("files/beta/beta-1.0*.metadata", Fault(status=404), times=None)
        await w.python("active", filters={"projects": ["beta"]})
        run = await w.run("main:p")
        assert (run.state, run.counts.active, run.counts.failed) == (RunState.COMPLETED, 2, 0), run
        assert run.notes == [
            "the source lists beta-1.0-py3-none-any.whl.metadata and does not have them: they are left out"
        ]
        page = await w.page("beta")
        assert ["core-metadata" in file for file in page["files"]] == [False, True]
        assert await w.run("main:p") is not None
        assert ["core-metadata" in file for file in (await w.page("beta"))["files"]] == [False, True]


@pytest.mark.parametrize("lazily", [False, pytest.param(True, marks=pytest.mark.deep)])
async def test_metadata_that_the_source_lacks_is_taken_out_of_the_wheel_by_a_passive_mirror(
    tmp_path: Path, lazily: bool
) -> None:
    async with python_world(tmp_path) as w:
        w.upstream.fail("files/beta/*.metadata", Fault(status=404), times=None)
        await w.python("passive", filters={} if lazily else {"projects": ["beta"]})
        await w.run("main:p")
        assert len(await w.files("beta")) == 2
        wheel = "/repo/main/packages/beta/beta-1.0-py3-none-any.whl"
        told = await w.get(f"{wheel}.metadata")
        assert (told.status, told.body) == (200, w.index.projects["beta"][0].metadata)
        assert (await w.get(wheel)).status == 200
        asked = [seen.path for seen in w.upstream.requests if seen.path.endswith("1.0-py3-none-any.whl")]
        assert len(asked) == 1, asked  # it is in the store since then

        w.index.projects["beta"][1].content = b"no wheel"
        assert (await w.get("/repo/main/packages/beta/beta-2.0-py3-none-any.whl.metadata")).status == 502


@pytest.mark.deep
async def test_metadata_that_a_wheel_holds_otherwise_than_promised_is_not_given(tmp_path: Path) -> None:
    index = sample_index()
    index.projects["beta"][0].metadata = b"Metadata-Version: 2.1\nName: beta\nVersion: 1.0\nSummary: another\n"
    async with python_world(tmp_path, index) as w:
        w.upstream.fail("files/beta/*.metadata", Fault(status=404), times=None)
        await w.python("passive", filters={"projects": ["beta"]})
        await w.run("main:p")
        reply = await w.get("/repo/main/packages/beta/beta-1.0-py3-none-any.whl.metadata")
        assert reply.status == 502


async def test_what_a_package_needs_is_told_once_something_that_says_it_is_stored(tmp_path: Path) -> None:
    index = sample_index()
    index.add("delta", "1.0", needs=["beta>=1.0", "gamma; extra == 'more'"])
    async with python_world(tmp_path, index) as w:
        await w.python("passive", filters={"projects": ["delta", "gamma"]})
        await w.run("main:p")

        async def needed(name: str) -> tuple[bool, list[str], bool]:
            found = await w.call("package.get", channel="main", family="python", name=name)
            return found.dependencies_known, found.dependencies, found.dependants_known

        assert await needed("delta") == (False, [], False)
        wheel = "/repo/main/packages/delta/delta-1.0-py3-none-any.whl"
        assert (await w.get(f"{wheel}.metadata")).status == 200
        assert await needed("delta") == (True, ["beta>=1.0", "gamma; extra == 'more'"], False)
        assert (await w.get("/repo/main/packages/gamma/gamma-0.1.tar.gz")).status == 200
        assert await needed("gamma") == (False, [], False)  # a source archive is not built to ask it
