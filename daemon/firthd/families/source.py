"""The only place that takes a source's address apart: what is stored, and the secrets that stood in it.

What folders of an address mean only a family knows: it gives that to `normalise` as an `AddressStyle`.
"""

import re
from collections.abc import Callable
from typing import Protocol
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from msgspec import Struct

from firth_protocol.errors import Invalid
from firth_protocol.types import Credentials
from firthd.upstream.masking import TOKEN_PLACE, mask
from firthd.upstream.source import check_credentials

MAX_ADDRESS = 2048
_FOLDER_T = "%74"
_DOTTED_TOKEN_LENGTH = 20  # signed tokens have dots and are longer

_CONTROL = re.compile(r"[\x00-\x20\x7f-\x9f\\]")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


class AddressStyle(Struct, frozen=True, kw_only=True):
    """What a family knows of its sources' addresses.

    `corrected` returns the segments of a path without what people copy from a browser, and adds to the warnings what
    was left off; `is_folder` tells whether what follows `/t/` is a folder of such a source, and no token.
    """

    example: str
    corrected: Callable[[list[str], list[str]], list[str]]
    is_folder: Callable[[str], bool]


class Normalised(Struct, frozen=True, kw_only=True):
    """A source's address as it is stored, its secrets apart from it, and what was changed for people to know."""

    source: str  # without trailing slash; `{token}` where the token belongs
    credentials: Credentials | None
    warnings: list[str]

    def __repr__(self) -> str:
        """Show no secret: this text may end in a traceback."""
        return f"Normalised(source={mask(self.source)!r}, warnings={self.warnings!r})"


class Normalise(Protocol):
    """Takes a source's address apart; `stored` are secrets used where neither address nor credentials has any."""

    def __call__(
        self, source: str, credentials: Credentials | None = None, stored: Credentials | None = None, /
    ) -> Normalised: ...


def normalise(
    style: AddressStyle, source: str, credentials: Credentials | None = None, stored: Credentials | None = None
) -> Normalised:
    """Return a source's address in the form that is stored, with its secrets taken out of it.

    `stored`: what the mirror has already, used where neither the address nor `credentials` has a secret. Raises
    Invalid, whose text never shows a secret.
    """
    check_credentials(credentials)
    warnings: list[str] = []
    scheme, netloc, path, query = _taken_apart(source.strip(), style.example)
    if scheme == "file":
        return _folder(style, netloc, path, credentials, warnings)
    netloc, in_url = _host(scheme, netloc)
    segments, token = _segments(style, path, folder=credentials is not None and credentials.token is None)
    if sum((in_url is not None, token is not None, bool(query))) > 1:
        raise Invalid("the address has two of a user, a token and a query; a source takes one of them", path="source")
    if token is not None:
        in_url = Credentials(token=token)
    if query:
        in_url = Credentials(query=query)
        check_credentials(in_url)
        warnings.append("what follows ? is kept as credentials {query} and sent with every request")
    if in_url is not None and credentials is not None and in_url != credentials:
        raise Invalid("the address and the credentials name different secrets; give them once", path="credentials")
    given = in_url or credentials or stored
    segments = style.corrected(segments, warnings)
    if given is not None and given.token is not None and TOKEN_PLACE not in segments:
        # What conda does with a token, and servers of channels take: it stands at the front of the path.
        segments = ["t", TOKEN_PLACE, *segments]
        warnings.append(f"the token is sent as /t/{TOKEN_PLACE}/ at the beginning of the path, as conda does")
    if TOKEN_PLACE in segments and (given is None or given.token is None):
        raise Invalid(
            f"the address has a place for a token ({TOKEN_PLACE}) but there is none", path="credentials.token"
        )
    if given is not None and scheme == "http":
        warnings.append("the credentials are sent without encryption, because the address is http")
    url = urlunsplit((scheme, netloc, "/".join(["", *segments]) if segments else "", "", ""))
    return Normalised(source=url, credentials=given, warnings=warnings)


# --- taking an address apart ----------------------------------------------------------------------------------------


def _taken_apart(source: str, example: str) -> tuple[str, str, str, str]:
    """Return scheme, host with user, path and query."""
    if len(source) > MAX_ADDRESS:
        raise Invalid(f"the address is longer than {MAX_ADDRESS} characters", path="source")
    found = _SCHEME.match(source)
    if found is None:
        hint = (
            "for a folder write file:///absolute/path"
            if source.startswith(("/", "file:"))
            else f"write the whole address, such as {example}"
        )
        raise Invalid("the source is not an address", hint=hint, path="source")
    scheme = found[1].lower()
    if scheme not in {"http", "https", "file"}:
        raise Invalid(f"a source is reached by http, https or file, not by {scheme[:20]}", path="source")
    if "#" in source or (scheme == "file" and "?" in source):
        raise Invalid("a source's address has no fragment (#), and a folder's no query (?)", path="source")
    # A folder's name may have blanks; in a web address one is a slip.
    if _CONTROL.search(source if scheme != "file" else source.replace(" ", "")):
        raise Invalid("the address holds a blank, a backslash or a control character", path="source")
    try:
        parts = urlsplit(source)
    except ValueError:
        raise Invalid("the address cannot be taken apart", hint="look at its host and port", path="source") from None
    return scheme, parts.netloc, parts.path, parts.query


def _host(scheme: str, netloc: str) -> tuple[str, Credentials | None]:
    """Return host and port as they are stored, and what `user:password@` said."""
    userinfo, _, _ = netloc.rpartition("@")
    try:
        parts = urlsplit(f"//{netloc.rpartition('@')[2]}")
        host, port = parts.hostname or "", parts.port
        host = host if host.isascii() else host.encode("idna").decode("ascii")
    except ValueError:
        raise Invalid("the address has no valid host and port", path="source") from None
    if not re.fullmatch(r"[a-z0-9._-]+|[0-9a-f:.]+", host):
        raise Invalid("the address has no valid host", path="source")
    host = f"[{host}]" if ":" in host else host
    own_port = port is None or port == {"http": 80, "https": 443}[scheme]
    credentials = None
    if userinfo:
        user, _, password = userinfo.partition(":")
        if not user and not password:
            raise Invalid("the address has an @ without a user and a password", path="source")
        credentials = Credentials(user=unquote(user), password=unquote(password))
        check_credentials(credentials)
    return host if own_port else f"{host}:{port}", credentials


def _segments(style: AddressStyle, path: str, *, folder: bool) -> tuple[list[str], str | None]:
    """Return the path's segments with `{token}` after the first `t`, and the token that stood there.

    With `folder` the secret stands elsewhere, and `t` is a folder like any other. Where it is one, it is stored as
    `%74`, so that nobody takes what follows for a token again.
    """
    if re.search(r"/t//+[^/]", path):
        raise Invalid("there is no token after /t/ in the address", path="source")
    segments = [segment for segment in path.split("/") if segment]
    if any(unquote(segment) in {".", ".."} for segment in segments):
        raise Invalid("the address holds . or .. as a folder", path="source")
    places = [number + 1 for number, segment in enumerate(segments[:-1]) if segment == "t"]
    place = next((number for number in places if _may_be_token(style, segments[number], folder=folder)), None)
    token = None
    if place is not None and segments[place] not in {TOKEN_PLACE, quote(TOKEN_PLACE)}:
        token = unquote(segments[place])
        check_credentials(Credentials(token=token))
    tidy = [quote(unquote(segment), safe="!$&'()*+,;=:@~") for segment in segments]
    tidy = [TOKEN_PLACE if segment == quote(TOKEN_PLACE) else segment for segment in tidy]
    for number, segment in enumerate(tidy[:-1]):
        if segment == "t" and number + 1 != place:
            tidy[number] = _FOLDER_T
    if place is not None:
        tidy[place] = TOKEN_PLACE
    if tidy.count(TOKEN_PLACE) > 1:
        raise Invalid(f"the address has more than one {TOKEN_PLACE}", path="source")
    return tidy, token


def _may_be_token(style: AddressStyle, segment: str, *, folder: bool) -> bool:
    """Tell whether what follows `/t/` is a token: a version or a folder of such a source is none."""
    if segment in {TOKEN_PLACE, quote(TOKEN_PLACE)}:
        return True
    short_with_dot = "." in segment and len(segment) < _DOTTED_TOKEN_LENGTH
    return not (folder or short_with_dot or style.is_folder(segment))


def _folder(
    style: AddressStyle, netloc: str, path: str, credentials: Credentials | None, warnings: list[str]
) -> Normalised:
    if netloc not in {"", "localhost"} or not path.startswith("/"):
        raise Invalid("a folder's address is absolute", hint="write it as file:///absolute/path", path="source")
    if credentials is not None:
        raise Invalid("a folder takes no credentials", path="credentials")
    segments = [segment for segment in path.split("/") if segment]
    if any(unquote(segment) in {".", ".."} for segment in segments) or "\0" in unquote(path):
        raise Invalid("the address holds . or .. as a folder", path="source")
    kept = style.corrected([quote(unquote(segment), safe="!$&'()*+,;=:@~") for segment in segments], warnings)
    if not kept:
        raise Invalid("the source would be the root of the file system", path="source")
    return Normalised(source=f"file:///{'/'.join(kept)}", credentials=None, warnings=warnings)
