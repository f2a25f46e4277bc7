"""The only place that makes HTML: templates that escape what is put in, and the headers of pages."""

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files
from typing import Any
from urllib.parse import quote

from aiohttp import web
from jinja2 import DictLoader, Environment, StrictUndefined

from firth_protocol import units
from firthd.web.conditions import Content, Verdict, judge
from firthd.web.pages import words

POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none';"
    " frame-ancestors 'none'; require-trusted-types-for 'script'"
)
"""Content-Security-Policy: files of this server and nothing inline, so that no text of ours can become a script.

A package is no script: whatever it holds, it is never sent as one, and no browser may guess.
"""
_GUARDED = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",  # a token may stand in the address
    "X-Robots-Tag": "noindex, nofollow",  # following links to pages of a whole index would read all of it
}
_TYPES = {
    "firth.css": "text/css; charset=utf-8",
    "copy.js": "text/javascript; charset=utf-8",
    "firth.svg": "image/svg+xml",
}
_FOR_EVER = "public, max-age=31536000, immutable"


def _versioned(name: str, body: bytes) -> str:
    stem, _, ending = name.partition(".")
    return f"{stem}.{hashlib.sha256(body).hexdigest()[:12]}.{ending}"


# Read with the module, before there is a loop that must not wait for the disk.
_HERE = files(__package__)
_ASSETS = {
    _versioned(name, body): (body, media_type)
    for name, media_type in _TYPES.items()
    for body in ((_HERE / "assets" / name).read_bytes(),)
}
"""Files that pages need, under names that go with their bytes."""
_TEMPLATES = {one.name: one.read_text("utf-8") for one in (_HERE / "templates").iterdir() if one.name.endswith(".html")}


def page(
    headers: Mapping[str, str],
    template: str,
    values: Mapping[str, Any],
    *,
    cache_control: str,
    status: int = 200,
    reason: str | None = None,
    vary: str = "Authorization",
    more: Mapping[str, str] | None = None,
) -> web.Response:
    """Return a page, or that the client has it already: `headers` are the request's."""
    body = _environment().get_template(template).render(values).encode()
    told = {"Content-Type": "text/html; charset=utf-8", "Cache-Control": cache_control, "Vary": vary, **_GUARDED}
    told |= more or {}
    if status != 200:
        return web.Response(status=status, reason=reason, body=body, headers=told)
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    told["ETag"] = etag
    content = Content(
        size=None, etag=etag, modified_ms=None, media_type=told["Content-Type"], cache_control=cache_control
    )
    if judge(headers, content, head=True) is Verdict.NOT_MODIFIED:
        return web.Response(status=304, headers={name: told[name] for name in told if name != "Content-Type"})
    return web.Response(body=body, headers=told)


def asset(name: str) -> web.Response | None:
    """Return a file that pages need; each has a name that goes with its bytes."""
    found = _ASSETS.get(name)
    if found is None:
        return None
    body, media_type = found
    headers = {"Content-Type": media_type, "Cache-Control": _FOR_EVER, "X-Content-Type-Options": "nosniff"}
    return web.Response(body=body, headers=headers)


@lru_cache(maxsize=1)
def _environment() -> Environment:
    """Compile every template, once: no request waits for that."""
    environment = Environment(
        loader=DictLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined, auto_reload=False, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {
        "exact": words.exact,
        "machine": words.machine,
        "ago": words.ago,
        "size": units.size,
        "segment": lambda text: quote(text, safe=""),
    }
    names = {f"{name.partition('.')[0]}.{name.rpartition('.')[2]}": name for name in _ASSETS}
    environment.globals |= {"count": words.count, "assets": names}
    for name in _TEMPLATES:
        environment.get_template(name)
    return environment


def prepare() -> None:
    """Compile all that pages are made of; called before anybody asks."""
    _environment()
