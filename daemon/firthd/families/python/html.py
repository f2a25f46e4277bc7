"""The only place that reads an index's HTML pages (PEP 503): links, their attributes, and what the head says."""

from urllib.parse import unquote, urljoin, urlsplit

import msgspec
from msgspec import Struct

from firthd.families.python.names import ENDINGS
from firthd.store.promises import ALGORITHMS
from firthd.upstream.markup import Comment, End, Start, Text, pieces

TEXT_MAX = 300
_HASHES = frozenset({"sha256", "md5", *ALGORITHMS})
_SIDE_ENDINGS = (".asc", ".sig", ".metadata")


class Link(Struct, frozen=True):
    """An anchor of a page."""

    href: str
    text: str
    attributes: dict[str, str | None]


class Links:
    """Everything of a page that says something of an index; whatever is wrong with the rest of it is passed over."""

    def __init__(self) -> None:
        self.base: str | None = None
        self.meta: dict[str, str] = {}
        self.links: list[Link] = []
        self.title = ""
        self.headings = ""
        self.asks_for_password = False
        self.has_text = False
        """Whether anything is said beside links, the title and headings."""
        self.serial: str | None = None
        self._open: tuple[str, dict[str, str | None]] | None = None
        self._text: list[str] = []
        self._inside = ""

    def read(self, page: str) -> None:
        """Take in a whole page."""
        for piece in pieces(page):
            match piece:
                case Start(name, attributes):
                    self._begin(name, attributes)
                case End(name):
                    if name == "a":
                        self._end_link()
                    elif name == self._inside:
                        self._inside = ""
                case Text(text):
                    self._take(text)
                case Comment(text):
                    word, _, number = text.strip().partition(" ")
                    if word == "SERIAL" and number.strip().isdigit():
                        self.serial = number.strip()
        self._end_link()

    def _begin(self, tag: str, found: dict[str, str | None]) -> None:
        if tag == "a":
            self._end_link()
            href = found.get("href")
            if href is not None:
                self._open = (href.strip(), found)
        elif tag == "base" and self.base is None:
            self.base = found.get("href")
        elif tag == "meta" and found.get("name"):
            self.meta.setdefault(str(found["name"]).lower(), found.get("content") or "")
        elif tag == "input":
            self.asks_for_password |= (found.get("type") or "").lower() == "password"
        elif tag in {"title", "h1"}:
            self._inside = tag

    def _take(self, text: str) -> None:
        if self._inside == "title":
            self.title = (self.title + text)[:TEXT_MAX]
        elif self._inside == "h1":
            self.headings = (self.headings + text)[:TEXT_MAX]
        elif self._open is None and text.strip():
            self.has_text = True
        if self._open is not None:
            self._text.append(text)

    def _end_link(self) -> None:
        if self._open is not None:
            href, attributes = self._open
            self.links.append(Link(href, "".join(self._text).strip(), attributes))
        self._open = None
        self._text = []


def links_of(content: bytes) -> Links:
    """Read a page; bytes that are no UTF-8 are replaced."""
    found = Links()
    found.read(content.decode("utf-8", "replace"))
    return found


def last_segment(href: str) -> str:
    """Return the last segment of an address's path, decoded; empty for a folder and for what is no address."""
    try:
        path = urlsplit(href).path
    except ValueError:
        return ""
    return unquote(path.rpartition("/")[2])


def record_of(link: Link, base: str | None = None) -> tuple[str, bytes] | None:
    """Return file name and record of a link to a distribution, None for any other link; `base` is the page's own."""
    filename = last_segment(link.href)
    if not filename.endswith(ENDINGS) and link.text.endswith(ENDINGS) and "/" not in link.text:
        filename = link.text  # such as download?id=7
    if not filename.endswith(ENDINGS) or filename.endswith(_SIDE_ENDINGS):
        return None
    url, _, fragment = link.href.partition("#")
    if base:
        try:
            url = urljoin(base, url)
        except ValueError:
            return None
    record: dict[str, object] = {"filename": filename, "url": url, "hashes": _hashes(fragment)}
    attributes = link.attributes
    if attributes.get("data-requires-python"):
        record["requires-python"] = attributes["data-requires-python"]
    if "data-yanked" in attributes:
        record["yanked"] = attributes["data-yanked"] or True
    for name in ("data-core-metadata", "data-dist-info-metadata"):
        if name in attributes and "core-metadata" not in record:
            told = _metadata(attributes[name] or "true")
            if told is not None:
                record["core-metadata"] = told
    if attributes.get("data-gpg-sig") in {"true", "false"}:
        record["gpg-sig"] = attributes["data-gpg-sig"] == "true"
    if attributes.get("data-provenance"):
        record["provenance"] = attributes["data-provenance"]
    return filename, msgspec.json.encode(record)


def _hashes(fragment: str) -> dict[str, str]:
    found = {}
    for pair in fragment.split("&"):
        name, _, value = pair.partition("=")
        if name.lower() in _HASHES and value:
            found[name.lower()] = value.lower()
    return found


def _metadata(told: str) -> object:
    """Return what an attribute says of the core metadata; None where it denies it."""
    if told.lower() == "false":
        return None
    name, equals, value = told.partition("=")
    return {name.lower(): value.lower()} if equals and name.lower() in _HASHES and value else True
