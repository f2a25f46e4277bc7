"""The only place that answers what policies ask of R packages: facts of records, specs, dependencies, versions."""

from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from firth_protocol.errors import Invalid
from firth_protocol.types import Family
from firthd.families.base import Comparable, Entry, Facts, InvalidRecordError
from firthd.families.policing import NOTHING_UNSOLVED, Brief, LicenseSyntax, Unsolved
from firthd.families.r import requirement
from firthd.families.r.dcf import fields_of
from firthd.families.r.names import platform_of
from firthd.families.r.records import ARCHIVED, BASE, facts
from firthd.families.r.requirement import RRequirement

EVERYWHERE = "noarch"
NOT_TOLD = "not told in the archive"
"""What stands for the licence of an archived file: its source says no more of it than size and time."""


class RPolicing:
    """A file's platform is its part's; what comes with R is given."""

    family = Family.R
    syntax = LicenseSyntax.R
    platforms = frozenset({EVERYWHERE, "win-64", "osx-64", "osx-arm64"})
    ecosystem: str | None = "CRAN"
    everywhere = EVERYWHERE

    def facts(self, part: str, entry: Entry, signed: bool | None = None) -> Facts:
        try:
            found = facts(part, bytes(entry.raw))
        except InvalidRecordError:
            raise
        except ValueError as error:
            raise InvalidRecordError(str(error)) from None
        return replace(
            found,
            filename=entry.filename,
            platform=platform_of(part),
            license=NOT_TOLD if entry.section == ARCHIVED and found.license is None else found.license,
            signed=signed,
            indexed=found.timestamp,  # the day on which the repository took it in
        )

    def brief(self, entry: Entry) -> Brief:
        fields = fields_of(bytes(entry.raw))
        return Brief(fields.get("Package", ""), fields.get("Version", ""), "", None)

    def name_key(self, name: str) -> str:
        return name

    def requirement(self, spec: str) -> RRequirement:
        return requirement.requirement(spec)

    def depends(self, facts: Facts, platform: str, extra: str = "") -> Iterable[str]:
        return facts.depends

    def dependency(self, text: str) -> RRequirement | None:
        name, _, needs = text.partition("(")
        if name.strip() in BASE:
            return None
        try:
            return requirement.dependency(text)
        except ValueError as error:
            problem = str(error)
        try:  # what clients install although they cannot read it: `foo (>=1.0)`
            return requirement.requirement(f"{name} {needs.rstrip(' )')}")
        except Invalid:
            raise ValueError(problem) from None

    def version_key(self, version: str) -> Comparable:
        return requirement.version_key(version)

    def prerelease(self, version: str) -> bool:
        return requirement.prerelease(version)

    def newer_form(self, facts: Facts) -> str | None:
        return None

    def unsolved(self, kept: Sequence[tuple[str, Entry]], wanted: Sequence[tuple[str, str]]) -> Unsolved:
        return NOTHING_UNSOLVED


POLICING = RPolicing()
