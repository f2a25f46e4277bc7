"""The only place that counts what clients download: in memory, written in groups, and told as a report.

What a request costs is one entry of a dictionary. Between two writes lies at most one batch, and that is what kill -9
loses; nothing about the client is kept but the name of its token.
"""

import asyncio
import contextlib
import csv
import io
import logging
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import islice

from firth_protocol.errors import FirthError, Invalid, NoSpace, Unavailable
from firth_protocol.methods import ReportDownloads
from firth_protocol.types import DownloadCount, DownloadsBy, Family, ReportFormat, TextPage
from firthd.channels import browse
from firthd.clock import Clock, day_end_ms, from_rfc3339, utc_day
from firthd.store import paging, usage
from firthd.store.artifacts import FileRow
from firthd.store.database import Database, Reader
from firthd.store.usage import BATCH, DAY_MS, Download, UsageRow

log = logging.getLogger(__name__)

WRITE_S = 10.0
"""Seconds between two writes while clients download."""
EARLY = 2_000
"""Different counts at which the next write does not wait for its time."""
HELD = 50_000
"""Different counts that are held at most: only a disk that takes no write lets them become so many (about 15 MB)."""

_FORMULA = re.compile(r"[=+\-@\t\r]")


class Usage:
    """Counts downloads."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self._counts: Counter[Download] = Counter()
        self._early = asyncio.Event()
        self._turn = asyncio.Lock()
        self._lost = 0

    def note(self, file: FileRow, token_id: int) -> None:
        """Count one download; `token_id` 0: nobody said who he is."""
        day = self._clock.now_ms() // DAY_MS
        key = Download(file.channel_id, file.family, file.name, day, file.version, token_id)
        count = self._counts.get(key)
        if count is not None:
            self._counts[key] = count + 1
        elif len(self._counts) < HELD:
            self._counts[key] = 1
            if len(self._counts) >= EARLY:
                self._early.set()
        else:
            self._lost += 1

    async def serve(self) -> None:
        """Write what has been counted now and then, until cancelled."""
        while True:
            await self._pause()
            try:
                await self.flush()
            except FirthError as error:
                log.warning("downloads cannot be written down, they are counted on: %s", error.message)
                await self._clock.sleep(WRITE_S)  # counts beyond EARLY would ask again at once
            except Exception:
                log.exception("writing down downloads failed unforeseen")
                await self._clock.sleep(WRITE_S)

    async def _pause(self) -> None:
        async with asyncio.TaskGroup() as group:
            time = group.create_task(self._clock.sleep(WRITE_S))
            early = group.create_task(self._early.wait())
            await asyncio.wait({time, early}, return_when=asyncio.FIRST_COMPLETED)
            time.cancel()
            early.cancel()

    async def flush(self) -> None:
        """Write what has been counted so far, in groups; a cancelled caller waits for the group that is on its way.

        What cannot be written is counted on. Raises what the state refuses a write with.
        """
        async with self._turn:
            self._early.clear()
            while self._counts:
                group = list(islice(self._counts.items(), BATCH))
                for key, _ in group:
                    del self._counts[key]
                await self._write(group)
            if self._lost:
                log.warning("%d downloads were not counted: the disk takes no writes", self._lost)
                self._lost = 0

    async def catch_up(self) -> None:
        """Write what can be written before somebody reads; a full disk keeps nobody from what is written already."""
        with contextlib.suppress(NoSpace, Unavailable):
            await self.flush()

    async def close(self) -> None:
        """Write the last counts; called when no client is served any more."""
        try:
            await self.flush()
        except FirthError as error:
            log.warning("%d counts of downloads could not be written: %s", len(self._counts), error.message)

    async def _write(self, group: list[tuple[Download, int]]) -> None:
        work = asyncio.ensure_future(self._db.write(lambda tx: usage.add(tx, group)))
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            await asyncio.wait([work])
            if not work.cancelled() and work.exception() is not None:
                self._counts.update(dict(group))
            raise
        except BaseException:
            self._counts.update(dict(group))
            raise

    async def forget(self) -> None:
        """Take away what is older than thirteen months, in short transactions."""
        today = self._clock.now_ms() // DAY_MS
        while await self._db.write(lambda tx: usage.forget(tx, today)):
            pass

    # --- telling ---------------------------------------------------------------------------------------------

    async def report(
        self, r: Reader, params: ReportDownloads, patterns: paging.Patterns, as_of: str
    ) -> TextPage[DownloadCount]:
        """Return a page of who downloaded what, of the channels that a caller may see; raises Invalid."""
        if params.channel is not None:
            await browse.channel(r, params.channel)
        by = frozenset(DownloadsBy) if params.by is None else frozenset(params.by)
        rows, following = await usage.report(
            r,
            channel=params.channel,
            family=params.family,
            name=params.package,
            first=_day(params.since, "$.since"),
            last=_day(params.until, "$.until"),
            by=by,
            cursor=params.cursor,
            limit=params.limit,
            patterns=patterns,
        )
        text = None
        if params.format is ReportFormat.CSV:
            text = as_csv(rows, by, head=params.cursor is None)
            rows = []
        return TextPage(items=[_told(row) for row in rows], next_cursor=following, as_of=as_of, text=text)


def as_csv(rows: Iterable[UsageRow], by: frozenset[str], *, head: bool) -> str:
    """Return rows in RFC 4180's form; a cell that a spreadsheet would work out begins with an apostrophe."""
    columns = ["channel", "family", "package", *(one.value for one in DownloadsBy if one in by), "downloads"]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    if head:
        writer.writerow(columns)
    for row in rows:
        cells: Mapping[str, str | int | None] = {
            "channel": row.channel,
            "family": row.family,
            "package": row.name,
            "day": _shown(row.day),
            "version": row.version,
            "token": row.token,
            "downloads": row.downloads,
        }
        writer.writerow([_harmless(cells[column]) for column in columns])
    return buffer.getvalue()


def _harmless(cell: str | int | None) -> str | int | None:
    return f"'{cell}" if isinstance(cell, str) and _FORMULA.match(cell) else cell


def _told(row: UsageRow) -> DownloadCount:
    return DownloadCount(
        channel=row.channel,
        family=Family(row.family),
        package=row.name,
        day=_shown(row.day),
        version=row.version,
        token=row.token,
        downloads=row.downloads,
    )


def _shown(day: int | None) -> str | None:
    return None if day is None else utc_day(day * DAY_MS)


def _day(text: str | None, path: str) -> int | None:
    """Return the UTC day that a date or a time lies in; raise Invalid for what is neither."""
    if text is None:
        return None
    try:
        at = day_end_ms(text) if len(text) == 10 else from_rfc3339(text)
        return at // DAY_MS
    except (ValueError, OverflowError):
        raise Invalid(f"{text!r} is neither a date nor a time", hint="for example 2026-05-01", path=path) from None
