"""A headless Chromium, driven over its debugging port: pages are looked at as people see them, nothing is faked."""

import asyncio
import base64
import contextlib
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

START_S = 30
ANSWER_S = 20
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--no-proxy-server",
    "--remote-debugging-port=0",
)


def chromium() -> str | None:
    """Return the browser's program, None where there is none."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Tab:
    """One tab; `heard` gathers what its console and its log say, such as errors and violations of the page's policy."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._number = 0
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._events: dict[str, asyncio.Event] = {}
        self.heard: list[str] = []

    async def listen(self) -> None:
        """Take what the browser sends, until it goes."""
        async for message in self._socket:
            said = json.loads(message.data)
            if (future := self._waiting.pop(said.get("id", -1), None)) is not None:
                future.set_result(said)
                continue
            self._hear(said.get("method", ""), said.get("params", {}))

    def _hear(self, method: str, params: dict[str, Any]) -> None:
        if method in self._events:
            self._events[method].set()
        elif method == "Log.entryAdded":
            entry = params["entry"]
            self.heard.append(f"{entry['level']}: {entry['text']} {entry.get('url', '')}")
        elif method == "Runtime.exceptionThrown":
            self.heard.append(f"exception: {params['exceptionDetails'].get('text')}")
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.heard.append(f"console.{params['type']}")
        elif method == "Audits.issueAdded":
            self.heard.append(f"issue: {params['issue']['code']}")

    async def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Give an order and return its result."""
        self._number += 1
        future = self._waiting[self._number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": self._number, "method": method, "params": params})
        said = await asyncio.wait_for(future, ANSWER_S)
        assert "error" not in said, (method, said["error"])
        result: dict[str, Any] = said["result"]
        return result

    async def open(self, url: str) -> None:
        """Go to a page and wait until it and all it asks for have come."""
        loaded = self._events["Page.loadEventFired"] = asyncio.Event()
        await self.send("Page.navigate", url=url)
        await asyncio.wait_for(loaded.wait(), ANSWER_S)

    async def look(self, *, width: int, dark: bool, height: int = 900) -> None:
        """Let the window be so wide, and the reader prefer dark or light."""
        await self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )
        await self.send("Emulation.setScrollbarsHidden", hidden=True)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.send("Emulation.setEmulatedMedia", features=[scheme])

    async def scripts(self, *, on: bool) -> None:
        await self.send("Emulation.setScriptExecutionDisabled", value=not on)

    async def value(self, expression: str) -> Any:
        """Return what an expression is in the page, a promise's value when it is one."""
        said = await self.send(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True, userGesture=True
        )
        assert "exceptionDetails" not in said, said["exceptionDetails"]
        return said["result"].get("value")

    async def click(self, selector: str) -> None:
        """Press the mouse on the first element that a selector finds."""
        find = f"document.querySelector({json.dumps(selector)})"
        x, y = await self.value(
            f"(() => {{ const e = {find}; e.scrollIntoView(); const r = e.getBoundingClientRect();"
            " return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            await self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    async def picture(self, path: Path) -> None:
        """Write the whole page as a PNG."""
        said = await self.send("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(said["data"]))


@asynccontextmanager
async def browser(folder: Path) -> AsyncIterator[Tab]:
    """Start a browser whose profile lies in a folder, and give its one tab."""
    program = chromium()
    assert program is not None
    profile = folder / "profile"
    with (folder / "chromium.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            program, *FLAGS, f"--user-data-dir={profile}", "about:blank", stdout=log, stderr=log
        )
    try:
        port = await _port(profile / "DevToolsActivePort")
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json") as reply:
                place = next(one["webSocketDebuggerUrl"] for one in await reply.json() if one["type"] == "page")
            async with session.ws_connect(place, max_msg_size=0) as socket:
                tab = Tab(socket)
                listening = asyncio.create_task(tab.listen())
                try:
                    for domain in ("Page", "Runtime", "Log", "Audits"):
                        await tab.send(f"{domain}.enable")
                    await tab.send("Emulation.setFocusEmulationEnabled", enabled=True)
                    yield tab
                finally:
                    listening.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await listening
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await asyncio.wait_for(process.wait(), START_S)


async def _port(told: Path) -> int:
    async with asyncio.timeout(START_S):
        while not told.is_file() or not (lines := told.read_text().split()):
            await asyncio.sleep(0.05)
    return int(lines[0])
