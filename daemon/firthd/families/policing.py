"""The only place that says what policies ask of a family: facts of records, specs, dependencies, versions.

`FamilyRules.policing` names the one object of a family that answers; worker processes import it, and it reads nothing.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

from msgspec import Struct

from firth_protocol.types import Family
from firthd.families.base import Comparable, Entry, Facts, Requirement


class Need(Requirement, Protocol):
    """A parsed spec as policies use it."""

    @property
    def versions_only(self) -> bool:
        """Whether name and version alone decide: then one file of a version stands for all of them."""

    @property
    def extras(self) -> Collection[str]:
        """What is wanted of the package beside what it always needs."""


class LicenseSyntax(StrEnum):
    """How a family's licence texts are written."""

    CONDA = "conda"  # SPDX or free text, a family beside it
    PYTHON = "python"  # an SPDX expression, classifiers, or free text
    R = "r"  # alternatives of names with versions


@runtime_checkable
class SignsFiles(Protocol):
    """A listing that knows which of its files are signed."""

    def signs(self, filename: str) -> bool: ...


class Bounds(NamedTuple):
    """A requirement that is no more than a name and bounds of the version."""

    name: str  # as `Policing.name_key` spells it
    least: str | None = None
    above: bool = False  # `least` itself does not do
    most: str | None = None
    below: bool = False  # `most` itself does not do


@runtime_checkable
class WithBounds(Protocol):
    """Policing of a family most of whose requirements are bounds: reading one so costs a tenth of parsing it."""

    def bounds(self, text: str, /) -> Bounds | None:
        """Return what `dependency` would find of a requirement; None: only that tells."""

    def plain_name(self, text: str, /) -> str | None:
        """Return the name that `dependency` would find, or refuse to read, where the text shows it; None: ask that."""

    def order(self, version: str, /) -> Comparable | None:
        """Return the key by which bounds compare; None: no client can order the version, and it meets nothing."""


@runtime_checkable
class ToldApart(Protocol):
    """Policing of a family whose index tells neither licence nor requirements of a release: files of it do."""

    def tellers(self, part: str, entries: Iterable[Entry], /) -> dict[str, list[Entry]]:
        """Return of each version the files that tell of it, the best first."""

    def small(self, section: str, /) -> bool:
        """Tell whether files of a section hold nothing else, so that reading one costs little."""

    def told(self, path: Path, filename: str, /) -> bytes:
        """Return what a file tells, as a document; one that cannot be read gives a document that says so. Blocks."""

    def with_told(self, facts: Facts, document: bytes | None, /) -> Facts:
        """Return facts with what a document tells of the release; None: nothing was read."""


@runtime_checkable
class PartEach(Protocol):
    """Policing of a family in whose indexes each package is a part: filters that name parts name packages."""

    def part_of(self, name: str, /) -> str:
        """Return the part that a package is, by its name as `Need.name` has it."""


class Brief(Struct, gc=False):
    """What is told of a record that is left out."""

    name: str
    version: str
    build: str = ""
    size: int | None = None


@runtime_checkable
class NamesFirst(Protocol):
    """Policing of a family whose parts list many records: the name of one costs a tenth of its facts."""

    def named(self, entry: Entry, /) -> str:
        """Return a record's name; raise InvalidRecordError for what has none."""

    def platform_of(self, part: str, /) -> str:
        """Return what all files of a part are for."""

    def lean(self, part: str, entries: Iterable[Entry], signs: Callable[[str], bool] | None, /) -> list[Facts | None]:
        """Return facts without digests, times and requirements, half of their size; None for what is no record."""

    def depends_of(self, entry: Entry, /) -> list[str]:
        """Return what a record needs on any platform; nothing for what is no record."""

    def briefs(self, entries: Sequence[Entry], /) -> Sequence[Brief]:
        """Return what `Policing.brief` does of many records; raise InvalidRecordError where one of them is none."""


class Unsolved(NamedTuple):
    """What a solver says."""

    sentences: list[str]  # one for each spec on a platform that cannot be installed
    unasked: int  # how many it had no time for


NOTHING_UNSOLVED = Unsolved([], 0)


@runtime_checkable
class Policing(Protocol):
    """What policies ask of a family; pure, imported by worker processes too."""

    family: Family
    syntax: LicenseSyntax
    platforms: frozenset[str]
    """The words for platforms that its files can have; they are the same in all families."""
    ecosystem: str | None
    """What OSV calls its packages; None: OSV has none of them."""
    everywhere: str
    """The platform whose files go with those of every other one."""

    def facts(self, part: str, entry: Entry, signed: bool | None = None, /) -> Facts:
        """Return what rules need to know of a record; raise InvalidRecordError for what is none."""

    def brief(self, entry: Entry, /) -> Brief:
        """Return the little that is told of a record whose name says that it is left out; raise InvalidRecordError."""

    def name_key(self, name: str, /) -> str:
        """Return a package's name in the spelling that `Need.name` has."""

    def requirement(self, spec: str, /) -> Need:
        """Parse a spec as people write it; raise Invalid, with a hint, for what is none or means nothing."""

    def depends(self, facts: Facts, platform: str, extra: str = "", /) -> Iterable[str]:
        """Return what a record needs on a platform, or what an extra of it needs, each as `dependency` takes it."""

    def dependency(self, text: str, /) -> Need | None:
        """Parse a requirement of a record; None: it is given. Raise ValueError for one that cannot be read."""

    def version_key(self, version: str, /) -> Comparable:
        """Return a sort key; spellings of one version have equal ones."""

    def prerelease(self, version: str, /) -> bool:
        """Tell whether a version comes before a release."""

    def newer_form(self, facts: Facts, /) -> str | None:
        """Return the file name of the same build in a newer form, None where this is the newest."""

    def unsolved(self, kept: Sequence[tuple[str, Entry]], wanted: Sequence[tuple[str, str]], /) -> Unsolved:
        """Return what of `wanted` cannot be installed; nothing where the family has no solver.

        `kept` are all records with their parts, `wanted` are specs with the platforms on which they are wanted.
        """
