"""Rendering a channel's visible conda rows."""

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import rattler
import zstandard

from firthd.families.conda.render import empty_subdir
from firthd.index.messages import RenderResult
from firthd.index.owners import find_owners, moved_names
from firthd.index.render import once
from firthd.store.worker_reads import OfferRow, ShownRow
from tests.support.conda import ChannelFolder, PackageSpec, sample_channel
from tests.support.conda_state import CondaState, run_rows

VARIANTS = ["repodata.json", "repodata.json.zst", "repodata_shards.msgpack.zst"]


def spools(channel: ChannelFolder) -> dict[str, Path | None]:
    return {subdir: channel.path / subdir / "repodata.json.zst" for subdir in channel.records}


def content(result: RenderResult, path: str) -> Any:
    (file,) = [file for file in result.files if file.path == path]
    return json.loads(Path(file.file).read_bytes())


def published(state: CondaState, subdir: str) -> Any:
    return json.loads(Path(state.published[f"{subdir}/repodata.json"].file).read_bytes())


def served_files(state: CondaState, subdir: str) -> list[str]:
    document = published(state, subdir)
    return sorted([*document["packages"], *document["packages.conda"]])


@pytest.fixture
def state(tmp_path: Path) -> CondaState:
    return CondaState(tmp_path)


@pytest.fixture
def channel(tmp_path: Path) -> ChannelFolder:
    return sample_channel(tmp_path / "channel")


# --- the documents ------------------------------------------------------------------------------------------


def test_first_render_serves_what_the_source_has(state: CondaState, channel: ChannelFolder) -> None:
    state.take(spools(channel))
    result = state.publish()
    assert [file.path for file in result.files] == [f"{s}/{name}" for s in ("linux-64", "noarch") for name in VARIANTS]
    for subdir in ("linux-64", "noarch"):
        assert content(result, f"{subdir}/repodata.json") == channel.document(subdir)
    assert (result.content.packages, result.changed_packages, result.content.shadowed) == (3, 3, {})
    assert [(part.part, part.artifacts) for part in result.parts] == [
        ("linux-64", 1),
        ("noarch", 4),
    ]


def test_files_are_what_the_result_says_and_zst_is_the_same_document(state: CondaState, channel: ChannelFolder) -> None:
    state.take(spools(channel))
    result = state.publish()
    for file in result.files:
        body = Path(file.file).read_bytes()
        assert (file.size, file.sha256) == (len(body), hashlib.sha256(body).hexdigest())
    bodies = {file.path: Path(file.file).read_bytes() for file in result.files}
    reader = zstandard.ZstdDecompressor().decompressobj()
    assert reader.decompress(bodies["noarch/repodata.json.zst"]) == bodies["noarch/repodata.json"]


def test_records_keep_their_bytes_and_their_unknown_keys(state: CondaState, tmp_path: Path) -> None:
    raw = '{ "name":"a", "version": "1", "build":"x",\n "new_key": {"z":1.50, "a":"\\u00e9"} }'
    spool = tmp_path / "one"
    spool.write_text('{"packages.conda": {"a-1-x.conda": ' + raw + "}}")
    state.take({"noarch": spool})
    state.publish()
    assert raw.encode() in Path(state.published["noarch/repodata.json"].file).read_bytes()


def test_base_url_relations_and_signatures_are_not_served(state: CondaState, channel: ChannelFolder) -> None:
    relations = {"base": "../other"}
    channel.extra["noarch"] = {
        "info": {"subdir": "noarch", "base_url": "https://example.org/x", "channel_relations": relations},
        "repodata_version": 2,
        "signatures": {"x": {}},
        "removed": ["old-1-0.conda"],
    }
    channel.write()
    state.take(spools(channel))
    state.publish()
    document = published(state, "noarch")
    assert document["info"] == {"subdir": "noarch"}
    assert (document["repodata_version"], document["removed"], "signatures" in document) == (1, [], False)


def test_v3_records_are_served_with_their_count(state: CondaState, tmp_path: Path) -> None:
    def v3_record(name: str, timestamp: int) -> dict[str, Any]:
        return {"name": name, "version": "1", "build": "0", "build_number": 0, "timestamp": timestamp, "depends": []}

    conda = {"a-1-0": v3_record("a", 1_700_000_000_000), "b-1-0": v3_record("b", 1_600_000_000_000)}
    wheel = v3_record("w", 1_650_000_000_000) | {"url": "https://example.org/w-1-py3-none-any.whl"}
    spool = tmp_path / "one"
    spool.write_text(json.dumps({"v3": {"conda": conda, "whl": {"w-1-0": wheel}}}))
    state.take({"noarch": spool})
    state.publish()
    document = published(state, "noarch")
    assert document["v3"] == {"conda": conda, "whl": {"w-1-0": wheel | {"url": "w-1-py3-none-any.whl"}}}
    counts = {"n_packages": 3, "oldest": 1_600_000_000_000, "newest": 1_700_000_000_000}
    assert document["info"]["repodata_revisions"] == {"v3": counts}
    path = state.published["noarch/repodata.json"].file
    sparse = rattler.SparseRepoData(rattler.Channel("main"), "noarch", path)
    assert set(sparse.package_names()) >= {"a", "b"}


def shown(row_id: int, filename: str, section: str = "packages.conda", sha256: bytes | None = b"a") -> ShownRow:
    return ShownRow(row_id, section, filename, "n", "1", "0", 1, sha256, None, 2, None, b"f", 1, b"{}")


@pytest.mark.parametrize(
    ("rows", "kept"),
    [
        ([shown(1, "a"), shown(2, "b")], [1, 2]),
        ([shown(1, "a"), shown(2, "a"), shown(3, "b")], [2, 3]),
        ([shown(1, "a", sha256=b"x"), shown(2, "a", sha256=b"y")], [2]),
        ([shown(1, "a"), shown(2, "a", "v3.conda")], [1, 2]),
        ([shown(1, "a", sha256=b"x"), shown(2, "a", "v3.conda", b"y")], [2]),
        ([shown(3, "a", sha256=b"x"), shown(2, "a", "v3.conda", b"y")], [3]),
        ([shown(1, "a", sha256=None), shown(2, "a", sha256=None)], [2]),
        ([], []),
    ],
)
def test_no_key_is_written_twice_and_no_digest_but_that_of_the_file(rows: list[ShownRow], kept: list[int]) -> None:
    assert [row.id for row in once(rows)] == kept


def test_rows_that_are_doubled_all_the_same_are_rendered_once(state: CondaState, channel: ChannelFolder) -> None:
    state.take(spools(channel))
    first = state.publish()
    state.execute("DROP INDEX artifact_live")
    state.execute("INSERT INTO artifact_record SELECT artifact_id + 1000, raw FROM artifact_record")
    state.execute(
        "INSERT INTO artifact SELECT id + 1000, channel_id, mirror_id, family, part, section, filename, name,"
        " version, build, build_number, size, sha256, md5, declared, license, timestamp, fingerprint, added_set,"
        " NULL, NULL FROM artifact"
    )
    again, _ = state.render(full=True)
    assert [(file.path, file.sha256) for file in again.files] == [(file.path, file.sha256) for file in first.files]
    assert again.content.state == first.content.state


def test_render_is_deterministic_and_its_digest_depends_on_content_alone(tmp_path: Path) -> None:
    results = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        state = CondaState(tmp_path / name)
        channel = sample_channel(tmp_path / name / "channel")
        if name == "two":  # the same content, come to in two steps
            extra = channel.add(PackageSpec(name="later"))[0]
            channel.remove("noarch", extra.filename)
            channel.add(PackageSpec(name="aaa-first"))
            state.take(spools(channel))
            channel.remove("noarch", "aaa-first-1.0-0.conda")
        state.take(spools(channel))
        results.append(state.publish())
    one, two = results
    assert one.parts == two.parts
    assert [(file.path, file.sha256) for file in one.files] == [(file.path, file.sha256) for file in two.files]


def test_digest_does_not_count_what_only_we_have_seen(state: CondaState, tmp_path: Path) -> None:
    spool = tmp_path / "one"
    spool.write_text('{"packages.conda": {"a-1-0.conda": {"name": "a", "version": "1", "build": "0"}}}')
    state.take({"noarch": spool})
    first, _ = state.render()
    state.execute("UPDATE artifact SET sha256 = ?", (b"x" * 32,))
    assert state.render()[0].parts == first.parts


# --- what is touched ----------------------------------------------------------------------------------------


def test_only_touched_subdirs_are_rendered(state: CondaState, channel: ChannelFolder) -> None:
    state.take(spools(channel))
    state.publish()
    channel.add(PackageSpec(name="gamma", version="0.2", subdir="linux-64"))
    state.take(spools(channel))
    result = state.publish()
    assert [file.path for file in result.files] == [f"linux-64/{name}" for name in VARIANTS]
    assert (result.content.packages, result.changed_packages) == (3, 1)
    assert published(state, "linux-64") == channel.document("linux-64")
    full, _ = state.render(full=True)
    assert {file.path: file.sha256 for file in full.files} == {
        path: file.sha256 for path, file in state.published.items()
    }, "what grew step by step is what a full render makes"


def test_noarch_is_always_rendered_when_nothing_was_published(state: CondaState, tmp_path: Path) -> None:
    channel = ChannelFolder(tmp_path / "channel", ("linux-64",))
    channel.add(PackageSpec(name="gamma", subdir="linux-64"))
    state.take(spools(channel))
    result = state.publish()
    assert [part.part for part in result.parts] == ["linux-64", "noarch"]
    assert content(result, "noarch/repodata.json")["packages.conda"] == {}


def test_emptied_subdir_stays_as_an_empty_one(state: CondaState, channel: ChannelFolder) -> None:
    state.take(spools(channel))
    state.publish()
    state.take({"linux-64": None})
    result = state.publish()
    assert [(part.part, part.artifacts) for part in result.parts] == [("linux-64", 0)]
    empty = {
        path: Path(file.file).read_bytes() for path, file in state.published.items() if path.startswith("linux-64")
    }
    assert empty == empty_subdir("linux-64"), "the same bytes as those a new channel starts with"
    assert state.packages().keys() == {"alpha", "beta"}


def test_earlier_generation_is_rendered_in_full(state: CondaState, channel: ChannelFolder) -> None:
    state.take(spools(channel))
    first = state.publish()
    channel.add(PackageSpec(name="delta"), PackageSpec(name="omega", subdir="win-64"))
    channel.remove("linux-64", "gamma-0.1-0.conda")
    state.take(spools(channel))
    state.publish()
    assert state.packages().keys() == {"alpha", "beta", "delta", "omega"}
    result = state.publish(shows=1)
    back = {file.path: file.sha256 for file in result.files}
    assert {file.path: file.sha256 for file in first.files}.items() <= back.items()
    assert content(result, "win-64/repodata.json")["packages.conda"] == {}, "it was seen once, so it stays"
    assert state.packages().keys() == {"alpha", "beta", "gamma"}
    assert result.content.packages == 3


def test_sets_that_are_not_named_do_not_show(state: CondaState, channel: ChannelFolder) -> None:
    _, run_file = state.read(spools(channel))
    state.apply(run_file, state="discarded")
    result = state.publish()
    assert [(part.part, part.artifacts) for part in result.parts] == [("noarch", 0)]


# --- summaries ----------------------------------------------------------------------------------------------


def test_summaries_are_those_of_condas_version_order(state: CondaState, channel: ChannelFolder) -> None:
    channel.add(PackageSpec(name="beta", version="2.0", subdir="linux-64", depends=("other::Zlib>=1.2", "alpha")))
    state.take(spools(channel))
    state.publish()
    assert state.packages() == {
        "alpha": ("1.10", 3, 3, '["noarch"]', "[]"),
        "beta": ("2.0", 1, 2, '["linux-64","noarch"]', '["alpha","zlib"]'),
        "gamma": ("0.1", 1, 1, '["linux-64"]', '["beta"]'),
    }


def test_summary_of_a_touched_name_counts_untouched_subdirs(state: CondaState, channel: ChannelFolder) -> None:
    channel.add(PackageSpec(name="beta", version="3.0", subdir="linux-64", depends=("gamma",)))
    state.take(spools(channel))
    state.publish()
    channel.add(PackageSpec(name="beta", version="2.5"))
    state.take({"noarch": spools(channel)["noarch"]})
    result, run_file = state.render()
    assert run_rows(run_file, "package", "name, version, versions, files, platforms, depends") == [
        ("beta", "3.0", 3, 3, '["linux-64","noarch"]', '["gamma"]')
    ]
    assert result.content.packages == 3


def test_name_that_is_gone_is_said_once(state: CondaState, channel: ChannelFolder) -> None:
    state.take(spools(channel))
    state.publish()
    state.take({"linux-64": None})
    result, run_file = state.render()
    assert run_rows(run_file, "package", "name, files") == [("gamma", 0)]
    assert (result.content.packages, result.changed_packages) == (2, 1)
    state.publish()
    channel.add(PackageSpec(name="delta"))
    state.take({"noarch": spools(channel)["noarch"]})
    _, run_file = state.render(full=True)
    assert ("gamma", 0) not in run_rows(run_file, "package", "name, files")


# --- several mirrors ----------------------------------------------------------------------------------------


def two_mirrors(tmp_path: Path) -> tuple[CondaState, ChannelFolder, ChannelFolder]:
    state = CondaState(tmp_path, mirrors=2)
    old, new = ChannelFolder(tmp_path / "old"), ChannelFolder(tmp_path / "new")
    old.add(PackageSpec(name="shared", version="1.0"))
    new.add(PackageSpec(name="shared", version="9.0"), PackageSpec(name="own"))
    return state, old, new


def test_name_belongs_to_the_oldest_mirror(tmp_path: Path) -> None:
    state, old, new = two_mirrors(tmp_path)
    state.take(spools(new), mirror=2)
    result = state.publish()
    assert served_files(state, "noarch") == ["own-1.0-0.conda", "shared-9.0-0.conda"]
    assert result.content.shadowed == {}
    state.take(spools(old), mirror=1)
    result = state.publish()
    assert served_files(state, "noarch") == ["own-1.0-0.conda", "shared-1.0-0.conda"]
    assert result.content.shadowed == {2: 1}
    assert state.packages()["shared"][:3] == ("1.0", 1, 1)


def test_owner_that_leaves_gives_the_name_back_in_every_subdir(tmp_path: Path) -> None:
    state, old, new = two_mirrors(tmp_path)
    new.add(PackageSpec(name="shared", version="9.0", subdir="linux-64"))
    state.take(spools(old), mirror=1)
    state.take(spools(new), mirror=2)
    assert state.publish().content.shadowed == {2: 2}
    assert "linux-64/repodata.json" not in state.published, "nothing of it shows, so it was never there"
    old.remove("noarch", "shared-1.0-0.conda")
    state.take(spools(old), mirror=1)
    result = state.publish()
    assert [part.part for part in result.parts] == ["linux-64", "noarch"]
    assert served_files(state, "linux-64") == ["shared-9.0-0.conda"]
    assert served_files(state, "noarch") == ["own-1.0-0.conda", "shared-9.0-0.conda"]
    assert result.content.shadowed == {}
    full, _ = state.render(full=True)
    assert {file.path: file.sha256 for file in full.files} == {
        path: file.sha256 for path, file in state.published.items()
    }


def test_the_channel_itself_comes_last() -> None:
    sources = {7: "https://example.org/a", 8: "https://example.org/b", 9: "https://example.org/a"}
    contested = [("a", {0, 7}), ("b", {7, 8, 9}), ("together", {7, 9})]
    owners = find_owners(contested, sources, set())
    assert owners.contested == {"a": {7, 9}, "b": {7, 9}}  # mirrors of one source own a name together
    assert owners.shows("a", 7)
    assert not owners.shows("a", 0)
    assert owners.shows("together", 9)
    offers = {
        "came": [OfferRow("came", 0, 1, None), OfferRow("came", 7, 2, None)],
        "beside": [OfferRow("beside", 7, 1, None), OfferRow("beside", 9, 2, None)],
        "went": [OfferRow("went", 7, 1, 2), OfferRow("went", 8, 1, None)],
        "alone": [OfferRow("alone", 8, 2, None)],
    }
    assert moved_names(offers, sources, {1, 2}, {1}) == {"came", "went"}


# --- clients ------------------------------------------------------------------------------------------------


async def test_rattler_solves_and_installs_from_what_is_rendered(
    state: CondaState, channel: ChannelFolder, tmp_path: Path
) -> None:
    await asyncio.to_thread(state.take, spools(channel))  # what a worker process does
    await asyncio.to_thread(state.publish)
    for path, file in state.published.items():
        (channel.path / path).write_bytes(Path(file.file).read_bytes())
    records = await rattler.solve(
        sources=[rattler.Channel(channel.path.as_uri())],
        specs=[rattler.MatchSpec("gamma")],
        gateway=rattler.Gateway(cache_dir=tmp_path / "cache"),
        platforms=["linux-64", "noarch"],
    )
    assert {(record.name.normalized, str(record.version)) for record in records} == {
        ("alpha", "1.10"),
        ("beta", "2.0"),
        ("gamma", "0.1"),
    }
    await rattler.install(records, tmp_path / "prefix", cache_dir=tmp_path / "packages", show_progress=False)
    assert (tmp_path / "prefix/share/alpha/hello.txt").read_text() == "ten\n"
