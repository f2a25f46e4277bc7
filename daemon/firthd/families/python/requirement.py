"""The only place that reads Python requirements (PEP 508) for policies and orders versions (PEP 440)."""

from msgspec import Struct
from packaging.requirements import InvalidRequirement
from packaging.requirements import Requirement as Parsed
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from firth_protocol.errors import Invalid
from firthd.families.base import Facts
from firthd.families.python.names import parsed_version

SPEC_MAX = 1024
HINT = "write it such as `numpy >=1.26,<3`"


class PythonRequirement(Struct, frozen=True):
    """A normalised name, a specifier, and the extras that are wanted with it."""

    name: str
    specifier: SpecifierSet
    versions_only: bool = True
    extras: frozenset[str] = frozenset()

    def matches(self, facts: Facts) -> bool:
        """Tell whether a record meets it: pre-releases do like others, for a policy says what may enter.

        A version that is none by PEP 440 meets no specifier.
        """
        if canonicalize_name(facts.name) != self.name:
            return False
        if not self.specifier:
            return True
        version = parsed_version(facts.version)
        return version is not None and self.specifier.contains(version, prereleases=True)


def requirement(spec: str) -> PythonRequirement:
    """Parse a spec such as `numpy >=1.26,<3`; raises Invalid for what is none, or what means something else elsewhere.

    A trailing comma, `===`, markers and addresses are refused: no other family has them.
    """
    found = _parse(spec)
    if spec.rstrip().endswith(","):
        raise Invalid(f"{spec!r} ends in a comma", hint=HINT)
    if any(one.operator == "===" for one in found.specifier):
        raise Invalid(f"{spec!r}: `===` compares text, not versions", hint="write ==1.26")
    if found.marker is not None or found.url is not None:
        raise Invalid(f"{spec!r}: a policy's spec has no marker and no address", hint=HINT)
    return of(found)


def of(found: Parsed) -> PythonRequirement:
    """Return the requirement of a parsed one; its marker is another's to look at."""
    extras = frozenset(str(canonicalize_name(extra)) for extra in found.extras)
    return PythonRequirement(str(canonicalize_name(found.name)), found.specifier, extras=extras)


def dependency(text: str) -> Parsed:
    """Parse one Requires-Dist; raises ValueError for one that cannot be read or that no index can meet."""
    try:
        found = Parsed(text)
    except InvalidRequirement as error:
        raise ValueError(f"{text!r}: {error}") from None
    if found.url is not None:
        raise ValueError(f"{text!r} asks for an address, which no mirror can meet")
    return found


def _parse(spec: str) -> Parsed:
    if len(spec) > SPEC_MAX:
        raise Invalid("The spec is too long.", hint=HINT)
    try:
        return Parsed(spec)
    except InvalidRequirement as error:
        reason = str(error).split("\n")[0]
        raise Invalid(
            f"{spec!r} is no Python spec: {reason}", hint=f"{HINT}; one version is ==1.26 or ==1.26.*"
        ) from None


def version_key(version: str) -> tuple[int, Version | str]:
    """Return a sort key in which spellings of one version are equal; what is no version comes before all others."""
    found = parsed_version(version)
    return (0, version) if found is None else (1, found)


def prerelease(version: str) -> bool:
    """Tell whether a version comes before a release."""
    found = parsed_version(version)
    return found is not None and found.is_prerelease
