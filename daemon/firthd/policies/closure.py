"""Decides, purely, what the allowed packages need: the closure of dependencies, what is missing, and through whom.

It goes outwards from what is allowed, so that the way to each package is a shortest one. Each requirement is looked at
once for a platform; most are a name with bounds, which `policies.shelf.Shelf` answers without comparing.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence, Set
from itertools import chain
from typing import Protocol

from msgspec import Struct

from firthd.families.base import Facts
from firthd.families.policing import Bounds, Need, Policing, WithBounds
from firthd.policies.lacking import Lacking
from firthd.policies.shelf import Candidate, Shelf

CHAIN_MAX = 50
CUT = "…"
"""Stands for the first files of a chain that has more."""
LISTED_MAX = 20_000
"""What is missing beyond this is counted only: the first are those nearest to what is allowed."""
COMPARED_MAX = 5_000_000
"""So many times a requirement is compared with a version or a file of a name that has many; beyond, its name counts."""
FEW = 64
"""A name that has no more versions, or files, is always compared."""


class Missing(Struct, frozen=True, kw_only=True):
    """A requirement that nothing meets."""

    requirement: str
    platform: str
    chain: list[str]  # from what is allowed to what has the requirement: file names
    why: str


def newest(candidates: Sequence[Candidate], latest: int | None, policing: Policing) -> list[Candidate]:
    """Return those of the newest versions in each part; None: all. Pre-releases count where nothing else is left."""
    if latest is None:
        return list(candidates)
    parts: dict[str, list[Candidate]] = {}
    for one in candidates:
        parts.setdefault(one.facts.part, []).append(one)
    found = []
    for some in parts.values():
        final = [one for one in some if not policing.prerelease(one.facts.version)] or some
        keys = {one.facts.version: policing.version_key(one.facts.version) for one in final}
        ordered: list[object] = []
        for key in sorted(keys.values(), reverse=True):
            if not ordered or ordered[-1] != key:
                ordered.append(key)
        last = ordered[:latest][-1]
        found += [one for one in final if keys[one.facts.version] >= last]
    return found


class Known(Protocol):
    """What a closure asks of whoever has the records; only of what is needed."""

    def there(self) -> Set[str]:
        """Return the names of which there may be anything."""

    def candidates(self, key: str, /) -> Sequence[Candidate] | None:
        """Return those of a name, as `Policing.name_key` spells it; None: there is nothing of it, kept or not."""

    def depends(self, one: Candidate, platform: str, extra: str, /) -> Iterable[str]:
        """Return what a record needs on a platform, as `Policing.depends` does."""

    def whole(self, one: Candidate, /) -> Facts:
        """Return all facts of a record whose own are not whole."""


class Closure:
    """What is needed on each platform, from what is allowed onwards."""

    def __init__(
        self,
        policing: Policing,
        known: Known,
        platforms: Set[str],
        latest: int | None,
        compared_max: int = COMPARED_MAX,
        listed_max: int = LISTED_MAX,
    ) -> None:
        self._policing = policing
        self._known = known
        self._latest = latest
        self._left = compared_max
        self._everywhere = policing.everywhere
        self.platforms = sorted(platforms - {self._everywhere}) or [self._everywhere]
        self._bits = {platform: 1 << number for number, platform in enumerate(self.platforms)}
        self._all = (1 << len(self.platforms)) - 1
        self._met = len(self.platforms)  # where these bits of an answer begin
        self._answers: dict[str, int] = {}  # text -> on which platforms it was asked, and met
        self._bounded = policing if isinstance(policing, WithBounds) else None
        self._there: Set[str] = frozenset()
        self._shelves: dict[str, Shelf] = {}
        self._taken: dict[tuple[str, str, str], bool] = {}  # name, platform, extra -> whether all of it is anything
        self._done: set[tuple[str, int, int, str]] = set()
        self._open: deque[Candidate] = deque()
        self._open_extras: deque[tuple[Candidate, int, str]] = deque()
        self._lacking = Lacking(len(self.platforms), listed_max)
        self._lacking_everywhere = Lacking(1, listed_max)  # of what is for every platform
        self._lacking_somewhere: list[Candidate] = []  # of those for every platform, where there are several
        self.absent: dict[str, None] = {}
        """Names that are needed and of which there is nothing, but for those of `WithBounds`."""
        self.unchecked = 0
        """How many requirements were taken by their names alone, because comparing took too long."""

    @property
    def wanted(self) -> frozenset[str]:
        """The names that are needed and of which there is anything, kept or not."""
        return frozenset(self._shelves)

    @property
    def unlisted(self) -> int:
        """How many more requirements nothing meets than are listed; known once they are told."""
        return self._lacking.unlisted + self._lacking_everywhere.unlisted

    def close(self, roots: Iterable[Candidate]) -> None:
        """Mark as kept all that the roots need."""
        self._there = self._known.there()
        for root in roots:
            platform = root.facts.platform
            self._use(root, self._all if platform == self._everywhere else self._bits[platform])
        while self._open or self._open_extras:
            if self._open:
                one = self._open.popleft()
                where, one.fresh = one.fresh, 0
                self._follow(one, where, "")
            else:
                self._follow(*self._open_extras.popleft())

    def _follow(self, one: Candidate, where: int, extra: str) -> None:
        """Look at what a record needs, or what an extra of it needs, on some platforms."""
        answers, met = self._answers, self._met
        plain, there = self._bounded.plain_name if self._bounded is not None else None, self._there
        for number, (platform, bit) in enumerate(self._bits.items()):
            if not where & bit:
                continue
            for text in self._known.depends(one, platform, extra):
                answer = answers.get(text, 0)
                if not answer & bit:
                    if plain is not None and (name := plain(text)) is not None and name not in there:
                        self._lacks(one, text, number)  # a large index may have a million texts of this kind
                        continue
                    answer |= bit | self._ask(one, text, platform, bit) << met
                    answers[text] = answer
                if not answer >> met & bit:
                    self._lacks(one, text, number)

    def _lacks(self, one: Candidate, text: str, platform: int) -> None:
        if one.facts.platform != self._everywhere:
            self._lacking.add(platform, text, one)
        elif self._met == 1:
            self._lacking_everywhere.add(0, text, one)
        elif not one.lacks:
            one.lacks = True
            self._lacking_somewhere.append(one)

    def _use(self, one: Candidate, where: int, extras: Iterable[str] = ()) -> None:
        fresh = where & ~one.contexts
        if fresh:
            one.contexts |= fresh
            if not one.fresh:
                self._open.append(one)
            one.fresh |= fresh
        for extra in extras:
            if one.extras is None:
                one.extras = {}
            fresh = where & ~one.extras.get(extra, 0)
            if fresh:
                one.extras[extra] = one.extras.get(extra, 0) | fresh
                self._open_extras.append((one, fresh, extra))

    def _ask(self, asking: Candidate, text: str, platform: str, bit: int) -> int:
        """Keep all that meets a requirement on a platform; return its bit if anything does, else 0."""
        bounds = self._bounded.bounds(text) if self._bounded is not None else None
        if bounds is not None:
            shelf = self._shelf(bounds.name)
            if shelf is None:
                return 0
            span = shelf.span(bounds)
            if span is not None:
                return self._take(asking, bounds.name, shelf, span, platform, bit)
        need = self._need(text)
        if need is None:
            return bit
        if isinstance(need, str):
            return 0
        return bit if self._choose(asking, need, platform, bit) else 0

    def _take(self, asking: Candidate, name: str, shelf: Shelf, span: tuple[int, int], platform: str, bit: int) -> int:
        everywhere = self._everywhere
        if not shelf.any_in(span, platform, everywhere):
            return 0
        if self._latest is None:
            self._keep(asking, shelf.untaken(span, platform, everywhere), bit)
        elif (name, *span, platform) not in self._done:
            self._done.add((name, *span, platform))
            if self._left <= 0 and len(shelf.groups) > FEW:
                return bit if self._unchecked(asking, name, shelf, platform, bit) else 0
            found, looked = shelf.newest(span, platform, everywhere, self._latest, self._policing.prerelease)
            self._left -= looked
            self._keep(asking, found, bit)
        return bit

    def _keep(self, asking: Candidate, chosen: Iterable[Candidate], bit: int, extras: Iterable[str] = ()) -> None:
        for one in chosen:
            one.kept = True
            if one.needed_by is None and not one.direct:
                one.needed_by = asking
            self._use(one, bit, extras)

    def _need(self, text: str) -> Need | None | str:
        """Return what a requirement means; a str: why it cannot be read."""
        try:
            need = self._policing.dependency(text)
        except ValueError as error:
            return f"it cannot be read: {error}"
        return need if need is None or need.name is not None else "it names no package"

    def _choose(self, asking: Candidate, need: Need, platform: str, bit: int) -> bool:
        """Keep what meets a requirement, each version or file compared with it; tell whether anything does."""
        key = self._key(need)
        shelf = self._shelf(key)
        if shelf is None:
            self.absent[key] = None
            return False
        here = (platform, self._everywhere)
        costs = len(shelf.groups if need.versions_only else shelf.candidates)
        costs += 0 if self._latest is None else len(shelf.candidates)
        if costs > FEW:
            if costs > self._left:
                return self._unchecked(asking, key, shelf, platform, bit, need.extras)
            self._left -= costs
        if need.versions_only:
            met = (group for group in shelf.groups if need.matches(group[0].facts))
            found = [one for group in met for one in group if one.facts.platform in here]
        else:
            found = [one for one in shelf.candidates if one.facts.platform in here and need.matches(self._whole(one))]
        self._keep(asking, newest(found, self._latest, self._policing), bit, need.extras)
        return bool(found)

    def _unchecked(
        self, asking: Candidate, key: str, shelf: Shelf, platform: str, bit: int, extras: Iterable[str] = ()
    ) -> bool:
        """Keep all of a name that a platform can use, whatever is asked for; tell whether there is anything."""
        self.unchecked += 1
        wanted = list(extras) or [""]
        for extra in wanted:
            if (key, platform, extra) not in self._taken:
                here = (platform, self._everywhere)
                some = [one for one in shelf.candidates if one.facts.platform in here]
                self._keep(asking, some, bit, [extra] if extra else [])
                self._taken[key, platform, extra] = bool(some)
        return any(self._taken[key, platform, extra] for extra in wanted)

    def _whole(self, one: Candidate) -> Facts:
        if not one.whole:
            one.facts, one.whole = self._known.whole(one), True
        return one.facts

    def _key(self, need: Need) -> str:
        return self._policing.name_key(need.name or "")

    def _shelf(self, key: str) -> Shelf | None:
        """Return the candidates of a name, None where there is nothing of it."""
        found = self._shelves.get(key)
        if found is None:
            candidates = self._known.candidates(key)
            if candidates is None:
                return None
            order = self._bounded.order if self._bounded is not None else None
            found = self._shelves[key] = Shelf(candidates, order)
        return found

    def missing(self, why: Callable[[str | None], str]) -> list[Missing]:
        """Return each requirement that nothing meets, once, with one chain that leads to it, as far as they are listed.

        What is for every platform may need something that only some have: that is missing where it is so on all.
        """
        self._look_everywhere()
        found = []
        for text, one in chain(self._lacking, self._lacking_everywhere):
            reason = self._why(text, why)
            found.append(Missing(requirement=text, platform=one.facts.platform, chain=way_to(one), why=reason))
        return sorted(found, key=lambda one: (one.requirement, one.platform))

    def _why(self, text: str, why: Callable[[str | None], str]) -> str:
        bounds = self._bounded.bounds(text) if self._bounded is not None else None
        if bounds is not None and self._readable(bounds):
            return why(bounds.name)
        need = self._need(text)
        return need if isinstance(need, str) else why(None if need is None else self._key(need))

    def _readable(self, bounds: Bounds) -> bool:
        assert self._bounded is not None
        said = (bounds.least, bounds.most)
        return all(version is None or self._bounded.order(version) is not None for version in said)

    def _look_everywhere(self) -> None:
        """List what is missing of what is for every platform: on each platform on which it is asked for."""
        for one in self._lacking_somewhere:
            asked: dict[str, int] = {}
            for extra, where in {"": one.contexts, **(one.extras or {})}.items():
                for platform, bit in self._bits.items():
                    if where & bit:
                        for text in self._known.depends(one, platform, extra):
                            asked[text] = asked.get(text, 0) | bit
            for text, where in asked.items():
                if not self._answers.get(text, 0) >> self._met & where:
                    self._lacking_everywhere.add(0, text, one)
        self._lacking_somewhere = []


def way_to(one: Candidate) -> list[str]:
    """Return the files from what is allowed to this one; of a very long way the last ones, and a sign."""
    found = [one.facts.filename]
    above = one.needed_by
    while above is not None:
        if len(found) == CHAIN_MAX:
            found.append(CUT)
            break
        found.append(above.facts.filename)
        above = above.needed_by
    return found[::-1]
