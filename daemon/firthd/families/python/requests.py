"""The only place that says how a Python source is asked for its project list and pages, and what an answer is."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import NamedTuple

from msgspec.structs import replace

from firth_protocol.types import Filters, MirrorMode, MirrorType, SourceFound
from firthd.families.base import Answer, Ask, Batch, Form, Known, Listed, Requests
from firthd.families.python.html import last_segment, links_of
from firthd.families.python.looks import SAMPLED, projects_of, sampled, wheels_of
from firthd.families.python.names import ENDINGS, by_one_spelling, normalised, valid_project
from firthd.families.python.page import GATE, HTML_FORM, JSON_FORM, LIST, html_kind, json_kind, leads_to_index
from firthd.families.python.paths import SIMPLE
from firthd.families.python.recognise import ACCEPT, HTML, JSON, PAGES

GATED_FROM = 100
"""From so many projects on the source's list is asked first: one request tells which of them have changed."""
AT_ONCE = 12
BATCH = 240
LOOKED_AT = 2000
"""Pages of which it is told in one go whether the list says anything new of them: a few milliseconds."""
PROBED = 3
LOOKED_BYTES = 65_536
"""What is looked at closely, in the event loop."""
FOLDER_FILES = ("index.v1_json", "index.json", "index.html")
PREFIXES = ("", f"{SIMPLE}/")
_BLANKS = b"\xef\xbb\xbf \t\r\n"
_JSON_TYPES = frozenset({JSON, "application/json", "text/json"})
_HTML_TYPES = frozenset({HTML, *PAGES})
_NO_TYPES = frozenset({"", "application/octet-stream", "text/plain"})


def forms(folder: str, prefixes: Sequence[str] = PREFIXES) -> tuple[Form, ...]:
    """Return what may hold a page, below the index's address or its folder `simple`: a server's answer, or files."""
    return (
        *(Form(f"{prefix}{folder}", accept=ACCEPT, in_folder=False) for prefix in prefixes),
        *(Form(f"{prefix}{folder}{name}", in_folder=True) for prefix in prefixes for name in FOLDER_FILES),
    )


def ask(part: str, spelled: str = "", prefixes: Sequence[str] = PREFIXES, mark: str | None = None) -> Ask:
    """Return how a project's page is asked for: by its one spelling, then by that of the source's list."""
    also = forms(f"{spelled}/", prefixes) if spelled and spelled != part else ()
    return Ask(part=part, forms=(*forms(f"{part}/", prefixes), *also), mark=mark)


def lazy_ask(part: str) -> Ask | None:
    """Return how a page is asked for that a client wants; None: no project can be called so."""
    return ask(part) if valid_project(part) else None


def is_lazy(part: str, filters: Filters, mode: MirrorMode) -> bool:
    """Tell whether a mirror reads a project's page on request: it is passive and mirrors all of its source."""
    return mode is MirrorMode.PASSIVE and filters.projects is None and valid_project(part)


def requests(known: Mapping[str, Known], filters: Filters, thorough: bool, mode: MirrorMode) -> Requests:
    """Ask for the project list alone (passive, without a name list), or for the pages that have changed.

    The list's marks say which have; without a list, or marks in it, each page's validator does.
    """
    wanted = None if filters.projects is None else by_one_spelling(filters.projects)
    if wanted is None and mode is MirrorMode.PASSIVE:
        yield Batch(asks=(Ask(part=LIST, forms=forms("")),))
        return
    marks: Mapping[str, Listed] | None = None
    prefixes: Sequence[str] = PREFIXES
    if wanted is None or len(wanted) >= GATED_FROM:
        names = None if wanted is None else frozenset(wanted)
        (listed,) = yield Batch(asks=(Ask(part=GATE, forms=forms(""), lists=True, names=names),))
        if listed.form is not None:
            prefixes = (listed.form.path.removesuffix(listed.form.path.rpartition("/")[2]),)
            marks = listed.marks
            if marks is None:
                yield from _in_batches(_as_before(known, wanted), known, prefixes)
                return
        elif wanted is None:
            return
    yield from _in_batches(_of_list(known, wanted, marks or {}, thorough=thorough), known, prefixes)


class _Page(NamedTuple):
    """A project's page: its name, how the source spells it, and what the list says of it."""

    part: str
    spelled: str
    mark: str | None


def _in_batches(pages: Iterator[_Page], known: Mapping[str, Known], prefixes: Sequence[str]) -> Requests:
    """Ask a batch at a time: of ten thousand at once, others would wait while they are made.

    What was read under the mark that the list has now is not asked for.
    """
    while some := tuple(islice(pages, LOOKED_AT)):
        asks, same = [], []
        for page in some:
            before = known.get(page.part)
            if before is not None and before.copy and page.mark is not None and before.mark == page.mark:
                same.append(page.part)
            else:
                asks.append(page)
        for start in range(0, len(asks) or 1, BATCH):
            batch = tuple(ask(page.part, page.spelled, prefixes, page.mark) for page in asks[start : start + BATCH])
            yield Batch(asks=batch, at_once=AT_ONCE, same=() if start else same)


def _as_before(known: Mapping[str, Known], wanted: Mapping[str, str] | None) -> Iterator[_Page]:
    """Yield the pages of a list that has not changed: those that it marked are as they were."""
    for part in sorted(filter(valid_project, known) if wanted is None else wanted):
        before = known.get(part)
        if before is None or before.there:
            yield _Page(part, wanted[part] if wanted else "", before.mark if before else None)


def _of_list(
    known: Mapping[str, Known],
    wanted: Mapping[str, str] | None,
    marks: Mapping[str, Listed],
    *,
    thorough: bool,
) -> Iterator[_Page]:
    there = {part for part, before in known.items() if before.there and valid_project(part)}
    for part in sorted((there | marks.keys()) if wanted is None else wanted.keys()):
        listed = marks.get(part)
        before = known.get(part)
        if listed is not None:
            yield _Page(part, listed.spelled, listed.mark)
        elif part in there or before is None or thorough:  # gone, quarantined, or a list that is behind: its page says
            yield _Page(part, wanted[part] if wanted else "", None)


def probe(filters: Filters) -> Requests:
    """Ask for the project list, and for some pages: of the first projects that the filter names, and of others.

    Without a list those are what there is; with one they show what kinds of files there are.
    """
    (listed,) = yield Batch(asks=(Ask(part=LIST, forms=forms("")),))
    names = filters.projects[:PROBED] if filters.projects else []
    if listed.form is None and names:
        yield Batch(asks=tuple(ask(normalised(name), name) for name in names))
    elif listed.form is not None:
        prefixes = (listed.form.path.removesuffix(listed.form.path.rpartition("/")[2]),)
        pages = [
            ask(name, prefixes=prefixes) for name in dict.fromkeys([*map(normalised, names), *sampled(listed.start)])
        ]
        yield Batch(asks=tuple(replace(page, beside=LIST) for page in pages[: max(SAMPLED, len(names))]))


def encoding(form: Form, start: bytes, content_type: str) -> str | None:
    """Return the form of a page by its type and first bytes, None for what is none."""
    kind = content_type.lower()
    begins = start.lstrip(_BLANKS)[:1]
    if begins == b"{" and kind in _JSON_TYPES | _NO_TYPES:
        return JSON_FORM
    return HTML_FORM if begins == b"<" and kind in _HTML_TYPES | _NO_TYPES else None


def instead(part: str, form: Form, start: bytes, content_type: str) -> str | None:
    """Return what the beginning of an answer is that is no project list or no page, None for one that may be it."""
    start = start[:LOOKED_BYTES]
    if part != LIST:
        return _no_page(form, start, content_type)
    if encoding(form, start, content_type) == JSON_FORM:
        if b'"projects"' in start:
            return None
        return "the page of a project" if b'"files"' in start else json_kind(start).removeprefix("it is ")
    found = links_of(start)
    if (place := leads_to_index(found)) is not None:
        return f"a web page that leads to {place}"
    files = sum(1 for link in found.links if last_segment(link.href).endswith((".whl", ".tar.gz", ".zip")))
    if files > len(found.links) // 2:
        return "the page of a project, with files"
    if any(link.href.partition("#")[0].endswith("/") for link in found.links) and not found.asks_for_password:
        return None
    kind = html_kind(found)
    return None if kind is None else kind.removeprefix("it is ")


def _no_page(form: Form, start: bytes, content_type: str) -> str | None:
    if encoding(form, start, content_type) == JSON_FORM:
        return None if b'"files"' in start else json_kind(start).removeprefix("it is ")
    links = links_of(start)
    files = any(last_segment(link.href).endswith(ENDINGS) for link in links.links)
    kind = None if files else html_kind(links)
    return None if kind is None else kind.removeprefix("it is ")


def found(source: str, answers: Sequence[Answer]) -> SourceFound:
    """Return what to tell of a source that answered so."""
    listed = next((answer for answer in answers if answer.part == LIST and answer.form is not None), None)
    warnings = []
    if listed is None:
        warnings.append("there is no project list: only the projects that are named can be mirrored")
    elif listed.form is not None and listed.form.path.startswith(f"{SIMPLE}/") and not source.startswith("file:"):
        source = f"{source}/{SIMPLE}"
        warnings.append(f"the index is below /{SIMPLE}/ there: that is the source")
    projects, told = (None, None) if listed is None else projects_of(listed)
    platforms, pythons = wheels_of(answer for answer in answers if answer.part != LIST)
    warnings += [told] if told is not None else []
    return SourceFound(
        type=MirrorType.PYTHON,
        source=source,
        subdirs=[],
        projects=projects,
        index_bytes=None if listed is None else listed.size,
        warnings=warnings,
        platforms=platforms,
        python_versions=pythons,
    )
