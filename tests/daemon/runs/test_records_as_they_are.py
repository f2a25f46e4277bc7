"""Indexes that real tools write: what a run says of each kind, and what is served then."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from firth_protocol.types import RunState
from tests.support.conda import BuiltPackage
from tests.support.upstream import Fault
from tests.support.world import plain, world

Document = dict[str, Any]
Change = Callable[[Document, BuiltPackage, BuiltPackage], None]


def all_in_one(section: str) -> Change:
    def change(document: Document, old: BuiltPackage, new: BuiltPackage) -> None:
        document["packages"] = document["packages.conda"] = {}
        document[section] = {old.filename: old.record, new.filename: new.record}

    return change


def both(document: Document, old: BuiltPackage, new: BuiltPackage) -> None:
    document["packages"][new.filename] = new.record | {"size": 1}


def size(value: int) -> Change:
    def change(document: Document, old: BuiltPackage, new: BuiltPackage) -> None:
        document["packages.conda"][new.filename] = new.record | {"size": value}

    return change


def removed(document: Document, old: BuiltPackage, new: BuiltPackage) -> None:
    document["removed"] = [new.filename, "gone-1-0.conda"]


def few_dashes(document: Document, old: BuiltPackage, new: BuiltPackage) -> None:
    document["packages.conda"]["odd.conda"] = new.record
    document["packages.conda"]["odd-1.conda"] = new.record


KINDS: dict[str, tuple[Change, RunState, str, set[str]]] = {
    # what is done to the index, how the run ends, what it says, what is served of {old, new}
    "all in packages.conda": (all_in_one("packages.conda"), RunState.COMPLETED, "put right", {"old", "new"}),
    "all in packages": (all_in_one("packages"), RunState.COMPLETED, "put right", {"old", "new"}),
    "in both sections": (both, RunState.COMPLETED, "put right", {"old", "new"}),
    "a size of 0": (size(0), RunState.COMPLETED, "", {"old", "new"}),
    "a size that no disk has": (size(2**63), RunState.INCOMPLETE, "no possible size", {"old"}),
    "a petabyte": (size(10**15), RunState.INCOMPLETE, "no possible size", {"old"}),
    "listed and removed": (removed, RunState.COMPLETED, "1 files are listed and also removed", {"old"}),
    "names without two dashes": (few_dashes, RunState.INCOMPLETE, "fewer than two dashes", {"old", "new"}),
}


@pytest.mark.parametrize("mode", ["passive", "active"])
@pytest.mark.parametrize("kind", KINDS)
async def test_each_kind(tmp_path: Path, kind: str, mode: str) -> None:
    change, state, said, names = KINDS[kind]
    async with world(tmp_path) as w:
        old, new = w.source.add(plain("old", extension=".tar.bz2"), plain("new"))
        document = {
            "info": {"subdir": "noarch"},
            "packages": {old.filename: old.record},
            "packages.conda": {new.filename: new.record},
        }
        change(document, old, new)
        w.upstream.fail("noarch/repodata.json.zst", Fault(status=404), times=None)
        w.upstream.files["noarch/repodata.json"] = json.dumps(document).encode()
        await w.mirror(mode, filters={"subdirs": ["noarch"]})
        run = await w.run()
        assert run.state is state
        log = "\n".join(line.text for line in (await w.call("run.log", run=run.id)).items)
        assert said in log
        served = json.loads((await w.get("/repo/main/noarch/repodata.json")).body)
        assert served["packages"].keys() == {old.filename}
        assert served["packages.conda"].keys() == ({new.filename} if "new" in names else set())
        for package in (old, new):
            reply = await w.get(f"/repo/main/noarch/{package.filename}")
            there = package.spec.name in names
            assert (reply.status, reply.body == package.body) == ((200, True) if there else (404, False))


async def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.upstream.fail("noarch/repodata.json.zst", Fault(status=404), times=None)
        (new,) = w.source.add(plain("new"))
        w.upstream.files["noarch/repodata.json"] = b"\xef\xbb\xbf" + json.dumps(w.source.document("noarch")).encode()
        await w.mirror("passive", filters={"subdirs": ["noarch"]})
        assert (await w.run()).state is RunState.COMPLETED
        assert new.filename in await w.records("noarch")
