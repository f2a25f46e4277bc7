"""The only place that tells people in a browser which channels there are and how clients use them."""

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from aiohttp import web

from firth_protocol.types import Package, Privacy
from firthd.clock import rfc3339
from firthd.families.addresses import SetUp
from firthd.web.pages.html import Html, fill, join, page

if TYPE_CHECKING:
    from firthd.channels.published import View

_HOST = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_TOKEN_PLACE = "<TOKEN>"

_HOME = "<h1>Package channels</h1>{channels}"
_TABLE = "<table><tr><th>Channel</th><th>Generation</th><th>Published</th></tr>{rows}</table>"
_ROW = '<tr><td><a href="repo/{channel}/">{channel}</a></td><td>{generation}</td><td>{published}</td></tr>'
_NONE = '<p class="dim">No channel is open to you here. Channels for which you hold a token open with it.</p>'
_CHANNEL = (
    "<h1>{channel}</h1>"
    '<p class="dim">Generation {generation}, published {published}</p>{token}'
    "{set_up}"
    "<h2>As of a day</h2><pre>{dated}</pre>"
    '<h2>Packages</h2><form role="search"><label>Name <input name="q" value="{query}" maxlength="200"></label>'
    " <button>Search</button></form>{packages}"
)
_SET_UP = "<h2>{client}</h2><pre>{lines}</pre>"
_PACKAGES = (
    '<p class="dim">{count}</p>'
    "<table><tr><th>Package</th><th>Newest</th><th>Files</th><th>Platforms</th></tr>{rows}</table>"
)
_PACKAGE = "<tr><td>{name}</td><td>{version}</td><td>{files}</td><td>{platforms}</td></tr>"
_NO_PACKAGES = '<p class="dim">No package has this in its name.</p>'
_TOKEN = "<p>This channel wants a token: put yours in place of <code>{place}</code>.</p>"


class Pages:
    """The two pages. Addresses start with `public_url` when it is set, else with what the browser asked for."""

    def __init__(self, public_url: str | None) -> None:
        self._public_url = public_url.rstrip("/") if public_url else None

    def home(self, seen: Sequence["View"]) -> web.Response:
        """Return the list of the channels that a visitor may see."""
        rows = [
            fill(_ROW, channel=view.channel, generation=str(view.generation), published=rfc3339(view.published_at_ms))
            for view in sorted(seen, key=lambda view: view.channel)
        ]
        channels = fill(_TABLE, rows=join(rows)) if rows else Html(_NONE)
        return page("Package channels", fill(_HOME, channels=channels), _headers(private=True))

    def channel(
        self,
        host: str,
        scheme: str,
        view: "View",
        query: str,
        packages: Sequence[Package],
        total: int,
        set_up: Callable[[str], Sequence[SetUp]],
    ) -> web.Response:
        """Return a channel's page: what to type for each client (`set_up` of its address), and the packages found.

        A token is never shown, only its place.
        """
        open_to_all = view.privacy is Privacy.PUBLIC
        base = self._base(host, scheme)
        door = base if open_to_all else f"{base}/t/{_TOKEN_PLACE}"
        address = f"{door}/repo/{view.channel}"
        body = fill(
            _CHANNEL,
            channel=view.channel,
            generation=str(view.generation),
            published=rfc3339(view.published_at_ms),
            token=Html("") if open_to_all else fill(_TOKEN, place=_TOKEN_PLACE),
            set_up=join([fill(_SET_UP, client=one.client, lines=one.lines) for one in set_up(address)]),
            query=query,
            packages=_found(packages, total),
            dated=f"{door}/snapshot/{rfc3339(view.published_at_ms)[:10]}/{view.channel}",
        )
        return page(view.channel, body, _headers(private=not open_to_all))

    def _base(self, host: str, scheme: str) -> str:
        if self._public_url is not None:
            return self._public_url
        # Anybody can send any Host: what is no host name is not repeated.
        return f"{scheme}://{host if _HOST.fullmatch(host) else 'HOST'}"


def _found(packages: Sequence[Package], total: int) -> Html:
    if not packages:
        return Html(_NO_PACKAGES)
    rows = [
        fill(
            _PACKAGE,
            name=package.name,
            version=package.version,
            files=str(package.files),
            platforms=", ".join(package.platforms),
        )
        for package in packages
    ]
    more = "" if total <= len(packages) else f", the first {len(packages)} of them"
    return fill(_PACKAGES, count=f"{total:,} packages{more}", rows=join(rows))


def _headers(*, private: bool) -> dict[str, str]:
    return {"Cache-Control": f"{'private' if private else 'public'}, max-age=60"}
