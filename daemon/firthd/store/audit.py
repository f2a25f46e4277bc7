"""The only place that writes the audit log: each line goes with the first transaction of the change that it tells of.

A change of one transaction writes its line, outcome and all, in that transaction. One of several begins with the
outcome `begun` (see `database.more_to_come`), the last sets it, and a start sets `interrupted` for what was cut off.
So at no moment is there a change without its line, nor a finished outcome without its change.
"""

import json
import logging
from contextlib import AbstractContextManager

import msgspec
from msgspec import Struct

from firth_protocol.types import AuditEntry, Json, Role
from firthd.clock import rfc3339
from firthd.store import paging
from firthd.store.database import Database, Reader, Tx, accompanied, companion
from firthd.store.paging import Cut

log = logging.getLogger(__name__)

OK, BEGUN, INTERRUPTED = "ok", "begun", "interrupted"


class Audited(Struct, frozen=True, kw_only=True):
    """Who called what, with the secrets masked, and how it ended."""

    time_ms: int
    uid: int
    pid: int
    user: str
    role: Role
    method: str
    params: Json
    outcome: str = BEGUN


class AuditLine:
    """The line of one call: beside the call's own transactions, and written alone when the call is refused."""

    def __init__(self, db: Database, entry: Audited) -> None:
        self._db = db
        self._entry = entry
        self._id: int | None = None
        self._outcome = ""
        self._written_in: tuple[Tx, int] | None = None  # not committed yet: a full disk may take it back
        self._ended = False

    @property
    def entry(self) -> Audited:
        """Who called what."""
        return self._entry

    def beside(self) -> AbstractContextManager[None]:
        """Write the line with the first transaction inside this block that changes anything."""
        return accompanied(self)

    async def changed(self, tx: Tx, *, more: bool) -> None:
        """Write the line or its new outcome; called inside a transaction that has changed something."""
        if not self._ended:
            await self.write(tx, BEGUN if more else OK)

    async def write(self, tx: Tx, outcome: str) -> int:
        """Write the line with an outcome inside `tx`; return its id."""
        line = self._written_in[1] if self._written_in is not None and self._written_in[0] is tx else self._id
        if line is None:
            line = await insert(tx, msgspec.structs.replace(self._entry, outcome=outcome))
        else:
            await tx.execute("UPDATE audit SET outcome = ? WHERE id = ? AND outcome <> ?", (outcome, line, outcome))
        self._written_in = (tx, line)
        tx.after_commit(lambda: self._committed(line, outcome))
        return line

    def _committed(self, line: int, outcome: str) -> None:
        self._id, self._outcome = line, outcome

    async def end(self, outcome: str) -> None:
        """Set how the call has ended; a refusal that changed nothing gets a line now, a success none."""
        self._ended = True
        if self._outcome == outcome or (self._id is None and outcome == OK):
            return
        await self._db.write(lambda tx: self.write(tx, outcome))


class StepLine(AuditLine):
    """The line of one step of a call that does the work of several: the call's own line begins no later."""

    def __init__(self, db: Database, entry: Audited, call: AuditLine) -> None:
        super().__init__(db, entry)
        self._call = call

    async def changed(self, tx: Tx, *, more: bool) -> None:
        await self._call.changed(tx, more=True)
        await super().changed(tx, more=more)


class AuditLog:
    """Opens the lines of calls."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def open(self, entry: Audited) -> AuditLine:
        """Return the line of a call that begins."""
        return AuditLine(self._db, entry)

    def step(self, method: str, params: Json) -> AuditLine | None:
        """Return the line of a step of the call that this task carries out; None where no line goes with it.

        It says what was called on the way, and by whom the whole was. `params` hold no secret.
        """
        call = companion()
        if not isinstance(call, AuditLine):
            return None
        return StepLine(self._db, msgspec.structs.replace(call.entry, method=method, params=params), call)


async def line_of(tx: Tx) -> int | None:
    """Return the id of the line that goes with this transaction, None when no call is behind it."""
    line = tx.companion
    return await line.write(tx, BEGUN) if isinstance(line, AuditLine) else None


async def interrupt_begun(tx: Tx) -> int:
    """Say of changes that a crash has cut off between two of their transactions that they were; return how many."""
    return await tx.execute("UPDATE audit SET outcome = ? WHERE outcome = ?", (INTERRUPTED, BEGUN))


async def insert(tx: Tx, entry: Audited) -> int:
    """Write one line; return its id."""
    return await tx.insert(
        "INSERT INTO audit(time, uid, pid, user, role, method, params, outcome) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            entry.time_ms,
            entry.uid,
            entry.pid,
            entry.user,
            entry.role,
            entry.method,
            json.dumps(entry.params),
            entry.outcome,
        ),
    )


async def page(reader: Reader, *, query: str | None, cursor: str | None, limit: int) -> Cut[AuditEntry]:
    """Return a page of audit entries, newest first."""
    rows = await reader.rows(
        "SELECT id, time, uid, pid, user, role, method, params, outcome FROM audit"
        " WHERE (:before IS NULL OR id < :before)"
        " AND (:query IS NULL OR instr(lower(method || ' ' || user || ' ' || params || ' ' || outcome), lower(:query)))"
        " ORDER BY id DESC LIMIT :limit",
        {"before": paging.decode(cursor, "audit")["page_key"], "query": query, "limit": limit + 1},
    )
    found = [
        AuditEntry(
            id=row[0],
            time=rfc3339(row[1]),
            uid=row[2],
            pid=row[3],
            user=row[4],
            role=Role(row[5]),
            method=row[6],
            params=json.loads(row[7]),
            outcome=row[8],
        )
        for row in rows
    ]
    items, following = paging.cut("audit", found, limit, lambda entry: (None, entry.id))
    return Cut(items=items, following=following)
