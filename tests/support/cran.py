"""Repositories of R packages for tests: tarballs that R installs, indexes in each form, made without R."""

import gzip
import hashlib
import io
import tarfile
from collections.abc import Iterable, Mapping

from firthd.families.r import rds
from firthd.families.r.dcf import spelled

CONTRIB = "src/contrib"
MTIME = 1_600_000_000


def tarball(name: str, version: str, **fields: str) -> bytes:
    """Return a source package; its function `f` gives its name and version. The same bytes every time."""
    description = {
        "Package": name,
        "Version": version,
        "Title": "One for Tests",
        "Description": "It says which version it is.",
        "Author": "A. Nyone",
        "Maintainer": "A. Nyone <anyone@example.org>",
        "License": "GPL-2",
        "Built-By": "tests",
        **fields,
    }
    files = {
        "DESCRIPTION": spelled(description) + b"\n",
        "NAMESPACE": b"export(f)\n",
        "R/f.R": f'f <- function() "{name} {version}"\n'.encode(),
    }
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        for path, content in files.items():
            info = tarfile.TarInfo(f"{name}/{path}")
            info.size, info.mtime = len(content), MTIME
            tar.addfile(info, io.BytesIO(content))
    return gzip.compress(raw.getvalue(), mtime=0)


def stanza(name: str, version: str, content: bytes | None = None, **fields: str) -> bytes:
    """Return what PACKAGES says of a package."""
    sums = {} if content is None else {"MD5sum": hashlib.md5(content).hexdigest()}
    return spelled({"Package": name, "Version": version, "License": "GPL-2", **fields, **sums})


def packages(stanzas: Iterable[bytes]) -> bytes:
    return b"".join(one + b"\n\n" for one in stanzas)


def archive_rds(files: Mapping[str, bytes]) -> bytes:
    """Return Meta/archive.rds of files below the archive: path (package/file) -> content."""
    frames: dict[str, list[str]] = {}
    for path in sorted(files):
        frames.setdefault(path.partition("/")[0], []).append(path)
    things = rds.things(
        [
            rds.things(
                [rds.reals([len(files[path]) for path in paths]), rds.reals([MTIME for _ in paths])],
                names=rds.texts(["size", "mtime"]),
                class_=rds.texts(["data.frame"]),
                row_names=rds.texts(paths),
            )
            for paths in frames.values()
        ],
        names=rds.texts(frames),
    )
    return gzip.compress(rds.written(things), mtime=0)


def current_rds(files: Mapping[str, bytes], times: Mapping[str, int] | None = None) -> bytes:
    """Return Meta/current.rds of the files that lie in a repository: sizes, and times where none are given."""
    paths = sorted(
        path.removeprefix(f"{CONTRIB}/")
        for path in files
        if path.startswith(f"{CONTRIB}/") and path.count("/") == 2 and path.endswith(".tar.gz")
    )
    frame = rds.things(
        [
            rds.reals([len(files[f"{CONTRIB}/{path}"]) for path in paths]),
            rds.logicals([False] * len(paths)),
            rds.reals([(times or {}).get(path, MTIME) for path in paths]),
        ],
        names=rds.texts(["size", "isdir", "mtime"]),
        class_=rds.texts(["data.frame"]),
        row_names=rds.texts(paths),
    )
    return gzip.compress(rds.written(frame), mtime=0)


class Cran:
    """A CRAN root as files; `put`, `archive` and `remove` keep its index right."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self._current: dict[str, tuple[str, dict[str, str]]] = {}
        self.index()

    def put(self, name: str, version: str, **fields: str) -> bytes:
        """Offer a version; the one before moves to the archive."""
        if name in self._current:
            self.archive(name)
        content = self.files[f"{CONTRIB}/{name}_{version}.tar.gz"] = tarball(name, version, **fields)
        self._current[name] = (version, fields)
        self.index()
        return content

    def archive(self, name: str, *, listed: bool = True) -> None:
        """Move the version that is offered into the archive; not `listed`: no index says so yet."""
        version, _ = self._current.pop(name)
        file = f"{name}_{version}.tar.gz"
        self.files[f"{CONTRIB}/Archive/{name}/{file}"] = self.files.pop(f"{CONTRIB}/{file}")
        if listed:
            self.index()

    def index(self) -> None:
        content = packages(
            stanza(name, version, self.files[f"{CONTRIB}/{name}_{version}.tar.gz"], **fields)
            for name, (version, fields) in sorted(self._current.items())
        )
        self.files[f"{CONTRIB}/PACKAGES"] = content
        self.files[f"{CONTRIB}/PACKAGES.gz"] = gzip.compress(content, mtime=0)
        archived = f"{CONTRIB}/Archive/"
        files = {path.removeprefix(archived): raw for path, raw in self.files.items() if path.startswith(archived)}
        self.files[f"{CONTRIB}/Meta/archive.rds"] = archive_rds(files)
