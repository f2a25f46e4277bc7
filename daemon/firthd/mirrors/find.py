"""The only place that knows how a mirror is addressed: by its id, or as `channel:name`."""

from firthd.absent import no_mirror
from firthd.store import catalog
from firthd.store.catalog import MirrorRow
from firthd.store.database import Reader


async def find(r: Reader, ref: int | str) -> MirrorRow:
    """Return the mirror that an id or `channel:name` means; raise NotFound."""
    row = None
    if isinstance(ref, int) or ref.isdecimal():
        number = int(ref) if len(str(ref)) < 19 else 0  # no id that SQLite can hold has more digits
        row = await catalog.mirror_by_id(r, number)
    elif ":" in ref:
        channel, _, name = ref.partition(":")
        row = await catalog.mirror_by_name(r, channel, name)
    if row is None:
        raise no_mirror(ref)
    return row
