"""kill -9 while a mirror's first index is read and taken in: nothing of it counts, and the next run has all of it."""

import asyncio
import hashlib
import json
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.daemon import DaemonProcess

pytestmark = [pytest.mark.deep, pytest.mark.e2e, pytest.mark.timeout(300)]

RECORDS = 90_000
KILLS = 8


def write_source(folder: Path) -> str:
    for part, count in (("linux-64", RECORDS * 2 // 3), ("noarch", RECORDS // 3)):
        records = {
            f"p{number // 9}-1.{number}-0.conda": {
                "name": f"p{number // 9}",
                "version": f"1.{number}",
                "build": "0",
                "sha256": hashlib.sha256(f"{part} {number}".encode()).hexdigest(),
                "size": number + 1,
            }
            for number in range(count)
        }
        (folder / part).mkdir(parents=True)
        (folder / part / "repodata.json").write_text(json.dumps({"packages.conda": records}))
    return folder.as_uri()


OPEN = "SELECT count(*) FROM artifact WHERE added_set IN (SELECT id FROM change_set WHERE state = 'open')"
PUBLISHED = "SELECT count(*) FROM change_set WHERE state = 'published' AND added > 0"
LIVE = "SELECT count(*) FROM artifact WHERE closed_set IS NULL"


def counted(state: Path, query: str) -> int:
    with closing(sqlite3.connect(f"{(state / 'firth.sqlite').as_uri()}?mode=ro", uri=True)) as connection:
        return int(connection.execute(query).fetchone()[0])


def reached(state: Path, wanted: int) -> None:
    """Wait until so many rows are in the state and count for nothing, or all of them do."""
    give_up = time.monotonic() + 60
    while counted(state, OPEN) < wanted and not counted(state, PUBLISHED):
        assert time.monotonic() < give_up


async def test_kills_while_a_first_index_is_taken_in(tmp_path: Path) -> None:
    source = await asyncio.to_thread(write_source, tmp_path / "source")
    early = 0
    async with DaemonProcess(tmp_path) as process:
        client = await process.start()
        await client.call("channel.create", name="main")
        await client.call("mirror.create", channel="main", name="m", type="conda", source=source)
        for kill in range(KILLS):
            await client.call("mirror.run", mirror="main:m")  # or the one that goes on by itself
            await asyncio.to_thread(reached, process.state, 1 + RECORDS * kill // KILLS)
            await process.kill()
            early += await asyncio.to_thread(counted, process.state, OPEN)
            client = await process.start()
            shown = (await client.call("channel.get", channel="main")).families
            assert sum(family.artifacts for family in shown) in {0, RECORDS}
        assert early, "nothing was ever taken in early"
        run = (await client.call("mirror.run", mirror="main:m")).run
        ended = await client.call("run.wait", run=run.id, timeout=120)
        assert ended.state == "completed", ended
        assert (await client.call("channel.get", channel="main")).families[0].artifacts == RECORDS
        assert await asyncio.to_thread(counted, process.state, LIVE) == RECORDS
        await process.terminate()
