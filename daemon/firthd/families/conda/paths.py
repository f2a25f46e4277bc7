"""The only place that knows what the files of a conda index are called, and where a source keeps its packages."""

from urllib.parse import quote, urlsplit

from firth_protocol.errors import Invalid
from firthd.families.base import FetchPlace
from firthd.families.conda.document import url_of
from firthd.families.conda.names import NOARCH
from firthd.families.conda.records import V3

REPODATA = "repodata.json"
REPODATA_ZST = "repodata.json.zst"
SHARD_INDEX = "repodata_shards.msgpack.zst"
SHARDS = "shards/"
RUN_EXPORTS = "run_exports.json"
CHANNELDATA = "channeldata.json"
SHARD_ENDING = ".msgpack.zst"
FIRST_SUBDIRS = (NOARCH,)  # conda clients refuse a channel without it, even an empty one


def needs_record(section: str) -> bool:
    """Tell whether a file's address stands in its record, so that `fetch_url` needs the raw bytes."""
    return section.startswith(V3) and section not in ("v3.conda", "v3.tar.bz2")


def fetch_url(place: FetchPlace) -> str:
    """Return where a source keeps a file: a path below the source, or an absolute URL when the source says so.

    `base_url` (CEP 15) may be absolute, rooted, or relative to the subdir. A wheel's `url` (CEP 48) is absolute or
    relative to the base URL. Raises Invalid when the source names something else than http, https or a path.
    """
    try:
        address = _address(place)
        scheme = urlsplit(address).scheme
    except ValueError:  # such as brackets that are not closed
        raise Invalid("The source names a file at an address that is none.") from None
    if scheme and scheme not in ("http", "https"):
        raise Invalid(f"The source names a file at a {scheme} address.", hint="Only http and https can be fetched.")
    return address


def _address(place: FetchPlace) -> str:
    filename = quote(place.filename, safe="!+~=")
    if needs_record(place.section) and place.raw is not None:
        filename = url_of(place.raw) or filename
    base = place.base_url or ""
    if urlsplit(filename).scheme:
        return filename
    if urlsplit(base).scheme or base.startswith("/"):
        return f"{base.rstrip('/')}/{filename}"
    return joined(place.part, base, filename)


def joined(*segments: str) -> str:
    """Join relative addresses into one path, `.` and `..` resolved; raises Invalid when it leads out of the source."""
    kept: list[str] = []
    for segment in "/".join(segments).split("/"):
        if segment == "..":
            if not kept:
                raise Invalid("The source names a file outside of itself.")
            kept.pop()
        elif segment not in ("", "."):
            kept.append(segment)
    return "/".join(kept)
