"""Decides, purely, which advisories speak against a record, by a policy's rule about known flaws."""

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec
from msgspec import Struct

from firth_protocol.types import AdvisoryStatus, Comparison, CveRule, Verdicts
from firthd.families.base import Comparable, Facts
from firthd.families.policing import Need, Policing
from firthd.policies.judge import Verdict

MALICIOUS_SCORE = 10.0
_OPERATORS: Mapping[Comparison, Callable[[float, float], bool]] = {
    Comparison.LESS: operator.lt,
    Comparison.AT_MOST: operator.le,
    Comparison.EQUAL: operator.eq,
    Comparison.AT_LEAST: operator.ge,
    Comparison.MORE: operator.gt,
}


class VersionEvent(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A bound of a range (OSV 1.7): `introduced` is in, "0" is before all; `fixed` and `limit` are out."""

    introduced: str | None = None
    fixed: str | None = None
    last_affected: str | None = None
    limit: str | None = None


class Affected(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an advisory says of one package: ranges and single versions, or a spec."""

    family: str
    name: str  # as the family's `Policing.name_key` spells it
    ranges: list[list[VersionEvent]] = []
    versions: list[str] = []
    spec: str | None = None


class Advisory(Struct, frozen=True, kw_only=True):
    """An advisory as it was imported, with what was said of it by hand."""

    id: str
    aliases: list[str] = []
    modified: str = ""
    withdrawn: bool = False
    summary: str = ""
    score: float | None = None
    malicious: bool = False
    affected: list[Affected] = []
    status: AdvisoryStatus = AdvisoryStatus.REPORTED
    score_set: float | None = None  # by hand

    @property
    def told_score(self) -> float | None:
        """The score that counts."""
        if self.score_set is not None:
            return self.score_set
        return MALICIOUS_SCORE if self.malicious else self.score


decode_advisory = msgspec.json.Decoder(Advisory).decode
"""Returns an advisory of its document, as it is kept."""


class Flaw(Struct, frozen=True, kw_only=True):
    """Advisories about the same flaw, which name each other as aliases."""

    id: str  # of the first
    score: float | None
    status: AdvisoryStatus


def same_flaws(advisories: Sequence[Advisory]) -> dict[str, Flaw]:
    """Return advisory id -> its flaw: aliases are symmetric and transitive; the highest score and a status that was
    set by hand count."""
    leader: dict[str, str] = {}

    def find(name: str) -> str:
        while leader.setdefault(name, name) != name:
            leader[name] = leader[leader[name]]
            name = leader[name]
        return name

    for one in advisories:
        for alias in one.aliases:
            a, b = sorted((find(one.id), find(alias)))
            leader[b] = a
    groups: dict[str, list[Advisory]] = {}
    for one in advisories:
        groups.setdefault(find(one.id), []).append(one)
    found: dict[str, Flaw] = {}
    for group in groups.values():
        by_hand = [one.score_set for one in group if one.score_set is not None]
        scores = by_hand or [one.told_score for one in group if one.told_score is not None]
        set_statuses = [one.status for one in group if one.status is not AdvisoryStatus.REPORTED]
        flaw = Flaw(
            id=min(one.id for one in group),
            score=max(scores) if scores else None,
            status=set_statuses[0] if set_statuses else AdvisoryStatus.REPORTED,
        )
        found |= {one.id: flaw for one in group}
    return found


class Meaning:
    """Tells which records of a family an advisory means."""

    def __init__(self, policing: Policing) -> None:
        self._policing = policing
        self._needs: dict[str, Need] = {}

    def affects(self, affected: Affected, facts: Facts) -> bool:
        """Tell whether a record is one of those that an advisory names."""
        if affected.spec is not None:
            return self._need(affected.spec).matches(facts)
        if facts.version in affected.versions:
            return True
        key = self._policing.version_key(facts.version)
        if any(self._same(key, version) for version in affected.versions):
            return True
        return any(in_range(key, events, self._policing.version_key) for events in affected.ranges)

    def _same(self, key: Comparable, version: str) -> bool:
        return bool(self._policing.version_key(version) == key)

    def _need(self, spec: str) -> Need:
        need = self._needs.get(spec)
        if need is None:
            need = self._needs[spec] = self._policing.requirement(spec)
        return need


class Flaws:
    """The known flaws of a family's packages, by name."""

    def __init__(self, policing: Policing, rule: CveRule, advisories: Iterable[Advisory]) -> None:
        living = [one for one in advisories if not one.withdrawn]
        self._policing = policing
        self._rule = rule
        self._by_name: dict[str, list[tuple[Flaw, Affected]]] = {}
        self._affects = Meaning(policing).affects
        flaws = same_flaws(living)
        for one in living:
            for affected in one.affected:
                if affected.family == policing.family:
                    self._by_name.setdefault(affected.name, []).append((flaws[one.id], affected))

    def worst(self, facts: Facts) -> Verdict | None:
        """Return what speaks against a record: the flaw with the highest score that the rule counts."""
        listed = self._by_name.get(self._policing.name_key(facts.name))
        if not listed:
            return None
        found = {flaw.id: flaw for flaw, affected in listed if self.counts(flaw) and self._affects(affected, facts)}
        if not found:
            return None
        worst = max(found.values(), key=lambda flaw: (flaw.score is not None, flaw.score or 0.0, flaw.id))
        score = "unscored" if worst.score is None else f"score {worst.score:g}"
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        return Verdict("cve", f"{worst.id} ({score}, {worst.status}){more}")

    def counts(self, flaw: Flaw) -> bool:
        """Tell whether the rule keeps out what has this flaw."""
        rule = self._rule
        if rule.statuses is not None and flaw.status in rule.statuses.not_in:
            return False
        if flaw.status is AdvisoryStatus.REPORTED and rule.unreviewed is Verdicts.ALLOW:
            return False
        if flaw.score is None:
            return rule.unscored is Verdicts.DENY
        return rule.score is None or _OPERATORS[rule.score.op](flaw.score, rule.score.value)


def in_range(key: Comparable, events: Sequence[VersionEvent], version_key: Callable[[str], Comparable]) -> bool:
    """Tell whether a version lies in a range; its events are sorted by version, not taken in their order."""
    placed: list[tuple[Comparable, str]] = []
    for event in events:
        for kind in ("introduced", "fixed", "last_affected", "limit"):
            version = getattr(event, kind)
            if version is not None and not (kind == "limit" and version == "*"):
                placed.append((None if (kind, version) == ("introduced", "0") else version_key(version), kind))
    always = any(bound is None for bound, _ in placed)
    bounds = sorted((one for one in placed if one[0] is not None), key=operator.itemgetter(0))
    inside = always
    for bound, kind in bounds:
        if kind == "introduced" and key >= bound:
            inside = True
        elif (kind in {"fixed", "limit"} and key >= bound) or (kind == "last_affected" and key > bound):
            inside = False
    return inside
