"""The only place that decides which generations are kept, and which one a number or a date means."""

import re
from collections.abc import Sequence

from firth_protocol.errors import NotFound
from firthd.clock import day_end_ms, rfc3339, utc, utc_day
from firthd.store import generations
from firthd.store.catalog import ChannelRow
from firthd.store.database import Reader
from firthd.store.generations import GenerationRow

NEWEST_KEPT = 10
DAY_MS = 86_400_000
_MONTH_DAYS = 31


def to_drop(kept: Sequence[tuple[int, int]], now_ms: int, *, days: int, months: int) -> list[int]:
    """Return the numbers of generations that need not be kept any longer.

    `kept` is (number, time) newest first. Kept are the newest ten, the last of each UTC day for `days` days, and the
    last of each month for `months` months.
    """
    drop = []
    day_seen: set[str] = set()
    month_seen: set[str] = set()
    for place, (number, time) in enumerate(kept):
        day, month = utc_day(time), f"{utc(time):%Y-%m}"
        last_of_day = day not in day_seen and now_ms - time <= days * DAY_MS
        last_of_month = month not in month_seen and now_ms - time <= months * _MONTH_DAYS * DAY_MS
        day_seen.add(day)
        month_seen.add(month)
        if not (place < NEWEST_KEPT or last_of_day or last_of_month):
            drop.append(number)
    return drop


async def resolve(r: Reader, channel: ChannelRow, when: str, now_ms: int) -> GenerationRow:
    """Return the kept generation that a number or a UTC date means; raise NotFound with the nearest kept ones."""
    if re.fullmatch(r"[0-9]{1,15}", when):
        row = await generations.generation(r, channel.id, int(when))
        if row is not None and row.kept:
            return row
        raise await _not_kept(r, channel, int(when), f"generation {when}")
    try:
        end = day_end_ms(when)
    except ValueError:
        raise NotFound(f"{when!r} is neither a generation's number nor a date YYYY-MM-DD") from None
    if end - DAY_MS >= now_ms:
        raise await _not_kept(r, channel, channel.generation + 1, f"{when} lies in the future: no generation")
    row = await generations.last_until(r, channel.id, end, kept=False)
    if row is None:
        raise await _not_kept(r, channel, 0, f"{when} is before the channel's first: no generation")
    if not row.kept:
        raise await _not_kept(r, channel, row.number, f"generation {row.number} of {when}")
    return row


async def _not_kept(r: Reader, channel: ChannelRow, number: int, what: str) -> NotFound:
    near = await generations.nearest_kept(r, channel.id, number)
    named = " and ".join(f"{row.number} ({rfc3339(row.time)})" for row in near)
    return NotFound(f"{what} of {channel.name} is not kept; the nearest kept: {named or 'none'}")
