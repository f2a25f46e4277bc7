"""The only place that knows what a conda source's address may look like, and what stands behind one."""

import asyncio
import re
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from msgspec import Struct

from firth_protocol.errors import FirthError, Invalid, Upstream
from firth_protocol.types import Credentials, MirrorType, SourceFound
from firthd.families.conda.names import KNOWN_SUBDIRS, NOARCH, valid_subdir
from firthd.upstream import client
from firthd.upstream.masking import TOKEN_PLACE, mask
from firthd.upstream.source import Source, check_credentials

MAX_ADDRESS = 2048

_INDEX_FILE = re.compile(r"(current_)?repodata(_from_packages|_shards)?\.[a-z0-9.]+|channeldata\.json|index\.html")
_CONTROL = re.compile(r"[\x00-\x20\x7f-\x9f\\]")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_PYTHON_TYPES = ("application/vnd.pypi.simple.v1+json", "application/vnd.pypi.simple.v1+html")
_HTML_TYPES = ("text/html", "application/xhtml+xml")
_UNCHECKED = "`check: false` takes the address without asking"


class Normalised(Struct, frozen=True, kw_only=True):
    """A source's address as it is stored, its secrets apart from it, and what was changed for people to know."""

    source: str  # without trailing slash; `{token}` where the token belongs
    credentials: Credentials | None
    warnings: list[str]

    def __repr__(self) -> str:
        """Show no secret: this text may end in a traceback."""
        return f"Normalised(source={mask(self.source)!r}, warnings={self.warnings!r})"


def normalise(source: str, credentials: Credentials | None = None, stored: Credentials | None = None) -> Normalised:
    """Return a conda source's address in the form that is stored, with its secrets taken out of it.

    `stored`: what the mirror has already, used where neither the address nor `credentials` has a secret. Raises
    Invalid, whose text never shows a secret.
    """
    check_credentials(credentials)
    warnings: list[str] = []
    scheme, netloc, path = _taken_apart(source.strip())
    if scheme == "file":
        return _folder(netloc, path, credentials, warnings)
    netloc, in_url = _host(scheme, netloc)
    segments, token = _segments(path)
    if token is not None:
        if in_url is not None:
            raise Invalid("the address has a token and a user; a source takes one of them", path="source")
        in_url = Credentials(token=token)
    if in_url is not None and credentials is not None and in_url != credentials:
        raise Invalid("the address and the credentials name different secrets; give them once", path="credentials")
    given = in_url or credentials or stored
    segments = _corrected(segments, warnings)
    if given is not None and given.token is not None and TOKEN_PLACE not in segments:
        # What conda itself does with a token: it stands at the front of the path.
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


def index_candidates(subdir: str) -> tuple[str, str]:
    """Return the paths at which a subdir's index may be, in the order in which they are asked for."""
    return f"{subdir}/repodata.json.zst", f"{subdir}/repodata.json"


# --- taking an address apart ----------------------------------------------------------------------------------------


def _taken_apart(source: str) -> tuple[str, str, str]:
    if len(source) > MAX_ADDRESS:
        raise Invalid(f"the address is longer than {MAX_ADDRESS} characters", path="source")
    found = _SCHEME.match(source)
    if found is None:
        hint = (
            "for a folder write file:///absolute/path"
            if source.startswith(("/", "file:"))
            else ("write the whole address, such as https://conda.example.org/main")
        )
        raise Invalid("the source is not an address", hint=hint, path="source")
    scheme = found[1].lower()
    if scheme not in {"http", "https", "file"}:
        raise Invalid(f"a source is reached by http, https or file, not by {scheme[:20]}", path="source")
    if "?" in source or "#" in source:
        raise Invalid("a source's address has no query and no fragment (? and #)", path="source")
    # A folder's name may have blanks; in a web address one is a slip.
    if _CONTROL.search(source if scheme != "file" else source.replace(" ", "")):
        raise Invalid("the address holds a blank, a backslash or a control character", path="source")
    try:
        parts = urlsplit(source)
    except ValueError:
        raise Invalid("the address cannot be taken apart", hint="look at its host and port", path="source") from None
    return scheme, parts.netloc, parts.path


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
        if not user:
            raise Invalid("the address has a password without a user", path="source")
        credentials = Credentials(user=unquote(user), password=unquote(password))
        check_credentials(credentials)
    return host if own_port else f"{host}:{port}", credentials


def _segments(path: str) -> tuple[list[str], str | None]:
    """Return the path's segments with `{token}` after the first `t`, and the token that stood there."""
    segments = [segment for segment in path.split("/") if segment]
    if any(unquote(segment) in {".", ".."} for segment in segments):
        raise Invalid("the address holds . or .. as a folder", path="source")
    place = next((i + 1 for i, segment in enumerate(segments[:-1]) if segment == "t"), None)
    token = None
    if place is not None and segments[place] not in {TOKEN_PLACE, quote(TOKEN_PLACE)}:
        token = unquote(segments[place])
        check_credentials(Credentials(token=token))
    tidy = [quote(unquote(segment), safe="!$&'()*+,;=:@~") for segment in segments]
    tidy = [TOKEN_PLACE if segment == quote(TOKEN_PLACE) else segment for segment in tidy]
    if place is not None:
        tidy[place] = TOKEN_PLACE
    if tidy.count(TOKEN_PLACE) > 1:
        raise Invalid(f"the address has more than one {TOKEN_PLACE}", path="source")
    return tidy, token


def _corrected(segments: list[str], warnings: list[str]) -> list[str]:
    """Return the segments without a subdir and an index file at their end: people copy those from a browser."""
    kept = list(segments)
    if kept and _INDEX_FILE.fullmatch(kept[-1]):
        kept.pop()
        if kept and valid_subdir(kept[-1]):
            kept.pop()
    elif kept and kept[-1] in KNOWN_SUBDIRS:
        kept.pop()
    if kept != segments:
        cut = "/".join(segments[len(kept) :])
        warnings.append(f"/{cut} was left off: a source is the channel, the folder that holds its subdirs")
    return kept


def _folder(netloc: str, path: str, credentials: Credentials | None, warnings: list[str]) -> Normalised:
    if netloc not in {"", "localhost"} or not path.startswith("/"):
        raise Invalid("a folder's address is absolute", hint="write it as file:///absolute/path", path="source")
    if credentials is not None:
        raise Invalid("a folder takes no credentials", path="credentials")
    segments = [segment for segment in path.split("/") if segment]
    if any(unquote(segment) in {".", ".."} for segment in segments) or "\0" in unquote(path):
        raise Invalid("the address holds . or .. as a folder", path="source")
    kept = _corrected([quote(unquote(segment), safe="!$&'()*+,;=:@~") for segment in segments], warnings)
    if not kept:
        raise Invalid("the source would be the root of the file system", path="source")
    return Normalised(source=f"file:///{'/'.join(kept)}", credentials=None, warnings=warnings)


# --- asking what stands there -----------------------------------------------------------------------------------------


class SubdirFound(Struct, frozen=True, kw_only=True):
    """A subdir that a source has. `bytes`: of its index as it would be fetched, None when the source does not say."""

    subdir: str
    path: str
    bytes: int | None


async def probe(upstream: "client.Upstream", source: Source, *, timeout_s: float = 10.0) -> SourceFound:
    """Ask a source which subdirs it has.

    Raises errors.Upstream when nobody answers in time or access is refused, Invalid when something else than a conda
    channel stands there; the text says what.
    """
    found: dict[str, SubdirFound] = {}
    warnings: list[str] = []
    try:
        async with asyncio.timeout(timeout_s):
            await _ask(upstream, source, found)
    except TimeoutError:
        if not found:
            raise Upstream(
                f"{_shown(source)} did not answer within {timeout_s:g} s", hint=_UNCHECKED, url=_shown(source)
            ) from None
        warnings.append(f"not every subdir answered within {timeout_s:g} s; there may be more")
    except Upstream as error:
        hint = f"{error.hint}; {_UNCHECKED}" if error.hint else _UNCHECKED
        raise Upstream(error.message, hint=hint, **error.data) from None
    if NOARCH not in found:
        warnings.append("there is no noarch: conda clients refuse such a channel, a mirror of it gets an empty one")
    sizes = [one.bytes for one in found.values()]
    return SourceFound(
        type=MirrorType.CONDA,
        source=source.url,
        subdirs=[subdir for subdir in KNOWN_SUBDIRS if subdir in found],
        projects=None,
        index_bytes=None if None in sizes else sum(size for size in sizes if size is not None),
        warnings=warnings,
    )


async def find_subdir(upstream: "client.Upstream", source: Source, subdir: str) -> SubdirFound | None:
    """Return where a subdir's index is, None when the source has none; raise errors.Upstream when it does not say."""
    for path in index_candidates(subdir):
        head = await upstream.head(source, path)
        if head.found and head.content_type not in _HTML_TYPES:  # HTML: a server that answers everything with a page
            return SubdirFound(subdir=subdir, path=path, bytes=head.length)
        if not head.found and head.status not in {404, 410}:
            raise _refused(head.status, head.url, source)
    return None


async def _ask(upstream: "client.Upstream", source: Source, found: dict[str, SubdirFound]) -> None:
    """Fill `found`. noarch comes first: a source that refuses or is something else is not asked thirty times."""
    first = await find_subdir(upstream, source, NOARCH)
    if first is not None:
        await _look_inside(upstream, source, first)
        found[NOARCH] = first
    elif (other := await _something_else(upstream, source)) is not None:
        raise other

    async def one(subdir: str) -> None:
        if (there := await find_subdir(upstream, source, subdir)) is not None:
            found[subdir] = there

    try:
        async with asyncio.TaskGroup() as group:
            for subdir in KNOWN_SUBDIRS:
                if subdir != NOARCH:
                    group.create_task(one(subdir))
    except BaseExceptionGroup as several:
        raise next((error for error in several.exceptions if isinstance(error, FirthError)), several) from None
    if not found:
        raise _nothing(source)
    if first is None:
        await _look_inside(upstream, source, next(iter(found.values())))


async def _look_inside(upstream: "client.Upstream", source: Source, found: SubdirFound) -> None:
    """Raise Invalid unless the index begins as one: some servers answer anything with a page of theirs and 200."""
    start = await upstream.peek(source, found.path, max_bytes=64)
    if start.status in {401, 403}:
        raise _refused(start.status, start.url, source)
    is_index = (
        start.body.startswith(_ZSTD_MAGIC) if found.path.endswith(".zst") else (start.body.lstrip()[:1] in {b"{", b""})
    )
    if start.status != 200 or not is_index:
        what = "a web page" if start.content_type in _HTML_TYPES else "something else"
        raise _wrong(source, f"{what} where the index {found.path} should be", "look at the address in a browser")


async def _something_else(upstream: "client.Upstream", source: Source) -> Invalid | None:
    """Return what to say when the source is of another kind; None when that cannot be told."""
    try:
        if (await upstream.head(source, "src/contrib/PACKAGES")).found:
            return _wrong(source, "a CRAN root", "make a mirror of type r", MirrorType.R)
        index = await upstream.peek(source, index_candidates(NOARCH)[1], max_bytes=64)
        for path in ("", "simple/"):
            page = await upstream.peek(source, path, max_bytes=8192)
            if page.status == 200 and _is_python(page, path):
                return _wrong(source, "a Python index", "make a mirror of type python", MirrorType.PYTHON)
        if index.status == 200 and index.content_type in _HTML_TYPES:
            return _wrong(source, "a web page where the index should be", "look at the address in a browser")
    except FirthError:
        return None  # what the index said is the better answer
    return None


def _is_python(page: "client.Peek", path: str) -> bool:
    if page.content_type in _PYTHON_TYPES:
        return True
    if page.content_type not in _HTML_TYPES:
        return False
    # PEP 503 asks for anchors and nothing more; PEP 629 adds the version as <meta name="pypi:repository-version">.
    text = page.body.lower()
    return b"pypi:repository-version" in text or (path == "simple/" and b"<a " in text)


def _wrong(source: Source, found: str, hint: str, kind: MirrorType | None = None) -> Invalid:
    return Invalid(f"{_shown(source)} is not a conda channel: there is {found}", hint=hint, found=kind, path="source")


def _nothing(source: Source) -> Invalid:
    text = f"{_shown(source)} is not a conda channel: no subdir has a repodata.json.zst or repodata.json"
    return Invalid(text, hint=f"look at the address in a browser; {_UNCHECKED}", path="source")


def _refused(status: int, url: str, source: Source) -> Upstream:
    if status in {401, 403}:
        hint = "check the credentials" if source.credentials else "the source may want credentials"
    else:
        hint = "try again later"
    return Upstream(f"the source answered {status} for {url}", hint=hint, status=status, url=url)


def _shown(source: Source) -> str:
    return mask(source.url)
