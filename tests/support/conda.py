"""Builds tiny real conda packages and channels, the same bytes each time; unmodified clients can install them."""

import bz2
import hashlib
import io
import json
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import zstandard
from msgspec import Struct

BUILD_TIME_MS = 1_700_000_000_000
LONG_AGO = (1980, 1, 1, 0, 0, 0)


class PackageSpec(Struct, frozen=True, kw_only=True):
    """What to build."""

    name: str
    version: str = "1.0"
    build: str = "0"
    build_number: int = 0
    depends: tuple[str, ...] = ()
    subdir: str = "noarch"
    license: str = "MIT"
    timestamp: int = BUILD_TIME_MS
    extension: str = ".conda"
    content: str = "hello\n"  # of the one file it installs

    @property
    def stem(self) -> str:
        return f"{self.name}-{self.version}-{self.build}"

    @property
    def filename(self) -> str:
        return self.stem + self.extension


class BuiltPackage(Struct, frozen=True, kw_only=True):
    spec: PackageSpec
    body: bytes

    @property
    def filename(self) -> str:
        return self.spec.filename

    @property
    def record(self) -> dict[str, Any]:
        """The record as an index lists it."""
        return index_json(self.spec) | {
            "md5": hashlib.md5(self.body).hexdigest(),
            "sha256": hashlib.sha256(self.body).hexdigest(),
            "size": len(self.body),
        }


def index_json(spec: PackageSpec) -> dict[str, Any]:
    record: dict[str, Any] = {
        "build": spec.build,
        "build_number": spec.build_number,
        "depends": list(spec.depends),
        "license": spec.license,
        "name": spec.name,
        "subdir": spec.subdir,
        "timestamp": spec.timestamp,
        "version": spec.version,
    }
    if spec.subdir == "noarch":
        record["noarch"] = "generic"
    return record


def build_package(spec: PackageSpec) -> BuiltPackage:
    """Build a package that installs `share/<name>/hello.txt`."""
    installed = f"share/{spec.name}/hello.txt"
    content = spec.content.encode()
    paths = {
        "paths": [
            {
                "_path": installed,
                "path_type": "hardlink",
                "sha256": hashlib.sha256(content).hexdigest(),
                "size_in_bytes": len(content),
            }
        ],
        "paths_version": 1,
    }
    info = {
        "info/index.json": json.dumps(index_json(spec)).encode(),
        "info/paths.json": json.dumps(paths).encode(),
        "info/files": f"{installed}\n".encode(),
    }
    payload = {installed: content}
    if spec.extension == ".tar.bz2":
        return BuiltPackage(spec=spec, body=bz2.compress(tar(info | payload)))
    compress = zstandard.ZstdCompressor(level=3).compress
    members = {
        "metadata.json": b'{"conda_pkg_format_version": 2}',
        f"pkg-{spec.stem}.tar.zst": compress(tar(payload)),
        f"info-{spec.stem}.tar.zst": compress(tar(info)),
    }
    return BuiltPackage(spec=spec, body=stored_zip(members))


def tar(members: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, body in members.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(body), 0o644
            archive.addfile(entry, io.BytesIO(body))
    return out.getvalue()


def stored_zip(members: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, body in members.items():
            archive.writestr(zipfile.ZipInfo(name, LONG_AGO), body)
    return out.getvalue()


class ChannelFolder:
    """A conda channel in a folder: its packages and the index over them. `write` brings the index up to date."""

    def __init__(self, path: Path, subdirs: tuple[str, ...] = ("noarch",)) -> None:
        self.path = path
        self.records: dict[str, dict[str, dict[str, Any]]] = {subdir: {} for subdir in subdirs}
        self.sharded = False  # shards too, and records are spelled in order and without white space
        self.extra: dict[str, dict[str, Any]] = {}  # subdir -> keys of the document that override ours
        self.write()

    def add(self, *specs: PackageSpec) -> list[BuiltPackage]:
        """Build packages, put their files there and list them."""
        built = [build_package(spec) for spec in specs]
        for package in built:
            subdir = package.spec.subdir
            (self.path / subdir).mkdir(parents=True, exist_ok=True)
            (self.path / subdir / package.filename).write_bytes(package.body)
            self.records.setdefault(subdir, {})[package.filename] = package.record
        self.write()
        return built

    def remove(self, subdir: str, filename: str) -> None:
        """Take a package out of the index and its file away."""
        del self.records[subdir][filename]
        (self.path / subdir / filename).unlink()
        self.write()

    def document(self, subdir: str) -> dict[str, Any]:
        """Return a subdir's repodata.json."""
        records = self.records[subdir]
        return {
            "info": {"subdir": subdir},
            "packages": {name: records[name] for name in sorted(records) if name.endswith(".tar.bz2")},
            "packages.conda": {name: records[name] for name in sorted(records) if name.endswith(".conda")},
            "removed": [],
            "repodata_version": 1,
        } | self.extra.get(subdir, {})

    def write(self) -> None:
        """Write repodata.json and its .zst for each subdir."""
        for subdir in self.records:
            folder = self.path / subdir
            folder.mkdir(parents=True, exist_ok=True)
            body = json.dumps(self.document(subdir)).encode()
            if self.sharded:
                body = json.dumps(self.document(subdir), sort_keys=True, separators=(",", ":")).encode()
                write_shards(folder, subdir, self.document(subdir))
            (folder / "repodata.json").write_bytes(body)
            (folder / "repodata.json.zst").write_bytes(zstandard.ZstdCompressor(level=3).compress(body))


def write_shards(folder: Path, subdir: str, document: Mapping[str, Any]) -> None:
    """Write a shard for each package of an index, and the list of them (CEP 16)."""
    shards: dict[str, dict[str, dict[str, Any]]] = {}
    for section in ("packages", "packages.conda"):
        for filename, record in document[section].items():
            empty: dict[str, dict[str, Any]] = {"packages": {}, "packages.conda": {}}
            packed = record | {digest: bytes.fromhex(record[digest]) for digest in ("sha256", "md5")}
            shards.setdefault(record["name"], empty)[section][filename] = packed | {"run_exports": {}}
    compress = zstandard.ZstdCompressor(level=3).compress
    (folder / "shards").mkdir(exist_ok=True)
    hashes: dict[str, bytes] = {}
    for name, shard in shards.items():
        body = compress(msgspec.msgpack.encode(shard))
        hashes[name] = hashlib.sha256(body).digest()
        (folder / "shards" / f"{hashes[name].hex()}.msgpack.zst").write_bytes(body)
    info = {"subdir": subdir, "base_url": "", "shards_base_url": "./shards/"}
    listed = compress(msgspec.msgpack.encode({"version": 1, "info": info, "shards": hashes}))
    (folder / "repodata_shards.msgpack.zst").write_bytes(listed)


def sample_channel(path: Path) -> ChannelFolder:
    """Return a channel with several versions, both formats, a dependency and a platform subdir."""
    channel = ChannelFolder(path, ("linux-64", "noarch"))
    channel.add(
        PackageSpec(name="alpha", version="1.0", extension=".tar.bz2"),
        PackageSpec(name="alpha", version="1.10", content="ten\n"),
        PackageSpec(name="alpha", version="1.9", content="nine\n"),
        PackageSpec(name="beta", version="2.0", depends=("alpha >=1.9",)),
        PackageSpec(name="gamma", version="0.1", subdir="linux-64", depends=("beta",)),
    )
    return channel
