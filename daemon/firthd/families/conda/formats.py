"""The only place that gathers what conda knows about bytes: what worker processes use of it."""

from collections.abc import Callable, Iterable, Mapping, Set

from msgspec import Raw

from firth_protocol.types import Family, Filters
from firthd.families.base import Comparable, Entry, Output, SourceRecord, Spool
from firthd.families.conda.document import Repodata
from firthd.families.conda.names import valid_subdir
from firthd.families.conda.paths import FIRST_SUBDIRS
from firthd.families.conda.pieces import ShardListing
from firthd.families.conda.records import (
    PLAIN_SECTIONS,
    depended_on,
    fingerprint,
    fingerprint_without_url,
    plain_print,
    source_record,
    usual_record_of,
)
from firthd.families.conda.render import SubdirRenderer, check_row, empty_subdir, name_old_shards
from firthd.families.conda.sides import write_channeldata
from firthd.families.conda.versions import version_key
from firthd.families.pieces import PIECES
from firthd.store.worker_reads import ShownRow


class CondaFormats:
    """A part is a subdir, a file's platform is its subdir."""

    family = Family.CONDA
    first_parts = FIRST_SUBDIRS

    def valid_part(self, part: str) -> bool:
        return valid_subdir(part)

    def read(self, spool: Spool, max_bytes: int) -> Repodata | ShardListing:
        return ShardListing(spool, max_bytes) if spool.encoding == PIECES else Repodata(spool, max_bytes)

    def taker(self, filters: Filters) -> Callable[[Entry], bool] | None:
        return None

    def elsewhere(self, part: str, filename: str) -> tuple[str, str] | None:
        return None

    def fingerprint(self, raw: Raw | bytes) -> bytes:
        return fingerprint(raw)

    def plain_print(self, raw: Raw | bytes) -> bytes:
        return plain_print(raw)

    def writable(self, row: ShownRow) -> None:
        check_row(row)

    def identity(self, row: ShownRow) -> bytes:
        return row.fingerprint if row.section in PLAIN_SECTIONS else fingerprint_without_url(row.raw)

    def record(self, entry: Entry, fingerprint: bytes) -> SourceRecord:
        return source_record(entry, fingerprint)

    def usual_record(self, entry: Entry) -> SourceRecord | None:
        return usual_record_of(entry)

    def renderer(self, part: str, touched: Set[str] | None, out: Output) -> SubdirRenderer:
        return SubdirRenderer(part, touched, out)

    def conclude(self, rendered: Set[str], out: Output) -> None:
        name_old_shards(rendered, out)
        write_channeldata(out)

    def empty_part(self, part: str) -> Mapping[str, bytes]:
        return empty_subdir(part)

    def version_key(self, version: str) -> Comparable:
        return version_key(version)

    def depended_on(self, raw: bytes) -> Iterable[str]:
        return depended_on(raw)

    def platform(self, part: str, filename: str) -> str:
        return part


FORMATS = CondaFormats()
