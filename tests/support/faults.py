"""What can go wrong between a source and a daemon, kind by kind, and what a family has to give to be tried on it."""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from tests.support.conda import ChannelFolder, PackageSpec
from tests.support.cran import CONTRIB, Cran
from tests.support.python import JSON, PythonIndex
from tests.support.upstream import Fault, FaultyUpstream

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
    def below(self) -> str:
        """Where the source is below its server's address."""

    @property
    def filters(self) -> Mapping[str, object]:
        """Of a mirror whose runs read each file's record."""

    @property
    def whole(self) -> Mapping[str, object]:
        """Of a mirror whose index is one of `indexes` and nothing else."""

    @property
    def indexes(self) -> tuple[str, ...]:
        """Return the paths that such an index may be at, all of them."""

    @property
    def files(self) -> Mapping[str, str]:
        """Return kind -> a file's path below the server."""

    @property
    def bears(self) -> frozenset[str]:
        """Return the kinds that its index is read in spite of."""

    def serve(self, upstream: FaultyUpstream, /) -> None:
        """Let a server have what the source has."""

    def content(self, path: str, /) -> bytes:
        """Return what stands at a path."""

    def address(self, kind: str, /) -> str:
        """Return where a channel serves that file, below its own address."""

    def grow(self) -> str:
        """Let the source list one file more; return where a channel serves it."""


class CondaSource:
    """A channel of one platform."""

    type, below = "conda", ""
    filters: Mapping[str, object] = {}
    whole: Mapping[str, object] = {}
    indexes = ("noarch/repodata.json", "noarch/repodata.json.zst")
    bears: frozenset[str] = frozenset()

    def __init__(self, folder: Path) -> None:
        self._channel = ChannelFolder(folder)
        built = self._channel.add(*(PackageSpec(name=f"kind{number}") for number in range(len(KINDS))))
        self.files = {kind: f"noarch/{package.filename}" for kind, package in zip(KINDS, built, strict=True)}
        self._grown = 0

    def serve(self, upstream: FaultyUpstream) -> None:
        upstream.folder = self._channel.path

    def content(self, path: str) -> bytes:
        return (self._channel.path / path).read_bytes()

    def address(self, kind: str) -> str:
        return self.files[kind]

    def grow(self) -> str:
        self._grown += 1
        (package,) = self._channel.add(PackageSpec(name=f"grown{self._grown}"))
        return f"noarch/{package.filename}"


class RSource:
    """A CRAN root of sources, without an archive."""

    type, below = "r", ""
    filters: Mapping[str, object] = {"archive": False}
    whole = filters
    indexes = (f"{CONTRIB}/PACKAGES", f"{CONTRIB}/PACKAGES.gz", f"{CONTRIB}/PACKAGES.rds")
    bears = frozenset({"longer"})  # what follows a packed text is no part of it, to R neither

    def __init__(self, _: Path) -> None:
        self._files: dict[str, bytes] = {}
        self._cran = Cran(self._files)
        for number in range(len(KINDS)):
            self._cran.put(f"kind{number}", "1.0")
        self.files = {kind: f"{CONTRIB}/kind{number}_1.0.tar.gz" for number, kind in enumerate(KINDS)}
        self._grown = 0

    def serve(self, upstream: FaultyUpstream) -> None:
        upstream.files = self._files

    def content(self, path: str) -> bytes:
        return self._files.get(path, b"no such form")

    def address(self, kind: str) -> str:
        return f"cran/{self.files[kind]}"

    def grow(self) -> str:
        self._grown += 1
        self._cran.put(f"grown{self._grown}", "1.0")
        return f"cran/{CONTRIB}/grown{self._grown}_1.0.tar.gz"


class PythonSource:
    """An index whose list has serials, each project with one file."""

    type, below = "python", "/simple"
    whole: Mapping[str, object] = {}
    indexes = ("simple/", "simple/simple/")
    bears: frozenset[str] = frozenset()

    def __init__(self, _: Path) -> None:
        self._index = PythonIndex(core=False)
        self._upstream: FaultyUpstream | None = None
        names = [f"kind{number}" for number in range(len(KINDS))]
        for name in names:
            self._index.add(name, "1.0")
        self.filters: Mapping[str, object] = {"projects": names}
        self.files = {
            kind: f"files/{name}/{self._index.projects[name][0].filename}"
            for kind, name in zip(KINDS, names, strict=True)
        }
        self._grown = 0

    def serve(self, upstream: FaultyUpstream) -> None:
        self._upstream = upstream
        pages = {"simple/": self._index.list_json()}
        pages |= {f"simple/{name}/": self._index.page_json(name) for name in self._index.projects}
        upstream.files |= pages
        upstream.content_types |= dict.fromkeys(pages, JSON)
        for name, files in self._index.projects.items():
            upstream.files |= {f"files/{name}/{file.filename}": file.content for file in files}

    def content(self, path: str) -> bytes:
        assert self._upstream is not None
        return self._upstream.files.get(path, b"no such place")

    def address(self, kind: str) -> str:
        _, project, filename = self.files[kind].split("/")
        return f"packages/{project}/{filename}"

    def grow(self) -> str:
        self._grown += 1
        file = self._index.add("kind0", f"2.{self._grown}")
        assert self._upstream is not None
        self.serve(self._upstream)
        return f"packages/kind0/{file.filename}"


FAMILIES: tuple[Callable[[Path], FamilySource], ...] = (CondaSource, RSource, PythonSource)
"""Makers of sources: a family that is added here goes through the whole table."""
