"""The only place that reads and writes the state database: one writer with grouped commits, a few readers."""

import asyncio
import contextlib
import errno
import logging
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Protocol, TypeVar

import aiosqlite

from firth_protocol.errors import FirthError, Unavailable
from firthd.clock import Clock
from firthd.store import disk, opening

log = logging.getLogger(__name__)
T = TypeVar("T")
Row = tuple[Any, ...]

GROUP_LIMIT = 64
"""Writes that share one commit at the most."""
GROUP_SECONDS = 0.05
"""How long a group of writes may grow before it is committed."""


class Reader:
    """One consistent view of the state, held for one short read."""

    def __init__(self, connection: aiosqlite.Connection) -> None:
        self._connection = connection

    async def rows(self, sql: str, params: Sequence[Any] | dict[str, Any] = ()) -> list[Row]:
        return list(await self._connection.execute_fetchall(sql, params))  # type: ignore[arg-type]

    async def row(self, sql: str, params: Sequence[Any] | dict[str, Any] = ()) -> Row | None:
        found = await self.rows(sql, params)
        return found[0] if found else None

    async def value(self, sql: str, params: Sequence[Any] | dict[str, Any] = ()) -> Any:
        """Return the first column of the first row, or None."""
        found = await self.row(sql, params)
        return found[0] if found else None


class Tx(Reader):
    """The one write transaction in progress. What is handed to `after_commit` happens once it is durable."""

    def __init__(self, connection: aiosqlite.Connection, companion: "Companion | None" = None) -> None:
        super().__init__(connection)
        self.after: list[Callable[[], None]] = []
        self.companion = companion

    async def execute(self, sql: str, params: Sequence[Any] | dict[str, Any] = ()) -> int:
        """Run one statement; return how many rows it changed."""
        cursor = await self._connection.execute(sql, params)
        count = cursor.rowcount
        await cursor.close()
        return count

    async def insert(self, sql: str, params: Sequence[Any] | dict[str, Any] = ()) -> int:
        """Run one INSERT; return the new row's id."""
        cursor = await self._connection.execute(sql, params)
        rowid = cursor.lastrowid
        await cursor.close()
        assert rowid is not None
        return rowid

    async def many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        cursor = await self._connection.executemany(sql, rows)
        await cursor.close()

    def after_commit(self, action: Callable[[], None]) -> None:
        self.after.append(action)


class Companion(Protocol):
    """What goes with the changes of one caller, in their own transactions."""

    async def changed(self, tx: Tx, *, more: bool) -> None:
        """Write beside what `tx` has changed; `more`: another transaction of the same change follows."""


# By context, not by argument: the line of a call goes with whatever transaction comes first, rooms below the call.
_companion: ContextVar[Companion | None] = ContextVar("companion", default=None)
_more: ContextVar[bool] = ContextVar("more", default=False)


@contextlib.contextmanager
def accompanied(companion: Companion) -> Iterator[None]:
    """Let a companion go with every transaction that this task queues inside the block and that changes anything."""
    token = _companion.set(companion)
    try:
        yield
    finally:
        _companion.reset(token)


def companion() -> Companion | None:
    """Return what goes with this task's transactions, if anything does."""
    return _companion.get()


@contextlib.contextmanager
def more_to_come(when: bool = True) -> Iterator[None]:
    """Say of the transactions inside the block that they are not the last of their change."""
    token = _more.set(when or _more.get())
    try:
        yield
    finally:
        _more.reset(token)


class _Write:
    __slots__ = ("after", "body", "companion", "future", "lasting", "more", "outside", "result")

    def __init__(
        self, body: Callable[[Tx], Awaitable[Any]], future: asyncio.Future[Any], outside: bool, lasting: bool
    ) -> None:
        self.body = body
        self.future = future
        self.lasting = lasting
        self.outside = outside  # needs the connection outside of a transaction (ATTACH)
        self.companion = _companion.get()
        self.more = _more.get()
        self.after: list[Callable[[], None]] = []
        self.result: Any = None


class Database:
    """The state database of one folder."""

    def __init__(self, path: Path, writer: aiosqlite.Connection, readers: list[aiosqlite.Connection]) -> None:
        self.path = path
        self._writer = writer
        self._readers: asyncio.Queue[aiosqlite.Connection] = asyncio.Queue()
        for reader in readers:
            self._readers.put_nowait(reader)
        self._queue: asyncio.Queue[_Write | None] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        self._open_readers = len(readers)
        self._closed = False
        self._held: Callable[[], FirthError] | None = None
        self._retry: Callable[[], Awaitable[None]] | None = None
        self._read_only = False
        self._lasting = True
        self.changes = 0
        """Rises when anything has been changed: what was found out before may be true no more."""
        self.refusal: disk.Refusal | None = None  # why the disk took no write; None since it took one again

    @classmethod
    async def open(cls, path: Path, clock: Clock) -> "Database":
        """Open or create the state at `path`, migrate it, and start the writer.

        On a disk that takes no write the state is opened for reading only, until `reopen`. Before a migration the
        file is copied beside itself. Raises SchemaTooNew when a newer daemon wrote the state, NoSpace and Unavailable
        when such a disk keeps it from being made or migrated.
        """
        writer, readers, refused = await opening.open_state(path, clock.now_ms())
        database = cls(path, writer, readers)
        database._task = asyncio.create_task(database._work(), name="state writer")
        if refused is not None:
            database._note_read_only(refused)
        return database

    def hold(self, error: Callable[[], FirthError], retry: Callable[[], Awaitable[None]] | None = None) -> None:
        """Refuse every write with an error until `release`: what must come first has not been written.

        `retry` tries that again, and is awaited before a write is refused: there may be room by now.
        """
        self._held, self._retry = error, retry

    @property
    def held(self) -> FirthError | None:
        """What every write is refused with, None when writes are taken."""
        return self._held() if self._held is not None else None

    def release(self) -> None:
        self._held = None

    async def reopen(self, now_ms: int) -> None:
        """Open a state that is open for reading only as usual; reads wait meanwhile. Raises as `open` does."""
        if not self._read_only:
            return
        refused = await asyncio.to_thread(disk.ask, self.path.parent)
        if refused is not None:
            raise refused.error()
        work = asyncio.ensure_future(self._open_again(now_ms))
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            await asyncio.wait([work])
            raise

    async def _open_again(self, now_ms: int) -> None:
        while self._open_readers:
            await (await self._readers.get()).close()
            self._open_readers -= 1
        await self._writer.close()  # without -shm the file belongs to these connections alone
        self._writer, readers, refused = await opening.open_state(self.path, now_ms)
        self._lasting = True
        self._read_only, self.refusal = refused is not None, refused
        self._open_readers = len(readers)
        for reader in readers:
            self._readers.put_nowait(reader)
        if refused is not None:
            raise refused.error()

    def _note_read_only(self, refused: disk.Refusal) -> None:
        self._read_only, self.refusal = True, refused
        self.hold(refused.error)

    async def look_again(self) -> None:
        """Ask the disk whether it takes writes: where it did not, and where it says that nothing is left."""
        folder = self.path.parent
        if self.refusal is not None or await asyncio.to_thread(disk.has_nothing_left, folder):
            self.refusal = await asyncio.to_thread(disk.ask, folder)

    async def close(self) -> None:
        """Finish the writes in the queue, then close every connection."""
        if self._closed:
            return
        self._closed = True
        self._queue.put_nowait(None)
        if self._task is not None:
            await self._task
        for _ in range(self._open_readers):
            await (await self._readers.get()).close()  # one that is read with comes back first
        await self._writer.close()

    async def write(self, body: Callable[[Tx], Awaitable[T]], *, lasting: bool = True) -> T:
        """Run `body` inside a transaction and return its result once that is durable.

        `lasting` False does not wait for the disk: a crash of the machine may take it, and all of the kind behind it.
        It is durable once anything is that is written later; so it is for what counts for nothing before that.

        `body` awaits only the transaction's own methods. Bodies queued at the same time share one commit, each in
        a savepoint of its own. Cancelling the caller does not undo a write that is queued.
        """
        return await self._submit(body, outside=False, lasting=lasting)

    async def outside(self, body: Callable[[Tx], Awaitable[T]]) -> T:
        """Run `body` on the writer's connection outside of any transaction (ATTACH, DETACH, checkpoint)."""
        return await self._submit(body, outside=True)

    async def _submit(self, body: Callable[[Tx], Awaitable[T]], *, outside: bool, lasting: bool = True) -> T:
        if self._held is not None and self._retry is not None and not self._closed:
            await self._retry()
        if self._closed:
            raise Unavailable("the daemon is stopping", hint="try again when it is up")
        if self._held is not None:
            raise self._held()
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._queue.put_nowait(_Write(body, future, outside, lasting))
        return await asyncio.shield(future)

    async def read(self, body: Callable[[Reader], Awaitable[T]]) -> T:
        """Run `body` over one consistent view of the state and return its result."""
        if self._closed:
            raise Unavailable("the daemon is stopping", hint="try again when it is up")
        connection = await self._readers.get()
        try:
            # Cancelled while it begins, the transaction is open all the same: the thread does what it was asked.
            await connection.execute("BEGIN")
            return await body(Reader(connection))
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_READONLY:
                raise  # whoever writes in a read is wrong; the disk has nothing to do with it
            raise await self._told(error, "read") from error
        finally:
            try:
                with contextlib.suppress(sqlite3.Error):  # what broke the read is told already
                    await asyncio.shield(connection.rollback())
            finally:
                self._readers.put_nowait(connection)

    # --- the writer -------------------------------------------------------------------------------

    async def _work(self) -> None:
        stopping = False
        then: _Write | None = None  # what could not be in the group before
        while not stopping:
            first = then or await self._queue.get()
            then = None
            if first is None:
                break
            if first.outside:
                await self._run_outside(first)
                continue
            group, stopping, then = await self._run_group(first)
            await self._commit(group)

    async def _run_group(self, first: _Write) -> tuple[list[_Write], bool, _Write | None]:
        """Run `first` and what is queued behind it in one transaction; return what waits for its commit."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + GROUP_SECONDS
        try:
            if first.lasting is not self._lasting:
                await self._writer.execute(f"PRAGMA synchronous={'FULL' if first.lasting else 'NORMAL'}")
                self._lasting = first.lasting
            await self._writer.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            await self._fail(first, error)
            return [], False, None
        group: list[_Write] = []
        write: _Write | None = first
        while write is not None:
            if await self._run_one(write):
                group.append(write)
            write = None
            if not self._writer.in_transaction:
                break  # a full disk has undone the whole group; what comes next begins anew
            if len(group) < GROUP_LIMIT and loop.time() < deadline and not self._queue.empty():
                write = self._queue.get_nowait()
                if write is None:
                    return group, True, None
                if write.outside or write.lasting > first.lasting:
                    return group, False, write
        return group, False, None

    async def _run_one(self, write: _Write) -> bool:
        tx = Tx(self._writer, write.companion)
        try:
            await self._writer.execute("SAVEPOINT one")
            before = self._writer.total_changes
            write.result = await write.body(tx)
            if write.companion is not None and self._writer.total_changes != before:
                await write.companion.changed(tx, more=write.more)
            await self._writer.execute("RELEASE one")
        except BaseException as error:
            with contextlib.suppress(sqlite3.Error):  # a full disk has rolled everything back already
                await self._writer.execute("ROLLBACK TO one")
                await self._writer.execute("RELEASE one")
            await self._fail(write, error)
            return False
        write.after = tx.after
        return True

    async def _commit(self, group: list[_Write]) -> None:
        try:
            if not self._writer.in_transaction and group:
                raise self._full().error()
            await self._writer.commit()
        except BaseException as error:
            log.error("state could not be committed: %s", error)
            with contextlib.suppress(sqlite3.Error):
                await self._writer.rollback()
            for write in group:
                await self._fail(write, error)
            return
        self.changes += 1
        for write in group:
            for action in write.after:
                try:
                    action()
                except Exception:  # it is written; whoever is told of it does not stop the writer
                    log.exception("what follows a write failed")
            if not write.future.done():
                write.future.set_result(write.result)

    async def _run_outside(self, write: _Write) -> None:
        try:
            result = await write.body(Tx(self._writer))
        except BaseException as error:
            await self._fail(write, error)
            return
        finally:
            self.changes += 1
        if not write.future.done():
            write.future.set_result(result)

    async def _fail(self, write: _Write, error: BaseException) -> None:
        if isinstance(error, sqlite3.Error):
            error = await self._told(error, "written")
        if not write.future.done():
            write.future.set_exception(error)
            write.future.exception()  # a caller that went away does not make it an unretrieved error

    async def _told(self, error: sqlite3.Error, done: str) -> BaseException:
        """Return what a caller is told of SQLite's error; one of the disk is an error that may pass."""
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_FULL:
            return self._full().error()
        if code not in _PASSING:
            return error
        # A used up quota and lacking room for the -shm are input/output errors to SQLite.
        if code in _OF_THE_DISK and (refused := await asyncio.to_thread(disk.ask, self.path.parent)):
            self.refusal = refused
            if done == "written":
                return refused.error()
        return Unavailable(f"the state cannot be {done}: {error}", hint="look at the state's disk; try again")

    def _full(self) -> disk.Refusal:
        self.refusal = disk.Refusal(number=errno.ENOSPC, folder=self.path.parent)
        return self.refusal

    # --- a run's own file beside the state -----------------------------------------------------------

    @contextlib.asynccontextmanager
    async def attached(self, path: Path) -> AsyncIterator[str]:
        """Attach a run's file to the writer; give the schema's name under which its tables stand."""
        name = f"run_{abs(hash(str(path))) % 10**12}"

        attached = False

        async def attach(tx: Tx) -> None:
            nonlocal attached
            await tx.execute(f"ATTACH ? AS {name}", (opening.uri(path, "ro"),))
            attached = True

        async def detach(tx: Tx) -> None:
            if attached:
                await tx.execute(f"DETACH {name}")

        try:
            await self.outside(attach)  # a caller cancelled here has it in the queue already
            yield name
        finally:
            await asyncio.shield(self.outside(detach))


_OF_THE_DISK = frozenset({sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY})
_PASSING = _OF_THE_DISK | {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
"""What is wrong with the disk or with somebody else's lock, not with a statement."""
