"""The only place that finds which of many specs a record matches: by name first, a version judged once."""

from collections.abc import Iterable, Sequence

from firth_protocol.errors import Invalid
from firthd.families.base import Facts
from firthd.families.policing import Need, Policing


class Specs:
    """Specs of one list of a policy, ready to be asked about half a million records."""

    def __init__(self, texts: Sequence[str], policing: Policing) -> None:
        self._policing = policing
        self._by_name: dict[str, list[tuple[str, Need]]] = {}
        self._nameless: list[tuple[str, Need]] = []
        self._judged: dict[tuple[str, str, str], bool] = {}
        for text in texts:
            need = policing.requirement(text)
            if need.name is None:
                self._nameless.append((text, need))
            else:
                self._by_name.setdefault(policing.name_key(need.name), []).append((text, need))

    def __bool__(self) -> bool:
        return bool(self._by_name or self._nameless)

    @property
    def names(self) -> Iterable[str]:
        """The exact names that are asked for, as `Policing.name_key` spells them."""
        return self._by_name.keys()

    @property
    def nameless(self) -> bool:
        """Whether there are specs without an exact name."""
        return bool(self._nameless)

    def each(self) -> Iterable[tuple[str, str, Need]]:
        """Yield name, text and meaning of each spec that has an exact name."""
        for key, specs in self._by_name.items():
            for text, need in specs:
                yield key, text, need

    def names_one(self, key: str) -> bool:
        """Tell whether any spec is about this name."""
        return key in self._by_name or bool(self._nameless)

    def match(self, key: str, facts: Facts) -> str | None:
        """Return the first spec that a record matches; `key` is its name as `Policing.name_key` spells it."""
        for text, need in self._by_name.get(key, ()):
            if self._meets(key, text, need, facts):
                return text
        for text, need in self._nameless:
            if need.matches(facts):
                return text
        return None

    def _meets(self, key: str, text: str, need: Need, facts: Facts) -> bool:
        if not need.versions_only:
            return need.matches(facts)
        place = (key, text, facts.version)
        found = self._judged.get(place)
        if found is None:
            found = self._judged[place] = need.matches(facts)
        return found


def check_specs(texts: Sequence[str], policing: Policing, path: str) -> None:
    """Raise Invalid, with the place, for the first spec that a family cannot read."""
    for number, text in enumerate(texts):
        try:
            policing.requirement(text)
        except Invalid as error:
            raise Invalid(error.message, hint=error.hint, path=f"{path}[{number}]") from None
