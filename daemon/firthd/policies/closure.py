"""Decides, purely, what the allowed packages need: the closure of dependencies, what is missing, and through whom."""

from collections.abc import Callable, Iterable, Sequence, Set

from msgspec import Struct

from firthd.families.base import Facts
from firthd.families.policing import Need, Policing, WithExtras

CHAIN_MAX = 50


class Candidate:
    """A record that no rule speaks against, while it is open whether it is wanted."""

    __slots__ = ("allowed", "contexts", "direct", "excepted", "extras", "facts", "kept", "key", "needed_by", "number")

    def __init__(self, facts: Facts, number: int, key: str, excepted: bool) -> None:
        self.facts = facts
        self.number = number  # in its part's listing
        self.key = key  # its name, as `Policing.name_key` spells it
        self.excepted = excepted  # kept whatever the rules say
        self.allowed = False  # matches a spec that is allowed
        self.direct = False  # kept because it is allowed
        self.kept = False
        self.needed_by: Candidate | None = None  # who asked for it first
        self.contexts: set[str] | None = None  # the platforms on which it is used
        self.extras: set[tuple[str, str]] | None = None  # of these, those with which extras are wanted


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


class Closure:
    """What is needed on each platform, from what is allowed onwards.

    `candidates` returns those of a name, spelled as `Policing.name_key` does; it is asked only for what is needed.
    """

    def __init__(
        self,
        policing: Policing,
        candidates: Callable[[str], Sequence[Candidate]],
        platforms: Set[str],
        latest: int | None,
    ) -> None:
        self._policing = policing
        self._candidates = candidates
        self._latest = latest
        self._everywhere = policing.everywhere
        self._platforms = sorted(platforms - {self._everywhere}) or [self._everywhere]
        self._needs: dict[str, Need | None | str] = {}  # text -> what it means; a str: why it cannot be read
        self._by_version: dict[str, dict[str, list[Candidate]]] = {}
        self._met: dict[tuple[str, str], bool] = {}
        self._unmet: dict[tuple[int, str], tuple[Candidate, set[str]]] = {}
        self._open: list[tuple[Candidate, str, str]] = []
        self._wanted: set[str] = set()

    @property
    def wanted(self) -> frozenset[str]:
        """The names that are needed, whether there or not."""
        return frozenset(self._wanted)

    def close(self, roots: Iterable[Candidate]) -> None:
        """Mark as kept all that the roots need."""
        for root in roots:
            platform = root.facts.platform
            for context in self._platforms if platform == self._everywhere else (platform,):
                self._use(root, context)
        while self._open:
            one, context, extra = self._open.pop()
            for text in self._policing.depends(one.facts, context, extra):
                if not self._meet(one, text, context):
                    self._unmet.setdefault((id(one), text), (one, set()))[1].add(context)

    def _use(self, one: Candidate, context: str, extras: Iterable[str] = ()) -> None:
        if one.contexts is None:
            one.contexts = set()
        if context not in one.contexts:
            one.contexts.add(context)
            self._open.append((one, context, ""))
        for extra in extras:
            if one.extras is None:
                one.extras = set()
            if (context, extra) not in one.extras:
                one.extras.add((context, extra))
                self._open.append((one, context, extra))

    def _meet(self, asking: Candidate, text: str, context: str) -> bool:
        """Keep all that meets a requirement on a platform; tell whether anything does. Once for each text."""
        met = self._met.get((text, context))
        if met is not None:
            return met
        need = self._need(text)
        if need is None:
            found = True
        elif isinstance(need, str):
            found = False
        else:
            chosen = self._choose(need, context)
            found = bool(chosen)
            extras = need.extras if isinstance(need, WithExtras) else ()
            for one in chosen:
                one.kept = True
                if one.needed_by is None and not one.direct:
                    one.needed_by = asking
                self._use(one, context, extras)
        self._met[text, context] = found
        return found

    def _need(self, text: str) -> Need | None | str:
        if text not in self._needs:
            try:
                need = self._policing.dependency(text)
            except ValueError as error:
                self._needs[text] = f"it cannot be read: {error}"
            else:
                named = need is None or need.name is not None
                self._needs[text] = need if named else "it names no package"
        return self._needs[text]

    def _choose(self, need: Need, context: str) -> list[Candidate]:
        key = self._key(need)
        self._wanted.add(key)
        here = (context, self._everywhere)
        if need.versions_only:
            found = [
                one
                for some in self._versions(key).values()
                if need.matches(some[0].facts)
                for one in some
                if one.facts.platform in here
            ]
        else:
            found = [one for one in self._candidates(key) if one.facts.platform in here and need.matches(one.facts)]
        return newest(found, self._latest, self._policing)

    def _key(self, need: Need) -> str:
        return self._policing.name_key(need.name or "")

    def _versions(self, key: str) -> dict[str, list[Candidate]]:
        found = self._by_version.get(key)
        if found is None:
            found = self._by_version[key] = {}
            for one in self._candidates(key):
                found.setdefault(one.facts.version, []).append(one)
        return found

    def missing(self, why: Callable[[str | None], str]) -> list[Missing]:
        """Return each requirement that nothing meets, once, with one chain that leads to it.

        What is for every platform may need something that only some have: that is missing where it is so on all.
        """
        found: dict[tuple[str, str], Missing] = {}
        for (_, text), (one, contexts) in self._unmet.items():
            everywhere = one.facts.platform == self._everywhere
            if everywhere and contexts != one.contexts:
                continue
            platform = self._everywhere if everywhere else one.facts.platform
            if (text, platform) in found:
                continue
            need = self._need(text)
            reason = need if isinstance(need, str) else why(None if need is None else self._key(need))
            found[text, platform] = Missing(requirement=text, platform=platform, chain=chain(one), why=reason)
        return sorted(found.values(), key=lambda one: (one.requirement, one.platform))


def chain(one: Candidate) -> list[str]:
    """Return the files from what is allowed to this one."""
    found = [one.facts.filename]
    seen = {id(one)}
    above = one.needed_by
    while above is not None and id(above) not in seen and len(found) < CHAIN_MAX:
        found.append(above.facts.filename)
        seen.add(id(above))
        above = above.needed_by
    return found[::-1]
