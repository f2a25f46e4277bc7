"""One source that drips, and one that fails: what lies elsewhere, and who has nothing to do with it, does not wait."""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from msgspec import Struct

from firth_protocol.client import Client
from firth_protocol.types import Run, RunState
from tests.support import outside
from tests.support.conda import ChannelFolder, PackageSpec
from tests.support.daemon import DaemonProcess
from tests.support.upstream import Fault, FaultyUpstream

pytestmark = [pytest.mark.deep, pytest.mark.e2e, pytest.mark.timeout(300)]

DRIP = Fault(chunk_bytes=1, pace_s=5.0)
PROMPT_S = 5.0
TURN_S = 150.0
"""A source below the minimum rate is seen to be so after a minute; the rest is for a busy machine."""


class Two(Struct, frozen=True, kw_only=True):
    """A daemon with the channels `slow` and `good`, each a passive mirror `m` of its own source."""

    client: Client
    http: aiohttp.ClientSession
    url: str
    sources: dict[str, FaultyUpstream]
    folders: dict[str, ChannelFolder]

    def wanted(self, channel: str, name: str) -> str:
        digest: str = self.folders[channel].records["noarch"][f"{name}-1.0-0.conda"]["sha256"]
        return digest

    async def get(self, channel: str, name: str) -> tuple[int, str, float]:
        """Ask for a file; return status, sha256 and seconds."""
        began = time.monotonic()
        async with self.http.get(f"{self.url}/repo/{channel}/noarch/{name}-1.0-0.conda") as reply:
            body = await reply.read()
            return reply.status, hashlib.sha256(body).hexdigest(), time.monotonic() - began

    async def ended(self, run: Run, seconds: float) -> Run:
        """Wait for a run's end, or until the time is over."""
        found: Run = await self.client.call("run.wait", run=run.id, timeout=seconds)
        return found


@asynccontextmanager
async def two_sources(folder: Path, *, files: int = 40) -> AsyncIterator[Two]:
    async with AsyncExitStack() as stack:
        process = await stack.enter_async_context(DaemonProcess(folder))
        client = await process.start()
        stack.push_async_callback(client.close)
        sources, folders = {}, {}
        for channel in ("slow", "good"):
            folders[channel] = ChannelFolder(folder / f"source-{channel}")
            folders[channel].add(*(PackageSpec(name=f"{channel}{n}", content="x" * 100 * n) for n in range(files)))
            sources[channel] = await stack.enter_async_context(FaultyUpstream(folder=folders[channel].path))
            await client.call("channel.create", name=channel)
            made = await client.call(
                "mirror.create", channel=channel, name="m", type="conda", source=sources[channel].url, run_now=True
            )
            run = await client.call("run.wait", run=made.run.id, timeout=30)
            assert run.state is RunState.COMPLETED, run
        http = await stack.enter_async_context(aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)))
        yield Two(client=client, http=http, url=await process.url(client), sources=sources, folders=folders)


@pytest.mark.parametrize("stay", [True, False], ids=["clients wait", "clients left"])
async def test_dripping_files_do_not_hold_up_those_of_another_source(tmp_path: Path, stay: bool) -> None:
    async with two_sources(tmp_path) as two:
        two.sources["slow"].fail("*.conda", DRIP, times=None)
        waiting = [asyncio.create_task(two.get("slow", f"slow{number}")) for number in range(32)]
        try:
            await two.sources["slow"].arrived("*.conda", count=1)
            await asyncio.sleep(1)  # whatever places there are, they are taken
            if not stay:
                for task in waiting:
                    task.cancel()
            for number in range(20):
                status, digest, seconds = await two.get("good", f"good{number}")
                assert (status, digest) == (200, two.wanted("good", f"good{number}"))
                assert seconds < PROMPT_S
            asked = two.sources["good"].asked("*.conda", method="GET")
            assert len(asked) == 20
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)


async def test_dripping_indexes_hold_up_nothing_that_needs_no_run_place(tmp_path: Path) -> None:
    async with two_sources(tmp_path) as two:
        two.folders["slow"].add(PackageSpec(name="later", content="y" * 100_000))
        two.sources["slow"].fail("*repodata*", DRIP, times=None)
        dripping = [(await two.client.call("mirror.run", mirror="slow:m")).run]
        made = await two.client.call(
            "mirror.create",
            channel="slow",
            name="second",
            type="conda",
            source=two.sources["slow"].url,
            check=False,
            run_now=True,
        )
        dripping.append(made.run)
        async with asyncio.timeout(30):
            while len((await two.client.call("run.list", channel="slow", state=RunState.RUNNING)).items) < 2:
                await asyncio.sleep(0.05)  # a condition of another process: there is nothing to wait on
        two.folders["good"].add(PackageSpec(name="new"))
        began = time.monotonic()
        pending = (await two.client.call("mirror.run", mirror="good:m")).run
        async with asyncio.timeout(PROMPT_S):  # it starts, or is told what it waits for
            seen = await two.client.call("run.get", run=pending.id)
            while seen.state is RunState.PENDING and seen.waiting_for is None:
                await asyncio.sleep(0.05)  # as above
                seen = await two.client.call("run.get", run=pending.id)

        # A freeze, its end and a rollback render nothing of the slow source: they do not wait.
        await two.client.call("channel.freeze", channel="good")
        unfrozen = await two.client.call("channel.unfreeze", channel="good")
        if unfrozen.run is not None:
            assert (await two.ended(unfrozen.run, PROMPT_S)).state is RunState.COMPLETED
        rolled = await two.client.call("channel.rollback", channel="good", generation=1)
        assert (await two.ended(rolled.run, PROMPT_S)).state is RunState.COMPLETED
        back = await two.client.call("channel.unfreeze", channel="good")
        assert (await two.ended(back.run, PROMPT_S)).state is RunState.COMPLETED

        # The run that waited comes to its turn, whatever becomes of those that crawl; these can be stopped.
        run = await two.ended(pending, TURN_S)
        print(f"the good mirror's run ended after {time.monotonic() - began:.0f} s")
        assert run.state is RunState.COMPLETED, run
        assert "new-1.0-0.conda" in await outside.index(two.http, f"{two.url}/repo/good", "noarch")
        for one in dripping:
            seen = await two.client.call("run.get", run=one.id)
            if seen.state is RunState.RUNNING:
                await two.client.call("mirror.stop", mirror=one.mirror)
                seen = await two.ended(one, PROMPT_S)
            assert seen.state in (RunState.STOPPED, RunState.FAILED), seen


@pytest.mark.parametrize(
    "fault",
    [Fault(status=500), Fault(status=504), Fault(drop=True), Fault(status=403), Fault(status=429), Fault(status=418)],
    ids=["500", "504", "dropped", "403", "429", "418"],
)
async def test_one_file_that_fails_is_the_trouble_of_that_file_alone(tmp_path: Path, fault: Fault) -> None:
    async with two_sources(tmp_path, files=12) as two:
        two.sources["slow"].fail("*slow0-*", fault, times=None)
        status, _, seconds = await two.get("slow", "slow0")
        assert status == 502
        assert seconds < 20
        for number in range(1, 12):
            status, digest, seconds = await two.get("slow", f"slow{number}")
            assert (status, digest) == (200, two.wanted("slow", f"slow{number}"))
            assert seconds < PROMPT_S


@pytest.mark.parametrize("every", [20, 5])
async def test_a_source_that_fails_now_and_then_is_asked_again_before_a_client_hears_of_it(
    tmp_path: Path, every: int
) -> None:
    async with two_sources(tmp_path, files=60) as two:
        two.sources["slow"].fail("*.conda", Fault(status=500), times=None, every=every)
        found = await asyncio.gather(*(two.get("slow", f"slow{number}") for number in range(60)))
        right = [(200, two.wanted("slow", f"slow{number}")) for number in range(60)]
        assert [(status, digest) for status, digest, _ in found] == right
