"""The only place that knows what a mirror of a Python index may leave out."""

import re
from collections.abc import Callable, Sequence

from msgspec.structs import replace
from packaging.specifiers import InvalidSpecifier, SpecifierSet

from firth_protocol.errors import Invalid
from firth_protocol.types import Filters
from firthd.families.base import Entry, InvalidRecordError
from firthd.families.python.names import (
    ANY,
    KINDS,
    METADATA_ENDING,
    NOARCH,
    PLATFORMS,
    WHEEL,
    FileName,
    by_one_spelling,
    filename_problem,
    parsed_version,
    platforms_of,
    taken_apart,
    valid_name,
)
from firthd.families.python.records import fields_of

REQUIRED_MAX = 1000
"""Characters of Requires-Python that are looked at: numbers and commas without end take time without end."""
FIELDS = frozenset({"projects", "package_types", "python_versions", "platforms", "prereleases"})
_python = re.compile(r"[23]\.\d{1,2}").fullmatch
_tag = re.compile(r"([a-z]+)(\d)(\d*)").fullmatch
_KINDS_TOO = {"bdist_wheel": "wheel", "wheels": "wheel", "source": "sdist", "sdists": "sdist"}
_EMPTY = {
    "projects": "leave it out for all that the source has",
    "package_types": "leave it out for all kinds",
    "python_versions": "leave it out for all Pythons",
    "platforms": "leave it out for all platforms",
}


def check_filters(filters: Filters) -> list[str]:
    """Return warnings; raise Invalid for what can name nothing."""
    for field, hint in _EMPTY.items():
        if getattr(filters, field) == []:
            raise Invalid(f"filters.{field} is empty", hint=hint, path=f"$.filters.{field}")
    for number, name in enumerate(filters.projects or ()):
        if not valid_name(name):
            raise Invalid(
                f"{name[:80]!r} is no name of a project",
                hint="a name has letters, digits, dashes, dots and underscores, such as numpy; versions are a policy's",
                path=f"$.filters.projects[{number}]",
            )
    for number, kind in enumerate(filters.package_types or ()):
        if kind not in KINDS:
            meant = _KINDS_TOO.get(kind)
            hint = f"did you mean {meant}?" if meant else f"there are {', '.join(KINDS)}"
            raise Invalid(f"{kind[:40]!r} is no kind of file", hint=hint, path=f"$.filters.package_types[{number}]")
    for number, version in enumerate(filters.python_versions or ()):
        if _python(version) is None:
            raise Invalid(
                f"{version[:40]!r} is no version of Python",
                hint="write major and minor, such as 3.12",
                path=f"$.filters.python_versions[{number}]",
            )
    for number, platform in enumerate(filters.platforms or ()):
        if not re.fullmatch(r"[A-Za-z0-9_.-]{1,60}", platform):
            raise Invalid(
                f"{platform[:60]!r} is no platform",
                hint="a platform is such as linux-64, osx-arm64 or win-64",
                path=f"$.filters.platforms[{number}]",
            )
    return list(_doubts(filters.platforms or ()))


def _doubts(platforms: Sequence[str]) -> list[str]:
    found = []
    for platform in platforms:
        meant = platforms_of(platform)
        if platform in PLATFORMS or platform in {ANY, NOARCH}:
            continue
        if meant != (platform,):
            raise Invalid(
                f"{platform!r} is a tag of wheels", hint=f"write {' and '.join(meant)}", path="$.filters.platforms"
            )
        found.append(f"no wheel is known for the platform {platform}: is it spelled right?")
    return found


def only(filters: Filters) -> frozenset[str] | None:
    """Return the projects that the filters leave."""
    return None if filters.projects is None else frozenset(by_one_spelling(filters.projects))


def named(filters: Filters, names: Sequence[str]) -> Filters:
    """Return filters that name these projects, where they name none."""
    return filters if filters.projects is not None else replace(filters, projects=list(names))


def taker(filters: Filters) -> Callable[[Entry], bool] | None:
    """Return what tells whether a mirror takes a project's file; None: it takes all of them."""
    chooses = (filters.package_types, filters.python_versions, filters.platforms)
    if all(one is None for one in chooses) and filters.prereleases is not False:
        return None

    def taken(entry: Entry) -> bool:
        if filename_problem(entry.filename) is not None:
            return True  # what is wrong with it is told when it is read
        filename = entry.filename.removesuffix(METADATA_ENDING)
        told = taken_apart(filename, entry.package)
        if filters.package_types is not None and told.kind not in filters.package_types:
            return False
        if filters.prereleases is False and _prerelease(told.version):
            return False
        if filters.platforms is not None and not _for_platforms(told, filters.platforms):
            return False
        return filters.python_versions is None or _for_pythons(told, entry, filters.python_versions)

    return taken


def _prerelease(version: str) -> bool:
    parsed = parsed_version(version)
    return parsed is not None and parsed.is_prerelease


def _for_platforms(told: FileName, wanted: Sequence[str]) -> bool:
    """Tell whether a file is for one of these platforms; what is for all of them always is."""
    found = {platform for tag in told.platforms for platform in (tag, *platforms_of(tag))}
    return not told.platforms or NOARCH in found or not found.isdisjoint(wanted)


def _for_pythons(told: FileName, entry: Entry, wanted: Sequence[str]) -> bool:
    """Tell whether one of these Pythons can use a file, by its tags and by what it requires."""
    able = [version for version in wanted if told.kind != WHEEL or not told.pythons or _runs_on(told, version)]
    if not able:
        return False
    try:
        required = fields_of(entry.raw).requires_python
    except InvalidRecordError:
        return True  # what is wrong with it is told when it is read
    if not required or len(required) > REQUIRED_MAX:
        return True
    try:
        specifiers = SpecifierSet(required)
    except InvalidSpecifier:
        return True
    # Of a minor version any patch may do: the first and a late one.
    return any(specifiers.contains(f"{version}.{patch}", prereleases=True) for version in able for patch in (0, 99))


def _runs_on(told: FileName, version: str) -> bool:
    major, minor = (int(number) for number in version.split("."))
    stable = any(abi.startswith("abi3") for abi in told.abis)
    for tag in told.pythons:
        found = _tag(tag)
        if found is None or int(found[2]) != major:
            continue
        if not found[3] or int(found[3]) == minor:
            return True
        if int(found[3]) < minor and (stable or (found[1] == "py")):
            return True
    return False
