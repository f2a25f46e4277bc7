"""What a source has beside its index is passed on, cut to what the channel shows, and never decides on a run."""

import json
from pathlib import Path
from typing import Any

import pytest
import zstandard

from firth_protocol.types import RunState
from tests.support.conda import ChannelFolder
from tests.support.upstream import Fault, FaultyUpstream
from tests.support.world import World, plain, world


def exports(*filenames: str, of: str = "") -> bytes:
    """Return a run_exports.json as a source has it."""
    packages: dict[str, dict[str, Any]] = {"packages": {}, "packages.conda": {}}
    for filename in filenames:
        section = "packages.conda" if filename.endswith(".conda") else "packages"
        packages[section][filename] = {"run_exports": {"weak": [f"{filename.partition('-')[0]}{of} >=1"]}}
    return json.dumps({"info": {"subdir": "noarch", "version": 1, "platform": None}, **packages}).encode()


def data(**versions: str) -> bytes:
    packages = {
        name: {"version": version, "subdirs": ["linux-64", "noarch", "zos-z"], "summary": f"what {name} does"}
        for name, version in versions.items()
    }
    return json.dumps({"channeldata_version": 1, "packages": packages, "subdirs": ["noarch", "zos-z"]}).encode()


async def served(w: World, path: str) -> Any:
    """Return a JSON file that the channel serves, None for 404; its compressed twin must agree."""
    reply = await w.get(f"/repo/main/{path}")
    assert reply.status in (200, 404)
    if "run_exports" in path:
        packed = await w.get(f"/repo/main/{path}.zst")
        assert packed.status == reply.status
        if packed.status == 200:
            assert zstandard.ZstdDecompressor().decompressobj().decompress(packed.body) == reply.body
    return json.loads(reply.body) if reply.status == 200 else None


async def noarch_files(w: World) -> list[str]:
    return sorted(await w.records("noarch"))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("mode", ["passive", "active"])
async def test_side_files_are_passed_on_and_cut_to_what_is_shown(tmp_path: Path, mode: str, packed: bool) -> None:
    async with world(tmp_path) as w:
        w.source.add(plain("zeta"))
        files = exports("zeta-1.0-0.conda", "gone-1.0-0.conda")
        if packed:
            w.upstream.files["noarch/run_exports.json.zst"] = zstandard.ZstdCompressor().compress(files)
        else:
            w.upstream.files["noarch/run_exports.json"] = files
        w.upstream.files["channeldata.json"] = data(zeta="9.9", gone="1")
        await w.mirror(mode)
        run = await w.run()
        assert run.state is RunState.COMPLETED
        found = await served(w, "noarch/run_exports.json")
        assert found["info"]["subdir"] == "noarch"
        assert found["packages.conda"] == {"zeta-1.0-0.conda": {"run_exports": {"weak": ["zeta >=1"]}}}
        told = await served(w, "channeldata.json")
        assert told["packages"] == {"zeta": {"version": "1.0", "subdirs": ["noarch"], "summary": "what zeta does"}}
        assert told["subdirs"] == ["linux-64", "noarch"]
        for absent in ("current_repodata.json", "repodata.json.bz2", "patch_instructions.json"):
            assert (await w.get(f"/repo/main/noarch/{absent}")).status == 404


async def test_what_a_source_has_not_the_channel_has_not(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.mirror("passive")
        await w.run()
        assert await served(w, "channeldata.json") is None
        assert await served(w, "noarch/run_exports.json") is None


async def test_each_generation_has_its_own(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.source.add(plain("alpha"))
        w.upstream.files["noarch/run_exports.json"] = exports("alpha-1.0-0.conda")
        w.upstream.files["channeldata.json"] = data(alpha="1.0")
        await w.mirror("passive")
        first = await w.run()
        again = await w.run()
        assert again.generation is None  # nothing has changed
        w.upstream.files["noarch/run_exports.json"] = exports("alpha-1.0-0.conda", of="-libs")
        renewed = await w.run()
        assert renewed.generation is not None
        assert "alpha-libs >=1" in json.dumps(await served(w, "noarch/run_exports.json"))
        old = await w.get(f"/snapshot/{first.generation}/main/noarch/run_exports.json")
        assert b"alpha >=1" in old.body
        del w.upstream.files["noarch/run_exports.json"], w.upstream.files["channeldata.json"]
        await w.run()
        assert await served(w, "noarch/run_exports.json") is None
        assert await served(w, "channeldata.json") is None


async def test_an_unchanged_side_file_costs_one_conditional_request(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.upstream.files["channeldata.json"] = data(alpha="1.0")
        await w.mirror("passive")
        await w.run()
        w.upstream.requests.clear()
        await w.run()
        (seen,) = w.upstream.asked("channeldata.json")
        assert (seen.status, "if-none-match" in seen.headers) == (304, True)


FAULTS = {
    "an error of the server": Fault(status=500),
    "no answer": Fault(drop=True),
    "a page": Fault(body=b"<html>"),
    "refused": Fault(status=403),
    "unauthorised": Fault(status=401),
    "another thing": Fault(body=b"{nothing", no_validators=True),
    "a list": Fault(body=b'{"packages": []}', no_validators=True),
}


@pytest.mark.parametrize("kind", FAULTS)
async def test_a_side_file_that_cannot_be_had_fails_no_run(tmp_path: Path, kind: str) -> None:
    async with world(tmp_path) as w:
        w.source.add(plain("alpha"))
        w.upstream.files["channeldata.json"] = data(alpha="1.0")
        w.upstream.files["noarch/run_exports.json"] = exports("alpha-1.0-0.conda")
        w.upstream.fail("channeldata.json", FAULTS[kind], times=None)
        w.upstream.fail("noarch/run_exports.json", FAULTS[kind], times=None)
        await w.mirror("passive")
        assert (await w.run()).state is RunState.COMPLETED
        assert "alpha-1.0-0.conda" in await noarch_files(w)
        assert await served(w, "channeldata.json") is None
        w.upstream.heal()
        assert (await w.run()).state is RunState.COMPLETED
        assert (await served(w, "channeldata.json"))["packages"].keys() == {"alpha"}
        assert await served(w, "noarch/run_exports.json") is not None


async def test_a_name_is_told_of_by_the_mirror_that_it_belongs_to(tmp_path: Path) -> None:
    second = ChannelFolder(tmp_path / "second")
    second.add(plain("alpha", version="7.0"), plain("own"))
    async with world(tmp_path) as w, FaultyUpstream(folder=second.path) as other:
        w.source.add(plain("alpha"))
        w.upstream.files["channeldata.json"] = data(alpha="1.0")
        w.upstream.files["noarch/run_exports.json"] = exports("alpha-1.0-0.conda")
        other.files["channeldata.json"] = data(alpha="7.0", own="1.0").replace(b"what", b"the second says what")
        other.files["noarch/run_exports.json"] = exports("alpha-7.0-0.conda", "own-1.0-0.conda", of="2")
        await w.mirror("passive")
        await w.mirror("passive", name="n", source=other.url)
        await w.run("main:n")
        told = (await served(w, "channeldata.json"))["packages"]
        assert {name: entry["version"] for name, entry in told.items()} == {"alpha": "7.0", "own": "1.0"}
        await w.run("main:m")
        told = (await served(w, "channeldata.json"))["packages"]
        assert told["alpha"]["summary"] == "what alpha does"
        assert told["own"]["summary"] == "the second says what own does"
        found = (await served(w, "noarch/run_exports.json"))["packages.conda"]
        assert found == {
            "alpha-1.0-0.conda": {"run_exports": {"weak": ["alpha >=1"]}},
            "own-1.0-0.conda": {"run_exports": {"weak": ["own2 >=1"]}},
        }


@pytest.mark.parametrize("mode", ["passive", "active"])
async def test_signatures_of_unchanged_records_are_served(tmp_path: Path, mode: str) -> None:
    async with world(tmp_path) as w:
        zeta, eta = w.source.add(plain("zeta"), plain("eta"))
        document = w.source.document("noarch")
        signatures = {zeta.filename: {"key": {"signature": "ab" * 64}}, "gone-1-0.conda": {"key": {"signature": "cd"}}}
        w.upstream.files["noarch/repodata.json"] = json.dumps(document | {"signatures": signatures}).encode()
        w.upstream.fail("noarch/repodata.json.zst", Fault(status=404), times=None)
        await w.mirror(mode)
        run = await w.run()
        assert run.state is RunState.COMPLETED
        assert (await served(w, "noarch/repodata.json"))["signatures"] == {zeta.filename: signatures[zeta.filename]}
        signatures[eta.filename] = {"key": {"signature": "ef" * 64}}
        w.upstream.files["noarch/repodata.json"] = json.dumps(document | {"signatures": signatures}).encode()
        await w.run()
        found = (await served(w, "noarch/repodata.json"))["signatures"]
        assert found == {name: signatures[name] for name in (eta.filename, zeta.filename)}
        w.upstream.files["noarch/repodata.json"] = json.dumps(document).encode()
        await w.run()
        assert "signatures" not in await served(w, "noarch/repodata.json")


async def test_a_side_file_that_came_for_a_run_that_failed_is_published_by_the_next(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.source.add(plain("alpha"))
        w.upstream.files["channeldata.json"] = data(alpha="1.0")
        await w.mirror("passive")
        await w.run()
        w.upstream.files["channeldata.json"] = data(alpha="1.0").replace(b"what", b"all that")
        for form in ("repodata.json.zst", "repodata.json"):
            w.upstream.fail(f"noarch/{form}", Fault(body=b'{"packages": {"a', no_validators=True), times=None)
        assert (await w.run()).state is RunState.FAILED
        w.upstream.heal()
        w.upstream.requests.clear()
        assert (await w.run()).state is RunState.COMPLETED
        assert [seen.status for seen in w.upstream.asked("channeldata.json")] == [304]
        told = (await served(w, "channeldata.json"))["packages"]
        assert told["alpha"]["summary"] == "all that alpha does"
        assert (await w.run()).generation is None


async def test_mirrors_of_one_source_tell_of_each_others_names(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.source.add(plain("alpha"))
        w.upstream.files["channeldata.json"] = data(alpha="1.0")
        await w.mirror("passive")
        await w.mirror("passive", name="n")
        w.upstream.fail("channeldata.json", Fault(status=404), times=None)
        await w.run("main:m")
        assert await served(w, "channeldata.json") is None
        w.upstream.heal()
        await w.run("main:n")
        assert (await served(w, "channeldata.json"))["packages"].keys() == {"alpha"}
