"""The only place that turns a lazy part as its source has it into the page that clients get."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import zstandard
from msgspec import Struct

from firthd.families import load_formats, load_pages
from firthd.families.base import Formats, InvalidRecordError, Listing, SourceRecord, Spool
from firthd.workers import Report

COPY_BYTES = 1 << 20


class PageParams(Struct, frozen=True, kw_only=True):
    """What a page is made of. `packed` is a file that holds the part as it was read, compressed; `out` takes the page.

    `until_ms`: records that say that they are younger are left out; None: none is.
    """

    formats: str
    pages: str
    part: str
    form: str
    encoding: str
    packed: str
    out: str
    max_bytes: int
    until_ms: int | None = None


class PageResult(Struct, frozen=True):
    """How many records the page shows."""

    records: int


def page_task(params: PageParams, report: Report) -> PageResult:
    """Write the page; records that cannot be taken are left out, as a reading leaves them out."""
    formats = load_formats(params.formats)
    with tempfile.TemporaryDirectory(dir=Path(params.out).parent) as folder:
        plain = Path(folder, "part")
        unpack(Path(params.packed), plain)
        listing = formats.read(Spool(part=params.part, file=str(plain), encoding=params.encoding), params.max_bytes)
        records = [record for record in valid(formats, listing) if until(record, params.until_ms)]
    Path(params.out).write_bytes(load_pages(params.pages).page(params.part, params.form, records))
    return PageResult(len(records))


def unpack(packed: Path, plain: Path) -> None:
    """Write what a compressed file holds; it is as large as what was taken of the source."""
    with packed.open("rb") as source, plain.open("wb") as target:
        zstandard.ZstdDecompressor().copy_stream(source, target, COPY_BYTES, COPY_BYTES)


def valid(formats: Formats, listing: Listing) -> Iterator[SourceRecord]:
    """Yield the records of a listing that can be taken, each file name and section once."""
    last: tuple[str, str] | None = None
    for entry in listing:
        try:
            record = formats.record(entry, formats.fingerprint(entry.raw))
        except InvalidRecordError:
            continue
        if (record.filename, record.section) != last:
            yield record
        last = (record.filename, record.section)


def until(record: SourceRecord, moment_ms: int | None) -> bool:
    """Tell whether a record is no younger than a moment, as far as it says."""
    return moment_ms is None or record.timestamp is None or record.timestamp <= moment_ms
