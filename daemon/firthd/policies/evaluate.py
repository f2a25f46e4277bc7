"""Decides, purely, what a policy keeps: one pass over all records of a mirror, and the first rule that decided.

What hangs on one record alone is decided as it passes; dependencies, twins and the newest versions when all have.
"""

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date

from msgspec import Struct

from firth_protocol.types import Membership, Rules, Verdicts
from firthd.families.base import Facts
from firthd.families.policing import Policing
from firthd.policies.closure import Closure, Missing, newest
from firthd.policies.licenses import LicenseTest, families_in, is_known, license_test, meaning_of
from firthd.policies.rules import RETIRING
from firthd.policies.shelf import Candidate
from firthd.policies.specs import Specs

DAY_MS = 86_400_000
KEPT = 0
"""The code of what is kept; others are places in `Judging.verdicts`."""
LICENSES_TOLD = 1000
PLACE_BITS = 40
PLACE_MASK = (1 << PLACE_BITS) - 1
"""The place of a deferred record is one number: the number of its part, and that in the part."""


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
        return self._by_name(key, facts) or self._by_record(facts, first_seen)

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

    def _by_record(self, facts: Facts, first_seen: FirstSeen | None) -> Verdict | None:
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
        if not is_known(meaning) and len(self.unmapped) < LICENSES_TOLD:
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


class Judging:
    """One pass over what a mirror's source lists.

    `drop` hears of each record that is left out, when that is sure, with the number of its verdict. Where records are
    deferred, `recall` returns the facts of one by its part and number, None for what is no record, and `forgo` hears of
    each that nothing needs; it returns whether that is a record. `needs` and `whole` return what facts that were
    recalled lack: what a record needs, and all facts of it.
    """

    def __init__(
        self,
        judge: Judge,
        first_seen: FirstSeen,
        drop: Callable[[Facts, int], None],
        recall: Callable[[str, int], Facts | None] = lambda part, number: None,
        forgo: Callable[[str, int, int], bool] = lambda part, number, code: True,
        needs: Callable[[str, int], Iterable[str]] | None = None,
        whole: Callable[[str, int], Facts | None] = lambda part, number: None,
        not_there: str = "the source has no such package",
    ) -> None:
        self._not_there = not_there
        self._recall = recall
        self._forgo = forgo
        self._needs = needs
        self._whole = whole
        self._deferred: dict[str, array[int]] = {}  # name -> places: parts and numbers
        self._part = ""
        self._parts: list[str] = []
        self._platforms: set[str] = set()
        self._ages = judge.rules.min_age is not None
        self._judge = judge
        self._first_seen = first_seen
        self._drop = drop
        self._waits = judge.waits
        self._codes_of: dict[Verdict, int] = {}
        self._excepts = bool(judge.exceptions)
        self._offered: set[str] = set()
        self._candidates: dict[str, list[Candidate]] = {}
        self._old_forms: list[Candidate] = []
        self._files: set[str] = set()
        self._against: dict[str, Verdict] = {}  # name -> why a file of it is left out, to explain what is missing
        self.codes: dict[str, array[int]] = {}  # part -> what became of each record, in the order of its listing
        self.verdicts: list[Verdict | None] = [None]
        self.offered: dict[str, set[str]] = {}  # part -> names that no rule about packages gives up
        self._left_out = [0]  # by the number of the verdict
        self.records = self.kept = self.bytes = 0
        self.names: set[str] = set()  # of what is kept
        self.missing: list[Missing] = []
        self.unlisted = 0  # how many more requirements nothing meets than `missing` has
        self.unchecked = 0  # how many requirements were taken by name alone
        self._contexts: list[str] = []
        self.chosen: list[Candidate] = []  # what is kept, where dependencies were looked at

    def begin(self, part: str, records: int, platform: str | None = None) -> None:
        """Begin a part; each of its records gets a code by its number in the listing.

        `platform`: what all of its files are for, where records may be deferred.
        """
        if platform is not None and records and self._judge.wants_platform(platform):
            self._platforms.add(platform)
        self._part = part
        self._parts.append(part)
        self._offered = self.offered[part] = set()
        self.codes[part] = array("L", bytes(array("L").itemsize * records))

    def defer(self, number: int, key: str) -> None:
        """Take the next record, which no spec names; `key` is its name as `Policing.name_key` spells it."""
        self.records += 1
        place = len(self._parts) - 1 << PLACE_BITS | number
        if key in self._deferred:
            self._deferred[key].append(place)
        else:
            self._deferred[key] = array("Q", (place,))

    def see(self, number: int, facts: Facts) -> None:
        """Take the next record."""
        self.records += facts.counts
        if self._ages and facts.indexed is None:
            self._first_seen(facts)
        self._take(number, self._judge.policing.name_key(facts.name), facts)

    def _take(self, number: int, key: str, facts: Facts, *, whole: bool = True) -> None:
        judge = self._judge
        excepted = self._excepts and judge.excepted(key, facts)
        verdict = None if excepted else judge.first(key, facts, self._first_seen)
        if verdict is None or verdict.rule != "packages":
            self._offered.add(facts.name)
        if verdict is not None:
            if self._waits:
                self._against.setdefault(key, verdict)
            self._out(number, facts, verdict)
            return
        if excepted and not self._waits:
            self._keep(facts)
            return
        self._platforms.add(facts.platform)
        candidate = Candidate(facts, number, key, excepted, whole)
        if not judge.rules.legacy:
            self._files.add(facts.filename)
            if not excepted and judge.policing.newer_form(facts) is not None:
                self._old_forms.append(candidate)
                return
        self._passed(candidate)

    @property
    def not_allowed(self) -> int:
        """The number of the verdict about what its name alone leaves out."""
        return self.code(NOT_ALLOWED)

    def cut_out(self, records: int) -> None:
        """Count records that their names alone have left out; `codes` say so of each, and `drop` was not told."""
        self.records += records
        self._left_out[self.not_allowed] += records

    def _passed(self, candidate: Candidate) -> None:
        if self._waits:
            self._candidates.setdefault(candidate.key, []).append(candidate)
        else:
            self._keep(candidate.facts)

    def end_part(self) -> None:
        """End a part: the newer form of each build is known now."""
        for candidate in self._old_forms:
            newer = self._judge.policing.newer_form(candidate.facts)
            if newer in self._files:
                self._out(candidate.number, candidate.facts, Verdict("legacy", f"{newer} is the same build"))
            else:
                self._passed(candidate)
        self._old_forms, self._files = [], set()

    def end(self) -> None:
        """Decide what hangs on other records."""
        if not self._waits:
            return
        judge, latest = self._judge, self._judge.rules.keep_latest
        roots: list[Candidate] = []
        for key, candidates in self._candidates.items():
            allowed = [one for one in candidates if not one.excepted and judge.allowed(key, one.facts)]
            for one in allowed:
                one.allowed = True
            roots += newest(allowed, latest, judge.policing)
            for one in candidates:
                one.kept = one.excepted
        for root in roots:
            root.kept = root.direct = True
        if judge.closes:
            closure = Closure(judge.policing, self, self._platforms, latest)
            closure.close(roots)
            self.missing = [*self._empty_specs(), *closure.missing(self._why_missing)]
            self.unlisted, self.unchecked = closure.unlisted, closure.unchecked
            self._contexts = closure.platforms
            self._offer_only(closure.wanted)
        older = self.code(Verdict("keep_latest", f"{latest} newer versions are there")) if latest is not None else KEPT
        unneeded = self.code(Verdict("packages", "not allowed, and nothing that is needs it")) if judge.closes else KEPT
        for key in list(self._deferred):
            for part, number in self._places(self._deferred.pop(key)):
                if self._forgo(part, number, unneeded):
                    self.codes[part][number] = unneeded
                    self._left_out[unneeded] += 1
        for key in sorted(self._candidates):  # what is decided goes: the parts are read once more, and need the memory
            for one in self._candidates.pop(key):
                if one.kept:
                    self._keep(one.facts)
                    if judge.closes:
                        self.chosen.append(one)
                else:
                    self._coded(one.number, one.facts, older if one.allowed else unneeded)

    def candidates(self, key: str) -> Sequence[Candidate] | None:
        """Return the candidates of a name; those that were deferred are looked at now. None: there is no such name."""
        places = self._deferred.pop(key, None)
        if places is not None:
            for part, number in self._places(places):
                if part != self._part:
                    self.end_part()
                    self._part, self._offered = part, self.offered[part]
                facts = self._recall(part, number)
                if facts is not None:
                    self._take(number, key, facts, whole=False)
            self.end_part()
        found = self._candidates.get(key)
        return () if found is None and key in self._against else found

    def depends(self, one: Candidate, platform: str, extra: str) -> Iterable[str]:
        """Return what a record needs on a platform."""
        if self._needs is not None and not one.whole:
            return self._needs(one.facts.part, one.number)
        return self._judge.policing.depends(one.facts, platform, extra)

    def whole(self, one: Candidate) -> Facts:
        """Return all facts of a record that was recalled."""
        return self._whole(one.facts.part, one.number) or one.facts

    def _places(self, places: Iterable[int]) -> Iterator[tuple[str, int]]:
        for place in places:
            yield self._parts[place >> PLACE_BITS], place & PLACE_MASK

    def _empty_specs(self) -> list[Missing]:
        """Return the allowed specs that nothing matches."""
        judge = self._judge
        return [
            Missing(requirement=text, platform="", chain=[], why=self._why_missing(key))
            for key, text, need in (judge.allow.each() if judge.allow is not None else ())
            if not any(need.matches(one.facts) for one in self._candidates.get(key, ()))
        ]

    def _offer_only(self, wanted: frozenset[str]) -> None:
        allowed = set(self._judge.allow.names) if self._judge.allow is not None else set()
        names = wanted | allowed | {key for key, some in self._candidates.items() if any(one.kept for one in some)}
        key_of = self._judge.policing.name_key
        for part, offered in self.offered.items():
            self.offered[part] = {name for name in offered if key_of(name) in names}

    def _why_missing(self, key: str | None) -> str:
        if key is not None and key in self._candidates:
            return "no version that is kept meets it"
        if key is not None and key in self._against:
            verdict = self._against[key]
            return f"what there is is left out by {verdict.rule}: {verdict.why}"
        return self._not_there

    def _keep(self, facts: Facts) -> None:
        self.kept += facts.counts
        self.bytes += facts.size or 0
        self.names.add(facts.name)

    def code(self, verdict: Verdict) -> int:
        """Return the number of a verdict."""
        code = self._codes_of.get(verdict)
        if code is None:
            code = self._codes_of[verdict] = len(self.verdicts)
            self.verdicts.append(verdict)
            self._left_out.append(0)
        return code

    def allowed_on(self) -> set[tuple[str, str]]:
        """Return each allowed spec with each platform on which something was kept for it; needs dependencies."""
        found = set()
        if self._judge.allow is not None:
            for one in self.chosen:
                spec = self._judge.allow.match(one.key, one.facts) if one.direct else None
                if spec is not None:
                    found |= {(spec, name) for bit, name in enumerate(self._contexts) if one.contexts >> bit & 1}
        return found

    def _out(self, number: int, facts: Facts, verdict: Verdict) -> None:
        self._coded(number, facts, self.code(verdict))

    def _coded(self, number: int, facts: Facts, code: int) -> None:
        self.codes[facts.part][number] = code
        self._left_out[code] += facts.counts
        self._drop(facts, code)

    @property
    def counts(self) -> Counter[str]:
        """How many records each rule has left out."""
        found: Counter[str] = Counter()
        for code, number in enumerate(self._left_out):
            verdict = self.verdicts[code]
            if verdict is not None and number:
                found[verdict.rule] += number
        return found
