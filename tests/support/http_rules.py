"""The rules of HTTP that the fake source keeps to: validators, ranges, encodings."""

import gzip
import hashlib
import re
import zlib
from collections.abc import Callable

import zstandard
from aiohttp import web

ENCODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "zstd": zstandard.compress,
}
"""Each Content-Encoding's label, and what makes a body so."""


def unchanged(request: web.BaseRequest, etag: str, changed: str) -> bool:
    """Tell whether the client has the file already; If-None-Match beats If-Modified-Since (RFC 9110, 13.2.2)."""
    known = request.headers.get("If-None-Match")
    if known is not None:
        bare = etag.removeprefix("W/")
        return any(one.strip().removeprefix("W/") in {bare, "*"} for one in known.split(","))
    return request.headers.get("If-Modified-Since") == changed


def span_of(request: web.BaseRequest, size: int, etag: str, changed: str) -> tuple[int, int] | None:
    """Return the first and last byte asked for, None for the whole file; If-Range needs a strong match."""
    condition = request.headers.get("If-Range")
    if condition is not None and (condition.startswith("W/") or condition not in {etag, changed}):
        return None
    found = re.fullmatch(r"bytes=(\d*)-(\d*)", request.headers.get("Range", ""))
    if found is None or found.groups() == ("", ""):
        return None
    first, last = found.groups()
    if not first:
        return max(0, size - int(last)), size - 1
    return int(first), min(size - 1, int(last)) if last else size - 1


def etag_of(content: bytes) -> str:
    return f'"{hashlib.sha256(content).hexdigest()[:32]}"'
