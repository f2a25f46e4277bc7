"""A policy over Python files: their facts, pages that a run reads and pages that clients ask for, and advisories."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from firth_protocol.types import Rules, RunState
from firthd.families.base import Entry
from firthd.families.python.policing import POLICING
from firthd.families.python.records import FILES, METADATA
from firthd.policies.judge import Judge
from tests.support.python import PythonIndex, PythonWorld, python_world


def entry(filename: str, section: str = FILES, **said: Any) -> Entry:
    record = {"filename": filename, "url": f"../{filename}", "upload-time": "2026-03-01T12:00:00Z"} | said
    return Entry(filename, section, msgspec.json.encode(record), "alpha-one")


@pytest.mark.parametrize(
    ("filename", "version", "platform"),
    [
        ("alpha_one-1.0-py3-none-any.whl", "1.0", "noarch"),
        ("alpha_one-1.0.tar.gz", "1.0", "noarch"),
        ("alpha_one-1.0-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl", "1.0", "linux-64"),
        ("alpha_one-1.0rc1-cp311-cp311-win_amd64.whl", "1.0rc1", "win-64"),
        ("alpha_one-1.0-cp311-cp311-macosx_11_0_arm64.whl.metadata", "1.0", "osx-arm64"),
        ("alpha_one-1.0-cp311-cp311-macosx_10_9_universal2.whl", "1.0", "noarch"),
    ],
)
def test_facts_of_a_file(filename: str, version: str, platform: str) -> None:
    found = POLICING.facts("alpha-one", entry(filename))
    assert (found.name, found.version, found.platform) == ("alpha-one", version, platform)
    assert found.indexed == 1_772_366_400_000
    assert POLICING.brief(entry(filename)).version == version


def test_what_an_index_does_not_tell_is_unknown() -> None:
    found = POLICING.facts("alpha-one", entry("alpha_one-1.0.tar.gz"))
    licences = Judge(msgspec.convert({"licenses": {"in": ["MIT"]}}, Rules), POLICING)
    verdict = licences.alone(found)
    assert verdict is not None
    assert "nobody knows" in verdict.why
    with pytest.raises(ValueError, match="core metadata is not read"):
        POLICING.dependency(*found.depends)
    signed = Judge(msgspec.convert({"signed_only": True}, Rules), POLICING)
    proven = entry("alpha_one-1.0.tar.gz", provenance="https://index.example.org/p")
    assert signed.alone(POLICING.facts("alpha-one", proven)) is None
    assert signed.alone(found) is not None
    assert signed.alone(POLICING.facts("alpha-one", entry("alpha_one-1.0-py3-none-any.whl.metadata", METADATA))) is None


def index() -> PythonIndex:
    made = PythonIndex()
    for version in ("1.0", "1.1", "2.0"):
        made.add("Alpha.One", version)
    made.add("beta", "1.0")
    return made


async def versions(w: PythonWorld, project: str = "alpha-one") -> list[str]:
    page = await w.page(project)
    return [] if isinstance(page, int) else [file["filename"].split("-")[1] for file in page["files"]]


async def policy(w: PythonWorld, **rules: Any) -> None:
    known = {one.name: one for one in (await w.call("policy.list")).items}
    if "p" not in known:
        await w.call("policy.create", name="p", families=["python"], rules=rules)
        return
    reply = await w.call("policy.update", policy="p", revision=known["p"].revision, rules=rules)
    for run in reply.runs:
        assert (await w.daemon.ended(run.id)).state is RunState.COMPLETED


@pytest.mark.parametrize("lazy", [True, pytest.param(False, marks=pytest.mark.deep)])
async def test_a_page_shows_what_the_policy_keeps_and_the_rest_is_refused(tmp_path: Path, lazy: bool) -> None:
    async with python_world(tmp_path, index()) as w:
        await policy(w, packages={"exclude": ["Alpha_One <1.1"]})
        filters: dict[str, Any] = {} if lazy else {"projects": ["alpha-one", "beta"]}
        await w.python("passive", policy="p", filters=filters)
        run = await w.run("main:p")
        assert run.state is RunState.COMPLETED, run
        assert (await versions(w), await versions(w, "beta")) == (["1.1", "2.0"], ["1.0"])
        old = w.index.projects["alpha-one"][0].filename
        for_people = (await w.get("/repo/main/-/python/alpha-one")).body.decode()
        assert [f"?version={version}" in for_people for version in ("1.0", "1.1", "2.0")] == [False, True, True]
        assert (await w.get("/repo/main/-/python/nothing")).status == 404
        if not lazy:
            refused = await w.get(f"/repo/main/packages/alpha-one/{old}")
            assert (refused.status, b"by policy p, packages" in refused.body) == (403, True)
        await policy(w, packages={"allow": ["alpha-one"]}, keep_latest=2)
        assert (await versions(w), await versions(w, "beta")) == (["1.1", "2.0"], [])
        await policy(w, cve={"score": {"op": ">=", "value": 7}})
        assert await versions(w) == ["1.0", "1.1", "2.0"]
        flaw = {
            "id": "MAL-2026-1",
            "modified": "2026-03-01T10:00:00Z",
            "affected": [{"package": {"ecosystem": "PyPI", "name": "Alpha.One"}, "versions": ["2.0"]}],
        }
        (tmp_path / "flaw.json").write_bytes(msgspec.json.encode(flaw))
        reply = await w.call("advisory.import", source=str(tmp_path / "flaw.json"))
        assert (await w.daemon.ended(reply.run.id)).state is RunState.COMPLETED
        for again in (await w.call("run.list", kind="refilter")).items:
            await w.daemon.ended(again.id)
        assert await versions(w) == ["1.0", "1.1"]
        flawed, well = (w.index.projects["alpha-one"][place].filename for place in (2, 1))
        refused = await w.get(f"/repo/main/packages/alpha-one/{flawed}")
        assert (refused.status, b"cve: MAL-2026-1" in refused.body) == (403, True)
        assert (await w.get(f"/repo/main/packages/alpha-one/{well}")).status == 200


async def test_a_policy_counts_files_not_their_metadata(tmp_path: Path) -> None:
    async with python_world(tmp_path, index()) as w:
        await policy(w, packages={"exclude": ["alpha-one >=1.1"]})
        await w.python("passive", policy="p", filters={"projects": ["alpha-one", "beta"]})
        counts = (await w.run("main:p")).counts
        assert [(one.reason, one.count) for one in counts.filtered] == [("packages", 2)]
        assert counts.passive == 2
        assert await versions(w) == ["1.0"]
        hidden = await w.get("/repo/main/packages/alpha-one/alpha_one-2.0-py3-none-any.whl.metadata")
        assert hidden.status == 403
