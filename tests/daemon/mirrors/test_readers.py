"""An index that several workers read, each into a file of its own: found is what one alone would find."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from firthd.clock import SystemClock
from firthd.families.base import Spool
from firthd.index.read import read_task
from firthd.mirrors.readers import read, spread
from firthd.store.run_file import files_of, numbered
from firthd.store.run_reads import open_run_file
from firthd.workers import TaskProgress, Workers
from tests.support.conda_state import CondaState, run_rows

PARTS = ("linux-64", "noarch", "osx-64")


@pytest.mark.parametrize(
    ("sizes", "places", "groups"),
    [
        ({"a": 5, "b": 4, "c": 3}, 2, ["a", "bc"]),
        ({"a": 5, "b": 4, "c": 3}, 1, ["abc"]),
        ({"a": 5, "b": 4, "c": 3}, 9, ["a", "b", "c"]),
        ({"a": 50, "b": 1}, 2, ["ab"]),
        ({"a": 5, "b": 5, "z": 0}, 2, ["az", "b"]),
        ({}, 2, [""]),
    ],
)
def test_parts_are_spread_where_that_is_worth_a_worker(sizes: dict[str, int], places: int, groups: list[str]) -> None:
    spools = [Spool(part=part, file=None) for part in sizes]
    found = spread(spools, sizes, places, 4)
    assert ["".join(sorted(spool.part for spool in group)) for group in found] == groups


def listed(folder: Path, step: int) -> dict[str, Path | None]:
    found: dict[str, Path | None] = {}
    for number, part in enumerate(PARTS):
        names = [f"p{one}" for one in range(number + step, number + 4)]
        records = {f"{name}-1-0.conda": {"name": name, "version": "1", "build": "0", "size": step} for name in names}
        found[part] = folder / f"{part}-{step}.json"
        found[part].write_text(json.dumps({"packages.conda": records}))  # type: ignore[union-attr]
    return found


def rows(files: list[Path], table: str, columns: str) -> list[Any]:
    return sorted(row for file in files for row in run_rows(file, table, columns))


def test_two_workers_find_what_one_finds(tmp_path: Path) -> None:
    state = CondaState(tmp_path)
    state.take(listed(tmp_path, 0))
    spools = listed(tmp_path, 1)
    alone = state.read_params(spools, only=["linux-64", "noarch"])
    apart = replace(alone, run_file=str(tmp_path / "apart"))
    numbered(Path(apart.run_file), 1).write_bytes(b"of an earlier reading")
    numbered(Path(apart.run_file), 2).write_bytes(b"of an earlier reading")
    told: list[TaskProgress] = []
    found = asyncio.run(read(Workers(2, SystemClock()), apart, told.append, worth_bytes=1))
    assert found == read_task(alone, lambda progress: None)
    files = files_of(Path(apart.run_file))
    assert len(files) == 2
    assert told[-1].total == 6
    for table, columns in (
        ("add", "part, filename, raw"),
        ("close", "artifact_id, part, reason"),
        ("offer", "part, name, begins"),
    ):
        assert rows(files, table, columns) == rows([Path(alone.run_file)], table, columns)
    asyncio.run(look(files, rows(files, "add", "part, filename")))


async def look(files: list[Path], added: list[tuple[str, str]]) -> None:
    """Read and note what is to be added, as a run does."""
    async with open_run_file(files[0]) as reads:
        every = await reads.wanted(0, 100)
        assert [(one.part, one.filename) for one in every] == added
        assert await reads.wanted(every[1].ordinal, 3) == every[2:5]
        last = every[-2]
        await reads.mark_failed([(last.ordinal, last.name)])
        assert await reads.incomplete_parts() == {"linux-64", "noarch"}  # where the same name waits
        await reads.record_digests([(last.ordinal, "ab" * 32, 7)])
        await reads.leave_out([every[0].ordinal])
        left = await reads.wanted(0, 100)
        assert [one.ordinal for one in left] == [one.ordinal for one in every[1:]]
        assert left[-2].sha256 == "ab" * 32
