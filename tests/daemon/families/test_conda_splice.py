"""An index that is gone on from: the same bytes as all rows give, without reading those that nothing touched."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from firthd.families.conda.repodata import Served, repodata_chunks
from firthd.families.conda.splice import own_index
from tests.support.conda_state import CondaState

NAMES = ("alpha", "beta", "gamma")
FILES = tuple(f"{name}-{version}-0" for name in (*NAMES, "odd") for version in ("1.0", "2.0"))


def record(chance: random.Random, stem: str) -> dict[str, Any]:
    """Return a record whose name mostly is that of its file, but not always."""
    name = chance.choice(NAMES) if chance.random() < 0.2 else stem.partition("-")[0]
    return {"name": name, "version": "1.0", "build": "0", "sha256": chance.choice("abc") * 64, "size": 5, "z": "é"}


def changed(chance: random.Random, listed: dict[str, Any], v3: bool) -> None:
    for stem in chance.sample(FILES, 2):
        ending = chance.choice((".conda", ".tar.bz2"))
        if chance.random() < 0.4:
            listed.pop(stem + ending, None)
        else:
            listed[stem + ending] = record(chance, stem)
    if v3 and chance.random() < 0.3:
        listed["v3"] = {} if listed.get("v3") else {"conda": {"alpha-1.0-0": record(chance, "alpha-1.0-0")}}


def write(path: Path, listed: dict[str, Any]) -> Path:
    sections: dict[str, Any] = {"packages": {}, "packages.conda": {}, "v3": listed.get("v3", {})}
    for filename, one in listed.items():
        if filename != "v3":
            sections["packages.conda" if filename.endswith(".conda") else "packages"][filename] = one
    path.write_text(json.dumps(sections))
    return path


@pytest.mark.parametrize("seed", [0, 3, 5])
def test_what_is_gone_on_from_is_what_all_rows_give(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    mirrors = 1 + seed % 2
    state = CondaState(tmp_path, mirrors=mirrors)
    listed: dict[tuple[int, str], dict[str, Any]] = {}
    for step in range(8):
        mirror, part = chance.randint(1, mirrors), chance.choice(("noarch", "linux-64"))
        theirs = listed.setdefault((mirror, part), {})
        changed(chance, theirs, v3=seed > 3)
        state.take({part: write(tmp_path / f"{step}.json", theirs)}, mirror=mirror)
        if chance.random() < 0.3:  # several sets are published together
            continue
        artifacts = {one.part: one.artifacts for one in state.publish().parts}
        full, _ = state.render(full=True)
        assert {file.path: file.sha256 for file in full.files} == {
            path: file.sha256 for path, file in state.published.items()
        }
        assert artifacts.items() <= {one.part: one.artifacts for one in full.parts}.items()


def two_files(tmp_path: Path) -> tuple[CondaState, dict[str, Any]]:
    state, chance = CondaState(tmp_path), random.Random(1)
    listed = {f"{name}-1.0-0.conda": record(chance, f"{name}-1.0-0") | {"name": name} for name in ("alpha", "beta")}
    state.take({"noarch": write(tmp_path / "one.json", listed)})
    state.publish()
    return state, listed


def served(state: CondaState) -> dict[str, Any]:
    found: dict[str, dict[str, Any]] = json.loads(Path(state.published["noarch/repodata.json"].file).read_bytes())
    return found["packages.conda"]


@pytest.mark.parametrize("damaged", [False, True])
def test_rows_that_nothing_touched_are_read_only_when_the_index_before_is_lost(tmp_path: Path, damaged: bool) -> None:
    state, listed = two_files(tmp_path)
    state.execute("UPDATE artifact_record SET raw = CAST(replace(raw, 'name', 'eman') AS BLOB) WHERE artifact_id = 1")
    if damaged:
        Path(state.published["noarch/repodata.json"].file).write_bytes(b"{}")
    listed["beta-1.0-0.conda"]["size"] = 6
    state.take({"noarch": write(tmp_path / "two.json", listed)})
    state.publish()
    assert served(state)["beta-1.0-0.conda"] == listed["beta-1.0-0.conda"]
    assert ("eman" in served(state)["alpha-1.0-0.conda"]) is damaged


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b'{"info":{"subdir":"linux-64"},"packages":{},"packages.conda":{},"removed":[],"repodata_version":1}',
        b'{"info":{"subdir":"noarch","base_url":""},"packages":{},"packages.conda":{},"removed":[],"repodata_version":1}',
        b'{"info":{"subdir":"noarch"},"packages":{},"packages.conda":{},"removed":[],"repodata_version":1,"v3":{}}',
        b'{"info":{"subdir":"noarch"},"packages":{},"packages.conda":{},"removed":[],"repodata_version":1,"signatures":{}}',
    ],
)
def test_only_an_own_index_of_plain_records_is_gone_on_from(content: bytes) -> None:
    assert own_index(content, "noarch") is None


NESTED = (
    '{"a":{"b":{}},"c-1-0.conda":{"name":"c"}}',
    '{"a":"},\\"c-1-0.conda\\":{","name":"é"}',
    '{"a":{},"packages.conda":{"c-1-0.conda":{}},"removed":[],"repodata_version":1}',
    '{"a":"x},","b":"},","removed":"}}"}',
    "{}",
)


def whole(buckets: dict[str, dict[str, str]]) -> bytes:
    chunks = repodata_chunks(
        "noarch",
        {
            section: [(key, raw.encode()) for key, raw in sorted(records.items())]
            for section, records in buckets.items()
        },
        {},
    )
    return b"".join(chunks)


def hostile(chance: random.Random) -> dict[str, str]:
    stems = chance.sample(["a", "a-1", "a-1-0", "a-10", "b", "c-1-0", "zz"], chance.randrange(8))
    return {f"{stem}.conda": chance.choice(NESTED)[:-1] + f',"n":{chance.randrange(9)}}}' for stem in stems}


@pytest.mark.parametrize("stretch", [1, 60, 1 << 16])
def test_whatever_stands_in_records_what_did_not_change_is_copied_as_it_is(stretch: int) -> None:
    chance = random.Random(stretch)
    for _ in range(150):
        before = {section: hostile(chance) for section in ("packages", "packages.conda")}
        before = {
            section: {key: raw.replace("{,", "{") for key, raw in records.items()}
            for section, records in before.items()
        }
        now = {section: dict(records) for section, records in before.items()}
        changed = hostile(chance)
        for records in now.values():
            for key, raw in changed.items():
                records.pop(key, None)
                if chance.random() < 0.6:
                    records[key] = raw.replace("{,", "{")
        index = own_index(whole(before), "noarch", stretch=stretch)
        assert index is not None
        assert {section: set(bucket) for section, bucket in index.sections.items()} == {
            section: set(records) for section, records in before.items()
        }
        rows = {
            section: [Served(section, key, records[key].encode()) for key in changed if key in records]
            for section, records in now.items()
        }
        index.replace(changed, rows)
        plain = {section: bucket.chunks() for section, bucket in index.sections.items()}
        assert b"".join(map(bytes, repodata_chunks("noarch", {}, {}, plain=plain))) == whole(now)
        assert {section: set(bucket) for section, bucket in index.sections.items()} == {
            section: set(records) for section, records in now.items()
        }
        assert [len(bucket) for bucket in index.sections.values()] == [len(records) for records in now.values()]


@pytest.mark.parametrize("how", ["cut", "swapped", "spaced", "twice", "escaped"])
def test_what_is_not_as_it_is_written_is_made_anew(how: str) -> None:
    content = whole({"packages": {"a.conda": "{}", "b.conda": '{"x":1}'}, "packages.conda": {"c.conda": "{}"}})
    wrong = {
        "cut": content[:-1],
        "swapped": content.replace(b'"a.conda"', b'"c.conda"'),
        "spaced": content.replace(b":1}", b":1} "),
        "twice": content.replace(b'"a.conda"', b'"b.conda"'),
        "escaped": content.replace(b'"a.conda"', b'"\\u0061.conda"'),
    }[how]
    assert own_index(content, "noarch") is not None
    assert own_index(wrong, "noarch") is None
