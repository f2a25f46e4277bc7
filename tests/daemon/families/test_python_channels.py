"""A channel with conda and Python packages side by side: published, frozen, dated, rolled back, mirrored by another."""

import asyncio
import gzip
import json
import logging
from pathlib import Path

import pytest

from firth_protocol.types import RunState
from tests.support.conda import sample_channel
from tests.support.daemon import HastyClock, in_process_daemon
from tests.support.python import JSON, PythonIndex, PythonWorld, python_world, sample_index
from tests.support.upstream import Fault
from tests.support.world import Reply

DAY_MS = 86_400_000
NAMES = ["alpha-one", "beta", "gamma"]


async def both(w: PythonWorld, folder: Path, mode: str = "active") -> None:
    """Let the channel hold a conda mirror and a Python mirror."""
    conda = sample_channel(folder / "conda")
    await w.call("mirror.create", channel="main", name="c", type="conda", mode="passive", source=f"file://{conda.path}")
    await w.python(mode, filters={"projects": NAMES})
    for mirror in ("main:c", "main:p"):
        assert (await w.run(mirror)).state is RunState.COMPLETED


async def records(w: PythonWorld, at: str) -> int:
    reply = await w.get(f"{at}/noarch/repodata.json")
    assert reply.status == 200
    return len(json.loads(reply.body)["packages.conda"])


async def test_a_channel_of_two_families_is_frozen_dated_and_rolled_back(tmp_path: Path) -> None:
    clock = HastyClock()
    async with python_world(tmp_path, clock=clock) as w:
        await both(w, tmp_path)
        first = (await w.call("channel.get", channel="main")).generation
        there = await records(w, "/repo/main")
        day = (await w.call("channel.generations", channel="main")).items[0].time[:10]
        await w.call("channel.freeze", channel="main")
        clock.shift_ms += DAY_MS
        w.index.add("beta", "3.0")
        assert (await w.run("main:p")).counts.added == 1  # metadata beside a wheel is no file of its own
        assert len(await w.files("beta")) == 2
        ended = (await w.call("channel.unfreeze", channel="main")).run
        await w.daemon.ended(ended.id)
        assert len(await w.files("beta")) == 3
        for when in (str(first), day):
            assert len(await w.files("beta", at=f"/snapshot/{when}/main")) == 2
            assert await records(w, f"/snapshot/{when}/main") == there
        snapshot = f"/snapshot/{first}/main"
        page = await w.page("beta", at=snapshot)
        assert page["files"][0]["url"].startswith("../../packages/beta/")
        file = w.index.projects["beta"][0]
        assert (await w.get(f"{snapshot}/packages/beta/{file.filename}")).body == file.content
        back = (await w.call("channel.rollback", channel="main", generation=first)).run
        assert (await w.daemon.ended(back.id)).state is RunState.COMPLETED
        assert len(await w.files("beta")) == 2
        assert await records(w, "/repo/main") == there
        families = {one.family: one for one in (await w.call("channel.get", channel="main")).families}
        assert families["python"].packages == 3
        found = await w.call("package.get", channel="main", family="python", name="beta")
        assert found.versions == ["2.0", "1.0"]
        assert found.files[0].url.endswith("/repo/main/packages/beta/beta-1.0-py3-none-any.whl")
        listed = await w.call("package.list", channel="main", query="alpha-one")
        assert [(one.family, one.version) for one in listed.items] == [("python", "1.0")]


async def test_a_channel_that_mirrors_a_channel_has_its_digest(tmp_path: Path) -> None:
    index = sample_index()
    said = {"yanked": "bad", "provenance": "https://x.example.org/p", "new-key": [1, {"a": None}]}
    index.add("beta", "2.1").said |= said
    index.status["gamma"] = {"status": "archived"}
    async with python_world(tmp_path / "one", index) as w, in_process_daemon(tmp_path / "two") as second:
        await w.python("passive", filters={"projects": NAMES})
        assert (await w.run("main:p")).state is RunState.COMPLETED
        await second.client.call("channel.create", name="copy")
        await second.client.call(
            "mirror.create", channel="copy", name="p", type="python", mode="active",
            source=f"{w.daemon.url}/repo/main/simple/", filters={"projects": NAMES},
        )  # fmt: skip
        run = await second.run("copy:p")
        assert run.state is RunState.COMPLETED, run
        ours, theirs = [
            (await client.call("channel.generations", channel=name)).items[0].digest
            for client, name in ((w.daemon.client, "main"), (second.client, "copy"))
        ]
        assert ours == theirs
        for project in NAMES:
            async with w.http.get(f"{second.url}/repo/copy/simple/{project}/", headers={"Accept": JSON}) as reply:
                copied = json.loads(await reply.read())
            assert copied == await w.page(project)


@pytest.mark.deep
async def test_a_source_archive_that_is_called_encoded_is_taken_as_it_is(tmp_path: Path) -> None:
    async with python_world(tmp_path) as w:
        await w.python("active", filters={"projects": ["gamma"]})
        w.upstream.files["files/gamma/gamma-0.1.tar.gz"] = content = w.index.projects["gamma"][0].content
        w.upstream.route("files/gamma/*", lambda seen: content)
        w.upstream.fail("files/gamma/*", Fault(encoding="gzip", label_only=True), times=None)
        assert (await w.run("main:p")).state is RunState.COMPLETED
        assert (await w.get("/repo/main/packages/gamma/gamma-0.1.tar.gz")).body == content
        assert gzip.decompress(content)


@pytest.mark.deep
async def test_many_clients_ask_for_one_page_and_one_file_once(tmp_path: Path) -> None:
    index = PythonIndex()
    file = index.add("beta", "1.0", body="x" * 100_000)
    async with python_world(tmp_path, index) as w:
        await w.python("passive")
        await w.run("main:p")
        pages = await asyncio.gather(*(w.page("beta") for _ in range(30)))
        assert len({json.dumps(page) for page in pages}) == 1
        address = f"/repo/main/packages/beta/{file.filename}"
        files = await asyncio.gather(*(w.get(address) for _ in range(30)))
        assert {reply.body for reply in files} == {file.content}
        assert len(w.upstream.asked("simple/beta/")) == 1
        assert len(w.upstream.asked(f"files/beta/{file.filename}")) == 1


@pytest.mark.deep
async def test_a_very_large_page_is_made_once_however_many_ask(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "firthd")
    index = PythonIndex(core=False)
    for number in range(8_000):
        index.add("beta", f"1.0.{number}").said["x-own"] = f"{number}" * 100
    async with python_world(tmp_path, index) as w:
        await w.python("passive")
        await w.run("main:p")

        async def ask(tag: str = "") -> Reply:
            return await w.get("/repo/main/simple/beta/", {"Accept": JSON, "If-None-Match": tag})

        answers = await asyncio.gather(*(ask() for _ in range(50)))
        answers.append(await ask())
        assert {(one.status, len(one.body)) for one in answers} == {(200, len(answers[0].body))}
        assert len(answers[0].body) > 4_000_000
        tag = answers[0].headers["ETag"]
        assert (await ask(tag)).status == 304
        made = [one for one in caplog.records if "page_task ended" in one.getMessage()]
        assert len(made) == 1
        for file in (tmp_path / "state" / "pages" / "made").iterdir():
            file.unlink()
        assert (await ask()).body == answers[0].body


@pytest.mark.deep
async def test_a_deleted_mirror_of_a_whole_index_leaves_no_project_list(tmp_path: Path) -> None:
    async with python_world(tmp_path) as w:
        await w.python("active", "few", filters={"projects": ["gamma"]})
        await w.run("main:few")
        await w.python("passive")
        await w.run("main:p")
        assert "alpha-one" in (await w.get("/repo/main/simple/")).body.decode()
        deleted = await w.call("mirror.delete", mirror="main:p", confirm="p")
        await w.daemon.ended(deleted.run.id)
        listed = (await w.get("/repo/main/simple/")).body.decode()
        assert "gamma" in listed
        assert "alpha" not in listed
        assert (await w.get("/repo/main/simple/alpha-one/")).status == 404


async def test_a_deleted_mirror_takes_what_it_said_of_a_project_along(tmp_path: Path) -> None:
    index = sample_index()
    index.status["beta"] = {"status": "archived", "reason": "done"}
    async with python_world(tmp_path, index) as w:
        await w.python("active", "few", filters={"projects": ["gamma"]})
        await w.run("main:few")
        await w.python("active", filters={"projects": ["beta"], "package_types": ["sdist"]})
        await w.run("main:p")
        page = await w.page("beta")
        assert (page["files"], page["project-status"]["status"]) == ([], "archived")
        deleted = await w.call("mirror.delete", mirror="main:p", confirm="p")
        await w.daemon.ended(deleted.run.id)
        page = await w.page("beta")
        assert page == 404 or "project-status" not in page
