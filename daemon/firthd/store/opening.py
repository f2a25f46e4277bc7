"""The only place that opens the state database's file: migrations, what each connection is told, a full disk."""

import asyncio
import logging
import sqlite3
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import aiosqlite

from firth_protocol.errors import Invalid, Unavailable
from firthd.store import disk
from firthd.store.disk import sync

log = logging.getLogger(__name__)

READERS = 3


class SchemaTooNew(Exception):
    """The state folder was written by a newer version of the daemon."""


def uri(path: Path, mode: str) -> str:
    """Return a file as SQLite's URI; `#`, `?` and `%` in a folder's name would end or change a plain one."""
    return f"{path.absolute().as_uri()}?mode={mode}"


Connections = tuple[aiosqlite.Connection, list[aiosqlite.Connection], disk.Refusal | None]
"""The writer, the readers, and why the state can only be read (None: it can be written)."""


async def open_state(path: Path, now_ms: int) -> Connections:
    """Migrate and open the state; on a disk that takes no write open it for reading, as far as that goes."""
    try:
        await asyncio.to_thread(migrate, path, now_ms)
        writer = await _connect(uri(path, "rwc"), [*_EACH, *_WRITER])
        readers = [await _connect(uri(path, "ro"), [*_EACH, *_READER]) for _ in range(READERS)]
    except (sqlite3.Error, OSError) as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in {sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT}:
            raise Invalid(f"{path} is damaged: {error}", hint="restore it from a backup, or move it away") from error
        refused = await asyncio.to_thread(disk.ask, path.parent)
        if refused is None:
            raise Unavailable(
                f"{path} cannot be opened: {error}", hint="look at the disk and at who owns it"
            ) from error
    else:
        # SQLite opens what it cannot write for reading, and stays with that when the mount is mended.
        refused = await asyncio.to_thread(disk.ask, path.parent)
        return writer, readers, refused if refused is not None and not refused.full else None
    log.warning("%s; it is served as it is, and nothing is changed until that is over", refused.text)
    connections = await _open_to_read(path, refused)
    return connections[0], connections[1:], refused


async def _open_to_read(path: Path, refused: disk.Refusal) -> list[aiosqlite.Connection]:
    """Open a state without writing: `unix-excl` keeps in memory what else is the -shm.

    It makes a -wal where there is none, which takes an inode; a state that ended in order has nothing in there and
    can be read as a file that nobody changes. Raises SchemaTooNew, and the refusal where the state is none yet, needs
    a migration or cannot be read.
    """
    wal = path.with_name(path.name + "-wal")
    ways = [(f"{uri(path, 'rw')}&vfs=unix-excl", [*_EACH, *_READER])]
    if not wal.exists() or not wal.stat().st_size:
        ways.append((f"{uri(path, 'ro')}&immutable=1", [*_EACH, *_READER]))
    newest = migrations()[-1][0]
    for address, statements in ways:
        opened: list[aiosqlite.Connection] = []
        try:
            for _ in range(1 + READERS):
                opened.append(await _connect(address, statements))  # noqa: PERF401 - closed below where one fails
            version = int(next(iter(await opened[0].execute_fetchall("PRAGMA user_version")))[0])
        except sqlite3.Error:
            version = -1
        if version == newest:
            return opened
        for connection in opened:
            await connection.close()
        if version > newest:
            raise _too_new(path, version, newest)
        if version >= 0:
            error = refused.error()
            raise type(error)(f"{error.message}; it must be migrated before it is served", hint=error.hint)
    raise refused.error()


_EACH = ("PRAGMA foreign_keys=ON", "PRAGMA busy_timeout=5000", "PRAGMA temp_store=MEMORY")
_READER = ("PRAGMA query_only=ON", "PRAGMA cache_size=-8000")
_WRITER = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    "PRAGMA wal_autocheckpoint=4000",
    "PRAGMA journal_size_limit=67108864",
    "PRAGMA cache_size=-16000",
)


async def _connect(address: str, statements: Sequence[str]) -> aiosqlite.Connection:
    connection = await aiosqlite.connect(address, uri=True, isolation_level=None)
    try:
        for statement in statements:
            cursor = await connection.execute(statement)
            await cursor.close()
    except sqlite3.Error:
        await connection.close()
        raise
    return connection


def migrations() -> list[tuple[int, str]]:
    """Return the numbered migrations in order: (number, SQL)."""
    folder = resources.files("firthd.store") / "migrations"
    found = [
        (int(entry.name.split("_")[0]), entry.read_text("utf-8"))
        for entry in folder.iterdir()
        if entry.name.endswith(".sql")
    ]
    return sorted(found)


def migrate(path: Path, now_ms: int) -> None:
    """Bring the database at `path` to the newest schema; raise SchemaTooNew when it is beyond that. Blocks."""
    steps = migrations()
    newest = steps[-1][0]
    existed = path.exists()
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        version = int(connection.execute("PRAGMA user_version").fetchone()[0])
        if version > newest:
            raise _too_new(path, version, newest)
        if version == newest:
            return
        if existed and version:
            _copy_aside(connection, path.with_name(f"{path.name}.schema-{version}.{now_ms}"))
        for number, sql in steps:
            if number > version:
                connection.executescript(f"BEGIN IMMEDIATE;\n{sql}\nPRAGMA user_version={number};\nCOMMIT;")
    finally:
        connection.close()


def _too_new(path: Path, version: int, newest: int) -> SchemaTooNew:
    return SchemaTooNew(
        f"{path} has schema {version}, this daemon knows up to {newest}: start the newer daemon again, "
        "or restore the copy that it made beside the state before it migrated"
    )


def _copy_aside(connection: sqlite3.Connection, copy: Path) -> None:
    """Copy a database so that its copy is whole and durable, or not there.

    SQLite writes the copy out of one read view. Copying the file needs a checkpoint before it, and one that somebody's
    open read view keeps from finishing leaves a file that is malformed without its write-ahead log.
    """
    part = copy.with_name(copy.name + ".part")
    part.unlink(missing_ok=True)
    connection.execute("VACUUM INTO ?", (str(part),))
    for place in (part, part.parent):
        sync(place)
    part.replace(copy)
