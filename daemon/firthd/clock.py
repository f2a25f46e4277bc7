"""The only place that knows the time: wall clock, monotonic clock, sleeping, and RFC 3339."""

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """What the rest of the daemon asks about time; tests pass one that they move themselves."""

    def now_ms(self) -> int:
        """Return the wall-clock time, milliseconds since the epoch, UTC."""

    def monotonic(self) -> float:
        """Return seconds of a clock that never goes back."""

    async def sleep(self, seconds: float) -> None:
        """Wait; can be cancelled."""


class SystemClock:
    """The machine's clock."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        import asyncio  # 40 ms, in processes that have no loop

        await asyncio.sleep(seconds)


def rfc3339(ms: int) -> str:
    """Return the moment `ms` as RFC 3339 in UTC with milliseconds: 2026-05-01T00:00:00.000Z."""
    moment = datetime.fromtimestamp(ms // 1000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{ms % 1000:03d}Z"


def maybe_rfc3339(ms: int | None) -> str | None:
    """Return `rfc3339(ms)`, or None for None."""
    return None if ms is None else rfc3339(ms)


def from_rfc3339(text: str) -> int:
    """Return milliseconds since the epoch of an RFC 3339 time; raise ValueError when it is not one or has no zone."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone; write it with Z")
    return round(moment.timestamp() * 1000)


def utc(ms: int) -> datetime:
    """Return the moment `ms` as an aware datetime in UTC."""
    return datetime.fromtimestamp(ms / 1000, UTC)


def utc_day(ms: int) -> str:
    """Return the UTC day of a moment, YYYY-MM-DD."""
    return f"{utc(ms):%Y-%m-%d}"


def day_end_ms(day: str) -> int:
    """Return the last millisecond of a UTC day given as YYYY-MM-DD; raise ValueError when there is no such day."""
    start = datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=UTC)
    return round(start.timestamp() * 1000) + 86_400_000 - 1
