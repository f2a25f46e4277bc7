"""The only place that puts a mirror's row and its secrets together into the source that is asked."""

from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from msgspec import Struct

from firth_protocol.errors import Invalid, NotFound, Unavailable
from firth_protocol.types import Family, Filters, MirrorMode, MirrorType, OnUpstreamRemoval
from firthd.families.base import FamilyRules, FetchPlace
from firthd.mirrors.checks import host_of
from firthd.store import catalog, pages
from firthd.store.artifacts import FileRow, raw_record
from firthd.store.catalog import MirrorRow
from firthd.store.database import Database, Reader
from firthd.store.promises import Promise
from firthd.store.secrets import SecretFile
from firthd.upstream.client import Source, mask
from firthd.upstream.shape import RateLimit, parse_hours
from firthd.upstream.source import is_absolute, page_address

NO_MIRROR = -1
"""Stands for the mirror of a plan that was asked for before the mirror exists: it has no rows."""


class Job(Struct, frozen=True, kw_only=True):
    """What a run works on: a mirror as it stands, or the fields of one that may be created."""

    mirror_id: int
    channel_id: int
    channel: str
    name: str
    type: MirrorType
    mode: MirrorMode
    source: Source
    filters: Filters
    keep: bool
    near: tuple[Source, ...] = ()  # asked for files before the source
    mirrors_own: Filters | None = None  # where its policy says which packages `filters` name: those of the mirror

    @property
    def grows(self) -> bool:
        """Whether it takes what the packages that its policy names need, whatever that is."""
        return self.mirrors_own is not None

    @property
    def own(self) -> Filters:
        """The filters of the mirror itself."""
        return self.mirrors_own if self.mirrors_own is not None else self.filters

    def still_that_of(self, mirror: MirrorRow) -> bool:
        """Tell whether a run of the mirror as it is now would read and keep the same."""
        keep = mirror.on_upstream_removal is OnUpstreamRemoval.KEEP
        return (mirror.source, mirror.filters, keep) == (self.source.url, self.own, self.keep)


def rules_of(families: Mapping[Family, FamilyRules], type_: MirrorType) -> FamilyRules:
    """Return the rules of a mirror's family; raise Invalid for a type that this version does not serve."""
    rules = families.get(Family(type_.value))
    if rules is None:
        served = ", ".join(families)
        raise Invalid(
            f"mirrors of type {type_} are not yet served by this version", hint=f"served: {served}", path="$.type"
        )
    return rules


def source_of(mirror: MirrorRow, secrets: SecretFile, *, without: bool = False) -> Source:
    """Return the source of a mirror with its secrets.

    Raises Unavailable where the service manager does not give the daemon those that the mirror names; `without`: the
    source without them will do.
    """
    kept = secrets.get(mirror.id)
    # The row and its secrets are written one after the other: after a crash in between they may not belong together.
    theirs = mirror.has_credentials and kept.host in {"", host_of(mirror.source)}
    if theirs and kept.named and kept.credentials is None and not without:
        try:
            secrets.named(f"@{kept.named}")
        except Invalid as error:
            raise Unavailable(error.message, hint=error.hint) from None
    same_proxy = kept.proxy is not None and mask(kept.proxy) == mirror.proxy
    return Source(
        url=mirror.source,
        credentials=kept.credentials if theirs else None,
        proxy=kept.proxy if same_proxy else mirror.proxy,
        ca_file=mirror.ca_file,
        limit=RateLimit(who=mirror.id, bytes_s=mirror.max_rate, hours=parse_hours(mirror.max_rate_hours)),
        encoded=mirror.encoded,
    )


def near_of(mirror: MirrorRow) -> tuple[Source, ...]:
    """Return the places that are asked for files before a mirror's source; no secret of it goes there."""
    limit = RateLimit(who=mirror.id, bytes_s=mirror.max_rate, hours=parse_hours(mirror.max_rate_hours))
    return tuple(Source(url=url, ca_file=mirror.ca_file, limit=limit) for url in mirror.also_from)


def job_of(mirror: MirrorRow, secrets: SecretFile) -> Job:
    return Job(
        mirror_id=mirror.id,
        channel_id=mirror.channel_id,
        channel=mirror.channel,
        name=mirror.name,
        type=mirror.type,
        mode=mirror.mode,
        source=source_of(mirror, secrets),
        filters=mirror.filters,
        keep=mirror.on_upstream_removal is OnUpstreamRemoval.KEEP,
        near=near_of(mirror),
    )


def elsewhere(rules: FamilyRules, part: str, section: str, filename: str) -> str | None:
    """Return where a source may have a file that it has moved; None where its family moves none."""
    moved = rules.elsewhere(part, filename)
    return None if moved is None else rules.fetch_url(FetchPlace(part=moved[0], section=section, filename=moved[1]))


def near_path(rules: FamilyRules, place: FetchPlace) -> str | None:
    """Return where a copy of a source keeps a file: where the source does, wherever its index sends clients to.

    None for an address that is not below anything.
    """
    path = rules.fetch_url(FetchPlace(part=place.part, section=place.section, filename=place.filename, raw=place.raw))
    if is_absolute(path):
        path = urlsplit(path).path
    path = path.partition("#")[0].partition("?")[0]
    while path.startswith(("../", "./", "/")):
        path = path.partition("/")[2]
    return path or None


class Locator:
    """Says where a file that is not stored can be fetched."""

    def __init__(self, db: Database, secrets: SecretFile, families: Mapping[Family, FamilyRules]) -> None:
        self._db = db
        self._secrets = secrets
        self._families = families

    async def spelled(self, file: FileRow, encoded: bool) -> None:
        """Remember whether the file's source takes names with `+`, `!` and `~` percent-encoded."""
        await self._db.write(lambda tx: catalog.note_mirror(tx, file.mirror_id, {"encoded": int(encoded)}))

    async def promised(self, file: FileRow) -> Promise | None:
        """Return the digest that the source declares of a file, where it is neither sha256 nor md5."""
        if file.sha256 is not None:
            return None
        raw = await self._db.read(lambda r: raw_record(r, file.id))
        return None if raw is None else self._families[Family(file.family)].promised(raw)

    def elsewhere(self, file: FileRow) -> str | None:
        """Return where the source may have a file that it has moved since it was listed."""
        return elsewhere(self._families[Family(file.family)], file.part, file.section, file.filename)

    async def near(self, file: FileRow) -> tuple[Sequence[Source], str | None]:
        """Return the places that are asked for a file before its source, and the path below them."""
        rules = self._families[Family(file.family)]

        async def body(r: Reader) -> tuple[tuple[Source, ...], bytes | None]:
            mirror = await catalog.mirror_by_id(r, file.mirror_id)
            places = near_of(mirror) if mirror is not None else ()
            return places, await raw_record(r, file.id) if places and rules.needs_record(file.section) else None

        places, raw = await self._db.read(body)
        if not places:
            return (), None
        place = FetchPlace(part=file.part, section=file.section, filename=file.filename, raw=raw)
        try:
            return places, near_path(rules, place)
        except Invalid:
            return (), None

    async def locate(self, file: FileRow) -> tuple[Source, str]:
        """Return the source and the address of a file; raise NotFound when its mirror is gone."""
        rules = self._families[Family(file.family)]

        async def body(r: Reader) -> tuple[MirrorRow | None, tuple[str, str | None] | None, bytes | None]:
            mirror = await catalog.mirror_by_id(r, file.mirror_id)
            index = await catalog.source_index(r, file.mirror_id, file.part)
            place = await pages.newest_place(r, file.mirror_id, file.part) if index is None else None
            raw = await raw_record(r, file.id) if rules.needs_record(file.section) else None
            return mirror, place if index is None else (index.url_path, index.base_url), raw

        mirror, found, raw = await self._db.read(body)
        if mirror is None:
            raise NotFound(f"{file.filename} is not stored, and the mirror that offered it is gone")
        source = source_of(mirror, self._secrets)
        place = FetchPlace(
            part=file.part,
            section=file.section,
            filename=file.filename,
            base_url=None if found is None else found[1],
            page=None if found is None else page_address(source, found[0]),
            raw=raw,
        )
        return source, rules.fetch_url(place)
