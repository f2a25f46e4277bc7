"""Keys faster than the screen, in a real process on a real daemon: what is done is what was painted, or nothing."""

import asyncio
import itertools
import math
import os
import random
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from pathlib import Path

import msgspec
import pytest
from msgspec import Struct

from firth_protocol.client import Client
from firth_protocol.errors import FirthError
from firth_protocol.types import AuditEntry
from firth_tui.action_table import ACTIONS, at
from firth_tui.action_table_common import LISTS
from firth_tui.actions import Place
from tests.support.daemon import DaemonProcess
from tests.support.pseudo import Ended, Frame, Pseudo, firth_on_pty
from tests.support.sample import build_sample_channel

pytestmark = [pytest.mark.timeout(120)]

CHANNELS = ("alpha", "main", "main/dev", "robotics", "vision")
BYTES = {"enter": "\r", "slash": "/", "exclamation_mark": "!", "question_mark": "?", "colon": ":", "ctrl+r": "\x12"}
NEAR_S = 0.25
"""How much later than it happened a frame may be read, or a change be written down, on a busy machine."""
TABS = {
    Place.PACKAGES: "P Packages",
    Place.CHANNEL_MIRRORS: "M Mirrors",
    Place.SUBCHANNELS: "B Subchannels",
    Place.GENERATIONS: "V Generations",
    Place.CHANGES: "C Changes",
    Place.USE: "U Use it",
}
ROWS = LISTS | {Place.PACKAGE, Place.ADVISORY}
"""Places with a cursor."""
PAIRS = 60
"""How many pairs of keys are tried in each place; FIRTH_PAIRS=all has all of them tried, which takes an hour or two."""
MOVES = ("j", "k", "g", "G", "\t", "\r", "\x1b", " ")

MAIN = ("1", "▸main ", "\r")
WAYS: dict[Place, tuple[str, Sequence[str]]] = {
    Place.CHANNELS: ("Channels", ("1",)),
    Place.PACKAGES: ("Channels › main", (*MAIN, "P")),
    Place.CHANNEL_MIRRORS: ("Channels › main", (*MAIN, "M")),
    Place.SUBCHANNELS: ("Channels › main", (*MAIN, "B")),
    Place.GENERATIONS: ("Channels › main", (*MAIN, "V")),
    Place.CHANGES: ("Channels › main", (*MAIN, "C")),
    Place.USE: ("Channels › main", (*MAIN, "U")),
    Place.PACKAGE: (r"Channels › main › \S+", (*MAIN, "P", "\r")),
    Place.MIRRORS: ("Mirrors", ("2",)),
    Place.MIRROR: ("Mirrors › main / forge", ("2", "▸main +forge ", "\r")),
    Place.RUNS: ("Runs", ("3",)),
    Place.RUN: (r"(Mirrors|Channels) › main.* › run \d+.*", ("3", "\r")),
    Place.HEALTH: ("Health", ("4",)),
    Place.AUDIT: ("Health › Audit log", ("5",)),
    Place.TOKENS: ("Tokens", ("6",)),
    Place.POLICIES: ("Policies", ("7",)),
    Place.POLICY: (r"Policies › \S+", ("7", "\r")),
    Place.EXCLUDED: (r"Mirrors › main / forge › kept out.*", ("2", "▸main +forge ", "x")),
    Place.ADVISORIES: ("Advisories", ("8",)),
    Place.ADVISORY: (r"Advisories › \S+", ("8", "\r")),
    Place.EXPLAIN: (r"Channels › main › why hidden\?.*", (*MAIN, "P", "w")),
}
"""What the path to each place looks like, and what is typed to get there."""


class Rig(Struct, frozen=True, kw_only=True):
    term: Pseudo
    client: Client
    mirrors: dict[int, tuple[str, str]]  # channel and name of each mirror, by id

    async def done(self) -> list[AuditEntry]:
        """Return what the terminal has had done so far, oldest first."""
        page = await self.client.call("audit.list", limit=1000)
        return [entry for entry in reversed(page.items) if entry.pid == self.term.pid]

    async def check_pair(self, already: int, place: Place, first: str, second: str) -> int:
        """Assert that what two keys have done was named when each had its turn; return how much has been done.

        What the first key can have done must have been named on the screen that stood when it was typed, what the
        second can have done on the screen after the first: no pair moves on from what its second key has acted on.
        """
        done = await self.done()
        before, after = self.term.frames[0], self.term.frames[-1]
        for entry in done[already:]:
            assert (may_do(place, first, entry.method) and self._names(before, entry)) or (
                may_do(None, second, entry.method) and self._names(after, entry)
            ), _told(entry, [before, after])
        return len(done)

    async def check_burst(self, already: int) -> int:
        """Assert that whatever was done since was named on the screen of that moment; return how much was done."""
        done = await self.done()
        for entry in done[already:]:
            seen = self._seen_at(datetime.fromisoformat(entry.time).timestamp())
            assert any(self._names(frame, entry) for frame in seen), _told(entry, seen)
        return len(done)

    def _seen_at(self, moment: float) -> list[Frame]:
        """Return the frames of a moment: the last one before it, and those so near that clocks do not tell them."""
        frames = self.term.frames
        until = [*(frame.since for frame in frames[1:]), math.inf]
        return [
            frame
            for frame, end in zip(frames, until, strict=True)
            if frame.since <= moment + NEAR_S and end >= moment - NEAR_S
        ]

    def _names(self, frame: Frame, entry: AuditEntry) -> bool:
        """Tell whether a frame names what was acted on: under the cursor, in the path, or in a title."""
        params = entry.params
        if entry.method in {"channel.create", "mirror.create", "token.create", "policy.create"}:
            return any("New " in line for line in frame.lines)  # a form, in which the names were typed
        if entry.method == "token.revoke":
            return any("Revoke the token" in line for line in frame.lines)
        if entry.method.startswith("store."):
            return any(re.search(r"^ Health(  |$)", line) for line in frame.lines)
        mirror, policy = params.get("mirror"), params.get("policy")
        if entry.method.startswith("policy."):
            wanted = rf"^▸{policy}(  |$)|^ Policies › {policy}(  |$)|the policy {policy}(\?|  )"
        elif isinstance(mirror, int):
            channel, name = self.mirrors[mirror]
            wanted = (
                rf"^[▸◈]({channel} +)?{name}(  |$)|^ Mirrors › {channel} / {name}(  | ›|$)|the run of {name}\?"
                rf"|Run {name} although|│   {channel}: {name} *│|the mirror {name} of {channel}|│ +{channel} / {name} "
            )
        else:
            name = re.escape(str(params.get("channel")))
            wanted = (
                rf"^[▸◈]{name}(  |$)|│   {name}( \(.*)? *│|^ Channels › {name}(  | ›|$)|the channel {name}(\?|  )"
                rf"|Take {name} back"
            )
        return any(re.search(wanted, line) for line in frame.lines)


def may_do(place: Place | None, key: str, method: str) -> bool:
    """Tell whether a key can have a method called in a place, or in any; enter and space go ahead with anything."""
    if key in {"\r", " "}:
        return True
    called = {"channel.freeze", "channel.unfreeze"} if method.endswith("freeze") else {method}
    return any(
        action.method in called and key in (BYTES.get(each, each) for each in action.key.split(","))
        for action in (at(place) if place is not None else ACTIONS)
    )


def _told(entry: AuditEntry, frames: Sequence[Frame]) -> str:
    return f"{entry.time} {entry.method} {entry.params}, seen:\n" + "\n".join(
        "\n".join((f"--- {frame.since:.3f}", *frame.lines)) for frame in frames
    )


@asynccontextmanager
async def rig(folder: Path) -> AsyncIterator[Rig]:
    """A daemon with channels, mirrors, packages and two generations, and firth on a pseudo-terminal."""
    build_sample_channel(folder / "source")
    async with DaemonProcess(folder) as process:
        client = await process.start()
        mirrors: dict[int, tuple[str, str]] = {}
        try:
            for name in CHANNELS:
                await client.call("channel.create", name=name)
            await client.call("token.create", name="runner")
            for channel, name in (("main", "extra"), ("main", "forge"), ("vision", "eyes")):
                reply = await client.call(
                    "mirror.create", channel=channel, name=name, type="conda", source=f"file://{folder}/source"
                )
                mirrors[reply.mirror.id] = (channel, name)
            rules = {"packages": {"exclude": ["hello ==0.9"]}}
            for name in ("few", "spare"):
                await client.call("policy.create", name=name, rules=rules)
            await client.call("mirror.update", mirror="main:forge", revision=1, policy="few")
            flaw = {"id": "OWN-1", "name": "hello", "spec": "hello <1", "score": 9.1}
            (folder / "flaws.jsonl").write_bytes(msgspec.json.encode(flaw))
            await client.call("advisory.import", source=str(folder / "flaws.jsonl"), format="lines")
            run = await client.call("mirror.run", mirror="main:forge")
            await client.call("run.wait", run=run.run.id, timeout=20)
            async with firth_on_pty(process.socket, beside=(process.pid,)) as term:
                await term.sees("● connected", "▸alpha", "vision")
                yield Rig(term=term, client=client, mirrors=mirrors)
        finally:
            await client.close()


def keys_of(place: Place) -> list[str]:
    """Return what each action of a place is typed as; quitting apart."""
    keys = [key for action in at(place) for key in action.key.split(",") if action.id != "app.quit" and key]
    return [BYTES.get(key, key) for key in keys if key not in {"escape", "ctrl+p"}]


def standing_in(term: Pseudo, place: Place) -> bool:
    """Tell whether a place is in view with its rows, and nothing above it."""
    path = WAYS[place][0]
    tab = TABS.get(place)
    return (
        term.plain
        and re.fullmatch(path, term.screen.lines[1].split("   ")[0].strip()) is not None
        and not any(line.startswith(("◆", "◈")) for line in term.screen.lines)
        and (tab is None or f"┤ {tab} " in f"{term.screen.lines[2]} ")
        and (place not in ROWS or any(line.startswith(("▸", "◈")) for line in term.screen.lines))
    )


async def go(term: Pseudo, place: Place) -> None:
    """Go to a place, from wherever the last keys have led; the quick way where there is one."""
    for _ in range(3):
        if standing_in(term, place):
            return
        term.write("\x1b")
        await term.quiet()
    await term.home()
    for each in WAYS[place][1]:
        if each.startswith("▸"):  # whatever the order of the list is
            term.write("g")
            await term.quiet()
            for step in itertools.count(1):
                if any(re.match(each, line) for line in term.screen.lines):
                    break
                # from the top again, in case rows have come in above meanwhile
                term.write("j" if step % 12 else "g")
                await term.quiet()
        else:
            term.write(each)
            await term.quiet()
    await term.until(lambda: standing_in(term, place))


@pytest.mark.deep
@pytest.mark.e2e
async def test_pairs_that_come_in_one_write(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        already = 0
        for place, pairs in (
            (Place.CHANNELS, ("oz", "od", "!e", "dz")),
            (Place.MIRRORS, ("oe", "or", "ar")),
            (Place.GENERATIONS, ("Gb",)),
        ):
            for pair in pairs:
                await go(r.term, place)
                r.term.write(pair)
                await r.term.quiet()
                already = await r.check_pair(already, place, *pair)


@pytest.mark.e2e
async def test_a_filter_and_an_action_in_one_write(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        r.term.write("/vision\rz")
        await r.term.sees("vision is frozen", "▸vision")
        r.term.write("\x1b")
        await r.term.home()
        await go(r.term, Place.MIRRORS)
        r.term.write("/robotics")  # has r for run and s for stop in it
        await r.term.sees("filter: robotics", "Nothing matches")
        r.term.write("\rz" + "r")
        await r.term.sees("there is no mirror under the cursor")
        done = await r.done()
        assert [(entry.method, entry.params) for entry in done] == [("channel.freeze", {"channel": "vision"})]


@pytest.mark.e2e
async def test_a_burst_of_keys(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        await go(r.term, Place.CHANNELS)
        await burst(r, random.Random(1), 60)


async def burst(r: Rig, chance: random.Random, many: int) -> None:
    already = len(await r.done())
    everything = sorted({key for each in Place for key in keys_of(each)} | set(MOVES))
    r.term.write("".join(chance.choice(everything) for _ in range(many)))
    try:
        await r.term.consumed()
    except Ended:
        # keys may find the palette's Quit; anything else that ends it is a fault
        assert r.term.process.returncode == 0
        assert any("Leave; the daemon" in line for line in r.term.lines_seen())
    await r.check_burst(already)


async def others_at_work(client: Client, stop: asyncio.Event) -> None:
    """Have channels come and go above the others, and be frozen, as somebody else would."""
    for number in itertools.count():
        if stop.is_set():
            return
        with suppress(FirthError):
            await client.call("channel.create", name=f"aa{number % 3}")
            await client.call("channel.freeze" if number % 2 else "channel.unfreeze", channel="robotics")
            await client.call("channel.delete", channel=f"aa{number % 3}", confirm=f"aa{number % 3}")


def pairs_of(place: Place) -> list[tuple[str, str]]:
    """Return the pairs of keys to be tried in a place: the same sample of them each time, or all when asked to."""
    keys = [*keys_of(place), "j", "G", "\r"]
    pairs = [(first, second) for first in keys for second in keys]
    if os.environ.get("FIRTH_PAIRS") == "all":
        return pairs
    return random.Random(f"pairs in {place}").sample(pairs, min(PAIRS, len(pairs)))


@pytest.mark.deep
@pytest.mark.timeout(7200 if os.environ.get("FIRTH_PAIRS") == "all" else 600)
@pytest.mark.parametrize("place", list(WAYS))
async def test_pairs_of_keys_in_every_place(tmp_path: Path, place: Place) -> None:
    async with rig(tmp_path) as r:
        already = 0
        for first, second in pairs_of(place):
            await go(r.term, place)
            r.term.write(first + second)
            await r.term.quiet()
            already = await r.check_pair(already, place, first, second)


@pytest.mark.deep
@pytest.mark.timeout(600)
@pytest.mark.parametrize("place", list(WAYS))
@pytest.mark.parametrize("seed", range(2))
async def test_bursts_while_others_are_at_work(tmp_path: Path, seed: int, place: Place) -> None:
    async with rig(tmp_path) as r:
        await go(r.term, place)  # while it is quiet: it never is beside others
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(others_at_work(r.client, stop))
            await burst(r, random.Random(f"{seed} {place}"), 500)
            stop.set()
