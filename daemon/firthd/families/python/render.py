"""The only place that makes the pages of a Python index: a project's, and the project list, each in JSON and HTML."""

import gzip
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from hashlib import sha256
from typing import Protocol
from urllib.parse import quote

import msgspec
import zstandard
from msgspec import Struct

from firth_protocol.errors import FirthError
from firthd.families.base import Output, Side, SourceRecord, Spool
from firthd.families.python.names import METADATA_ENDING, normalised, taken_apart, valid_project
from firthd.families.python.page import HTML_FORM, JSON_FORM, LIST, ListedProject, ProjectPage, Status, names_of
from firthd.families.python.paths import GZIPPED, PACKAGES, SIMPLE, ZSTD, list_path, page_path
from firthd.families.python.records import METADATA, decoded, is_public
from firthd.families.python.requirements import version_key
from firthd.store.worker_reads import ShownRow
from firthd.upstream.masking import without_users

API_VERSION = "1.4"
PAGE_MAX_BYTES = 1 << 28
CHUNK = 4096
GZIP_LEVEL = 6
ZSTD_LEVEL = 6
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


class Writable(Protocol):
    """Takes bytes."""

    def write(self, content: bytes, /) -> object: ...


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
        """Write the page in both forms; a project of the list is none."""
        if self._project == LIST:
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
    for side in out.sides(LIST):
        try:
            found = names_of(Spool(part=LIST, file=side.file, encoding=side.encoding), PAGE_MAX_BYTES)
        except (FirthError, OSError):
            out.note("the project list of a source cannot be read any more; the next run fetches it anew")
            continue
        for project in found:
            name = project.name if valid_project(project.name) else normalised(project.name)
            if name not in names or names[name].serial is None:  # its page is read on request: the source's counts
                names[name] = project
    order = sorted(names)
    if out.sides(LIST):  # what else clients may find here than the files that are known
        out.listed(sha256("\n".join(order).encode()).digest())
    for form, write in ((JSON_FORM, write_json_list), (HTML_FORM, write_html_list)):
        path = list_path(form)
        # Generations of other days keep the compressed form only.
        compressed = zstandard.ZstdCompressor(level=ZSTD_LEVEL)
        with (
            out.open(path) as plain,
            out.open(f"{path}{ZSTD}") as packed,
            compressed.stream_writer(packed, closefd=False) as compressor,
        ):
            write(_Both(plain, compressor), order, names)


class _Both:
    """Writes the same into two files."""

    def __init__(self, *files: Writable) -> None:
        self._files = files

    def write(self, content: bytes) -> None:
        for file in self._files:
            file.write(content)


def write_json_list(file: Writable, order: Sequence[str], names: Mapping[str, ListedProject]) -> None:
    file.write(_encode({"meta": {"api-version": API_VERSION}})[:-1] + b',"projects":[')
    for start in range(0, len(order), CHUNK):
        lines = _encode([names[name] for name in order[start : start + CHUNK]])[1:-1]
        file.write((b"," if start else b"") + lines)
    file.write(b"]}")


def write_html_list(file: Writable, order: Sequence[str], names: Mapping[str, ListedProject]) -> None:
    """Write the list as links; a name that a project can have needs no escaping."""
    head = f'<meta name="pypi:repository-version" content="{API_VERSION}">'
    start = f"<!DOCTYPE html>\n<html>\n<head>\n{head}\n<title>Simple index</title>\n</head>\n<body>\n"
    file.write(start.encode())
    for place in range(0, len(order), CHUNK):
        lines = [f'<a href="{name}/">{names[name].name}</a><br />\n' for name in order[place : place + CHUNK]]
        file.write("".join(lines).encode())
    file.write(b"</body>\n</html>\n")
