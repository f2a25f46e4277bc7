"""The only place that reads what pages for people show of channels and packages, a little at a time."""

import asyncio
import contextlib
import re
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Protocol, TypeVar

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from firth_protocol.errors import Unavailable
from firth_protocol.types import Family, Filters, MirrorMode
from firthd.channels.browse import spelled
from firthd.channels.needs import Needs
from firthd.channels.published import View
from firthd.families import load_formats
from firthd.families.addresses import PageAt
from firthd.families.base import FamilyRules
from firthd.store import generations, showcase
from firthd.store.database import Database, Reader
from firthd.store.made_pages import MadePage
from firthd.store.showcase import (
    ListedPackageRow,
    ReadPageRow,
    ShownFileRow,
    SnapshotRow,
    VersionRow,
)

T = TypeVar("T")

PACKAGES_ON_A_PAGE = 50
COUNTED_UP_TO = 1000
"""Packages found by a text in a channel that are counted; beyond, there are just more."""
MATCHES = 2_000
"""Rows with a text in their name that are kept in memory for the pages of one search."""
FOUND_EACH = 8
"""Packages of one channel, family and spelling that a search over all channels brings."""
FOUND = 60
VERSIONS = 2_000
FILES = 100
"""Of one version that a package's page lists."""
FILES_EVER = 50_000
SNAPSHOTS = 200
REMEMBERED = 128
PATIENCE_S = 10.0
"""Seconds that somebody waits for a turn: who would wait longer is asked to come again."""
ANY_PART = "a"
"""A part that a family can have, whatever it is called."""

_name = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*").match


Matches = dict[str, list[tuple[str, int]]] | None
"""Family -> name and generation of what a search found."""


class Pages(Protocol):
    """Pages of lazy parts."""

    async def page(
        self, channel_id: int, family: Family, at: PageAt, as_of_ms: int | None, client: str, /
    ) -> MadePage | None: ...


Takes = Callable[[int, str, Filters], Filters]
"""A mirror's id, its family, its filters -> what it takes; a policy may say which packages."""


class FamilyShown(Struct, frozen=True, kw_only=True):
    """What a channel has of one family; `whole`: mirrors of whole sources, whose pages come when they are asked for."""

    family: Family
    packages: int
    files: int
    bytes: int
    whole: tuple[int, ...] = ()


class ChannelShown(Struct, frozen=True, kw_only=True):
    """What is said of a channel; `frozen_at_ms` None: it is not frozen."""

    description: str
    frozen_at_ms: int | None
    families: list[FamilyShown]

    @property
    def packages(self) -> int:
        return sum(family.packages for family in self.families)

    @property
    def bytes(self) -> int:
        return sum(family.bytes for family in self.families)


class Found(Struct, frozen=True, kw_only=True):
    """A package that a search over channels found, in one of them."""

    channel_id: int
    family: Family
    name: str
    version: str
    files: int


class Wanted(Struct, frozen=True, kw_only=True):
    """Which packages of a family, in which order, from which place of it on; `back`: those before the place."""

    family: Family
    query: str = ""
    order: str = "name"
    descending: bool = False
    place: tuple[int | str, str] | None = None
    back: bool = False


class Listing(Struct, frozen=True, kw_only=True):
    """A page of packages; `total` None: more were found than are counted. The places lead to the pages beside it."""

    packages: list[ListedPackageRow]
    total: int | None
    before: tuple[int | str, str] | None = None
    after: tuple[int | str, str] | None = None


class ReadListing(Struct, frozen=True, kw_only=True):
    """Some of the lazy parts that somebody has asked for; `after`: the name after which there are more."""

    parts: list[ReadPageRow]
    after: str | None = None


class Dependency(Struct, frozen=True):
    """What a package needs: as its record says it, and the package of this channel that it names, if it has that."""

    text: str
    name: str | None


class PackageShown(Struct, frozen=True, kw_only=True):
    """One version of a package. `depends` None: nothing that is stored says what it needs."""

    family: Family
    name: str
    version: str
    versions: list[VersionRow]  # newest first
    files: list[ShownFileRow]  # the first of the version
    platforms: list[str]  # of each of these files
    depends: list[Dependency] | None

    @property
    def files_of_version(self) -> int:
        return next((one.files for one in self.versions if one.version == self.version), len(self.files))

    @property
    def licenses(self) -> list[str]:
        return list(dict.fromkeys(one.license for one in self.files if one.license))


class Showcase:
    """Reads for people, one after the other: however many look at pages, installations have readers left."""

    def __init__(
        self,
        db: Database,
        families: Mapping[Family, FamilyRules],
        needs: Needs,
        pages: Pages,
        patience_s: float = PATIENCE_S,
        takes: Takes = lambda mirror_id, family, filters: filters,
    ) -> None:
        self._db = db
        self._families = families
        self._needs = needs
        self._pages = pages
        self._takes = takes
        self._turn = asyncio.Semaphore(1)
        self._patience_s = patience_s
        self._found: OrderedDict[tuple[int, int, str], Matches] = OrderedDict()
        self._listings: OrderedDict[tuple[int, int, Wanted], Listing] = OrderedDict()

    async def channels(self, views: Sequence[View]) -> dict[int, ChannelShown]:
        """Return what is said of channels, by id; one that has just gone is absent."""
        ids = [view.channel_id for view in views]

        async def body(r: Reader) -> dict[int, ChannelShown]:
            rows, mirrors = await showcase.channels(r, ids), await showcase.mirrors(r, ids)
            totals: dict[int, dict[str, tuple[int, int, int]]] = {row.channel_id: {} for row in rows}
            for row in rows:
                if row.family is not None:
                    totals[row.channel_id][row.family] = (row.packages, row.artifacts, row.bytes)
            return {
                row.channel_id: ChannelShown(
                    description=row.description,
                    frozen_at_ms=row.frozen_at,
                    families=self._shown(
                        totals[row.channel_id], [one for one in mirrors if one.channel_id == row.channel_id]
                    ),
                )
                for row in rows
            }

        return await self._read(body)

    async def channel(self, view: View, number: int | None = None) -> ChannelShown | None:
        """Return what is said of a channel, with what generation `number` shows (None: the one in force)."""
        shown = (await self.channels([view])).get(view.channel_id)
        if shown is None or number is None:
            return shown
        rows = await self._read(lambda r: generations.generation_families(r, view.channel_id, number))
        totals = {row.family: row for row in rows if row.artifacts}
        whole = {one.family: one.whole for one in shown.families}
        families = []
        for family in self._families:
            row = totals.get(family)
            packages, files, size = (row.packages, row.artifacts, row.bytes) if row else (0, 0, 0)
            if row or whole.get(family):
                mirrors = whole.get(family, ())
                families.append(FamilyShown(family=family, packages=packages, files=files, bytes=size, whole=mirrors))
        return replace(shown, families=families)

    def _shown(
        self, totals: Mapping[str, tuple[int, int, int]], mirrors: Sequence[showcase.MirrorKindRow]
    ) -> list[FamilyShown]:
        """Return the families that a channel has a package or a mirror of."""
        shown = []
        for family, rules in self._families.items():
            of_family = [one for one in mirrors if one.family == family]
            packages, files, size = totals.get(family, (0, 0, 0))
            if files or of_family:
                whole = tuple(one.mirror_id for one in of_family if self._reads_lazily(rules, one))
                shown.append(FamilyShown(family=family, packages=packages, files=files, bytes=size, whole=whole))
        return shown

    async def snapshots(self, view: View) -> list[SnapshotRow]:
        """Return a channel's kept generations, the newest first."""
        return await self._read(lambda r: showcase.snapshots(r, view.channel_id, SNAPSHOTS))

    # --- packages of a channel

    async def find(self, views: Sequence[View], text: str) -> list[Found]:
        """Return packages of channels whose name is, or begins with, a text: exact ones first, then short names."""
        spellings = {text, text.lower(), text.upper(), text.capitalize()}
        exact = spellings | {spelled(rules, text) for rules in self._families.values()}
        numbers = {view.channel_id: view.generation for view in views}
        rows = await self._read(
            lambda r: showcase.named_or_begun(r, numbers, list(self._families), sorted(exact), FOUND_EACH)
        )
        found = {(row.channel_id, row.family, row.name): row for row in rows}
        best = sorted(found.values(), key=lambda row: (row.name not in exact, len(row.name), row.name, row.family))
        return [
            Found(
                channel_id=row.channel_id,
                family=Family(row.family),
                name=row.name,
                version=row.version,
                files=row.files,
            )
            for row in best[:FOUND]
        ]

    async def count(self, view: View, families: Sequence[Family], query: str) -> dict[Family, int]:
        """Return how many packages of each family a text is found in, up to one beyond `COUNTED_UP_TO`."""

        async def body(r: Reader) -> dict[Family, int]:
            found = await self._matches(r, view, query)
            if found is not None:
                return {family: min(len(found.get(family, ())), COUNTED_UP_TO + 1) for family in families}
            return {
                family: await showcase.count_found(
                    r, view.channel_id, view.generation, family, query, COUNTED_UP_TO + 1
                )
                for family in families
            }

        return await self._read(body)

    async def listing(self, view: View, wanted: Wanted, total: int) -> Listing:
        """Return a page of packages; `total` is what is known of how many there are."""
        key = (view.channel_id, view.generation, wanted)

        async def body(r: Reader) -> Listing:
            if key in self._listings:  # who waited before us has read it
                return self._listings[key]
            if wanted.query and (found := await self._matches(r, view, wanted.query)) is not None:
                rows = await _matching(r, view, wanted, found.get(wanted.family, []))
                return _listing(wanted, rows, None if total > COUNTED_UP_TO else total)
            rows = await showcase.packages(
                r,
                view.channel_id,
                view.generation,
                wanted.family,
                order=wanted.order,
                descending=wanted.descending is not wanted.back,
                query=wanted.query or None,
                beyond=wanted.place,
                limit=PACKAGES_ON_A_PAGE + 1,
            )
            return _listing(wanted, rows, None if wanted.query and total > COUNTED_UP_TO else total)

        remembered = self._listings.get(key)
        found = await self._read(body) if remembered is None else remembered
        self._listings[key] = found
        self._listings.move_to_end(key)
        if len(self._listings) > REMEMBERED:
            self._listings.popitem(last=False)
        return found

    async def _matches(self, r: Reader, view: View, query: str) -> Matches:
        """Return the places of all packages with a text in their name, by family; None: they are too many."""
        key = (view.channel_id, view.generation, query)
        if key not in self._found:
            self._found[key] = await showcase.matches(r, view.channel_id, view.generation, query, MATCHES)
            if len(self._found) > REMEMBERED:
                self._found.popitem(last=False)
        self._found.move_to_end(key)
        return self._found[key]

    async def read_parts(self, view: View, family: FamilyShown, query: str, after: str | None) -> ReadListing:
        """Return the parts of a whole source that somebody has asked for."""
        rows = await self._read(
            lambda r: showcase.pages_read(r, family.whole, query or None, view.as_of_ms, after, PACKAGES_ON_A_PAGE + 1)
        )
        more = len(rows) > PACKAGES_ON_A_PAGE
        rows = rows[:PACKAGES_ON_A_PAGE]
        return ReadListing(parts=rows, after=rows[-1].name if more else None)

    # --- a package

    async def package(
        self, view: View, family: Family, name: str, version: str | None, client: str
    ) -> PackageShown | None:
        """Return a version of a package (None: its newest), with the name as its family spells it; None: there is none.

        What stands on a page that nobody has asked for yet is read now, for `client`; raises what that raises.
        """
        rules = self._families[family]
        for own in dict.fromkeys((name, spelled(rules, name))):
            listed = await self._listed(view, rules, own, client)
            ever = None if listed is None else await self._ever(view, family, own, listed)
            versions = await self._versions(view, family, own) if ever is None else _versions_of(ever)
            if versions:
                break
        else:
            return None
        ordered = await asyncio.to_thread(rules.sort_versions, {one.version for one in versions})
        by_version = {one.version: one for one in versions}
        shown = ordered[0] if version is None else version
        if shown not in by_version:
            return None
        files = await self._files(view, family, own, shown, ever)
        depends = await self._depends(view, rules, own, shown, files)
        return PackageShown(
            family=family,
            name=own,
            version=shown,
            versions=[by_version[one] for one in ordered],
            files=files,
            platforms=await asyncio.to_thread(_platforms, rules, files),
            depends=depends,
        )

    async def _listed(self, view: View, rules: FamilyRules, name: str, client: str) -> frozenset[str] | None:
        """Return the file names that a lazy part's page shows; None: no mirror reads the part so, or none has it."""
        at = None if rules.lazy is None else rules.lazy.at(name)
        if rules.lazy is None or at is None:
            return None
        made = await self._pages.page(view.channel_id, rules.family, at, view.as_of_ms, client)
        return None if made is None else await asyncio.to_thread(rules.lazy.listed, await made.whole())

    async def _versions(self, view: View, family: Family, name: str) -> list[VersionRow]:
        return await self._read(lambda r: showcase.versions(r, view.channel_id, view.shows, family, name, VERSIONS))

    async def _ever(
        self, view: View, family: Family, name: str, listed: frozenset[str]
    ) -> Sequence[tuple[int, str, str, int]]:
        rows = await self._read(lambda r: showcase.files_ever(r, view.channel_id, family, name, FILES_EVER))
        return list({row[1]: row for row in rows if row[1] in listed}.values())

    async def _files(
        self,
        view: View,
        family: Family,
        name: str,
        version: str,
        ever: Sequence[tuple[int, str, str, int]] | None,
    ) -> list[ShownFileRow]:
        if ever is None:
            return await self._read(
                lambda r: showcase.files(r, view.channel_id, view.shows, family, name, version, FILES)
            )
        ids = [row_id for row_id, _, of_version, _ in ever if of_version == version][:FILES]
        return await self._read(lambda r: showcase.files_by_id(r, view.channel_id, ids))

    async def _depends(
        self, view: View, rules: FamilyRules, name: str, version: str, files: Sequence[ShownFileRow]
    ) -> list[Dependency] | None:
        if rules.needs is None:
            specs = await asyncio.to_thread(_needed, rules, files)
        else:
            told = await self._needs.of(view.channel, rules.family, name, version)
            if told is None:
                return None
            specs = list(dict.fromkeys(told))
        names = {spec: spelled(rules, found[0]) for spec in specs if (found := _name(spec)) is not None}
        known = await self._read(
            lambda r: showcase.known(
                r, view.channel_id, view.generation, rules.family, list(dict.fromkeys(names.values()))
            )
        )
        return [Dependency(spec, names[spec] if names.get(spec) in known else None) for spec in specs]

    def _reads_lazily(self, rules: FamilyRules, mirror: showcase.MirrorKindRow) -> bool:
        filters = self._takes(mirror.mirror_id, mirror.family, msgspec.json.decode(mirror.filters, type=Filters))
        return rules.lazy is not None and rules.lazy.is_lazy(ANY_PART, filters, MirrorMode(mirror.mode))

    # --- turns

    async def _read(self, body: Callable[[Reader], Awaitable[T]]) -> T:
        async with self._mine():
            return await self._db.read(body)

    @contextlib.asynccontextmanager
    async def _mine(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._patience_s):
                await self._turn.acquire()
        except TimeoutError:
            raise Unavailable("too many people look at pages in this moment", hint="try again in a moment") from None
        try:
            yield
        finally:
            self._turn.release()


async def _matching(r: Reader, view: View, wanted: Wanted, places: list[tuple[str, int]]) -> list[ListedPackageRow]:
    """Return as many of what a search found as a page needs to know."""
    up = wanted.descending is wanted.back
    by_time = wanted.order == showcase.UPDATED

    def place(one: tuple[str, int]) -> tuple[int | str, str]:
        return (one[1] if by_time else one[0]), one[0]

    # Code points sort as SQLite sorts their UTF-8.
    ordered = sorted(places, key=place, reverse=not up)
    beyond = wanted.place
    if beyond is not None:
        ordered = [one for one in ordered if (place(one) > beyond if up else place(one) < beyond)]
    return await showcase.packages_at(
        r, view.channel_id, view.generation, wanted.family, ordered[: PACKAGES_ON_A_PAGE + 1], PACKAGES_ON_A_PAGE + 1
    )


def _listing(wanted: Wanted, rows: list[ListedPackageRow], total: int | None) -> Listing:
    more = len(rows) > PACKAGES_ON_A_PAGE
    rows = rows[:PACKAGES_ON_A_PAGE]
    if wanted.back:
        rows = rows[::-1]
    if not rows:
        return Listing(packages=[], total=total)
    has_before, has_after = (more, True) if wanted.back else (wanted.place is not None, more)
    return Listing(
        packages=rows,
        total=total,
        before=showcase.place(wanted.order, rows[0]) if has_before else None,
        after=showcase.place(wanted.order, rows[-1]) if has_after else None,
    )


def _versions_of(ever: Sequence[tuple[int, str, str, int]]) -> list[VersionRow]:
    counts: dict[str, tuple[int, int]] = {}
    for _, _, version, size in ever:
        files, total = counts.get(version, (0, 0))
        counts[version] = (files + 1, total + size)
    return [VersionRow(version, *numbers) for version, numbers in counts.items()]


def _platforms(rules: FamilyRules, files: Sequence[ShownFileRow]) -> list[str]:
    formats = load_formats(rules.formats)
    return [formats.platform(file.part, file.filename) for file in files]


def _needed(rules: FamilyRules, files: Sequence[ShownFileRow]) -> list[str]:
    """Return what files need, each once; blocks for as long as reading their records takes."""
    specs: dict[str, None] = {}
    for file in files:
        with contextlib.suppress(ValueError):  # a record that an earlier release took and this one cannot read
            specs.update(dict.fromkeys(rules.facts(file.part, file.raw).depends))
    return list(specs)
