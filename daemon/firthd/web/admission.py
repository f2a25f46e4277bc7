"""The only place that knows who a web request comes from, and whether a channel's door opens for it."""

import base64
import binascii
import ipaddress
from collections.abc import Sequence
from enum import Enum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from aiohttp import web
from msgspec import Struct

from firth_protocol.types import Privacy
from firthd.clock import Clock
from firthd.web.context import Tokens

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


_PASSED_ON = ("X-Forwarded-For", "Forwarded", "X-Real-IP", "X-Forwarded-Host", "X-Forwarded-Proto", "Via")
"""What a proxy says of itself; a client that writes it by hand shuts only himself out."""


class Door(Enum):
    """What a channel answers to one visitor."""

    OPEN = "open"
    LOGIN = "login"  # 401: it is known that the channel exists
    HIDDEN = "hidden"  # 404: as if there were none


class Visitor(Struct, frozen=True, kw_only=True):
    """The secrets that a request carries; `by_proxy`: a trusted proxy passed it on, and takes the answer.

    `client` stands for the machine that asks, where no client may have more than its share.
    """

    secrets: tuple[str, ...]
    by_proxy: bool
    client: str = ""


class Origin(Struct, frozen=True, kw_only=True):
    """Where a request comes from, as far as trusted proxies tell."""

    address: Address | None
    scheme: str


class Admission:
    """Reads a request's origin and secrets; judges doors."""

    def __init__(self, tokens: Tokens, trusted_proxies: Sequence[str], clock: Clock) -> None:
        self._tokens = tokens
        self._trusted = networks(trusted_proxies)
        self._clock = clock

    def visitor(self, request: web.BaseRequest, path_token: str | None) -> Visitor:
        """Return who asks: what could be a token, from the path, then from the Authorization header."""
        header = request.headers.get("Authorization")
        secrets = () if header is None else _from_header(header)
        if path_token is not None:
            secrets = (path_token, *secrets)
        client = _machine(self.origin(request).address)
        # A client on the proxy's own machine has its address, and no use for what is meant for the proxy.
        by_proxy = self._by_proxy(request) and _is_passed_on(request)
        return Visitor(secrets=secrets, by_proxy=by_proxy, client=client)

    def origin(self, request: web.BaseRequest) -> Origin:
        """Return where a request comes from. X-Forwarded-For and -Proto count only from a trusted proxy."""
        address = address_of(request.remote)
        scheme = "https" if request.transport and request.transport.get_extra_info("sslcontext") else "http"
        if self._by_proxy(request):
            address = self._behind(address, ",".join(request.headers.getall("X-Forwarded-For", [])))
            told = request.headers.get("X-Forwarded-Proto", "").strip().lower()
            scheme = told if told in {"http", "https"} else scheme
        return Origin(address=address, scheme=scheme)

    def local(self, request: web.BaseRequest, allowed: Sequence[Network]) -> bool:
        """Tell whether a request comes from one of these networks.

        One that somebody passed on who is not trusted to say for whom comes from nowhere.
        """
        if _is_passed_on(request) and not self._by_proxy(request):
            return False
        return inside(self.origin(request).address, allowed)

    def _by_proxy(self, request: web.BaseRequest) -> bool:
        return inside(address_of(request.remote), self._trusted)

    def _behind(self, peer: Address | None, forwarded: str) -> Address | None:
        """The nearest address that is no trusted proxy: what stands left of it anybody could have written."""
        address = peer
        for text in reversed(forwarded.split(",")):
            if not inside(address, self._trusted):
                break
            further = address_of(text.strip())
            if further is None:
                break
            address = further
        return address

    def door(self, visitor: Visitor, channel: str, privacy: Privacy) -> Door:
        """Judge one channel for one visitor. A token that is not valid counts as none."""
        if privacy is Privacy.PUBLIC:
            return Door.OPEN
        for secret in visitor.secrets:
            token = self._tokens.check(secret)
            if token is not None and self._tokens.opens(token, channel, privacy):
                self._tokens.used(token.id, self._clock.now_ms())
                return Door.OPEN
        return Door.LOGIN if privacy is Privacy.AUTHENTICATED else Door.HIDDEN

    def token_id(self, visitor: Visitor) -> int:
        """Return the id of the valid token that a visitor carries, also where no door asks for one, else 0."""
        for secret in visitor.secrets:
            token = self._tokens.check(secret)
            if token is not None:
                return token.id
        return 0


def _is_passed_on(request: web.BaseRequest) -> bool:
    return any(name in request.headers for name in _PASSED_ON)


def networks(texts: Sequence[str]) -> tuple[Network, ...]:
    """Return networks given as `10.0.0.0/8` or as a single address; raise ValueError for anything else."""
    return tuple(ipaddress.ip_network(text, strict=False) for text in texts)


def inside(address: Address | None, allowed: Sequence[Network]) -> bool:
    return address is not None and any(address in network for network in allowed)


def _machine(address: Address | None) -> str:
    """Return what one machine's addresses have in common: of IPv6 it owns a whole /64, and changes inside it."""
    if isinstance(address, IPv6Address):
        return str(IPv6Network((address, 64), strict=False))
    return str(address or "")


def address_of(text: str | None) -> Address | None:
    """Return the address that a text is, None where it is none."""
    try:
        address = ipaddress.ip_address(text or "")
    except ValueError:
        return None
    # A dual-stack socket shows IPv4 peers as ::ffff:a.b.c.d.
    return address.ipv4_mapped or address if isinstance(address, IPv6Address) else address


def _from_header(header: str) -> tuple[str, ...]:
    """Return what could be the token: a Bearer's, or the user and the password of HTTP Basic (RFC 6750, RFC 7617)."""
    scheme, _, value = header.strip().partition(" ")
    value = value.strip()
    if scheme.lower() == "bearer":
        return (value,) if value else ()
    if scheme.lower() != "basic":
        return ()
    try:
        user, _, password = base64.b64decode(value, validate=True).decode("utf-8", "replace").partition(":")
    except (binascii.Error, ValueError):
        return ()
    return tuple(secret for secret in (password, user) if secret)
