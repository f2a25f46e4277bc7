"""The one list of columns: what a record's struct lists is what a run's file and the state keep of it."""

from pathlib import Path

import pytest
from msgspec import Raw, Struct
from msgspec.structs import asdict, astuple

from firthd.families.base import COLUMNS, SourceRecord
from firthd.store import copying, hand_over
from firthd.store.columns import RAW, Column, columns_of, in_the_row, selected
from firthd.store.run_file import RunFile
from firthd.store.worker_reads import LiveRow, ShownRow
from tests.support.clock import FakeClock
from tests.support.state import record_of, shelf


class Coloured(SourceRecord, frozen=True, gc=False):
    """A record with a column more than today's."""

    hue: str | None


async def test_a_new_column_is_one_line_and_a_migration(tmp_path: Path) -> None:
    columns = columns_of(Coloured)
    record = Coloured(**asdict(record_of("numpy-1.0")), hue="blue")
    file = tmp_path / "run.sqlite"
    with RunFile(str(file)) as run_file:
        run_file.start_read(columns)
        run_file.add([("conda", "noarch", *astuple(record), None)])
    async with shelf(tmp_path / "state") as s:
        await s.db.write(lambda tx: tx.execute("ALTER TABLE artifact ADD COLUMN hue TEXT"))
        await s.store("numpy-1.0")
        ours = {"db": s.db, "columns": columns, "channel_id": s.channel_id, "mirror_id": 1, "clock": FakeClock()}
        await s.change()
        await s.change()
        first, second = (row[0] for row in await s.db.read(lambda r: r.rows("SELECT id FROM change_set ORDER BY id")))
        async with s.db.attached(file) as schema:
            await copying.copy_in(schema=schema, change_set=first, **ours)  # type: ignore[arg-type]
        done = await hand_over.hand_over(change_set=second, keep=True, **ours)  # type: ignore[arg-type]
        assert (done.kept, done.dropped) == (1, 0)
        names = ", ".join(in_the_row(columns))
        rows = await s.db.read(lambda r: r.rows(f"SELECT mirror_id, {names} FROM artifact ORDER BY mirror_id"))
        raws = await s.db.read(lambda r: r.rows("SELECT raw FROM artifact_record"))
    kept = tuple(value for name, value in asdict(record).items() if name != RAW)
    assert rows == [(0, *kept), (1, *kept)]
    assert raws == [(b"numpy-1.0",), (b"numpy-1.0",)]


def test_the_columns_are_the_fields_of_a_record() -> None:
    assert [column.name for column in COLUMNS] == list(SourceRecord.__struct_fields__)
    assert COLUMNS[-1] == Column(RAW, "BLOB", nullable=False)
    assert Column("size", "INTEGER", nullable=True) in COLUMNS
    assert RAW not in in_the_row(COLUMNS)
    assert Column("size", "INTEGER", nullable=True).definition == "size INTEGER"
    assert Column("name", "TEXT", nullable=False).definition == "name TEXT NOT NULL"


async def test_the_state_has_every_column_of_a_record(tmp_path: Path) -> None:
    async with shelf(tmp_path) as s:
        rows = await s.db.read(lambda r: r.rows("SELECT name, type, [notnull] FROM pragma_table_info('artifact')"))
    there = {Column(name, kind, nullable=not notnull) for name, kind, notnull in rows}
    assert {column for column in COLUMNS if column.name != RAW} <= there


def test_what_a_worker_reads_is_named_by_the_fields_of_its_rows() -> None:
    ours = {"id", "mirror_id", *SourceRecord.__struct_fields__}
    assert set(LiveRow._fields) | set(ShownRow._fields) <= ours
    assert selected(("id", "raw"), "a", raw="r.raw") == "a.id, r.raw AS raw"


def test_a_field_of_no_known_type_is_told() -> None:
    class Odd(Struct):
        raw: Raw | bytes
        when: float

    with pytest.raises(KeyError):
        columns_of(Odd)
