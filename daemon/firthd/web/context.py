"""What the web room is given to work with: the collaborators, and what it asks of each."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

from firth_protocol.types import Family, Notice, Privacy
from firthd.clock import Clock
from firthd.config import WebSettings
from firthd.families.addresses import PageAt
from firthd.families.base import FamilyRules
from firthd.mirrors.in_flight import InFlight
from firthd.store.artifacts import FileRow
from firthd.store.made_pages import MadePage
from firthd.store.objects import ObjectRow

if TYPE_CHECKING:
    from firthd.channels.published import View
    from firthd.channels.showcase import ChannelShown, FamilyShown, Found, Listing, PackageShown, ReadListing, Wanted
    from firthd.store.showcase import SnapshotRow
    from firthd.store.tokens import TokenRow


class Channels(Protocol):
    """What is published, in memory."""

    def current(self, channel: str, /) -> "View | None": ...
    def names(self) -> "Sequence[View]": ...
    async def at(self, channel: str, when: str, now_ms: int, /) -> "View":
        """Return the kept generation with that number, or the last of that UTC day (YYYY-MM-DD); raise NotFound."""

    async def object(self, view: "View", family: str, path: str, /) -> ObjectRow | None:
        """Return what a path shows in a view; one that holds its own hash is shown whatever the generation."""

    async def notices(self, view: "View", /) -> "Sequence[Notice]":
        """Return what a channel tells its users at the moment."""

    def free(self, channel: str, file: FileRow, /) -> bool:
        """Tell whether a file is known to be refused to nobody."""

    async def file(self, view: "View", family: str, part: str, filename: str, /) -> FileRow | None:
        """Return the file of a generation, or one in its grace period; raise Forbidden for one that is refused."""


class Store(Protocol):
    """Files under their sha256."""

    async def local(self, sha256: str, /) -> Path:
        """Return where a file is to be opened for reading; it may not be there."""


class Fetches(Protocol):
    """Passive fetches, one for each file however many clients ask."""

    def open(self, file: FileRow, client: str, /) -> AbstractAsyncContextManager[InFlight]: ...


class LazyPages(Protocol):
    """Pages of lazy parts, made when they are asked for."""

    async def page(
        self,
        channel_id: int,
        family: Family,
        at: PageAt,
        as_of_ms: int | None,
        client: str,
        /,
        *,
        gzipped: bool = False,
    ) -> MadePage | None:
        """Return a page as it was at a moment (None: now); None when no mirror that reads lazily has it."""


class Showcase(Protocol):
    """What pages for people show of channels and packages."""

    async def channels(self, views: "Sequence[View]", /) -> "Mapping[int, ChannelShown]": ...
    async def channel(self, view: "View", number: int | None = None, /) -> "ChannelShown | None": ...
    async def snapshots(self, view: "View", /) -> "Sequence[SnapshotRow]": ...
    async def find(self, views: "Sequence[View]", text: str, /) -> "Sequence[Found]": ...
    async def count(self, view: "View", families: Sequence[Family], query: str, /) -> Mapping[Family, int]: ...
    async def listing(self, view: "View", wanted: "Wanted", total: int, /) -> "Listing": ...
    async def read_parts(
        self, view: "View", family: "FamilyShown", query: str, after: str | None, /
    ) -> "ReadListing": ...

    async def package(
        self, view: "View", family: Family, name: str, version: str | None, client: str, /
    ) -> "PackageShown | None":
        """Return a version of a package (None: its newest), read now if it stands on a page nobody has asked for."""


class Tokens(Protocol):
    """The web tokens in force."""

    def check(self, secret: str, /) -> "TokenRow | None": ...
    def opens(self, token: "TokenRow | None", channel: str, privacy: Privacy, /) -> bool: ...
    def used(self, token_id: int, now_ms: int, /) -> None: ...


def _counted_nowhere(file: FileRow, token_id: int) -> None:
    pass


async def _told_nobody(*_: object) -> None:
    pass


class WebContext(Struct, frozen=True, kw_only=True):
    """Everything that the web application works with.

    `state` is the folder that nginx's internal location holds. `health` gives None, or a sentence that says why nothing
    can be served; `limited` one that says what cannot be done while all that is stored
    is served. `metrics` gives Prometheus text; what it is given tells which channels may be named. `package_lost` and
    `index_lost` (channel id, file) are told of files that are not what they should be, and have taken them out of
    service when they return. `downloaded` counts a file and the id of the token that asked for it, 0: none did;
    `asked` is told of each file that is asked for. `changes` rises with every change to the state; without it each
    request is worked out anew.
    """

    published: Channels
    blobs: Store
    rendered: Store
    on_demand: Fetches
    pages: LazyPages
    tokens: Tokens
    settings: WebSettings
    clock: Clock
    state: Path
    families: Mapping[Family, FamilyRules]
    showcase: Showcase
    health: Callable[[], str | None]
    metrics: Callable[[Callable[[str], bool]], Awaitable[bytes]]
    limited: Callable[[], str | None] = lambda: None
    package_lost: Callable[[FileRow], Awaitable[None]] = _told_nobody
    asked: Callable[[FileRow], None] = lambda _: None
    index_lost: Callable[[int, str], Awaitable[None]] = _told_nobody
    downloaded: Callable[[FileRow, int], None] = _counted_nowhere
    changes: Callable[[], int] | None = None
