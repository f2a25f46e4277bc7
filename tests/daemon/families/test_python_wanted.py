"""A mirror whose policy names projects with what they need: its runs read those pages, and no others."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from firth_protocol.types import RunKind, RunState
from tests.support.python import PythonIndex, PythonWorld, python_world
from tests.support.upstream import Fault

PAGES = "simple/*/"
RULES: dict[str, Any] = {"packages": {"allow": ["app"], "include_dependencies": True}}


def index() -> PythonIndex:
    """Return an index in which `app` needs `lib`, that needs `base`, and more."""
    made = PythonIndex()
    made.add("app", "1.0", needs=["Lib[fast] >=2", "ghost", "newer; python_version < '3.5'"])
    made.add("Lib", "1.0", needs=["old"])
    made.add("Lib", "2.0", needs=["base", "speed; extra == 'fast'"])
    made.add("base", "1.0", needs=["app"])
    made.add("speed", "1.0")
    made.add("old", "1.0")
    made.add("stranger", "1.0", needs=["lonely"])
    made.add("lonely", "1.0")
    return made


def asked(w: PythonWorld) -> list[str]:
    """Return the projects whose pages were asked for, and forget it."""
    found = sorted({seen.path.split("/")[-2] for seen in w.upstream.asked(PAGES)})
    w.upstream.requests.clear()
    return found


async def shown(w: PythonWorld) -> set[str]:
    found = set()
    for project in w.index.projects:
        page = await w.page(project)
        if not isinstance(page, int):
            found |= {"-".join(file["filename"].split("-")[:2]) for file in page["files"]}
    return found


async def missing(w: PythonWorld) -> dict[str, tuple[str, str]]:
    report = await w.call("mirror.dependency_report", mirror="main:p")
    return {one.name: (one.reason, one.required_by) for one in report.rows if one.state == "missing"}


async def change(w: PythonWorld, rules: dict[str, Any]) -> list[Any]:
    """Change the policy; return what was run for it, in order."""
    known = {run.id for run in (await w.call("run.list")).items}
    reply = await w.call("policy.get", policy="p")
    for one in (await w.call("policy.update", policy="p", revision=reply.revision, rules=rules)).runs:
        await w.daemon.ended(one.id)
    runs = [run for run in (await w.call("run.list")).items if run.id not in known]
    return [await w.daemon.ended(run.id) for run in sorted(runs, key=lambda run: run.id)]


async def test_a_run_reads_what_an_allowed_project_needs_and_no_other(tmp_path: Path) -> None:
    made = PythonIndex()
    made.add("app", "1.0", needs=["lib", "ghost"])
    made.add("lib", "1.0")
    made.add("stranger", "1.0")
    async with python_world(tmp_path, made) as w:
        await w.call("policy.create", name="p", families=["python"], rules=RULES)
        await w.python("passive", policy="p", check=False)
        assert (await w.run("main:p")).state is RunState.COMPLETED
        assert asked(w) == ["app", "ghost", "lib"]
        assert await shown(w) == {"app-1.0", "lib-1.0"}
        assert await missing(w) == {"ghost": ("the source has no such package", "app-1.0-py3-none-any.whl")}


@pytest.mark.deep
@pytest.mark.parametrize("mode", ["passive", "active"])
async def test_runs_read_what_is_allowed_and_what_that_needs(tmp_path: Path, mode: str) -> None:
    async with python_world(tmp_path, index()) as w:
        await w.call("policy.create", name="p", families=["python"], rules=RULES)
        await w.python(mode, policy="p")
        asked(w)
        run = await w.run("main:p")
        assert run.state is RunState.COMPLETED, run
        assert asked(w) == ["app", "base", "ghost", "lib", "speed"]
        assert await shown(w) == {"app-1.0", "lib-2.0", "base-1.0", "speed-1.0"}
        assert await missing(w) == {"ghost": ("the source has no such package", "app-1.0-py3-none-any.whl")}
        assert (await w.run("main:p")).counts.added == 0
        assert len(w.upstream.requests) <= 2 * 5  # a conditional request a page, as for any list of few names
        w.index.add("speed", "2.0", needs=["stranger"])  # a dependency needs something new
        assert (await w.run("main:p")).state is RunState.COMPLETED
        assert await shown(w) == {
            "app-1.0", "lib-2.0", "base-1.0", "speed-1.0", "speed-2.0", "stranger-1.0", "lonely-1.0",
        }  # fmt: skip


@pytest.mark.deep
async def test_an_edit_asks_no_source_and_queues_a_run_for_what_was_never_read(tmp_path: Path) -> None:
    async with python_world(tmp_path, index()) as w:
        await w.call("policy.create", name="p", families=["python"], rules=RULES)
        await w.python("passive", policy="p")
        await w.run("main:p")
        asked(w)
        preview = await w.call(
            "policy.preview", mirror="main:p", families=["python"],
            rules={"packages": {"allow": ["lib"], "include_dependencies": True}},
        )  # fmt: skip
        assert "1 packages that are needed were not read yet: a run reads them" in preview.effects[0].notes
        (less,) = await change(w, {"packages": {"allow": ["speed"], "include_dependencies": True}})
        assert (less.kind, asked(w)) == (RunKind.REFILTER, [])
        assert await shown(w) == {"speed-1.0"}
        refilter, run = await change(w, {"packages": {"allow": ["speed", "stranger"], "include_dependencies": True}})
        assert (refilter.kind, run.kind, run.state) == (RunKind.REFILTER, RunKind.MIRROR, RunState.COMPLETED)
        assert await shown(w) == {"speed-1.0", "stranger-1.0", "lonely-1.0"}


@pytest.mark.deep
async def test_a_page_that_cannot_be_had_is_a_failure_of_that_part_alone(tmp_path: Path) -> None:
    async with python_world(tmp_path, index()) as w:
        w.upstream.fail("simple/base/", Fault(status=500), times=None)
        w.upstream.fail("simple/speed/", Fault(status=403), times=None)
        await w.call("policy.create", name="p", families=["python"], rules=RULES)
        await w.python("passive", policy="p")
        run = await w.run("main:p")
        assert run.state is RunState.INCOMPLETE, run
        assert await shown(w) == {"app-1.0", "lib-2.0"}
        assert {"base", "speed", "ghost"} == (await missing(w)).keys()
        w.upstream.heal()
        assert (await w.run("main:p")).state is RunState.COMPLETED
        assert await shown(w) == {"app-1.0", "lib-2.0", "base-1.0", "speed-1.0"}


@pytest.mark.deep
async def test_a_mirror_of_a_whole_index_becomes_one_of_what_its_policy_names_and_back(tmp_path: Path) -> None:
    async with python_world(tmp_path, index()) as w:
        await w.call("policy.create", name="p", families=["python"], rules={})
        await w.python("passive", policy="p")
        await w.run("main:p")
        assert len(await shown(w)) == 8
        going_on = asyncio.Event()
        w.upstream.fail("simple/lib/", Fault(until=going_on))
        changing = asyncio.create_task(change(w, RULES))
        await w.upstream.arrived("simple/lib/", 2)  # a client had it read before
        assert await w.files("app") == ["app-1.0-py3-none-any.whl"]  # nothing is taken away before the rest is there
        going_on.set()
        runs = await changing
        assert [run.kind for run in runs] == [RunKind.REFILTER, RunKind.MIRROR]
        assert runs[-1].state is RunState.COMPLETED
        assert await shown(w) == {"app-1.0", "lib-2.0", "base-1.0", "speed-1.0"}
        refilter, run = await change(w, {})
        assert (refilter.state, run.kind, run.state) == (RunState.COMPLETED, RunKind.MIRROR, RunState.COMPLETED)
        assert len(await shown(w)) == 8


@pytest.mark.deep
async def test_of_many_that_are_needed_the_list_tells_which_have_changed(tmp_path: Path) -> None:
    made, names = PythonIndex(), [f"n{number}" for number in range(150)]
    made.add("app", "1.0", needs=names)
    for name in names:
        made.add(name, "1.0")
    async with python_world(tmp_path, made) as w:
        await w.call("policy.create", name="p", families=["python"], rules=RULES)
        await w.python("passive", policy="p")
        assert (await w.run("main:p")).state is RunState.COMPLETED
        assert len(await shown(w)) == 151
        await w.run("main:p")
        w.upstream.requests.clear()
        again = await w.run("main:p")
        assert [(seen.path, seen.headers.get("if-none-match") is not None) for seen in w.upstream.requests] == [
            ("simple/", True)
        ]
        assert again.generation is None
        made.add("n7", "2.0")
        assert (await w.run("main:p")).counts.added == 1
        assert await missing(w) == {}


@pytest.mark.deep
async def test_an_edit_beside_a_run_of_a_whole_index_is_followed_by_one_that_reads_what_is_named(
    tmp_path: Path,
) -> None:
    async with python_world(tmp_path, index()) as w:
        await w.call("policy.create", name="p", families=["python"], rules={})
        await w.python("passive", policy="p")
        going_on = asyncio.Event()
        w.upstream.requests.clear()
        w.upstream.fail("simple/", Fault(until=going_on))
        run = (await w.call("mirror.run", mirror="main:p")).run
        await w.upstream.arrived("simple/")
        reply = await w.call("policy.get", policy="p")
        await w.call("policy.update", policy="p", revision=reply.revision, rules=RULES)
        going_on.set()
        assert (await w.daemon.ended(run.id)).state is RunState.COMPLETED
        while left := [one for one in (await w.call("run.list")).items if not one.state.ended]:
            await w.daemon.ended(left[0].id)
        assert await shown(w) == {"app-1.0", "lib-2.0", "base-1.0", "speed-1.0"}
