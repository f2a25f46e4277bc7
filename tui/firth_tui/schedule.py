"""The only place of the terminal UI that reads cron expressions, to show when a mirror would run next.

The daemon decides what is accepted; this answers while somebody is typing.
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from types import MappingProxyType

PRESETS: Mapping[str, str] = MappingProxyType(
    {"hourly": "0 * * * *", "daily": "0 0 * * *", "weekly": "0 0 * * 0", "monthly": "0 0 1 * *"}
)

_LIMITS = (("minute", 0, 59), ("hour", 0, 23), ("day", 1, 31), ("month", 1, 12), ("weekday", 0, 7))
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_HORIZON_DAYS = 366 * 9  # 29 February on a given weekday can be eight years away


def preset_of(expression: str) -> str | None:
    """Return the preset that an expression is, if it is one."""
    return next((name for name, cron in PRESETS.items() if expression in {name, cron}), None)


def next_times(expression: str, now: float, count: int = 3) -> list[float]:
    """Return the next `count` due times after `now`, seconds since the epoch, in UTC.

    Raises ValueError with a sentence for people when it is no expression of five fields, or never comes.
    """
    fields = PRESETS.get(expression.strip().lower(), expression).lower().split()
    if len(fields) != 5:
        raise ValueError("five fields are needed: minute hour day month weekday")
    minutes, hours, days, months, weekdays = (
        _values(text, *limits) for text, limits in zip(fields, _LIMITS, strict=True)
    )
    weekdays = {day % 7 for day in weekdays}
    either = fields[2] != "*" and fields[4] != "*"  # both restricted: one of them is enough
    found: list[float] = []
    start = datetime.fromtimestamp(now, UTC)
    for day in _days(start.date()):
        by_date, by_weekday = day.day in days, day.isoweekday() % 7 in weekdays
        if day.month not in months or not (by_date or by_weekday if either else by_date and by_weekday):
            continue
        for hour in sorted(hours):
            for minute in sorted(minutes):
                due = datetime(day.year, day.month, day.day, hour, minute, tzinfo=UTC)
                if due > start:
                    found.append(due.timestamp())
                if len(found) == count:
                    return found
    if not found:
        raise ValueError("this never comes: there is no such date")
    return found


def _days(first: date) -> Iterator[date]:
    return (first + timedelta(days=ahead) for ahead in range(_HORIZON_DAYS))


def _values(text: str, name: str, least: int, most: int) -> set[int]:
    values: set[int] = set()
    for item in text.split(","):
        part, slash, step_text = item.partition("/")
        step = _number(step_text, name, 1, 999) if slash else 1
        low_text, dash, high_text = part.partition("-")
        if low_text == "*" and not dash:
            low, high = least, most
        else:
            low = _number(low_text, name, least, most)
            high = _number(high_text, name, least, most) if dash else (most if slash else low)
        if high < low:
            raise ValueError(f"{name}: the range {part} runs backwards")
        values.update(range(low, high + 1, step))
    return values


def _number(text: str, name: str, least: int, most: int) -> int:
    if name == "month" and text in _MONTHS:
        return _MONTHS.index(text) + 1
    if name == "weekday" and text in _DAYS:
        return _DAYS.index(text)
    if not text.isascii() or not text.isdigit() or not least <= int(text) <= most:
        shown = f"{text!r} is no {name}" if text else f"the {name} is lacking"
        raise ValueError(f"{shown}: {least} to {most}")
    return int(text)
