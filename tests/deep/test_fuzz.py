"""100,000 messages from the method table, right, nearly right and mad, to a real daemon: none of them surprises it."""

import asyncio
import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from firth_protocol.address import REQUEST_LIMIT
from firth_protocol.errors import Internal
from tests.support.conda import sample_channel
from tests.support.daemon import DaemonProcess
from tests.support.messages import Messages

pytestmark = [pytest.mark.deep, pytest.mark.e2e, pytest.mark.timeout(900)]

SEED = int(os.environ.get("FIRTH_TEST_SEED", "1001"))
MESSAGES = 100_000
CONNECTIONS = 4
GROWTH_MB = 200
"""How much more memory the daemon may hold afterwards; 100,000 messages that each left 2 kB would reach it."""


class Fuzzing:
    """What was sent so far and what came back that should not have."""

    def __init__(self) -> None:
        self.sent = 0
        self.codes: Counter[int | str] = Counter()
        self.surprises: Counter[str] = Counter()
        self.examples: dict[str, bytes] = {}

    async def send(self, http: aiohttp.ClientSession, messages: Messages) -> None:
        """Send messages, one request after the other, until enough have been sent."""
        while self.sent < MESSAGES:
            body, count = messages.body()
            self.sent += count
            async with http.post("http://firth/rpc", data=body) as reply:
                answer = await reply.read()
            if reply.status not in (200, 204) and not (reply.status == 413 and len(body) > REQUEST_LIMIT):
                self._surprised(f"HTTP {reply.status}", body)
            for one in _answers(answer):
                code = one["error"]["code"] if "error" in one else "result"
                self.codes[code] += 1
                if code == Internal.code:
                    self._surprised(one["error"]["message"].partition(";")[0], body)

    def _surprised(self, what: str, body: bytes) -> None:
        self.surprises[what] += 1
        self.examples.setdefault(what, body[:1000])


async def test_no_message_is_an_internal_error(tmp_path: Path) -> None:
    print(f"seed {SEED}")
    source = sample_channel(tmp_path / "source")
    fuzzing = Fuzzing()
    async with DaemonProcess(tmp_path) as process:
        client = await process.start()
        for name in ("main", "main/dev"):
            await client.call("channel.create", name=name)
        made = await client.call(
            "mirror.create", channel="main", name="m", type="conda", source=source.path.as_uri(), run_now=True
        )
        await client.call("run.wait", run=made.run.id)
        await client.call("token.create", name="t")
        before = _rss_mb(process.pid)
        connector = aiohttp.UnixConnector(str(process.socket))
        timeout = aiohttp.ClientTimeout(total=60)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as http, asyncio.TaskGroup() as group:
            for number in range(CONNECTIONS):
                known = ["main", "main/dev", "main:m", "m", f"new{number}", f"main/new{number}"]
                group.create_task(fuzzing.send(http, Messages(SEED * 100 + number, known)))
        grown = _rss_mb(process.pid) - before
        print(f"{fuzzing.sent} messages, {fuzzing.codes.most_common()}, memory {before:.0f} MB + {grown:.0f} MB")
        assert process.alive
        assert (await client.call("daemon.status")).pid == process.pid
        await client.close()
        assert await process.terminate() == 0
    log = process.log.read_text("utf-8", "replace")
    assert fuzzing.surprises == Counter(), fuzzing.examples
    assert "Traceback" not in log, log[log.index("Traceback") - 500 :][:3000]
    assert fuzzing.codes["result"] > fuzzing.sent / 20, "the messages are too mad to reach the methods"
    assert grown < GROWTH_MB


def _answers(body: bytes) -> Iterator[dict[str, Any]]:
    if body:
        answer = json.loads(body)
        yield from answer if isinstance(answer, list) else [answer]


def _rss_mb(pid: int) -> float:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) / 1024
