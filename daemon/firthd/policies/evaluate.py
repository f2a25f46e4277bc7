"""Decides, purely, what a policy keeps: one pass over all records of a mirror, and the first rule that decided.

What hangs on one record alone (`policies.judge`) is decided as it passes; dependencies, twins and the newest versions
when all have.
"""

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from itertools import groupby
from operator import itemgetter

from firthd.families.base import Facts
from firthd.policies.closure import Closure, Missing, newest
from firthd.policies.judge import NOT_ALLOWED, FirstSeen, Judge, Verdict
from firthd.policies.shelf import Candidate

KEPT = 0
"""The code of what is kept; others are places in `Judging.verdicts`."""
NOT_THERE = "the source has no such package"
PLACE_BITS = 40
PLACE_MASK = (1 << PLACE_BITS) - 1
"""The place of a deferred record is one number: the number of its part, and that in the part."""


class Judging:
    """One pass over what a mirror's source lists.

    `drop` hears of each record that is left out, when that is sure, with the number of its verdict. Where records are
    deferred, `recall` returns the facts of some of a part by their numbers, None for what is no record; `forgo` hears
    of each that nothing needs, and returns whether that is a record. `needs` and `whole` return what facts that were
    recalled lack: what a record needs, and all facts of it. `not_there` returns why there is nothing of a name.
    """

    def __init__(
        self,
        judge: Judge,
        first_seen: FirstSeen,
        drop: Callable[[Facts, int], None],
        recall: Callable[[str, Sequence[int]], Sequence[Facts | None]] = lambda part, numbers: [None] * len(numbers),
        forgo: Callable[[str, int, int], bool] = lambda part, number, code: True,
        needs: Callable[[str, int], Iterable[str]] | None = None,
        whole: Callable[[str, int], Facts | None] = lambda part, number: None,
        not_there: Callable[[str | None], str] = lambda key: NOT_THERE,
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
        self.absent: list[str] = []  # names that are needed and of which there is nothing
        self._contexts: list[str] = []
        self.chosen: list[Candidate] = []  # what is kept, where dependencies were looked at: by name, part, file name

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

    def _take(self, number: int, key: str, facts: Facts) -> None:
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
        self._admit(Candidate(facts, number, key, excepted))

    def _admit(self, candidate: Candidate) -> None:
        if not self._judge.rules.legacy:
            self._files.add(candidate.facts.filename)
            if not candidate.excepted and self._judge.policing.newer_form(candidate.facts) is not None:
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
            self.absent = list(closure.absent)
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
            some = self._candidates.pop(key)
            if judge.closes:
                some.sort(key=_by_place)
            for one in some:
                if one.kept:
                    self._keep(one.facts)
                    if judge.closes:
                        self.chosen.append(one)
                else:
                    self._coded(one.number, one.facts, older if one.allowed else unneeded)

    def there(self) -> Set[str]:
        """Return the names of which there is anything, whatever speaks against it."""
        return {*self._deferred, *self._candidates, *self._against}

    def candidates(self, key: str) -> Sequence[Candidate] | None:
        """Return the candidates of a name; those that were deferred are looked at now. None: there is no such name."""
        places = self._deferred.pop(key, None)
        if places is not None:
            for part, some in groupby(self._places(places), key=itemgetter(0)):
                self._part, self._offered = part, self.offered[part]
                self._take_recalled(part, key, [number for _, number in some])
                self.end_part()
        found = self._candidates.get(key)
        return () if found is None and key in self._against else found

    def _take_recalled(self, part: str, key: str, numbers: Sequence[int]) -> None:
        """Take deferred records of a name, of which no spec says anything."""
        judge, looks, legacy = self._judge, self._judge.looks_at_records, self._judge.rules.legacy
        passed: list[Candidate] = []
        for number, facts in zip(numbers, self._recall(part, numbers), strict=True):
            if facts is None:
                continue
            self._offered.add(facts.name)
            verdict = judge.by_record(facts, self._first_seen) if looks else None
            if verdict is not None:
                self._against.setdefault(key, verdict)
                self._out(number, facts, verdict)
            elif legacy:
                passed.append(Candidate(facts, number, key, excepted=False, whole=False))
            else:
                self._admit(Candidate(facts, number, key, excepted=False, whole=False))
        if passed:
            self._candidates.setdefault(key, []).extend(passed)

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
        return self._not_there(key)

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


def _by_place(one: Candidate) -> tuple[str, str]:
    return one.facts.part, one.facts.filename
