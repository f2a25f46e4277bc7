"""The only place that reads conda specs (MatchSpec, CEP 29) and the facts of a record that they speak of."""

import re
from functools import lru_cache

import msgspec
import rattler
from msgspec import Struct

from firth_protocol.errors import Invalid
from firthd.families.base import Facts, InvalidRecordError
from firthd.families.conda.names import KNOWN_SUBDIRS
from firthd.families.conda.records import RecordFields, checked, fields_of, license_of, milliseconds, printable
from firthd.families.policing import Bounds

SPEC_MAX = 1024
RECORDS_REMEMBERED = 50_000
"""Making a record for rattler costs twenty times what a match does."""
VERSIONS_REMEMBERED = 65_536
FILES = (".conda", ".bz2")
"""What ends so may be the name of a file."""
JUDGED_KEYS = ("version", "build", "build_number", "sha256", "subdir", "channel")
HINT = "write it such as `numpy >=1.26,<3`"

_build_of_people = re.compile(r"[A-Za-z0-9_.*+^$-]+").fullmatch
_keys = re.compile(r"([a-z_0-9]+)\s*=").findall
_bare_word = re.compile(r"[^0-9]*").fullmatch
_operators = re.compile(r"[<>=!~,|()\s]+")
_single_tilde = re.compile(r"~=\s*[0-9]+\s*(?:$|[,|)\s])").search

_version = r"[0-9]+(?:\.[0-9]+)*(?:[a-z]+[0-9]*)?"
_bounds = re.compile(
    r"(?!__)([a-z0-9_][a-z0-9_-]*(?:\.[a-z0-9_-]+)*)"
    rf"(?: (?:(>=?)({_version})(?:, ?(<=?)({_version}))?|(<=?)({_version})))?"
).fullmatch

_plain_name = re.compile(r"(?!__)([a-z0-9_][a-z0-9_-]*(?:\.[a-z0-9_-]+)*)(?: [^\[(:/]*)?").fullmatch

_decode_depends = msgspec.json.Decoder(dict[str, object]).decode


class CondaRequirement(Struct, frozen=True):
    """A parsed MatchSpec."""

    spec: rattler.MatchSpec
    versions_only: bool = False
    subdir: str | None = None
    extras: tuple[str, ...] = ()

    @property
    def name(self) -> str | None:
        """The exact name it asks for."""
        name = self.spec.name
        return None if name is None else name.normalized

    def matches(self, facts: Facts) -> bool:
        """Tell whether a record meets it; one whose version no client could order meets none."""
        if self.subdir is not None and facts.part != self.subdir:  # rattler's own match of a record leaves it out
            return False
        record = _record(
            facts.name, facts.version, facts.build, facts.build_number, facts.part, facts.sha256, facts.md5
        )
        return record is not None and bool(self.spec.matches(record))


@lru_cache(maxsize=RECORDS_REMEMBERED)
def _record(
    name: str, version: str, build: str, number: int, subdir: str, sha256: str | None, md5: str | None
) -> rattler.PackageRecord | None:
    try:
        return rattler.PackageRecord(
            name=name,
            version=version,
            build=rattler.BuildString(build),
            build_number=number,
            subdir=subdir,
            sha256=bytes.fromhex(sha256) if sha256 else None,
            md5=bytes.fromhex(md5) if md5 else None,
        )
    except Exception:  # py-rattler's own classes, and digests that are none
        return None


def requirement(spec: str) -> CondaRequirement:
    """Parse a spec such as `numpy >=1.26,<3`; raises Invalid with the reason."""
    if len(spec) > SPEC_MAX:
        raise Invalid("The spec is too long.", hint="A spec names one package, such as `numpy >=1.26`.")
    try:
        return made(rattler.MatchSpec(spec))
    except Exception as error:  # py-rattler's own classes
        reason = printable(str(error), 300)
        raise Invalid(f"{spec!r} is no conda spec: {reason}", hint="Write it such as `numpy >=1.26,<3`.") from None


def bounds(text: str) -> Bounds | None:
    """Return a requirement as most records write theirs, `numpy` or `numpy >=1.26,<3`; None: it has to be parsed."""
    match = _bounds(text)
    if match is None or text.endswith(FILES):
        return None
    name, low, least, high, most, alone, only = match.groups()
    return Bounds(name, least, low == ">", most or only, (high or alone) == "<")


def plain_name(text: str) -> str | None:
    """Return the name that a requirement is about where it stands alone at the beginning; None: it has to be parsed."""
    match = _plain_name(text)
    return None if match is None or text.endswith(FILES) else match[1]


@lru_cache(maxsize=VERSIONS_REMEMBERED)
def order(version: str) -> rattler.Version | None:
    """Return a version as bounds compare it; None for one that no client could order."""
    try:
        return rattler.Version(version)
    except Exception:  # py-rattler's own class
        return None


def made(spec: rattler.MatchSpec) -> CondaRequirement:
    """Return the requirement of a MatchSpec."""
    others = (spec.build, spec.build_number, spec.file_name, spec.subdir, spec.md5, spec.sha256, spec.channel)
    subdir = None if spec.subdir is None else str(spec.subdir)
    return CondaRequirement(spec, all(other is None for other in others) and spec.name is not None, subdir)


def strict_requirement(spec: str) -> CondaRequirement:
    """Parse a spec as people write it for a policy; raises Invalid for what rattler takes and nobody means.

    The lenient parser reads `numpy >=1.26 <3` as a build `<3`, and `==1.*` is `1.*`: what the strict one refuses is
    taken only where its build is one and no version is a bare word.
    """
    found = requirement(spec)
    if found.name is None or not found.name:
        raise Invalid(f"{spec!r} names no package", hint=HINT)
    _check_keys(spec)
    version = found.spec.version
    said = "" if version is None else str(version)
    if _single_tilde(f"{spec} "):
        raise Invalid(f"{spec!r}: `~=` with one number has no upper bound", hint="write two numbers, such as `~=1.4`")
    try:
        rattler.MatchSpec(spec, strict=True)
    except Exception as error:
        build = found.spec.build
        if build is not None and _build_of_people(str(build)) is None:
            raise Invalid(
                f"{spec!r} is no conda spec: {printable(str(error), 200)}", hint=f"a comma may be missing; {HINT}"
            ) from None
        words = [word for word in _operators.split(said) if word]
        if any(_bare_word(word.strip("*.")) and word.strip("*.") for word in words):
            raise Invalid(f"{spec!r}: a version begins with a number", hint=HINT) from None
    return found


def _check_keys(spec: str) -> None:
    """Raise Invalid for what a spec may say of a package and no policy can judge by a record."""
    if "://" in spec:
        raise Invalid(f"{spec!r} is an address", hint=HINT)
    _, _, inside = spec.partition("[")
    for key in _keys(inside):
        if key not in JUDGED_KEYS:
            raise Invalid(f"{spec!r}: no policy judges by `{key}`", hint=f"it may say {', '.join(JUDGED_KEYS)}")
    channel, between, _ = spec.partition("::")
    if between and channel.strip() in KNOWN_SUBDIRS:
        raise Invalid(
            f"{spec!r} names {channel.strip()} as a channel", hint=f"write it as `name[subdir={channel.strip()}]`"
        )


def facts(subdir: str, raw: bytes) -> Facts:
    """Return what rules need to know of a record; raises ValueError for what is no record."""
    try:
        fields: RecordFields = fields_of(raw)
        size, sha256, md5 = checked(fields)
        depends = _decode_depends(raw).get("depends")
    except InvalidRecordError as error:
        raise ValueError(str(error)) from None
    return Facts(
        name=fields.name,
        version=fields.version,
        build=fields.build,
        build_number=fields.build_number,
        part=subdir,
        license=license_of(fields),
        timestamp=milliseconds(fields.timestamp),
        size=size,
        sha256=sha256.hex() if sha256 else None,
        md5=md5.hex() if md5 else None,
        depends=[spec for spec in depends if isinstance(spec, str)] if isinstance(depends, list) else [],
    )
