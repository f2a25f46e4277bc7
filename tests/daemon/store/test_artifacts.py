"""Artifact rows: which file a name stands for, copying a run's file in, taking it back, handing a mirror's over."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from firthd.families.base import COLUMNS
from firthd.store import artifacts, blocks, copying, generations, offers
from firthd.store import hand_over as handing
from firthd.store.artifacts import FileRow
from firthd.store.hand_over import HandedOver
from tests.support.clock import START_MS, FakeClock
from tests.support.state import Shelf, sha, shelf, write_run_file

GRACE_MS = 7 * 86_400_000


@pytest.fixture
async def s(tmp_path: Path) -> AsyncIterator[Shelf]:
    async with shelf(tmp_path) as found:
        yield found


async def find(s: Shelf, name: str, shows: int, *, after_ms: int = 0) -> FileRow | None:
    return await s.db.read(
        lambda r: artifacts.find_file(
            r, s.channel_id, shows, "conda", "noarch", f"{name}.conda", START_MS + after_ms, GRACE_MS
        )
    )


async def live(s: Shelf, mirror: int | None = None) -> set[tuple[int, str]]:
    """Return (mirror, file) of the rows that nothing has closed, and check that each has its record."""
    rows = await s.db.read(
        lambda r: r.rows(
            "SELECT a.mirror_id, a.name || '-' || a.version, n.raw FROM artifact a"
            " LEFT JOIN artifact_record n ON n.artifact_id = a.id WHERE a.closed_set IS NULL"
        )
    )
    assert all(row[2] == row[1].encode() for row in rows)
    return {(row[0], row[1]) for row in rows if mirror in (None, row[0])}


# --- which file a name stands for ----------------------------------------------------------------------------


async def test_a_file_is_found_in_the_generations_that_show_it(s: Shelf) -> None:
    ids = await s.change(add=["numpy-1.0"])
    assert await find(s, "numpy-1.0", 0) is None
    await s.publish()
    found = await find(s, "numpy-1.0", 1)
    assert found is not None
    assert (found.id, found.sha256, found.retired, found.mirror_id) == (
        ids["numpy-1.0"],
        sha("numpy-1.0"),
        False,
        1,
    )
    assert await find(s, "numpy-2.0", 1) is None
    await s.change(add=["numpy-2.0"])  # finished, not published: a draft
    assert await find(s, "numpy-2.0", 1) is None
    await s.publish()
    assert await find(s, "numpy-2.0", 1) is None  # a snapshot of the first generation
    assert await find(s, "numpy-2.0", 2) is not None


async def test_a_retired_file_stays_for_its_grace_period_and_for_ever_under_snapshots(s: Shelf) -> None:
    ids = await s.change(add=["numpy-1.0"])
    await s.publish()
    await s.change(close=ids.values())
    still = await find(s, "numpy-1.0", 1)
    assert still is not None
    assert not still.retired  # closed by what is not published yet
    await s.publish()
    retired = await find(s, "numpy-1.0", 2, after_ms=GRACE_MS - 1)
    assert retired is not None
    assert retired.retired
    assert await find(s, "numpy-1.0", 2, after_ms=GRACE_MS) is None
    snapshot = await find(s, "numpy-1.0", 1, after_ms=10 * GRACE_MS)
    assert snapshot is not None
    assert not snapshot.retired


async def test_a_replaced_file_answers_with_its_newest_record(s: Shelf) -> None:
    old = (await s.change(add=["numpy-1.0"]))["numpy-1.0"]
    await s.publish()
    new = (await s.change(add=["numpy-1.0"], close=[old], reason="replaced"))["numpy-1.0"]
    await s.publish()
    for shows, expected in ((1, old), (2, new)):
        found = await find(s, "numpy-1.0", shows)
        assert found is not None
        assert (found.id, found.retired) == (expected, False)
    await s.change(close=[new])
    await s.publish()
    found = await find(s, "numpy-1.0", 3)
    assert found is not None
    assert (found.id, found.retired) == (new, True)


async def test_a_name_belongs_to_the_oldest_mirror_that_offers_it(s: Shelf) -> None:
    ours = await s.change(mirror=1, add=["numpy-1.0"])
    theirs = await s.change(mirror=2, add=["numpy-1.0", "numpy-9.9", "scipy-1.0"])
    await s.publish()
    same = await find(s, "numpy-1.0", 1)
    assert same is not None
    assert same.id == ours["numpy-1.0"]
    assert await find(s, "numpy-9.9", 1) is None  # shadowed: not served, whatever its version
    assert await find(s, "scipy-1.0", 1) is not None
    assert await s.db.read(lambda r: artifacts.shadowed_names(r, s.channel_id, 2, 10)) == (["conda/numpy"], 1)
    assert await s.db.read(lambda r: artifacts.shadowed_names(r, s.channel_id, 1, 10)) == ([], 0)
    await s.change(mirror=1, close=ours.values())
    await s.publish()
    freed = await find(s, "numpy-1.0", 2)
    assert freed is not None
    assert (freed.id, freed.retired) == (theirs["numpy-1.0"], False)
    assert await find(s, "numpy-9.9", 2) is not None
    assert await find(s, "numpy-9.9", 1) is None  # the snapshot stays what it was


async def test_a_retired_file_belongs_to_the_owner_of_the_last_generation_that_showed_it(s: Shelf) -> None:
    ours = await s.change(mirror=1, add=["numpy-1.0"])
    theirs = await s.change(mirror=2, add=["numpy-9.9", "numpy-8.8"])
    await s.publish()
    await s.change(mirror=2, close=[theirs["numpy-8.8"]])
    await s.publish()
    await s.change(mirror=1, close=ours.values())
    await s.publish()
    retired = await find(s, "numpy-1.0", 3)
    assert retired is not None
    assert (retired.mirror_id, retired.retired) == (1, True)
    assert await find(s, "numpy-8.8", 3) is None  # no generation has shown it


async def test_the_channel_itself_comes_after_every_mirror(s: Shelf) -> None:
    own = await s.change(mirror=0, add=["numpy-1.0", "own-1.0"])
    ids = await s.change(mirror=3, add=["numpy-2.0"])
    await s.publish()

    async def owners(name: str) -> set[int] | None:
        return await s.db.read(lambda r: offers.owners(r, s.channel_id, s.number, "conda", name))

    assert (await owners("numpy"), await owners("own"), await owners("absent")) == ({3}, {0}, None)
    assert await find(s, "numpy-1.0", 1) is None
    assert await find(s, "own-1.0", 1) is not None
    await s.change(mirror=3, close=ids.values())
    await s.publish()
    assert await owners("numpy") == {0}
    found = await find(s, "numpy-1.0", 2)
    assert found is not None
    assert found.id == own["numpy-1.0"]


async def test_after_a_rollback_the_earlier_content_answers(s: Shelf) -> None:
    ids = await s.change(add=["numpy-1.0"])
    await s.publish()
    await s.change(add=["numpy-2.0"], close=ids.values())
    await s.publish()
    await s.publish(shows=1)
    found = await find(s, "numpy-1.0", 1)
    assert found is not None
    assert not found.retired
    assert await find(s, "numpy-2.0", 1) is None


async def test_package_files_are_those_of_the_owner(s: Shelf) -> None:
    await s.change(mirror=2, add=["numpy-9.9"])
    await s.change(mirror=1, add=["numpy-1.0", "numpy-2.0"])
    await s.store("numpy-2.0")
    await s.publish()

    async def files(shows: int) -> list[tuple[str, bool, int, bytes]]:
        rows = await s.db.read(lambda r: artifacts.package_files(r, s.channel_id, shows, "conda", "numpy", 10))
        return [(row.file.version, row.file.delivered, row.generation, row.raw) for row in rows]

    assert await files(1) == [("1.0", False, 1, b"numpy-1.0"), ("2.0", True, 1, b"numpy-2.0")]
    assert await files(0) == []
    assert await s.db.read(lambda r: artifacts.not_stored(r, s.channel_id, 1)) == 1


async def test_our_own_digest_is_recorded_at_first_sight_only(s: Shelf) -> None:
    ids = await s.change(add=["numpy-1.0", "declared-1.0"])
    await s.publish()
    await s.db.write(lambda tx: tx.execute("UPDATE artifact SET sha256 = NULL, size = NULL WHERE name = 'numpy'"))
    for text, row in (("first", ids["numpy-1.0"]), ("second", ids["numpy-1.0"]), ("other", ids["declared-1.0"])):
        await s.db.write(lambda tx, t=text, row=row: artifacts.record_first_sight(tx, row, sha(t), 77))  # type: ignore[misc]
    numpy, declared = await find(s, "numpy-1.0", 1), await find(s, "declared-1.0", 1)
    assert numpy is not None
    assert declared is not None
    assert (numpy.sha256, numpy.size) == (sha("first"), 77)
    assert (declared.sha256, declared.size) == (sha("declared-1.0"), 10)


# --- copying in and taking back ------------------------------------------------------------------------------


async def copy(s: Shelf, path: Path, change_set: int, **options: Any) -> tuple[int, int, list[tuple[int, int]]]:
    told: list[tuple[int, int]] = []
    async with s.db.attached(path) as schema:
        copied = await copying.copy_in(
            s.db,
            schema,
            columns=COLUMNS,
            change_set=change_set,
            channel_id=s.channel_id,
            mirror_id=1,
            clock=FakeClock(),
            report=lambda done, total: told.append((done, total)),
            **options,
        )
    return copied.added, copied.closed, told


async def open_set(s: Shelf) -> int:
    return await s.db.write(
        lambda tx: tx.insert(
            "INSERT INTO change_set(channel_id, mirror_id, cause, state, created_at) VALUES (?, 1, 'run', 'open', 0)",
            (s.channel_id,),
        )
    )


async def test_many_rows_are_copied_in_batches_and_can_be_taken_back(s: Shelf, tmp_path: Path) -> None:
    old = await s.change(add=[f"old-{number}" for number in range(3000)])
    await s.publish()
    ids = list(old.values())
    path = tmp_path / "run.sqlite"
    adds: list[tuple[str, int | None]] = [(f"new-{number}", None) for number in range(4000)]
    adds += [("old-0", ids[0]), ("old-1", ids[1])]
    await write_run_file(path, add=adds, close=ids[2:])
    before = await live(s)
    change_set = await open_set(s)
    added, closed, told = await copy(s, path, change_set)
    assert (added, closed) == (4002, 3000)
    assert len(told) > 4
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert {total for _, total in told} == {4002 + 2998}
    assert told[-1][0] == 4002 + 2998
    assert await live(s) == {(1, name) for name, _ in adds}
    reasons = await s.db.read(
        lambda r: r.rows("SELECT closed_reason, count(*) FROM artifact WHERE closed_set = ? GROUP BY 1", (change_set,))
    )
    assert dict(reasons) == {"gone": 2998, "replaced": 2}
    assert await find(s, "new-1", 1) is None  # not published
    assert await artifacts.discard(s.db, change_set) == 4002
    assert await live(s) == before
    assert await artifacts.discard(s.db, change_set) == 0
    assert (await copy(s, path, await open_set(s)))[:2] == (4002, 3000)  # the numbers of rows are never used twice
    assert await live(s) == {(1, name) for name, _ in adds}


async def test_failed_adds_and_skipped_closings_stay_out(s: Shelf, tmp_path: Path) -> None:
    old = await s.change(add=["a-1", "b-1", "c-1"])
    await s.publish()
    path = tmp_path / "run.sqlite"
    await write_run_file(path, add=[("a-1", old["a-1"]), ("d-1", None), ("e-1", None)], close=[old["b-1"], old["c-1"]])
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("""UPDATE "add" SET failed = 1 WHERE name IN ('a', 'e')""")
        connection.execute('UPDATE "close" SET skipped = 1 WHERE artifact_id = ?', (old["c-1"],))
        connection.commit()
    assert (await copy(s, path, await open_set(s)))[:2] == (1, 1)
    assert await live(s) == {(1, name) for name in ("a-1", "c-1", "d-1")}


async def test_without_closings_only_what_is_new_enters(s: Shelf, tmp_path: Path) -> None:
    old = await s.change(add=["a-1", "b-1"])
    await s.publish()
    path = tmp_path / "run.sqlite"
    await write_run_file(path, add=[("a-1", old["a-1"]), ("c-1", None)], close=[old["b-1"]])
    assert (await copy(s, path, await open_set(s), closings=False))[:2] == (1, 0)
    assert await live(s) == {(1, name) for name in ("a-1", "b-1", "c-1")}


async def test_only_what_is_stored_is_copied_when_that_is_asked(s: Shelf, tmp_path: Path) -> None:
    await s.store("a-1")
    path = tmp_path / "run.sqlite"
    await write_run_file(path, add=[("a-1", None), ("b-1", None)])
    added, closed, _ = await copy(s, path, await open_set(s), only_stored=True)
    assert (added, closed) == (1, 0)
    assert await live(s) == {(1, "a-1")}


async def test_each_ending_offer_is_looked_up_and_none_of_the_others(s: Shelf, tmp_path: Path) -> None:
    path = tmp_path / "run.sqlite"
    await write_run_file(path, add=[("a-1", None)])
    keys = {"set": 1, "channel": 1, "mirror": 1, "low": 0, "high": 500}
    async with s.db.attached(path) as schema:
        plan = await s.db.write(lambda tx: tx.rows(f"EXPLAIN QUERY PLAN {offers.ending_sql(schema)}", keys))
    steps = [row[3] for row in plan]
    window = next(at for at, step in enumerate(steps) if step.startswith("SEARCH n USING INTEGER PRIMARY KEY"))
    assert steps[window + 1].startswith("SEARCH l USING")
    assert "name=?" in steps[window + 1]


async def test_an_empty_run_file_changes_nothing(s: Shelf, tmp_path: Path) -> None:
    path = tmp_path / "run.sqlite"
    await write_run_file(path)
    assert (await copy(s, path, await open_set(s)))[:2] == (0, 0)


async def test_a_row_closed_meanwhile_is_not_closed_again(s: Shelf, tmp_path: Path) -> None:
    old = await s.change(add=["a-1"])
    await s.publish()
    await s.change(close=old.values(), reason="mirror deleted")
    path = tmp_path / "run.sqlite"
    await write_run_file(path, close=old.values())
    assert (await copy(s, path, await open_set(s)))[:2] == (0, 0)


# --- totals and handing over ----------------------------------------------------------------------------------


async def test_totals_count_what_a_mirror_holds_now(s: Shelf) -> None:
    ids = await s.change(add=["a-1", "b-1", "c-1"])
    await s.change(mirror=2, add=["d-1"])
    await s.change(close=[ids["c-1"]])
    await s.store("a-1", "c-1", "d-1")
    totals = await s.db.read(lambda r: artifacts.mirror_totals(r, s.channel_id, 1))
    assert (totals.artifacts, totals.bytes, totals.stored, totals.bytes_stored) == (2, 20, 1, 10)
    assert totals.parts == {"noarch": 2}


@pytest.mark.parametrize("keep", [True, False])
async def test_a_mirror_that_goes_hands_over_what_is_stored(s: Shelf, keep: bool) -> None:
    names = [f"a-{number}" for number in range(1200)]
    await s.change(mirror=1, add=names)
    await s.change(mirror=2, add=["other-1"])
    await s.store(*names[::3])
    await s.publish()
    assert await s.db.read(lambda r: handing.would_keep(r, s.channel_id, 1)) == (400, 800)
    change_set = await open_set(s)
    done = await handing.hand_over(
        s.db, columns=COLUMNS, channel_id=s.channel_id, mirror_id=1, change_set=change_set, keep=keep, clock=FakeClock()
    )
    assert (done.copied.added, done.copied.closed) == (400 if keep else 0, 1200)
    assert (done.kept, done.dropped) == ((400, 800) if keep else (0, 1200))
    assert await live(s) == {(2, "other-1")} | ({(0, name) for name in names[::3]} if keep else set())
    assert await artifacts.discard(s.db, change_set) == done.copied.added
    assert await live(s) == {(2, "other-1")} | {(1, name) for name in names}


async def hand_over(s: Shelf, mirror: int) -> HandedOver:
    """Hand a mirror's files over as a deletion does, and publish."""
    change_set = await open_set(s)
    done = await handing.hand_over(
        s.db,
        columns=COLUMNS,
        channel_id=s.channel_id,
        mirror_id=mirror,
        change_set=change_set,
        keep=True,
        clock=FakeClock(),
    )
    await s.db.write(lambda tx: generations.finish_change_set(tx, change_set, added=0, closed=0, now_ms=START_MS))
    s.take_up(change_set)
    await s.publish()
    return done


async def reuploaded(s: Shelf, mirror: int, name: str, content: str) -> None:
    """Let a mirror bring other bytes under the same name."""
    ids = await s.change(mirror=mirror, add=[name])
    digest = bytes.fromhex(sha(content))
    await s.db.write(lambda tx: tx.execute("UPDATE artifact SET sha256 = ? WHERE id = ?", (digest, ids[name])))
    await s.store(content)


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 2, 1), (2, 3, 1), (3, 1, 2)])
async def test_of_a_file_that_is_kept_twice_the_one_that_came_last_stays(s: Shelf, order: tuple[int, ...]) -> None:
    for mirror, content in ((2, "oldest"), (3, "newest")):
        await reuploaded(s, mirror, "a-1", content)
    await s.change(mirror=1, add=["b-1"])
    await s.store("b-1")
    await s.publish()
    for mirror in order:
        done = await hand_over(s, mirror)
        assert (done.kept, done.dropped) == (1, 0)
    assert await live(s) == {(0, "a-1"), (0, "b-1")}
    found = await find(s, "a-1", s.number)
    assert found is not None
    assert found.sha256 == sha("newest")
    before = await find(s, "a-1", 1)
    assert before is not None
    assert before.sha256 == sha("oldest")  # the older mirror's, as it was


async def test_handing_over_what_is_there_counts_and_can_be_taken_back(s: Shelf) -> None:
    names = [f"a-{number}" for number in range(1500)]
    for mirror in (1, 2):
        await s.change(mirror=mirror, add=names)
    await s.store(*names)
    await s.publish()
    await hand_over(s, 1)
    change_set = await open_set(s)
    done = await handing.hand_over(
        s.db, columns=COLUMNS, channel_id=s.channel_id, mirror_id=2, change_set=change_set, keep=True, clock=FakeClock()
    )
    assert (done.kept, done.copied.added, done.copied.closed) == (1500, 1500, 3000)
    assert await live(s) == {(0, name) for name in names}
    await artifacts.discard(s.db, change_set)
    assert await live(s) == {(mirror, name) for mirror in (0, 2) for name in names}
    assert (await hand_over(s, 2)).kept == 1500


async def test_what_replaced_thousands_is_taken_back_before_they_are_open_again(s: Shelf, tmp_path: Path) -> None:
    old = await s.change(add=[f"a-{number}" for number in range(5000)])
    await s.publish()
    path = tmp_path / "run.sqlite"
    await write_run_file(path, add=list(old.items()))
    change_set = await open_set(s)
    assert (await copy(s, path, change_set))[:2] == (5000, 5000)
    assert await artifacts.discard(s.db, change_set) == 5000
    rows = await s.db.read(lambda r: r.rows("SELECT id FROM artifact WHERE closed_set IS NULL"))
    assert {row[0] for row in rows} == set(old.values())


async def test_a_second_live_row_of_a_file_is_refused(s: Shelf) -> None:
    await s.change(add=["a-1"])
    await s.change(mirror=2, add=["a-1"])
    with pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):
        await s.change(add=["a-1"])


async def test_only_what_this_channel_was_given_is_present(s: Shelf) -> None:
    await s.change(add=["a-1", "b-1"])
    await s.store("a-1", channel_id=77)
    await s.store("b-1")
    await s.publish()
    found = [await find(s, name, 1) for name in ("a-1", "b-1")]
    assert [file.delivered for file in found if file] == [False, True]
    assert await s.db.read(lambda r: artifacts.not_stored(r, s.channel_id, 1)) == 1
    assert await s.db.read(lambda r: handing.would_keep(r, s.channel_id, 1)) == (1, 1)
    await hand_over(s, 1)
    assert await live(s) == {(0, "b-1")}


async def test_what_was_given_goes_with_the_blob(s: Shelf) -> None:
    await s.store("a-1")
    await s.db.write(lambda tx: tx.execute("DELETE FROM blob"))
    assert await s.db.read(lambda r: r.value("SELECT count(*) FROM delivered")) == 0


async def test_a_record_is_given_as_the_source_wrote_it(s: Shelf) -> None:
    ids = await s.change(add=["a-1"])
    assert await s.db.read(lambda r: artifacts.raw_record(r, ids["a-1"])) == b"a-1"
    assert await s.db.read(lambda r: artifacts.raw_record(r, 999)) is None


# --- what two runs bring back at once ------------------------------------------------------------------------


async def test_a_file_that_two_runs_bring_back_has_one_live_row(s: Shelf, tmp_path: Path) -> None:
    ids = list((await s.change(add=["a-1", "b-1", "c-1"])).values())
    first, second, third = await open_set(s), await open_set(s), await open_set(s)
    assert await s.db.write(lambda tx: blocks.close(tx, first, ids)) == 3
    assert await s.db.write(lambda tx: blocks.close(tx, second, ids)) == 0
    assert await s.db.write(lambda tx: blocks.open_again(tx, first, ids[:2], columns=COLUMNS)) == 2
    assert await s.db.write(lambda tx: blocks.open_again(tx, second, ids, columns=COLUMNS)) == 1
    assert await s.db.write(lambda tx: blocks.open_again(tx, second, ids, columns=COLUMNS)) == 0
    assert await live(s) == {(1, name) for name in ("a-1", "b-1", "c-1")}
    path = tmp_path / "run.sqlite"  # of a run that looked while they were blocked
    await write_run_file(path, add=[("a-1", None), ("d-1", None)])
    assert (await copy(s, path, third))[:2] == (2, 1)
    assert await live(s) == {(1, name) for name in ("a-1", "b-1", "c-1", "d-1")}
    await artifacts.discard(s.db, third)
    assert await live(s) == {(1, name) for name in ("a-1", "b-1", "c-1")}
