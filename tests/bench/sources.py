"""Made-up sources of each family in folders, as they are first and an hour later; the same bytes each time.

They hold indexes and no packages, which a passive mirror does not read. A conda channel has as many records as asked
for, the others at most as many as theirs have in the world.
"""

import gzip
import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import zstandard
from msgspec import Struct

from tests.bench.conda_index import SUBDIRS, records, write_index

R_MOST = 25_000
PYTHON_MOST = 20_000
FILES_A_PROJECT = 4


class Made(Struct, frozen=True):
    """A family's source: how it is written, and how a mirror of it is made."""

    write: Callable[[Path, int, bool], None]  # folder, records, an hour later
    path: str = ""  # of the index below the folder
    filters: Callable[[int], dict[str, Any]] = lambda total: {}
    most: int | None = None


def conda(folder: Path, total: int, later: bool, *, dense: bool = False) -> None:
    """Write a channel without shards; `dense`: what its records need is there."""
    how = {"dense": True} if dense else {}  # another checkout's may not know it
    for subdir, share in SUBDIRS.items():
        (folder / subdir).mkdir(parents=True, exist_ok=True)
        write_index(folder / subdir / "repodata.json.zst", subdir, int(total * share), later=later, **how)


def conda_shards(folder: Path, total: int, later: bool) -> None:
    """Write a channel with shards; those that are there already are not written again."""
    conda(folder, total, later)
    compress, encode = zstandard.ZstdCompressor(level=3).compress, msgspec.msgpack.encode
    for subdir, share in SUBDIRS.items():
        below = folder / subdir / "shards"
        below.mkdir(exist_ok=True)
        shards: dict[str, dict[str, dict[str, Any]]] = {}
        for number, (filename, record) in enumerate(records(subdir, int(total * share))):
            if later and number % 1000 == 500:
                continue
            if later and number % 1000 == 0:
                record["depends"].append("hotfix")
            section = "packages" if filename.endswith(".bz2") else "packages.conda"
            packed = record | {digest: bytes.fromhex(record[digest]) for digest in ("sha256", "md5")}
            shards.setdefault(record["name"], {"packages": {}, "packages.conda": {}})[section][filename] = packed
        hashes = {}
        for name, shard in shards.items():
            body = compress(encode(shard))
            hashes[name] = hashlib.sha256(body).digest()
            file = below / f"{hashes[name].hex()}.msgpack.zst"
            if not file.exists():
                file.write_bytes(body)
        info = {"subdir": subdir, "base_url": "", "shards_base_url": "./shards/"}
        listed = compress(encode({"version": 1, "info": info, "shards": hashes}))
        (folder / subdir / "repodata_shards.msgpack.zst").write_bytes(listed)


def r(folder: Path, total: int, later: bool) -> None:
    """Write PACKAGES of a root; later one package of a thousand has another version."""
    contrib = folder / "src" / "contrib"
    contrib.mkdir(parents=True, exist_ok=True)
    stanzas = []
    for number in range(total):
        version = f"1.{number % 7}.{1 if later and number % 1000 == 0 else 0}"
        lines = {
            "Package": f"package{number:06}",
            "Version": version,
            "Depends": "R (>= 3.5)",
            "Imports": ", ".join(f"package{(number * 31 + step) % total:06}" for step in range(1, number % 6)),
            "License": "GPL-3",
            "MD5sum": hashlib.md5(f"{number} {version}".encode()).hexdigest(),
            "NeedsCompilation": "no",
        }
        stanzas.append("".join(f"{key}: {value}\n" for key, value in lines.items() if value))
    (contrib / "PACKAGES.gz").write_bytes(gzip.compress("\n".join(stanzas).encode(), 6, mtime=0))


def projects(total: int) -> list[str]:
    """Return the projects of a Python index with so many files."""
    return [f"project-{number:06}" for number in range(max(1, total // FILES_A_PROJECT))]


def python(folder: Path, total: int, later: bool) -> None:
    """Write a page for each project and a list of them; later one project of a thousand has a file more."""
    simple = folder / "simple"
    listed = []
    for number, name in enumerate(projects(total)):
        more = later and number % 1000 == 0
        listed.append({"name": name})
        files = []
        for minor in range(FILES_A_PROJECT + more):
            filename = f"{name.replace('-', '_')}-1.{minor}-py3-none-any.whl"
            sha256 = hashlib.sha256(filename.encode()).hexdigest()
            at = f"../../files/{filename}"
            files.append({"filename": filename, "url": at, "hashes": {"sha256": sha256}, "size": 1000 + minor})
        page = {"meta": {"api-version": "1.4"}, "name": name, "files": files, "versions": []}
        file = simple / name / "index.json"
        if more or not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(page))
    (simple / "index.json").write_text(json.dumps({"meta": {"api-version": "1.4"}, "projects": listed}))


MADE = {
    "conda": Made(conda),
    "conda-shards": Made(conda_shards),
    "python": Made(python, "/simple", lambda total: {"projects": projects(total)}, PYTHON_MOST),
    "r": Made(r, most=R_MOST),
}


def floor(folder: Path) -> float:
    """Return the CPU seconds of taking every index apart once, packing it again and hashing it: no run costs less."""
    began = time.process_time()
    for file in sorted(folder.rglob("*")):
        if not file.is_file() or file.parent.name == "shards":
            continue
        content = file.read_bytes()
        if file.suffix == ".zst":
            content = zstandard.ZstdDecompressor().decompressobj().decompress(content)
        elif file.suffix == ".gz":
            content = gzip.decompress(content)
        if content.startswith(b"{"):
            msgspec.json.decode(content)
        hashlib.sha256(zstandard.ZstdCompressor(level=1).compress(content)).digest()
    return time.process_time() - began


def type_of(family: str) -> str:
    """Return a mirror's type."""
    return family.partition("-")[0]
