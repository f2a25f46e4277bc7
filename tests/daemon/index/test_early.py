"""What is rendered while it is read is what a render of the same rows makes, byte for byte."""

import json
from collections.abc import Set
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from firthd.families.base import Output
from firthd.families.conda.formats import CondaFormats
from firthd.families.conda.render import SubdirRenderer
from firthd.index.ahead import ahead_task
from firthd.index.messages import EarlyParams, RenderResult
from firthd.index.read import read_task
from firthd.index.render import render_task
from firthd.store.run_file import numbered
from firthd.store.worker_objects import PAGE_ROWS
from firthd.store.worker_reads import ShownRow
from firthd.worker import TaskProgress
from tests.support.conda_state import CondaState, run_rows

TABLES = (
    ("object", "path, sha256, size, offset IS NULL, lasting"),
    ("package", "name, version, versions, files, bytes, platforms, depends, digest, hidden"),
)


def unheard(_: TaskProgress) -> None:
    """Hear nothing of how far a task is."""


def record(name: str, version: str = "1", **more: Any) -> dict[str, Any]:
    return {"name": name, "version": version, "build": "0", "size": 5, "depends": [f"{name}-dep >=1"], **more}


def strange() -> dict[str, Any]:
    """Return an index with what most have not: names that mix, one file twice, v3, records of their own spelling."""
    conda = {f"{name}-{version}-0.conda": record(name, version) for name in ("a", "b") for version in ("1", "2", "10")}
    conda |= {f"a-2to3-{number}-0.conda": record("a-2to3", str(number)) for number in range(3)}
    conda["b-3-0.conda"] = record("a", "3", sha256="A" * 64, md5="0" * 32)  # named after another package
    conda["c-1-0.conda"] = record("c", license={"odd": 1}, timestamp=1.5, sha256=None)
    conda["c-2-0.conda"] = {"name": 5}  # refused
    tarballs = {"b-1-0.tar.bz2": record("b", sha256="b" * 64), "d-1-0.tar.bz2": record("d", constrains=["\u00e9"])}
    v3 = {"conda": {"a-1-0": record("a", timestamp=1), "e-1-0": record("e")}, "whl": {"w": record("w", url="x/w.whl")}}
    return {"info": {"subdir": "noarch"}, "packages": tarballs, "packages.conda": conda, "v3": v3}


def many() -> dict[str, Any]:
    """Return an index of more than a page, with one file name in two sections where the page ends."""
    conda = {f"p{number:05}-1-0.conda": record(f"p{number // 3:04}") for number in range(PAGE_ROWS + 20)}
    last = f"p{PAGE_ROWS - 1:05}-1-0"
    return {"packages.conda": conda, "v3": {"conda": {last: conda[f"{last}.conda"]}}}


def shown(result: RenderResult, files: list[Path]) -> dict[str, Any]:
    """Return what a render leaves, wherever it left it."""
    found: dict[str, Any] = {
        table: sorted(row for file in files for row in run_rows(file, table, columns)) for table, columns in TABLES
    }
    found["files"] = {file.path: Path(file.file).read_bytes() for file in result.files}
    return found | {"parts": result.parts, "content": result.content, "notes": result.notes}


@pytest.mark.parametrize(
    "documents",
    [{"noarch": strange(), "osx-64": {}}, {"linux-64": many()}, {"noarch": {}}],
    ids=["strange", "many", ""],
)
def test_what_is_rendered_while_it_is_read_is_what_a_render_makes(tmp_path: Path, documents: dict[str, Any]) -> None:
    state = CondaState(tmp_path)
    state.publish()  # what a channel shows from its beginning on
    parts: dict[str, Path | None] = {}
    for part, document in documents.items():
        parts[part] = tmp_path / f"{part}.json"
        (tmp_path / f"{part}.json").write_text(json.dumps(document))
    params = state.read_params(
        parts, first=True, early=EarlyParams(folder=str(tmp_path / "early"), number=state.generation + 1)
    )
    told: list[TaskProgress] = []
    made = read_task(params, told.append).made
    (sums,) = [one.sums for one in told if one.sums is not None]
    assert made is not None

    state.apply(Path(params.run_file))
    ordinary = state.render_params()
    wanted = render_task(ordinary, told.append)

    last = replace(state.render_params(), change_sets=[], before=None, shares=[sums])
    summed = render_task(last, told.append)
    both = replace(summed, files=[*summed.files, *made.result.files], parts=summed.parts)
    files = [Path(last.run_file), *map(Path, made.run_files)]
    assert shown(both, files) == shown(wanted, [Path(ordinary.run_file)])


def with_digests(document: dict[str, Any], kind: str = "sha256") -> dict[str, Any]:
    """Return an index whose records all give a digest."""
    return {
        key: with_digests(value, kind)
        if isinstance(value, dict) and "name" not in value
        else {**value, kind: "e" * (64 if kind == "sha256" else 32)}
        if isinstance(value, dict)
        else value
        for key, value in document.items()
    }


@pytest.mark.parametrize("halves", [False, True])
def test_what_is_rendered_out_of_a_runs_own_files_is_what_a_render_makes(tmp_path: Path, halves: bool) -> None:
    state = CondaState(tmp_path)
    state.publish()
    parts: dict[str, Path | None] = {}
    documents = {"linux-64": many()} if halves else {"noarch": strange(), "osx-64": {}}
    for part, document in documents.items():
        parts[part] = tmp_path / f"{part}.json"
        (tmp_path / f"{part}.json").write_text(json.dumps(with_digests(document)))
    params = state.read_params(parts, first=True)
    read_task(params, unheard)
    early = EarlyParams(folder=str(tmp_path / "early"), number=state.generation + 1)
    own = replace(params, spools=[], early=early)
    if halves:
        own = replace(own, run_file=str(state.next_path("run")))
        for number, share in enumerate([(0.0, 0.5), (0.5, 1.0)]):
            file = str(numbered(Path(own.run_file), number))
            read_task(replace(params, spools=[replace(params.spools[0], share=share)], run_file=file), unheard)
    made = ahead_task(own, unheard).made
    assert made is not None

    state.apply(Path(params.run_file))
    ordinary = state.render_params()
    wanted = render_task(ordinary, unheard)
    assert shown(made.result, [Path(file) for file in made.run_files]) == shown(wanted, [Path(ordinary.run_file)])


@pytest.mark.parametrize("document", [{}, with_digests(many(), "md5")], ids=["nothing", "no sha256"])
def test_what_is_not_known_before_files_come_is_not_rendered(tmp_path: Path, document: dict[str, Any]) -> None:
    state = CondaState(tmp_path)
    (tmp_path / "listed.json").write_text(json.dumps(document))
    params = state.read_params({"noarch": tmp_path / "listed.json"}, first=True)
    read_task(params, unheard)
    early = EarlyParams(folder=str(tmp_path / "early"), number=2)
    assert ahead_task(replace(params, spools=[], early=early), unheard).made is None


class Fails(SubdirRenderer):
    def add(self, row: ShownRow) -> None:
        raise ValueError(f"{row.filename} cannot be written")


class Failing(CondaFormats):
    def renderer(self, part: str, touched: Set[str] | None, out: Output) -> SubdirRenderer:
        return Fails(part, touched, out)


FAILING = Failing()


def test_what_cannot_be_rendered_is_read_all_the_same(tmp_path: Path) -> None:
    state = CondaState(tmp_path)
    (tmp_path / "listed.json").write_text(json.dumps(strange()))
    params = state.read_params({"noarch": tmp_path / "listed.json"}, first=True)
    usual = read_task(params, lambda progress: None)
    early = EarlyParams(folder=str(tmp_path / "early"), number=1)
    told: list[TaskProgress] = []
    found = read_task(replace(params, formats=f"{__name__}:FAILING", early=early), told.append)
    assert found == usual
    assert usual.made is None
    (tmp_path / "listed.json").write_text(json.dumps(with_digests(strange())))
    own = replace(params, run_file=str(state.next_path("run")))
    read_task(own, unheard)
    early = replace(early, folder=str(tmp_path / "ahead"))
    assert ahead_task(replace(own, formats=f"{__name__}:FAILING", early=early), unheard).made is None
    assert [one for one in told if one.sums is not None] == []
