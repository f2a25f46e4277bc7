"""Finding out what stands at a source's address."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from firth_protocol import errors
from firth_protocol.types import Credentials, Filters, MirrorType, SourceFound
from firthd.config import UpstreamSettings
from firthd.families import recognisers
from firthd.families.base import Answer, FamilyRules
from firthd.families.conda.family import CONDA
from firthd.families.conda.source import normalise
from firthd.families.python.family import PYTHON
from firthd.families.python.looks import names_in, wheels_of
from firthd.families.r.family import R
from firthd.mirrors.probe import PROBE_S, Probe
from firthd.upstream.client import Source, Upstream
from tests.support.clock import FakeClock
from tests.support.python import PythonIndex
from tests.support.upstream import Fault, FaultyUpstream

ZST = b"\x28\xb5\x2f\xfd and more"


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    upstream = Upstream(UpstreamSettings(), FakeClock(auto=True))
    await upstream.start()
    yield upstream
    await upstream.close()


@pytest.fixture
async def server() -> AsyncIterator[FaultyUpstream]:
    async with FaultyUpstream() as server:
        yield server


async def probe(
    upstream: Upstream,
    source: Source,
    *,
    timeout_s: float = PROBE_S,
    rules: FamilyRules = CONDA,
    filters: Filters | None = None,
) -> SourceFound:
    return await Probe(upstream, source, rules, recognisers()).run(filters or Filters(), timeout_s)


async def test_a_channel_tells_its_subdirs_and_sizes(server: FaultyUpstream, upstream: Upstream) -> None:
    server.files = {
        "main/noarch/repodata.json.zst": ZST,
        "main/noarch/repodata.json": b"{}",
        "main/osx-arm64/repodata.json": b' {"packages": {}}',
        "main/linux-64/repodata.json.zst": ZST,
    }
    found = await probe(upstream, Source(url=f"{server.url}/main"))
    assert found.type is MirrorType.CONDA
    assert found.source == f"{server.url}/main"
    assert found.subdirs == ["noarch", "linux-64", "osx-arm64"]
    assert found.index_bytes == 2 * len(ZST) + 17
    assert found.warnings == []
    assert sum(seen.sent for seen in server.requests if seen.status < 300) <= 64  # no index was read whole


@pytest.mark.parametrize("packed", [True, False])
async def test_a_look_at_a_source_takes_about_five_requests(
    server: FaultyUpstream, upstream: Upstream, packed: bool
) -> None:
    ending, content = (".zst", ZST) if packed else ("", b"{}")
    every = ("noarch", "linux-64", "osx-arm64", "win-64", "linux-aarch64", "osx-64")
    server.files = {f"{subdir}/repodata.json{ending}": content for subdir in every}
    found = await probe(upstream, Source(url=server.url))
    assert found.subdirs == ["noarch", "linux-64", "osx-arm64", "win-64"]
    assert len(server.requests) <= 5
    assert not server.asked(method="HEAD")


async def test_a_look_asks_for_what_the_filter_names(server: FaultyUpstream, upstream: Upstream) -> None:
    server.files = {f"{subdir}/repodata.json": b"{}" for subdir in ("noarch", "linux-64", "zos-z")}
    found = await Probe(upstream, Source(url=server.url), CONDA, recognisers()).run(Filters(subdirs=["zos-z"]))
    assert found.subdirs == ["noarch", "zos-z"]
    assert len(server.requests) == 3


async def test_a_server_without_head_is_probed_too(server: FaultyUpstream, upstream: Upstream) -> None:
    server.files = {"noarch/repodata.json.zst": ZST}
    server.fail("*", Fault(no_head=True), times=None)
    found = await probe(upstream, Source(url=server.url))
    assert (found.subdirs, found.index_bytes) == (["noarch"], len(ZST))


async def test_a_page_is_no_index_even_when_it_is_answered_with_200(server: FaultyUpstream, upstream: Upstream) -> None:
    page = "linux-64/repodata.json.zst"
    server.files = {"noarch/repodata.json.zst": ZST, page: b"<html>", "win-64/repodata.json.zst": b"<html>"}
    server.files["win-64/repodata.json"] = b"{}"
    server.content_types = {page: "text/html", "win-64/repodata.json.zst": "text/html"}
    found = await probe(upstream, Source(url=server.url))
    assert found.subdirs == ["noarch", "win-64"]
    assert found.index_bytes == len(ZST) + 2


async def test_a_folder_is_probed(upstream: Upstream, tmp_path: Path) -> None:
    (tmp_path / "noarch").mkdir()
    (tmp_path / "noarch" / "repodata.json").write_bytes(b"{}")
    found = await probe(upstream, Source(url=tmp_path.as_uri()))
    assert (found.subdirs, found.index_bytes) == (["noarch"], 2)
    with pytest.raises(errors.Upstream, match="is not there"):
        await probe(upstream, Source(url=(tmp_path / "elsewhere").as_uri()))


async def test_a_lacking_noarch_is_warned_about(server: FaultyUpstream, upstream: Upstream) -> None:
    server.files = {"win-64/repodata.json": b"{}"}
    found = await probe(upstream, Source(url=server.url))
    assert found.subdirs == ["win-64"]
    assert any("noarch" in warning for warning in found.warnings)


PYTHON_ROOT = b"<!DOCTYPE html><meta name='pypi:repository-version' content='1.1'>"


@pytest.mark.parametrize(
    ("files", "types", "found"),
    [
        ({"src/contrib/PACKAGES": b"Package: a"}, {}, "a CRAN root"),
        ({"": b"{}"}, {"": "application/vnd.pypi.simple.v1+json"}, "a Python index"),
        ({"": PYTHON_ROOT}, {"": "text/html"}, "a Python index"),
        ({"simple/": b'<a href="a/">a</a>'}, {"simple/": "text/html"}, "a Python index"),
        ({"": b'<a href="pkgs/">pkgs</a>'}, {"": "text/html"}, "none of the files"),
        ({}, {}, "none of the files"),
        ({"noarch/repodata.json": b"<html>"}, {"noarch/repodata.json": "text/html"}, "a web page"),
        ({"noarch/repodata.json": b"hello"}, {}, "something else"),
        ({"noarch/repodata.json.zst": b"{}"}, {}, "something else"),
        ({"linux-64/repodata.json": b"hello"}, {}, "something else"),
    ],
)
async def test_what_stands_there_instead_is_said(
    server: FaultyUpstream, upstream: Upstream, files: dict[str, bytes], types: dict[str, str], found: str
) -> None:
    server.files, server.content_types = files, types
    with pytest.raises(errors.Invalid, match=found) as told:
        await probe(upstream, Source(url=server.url))
    assert server.url in told.value.message
    assert told.value.hint


@pytest.mark.parametrize(("status", "advice"), [(401, "credentials"), (403, "credentials"), (503, "check: false")])
async def test_a_refusal_is_told_after_few_requests(
    server: FaultyUpstream, upstream: Upstream, status: int, advice: str
) -> None:
    server.fail("*", Fault(status=status), times=None)
    with pytest.raises(errors.Upstream, match=str(status)) as told:
        await probe(upstream, Source(url=server.url))
    assert advice in told.value.hint
    assert told.value.data["status"] == status
    assert len(server.requests) <= (18 if status == 403 else 8)  # for the index, and what other families look at


async def test_a_bucket_that_refuses_what_it_lacks_has_the_rest(server: FaultyUpstream, upstream: Upstream) -> None:
    server.files = {"noarch/repodata.json": b"{}"}
    server.fail("win-64/*", Fault(status=403), times=None)
    server.fail("linux-64/*", Fault(status=501), times=None)
    assert (await probe(upstream, Source(url=server.url))).subdirs == ["noarch"]


async def test_nobody_there_is_told_with_the_way_around(upstream: Upstream) -> None:
    async with FaultyUpstream() as gone:
        pass
    with pytest.raises(errors.Upstream, match="cannot be reached") as told:
        await probe(upstream, Source(url=gone.url))
    assert "check: false" in told.value.hint


async def test_silence_ends_the_probe(server: FaultyUpstream, upstream: Upstream) -> None:
    server.files = {"noarch/repodata.json": b"{}"}
    server.fail("osx-arm64/*", Fault(until=asyncio.Event()), times=None)
    found = await probe(upstream, Source(url=server.url), timeout_s=0.5)
    assert found.subdirs == ["noarch"]
    assert any("there may be more" in warning for warning in found.warnings)
    server.fail("noarch/*", Fault(until=asyncio.Event()), times=None)
    with pytest.raises(errors.Upstream, match=r"did not answer within 0\.1 s"):
        await probe(upstream, Source(url=server.url), timeout_s=0.1)


async def test_the_token_of_the_source_opens_it(upstream: Upstream) -> None:
    async with FaultyUpstream({"main/noarch/repodata.json": b"{}"}, token="tk-12345") as server:
        source = normalise(f"{server.url}/t/tk-12345/main/noarch")
        found = await probe(upstream, Source(url=source.source, credentials=source.credentials))
        assert found.source == f"{server.url}/t/{{token}}/main"
        with pytest.raises(errors.Upstream) as told:
            await probe(upstream, Source(url=source.source, credentials=Credentials(token="wrong-1")))
        assert "wrong-1" not in str(told.value.wire())


def index_of(count: int, **kinds: bool) -> PythonIndex:
    index = PythonIndex(**kinds)
    for number in range(count):
        name = f"project{number}"
        index.projects[name], index.spelled[name], index.serial[name] = [], name, number
    return index


@pytest.mark.parametrize("plain", [False, True])
async def test_a_python_index_tells_its_projects_and_what_its_wheels_are_for(
    server: FaultyUpstream, upstream: Upstream, plain: bool
) -> None:
    index = index_of(40, plain=plain)
    for number in range(40):
        index.add(f"project{number}", "1.0", tag="cp312-cp312-manylinux_2_28_x86_64")
        index.add(f"project{number}", "1.0", tag="cp39-abi3-macosx_11_0_universal2")
        index.add(f"project{number}", "1.0", kind="sdist")
    index.serve(server)
    server.fail("simple/project5/", Fault(status=503))  # what one of them answers is no reason to say nothing
    found = await probe(upstream, Source(url=f"{server.url}/simple"), rules=PYTHON)
    assert (found.projects, found.warnings) == (40, [])
    assert found.platforms == ["linux-64", "osx-64", "osx-arm64"]
    assert found.python_versions == ["3.12", "3.9"]
    assert len(server.requests) == 5
    server.requests.clear()
    await probe(upstream, Source(url=server.url), rules=PYTHON, filters=Filters(projects=["Project31"]))
    assert "simple/project31/" in [seen.path for seen in server.requests]


async def test_a_long_list_is_looked_at_and_not_read(server: FaultyUpstream, upstream: Upstream) -> None:
    index_of(15_000).serve(server)
    found = await probe(upstream, Source(url=f"{server.url}/simple"), rules=PYTHON)
    assert found.projects is not None
    assert abs(found.projects - 15_000) <= 1_000
    assert any("about" in warning for warning in found.warnings)


async def test_an_index_without_a_list_has_the_projects_that_are_named(
    server: FaultyUpstream, upstream: Upstream
) -> None:
    index = PythonIndex()
    index.add("alpha", "1.0")
    index.serve(server)
    server.fail("simple/", Fault(status=404), times=None)
    found = await probe(upstream, Source(url=f"{server.url}/simple"), rules=PYTHON, filters=Filters(projects=["alpha"]))
    assert any("no project list" in warning for warning in found.warnings)
    login = Fault(status=200, body=b"<form><input type=password></form>", headers={"Content-Type": "text/html"})
    server.fail("simple/*", login, times=None)
    with pytest.raises(errors.Invalid, match="a login page"):
        await probe(upstream, Source(url=f"{server.url}/simple"), rules=PYTHON, filters=Filters(projects=["alpha"]))


async def test_a_cran_tells_its_platforms_and_versions_of_r(server: FaultyUpstream, upstream: Upstream) -> None:
    stanza = b"Package: alpha\nVersion: 1.0\n"
    folders = ["src/contrib", "bin/windows/contrib/4.3", "bin/windows/contrib/4.6"]
    server.files = {f"{folder}/PACKAGES": stanza for folder in [*folders, "bin/macosx/big-sur-arm64/contrib/4.4"]}
    found = await probe(upstream, Source(url=server.url), rules=R)
    assert (found.platforms, found.r_versions) == (["source", "windows", "macos"], ["4.6", "4.4", "4.3"])
    assert found.python_versions == []


def test_no_beginning_takes_longer_than_its_length() -> None:
    began = time.process_time()
    for start in (b"<a " * 170_000, b"<a href=" * 60_000, b'{"name": "' * 50_000, b'<a href="x/">x</a>' * 28_000):
        assert len(names_in(start)) < 2
    for start in (b"a" * 520_000, b"a-" * 260_000 + b".whl", b"x-1-cp312-cp312-any.whl " * 20_000):
        wheels_of([Answer(part="x", form=None, start=start)])
    assert time.process_time() - began < 1
