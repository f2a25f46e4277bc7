"""The only place that knows how a refusal looks on the wire: problem+json and a reason phrase.

conda shows the body's `detail`; pip, rattler and pixi show only the reason phrase (RFC 9457, RFC 9112 section 4).
"""

from collections.abc import Mapping
from http import HTTPStatus

import msgspec
from aiohttp import web

from firth_protocol import errors

MAX_REASON = 200
"""Characters of a reason phrase; terminals and old proxies cut longer ones."""

_STATUS: tuple[tuple[type[errors.FirthError], int], ...] = (
    (errors.NotFound, 404),
    (errors.Forbidden, 403),
    (errors.Upstream, 502),
    (errors.NoSpace, 503),
    (errors.Unavailable, 503),
)
_RETRY_AFTER_S = "30"


class Problem(Exception):
    """A request that is answered with an error status; `detail` is shown to the person at the client."""

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers or {}


def not_found(detail: str = "There is nothing here.") -> Problem:
    """Return the 404; without `detail` it is the same for everything unknown and everything hidden."""
    return Problem(404, detail)


def from_error(error: errors.FirthError) -> Problem:
    """Return the problem that says what an error of the tree says; statuses beside 4xx and 5xx do not occur."""
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
    return Problem(status, error.message, {"Retry-After": _RETRY_AFTER_S} if status == 503 else None)


def reply(problem: Problem) -> web.Response:
    """Return the response for a problem. Its texts may come from a source: they are made harmless here."""
    title = HTTPStatus(problem.status).phrase
    detail = "".join(char if char.isprintable() else " " for char in problem.detail)
    body = _body(problem.status, title, detail)
    headers = {
        "Content-Type": "application/problem+json",
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
        **problem.headers,
    }
    return web.Response(status=problem.status, reason=reason(problem), body=body, headers=headers)


def reason(problem: Problem) -> str:
    """Return the reason phrase for a problem."""
    detail = "".join(char if char.isprintable() else " " for char in problem.detail)
    return _reason(problem.status, HTTPStatus(problem.status).phrase, detail)


def whole(detail: str) -> bytes:
    """Return a whole response that says 503, for connections that no application works."""
    body = _body(503, HTTPStatus.SERVICE_UNAVAILABLE.phrase, detail)
    return (
        b"HTTP/1.1 503 Service Unavailable\r\nServer: Firth\r\nContent-Type: application/problem+json\r\n"
        b"Cache-Control: no-store\r\nRetry-After: 5\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b"
    ) % (len(body), body)


def _body(status: int, title: str, detail: str) -> bytes:
    return msgspec.json.encode({"type": "about:blank", "title": title, "status": status, "detail": detail})


def _reason(status: int, title: str, detail: str) -> str:
    """A reason phrase is ASCII on one line; a plain 404 or 401 keeps the usual one, which clients compare."""
    if status in {401, 404, 405, 416}:
        return title
    return detail.encode("ascii", "replace").decode()[:MAX_REASON] or title
