"""The only place with the SQL of runs: their rows, logs and failures."""

from typing import Any

import msgspec
from msgspec import Struct

from firth_protocol.types import Json, LogLine, RunCounts, RunError, RunKind, RunState, StepName, StepState
from firthd.clock import rfc3339
from firthd.store import paging
from firthd.store.columns import selected
from firthd.store.database import Reader, Row, Tx

LOG_LIMIT = 20_000
"""Lines of log that one run may leave behind."""


class StepRow(Struct, frozen=True, kw_only=True):
    """A step of a run; times in ms."""

    name: StepName
    state: StepState = StepState.WAITING
    done: int = 0
    total: int | None = None
    unit: str = ""
    description: str = ""
    started_at: int | None = None
    finished_at: int | None = None


class RunRow(Struct, frozen=True, kw_only=True):
    id: int
    kind: RunKind
    state: RunState
    channel_id: int | None  # None: a run of the store
    mirror_id: int | None
    cause: str
    by: str
    params: Json
    created_at: int
    started_at: int | None
    finished_at: int | None
    steps: list[StepRow]
    counts: RunCounts
    bytes_done: int
    bytes_total: int | None
    waiting_for: str | None
    generation: int | None
    error: RunError | None
    notes: list[str]
    result: Json | None
    requeued: int
    verified_bytes: int
    channel: str  # "" for a run of the store: no channel has that name
    mirror_name: str | None


_JSON: dict[str, Any] = {
    "params": Json,
    "steps": list[StepRow],
    "counts": RunCounts,
    "error": RunError,
    "notes": list[str],
    "result": Json,
}
_RUN = selected(RunRow.__struct_fields__, "r", channel="coalesce(c.name, '')", mirror_name="m.name")
_FROM = "run r LEFT JOIN channel c ON c.id = r.channel_id LEFT JOIN mirror m ON m.id = r.mirror_id"


def _run(row: Row) -> RunRow:
    values = dict(zip(RunRow.__struct_fields__, row, strict=True))
    for field, kind in _JSON.items():
        if values[field] is not None:
            values[field] = msgspec.json.decode(values[field], type=kind)
    values["kind"] = RunKind(values["kind"])
    values["state"] = RunState(values["state"])
    return RunRow(**values)


async def insert_run(
    tx: Tx,
    *,
    kind: RunKind,
    channel_id: int | None,
    mirror_id: int | None,
    cause: str,
    by: str,
    params: Json,
    steps: list[StepRow],
    requeued: int,
    notes: list[str],
    now_ms: int,
) -> int:
    return await tx.insert(
        "INSERT INTO run(kind, state, channel_id, mirror_id, cause, by, params, created_at, steps, requeued, notes)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            kind,
            RunState.PENDING,
            channel_id,
            mirror_id,
            cause,
            by,
            msgspec.json.encode(params).decode(),
            now_ms,
            msgspec.json.encode(steps).decode(),
            requeued,
            msgspec.json.encode(notes).decode(),
        ),
    )


_COLUMNS = frozenset(RunRow.__struct_fields__[6:-2]) | {"state"}


async def update_run(tx: Tx, run_id: int, changes: dict[str, Any]) -> None:
    """Set columns of a run; structs and lists are stored as JSON."""
    assert changes.keys() <= _COLUMNS, changes.keys() - _COLUMNS
    values = {
        field: msgspec.json.encode(value).decode() if field in _JSON and value is not None else value
        for field, value in changes.items()
    }
    sets = ", ".join(f"{field} = :{field}" for field in values)
    await tx.execute(f"UPDATE run SET {sets} WHERE id = :id", {**values, "id": run_id})


async def run_by_id(r: Reader, run_id: int) -> RunRow | None:
    row = await r.row(f"SELECT {_RUN} FROM {_FROM} WHERE r.id = ?", (run_id,))
    return _run(row) if row else None


async def open_runs(r: Reader) -> list[RunRow]:
    """Return the runs that have not ended, oldest first."""
    rows = await r.rows(f"SELECT {_RUN} FROM {_FROM} WHERE r.state IN ('pending', 'running', 'stopping') ORDER BY r.id")
    return [_run(row) for row in rows]


async def mirrored_since(r: Reader, mirror_id: int, run_id: int) -> bool:
    """Tell whether a later mirror run of a mirror has come to its end."""
    return bool(
        await r.value(
            "SELECT EXISTS (SELECT 1 FROM run WHERE mirror_id = ? AND id > ? AND kind = ? AND state IN (?, ?))",
            (mirror_id, run_id, RunKind.MIRROR, RunState.COMPLETED, RunState.INCOMPLETE),
        )
    )


RUN_ORDERS = {
    "id": "r.id",
    "channel": "coalesce(c.name, '')",
    "mirror": "coalesce(m.name, '')",
    "kind": "r.kind",
    "state": "r.state",
    "began": "coalesce(r.started_at, r.created_at)",
    "duration": "coalesce(r.finished_at - r.started_at, -1)",
    "added": "coalesce(json_extract(r.counts, '$.added'), 0)",
}


async def runs_page(
    r: Reader,
    *,
    mirror_id: int | None,
    channel_id: int | None,
    kind: RunKind | None,
    state: RunState | None,
    sort: str,
    cursor: str | None,
    limit: int,
    patterns: paging.Patterns,
    store: bool = False,
) -> tuple[list[RunRow], str | None, int]:
    """Return a page of runs, the cursor of the next, and how many there are in all; `store`: its own too."""
    by = paging.order(sort, RUN_ORDERS)
    seen, params = paging.visible("c.name", patterns)
    where = (
        f"((r.channel_id IS NULL AND :store) OR (r.channel_id IS NOT NULL AND {seen}))"
        " AND (:mirror IS NULL OR r.mirror_id = :mirror) AND (:channel IS NULL OR r.channel_id = :channel)"
        " AND (:kind IS NULL OR r.kind = :kind) AND (:state IS NULL OR r.state = :state)"
    )
    values = {
        **params,
        **paging.decode(cursor, sort),
        "mirror": mirror_id,
        "channel": channel_id,
        "kind": kind,
        "state": state,
        "store": int(store),
        "limit": limit + 1,
    }
    rows = await r.rows(
        f"SELECT {_RUN}, {by.sql} FROM {_FROM} WHERE {where} AND {by.beyond('r.id')}"
        f" ORDER BY {by.clause('r.id')} LIMIT :limit",
        values,
    )
    total = await r.value(f"SELECT count(*) FROM {_FROM} WHERE {where}", values)
    page, following = paging.cut(sort, rows, limit, lambda row: (row[-1], row[0]))
    return [_run(row[:-1]) for row in page], following, int(total)


async def broken_off_backups(r: Reader) -> list[str]:
    """Return where backups were to go that were at work when their daemon ended, or were stopped."""
    rows = await r.rows(
        "SELECT DISTINCT json_extract(params, '$.path') FROM run WHERE kind = ? AND (state = ? OR state = ?"
        " AND json_extract(error, '$.kind') = 'interrupted')",
        (RunKind.BACKUP, RunState.STOPPED, RunState.FAILED),
    )
    return [str(row[0]) for row in rows]


async def stored_since(r: Reader, moment_ms: int) -> bool:
    """Tell whether any file has come into the store since a moment."""
    return bool(await r.value("SELECT EXISTS (SELECT 1 FROM blob WHERE created_at >= ?)", (moment_ms,)))


async def write_log(tx: Tx, run_id: int, lines: list[tuple[int, int, str, str | None, str]]) -> None:
    """Append log lines: (number, time in ms, level, step, text)."""
    await tx.many(
        "INSERT OR IGNORE INTO run_log(run_id, number, time, level, step, text) VALUES (?, ?, ?, ?, ?, ?)",
        [(run_id, *line) for line in lines if line[0] <= LOG_LIMIT],
    )


async def log_page(r: Reader, run_id: int, after: int, limit: int) -> list[LogLine]:
    rows = await r.rows(
        "SELECT number, time, level, step, text FROM run_log WHERE run_id = ? AND number > ? ORDER BY number LIMIT ?",
        (run_id, after, limit),
    )
    return [
        LogLine(
            number=row[0],
            time=rfc3339(row[1]),
            level=row[2],
            step=StepName(row[3]) if row[3] else None,
            text=row[4],
        )
        for row in rows
    ]


async def last_line(r: Reader, run_id: int) -> int:
    return int(await r.value("SELECT coalesce(max(number), 0) FROM run_log WHERE run_id = ?", (run_id,)))


class Failure(Struct, frozen=True, kw_only=True):
    part: str
    filename: str
    reason: str
    attempts: int


async def write_failures(tx: Tx, run_id: int, failures: list[Failure]) -> None:
    await tx.many(
        "INSERT OR REPLACE INTO run_failure(run_id, part, filename, reason, attempts) VALUES (?, ?, ?, ?, ?)",
        [(run_id, *msgspec.structs.astuple(failure)) for failure in failures],
    )


async def forget_failures(tx: Tx, run_id: int) -> None:
    await tx.execute("DELETE FROM run_failure WHERE run_id = ?", (run_id,))


async def failures(r: Reader, run_id: int, limit: int) -> list[Failure]:
    rows = await r.rows(
        "SELECT part, filename, reason, attempts FROM run_failure WHERE run_id = ? ORDER BY part, filename LIMIT ?",
        (run_id, limit),
    )
    return [Failure(part=row[0], filename=row[1], reason=row[2], attempts=row[3]) for row in rows]


async def failure_reasons(r: Reader, run_id: int, limit: int) -> list[tuple[str, int]]:
    """Return why files could not be had, each with how many; a file's own name is left out of its reason."""
    rows = await r.rows(
        "SELECT replace(reason, filename, '…') AS why, count(*) FROM run_failure WHERE run_id = ?"
        " GROUP BY why ORDER BY 2 DESC, 1 LIMIT ?",
        (run_id, limit),
    )
    return [(row[0], row[1]) for row in rows]


async def count_failures(r: Reader, run_id: int) -> int:
    return int(await r.value("SELECT count(*) FROM run_failure WHERE run_id = ?", (run_id,)))
