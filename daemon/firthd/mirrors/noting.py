"""The only place that writes down what a look at a source's index has found, before and beside its being taken in."""

from collections.abc import Mapping

from firthd.mirrors.context import Context
from firthd.mirrors.index import Index
from firthd.mirrors.source import Job
from firthd.store import catalog, marks
from firthd.store.catalog import SourceIndexRow
from firthd.store.database import Tx


async def looked_to_the_end(context: Context, mirror_id: int) -> bool:
    """Tell whether the last look at what parts the source has came to its end, and was taken in."""
    mirror = await context.db.read(lambda r: catalog.mirror_by_id(r, mirror_id))
    return mirror is not None and mirror.settled


async def note_marks(context: Context, job: Job, index: Index) -> None:
    """Remember what a list says of parts that have not changed all the same: they need not be asked for again."""
    if index.marked:
        await context.db.write(lambda tx: marks.note_marks(tx, job.mirror_id, index.marked))


async def note_looked(context: Context, job: Job, index: Index, known: Mapping[str, SourceIndexRow]) -> None:
    """Write down that what the source has not was looked for, or the next scheduled run would look again today."""
    absent = [part.row for part in (*index.parts, *index.sides) if part.row.file is None]
    looked = [row for row in absent if row != known.get(row.part)]

    async def body(tx: Tx) -> None:
        mirror = await catalog.mirror_by_id(tx, job.mirror_id)
        if mirror is not None and job.still_that_of(mirror):
            await catalog.note_looked(tx, job.mirror_id, looked)

    if looked:
        await context.db.write(body)
