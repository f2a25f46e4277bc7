"""The only place that knows what the files of an R repository are called, and where a source keeps its packages."""

from urllib.parse import quote

from firthd.families.base import FetchPlace
from firthd.families.r.names import ARCHIVE, SOURCES

PACKAGES = "PACKAGES"
META = f"{SOURCES}/Meta"
ARCHIVED = f"{META}/archive.rds"
CURRENT = f"{META}/current.rds"
FORMS = (f"{PACKAGES}.gz", f"{PACKAGES}.rds", PACKAGES)
"""What may hold a part's index: small and stanza by stanza, smaller still and less often there, and large."""


def file_path(part: str, filename: str) -> str:
    """Return a file's path, percent-encoded."""
    return f"{part}/{quote(filename, safe='/!+~=')}"


def fetch_url(place: FetchPlace) -> str:
    """Return where a source keeps a file, below the source."""
    return file_path(place.part, place.filename)


def elsewhere(part: str, filename: str) -> tuple[str, str] | None:
    """Return the part and path where a file may lie instead: a new version sends the one before to the archive.

    It lies in a folder of the package there. The way back is gone too: by what clients and other servers list.
    """
    folder, _, last = filename.rpartition("/")
    name = last.partition("_")[0]
    if part == SOURCES and not folder and last.endswith(".tar.gz"):
        return ARCHIVE, f"{name}/{last}"
    return (SOURCES, last) if part == ARCHIVE and folder == name else None
