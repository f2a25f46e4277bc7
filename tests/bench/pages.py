"""How fast pages for people are, of a channel with 100,000 packages: `python -m tests.bench.pages [--packages N]`.

Each page is asked for some times with another place or text, so that nothing that is remembered helps. Milliseconds of
CPU of the whole process (the reader's thread is part of it), then of wall clock, and the most that the loop's own
thread worked in one go.
"""

import argparse
import asyncio
import gc
import json
import random
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from firth_protocol.types import Family, Privacy
from firthd.channels.needs import Needs
from firthd.channels.published import View
from firthd.channels.showcase import Showcase
from firthd.families import families
from firthd.families.addresses import PageAt
from firthd.store.database import Tx
from tests.support.clock import START_MS
from tests.support.rawhttp import Reply
from tests.support.state import add_channel, opened
from tests.support.web import running_site

GENERATIONS = 60
BATCH = 10_000


class Figures(NamedTuple):
    """Of one kind of page: medians in milliseconds, and the most of the loop in one go."""

    page: str
    cpu_ms: float
    wall_ms: float
    blocked_ms: float
    bytes: int


class NoPages:
    """No part is read lazily."""

    async def page(self, channel_id: int, family: Family, at: PageAt, as_of_ms: int | None, client: str) -> None:
        return None


def _rows(channel_id: int, packages: int) -> list[tuple[object, ...]]:
    dice = random.Random(1)
    words = ["".join(dice.choices("abcdefghijklmnopqrstuvwxyz", k=dice.randint(3, 9))) for _ in range(4000)]
    names: set[str] = set()
    while len(names) < packages:
        names.add("-".join(dice.sample(words, dice.randint(1, 3))))
    rows: list[tuple[object, ...]] = []
    for name in sorted(names):
        for number in dice.sample(range(1, GENERATIONS), 1 + (dice.random() < 0.15) + 3 * (dice.random() < 0.05)):
            needs = json.dumps(dice.sample(words, 8))
            size = dice.randrange(1000, 10**9)
            rows.append((channel_id, name, number, dice.randrange(1, 400), size, needs))
    return rows


async def measure(folder: Path, packages: int, rounds: int) -> list[Figures]:
    """Return the figures of each kind of page."""
    async with opened(folder / "db") as db:
        channel_id = await db.write(add_channel)
        rows = await asyncio.to_thread(_rows, channel_id, packages)
        for start in range(0, len(rows), BATCH):

            async def write(tx: Tx, some: Sequence[tuple[object, ...]] = rows[start : start + BATCH]) -> None:
                await tx.many(
                    "INSERT INTO package(channel_id, family, name, number, version, versions, files, bytes, platforms,"
                    " depends, hidden)"
                    " VALUES (?, 'conda', ?, ?, '1.2.3', 5, ?, ?, '[\"linux-64\", \"noarch\"]', ?, '{}')",
                    some,
                )

            await db.write(write)
        await db.write(
            lambda tx: tx.execute(
                "INSERT INTO generation_family(channel_id, number, family, artifacts, packages, bytes)"
                " VALUES (?, ?, 'conda', ?, ?, 1)", (channel_id, GENERATIONS, packages * 5, packages),
            )
        )  # fmt: skip
        await db.write(lambda tx: tx.execute("UPDATE channel SET generation = ?", (GENERATIONS,)))
        names = [str(row[1]) for row in random.Random(2).sample(rows, rounds)]
        rows.clear()
        gc.collect()
        gc.freeze()  # what was made for the measuring is nothing that a daemon would have to look through
        async with running_site(folder / "site") as site:
            served = Showcase(db, families(), Needs(db, Path, families()), NoPages())
            for name in ("channels", "channel", "snapshots", "find", "count", "listing", "read_parts", "package"):
                setattr(site.show, name, getattr(served, name))
            site.shelf.views["main"] = View(
                channel_id=channel_id, channel="main", privacy=Privacy.PUBLIC, generation=GENERATIONS,
                shows=GENERATIONS, published_at_ms=START_MS,
            )  # fmt: skip
            kinds = {
                "home": ["/"] * rounds,
                "home, search": [f"/?q={name[:5]}" for name in names],
                "channel": ["/repo/main/"] * rounds,
                "channel, further on": [f"/repo/main/?after={name}" for name in names],
                "channel, search": [f"/repo/main/?q={name[1:5]}" for name in names],
                "channel, search of one letter": [f"/repo/main/?q={letter}" for letter in "abcdefghijklm"[:rounds]],
                "channel, by last change": [f"/repo/main/?sort=-updated&after={9 + n}:a" for n in range(rounds)],
            }
            return [await _figures(kind, site.get, targets) for kind, targets in kinds.items()]


async def _figures(kind: str, get: Callable[[str], Awaitable[Reply]], targets: Sequence[str]) -> Figures:
    cpu, wall, blocked, size = [], [], 0.0, 0

    async def watch() -> None:
        nonlocal blocked
        while True:
            before = time.thread_time()
            await asyncio.sleep(0)
            blocked = max(blocked, time.thread_time() - before)

    watching = asyncio.create_task(watch())
    for target in targets:
        began, used = time.perf_counter(), time.process_time()
        reply = await get(target)
        cpu.append(time.process_time() - used)
        wall.append(time.perf_counter() - began)
        assert reply.status == 200, (target, reply.status)
        size = len(reply.body)
    watching.cancel()
    return Figures(kind, statistics.median(cpu) * 1000, statistics.median(wall) * 1000, blocked * 1000, size)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--packages", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for one in asyncio.run(measure(Path(folder), options.packages, options.rounds)):
            print(
                f"{one.page:32} {one.cpu_ms:7.1f} ms CPU {one.wall_ms:7.1f} ms, in one go {one.blocked_ms:5.1f} ms,"
                f" {one.bytes:,} bytes"
            )


if __name__ == "__main__":
    main()
