"""The only place that makes the pages of a Python index: a project's, and the project list, each in JSON and HTML."""

import gzip
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from hashlib import blake2b, sha256
from itertools import islice
from operator import lt
from urllib.parse import quote
from zlib import crc32

import msgspec
from msgspec import Struct

from firth_protocol.errors import FirthError
from firthd.families.base import Output, Side, SourceRecord, Spool
from firthd.families.python.names import METADATA_ENDING, taken_apart
from firthd.families.python.page import (
    GATE,
    HTML_FORM,
    JSON_FORM,
    LIST,
    ListedProject,
    Named,
    ProjectPage,
    Status,
    names_of,
)
from firthd.families.python.paths import GZIPPED, PACKAGES, SIMPLE, ZSTD, list_path, page_path
from firthd.families.python.records import METADATA, decoded, is_public
from firthd.families.python.requirements import version_key
from firthd.store.joined import MARK_BYTES, Piece
from firthd.store.worker_reads import ShownRow
from firthd.upstream.masking import without_users

API_VERSION = "1.4"
PAGE_MAX_BYTES = 1 << 28
PIECE_LEAST, PIECE_CHANCE, PIECE_MOST = 1024, 512, 8192
"""Names of a piece of a project list: 1,500 as a rule. Of those behind the least, one in so many ends it."""
GZIP_LEVEL = 6
_ESCAPED = str.maketrans(
    {code: "\ufffd" for code in range(32) if chr(code) not in "\t\n\r"}
    | {ord(letter): text for letter, text in zip("&<>\"'", ("&amp;", "&lt;", "&gt;", "&quot;", "&#x27;"), strict=True)}
)
KNOWN_HASHES = frozenset(
    {"md5", "sha1", "sha224", "sha256", "sha384", "sha512", "blake2b", "blake2s"}
    | {f"sha3_{bits}" for bits in (224, 256, 384, 512)}
)
"""Digests that clients know; at one of another name pip gives the file up, whatever stands beside it."""
_OURS = frozenset({"dist-info-metadata", "data-dist-info-metadata", "core-metadata", "url", "filename", "hashes"})
"""What a page says otherwise than its source; the first name makes old clients fail (PEP 714)."""
_encode = msgspec.json.Encoder().encode


class ListedFile(Struct, frozen=True):
    """A file as a page lists it."""

    filename: str
    record: Mapping[str, object]  # as the source gives it
    size: int | None
    sha256: bytes | None
    declared: bool  # whether the source gives its sha256
    metadata: bytes | bool | None  # the sha256 of its core metadata; True: there is some; None: there is none


def escaped(text: str) -> str:
    """Return a text as it can stand in HTML, attributes too."""
    return text.translate(_ESCAPED)


def listed(rows: Iterable[ShownRow | SourceRecord]) -> list[ListedFile]:
    """Return the files of a project's rows; core metadata is said of those whose own row is there too."""
    rows = list(rows)
    metadata = {row.filename.removesuffix(METADATA_ENDING): row.sha256 for row in rows if row.section == METADATA}
    return [
        ListedFile(
            row.filename,
            decoded(row.raw),
            row.size,
            row.sha256,
            row.declared == 2,
            (metadata[row.filename] or True) if row.filename in metadata else None,
        )
        for row in rows
        if row.section != METADATA
    ]


def address_of(project: str, filename: str) -> str:
    """Return where a file is, relative to its project's page."""
    return f"../../{PACKAGES}/{project}/{quote(filename, safe='!+~=')}"


def page(
    project: str, form: str, files: Sequence[ListedFile], status: Status | None, serial: int | None = None
) -> bytes:
    """Return a project's page in one of its forms; `serial` is what its source counts with, where the list does too."""
    made = html_page if form == HTML_FORM else json_page
    return made(project, files, status, serial)


# --- JSON -------------------------------------------------------------------------------------------------------------


def json_page(project: str, files: Sequence[ListedFile], status: Status | None, serial: int | None = None) -> bytes:
    """Return a project's page as PEP 691 has it."""
    versions = {taken_apart(file.filename, project).version for file in files} - {""}
    meta: dict[str, object] = {"api-version": API_VERSION} | ({"_last-serial": serial} if serial is not None else {})
    content: dict[str, object] = {"meta": meta, "name": project}
    if status is not None:
        told = {"status": status.status} | ({"reason": status.reason} if status.reason else {})
        content["project-status"] = told
    content["versions"] = sorted(versions, key=version_key)
    content["files"] = [json_file(project, file) for file in files]
    return without_users(_encode(content))


def json_file(project: str, file: ListedFile) -> dict[str, object]:
    """Return a file's entry: what the source says of it, but for where it is, and for its metadata."""
    entry: dict[str, object] = {"filename": file.filename, "url": address_of(project, file.filename)}
    entry["hashes"] = hashes(file)
    entry |= {key: value for key, value in file.record.items() if key not in _OURS and not key.startswith("_")}
    if entry.get("provenance") is not None and not is_public(entry["provenance"]):
        del entry["provenance"]
    if not entry.get("size"):
        entry.pop("size", None)
        if file.size is not None:
            entry["size"] = file.size
    if file.metadata is not None:
        told = {"sha256": file.metadata.hex()} if isinstance(file.metadata, bytes) else True
        entry["core-metadata"] = entry["data-dist-info-metadata"] = told
    return entry


def hashes(file: ListedFile) -> dict[str, object]:
    """Return a file's digests: those of its source, or ours where it gives no sha256."""
    told = file.record.get("hashes")
    theirs = told.items() if isinstance(told, dict) else ()
    found: dict[str, object] = {
        name.lower(): value.lower()
        for name, value in theirs
        if isinstance(value, str) and value and name.lower() in KNOWN_HASHES
    }
    if not file.declared and file.sha256 is not None:
        found["sha256"] = file.sha256.hex()
    return found


# --- HTML -------------------------------------------------------------------------------------------------------------


def html_page(project: str, files: Sequence[ListedFile], status: Status | None, serial: int | None = None) -> bytes:
    """Return a project's page as PEP 503 has it."""
    head = [f'<meta name="pypi:repository-version" content="{API_VERSION}">']
    if status is not None:
        head.append(f'<meta name="pypi:project-status" content="{escaped(status.status)}">')
        if status.reason:
            head.append(f'<meta name="pypi:project-status-reason" content="{escaped(status.reason)}">')
    title = f"Links for {escaped(project)}"
    lines = [
        "<!DOCTYPE html>",
        "<html>",
        "<head>",
        *head,
        f"<title>{title}</title>",
        "</head>",
        "<body>",
        f"<h1>{title}</h1>",
        *(anchor(project, file) for file in files),
        *([f"<!--SERIAL {serial}-->"] if serial is not None else []),
        "</body>",
        "</html>\n",
    ]
    return without_users("\n".join(lines).encode())


def anchor(project: str, file: ListedFile) -> str:
    """Return a file's link."""
    record = file.record
    digest = hashes(file)
    name = next((name for name in ("sha256", "sha512", "sha384", "sha224", "sha1", "md5") if digest.get(name)), None)
    fragment = f"#{name}={digest[name]}" if name else ""
    attributes = [("href", f"{address_of(project, file.filename)}{fragment}")]
    if isinstance(required := record.get("requires-python"), str) and required:
        attributes.append(("data-requires-python", required))
    if yanked := record.get("yanked"):
        attributes.append(("data-yanked", yanked if isinstance(yanked, str) else ""))
    if file.metadata is not None:
        told = f"sha256={file.metadata.hex()}" if isinstance(file.metadata, bytes) else "true"
        attributes += [("data-core-metadata", told), ("data-dist-info-metadata", told)]
    if isinstance(record.get("gpg-sig"), bool):
        attributes.append(("data-gpg-sig", "true" if record["gpg-sig"] else "false"))
    provenance = record.get("provenance")
    if isinstance(provenance, str) and is_public(provenance):
        attributes.append(("data-provenance", provenance))
    spelled = " ".join(f'{name}="{escaped(value)}"' for name, value in attributes)
    return f"<a {spelled}>{escaped(file.filename)}</a><br />"


# --- what a publication renders ---------------------------------------------------------------------------------------


class ProjectRenderer:
    """Renders one project's page out of its rows, and what its source says of the project beside them."""

    def __init__(self, project: str, out: Output) -> None:
        self._project = project
        self._out = out
        self._rows: list[ShownRow] = []
        self._sides = [side for side in out.sides(project) if side.index]

    @property
    def published(self) -> bool:
        return bool(self._sides) or self._out.has(page_path(self._project, JSON_FORM))

    def add(self, row: ShownRow) -> None:
        """Take one visible file."""
        self._rows.append(row)

    def finish(self, report: Callable[[str, int, int], None]) -> None:
        """Write the page in both forms; a list of projects has none, though a release before made one of it."""
        if self._project in {LIST, GATE}:
            pages = [page_path(self._project, form) for form in (JSON_FORM, HTML_FORM)]
            for path in [*pages, *(f"{page}{GZIPPED}" for page in pages)]:
                if self._out.has(path):
                    self._out.end(path)
            return
        files, status = listed(self._rows), self._status()
        for form in (JSON_FORM, HTML_FORM):
            path, content = page_path(self._project, form), page(self._project, form, files, status)
            self._out.put(path, content)
            self._out.put(f"{path}{GZIPPED}", gzip.compress(content, GZIP_LEVEL, mtime=0))

    def _status(self) -> Status | None:
        """Return what the source says of the project, that of the mirror whose files are shown first."""
        shown = {row.mirror_id for row in self._rows}
        for side in self._sides:
            if not shown or side.mirror_id in shown:
                return status_beside(side)
        return None


def status_beside(side: Side) -> Status | None:
    """Return what a source's page says of its project; nothing where it cannot be read any more."""
    try:
        spool = Spool(part=side.beside, file=side.file, encoding=side.encoding)
        return ProjectPage(spool, PAGE_MAX_BYTES).status
    except (FirthError, OSError):
        return None


def write_lists(rendered: Set[str], out: Output) -> None:
    """Write the project list in both forms: what the channel shows, and what the sources list that are read lazily.

    What a mirror of this channel may hold a page to is the generation that shows it first.
    """
    since = out.shown_since(f"{SIMPLE}/")
    names = {name: ListedProject(name, since.get(page_path(name, JSON_FORM))) for name in out.packages()}
    if not (rendered or names or out.sides(LIST) or out.has(list_path(JSON_FORM))):
        return  # the channel has never had a Python mirror: there is nothing at its address
    found: list[Named] = []
    for side in out.sides(LIST):
        try:
            found.append(names_of(Spool(part=LIST, file=side.file, encoding=side.encoding), PAGE_MAX_BYTES))
        except (FirthError, OSError):
            out.note("the project list of a source cannot be read any more; the next run fetches it anew")
    order, projects = joined_lists(names, found)
    if out.sides(LIST):  # what else clients may find here than the files that are known
        out.listed(sha256("\n".join(order).encode()).digest())
    parts = list(cut(order))
    out.join(list_path(JSON_FORM), json_pieces([projects[one] for one in parts]))
    out.join(list_path(HTML_FORM), html_pieces([(order[one], projects[one]) for one in parts]))
    for form in (JSON_FORM, HTML_FORM):
        if out.has(f"{list_path(form)}{ZSTD}"):  # of a release before
            out.end(f"{list_path(form)}{ZSTD}")


def joined_lists(names: Mapping[str, ListedProject], lists: Sequence[Named]) -> tuple[list[str], list[ListedProject]]:
    """Return names in their one spelling, in order, and how each is listed: `names` and what sources list.

    Whoever counts a project's changes is passed on: the channel, then the sources in their order.
    """
    if len(lists) == 1:  # as a rule, and then 800,000 names are in order already
        keys, projects = lists[0].keys, list(lists[0].projects)
        if all(map(lt, keys, islice(keys, 1, None))):
            for name in sorted(names):
                place = bisect_left(keys, name)
                if place == len(keys) or keys[place] != name:
                    keys.insert(place, name)
                    projects.insert(place, names[name])
                elif names[name].serial is not None:
                    projects[place] = names[name]
            return keys, projects
    found = dict(names)
    for listed_by in lists:
        for name, project in zip(listed_by.keys, listed_by.projects, strict=True):
            if name not in found or found[name].serial is None:  # its page is read on request: the source's counts
                found[name] = project
    order = sorted(found)
    return order, [found[name] for name in order]


def cut(order: Sequence[str]) -> Iterator[slice]:
    """Yield where a list of names is cut into pieces: behind certain names, so that a new one moves no other cut."""
    start = 0
    while start < len(order):
        most = min(start + PIECE_MOST, len(order))
        places = range(start + PIECE_LEAST, most)
        end = next((place for place in places if not crc32(order[place - 1].encode()) % PIECE_CHANCE), most)
        yield slice(start, end)
        start = end


def json_pieces(parts: Sequence[Sequence[ListedProject]]) -> Iterator[Piece]:
    """Yield the pieces of a project list as PEP 691 has it."""
    yield _piece(_encode({"meta": {"api-version": API_VERSION}})[:-1] + b',"projects":[')
    for number, part in enumerate(parts):
        yield _piece((b"," if number else b"") + _encode(part)[1:-1])
    yield _piece(b"]}")


def html_pieces(parts: Sequence[tuple[Sequence[str], Sequence[ListedProject]]]) -> Iterator[Piece]:
    """Yield the pieces of a project list as links; a name that a project can have needs no escaping."""
    head = f'<meta name="pypi:repository-version" content="{API_VERSION}">'
    yield _piece(f"<!DOCTYPE html>\n<html>\n<head>\n{head}\n<title>Simple index</title>\n</head>\n<body>\n".encode())
    for names, part in parts:

        def make(names: Sequence[str] = names, part: Sequence[ListedProject] = part) -> bytes:
            links = [f'<a href="{name}/">{one.name}</a><br />\n' for name, one in zip(names, part, strict=True)]
            return "".join(links).encode()

        yield Piece(_mark("\n".join([one.name for one in part]).encode()), make)
    yield _piece(b"</body>\n</html>\n")


def _piece(content: bytes) -> Piece:
    return Piece(_mark(content), lambda: content)


def _mark(content: bytes) -> bytes:
    return blake2b(content, digest_size=MARK_BYTES).digest()
