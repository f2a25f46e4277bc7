"""The only place that answers what policies ask of Python: facts of records, specs, versions, what files are for.

An index says of a file neither its licence nor what it needs: the one is unknown, the other is told as missing.
"""

from collections.abc import Iterable, Sequence

from msgspec.structs import replace
from packaging.requirements import Requirement as Parsed

from firth_protocol.types import Family
from firthd.families.base import Comparable, Entry, Facts, InvalidRecordError
from firthd.families.policing import NOTHING_UNSOLVED, Brief, LicenseSyntax, Unsolved
from firthd.families.python import requirement
from firthd.families.python.names import (
    METADATA_ENDING,
    NOARCH,
    PLATFORMS,
    normalised,
    platforms_of,
    taken_apart,
)
from firthd.families.python.records import METADATA, fields_of
from firthd.families.python.requirement import PythonRequirement
from firthd.families.python.requirements import facts

NOT_TOLD = "not told in the index"
"""What stands for the licence of a file."""
NEEDS = "what it needs"
"""Stands after a project's name for the requirements of its files, which no index tells."""


class PythonPolicing:
    """A part is a project. A wheel for several platforms goes with all of them."""

    family = Family.PYTHON
    syntax = LicenseSyntax.PYTHON
    platforms = frozenset({NOARCH, *PLATFORMS})
    ecosystem: str | None = "PyPI"
    everywhere = NOARCH

    def facts(self, part: str, entry: Entry, signed: bool | None = None) -> Facts:
        try:
            found = facts(part, bytes(entry.raw))
        except InvalidRecordError:
            raise
        except ValueError as error:
            raise InvalidRecordError(str(error)) from None
        file = taken_apart(entry.filename.removesuffix(METADATA_ENDING), part)
        platforms = {platform for tag in file.platforms for platform in platforms_of(tag)}
        return replace(
            found,
            filename=entry.filename,
            platform=platforms.pop() if len(platforms) == 1 else NOARCH,
            license=NOT_TOLD,
            counts=entry.section != METADATA,
            # A file's core metadata comes and goes with it, whatever is told of its own record.
            signed=entry.section == METADATA or bool(fields_of(entry.raw).provenance),
            indexed=found.timestamp,
            depends=[f"{part} {NEEDS}"],
        )

    def brief(self, entry: Entry) -> Brief:
        fields = fields_of(entry.raw)
        name = entry.package
        return Brief(name, taken_apart(entry.filename.removesuffix(METADATA_ENDING), name).version, "", fields.size)

    def name_key(self, name: str) -> str:
        return normalised(name)

    def requirement(self, spec: str) -> PythonRequirement:
        return requirement.requirement(spec)

    def depends(self, facts: Facts, platform: str) -> Iterable[str]:
        return facts.depends

    def dependency(self, text: str) -> PythonRequirement | None:
        if text.endswith(NEEDS):
            raise ValueError("its core metadata is not read; allow what it needs by name")
        found: Parsed = requirement.dependency(text)
        return requirement.of(found)

    def version_key(self, version: str) -> Comparable:
        return requirement.version_key(version)

    def prerelease(self, version: str) -> bool:
        return requirement.prerelease(version)

    def newer_form(self, facts: Facts) -> str | None:
        return None

    def unsolved(self, kept: Sequence[tuple[str, Entry]], wanted: Sequence[tuple[str, str]]) -> Unsolved:
        return NOTHING_UNSOLVED


POLICING = PythonPolicing()
