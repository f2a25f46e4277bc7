"""The only place that knows validators and ranges (RFC 9110 sections 8.8, 13, 14). Pure."""

import re
from collections.abc import Mapping
from email.utils import formatdate, parsedate_to_datetime
from enum import Enum
from functools import lru_cache

from msgspec import Struct

_RANGE = re.compile(r"\s*bytes\s*=\s*(\d{0,30})\s*-\s*(\d{0,30})\s*", re.ASCII | re.IGNORECASE)
_TAG = re.compile(r'(?:W/)?("[^"]*")')


class Content(Struct, frozen=True, kw_only=True):
    """What a URL gives, apart from the bytes: all that its headers say.

    `size` in bytes, None when nobody knows it yet; `etag` is strong and carries its quotes; `modified_ms` is
    milliseconds since the epoch.
    """

    size: int | None
    etag: str | None
    modified_ms: int | None
    media_type: str
    cache_control: str
    encoding: str | None = None  # Content-Encoding: the bytes are packed so, for a client that said it takes that
    vary: str | None = None  # the headers of a request that decide what is sent


class Span(Struct, frozen=True):
    """A run of bytes: from `start`, `count` of them."""

    start: int
    count: int


class Verdict(Enum):
    """What a conditional request is answered with when it is not the content."""

    WHOLE = 200
    NOT_MODIFIED = 304
    PRECONDITION_FAILED = 412
    UNSATISFIABLE = 416


def judge(headers: Mapping[str, str], content: Content, *, head: bool) -> Verdict | Span:
    """Decide what a request gets, in the order of RFC 9110 section 13.2.2.

    If-None-Match beats If-Modified-Since: clients send the pair they hold for another file, and only the tag tells.
    A Range counts for GET alone.
    """
    if (wanted := headers.get("If-Match")) is not None:
        if not _matches(wanted, content.etag, weak=False):
            return Verdict.PRECONDITION_FAILED
    elif (since := headers.get("If-Unmodified-Since")) is not None and _newer(content, since) is True:
        return Verdict.PRECONDITION_FAILED
    if (known := headers.get("If-None-Match")) is not None:
        if _matches(known, content.etag, weak=True):
            return Verdict.NOT_MODIFIED
    elif (since := headers.get("If-Modified-Since")) is not None and _newer(content, since) is False:
        return Verdict.NOT_MODIFIED
    wanted = headers.get("Range")
    if head or wanted is None or content.size is None or not _range_counts(headers.get("If-Range"), content):
        return Verdict.WHOLE
    return parse_range(wanted, content.size)


def parse_range(text: str, size: int) -> Verdict | Span:
    """Return the bytes that a Range header asks for of `size`, WHOLE when it is to be ignored, or UNSATISFIABLE.

    Several ranges, other units and nonsense are ignored, as RFC 9110 section 14.2 allows. A suffix longer than the
    file is the whole file: rattler opens small packages that way.
    """
    match = _RANGE.fullmatch(text)
    if match is None:
        return Verdict.WHOLE
    first, last = match.groups()
    if not first:
        return _suffix(int(last), size) if last else Verdict.WHOLE
    start = int(first)
    if last and int(last) < start:
        return Verdict.WHOLE
    if start >= size:
        return Verdict.UNSATISFIABLE
    end = min(int(last), size - 1) if last else size - 1
    return Span(start, end - start + 1)


def _suffix(length: int, size: int) -> Verdict | Span:
    if length == 0:
        return Verdict.UNSATISFIABLE
    if size == 0:  # an empty file has no range that Content-Range could express
        return Verdict.WHOLE
    count = min(length, size)
    return Span(size - count, count)


@lru_cache(maxsize=512)
def http_date(ms: int) -> str:
    """Return a moment in milliseconds since the epoch as an HTTP date; the fraction of a second is dropped."""
    return formatdate(ms // 1000, usegmt=True)


def _matches(header: str, etag: str | None, *, weak: bool) -> bool:
    """Whether a list of entity tags names this one; `weak`: a weak tag counts too (RFC 9110 section 8.8.3.2)."""
    if header.strip() == "*":
        return True
    if etag is None:
        return False
    return any(found[1] == etag and (weak or not found[0].startswith("W/")) for found in _TAG.finditer(header))


def _newer(content: Content, date: str) -> bool | None:
    """Whether the content is newer than a date in a header; None when one of the two is not known."""
    if content.modified_ms is None:
        return None
    try:
        moment = parsedate_to_datetime(date).timestamp()
    except (ValueError, OverflowError):
        return None
    return content.modified_ms // 1000 > moment


def _range_counts(if_range: str | None, content: Content) -> bool:
    """Whether the client's part belongs to what is here now: a strong tag or the exact date (section 13.1.5)."""
    if if_range is None:
        return True
    text = if_range.strip()
    if text.startswith(('"', "W/")):
        return content.etag is not None and text == content.etag
    return content.modified_ms is not None and text == http_date(content.modified_ms)


def accepts_gzip(accept_encoding: str) -> bool:
    """Whether a client takes gzip where it did not ask for it by name (RFC 9110 section 12.5.3)."""
    for item in accept_encoding.lower().split(","):
        coding, *parameters = (text.strip() for text in item.split(";"))
        if coding in ("gzip", "x-gzip", "*"):
            return not any(re.fullmatch(r"q=0(\.0*)?", text.replace(" ", "")) for text in parameters)
    return False
