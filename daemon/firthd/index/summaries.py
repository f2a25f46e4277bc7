"""The only place that sums a channel's files up into one line a package."""

from collections.abc import Iterable, Iterator

import msgspec
from msgspec import Struct

from firthd.families.base import Formats
from firthd.store.run_file import PackageRow

DEPENDS_MAX = 500


class Summary(Struct):
    """What is known of one package so far."""

    newest: str
    versions: set[str]
    platforms: set[str]
    records: list[bytes]  # of the newest version
    files: int = 0
    bytes: int = 0


class Summaries:
    """Collects files by package; a name that is expected but never seen is one that is gone."""

    def __init__(self, formats: Formats) -> None:
        self._formats = formats
        self._found: dict[str, Summary] = {}

    def add(self, name: str, version: str, platform: str, size: int | None, raw: bytes) -> None:
        """Count one file."""
        summary = self._found.get(name)
        if summary is None:
            summary = self._found[name] = Summary(version, {version}, set(), [])
        elif version not in summary.versions:
            summary.versions.add(version)
            if self._formats.version_key(version) > self._formats.version_key(summary.newest):
                summary.newest = version
                summary.records.clear()
        if version == summary.newest:
            summary.records.append(raw)
        summary.platforms.add(platform)
        summary.files += 1
        summary.bytes += size or 0

    def names(self) -> set[str]:
        """Return the names that have a file."""
        return set(self._found)

    def shown(self) -> Iterator[tuple[str, str, list[str]]]:
        """Yield name, newest version and platforms of each package that has a file."""
        for name, summary in self._found.items():
            yield name, summary.newest, sorted(summary.platforms)

    def rows(self, gone: Iterable[str]) -> Iterator[PackageRow]:
        """Yield a row for each name seen and for each one that is gone (files = 0), by name."""
        for name in sorted(self._found.keys() | set(gone)):
            summary = self._found.get(name)
            if summary is None:
                yield (self._formats.family, name, "", 0, 0, 0, "[]", "[]")
                continue
            yield (
                self._formats.family,
                name,
                summary.newest,
                len(summary.versions),
                summary.files,
                summary.bytes,
                json_list(summary.platforms),
                json_list(self._depended_on(summary.records)),
            )

    def _depended_on(self, records: Iterable[bytes]) -> set[str]:
        """Return the names that these records depend on, at most some hundreds."""
        names: set[str] = set()
        for raw in records:
            for name in self._formats.depended_on(raw):
                if len(names) >= DEPENDS_MAX:
                    return names
                names.add(name)
        return names


def json_list(texts: Iterable[str]) -> str:
    """Return a sorted JSON array."""
    return msgspec.json.encode(sorted(texts)).decode()
