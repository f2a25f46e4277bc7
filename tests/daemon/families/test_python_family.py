"""A Python index, mirrored and served: pip and uv install from it, whatever the mode."""

import json
from pathlib import Path

import pytest

from firth_protocol.types import RunState
from tests.support.python import JSON, Installer, python_world

NAMES = ["alpha-one", "beta", "gamma"]


@pytest.mark.parametrize("mode", ["active", "passive"])
async def test_a_name_list_is_mirrored_and_served(tmp_path: Path, mode: str) -> None:
    async with python_world(tmp_path) as w:
        assert await w.page("beta") == 404
        await w.python(mode, filters={"projects": ["Alpha_One", "beta"]})
        run = await w.run("main:p")
        assert run.state is RunState.COMPLETED, run
        assert await w.files("beta") == ["beta-1.0-py3-none-any.whl", "beta-2.0-py3-none-any.whl"]
        pip = Installer(tmp_path / "pip")
        status, said = await pip.pip(f"{w.daemon.url}/repo/main/simple/", "alpha-one")
        assert status == 0, said
        assert (pip.version("alpha_one"), pip.version("beta")) == ("1.0", "2.0")


async def test_a_whole_index_is_read_page_by_page_as_clients_ask(tmp_path: Path) -> None:
    async with python_world(tmp_path) as w:
        await w.python("passive")
        assert (await w.run("main:p")).state is RunState.COMPLETED
        assert not w.upstream.asked("simple/beta/")
        listed = await w.get("/repo/main/simple/", {"Accept": JSON})
        assert [one["name"] for one in json.loads(listed.body)["projects"]] == ["Alpha.One", "beta", "gamma"]
        uv = Installer(tmp_path / "uv")
        status, said = await uv.uv(f"{w.daemon.url}/repo/main/simple/", "alpha-one")
        assert status == 0, said
        assert (uv.version("alpha_one"), uv.version("beta")) == ("1.0", "2.0")
        assert len(w.upstream.asked("simple/beta/")) == 1
