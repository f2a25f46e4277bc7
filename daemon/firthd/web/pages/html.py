"""The only place that makes HTML out of values; everything that is put in is escaped."""

import base64
import hashlib
from collections.abc import Mapping
from html import escape

from aiohttp import web

STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:48rem;margin:2rem auto;padding:0 1rem;color:#1b1f24;"
    "background:#fff}h1{font-size:1.5rem}h2{font-size:1.1rem;margin-top:2rem}a{color:#0b5cad}"
    "code,pre{font:14px/1.5 ui-monospace,monospace}pre{background:#f3f4f6;padding:.7rem 1rem;overflow-x:auto}"
    "table{border-collapse:collapse}td,th{text-align:left;padding:.2rem 1.5rem .2rem 0}.dim{color:#57606a}"
    "@media(prefers-color-scheme:dark){body{color:#e6e6e6;background:#15181c}a{color:#7cb7ff}"
    "pre{background:#22262c}.dim{color:#9aa4af}}"
)
_STYLE_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
POLICY = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
"""Content-Security-Policy: one known style sheet and nothing else, so that no text of ours can become a script."""

_FRAME = (
    '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width,initial-scale=1">'
    "<title>{title}</title><style>" + STYLE.replace("{", "{{").replace("}", "}}") + "</style></head>"
    "<body>{body}</body></html>\n"
)


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def fill(template: str, **values: str) -> Html:
    """Put values into a template's `{name}` places: escaped, but for what is Html already."""
    return Html(template.format_map({name: _safe(value) for name, value in values.items()}))


def join(parts: list[Html]) -> Html:
    return Html("".join(parts))


def page(title: str, body: Html, headers: Mapping[str, str]) -> web.Response:
    """Return a page with the headers that keep a browser from doing anything but showing it."""
    return web.Response(
        body=fill(_FRAME, title=title, body=body).encode(),
        headers={
            "Content-Type": "text/html; charset=utf-8",
            "Content-Security-Policy": POLICY,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",  # a token may stand in the address
            **headers,
        },
    )


def _safe(value: str) -> str:
    return value if isinstance(value, Html) else escape(value, quote=True)
