"""What can go wrong between a source and a daemon, kind by kind, and what a family has to give to be tried on it."""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from msgspec import Struct

from tests.support.conda import ChannelFolder, PackageSpec
from tests.support.upstream import Fault

PAGE = b"<!doctype html><title>Sign in</title>"


KINDS: Mapping[str, Callable[[bytes], Fault]] = {
    "closed without an answer": lambda _: Fault(drop=True),
    "reset": lambda _: Fault(drop=True, reset=True),
    "silent in the middle": lambda _: Fault(drip=asyncio.Semaphore(0)),
    "cut short": lambda content: Fault(cut_after=len(content) // 2, no_ranges=True),
    "broken": lambda _: Fault(status=500),
    "away for a while": lambda _: Fault(status=503, retry_after=0),
    "too many requests": lambda _: Fault(status=429, retry_after=0),
    "wants credentials": lambda _: Fault(status=401),
    "refused": lambda _: Fault(status=403),
    "gone": lambda _: Fault(status=404),
    "empty": lambda _: Fault(body=b""),
    "a page": lambda _: Fault(body=PAGE, headers={"Content-Type": "text/html"}),
    "other bytes": lambda content: Fault(body=bytes(len(content))),
    "longer": lambda content: Fault(body=content + b"and more"),
    "leads in a circle": lambda _: Fault(redirect="?again"),
}
"""Kind -> what is answered instead of what stands there."""


class FamilySource(Protocol):
    """A source of one family with a file for each kind of fault."""

    @property
    def type(self) -> str: ...
    @property
    def folder(self) -> Path: ...
    @property
    def indexes(self) -> tuple[str, ...]:
        """Return the paths of the files that an index may be in, all of them."""

    @property
    def files(self) -> Mapping[str, str]:
        """Return kind -> a file's path below the folder."""

    def address(self, kind: str, /) -> str:
        """Return where a channel serves that file, below its own address."""

    def grow(self) -> str:
        """Let the source list one file more; return where a channel serves it."""


class CondaSource(Struct):
    type: str
    folder: Path
    indexes: tuple[str, ...]
    files: dict[str, str]
    channel: ChannelFolder
    grown: int = 0

    def address(self, kind: str) -> str:
        return self.files[kind]

    def grow(self) -> str:
        self.grown += 1
        (package,) = self.channel.add(PackageSpec(name=f"grown{self.grown}"))
        return f"noarch/{package.filename}"


def conda_source(folder: Path) -> CondaSource:
    channel = ChannelFolder(folder)
    built = channel.add(*(PackageSpec(name=f"kind{number}") for number in range(len(KINDS))))
    return CondaSource(
        type="conda",
        folder=folder,
        indexes=("noarch/repodata.json", "noarch/repodata.json.zst"),
        files={kind: f"noarch/{package.filename}" for kind, package in zip(KINDS, built, strict=True)},
        channel=channel,
    )


FAMILIES: tuple[Callable[[Path], FamilySource], ...] = (conda_source,)
"""Makers of sources: a family that is added here goes through the whole table."""
