import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firth_protocol import errors
from firth_protocol.types import Credentials, MirrorType
from firthd.config import UpstreamSettings
from firthd.families.conda.source import index_candidates, normalise, probe
from firthd.upstream.client import Source, Upstream
from tests.support.clock import FakeClock
from tests.support.upstream import Fault, FaultyUpstream

TOKEN = Credentials(token="tk-12345")
BASIC = Credentials(user="me", password="pä:ss")
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


# --- addresses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_", "stored", "credentials"),
    [
        ("https://conda.example.org/pkgs/main", "https://conda.example.org/pkgs/main", None),
        ("  https://conda.example.org/pkgs/main/ ", "https://conda.example.org/pkgs/main", None),
        ("HTTPS://Conda.Example.ORG:443//pkgs//main//", "https://conda.example.org/pkgs/main", None),
        ("https://conda.example.org", "https://conda.example.org", None),
        ("https://conda.example.org:8443/a", "https://conda.example.org:8443/a", None),
        ("https://[::1]:8443/a", "https://[::1]:8443/a", None),
        ("https://b\u00fccher.example.org/a", "https://xn--bcher-kva.example.org/a", None),
        ("https://conda.example.org/a+b%20c/ä", "https://conda.example.org/a+b%20c/%C3%A4", None),
        ("https://conda.example.org/label/dev", "https://conda.example.org/label/dev", None),
        ("https://conda.example.org/api/repo/team", "https://conda.example.org/api/repo/team", None),
        ("https://conda.example.org/t/tk-12345/repo/main", "https://conda.example.org/t/{token}/repo/main", TOKEN),
        ("https://conda.example.org/repo/t/tk-12345/org/c", "https://conda.example.org/repo/t/{token}/org/c", TOKEN),
        ("https://conda.example.org/t/tk-12345", "https://conda.example.org/t/{token}", TOKEN),
        ("https://conda.example.org/t/tk%2D12345/main", "https://conda.example.org/t/{token}/main", TOKEN),
        ("https://me:p%C3%A4%3Ass@conda.example.org/main", "https://conda.example.org/main", BASIC),
        ("https://me@conda.example.org/x", "https://conda.example.org/x", Credentials(user="me", password="")),
        ("https://conda.example.org/x/t", "https://conda.example.org/x/t", None),
        ("file:///media/disk/", "file:///media/disk", None),
        ("file:///media/my disk", "file:///media/my%20disk", None),
        ("file://localhost/media/disk", "file:///media/disk", None),
    ],
)
def test_each_form_of_an_address(given_: str, stored: str, credentials: Credentials | None) -> None:
    found = normalise(given_)
    assert (found.source, found.credentials, found.warnings) == (stored, credentials, [])
    again = normalise(found.source, found.credentials)
    assert (again.source, again.credentials, again.warnings) == (stored, credentials, [])


@pytest.mark.parametrize(
    ("given_", "stored", "left_off"),
    [
        ("https://c.example.org/main/linux-64", "https://c.example.org/main", "/linux-64"),
        ("https://c.example.org/main/noarch/", "https://c.example.org/main", "/noarch"),
        ("https://c.example.org/main/noarch/repodata.json", "https://c.example.org/main", "/noarch/repodata.json"),
        (
            "https://c.example.org/main/odd-9/repodata.json.zst",
            "https://c.example.org/main",
            "/odd-9/repodata.json.zst",
        ),
        ("https://c.example.org/main/channeldata.json", "https://c.example.org/main", "/channeldata.json"),
        ("file:///media/disk/noarch", "file:///media/disk", "/noarch"),
        ("https://c.example.org/noarch", "https://c.example.org", "/noarch"),
    ],
)
def test_an_address_copied_from_a_browser_is_corrected_and_told(given_: str, stored: str, left_off: str) -> None:
    found = normalise(given_)
    assert found.source == stored
    (warning,) = found.warnings
    assert left_off in warning


def test_a_token_without_a_place_goes_to_the_front_as_conda_does() -> None:
    found = normalise("https://conda.example.org/repo/main", TOKEN)
    assert found.source == "https://conda.example.org/t/{token}/repo/main"
    assert found.credentials == TOKEN
    assert len(found.warnings) == 1


def test_what_is_stored_already_counts_where_nothing_else_is_given() -> None:
    address = "https://conda.example.org/t/{token}/main"
    assert normalise(address, stored=TOKEN).credentials == TOKEN
    assert normalise("https://conda.example.org/t/new-1/main", stored=TOKEN).credentials == Credentials(token="new-1")
    with pytest.raises(errors.Invalid, match="there is none"):
        normalise(address)


def test_secrets_on_an_open_line_are_warned_about() -> None:
    (warning,) = normalise("http://me:pw@conda.example.org/main").warnings
    assert "without encryption" in warning


@pytest.mark.parametrize(
    "source",
    [
        "",
        "main",
        "/media/disk",
        "file:media/disk",
        "file://host.example.org/media",
        "file:///",
        "file:///media/../etc",
        "file:///media/%2e%2e/etc",
        "ftp://conda.example.org/main",
        "javascript://conda.example.org/%0aalert(1)",
        "https://",
        "https:///main",
        "https://conda.example.org:99999/main",
        "https://conda.example.org:x/main",
        "https://[::1/main",
        "https://con da.example.org/main",
        "https://conda.example.org/ma in",
        "https://conda.example.org/ma\nin",
        "https://conda.example.org/main\\..",
        "https://conda.example.org/main?x=1",
        "https://conda.example.org/main?",
        "https://conda.example.org/main#x",
        "https://conda.example.org/../main",
        "https://conda.example.org/%2E%2E/main",
        "https://conda.example.org/t/{token}/t/{token}/x",
        "https://:pw@conda.example.org/main",
        "https://me:pw@conda.example.org/t/tk-1/main",
        "https://conda.example.org/t/a%0d%0ab/main",
        "https://conda.example.org/" + "a" * 2048,
    ],
)
def test_what_is_no_address_is_refused(source: str) -> None:
    with pytest.raises(errors.Invalid) as refused:
        normalise(source)
    assert refused.value.message


def test_two_different_secrets_are_refused_and_not_shown() -> None:
    for source in ("https://conda.example.org/t/tk-other/main", "https://me:tk-other@conda.example.org/main"):
        with pytest.raises(errors.Invalid) as refused:
            normalise(source, TOKEN)
        assert "tk-" not in str(refused.value.wire())
    with pytest.raises(errors.Invalid):
        normalise("file:///media/disk", TOKEN)


@given(
    st.sampled_from(["https://", "http://me:S3cret-pw@", "file:///", "", "https://h.example.org/t/S3cret-pw/"]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
)
def test_anything_is_stored_tidily_or_refused_and_shows_no_secret(start: str, rest: str) -> None:
    found, refused = None, None
    try:
        found = normalise(start + rest)
    except errors.Invalid as error:
        refused = error
    if found is None:
        assert refused is not None
        assert "S3cret-pw" not in str(refused.wire())
        return
    assert found.source.isascii()
    assert not set(found.source) & set(' \t\r\n?#\\<>"@'[:-1])
    assert not found.source.endswith("/")
    assert "S3cret-pw" not in found.source + "".join(found.warnings) + repr(found)
    again = normalise(found.source, found.credentials)
    assert (again.source, again.credentials) == (found.source, found.credentials)


def test_the_compressed_index_is_asked_for_first() -> None:
    assert index_candidates("noarch") == ("noarch/repodata.json.zst", "noarch/repodata.json")


# --- probing ----------------------------------------------------------------------------------------------------------


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


async def test_a_server_without_head_is_probed_too(server: FaultyUpstream, upstream: Upstream) -> None:
    server.files = {"noarch/repodata.json.zst": ZST}
    server.fail("*", Fault(no_head=True), times=None)
    found = await probe(upstream, Source(url=server.url))
    assert (found.subdirs, found.index_bytes) == (["noarch"], len(ZST))


async def test_a_page_is_no_index_even_when_it_is_answered_with_200(server: FaultyUpstream, upstream: Upstream) -> None:
    page = "linux-64/repodata.json.zst"
    server.files = {"noarch/repodata.json": b"{}", page: b"<html>", "osx-64/repodata.json.zst": b"<html>"}
    server.files["osx-64/repodata.json"] = b"{}"
    server.content_types = {page: "text/html", "osx-64/repodata.json.zst": "text/html"}
    found = await probe(upstream, Source(url=server.url))
    assert found.subdirs == ["noarch", "osx-64"]
    assert found.index_bytes == 4


async def test_a_folder_is_probed(upstream: Upstream, tmp_path: Path) -> None:
    (tmp_path / "noarch").mkdir()
    (tmp_path / "noarch" / "repodata.json").write_bytes(b"")
    found = await probe(upstream, Source(url=tmp_path.as_uri()))
    assert (found.subdirs, found.index_bytes) == (["noarch"], 0)
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
        ({"": b'<a href="pkgs/">pkgs</a>'}, {"": "text/html"}, "no subdir has a repodata"),
        ({}, {}, "no subdir has a repodata"),
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
    assert len(server.requests) <= 3


async def test_one_subdir_that_refuses_is_told(server: FaultyUpstream, upstream: Upstream) -> None:
    server.files = {"noarch/repodata.json": b"{}"}
    server.fail("win-64/*", Fault(status=403), times=None)
    with pytest.raises(errors.Upstream, match="403"):
        await probe(upstream, Source(url=server.url))


async def test_nobody_there_is_told_with_the_way_around(upstream: Upstream) -> None:
    async with FaultyUpstream() as gone:
        pass
    with pytest.raises(errors.Upstream, match="cannot be reached") as told:
        await probe(upstream, Source(url=gone.url))
    assert "check: false" in told.value.hint


async def test_silence_ends_the_probe(server: FaultyUpstream, upstream: Upstream) -> None:
    server.files = {"noarch/repodata.json": b"{}"}
    server.fail("osx-64/*", Fault(until=asyncio.Event()), times=None)
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
