"""The only place that asks whether conda environments can be solved out of what a policy keeps."""

import asyncio
import tempfile
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import msgspec
import rattler

from firthd.families.base import Entry
from firthd.families.conda.names import NOARCH
from firthd.families.conda.records import PLAIN_SECTIONS, printable
from firthd.families.policing import Unsolved

TIMEOUT_S = 5.0
"""For one question; real ones take a second."""
TOTAL_S = 10.0
"""For all of them: a publication waits for the answer."""
GRACE_S = 5.0
"""A solver that does not heed its own limit is left to itself after so much more."""
REASON_MAX = 1000
GIVEN = {
    "linux": (("__glibc", "2.28"), ("__linux", "5.10"), ("__unix", "0")),
    "osx": (("__osx", "14.0"), ("__unix", "0")),
    "win": (("__win", "10"),),
}
"""What machines have, so that specs of virtual packages are met; a graphics card is not among it."""


def unsolved(kept: Sequence[tuple[str, Entry]], wanted: Sequence[tuple[str, str]]) -> Unsolved:
    """Return which (spec, platform) cannot be installed out of what is kept."""
    with tempfile.TemporaryDirectory(prefix="firth-solve-") as folder:
        write_indexes(Path(folder), kept)
        return asyncio.run(_unsolved(Path(folder), wanted))


def write_indexes(folder: Path, kept: Sequence[tuple[str, Entry]]) -> None:
    """Write what the solver reads: an index for each subdir. Records of other sections than the plain ones are new."""
    subdirs: dict[str, dict[str, list[Entry]]] = {}
    for subdir, entry in kept:
        section = entry.section if entry.section in PLAIN_SECTIONS else "packages.conda"
        subdirs.setdefault(subdir, {}).setdefault(section, []).append(entry)
    for subdir, sections in subdirs.items():
        (folder / subdir).mkdir()
        with (folder / subdir / "repodata.json").open("wb") as file:
            file.write(b'{"info":{"subdir":"%s"}' % subdir.encode())
            for section, entries in sections.items():
                file.write(b',"%s":{' % section.encode())
                for number, entry in enumerate(entries):
                    file.write(b"," if number else b"")
                    file.write(msgspec.json.encode(entry.filename) + b":" + bytes(entry.raw))
                file.write(b"}")
            file.write(b"}")


class _Asked:
    """What is asked of the solver; it has so much time for all of it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._channel = rattler.Channel(folder.as_uri())
        self._until = asyncio.get_running_loop().time() + TOTAL_S
        self.sentences: list[str] = []
        self.unasked = 0

    async def sift(self, platform: str, specs: Sequence[str]) -> None:
        """Find those of the specs that cannot be installed: what can all together, each can by itself."""
        virtual = [
            rattler.GenericVirtualPackage(rattler.PackageName(name), rattler.Version(version), rattler.BuildString("0"))
            for name, version in GIVEN.get(platform.partition("-")[0], GIVEN["linux"])
        ]
        indexes = [
            rattler.SparseRepoData(self._channel, subdir, str(self._folder / subdir / "repodata.json"))
            for subdir in dict.fromkeys((platform, NOARCH))
            if (self._folder / subdir).is_dir()
        ]
        groups = [list(specs)]
        while groups:
            group = groups.pop()
            left = self._until - asyncio.get_running_loop().time()
            if left <= 0:
                self.unasked += len(group)
                continue
            limit = min(left, TIMEOUT_S)
            reason = await _why_not(group, indexes, virtual, limit)
            if reason is None:
                continue
            if len(group) > 1:
                middle = len(group) // 2
                groups += [group[middle:], group[:middle]]
            elif reason:
                self.sentences.append(f"{group[0]} on {platform}: {reason}")
            else:  # that it takes long does not say that it cannot be
                self.unasked += 1


async def _unsolved(folder: Path, wanted: Sequence[tuple[str, str]]) -> Unsolved:
    asked = _Asked(folder)
    for platform in sorted({platform for _, platform in wanted}):
        await asked.sift(platform, [spec for spec, of in wanted if of == platform])
    return Unsolved(asked.sentences, asked.unasked)


async def _why_not(
    specs: Sequence[str],
    indexes: Sequence[rattler.SparseRepoData],
    virtual: Sequence[rattler.GenericVirtualPackage],
    limit_s: float,
) -> str | None:
    """Return why specs cannot be installed together; "": nobody knows, as time was up; None: they can."""
    parsed = [rattler.MatchSpec(spec) for spec in specs]
    began = asyncio.get_running_loop().time()
    try:
        async with asyncio.timeout(limit_s + GRACE_S):
            await rattler.solve_with_sparse_repodata(
                parsed, indexes, virtual_packages=virtual, timeout=timedelta(seconds=limit_s)
            )
    except TimeoutError:
        return ""
    except Exception as error:  # py-rattler's own classes
        if asyncio.get_running_loop().time() - began >= limit_s:
            return ""
        return printable(" ".join(str(error).split()), REASON_MAX)
    return None
