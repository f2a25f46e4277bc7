"""The only place that describes a channel to clients: itself, its generations, changes and packages."""

from collections.abc import Callable, Mapping, Sequence

from firth_protocol.errors import CursorExpired, Invalid, NotFound
from firth_protocol.methods import ChannelChanges, ChannelList
from firth_protocol.types import (
    ArtifactState,
    Change,
    Channel,
    Draft,
    Family,
    FamilyTotals,
    Generation,
    KeepGenerations,
    Package,
    PackageDetail,
    PackageFile,
    RunState,
)
from firthd.absent import no_channel
from firthd.clock import from_rfc3339, maybe_rfc3339, rfc3339
from firthd.families.base import FamilyRules
from firthd.store import artifacts, catalog, dropped, generations, paging, summaries, usage
from firthd.store.catalog import ChannelRow
from firthd.store.database import Reader
from firthd.store.generations import DRAFT, ChangeRow, ChangeSetRow, FamilyRow
from firthd.store.paging import Cut, Patterns

FILES_SHOWN = 1000
DIGITS = 18
"""Of a number in a cursor: it is a row's, which SQLite can hold."""
_WORST = [
    RunState.FAILED,
    RunState.INCOMPLETE,
    RunState.STOPPED,
    RunState.STOPPING,
    RunState.RUNNING,
    RunState.PENDING,
    RunState.COMPLETED,
]


async def channel(r: Reader, name: str) -> ChannelRow:
    """Return a channel's row; raise NotFound."""
    row = await catalog.channel_by_name(r, name)
    if row is None:
        raise no_channel(name)
    return row


async def describe(r: Reader, row: ChannelRow, patterns: Patterns) -> Channel:
    """Return a channel as a client sees it who may see the channels of `patterns`: its subchannels are cut to them."""
    current = await generations.generation(r, row.id, row.generation)
    families = await generations.generation_families(r, row.id, row.generation)
    numbers = await catalog.channel_numbers(r, row.id, patterns)
    draft = await generations.finished_change_sets(r, row.id)
    waiting = await _waiting(r, row, draft) if draft else (0, 0)
    stored = await catalog.stored_by_type(r, row.id)
    told = await told_families(r, row, families)
    return Channel(
        id=row.id,
        name=row.name,
        description=row.description,
        privacy=row.privacy,
        keep_generations=KeepGenerations(days=row.keep_days, months=row.keep_months),
        notices=row.notices,
        frozen=row.frozen_at is not None,
        frozen_at=maybe_rfc3339(row.frozen_at),
        frozen_by=row.frozen_by,
        generation=row.generation,
        published_at=maybe_rfc3339(current.time if current else None),
        families=[
            FamilyTotals(
                family=Family(one.family),
                artifacts=one.artifacts,
                packages=one.packages,
                bytes=one.bytes,
                stored=min(one.artifacts, stored.get(one.family, 0)),
            )
            for one in families
            if one.family in told
        ],
        mirrors=numbers.mirrors,
        worst_state=min(numbers.states, key=_WORST.index) if numbers.states else None,
        subchannels=numbers.subchannels,
        draft=Draft(
            change_sets=len(draft),
            added=waiting[0],
            removed=waiting[1],
        )
        if draft
        else None,
        created_at=rfc3339(row.created_at),
        updated_at=rfc3339(row.updated_at),
        revision=row.revision,
        policy=row.policy,
    )


async def told_families(r: Reader, row: ChannelRow, totals: Sequence[FamilyRow]) -> set[str]:
    """Return the families that a channel has: those with a mirror or a package, and the one that every channel has."""
    return {Family.CONDA, *await catalog.types_of(r, row.id), *(one.family for one in totals if one.artifacts)}


async def channels_page(r: Reader, params: ChannelList, patterns: Patterns) -> Cut[Channel]:
    """Return a page of the channels that a client may see who may see those of `patterns`."""
    rows, following, total = await catalog.channels_page(
        r, query=params.query, sort=params.sort, cursor=params.cursor, limit=params.limit, patterns=patterns
    )
    return Cut(items=[await describe(r, row, patterns) for row in rows], following=following, total=total)


async def _waiting(r: Reader, row: ChannelRow, draft: list[ChangeSetRow]) -> tuple[int, int]:
    """Count what a draft adds and removes for clients, beside all that has been published."""
    return await generations.count_changes(r, row.id, row.generation, DRAFT, [one.id for one in draft])


async def generations_page(r: Reader, name: str, cursor: str | None, limit: int) -> Cut[Generation]:
    """Return a page of a channel's generations, newest first."""
    row = await channel(r, name)
    page = paging.decode(cursor, "generations")
    found = await generations.generations(r, row.id, page["page_key"], limit + 1)
    shown, following = paging.cut("generations", found, limit, lambda one: (None, one.number))
    items = [
        Generation(
            number=one.number,
            time=rfc3339(one.time),
            cause=one.cause,
            run=one.run_id,
            added=one.added,
            removed=one.removed,
            artifacts=one.artifacts,
            bytes=one.bytes,
            digest=one.digest,
            shows=one.shows,
            current=one.number == row.generation,
            kept=one.kept,
        )
        for one in shown
    ]
    return Cut(items=items, following=following, total=await generations.count(r, row.id))


async def changes_page(r: Reader, params: ChannelChanges) -> Cut[Change]:
    """Return a page of what a generation added and closed, or all of them since a moment; of one package, or of all.

    Without either it is the draft's, else that of the newest generation. Raises Invalid for what is no moment.
    """
    row = await channel(r, params.channel)
    limit, key = params.limit, f"changes {params.generation} {params.since} {params.package}"
    low, high = await _since(r, row, params) if params.since is not None else await _span(r, row, params.generation)
    forward = high >= low
    low, high = sorted((low, high))
    page = paging.decode(params.cursor, key, str)
    phase, set_id, row_id = 0, 0, 0
    if page["page_key"] is not None:
        parts = page["page_key"].split(":")
        place = [int(part) for part in parts if part.isascii() and part.isdigit() and len(part) <= DIGITS]
        if len(place) != 3:
            raise CursorExpired("the cursor does not belong to this list", hint="start again without a cursor")
        phase, set_id, row_id = place
    found: list[ChangeRow] = []
    for came in (True, False)[phase:]:
        after = (set_id, row_id)
        wanted = limit + 1 - len(found)
        found += await generations.changes_page(
            r, row.id, low, high, came=came, after=after, limit=wanted, package=params.package
        )
        if len(found) > limit:
            break
        set_id, row_id = 0, 0
    shown, following = paging.cut(key, found, limit, lambda one: (None, f"{int(not one.came)}:{one.set_id}:{one.id}"))
    return Cut(items=[_change(one, added=one.came == forward) for one in shown], following=following)


async def _since(r: Reader, row: ChannelRow, params: ChannelChanges) -> tuple[int, int]:
    if params.generation is not None:
        raise Invalid("give `generation` or `since`", path="$.since")
    try:
        moment = from_rfc3339(params.since or "")
    except ValueError:
        raise Invalid("since is no time", hint="write it as 2026-05-01T00:00:00Z", path="$.since") from None
    before = await generations.last_until(r, row.id, moment, kept=False)
    if before is not None and not before.kept and before.number <= await dropped.forgotten_up_to(r, row.id):
        # What it showed is not known to the last file any more: the kept one before it is, and tells rather too much.
        before = await generations.last_until(r, row.id, moment, kept=True)
    if before is None and await generations.generation(r, row.id, 1) is None:
        raise NotFound(
            f"what {row.name} showed at {params.since} is no longer known: no generation of that time is kept",
            hint="`channel.generations` lists what is",
        )
    current = await generations.generation(r, row.id, row.generation)
    return (before.shows if before else 0), (current.shows if current else 0)


async def _span(r: Reader, row: ChannelRow, generation: int | None) -> tuple[int, int]:
    current = await generations.generation(r, row.id, row.generation)
    shows = current.shows if current else 0
    if generation is None:
        if await generations.finished_change_sets(r, row.id):
            return shows, DRAFT
        generation = row.generation
    target = await generations.generation(r, row.id, generation)
    if target is None:
        raise NotFound(f"{row.name} has no generation {generation}", hint="`channel.generations` lists them")
    before = await generations.generation(r, row.id, generation - 1)
    forgotten = not target.kept and generation <= await dropped.forgotten_up_to(r, row.id)
    if forgotten or (before is None and generation > 1):
        raise NotFound(
            f"what generation {generation} of {row.name} changed is no longer known: it was not kept",
            hint="`channel.generations` lists what is",
        )
    return (before.shows if before else 0), target.shows


def _change(row: ChangeRow, *, added: bool) -> Change:
    return Change(
        change="added" if added else "closed",
        family=Family(row.family),
        part=row.part,
        filename=row.filename,
        name=row.name,
        version=row.version,
        build=row.build,
        size=row.size,
        cause=row.reason,
        mirror=row.mirror,
        run=row.run_id,
    )


async def packages_page(
    r: Reader,
    name: str,
    *,
    family: Family | None,
    query: str | None,
    platform: str | None,
    state: ArtifactState | None,
    sort: str,
    cursor: str | None,
    limit: int,
    now_ms: int,
) -> Cut[Package]:
    """Return a page of the packages of the published generation."""
    row = await channel(r, name)
    current = await generations.generation(r, row.id, row.generation)
    by = paging.order(sort, summaries.PACKAGE_ORDERS)
    found, total = await summaries.packages_page(
        r,
        row.id,
        current.number if current else 0,
        family=family,
        query=query,
        platform=platform,
        stored=None if state is None else state is ArtifactState.STORED,
        descending=by.descending,
        order_sql=by.sql,
        page=paging.decode(cursor, sort, str),
        limit=limit + 1,
        since=now_ms // usage.DAY_MS - usage.LATELY_DAYS,
    )
    shown, following = paging.cut(sort, found, limit, lambda pair: (pair[1], f"{pair[0].family}/{pair[0].name}"))
    packages = [(one.family, one.name) for one, _ in shown]
    downloads = await usage.lately(r, row.id, packages, now_ms // usage.DAY_MS)
    items = [
        Package(
            family=Family(one.family),
            name=one.name,
            version=one.version,
            versions=one.versions,
            files=one.files,
            stored=min(one.stored, one.files),
            bytes=one.bytes,
            platforms=one.platforms,
            downloads=fetched,
        )
        for (one, _), fetched in zip(shown, downloads, strict=True)
    ]
    return Cut(items=items, following=following, total=total)


async def package(
    r: Reader,
    families: Mapping[Family, FamilyRules],
    name: str,
    family: Family,
    package_name: str,
    *,
    as_of: str,
    now_ms: int,
    url: Callable[[str, Family, str, str], str],
) -> PackageDetail:
    """Return one package of the published generation; raise NotFound.

    `url(channel, family, part, filename)` gives a file's address for clients.
    """
    row = await channel(r, name)
    current = await generations.generation(r, row.id, row.generation)
    number, shows = (current.number, current.shows) if current else (0, 0)
    rules = families.get(family)
    found = await artifacts.package_files(r, row.id, shows, family, package_name, FILES_SHOWN + 1)
    if not found and rules is not None and (other := spelled(rules, package_name)) != package_name:
        found = await artifacts.package_files(r, row.id, shows, family, other, FILES_SHOWN + 1)
        package_name = other if found else package_name
    if not found or rules is None:
        raise NotFound(
            f"{name} has no package {package_name!r}", hint="`package.list` with `query` finds names", channel=name
        )
    summary = await summaries.package_summary(r, row.id, number, family, package_name)
    mirrors = {mirror.id: mirror.name for mirror in await catalog.mirrors_of(r, row.id)}
    files, depends = [], dict[str, None]()
    for one in found[:FILES_SHOWN]:
        facts = rules.facts(one.file.part, one.raw)
        if summary is None or one.file.version == summary.version:
            depends.update(dict.fromkeys(facts.depends))
        files.append(
            PackageFile(
                part=one.file.part,
                filename=one.file.filename,
                version=one.file.version,
                build=one.build,
                size=one.file.size,
                sha256=one.file.sha256,
                md5=one.file.md5,
                license=one.license,
                timestamp=maybe_rfc3339(one.timestamp),
                state=ArtifactState.STORED if one.file.delivered else ArtifactState.ON_DEMAND,
                depends=facts.depends,
                mirror=mirrors.get(one.file.mirror_id),
                generation=one.generation or None,
                url=url(name, family, one.file.part, one.file.filename),
            )
        )
    dependants, dependants_total = await summaries.dependants(r, row.id, number, family, package_name, FILES_SHOWN)
    return PackageDetail(
        channel=name,
        family=family,
        name=package_name,
        version=summary.version if summary else files[-1].version,
        versions=rules.sort_versions({file.version for file in files}),
        files=files,
        files_total=max(len(files), summary.files if summary else 0),
        truncated=len(found) > FILES_SHOWN,
        dependencies=list(depends),
        dependants=dependants,
        dependants_total=dependants_total,
        downloads=(await usage.lately(r, row.id, [(family, package_name)], now_ms // usage.DAY_MS))[0],
        downloads_by_version=dict(await usage.by_version(r, row.id, family, package_name)),
        as_of=as_of,
    )


def spelled(rules: FamilyRules, name: str) -> str:
    """Return a package's name as its family spells it, for people write it otherwise."""
    try:
        return rules.requirement(name).name or name
    except Invalid:
        return name
