"""The only place that words numbers and moments for people in a browser. Pure."""

from firthd.clock import rfc3339, utc

MINUTE, HOUR, DAY = 60, 3600, 86_400
_UNITS = ((365 * DAY, "year"), (30 * DAY, "month"), (7 * DAY, "week"), (DAY, "day"))
"""Seconds of a unit that is written out; shorter ones have their own signs."""


def ago(then_ms: int, now_ms: int) -> str:
    """Return how long ago a moment was, in one unit: `just now`, `5 min ago`, `2 h ago`, `1 day ago`.

    What lies ahead, as by a clock that goes wrong, is `just now` for a minute and then its day.
    """
    seconds = (now_ms - then_ms) // 1000
    if seconds < -MINUTE:
        return f"{utc(then_ms):%Y-%m-%d}"
    if seconds < MINUTE:
        return "just now"
    if seconds < HOUR:
        return f"{seconds // MINUTE} min ago"
    if seconds < DAY:
        return f"{seconds // HOUR} h ago"
    length, unit = next((length, unit) for length, unit in _UNITS if seconds >= length)
    return f"{count(seconds // length, unit)} ago"


def exact(ms: int) -> str:
    """Return a moment in full: `2026-04-29 22:00:00 UTC`."""
    return f"{utc(ms):%Y-%m-%d %H:%M:%S} UTC"


def machine(ms: int) -> str:
    """Return a moment as `<time datetime>` takes it."""
    return rfc3339(ms)


def count(number: int, noun: str, plural: str = "") -> str:
    """Return `1 package`, `12,345 packages`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
