"""The only place that knows how Python projects and their files are named (PEP 503, PEP 427, PEP 625)."""

import re
import string
from collections.abc import Sequence
from functools import lru_cache

from msgspec import Struct
from packaging.version import Version

MAX_NAME = 200
MAX_FILENAME_BYTES = 255
WHEEL, SDIST, OTHER = "wheel", "sdist", "other"
KINDS = (WHEEL, SDIST, OTHER)
METADATA_ENDING = ".metadata"
SDIST_ENDINGS = (".tar.gz", ".zip")
OTHER_ENDINGS = (
    ".tar.bz2",
    ".tar.xz",
    ".tar.Z",
    ".tgz",
    ".tar",
    ".egg",
    ".exe",
    ".msi",
    ".rpm",
    ".deb",
    ".dmg",
)
ENDINGS = (".whl", *SDIST_ENDINGS, *OTHER_ENDINGS)
NOARCH = "noarch"

_separators = re.compile(r"[-_.]+")
_name = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?").fullmatch
_part = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*").fullmatch
_LINE = "\n"
_IN_NAMES = string.ascii_lowercase.encode() + string.digits.encode() + b"-\n"
_ONE_SPELLING = bytes.maketrans(b"_." + string.ascii_uppercase.encode(), b"--" + string.ascii_lowercase.encode())
_runs = re.compile(b"--+")
_WHEEL_PARTS = (5, 6)  # the sixth is a build tag


class FileName(Struct, frozen=True):
    """What a file name says; `version` is empty where that cannot be told."""

    kind: str
    version: str
    pythons: tuple[str, ...] = ()  # tags such as cp311 and py3
    abis: tuple[str, ...] = ()
    platforms: tuple[str, ...] = ()  # tags such as manylinux_2_28_x86_64 and any


def normalised(name: str) -> str:
    """Return the one spelling of a project's name by which it is compared and addressed (PEP 503)."""
    return _separators.sub("-", name).lower()


def valid_name(name: str) -> bool:
    """Tell whether a project can have this name, in whatever spelling (PEP 508)."""
    return len(name) <= MAX_NAME and _name(name) is not None


def in_one_spelling(names: Sequence[str]) -> bytes | None:
    """Return what `normalised` makes of names, a line each; None unless projects can have all of them.

    Of 800,000 names this takes a sixth of the time that each by itself takes.
    """
    try:
        text = _LINE.join(names).encode("ascii").translate(_ONE_SPELLING)
    except UnicodeEncodeError:
        return None
    if text.count(b"\n") != max(0, len(names) - 1) or text.translate(None, _IN_NAMES):
        return None
    lines = b"\n%b\n" % text
    if names and (any(edge in lines for edge in (b"\n-", b"-\n", b"\n\n")) or max(map(len, names)) > MAX_NAME):
        return None
    return _runs.sub(b"-", text) if b"--" in text else text


def by_one_spelling(names: Sequence[str]) -> dict[str, str]:
    """Return each of these names by what `normalised` makes of it; of two that are the same the later one."""
    spelled = in_one_spelling(names)
    keys = map(normalised, names) if spelled is None else spelled.decode("ascii").split("\n")
    return dict(zip(keys, names, strict=True)) if names else {}


def valid_project(part: str) -> bool:
    """Tell whether this is a project's name in its one spelling."""
    return len(part) <= MAX_NAME and _part(part) is not None


def filename_problem(filename: str) -> str | None:
    """Return why a file of this name can be neither stored nor addressed, None when it can."""
    if not filename or filename in {".", ".."}:
        return "the record names no file"
    if "/" in filename or "\\" in filename or not filename.isprintable():
        return "the file name has characters that no file name has"
    if len(filename.encode("utf-8", "surrogatepass")) > MAX_FILENAME_BYTES:
        return f"the file name is longer than {MAX_FILENAME_BYTES} bytes"
    if filename.startswith(".") or filename != filename.strip():
        return "the file name begins or ends with what no file name has there"
    return None


@lru_cache(maxsize=65536)
def taken_apart(filename: str, project: str) -> FileName:
    """Return what a file name says of a file of this project; one that says nothing is of the kind `other`."""
    if len(filename) > MAX_FILENAME_BYTES:
        return FileName(OTHER, "")
    if filename.endswith(".whl"):
        parts = filename.removesuffix(".whl").split("-")
        if len(parts) in _WHEEL_PARTS:
            tags = [tuple(part.split(".")) for part in parts[-3:]]
            return FileName(WHEEL, version_text(parts[1]), *tags)
        return FileName(WHEEL, "")
    for kind, endings in ((SDIST, SDIST_ENDINGS), (OTHER, OTHER_ENDINGS)):
        ending = next((ending for ending in endings if filename.endswith(ending)), None)
        if ending is not None:
            version = _version_after(filename.removesuffix(ending), project)
            if kind == OTHER:  # such as 1.0-py2.7 and 1.0.win32-py2.7
                version = version.partition("-py")[0].partition(".win")[0].partition(".linux")[0]
            return FileName(kind, version_text(version))
    return FileName(OTHER, "")


def _version_after(stem: str, project: str) -> str:
    """Return what follows the project's name: old names hold dashes, and so may old versions."""
    places = [place for place, letter in enumerate(stem) if letter == "-"]
    return next((stem[place + 1 :] for place in reversed(places) if normalised(stem[:place]) == project), "")


def version_text(version: str) -> str:
    """Return a version in its one spelling where it has one (PEP 440), else as it is."""
    parsed = parsed_version(version)
    return version if parsed is None else str(parsed)


@lru_cache(maxsize=65536)
def parsed_version(version: str) -> Version | None:
    """Return a version as it is compared, None for what is none."""
    try:
        return Version(version)
    except ValueError:  # no version, or one with a number of thousands of digits
        return None


# --- platforms --------------------------------------------------------------------------------------------------------

_MACHINES = {
    "x86_64": "64",
    "amd64": "64",
    "i686": "32",
    "i386": "32",
    "aarch64": "aarch64",
    "arm64": "arm64",
    "ppc64le": "ppc64le",
    "s390x": "s390x",
    "armv7l": "armv7l",
    "armv6l": "armv6l",
    "riscv64": "riscv64",
}
_linux = re.compile(r"(?:many|musl)?linux(?:\d+|_\d+_\d+)?_(\w+)").fullmatch
_macos = re.compile(r"macosx_\d+_\d+_(\w+)").fullmatch
_WINDOWS = {"win32": "win-32", "win_amd64": "win-64", "win_arm64": "win-arm64"}
_MACOS = {
    "x86_64": ("osx-64",),
    "arm64": ("osx-arm64",),
    "universal2": ("osx-64", "osx-arm64"),
    "intel": ("osx-64",),
}
PLATFORMS = (
    *(f"linux-{machine}" for machine in dict.fromkeys(_MACHINES.values()) if machine != "arm64"),
    "osx-64",
    "osx-arm64",
    *_WINDOWS.values(),
)
ANY = "any"


def platforms_of(tag: str) -> tuple[str, ...]:
    """Return the platforms that a wheel's tag means, in the words of all families; an unknown one stands for itself."""
    if tag == ANY:
        return (NOARCH,)
    if tag in _WINDOWS:
        return (_WINDOWS[tag],)
    if (found := _macos(tag)) is not None:
        return _MACOS.get(found[1], (tag,))
    if (found := _linux(tag)) is not None:
        return (f"linux-{_MACHINES.get(found[1], found[1])}",)
    return (tag,)


def platform_of(filename: str, project: str) -> str:
    """Return what a file is for, as lists of packages show it; sources are for every platform."""
    tags = taken_apart(filename.removesuffix(METADATA_ENDING), project).platforms
    return next((platform for tag in tags for platform in platforms_of(tag)), NOARCH)
