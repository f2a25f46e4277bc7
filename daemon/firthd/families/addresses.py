"""The only place that says what an address below a channel may name; a family turns paths into these."""

from collections.abc import Callable, Sequence
from enum import StrEnum

from msgspec import Struct

from firth_protocol.types import Notice


class Life(StrEnum):
    """How long clients may keep what an address gives."""

    SHORT = "short"  # an index: the next publication may change it
    HOUR = "hour"  # a file whose name may be given to other bytes one day
    FOREVER = "forever"  # the address holds the digest of its bytes


class ObjectAt(Struct, frozen=True, kw_only=True):
    """An address at which an object of an index is."""

    path: str  # of the object
    media_type: str
    life: Life = Life.SHORT
    also: str | None = None  # where the object may lie as well
    folder: bool = False  # the address ends in a slash: clients that leave it off are sent there
    vary: str | None = None  # the request's headers that choose between this object and others
    absent: Callable[[], bytes] | None = None  # makes what is served where there is none
    gzip: str | None = None  # path of the object that is this one gzipped: what clients get that accept it so


class ArtifactAt(Struct, frozen=True, kw_only=True):
    """An address at which a package's file is."""

    part: str
    filename: str
    media_type: str = "application/octet-stream"
    life: Life = Life.HOUR
    also: tuple[tuple[str, str], ...] = ()  # parts and file names that are looked for where it is not there


class PageAt(Struct, frozen=True, kw_only=True):
    """An address at which a part's page is, made when it is asked for if its mirror reads the part lazily."""

    part: str
    form: str  # which of the family's forms of a page
    media_type: str
    path: str | None = None  # of the object that shows the part where a run read it
    folder: bool = False  # as in `ObjectAt`
    vary: str | None = None
    gzip: str | None = None


class RedirectTo(Struct, frozen=True):
    """An address that has another spelling, relative to the channel's address."""

    path: str


class NoticesAt(Struct, frozen=True, kw_only=True):
    """An address at which clients ask what a channel tells its users; nothing is there when it tells nothing."""

    media_type: str
    make: Callable[[Sequence[Notice]], bytes]


Located = ObjectAt | ArtifactAt | PageAt | RedirectTo | NoticesAt


class SetUp(Struct, frozen=True):
    """What people type so that one client uses a channel."""

    client: str
    lines: str
