"""The only place that takes a request's path apart; what is hostile never gets past it."""

from urllib.parse import unquote_to_bytes

MAX_PATH = 4096
"""Characters; longer than any address that exists here."""


class BadPath(ValueError):
    """A path that can lead nowhere."""


def split_path(raw: str) -> tuple[tuple[str, ...], bool]:
    """Return the decoded segments of a raw path, and whether it ends in a slash.

    Each segment is percent-decoded once, after splitting: `%2F` never makes a separator. `+` is a literal plus
    (clients ask for `1.0+local` both ways). Slashes in a row count as one, as with other servers. Raises BadPath
    for what is not UTF-8, for control characters, for `.` and `..`, for slashes and backslashes inside a segment.
    """
    if not raw.startswith("/") or len(raw) > MAX_PATH:
        raise BadPath
    parts = [part for part in raw.split("/") if part]
    segments = tuple(parts) if "%" not in raw else tuple(map(_decode, parts))
    if not all(segment.isprintable() and segment not in {".", ".."} and "\\" not in segment for segment in segments):
        raise BadPath
    return segments, raw.endswith("/")


def is_plain(raw: str) -> bool:
    """Tell whether the first segment is spelled without percent signs.

    A token behind another spelling would pass every proxy's and log's mask for it.
    """
    return "%" not in raw.lstrip("/").partition("/")[0]


def _decode(segment: str) -> str:
    try:
        text = unquote_to_bytes(segment).decode()
    except UnicodeDecodeError:
        raise BadPath from None
    if not text or "/" in text:
        raise BadPath
    return text
