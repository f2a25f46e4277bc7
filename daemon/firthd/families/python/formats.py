"""The only place that gathers what Python's family knows about bytes: what worker processes use of it."""

from collections.abc import Callable, Iterable, Mapping, Sequence, Set

from msgspec import Raw

from firth_protocol.types import Family, Filters
from firthd.families.base import Comparable, Entry, Listed, Listing, Output, SourceRecord, Spool
from firthd.families.python import filters as choice
from firthd.families.python.names import platform_of, valid_project
from firthd.families.python.page import GATE, LIST, ProjectList, ProjectPage, marks
from firthd.families.python.records import (
    check_row,
    fingerprint,
    fingerprint_without_addresses,
    source_record,
)
from firthd.families.python.render import ProjectRenderer, listed, page, write_lists
from firthd.families.python.requirements import version_key
from firthd.store.worker_reads import ShownRow


class PythonFormats:
    """A part is a project; its index is the project's page."""

    family = Family.PYTHON
    first_parts = ()

    def valid_part(self, part: str) -> bool:
        return part in {LIST, GATE} or valid_project(part)

    def read(self, spool: Spool, max_bytes: int) -> ProjectPage | ProjectList:
        return (ProjectList if spool.part in {LIST, GATE} else ProjectPage)(spool, max_bytes)

    def marks(self, spool: Spool, names: Set[str] | None, max_bytes: int) -> Mapping[str, Listed]:
        return marks(spool, names, max_bytes)

    def taker(self, filters: Filters) -> Callable[[Entry], bool] | None:
        return choice.taker(filters)

    def elsewhere(self, part: str, filename: str) -> tuple[str, str] | None:
        return None

    def fingerprint(self, raw: Raw | bytes) -> bytes:
        return fingerprint(raw)

    def writable(self, row: ShownRow) -> None:
        check_row(row)

    def identity(self, row: ShownRow) -> bytes:
        return fingerprint_without_addresses(row.raw)

    def record(self, entry: Entry, fingerprint: bytes) -> SourceRecord:
        return source_record(entry, fingerprint)

    def renderer(self, part: str, touched: Set[str] | None, out: Output) -> ProjectRenderer:
        return ProjectRenderer(part, out)

    def conclude(self, rendered: Set[str], out: Output) -> None:
        write_lists(rendered, out)

    def empty_part(self, part: str) -> Mapping[str, bytes]:
        return {}

    def version_key(self, version: str) -> Comparable:
        return version_key(version)

    def depended_on(self, raw: bytes) -> Iterable[str]:
        return ()

    def platform(self, part: str, filename: str) -> str:
        return platform_of(filename, part)

    def page(self, part: str, form: str, records: Sequence[SourceRecord], listing: Listing) -> bytes:
        if not isinstance(listing, ProjectPage):
            return page(part, form, listed(records), None)
        return page(part, form, listed(records), listing.status, listing.serial)


FORMATS = PythonFormats()
