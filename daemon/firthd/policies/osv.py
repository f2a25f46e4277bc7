"""The only place that reads advisories: those of OSV (schema 1.7), and our own for families that OSV does not know."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from cvss import CVSS2, CVSS3, CVSS4  # type: ignore[import-untyped]
from cvss.exceptions import CVSSError  # type: ignore[import-untyped]
from msgspec import Struct

from firth_protocol.errors import Invalid
from firth_protocol.types import AdvisoryStatus, Family
from firthd.families.policing import Policing
from firthd.policies.advisories import Advisory, Affected, VersionEvent

MALICIOUS = "MAL-"
STAGING = "MAL-0000-"
"""Ids of records that have no number yet: another record will come in their place."""
TEXT_MAX = 2000
RANGES = frozenset({"ECOSYSTEM", "SEMVER"})
NEVER_BOTH = frozenset({"fixed", "last_affected"})


class Skipped(Struct, frozen=True):
    """A document that is no advisory for any family, and why."""

    why: str


class _Package(Struct):
    ecosystem: str = ""
    name: str = ""


class _Range(Struct):
    type: str = ""
    events: list[dict[str, str]] = []


class _Affected(Struct):
    package: _Package | None = None
    ranges: list[_Range] = []
    versions: list[str] = []
    severity: list[dict[str, Any]] | None = None


class _Osv(Struct):
    id: str
    modified: str = ""
    withdrawn: str | None = None
    aliases: list[str] | None = None
    summary: str | None = None
    details: str | None = None
    severity: list[dict[str, Any]] | None = None
    affected: list[_Affected] | None = None


class OwnAdvisory(Struct, forbid_unknown_fields=True):
    """A line of our own format: a spec of a family, in its words."""

    id: str
    name: str
    spec: str
    family: Family = Family.CONDA
    score: float | None = None
    status: AdvisoryStatus = AdvisoryStatus.REPORTED
    summary: str = ""
    aliases: list[str] = []
    modified: str = ""
    withdrawn: bool = False


_decode_osv = msgspec.json.Decoder(_Osv).decode
_decode_own = msgspec.json.Decoder(OwnAdvisory).decode


def advisories_of(document: bytes, ecosystems: Mapping[str, Policing]) -> Advisory | Skipped:
    """Return the advisory that an OSV document is, cut to the families whose ecosystems are given."""
    try:
        osv = _decode_osv(document)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        return Skipped(f"it is no OSV record: {str(error)[:200]}")
    if osv.id.startswith(STAGING) or not osv.id:
        return Skipped("its id is not a lasting one")
    affected = [found for one in osv.affected or [] if (found := _affected(one, ecosystems)) is not None]
    if not affected:
        return Skipped("it names no package of a family that is served")
    severities = [*(osv.severity or []), *(one for part in osv.affected or [] for one in part.severity or [])]
    return Advisory(
        id=osv.id[:200],
        aliases=[alias[:200] for alias in osv.aliases or []],
        modified=osv.modified[:40],
        withdrawn=osv.withdrawn is not None,
        summary=(osv.summary or osv.details or "")[:TEXT_MAX],
        score=score(severities),
        malicious=osv.id.startswith(MALICIOUS),
        affected=affected,
    )


def own_advisory(line: bytes, policings: Mapping[Family, Policing]) -> Advisory | Skipped:
    """Return the advisory that a line of our own format is."""
    try:
        own = _decode_own(line)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        return Skipped(f"the line is no advisory: {str(error)[:200]}")
    policing = policings.get(own.family)
    if policing is None:
        return Skipped(f"packages of family {own.family} are not judged")
    try:
        need = policing.requirement(own.spec)
    except Invalid as error:
        return Skipped(error.message)
    name = policing.name_key(own.name)
    if need.name is None or policing.name_key(need.name) != name:
        return Skipped(f"the spec `{own.spec[:100]}` is not about {own.name[:100]}")
    if own.score is not None and not 0 <= own.score <= 10:
        return Skipped("a score lies between 0 and 10")
    return Advisory(
        id=own.id[:200],
        aliases=own.aliases,
        modified=own.modified,
        withdrawn=own.withdrawn,
        summary=own.summary[:TEXT_MAX],
        score=own.score,
        malicious=own.id.startswith(MALICIOUS),
        affected=[Affected(family=own.family, name=name, spec=own.spec)],
        status=own.status,
    )


def _affected(one: _Affected, ecosystems: Mapping[str, Policing]) -> Affected | None:
    policing = ecosystems.get(one.package.ecosystem) if one.package is not None else None
    if one.package is None or policing is None or not one.package.name:
        return None
    ranges = [events for range_ in one.ranges if range_.type in RANGES and (events := _events(range_.events))]
    return Affected(
        family=policing.family, name=policing.name_key(one.package.name), ranges=ranges, versions=one.versions
    )


def _events(events: Sequence[Mapping[str, str]]) -> list[VersionEvent]:
    """Return a range's events; none where the schema refuses them: a guess would be worth nothing."""
    kinds = {kind for event in events for kind in event}
    known = kinds <= {"introduced", "fixed", "last_affected", "limit"}
    if not known or "introduced" not in kinds or kinds >= NEVER_BOTH or any(len(event) != 1 for event in events):
        return []
    return [VersionEvent(**event) for event in events]


def score(severities: Sequence[Mapping[str, Any]]) -> float | None:
    """Return the highest base score of the vectors of CVSS 4 and 3, else of 2; None where there is none."""
    newer = [found for one in severities if (found := _base(one, {"CVSS_V4": CVSS4, "CVSS_V3": CVSS3})) is not None]
    older = [found for one in severities if (found := _base(one, {"CVSS_V2": CVSS2})) is not None]
    return max(newer or older, default=None)


def _base(severity: Mapping[str, Any], kinds: Mapping[str, Any]) -> float | None:
    kind, vector = kinds.get(severity.get("type", "")), severity.get("score")
    if kind is None or not isinstance(vector, str):
        return None
    try:
        return float(kind(vector).base_score)
    except (CVSSError, AttributeError, ValueError, KeyError):
        return None
