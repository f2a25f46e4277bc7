"""The only place that knows what a mirror of an R repository may leave out."""

import re
from collections.abc import Callable

from firth_protocol.errors import Invalid
from firth_protocol.types import Filters
from firthd.families.base import Entry, InvalidRecordError
from firthd.families.r.dcf import fields_of
from firthd.families.r.names import ARCHIVE, KNOWN_VERSIONS, MACOS_BUILDS, SOURCES, WINDOWS, valid_name

FIELDS = frozenset({"packages", "r_versions", "platforms", "archive"})
SOURCE_PLATFORM, WINDOWS_PLATFORM, MACOS_PLATFORM = "source", "windows", "macos"
PLACES = {SOURCE_PLATFORM: SOURCES, WINDOWS_PLATFORM: "bin/windows/", MACOS_PLATFORM: "bin/macosx/"}
"""How the parts of a platform begin."""
PLATFORMS = tuple(PLACES)
_SHOWN = 64
_version = re.compile(r"[1-9][0-9]?\.[0-9]{1,2}").fullmatch


def check_filters(filters: Filters) -> list[str]:
    """Return warnings; raise Invalid for what can name nothing."""
    warnings = []
    for field in ("packages", "r_versions", "platforms"):
        if getattr(filters, field) is not None and not getattr(filters, field):
            raise Invalid(f"filters.{field} is empty", hint="leave it out for what is usual", path=f"$.filters.{field}")
    for number, name in enumerate(filters.packages or ()):
        if not valid_name(name):
            raise Invalid(
                f"{name[:_SHOWN]!r} is no name of an R package",
                hint="a name is such as ggplot2 or data.table, without a version",
                path=f"$.filters.packages[{number}]",
            )
    for number, version in enumerate(filters.r_versions or ()):
        if _version(version) is None:
            raise Invalid(
                f"{version[:_SHOWN]!r} is no R version that binaries are made for",
                hint="it is such as 4.3: two numbers",
                path=f"$.filters.r_versions[{number}]",
            )
    for number, platform in enumerate(filters.platforms or ()):
        if platform not in PLATFORMS:
            raise Invalid(
                f"{platform[:_SHOWN]!r} is no platform of R packages",
                hint=f"there are {', '.join(PLATFORMS)}",
                path=f"$.filters.platforms[{number}]",
            )
    binaries = {WINDOWS_PLATFORM, MACOS_PLATFORM}.intersection(filters.platforms or ())
    if filters.packages is not None:
        warnings.append("what the named packages depend on is not taken by itself: name it too")
    if filters.r_versions is not None and not binaries:
        warnings.append("r_versions is about binaries: add windows or macos to platforms")
    if filters.archive and SOURCE_PLATFORM not in platforms_of(filters):
        warnings.append("the archive holds sources, which platforms leaves out")
    return warnings


def platforms_of(filters: Filters) -> list[str]:
    """Return the platforms that are taken: the sources where none is named."""
    return filters.platforms if filters.platforms is not None else [SOURCE_PLATFORM]


def parts_of(filters: Filters) -> list[str]:
    """Return the parts that the filters leave, the sources first; the archive is taken unless it is said not to be."""
    platforms = platforms_of(filters)
    versions = sorted(set(filters.r_versions or KNOWN_VERSIONS))
    parts = []
    if SOURCE_PLATFORM in platforms:
        parts += [SOURCES] if filters.archive is False else [SOURCES, ARCHIVE]
    if WINDOWS_PLATFORM in platforms:
        parts += [f"{WINDOWS}/{version}" for version in versions]
    if MACOS_PLATFORM in platforms:
        parts += [f"{build}/{version}" for build in MACOS_BUILDS for version in versions]
    return parts


def only(filters: Filters) -> frozenset[str]:
    """Return the parts that the filters leave."""
    return frozenset(parts_of(filters))


def taker(filters: Filters) -> Callable[[Entry], bool] | None:
    """Return what tells whether a record is wanted, by its package's name; None: every one is."""
    if filters.packages is None:
        return None
    names = frozenset(filters.packages)

    def takes(entry: Entry) -> bool:
        try:
            name = fields_of(bytes(entry.raw)).get("Package")
        except InvalidRecordError:
            return True  # it is told what is wrong with it
        return name is None or name in names

    return takes
