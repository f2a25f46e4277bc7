"""The only place that opens HTTP connections to sources: one request at a time, redirects followed by hand."""

import asyncio
import re
import ssl
from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache, partial
from pathlib import Path

import aiohttp
from yarl import URL

from firth_protocol.errors import Invalid, Unavailable, Upstream
from firthd import sandbox
from firthd.clock import Clock
from firthd.config import UpstreamSettings
from firthd.upstream.body import MIN_BYTES_S, PACE_S, Body
from firthd.upstream.direct import Came, Take
from firthd.upstream.encodings import labels
from firthd.upstream.failures import Asked, Failure, Passing, Slow, retry_after_s
from firthd.upstream.hosts import Held, Hosts, Lane, Slot
from firthd.upstream.known import Known as KnownHost
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
    holds_secret,
    known,
    origin_of,
    proxy_of,
    redirected,
)
from firthd.upstream.spool import strong
from firthd.upstream.wire import HEADER_BYTES, HEADERS_MOST, Plain, Wires

MAX_REDIRECTS = 10
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
        response: aiohttp.ClientResponse | Plain,
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
        value = self._response.headers.get("Content-Length") or ""
        return int(value) if value.isascii() and value.isdigit() and len(value) < 16 else None

    @property
    def part(self) -> tuple[int, int, int | None] | None:
        """First byte, last byte and whole length of a 206, None when it does not say."""
        found = _CONTENT_RANGE.fullmatch((self._response.headers.get("Content-Range") or "").strip())
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
            pump=self._pump if isinstance(self._response, Plain) else None,
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
            raise self._broken(error) from None

    async def _pump(self, take: Take, came: Came) -> bool:
        assert isinstance(self._response, Plain)
        try:
            return await self._response.pump(take, came, self._clock)
        except aiohttp.ClientError as error:
            raise self._broken(error) from None

    def _broken(self, error: BaseException) -> Failure:
        received = self._response.content.total_bytes
        return self.asked.broken(error, idle_s=self._idle_s, received=received, length=self.length)


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
        self._wires = Wires(user_agent)
        self._hosts = Hosts(settings.connections_per_host, clock)
        self.known = KnownHosts(clock, meter)
        self._session: aiohttp.ClientSession | None = None
        self._sources: dict[tuple[Source, str | None], Known] = {}
        self._authorities: dict[str, tuple[tuple[int, int], ssl.SSLContext]] = {}

    async def start(self) -> None:
        self._session = aiohttp.ClientSession(
            connector=self._wires.connector(),
            cookie_jar=aiohttp.DummyCookieJar(),  # a cookie of one mirror's source must not reach another's
            auto_decompress=False,
            headers={"Accept-Encoding": "identity", "User-Agent": self._user_agent},
            trust_env=False,
        )

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    def ask(
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
        small: bool = False,
    ) -> "Asking":
        """Ask once, following redirects, and give the answer whatever its status, for as long as `async with` lasts.

        `small`: it is a GET, and nobody watches the body come; where it is small it may come in one piece.
        `patience_s`: how long a pause that the host asked for is waited out; `answer_s`: how long a connection and the
        head of the answer may take (default: as long as a silence). Raises Failure when there is no
        answer, Invalid when the address, the proxy or the credentials cannot be used.
        """
        idle = idle_s or self._settings.timeout_s
        return Asking(self, source, path_or_url, method, headers, patience_s, idle, answer_s, lane, small)

    async def answer(self, asking: "Asking") -> Reply:
        """Return the answer to what is asked; `asking` is told what is to be given back when it has been read."""
        source = asking.source
        url = address(source, asking.path_or_url)
        about = self._about(source, self._proxies.through(url))
        for hop in range(MAX_REDIRECTS + 1):
            here = origin_of(url)
            begun, asking.begun = asking.begun, None
            response, asked = begun or await self._hop(asking, about, url, here, hop)
            piece = self._shaper.piece(source.limit)
            held = None if self._shaper.free(source.limit) else partial(self._shaper.passed, source.limit, asking.lane)
            reply = Reply(response, asked, self._clock, asking.known.meter, asking.idle_s, held, piece)
            location = reply.location
            if location is None:
                self._heed(here, reply)
                reply.landed = url.partition("?")[0] if hop else None
                return reply
            asking.give_back()
            try:
                url = redirected(url, location)
            except ValueError as error:
                why = str(error) if str(error).startswith("it leads") else "the address cannot be asked"
                raise asked.failure(
                    f"{asked.url} redirects to {about.hide.url(location)}, which is not followed: {why}",
                    "use the address where the files really are as the mirror's source",
                    status=reply.status,
                ) from None
        raise asked.failure(
            f"{asked.host} redirected more than {MAX_REDIRECTS} times", "look at the source's address in a browser"
        )

    async def whole(self, asking: "Asking") -> bytes | memoryview | None:
        """Return the body of an ordinary answer that came in one piece, and give all back.

        None: the answer is another, which `answer` goes on with; it is asked for where nothing was.
        """
        source = asking.source
        if not self._shaper.free(source.limit):
            return None
        url = address(source, asking.path_or_url)
        about = self._about(source, self._proxies.through(url))
        response, asked = await self._hop(asking, about, url, origin_of(url), 0)
        data = response.everything() if isinstance(response, Plain) else None
        if data is None:
            asking.begun = (response, asked)
            return None
        asking.known.meter.add(len(data))
        asking.give_back()
        return data

    async def _hop(
        self, asking: "Asking", about: Known, url: str, here: Origin, hop: int
    ) -> tuple[aiohttp.ClientResponse | Plain, Asked]:
        """Ask one host."""
        source, home, secret = asking.source, about.home, about.secret
        away = asking.away = asking.away or here != home  # once away from home credentials are never sent again
        asked = Asked(
            about.hide,
            url,
            here.shown,
            sent_credentials=about.asks_credentials,
            left_origin=hop > 0 and here != home,
        )
        if about.guarded and here != home and holds_secret(source, url):
            raise asked.failure(
                f"{asked.url} is another host and its address holds this source's secret; it was not asked",
                "if the source has moved, use its new address as the mirror's source",
            )
        own = dict(asking.headers) if asking.headers else {}
        if secret is not None and not away:
            own["Authorization"] = secret
        known = asking.known = self.known.asking(asked.host)
        asking.asked = True
        slot = asking.slot = self._hosts.slot(here.name, patience_s=asking.patience_s, lane=asking.lane)
        try:
            await slot.__aenter__()
            response = asking.response = await self._send(asking, url, own, asked)
        except Held as held:
            raise asked.held(held.seconds) from None
        known.answered(response.status)
        return response, asked

    def _about(self, source: Source, proxy: str | None) -> Known:
        found = self._sources.get((source, proxy))
        if found is None:
            if len(self._sources) >= _KNOWN_MOST:
                self._sources.clear()
            found = self._sources[(source, proxy)] = known(source, proxy)
        return found

    async def _send(
        self, asking: "Asking", url: str, headers: dict[str, str], asked: Asked
    ) -> aiohttp.ClientResponse | Plain:
        """Return the answer of one host, with its head read."""
        if self._session is None:
            raise Unavailable("sources are not asked yet, or no more", hint="try again in a moment")
        source, idle_s, answer_s = asking.source, asking.idle_s, asking.answer_s
        proxy, proxy_secret = proxy_of(source.proxy or self._proxies.through(url))
        proxy_headers = None
        if proxy_secret is not None and url.startswith("https:"):
            proxy_headers = {"Proxy-Authorization": proxy_secret}  # of the CONNECT; the source never sees it
        elif proxy_secret is not None:
            headers["Proxy-Authorization"] = proxy_secret
        authority = await self._authority(source.ca_file) if source.ca_file else None
        connect_s = min(_CLIENT_CONNECT_S if asking.lane is Lane.CLIENT else _CONNECT_S, answer_s or idle_s)
        # A little longer than a connection may take: a host that takes none is told from one that is silent.
        head_s = connect_s + idle_s if answer_s is None else answer_s + 0.5
        piece = self._shaper.piece(source.limit)
        limits = _limits(connect_s, idle_s)
        try:
            if asking.method == "GET" and proxy is None and piece is None:
                answer = await self._wires.ask(
                    self._session,
                    url,
                    headers,
                    ssl=authority or True,
                    limits=limits,
                    head_s=head_s,
                    watched=not asking.small,
                )
                if answer is not None:
                    return answer
            # `sock_read` begins anew with every byte: without a limit of its own a head could drip for hours.
            async with asyncio.timeout(head_s):
                return await self._session.request(
                    asking.method,
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


class Asking:
    """What is asked for, and the place and the connection that it takes while `async with` lasts.

    A class: there is one for every file.
    """

    def __init__(
        self,
        http: Http,
        source: Source,
        path_or_url: str,
        method: str,
        headers: Mapping[str, str] | None,
        patience_s: float,
        idle_s: float,
        answer_s: float | None,
        lane: Lane,
        small: bool,
    ) -> None:
        self._http = http
        self.source = source
        self.path_or_url = path_or_url
        self.method = method
        self.headers = headers
        self.patience_s = patience_s
        self.idle_s = idle_s
        self.answer_s = answer_s
        self.lane = lane
        self.small = small
        self.slot: Slot | None = None
        self.response: aiohttp.ClientResponse | Plain | None = None
        self.known: KnownHost
        self.asked = False  # somebody: `known` is set
        self.away = False
        self.begun: tuple[aiohttp.ClientResponse | Plain, Asked] | None = None

    async def __aenter__(self) -> Reply:
        try:
            return await self._http.answer(self)
        except BaseException as error:
            self._end(error)
            raise

    async def whole(self) -> bytes | memoryview | None:
        """Return all of a small body; None: `async with` goes on with what came."""
        try:
            return await self._http.whole(self)
        except BaseException as error:
            self._end(error)
            raise

    async def __aexit__(self, _: object, error: BaseException | None, __: object) -> None:
        self._end(error)

    def _end(self, error: BaseException | None) -> None:
        self.give_back()
        if isinstance(error, Failure) and self.asked:
            self.known.broke(error.error)

    def give_back(self) -> None:
        """Give the connection back to the pool when it was read to its end, else close it; then the host's place."""
        response, self.response = self.response, None
        if response is not None:
            response.release()
        slot, self.slot = self.slot, None
        if slot is not None:
            slot.leave()


@lru_cache(maxsize=64)
def _limits(connect_s: float, idle_s: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, connect=connect_s, sock_connect=connect_s, sock_read=idle_s)


def _stamp(ca_file: str) -> tuple[int, int]:
    status = Path(ca_file).stat()
    return status.st_mtime_ns, status.st_size


def _load(ca_file: str) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.load_verify_locations(cafile=ca_file)
    return context
