"""A source's project list and what hangs on it: quarantine, serials of a channel's own, lists of what is left out."""

import json
from pathlib import Path

import pytest

from firth_protocol.types import RunState
from tests.support.clock import FakeClock
from tests.support.daemon import in_process_daemon
from tests.support.python import JSON, PythonWorld, python_world, sample_index
from tests.support.upstream import Fault

FILES = "/repo/main/packages"


async def serials(w: PythonWorld) -> dict[str, int | None]:
    reply = await w.get("/repo/main/simple/", {"Accept": JSON})
    return {one["name"]: one.get("_last-serial") for one in json.loads(reply.body)["projects"]}


async def test_a_project_that_its_list_has_dropped_is_looked_at_by_the_run(tmp_path: Path) -> None:
    """A lazy mirror has read the page once; nobody asks for it again, and its files must not be given any more."""
    async with python_world(tmp_path) as w:
        await w.python("passive")
        await w.run("main:p")
        held = {name: w.index.projects[name][0] for name in ("alpha-one", "beta", "gamma")}
        for name, file in held.items():
            await w.page(name)
            assert (await w.get(f"{FILES}/{name}/{file.filename}")).status == 200
        w.index.unlisted = {"beta", "gamma"}
        w.index.status["beta"] = {"status": "quarantined", "reason": "malware"}
        w.upstream.fail("simple/gamma/", Fault(status=404), times=None)
        w.upstream.requests.clear()
        assert (await w.run("main:p")).state is RunState.COMPLETED
        assert {seen.path for seen in w.upstream.asked()} - {"simple/simple/gamma/"} == {
            "simple/",
            "simple/beta/",
            "simple/gamma/",
        }
        refused = await w.get(f"{FILES}/beta/{held['beta'].filename}")
        assert (refused.status, b"malware" in refused.body) == (403, True)
        assert (await w.page("beta"))["files"] == []  # whatever its source goes on listing
        assert await w.page("gamma") == 404
        found = await w.call("package.get", channel="main", family="python", name="alpha-one")
        assert [file.generation for file in found.files] == [None]


@pytest.mark.deep
async def test_a_list_that_drops_a_page_whose_source_is_silent_fails_no_run(tmp_path: Path) -> None:
    async with python_world(tmp_path) as w:
        await w.python("passive")
        await w.run("main:p")
        await w.page("beta")
        w.index.unlisted = {"beta"}
        w.upstream.fail("simple/beta/", Fault(status=500), times=None)
        assert (await w.run("main:p")).state is RunState.COMPLETED
        assert len(await w.files("beta")) == 2


@pytest.mark.deep
async def test_a_channels_own_list_counts_what_it_shows(tmp_path: Path) -> None:
    async with python_world(tmp_path) as w:
        await w.python("active")
        await w.run("main:p")
        first = await serials(w)
        assert set(first.values()) == {2}
        w.index.add("beta", "3.0")
        await w.run("main:p")
        second = await serials(w)
        assert second == first | {"beta": 3}
        ended = (await w.call("channel.rollback", channel="main", generation=2)).run
        await w.daemon.ended(ended.id)
        assert await serials(w) == first
        ended = (await w.call("channel.unfreeze", channel="main")).run
        await w.daemon.ended(ended.id)
        assert (await serials(w))["beta"] not in {None, 2}


@pytest.mark.deep
async def test_channels_of_one_source_differ_in_nothing_but_what_they_count(tmp_path: Path) -> None:
    """A serial is the generation that shows a page first: a channel with a history counts further than a new one."""
    async with python_world(tmp_path / "one") as w, in_process_daemon(tmp_path / "two") as second:
        await w.python("active")
        await w.run("main:p")
        for version in ("3.0", "4.0"):
            w.index.add("beta", version)
            await w.run("main:p")
        await second.client.call("channel.create", name="copy")
        fields = {"channel": "copy", "name": "p", "type": "python", "mode": "active", "check": False}
        await second.client.call("mirror.create", source=f"{w.upstream.url}/simple/", **fields)
        assert (await second.run("copy:p")).state is RunState.COMPLETED
        for path in ("", "beta/", "gamma/", "alpha-one/"):
            for accept in (JSON, "text/html"):
                ours = await w.get(f"/repo/main/simple/{path}", {"Accept": accept})
                address = f"{second.url}/repo/copy/simple/{path}"
                async with w.http.get(address, headers={"Accept": accept}) as answer:
                    theirs = await answer.read()
                if path or accept != JSON:
                    assert ours.body == theirs, path
                    continue
                lists = [json.loads(body) for body in (ours.body, theirs)]
                counted = [{one["name"]: one.pop("_last-serial") for one in found["projects"]} for found in lists]
                assert lists[0] == lists[1]
                assert counted == [
                    {"alpha-one": 2, "beta": 4, "gamma": 2},
                    {"alpha-one": 2, "beta": 2, "gamma": 2},
                ]


@pytest.mark.deep
async def test_what_a_policy_leaves_out_is_listed_without_metadata(tmp_path: Path) -> None:
    async with python_world(tmp_path) as w:
        await w.call("policy.create", name="few", rules={"packages": {"exclude": ["beta"]}})
        await w.python("active", policy="few")
        await w.run("main:p")
        page = await w.call("mirror.excluded", mirror="main:p")
        assert (page.total, [one.filename for one in page.items]) == (
            2,
            ["beta-1.0-py3-none-any.whl", "beta-2.0-py3-none-any.whl"],
        )
        refused = await w.get(f"{FILES}/beta/beta-1.0-py3-none-any.whl.metadata")
        assert refused.status == 403


@pytest.mark.deep
async def test_a_page_that_is_read_on_request_says_which_serial_it_is(tmp_path: Path) -> None:
    async with python_world(tmp_path, sample_index(), clock=FakeClock(auto=True)) as w:
        await w.python("passive")
        await w.run("main:p")
        page = await w.page("beta")
        assert page["meta"]["_last-serial"] == w.index.serial["beta"] == (await serials(w))["beta"]
        assert f"<!--SERIAL {w.index.serial['beta']}-->" in await w.page("beta", accept="text/html")


@pytest.mark.deep
async def test_a_lazy_mirror_has_the_digest_of_its_list(tmp_path: Path) -> None:
    async with python_world(tmp_path / "one") as w, in_process_daemon(tmp_path / "two") as second:
        await second.client.call("channel.create", name="copy")
        fields = {"channel": "copy", "name": "p", "type": "python", "mode": "passive", "check": False}
        await second.client.call("mirror.create", source=f"{w.daemon.url}/repo/main/simple/", **fields)
        await w.python("passive")
        digests = []
        for name in ("new", "newer"):
            for run in (await w.run("main:p"), await second.run("copy:p")):
                assert run.state is RunState.COMPLETED, run
            ours, theirs = [
                (await client.call("channel.generations", channel=channel)).items[0].digest
                for client, channel in ((w.daemon.client, "main"), (second.client, "copy"))
            ]
            assert ours == theirs
            digests.append(ours)
            w.index.add(name, "1.0")
            await w.page("beta")  # what clients ask for makes no other content
        assert digests[0] != digests[1]
