"""The state database: grouped commits, isolation, cancellation, a full disk, closing, migrations."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from firth_protocol.errors import NoSpace, Unavailable
from firthd.store.database import GROUP_LIMIT, Database, Reader, Tx
from firthd.store.journal import set_setting, setting
from firthd.store.opening import READERS, SchemaTooNew, migrate, migrations
from tests.support.clock import FakeClock
from tests.support.state import opened, write_run_file

NEWEST = migrations()[-1][0]


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[Database]:
    async with opened(tmp_path) as database:
        yield database


class Gate:
    """A write that keeps the writer busy until it is let go."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.go = asyncio.Event()

    async def body(self, tx: Tx) -> None:
        self.reached.set()
        await self.go.wait()


async def put(db: Database, key: str, value: str = "1") -> None:
    await db.write(lambda tx: set_setting(tx, key, value))


async def keys(db: Database) -> list[str]:
    return [row[0] for row in await db.read(lambda r: r.rows("SELECT key FROM setting ORDER BY key"))]


async def settled(tasks: list[asyncio.Task[Any]]) -> list[BaseException | None]:
    await asyncio.wait(tasks)
    return [task.exception() for task in tasks]


async def _write(db: Database, body: "Body") -> object:
    return await db.write(body)


Body = Callable[[Tx], Awaitable[object]]


async def queued(db: Database, *bodies: Body) -> tuple[Gate, list[asyncio.Task[Any]]]:
    """Queue bodies behind one that holds the writer, so that they are written together."""
    gate = Gate()
    first = asyncio.create_task(db.write(gate.body))
    await gate.reached.wait()
    tasks: list[asyncio.Task[Any]] = [asyncio.create_task(_write(db, body)) for body in bodies]
    await asyncio.sleep(0)  # each task runs up to its place in the queue
    return gate, [first, *tasks]


# --- writes ----------------------------------------------------------------------------------------------


async def test_a_write_is_durable_and_its_result_comes_back(db: Database) -> None:
    assert await db.write(lambda tx: tx.insert("INSERT INTO token(name, hash, created_at, created_by)"
                                               " VALUES ('a', x'00', 0, 'me')")) == 1  # fmt: skip
    with closing(sqlite3.connect(db.path)) as other:
        assert other.execute("SELECT name FROM token").fetchall() == [("a",)]


async def test_writes_that_wait_together_become_visible_together(db: Database) -> None:
    seen: list[int] = []

    async def body(tx: Tx) -> None:
        seen.append(len(await keys(db)))
        await set_setting(tx, f"k{len(seen)}", "1")

    gate, tasks = await queued(db, body, body, body)
    gate.go.set()
    assert await settled(tasks) == [None] * 4
    assert seen == [0, 0, 0]
    assert await keys(db) == ["k1", "k2", "k3"]


async def test_a_group_has_a_limit(db: Database) -> None:
    seen: list[int] = []

    async def body(tx: Tx) -> None:
        seen.append(len(await keys(db)))
        await set_setting(tx, f"k{len(seen)}", "1")

    gate, tasks = await queued(db, *[body] * (2 * GROUP_LIMIT))
    gate.go.set()
    await settled(tasks)
    assert len(await keys(db)) == 2 * GROUP_LIMIT
    assert len(set(seen)) >= 2
    for before in set(seen):
        assert seen.count(before) <= GROUP_LIMIT


async def test_a_failing_body_is_undone_alone(db: Database) -> None:
    async def wrong(tx: Tx) -> None:
        await set_setting(tx, "wrong", "1")
        raise ValueError("no")

    async def bad_sql(tx: Tx) -> None:
        await set_setting(tx, "bad", "1")
        await tx.execute("INSERT INTO mirror(id) VALUES (1)")

    gate, tasks = await queued(
        db, lambda tx: set_setting(tx, "a", "1"), wrong, lambda tx: set_setting(tx, "b", "1"), bad_sql
    )
    gate.go.set()
    told = await settled(tasks)
    assert [type(one) for one in told] == [type(None), type(None), ValueError, type(None), sqlite3.IntegrityError]
    assert await keys(db) == ["a", "b"]


async def test_foreign_keys_hold(db: Database) -> None:
    with pytest.raises(sqlite3.IntegrityError, match="FOREIGN KEY"):
        await db.write(lambda tx: tx.execute("INSERT INTO run_log VALUES (99, 1, 0, 'info', NULL, 'a line of no run')"))


async def test_a_cancelled_caller_does_not_undo_a_queued_write(db: Database) -> None:
    gate, tasks = await queued(db, lambda tx: set_setting(tx, "a", "1"))
    tasks[1].cancel()
    with pytest.raises(asyncio.CancelledError):
        await tasks[1]
    gate.go.set()
    await tasks[0]
    await db.write(lambda tx: tx.value("SELECT 1"))
    assert await keys(db) == ["a"]


async def test_what_follows_a_commit_happens_in_order_after_it_and_only_then(db: Database) -> None:
    heard: list[str] = []

    def telling(name: str, error: Exception | None = None):  # type: ignore[no-untyped-def]
        async def body(tx: Tx) -> None:
            tx.after_commit(lambda: heard.append(name))
            if error is not None:
                raise error

        return body

    gate, tasks = await queued(db, telling("a"), telling("lost", ValueError()), telling("b"))
    assert heard == []
    gate.go.set()
    await settled(tasks)
    assert heard == ["a", "b"]


async def test_a_listener_that_fails_does_not_stop_the_writer(db: Database) -> None:
    def fail() -> None:
        raise RuntimeError("a listener's own mistake")

    async def body(tx: Tx) -> str:
        await set_setting(tx, "a", "1")
        tx.after_commit(fail)
        return "written"

    assert await db.write(body) == "written"
    await put(db, "b")
    assert await keys(db) == ["a", "b"]


# --- reads -----------------------------------------------------------------------------------------------


async def test_a_reader_sees_one_view_while_others_write(db: Database) -> None:
    await put(db, "a")

    async def body(r: Reader) -> tuple[int, int]:
        before = await r.value("SELECT count(*) FROM setting")
        await put(db, "b")
        return before, await r.value("SELECT count(*) FROM setting")

    assert await db.read(body) == (1, 1)
    assert await keys(db) == ["a", "b"]


async def test_a_reader_cannot_write(db: Database) -> None:
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        await db.read(lambda r: r.rows("INSERT INTO setting VALUES ('a', '1')"))
    assert await keys(db) == []


async def test_an_uncommitted_write_is_not_seen(db: Database) -> None:
    written, go = asyncio.Event(), asyncio.Event()

    async def body(tx: Tx) -> None:
        await set_setting(tx, "a", "1")
        written.set()
        await go.wait()

    task = asyncio.create_task(db.write(body))
    await written.wait()
    assert await keys(db) == []
    go.set()
    await task
    assert await keys(db) == ["a"]


async def test_more_readers_than_connections_wait_their_turn(db: Database) -> None:
    inside = 0
    most = 0
    go = asyncio.Event()

    async def body(r: Reader) -> int:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        if inside == READERS:
            go.set()
        await go.wait()
        inside -= 1
        return int(await r.value("SELECT 1"))

    assert await asyncio.gather(*(db.read(body) for _ in range(3 * READERS))) == [1] * 3 * READERS
    assert most == READERS


async def test_reads_cancelled_at_any_moment_leave_the_connections_usable(db: Database) -> None:
    async def body(r: Reader) -> int:
        return int(await r.value("SELECT count(*) FROM setting"))

    for turns in range(12):
        for _ in range(READERS):
            task = asyncio.create_task(db.read(body))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
    assert await asyncio.gather(*(db.read(body) for _ in range(2 * READERS))) == [0] * 2 * READERS
    await put(db, "a")
    assert await asyncio.gather(*(db.read(body) for _ in range(2 * READERS))) == [1] * 2 * READERS


async def test_a_read_that_fails_gives_its_connection_back(db: Database) -> None:
    async def body(r: Reader) -> None:
        raise ValueError("no")

    for _ in range(2 * READERS):
        with pytest.raises(ValueError, match="no"):
            await db.read(body)
    assert await keys(db) == []


# --- a full disk -----------------------------------------------------------------------------------------


async def fill(db: Database) -> None:
    """Let the database grow no more."""

    async def body(tx: Tx) -> None:
        await tx.rows(f"PRAGMA max_page_count = {await tx.value('PRAGMA page_count')}")

    await db.outside(body)


async def free(db: Database) -> None:
    await db.outside(lambda tx: tx.rows("PRAGMA max_page_count = 1000000"))


async def big(tx: Tx) -> None:
    await set_setting(tx, "big", "x" * 500_000)


async def test_a_full_disk_is_told_and_passes(db: Database) -> None:
    await put(db, "a")
    await fill(db)
    with pytest.raises(NoSpace, match="disk is full"):
        await db.write(big)
    assert await keys(db) == ["a"]
    await put(db, "a", "2")  # what needs no more room goes on
    await free(db)
    await db.write(big)
    assert await keys(db) == ["a", "big"]


async def test_a_full_disk_never_says_written_of_what_is_not_nor_the_other_way_round(db: Database) -> None:
    await put(db, "old")
    await fill(db)
    heard: list[str] = []

    def small(name: str):  # type: ignore[no-untyped-def]
        async def body(tx: Tx) -> None:
            await tx.execute("UPDATE setting SET value = ? WHERE key = 'old'", (name,))
            tx.after_commit(lambda: heard.append(name))

        return body

    gate, tasks = await queued(db, small("before"), big, small("after"), small("last"))
    gate.go.set()
    told = await settled(tasks)
    written = [name for name, one in zip(["before", "big", "after", "last"], told[1:], strict=True) if one is None]
    assert "big" not in written
    assert all(one is None or isinstance(one, NoSpace) for one in told)
    assert heard == written
    assert await db.read(lambda r: setting(r, "old")) == written[-1]
    assert await keys(db) == ["old"]


async def test_somebody_elses_lock_is_told_as_passing(tmp_path: Path) -> None:
    async with opened(tmp_path) as db:
        await db.outside(lambda tx: tx.rows("PRAGMA busy_timeout = 10"))
        with closing(sqlite3.connect(db.path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(Unavailable, match="locked"):
                await put(db, "a")
            other.execute("ROLLBACK")
        await put(db, "b")
        assert await keys(db) == ["b"]


# --- a run's file ----------------------------------------------------------------------------------------


async def test_a_run_file_is_attached_for_as_long_as_the_block_lasts(db: Database, tmp_path: Path) -> None:
    path = tmp_path / "run #1 100%.sqlite"
    await write_run_file(path, add=[("numpy-1.0", None)])
    async with db.attached(path) as name:
        assert await db.write(lambda tx: tx.value(f'SELECT filename FROM {name}."add"')) == "numpy-1.0.conda"
        with pytest.raises(Unavailable, match="readonly"):
            await db.write(lambda tx: tx.execute(f'DELETE FROM {name}."add"'))
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        await db.write(lambda tx: tx.value(f'SELECT 1 FROM {name}."add"'))


async def test_many_run_files_come_and_go(db: Database, tmp_path: Path) -> None:
    path = tmp_path / "run.sqlite"
    await write_run_file(path)
    for _ in range(15):  # SQLite attaches ten at the most
        async with db.attached(path):
            pass
        with pytest.raises(ValueError, match="no"):
            async with db.attached(path):
                raise ValueError("no")


async def test_a_run_cancelled_while_it_attaches_leaves_nothing_attached(db: Database, tmp_path: Path) -> None:
    path = tmp_path / "run.sqlite"
    await write_run_file(path)

    async def attach() -> None:
        async with db.attached(path):
            await asyncio.sleep(60)

    for turns in range(1, 12):
        task = asyncio.create_task(attach())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
    attached = await db.outside(lambda tx: tx.rows("PRAGMA database_list"))
    assert [row[1] for row in attached] == ["main"]


async def test_a_run_file_that_is_not_there_is_an_error_and_the_writer_goes_on(db: Database, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="unable to open"):
        async with db.attached(tmp_path / "absent.sqlite"):
            pytest.fail("there is nothing to attach")
    await put(db, "a")
    assert await keys(db) == ["a"]


# --- closing ---------------------------------------------------------------------------------------------


async def test_closing_finishes_what_is_queued_and_takes_no_more(tmp_path: Path) -> None:
    db = await Database.open(tmp_path / "firth.sqlite", FakeClock())
    tasks = [asyncio.create_task(put(db, f"k{number}")) for number in range(3)]
    await asyncio.sleep(0)
    await db.close()
    assert await settled(tasks) == [None] * 3
    for refused in (put(db, "late"), keys(db), db.outside(lambda tx: tx.value("SELECT 1"))):
        with pytest.raises(Unavailable, match="stopping"):
            await refused
    await db.close()  # twice is no error
    async with opened(tmp_path) as again:
        assert await keys(again) == ["k0", "k1", "k2"]
    assert not (tmp_path / "firth.sqlite-wal").exists()


async def test_closing_waits_for_a_read_in_progress(tmp_path: Path) -> None:
    db = await Database.open(tmp_path / "firth.sqlite", FakeClock())
    inside, go = asyncio.Event(), asyncio.Event()

    async def body(r: Reader) -> int:
        inside.set()
        await go.wait()
        return int(await r.value("SELECT 7"))

    reading = asyncio.create_task(db.read(body))
    await inside.wait()
    closing_it = asyncio.create_task(db.close())
    await asyncio.sleep(0)
    go.set()
    await closing_it
    assert await reading == 7


@pytest.mark.parametrize("name", ["a#b", "a?b", "a%20b", "ä b"])
async def test_any_folder_name_will_do(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    async with opened(folder) as db:
        await put(db, "a")
        assert await keys(db) == ["a"]
    assert [path.name for path in tmp_path.iterdir()] == [name]


# --- migrations ------------------------------------------------------------------------------------------


def version(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])


def test_migrations_are_numbered_without_a_hole() -> None:
    assert [number for number, _ in migrations()] == list(range(1, len(migrations()) + 1))


async def test_a_new_state_has_the_newest_schema_and_no_copy(tmp_path: Path) -> None:
    async with opened(tmp_path) as db:
        assert await db.read(lambda r: r.value("PRAGMA foreign_keys")) == 1
    assert version(tmp_path / "firth.sqlite") == NEWEST
    assert [path.name for path in tmp_path.iterdir()] == ["firth.sqlite"]


async def test_a_newer_schema_is_refused_and_stays_as_it_is(tmp_path: Path) -> None:
    async with opened(tmp_path) as db:
        await put(db, "a")
    path = tmp_path / "firth.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 999")
    with pytest.raises(SchemaTooNew, match="schema 999"):
        await Database.open(path, FakeClock())
    assert version(path) == 999
    assert [path.name for path in tmp_path.iterdir()] == ["firth.sqlite"]


def test_an_older_schema_is_copied_beside_itself_before_it_is_migrated(tmp_path: Path) -> None:
    path = tmp_path / "firth.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE old(value)")
        connection.execute("INSERT INTO old VALUES ('precious')")
        connection.execute("PRAGMA user_version = -1")  # older than any migration
        connection.commit()
        migrate(path, 1234)  # while what was written last is still in the write-ahead log
    assert version(path) == NEWEST
    copy = tmp_path / "firth.sqlite.schema--1.1234"
    assert version(copy) == -1
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("SELECT value FROM old").fetchall() == [("precious",)]
    before = sorted(path.name for path in tmp_path.iterdir())
    migrate(path, 5678)  # nothing to do, no copy
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_migration_that_fails_leaves_the_old_schema(tmp_path: Path) -> None:
    path = tmp_path / "firth.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE token(other)")  # stands in the way of the first migration
        connection.execute("PRAGMA user_version = -1")
        connection.commit()
    with pytest.raises(sqlite3.OperationalError, match="token"):
        migrate(path, 1)
    assert version(path) == -1
    with closing(sqlite3.connect(path)) as connection:
        tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert tables == {"token"}


async def test_a_write_that_need_not_last_shares_no_commit_with_one_that_must(db: Database) -> None:
    """The disk is waited for once anything is to last, and then all that was written before it does."""
    told: list[tuple[str, int]] = []

    def body(name: str) -> Body:
        async def some(tx: Tx) -> None:
            told.append((name, int(await tx.value("PRAGMA synchronous"))))
            await set_setting(tx, name, "1")

        return some

    gate = Gate()
    first = asyncio.create_task(_write(db, gate.body))
    await gate.reached.wait()
    kinds = [("a", False), ("b", True), ("c", False), ("d", False), ("e", True)]
    tasks = [asyncio.create_task(db.write(body(name), lasting=lasting)) for name, lasting in kinds]
    await asyncio.sleep(0)
    gate.go.set()
    assert await settled([first, *tasks]) == [None] * 6
    assert [name for name, _ in told] == ["a", "b", "c", "d", "e"]
    full, normal = 2, 1
    assert all(level == full for name, level in told if dict(kinds)[name])
    gate = Gate()
    first = asyncio.create_task(db.write(gate.body, lasting=False))
    await gate.reached.wait()
    tasks = [
        asyncio.create_task(db.write(body(name), lasting=lasting)) for name, lasting in (("f", False), ("g", True))
    ]
    await asyncio.sleep(0)
    gate.go.set()
    assert await settled([first, *tasks]) == [None] * 3
    assert told[-2:] == [("f", normal), ("g", full)]
    assert set(await keys(db)) >= set("abcdefg")
