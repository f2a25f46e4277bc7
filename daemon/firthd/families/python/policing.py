"""The only place that answers what policies ask of Python: facts of records, specs, versions, what files are for.

An index says of a file neither its licence nor what it needs: core metadata does. Where none was read the one is
unknown, the other is told as missing.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from msgspec.structs import replace
from packaging.requirements import Requirement as Parsed

from firth_protocol.types import Family
from firthd.families.base import Comparable, Entry, Facts, InvalidRecordError
from firthd.families.policing import NOTHING_UNSOLVED, Brief, LicenseSyntax, Unsolved
from firthd.families.python import core_metadata, requirement
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
NEEDS = "what is needed by"
"""Stands before a project's name and version for requirements that nobody knows."""


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
            depends=[f"{NEEDS} {part} {file.version}"],
        )

    def brief(self, entry: Entry) -> Brief:
        fields = fields_of(entry.raw)
        name = entry.package
        return Brief(name, taken_apart(entry.filename.removesuffix(METADATA_ENDING), name).version, "", fields.size)

    def name_key(self, name: str) -> str:
        return normalised(name)

    def part_of(self, name: str) -> str:
        return name

    def requirement(self, spec: str) -> PythonRequirement:
        return requirement.requirement(spec)

    def depends(self, facts: Facts, platform: str, extra: str = "") -> Iterable[str]:
        if facts.depends and facts.depends[0].startswith(NEEDS):
            return () if extra else facts.depends
        return [text for text in facts.depends if core_metadata.needed(text, platform, extra)]

    def tellers(self, part: str, entries: Iterable[Entry]) -> dict[str, list[Entry]]:
        return core_metadata.tellers(entries, part)

    def small(self, section: str) -> bool:
        return section == METADATA

    def told(self, path: Path, filename: str) -> bytes:
        return core_metadata.encode(core_metadata.told(path, filename))

    def with_told(self, facts: Facts, document: bytes | None) -> Facts:
        if document is None:
            return facts
        told = core_metadata.decode(document)
        depends = list(told.requires)
        if told.problem is not None:
            depends = [f"{NEEDS} {facts.name} {facts.version}: {told.problem}"]
        nothing = told.problem is not None and told.license is None and not told.classifiers
        return replace(
            facts, license=NOT_TOLD if nothing else told.license, classifiers=told.classifiers, depends=depends
        )

    def dependency(self, text: str) -> PythonRequirement | None:
        if text.startswith(NEEDS):
            problem = text.partition(": ")[2]
            raise ValueError(problem or "its core metadata is not read; allow what it needs by name")
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
