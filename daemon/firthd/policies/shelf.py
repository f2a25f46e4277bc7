"""Keeps, purely, the candidates of one name in the order of their versions, so that a bound is two look-ups.

A name may have tens of thousands of builds, and as many different requirements may speak of it: comparing each with
each would take hours. A platform takes what lies between two bounds once; what was taken is passed over.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence

from msgspec import Struct

from firthd.families.base import Comparable, Facts
from firthd.families.policing import Bounds


class Candidate(Struct, gc=False, eq=False):
    """A record that no rule speaks against, while it is open whether it is wanted."""

    facts: Facts
    number: int  # in its part's listing
    key: str  # its name, as `Policing.name_key` spells it
    excepted: bool  # kept whatever the rules say
    whole: bool = True  # False: its facts lack digests and what it needs
    allowed: bool = False  # matches a spec that is allowed
    direct: bool = False  # kept because it is allowed
    kept: bool = False
    lacks: bool = False  # something that it needs is missing on a platform
    needed_by: "Candidate | None" = None  # who asked for it first
    contexts: int = 0  # the platforms on which it is used, a bit each
    fresh: int = 0  # those of them on which nobody has looked yet what it needs
    extras: dict[str, int] | None = None  # on which of these an extra of it is wanted


class _Side:
    """What a platform can use of a shelf, and what of that it has not taken yet."""

    __slots__ = ("_left", "places")

    def __init__(self, places: list[int]) -> None:
        self.places = places  # of groups, in order
        self._left = list(range(len(places) + 1))  # each points to the next that is not taken, or towards it

    def next(self, start: int) -> int:
        left = self._left
        end = start
        while left[end] != end:
            end = left[end]
        while left[start] != end:
            left[start], start = end, left[start]
        return end

    def take(self, place: int) -> None:
        self._left[place] = place + 1


class Shelf:
    """Candidates of a name. `order` returns what versions are compared by, None for one that meets no requirement."""

    __slots__ = ("_keys", "_order", "_ordered", "_parts", "_sides", "candidates", "groups")

    def __init__(self, candidates: Sequence[Candidate], order: Callable[[str], Comparable | None] | None) -> None:
        self.candidates = candidates
        versions: dict[str, list[Candidate]] = {}
        for one in candidates:
            versions.setdefault(one.facts.version, []).append(one)
        self.groups = list(versions.values())
        self._order = order
        self._keys: list[Comparable] = []
        self._ordered: list[list[Candidate]] = []
        self._sides: dict[str, _Side] = {}
        self._parts: dict[str, list[str]] | None = None  # platform -> parts of what it can use
        if order is not None:
            keyed = [(key, group) for version, group in versions.items() if (key := order(version)) is not None]
            keyed.sort(key=lambda pair: pair[0])
            self._keys = [key for key, _ in keyed]
            self._ordered = [group for _, group in keyed]
            if len(keyed) == len(self.groups):
                self.groups = self._ordered

    def span(self, bounds: Bounds) -> tuple[int, int] | None:
        """Return from where to where bounds reach; None: a version in them is none, and someone else has to say why."""
        start, end = 0, len(self._keys)
        if self._order is None:
            return None
        if bounds.least is not None:
            key = self._order(bounds.least)
            if key is None:
                return None
            start = (bisect_right if bounds.above else bisect_left)(self._keys, key)
        if bounds.most is not None:
            key = self._order(bounds.most)
            if key is None:
                return None
            end = (bisect_left if bounds.below else bisect_right)(self._keys, key)
        return start, end

    def any_in(self, span: tuple[int, int], platform: str, everywhere: str) -> bool:
        """Tell whether a platform can use anything of a span."""
        places = self._side(platform, everywhere).places
        first = bisect_left(places, span[0])
        return first < len(places) and places[first] < span[1]

    def newest(
        self, span: tuple[int, int], platform: str, everywhere: str, latest: int, early: Callable[[str], bool]
    ) -> tuple[list[Candidate], int]:
        """Return what a platform can use of the newest versions of a span in each part, and how many were looked at.

        What comes `early`, before a release, counts where a part has nothing else.
        """
        places = self._side(platform, everywhere).places
        here = (platform, everywhere)
        self._parts = self._parts or {}
        parts = self._parts.get(platform)
        if parts is None:
            used = (one.facts.part for one in self.candidates if one.facts.platform in here)
            parts = self._parts[platform] = list(dict.fromkeys(used))
        final: dict[str, list[tuple[Comparable, Candidate]]] = {part: [] for part in parts}
        others: dict[str, list[tuple[Comparable, Candidate]]] = {part: [] for part in parts}
        full: dict[str, int] = dict.fromkeys(parts, 0)
        looked = 0
        for place in reversed(range(bisect_left(places, span[0]), bisect_left(places, span[1]))):
            key, group = self._keys[places[place]], self._ordered[places[place]]
            looked += 1
            is_early = early(group[0].facts.version)
            for one in group:
                if one.facts.platform not in here:
                    continue
                some = (others if is_early else final)[one.facts.part]
                if not is_early and not (some and some[-1][0] == key):
                    full[one.facts.part] += 1
                if is_early or full[one.facts.part] <= latest:
                    some.append((key, one))
            if all(count > latest for count in full.values()):
                break
        found = []
        for part in parts:
            some, keys = final[part] or others[part], 0
            for number, (key, one) in enumerate(some):
                keys += not number or some[number - 1][0] != key
                if keys > latest:
                    break
                found.append(one)
        return found, looked

    def untaken(self, span: tuple[int, int], platform: str, everywhere: str) -> Iterator[Candidate]:
        """Yield what a platform has not taken of a span before, and take it."""
        side = self._side(platform, everywhere)
        place, end = side.next(bisect_left(side.places, span[0])), bisect_left(side.places, span[1])
        while place < end:
            side.take(place)
            for one in self._ordered[side.places[place]]:
                if one.facts.platform in (platform, everywhere):
                    yield one
            place = side.next(place)

    def _side(self, platform: str, everywhere: str) -> _Side:
        found = self._sides.get(platform)
        if found is None:
            here = (platform, everywhere)
            found = self._sides[platform] = _Side(
                [place for place, group in enumerate(self._ordered) if any(one.facts.platform in here for one in group)]
            )
        return found
