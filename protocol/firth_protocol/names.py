"""The only place that knows the rule for channel names: they stand in addresses, and clients keep those for years."""

import re
from typing import NamedTuple

from firth_protocol.errors import Invalid

PART = r"[a-z][a-z0-9_-]{0,62}"
"""One level of a name, as a regular expression."""
RULE = "small letters, digits, - and _, beginning with a letter, 63 at most; a subchannel is parent/child"
RESERVED = frozenset({"t"})
"""What no level may be called whatever the families are: /t/TOKEN/ stands before any address."""
RESERVED_BELOW = frozenset({"simple", "cran", "packages", "shards", "snapshot", "label"})
"""What no subchannel may be called: clients ask for these below a channel."""

_PART = re.compile(PART)
_PATTERN = re.compile(rf"{PART}(/(\*|{PART}))?")


class ChannelName(NamedTuple):
    """A name taken apart; `parent` is None for a channel of the first level."""

    parent: str | None
    own: str


def check(name: str, reserved: frozenset[str] = frozenset()) -> ChannelName:
    """Return a new channel's name taken apart; raise Invalid, which says what is wrong with it.

    `reserved` are the names that a family's clients would misread, at both levels.
    """
    parent, slash, own = name.rpartition("/")
    for part in [parent, own] if slash else [own]:
        if not _PART.fullmatch(part):
            raise Invalid(f"{part!r} is no channel name", hint=RULE, path="$.name")
        if part in reserved or part in RESERVED:
            raise Invalid(f"{part!r} is reserved: clients would misread the address", path="$.name")
    if slash and own in RESERVED_BELOW:
        raise Invalid(f"{own!r} is reserved below a channel", path="$.name")
    return ChannelName(parent if slash else None, own)


def is_pattern(text: str) -> bool:
    """Tell whether a text can name channels in a grant or a token: `main`, `main/dev`, or `main/*` for the children."""
    return _PATTERN.fullmatch(text) is not None
