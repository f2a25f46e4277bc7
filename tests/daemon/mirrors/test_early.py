"""A mirror's first index, taken in while it is read: it is all there or nothing of it counts."""

import asyncio
import json
import logging
import random
import sqlite3
from pathlib import Path

import pytest

from firth_protocol.errors import NoSpace
from firthd.mirrors.early import WORTH_BYTES
from firthd.mirrors.take_in import Begun
from tests.support.daemon import Running, in_process_daemon

RECORDS = 300
BROKEN = '{"packages": [1, 2]}'
OBJECTS = "SELECT path, since, until, hex(sha256), size, lasting FROM object ORDER BY path, since"
DIGESTS = "SELECT number, digest, artifacts, packages, bytes, added FROM generation"
PACKAGES = "SELECT name, number, version, files, depends, hex(digest) FROM package ORDER BY name"
SHOWN = "channel main shows what was rendered while it was read"


def write_source(folder: Path) -> str:
    """Write a channel with an index that is worth it, and another one that cannot be read; return its address."""
    chance = random.Random(0)
    size = 1.1 * WORTH_BYTES / RECORDS
    records = {
        f"p{number}-1-0.conda": {
            "name": f"p{number}",
            "version": "1",
            "build": "0",
            "sha256": f"{number:064x}",
            "size": number + 1,
            "license": f"{chance.getrandbits(int(size * 4)):x}",
        }
        for number in range(RECORDS)
    }
    for part, text in (("linux-64", json.dumps({"packages.conda": records})), ("noarch", BROKEN)):
        (folder / part).mkdir(parents=True)
        (folder / part / "repodata.json").write_text(text)
    return folder.as_uri()


async def mirrored(running: Running, source: str, mode: str = "passive") -> int:
    await running.client.call("channel.create", name="main")
    fields = {"type": "conda", "mode": mode, "source": source}
    reply = await running.client.call("mirror.create", channel="main", name="m", **fields)
    return int(reply.mirror.id)


def found(state: Path, query: str) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(state / "firth.sqlite")
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def counted(state: Path, query: str) -> int:
    connection = sqlite3.connect(state / "firth.sqlite")
    try:
        return int(connection.execute(query).fetchone()[0])
    finally:
        connection.close()


def rows(state: Path) -> int:
    return counted(state, "SELECT count(*) FROM artifact")


async def listed(running: Running) -> int:
    return int((await running.client.call("package.list", channel="main")).total)


def test_what_was_taken_in_before_a_part_could_not_be_read_counts_for_nothing(tmp_path: Path) -> None:
    async def check() -> None:
        async with in_process_daemon(tmp_path / "daemon") as running:
            source = write_source(tmp_path / "source")
            mirror = await mirrored(running, source)
            failed = await running.run(mirror)
            assert failed.state == "failed"
            begun = "SELECT count(*) FROM change_set WHERE state = 'abandoned'"
            assert await asyncio.to_thread(counted, running.state, begun) == 1
            assert await listed(running) == 0
            again = await running.run(mirror)
            assert again.state == "failed"
            (tmp_path / "source" / "noarch" / "repodata.json").write_text('{"packages": {}}')
            done = await running.run(mirror)
            assert done.state == "completed"
            assert done.counts.added == RECORDS
            assert await listed(running) == RECORDS
            assert await asyncio.to_thread(rows, running.state) == RECORDS
            twice = "SELECT count(*) - count(DISTINCT filename) FROM artifact"
            assert await asyncio.to_thread(counted, running.state, twice) == 0

    asyncio.run(check())


@pytest.mark.parametrize("what", ["active", "blocked"])
def test_what_is_looked_at_first_is_taken_in_afterwards(tmp_path: Path, what: str) -> None:
    async def check() -> None:
        async with in_process_daemon(tmp_path / "daemon") as running:
            source = write_source(tmp_path / "source")
            mirror = await mirrored(running, source, "active" if what == "active" else "passive")
            if what == "blocked":
                await running.client.call("package.remove", channel="main", family="conda", spec="p1")
            assert (await running.run(mirror)).state == "failed"
            begun = "SELECT count(*) FROM change_set WHERE state = 'abandoned'"
            assert await asyncio.to_thread(counted, running.state, begun) == 0

    asyncio.run(check())


def test_a_run_ends_as_it_should_where_no_end_of_its_set_can_be_written(tmp_path: Path) -> None:
    async def check() -> None:
        async with in_process_daemon(tmp_path / "daemon") as running:
            db = running.daemon.db
            db.hold(lambda: NoSpace("nothing is left"))
            await running.daemon.take_in.abandon(Begun(1))
            db.release()

    asyncio.run(check())


@pytest.mark.parametrize(
    ("beside", "blocked", "early"),
    [
        ("linux-64", False, True),
        pytest.param(None, False, True, marks=pytest.mark.deep),
        pytest.param("noarch", False, False, marks=pytest.mark.deep),
        pytest.param(None, True, False, marks=pytest.mark.deep),
    ],
)
def test_what_is_rendered_while_it_is_read_is_shown_where_there_is_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, beside: str | None, blocked: bool, early: bool
) -> None:
    """What is shown is what is rendered from rows where the channel has another mirror too."""

    async def shown(folder: Path, source: str, *, others: bool) -> list[list[tuple[object, ...]]]:
        async with in_process_daemon(folder) as running:
            mirror = await mirrored(running, source)
            if others:
                await running.client.call("mirror.create", channel="main", name="n", type="conda", source=source)
            if blocked:
                await running.client.call("package.remove", channel="main", family="conda", spec="absent")
            caplog.clear()
            done = await running.run(mirror)
            assert (done.state, done.counts.added) == ("completed", RECORDS)
            assert (SHOWN in caplog.messages) is (early and not others)
            assert list((running.state / "rendered" / "work").iterdir()) == []
            queries = (OBJECTS, DIGESTS, PACKAGES)
            return [await asyncio.to_thread(found, running.state, query) for query in queries]

    async def check() -> None:
        source = write_source(tmp_path / "source")
        (tmp_path / "source" / "noarch" / "repodata.json").write_text('{"packages": {}}')
        if beside is not None:
            exports = {"packages.conda": {"p1-1-0.conda": {"run_exports": {"weak": ["p1"]}}}}
            (tmp_path / "source" / beside / "run_exports.json").write_text(json.dumps(exports))
        first = await shown(tmp_path / "alone", source, others=False)
        assert ("linux-64/run_exports.json" in {row[0] for row in first[0]}) is (beside == "linux-64")
        assert await shown(tmp_path / "other", source, others=True) == first

    caplog.set_level(logging.INFO)
    asyncio.run(check())
