"""The only place that takes a project's page and a project list apart, in JSON (PEP 691, 792) and HTML (PEP 503)."""

import json
from collections.abc import Iterator, Mapping, Set
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

import msgspec
from msgspec import Raw, Struct, field

from firth_protocol.errors import TooLarge, Upstream
from firthd.families.base import Entry, Listed, Spool
from firthd.families.python.html import Links, last_segment, links_of, record_of
from firthd.families.python.names import in_one_spelling, normalised, valid_name
from firthd.families.python.records import FILES, metadata_entry, without_users_in
from firthd.upstream.masking import printable, starred

JSON_FORM, HTML_FORM = "json", "html"
LIST, GATE = "+list", "+gate"
"""Parts that no project can be: the list of a source that is mirrored whole, and one that only says what to ask for."""
ACTIVE, QUARANTINED = "active", "quarantined"
MAJOR = 1
SHOWN = 120
DIGITS_MAX = 18
ODD_SHOWN = 60
FILES_MAX = 200_000
"""Files that a project may have: ten times those of the largest there are, and a minute of work."""
INDEX_FOLDERS = frozenset({"simple", "+simple"})
WELCOME_LINKS = 20
PAGE_FILES = frozenset({"index.json", "index.v1_json", "index.html", "index.htm"})
"""What the files of a folder are called that hold its page."""


class Status(Struct, frozen=True):
    """What an index says of a whole project (PEP 792)."""

    status: str
    reason: str | None = None


class _Meta(Struct, gc=False):
    api_version: object = field(default=None, name="api-version")
    serial: object = field(default=None, name="_last-serial")


class _Page(Struct):
    name: object = None
    meta: _Meta | None = None
    files: list[Raw] | None = None
    project_status: object = field(default=None, name="project-status")
    project_status_reason: object = field(default=None, name="project-status-reason")


class _Name(Struct, gc=False):
    filename: object = None


class _Shown(Struct, gc=False):
    files: list[_Name] = []


class ListedProject(Struct, gc=False, omit_defaults=True):
    """A name that a project list has, as it is spelled there, and how often the project has changed."""

    name: str
    serial: int | str | None = field(default=None, name="_last-serial")


class _Projects(Struct, gc=False):
    meta: _Meta | None = None
    projects: list[ListedProject] | None = None


_decode_page = msgspec.json.Decoder(_Page).decode
_decode_name = msgspec.json.Decoder(_Name).decode
_decode_shown = msgspec.json.Decoder(_Shown).decode
_decode_projects = msgspec.json.Decoder(_Projects).decode
_decode_any = msgspec.json.Decoder(dict[str, Raw]).decode


class NotPageError(ValueError):
    """What came is no page of this project; the message says what it is instead."""


class ProjectPage:
    """What one project's page lists; read when this is made."""

    def __init__(self, spool: Spool, max_bytes: int) -> None:
        self.base_url = spool.base_url
        self.notes: list[str] = []
        self.status: Status | None = None
        self.serial: int | None = None
        """What the source counts the project's changes with."""
        self._project = spool.part
        self._entries: list[Entry] = []
        self._with_users = 0
        self.holds_users = False
        """Whether there are users or passwords in its addresses."""
        if spool.file is None:
            return
        content = content_of(spool, max_bytes)
        self.holds_users = starred(content) != content
        try:
            as_json = spool.encoding == JSON_FORM
            serial = self._read_json(spool.part, content) if as_json else self._read_html(content)
        except NotPageError as error:
            raise Upstream(
                f"what the source gives for {spool.part} is no page of it: {error}", hint="look at the source"
            ) from None
        if self._with_users:
            self.notes.append(
                f"{self._with_users:,} files have a user or a password in their addresses, which are not kept:"
                " what the source wants to be asked with belongs into the mirror's credentials"
            )
        self.serial = _number(serial)
        if older(serial, spool.mark):
            raise Upstream(
                f"the source's page of {spool.part} is older ({serial}) than its list says ({spool.mark})",
                hint="the next run asks for it again",
            )
        self._entries = [] if self.refused is not None else in_order(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries)

    @property
    def signed(self) -> bool:
        """Whether renders need the page beside its files' records: it says something of the project itself."""
        return self.status is not None

    @property
    def refused(self) -> str | None:
        """Why nobody may have the project's files."""
        if self.status is None or self.status.status != QUARANTINED:
            return None
        return "the source has put the project in quarantine" + (
            f": {self.status.reason}" if self.status.reason else ""
        )

    def _check_number(self, files: int) -> None:
        """Raise TooLarge for a page that no client would wait for."""
        if files > FILES_MAX:
            raise TooLarge(
                f"the source's page of {self._project} lists {files:,} files; at most {FILES_MAX:,} are taken",
                hint="look at the source; this limit is fixed",
            )

    def _add(self, filename: str, raw: Raw | bytes) -> None:
        if self.holds_users and (clean := without_users_in(raw)) is not None:
            raw = clean
            self._with_users += 1
        self._entries.append(Entry(filename, FILES, raw, self._project))
        metadata = metadata_entry(self._project, filename, raw)
        if metadata is not None:
            self._entries.append(metadata)

    def _read_json(self, project: str, content: bytes) -> object:
        try:
            page = _decode_page(content)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            page = _page_of_parts(content)
        if page.files is None:
            raise NotPageError(json_kind(content))
        self._check_number(len(page.files))
        check_version(page.meta.api_version if page.meta else None)
        if isinstance(page.name, str) and (not valid_name(page.name) or normalised(page.name) != project):
            raise NotPageError(f"it is the page of {printable(page.name)[:SHOWN]}")
        self.status = status_of(page.project_status, page.project_status_reason)
        for raw in page.files:
            self._add(_filename_of(raw), raw)
        return page.meta.serial if page.meta else None

    def _read_html(self, content: bytes) -> object:
        found = links_of(content)
        self._check_number(len(found.links))
        check_version(found.meta.get("pypi:repository-version"))
        self.status = status_of(found.meta.get("pypi:project-status"), found.meta.get("pypi:project-status-reason"))
        for link in found.links:
            record = record_of(link, found.base)
            if record is not None:
                self._add(*record)
        if not self._entries and self.status is None and (kind := html_kind(found)) is not None:
            raise NotPageError(kind)
        return found.serial


class ProjectList:
    """A source's project list, proven to be one: it has names and no records of files."""

    base_url: str | None = None
    status: Status | None = None

    def __init__(self, spool: Spool, max_bytes: int) -> None:
        self.notes: list[str] = []
        self.lazy = spool.part == LIST
        content = b"" if spool.file is None else content_of(spool, max_bytes)
        self.holds_users = starred(content) != content
        named = [] if spool.file is None else [project.name for project in _named(spool, content)]
        odd = [] if in_one_spelling(named) is not None else [name for name in named if not valid_name(name)]
        self._count = len(named) - len(odd)
        if odd:
            self.notes.append(
                f"{len(odd):,} names of the list are none that a project can have, such as"
                f" {printable(odd[0][:ODD_SHOWN])}; they are left out"
            )

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Entry]:
        return iter(())

    @property
    def signed(self) -> bool:
        """Whether renders need the list: of a source that is mirrored whole."""
        return self.lazy


def _filename_of(raw: Raw) -> str:
    """Return the file name that a record gives, empty where it gives none."""
    try:
        filename = _decode_name(raw).filename
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return ""
    return filename if isinstance(filename, str) else ""


def in_order(entries: list[Entry]) -> list[Entry]:
    """Return entries by file name and section; one that is listed twice in the same words says nothing new."""
    entries.sort(key=itemgetter(0, 1))
    kept: list[Entry] = []
    said: set[bytes] = set()  # of the name and section of the last one
    for entry in entries:
        if not kept or entry[:2] != kept[-1][:2]:
            said = set()
        raw = bytes(entry.raw)
        if raw not in said:
            kept.append(entry)
        said.add(raw)
    return kept


def _parts_of(content: bytes) -> dict[str, object]:
    """Return a JSON object in which one value is wrong, such as half of a pair of surrogates: the others are right."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        raise NotPageError(json_kind(content)) from None
    if not isinstance(found, dict):
        raise NotPageError(json_kind(content))
    return found


def _page_of_parts(content: bytes) -> _Page:
    found = _parts_of(content)
    files, meta = found.get("files"), found.get("meta")
    if not isinstance(files, list):
        raise NotPageError(json_kind(content))
    meta = meta if isinstance(meta, dict) else {}
    return _Page(
        name=found.get("name"),
        meta=_Meta(api_version=meta.get("api-version"), serial=meta.get("_last-serial")),
        files=[Raw(json.dumps(file).encode()) for file in files],
        project_status=found.get("project-status"),
        project_status_reason=found.get("project-status-reason"),
    )


def _projects_of_parts(content: bytes) -> _Projects:
    found = _parts_of(content)
    listed, meta = found.get("projects"), found.get("meta")
    if not isinstance(listed, list):
        raise NotPageError(json_kind(content))
    projects = []
    for one in listed:
        name = one.get("name") if isinstance(one, dict) else None
        if isinstance(name, str):
            serial = one.get("_last-serial")
            told = isinstance(serial, int | str) and not isinstance(serial, bool)
            projects.append(ListedProject(name, serial if told else None))
    return _Projects(_Meta(meta.get("api-version")) if isinstance(meta, dict) else None, projects)


def content_of(spool: Spool, max_bytes: int) -> bytes:
    """Return what was fetched; raise TooLarge for more than `max_bytes`."""
    assert spool.file is not None
    with Path(spool.file).open("rb") as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise TooLarge(
            f"The source's page of {spool.part} has more than {max_bytes:,} bytes.",
            hint="look at the source; if it is right, raise upstream.max_index_bytes in firth.toml",
        )
    return content.removeprefix(b"\xef\xbb\xbf")


class Named(NamedTuple):
    """The names that a project list has: in their one spelling, a line each, and as they stand there."""

    spelled: bytes
    projects: list[ListedProject]

    @property
    def keys(self) -> list[str]:
        """The names in their one spelling, in the order of the list."""
        return self.spelled.decode("ascii").split("\n") if self.projects else []


def names_of(spool: Spool, max_bytes: int) -> Named:
    """Return the names that a project list has, but for those that no project can have.

    Raises Upstream for what is no list.
    """
    named = _named(spool, content_of(spool, max_bytes))
    spelled = in_one_spelling([project.name for project in named])
    if spelled is None:
        named = [project for project in named if valid_name(project.name)]
        spelled = in_one_spelling([project.name for project in named])
        assert spelled is not None
    return Named(spelled, named)


def _named(spool: Spool, content: bytes) -> list[ListedProject]:
    """Return what a project list names, of JSON those names too that no project can have."""
    try:
        if spool.encoding == JSON_FORM:
            return _names_in_json(content)
        return _names_in_html(links_of(content))
    except NotPageError as error:
        raise Upstream(f"the source's project list is none: {error}", hint="look at the source") from None


def files_on(page: bytes) -> frozenset[str]:
    """Return the names of the files on a page that was made here, in JSON."""
    return frozenset(file.filename for file in _decode_shown(page).files if isinstance(file.filename, str))


def _names_in_json(content: bytes) -> list[ListedProject]:
    try:
        found = _decode_projects(content)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        found = _projects_of_parts(content)
    if found.projects is None:
        raise NotPageError(json_kind(content))
    check_version(found.meta.api_version if found.meta else None)
    return found.projects


def _names_in_html(found: Links) -> list[ListedProject]:
    check_version(found.meta.get("pypi:repository-version"))
    if (place := leads_to_index(found)) is not None:
        raise NotPageError(f"it is a web page that leads to {place}")
    names: dict[str, ListedProject] = {}
    files = 0
    for link in found.links:
        if record_of(link) is not None:
            files += 1
            continue
        path = link.href.partition("#")[0].partition("?")[0]
        name = last_segment(path.rstrip("/"))
        if name in PAGE_FILES:  # alpha/index.html leads to a project, index.json beside it does not
            name = last_segment(path.rpartition("/")[0])
        if path and valid_name(name):
            names.setdefault(name, ListedProject(name))
    if files > len(names):
        raise NotPageError("it is the page of a project, with files")
    if not names and (kind := html_kind(found)) is not None:
        raise NotPageError(kind)
    return list(names.values())


def marks(spool: Spool, names: Set[str] | None, max_bytes: int) -> Mapping[str, Listed]:
    """Return what a project list says of these projects (None: of all): its spelling and its serial."""
    found: dict[str, Listed] = {}
    named = names_of(spool, max_bytes)
    for name, project in zip(named.keys, named.projects, strict=True):
        if names is None or name in names:
            found[name] = Listed(project.name, None if project.serial is None else str(project.serial))
    return found


# --- what else it may be ----------------------------------------------------------------------------------------------


def check_version(version: object) -> None:
    """Raise NotPageError for an interface that this version does not know (PEP 629)."""
    major = str(version).partition(".")[0] if version is not None else ""
    if (number := _number(major)) is not None and number > MAJOR:
        raise NotPageError(
            f"it follows version {printable(str(version))[:20]} of the interface, which is not known here"
        )


def status_of(told: object, reason: object) -> Status | None:
    """Return a project's status, None for one that is as all are."""
    if isinstance(told, dict):
        reason = told.get("reason")
        told = told.get("status", told.get("state"))
    if not isinstance(told, str) or not told or told == ACTIVE:
        return None
    return Status(printable(told)[:SHOWN], printable(reason)[:SHOWN] if isinstance(reason, str) and reason else None)


def older(serial: object, mark: str | None) -> bool:
    """Tell whether a page is an older one than a list says."""
    told, wanted = _number(serial), _number(mark)
    return told is not None and wanted is not None and told < wanted


def _number(told: object) -> int | None:
    """Return what a source counts with, None for what is no number of a length that is one."""
    text = str(told)[: DIGITS_MAX + 1] if isinstance(told, str | int) else ""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= DIGITS_MAX else None


def json_kind(content: bytes) -> str:
    """Return what a JSON text is that is not what it should be."""
    try:
        keys = _decode_any(content)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        return f"it is not the JSON that it should be ({printable(str(error))[:SHOWN]})"
    if "projects" in keys:
        return "it is a list of projects"
    if "files" in keys:
        return "it is the page of a project whose files are not as they should be"
    if "info" in keys and ("releases" in keys or "urls" in keys):
        return "it is JSON about a release, not the list of its files"
    if keys and all(bytes(value)[:1] == b"[" for value in keys.values()):
        return "it is JSON with versions for names"
    shown = ", ".join(printable(key)[:20] for key in list(keys)[:4])
    return f"it is JSON with {shown}" if shown else "it is JSON with nothing in it"


def leads_to_index(found: Links) -> str | None:
    """Return the folder of an index that a server's welcome page leads to, None for any other page."""
    told = found.meta.get("pypi:repository-version") or "simple index" in f"{found.title} {found.headings}".lower()
    folders = [link.href.partition("#")[0] for link in found.links]
    places = [place for place in folders if last_segment(place.rstrip("/")) in INDEX_FOLDERS]
    return places[0] if places and not told and len(folders) <= WELCOME_LINKS else None


def html_kind(found: Links) -> str | None:
    """Return what a page without any file is instead of a project's; None: a page of no files."""
    if found.asks_for_password:
        return "it is a login page"
    if found.meta.get("pypi:repository-version"):
        folders = sum(link.href.partition("#")[0].endswith("/") for link in found.links)
        return "it is a list of projects" if folders > 1 else None
    if any(link.href.partition("#")[0].endswith("/") and link.href not in {"../", "/"} for link in found.links):
        return "it is a list of projects or folders"
    heading = f"{found.title} {found.headings}".lower()
    if "links for" in heading or "simple index" in heading:
        return None
    if not (found.links or heading.strip() or found.has_text):
        return None
    title = printable((found.title or found.headings).strip())[:60]
    return f"it is a web page ({title})" if title else "it is a web page"
