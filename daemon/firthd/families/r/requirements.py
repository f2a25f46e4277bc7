"""The only place that reads specs of R packages: a name and comparisons, such as `dplyr >=1.0,<2`."""

import re

from msgspec import Struct

from firth_protocol.errors import Invalid
from firthd.families.base import Facts
from firthd.families.r.names import valid_name
from firthd.families.r.versions import COMPARISONS, numbers

SPEC_MAX = 1024
_SPEC = re.compile(r"\s*([A-Za-z][A-Za-z0-9.]*)\s*(?:\((.*)\)|(.*?))\s*", re.DOTALL)
_COMPARISON = re.compile(r"\s*(>=|<=|==|!=|>|<|=)?\s*([0-9]+(?:[.-][0-9]+)*)\s*")


class RRequirement(Struct, frozen=True):
    """A parsed spec."""

    package: str
    comparisons: tuple[tuple[str, tuple[int, ...]], ...]

    @property
    def name(self) -> str | None:
        """The exact name it asks for."""
        return self.package

    def matches(self, facts: Facts) -> bool:
        """Tell whether a record meets it; a version that R cannot compare meets no comparison."""
        if facts.name != self.package:
            return False
        if not self.comparisons:
            return True
        version = numbers(facts.version)
        return version is not None and all(COMPARISONS[how](version, wanted) for how, wanted in self.comparisons)


def requirement(spec: str) -> RRequirement:
    """Parse a spec such as `dplyr`, `dplyr >=1.0,<2` or `dplyr (>= 1.0)`; raises Invalid with the reason."""
    hint = "Write it such as `dplyr >=1.0,<2`."
    if len(spec) > SPEC_MAX:
        raise Invalid("The spec is too long.", hint=hint)
    match = _SPEC.fullmatch(spec)
    if match is None or not valid_name(match[1]):
        raise Invalid(f"{spec!r} names no R package.", hint=hint)
    comparisons = []
    told = (match[2] if match[2] is not None else match[3]).strip()
    for item in told.split(",") if told else ():
        found = _COMPARISON.fullmatch(item)
        version = None if found is None else numbers(found[2])
        if found is None or version is None:
            raise Invalid(f"{spec!r} has a comparison that is none: {item.strip()[:60]!r}.", hint=hint)
        comparisons.append(({"=": "==", None: "=="}.get(found[1], found[1]), version))
    return RRequirement(match[1], tuple(comparisons))
