"""The only place that writes what happened: numbered facts, and what is wrong (health)."""

import json
from collections.abc import Callable
from typing import Any

from firth_protocol.events import Fact, cursor
from firth_protocol.types import Event, HealthProblem, Json
from firthd.clock import Clock, rfc3339
from firthd.store.database import Reader, Row, Tx

EVENTS_KEPT_MS = 30 * 86_400_000

Publish = Callable[[int, Event], None]


class Journal:
    """Writes facts inside the caller's transaction and publishes them once it is committed."""

    def __init__(self, epoch: str, clock: Clock) -> None:
        self.epoch = epoch
        self._clock = clock
        self.publish: Publish = lambda seq, event: None

    async def fact(self, tx: Tx, fact: Fact, *, ids: Json | None = None, data: Json | None = None) -> int:
        """Write one fact; return its number. `ids["channel"]` says whose it is for callers limited to some."""
        ids, data = ids or {}, data or {}
        now = self._clock.now_ms()
        seq = await tx.insert(
            "INSERT INTO event(time, topic, type, channel, ids, data) VALUES (?, ?, ?, ?, ?, ?)",
            (now, fact.topic, fact, ids.get("channel"), json.dumps(ids), json.dumps(data)),
        )
        event = Event(
            cursor=cursor(self.epoch, seq), time=rfc3339(now), topic=fact.topic, type=fact, ids=ids, data=data
        )
        tx.after_commit(lambda: self.publish(seq, event))
        return seq

    async def as_of(self, reader: Reader) -> str:
        """Return the cursor of the newest fact in this view of the state."""
        return cursor(self.epoch, await newest(reader))

    async def after(self, reader: Reader, seq: int, limit: int) -> list[tuple[int, Event]]:
        """Return the facts after number `seq`, in order."""
        rows = await reader.rows(
            "SELECT seq, time, topic, type, ids, data FROM event WHERE seq > ? ORDER BY seq LIMIT ?", (seq, limit)
        )
        return [(row[0], self._event(row)) for row in rows]

    def _event(self, row: Row) -> Event:
        seq, time, topic, kind, ids, data = row
        return Event(
            cursor=cursor(self.epoch, seq),
            time=rfc3339(time),
            topic=topic,
            type=kind,
            ids=json.loads(ids),
            data=json.loads(data),
        )


async def newest_at(r: Reader) -> int | None:
    """Return when the newest fact was written, in milliseconds; None where there is none."""
    found = await r.value("SELECT max(time) FROM event")
    return None if found is None else int(found)


async def newest(reader: Reader) -> int:
    """Return the number of the newest fact ever written, 0 when there is none."""
    return int(await reader.value("SELECT seq FROM sqlite_sequence WHERE name = 'event'") or 0)


async def span(reader: Reader) -> tuple[int, int]:
    """Return the number before the oldest fact kept, and that of the newest."""
    last = await newest(reader)
    oldest = await reader.value("SELECT min(seq) FROM event")
    return (int(oldest) - 1 if oldest is not None else last, last)


async def forget_old_events(tx: Tx, now_ms: int) -> int:
    """Take away facts older than 30 days, at most 5,000 at a time; return how many."""
    return await tx.execute(
        "DELETE FROM event WHERE seq IN (SELECT seq FROM event WHERE time < ? ORDER BY seq LIMIT 5000)",
        (now_ms - EVENTS_KEPT_MS,),
    )


# --- health ------------------------------------------------------------------------------------------


async def ill(tx: Tx, subject: str, text: str, hint: str, now_ms: int) -> bool:
    """Note that something is wrong; the first moment stays. Return whether it was well before."""
    row = await tx.row("SELECT 1 FROM health WHERE subject = ?", (subject,))
    await tx.execute(
        "INSERT INTO health(subject, text, hint, since) VALUES (?, ?, ?, ?)"
        " ON CONFLICT(subject) DO UPDATE SET text = excluded.text, hint = excluded.hint",
        (subject, text, hint, now_ms),
    )
    return row is None


async def well(tx: Tx, subject: str) -> bool:
    """Note that something is right again; return whether it was wrong."""
    return bool(await tx.execute("DELETE FROM health WHERE subject = ?", (subject,)))


async def health(reader: Reader) -> list[HealthProblem]:
    rows = await reader.rows("SELECT subject, text, hint, since FROM health ORDER BY since, subject")
    return [HealthProblem(subject=row[0], text=row[1], hint=row[2], since=rfc3339(row[3])) for row in rows]


# --- settings that the state itself keeps --------------------------------------------------------------


async def setting(reader: Reader, key: str) -> str | None:
    value: Any = await reader.value("SELECT value FROM setting WHERE key = ?", (key,))
    return None if value is None else str(value)


async def set_setting(tx: Tx, key: str, value: str) -> None:
    await tx.execute(
        "INSERT INTO setting(key, value) VALUES (?, ?) ON CONFLICT(key) DO UPDATE SET value = excluded.value",
        (key, value),
    )
