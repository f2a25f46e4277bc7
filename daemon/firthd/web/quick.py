"""The only place that answers a request as it was answered a moment ago, while nothing has changed since.

What counts is the request byte for byte, and the number of changes to the state: one committed since, whatever it is
about, and every kept answer is void. Only what anybody may have is kept: whole small answers of public channels.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence

from aiohttp import hdrs, web
from aiohttp.http import HttpVersion11
from msgspec import Struct

from firthd.clock import Clock
from firthd.web.conditions import http_date
from firthd.web.wire import SmallBody

LIFE_S = 5.0
"""How long an answer is given again before it is made anew, whether or not anything has changed."""
MOST_ASKED = 2048
"""Bytes of the longest request that is remembered."""
MOST_BYTES = 16 * 1024 * 1024
"""Bytes of all requests and answers together."""
_ENTRY_BYTES = 500
_NEVER = frozenset({hdrs.AUTHORIZATION, hdrs.EXPECT, hdrs.UPGRADE, hdrs.CONTENT_LENGTH, hdrs.TRANSFER_ENCODING})
"""A request with one of these is never answered from memory."""
_NOT_MODIFIED = 304


def _always() -> bool:
    return True


def _nobody() -> None:
    pass


class Again(Struct, frozen=True, kw_only=True):
    """What giving an answer once more takes: `allowed`, asked each time, and `told`, which counts it."""

    allowed: Callable[[], bool] = _always
    told: Callable[[], None] = _nobody


AGAIN = web.ResponseKey("again", Again)
"""Key of a response that may be given again to the same request."""


class _Answer(Struct, frozen=True):
    head: bytes
    body: bytes
    again: Again
    until: float
    size: int


class Quick:
    """Answers by request. `changes` rises with every change to the state."""

    def __init__(self, changes: Callable[[], int], clock: Clock, *, most_bytes: int = MOST_BYTES) -> None:
        self.changes = changes
        self.bytes = 0
        self._clock = clock
        self._most_bytes = most_bytes
        self._at = -1
        self._answers: OrderedDict[bytes, _Answer] = OrderedDict()
        self._second = -1
        self._date = b""

    def get(self, asked: bytes) -> Sequence[bytes] | None:
        """Return the pieces of the answer to a request, told as given; None: it is to be worked out."""
        found = self._answers.get(asked)
        if found is None:
            return None
        if self.changes() != self._at:
            self._answers.clear()
            self.bytes = 0
            return None
        if found.until < self._clock.monotonic() or not found.again.allowed():
            self._forget(asked)
            return None
        self._answers.move_to_end(asked)
        found.again.told()
        return found.head, self._dated(), found.body

    def keep(self, asked: bytes, request: web.BaseRequest, response: web.StreamResponse, since: int) -> None:
        """Keep an answer that may be given again. `since`: the number of changes before it was worked out."""
        again = response.get(AGAIN)
        if (
            again is None
            or not (isinstance(response, SmallBody) or response.status == _NOT_MODIFIED)
            or not isinstance(response, web.Response)
            or len(asked) > MOST_ASKED
            or request.version != HttpVersion11
            or not request.keep_alive
            or not _NEVER.isdisjoint(request.headers)
            or self.changes() != since
        ):
            return
        body = response.body or b""
        assert isinstance(body, bytes)
        whole = response.status != _NOT_MODIFIED
        lines = ["HTTP/1.1 200 OK" if whole else "HTTP/1.1 304 Not Modified"]
        lines += [f"{name}: {value}" for name, value in response.headers.items()]
        if whole:
            lines.append(f"Content-Length: {len(body)}")
        head = ("\r\n".join(lines) + "\r\nServer: Firth\r\n").encode()
        if since != self._at:
            self._answers.clear()
            self.bytes, self._at = 0, since
        self._forget(asked)
        size = len(asked) + len(head) + len(body) + _ENTRY_BYTES
        self._answers[asked] = _Answer(head, body, again, self._clock.monotonic() + LIFE_S, size)
        self.bytes += size
        while self.bytes > self._most_bytes:
            self._forget(next(iter(self._answers)))

    def _forget(self, asked: bytes) -> None:
        found = self._answers.pop(asked, None)
        if found is not None:
            self.bytes -= found.size

    def _dated(self) -> bytes:
        second = self._clock.now_ms() // 1000
        if second != self._second:
            self._second = second
            self._date = f"Date: {http_date(second * 1000)}\r\n\r\n".encode()
        return self._date


QUICK = web.AppKey("quick", Quick)
"""Where an application keeps what its connections ask first."""
