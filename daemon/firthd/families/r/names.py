"""The only place that decides which names of an R source are fit for a path, an address and a screen, and for R.

Everything here judges hostile input.
"""

import re
from functools import lru_cache

SOURCES = "src/contrib"
ARCHIVE = "src/contrib/Archive"
WINDOWS = "bin/windows/contrib"
MACOS_BUILDS = {
    "bin/macosx/big-sur-arm64/contrib": "osx-arm64",
    "bin/macosx/big-sur-x86_64/contrib": "osx-64",
    "bin/macosx/sonoma-arm64/contrib": "osx-arm64",
    "bin/macosx/sonoma-x86_64/contrib": "osx-64",
    "bin/macosx/contrib": "osx-64",
}
"""Where R looks for macOS binaries, and what they run on."""
KNOWN_VERSIONS = tuple(f"4.{number}" for number in range(10))
"""R versions whose binaries are looked for where none are named."""

EXTENSIONS = (".tar.gz", ".tar.bz2", ".tar.xz", ".tgz", ".zip")
MAX_NAME = 128
MAX_VERSION = 64
MAX_FILENAME = 211
MAX_FOLDERS = 4
INT_MAX = 2**31 - 1
"""R keeps each number of a version in 32 bits."""

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9.]*[A-Za-z0-9]")
_VERSION = re.compile(r"[0-9]+(?:[.-][0-9]+)+")
_R_VERSION = re.compile(r"[0-9]+(?:[.-][0-9]+)*")
_BINARIES = re.compile(r"bin/(?:windows|macosx)(?:/[a-z0-9][a-z0-9_.-]{0,40})?/contrib/[0-9]{1,2}\.[0-9]{1,2}")
_SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+~=-]*")
_ON_R = re.compile(r"R[ \t\r\n\f\v]*\(")
_ON_R_RIGHT = re.compile(r"R[ \t\r\n\f\v]*\((?:<|>|<=|>=|==|!=)[ \t\r\n\f\v]+([0-9.-]+)\)[ \t\r\n\f\v]*")
_COMMAS = re.compile(r"[ \t\r\n\f\v]*,[ \t\r\n\f\v]*")


def valid_name(name: str) -> bool:
    """Tell whether a package can be called so: a letter, then letters, digits and dots, no dot at the end."""
    return len(name) <= MAX_NAME and _NAME.fullmatch(name) is not None


@lru_cache(maxsize=4096)
def valid_version(version: str) -> bool:
    """Tell whether R can compare a package's version: at least two numbers with dots or dashes between."""
    return len(version) <= MAX_VERSION and _VERSION.fullmatch(version) is not None and _in_bounds(version)


def _in_bounds(version: str) -> bool:
    return all(len(number) <= 20 and int(number) <= INT_MAX for number in re.split(r"[.-]", version))


def depends_problem(depends: str) -> str | None:
    """Return what R's `available.packages` would stop at in a field Depends, None when there is nothing."""
    for item in _COMMAS.split(depends.lstrip(" \t\r\n\f\v")):
        if _ON_R.match(item) is None:
            continue
        right = _ON_R_RIGHT.fullmatch(item)
        version = "" if right is None else right[1]
        if _R_VERSION.fullmatch(version) is None or not _in_bounds(version):
            return f"R cannot read what it says of R's own version ({item[:60]}), and would refuse the whole repository"
    return None


def valid_part(part: str) -> bool:
    """Tell whether this is a folder that R looks for packages in, or the archive of the sources."""
    return part in (SOURCES, ARCHIVE) or _BINARIES.fullmatch(part) is not None


def filename_problem(filename: str) -> str | None:
    """Return what is wrong with a file's path below its part, None when nothing is. It does not repeat the name."""
    if len(filename) > MAX_FILENAME:
        return f"the file name has {len(filename)} characters; at most {MAX_FILENAME} are taken"
    *folders, last = filename.split("/")
    if len(folders) > MAX_FOLDERS:
        return "the file lies too deep"
    if any(_SEGMENT.fullmatch(segment) is None or ".." in segment for segment in (*folders, last)):
        return "the file name holds what no package file name has"
    if folders and folders[0] == "Meta":
        return "the file would lie among the index's own"
    extension = next((ending for ending in EXTENSIONS if last.endswith(ending)), None)
    if extension is None:
        return f"the file name does not end in {' or '.join(EXTENSIONS)}"
    return None if len(last) > len(extension) else "the file name is only an extension"


def extension_of(part: str) -> str:
    """Return how files of a part end where their record does not say."""
    if part.startswith("bin/windows/"):
        return ".zip"
    return ".tgz" if part.startswith("bin/macosx/") else ".tar.gz"


def platform_of(part: str) -> str:
    """Return what files of a part run on, by the names that policies use for all families."""
    if not part.startswith("bin/"):
        return "noarch"
    if part.startswith("bin/windows/"):
        return "win-64"
    return MACOS_BUILDS.get(part.rpartition("/")[0]) or ("osx-arm64" if "arm64" in part else "osx-64")
