"""How long what has happened is remembered: runs, logs, audit lines, rows and lines of generations of old."""

from pathlib import Path
from typing import Any

import pytest

from firth_protocol.errors import NotFound
from firth_protocol.methods import ChannelChanges
from firth_protocol.types import Role, RunKind, RunState
from firthd.channels import browse, retention
from firthd.store import audit, catalog, dropped, generations, history, runs
from firthd.store.audit import Audited
from firthd.store.database import Database
from firthd.store.runs import Failure
from tests.support.clock import START_MS
from tests.support.state import Shelf, shelf

DAY_MS = 86_400_000
NOW = START_MS + 500 * DAY_MS


async def run(s: Shelf, day: int, state: RunState = RunState.COMPLETED, mirror: int | None = 1, lines: int = 0) -> int:
    """Write a mirror's run that began and ended on a day, with a failure and so many lines of log."""
    at = START_MS + day * DAY_MS

    async def body(tx: Any) -> int:
        run_id = await runs.insert_run(
            tx,
            kind=RunKind.MIRROR if mirror else RunKind.GC,
            channel_id=s.channel_id if mirror else None,
            mirror_id=mirror,
            cause="schedule",
            by="schedule",
            params={},
            steps=[],
            requeued=0,
            notes=[],
            now_ms=at,
        )
        ended = {"finished_at": at + 1} if state.ended else {}
        await runs.update_run(tx, run_id, {"state": state} | ended)
        await runs.write_log(tx, run_id, [(number, at, "info", None, "x") for number in range(1, lines + 1)])
        await runs.write_failures(tx, run_id, [Failure(part="noarch", filename="x", reason="404", attempts=1)])
        return run_id

    return await s.db.write(body)


async def count(db: Database, sql: str) -> int:
    return int(await db.read(lambda r: r.value(f"SELECT count(*) FROM {sql}")))


async def test_old_runs_go_but_for_the_newest_of_each_mirror_and_open_ones(tmp_path: Path) -> None:
    async with shelf(tmp_path) as s:
        stays = {
            await run(s, 0, RunState.PENDING, mirror=2),
            await run(s, 0, mirror=3, lines=5),  # the newest of its mirror, however old
        }
        for day in range(20):
            await run(s, day, lines=history.BATCH // 2 + day)
        newest = await run(s, 20, RunState.FAILED)
        await s.db.write(lambda tx: catalog.note_mirror(tx, 1, {"last_run_id": newest}))
        await run(s, 1, mirror=None)
        stays |= {newest, await run(s, 2, mirror=None), await run(s, 499, mirror=None)}
        stays.discard(max(stays) - 1)  # an older run of the store
        assert await history.forget_runs(s.db, NOW - 100 * DAY_MS) == 22
        left = await s.db.read(lambda r: r.rows("SELECT id FROM run"))
        assert {row[0] for row in left} == stays
        assert await count(s.db, "run_log") == 5
        assert await history.forget_runs(s.db, NOW - 100 * DAY_MS) == 0


async def test_logs_of_runs_that_ended_long_ago_go_and_the_runs_stay(tmp_path: Path) -> None:
    async with shelf(tmp_path) as s:
        await run(s, 0, RunState.RUNNING, lines=3)
        for day in (0, 1, 450):
            await run(s, day, lines=history.BATCH + 1)
        assert await history.forget_logs(s.db, NOW - 100 * DAY_MS) == 2 * (history.BATCH + 1)
        assert await history.forget_logs(s.db, NOW - 100 * DAY_MS) == 0
        assert await count(s.db, "run_log") == history.BATCH + 1 + 3
        assert await count(s.db, "run") == 4


async def test_lines_of_the_audit_log_go_after_their_time(tmp_path: Path) -> None:
    async with shelf(tmp_path) as s:

        async def lines(tx: Any) -> None:
            for day in range(500):
                for outcome in ("ok",) if day else ("begun", "ok"):
                    entry = Audited(
                        time_ms=START_MS + day * DAY_MS,
                        uid=0,
                        pid=0,
                        user="root",
                        role=Role.ADMIN,
                        method="mirror.run",
                        params={},
                        outcome=outcome,
                    )
                    await audit.insert(tx, entry)

        await s.db.write(lines)
        assert await history.forget_audit(s.db, NOW - 100 * DAY_MS) == 400
        assert await count(s.db, "audit WHERE outcome = 'begun'") == 1


async def fifty(s: Shelf) -> None:
    """Publish a generation a day; each replaces a file, every fifth is kept, and each tenth adds one that stays."""
    before: dict[str, int] = {}
    for day in range(50):
        add = [f"moving{day}-1", *([f"lasting{day}-1"] if day % 10 == 0 else [])]
        made = await s.change(add=add, close=before.values())
        before = {name: row for name, row in made.items() if name.startswith("moving")}
        await s.publish(time=START_MS + day * DAY_MS + 3)
    drop = [number for number in range(1, 50) if number % 5]
    await s.db.write(lambda tx: generations.drop_generations(tx, s.channel_id, drop))


async def shown(s: Shelf, number: int) -> set[str]:
    rows = await s.db.read(
        lambda r: r.rows(
            "SELECT a.filename, n.raw FROM artifact a JOIN artifact_record n ON n.artifact_id = a.id"
            " JOIN change_set s ON s.id = a.added_set LEFT JOIN change_set e ON e.id = a.closed_set"
            " WHERE s.number <= ?1 AND (e.number IS NULL OR e.number > ?1)",
            (number,),
        )
    )
    return {row[0] for row in rows}


async def changed(s: Shelf, number: int) -> list[tuple[str, str]]:
    found = await s.db.read(
        lambda r: browse.changes_page(r, ChannelChanges(channel="main", generation=number, limit=1000))
    )
    return [(one.change, one.filename) for one in found.items]


async def test_rows_that_no_kept_generation_shows_go_and_kept_ones_are_as_they_were(tmp_path: Path) -> None:
    async with shelf(tmp_path) as s:
        await fifty(s)
        kept = [*range(5, 50, 5), 50]
        before = {number: (await shown(s, number), await changed(s, number)) for number in kept}
        rows = await count(s.db, "artifact")
        grace = START_MS + 45 * DAY_MS
        gone = await dropped.forget_rows(s.db, s.channel_id, grace)
        after = {number: (await shown(s, number), await changed(s, number)) for number in kept}
        assert after == before
        # Of five that were replaced one is shown and one was closed by a kept generation.
        left = await count(s.db, "artifact")
        assert (rows, left) == (55, 5 + 2 * 9 + 5)
        assert gone == 2 * (rows - left)  # what was offered, too
        assert await count(s.db, "artifact_record") == left
        assert await count(s.db, "offered") == left
        assert await count(s.db, "change_set") < 50
        assert await dropped.forget_rows(s.db, s.channel_id, grace) == 0
        assert await shown(s, 49) >= {"moving48-1.conda"}  # in its grace period: fetchable
        with pytest.raises(NotFound, match="no longer known"):
            await changed(s, 42)
        assert await changed(s, 49) == [("added", "moving48-1.conda"), ("closed", "moving47-1.conda")]
        # The day of generation 43: the last that was kept before tells, not half of what was seen then.
        since = ChannelChanges(channel="main", since="2026-06-12T12:00:00Z", limit=1000)
        found = await s.db.read(lambda r: browse.changes_page(r, since))
        assert ("closed", "moving39-1.conda") in [(one.change, one.filename) for one in found.items]


async def test_lines_of_generations_go_and_every_day_goes_on_to_mean_what_it_meant(tmp_path: Path) -> None:
    async with shelf(tmp_path) as s:
        for day in range(10):
            for hour in range(4):
                await s.change(add=[f"p{day}-{hour}"])
                await s.publish(time=START_MS + day * DAY_MS + hour)
        kept = {4, 22, 40}
        drop = [number for number in range(1, 41) if number not in kept]
        await s.db.write(lambda tx: generations.drop_generations(tx, s.channel_id, drop))
        days = [f"2026-05-{day:02}" for day in range(1, 11)]
        before = [await meant(s, day) for day in days]
        await dropped.forget_generations(s.db, s.channel_id, START_MS + 8 * DAY_MS)
        left = [row.number for row in await s.db.read(lambda r: generations.generations(r, s.channel_id, None, 100))]
        lasts = {*range(4, 33, 4)}  # of a day
        assert set(left) == lasts | {3, 5, 21, 22, 23} | {*range(33, 41)}  # and those beside a kept one
        assert [await meant(s, day) for day in days] == before
        listed = await s.db.read(lambda r: browse.generations_page(r, "main", None, 5))
        assert listed.total == len(left)
        with pytest.raises(NotFound, match="no longer known"):
            await changed(s, 12)


async def meant(s: Shelf, day: str) -> str | int:
    """Return which generation a day means, or why it means none."""
    channel = await s.db.read(lambda r: browse.channel(r, "main"))
    try:
        return (await s.db.read(lambda r: retention.resolve(r, channel, day, NOW))).number
    except NotFound as error:
        return error.message
