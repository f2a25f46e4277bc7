"""What the rest of the house asks of the conda family: addresses, specs, facts."""

import json
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firth_protocol.errors import Invalid
from firth_protocol.types import Family
from firthd.families import families
from firthd.families.addresses import ArtifactAt, Life, ObjectAt
from firthd.families.base import Facts, FetchPlace
from firthd.families.conda.addresses import file_address, locate
from firthd.families.conda.paths import fetch_url, needs_record
from firthd.families.conda.requirements import facts, requirement
from firthd.families.conda.shards import read_index

HASH = "0a" * 32


def test_conda_is_served() -> None:
    served = families()
    assert Family.CONDA in served
    conda = served[Family.CONDA]
    assert conda.empty_part(conda.first_parts[0]).keys() == {
        "noarch/repodata.json",
        "noarch/repodata.json.zst",
        "noarch/repodata_shards.msgpack.zst",
    }


@pytest.mark.parametrize(
    ("path", "media_type", "life"),
    [
        ("noarch/repodata.json", "application/json", Life.SHORT),
        ("linux-64/repodata.json.zst", "application/zstd", Life.SHORT),
        ("noarch/repodata_shards.msgpack.zst", "application/octet-stream", Life.SHORT),
        (f"noarch/shards/{HASH}.msgpack.zst", "application/octet-stream", Life.FOREVER),
    ],
)
def test_paths_of_an_index_are_located(path: str, media_type: str, life: Life) -> None:
    found = locate(path)
    assert isinstance(found, ObjectAt)
    assert (found.path, found.media_type, found.life) == (path, media_type, life)


@pytest.mark.parametrize(
    ("subdir", "filename", "media_type"),
    [
        ("noarch", "a-1!2.0+loc-0.conda", "application/octet-stream"),
        ("win-64", "a-1-0.tar.bz2", "application/x-bzip2"),
    ],
)
def test_paths_of_packages_are_located_where_their_address_says(subdir: str, filename: str, media_type: str) -> None:
    found = locate(unquote(file_address(subdir, filename)))
    assert found == ArtifactAt(part=subdir, filename=filename, media_type=media_type, life=Life.HOUR)


def test_a_known_subdir_has_a_shard_index_from_the_first_day_on() -> None:
    index = locate("osx-64/repodata_shards.msgpack.zst")
    assert isinstance(index, ObjectAt)
    assert index.absent is not None
    assert read_index(index.absent()) == {}
    unknown = locate("some-where/repodata_shards.msgpack.zst")
    assert isinstance(unknown, ObjectAt)
    assert unknown.absent is None


@pytest.mark.parametrize(
    "path",
    [
        "noarch/current_repodata.json",
        "noarch/repodata.json.bz2",
        f"noarch/shards/{HASH.upper()}.msgpack.zst",
        "noarch/shards/../x.conda",
        "noarch/../noarch/a-1-0.conda",
        "nowhere/a-1-0.conda",
        "noarch",
        "noarch/",
        "",
    ],
)
def test_everything_else_is_nowhere(path: str) -> None:
    assert locate(path) is None


segments = st.sampled_from(["noarch", "linux-64", "shards", "..", "", HASH + ".msgpack.zst", "repodata.json"])
names = st.text(st.sampled_from("aZ0._-+!/\\\n\x00%\u00e9"), max_size=6).map(lambda text: text + ".conda")


@given(st.lists(segments | names, min_size=2, max_size=4).map("/".join))
def test_what_is_located_is_safe_and_has_one_address(path: str) -> None:
    located = locate(path)
    if isinstance(located, ArtifactAt):
        assert f"{located.part}/{located.filename}" == path
        assert "/" not in located.filename
        assert ".." not in path
        assert path.isprintable()
        assert path.isascii()
    elif located is not None:
        assert isinstance(located, ObjectAt)
        assert located.path == path
        shards = {f"{subdir}/shards/{HASH}.msgpack.zst" for subdir in ("noarch", "linux-64")}
        assert path in {"noarch/repodata.json", "linux-64/repodata.json", *shards}


@pytest.mark.parametrize(
    ("base_url", "expected"),
    [
        (None, "noarch/a-1!2.0+l-0.conda"),
        ("", "noarch/a-1!2.0+l-0.conda"),
        ("./", "noarch/a-1!2.0+l-0.conda"),
        ("../files/noarch", "files/noarch/a-1!2.0+l-0.conda"),
        ("/rooted/x/", "/rooted/x/a-1!2.0+l-0.conda"),
        ("https://files.example.org/x/", "https://files.example.org/x/a-1!2.0+l-0.conda"),
    ],
)
def test_file_is_fetched_from_where_the_source_says(base_url: str | None, expected: str) -> None:
    place = FetchPlace(part="noarch", section="packages.conda", filename="a-1!2.0+l-0.conda", base_url=base_url)
    assert fetch_url(place) == expected


@pytest.mark.parametrize(
    ("url", "base_url", "expected"),
    [
        ("https://files.example.org/w.whl", None, "https://files.example.org/w.whl"),
        ("./wheels/w.whl", None, "noarch/wheels/w.whl"),
        ("w.whl", "https://files.example.org/x", "https://files.example.org/x/w.whl"),
    ],
)
def test_wheel_is_fetched_by_its_own_url(url: str, base_url: str | None, expected: str) -> None:
    raw = json.dumps({"url": url}).encode()
    place = FetchPlace(part="noarch", section="v3.whl", filename="w.whl", base_url=base_url, raw=raw)
    assert needs_record("v3.whl")
    assert not needs_record("v3.conda")
    assert fetch_url(place) == expected


@pytest.mark.parametrize("base_url", ["file:///etc", "../../..", "gopher://example.org"])
def test_source_cannot_lead_elsewhere(base_url: str) -> None:
    with pytest.raises(Invalid):
        fetch_url(FetchPlace(part="noarch", section="packages", filename="a-1-0.tar.bz2", base_url=base_url))


def facts_of(name: str, version: str, build: str = "0") -> Facts:
    record = {"name": name, "version": version, "build": build, "build_number": 3, "depends": ["b >=1"], "sha256": HASH}
    return facts("noarch", json.dumps(record).encode())


@pytest.mark.parametrize(
    ("spec", "met"),
    [
        ("alpha", True),
        ("alpha >=1.9,<2", True),
        ("alpha 1.10", True),
        ("alpha 1.10 py_3", True),
        ("alpha 1.10 other", False),
        ("alpha >=2", False),
        ("beta", False),
        ("alpha[build_number='>=4']", False),
    ],
)
def test_specs_are_condas(spec: str, met: bool) -> None:
    parsed = requirement(spec)
    assert parsed.name == spec.partition(" ")[0].partition("[")[0]
    assert parsed.matches(facts_of("alpha", "1.10", "py_3")) is met


@pytest.mark.parametrize("spec", ["", "alpha >=", "a" * 2000, "alpha [", "\x1b[2J"])
def test_what_is_no_spec_is_refused(spec: str) -> None:
    with pytest.raises(Invalid):
        requirement(spec)


def test_version_that_nobody_can_order_meets_nothing() -> None:
    assert not requirement("alpha").matches(facts_of("alpha", "not a version"))


def test_facts_are_those_of_the_record() -> None:
    found = facts_of("alpha", "1.0")
    assert (found.part, found.build_number, found.sha256, found.md5, found.size) == ("noarch", 3, HASH, None, None)
    assert found.depends == ["b >=1"]
    with pytest.raises(ValueError, match="not as it should be"):
        facts("noarch", b"[]")
