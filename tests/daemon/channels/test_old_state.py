"""A daemon that starts on a state of the first schema serves the same bytes, and goes on publishing from there."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

from firth_protocol.types import RunState
from firthd.store.opening import migrations
from tests.support.conda import ChannelFolder, PackageSpec
from tests.support.daemon import HastyClock, Running, in_process_daemon
from tests.support.served import named, on_disk, rows, until, variants

FIRST_SCHEMA = (
    # What the first schema said of the same files: one row a kept generation, shards by their hash alone.
    """
    INSERT INTO published_file SELECT o.channel_id, g.number, o.family, o.path, o.sha256, o.size, o.encoding IS NULL
    FROM object o JOIN generation g ON g.channel_id = o.channel_id AND g.kept AND o.since <= g.number
    AND (o.until IS NULL OR o.until > g.number) WHERE NOT o.lasting
    """,
    "INSERT OR IGNORE INTO shard SELECT channel_id, sha256, file, offset, size FROM object WHERE lasting",
    "DROP TABLE object",
    "DROP TABLE pack",
    "DROP TABLE unnamed_file",
    "DROP INDEX package_number",
)
OBJECTS = next(number for number, sql in migrations() if "CREATE TABLE object (" in sql)


def turn_back(path: Path) -> None:
    """Rewrite a state as the first schema would hold it."""
    first = migrations()[0][1]
    with closing(sqlite3.connect(path, isolation_level=None)) as state:
        for table in ("published_file", "shard"):
            begin = first.index(f"CREATE TABLE {table} (")
            state.execute(first[begin : first.index(";", begin)])
        for statement in FIRST_SCHEMA:
            state.execute(statement)
        state.execute(f"PRAGMA user_version = {OBJECTS - 1}")


async def snapshots(daemon: Running) -> dict[tuple[int, str], dict[str, bytes]]:
    found = {}
    for (number,) in rows(daemon.state, "SELECT number FROM generation WHERE kept ORDER BY number"):
        for subdir in ("noarch", "linux-64") if number > 1 else ("noarch",):
            found[number, subdir] = await variants(daemon.url, f"/snapshot/{number}/main", subdir)
    return found


async def history(daemon: Running, source: ChannelFolder) -> None:
    """Publish four times, go back to the second one; a draft waits."""
    await daemon.client.call("channel.create", name="main")
    await daemon.client.call(
        "mirror.create", channel="main", name="m", type="conda", mode="passive", source=source.path.as_uri()
    )
    for name in ("a", "b", "c"):
        source.add(PackageSpec(name=name), PackageSpec(name=f"{name}x", subdir="linux-64"))
        await daemon.run("main:m")
    reply = await daemon.client.call("channel.rollback", channel="main", generation=2)
    assert (await daemon.ended(reply.run.id)).state is RunState.COMPLETED
    source.add(PackageSpec(name="d"))
    await daemon.run("main:m")


async def test_an_old_state_serves_the_same_and_goes_on(tmp_path: Path) -> None:
    source = ChannelFolder(tmp_path / "source", ("noarch", "linux-64"))
    async with in_process_daemon(tmp_path) as daemon:
        await history(daemon, source)
        before = await snapshots(daemon)
        files = on_disk(daemon.state)
    await asyncio.to_thread(turn_back, tmp_path / "state" / "firth.sqlite")
    clock = HastyClock()
    async with in_process_daemon(tmp_path, clock=clock) as daemon:
        assert rows(daemon.state, "SELECT count(*) FROM object WHERE path LIKE 'shards/%'")[0][0] == 6
        assert await snapshots(daemon) == before
        assert on_disk(daemon.state) <= files  # nothing was rendered anew

        reply = await daemon.client.call("channel.unfreeze", channel="main")
        assert (await daemon.ended(reply.run.id)).generation == 6
        now = await variants(daemon.url)
        assert b'"d-1.0-0.conda"' in now["repodata.json"]
        assert b'"cx-1.0-0.conda"' in (await variants(daemon.url, subdir="linux-64"))["repodata.json"]
        # From now on rows say which index names a shard, of the subdir too that was not rendered.
        in_force = rows(daemon.state, "SELECT path FROM object WHERE lasting AND until IS NULL")
        assert sorted(path.partition("/")[0] for (path,) in in_force) == ["linux-64"] * 3 + ["noarch"] * 4
        assert (
            rows(daemon.state, "SELECT count(DISTINCT file) FROM object WHERE path LIKE 'linux-64/shards/%'")[0][0] == 3
        )
        assert {key: value for key, value in (await snapshots(daemon)).items() if key[0] < 6} == before
        clock.shift_ms += 2 * 60_000
        await until(lambda: on_disk(daemon.state) == named(daemon.state))
