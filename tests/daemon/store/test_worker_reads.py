"""What worker processes read of the state, and that they never hold it up."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from firthd.store.worker_objects import PAGE_ROWS
from firthd.store.worker_reads import OFFERS_A_LOOK, WorkerState
from tests.support.conda_state import CondaState

ROWS = 2 * PAGE_ROWS + 7


@pytest.fixture
def state(tmp_path: Path) -> CondaState:
    """A state of many rows: one file in ten has a closed version beside its live one, at any page's edge."""
    state = CondaState(tmp_path)
    connection = state.connect()
    with connection:
        connection.execute(
            "INSERT INTO change_set (id, channel_id, cause, state, number, created_at) VALUES"
            " (1, 1, 'run', 'published', 1, 0), (2, 1, 'run', 'published', 2, 0),"
            " (3, 1, 'run', 'open', NULL, 0), (4, 2, 'run', 'published', 1, 0)"
        )
        rows: list[tuple[str, str, int, int | None]] = []
        for number in range(ROWS):
            name = f"package-{number // 3:05}"
            rows.append((f"{name}-{number % 3}-0.conda", name, 1, None))
            if number % 10 == 0:
                rows.append((f"{name}-{number % 3}-0.conda", name, 1, 2))
        connection.executemany(
            "INSERT INTO artifact (channel_id, mirror_id, family, part, section, filename, name, version, build,"
            " build_number, declared, fingerprint, added_set, closed_set)"
            " VALUES (1, 1, 'conda', 'noarch', 'packages.conda', ?, ?, '1', '0', 0, 0, x'00', ?, ?)",
            rows,
        )
        connection.execute("INSERT INTO artifact_record SELECT id, CAST(filename AS BLOB) FROM artifact")
    connection.close()
    return state


@pytest.fixture
def reads(state: CondaState) -> Iterator[WorkerState]:
    reads = WorkerState(str(state.db))
    yield reads
    reads.close()


def test_every_live_row_comes_once_and_in_order(reads: WorkerState) -> None:
    reads.count_sets({1, 2})
    live = [row.filename for row in reads.live_rows(1, 1, "conda", "noarch")]
    assert live == sorted({f"package-{number // 3:05}-{number % 3}-0.conda" for number in range(ROWS)})
    pages = list(reads.shown_rows(1, "conda", "noarch"))
    assert [row.raw.decode() for page in pages for row in page] == live
    assert max(map(len, pages)) <= PAGE_ROWS
    assert len(pages) == 3


def test_rows_of_one_file_come_by_section_wherever_a_page_ends(state: CondaState, reads: WorkerState) -> None:
    doubled = "UPDATE artifact SET section = 'v3.conda' WHERE closed_set = 2 AND id % 20 < 10"
    state.execute(doubled)
    reads.count_sets({1})
    rows = [(row.filename, row.section) for page in reads.shown_rows(1, "conda", "noarch") for row in page]
    assert len(rows) == ROWS + len(range(0, ROWS, 10))
    assert rows == sorted(rows)


def test_closings_that_do_not_count_close_nothing(reads: WorkerState) -> None:
    reads.count_sets({1})
    assert sum(len(page) for page in reads.shown_rows(1, "conda", "noarch")) == ROWS + len(range(0, ROWS, 10))
    reads.count_sets({2})
    assert list(reads.shown_rows(1, "conda", "noarch")) == [[]]


def test_names_touched_are_complete(reads: WorkerState) -> None:
    names = {f"package-{number // 3:05}" for number in range(ROWS)}
    assert reads.touched(1, "conda", [1]) == {"noarch": names}
    assert reads.touched(1, "conda", [2]) == {"noarch": {f"package-{n // 3:05}" for n in range(0, ROWS, 10)}}
    assert reads.touched(2, "conda", [1]) == {}


def test_contested_names_are_found_wherever_a_look_ends(state: CondaState, reads: WorkerState) -> None:
    connection = state.connect()
    with connection:
        connection.executemany(
            "INSERT INTO offered (channel_id, mirror_id, family, part, name, added_set, closed_set)"
            " VALUES (1, ?, 'conda', 'noarch', ?, 1, ?)",
            [
                (mirror, f"package-{number:05}", 2 if number % 3 == 0 and mirror == 7 else None)
                for number in range(OFFERS_A_LOOK)
                for mirror in ((1, 7) if number % 100 == 0 else (1,))
            ],
        )
    connection.close()
    every = [f"package-{number:05}" for number in range(0, OFFERS_A_LOOK, 100)]
    reads.count_sets({1})
    assert list(reads.contested(1, "conda")) == [(name, {1, 7}) for name in every]
    reads.count_sets({1, 2})
    assert [name for name, _ in reads.contested(1, "conda")] == [name for name in every if int(name[-5:]) % 3]
    assert reads.names_offered_anew(1, "conda", [2]) == {name for name in every if int(name[-5:]) % 3 == 0}
    assert list(reads.contested(2, "conda")) == []


def test_sets_are_told_apart_by_state_number_and_channel(reads: WorkerState) -> None:
    assert reads.lasting_sets(1) == {1, 2}
    assert reads.published_sets(1, 1) == {1}
    assert reads.published_sets(1, 9) == {1, 2}


def test_stored_digests_are_looked_up_in_bulk(state: CondaState, reads: WorkerState) -> None:
    digests = [number.to_bytes(32, "big") for number in range(1200)]
    assert reads.stored(1, digests) == set()
    for sha256 in digests[::400]:
        state.execute("INSERT INTO blob VALUES (?, 1, 0)", (sha256,))
    assert reads.stored(1, digests) == set()  # nobody has given them to the channel
    for sha256 in digests[::400]:
        state.execute("INSERT INTO delivered VALUES (1, ?)", (sha256,))
    assert reads.stored(1, digests) == set(digests[::400])
    assert reads.stored(2, digests) == set()


def test_writer_can_checkpoint_between_two_pages(state: CondaState, reads: WorkerState) -> None:
    reads.count_sets({1, 2})
    pages = reads.shown_rows(1, "conda", "noarch")
    next(pages)
    state.execute("UPDATE channel SET description = 'changed'")
    writer = state.connect()
    try:
        busy, _, _ = writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    finally:
        writer.close()
    assert busy == 0
    assert len(next(pages)) > 0


def test_worker_cannot_write(reads: WorkerState) -> None:
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        reads._connection.execute("DELETE FROM artifact")
