"""The only place that reads what a source's list says of its parts; it runs in a worker process."""

from collections.abc import Mapping, Set
from pathlib import Path

import msgspec
from msgspec import Struct

from firth_protocol.errors import Internal
from firthd.families import load_formats
from firthd.families.base import Listed, Lists, Spool
from firthd.worker import Report


class MarksParams(Struct, frozen=True, kw_only=True):
    """What is read: a list that was fetched, and of which parts it is asked (None: of all)."""

    formats: str
    spool: Spool
    names: list[str] | None
    max_bytes: int
    out: str  # takes the answer, which may be large: `read_marks` reads it


class MarksResult(Struct, frozen=True):
    """How many of the parts the list has."""

    parts: int


def marks_task(params: MarksParams, report: Report) -> MarksResult:
    """Write what the list says of the parts; raise Upstream for what is no list."""
    found = marks_of(
        params.formats, params.spool, None if params.names is None else set(params.names), params.max_bytes
    )
    Path(params.out).write_bytes(msgspec.msgpack.encode(found))
    return MarksResult(len(found))


def marks_of(formats_at: str, spool: Spool, names: Set[str] | None, max_bytes: int) -> Mapping[str, Listed]:
    """Return what the list says of the parts; raise Upstream for what is no list. It blocks."""
    formats = load_formats(formats_at)
    if not isinstance(formats, Lists):
        raise Internal(f"the sources of {formats.family} list no parts", hint="please report it")
    return formats.marks(spool, names, max_bytes)


def read_marks(file: Path) -> dict[str, Listed]:
    """Read what a task has written, and take the file away."""
    content = file.read_bytes()
    file.unlink()
    return msgspec.msgpack.decode(content, type=dict[str, Listed])
