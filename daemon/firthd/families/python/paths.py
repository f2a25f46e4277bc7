"""The only place that knows what the objects of a Python index are called, and where a source keeps its files."""

import re
from functools import lru_cache
from urllib.parse import urljoin, urlsplit

from firth_protocol.errors import Invalid
from firthd.families.base import FetchPlace, InvalidRecordError
from firthd.families.python.records import fields_of

SIMPLE = "simple"
PACKAGES = "packages"
GZIPPED = ".gz"
ZSTD = ".zst"

_plain = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*\Z").match
"""File names that change nothing of what stands before them, and are their own spelling behind it."""
_scheme = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):").match


def page_path(project: str, form: str) -> str:
    """Return the path of the object that shows a project."""
    return f"{SIMPLE}/{project}/index.{form}"


def list_path(form: str) -> str:
    """Return the path of the object that lists the projects."""
    return f"{SIMPLE}/index.{form}"


def needs_record(section: str) -> bool:
    """Tell whether a file's address stands in its record: it always does."""
    return True


def fetch_url(place: FetchPlace) -> str:
    """Return where a source keeps a file: absolute, rooted in its host, or below a folder.

    What a page says is relative to the page (PEP 503), or to what its `base` says. Raises Invalid when the source names
    something else than http, https, a file or a path.
    """
    if place.raw is None:
        raise Invalid("The source's record of the file is not there any more.", hint="run the mirror")
    try:
        url = fields_of(place.raw).url.partition("#")[0].strip()
        page = place.page or f"{SIMPLE}/{place.part}/"
        folder, slash, name = url.rpartition("/")
        if slash and _plain(name) and not folder.endswith("/"):  # the files of a page lie in few folders
            inside = _address(page, place.base_url, folder + slash)
            if inside.endswith("/") and inside != "/":
                return inside + name
        return _address(page, place.base_url, url)
    except (ValueError, InvalidRecordError):
        raise Invalid("The source names a file at an address that is none.") from None


@lru_cache(maxsize=1024)
def _address(page: str, base_url: str | None, url: str) -> str:
    """Return what an address on a page means; raise ValueError for none, Invalid for one that cannot be fetched."""
    if base_url:
        page = urljoin(page, base_url)
    address = urljoin(page, url)
    if page.startswith("/") and not (address.startswith("/") or urlsplit(address).scheme):
        address = f"/{address}"  # it climbs above the root of its host, which is where it ends
    urlsplit(address)
    scheme = _scheme(address)
    if scheme is not None and scheme[1].lower() not in ("http", "https", "file"):
        raise Invalid(
            f"The source names a file at a {scheme[1][:20]} address.", hint="Only http and https can be fetched."
        )
    return address
