"""pip and uv install from a Python index that is mirrored: by name list and whole, frozen and of another day."""

import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from firth_protocol.types import RunState
from tests.support.daemon import HastyClock
from tests.support.python import JSON, Installer, PythonWorld, python_world

DAY_MS = 86_400_000
NAMES = ["Alpha_One", "beta", "gamma"]


async def active(w: PythonWorld, clock: HastyClock) -> str:
    await w.python("active", filters={"projects": NAMES})
    assert (await w.run("main:p")).state is RunState.COMPLETED
    asked = len(w.upstream.requests)
    w.upstream.route("*", lambda seen: None)  # its source is not needed any more
    assert asked
    return "/repo/main"


async def passive(w: PythonWorld, clock: HastyClock) -> str:
    await w.python("passive", filters={"projects": NAMES})
    assert (await w.run("main:p")).state is RunState.COMPLETED
    return "/repo/main"


async def whole(w: PythonWorld, clock: HastyClock) -> str:
    await w.python("passive")
    assert (await w.run("main:p")).state is RunState.COMPLETED
    return "/repo/main"


async def frozen(w: PythonWorld, clock: HastyClock) -> str:
    """Freeze, then let the source have what clients must not see."""
    await passive(w, clock)
    await w.call("channel.freeze", channel="main")
    w.index.add("beta", "9.0")
    assert (await w.run("main:p")).state is RunState.COMPLETED
    return "/repo/main"


async def dated(w: PythonWorld, clock: HastyClock) -> str:
    """Let the source have on the next day what the day before does not show."""
    await whole(w, clock)
    await w.files("beta")
    day = (await w.call("channel.generations", channel="main")).items[0].time[:10]
    clock.shift_ms += DAY_MS
    w.index.add("beta", "9.0")
    return f"/snapshot/{day}/main"


PREPARED = pytest.mark.parametrize(
    "prepare", [active, dated, *(pytest.param(one, marks=pytest.mark.deep) for one in (passive, whole, frozen))]
)


@PREPARED
async def test_uv_installs_a_package_with_what_it_needs(
    tmp_path: Path, prepare: Callable[[PythonWorld, HastyClock], Awaitable[str]]
) -> None:
    clock = HastyClock()
    async with python_world(tmp_path, clock=clock) as w:
        at = await prepare(w, clock)
        uv = Installer(tmp_path / "uv")
        index = f"{w.daemon.url}{at}/simple/"
        status, said = await uv.uv(index, "alpha-one")
        assert status == 0, said
        assert (uv.version("alpha_one"), uv.version("beta")) == ("1.0", "2.0")


@pytest.mark.deep
async def test_an_age_limit_holds_by_the_times_of_the_source(tmp_path: Path) -> None:
    clock = HastyClock()
    async with python_world(tmp_path, clock=clock) as w:
        index = f"{w.daemon.url}{await passive(w, clock)}/simple/"
        uv = Installer(tmp_path / "uv")
        status, said = await uv.uv(index, "--exclude-newer", "2024-12-31T00:00:00Z", "beta")
        assert status == 0, said
        assert uv.version("beta") == "1.0"


async def test_pip_installs_a_package_with_what_it_needs(tmp_path: Path) -> None:
    clock = HastyClock()
    async with python_world(tmp_path, clock=clock) as w:
        at = await whole(w, clock)
        w.upstream.requests.clear()
        listed = await w.get(f"{at}/simple/", {"Accept": JSON})
        assert [one["name"] for one in json.loads(listed.body)["projects"]] == ["Alpha.One", "beta", "gamma"]
        pip = Installer(tmp_path / "pip")
        status, said = await pip.pip(f"{w.daemon.url}{at}/simple/", "alpha-one")
        assert status == 0, said
        assert (pip.version("alpha_one"), pip.version("beta")) == ("1.0", "2.0")
        assert len(w.upstream.asked("simple/beta/")) == 1
