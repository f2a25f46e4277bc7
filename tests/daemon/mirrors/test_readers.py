"""An index that several workers read, each into a file of its own: found is what one alone would find."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from firth_protocol.types import LicenseRule, PackageRule, Rules
from firthd.clock import SystemClock
from firthd.families.base import Spool
from firthd.index.compare import joined
from firthd.index.messages import JudgedBy
from firthd.index.read import read_task
from firthd.mirrors.readers import Sums, cut, read, spread
from firthd.store.excluded import JudgementFiles
from firthd.store.run_file import files_of, numbered
from firthd.store.run_reads import open_run_file
from firthd.worker import TaskProgress
from firthd.workers import Workers
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


@pytest.mark.parametrize(
    ("sizes", "places", "groups"),
    [
        ({"a": 90, "b": 10}, 2, [[("a", 0, 50)], [("a", 50, 90), ("b", 0, 10)]]),
        ({"a": 100}, 4, [[("a", 0, 25)], [("a", 25, 50)], [("a", 50, 75)], [("a", 75, 100)]]),
        ({"a": 51, "b": 49}, 2, [[("a", 0, 50)], [("a", 50, 51), ("b", 0, 49)]]),
        ({"a": 6}, 2, [[("a", 0, 6)]]),
        ({"a": 100}, 1, [[("a", 0, 100)]]),
    ],
)
def test_parts_are_cut_into_groups_of_one_size(
    sizes: dict[str, int], places: int, groups: list[list[tuple[str, int, int]]]
) -> None:
    found = cut([Spool(part=part, file=None) for part in sizes], sizes, places, 4)

    def of(spool: Spool) -> tuple[str, int, int]:
        begins, ends = spool.share or (0.0, 1.0)
        return spool.part, round(begins * sizes[spool.part]), round(ends * sizes[spool.part])

    assert [[of(spool) for spool in group] for group in found] == groups


@pytest.mark.parametrize(
    ("told", "wanted"), [({0: "a", 1: "b"}, ["a", "b"]), ({1: "b"}, None), ({}, None)], ids=["all", "one", "none"]
)
async def test_nothing_is_summed_up_where_a_worker_ends_without_its_sums(
    told: dict[int, str], wanted: list[str] | None
) -> None:
    sums = Sums(2)
    for number, file in told.items():
        sums.found(number, file)
    for number in (0, 1):
        sums.ended(number)
    assert await sums.all() == wanted


@pytest.mark.parametrize("early_rows", [None, 3, 1000])
@pytest.mark.parametrize("at", [0.1, 0.37, 0.5, 0.99])
def test_shares_of_a_part_hold_what_it_holds(tmp_path: Path, at: float, early_rows: int | None) -> None:
    """A name in two sections stays whole, and an invalid record is told once."""
    state = CondaState(tmp_path)
    plain = {
        f"p{one}-1-0.tar.bz2": {"name": f"p{one}", "version": "1", "build": "0", "size": one + 1} for one in range(9)
    }
    doubled = {
        f"p{one}-1-0.conda": {"name": f"p{one}", "version": "1", "build": "0", "size": 1} for one in range(0, 9, 2)
    }
    doubled["p5-1-0.conda"] = {"name": "p5"}
    listed = tmp_path / "listed.json"
    v3 = {"conda": {"p4-1-0": doubled["p4-1-0.conda"]}}
    listed.write_text(json.dumps({"packages": plain, "packages.conda": doubled, "v3": v3}))
    alone = state.read_params({"linux-64": listed})
    whole = read_task(alone, lambda progress: None)
    parts, files = [], []
    for number, share in enumerate([(0.0, at), (at, 1.0)]):
        file = str(tmp_path / f"share-{number}")
        spools = [replace(alone.spools[0], share=share)]
        mine = replace(alone, spools=spools, run_file=file, first=True, early_rows=early_rows)
        told: list[TaskProgress] = []
        parts += read_task(mine, told.append).parts
        early = [Path(one.file) for one in told if one.file is not None]
        assert bool(early) == (early_rows is not None and parts[-1].kept > 0)
        files += [*early, Path(file)]
    assert joined(*parts) == whole.parts[0]
    assert rows(files, "add", "part, section, filename, raw") == rows(
        [Path(alone.run_file)], "add", "part, section, filename, raw"
    )
    assert set(rows(files, "offer", "name")) == set(rows([Path(alone.run_file)], "offer", "name"))


def listed(folder: Path, step: int) -> dict[str, Path | None]:
    found: dict[str, Path | None] = {}
    for number, part in enumerate(PARTS):
        names = [f"p{one}" for one in range(number + step, number + 4)]
        records = {f"{name}-1-0.conda": {"name": name, "version": "1", "build": "0", "size": step} for name in names}
        found[part] = file = folder / f"{part}-{step}.json"
        file.write_text(json.dumps({"packages.conda": records}))
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


RULES = Rules(
    packages=PackageRule(allow=["p1", "p2 >=2", "p3", "p9"], exclude=["p3 <2"]),
    licenses=LicenseRule(not_in=["GPL3"]),
    legacy=False,
    keep_latest=1,
)


def judged(folder: Path) -> dict[str, Path | None]:
    """Write parts of which the rules leave something out for each of their reasons."""
    found: dict[str, Path | None] = {}
    for part in PARTS:
        of: dict[str, dict[str, object]] = {"packages": {}, "packages.conda": {}}
        for one in range(6):
            for version in ("1", "2", "3"):
                record = {"name": f"p{one}", "version": version, "build": part[:3], "build_number": 0, "size": 9}
                record["license"] = "GPL-3.0-only" if version == "3" and part == "noarch" else "MIT"
                of["packages.conda"][f"p{one}-{version}-{part[:3]}.conda"] = record
                of["packages"][f"p{one}-{version}-{part[:3]}.tar.bz2"] = record
        found[part] = file = folder / f"{part}.json"
        file.write_text(json.dumps(of))
    return found


def left_out(folder: Path, file: Path) -> tuple[Any, ...]:
    """Return all that a judgement tells, whatever the order."""
    files = JudgementFiles(folder)
    files.put(1, file)
    judgement = files.of(1)
    every, total = judgement.page(rule=None, query=None, after=0, limit=1000)
    assert total == len(every)
    told = sorted((one.part, one.filename, one.version, one.rule, one.why, one.refuses) for one in every)
    return told, judgement.counts(), judgement.gone(query=None, after="", limit=99), judgement.about()


def test_two_workers_judge_as_one_does(tmp_path: Path) -> None:
    state = CondaState(tmp_path)
    order = JudgedBy(
        policy="p", stamp="p:1", rules=RULES, policing="firthd.families.conda.policing:POLICING", now_ms=10**12
    )
    plain = state.read_params(judged(tmp_path), only=["linux-64", "noarch"])
    alone = replace(plain, policy=replace(order, file=str(tmp_path / "alone.sqlite")))
    by_two = replace(order, file=str(tmp_path / "apart.sqlite"))
    apart = replace(plain, run_file=str(tmp_path / "apart"), policy=by_two)
    found = asyncio.run(read(Workers(2, SystemClock()), apart, lambda progress: None, worth_bytes=1))
    assert found == read_task(alone, lambda progress: None)
    files = files_of(Path(apart.run_file))
    assert len(files) == 2
    for table, columns in (("add", "part, filename, raw"), ("offer", "part, name, begins")):
        assert rows(files, table, columns) == rows([Path(alone.run_file)], table, columns)
    assert not (tmp_path / "apart.sqlite.1").exists()
    told = left_out(tmp_path / "one", tmp_path / "alone.sqlite")
    assert left_out(tmp_path / "two", tmp_path / "apart.sqlite") == told
    assert set(told[1]) == {"packages", "licenses", "legacy", "keep_latest"}


def test_what_hangs_on_other_parts_is_judged_by_one_worker() -> None:
    order = JudgedBy(policy="p", stamp="p:1", rules=RULES, policing="", now_ms=0)
    assert order.by_part
    closes = replace(RULES, packages=PackageRule(allow=["p1"], include_dependencies=True))
    assert not replace(order, rules=closes).by_part
    assert replace(order, rules=Rules()).by_part
