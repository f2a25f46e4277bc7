"""The only place that knows what a source is to a request: its address, its secrets and where they may be sent."""

import base64
import re
from functools import lru_cache
from urllib.parse import quote, unquote, unquote_plus, urljoin, urlsplit, urlunsplit

from msgspec import Struct

from firth_protocol.errors import Invalid
from firth_protocol.types import Credentials
from firthd.upstream.masking import HIDDEN, TOKEN_PLACE, Masker, mask, printable
from firthd.upstream.shape import RateLimit

_KEY_LENGTH = 8  # shorter values of a query are switches and dates
_DEFAULT_PORTS = {"http": 80, "https": 443}
_ABSOLUTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_NOT_IN_A_HEADER = re.compile(r"[^\x21-\x7e]")
_PLAIN = re.compile(r"(?:/[A-Za-z0-9_-][A-Za-z0-9._-]*)+/?\Z")
"""A path rooted in its host that is its own spelling: nothing to be encoded, resolved or filled in."""
ROOT = re.compile(r"https?://[A-Za-z0-9.-]+(?::[0-9]+)?(?=/)")
"""What comes before the path of a usual address."""
# What RFC 3986 allows in a path segment besides letters, digits and what `quote` never touches.
_SAFE_IN_PATH = "/!$&'()*+,;=:@~"


class Source(Struct, frozen=True, kw_only=True):
    """Where a mirror copies from. `url` has no trailing slash and may hold `{token}`."""

    url: str
    credentials: Credentials | None = None
    proxy: str | None = None
    ca_file: str | None = None
    limit: RateLimit = RateLimit()
    encoded: bool = False  # it wants `+`, `!` and `~` in file names percent-encoded

    def __repr__(self) -> str:
        """Show everything but secrets: this text ends in logs and tracebacks."""
        proxy = mask(self.proxy) if self.proxy else None
        credentials = HIDDEN if self.credentials else None
        return f"Source(url={mask(self.url)!r}, credentials={credentials}, proxy={proxy!r}, ca_file={self.ca_file!r})"


class Known(Struct, frozen=True):
    """What all requests of one source have in common: what hides its secrets, its host, what it is sent, and whether
    it wants to be sent something. `guarded`: there are secrets that an address may hold.
    """

    hide: Masker
    home: "Origin | None"
    secret: str | None
    asks_credentials: bool
    guarded: bool


class Validators(Struct, frozen=True, kw_only=True):
    """What a source gave to recognise the same bytes again (RFC 9110, 8.8)."""

    etag: str | None = None
    last_modified: str | None = None


class Origin(Struct, frozen=True):
    """Scheme, host and port: credentials never leave it (RFC 6454)."""

    scheme: str
    host: str
    port: int

    @property
    def name(self) -> str:
        """The key of a host's budget: requests to both its schemes count against their own port."""
        return f"{self.host}:{self.port}"

    @property
    def shown(self) -> str:
        """The host for people, with the port where it is not the scheme's own."""
        return self.host if self.port == _DEFAULT_PORTS[self.scheme] else self.name


def origin_of(url: str) -> Origin:
    """Return an http(s) address's origin; raise ValueError when it has none."""
    root = ROOT.match(url)
    return _origin_of(url if root is None else root[0])


@lru_cache(maxsize=256)
def _origin_of(url: str) -> Origin:
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    if scheme not in _DEFAULT_PORTS or not parts.hostname:
        raise ValueError("not an http or https address")
    return Origin(scheme, parts.hostname.lower(), parts.port or _DEFAULT_PORTS[scheme])


def host_of(url: str) -> str:
    """Return the host of a source's address as people are told it, nothing for a folder."""
    try:
        return origin_of(url).shown
    except ValueError:
        return ""


def budget_of(source: Source, path_or_url: str) -> str:
    """Return the name of the host whose budget a file of the source is counted against; raise Invalid as `address`."""
    if is_file(source) and not is_absolute(path_or_url):
        return source.url
    try:
        return origin_of(address(source, path_or_url)).name
    except ValueError:
        return source.url


def is_file(source: Source) -> bool:
    return source.url[:5].lower() == "file:"


def is_absolute(path_or_url: str) -> bool:
    return _ABSOLUTE.match(path_or_url) is not None and "://" in path_or_url


def credentials_of(source: Source) -> Credentials:
    """Return the source's credentials; a user and password in its address count where none are given."""
    if source.credentials is not None:
        return source.credentials
    user, password = _user_in(source.url)
    given = user or password
    return Credentials(user=unquote(user), password=unquote(password)) if given else Credentials()


def masker(source: Source, other_proxy: str | None = None) -> Masker:
    """Return what hides this source's secrets; the proxy's password is one of them, whoever named the proxy."""
    credentials = credentials_of(source)
    secrets = [credentials.token, credentials.password, credentials.bearer]
    if credentials.query is not None:
        secrets += _keys(credentials.query)
    if credentials.user is not None and credentials.password is not None:
        secrets.append(_basic(credentials.user, credentials.password))
    if proxy := source.proxy or other_proxy:
        password = _user_in(proxy)[1]
        secrets += [password, unquote(password)]
    return Masker(tuple(secret for secret in secrets if secret))


def known(source: Source, other_proxy: str | None = None) -> Known:
    """Return what is the same for every request; raise Invalid when the credentials or the address cannot be used."""
    check_credentials(source.credentials)
    credentials = credentials_of(source)
    return Known(
        hide=masker(source, other_proxy),
        home=origin_of(source.url) if source.url.lower().startswith("http") else None,
        secret=authorization(source),
        asks_credentials=credentials != Credentials(),
        guarded=bool(_addressed(credentials)),
    )


def _addressed(credentials: Credentials) -> set[str]:
    """Return the secrets that an address may hold as parts of its own."""
    found = {credentials.token, credentials.bearer, *_keys(credentials.query or "")}
    return {secret for secret in found if secret}


def holds_secret(source: Source, url: str) -> bool:
    """Tell whether an address holds the source's token or bearer, or a key of its query, as one of its own parts.

    Whole path segments and query values are compared: a password may be an ordinary word, and is in no address.
    """
    secrets = _addressed(credentials_of(source))
    if not secrets:
        return False
    parts = urlsplit(url)
    found = {unquote(segment) for segment in parts.path.split("/")}
    for pair in re.split("[&;]", parts.query):
        name, _, value = pair.partition("=")
        found |= {unquote(name), unquote(value), unquote_plus(value)}
    return not secrets.isdisjoint(found)


def _keys(query: str) -> list[str]:
    """Return the values of a query that may be secrets: `sp=r` is none."""
    values = [pair.partition("=")[2] or pair for pair in query.split("&")]
    return [text for value in values if len(value) >= _KEY_LENGTH for text in {value, unquote(value)}]


def check_credentials(credentials: Credentials | None) -> None:
    """Raise Invalid unless the credentials are exactly one of {token}, {user, password}, {bearer} and {query}."""
    if credentials is None:
        return
    basic = credentials.user is not None or credentials.password is not None
    others = (credentials.token, credentials.bearer, credentials.query)
    if sum((basic, *(secret is not None for secret in others))) != 1:
        raise Invalid("credentials have one form: {token}, {user, password}, {bearer} or {query}", path="$.credentials")
    if basic and (credentials.user is None or credentials.password is None):
        raise Invalid("credentials with a user need a password too (either may be empty)", path="$.credentials")
    if credentials.user is not None and ":" in credentials.user:
        raise Invalid("a user name for HTTP Basic cannot hold a colon", path="$.credentials.user")
    for name in ("token", "bearer", "query"):
        if _NOT_IN_A_HEADER.search(getattr(credentials, name) or ""):
            raise Invalid(
                f"credentials.{name} holds a blank or a character outside ASCII", path=f"$.credentials.{name}"
            )


def authorization(source: Source) -> str | None:
    """Return the Authorization header for credentials that go into one, None for a token in the path or nothing."""
    credentials = credentials_of(source)
    if credentials.bearer is not None:
        return f"Bearer {credentials.bearer}"
    if credentials.user is not None:
        return f"Basic {_basic(credentials.user, credentials.password or '')}"
    return None


def address(source: Source, path_or_url: str) -> str:
    """Return the address to ask: a reference below the source, rooted in its host, or absolute (RFC 3986, 4.2).

    What is percent-encoded stays, what must be is. The token is filled in only in addresses of the source's own
    origin; user and password in an address are dropped. Raises Invalid for a scheme other than http and https, for a
    step down from https to http, for a path that climbs out of the source, and when a token is needed and lacking.
    """
    home, base, root = _ground(source)
    if root is not None and _PLAIN.match(path_or_url):
        return _with_query(source, f"{root}{path_or_url}")
    if not is_absolute(path_or_url) and not path_or_url.startswith("/"):
        if ".." in unquote(path_or_url).split("/"):
            raise Invalid(f"the path {printable(path_or_url)[:200]} leads out of the source")
        return _with_query(source, f"{base}/{_quoted(path_or_url)}")
    try:
        url = _tidy(urljoin(f"{base}/", path_or_url))
        there = origin_of(url)
    except ValueError:
        shown = mask(path_or_url)
        hint = "only http and https addresses can"
        raise Invalid(f"the address {shown} cannot be asked", hint=hint, url=shown) from None
    if home is not None and home.scheme == "https" and there.scheme == "http":
        raise Invalid(f"the https source points to {mask(url)}, which is not encrypted", url=mask(url))
    return _with_query(source, _with_token(source, url)) if home == there else url


@lru_cache(maxsize=64)
def _ground(source: Source) -> tuple[Origin | None, str, str | None]:
    """Return a source's origin, what its relative references are below, and its host's root (None: no host)."""
    try:
        home = None if is_file(source) else origin_of(source.url)
    except ValueError:
        raise Invalid(f"the source {mask(source.url)} is not an http, https or file address") from None
    base = without_user(_with_token(source, source.url.rstrip("/")))
    return home, base, None if home is None else urlunsplit((*urlsplit(base)[:2], "", "", ""))


def page_address(source: Source, path: str) -> str:
    """Return where a page of a source is, to join what it says with: rooted in its host, or below the folder."""
    return path if is_file(source) else f"{urlsplit(source.url).path.rstrip('/')}/{path}"


def redirected(url: str, location: str) -> str:
    """Return where a redirect leads, without user and fragment; raise ValueError when it is not to be followed."""
    target = _tidy(urljoin(url, location.strip()))
    here, there = origin_of(url), origin_of(target)
    if here.scheme == "https" and there.scheme == "http":
        raise ValueError("it leads from https to http")
    return target


def without_user(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, parts.query, ""))


def proxy_of(proxy: str | None) -> tuple[str | None, str | None]:
    """Return the proxy's address without its user, and the Proxy-Authorization header; raise Invalid if it is none."""
    if not proxy:
        return None, None
    try:
        origin_of(proxy)
    except ValueError:
        raise Invalid(
            f"the proxy {mask(proxy)} is not an http or https address",
            hint="write it as http://host:port or http://user:password@host:port",
        ) from None
    parts = urlsplit(proxy)
    header = None
    if parts.username is not None:
        header = f"Basic {_basic(unquote(parts.username), unquote(parts.password or ''))}"
    return without_user(proxy), header


def _with_query(source: Source, url: str) -> str:
    """Return an address of the source's own origin with the key that its query takes."""
    query = source.credentials.query if source.credentials else None
    if not query:
        return url
    return f"{url}{'&' if '?' in url else '?'}{_quoted(query, safe=_SAFE_IN_PATH + '?')}"


def _with_token(source: Source, url: str) -> str:
    if TOKEN_PLACE not in url:
        return url
    token = source.credentials.token if source.credentials else None
    if not token:
        raise Invalid("the source's address needs a token", hint="give it as credentials {token}")
    return url.replace(TOKEN_PLACE, quote(token, safe=""))


def _user_in(url: str) -> tuple[str, str]:
    """Return user and password of an address as they stand in it, empty where there are none."""
    try:
        userinfo = urlsplit(url).netloc.rpartition("@")[0]
    except ValueError:
        userinfo = url.partition("://")[2].rpartition("@")[0]  # no address, but it may hold a password all the same
    user, _, password = userinfo.partition(":")
    return user, password


def _tidy(url: str) -> str:
    """Return a foreign address as it can stand in a request line; raise ValueError when it cannot."""
    parts = urlsplit(without_user(url))
    netloc = parts.netloc if parts.netloc.isascii() else parts.netloc.encode("idna").decode("ascii")
    path = _quoted(parts.path, safe=_SAFE_IN_PATH + "{}") if TOKEN_PLACE in parts.path else _quoted(parts.path)
    return urlunsplit((parts.scheme, netloc, path or "/", _quoted(parts.query, safe=_SAFE_IN_PATH + "?"), ""))


def _quoted(text: str, safe: str = _SAFE_IN_PATH) -> str:
    quoted = quote(text, safe=f"{safe}%", errors="replace")
    return re.sub(r"%(?![0-9A-Fa-f]{2})", "%25", quoted)


def _basic(user: str, password: str) -> str:
    return base64.b64encode(f"{user}:{password}".encode()).decode("ascii")
