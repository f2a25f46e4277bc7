"""States that release 0.1.0 wrote: they serve what they served after the migration, and doubled rows are mended."""

import asyncio
import hashlib
import json
import shutil
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import zstandard

from firth_protocol.types import RunKind, RunState
from firthd.store.opening import migrate, migrations
from tests.support.clock import START_MS
from tests.support.daemon import HastyClock, Running, in_process_daemon
from tests.support.states.stored import unpack

pytestmark = pytest.mark.timeout(120)

DOUBLED = (
    "SELECT count(*) FROM (SELECT 1 FROM artifact WHERE closed_set IS NULL"
    " GROUP BY channel_id, mirror_id, family, part, section, filename HAVING count(*) > 1)"
)


@asynccontextmanager
async def migrated(folder: Path, which: str, *sql: str) -> AsyncIterator[tuple[Running, dict[str, Any]]]:
    """Give a daemon on a stored state, at the time at which it was stored; `sql` changes the state before."""
    served = await asyncio.to_thread(unpack, folder, which)
    for statement in sql:
        await asyncio.to_thread(execute, folder / "state" / "firth.sqlite", statement)
    clock = HastyClock()
    clock.shift_ms = served["made_at_ms"] - clock.now_ms()
    async with in_process_daemon(folder, clock=clock) as daemon:
        for run in (await daemon.client.call("run.list")).items:
            assert (await daemon.ended(run.id)).state is RunState.COMPLETED
        yield daemon, served


def execute(path: Path, sql: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection, connection:
        return connection.execute(sql).fetchall()


async def asked(daemon: Running, served: dict[str, Any], paths: list[str]) -> dict[str, dict[str, Any]]:
    """Ask for addresses; return what came, as `served` notes it."""
    found = {}
    async with aiohttp.ClientSession(auto_decompress=False) as http:
        for path in paths:
            token = served["token"] if "/secret/" in path else ""
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            async with http.get(daemon.url + path, headers=headers) as reply:
                body = await reply.read()
                found[path] = {
                    "status": reply.status,
                    "sha256": hashlib.sha256(body).hexdigest(),
                    "etag": reply.headers.get("ETag"),
                }
    return found


def keys(document: bytes) -> list[str]:
    """Return every key of the records of an index, those that stand there twice twice."""
    found: list[str] = []

    def collect(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found.extend(key for key, value in pairs if isinstance(value, dict) and "sha256" in value)
        return dict(pairs)

    json.loads(document, object_pairs_hook=collect)
    return found


async def get(daemon: Running, path: str) -> bytes:
    async with aiohttp.ClientSession() as http, http.get(daemon.url + path) as reply:
        assert reply.status == 200, path
        return await reply.read()


async def sound(daemon: Running) -> None:
    async def look(r: Any) -> list[Any]:
        return [
            await r.value("PRAGMA integrity_check"),
            await r.rows("PRAGMA foreign_key_check"),
            await r.value(DOUBLED),
        ]

    assert await daemon.daemon.db.read(look) == ["ok", [], 0]


async def test_a_migrated_state_serves_the_same_bytes_at_every_address_and_fetches_nothing(tmp_path: Path) -> None:
    async with migrated(tmp_path, "plain") as (daemon, served):
        await sound(daemon)
        assert await asked(daemon, served, list(served["answers"])) == served["answers"]
        assert len(served["answers"]) > 500
        named = (
            "SELECT count(DISTINCT a.channel_id || hex(a.sha256)), (SELECT count(*) FROM delivered)"
            " FROM artifact a JOIN blob b ON b.sha256 = a.sha256"
        )
        rows = await daemon.daemon.db.read(lambda r: r.row(named))
        assert rows is not None
        assert rows[0] == rows[1] > 0
        assert "firthd" not in {run.by for run in (await daemon.client.call("run.list")).items}  # none published anew


async def test_doubled_rows_are_mended_and_what_kept_generations_show_stays(tmp_path: Path) -> None:
    async with migrated(tmp_path, "doubled") as (daemon, served):
        await sound(daemon)
        anew = [f"/repo/twice/{subdir}/repodata.json" for subdir in ("noarch", "linux-64")]
        packed = {f"{path}.zst" for path in anew}  # another level of compression than that of the release before
        same = {path: answer for path, answer in served["answers"].items() if path not in packed}
        assert await asked(daemon, served, list(same)) == same
        for path in anew:
            text = zstandard.ZstdDecompressor().decompressobj().decompress(await get(daemon, f"{path}.zst"))
            assert hashlib.sha256(text).hexdigest() == served["answers"][path]["sha256"]
        for channel, artifacts in (("twice", 8), ("iced", 16), ("turned", 16)):
            assert (await daemon.client.call("channel.get", channel=channel)).families[0].artifacts == artifacts
        await daemon.ended((await daemon.client.call("channel.unfreeze", channel="iced")).run.id)
        mended = await daemon.client.call("channel.get", channel="iced")
        assert (mended.generation, mended.families[0].artifacts, mended.families[0].stored) == (4, 8, 8)
        document = await get(daemon, "/repo/iced/noarch/repodata.json")
        assert Counter(keys(document)) == Counter({f"pkg{number}-1.0-0.conda": 1 for number in range(5)})
        files = {path: answer for path, answer in served["answers"].items() if path.endswith("0.conda")}
        assert await asked(daemon, served, list(files)) == files
        for channel in ("iced", "twice"):
            package = await daemon.client.call("package.get", channel=channel, family="conda", name="pkg0")
            assert len(package.files) == 1
        again = await daemon.client.call("channel.unfreeze", channel="turned")
        await daemon.ended(again.run.id)
        shown = (await daemon.client.call("channel.get", channel="turned")).families[0]
        assert shown.artifacts == 8
        record = json.loads(await get(daemon, "/repo/turned/noarch/repodata.json"))["packages.conda"][
            "pkg0-1.0-0.conda"
        ]
        file = await get(daemon, "/repo/turned/noarch/pkg0-1.0-0.conda")
        assert record["sha256"] == hashlib.sha256(file).hexdigest()


async def test_a_channel_that_is_not_frozen_is_rendered_anew_by_itself_once(tmp_path: Path) -> None:
    async with migrated(tmp_path, "doubled", "UPDATE channel SET frozen_at = NULL") as (daemon, _):
        mended = await daemon.client.call("channel.get", channel="iced")
        assert (mended.generation, mended.families[0].artifacts) == (4, 8)
        generation = (await daemon.client.call("channel.generations", channel="iced")).items[0]
        assert (generation.added, generation.removed) == (0, 0)
        runs = (await daemon.client.call("run.list", kind=RunKind.PUBLISH)).items
        mending = [run for run in runs if run.by == "firthd"]
        assert len(mending) == 3
    async with in_process_daemon(tmp_path) as daemon:
        runs = (await daemon.client.call("run.list", kind=RunKind.PUBLISH)).items
        assert [run.id for run in runs if run.by == "firthd"] == [run.id for run in mending]


async def test_the_migrated_state_works_on(tmp_path: Path) -> None:
    async with migrated(tmp_path, "doubled") as (daemon, _):
        mirror = await daemon.client.call("mirror.get", mirror="twice:m")
        reply = await daemon.client.call("mirror.delete", mirror=mirror.id, confirm="m", packages="keep")
        assert (reply.kept, reply.dropped) == (8, 0)
        await daemon.ended(reply.run.id)
        await sound(daemon)
        assert len(keys(await get(daemon, "/repo/twice/noarch/repodata.json"))) == 5


# --- the migration alone ------------------------------------------------------------------------------------------


def old_state(path: Path, sets: list[str], rows: list[tuple[int, int, int | None]]) -> None:
    """Write a state of schema 1: change sets 1, 2 ... by their state; rows of one file (id, added_set, closed_set)."""
    (first, sql), *_ = migrations()
    assert first == 1
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript(sql)
        connection.execute("PRAGMA user_version = 1")
        connection.execute("INSERT INTO channel(id, name, privacy, created_at, updated_at) VALUES (1,'a','public',0,0)")
        connection.executemany(
            "INSERT INTO change_set(id, channel_id, cause, state, number, closed, created_at)"
            " VALUES (?, 1, 'removal', ?, ?, 0, 0)",
            [(n, state, n if state == "published" else None) for n, state in enumerate(sets, 1)],
        )
        connection.executemany(
            "INSERT INTO artifact(id, channel_id, mirror_id, family, subdir, section, filename, name, version, build,"
            " build_number, declared, fingerprint, added_set, closed_set)"
            " VALUES (?, 1, 0, 'conda', 'noarch', 'packages', 'f-1-0.tar.bz2', 'f', '1', '0', 0, 0, x'00', ?, ?)",
            rows,
        )


@pytest.mark.parametrize(
    ("sets", "rows", "after", "closed"),
    [
        pytest.param(
            ["published"] * 3, [(1, 1, None), (2, 2, None), (3, 3, None)], [(1, 2), (2, 3), (3, None)], 0, id="a chain"
        ),
        pytest.param(
            ["published", "finished"], [(1, 1, None), (2, 2, None)], [(1, 2), (2, None)], 1, id="a draft closes more"
        ),
        pytest.param(
            ["published", "open", "published"],
            [(1, 1, None), (2, 2, None), (3, 3, None)],
            [(1, 3), (3, None)],
            0,
            id="a crash between",
        ),
        pytest.param(["published", "abandoned"], [(1, 1, 2), (2, 2, None)], [(1, None)], 0, id="what was cut off goes"),
        pytest.param(
            ["published", "published", "open"],
            [(1, 1, None), (2, 2, 3), (3, 3, None)],
            [(1, 2), (2, None)],
            0,
            id="what was cut off had closed the newer",
        ),
        pytest.param(["published"], [(1, 1, None), (2, 1, None)], [(1, 1), (2, None)], 0, id="twice in one set"),
    ],
)
def test_each_doubled_row_ends_where_the_next_begins(
    tmp_path: Path,
    sets: list[str],
    rows: list[tuple[int, int, int | None]],
    after: list[tuple[int, int | None]],
    closed: int,
) -> None:
    path = tmp_path / "firth.sqlite"
    old_state(path, sets, rows)
    migrate(path, START_MS)
    assert execute(path, "SELECT id, closed_set FROM artifact ORDER BY id") == after
    assert execute(path, "SELECT sum(closed) FROM change_set") == [(closed,)]
    assert execute(path, "SELECT added_set, closed_set FROM offered") == [(1, None)]
    doubled = len(after) > 1
    assert execute(path, "SELECT render_anew FROM channel") == [(int(doubled),)]
    with pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):
        execute(
            path,
            "INSERT INTO artifact SELECT 9, channel_id, mirror_id, family, part, section, filename, name,"
            " version, build, build_number, size, sha256, md5, declared, license, timestamp, fingerprint, 1, NULL,"
            " NULL FROM artifact WHERE closed_set IS NULL",
        )


def test_names_are_offered_where_a_file_of_theirs_was_there(tmp_path: Path) -> None:
    path = tmp_path / "firth.sqlite"
    states = ["published", "published", "published", "published", "published", "finished", "abandoned"]
    old_state(path, states, [(1, 1, 3), (2, 2, 3), (3, 3, 4), (4, 5, 6), (5, 6, 7), (6, 7, None)])
    migrate(path, START_MS)
    assert execute(path, "SELECT added_set, closed_set FROM offered ORDER BY id") == [(1, 4), (5, None)]
    assert execute(path, "SELECT mirror_id, family, part, name FROM offered") == [(0, "conda", "noarch", "f")] * 2


@pytest.mark.parametrize("proven", [None, 1])
def test_names_that_clients_cannot_split_are_left_out_anew_and_no_size_is_0(tmp_path: Path, proven: int | None) -> None:
    path = tmp_path / "firth.sqlite"
    old_state(path, ["published"], [(1, 1, None)])
    with closing(sqlite3.connect(path)) as connection:
        for version, sql in migrations()[1:6]:
            connection.executescript(f"BEGIN; {sql}; PRAGMA user_version = {version}; COMMIT;")
    execute(path, "DELETE FROM setting WHERE key = 'proven above'")  # nothing was there when schema 4 came
    if proven is not None:
        execute(path, f"INSERT INTO setting(key, value) VALUES ('proven above', {proven})")
    execute(path, "UPDATE artifact SET filename = 'f-1.conda', size = 0")
    execute(path, "UPDATE artifact SET id = 7")
    migrate(path, START_MS)
    assert execute(path, "SELECT size FROM artifact") == [(None,)]
    assert execute(path, "SELECT render_anew FROM channel") == [(1,)]
    assert execute(path, "SELECT CAST(value AS INTEGER) FROM setting WHERE key = 'proven above'") == [(7,)]


def test_an_interrupted_migration_leaves_the_old_state(tmp_path: Path) -> None:
    path = tmp_path / "firth.sqlite"
    old_state(path, ["published"] * 2, [(1, 1, None), (2, 2, None)])
    execute(path, "CREATE TABLE delivered(other)")  # stands in the way near the end
    shutil.copy(path, tmp_path / "before")
    with pytest.raises(sqlite3.OperationalError, match="delivered"):
        migrate(path, START_MS)
    assert execute(path, "PRAGMA user_version") == [(1,)]
    assert execute(path, "SELECT id, closed_set FROM artifact") == [(1, None), (2, None)]
