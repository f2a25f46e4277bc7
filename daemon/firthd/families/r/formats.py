"""The only place that gathers what the R family knows about bytes: what worker processes use of it."""

from collections.abc import Callable, Iterable, Mapping, Set

from msgspec import Raw

from firth_protocol.types import Family, Filters
from firthd.families.base import Comparable, Entry, Output, SourceRecord, Spool
from firthd.families.r.document import Index
from firthd.families.r.filters import taker
from firthd.families.r.names import platform_of, valid_part
from firthd.families.r.paths import elsewhere
from firthd.families.r.records import depended_on, fingerprint, identity, source_record
from firthd.families.r.render import PartRenderer, check_row, conclude
from firthd.families.r.requirement import version_key
from firthd.store.worker_reads import ShownRow


class RFormats:
    """A part is a folder that R looks for packages in, or the archive; a file's platform is its part's."""

    family = Family.R
    first_parts = ()

    def valid_part(self, part: str) -> bool:
        return valid_part(part)

    def read(self, spool: Spool, max_bytes: int) -> Index:
        return Index(spool, max_bytes)

    def taker(self, filters: Filters) -> Callable[[Entry], bool] | None:
        return taker(filters)

    def fingerprint(self, raw: Raw | bytes) -> bytes:
        return fingerprint(raw)

    def writable(self, row: ShownRow) -> None:
        check_row(row)

    def identity(self, row: ShownRow) -> bytes:
        return identity(row)

    def record(self, entry: Entry, fingerprint: bytes) -> SourceRecord:
        return source_record(entry, fingerprint)

    def elsewhere(self, part: str, filename: str) -> tuple[str, str] | None:
        return elsewhere(part, filename)

    def renderer(self, part: str, touched: Set[str] | None, out: Output) -> PartRenderer:
        return PartRenderer(part, out)

    def conclude(self, rendered: Set[str], out: Output) -> None:
        conclude(rendered, out)

    def empty_part(self, part: str) -> Mapping[str, bytes]:
        return {}

    def version_key(self, version: str) -> Comparable:
        return version_key(version)

    def depended_on(self, raw: bytes) -> Iterable[str]:
        return depended_on(raw)

    def platform(self, part: str, filename: str) -> str:
        return platform_of(part)


FORMATS = RFormats()
