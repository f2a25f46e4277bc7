"""The only place that sums a channel's conda files up into one line a package."""

import re
from collections.abc import Iterable, Iterator

import msgspec
from msgspec import Struct

from firthd.families.conda.versions import version_key
from firthd.store.runfile import PackageRow

DEPENDS_MAX = 500

_decode_depends = msgspec.json.Decoder(dict[str, object]).decode
_name_of_spec = re.compile(r"(?:.*::)?\s*([A-Za-z0-9_.-]+)").match


class Summary(Struct):
    """What is known of one package so far."""

    newest: str
    versions: set[str]
    subdirs: set[str]
    records: list[bytes]  # of the newest version
    files: int = 0
    bytes: int = 0


class Summaries:
    """Collects files by package; a name that is expected but never seen is one that is gone."""

    def __init__(self, family: str) -> None:
        self._family = family
        self._found: dict[str, Summary] = {}

    def add(self, name: str, version: str, subdir: str, size: int | None, raw: bytes) -> None:
        """Count one file."""
        summary = self._found.get(name)
        if summary is None:
            summary = self._found[name] = Summary(version, {version}, set(), [])
        elif version not in summary.versions:
            summary.versions.add(version)
            if version_key(version) > version_key(summary.newest):
                summary.newest = version
                summary.records.clear()
        if version == summary.newest:
            summary.records.append(raw)
        summary.subdirs.add(subdir)
        summary.files += 1
        summary.bytes += size or 0

    def names(self) -> set[str]:
        """Return the names that have a file."""
        return set(self._found)

    def rows(self, gone: Iterable[str]) -> Iterator[PackageRow]:
        """Yield a row for each name seen and for each one that is gone (files = 0), by name."""
        for name in sorted(self._found.keys() | set(gone)):
            summary = self._found.get(name)
            if summary is None:
                yield (self._family, name, "", 0, 0, 0, "[]", "[]")
                continue
            yield (
                self._family,
                name,
                summary.newest,
                len(summary.versions),
                summary.files,
                summary.bytes,
                json_list(summary.subdirs),
                json_list(depended_on(summary.records)),
            )


def json_list(texts: Iterable[str]) -> str:
    """Return a sorted JSON array."""
    return msgspec.json.encode(sorted(texts)).decode()


def depended_on(records: Iterable[bytes]) -> set[str]:
    """Return the names that these records depend on, at most some hundreds."""
    names: set[str] = set()
    for raw in records:
        try:
            specs = _decode_depends(raw).get("depends")
        except (msgspec.MsgspecError, ValueError, RecursionError):  # of a row that the renderer leaves out
            continue
        for spec in specs if isinstance(specs, list) else []:
            match = _name_of_spec(spec) if isinstance(spec, str) else None
            if match is not None and len(names) < DEPENDS_MAX:
                names.add(match[1].lower())
    return names
