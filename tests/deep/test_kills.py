"""kill -9 at random moments of a daemon that does everything at once: what it had said stays said, and is audited."""

import asyncio
import contextlib
import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from firth_protocol.client import Client, DaemonUnreachable
from firth_protocol.errors import FirthError
from firth_protocol.types import RunState
from tests.support import outside
from tests.support.conda import ChannelFolder, PackageSpec
from tests.support.daemon import DaemonProcess
from tests.support.outside import AuditLine, Fact, Truth
from tests.support.upstream import FaultyUpstream
from tests.support.world import raw_records

pytestmark = [pytest.mark.deep, pytest.mark.e2e, pytest.mark.timeout(900)]

SEED = int(os.environ.get("FIRTH_TEST_SEED", "20260"))
KILLS = 50
LONGEST_LIFE_S = 2.0
MIRRORS = {"fast": "active", "lazy": "passive"}
"""The channels that mirror the source, each by the mode of its mirror `m`."""

Mark = Callable[[Any], Any]

MARKED: dict[str, tuple[str, Mark, Mark]] = {
    "token.create": ("token.created", lambda fact: fact.data.get("name"), lambda params: params.get("name")),
    "channel.create": ("channel.created", lambda fact: fact.ids.get("channel"), lambda params: params.get("name")),
    "channel.delete": ("channel.deleted", lambda fact: fact.ids.get("channel"), lambda params: params.get("channel")),
}
"""Changes that each carry a mark of their own: the fact's type, and the mark in the fact and in the audit line."""

CALLED_AND_GONE = (DaemonUnreachable, FirthError, OSError, aiohttp.ClientError, TimeoutError)


class Said:
    """What a daemon acknowledged, over all of its lives."""

    def __init__(self) -> None:
        self.answers: list[tuple[str, dict[str, Any], int]] = []  # method, parameters, seq
        self.events: list[tuple[int, str]] = []
        self.unaudited: set[str] = set()  # where the audit log and what happened differ

    async def ask(self, client: Client, method: str, **params: Any) -> Any:
        """Make a change and note its answer; an error reply is no change."""
        reply = await client.call(method, **params)
        if getattr(reply, "changed", True) and not getattr(reply, "already", False):  # else there was nothing to do
            self.answers.append((method, params, reply.seq))
        return reply

    async def follow(self, socket: Path) -> None:
        """Note each fact as it is told, until the stream breaks off."""
        with contextlib.suppress(*CALLED_AND_GONE):
            async with Client(socket) as client:
                async for event in client.follow():
                    if event.cursor is not None:
                        self.events.append((int(event.cursor.rpartition(":")[2]), event.type))


class Source:
    """A source that changes while it is mirrored: files come, go and are uploaded anew."""

    def __init__(self, folder: Path, truth: Truth, chance: random.Random) -> None:
        self.channel = ChannelFolder(folder)
        self._truth = truth
        self._chance = chance
        self._uploads = 0
        self._upload(*(f"p{number}" for number in range(40)))

    def change(self) -> None:
        records = self.channel.records["noarch"]
        again = self._chance.sample(sorted(records), 3)
        gone = self._chance.choice(sorted(records))
        self._upload(*(records[name]["name"] for name in again), f"n{self._uploads}")
        if gone not in again:
            # The file stays: whoever has read the index before may ask for it.
            del records[gone]
            self.channel.write()

    def _upload(self, *names: str) -> None:
        self._uploads += 1
        specs = [PackageSpec(name=name, content=self._chance.randbytes(4000).hex()) for name in names]
        self.channel.add(*specs)
        self._truth.learn(self.channel)


async def test_fifty_kills_lose_no_fact_no_audit_line_and_no_byte(tmp_path: Path) -> None:
    print(f"seed {SEED}")
    chance, truth, said = random.Random(SEED), Truth(), Said()
    source = Source(tmp_path / "source", truth, chance)
    async with FaultyUpstream(folder=source.channel.path) as upstream, DaemonProcess(tmp_path) as process:
        client = await process.start()
        for channel, mode in MIRRORS.items():
            await said.ask(client, "channel.create", name=channel)
            await said.ask(
                client, "mirror.create", channel=channel, name="m", type="conda", mode=mode, source=upstream.url
            )
            reply = await said.ask(client, "mirror.run", mirror=f"{channel}:m")
            run = await client.call("run.wait", run=reply.run.id, timeout=60)
            assert run.state is RunState.COMPLETED, run
        await said.ask(client, "channel.create", name="still")
        await client.close()
        await process.kill()
        for kill in range(1, KILLS + 1):
            life = chance.random() * LONGEST_LIFE_S
            source.change()
            if kill % 5 == 0:
                await process.launch()  # and be killed while it starts, or just after
                await asyncio.sleep(life / 2)
                await process.kill()
            else:
                client = await process.start()
                await _one_life(process, client, said, truth, chance, kill, life)
                await client.close()
            print(f"kill {kill} after {life:.3f} s: {len(said.answers)} answers, {truth.asked} files")
            _nothing_is_lost(process.state, said)
            assert truth.wrong == []
        async with _at_rest(process) as (client, http, url):
            for channel in MIRRORS:
                await _completes(client, channel)
                listed = await outside.index(http, f"{url}/repo/{channel}", "noarch")
                assert listed == {name: record["sha256"] for name, record in source.channel.records["noarch"].items()}
                assert await outside.all_served(http, f"{url}/repo/{channel}", truth) == len(listed)
            check = await client.call("daemon.check")
            assert check.ok, check
        outside.stored(process.state / "blobs")
    print(f"{len(said.answers)} answers, {len(said.events)} facts heard, {truth.asked} files asked for")
    assert truth.wrong == []
    assert said.unaudited == set()
    assert len(said.answers) > 5 * KILLS, "the daemon was killed before it did anything"
    assert truth.asked > 10 * KILLS


async def test_no_kill_parts_a_change_from_its_audit_line(tmp_path: Path) -> None:
    print(f"seed {SEED}")
    chance, said = random.Random(SEED + 1), Said()
    names = [f"c{number}" for number in range(6)]
    async with DaemonProcess(tmp_path) as process:
        client = await process.start()
        for name in names:
            await said.ask(client, "channel.create", name=name)
        for _ in range(25):
            async with _until_killed(process, 0.15 + chance.random() * 0.4) as group:
                for name in names:
                    group.append(asyncio.create_task(_turns(process.socket, said, name)))
            await client.close()
            _nothing_is_lost(process.state, said)
            client = await process.start()
        await client.close()
    print(f"{len(said.answers)} answers")
    assert said.unaudited == set()
    assert len(said.answers) > 250


# --- one life of the daemon -----------------------------------------------------------------------------------------


async def _one_life(
    process: DaemonProcess, client: Client, said: Said, truth: Truth, chance: random.Random, kill: int, life: float
) -> None:
    url = await process.url(client)
    stop = asyncio.Event()
    files = sorted(truth.digests)
    async with _until_killed(process, life) as group:
        group.append(asyncio.create_task(said.follow(process.socket)))
        group.append(asyncio.create_task(_turns(process.socket, said, "still")))
        for channel in MIRRORS:
            seed = chance.random()
            group.append(asyncio.create_task(_changes(process.socket, said, channel, f"k{kill}", seed)))
            names = chance.sample(files, len(files))
            group.append(asyncio.create_task(outside.looks_around(f"{url}/repo/{channel}", truth, names, stop)))
            group.append(asyncio.create_task(_reads_all(f"{url}/repo/{channel}", truth)))
        group.append(asyncio.create_task(_when_dead(process, stop)))


@asynccontextmanager
async def _until_killed(process: DaemonProcess, life: float) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Let what the block starts go on for a while, then kill the daemon under it and wait until all has noticed."""
    tasks: list[asyncio.Task[None]] = []
    try:
        yield tasks
        await asyncio.sleep(life)  # the moment is the test's subject
        await process.kill()
        async with asyncio.timeout(20):
            await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


async def _when_dead(process: DaemonProcess, stop: asyncio.Event) -> None:
    while process.alive:
        await asyncio.sleep(0.01)  # a condition of another process: there is nothing to wait on
    stop.set()


async def _turns(socket: Path, said: Said, channel: str) -> None:
    """Freeze and unfreeze a channel that nobody else touches, so that each answer is a change."""
    with contextlib.suppress(*CALLED_AND_GONE):
        async with Client(socket) as client:
            frozen = (await client.call("channel.get", channel=channel)).frozen
            while True:
                method = "channel.unfreeze" if frozen else "channel.freeze"
                reply = await said.ask(client, method, channel=channel)
                assert reply.changed
                frozen = not frozen


async def _changes(socket: Path, said: Said, channel: str, mark: str, seed: float) -> None:
    """Do one thing after another to a channel; refusals (a frozen channel, a run that is not there) are part of it."""
    chance = random.Random(seed)
    with contextlib.suppress(DaemonUnreachable, OSError, aiohttp.ClientError):
        async with Client(socket) as client:
            for number in range(10_000):
                what = chance.choice(_DEEDS)
                with contextlib.suppress(FirthError):
                    await what(client, said, channel, f"{mark}-{channel}-{number}")


async def _run(client: Client, said: Said, channel: str, mark: str) -> None:
    await said.ask(client, "mirror.run", mirror=f"{channel}:m")


async def _restart(client: Client, said: Said, channel: str, mark: str) -> None:
    await said.ask(client, "mirror.restart", mirror=f"{channel}:m")


async def _freeze(client: Client, said: Said, channel: str, mark: str) -> None:
    await said.ask(client, "channel.freeze", channel=channel)


async def _unfreeze(client: Client, said: Said, channel: str, mark: str) -> None:
    await said.ask(client, "channel.unfreeze", channel=channel)


async def _roll_back(client: Client, said: Said, channel: str, mark: str) -> None:
    newest = (await client.call("channel.generations", channel=channel, limit=5)).items
    if len(newest) > 1:
        reply = await said.ask(client, "channel.rollback", channel=channel, generation=newest[-1].number)
        await client.call("run.wait", run=reply.run.id, timeout=2)
        await said.ask(client, "channel.unfreeze", channel=channel)


async def _edit(client: Client, said: Said, channel: str, mark: str) -> None:
    found = await client.call("channel.get", channel=channel)
    await said.ask(client, "channel.update", channel=channel, revision=found.revision, description=mark)
    mirror = await client.call("mirror.get", mirror=f"{channel}:m")
    await said.ask(client, "mirror.update", mirror=mirror.id, revision=mirror.revision, schedule="daily", check=False)


async def _token(client: Client, said: Said, channel: str, mark: str) -> None:
    reply = await said.ask(client, "token.create", name=mark)
    await said.ask(client, "token.revoke", id=reply.item.id)


async def _side_channel(client: Client, said: Said, channel: str, mark: str) -> None:
    await said.ask(client, "channel.create", name=mark)
    source = (await client.call("mirror.get", mirror=f"{channel}:m")).source
    made = await said.ask(
        client, "mirror.create", channel=mark, name="x", type="conda", source=source, check=False, run_now=True
    )
    await said.ask(client, "mirror.delete", mirror=made.mirror.id, confirm="x", packages="keep")
    await said.ask(client, "channel.delete", channel=mark, confirm=mark)


_DEEDS: list[Callable[[Client, Said, str, str], Any]] = [
    _run, _run, _run, _restart, _freeze, _unfreeze, _unfreeze, _roll_back, _edit, _token, _side_channel,
]  # fmt: skip


async def _reads_all(base: str, truth: Truth) -> None:
    """Read the index and what it lists, again and again; a file must be what its index says."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as http:
        with contextlib.suppress(*outside.UNREADABLE):
            while True:
                status, body = await outside.fetch(http, f"{base}/noarch/repodata.json")
                assert status == 200, body
                for filename in raw_records(body):
                    status, body = await outside.fetch(http, f"{base}/noarch/{filename}")
                    if status == 200:
                        truth.check(filename, body)


# --- afterwards -----------------------------------------------------------------------------------------------------


def _nothing_is_lost(state: Path, said: Said) -> None:
    assert outside.sound(state) == []
    facts = outside.facts(state)
    by_number = {fact.seq: fact for fact in facts}
    lost = [(method, params) for method, params, seq in said.answers if seq not in by_number]
    assert lost == [], "acknowledged changes without their fact"
    told = [(seq, kind) for seq, kind in said.events if seq not in by_number or by_number[seq].type != kind]
    assert told == [], "facts that were told are not what the state holds"
    assert [seq for seq, _ in said.events] == sorted({seq for seq, _ in said.events}), "facts out of order, or twice"
    _audited(state, facts, said)


def _audited(state: Path, facts: list[Fact], said: Said) -> None:
    """Compare the audit log with what was answered and with what happened; note what is wrong, told at the end."""
    lines = outside.audit_lines(state)
    written = Counter((line.method, _subject(line.params)) for line in lines if _may_have_happened(line.outcome))
    answered = Counter((method, _subject(params)) for method, params, _ in said.answers)
    said.unaudited |= {f"answered, not written: {what}" for what in answered - written}
    for method, (kind, in_fact, in_params) in MARKED.items():
        happened = Counter(in_fact(fact) for fact in facts if fact.type == kind)
        _compare(said, method, happened, [(in_params(line.params), line) for line in lines if line.method == method])
    for method, kind in (("channel.freeze", "channel.frozen"), ("channel.unfreeze", "channel.unfrozen")):
        turned = Counter(fact.ids["channel"] for fact in facts if fact.type == kind)
        about = [(line.params["channel"], line) for line in lines if line.method == method]
        for channel in MIRRORS:  # these are frozen by rollbacks too, and freezing a frozen one is no change
            del turned[channel]
        _compare(said, method, turned, [(channel, line) for channel, line in about if channel not in MIRRORS])


def _compare(said: Said, method: str, happened: Counter[Any], about: list[tuple[Any, AuditLine]]) -> None:
    begun = Counter(what for what, line in about if _may_have_happened(line.outcome))
    claimed = Counter(what for what, line in about if line.outcome == "ok")
    said.unaudited |= {f"{method}: changed, not written: {what}" for what in happened - begun}
    said.unaudited |= {f"{method}: written, not changed: {what}" for what in claimed - happened}


def _may_have_happened(outcome: str) -> bool:
    return outcome in ("ok", "begun", "interrupted")


def _subject(params: dict[str, Any]) -> str:
    """Return what a call is about, so that an answer finds its audit line."""
    return repr([params.get(name) for name in ("channel", "name", "mirror", "id", "generation", "description")])


@asynccontextmanager
async def _at_rest(process: DaemonProcess) -> AsyncIterator[tuple[Client, aiohttp.ClientSession, str]]:
    async with AsyncExitStack() as stack:
        client = await process.start()
        stack.push_async_callback(client.close)
        http = await stack.enter_async_context(aiohttp.ClientSession())
        yield client, http, await process.url(client)


async def _completes(client: Client, channel: str) -> None:
    """Let a channel catch up with its source, once the runs that the kills have left behind are done."""
    await _idle(client, channel)
    await client.call("channel.unfreeze", channel=channel)
    await _idle(client, channel)
    reply = await client.call("mirror.run", mirror=f"{channel}:m", accept_removals=True)
    run = await client.call("run.wait", run=reply.run.id, timeout=60)
    assert run.state is RunState.COMPLETED, run
    found = await client.call("channel.get", channel=channel)
    assert not found.frozen


async def _idle(client: Client, channel: str) -> None:
    """Wait for every run that is still to end; a rollback among them freezes the channel again."""
    for state in (RunState.PENDING, RunState.RUNNING, RunState.STOPPING):
        for run in (await client.call("run.list", channel=channel, state=state, limit=1000)).items:
            ended = await client.call("run.wait", run=run.id, timeout=60)
            assert ended.state.ended, ended
