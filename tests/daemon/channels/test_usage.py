"""Downloads that are counted: written in groups, none twice and none lost; and the report of them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from firth_protocol.errors import CursorExpired, Invalid, NoSpace
from firth_protocol.methods import ReportDownloads
from firth_protocol.types import DownloadsBy, Privacy, ReportFormat
from firthd.channels import usage as counting
from firthd.channels.usage import Usage, as_csv
from firthd.store import catalog, tokens, usage
from firthd.store.artifacts import FileRow
from firthd.store.database import Database
from firthd.store.usage import DAY_MS, UsageRow
from tests.support.clock import FakeClock


def file(name: str = "numpy", version: str = "2.1", channel_id: int = 1) -> FileRow:
    return FileRow(
        id=1,
        channel_id=channel_id,
        mirror_id=1,
        family="conda",
        part="noarch",
        section="packages.conda",
        filename=f"{name}-{version}-0.conda",
        name=name,
        version=version,
        size=1,
        sha256=None,
        md5=None,
        declared=0,
        retired=False,
    )


@asynccontextmanager
async def counted(folder: Path) -> AsyncIterator[tuple[Usage, Database, FakeClock]]:
    """Give a counter over a state with the channels 1 (main) and 2 (other) and the token 1."""
    clock = FakeClock()
    db = await Database.open(folder / "firth.sqlite", clock)
    try:
        for name in ("main", "other"):
            await db.write(
                lambda tx, name=name: catalog.insert_channel(  # type: ignore[misc]
                    tx,
                    name=name,
                    parent_id=None,
                    description="",
                    privacy=Privacy.PUBLIC,
                    keep_days=1,
                    keep_months=1,
                    now_ms=clock.now_ms(),
                )
            )
        await db.write(
            lambda tx: tokens.insert(
                tx, name="build farm", hash_=b"x" * 32, channels=[], created_by="a", expires_at=None, now_ms=1
            )
        )
        yield Usage(db, clock), db, clock
    finally:
        await db.close()


async def report(use: Usage, db: Database, patterns: tuple[str, ...] | None = None, **params: Any) -> Any:
    return await db.read(lambda r: use.report(r, ReportDownloads(**params), patterns, "e:1"))


async def total(db: Database) -> int:
    return int(await db.read(lambda r: r.value("SELECT coalesce(sum(downloads), 0) FROM usage")))


async def test_what_is_counted_is_told_by_day_version_and_token(tmp_path: Path) -> None:
    async with counted(tmp_path) as (use, db, clock):
        for _ in range(3):
            use.note(file(), 1)
        use.note(file(version="2.2"), 0)
        await use.flush()
        await clock.advance(86_400)
        use.note(file(), 1)
        use.note(file("beta", channel_id=2), 0)
        await use.flush()
        rows = (await report(use, db)).items
        assert [(row.channel, row.package, row.version, row.token, row.downloads) for row in rows] == [
            ("main", "numpy", "2.1", "build farm", 3),
            ("main", "numpy", "2.2", "", 1),
            ("main", "numpy", "2.1", "build farm", 1),
            ("other", "beta", "2.1", "", 1),
        ]
        by_token = (await report(use, db, channel="main", by=[DownloadsBy.TOKEN])).items
        assert [(row.day, row.version, row.token, row.downloads) for row in by_token] == [
            (None, None, "", 1),
            (None, None, "build farm", 4),
        ]
        today = rows[2].day
        assert [row.downloads for row in (await report(use, db, package="numpy", since=today)).items] == [1]
        assert sum(row.downloads for row in (await report(use, db, until=rows[0].day)).items) == 4
        assert {row.channel for row in (await report(use, db, ("other",))).items} == {"other"}
        for wrong in ("yesterday", "2026-13-01", "999999999-01-01T00:00:00Z"):
            with pytest.raises(Invalid):
                await report(use, db, since=wrong)


async def test_pages_joined_are_the_report_and_a_foreign_cursor_is_told(tmp_path: Path) -> None:
    async with counted(tmp_path) as (use, db, _):
        for number in range(7):
            use.note(file(f"p{number}"), number % 2)
        await use.flush()
        whole = (await report(use, db, format=ReportFormat.CSV)).text
        joined, cursor = "", None
        while True:
            page = await report(use, db, format=ReportFormat.CSV, limit=3, cursor=cursor)
            joined, cursor = joined + page.text, page.next_cursor
            if cursor is None:
                break
        assert joined == whole
        assert joined.splitlines()[0] == "channel,family,package,day,version,token,downloads"
        first = await report(use, db, limit=1)
        with pytest.raises(CursorExpired):
            await report(use, db, by=[], cursor=first.next_cursor)


@pytest.mark.parametrize("name", ["=cmd()", "+1", "-1", "@SUM(A1)", "\tx", "\rx"])
def test_no_cell_is_a_formula(name: str) -> None:
    row = UsageRow(channel="main", family="conda", name=name, day=1, version=name, token=name, downloads=5)
    text = as_csv([row], frozenset(DownloadsBy), head=False)
    assert text.count(f"'{name}") == 3
    assert text.endswith(",5\n")


async def test_a_write_that_fails_loses_nothing_and_counts_nothing_twice(tmp_path: Path) -> None:
    async with counted(tmp_path) as (use, db, _):
        for number in range(usage.BATCH + 10):
            use.note(file(f"p{number}"), 0)
        db.hold(lambda: NoSpace("the disk is full"))
        await use.catch_up()  # a report tells what is written
        with pytest.raises(NoSpace):
            await use.flush()
        use.note(file("p0"), 0)
        db.release()
        await use.flush()
        assert await total(db) == usage.BATCH + 11


async def test_a_flush_that_is_cancelled_half_way_is_made_up_for(tmp_path: Path) -> None:
    async with counted(tmp_path) as (use, db, _):
        for number in range(3 * usage.BATCH):
            use.note(file(f"p{number}"), 0)
        reached, go = asyncio.Event(), asyncio.Event()

        async def hold(tx: object) -> None:
            reached.set()
            await go.wait()

        held = asyncio.create_task(db.write(hold))
        await reached.wait()
        flushing = asyncio.create_task(use.flush())
        await asyncio.sleep(0)
        flushing.cancel()
        go.set()
        await held
        with pytest.raises(asyncio.CancelledError):
            await flushing
        assert await total(db) == usage.BATCH
        await use.close()
        assert await total(db) == 3 * usage.BATCH


async def test_a_flood_of_names_is_bounded_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with counted(tmp_path) as (use, db, _):
        db.hold(lambda: NoSpace("the disk is full"))
        for number in range(counting.HELD + 5):
            use.note(file("p", str(number)), 0)
        use.note(file("p", "0"), 0)  # what is held is counted on
        assert len(use._counts) == counting.HELD
        use._counts.clear()
        db.release()
        await use.flush()
        assert "5 downloads were not counted" in caplog.text


async def test_many_counts_are_written_before_their_time(tmp_path: Path) -> None:
    async with counted(tmp_path) as (use, db, _):
        serving = asyncio.create_task(use.serve())
        for number in range(counting.EARLY):
            use.note(file("p", str(number)), 0)
        async with asyncio.timeout(5):
            while await total(db) < counting.EARLY:
                await asyncio.sleep(0.01)
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving


async def test_what_is_older_than_thirteen_months_goes_and_what_a_deleted_channel_had(tmp_path: Path) -> None:
    async with counted(tmp_path) as (use, db, clock):
        use.note(file("old"), 0)
        await use.flush()
        await clock.advance((usage.KEPT_DAYS + 1) * DAY_MS // 1000)
        use.note(file("new"), 0)
        use.note(file("gone", channel_id=2), 0)
        await use.flush()
        await db.write(lambda tx: catalog.mark_channel_deleted(tx, 2, clock.now_ms()))
        use.note(file("late", channel_id=2), 0)
        await use.flush()
        await use.forget()
        assert [row.package for row in (await report(use, db)).items] == ["new"]
        assert await total(db) == 1
