"""Keys faster than the screen, in a real process on a real daemon: what is done is what was painted, or nothing."""

import asyncio
import itertools
import random
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct

from firth_protocol.client import Client
from firth_protocol.errors import FirthError
from firth_protocol.types import AuditEntry
from firth_tui.action_table import at
from firth_tui.actions import Place
from tests.support.daemon import DaemonProcess
from tests.support.pseudo import Pseudo, firth_on_pty
from tests.support.sample import build_sample_channel

pytestmark = [pytest.mark.timeout(60)]

CHANNELS = ("alpha", "main", "main/dev", "robotics", "vision")
BYTES = {"enter": "\r", "slash": "/", "exclamation_mark": "!", "question_mark": "?", "colon": ":", "ctrl+r": "\x12"}
MOVES = ("j", "k", "g", "G", "\t", "\r", "\x1b", " ")

WAYS: dict[Place, tuple[str, Sequence[str]]] = {
    Place.CHANNELS: ("Channels", ("1",)),
    Place.PACKAGES: ("Channels › main", ("1", "▸main ", "\r", "1")),
    Place.CHANNEL_MIRRORS: ("Channels › main", ("1", "▸main ", "\r", "2")),
    Place.SUBCHANNELS: ("Channels › main", ("1", "▸main ", "\r", "3")),
    Place.GENERATIONS: ("Channels › main", ("1", "▸main ", "\r", "4")),
    Place.CHANGES: ("Channels › main", ("1", "▸main ", "\r", "5")),
    Place.USE: ("Channels › main", ("1", "▸main ", "\r", "6")),
    Place.MIRRORS: ("Mirrors", ("2",)),
    Place.MIRROR: ("Mirrors › main / forge", ("2", "▸main: forge", "\r")),
    Place.RUNS: ("Runs", ("3",)),
    Place.HEALTH: ("Health", ("4",)),
    Place.AUDIT: ("Health › Audit log", ("5",)),
}


class Rig(Struct, frozen=True, kw_only=True):
    term: Pseudo
    client: Client
    names: dict[int, str]  # how each mirror is named on the screen, by id

    async def done(self) -> list[AuditEntry]:
        """Return what the terminal has had done so far, oldest first."""
        page = await self.client.call("audit.list", limit=1000)
        return [entry for entry in reversed(page.items) if entry.pid == self.term.pid]

    async def check(self, already: int) -> int:
        """Assert that whatever was done since was named on the screen while the keys were taken; return how much."""
        done = await self.done()
        for entry in done[already:]:
            wanted = self._named(entry.params)
            shown = "\n".join(sorted(self.term.painted))
            assert wanted is None or re.search(wanted, shown, re.MULTILINE), (
                f"{entry.method} {entry.params}, seen:\n{shown}"
            )
        return len(done)

    def _named(self, params: dict[str, Any]) -> str | None:
        """Return what a line must look like that names the object: under the cursor, in the path, or in a title."""
        if "name" in params:
            return None  # a form, in which the name was typed
        mirror = params.get("mirror")
        name = self.names[mirror] if isinstance(mirror, int) else re.escape(str(params.get("channel")))
        return rf"(▸| › | / |the channel |the run of |the mirror |the packages? |from |Take |Run ){name}\b(?!/)"


@asynccontextmanager
async def rig(folder: Path) -> AsyncIterator[Rig]:
    """A daemon with channels, mirrors, packages and two generations, and firth on a pseudo-terminal."""
    build_sample_channel(folder / "source")
    async with DaemonProcess(folder) as process:
        client = await process.start()
        names: dict[int, str] = {}
        try:
            for name in CHANNELS:
                await client.call("channel.create", name=name)
            for channel, name in (("main", "extra"), ("main", "forge"), ("vision", "eyes")):
                reply = await client.call(
                    "mirror.create", channel=channel, name=name, type="conda", source=f"file://{folder}/source"
                )
                names[reply.mirror.id] = rf"({channel}: )?{name}"
            run = await client.call("mirror.run", mirror="main:forge")
            await client.call("run.wait", run=run.run.id, timeout=20)
            async with firth_on_pty(process.socket) as term:
                await term.sees("● connected", "▸alpha", "vision")
                yield Rig(term=term, client=client, names=names)
        finally:
            await client.close()


def keys_of(place: Place) -> list[str]:
    """Return what each action of a place is typed as; quitting apart."""
    keys = [key for action in at(place) for key in action.key.split(",") if action.id != "app.quit" and key]
    return [BYTES.get(key, key) for key in keys if key not in {"escape", "ctrl+p"}]


async def go(term: Pseudo, place: Place) -> None:
    """Go to a place, from wherever the last keys have led."""
    crumbs, keys = WAYS[place]
    await term.home()
    for each in keys:
        if each.startswith("▸"):  # whatever the order of the list is
            term.write("g")
            await term.quiet()
            while not any(line.startswith(each) for line in term.screen.lines):
                term.write("j")
                await term.quiet()
        else:
            term.write(each)
            await term.quiet()
    await term.sees(crumbs)


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
                already = await r.check(already)


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
        await burst(r, random.Random(1), Place.CHANNELS, 120)


async def burst(r: Rig, chance: random.Random, place: Place, many: int) -> None:
    already = len(await r.done())
    everything = sorted({key for each in Place for key in keys_of(each)} | set(MOVES))
    await go(r.term, place)
    r.term.write("".join(chance.choice(everything) for _ in range(many)))
    await r.term.consumed()
    await r.check(already)


async def others_at_work(client: Client, stop: asyncio.Event) -> None:
    """Have channels come and go above the others, and be frozen, as somebody else would."""
    for number in itertools.count():
        if stop.is_set():
            return
        with suppress(FirthError):
            await client.call("channel.create", name=f"aa{number % 3}")
            await client.call("channel.freeze" if number % 2 else "channel.unfreeze", channel="robotics")
            await client.call("channel.delete", channel=f"aa{number % 3}", confirm=f"aa{number % 3}")


@pytest.mark.deep
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("place", list(WAYS))
async def test_every_pair_of_keys_in_every_place(tmp_path: Path, place: Place) -> None:
    async with rig(tmp_path) as r:
        already = 0
        keys = [*keys_of(place), "j", "G", "\r"]
        for first, second in itertools.product(keys, repeat=2):
            await go(r.term, place)
            r.term.write(first + second)
            await r.term.quiet()
            already = await r.check(already)


@pytest.mark.deep
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(12))
async def test_bursts_while_others_are_at_work(tmp_path: Path, seed: int) -> None:
    async with rig(tmp_path) as r:
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(others_at_work(r.client, stop))
            chance = random.Random(seed)
            for place in chance.sample(list(WAYS), 2):
                await burst(r, chance, place, 500)
            stop.set()
