"""Small parts that are read before all have come give what a reading of all of them gives, or count for nothing."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from firthd.channels.renders import unheard
from firthd.families.base import COLUMNS
from firthd.families.python.family import PYTHON
from firthd.index.messages import PartResult, ReadParams
from firthd.index.read import read_task
from firthd.mirrors.arrivals import GATHERED
from firthd.mirrors.read_ahead import ReadAhead, spool_of
from firthd.store.catalog import SourceIndexRow
from tests.support.conda_state import CondaState, run_rows
from tests.support.python import PythonIndex

PARTS = GATHERED + 5
ADDED = f"part, {', '.join(column.name for column in COLUMNS)}"


class Heard:
    """Who writes down what has come, in this test nobody."""

    def __init__(self) -> None:
        self.parts: list[str] = []

    async def __call__(self, row: SourceIndexRow, /, *, lists: bool = False) -> None:
        self.parts.append(row.part)

    async def all(self) -> None:
        raise AssertionError


def rows_of(index: PythonIndex, folder: Path) -> list[SourceIndexRow]:
    found = []
    for project in index.projects:
        content = index.page_json(project)
        (folder / project).write_bytes(content)
        row = SourceIndexRow(project, f"{project}/", "json", None, None, project, len(content), 0, None, 1)
        found.append(replace(row, mark="0"))
    return found


def found_in(file: str) -> list[Any]:
    tables = {"add": ADDED, "offer": "part, name, begins"}
    return [sorted(run_rows(Path(file), table, columns)) for table, columns in tables.items()]


def part_of(result: PartResult) -> str:
    return result.part


@pytest.fixture
def rows(tmp_path: Path) -> list[SourceIndexRow]:
    index = PythonIndex(core=False)
    for number in range(PARTS):
        index.add(f"p{number}", "1.0")
        index.add(f"p{number}", "2.0")
    (tmp_path / "copies").mkdir()
    found = rows_of(index, tmp_path / "copies")
    (tmp_path / "copies" / found[3].part).write_text("no page")
    return found


def params_of(folder: Path, rows: list[SourceIndexRow]) -> ReadParams:
    state = CondaState(folder)
    return ReadParams(
        formats=PYTHON.formats,
        state_db=str(state.db),
        run_file=str(folder / "run" / "run.sqlite"),
        channel_id=1,
        mirror_id=1,
        spools=[spool_of(row, folder / "copies") for row in rows],
        singly=True,
    )


async def came(params: ReadParams, rows: list[SourceIndexRow], folder: Path) -> ReadAhead:
    """Return what has read the first parts before the last ones come."""
    heard = Heard()
    ahead = ReadAhead(heard, folder, replace(params, spools=[], close_filtered=False))
    async with ahead.reading():
        for row in rows[:GATHERED]:
            await ahead(row)
        while not ahead.read:
            await asyncio.sleep(0)
        for row in rows[GATHERED:]:
            await ahead(row)
    assert heard.parts == [row.part for row in rows]
    return ahead


def test_what_is_read_before_all_has_come_is_what_is_read_behind(tmp_path: Path, rows: list[SourceIndexRow]) -> None:
    params = params_of(tmp_path, rows)
    other = str(tmp_path / "other.sqlite")
    wanted = read_task(replace(params, run_file=other), unheard)
    ahead = asyncio.run(came(params, rows, tmp_path / "copies"))
    left, found = ahead.taken(params)
    assert (len(found), len(left.spools)) == (GATHERED, PARTS - GATHERED)
    rest = read_task(left, unheard)
    assert sorted([*found, *rest.parts], key=part_of) == wanted.parts
    assert [part.part for part in wanted.parts if part.unreadable] == [rows[3].part]
    assert found_in(params.run_file) == found_in(other)


def test_what_would_be_read_otherwise_is_read_again(tmp_path: Path, rows: list[SourceIndexRow]) -> None:
    params = params_of(tmp_path, rows)
    ahead = asyncio.run(came(params, rows, tmp_path / "copies"))
    moved = [replace(spool, mark="8") if spool.part == rows[5].part else spool for spool in params.spools]
    for other in (replace(params, keep=True), replace(params, spools=moved), replace(params, spools=moved[6:])):
        assert ahead.taken(other) == (other, [])


def test_what_cannot_be_read_ahead_is_read_behind(tmp_path: Path, rows: list[SourceIndexRow]) -> None:
    params = replace(params_of(tmp_path, rows), state_db=str(tmp_path / "absent" / "firth.sqlite"))
    ahead = ReadAhead(Heard(), tmp_path / "copies", replace(params, spools=[], close_filtered=False))

    async def all_come() -> None:
        async with ahead.reading():
            for row in rows:
                await ahead(row)
            while ahead.reads:
                await asyncio.sleep(0)

    asyncio.run(all_come())
    assert ahead.taken(params) == (params, [])
