"""The only place that tells which packages of channels an advisory names, and what is known of flaws in all."""

import asyncio
from collections.abc import Mapping, Sequence

import msgspec

from firth_protocol.errors import NotFound
from firth_protocol.methods import AdvisoryGet, AdvisorySummary
from firth_protocol.types import AdvisoryDatabase, AdvisoryInfo, AdvisoryTouch, Family
from firthd.clock import rfc3339
from firthd.families import load_policing
from firthd.families.base import Facts, FamilyRules
from firthd.mirrors.advisories import decoded, describe
from firthd.policies.advisories import Affected, Meaning
from firthd.store import advisories
from firthd.store.advisories import NamedPackage
from firthd.store.database import Database, Reader
from firthd.store.journal import Journal
from firthd.store.paging import Patterns

NAMES_MOST = 200
"""Names of one advisory that are looked for in channels; a few records of malice name thousands."""
BUILDS_MOST = 20_000
TOLD_MOST = 500


class Touched:
    """Answers out of what was imported and what channels offer."""

    def __init__(self, db: Database, journal: Journal, families: Mapping[Family, FamilyRules]) -> None:
        self._db = db
        self._journal = journal
        self._families = families

    async def summary(self) -> AdvisorySummary:
        """Return how many advisories are known, by database."""

        async def body(r: Reader) -> AdvisorySummary:
            found = [
                AdvisoryDatabase(
                    name=row.name,
                    advisories=row.advisories,
                    withdrawn=row.withdrawn,
                    modified=row.modified,
                    imported_at=rfc3339(row.imported_at),
                )
                for row in await advisories.by_database(r)
            ]
            return AdvisorySummary(databases=found, as_of=await self._journal.as_of(r))

        return await self._db.read(body)

    async def get(self, advisory: str, patterns: Patterns) -> AdvisoryGet:
        """Return an advisory with the packages that it names in the channels a caller sees; raise NotFound."""

        async def body(r: Reader) -> tuple[AdvisoryInfo, list[_Named], str]:
            row = (await advisories.by_ids(r, [advisory])).get(advisory)
            if row is None:
                raise NotFound(f"there is no advisory {advisory!r}", hint="`advisory.list` with `query` finds them")
            named: list[_Named] = []
            for affected in decoded(row).affected[:NAMES_MOST]:
                for package in await advisories.offered(r, affected.family, affected.name, patterns):
                    builds = await advisories.builds(r, package, affected.family, BUILDS_MOST)
                    policies = await advisories.policies_of(r, package.channel_id, affected.family)
                    named.append(_Named(affected=affected, package=package, builds=builds, policies=policies))
            return describe(row), named, await self._journal.as_of(r)

        told, named, as_of = await self._db.read(body)
        touches = await asyncio.to_thread(self._touches, named)
        touches.sort(key=lambda one: (-one.affected, one.channel, one.family, one.package))
        return AdvisoryGet(
            **msgspec.structs.asdict(told), touches=touches[:TOLD_MOST], touches_total=len(touches), as_of=as_of
        )

    def _touches(self, named: Sequence["_Named"]) -> list[AdvisoryTouch]:
        """Return a line for each package: one that an advisory names twice is told once, with what any means."""
        found: dict[tuple[str, str, str], AdvisoryTouch] = {}
        meanings: dict[str, Meaning] = {}
        meant: dict[tuple[str, str, str], set[tuple[str, str]]] = {}
        for one in named:
            family, package = one.affected.family, one.package
            rules = self._families.get(Family(family))
            if rules is None or rules.policing is None:
                continue
            meaning = meanings.setdefault(family, Meaning(load_policing(rules.policing)))
            key = (package.channel, family, package.name)
            builds = meant.setdefault(key, set())
            for version, build, _ in one.builds:
                if meaning.affects(one.affected, _facts(package.name, version, build)):
                    builds.add((version, build))
            found[key] = AdvisoryTouch(
                channel=package.channel,
                family=Family(family),
                package=package.name,
                version=package.version,
                files=package.files,
                affected=sum(files for version, build, files in one.builds if (version, build) in builds),
                policies=one.policies,
            )
        return list(found.values())


class _Named(msgspec.Struct, frozen=True, kw_only=True):
    affected: Affected
    package: NamedPackage
    builds: list[tuple[str, str, int]]
    policies: list[str]


def _facts(name: str, version: str, build: str) -> Facts:
    """Return as much of a record as decides whether an advisory means it."""
    number = build.rpartition("_")[2]
    return Facts(
        name=name,
        version=version,
        build=build,
        build_number=int(number) if number.isascii() and number.isdecimal() and len(number) < 10 else 0,
        part="",
        license=None,
        timestamp=None,
        size=None,
        sha256=None,
        md5=None,
        depends=[],
    )
