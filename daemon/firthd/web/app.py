"""The only place that knows which address leads where on the TCP side."""

import logging
import re
import socket
from collections.abc import Hashable
from typing import TYPE_CHECKING
from uuid import uuid4

import msgspec
from aiohttp import web

from firth_protocol.errors import FirthError
from firth_protocol.types import Privacy
from firthd.clock import Clock, utc_day
from firthd.config import WebSettings
from firthd.serving import Limits, Serving, asked_with
from firthd.web.admission import Admission, Door, Visitor, address_of, inside, networks
from firthd.web.context import WebContext
from firthd.web.files import Accel, Files
from firthd.web.hot import HotObjects
from firthd.web.packages import Packages
from firthd.web.pages.browsers import wants_page
from firthd.web.pages.people import People
from firthd.web.pages.values import UI
from firthd.web.paths import BadPath, is_plain, split_path
from firthd.web.problems import Problem, from_error, not_found, reply, whole
from firthd.web.quick import QUICK, Quick
from firthd.web.site import FOREVER, INDEX_LIFE, Edition, Site

if TYPE_CHECKING:
    from firthd.channels.published import View
    from firthd.store.artifacts import FileRow

log = logging.getLogger(__name__)

TODAY_LIFE = "max-age=300"
"""A snapshot by date that is today's can still become another generation."""
SHUTDOWN_S = 2.0
"""Seconds that replies under way are given when the daemon stops; aiohttp waits up to twice as long."""

_WHEN = re.compile(r"[0-9]{1,12}|[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
_FULL = "too many clients are connected; try again"
_LOGIN = {"WWW-Authenticate": 'Basic realm="Firth", charset="UTF-8"'}


def build_app(parts: WebContext) -> web.Application:
    """Return the application that serves packages, pages and machines. Serve it with `serving`."""
    front = Front(parts)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", front.handle)
    app.on_response_prepare.append(_sign)
    if front.quick is not None:
        app[QUICK] = front.quick
    return app


def serving(app: web.Application, settings: WebSettings, limits: Limits, clock: Clock) -> Serving:
    """Return what serves the application; the caller gives it its listeners."""
    trusted = networks(settings.trusted_proxies)

    def peer(connection: socket.socket) -> Hashable | None:
        """One address, of IPv6 its network: all of its 2^64 addresses are one client's."""
        address = address_of(str(connection.getpeername()[0]))
        if address is None or inside(address, trusted):
            return None
        return address.packed[:8]

    def unread(status: int) -> web.Response:
        return reply(Problem(status, "this could not be read as a request"))

    return Serving(
        app,
        limits,
        peer=peer,
        refusal=whole(_FULL),
        unread=unread,
        clock=clock,
        name="web",
        shutdown_s=SHUTDOWN_S,
        quick=app.get(QUICK),
    )


async def _sign(_: web.Request, response: web.StreamResponse) -> None:
    response.headers["Server"] = "Firth"


class Front:
    """Takes every request apart and leads it to the room that answers it."""

    def __init__(self, parts: WebContext) -> None:
        settings = parts.settings
        accel = Accel(prefix=settings.accel_redirect, root=parts.state) if settings.accel_redirect else None
        files = Files(HotObjects(), accel)
        self._parts = parts
        self.quick = None if parts.changes is None else Quick(parts.changes, parts.clock)
        self._published = parts.published
        self._admission = Admission(parts.tokens, settings.trusted_proxies, parts.clock)
        self._metrics_allow = networks(settings.metrics_allow)
        self._people = People(parts, self._admission)
        packages = Packages(
            files, parts.blobs, parts.on_demand, parts.package_lost, self._downloaded, parts.asked, parts.published.free
        )
        lost, kept = parts.index_lost, parts.index_kept
        self._site = Site(
            parts.published, parts.rendered, files, packages, parts.pages, parts.families, lost=lost, kept=kept
        )

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request; whatever goes wrong becomes problem+json, and only its kind reaches the client."""
        try:
            if request.method not in {"GET", "HEAD"}:
                raise Problem(405, "this server is read with GET and HEAD", {"Allow": "GET, HEAD"})
            return await self._answer(request)
        except Problem as problem:
            return self._refused(request, problem)
        except FirthError as error:
            return self._refused(request, from_error(error))
        except Exception:
            number = uuid4().hex[:12]
            log.exception("a web request failed (%s)", number)
            return self._refused(
                request, Problem(500, f"something went wrong here; the daemon's log has it as {number}")
            )

    def _refused(self, request: web.Request, problem: Problem) -> web.Response:
        if wants_page(request.headers):
            return self._people.problem(request, problem)
        return reply(problem)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        try:
            path, folder = split_path(request.rel_url.raw_path)
        except BadPath:
            raise not_found() from None
        token = None
        if path[:1] == ("t",) and len(path) > 1:
            if not is_plain(request.rel_url.raw_path):
                raise not_found()
            token, path = path[1], path[2:]
        visitor = self._admission.visitor(request, token)
        match path:
            case ():
                if not folder:  # behind a token without a slash: links on the page are relative
                    return web.Response(status=308, headers={"Location": f"{token}/"})
                return await self._people.home(request, visitor, self._seen(visitor))
            case ("repo", *rest) | ("api", "repo", *rest) if rest:
                return await self._repo(request, visitor, tuple(rest), folder=folder)
            case ("snapshot", when, *rest) if rest:
                return await self._snapshot(request, visitor, when, tuple(rest), folder=folder)
            case (found, *rest) if found == UI:
                return self._people.asset(rest)
            case ("healthz",):
                return self._healthz()
            case ("metrics",):
                return await self._metrics(request, visitor)
        raise not_found()

    # --- channels

    async def _repo(
        self, request: web.Request, visitor: Visitor, path: tuple[str, ...], *, folder: bool
    ) -> web.StreamResponse:
        view, rest = self._channel(visitor, path)
        if rest and rest[0] != UI:
            if self.quick is None or view.privacy is not Privacy.PUBLIC or visitor.secrets:
                return await self._site.answer(request, visitor, _present(view), rest)
            since, asked = self.quick.changes(), asked_with(request)
            response = await self._site.answer(request, visitor, _present(view), rest)
            if asked is not None:
                self.quick.keep(asked, request, response, since)
            return response
        if rest:
            return await self._people.package(request, visitor, view, view.privacy, rest[1:])
        if not folder:
            return web.Response(status=308, headers={"Location": f"{path[-1]}/"})  # links on the page are relative
        return await self._people.channel(request, view, view.privacy)

    async def _snapshot(
        self, request: web.Request, visitor: Visitor, when: str, path: tuple[str, ...], *, folder: bool
    ) -> web.StreamResponse:
        """Serve a kept generation. Who may see it, today's channel says."""
        today, rest = self._channel(visitor, path)
        if not _WHEN.fullmatch(when):
            raise not_found("a snapshot is named by a generation's number or a day (YYYY-MM-DD)")
        now_ms = self._parts.clock.now_ms()
        view = await self._published.at(today.channel, when, now_ms)
        if rest[:1] == (UI,):
            return await self._people.package(request, visitor, view, today.privacy, rest[1:], when)
        if not rest and not folder:
            return web.Response(status=308, headers={"Location": f"{path[-1]}/"})
        if not rest:
            return await self._people.channel(request, view, today.privacy, when)
        life = TODAY_LIFE if when == utc_day(now_ms) else FOREVER
        edition = Edition(view=view, privacy=today.privacy, index_life=life)
        return await self._site.answer(request, visitor, edition, rest)

    def _channel(self, visitor: Visitor, path: tuple[str, ...]) -> tuple["View", tuple[str, ...]]:
        """Return the channel that a path names, and what follows it.

        A subchannel comes before a folder of its parent: no subchannel has the name of a family's folder. One that is
        hidden from the visitor does not exist at all, so its address belongs to the parent. Raises Problem 401 or 404.
        """
        locked = False
        for length in (2, 1):
            if len(path) < length:
                continue
            view = self._published.current("/".join(path[:length]))
            door = Door.HIDDEN if view is None else self._admission.door(visitor, view.channel, view.privacy)
            if view is not None and door is Door.OPEN:
                return view, path[length:]
            locked = locked or door is Door.LOGIN
            if locked:
                break
        if locked:
            raise Problem(401, "this channel wants a token; ask its administrator for one", _LOGIN)
        raise not_found()

    def _downloaded(self, file: "FileRow", visitor: Visitor) -> None:
        self._parts.downloaded(file, self._admission.token_id(visitor))

    # --- people and machines

    def _seen(self, visitor: Visitor) -> list["View"]:
        return [
            view
            for view in self._published.names()
            if self._admission.door(visitor, view.channel, view.privacy) is Door.OPEN
        ]

    def _healthz(self) -> web.Response:
        reason, limited = self._parts.health(), self._parts.limited()
        body = {"status": "ok"}
        if reason is not None:
            body = {"status": "unhealthy", "reason": reason}
        elif limited is not None:
            # 200 all the same: whoever takes a server out of service by this status would take away what works.
            body = {"status": "limited", "reason": limited}
        headers = {"Content-Type": "application/json", "Cache-Control": "no-store"}
        return web.Response(status=200 if reason is None else 503, body=msgspec.json.encode(body), headers=headers)

    async def _metrics(self, request: web.Request, visitor: Visitor) -> web.Response:
        """Answer with the numbers; a mirror is named to whom its channel's door opens, be it by a scraper's token."""
        if not self._admission.local(request, self._metrics_allow):
            raise Problem(403, "metrics are for the networks in metrics_allow")
        headers = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8", "Cache-Control": "no-store"}
        return web.Response(body=await self._parts.metrics(lambda name: self._open(visitor, name)), headers=headers)

    def _open(self, visitor: Visitor, channel: str) -> bool:
        view = self._published.current(channel)
        return view is not None and self._admission.door(visitor, channel, view.privacy) is Door.OPEN


def _present(view: "View") -> Edition:
    return Edition(view=view, privacy=view.privacy, index_life=INDEX_LIFE)
