"""The only place that lists packages of which policies leave nothing, behind those that a channel shows."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from itertools import islice

from msgspec import Struct

from firth_protocol.errors import CursorExpired
from firth_protocol.methods import PackageList
from firth_protocol.types import Family, Package
from firthd.channels import browse
from firthd.channels.policies import Policies
from firthd.store import catalog, generations, paging, summaries
from firthd.store.catalog import ChannelRow
from firthd.store.database import Reader
from firthd.store.excluded import Gone, Judgement
from firthd.store.paging import Cut
from firthd.store.policies import has_own

HIDDEN = "left out"
"""The list that a cursor belongs to which stands behind the last package that is shown."""
ALL = 1_000_000


async def packages_page(r: Reader, params: PackageList, policies: Policies, now_ms: int) -> Cut[Package]:
    """Return a page of a channel's packages: those that it shows, then those of which a policy leaves nothing.

    The latter have no platform and no state: who asks for one is not told of them. Raises NotFound.
    """
    row = await browse.channel(r, params.channel)
    hidden = params.left_out is not False and params.platform is None and params.state is None
    after = _place(params.cursor)
    shown = Cut[Package](items=[], total=0)
    if params.left_out is not True:
        shown = await browse.packages_page(
            r,
            params.channel,
            family=params.family,
            query=params.query,
            platform=params.platform,
            state=params.state,
            sort=params.sort,
            cursor=params.cursor if after is None else None,
            limit=params.limit if after is None else 1,
            now_ms=now_ms,
        )
    if not hidden:
        return shown if params.left_out is not True else Cut(items=[], total=0)
    sources = await _sources(r, row, policies, params.family)
    total = (shown.total or 0) + await asyncio.to_thread(lambda: sum(one.count(params.query) for one in sources))
    items = list(shown.items) if after is None else []
    if after is None and shown.following is not None:
        return Cut(items=items, following=shown.following, total=total)
    room, place = params.limit - len(items), after or ""
    found = await asyncio.to_thread(lambda: list(_following(sources, params.query, place, room + 1)))
    items += found[:room]
    following = None
    if len(found) > room:
        last = f"{found[room - 1].family}/{found[room - 1].name}" if room else place
        following = paging.encode(HIDDEN, None, last)
    return Cut(items=items, following=following, total=total)


def _place(cursor: str | None) -> str | None:
    """Return behind which hidden package a cursor stands; None: it stands among those that are shown."""
    if cursor is None:
        return None
    try:
        return str(paging.decode(cursor, HIDDEN, str)["page_key"])
    except CursorExpired:
        return None


class _Source(Struct, frozen=True):
    """What the policies of a channel leave nothing of, in one family. Its methods block."""

    family: Family
    judgements: Sequence[Judgement]
    shown: frozenset[str] | None  # names that the channel has from elsewhere; None: there is one mirror, and no other

    def count(self, query: str | None) -> int:
        if self.shown is None:
            return self.judgements[0].gone_names(query)
        return len(self._names(query))

    def after(self, query: str | None, name: str, limit: int) -> list[Gone]:
        """Return the next packages by name."""
        if self.shown is None:
            return self.judgements[0].gone(query=query, after=name, limit=limit)
        names = self._names(query)
        return [names[one] for one in sorted(names) if one > name][:limit]

    def _names(self, query: str | None) -> dict[str, Gone]:
        found: dict[str, Gone] = {}
        for judgement in self.judgements:
            for one in judgement.gone(query=query, after="", limit=ALL):
                if one.name not in (self.shown or ()):
                    found.setdefault(one.name, one)
        return found


async def _sources(r: Reader, row: ChannelRow, policies: Policies, family: Family | None) -> list[_Source]:
    judged: dict[Family, list[Judgement]] = defaultdict(list)
    for mirror_id, of in sorted(policies.judged(row.id)):
        if family is None or of == family:
            judged[Family(of)].append(policies.files.of(mirror_id))
    mirrors = await catalog.mirrors_of(r, row.id)
    own = await has_own(r, row.id)
    current = await generations.generation(r, row.id, row.generation)
    found = []
    for one, judgements in sorted(judged.items()):
        alone = not own and sum(mirror.type.value == one.value for mirror in mirrors) == 1
        number = current.number if current else 0
        names = None if alone else frozenset(await summaries.shown_names(r, row.id, number, one))
        found.append(_Source(one, judgements, names))
    return found


def _following(sources: Sequence[_Source], query: str | None, place: str, limit: int) -> list[Package]:
    """Return the packages behind a place, by family and name."""
    family, _, name = place.partition("/")
    found = [
        _package(source.family, one)
        for source in sources
        if source.family >= family
        for one in source.after(query, name if source.family == family else "", limit)
    ]
    return list(islice(found, limit))


def _package(family: Family, one: Gone) -> Package:
    return Package(
        family=family,
        name=one.name,
        version="",
        versions=0,
        files=0,
        stored=0,
        bytes=0,
        platforms=[],
        left_out=one.files,
        rule=one.rule,
        why=one.why,
    )
