"""What an active mirror's first run brings is rendered while it comes: shown only if all of it came as promised."""

import asyncio
import logging
from pathlib import Path

import pytest

from tests.daemon.mirrors.test_early import DIGESTS, OBJECTS, PACKAGES, SHOWN, found
from tests.support.python import PythonWorld, python_world, sample_index
from tests.support.upstream import Fault
from tests.support.world import world

Rows = list[list[tuple[object, ...]]]


async def shown(state: Path) -> Rows:
    assert list((state / "rendered").glob("work/*")) == []
    return [await asyncio.to_thread(found, state, query) for query in (OBJECTS, DIGESTS, PACKAGES)]


async def python_shown(w: PythonWorld, state: str = "completed") -> Rows:
    ended = await w.run("main:p")
    assert ended.state == state, ended
    return await shown(w.daemon.state)


async def test_a_python_channel_shows_what_was_rendered_while_its_files_came(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    index = sample_index()
    index.status["beta"] = {"status": "deprecated", "reason": "old"}
    async with python_world(tmp_path / "alone", index) as w:
        await w.python()
        first = await python_shown(w)
        assert SHOWN in caplog.messages
        assert (await w.page("beta"))["project-status"]["reason"] == "old"
        assert not any("+" in str(row[0]) for row in first[0]), "what lists the projects is none"
    caplog.clear()
    async with python_world(tmp_path / "other", index) as w:
        await w.python()
        await w.python("passive", "q", filters={"projects": ["absent"]})
        assert await python_shown(w) == first
        assert SHOWN not in caplog.messages


async def test_a_conda_channel_shows_what_was_rendered_while_its_files_came(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    kept = []
    for others in (False, True):
        async with world(tmp_path / str(others)) as w:
            await w.mirror()
            if others:
                await w.mirror(name="n")
            assert (await w.run()).state == "completed"
            kept.append(await shown(w.daemon.state))
            assert (SHOWN in caplog.messages) is not others
            caplog.clear()
    assert kept[0] == kept[1]


@pytest.mark.parametrize("what", ["lost", "gone along", "frozen"])
async def test_what_did_not_come_is_not_shown(tmp_path: Path, caplog: pytest.LogCaptureFixture, what: str) -> None:
    caplog.set_level(logging.INFO)
    async with python_world(tmp_path) as w:
        await w.python()
        lost = w.index.projects["beta"][0]
        path = f"files/beta/{lost.filename}" + (".metadata" if what == "gone along" else "")
        if what == "frozen":
            await w.call("channel.freeze", channel="main")
        else:
            w.upstream.fail(path, Fault(status=404), times=None)
        await python_shown(w, "incomplete" if what == "lost" else "completed")
        assert SHOWN not in caplog.messages
        if what == "frozen":
            await w.call("channel.unfreeze", channel="main")
            return
        assert (lost.filename in await w.files("beta")) is (what == "gone along")
        assert len(await w.files("alpha-one")) == len(w.index.projects["alpha-one"])
        w.upstream.heal()
        await python_shown(w)
        assert len(await w.files("beta")) == len(w.index.projects["beta"])
