"""The only place that hides secrets in addresses and in what sources say."""

import re
from urllib.parse import quote, quote_plus, urlsplit, urlunsplit

TOKEN_PLACE = "{token}"
"""Stands in a stored source where its token belongs."""

HIDDEN = "***"

_TOKEN_IN_PATH = re.compile(r"(?<=/t/)(?!\{token\}(?:/|$))[^/]+")
_NOT_PRINTABLE = re.compile(r"[^\x20-\x7e\u00a1-\u1fff]+")
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>]+")
_FOREIGN_TEXT_LIMIT = 200
_NO_WORD_LENGTH = 12
_USER = re.compile(rb"((?:^|[:\"'\s=(])//)[^/?#\s\"<>]*@")
_AT = (b"@", rb"\u0040", b"&#64;", b"&#x40;", b"&commat;")
_USER_AS_SENT = re.compile(
    rb"((?:^|[:\"'\s=(])(?:\\?/|\\u002f|&#47;|&#x2f;){2})"
    rb"((?:[^/?#\s\"<>\\&]|\\u00(?!2f)[0-9a-f]{2}|&(?!#47;|#x2f;))+)"
    rb"(?=" + b"|".join(map(re.escape, _AT)) + rb")",
    re.IGNORECASE,
)
"""As in `_USER`, however JSON or HTML escape it."""
_STRETCH = 1 << 17
"""Bytes that are searched in one go: a search holds the interpreter's lock, and with it the event loop."""
_BORDERS = (b'"', b" ", b"\n", b">")


def mask(url: str) -> str:
    """Return an address fit for people and logs.

    User and password, what stands after `/t/`, and the values of a query (signed redirects carry secrets there)
    become `***`; a fragment is dropped. An address that cannot be taken apart becomes `***` as a whole.
    """
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        return HIDDEN
    if "@" in parts.path and not parts.netloc:
        return HIDDEN  # "user:password@host/path" without a scheme: nothing in it can be trusted to be harmless
    netloc = f"{HIDDEN}@{host}" if "@" in parts.netloc else host
    path = _TOKEN_IN_PATH.sub(HIDDEN, parts.path)
    return printable(urlunsplit((parts.scheme, netloc, path, HIDDEN if parts.query else "", "")))


def printable(text: str) -> str:
    """Return the text with control characters and what terminals could act on replaced by `?`."""
    return _NOT_PRINTABLE.sub("?", text)


def holds_user(address: str) -> bool:
    """Tell whether an address holds a user or a password."""
    return "@" in address and _USER.search(address.encode("utf-8", "replace")) is not None


def without_users(text: bytes) -> bytes:
    """Return a text without the users and passwords of the addresses in it: whose they are, no client should hear."""
    return _USER.sub(rb"\1", text) if b"@" in text else text


def starred(text: bytes) -> bytes:
    """Return JSON or HTML as it was sent, with a star for each letter of a user or a password in an address.

    It is as long as before: what is said of its size stays true.
    """
    if not _may_hold_users(text):
        return text
    made, start = [], 0
    while start < len(text):
        end = start + _STRETCH
        if end < len(text):  # where no address goes on; what has none of these for so long is no address
            end = max(text.rfind(mark, start + 1, end) for mark in _BORDERS)
            end = end if end > 0 else start + _STRETCH
        stretch = text[start:end]
        if _may_hold_users(stretch):
            stretch = _USER_AS_SENT.sub(lambda found: found[1] + b"*" * len(found[2]), stretch)
        made.append(stretch)
        start = end
    return b"".join(made)


def _may_hold_users(text: bytes) -> bool:
    # Looked for letter by letter first: in forty megabytes that is ten times as fast as for words.
    return b"@" in text or any(mark in text and any(at in text for at in _AT) for mark in (b"\\", b"&"))


def _pattern(secret: str) -> str:
    if len(secret) >= _NO_WORD_LENGTH and not secret.isalpha():
        return re.escape(secret)
    # What is percent-encoded ends in letters or digits too, and is a border all the same.
    return rf"(?:(?<![A-Za-z0-9])|(?<=%[0-9A-Fa-f][0-9A-Fa-f])){re.escape(secret)}(?![A-Za-z0-9])"


class Masker:
    """Hides one source's secrets in any text, however a server may have quoted them.

    A secret that may be an ordinary word (letters alone, or short) is hidden where it stands as a word: the password
    `conda` must not make `miniconda` unreadable. Any other is hidden wherever it stands.
    """

    def __init__(self, secrets: tuple[str, ...]) -> None:
        spellings: set[str] = set()
        for secret in secrets:
            spellings |= {secret, quote(secret, safe=""), quote(secret), quote_plus(secret)}
        spellings.discard("")
        # The longest first: a secret may be the beginning of another.
        parts = "|".join(_pattern(text) for text in sorted(spellings, key=lambda text: (-len(text), text)))
        self._secrets = re.compile(parts, re.IGNORECASE) if parts else None

    def hide(self, text: str) -> str:
        """Return the text with each secret replaced by `***`."""
        return self._secrets.sub(HIDDEN, text) if self._secrets else text

    def url(self, url: str) -> str:
        """Return an address of this source, or one that it named, fit for people."""
        scheme, separator, rest = url.partition("://")
        return mask(f"{scheme}{separator}{self.hide(rest)}" if separator else self.hide(url))

    def foreign(self, text: str) -> str:
        """Return what a server or a library said: one printable line of at most 200 characters without secrets."""
        text = _ADDRESS.sub(lambda found: self.url(found.group()), text)
        return printable(self.hide(text)).strip()[:_FOREIGN_TEXT_LIMIT]
