"""The only place that sums a channel's files up: into one line a package, and all of them into a family's content."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, groupby
from operator import attrgetter
from pathlib import Path

import msgspec
from msgspec import Struct

from firthd.families.base import Formats
from firthd.index.messages import FamilyContent
from firthd.index.set_hash import STATE_BYTES, SetHash, element, entry_digest, name_digest, pressed
from firthd.store.columns import goes_along
from firthd.store.run_file import SummaryLine
from firthd.store.worker_reads import ShownRow, SummaryInForce

DEPENDS_MAX = 500
SHA256, MD5 = 2, 1

_name_of = attrgetter("name")


class Summary(Struct):
    """What is known of one package so far."""

    newest: str = ""
    versions: set[str] = msgspec.field(default_factory=set)
    platforms: set[str] = msgspec.field(default_factory=set)
    records: list[bytes] = msgspec.field(default_factory=list)  # of the newest version
    depends: list[str] = msgspec.field(default_factory=list)  # of its records that another task has read
    entries: bytearray = msgspec.field(default_factory=bytearray)  # digests of 32 bytes, one behind the other
    hidden: dict[int, int] = msgspec.field(default_factory=dict)  # mirror id -> files that its owner hides
    digest: bytes | None = None  # of the entries, once they are all there
    files: int = 0
    bytes: int = 0


class PackageSums(Struct, frozen=True, gc=False):
    """What one task knows of a package in one part, for the task that sums all parts up."""

    name: str
    newest: str
    versions: list[str]
    platforms: list[str]
    depends: list[str]
    entries: bytes
    hidden: dict[int, int]
    files: int
    bytes: int


class PartSums(Struct, frozen=True):
    """What one part shows."""

    part: str
    artifacts: int | None  # None: the part is not shown at all
    packages: list[PackageSums]


def write_sums(file: Path, parts: list[PartSums]) -> None:
    """Write what a task has rendered."""
    file.write_bytes(msgspec.msgpack.encode(parts))


def read_sums(files: Iterable[str]) -> list[PartSums]:
    """Return what tasks have rendered, by part: in the order in which one alone would have come to them."""
    found = [part for file in files for part in msgspec.msgpack.decode(Path(file).read_bytes(), type=list[PartSums])]
    return sorted(found, key=attrgetter("part"))


class Summaries:
    """Collects files by package; a name that is expected but never seen is one that is gone."""

    def __init__(self, formats: Formats) -> None:
        self._formats = formats
        self._found: dict[str, Summary] = {}

    def add(self, part: str, rows: Iterable[ShownRow]) -> None:
        """Count files that are shown in a part; those of one package one behind the other cost least.

        One that goes along with another is content, but nothing that is counted.
        """
        pressed_part = pressed(part.encode())
        identity, platform = self._formats.identity, self._formats.platform
        for name, files in groupby(rows, _name_of):
            summary = self._of(name)
            entries, versions, platforms = summary.entries, summary.versions, summary.platforms
            for row in files:
                declared = row.sha256 if row.declared == SHA256 else row.md5 if row.declared == MD5 else None
                entries += entry_digest(pressed_part, row.filename, row.section, identity(row), declared)
                if goes_along(row.section):
                    continue
                version = row.version
                if version not in versions:
                    self._take_version(summary, version)
                if version == summary.newest:
                    summary.records.append(row.raw)
                platforms.add(platform(part, row.filename))
                summary.files += 1
                summary.bytes += row.size or 0

    def _take_version(self, summary: Summary, version: str) -> None:
        newer = self._newer(version, summary)
        summary.versions.add(version)
        if newer:
            summary.newest = version
            summary.records.clear()
            summary.depends.clear()

    def hide(self, row: ShownRow) -> None:
        """Count one file that is not shown, because another mirror owns its name."""
        if goes_along(row.section):
            return
        hidden = self._of(row.name).hidden
        hidden[row.mirror_id] = hidden.get(row.mirror_id, 0) + 1

    def _of(self, name: str) -> Summary:
        summary = self._found.get(name)
        if summary is None:
            summary = self._found[name] = Summary()
        return summary

    def sums(self) -> list[PackageSums]:
        """Return what is known of each package so far."""
        return [
            PackageSums(
                name,
                summary.newest,
                list(summary.versions),
                list(summary.platforms),
                self._depended_on(summary),
                bytes(summary.entries),
                summary.hidden,
                summary.files,
                summary.bytes,
            )
            for name, summary in self._found.items()
        ]

    def take(self, sums: Iterable[PackageSums]) -> None:
        """Count what another task knows of one more part."""
        for one in sums:
            summary = self._of(one.name)
            summary.entries += one.entries
            summary.files += one.files
            summary.bytes += one.bytes
            summary.platforms.update(one.platforms)
            for mirror, count in one.hidden.items():
                summary.hidden[mirror] = summary.hidden.get(mirror, 0) + count
            if one.versions and self._newer(one.newest, summary):
                summary.newest, summary.depends = one.newest, list(one.depends)
            elif one.newest == summary.newest:
                summary.depends.extend(one.depends)
            summary.versions.update(one.versions)

    def _newer(self, version: str, summary: Summary) -> bool:
        if not summary.versions:
            return True
        key = self._formats.version_key
        return version not in summary.versions and key(version) > key(summary.newest)

    def names(self) -> set[str]:
        """Return the names that have a file."""
        return set(self._found)

    def shown(self) -> Iterator[tuple[str, str, list[str]]]:
        """Yield name, newest version and platforms of each package that has a file."""
        for name, summary in self._found.items():
            if summary.files:
                yield name, summary.newest, sorted(summary.platforms)

    def rows(self, gone: Iterable[str]) -> Iterator[SummaryLine]:
        """Yield a row for each name seen and for each one that is gone (files = 0), by name."""
        nothing = Summary()
        for name in sorted(self._found.keys() | set(gone)):
            summary = self._found.get(name, nothing)
            yield (
                self._formats.family,
                name,
                summary.newest,
                len(summary.versions),
                summary.files,
                summary.bytes,
                json_list(summary.platforms),
                json_list(self._depended_on(summary)),
                digest_of(summary),
                msgspec.json.encode(dict(sorted(summary.hidden.items()))).decode(),
            )

    def content(self, before: FamilyContent | None, in_force: Mapping[str, SummaryInForce]) -> FamilyContent:
        """Return what a family shows when these packages are as they were seen.

        `before` is what it showed, None for nothing; `in_force` what the packages were in that.
        """
        artifacts, packages, size = (before.artifacts, before.packages, before.bytes) if before else (0, 0, 0)
        shadowed = dict(before.shadowed) if before else {}
        packed = SetHash(before.state[:STATE_BYTES]) if before else SetHash()
        family = self._formats.family
        for name, row in in_force.items():
            artifacts, packages, size = artifacts - row.files, packages - bool(row.files), size - row.bytes
            if row.digest is not None:
                packed.subtract(element(family, name, row.digest))
            for mirror, count in msgspec.json.decode(row.hidden, type=dict[int, int]).items():
                shadowed[mirror] = shadowed.get(mirror, 0) - count
        for name, summary in self._found.items():
            artifacts, packages, size = artifacts + summary.files, packages + bool(summary.files), size + summary.bytes
            if summary.files:
                packed.add(element(family, name, digest_of(summary) or b""))
            for mirror, count in summary.hidden.items():
                shadowed[mirror] = shadowed.get(mirror, 0) + count
        return FamilyContent(
            artifacts=artifacts,
            packages=packages,
            bytes=size,
            state=packed.state,
            shadowed={mirror: count for mirror, count in sorted(shadowed.items()) if count},
        )

    def _depended_on(self, summary: Summary) -> list[str]:
        """Return the names that the newest version depends on, the first some hundreds of them."""
        here = (name for raw in summary.records for name in self._formats.depended_on(raw))
        names: dict[str, None] = {}
        for name in chain(summary.depends, here):
            if len(names) >= DEPENDS_MAX:
                break
            names[name] = None
        return list(names)


def digest_of(summary: Summary) -> bytes | None:
    """Return the digest of a package of which all files are counted, None when it has none."""
    if summary.digest is None and summary.files:
        summary.digest = name_digest(summary.entries)
    return summary.digest


def json_list(texts: Iterable[str]) -> str:
    """Return a sorted JSON array."""
    return msgspec.json.encode(sorted(texts)).decode()
