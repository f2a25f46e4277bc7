"""Policies on bad nights: kill -9 while one is applied or a document carried out, deleted and frozen meanwhile."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from firth_protocol.client import Client, DaemonUnreachable
from firth_protocol.errors import InUse
from firth_protocol.types import RunState
from tests.bench.conda_index import BUILDS_PER_VERSION, VERSIONS_PER_NAME, write_index
from tests.daemon.test_policies import ALPHA, BETA, answer, change, ended, make, shown
from tests.support.daemon import DaemonProcess
from tests.support.world import world

pytestmark = [pytest.mark.deep, pytest.mark.timeout(600)]

KILLS = 5
THINGS = 40
PACKAGES = 1000
EACH = BUILDS_PER_VERSION * VERSIONS_PER_NAME


def document() -> str:
    """Return an installation of so many policies and channels."""
    parts = []
    for number in range(THINGS):
        parts.append(f"[policies.p{number}.rules.packages]\nallow = ['a{number} >=1']")
        parts.append(f"[channels.c{number}]\npolicy = 'p{number}'")
    return "\n".join(parts)


@asynccontextmanager
async def client_of(process: DaemonProcess) -> AsyncIterator[Client]:
    client = await process.start()
    try:
        yield client
    finally:
        await client.__aexit__(None, None, None)


async def test_a_document_that_is_cut_off_is_carried_on_by_applying_it_again(tmp_path: Path) -> None:
    chance = random.Random(6)
    async with DaemonProcess(tmp_path) as process:
        made = 0
        for _ in range(KILLS):
            async with client_of(process) as client:
                apply = asyncio.ensure_future(client.call("config.apply", document=document()))
                await asyncio.wait([apply], timeout=0.05 + chance.random() * 0.4)
                await process.kill()
                with suppress(DaemonUnreachable):
                    await apply
            async with client_of(process) as client:
                lines = (await client.call("audit.list", limit=1000)).items
                assert {one.outcome for one in lines if one.method == "config.apply"} <= {"ok", "interrupted"}
                there = (await client.call("policy.list", limit=1000)).total
                assert there >= made  # what was done stays done
                made = there
                await process.kill()
        async with client_of(process) as client:
            await client.call("config.apply", document=document())
            again = await client.call("config.apply", document=document())
            assert (again.changes, len(again.unchanged)) == ([], 2 * THINGS)
            for number in (0, THINGS - 1):
                assert (await client.call("channel.get", channel=f"c{number}")).policy == f"p{number}"


async def test_a_killed_refilter_comes_to_its_end(tmp_path: Path) -> None:
    chance = random.Random(7)
    for subdir in ("noarch", "linux-64"):
        (tmp_path / "source" / subdir).mkdir(parents=True)
    write_index(tmp_path / "source/noarch/repodata.json.zst", "noarch", PACKAGES * EACH, later=False)
    async with DaemonProcess(tmp_path) as process:
        async with client_of(process) as client:
            await client.call("policy.create", name="p", families=["conda"], rules={})
            await client.call("channel.create", name="main", policy="p")
            await client.call(
                "mirror.create", channel="main", name="m", type="conda", source=(tmp_path / "source").as_uri()
            )
            run = (await client.call("mirror.run", mirror="main:m")).run
            assert (await client.call("run.wait", run=run.id, timeout=120)).state is RunState.COMPLETED
        await process.kill()
        for kill in range(KILLS):
            async with client_of(process) as client:
                policy = await client.call("policy.get", policy="p")
                rules = {"packages": {"exclude": [f"package-{number:06}" for number in range(kill, PACKAGES, 3)]}}
                await client.call("policy.update", policy="p", revision=policy.revision, rules=rules)
                await asyncio.wait([asyncio.ensure_future(asyncio.Event().wait())], timeout=chance.random() * 1.5)
                await process.kill()
            async with client_of(process) as client:
                for run in (await client.call("run.list", kind="refilter", limit=1000)).items:
                    await client.call("run.wait", run=run.id, timeout=120)
                page = await client.call("package.list", channel="main", left_out=False, limit=1)
                assert page.total == PACKAGES - len(rules["packages"]["exclude"])
                left_out = await client.call("package.list", channel="main", left_out=True, limit=1)
                assert left_out.total == len(rules["packages"]["exclude"])
                await process.kill()


async def test_a_policy_that_is_taken_away_and_deleted_while_its_refilter_waits(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await make(w, "p", packages={"exclude": ["beta"]})
        mirror = await w.mirror("passive", policy="p")
        await w.run()
        assert await shown(w) == ALPHA
        policy = await w.call("policy.get", policy="p")
        first = await w.call("policy.update", policy="p", revision=policy.revision, rules={"packages": {"allow": []}})
        with pytest.raises(InUse):
            await w.call("policy.delete", policy="p")
        mirror = await w.call("mirror.get", mirror="main:m")
        second = await w.call("mirror.update", mirror="main:m", revision=mirror.revision, policy=None)
        await w.call("policy.delete", policy="p")
        for run in (*first.runs, *([second.run] if second.run is not None else [])):
            await ended(w, run)
        for run in (await w.call("run.list", kind="refilter")).items:
            await ended(w, run)
        assert await shown(w) == {*ALPHA, BETA}
        assert (await answer(w, BETA))[0] == 200


async def test_a_frozen_channel_shows_on_what_a_refilter_took_out_and_refuses_it(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await make(w, "p", licenses={"not_in": ["AGPL"], "unknown": "allow"})
        await w.mirror("passive", policy="p")
        await w.run()
        await w.call("channel.freeze", channel="main")
        await change(w, "p", packages={"exclude": ["beta"]})
        assert await shown(w) == {*ALPHA, BETA}
        assert (await answer(w, BETA))[0] == 403
        run = (await w.call("channel.unfreeze", channel="main")).run
        await ended(w, run)
        assert await shown(w) == ALPHA
