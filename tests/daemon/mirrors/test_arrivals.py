"""Parts that have come are written down before they are taken in: each for itself, or small ones a few together."""

from pathlib import Path

import pytest

from firth_protocol.types import Filters, MirrorMode, MirrorType
from firthd.mirrors.arrivals import GATHERED, Arrivals
from firthd.mirrors.source import Job
from firthd.store.catalog import SourceIndexRow
from firthd.store.database import Database
from firthd.upstream.client import Source
from tests.support.clock import FakeClock


def row(number: int) -> SourceIndexRow:
    return SourceIndexRow(f"p{number}", f"p{number}/", "json", None, None, f"f{number}", 1, 0, None, 1)


JOB = Job(
    mirror_id=1,
    channel_id=1,
    channel="main",
    name="p",
    type=MirrorType.PYTHON,
    mode=MirrorMode.PASSIVE,
    source=Source(url="https://python.example.org/simple"),
    filters=Filters(),
    keep=False,
)


@pytest.mark.parametrize(("small", "before", "after"), [(True, 1, 2), (False, GATHERED + 3, GATHERED + 3)])
async def test_small_parts_are_written_down_a_few_together(
    tmp_path: Path, small: bool, before: int, after: int
) -> None:
    db = await Database.open(tmp_path / "firth.sqlite", FakeClock())
    begun = db.changes
    arrivals = Arrivals(db, JOB, small=small)
    for number in range(GATHERED + 3):
        await arrivals(row(number))
    assert db.changes - begun == before
    await arrivals.all()
    assert db.changes - begun == after
    await db.close()
