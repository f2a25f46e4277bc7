"""Pages for people in a real browser: nothing overflows, nothing is refused, everybody can read them."""

import json
import subprocess
import sys
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from msgspec import Struct

from tests.support.browser import Tab, browser, chromium
from tests.support.daemon import HastyClock, in_process_daemon
from tests.support.lived_in import LONG_NAME, TOKEN_CHANNEL, WHOLE_CHANNEL, live

pytestmark = [pytest.mark.deep, pytest.mark.timeout(600), pytest.mark.asyncio(loop_scope="module")]

AXE = "axe-playwright-python"
"""Carries axe-core, the one file of it that is wanted."""
PLACE = Path(sys.prefix) / "axe"
LOOKS = [
    pytest.param(width, dark, id=f"{width}-{'dark' if dark else 'light'}") for width in (400, 1280) for dark in (0, 1)
]
ASKED_FOR_NOTHING = "status of 404"
"""What the browser's log says of a page that is a refusal, whatever is on it."""


class Lived(Struct, frozen=True):
    """An installation in which people have lived, and a browser that looks at it."""

    url: str
    token: str
    tab: Tab
    pictures: Path

    @property
    def pages(self) -> dict[str, str]:
        return {
            "home": "/",
            "home, searched": "/?q=num",
            "home, found nothing": "/?q=zzz",
            "channel": "/repo/main/",
            "channel, searched": "/repo/main/?q=mpi",
            "channel, second page": "/repo/main/?sort=updated&after=1:m",
            "channel of three families": "/repo/main/?family=r",
            "channel, found nothing": "/repo/main/?q=zzz",
            "frozen": "/repo/ml/stable/",
            "empty": "/repo/empty/",
            "whole index": f"/repo/{WHOLE_CHANNEL}/",
            "whole index, searched": f"/repo/{WHOLE_CHANNEL}/?q=numpy",
            "package of a whole index": f"/repo/{WHOLE_CHANNEL}/-/python/alpha-one",
            "package": "/repo/main/-/conda/tides",
            "package with a long name": f"/repo/main/-/conda/{LONG_NAME}",
            "R package": "/repo/main/-/r/greeting",
            "private": f"/t/{self.token}/repo/{TOKEN_CHANNEL}/",
            "no such package": "/repo/main/-/conda/zzz",
            "nothing": "/repo/nothing/",
            "generation": "/snapshot/3/main/",
        }


@pytest.fixture(scope="module")
def axe() -> str:
    """Return axe-core, the accessibility checker."""
    script = PLACE / "axe.min.js"
    if not script.is_file():
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "-q", "-d", str(PLACE), AXE]
        made = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        if made.returncode != 0:
            pytest.skip(f"LOUD: {AXE} could not be had, nothing tells who cannot read the pages: {made.stderr[-300:]}")
        with zipfile.ZipFile(next(PLACE.glob("axe_*.whl"))) as wheel:
            name = next(one for one in wheel.namelist() if one.endswith("axe.min.js"))
            script.write_bytes(wheel.read(name))
    return script.read_text("utf-8")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def lived(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Lived]:
    if chromium() is None:
        pytest.skip("LOUD: there is no chromium, NO page is looked at in a browser")
    folder = tmp_path_factory.mktemp("lived")
    clock = HastyClock()
    async with in_process_daemon(folder, clock=clock) as running:
        token = await live(running, folder, clock)
        async with browser(tmp_path_factory.mktemp("browser")) as tab:
            yield Lived(running.url, token, tab, tmp_path_factory.mktemp("pictures"))


def broken(heard: list[str]) -> list[str]:
    return [one for one in heard if ASKED_FOR_NOTHING not in one]


@pytest.mark.parametrize(("width", "dark"), LOOKS)
async def test_pages_fit_speak_no_error_and_can_be_read_by_all(lived: Lived, axe: str, width: int, dark: bool) -> None:
    tab = lived.tab
    await tab.look(width=width, dark=dark)
    wrong: dict[str, Any] = {}
    for name, path in lived.pages.items():
        tab.heard.clear()
        await tab.open(lived.url + path)
        status = await tab.value("performance.getEntriesByType('navigation')[0].responseStatus")
        assert status == (404 if name in ("no such package", "nothing") else 200), name
        beyond = await tab.value(
            "[...document.querySelectorAll('*')].filter(e => e.getBoundingClientRect().right > innerWidth + 1"
            " && !e.closest('.unseen')).map(e => e.outerHTML.slice(0, 120))"
        )
        over = await tab.value("document.documentElement.scrollWidth > innerWidth")
        await tab.value(f"{axe}\n;0")
        found, passed = await tab.value(
            "axe.run().then(r => [r.violations.map(v => [v.id, v.nodes.map(n => n.html)]), r.passes.length])"
        )
        assert passed > 10, name
        said = broken(tab.heard)
        if beyond or over or found or said:
            wrong[name] = {"beyond": beyond, "over": over, "axe": found, "said": said}
        await tab.picture(lived.pictures / f"{name}-{width}-{'dark' if dark else 'light'}.png")
    assert not wrong, json.dumps(wrong, indent=1)


async def test_dark_and_light_are_what_the_reader_prefers(lived: Lived) -> None:
    seen = []
    for dark in (False, True):
        await lived.tab.look(width=1280, dark=dark)
        await lived.tab.open(lived.url)
        colour = await lived.tab.value("getComputedStyle(document.body).backgroundColor")
        seen.append(sum(int(part) for part in colour.strip("rgb()").split(",")) > 380)
    assert seen == [True, False]


async def test_the_button_copies_the_line_beside_it(lived: Lived) -> None:
    tab = lived.tab
    await tab.look(width=400, dark=False)
    await tab.send(
        "Browser.grantPermissions", origin=lived.url, permissions=["clipboardReadWrite", "clipboardSanitizedWrite"]
    )
    await tab.open(f"{lived.url}/repo/main/")
    line = await tab.value("document.querySelector('[data-copy]').textContent")
    assert line == f"conda config --add channels {lived.url}/repo/main"
    await tab.click(".copy")
    await tab.value("new Promise(done => setTimeout(done, 200))")
    assert await tab.value("document.querySelector('.copy').textContent") == "Copied"
    assert await tab.value("document.getElementById('told').textContent") == "Copied"
    assert await tab.value("navigator.clipboard.readText()") == line
    # Over plain http, on another machine, a page has no clipboard: the older way does it.
    await tab.value("navigator.clipboard.writeText('').then(() => { navigator.clipboard.writeText = undefined; })")
    await tab.click(".copy")
    await tab.value("new Promise(done => setTimeout(done, 200))")
    assert await tab.value("navigator.clipboard.readText()") == line


async def test_all_is_there_without_scripts_and_no_cookie_ever(lived: Lived) -> None:
    tab = lived.tab
    await tab.look(width=1280, dark=False)
    await tab.scripts(on=False)
    try:
        await tab.open(f"{lived.url}/?q=tides")
        await tab.click(".places a")
        await tab.value("1")
        for path in ("/repo/main/", "/repo/main/-/conda/tides"):
            await tab.open(lived.url + path)
            tree = await tab.send("DOM.getDocument", depth=-1)
            text = json.dumps(tree)
            assert "--override-channels" in text
            assert '"copy"' not in text
    finally:
        await tab.scripts(on=True)
    await tab.open(f"{lived.url}/repo/main/?q=tides")
    assert await tab.value("document.querySelectorAll('.copy').length") > 3
    assert (await tab.send("Network.getCookies"))["cookies"] == []


async def test_a_newcomer_finds_a_package_and_the_way_back(lived: Lived) -> None:
    tab = lived.tab
    await tab.open(f"{lived.url}/t/{lived.token}/?q=tides")
    seen = []
    for selector in (
        f".places a[href*='{TOKEN_CHANNEL}']", ".needs a", ".crumbs li:nth-child(2) a", ".days a", ".crumbs a.home",
    ):  # fmt: skip
        await tab.open(await tab.value(f"document.querySelector({json.dumps(selector)}).href"))
        seen.append((await tab.value("location.pathname"), await tab.value("document.querySelector('h1').innerText")))
    root = f"/t/{lived.token}"
    assert seen[0] == (f"{root}/repo/{TOKEN_CHANNEL}/-/conda/tides", "tides 2026.30")
    assert seen[1][0] == f"{root}/repo/{TOKEN_CHANNEL}/-/conda/numpy"
    assert seen[2] == (f"{root}/repo/{TOKEN_CHANNEL}/", f"{TOKEN_CHANNEL} private")
    assert seen[3][0].startswith(f"{root}/snapshot/20")
    assert seen[4] == (f"{root}/", "Package channels")
