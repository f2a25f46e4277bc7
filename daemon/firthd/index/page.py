"""The only place that turns a lazy part as its source has it into the page that clients get."""

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import zstandard
from msgspec import Struct

from firth_protocol.types import Filters
from firthd.families import load_formats, load_pages, load_policing
from firthd.families.base import Entry, Formats, InvalidRecordError, Listing, SourceRecord, Spool
from firthd.index.messages import JudgedBy
from firthd.policies.advisories import Flaws, decode_advisory
from firthd.policies.evaluate import KEPT, Judging
from firthd.policies.judge import Judge
from firthd.worker import Report

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
    max_bytes: int
    packed: str = ""
    out: str = ""
    until_ms: int | None = None
    filters: Filters = Filters()  # of the mirror
    left_out: list[str] = []  # names of files that it does not show
    policy: JudgedBy | None = None  # judges what is shown now, whenever the page was read
    flaws: list[bytes] = []  # advisories about the part's package, where the policy asks for them


class PageResult(Struct, frozen=True):
    """How many records the page shows."""

    records: int


def page_task(params: PageParams, report: Report) -> PageResult:
    """Write the page; records that cannot be taken are left out, as a reading leaves them out."""
    with tempfile.TemporaryDirectory(dir=Path(params.out).parent) as folder:
        plain = Path(folder, "part")
        unpack(Path(params.packed), plain)
        page, records = made(params, str(plain))
    Path(params.out).write_bytes(page)
    return PageResult(records)


def small_page(params: PageParams, body: bytes) -> bytes:
    """Return the page of a small part, whose compressed bytes are given; no disk is needed, which may be full."""
    fd = os.memfd_create("part", os.MFD_CLOEXEC)
    try:
        with os.fdopen(os.dup(fd), "wb") as plain:
            plain.write(zstandard.ZstdDecompressor().decompress(body))
        return made(params, f"/proc/self/fd/{fd}")[0]
    finally:
        os.close(fd)


def made(params: PageParams, file: str) -> tuple[bytes, int]:
    """Return the page of the part that lies in a file, and how many records it shows."""
    formats = load_formats(params.formats)
    listing = formats.read(Spool(part=params.part, file=file, encoding=params.encoding), params.max_bytes)
    takes = formats.taker(params.filters)
    left_out = set(params.left_out)
    shown = (record for record in valid(formats, listing, takes) if until(record, params.until_ms))
    records = [record for record in shown if record.filename not in left_out]
    if params.policy is not None:
        records = kept(params.policy, params.flaws, params.part, records)
    return load_pages(params.pages).page(params.part, params.form, records, listing), len(records)


def kept(by: JudgedBy, flaws: Sequence[bytes], part: str, records: Sequence[SourceRecord]) -> list[SourceRecord]:
    """Return the records that a policy keeps, as far as the part alone tells it."""
    policing = load_policing(by.policing)
    known = Flaws(policing, by.rules.cve, [decode_advisory(one) for one in flaws]) if by.rules.cve else None
    judge = Judge(by.rules, policing, now_ms=by.now_ms, flaw=known.worst if known else None)
    judging = Judging(judge, lambda facts: facts.timestamp or 0, lambda facts, code: None)
    judging.begin(part, len(records))
    for number, record in enumerate(records):
        judging.see(number, policing.facts(part, Entry(record.filename, record.section, record.raw, record.name)))
    judging.end_part()
    judging.end()
    return [record for record, code in zip(records, judging.codes[part], strict=True) if code == KEPT]


def unpack(packed: Path, plain: Path) -> None:
    """Write what a compressed file holds; it is as large as what was taken of the source."""
    with packed.open("rb") as source, plain.open("wb") as target:
        zstandard.ZstdDecompressor().copy_stream(source, target, COPY_BYTES, COPY_BYTES)


def valid(formats: Formats, listing: Listing, takes: Callable[[Entry], bool] | None) -> Iterator[SourceRecord]:
    """Yield the records of a listing that can be taken and that the filters take, each file name and section once."""
    last: tuple[str, str] | None = None
    for entry in listing:
        if takes is not None and not takes(entry):
            continue
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
