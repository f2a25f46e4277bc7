"""The only place that says what a source's failure means: the words, the advice, and whether to try again."""

import email.utils
import re
from functools import lru_cache
from http import HTTPStatus

import aiohttp
from msgspec import Struct

from firth_protocol import units
from firth_protocol.errors import Upstream
from firthd.upstream.masking import Masker

_TRY_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504, 507, 509, 520, 521, 522, 523, 524})
_NOW_AND_THEN = "this is often temporary; the next run tries again"


class Passing(Upstream):
    """The same request may well succeed in a moment."""


class Unreachable(Passing):
    """No connection to the host: none of its files can be had, whichever is asked for."""


class Slow(Upstream):
    """The source sends, but too little to wait for."""


class Limit(Struct, frozen=True):
    """How many bytes are taken, and the setting that says so."""

    max_bytes: int
    setting: str = ""


class Failure(Exception):
    """One attempt failed: the error for people, and what a retry needs to know."""

    def __init__(self, error: Upstream, *, again: bool, retry_after_s: float | None = None) -> None:
        super().__init__(error.message)
        self.error = error
        self.again = again
        self.retry_after_s = retry_after_s


class Asked:
    """What was asked of whom, in words fit for people; makes the failures of one request."""

    def __init__(
        self, masker: Masker, url: str, host: str, *, sent_credentials: bool, left_origin: bool = False
    ) -> None:
        self._url = url
        self._host = host
        self._masker = masker
        self._sent_credentials = sent_credentials
        self._left_origin = left_origin

    @property
    def url(self) -> str:
        """The address, fit for people; made when it is told: most of what is asked is answered."""
        return self._masker.url(self._url)

    @property
    def host(self) -> str:
        return self._masker.foreign(self._host)

    def failure(
        self,
        text: str,
        hint: str = "",
        *,
        again: bool = False,
        status: int | None = None,
        after_s: float | None = None,
        kind: type[Upstream] | None = None,
    ) -> Failure:
        seconds = None if after_s is None else round(after_s)
        kind = kind or (Passing if again else Upstream)
        error = kind(text, hint=hint, status=status, host=self.host, url=self.url, retry_after_s=seconds)
        return Failure(error, again=again, retry_after_s=after_s)

    def refused(self, status: int, reason: str | None, *, retry_after_s: float | None = None) -> Failure:
        """Return the failure for a status that is not what was asked for."""
        said = self._masker.foreign(reason or "") or _phrase(status)
        text = f"{self.host} answered {status} {said} for {self.url}".replace("  ", " ")
        hint = self._hint(status)
        if retry_after_s is not None:
            text += f" and asks to wait {retry_after_s:.0f} s"
        return self.failure(text, hint, again=status in _TRY_AGAIN, status=status, after_s=retry_after_s)

    def held(self, seconds: float) -> Failure:
        """Return the failure for a host that asked us to stay away."""
        text = f"{self.host} asked us to wait; {seconds:.0f} s are left, so {self.url} was not asked for"
        return self.failure(text, _NOW_AND_THEN, after_s=seconds)

    def broken(self, error: BaseException, *, idle_s: float, received: int = 0, length: int | None = None) -> Failure:
        """Return the failure for an exception of the connection; its own text only where it holds no address."""
        if isinstance(error, aiohttp.ClientHttpProxyError):
            hint = "give the proxy's user and password in its address" if error.status == 407 else "look at the proxy"
            text = f"the proxy answered {error.status} when asked to connect to {self.host}"
            return self.failure(text, hint, again=error.status >= 500, status=error.status)
        if isinstance(error, aiohttp.ClientProxyConnectionError):
            text = f"the proxy cannot be reached on the way to {self.host}: {self._cause(error.os_error)}"
            return self.failure(text, "check the mirror's proxy", again=True, kind=Unreachable)
        if isinstance(error, aiohttp.ClientConnectorCertificateError):
            text = f"the certificate of {self.host} is not trusted: {self._cause(error.certificate_error)}"
            hint = "set ca_file to the PEM file of the authority that signed it"
            return self.failure(text, hint, kind=Unreachable)
        if isinstance(error, aiohttp.ClientSSLError):
            text = f"no encrypted connection to {self.host}: {self._cause(error)}"
            hint = "check the scheme, the port and whether something in between changes TLS"
            return self.failure(text, hint, kind=Unreachable)
        if isinstance(error, aiohttp.ClientConnectorDNSError):
            text = f"the name of {self.host} is not known here"
            return self.failure(text, "check the address and DNS", again=True, kind=Unreachable)
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            text = f"{self.host} did not take the connection in time"
            return self.failure(text, _NOW_AND_THEN, again=True, kind=Unreachable)
        if isinstance(error, TimeoutError):
            return self.failure(f"{self.host} sent nothing for {idle_s:g} s ({self.url})", _NOW_AND_THEN, again=True)
        if isinstance(error, aiohttp.ClientConnectorError):
            text = f"{self.host} cannot be reached: {self._cause(error.os_error)}"
            hint = "check the address, the network and whether a proxy is needed"
            return self.failure(text, hint, again=True, kind=Unreachable)
        if isinstance(error, aiohttp.InvalidURL):
            return self.failure(f"{self.url} is not an address that can be asked")
        if isinstance(error, aiohttp.ClientPayloadError | aiohttp.ServerDisconnectedError | OSError):
            return self.cut(received, length)
        text = f"{self.host} did not answer in HTTP ({type(error).__name__}) for {self.url}"
        return self.failure(text, "check the scheme and the port", again=True)

    def cut(self, received: int, length: int | None) -> Failure:
        """Return the failure for a transfer that ended early."""
        if not received and length is None:
            return self.failure(f"{self.host} closed the connection without an answer", _NOW_AND_THEN, again=True)
        whole = "an unknown number of" if length is None else f"{length:,}"
        text = f"the transfer of {self.url} broke off after {received:,} of {whole} bytes"
        return self.failure(text, _NOW_AND_THEN, again=True)

    def slow(self, received: int, length: int | None, *, bytes_s: float, window_s: float) -> Failure:
        """Return the failure for a transfer that is not worth its place."""
        whole = "" if length is None else f" of {length:,}"
        text = (
            f"{self.host} sent less than {units.rate(bytes_s)} for {window_s:.0f} s; {self.url} was given up after "
            f"{received:,}{whole} bytes"
        )
        return self.failure(text, _NOW_AND_THEN, again=True, kind=Slow)

    def too_late(self, received: int) -> Failure:
        """Return the failure for a file that is still coming when its time is over, whatever its rate."""
        text = f"only {received:,} bytes of {self.url} came in the time there is for it"
        return self.failure(text, "look at the source's speed, or raise upstream.index_deadline_s", kind=Slow)

    def too_large(self, size: int, limit: "Limit") -> Failure:
        text = f"{self.url} has {size:,} bytes or more; at most {limit.max_bytes:,} are taken"
        more = f"; if it is right, raise {limit.setting} in firth.toml" if limit.setting else ""
        return self.failure(text, f"this is not what was expected here; look at the source{more}")

    def _hint(self, status: int) -> str:
        if status in {401, 403} and self._left_origin:
            return (
                f"the source redirects to {self.host}; credentials go to the source's own host only: use that address"
            )
        if status == 401:
            return "check the mirror's credentials" if self._sent_credentials else "give the mirror credentials"
        if status == 403:
            return (
                "check the mirror's credentials and what they open"
                if self._sent_credentials
                else ("the source may want credentials, or refuses this address")
            )
        if status == 407:
            return "give the proxy's user and password in its address"
        if status == 429:
            return "the source wants fewer requests; the next run tries again"
        return _NOW_AND_THEN if status >= 500 else "look at the source's address"

    def _cause(self, error: BaseException) -> str:
        verify = getattr(error, "verify_message", "")  # ssl.SSLCertVerificationError
        strerror = getattr(error, "strerror", None)
        return self._masker.foreign(str(verify or strerror or error or type(error).__name__))


def retry_after_s(value: str | None, now_ms: int) -> float | None:
    """Return the seconds of a Retry-After header, which may be a date (RFC 9110, 10.2.3); None when senseless."""
    if value is None:
        return None
    value = value.strip()
    if re.fullmatch(r"[0-9]{1,9}", value):
        return float(value)
    moment_ms = http_date_ms(value)
    return None if moment_ms is None else max(0.0, (moment_ms - now_ms) / 1000)


@lru_cache(maxsize=32_768)  # a source of many parts has a date for each, all of which every run looks at
def http_date_ms(value: str | None) -> int | None:
    """Return an HTTP date as milliseconds since the epoch, None when it is not one."""
    try:
        return round(email.utils.parsedate_to_datetime(value or "").timestamp() * 1000)
    except (ValueError, TypeError, OverflowError):
        return None


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""
