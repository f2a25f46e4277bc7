"""A render that two workers share: what they leave is what one would have left."""

import asyncio
import json
from pathlib import Path

import pytest
from msgspec.structs import replace

from firthd.channels.renders import render, worth_apart
from firthd.clock import SystemClock
from firthd.workers import Workers
from tests.support.conda_state import CondaState, run_rows


@pytest.mark.parametrize(
    ("records", "least", "apart"),
    [
        ({"a": 30_000, "b": 50_000}, 20_000, "b"),
        ({"a": 30_000, "b": 50_000}, 40_000, None),
        ({"a": 3_000, "b": 500_000}, 20_000, None),
        ({"b": 500_000}, 20_000, None),
        ({}, 0, None),
    ],
)
def test_a_second_worker_is_asked_when_both_have_much_to_do(
    records: dict[str, int], least: int, apart: str | None
) -> None:
    assert worth_apart(records, least) == apart


def source(folder: Path, part: str, names: list[str]) -> Path:
    records = {f"{name}-1-0.conda": {"name": name, "version": "1", "build": "0", "size": 5} for name in names}
    (folder / f"{part}.json").write_text(json.dumps({"packages.conda": records}))
    return folder / f"{part}.json"


@pytest.mark.parametrize("before", [None, [], ["b", "x"]], ids=["new", "empty before", "published before"])
@pytest.mark.parametrize("damaged", [False, True])
def test_two_workers_leave_what_one_leaves(tmp_path: Path, damaged: bool, before: list[str] | None) -> None:
    state = CondaState(tmp_path, mirrors=2)
    if before is not None:
        state.take({"osx-64": source(tmp_path, "osx-64", before)})
        state.publish()
    state.take({"noarch": source(tmp_path, "noarch", ["a", "b"]), "osx-64": source(tmp_path, "osx-64", ["b", "c"])})
    state.take({"osx-64": source(tmp_path, "osx-64", ["c", "d"])}, mirror=2)
    if damaged:  # behind the daemon's back: one leaves out what the other has counted
        state.execute("UPDATE artifact_record SET raw = x'7b' WHERE artifact_id = (SELECT max(id) FROM artifact)")
        state.execute("UPDATE offered SET closed_set = added_set WHERE mirror_id = 1 AND part = 'osx-64'")
    alone, apart = state.render_params(), state.render_params()
    one = asyncio.run(render(Workers(1, SystemClock()), alone, lambda progress: None, None)).result
    assert any(file.path == "osx-64/repodata.json" for file in one.files)
    both = asyncio.run(render(Workers(2, SystemClock()), apart, lambda progress: None, "osx-64"))
    assert len(both.run_files) == 3
    assert len(both.packs) == 2
    assert [(file.path, file.sha256) for file in both.result.files] == [(file.path, file.sha256) for file in one.files]
    assert replace(both.result, files=[], pack=None) == replace(one, files=[], pack=None)
    for table, columns in (("object", "path, sha256, size"), ("package", "name, files, digest, hidden")):
        found = [row for file in both.run_files for row in run_rows(Path(file), table, columns)]
        assert sorted(found) == sorted(run_rows(Path(alone.run_file), table, columns))
