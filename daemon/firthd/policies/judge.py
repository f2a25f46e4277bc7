"""Decides, purely, what a policy says of one record by itself: the first rule that speaks against it."""

from collections import Counter
from collections.abc import Callable
from datetime import date

from msgspec import Struct

from firth_protocol.types import Membership, Rules, Verdicts
from firthd.families.base import Facts
from firthd.families.policing import Policing
from firthd.policies.licenses import LicenseTest, families_in, is_known, license_test, meaning_of
from firthd.policies.rules import RETIRING
from firthd.policies.specs import Specs

DAY_MS = 86_400_000
LICENSES_COUNTED = 1000


class Verdict(Struct, frozen=True):
    """Why a record is left out."""

    rule: str
    why: str

    @property
    def refuses(self) -> bool:
        """Whether its file is refused, and not only out of the index."""
        return self.rule not in RETIRING


NOT_ALLOWED = Verdict("packages", "not among the packages that are allowed")

Flaw = Callable[[Facts], Verdict | None]
"""What advisories say of a record by the policy's rule."""
FirstSeen = Callable[[Facts], int]
"""When a record without its server's own time counts as come, milliseconds."""


class Judge:
    """A policy ready to judge records of one family."""

    def __init__(self, rules: Rules, policing: Policing, *, now_ms: int = 0, flaw: Flaw | None = None) -> None:
        self.rules = rules
        self.policing = policing
        self._now_day = now_ms // DAY_MS
        self._flaw = flaw
        packages = rules.packages
        self.exceptions = Specs(rules.exceptions, policing)
        self._exclude = Specs(packages.exclude if packages else [], policing)
        self.allow = Specs(packages.allow, policing) if packages and packages.allow is not None else None
        self.closes = packages is not None and packages.include_dependencies
        self.unmapped: Counter[str] = Counter()
        self._platform = _platform_test(rules.platforms, policing.everywhere)
        self._license_test = _license_test(rules)
        self._licenses: dict[tuple[str | None, str | None, tuple[str, ...]], Verdict | None] = {}
        self._from, self._to = _days(rules)

    @property
    def cut(self) -> Callable[[str], bool] | None:
        """What tells by a record's name alone, as `Policing.name_key` spells it, that it is not allowed.

        None where a name is not enough. Most policies name a few packages, and most records are of others.
        """
        allow, exceptions = self.allow, self.exceptions
        if allow is None or self.closes or self.rules.min_age is not None:
            return None  # an age counts from the first sight of a record, whatever other rules say of it today
        if allow.nameless or exceptions.nameless:
            return None
        names = frozenset((*allow.names, *exceptions.names))
        return lambda key: key not in names

    @property
    def waits(self) -> bool:
        """Whether nothing is sure before the last record has passed."""
        return self.closes or self.rules.keep_latest is not None

    @property
    def unless_needed(self) -> Callable[[str], bool] | None:
        """What tells by a record's name alone that it need not be looked at before something is found to need it.

        None where each is looked at anyway.
        """
        lists = [one for one in (self.allow, self._exclude, self.exceptions) if one is not None]
        if not self.closes or self.rules.min_age is not None or any(one.nameless for one in lists):
            return None
        names = frozenset(name for one in lists for name in one.names)
        return lambda key: key not in names

    def wants_platform(self, platform: str) -> bool:
        """Tell whether files for a platform may come in, as far as the rule about platforms says."""
        return self._platform is None or self._platform(platform)

    def allowed(self, key: str, facts: Facts) -> bool:
        """Tell whether a record matches one of the specs that are allowed."""
        return self.allow is None or self.allow.match(key, facts) is not None

    def excepted(self, key: str, facts: Facts) -> bool:
        """Tell whether a record is kept whatever the rules say."""
        return bool(self.exceptions) and self.exceptions.match(key, facts) is not None

    def alone(self, facts: Facts, first_seen: FirstSeen | None = None) -> Verdict | None:
        """Judge a record by everything that hangs on nothing else; None: nothing speaks against it.

        Without `first_seen` its age is not judged, where its own server tells none, nor a signature that is not known:
        who asks so looks at what a run has found.
        """
        key = self.policing.name_key(facts.name)
        return None if self.excepted(key, facts) else self.first(key, facts, first_seen)

    def first(self, key: str, facts: Facts, first_seen: FirstSeen | None) -> Verdict | None:
        """Return the first rule that speaks against a record which is no exception."""
        return self._by_name(key, facts) or self.by_record(facts, first_seen)

    def may_come(self, facts: Facts) -> bool:
        """Tell whether a record's name and version speak for it, whatever else does not."""
        key = self.policing.name_key(facts.name)
        return not self.excepted(key, facts) and self._by_name(key, facts) is None

    def _by_name(self, key: str, facts: Facts) -> Verdict | None:
        if self._exclude:
            spec = self._exclude.match(key, facts)
            if spec is not None:
                return Verdict("packages", f"excluded by `{spec}`")
        if self.allow is None or self.allow.match(key, facts) is not None:
            return None
        if not self.closes:
            return NOT_ALLOWED
        return Verdict("packages", "not among the versions that are allowed") if self.allow.names_one(key) else None

    @property
    def looks_at_records(self) -> bool:
        """Whether anything but names and versions may speak against a record."""
        rules = self.rules
        every = (rules.platforms, rules.licenses, rules.dates, rules.min_age, rules.cve)
        return rules.signed_only or any(one is not None for one in every)

    def by_record(self, facts: Facts, first_seen: FirstSeen | None) -> Verdict | None:
        """Return the first rule that speaks against a record of which its name and version say nothing."""
        if self._platform is not None and not self._platform(facts.platform):
            return Verdict("platforms", f"{facts.platform} is not wanted")
        if self._license_test is not None:
            verdict = self._by_license(self._license_test, facts)
            if verdict is not None:
                return verdict
        if self.rules.signed_only and not facts.signed and (facts.signed is False or first_seen is not None):
            return Verdict("signed_only", "its record is not signed")
        if self.rules.dates is not None:
            verdict = self._by_date(facts)
            if verdict is not None:
                return verdict
        if self.rules.min_age is not None:
            verdict = self._by_age(self.rules.min_age, facts, first_seen)
            if verdict is not None:
                return verdict
        return self._flaw(facts) if self._flaw is not None else None

    def _by_license(self, test: LicenseTest, facts: Facts) -> Verdict | None:
        key = (facts.license, facts.license_family, facts.classifiers)
        if key in self._licenses:
            return self._licenses[key]
        meaning = meaning_of(self.policing.syntax, facts)
        told = facts.license or ", ".join(facts.classifiers) or "no licence"
        passes = test.passes(meaning)
        verdict = None
        if not is_known(meaning) and len(self.unmapped) < LICENSES_COUNTED:
            self.unmapped[told] += 1
        if passes is False:
            families = ", ".join(sorted(families_in(meaning))) or "unknown"
            verdict = Verdict("licenses", f"{families}: {told}" if told not in {families, ""} else families)
        elif passes is None and self.rules.licenses is not None and self.rules.licenses.unknown is Verdicts.DENY:
            verdict = Verdict("licenses", f"nobody knows what licence this is: {told}")
        self._licenses[key] = verdict
        return verdict

    def _by_date(self, facts: Facts) -> Verdict | None:
        moment = facts.indexed if facts.indexed is not None else facts.timestamp
        if moment is None:
            return Verdict("dates", "the source tells no date")
        day = moment // DAY_MS
        if self._from is not None and day < self._from:
            return Verdict("dates", "it is older")
        if self._to is not None and day > self._to:
            return Verdict("dates", "it is newer")
        return None

    def _by_age(self, days: int, facts: Facts, first_seen: FirstSeen | None) -> Verdict | None:
        if facts.indexed is not None:
            come = facts.indexed
        elif first_seen is not None:
            come = first_seen(facts)
        else:
            return None
        enters = come // DAY_MS + days
        if enters <= self._now_day:
            return None
        return Verdict("min_age", f"it is too young; it enters on {date.fromordinal(_EPOCH + enters).isoformat()}")


_EPOCH = date(1970, 1, 1).toordinal()


def _platform_test(rule: Membership | None, everywhere: str) -> Callable[[str], bool] | None:
    if rule is None:
        return None
    if rule.in_ is not None:
        return {*rule.in_, everywhere}.__contains__
    out = frozenset(rule.not_in or ())
    return lambda platform: platform not in out


def _license_test(rules: Rules) -> LicenseTest | None:
    rule = rules.licenses
    if rule is None:
        return None
    return license_test(rule.in_ if rule.in_ is not None else rule.not_in or [], only=rule.in_ is not None)


def _days(rules: Rules) -> tuple[int | None, int | None]:
    if rules.dates is None:
        return None, None
    first, last = (
        None if day is None else date.fromisoformat(day).toordinal() - _EPOCH
        for day in (rules.dates.from_, rules.dates.to)
    )
    return first, last
