"""Reading a conda source's index against a mirror's rows."""

import json
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from firth_protocol.errors import Invalid, TooLarge, Upstream
from firthd.families.base import Entry, InvalidRecordError, Spool
from firthd.families.conda.document import entries, read_document
from firthd.families.conda.records import (
    UsualRecord,
    fingerprint,
    plain_print,
    source_record,
    spelled_closely,
    spelled_if_usual,
)
from firthd.families.conda.versions import sort_versions
from firthd.index.messages import PartResult, ReadResult
from tests.support.conda import PackageSpec, sample_channel
from tests.support.conda_state import CondaState, run_rows

SHA256, MD5 = "ab" * 32, "cd" * 16


def record(name: str = "alpha", **fields: Any) -> dict[str, Any]:
    """Return a valid record; a field set to ... is left out."""
    whole = {
        "build": "0",
        "build_number": 0,
        "depends": [],
        "license": "MIT",
        "md5": MD5,
        "name": name,
        "sha256": SHA256,
        "size": 100,
        "timestamp": 1_700_000_000_000,
        "version": "1.0",
    } | fields
    return {key: value for key, value in whole.items() if value is not ...}


def document(path: Path, *, text: str | None = None, **keys: Any) -> Path:
    """Write a repodata.json; `conda` stands for packages.conda."""
    if "conda" in keys:
        keys["packages.conda"] = keys.pop("conda")
    path.write_text(json.dumps(keys) if text is None else text)
    return path


def only(result: ReadResult) -> PartResult:
    (part,) = result.parts
    return part


@pytest.fixture
def state(tmp_path: Path) -> CondaState:
    return CondaState(tmp_path)


# --- what is taken ------------------------------------------------------------------------------------------


def test_first_read_adds_every_record_byte_for_byte_in_order(state: CondaState, tmp_path: Path) -> None:
    odd = '{ "zeta" : [1, 2.50],  "name":"beta", "version": "2", "build":"x", "unknown": {"b":1,"a":"\\u00e9"} }'
    spool = document(
        tmp_path / "index",
        text='{"packages": {"beta-2-x.tar.bz2": '
        + odd
        + '}, "packages.conda": {"alpha-1.0-0.conda": '
        + json.dumps(record())
        + "}}",
    )
    result, run_file = state.read({"noarch": spool})
    part = only(result)
    assert (part.records, part.kept, part.added, part.replaced, part.gone, part.before) == (2, 2, 2, 0, 0, 0)
    assert (part.unhashed, part.bytes_to_store, part.bytes_unknown) == (1, 100, 1)
    rows = run_rows(run_file, "add", "ordinal, section, filename, name, version, build, declared, size, raw")
    assert rows == [
        (1, "packages.conda", "alpha-1.0-0.conda", "alpha", "1.0", "0", 2, 100, json.dumps(record()).encode()),
        (2, "packages", "beta-2-x.tar.bz2", "beta", "2", "x", 0, None, odd.encode()),
    ]


def test_compressed_index_is_read_across_frames(state: CondaState, tmp_path: Path) -> None:
    body = json.dumps({"packages.conda": {"alpha-1.0-0.conda": record()}}).encode()
    spool = tmp_path / "index.zst"
    compress = zstandard.ZstdCompressor().compress
    spool.write_bytes(compress(body[:30]) + compress(body[30:]))
    assert only(state.read({"noarch": spool})[0]).added == 1


def test_same_source_again_changes_nothing(state: CondaState, tmp_path: Path) -> None:
    channel = sample_channel(tmp_path / "channel")
    spools: dict[str, Path | None] = {s: channel.path / s / "repodata.json.zst" for s in channel.records}
    state.take(spools)
    result, run_file = state.read(spools)
    assert [(part.part, part.unchanged, part.added, part.gone) for part in result.parts] == [
        ("linux-64", 1, 0, 0),
        ("noarch", 4, 0, 0),
    ]
    assert run_rows(run_file, "add", "*") == []
    assert run_rows(run_file, "close", "*") == []


def test_changed_and_gone_records_close_their_rows(state: CondaState, tmp_path: Path) -> None:
    before = {"alpha-1.0-0.conda": record(), "beta-1.0-0.conda": record("beta"), "zeta-1.0-0.conda": record("zeta")}
    state.take({"noarch": document(tmp_path / "one", conda=before)})
    after = before | {"alpha-1.0-0.conda": record(depends=["beta"]), "new-1.0-0.conda": record("new")}
    del after["zeta-1.0-0.conda"]
    result, run_file = state.read({"noarch": document(tmp_path / "two", conda=after)})
    part = only(result)
    assert (part.before, part.added, part.replaced, part.unchanged, part.gone) == (3, 1, 1, 1, 1)
    ids = {filename: number for number, filename in state.execute("SELECT id, filename FROM artifact")}
    assert run_rows(run_file, "add", "filename, replaces") == [
        ("alpha-1.0-0.conda", ids["alpha-1.0-0.conda"]),
        ("new-1.0-0.conda", None),
    ]
    assert set(run_rows(run_file, "close", "artifact_id, name, reason, skipped")) == {
        (ids["alpha-1.0-0.conda"], "alpha", "replaced", 0),
        (ids["zeta-1.0-0.conda"], "zeta", "gone", 0),
    }


def test_live_means_that_lasting_sets_count_and_discarded_ones_do_not(state: CondaState, tmp_path: Path) -> None:
    spool = document(tmp_path / "one", conda={"alpha-1.0-0.conda": record()})
    _, run_file = state.read({"noarch": spool})
    state.apply(run_file, state="discarded")
    assert only(state.read({"noarch": spool})[0]).added == 1, "a row of a discarded set is not there"
    state.execute("DELETE FROM artifact_record")
    state.execute("DELETE FROM artifact")  # what it added goes before somebody builds on the rows
    state.take({"noarch": spool})
    _, run_file = state.read({"noarch": None})
    state.apply(run_file, state="discarded")
    part = only(state.read({"noarch": spool})[0])
    assert (part.before, part.unchanged) == (1, 1), "a discarded set closes nothing"


def test_rows_of_other_mirrors_are_not_compared(tmp_path: Path) -> None:
    state = CondaState(tmp_path, mirrors=2)
    spool = document(tmp_path / "one", conda={"alpha-1.0-0.conda": record()})
    state.take({"noarch": spool}, mirror=1)
    part = only(state.read({"noarch": spool}, mirror=2)[0])
    assert (part.before, part.added) == (0, 1)


def test_more_rows_than_a_page_are_all_compared(state: CondaState, tmp_path: Path) -> None:
    many = {f"p{number:05}-1.0-0.conda": record(f"p{number:05}") for number in range(10_001)}
    spool = document(tmp_path / "one", conda=many)
    state.take({"noarch": spool})
    part = only(state.read({"noarch": spool})[0])
    assert (part.before, part.unchanged, part.gone) == (10_001, 10_001, 0)


# --- what leaves --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [None, "", "  \n", "{}"])
def test_empty_or_absent_part_closes_all_of_it(state: CondaState, tmp_path: Path, content: str | None) -> None:
    state.take({"noarch": document(tmp_path / "one", conda={"alpha-1.0-0.conda": record()})})
    spool = None if content is None else document(tmp_path / "two", text=content)
    part = only(state.read({"noarch": spool})[0])
    assert (part.records, part.before, part.gone) == (0, 1, 1)


def test_parts_that_are_not_named_are_left_alone(state: CondaState, tmp_path: Path) -> None:
    state.take({"noarch": document(tmp_path / "one", conda={"alpha-1.0-0.conda": record()})})
    result, run_file = state.read({"linux-64": document(tmp_path / "two", conda={})})
    assert [part.part for part in result.parts] == ["linux-64"]
    assert run_rows(run_file, "close", "*") == []


def test_filter_closes_other_subdirs_and_skips_their_parts(state: CondaState, tmp_path: Path) -> None:
    spool = document(tmp_path / "one", conda={"alpha-1.0-0.conda": record()})
    state.take({"noarch": spool, "linux-64": spool, "win-64": spool})
    result, run_file = state.read({"noarch": spool, "win-64": spool}, only=["noarch"])
    assert [(part.part, part.filtered, part.unchanged) for part in result.parts] == [
        ("noarch", 0, 1),
        ("linux-64", 1, 0),
        ("win-64", 1, 0),
    ]
    assert [row[0] for row in run_rows(run_file, "close", "reason")] == ["filtered", "filtered"]


def test_keep_holds_what_is_stored_and_drops_the_rest(state: CondaState, tmp_path: Path) -> None:
    listed = {"alpha-1.0-0.conda": record(), "beta-1.0-0.conda": record("beta", sha256="ef" * 32)}
    state.take({"noarch": document(tmp_path / "one", conda=listed)})
    state.deliver(SHA256)
    result, run_file = state.read({"noarch": None}, keep=True)
    part = only(result)
    assert (part.gone, part.held) == (1, 1)
    assert run_rows(run_file, "close", "name, reason") == [("beta", "gone")]


def test_bytes_to_store_leaves_out_blobs_that_are_there(state: CondaState, tmp_path: Path) -> None:
    state.deliver(SHA256)
    listed = {"alpha-1.0-0.conda": record(), "beta-1.0-0.conda": record("beta", sha256="ef" * 32, size=7)}
    assert only(state.read({"noarch": document(tmp_path / "one", conda=listed)})[0]).bytes_to_store == 7


def test_removed_files_are_not_offered(state: CondaState, tmp_path: Path) -> None:
    spool = document(tmp_path / "one", conda={"alpha-1.0-0.conda": record()}, removed=["alpha-1.0-0.conda", "x"])
    assert only(state.read({"noarch": spool})[0]).records == 0


# --- forms of the document ----------------------------------------------------------------------------------


def test_v3_buckets_become_sections(state: CondaState, tmp_path: Path) -> None:
    v3 = {
        "conda": {"alpha-1.0-0": record()},
        "whl": {"wheel-1.0-0": record("wheel", url="https://example.org/w/wheel-1.0-py3-none-any.whl")},
        "../evil": {"evil-1.0-0": record("evil")},
    }
    spool = document(tmp_path / "one", packages={}, v3=v3)
    result, run_file = state.read({"noarch": spool})
    assert run_rows(run_file, "add", "section, filename, name") == [
        ("v3.conda", "alpha-1.0-0.conda", "alpha"),
        ("v3.whl", "wheel-1.0-py3-none-any.whl", "wheel"),
    ]
    assert only(result).notes == ["noarch: a v3 bucket with an impossible name was left out."]


def test_head_is_told_and_metadata_is_taken_for_info(state: CondaState, tmp_path: Path) -> None:
    info = {"subdir": "linux-64\x1b[2J", "base_url": "https://example.org/files", "channel_relations": {"base": "../x"}}
    for name in ("info", "metadata"):
        keys: dict[str, Any] = {name: info, "signatures": {"x": {}}}
        spool = document(tmp_path / name, **keys)
        part = only(state.read({"noarch": spool})[0])
        assert part.base_url == "https://example.org/files"
        assert part.notes == [
            "noarch: the source's index says that it is linux-64?[2J; its address was believed.",
            "noarch: the source names related channels; clients of this channel are not sent there.",
        ]


@pytest.mark.parametrize(
    ("content", "encoding"),
    [(b"<html>", "json"), (b'{"packages": [', "json"), (b"[1]", "json"), (b"\xff{}", "json"), (b"not zstd", "zst")],
)
def test_what_is_no_index_is_an_error_that_names_the_part(
    state: CondaState, tmp_path: Path, content: bytes, encoding: str
) -> None:
    spool = tmp_path / f"index.{encoding}"
    spool.write_bytes(content)
    with pytest.raises(Upstream, match="source's index of noarch"):
        state.read({"noarch": spool})


@pytest.mark.parametrize("subdir", ["../x", "linux", "linux-64/..", "", "LINUX-64"])
def test_impossible_subdir_is_refused(state: CondaState, subdir: str) -> None:
    with pytest.raises(Invalid, match="no part of a conda index"):
        state.read({subdir: None})


# --- hostile records ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("filename", "fields", "reason"),
    [
        ("../../etc/passwd.conda", {}, "characters"),
        ("a/b-1.0-0.conda", {}, "characters"),
        (".hidden-1.0-0.conda", {}, "characters"),
        ("alpha-1.0-0\n.conda", {}, "characters"),
        ('alpha-1.0-0".conda', {}, "characters"),
        ("a" * 250 + ".conda", {}, "at most 211"),
        ("alpha-1.0-0.zip", {}, "does not end in .conda"),
        ("alpha-1.0.conda", {}, "two dashes"),
        (".conda", {}, "characters"),
        ("alpha-1.0-0.conda", {"name": "../x"}, "name"),
        ("alpha-1.0-0.conda", {"name": ""}, "name"),
        ("alpha-1.0-0.conda", {"name": 5}, "not as it should be"),
        ("alpha-1.0-0.conda", {"name": ...}, "not as it should be"),
        ("alpha-1.0-0.conda", {"version": "1 0"}, "version"),
        ("alpha-1.0-0.conda", {"version": ""}, "version"),
        ("alpha-1.0-0.conda", {"build": "\x1b[2J"}, "build"),
        ("alpha-1.0-0.conda", {"size": -1}, "size"),
        ("alpha-1.0-0.conda", {"size": 2**60}, "size"),
        ("alpha-1.0-0.conda", {"size": "100"}, "not as it should be"),
        ("alpha-1.0-0.conda", {"sha256": "zz" * 32}, "sha256"),
        ("alpha-1.0-0.conda", {"sha256": "ab"}, "sha256"),
        ("alpha-1.0-0.conda", {"md5": " " + "cd" * 15 + " "}, "md5"),
        ("alpha-1.0-0.conda", {"depends": "python"}, "not as it should be"),
    ],
)
def test_invalid_record_is_left_out_with_its_reason(
    state: CondaState, tmp_path: Path, filename: str, fields: dict[str, Any], reason: str
) -> None:
    listed = {filename: record(**fields), "good-1.0-0.conda": record("good")}
    result, run_file = state.read({"noarch": document(tmp_path / "one", conda=listed)})
    part = only(result)
    assert (part.records, part.kept, part.invalid_count) == (2, 1, 1)
    assert reason in part.invalid[0].reason
    assert part.invalid[0].filename.isprintable()
    assert run_rows(run_file, "add", "filename") == [("good-1.0-0.conda",)]


UNWRITABLE = {
    "u64": str(2**64),
    "i63": str(-(2**63) - 1),
    "digits400": "1" + "0" * 400,
    "digits5000": "9" * 5000,
    "nested integer": '{"a": [{"b": ' + str(2**64) + "}]}",
    "too large a float": "1e999",
    "NaN": "NaN",
    "infinity": "-Infinity",
    "surrogate": r'"\ud800"',
    "surrogate in a key": r'{"\udfff": 1}',
    "NUL": r'"a\u0000b"',
    "NUL in a key": r'{"\u0000": 1}',
    "raw control character": '"a\x01b"',
    "deep": "[" * 100 + "]" * 100,
    "deep900": "[" * 900 + "]" * 900,
    "deep60000": "[" * 60_000 + "]" * 60_000,
    "deep objects": '{"a":' * 60_000 + "1" + "}" * 60_000,
    "duplicate name": '1, "name": "other"',
    "duplicate inside": '{"a": 1, "a": 2}',
    "duplicate that escapes make up for": r'{"a": "\u0022\u0022", "a": "\u0022\u0022"}',
    "huge": '"' + "x" * (1 << 21) + '"',
    "wrong depends": '1, "depends": "python"',
    "wrong constrains": '1, "constrains": {"a": 1}',
    "wrong subdir": '1, "subdir": 5',
    "wrong timestamp": '1, "timestamp": "yesterday"',
    "impossible timestamp": '1, "timestamp": 10000000000000000',
    "wrong size": '1, "size": 1.5',
    "wrong md5": '1, "md5": 7',
}


@pytest.mark.parametrize("value", UNWRITABLE.values(), ids=UNWRITABLE)
def test_value_that_some_form_cannot_hold_costs_its_record_alone(state: CondaState, tmp_path: Path, value: str) -> None:
    odd = '{"name":"odd","version":"1.0","build":"0","build_number":0,"x":' + value + "}"
    text = '{"info": {"subdir": "noarch"}, "packages": {}, "packages.conda": {"odd-1.0-0.conda": ' + odd
    text += ', "good-1.0-0.conda": ' + json.dumps(record("good")) + '}, "removed": [], "repodata_version": 1}'
    part = only(state.take({"noarch": document(tmp_path / "one", text=text)}))
    assert (part.records, part.kept, [bad.filename for bad in part.invalid]) == (2, 1, ["odd-1.0-0.conda"])
    assert part.invalid[0].reason.isprintable()
    assert [one.artifacts for one in state.publish().parts] == [1]


def test_record_that_was_taken_before_it_was_proven_leaves(state: CondaState, tmp_path: Path) -> None:
    """A row of an older state has the fingerprint that the source's record has still."""
    state.take({"noarch": document(tmp_path / "one", conda={"alpha-1.0-0.conda": record(x=1)})})
    with_integer = record(x=2**70)
    state.execute("UPDATE artifact_record SET raw = ?", (json.dumps(with_integer).encode(),))
    part = only(state.read({"noarch": document(tmp_path / "two", conda={"alpha-1.0-0.conda": with_integer})})[0])
    assert (part.invalid_count, part.gone) == (1, 1)


def test_what_is_spelled_as_before_is_proven_again_only_where_nobody_has(state: CondaState, tmp_path: Path) -> None:
    listed = dict(sorted(record(x=1).items()))
    state.take({"noarch": document(tmp_path / "one", conda={"alpha-1.0-0.conda": listed})})
    listed = dict(sorted(record(x=2**70).items()))
    plain = json.dumps(listed, separators=(",", ":"))
    state.execute("UPDATE artifact SET fingerprint = ?", (plain_print(plain.encode()),))
    text = '{"packages.conda": {"alpha-1.0-0.conda": ' + plain + "}}"
    assert only(state.read({"noarch": document(tmp_path / "two", text=text)})[0]).unchanged == 1
    state.execute("INSERT INTO setting (key, value) VALUES ('proven above', 1)")
    part = only(state.read({"noarch": document(tmp_path / "two", text=text)})[0])
    assert (part.unchanged, part.invalid_count, part.gone) == (0, 1, 1)


@pytest.mark.parametrize("indent", [None, 1])
def test_unusual_values_that_every_form_holds_are_taken(state: CondaState, tmp_path: Path, indent: int | None) -> None:
    fields: dict[str, Any] = {
        "u": 2**64 - 1,
        "i": -(2**63),
        "f": 1e308,
        "n": None,
        "d": [[[[{"a": []}]]]],
        "text": 'é\U0001f600\\u0000"',
    }
    keys = {"packages.conda": {"alpha-1.0-0.conda": record(**fields, md5=None, run_exports={"weak": []})}}
    text = json.dumps(keys, indent=indent)
    assert only(state.read({"noarch": document(tmp_path / "one", text=text)})[0]).kept == 1


def test_damage_between_records_costs_the_index(state: CondaState, tmp_path: Path) -> None:
    for text in (
        '{"packages.conda": {"a": NaN}',
        '{"packages.conda": {"a": {}} "x": NaN}',
        '{"a": NaN} more',
        '{"' * 9999,
    ):
        with pytest.raises(Upstream, match=r"is not a repodata\.json"):
            state.read({"noarch": document(tmp_path / "one", text=text)})


# --- how much is taken --------------------------------------------------------------------------------------


def test_index_over_the_limit_is_refused_with_its_setting(tmp_path: Path) -> None:
    plain = document(tmp_path / "one", conda={f"a{number}-1.0-0.conda": record() for number in range(100)})
    packed = tmp_path / "one.zst"
    packed.write_bytes(zstandard.ZstdCompressor().compress(plain.read_bytes()))
    for spool, encoding in ((plain, "json"), (packed, "zst")):
        part = Spool(part="noarch", file=str(spool), encoding=encoding)
        assert len(entries(read_document(part, max_bytes=plain.stat().st_size))) == 100
        with pytest.raises(TooLarge) as caught:
            read_document(part, max_bytes=plain.stat().st_size - 1)
        assert "upstream.max_index_bytes" in caught.value.hint


def test_bomb_is_refused_long_before_it_is_whole(tmp_path: Path) -> None:
    spool = tmp_path / "bomb.zst"
    packer = zstandard.ZstdCompressor(level=1).compressobj()
    with spool.open("wb") as file:
        for _ in range(300):
            file.write(packer.compress(bytes(1 << 20)))
        file.write(packer.flush())
    with pytest.raises(TooLarge, match="more than 200 times"):
        read_document(Spool(part="noarch", file=str(spool), encoding="zst"))


def test_window_of_a_gigabyte_is_refused(tmp_path: Path) -> None:
    spool = tmp_path / "window.zst"
    parameters = zstandard.ZstdCompressionParameters(window_log=30, write_content_size=False)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    spool.write_bytes(packer.compress(b"{}") + packer.flush())
    with pytest.raises(Upstream, match="cannot be decompressed"):
        read_document(Spool(part="noarch", file=str(spool), encoding="zst"))


def test_list_of_invalid_records_is_bounded(state: CondaState, tmp_path: Path) -> None:
    listed = {f"bad name {number}": record() for number in range(1100)}
    part = only(state.read({"noarch": document(tmp_path / "one", conda=listed)})[0])
    assert (len(part.invalid), part.invalid_count) == (1000, 1100)


def test_record_that_turned_invalid_leaves(state: CondaState, tmp_path: Path) -> None:
    state.take({"noarch": document(tmp_path / "one", conda={"alpha-1.0-0.conda": record()})})
    part = only(state.read({"noarch": document(tmp_path / "two", conda={"alpha-1.0-0.conda": record(size=-1)})})[0])
    assert (part.invalid_count, part.gone) == (1, 1)


@pytest.mark.parametrize(
    ("given", "expected"),
    [(1_600_000_000, 1_600_000_000_000), (1_600_000_000_000, 1_600_000_000_000), (0, None), ("x", None), (True, None)],
)
def test_timestamps_in_seconds_become_milliseconds(given: object, expected: int | None) -> None:
    raw = msgspec.json.encode(record(timestamp=given))
    assert source_record(Entry("alpha-1.0-0.conda", "packages.conda", raw), b"").timestamp == expected


# --- when two records are the same --------------------------------------------------------------------------

letters = st.characters(codec="utf-8", exclude_characters="\0")
plain_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(letters, max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(letters, max_size=4), inner, max_size=3),
    max_leaves=8,
)
records = st.dictionaries(
    st.text(letters, min_size=1, max_size=5).filter(lambda key: key not in {"sha256", "md5", "run_exports"}),
    plain_values,
    max_size=5,
)
hashes = st.binary(min_size=32, max_size=32).map(bytes.hex)


@settings(max_examples=60, deadline=None)
@given(records, hashes, st.randoms(use_true_random=False), plain_values, st.sampled_from([None, 1, "\t"]))
def test_every_spelling_of_a_record_has_one_fingerprint(
    fields: dict[str, Any], sha256: str, random: Any, exports: object, indent: int | str | None
) -> None:
    first = fields | {"sha256": sha256}
    items = list((fields | {"sha256": sha256.upper(), "md5": None, "run_exports": exports}).items())
    random.shuffle(items)
    respelled = json.dumps(dict(items), indent=indent, ensure_ascii=random.random() < 0.5)
    assert fingerprint(respelled.encode()) == fingerprint(msgspec.json.encode(first))


@settings(max_examples=60, deadline=None)
@given(records, plain_values, plain_values)
def test_another_value_has_another_fingerprint(fields: dict[str, Any], one: object, two: object) -> None:
    same = json.dumps(one, sort_keys=True) == json.dumps(two, sort_keys=True)
    prints = {fingerprint(msgspec.json.encode(fields | {"key": value})) for value in (one, two)}
    assert (len(prints) == 1) == same


usual_values = st.dictionaries(
    st.sampled_from([*UsualRecord.__struct_fields__, "run_exports", "other"]),
    st.sampled_from([1, 0, -1, 1.0, 1e30, 2**53, 2**64, -(2**63), True, None, [], ["a >=1"], [None], {}, {"a": [1]}])
    | st.sampled_from(["", "x", "\0", "\u00e9", '"', "A" * 64, "a" * 64, "\\"]),
)


@settings(max_examples=300, deadline=None)
@given(usual_values, st.booleans(), st.booleans())
def test_a_usual_record_is_spelled_and_proven_as_any_other(
    fields: dict[str, Any], ascii_only: bool, twice: bool
) -> None:
    raw = json.dumps(fields, ensure_ascii=ascii_only, sort_keys=True, separators=(",", ":")).encode()
    if twice and fields:
        raw = raw[:-1] + b"," + json.dumps(fields, ensure_ascii=ascii_only).encode()[1:]
    spelled = spelled_if_usual(raw)
    if spelled is not None:
        assert spelled == spelled_closely(raw)
        assert fingerprint(raw) == fingerprint(json.dumps(fields, indent=1).encode())


def test_real_records_are_usual_ones() -> None:
    raw = msgspec.json.encode(dict(sorted(record("alpha", timestamp=1).items())))
    assert spelled_if_usual(raw) == raw
    assert plain_print(raw) == fingerprint(raw)


documents = st.dictionaries(
    st.sampled_from(["info", "metadata", "packages", "packages.conda", "removed", "v3", "signatures", "other"]),
    plain_values | st.dictionaries(st.text(max_size=4), records | st.dictionaries(st.text(max_size=4), records)),
)


@settings(max_examples=100, deadline=None)
@given(documents.map(msgspec.json.encode) | st.binary(max_size=40))
def test_any_document_is_taken_apart_or_refused(body: bytes) -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(body)
        file.flush()
        part = Spool(part="noarch", file=file.name, encoding="json")
        try:
            found = entries(read_document(part))
        except Upstream as error:
            assert error.data == {"subdir": "noarch"}  # noqa: PT017
            return
    assert [entry[:2] for entry in found] == sorted(entry[:2] for entry in found)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_are_a_record_or_refused(raw: bytes) -> None:
    try:
        source_record(Entry("alpha-1.0-0.conda", "packages.conda", raw), b"")
        fingerprint(raw)
    except InvalidRecordError as error:
        assert str(error)  # noqa: PT017


def test_conda_orders_versions_in_its_own_way() -> None:
    in_order = ["not a version", "1.0dev1", "1.0rc1", "1.0", "1.0.post1", "1.1.1w", "1.1.1", "1.9", "1.10", "1!0.5"]
    assert sort_versions(in_order) == in_order[::-1]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=8), max_size=6))
def test_any_texts_can_be_ordered(versions: list[str]) -> None:
    backwards = versions[::-1]
    assert sort_versions(versions) == sort_versions(backwards)


def test_built_packages_are_the_same_each_time(tmp_path: Path) -> None:
    channel = sample_channel(tmp_path / "one")
    assert channel.records == sample_channel(tmp_path / "two").records
    assert channel.add(PackageSpec(name="delta"))[0].record["size"] > 0
