"""The only place that finds objects by name: channels, mirrors, packages, runs, policies. Opening changes nothing."""

from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any, Protocol, TypeVar

from msgspec import Struct

from firth_protocol.errors import FirthError
from firth_protocol.types import AdvisoryInfo, Channel, Mirror, Package, Page, Policy, Run
from firth_tui.actions import Place, Target
from firth_tui.format import counted, family_name, kind_name
from firth_tui.policy_rules import where_used

T = TypeVar("T")

MOST_EACH = 6
"""How many objects of a kind are offered."""
MOST_CHANNELS = 12
"""In how many channels packages are looked for."""
ADVISORY_CELLS = 4
"""How much must be typed before advisories are looked for: there may be hundreds of thousands."""
EXACT, BEGINS, HAS = 1000.0, 300.0, 100.0
"""How high an object stands, above all actions, by how its name fits."""


class Found(Struct, frozen=True):
    """An object and the place that shows it."""

    score: float
    title: str
    help: str
    target: Target


class Pages(Protocol):
    """What a search needs of the link."""

    async def page(self, kind: type[T], method: str, /, **params: Any) -> Page[T]: ...


def score(name: str, query: str) -> float:
    """Return how high an object stands: one whose name is what was typed above all."""
    name, query = name.casefold(), query.casefold()
    return EXACT if name == query else BEGINS if name.startswith(query) else HAS


async def found(link: Pages, query: str, channel: str = "") -> AsyncIterator[Found]:
    """Yield what is called like `query`, packages of `channel` first; what cannot be read is left out."""
    query = query.strip()
    if not query:
        return
    for search in (_channels, _mirrors, _runs, _policies):
        try:
            for each in await search(link, query):
                yield each
        except (FirthError, OSError):
            continue
    with suppress(FirthError, OSError):
        for name in dict.fromkeys([*([channel] if channel else []), *await _with_packages(link)]):
            for each in await _packages(link, query, name):
                yield each
    with suppress(FirthError, OSError):
        for each in await _advisories(link, query):
            yield each


async def _channels(link: Pages, query: str) -> list[Found]:
    page = await link.page(Channel, "channel.list", query=query, limit=MOST_EACH)
    return [
        Found(
            score(each.name, query),
            f"channel {each.name}",
            each.description or counted(each.mirrors, "mirror"),
            Target(place=Place.PACKAGES, channel=each.name),
        )
        for each in page.items
    ]


async def _mirrors(link: Pages, query: str) -> list[Found]:
    page = await link.page(Mirror, "mirror.list", query=query, limit=MOST_EACH)
    return [
        Found(
            score(each.name, query) - 1,
            f"mirror {each.channel}: {each.name}",
            f"{each.state}, {each.source}",
            Target(place=Place.MIRROR, number=each.id),
        )
        for each in page.items
    ]


async def _policies(link: Pages, query: str) -> list[Found]:
    page = await link.page(Policy, "policy.list", query=query, limit=MOST_EACH)
    return [
        Found(
            score(each.name, query) - 1,
            f"policy {each.name}",
            f"in force {where_used(each)}: {' '.join(each.summary)}",
            Target(place=Place.POLICY, name=each.name),
        )
        for each in page.items
    ]


async def _advisories(link: Pages, query: str) -> list[Found]:
    if len(query) < ADVISORY_CELLS:
        return []
    page = await link.page(AdvisoryInfo, "advisory.list", query=query, limit=MOST_EACH)
    return [
        Found(
            score(each.id, query) - 4,
            f"advisory {each.id}",
            f"{', '.join(each.packages[:MOST_EACH])}: {each.summary}",
            Target(place=Place.ADVISORY, name=each.id),
        )
        for each in page.items
    ]


async def _runs(link: Pages, query: str) -> list[Found]:
    number = query.casefold().removeprefix("run").strip()
    if not number.isdecimal() or len(number) > 18:
        return []
    page = await link.page(Run, "run.list", limit=500)
    return [
        Found(EXACT - 2, f"run {each.id}", f"{kind_name(each.kind)}, {each.state}", _run(each.id))
        for each in page.items
        if each.id == int(number)
    ]


def _run(number: int) -> Target:
    return Target(place=Place.RUN, number=number)


async def _with_packages(link: Pages) -> list[str]:
    page = await link.page(Channel, "channel.list", limit=100)
    full = [each for each in page.items if any(family.packages for family in each.families)]
    return [each.name for each in full[:MOST_CHANNELS]]


async def _packages(link: Pages, query: str, channel: str) -> list[Found]:
    page = await link.page(Package, "package.list", channel=channel, query=query, limit=MOST_EACH)
    return [
        Found(
            score(each.name, query) - 3,
            f"package {each.name} in {channel}",
            f"{family_name(each.family)}, {f'kept out: {each.why}' if each.left_out else f'newest {each.version}'}",
            Target(place=Place.EXPLAIN if each.left_out else Place.PACKAGE, channel=channel, package=each),
        )
        for each in page.items
    ]
