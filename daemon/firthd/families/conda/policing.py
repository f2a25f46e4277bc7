"""The only place that answers what policies ask of conda: facts of records, specs, dependencies, the twin of a file."""

import re
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter

import msgspec
from msgspec import Struct

from firth_protocol.errors import Invalid
from firth_protocol.types import Family
from firthd.families.base import Comparable, Entry, Facts, InvalidRecordError
from firthd.families.conda.names import KNOWN_SUBDIRS, NOARCH
from firthd.families.conda.records import license_text, milliseconds, printable
from firthd.families.conda.requirements import (
    CondaRequirement,
    bounds,
    order,
    plain_name,
    requirement,
    strict_requirement,
)
from firthd.families.conda.solving import unsolved
from firthd.families.conda.versions import order_key
from firthd.families.policing import Bounds, Brief, LicenseSyntax, Unsolved

VIRTUAL = "__"
"""How the names of virtual packages begin: the machine has them, no channel does."""
TEXTS_REMEMBERED = 250_000
"""Real indexes have a fifth of that; one that has more says hardly any text twice."""
OLD_FORM, NEW_FORM = ".tar.bz2", ".conda"

# The letter of 1.1.1a and 2024a is part of a release; only with a number behind it does it mean a pre-release.
_prerelease = re.compile(r"(?<![a-z])(?:(?:alpha|beta|rc|pre|preview|dev)\d*|[abc]\d+)(?![a-z])", re.IGNORECASE).search

NOT_READ: list[str] = []
"""Stands for what records need that are looked at for all else."""


class _Fields(Struct, gc=False):
    """What rules need of a record; what is not as it should be is refused, like at reading."""

    name: str
    version: str
    build: str = ""
    build_number: int = 0
    size: int | None = None
    sha256: str | None = None
    md5: str | None = None
    license: object = None
    license_family: object = None
    timestamp: object = None
    indexed_timestamp: object = None
    depends: list[str] = []


class _Needs(Struct, gc=False):
    depends: list[str] = []


class _Named(Struct, gc=False):
    name: str


_raw = attrgetter("raw")
_decode_named = msgspec.json.Decoder(_Named).decode
_decode_brief = msgspec.json.Decoder(Brief).decode
_decode = msgspec.json.Decoder(_Fields).decode
_decode_needs = msgspec.json.Decoder(_Needs).decode


class CondaPolicing:
    """A part is a subdir, and says what its files are for."""

    family = Family.CONDA
    syntax = LicenseSyntax.CONDA
    platforms = frozenset(KNOWN_SUBDIRS)
    ecosystem: str | None = None
    everywhere = NOARCH

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}
        self._licenses: dict[str, str] = {}

    def facts(self, part: str, entry: Entry, signed: bool | None = None) -> Facts:
        try:
            fields = _decode(entry.raw)
        except (msgspec.MsgspecError, ValueError) as error:
            raise InvalidRecordError(f"the record is not as it should be: {printable(str(error), 200)}") from None
        except RecursionError:
            raise InvalidRecordError("the record is nested too deeply") from None
        one = self._remembered()
        return Facts(
            name=one(fields.name, fields.name),
            version=one(fields.version, fields.version),
            build=fields.build,
            build_number=fields.build_number,
            part=part,
            license=self._license(fields.license),
            timestamp=milliseconds(fields.timestamp),
            size=fields.size,
            sha256=fields.sha256,
            # Half a million of them are 60 MB that one digest makes needless.
            md5=None if fields.sha256 else fields.md5,
            depends=[one(text, text) for text in fields.depends],
            filename=entry.filename,
            platform=part,
            license_family=self._license(fields.license_family),
            signed=signed,
            indexed=None if fields.indexed_timestamp is None else milliseconds(fields.indexed_timestamp),
        )

    def lean(self, part: str, entries: Iterable[Entry], signs: Callable[[str], bool] | None) -> list[Facts | None]:
        found: list[Facts | None] = []
        one, license_ = self._remembered(), self._license
        for entry in entries:
            try:
                fields = _decode(entry.raw)
            except (msgspec.MsgspecError, ValueError, RecursionError):
                found.append(None)
                continue
            family = fields.license_family
            found.append(
                Facts(
                    name=one(fields.name, fields.name),
                    version=one(fields.version, fields.version),
                    build=fields.build,
                    build_number=fields.build_number,
                    part=part,
                    license=license_(fields.license),
                    timestamp=milliseconds(fields.timestamp),
                    size=fields.size,
                    sha256=None,
                    md5=None,
                    depends=NOT_READ,
                    filename=entry.filename,
                    platform=part,
                    license_family=None if family is None else license_(family),
                    signed=None if signs is None else signs(entry.filename),
                    indexed=None if fields.indexed_timestamp is None else milliseconds(fields.indexed_timestamp),
                )
            )
        return found

    def _remembered(self) -> Callable[[str, str], str]:
        """Return what gives a text that is there already: an index says the same few thousand half a million times."""
        if len(self._texts) > TEXTS_REMEMBERED:
            self._texts.clear()
        return self._texts.setdefault

    def depends_of(self, entry: Entry) -> list[str]:
        try:
            return _decode_needs(entry.raw).depends
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return []

    def named(self, entry: Entry) -> str:
        try:
            return _decode_named(entry.raw).name
        except (msgspec.MsgspecError, ValueError, RecursionError):
            raise InvalidRecordError("the record is not as it should be") from None

    def platform_of(self, part: str) -> str:
        return part

    def brief(self, entry: Entry) -> Brief:
        try:
            return _decode_brief(entry.raw)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            raise InvalidRecordError("the record is not as it should be") from None

    def briefs(self, entries: Sequence[Entry]) -> Sequence[Brief]:
        try:
            return list(map(_decode_brief, map(_raw, entries)))
        except (msgspec.MsgspecError, ValueError, RecursionError):
            raise InvalidRecordError("a record is not as it should be") from None

    def _license(self, said: object) -> str | None:
        if not isinstance(said, str):
            return None
        found = self._licenses.get(said)
        if found is None:
            found = self._licenses[said] = license_text(said) or ""
        return found

    def name_key(self, name: str) -> str:
        return name.lower()

    def requirement(self, spec: str) -> CondaRequirement:
        return strict_requirement(spec)

    def depends(self, facts: Facts, platform: str, extra: str = "") -> Iterable[str]:
        return facts.depends

    def dependency(self, text: str) -> CondaRequirement | None:
        if text.lstrip().startswith(VIRTUAL):
            return None
        try:
            return requirement(text)
        except Invalid as error:
            raise ValueError(error.message) from None

    def bounds(self, text: str) -> Bounds | None:
        return bounds(text)

    def plain_name(self, text: str) -> str | None:
        return plain_name(text)

    def order(self, version: str) -> Comparable | None:
        return order(version)

    def version_key(self, version: str) -> object:
        return order_key(version)

    def prerelease(self, version: str) -> bool:
        return _prerelease(version) is not None

    def newer_form(self, facts: Facts) -> str | None:
        if not facts.filename.endswith(OLD_FORM):
            return None
        return facts.filename.removesuffix(OLD_FORM) + NEW_FORM

    def unsolved(self, kept: Sequence[tuple[str, Entry]], wanted: Sequence[tuple[str, str]]) -> Unsolved:
        return unsolved(kept, wanted)


POLICING = CondaPolicing()
