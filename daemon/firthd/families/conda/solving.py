"""The only place that asks whether conda environments can be solved out of what a policy keeps."""

import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec
import rattler

from firthd.families.base import Entry
from firthd.families.conda.names import NOARCH
from firthd.families.conda.records import PLAIN_SECTIONS, printable

TIMEOUT_S = 20.0
"""For one spec; real ones take a second."""
REASON_MAX = 1000
GIVEN = {
    "linux": (("__glibc", "2.28"), ("__linux", "5.10"), ("__unix", "0")),
    "osx": (("__osx", "14.0"), ("__unix", "0")),
    "win": (("__win", "10"),),
}
"""What machines have, so that specs of virtual packages are met; a graphics card is not among it."""


def unsolved(kept: Sequence[tuple[str, Entry]], wanted: Sequence[tuple[str, str]]) -> list[str]:
    """Return a sentence for each (spec, platform) that cannot be installed out of what is kept."""
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


async def _unsolved(folder: Path, wanted: Sequence[tuple[str, str]]) -> list[str]:
    channel = rattler.Channel(folder.as_uri())
    indexes: dict[str, list[rattler.SparseRepoData]] = {}
    sentences = []
    for spec, platform in wanted:
        if platform not in indexes:
            indexes[platform] = [
                rattler.SparseRepoData(channel, subdir, str(folder / subdir / "repodata.json"))
                for subdir in dict.fromkeys((platform, NOARCH))
                if (folder / subdir).is_dir()
            ]
        reason = await _why_not(spec, platform, indexes[platform])
        if reason is not None:
            sentences.append(f"{spec} on {platform}: {reason}")
    return sentences


async def _why_not(spec: str, platform: str, indexes: Sequence[rattler.SparseRepoData]) -> str | None:
    virtual = [
        rattler.GenericVirtualPackage(rattler.PackageName(name), rattler.Version(version), rattler.BuildString("0"))
        for name, version in GIVEN.get(platform.partition("-")[0], GIVEN["linux"])
    ]
    try:
        async with asyncio.timeout(TIMEOUT_S):
            await rattler.solve_with_sparse_repodata([rattler.MatchSpec(spec)], indexes, virtual_packages=virtual)
    except TimeoutError:
        return f"the solver did not come to an end in {TIMEOUT_S:.0f} s"
    except Exception as error:  # py-rattler's own classes
        return printable(" ".join(str(error).split()), REASON_MAX)
    return None
