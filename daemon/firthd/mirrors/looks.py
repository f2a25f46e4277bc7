"""The only place that says when a source is looked at for the parts that it had not, and writes down that it was."""

from collections.abc import Mapping

from firthd.clock import utc_day
from firthd.mirrors.fetch_index import Index
from firthd.mirrors.source import Job
from firthd.store import catalog
from firthd.store.catalog import SourceIndexRow
from firthd.store.database import Database, Tx


def not_yet_today(known: Mapping[str, SourceIndexRow], now_ms: int) -> bool:
    """Tell whether nobody has looked today for the parts that the source had not."""
    return utc_day(max((row.read_at for row in known.values() if row.file is None), default=0)) != utc_day(now_ms)


async def note_looked(db: Database, job: Job, index: Index, known: Mapping[str, SourceIndexRow]) -> None:
    """Write down what a run with nothing new has looked for, or the next one by schedule would look again."""
    absent = [part.row for part in (*index.parts, *index.sides) if part.row.file is None]
    looked = [row for row in absent if row != known.get(row.part)]

    async def body(tx: Tx) -> None:
        mirror = await catalog.mirror_by_id(tx, job.mirror_id)
        if mirror is not None and job.still_that_of(mirror):
            await catalog.note_looked(tx, job.mirror_id, looked)

    if looked:
        await db.write(body)
