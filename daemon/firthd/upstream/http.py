"""The only place that opens HTTP connections to sources: one request at a time, redirects followed by hand."""

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import aiohttp
from yarl import URL

from firth_protocol.errors import Invalid, Unavailable, Upstream
from firthd import sandbox
from firthd.clock import Clock
from firthd.config import UpstreamSettings
from firthd.upstream.body import MIN_BYTES_S, PACE_S, Body
from firthd.upstream.encodings import labels
from firthd.upstream.failures import Asked, Failure, Passing, Slow, retry_after_s
from firthd.upstream.hosts import Held, Hosts, Lane
from firthd.upstream.known import KnownHosts
from firthd.upstream.masking import printable
from firthd.upstream.proxies import Proxies
from firthd.upstream.rate import Meter
from firthd.upstream.shape import Shaper
from firthd.upstream.source import (
    Known,
    Origin,
    Source,
    Validators,
    address,
    check_credentials,
    holds_secret,
    known,
    origin_of,
    proxy_of,
    redirected,
)
from firthd.upstream.spool import strong

MAX_REDIRECTS = 10
HEADER_BYTES = 65_536
"""Of one line: security policies and signed addresses are longer than the usual 8 KiB."""
HEADERS_MOST = 1024
READ_BYTES = 262_144
"""Of one answer that are held unread, twice as many at the most, before no more are taken from its connection."""
MAX_PAUSE_S = 300.0
"""The longest Retry-After that is waited out; a longer one ends the request and is told."""

_KNOWN_MOST = 256
_CONNECT_S = 30.0
_CLIENT_CONNECT_S = 4.0  # a client waits: it is to hear soon that a source is down, and no server thinks here yet
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_CONTENT_RANGE = re.compile(r"bytes (\d{1,15})-(\d{1,15})/(\d{1,15}|\*)")


class Reply:
    """The head of one answer; its bytes are read through `body`."""

    def __init__(
        self,
        response: aiohttp.ClientResponse,
        asked: Asked,
        clock: Clock,
        meter: Meter,
        idle_s: float,
        held: Callable[[int], Awaitable[None]] | None,
        piece: int | None,
    ) -> None:
        self.status = response.status
        self.asked = asked
        self.date = response.headers.get("Date")
        self.landed: str | None = None  # the address without its query, where a redirect led here
        self.validators = Validators(
            etag=response.headers.get("ETag"), last_modified=response.headers.get("Last-Modified")
        )
        self._response = response
        self._clock = clock
        self._meter = meter
        self._idle_s = idle_s
        self._held = held
        self._piece = piece

    @property
    def url(self) -> str:
        """The address that answered, fit for people."""
        return self.asked.url

    @property
    def content_type(self) -> str:
        return self._response.content_type if "Content-Type" in self._response.headers else ""

    @property
    def length(self) -> int | None:
        """Bytes of the body, when told."""
        value = self._response.headers.get("Content-Length", "")
        return int(value) if value.isascii() and value.isdigit() and len(value) < 16 else None

    @property
    def part(self) -> tuple[int, int, int | None] | None:
        """First byte, last byte and whole length of a 206, None when it does not say."""
        found = _CONTENT_RANGE.fullmatch(self._response.headers.get("Content-Range", "").strip())
        if found is None:
            return None
        first, last, whole = found.groups()
        return int(first), int(last), None if whole == "*" else int(whole)

    @property
    def location(self) -> str | None:
        """Where a redirect leads, None when this is not one."""
        return self._response.headers.get("Location") if self.status in _REDIRECTS else None

    @property
    def pause_s(self) -> float | None:
        """For how long the host wants to be left alone."""
        return retry_after_s(self._response.headers.get("Retry-After"), self._clock.now_ms())

    def refused(self) -> Failure:
        """Return the failure for this answer's status."""
        return self.asked.refused(self.status, self._response.reason, retry_after_s=self.pause_s)

    async def body(self, offset: int = 0, *, path: str) -> Body:
        """Return the answer's bytes, which begin at `offset` of the file; an encoding is undone where it is true.

        `path`: what was asked for, whatever it was redirected to. Raises Failure when reading the beginning fails.
        """
        body = Body(
            pull=self._pull,
            cut=lambda received: self.asked.cut(received, self.length),
            slow=lambda received: self.asked.slow(received, self.length, bytes_s=MIN_BYTES_S, window_s=PACE_S),
            clock=self._clock,
            meter=self._meter,
            url=lambda: self.url,
            status=self.status,
            length=self.length,
            offset=offset,
            content_type=self.content_type,
            validators=self.validators,
            held=self._held,
            proof=strong(self.validators, self.date),
        )
        labelled = self._response.headers.getall("Content-Encoding", ())
        encodings = labels(",".join(labelled)) if labelled else []
        if encodings and not offset:  # the rest of a file goes on as it began
            try:
                await body.undo(encodings, path.partition("?")[0])
            except Upstream as error:
                raise Failure(error, again=isinstance(error, Passing | Slow)) from None
        return body

    async def _pull(self) -> bytes:
        try:
            content = self._response.content
            return await (content.readany() if self._piece is None else content.read(self._piece))
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            received = self._response.content.total_bytes
            raise self.asked.broken(error, idle_s=self._idle_s, received=received, length=self.length) from None


class Http:
    """One session for all sources; proxy, authority and credentials belong to the single request."""

    def __init__(
        self,
        settings: UpstreamSettings,
        clock: Clock,
        meter: Meter,
        shaper: Shaper,
        proxies: Proxies,
        *,
        user_agent: str,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._shaper = shaper
        self._proxies = proxies
        self._user_agent = user_agent
        self._hosts = Hosts(settings.connections_per_host, clock)
        self.known = KnownHosts(clock, meter)
        self._session: aiohttp.ClientSession | None = None
        self._sources: dict[tuple[Source, str | None], Known] = {}
        self._authorities: dict[str, tuple[tuple[int, int], ssl.SSLContext]] = {}

    async def start(self) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),  # hosts.py counts: the connector counts each proxy apart
            cookie_jar=aiohttp.DummyCookieJar(),  # a cookie of one mirror's source must not reach another's
            auto_decompress=False,
            headers={"Accept-Encoding": "identity", "User-Agent": self._user_agent},
            trust_env=False,
        )

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    @asynccontextmanager
    async def ask(
        self,
        source: Source,
        path_or_url: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        patience_s: float = MAX_PAUSE_S,
        idle_s: float | None = None,
        answer_s: float | None = None,
        lane: Lane = Lane.INDEX,
    ) -> AsyncIterator[Reply]:
        """Ask once, following redirects, and give the answer whatever its status.

        `patience_s`: how long a pause that the host asked for is waited out; `answer_s`: how long a connection and the
        head of the answer may take (default: as long as a silence). Raises Failure when there is no
        answer, Invalid when the address, the proxy or the credentials cannot be used.
        """
        check_credentials(source.credentials)
        idle = idle_s or self._settings.timeout_s
        url = address(source, path_or_url)
        about = self._about(source, self._proxies.through(url))
        hide, home, secret = about.hide, about.home, about.secret
        may_send = secret is not None
        for hop in range(MAX_REDIRECTS + 1):
            here = origin_of(url)
            may_send = may_send and here == home  # once away from home they are never sent again
            asked = Asked(
                hide,
                url,
                here.shown,
                sent_credentials=about.asks_credentials,
                left_origin=hop > 0 and here != home,
            )
            if here != home and about.guarded and holds_secret(source, url):
                raise asked.failure(
                    f"{asked.url} is another host and its address holds this source's secret; it was not asked",
                    "if the source has moved, use its new address as the mirror's source",
                )
            own = dict(headers or {})
            if may_send and secret is not None:
                own["Authorization"] = secret
            shown = asked.host
            known = self.known.asking(shown)
            try:
                async with (
                    self._hosts.slot(here.name, patience_s=patience_s, lane=lane),
                    self._send(source, method, url, own, asked, idle, answer_s, lane, known.meter) as reply,
                ):
                    known.answered(reply.status, f"{shown} answered {reply.status}")
                    location = reply.location
                    if location is None:
                        self._heed(here, reply)
                        reply.landed = url.partition("?")[0] if hop else None
                        yield reply
                        return
            except Held as held:
                raise asked.held(held.seconds) from None
            except Failure as failure:
                known.broke(failure.error)
                raise
            try:
                url = redirected(url, location)
            except ValueError as error:
                why = str(error) if str(error).startswith("it leads") else "the address cannot be asked"
                raise asked.failure(
                    f"{asked.url} redirects to {hide.url(location)}, which is not followed: {why}",
                    "use the address where the files really are as the mirror's source",
                    status=reply.status,
                ) from None
        raise asked.failure(
            f"{asked.host} redirected more than {MAX_REDIRECTS} times", "look at the source's address in a browser"
        )

    def _about(self, source: Source, proxy: str | None) -> Known:
        found = self._sources.get((source, proxy))
        if found is None:
            if len(self._sources) >= _KNOWN_MOST:
                self._sources.clear()
            found = self._sources[(source, proxy)] = known(source, proxy)
        return found

    @asynccontextmanager
    async def _send(
        self,
        source: Source,
        method: str,
        url: str,
        headers: dict[str, str],
        asked: Asked,
        idle_s: float,
        answer_s: float | None,
        lane: Lane,
        meter: Meter,
    ) -> AsyncIterator[Reply]:
        if self._session is None:
            raise Unavailable("sources are not asked yet, or no more", hint="try again in a moment")
        proxy, proxy_secret = proxy_of(source.proxy or self._proxies.through(url))
        proxy_headers = None
        if proxy_secret is not None and url.startswith("https:"):
            proxy_headers = {"Proxy-Authorization": proxy_secret}  # of the CONNECT; the source never sees it
        elif proxy_secret is not None:
            headers["Proxy-Authorization"] = proxy_secret
        authority = await self._authority(source.ca_file) if source.ca_file else None
        connect_s = min(_CLIENT_CONNECT_S if lane is Lane.CLIENT else _CONNECT_S, answer_s or idle_s)
        # A little longer than a connection may take: a host that takes none is told from one that is silent.
        head_s = connect_s + idle_s if answer_s is None else answer_s + 0.5
        piece = self._shaper.piece(source.limit)
        limits = aiohttp.ClientTimeout(total=None, connect=connect_s, sock_connect=connect_s, sock_read=idle_s)
        try:
            # `sock_read` begins anew with every byte: without a limit of its own a head could drip for hours.
            async with asyncio.timeout(head_s):
                response = await self._session.request(
                    method,
                    URL(url, encoded=True),
                    headers=headers,
                    allow_redirects=False,
                    proxy=proxy,
                    proxy_headers=proxy_headers,
                    ssl=authority or True,
                    timeout=limits,
                    max_line_size=HEADER_BYTES,
                    max_field_size=HEADER_BYTES,
                    max_headers=HEADERS_MOST,
                    read_bufsize=READ_BYTES if piece is None else piece,
                )
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise asked.broken(error, idle_s=min(idle_s, answer_s or idle_s)) from None
        try:
            held = None if self._shaper.free(source.limit) else partial(self._shaper.passed, source.limit, lane)
            yield Reply(response, asked, self._clock, meter, idle_s, held, piece)
        finally:
            response.release()  # back to the pool when it was read to its end, closed otherwise

    def _heed(self, host: Origin, reply: Reply) -> None:
        """Let the whole house leave a host alone that asks for it: one mirror's pause is every mirror's."""
        if reply.status in {429, 503} and reply.pause_s:
            self._hosts.hold(host.name, min(reply.pause_s, MAX_PAUSE_S))

    async def _authority(self, ca_file: str) -> ssl.SSLContext:
        """Return what trusts the system's authorities and those in `ca_file`, read again when the file has changed."""
        try:
            stamp = await asyncio.to_thread(_stamp, ca_file)
            known = self._authorities.get(ca_file)
            if known is None or known[0] != stamp:
                known = self._authorities[ca_file] = (stamp, await asyncio.to_thread(_load, ca_file))
        except OSError as error:  # ssl.SSLError is one
            why = error.strerror or type(error).__name__
            hidden = await asyncio.to_thread(sandbox.hint, Path(ca_file))
            raise Invalid(
                f"the ca_file {printable(ca_file)} cannot be used: {printable(why)}",
                hint=printable(hidden)
                if hidden
                else "name a PEM file with certificates that the daemon's user may read",
                path="ca_file",
            ) from None
        return known[1]


def _stamp(ca_file: str) -> tuple[int, int]:
    status = Path(ca_file).stat()
    return status.st_mtime_ns, status.st_size


def _load(ca_file: str) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.load_verify_locations(cafile=ca_file)
    return context
