"""The only place that shows people in a browser which channels there are, what is in them, and how it is used."""

import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from aiohttp import web

from firth_protocol.types import Family, Privacy
from firthd.channels.showcase import Listing, ReadListing, Wanted
from firthd.clock import utc_day
from firthd.web.admission import Admission, Visitor
from firthd.web.context import WebContext
from firthd.web.pages import asked as parameters
from firthd.web.pages import html, values, words
from firthd.web.pages.browsers import wants_page
from firthd.web.pages.values import TITLES, UI, Where, root_of
from firthd.web.problems import Problem, not_found, reason

if TYPE_CHECKING:
    from firthd.channels.published import View

CHANNELS_ON_A_PAGE = 100
VERSIONS_LISTED, NEEDS_LISTED = 400, 200
"""On a package's page: it is made in one go of the event loop, some milliseconds at the most."""
TOKEN_PLACE = "<TOKEN>"
PUBLIC_LIFE = "public, max-age=60"
PRIVATE_LIFE = "private, no-cache"
"""Whether a token still opens the channel is asked each time; a page that is the same costs no bytes."""

_HOST = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_typed_safely = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*").fullmatch
_HEADINGS = {
    400: ("This address cannot be read", "A link on the page before may have been cut off."),
    401: ("This channel wants a token", ""),
    403: ("Not to be had here", "Whoever runs this server has decided so, and can tell why."),
    404: (
        "There is nothing here",
        "The address may be mistyped, or what was here has gone. Some channels open with a token alone.",
    ),
    500: ("Something went wrong here", "Whoever runs this server can look it up."),
    502: ("The source did not answer as it should", "Try again in a few minutes."),
    503: ("Not in this moment", "Try again in a moment."),
}


class People:
    """The pages. Addresses start with `public_url` when it is set, else with what the browser asked for."""

    def __init__(self, parts: WebContext, admission: Admission) -> None:
        public_url = parts.settings.public_url
        self._public_url = public_url.rstrip("/") if public_url else None
        self._parts = parts
        self._admission = admission
        html.prepare()

    def asset(self, path: Sequence[str]) -> web.Response:
        """Return a file that pages need. Raises Problem 404."""
        found = html.asset(path[0]) if len(path) == 1 else None
        if found is None:
            raise not_found()
        return found

    def problem(self, request: web.BaseRequest, problem: Problem) -> web.Response:
        """Return a refusal as a page: with the same status and headers as a program gets it."""
        root = root_of(request.rel_url.raw_path)
        heading, advice = _HEADINGS.get(problem.status, (HTTPStatus(problem.status).phrase, ""))
        return self._refusal(request, problem, heading, advice, [("Package channels", root)], [("All channels", root)])

    def _refusal(
        self,
        request: web.BaseRequest,
        problem: Problem,
        heading: str,
        advice: str,
        crumbs: Sequence[tuple[str, str | None]],
        links: Sequence[tuple[str, str]],
    ) -> web.Response:
        detail = "".join(char if char.isprintable() else " " for char in problem.detail)
        filled = self._frame(root_of(request.rel_url.raw_path), heading, crumbs) | {
            "status": problem.status,
            "heading": heading,
            "detail": detail[:1].upper() + detail[1:] + ("" if detail.endswith((".", "!", "?")) else "."),
            "advice": advice,
            "links": links,
        }
        return html.page(
            request.headers,
            "problem.html",
            filled,
            cache_control="no-store",
            status=problem.status,
            reason=reason(problem),
            vary="Accept, Authorization",
            more=problem.headers,
        )

    # --- all channels

    async def home(self, request: web.Request, visitor: Visitor, views: Sequence["View"]) -> web.Response:
        """Return the list of the channels that a visitor may see, and the packages that are searched for in them."""
        seen = sorted(views, key=lambda view: view.channel.split("/"))
        query = parameters.text(request.query)
        root = root_of(request.rel_url.raw_path)
        shown = [view for view in seen if query.lower() in view.channel] if query else seen
        pages = -(-len(shown) // CHANNELS_ON_A_PAGE)
        page = parameters.page_number(request.query, pages)
        first = (page - 1) * CHANNELS_ON_A_PAGE
        shown = shown[first : first + CHANNELS_ON_A_PAGE] or seen[:CHANNELS_ON_A_PAGE]
        about = await self._parts.showcase.channels(seen if query else shown)
        found = await self._parts.showcase.find(seen, query) if query else []
        filled = self._frame(root, "Package channels", [("Package channels", root)]) | {
            "query": query,
            "found": values.found(root, {view.channel_id: view.channel for view in seen}, found),
            "whole": values.whole_channels(root, seen, about, query) if query else [],
            "channels": [values.card(root, view, about[view.channel_id]) for view in shown if view.channel_id in about],
            "page": page,
            "pages": pages,
        }
        return html.page(request.headers, "home.html", filled, cache_control=PRIVATE_LIFE)

    # --- a channel

    async def channel(self, request: web.Request, view: "View", privacy: Privacy, when: str = "") -> web.Response:
        """Return a channel's page: as it is, or as a kept generation shows it that was asked for by number or day."""
        about = await self._parts.showcase.channel(view, view.generation if when else None)
        if about is None:
            raise not_found()
        where = self._where(request, view, when)
        ask = parameters.asked(request.query, [one.family for one in about.families])
        counts = {one.family: one.packages for one in about.families}
        if ask.query:
            counts = dict(await self._parts.showcase.count(view, list(counts), ask.query))
        chosen = values.chosen(about.families, counts, ask)
        listing, read = None, ReadListing(parts=[])
        if chosen is not None and chosen.packages and not counts[chosen.family]:
            listing = Listing(packages=[], total=0)
        elif chosen is not None and chosen.packages:
            wanted = Wanted(
                family=chosen.family,
                query=ask.query,
                order=ask.order,
                descending=ask.descending,
                place=ask.after or ask.before,
                back=ask.before is not None,
            )
            listing = await self._parts.showcase.listing(view, wanted, counts[chosen.family])
        if chosen is not None and chosen.whole:
            read = await self._parts.showcase.read_parts(view, chosen, ask.query, ask.read_after)
        snapshots = await self._parts.showcase.snapshots(view)
        family = None if chosen is None else chosen.family
        filled = self._about(request, view, privacy, where) | {
            **self._frame(where.root, view.channel, self._crumbs(where, view)),
            "description": about.description,
            "frozen_at": None if when else about.frozen_at_ms,
            "bytes": about.bytes,
            "notices": [] if when else await self._parts.published.notices(view),
            "query": ask.query,
            "searched": bool(ask.query or ask.after or ask.before or ask.read_after),
            "hidden": {"family": family.value} if family is not None and ask.family is not None else {},
            "families": [values.tab(one, counts[one.family], ask, chosen=one is chosen) for one in about.families],
            "chosen": "" if family is None else TITLES[family],
            "whole": values.whole(where, chosen, ask) if chosen is not None and chosen.whole else None,
            "read": values.read(where, chosen, read, ask),
            "listing": None if listing is None or family is None else values.listing(where, family, listing, ask),
            "set_up": self._set_up(request, view, privacy, when, [one.family for one in about.families]),
            "dated": self._address(request, view, privacy, utc_day(self._parts.clock.now_ms())),
            "days": values.days(where, view, snapshots),
        }
        return html.page(request.headers, "channel.html", filled, cache_control=_life(privacy))

    async def package(
        self,
        request: web.Request,
        visitor: Visitor,
        view: "View",
        privacy: Privacy,
        path: Sequence[str],
        when: str = "",
    ) -> web.Response:
        """Return a package's page; `path` is its family and name. Raises Problem 404, and what reading it raises."""
        if len(path) != 2 or path[0] not in self._parts.families:
            raise not_found()
        family, name = Family(path[0]), path[1]
        version = request.query.get("version")
        shown = await self._parts.showcase.package(view, family, name, version, visitor.client)
        if shown is None:
            what = f"package {name}" if version is None else f"version of {name} with that number"
            problem = not_found(f"the channel {view.channel} has no {TITLES[family]} {what}")
            return self._no_package(request, problem, self._where(request, view, when), view, name)
        if shown.name != name:
            chosen = "" if version is None else f"?{urlencode({'version': version})}"
            return web.Response(status=302, headers={"Location": f"{quote(shown.name, safe='')}{chosen}"})
        where = self._where(request, view, when)
        now_ms = self._parts.clock.now_ms()
        address = self._address(request, view, privacy, when)
        rules = self._parts.families[family]
        filled = self._about(request, view, privacy, where) | {
            **self._frame(where.root, f"{shown.name} in {view.channel}", self._crumbs(where, view, shown.name)),
            "today": f"{where.root}repo/{view.channel}/{UI}/{family.value}/{quote(shown.name, safe='')}",
            "name": shown.name,
            "version": shown.version,
            "family": TITLES[family],
            "licenses": shown.licenses,
            "versions": len(shown.versions),
            "files_total": sum(one.files for one in shown.versions),
            "bytes": sum(one.bytes for one in shown.versions),
            "install": rules.install(address, shown.name) if _typed_safely(shown.name) else [],
            "shown": len(shown.files),
            "of_version": shown.files_of_version,
            "files": [
                {
                    "filename": file.filename.rpartition("/")[2],
                    "target": f"{where.channel}{rules.address(file.part, file.filename)}",
                    "sha256": file.sha256,
                    "platform": platform,
                    "size": file.size,
                    "time": file.since if file.timestamp is None or file.timestamp > now_ms else file.timestamp,
                }
                for file, platform in zip(shown.files, shown.platforms, strict=True)
            ],
            "platforms": list(dict.fromkeys(shown.platforms)),
            "depends": values.depends(where, shown, NEEDS_LISTED),
            "more_needs": max(0, len(shown.depends or ()) - NEEDS_LISTED),
            "listed": [
                {
                    "version": one.version,
                    "target": f"?{urlencode({'version': one.version})}",
                    "words": f"{words.count(one.files, 'file')}",
                    "chosen": one.version == shown.version,
                }
                for one in shown.versions[:VERSIONS_LISTED]
            ],
        }
        return html.page(request.headers, "package.html", filled, cache_control=_life(privacy))

    def _no_package(
        self, request: web.Request, problem: Problem, where: Where, view: "View", name: str
    ) -> web.Response:
        """Return the refusal for a package that a channel lacks, with where else to look."""
        if not wants_page(request.headers):
            raise problem
        links = [
            (f"Search {view.channel} for {name}", f"{where.channel}?{urlencode({'q': name})}"),
            ("Search all channels", f"{where.root}?{urlencode({'q': name})}"),
        ]
        advice = "Its name may be spelled otherwise here; whoever runs this server can mirror it."
        return self._refusal(request, problem, "No such package", advice, self._crumbs(where, view, name), links)

    # --- what pages share

    def _frame(self, root: str, title: str, crumbs: Sequence[tuple[str, str | None]]) -> dict[str, Any]:
        """Return what every page needs; the last crumb is the page itself."""
        last = [(crumbs[-1][0], None)] if len(crumbs) > 1 else list(crumbs)
        return {"root": root, "title": title, "crumbs": [*crumbs[:-1], *last], "now": self._parts.clock.now_ms()}

    def _crumbs(self, where: Where, view: "View", package: str = "") -> list[tuple[str, str | None]]:
        """Return the way to a page; the parent of a subchannel is on it for whoever may see it or not: a name alone."""
        day = [(where.when, where.channel)] if where.when else []
        crumbs = [("Package channels", where.root), (view.channel, f"{where.root}repo/{view.channel}/"), *day]
        return [*crumbs, (package, None)] if package else [*crumbs]

    def _about(self, request: web.Request, view: "View", privacy: Privacy, where: Where) -> dict[str, Any]:
        """Return what the pages of a channel have in common."""
        return {
            "channel": view.channel,
            "privacy": privacy.value,
            "open_to_all": privacy is Privacy.PUBLIC,
            "token_place": TOKEN_PLACE,
            "generation": view.generation,
            "published_at": view.published_at_ms,
            "when": where.when,
            "here": where.channel,
            "today": f"{where.root}repo/{view.channel}/",
        }

    def _where(self, request: web.Request, view: "View", when: str) -> Where:
        here = f"snapshot/{when}/{view.channel}/" if when else f"repo/{view.channel}/"
        return Where(root=root_of(request.rel_url.raw_path), here=here, when=when)

    def _address(self, request: web.Request, view: "View", privacy: Privacy, when: str) -> str:
        """Return where clients reach a channel. A token is never shown, only its place."""
        base = self._public_url
        if base is None:
            # Anybody can send any Host: what is no host name is not repeated.
            host = request.host if _HOST.fullmatch(request.host) else "HOST"
            base = f"{self._admission.origin(request).scheme}://{host}"
        door = base if privacy is Privacy.PUBLIC else f"{base}/t/{TOKEN_PLACE}"
        return f"{door}/snapshot/{when}/{view.channel}" if when else f"{door}/repo/{view.channel}"

    def _set_up(
        self, request: web.Request, view: "View", privacy: Privacy, when: str, families: Sequence[Family]
    ) -> list[dict[str, Any]]:
        """Return the lines for each client of the families that a channel has; of the first one where it has none."""
        address = self._address(request, view, privacy, when)
        return [
            {"title": TITLES[family], "lines": self._parts.families[family].set_up(address)}
            for family in families or [next(iter(self._parts.families))]
        ]


def _life(privacy: Privacy) -> str:
    return PUBLIC_LIFE if privacy is Privacy.PUBLIC else PRIVATE_LIFE
