"""The only place that reads core metadata for policies: what a release's licence is, and what the release needs.

It is whatever somebody once uploaded: only its headers are looked at, and never more than a bound of anything.
"""

import gzip
import io
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import IO

import msgspec
from msgspec import Struct
from packaging.markers import InvalidMarker, Marker, UndefinedComparison, UndefinedEnvironmentName
from packaging.requirements import InvalidRequirement
from packaging.requirements import Requirement as Parsed
from packaging.version import InvalidVersion, Version

from firthd.families.base import Entry
from firthd.families.python.archives import metadata_of_wheel
from firthd.families.python.names import METADATA_ENDING, NOARCH, SDIST, WHEEL, taken_apart
from firthd.families.python.records import METADATA
from firthd.families.zips import DAMAGED
from firthd.upstream.masking import printable

HEADERS_MAX_BYTES = 1 << 20
ARCHIVE_MAX_BYTES = 1 << 26
"""Of an sdist, unpacked, until its metadata has come."""
REQUIRES_MAX = 2000
TEXT_MAX = 1000
LICENSE = "License :: "
SURE_FROM = Version("2.2")
"""Before this version of the metadata, what an sdist says of its requirements may change as it is built (PEP 643)."""
MINORS = range(8, 16)
"""The Pythons for which requirements count, 3.8 to 3.15."""


class Told(Struct, frozen=True, omit_defaults=True):
    """What a release says of itself; `problem`: why that is not known."""

    license: str | None = None
    classifiers: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    problem: str | None = None


encode = msgspec.json.encode
decode = msgspec.json.Decoder(Told).decode


def tellers(entries: Iterable[Entry], project: str) -> dict[str, list[Entry]]:
    """Return of each version the files that tell of it: the metadata of its first wheel, that wheel, its sdist."""
    found: dict[str, dict[str, Entry]] = {}
    for entry in entries:
        told = taken_apart(entry.filename.removesuffix(METADATA_ENDING), project)
        along = entry.section == METADATA
        if told.version and (along or told.kind in (WHEEL, SDIST)):
            found.setdefault(told.version, {}).setdefault(f"{told.kind}{along}", entry)
    order = (f"{WHEEL}True", f"{WHEEL}False", f"{SDIST}True", f"{SDIST}False")
    return {version: [kinds[kind] for kind in order if kind in kinds] for version, kinds in found.items()}


def told(path: Path, filename: str) -> Told:
    """Return what a file tells of its release; one that cannot be read is told as a problem. Blocks."""
    try:
        if filename.endswith(METADATA_ENDING):
            with path.open("rb") as file:
                return of_headers(file.read(HEADERS_MAX_BYTES))
        if filename.endswith(".whl"):
            return of_headers(metadata_of_wheel(path))
        return of_headers(_of_sdist(path, filename), sdist=True)
    except (OSError, EOFError, ValueError, RecursionError, zlib.error, tarfile.TarError, *DAMAGED) as error:
        return Told(problem=printable(str(error))[:TEXT_MAX] or "it cannot be read")


def of_headers(content: bytes, *, sdist: bool = False) -> Told:
    """Return what core metadata says; raise ValueError for what is none."""
    from packaging.metadata import parse_email  # 20 ms, which most workers of the family need not take

    headers = re.split(rb"\r?\n\r?\n", content[:HEADERS_MAX_BYTES].lstrip(), maxsplit=1)[0]
    said, unread = parse_email(headers)
    version = said.get("metadata_version")
    if not version:
        raise ValueError("it is no core metadata: there is no Metadata-Version")
    classifiers = tuple(_short(one) for one in said.get("classifiers", []) if one.startswith(LICENSE))[:REQUIRES_MAX]
    expression = said.get("license_expression")
    text = expression or (None if classifiers else said.get("license") or "; ".join(unread.get("license", [])))
    requires = [*said.get("requires_dist", []), *unread.get("requires-dist", [])]
    if sdist and (_unsure(version) or "requires-dist" in {one.casefold() for one in said.get("dynamic", [])}):
        return Told(_text(text), classifiers, problem="an sdist of it says what it needs only when it is built")
    if len(requires) > REQUIRES_MAX:
        return Told(_text(text), classifiers, problem=f"it names more than {REQUIRES_MAX:,} requirements")
    return Told(_text(text), () if expression else classifiers, tuple(map(_short, requires)))


def _unsure(version: str) -> bool:
    try:
        return Version(version) < SURE_FROM
    except InvalidVersion:
        return True


def _text(said: str | None) -> str | None:
    return _short(said) if said is not None and said.strip() else None


def _short(text: str) -> str:
    return printable(" ".join(text[: TEXT_MAX * 2].split()))[:TEXT_MAX]


def _of_sdist(path: Path, filename: str) -> bytes:
    """Return the metadata of an sdist; raise ValueError where there is none in its first folder."""
    if filename.endswith(".zip"):
        with zipfile.ZipFile(path) as archive:
            name = next((one for one in archive.namelist() if _pkg_info(one)), None)
            if name is not None:
                with archive.open(name) as file:
                    return file.read(HEADERS_MAX_BYTES)
    elif filename.endswith((".tar.gz", ".tgz")):
        with gzip.open(path) as plain, tarfile.open(fileobj=_Bounded(plain), mode="r|") as archive:
            for member in archive:
                if member.isreg() and _pkg_info(member.name):
                    content = archive.extractfile(member)
                    return content.read(HEADERS_MAX_BYTES) if content is not None else b""
    raise ValueError("the sdist holds no core metadata")


_pkg_info = re.compile(r"(?:\./)?[^/]+/PKG-INFO").fullmatch


class _Bounded(io.RawIOBase):
    """A stream that ends in an error after so many bytes: archives of a few bytes can hold any number."""

    def __init__(self, file: IO[bytes] | gzip.GzipFile) -> None:
        self._file = file
        self._left = ARCHIVE_MAX_BYTES

    def read(self, size: int = -1) -> bytes:
        content = self._file.read(min(size, self._left + 1) if size >= 0 else self._left + 1)
        self._left -= len(content)
        if self._left < 0:
            raise ValueError(f"there is no core metadata in its first {ARCHIVE_MAX_BYTES:,} bytes")
        return content


# --- requirements -----------------------------------------------------------------------------------------------------

_SYSTEMS = {
    "linux": ("posix", "linux", "Linux"),
    "osx": ("posix", "darwin", "Darwin"),
    "win": ("nt", "win32", "Windows"),
}
_MACHINES = {"64": "x86_64", "32": "i686"}
_WINDOWS_MACHINES = {"64": "AMD64", "32": "x86", "arm64": "ARM64"}
_ALL = ("linux-64", "osx-arm64", "win-64")
_UNKNOWN_OF_A_TARGET = ("platform_release", "platform_version")


@lru_cache(maxsize=100_000)
def needed(text: str, platform: str, extra: str) -> bool:
    """Tell whether a requirement counts on a platform, of any Python; one that cannot be read does."""
    try:
        marker: Marker | None = Parsed(text).marker
    except (InvalidRequirement, InvalidMarker, ValueError, RecursionError):
        return not extra
    if marker is None:
        return not extra
    said = str(marker)
    if any(word in said for word in _UNKNOWN_OF_A_TARGET):
        return not extra or "extra" in said
    try:
        with_extra = _any(marker, platform, extra)
        return with_extra and (not extra or not _any(marker, platform, ""))
    except (UndefinedEnvironmentName, UndefinedComparison, ValueError, RecursionError):
        return not extra


def _any(marker: Marker, platform: str, extra: str) -> bool:
    platforms = (platform,) if platform != NOARCH else _ALL
    return any(marker.evaluate(_environment(one, minor, extra)) for one in platforms for minor in MINORS)


def _environment(platform: str, minor: int, extra: str) -> dict[str, str | frozenset[str]]:
    """Return every name that a marker may ask for: what is left out would be told of this machine."""
    system, _, machine = platform.partition("-")
    os_name, sys_platform, platform_system = _SYSTEMS.get(system, _SYSTEMS["linux"])
    machines = _WINDOWS_MACHINES if system == "win" else _MACHINES
    return {
        "implementation_name": "cpython",
        "implementation_version": f"3.{minor}.0",
        "os_name": os_name,
        "platform_machine": machines.get(machine, machine),
        "platform_python_implementation": "CPython",
        "platform_release": "",
        "platform_system": platform_system,
        "platform_version": "",
        "python_full_version": f"3.{minor}.0",
        "python_version": f"3.{minor}",
        "sys_platform": sys_platform,
        "extra": extra,
    }
