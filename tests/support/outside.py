"""What must hold of a daemon, seen from outside: the bytes that it serves, its state, its facts and audit lines."""

import asyncio
import hashlib
import json
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import zstandard
from msgspec import Struct

from tests.support.conda import ChannelFolder
from tests.support.world import raw_records

UNREADABLE = (aiohttp.ClientError, OSError, TimeoutError)
"""What a package client meets when its server dies, or when an answer is cut off on purpose."""


class Truth:
    """Every file that a source has ever had, by name: a name may have been uploaded more than once."""

    def __init__(self) -> None:
        self.digests: dict[str, set[str]] = {}
        self.asked = 0  # answers looked at
        self.wrong: list[str] = []

    def learn(self, source: ChannelFolder) -> None:
        """Take in what a source lists now."""
        for records in source.records.values():
            for filename, record in records.items():
                self.digests.setdefault(filename, set()).add(record["sha256"])

    def check(self, filename: str, body: bytes) -> str:
        """Remember an answer whose bytes no source ever had under this name; return its sha256."""
        self.asked += 1
        digest = hashlib.sha256(body).hexdigest()
        if digest not in self.digests.get(filename, set()):
            self.wrong.append(f"{filename}: {len(body)} bytes, sha256 {digest[:12]}")
        return digest


class Fact(Struct, frozen=True, kw_only=True):
    """A numbered event as it is stored."""

    seq: int
    type: str
    ids: dict[str, Any]
    data: dict[str, Any]


class AuditLine(Struct, frozen=True, kw_only=True):
    """A line of the audit log as it is stored."""

    id: int
    method: str
    params: dict[str, Any]
    outcome: str


def sound(state: Path) -> list[str]:
    """Return what is wrong with the database of a daemon that does not run; an empty list is what is wanted."""
    with closing(sqlite3.connect(state / "firth.sqlite")) as connection:
        found = [str(row[0]) for row in connection.execute("PRAGMA integrity_check") if row[0] != "ok"]
        found += [f"foreign key: {row}" for row in connection.execute("PRAGMA foreign_key_check")]
        numbers = [row[0] for row in connection.execute("SELECT seq FROM event ORDER BY seq")]
        if numbers and numbers != list(range(numbers[0], numbers[0] + len(numbers))):
            found.append("the numbers of the facts have a gap")
        doubled = connection.execute(
            "SELECT artifact.channel_id, artifact.mirror_id, family, filename, count(*) FROM artifact"
            " JOIN change_set ON change_set.id = added_set"
            " WHERE closed_set IS NULL AND change_set.state = 'published'"
            " GROUP BY artifact.channel_id, artifact.mirror_id, family, part, section, filename HAVING count(*) > 1"
        )
        found += [f"two live rows of one file: {row}" for row in doubled]
    return found


def facts(state: Path) -> list[Fact]:
    """Return every fact of a daemon that does not run, in order."""
    with closing(sqlite3.connect(state / "firth.sqlite")) as connection:
        rows = connection.execute("SELECT seq, type, ids, data FROM event ORDER BY seq").fetchall()
    return [Fact(seq=seq, type=kind, ids=json.loads(ids), data=json.loads(data)) for seq, kind, ids, data in rows]


def audit_lines(state: Path) -> list[AuditLine]:
    """Return every audit line of a daemon that does not run, in order."""
    with closing(sqlite3.connect(state / "firth.sqlite")) as connection:
        rows = connection.execute("SELECT id, method, params, outcome FROM audit ORDER BY id").fetchall()
    return [
        AuditLine(id=number, method=method, params=json.loads(params), outcome=outcome)
        for number, method, params, outcome in rows
    ]


def stored(folder: Path) -> set[str]:
    """Return the digests below a store's folder, each of whose files is checked against its name."""
    found = set()
    for path in folder.glob("??/??/*"):
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name, path
        found.add(path.name)
    return found


async def fetch(http: aiohttp.ClientSession, address: str) -> tuple[int, bytes]:
    """Ask as a package client does; return status and body."""
    async with http.get(address) as reply:
        return reply.status, await reply.read()


async def index(http: aiohttp.ClientSession, base: str, subdir: str) -> dict[str, str]:
    """Return sha256 by file name as a channel's index says, whose three forms must agree; `base` ends with its name.

    Asks again while a publication comes between two of the requests.
    """
    for _ in range(5):
        _, plain = await _ok(http, f"{base}/{subdir}/repodata.json")
        _, packed = await _ok(http, f"{base}/{subdir}/repodata.json.zst")
        shards = await shard_records(http, base, subdir)
        if (await _ok(http, f"{base}/{subdir}/repodata.json"))[1] == plain:
            break
    assert unpacked(packed) == plain
    listed = {name: msgspec.json.decode(raw, type=_Listed).sha256 for name, raw in raw_records(plain).items()}
    assert {name: record["sha256"].hex() for name, record in shards.items()} == listed
    return listed


async def shard_index(http: aiohttp.ClientSession, base: str, subdir: str) -> dict[str, str]:
    """Return the sha256 of each package's shard by the package's name."""
    _, body = await _ok(http, f"{base}/{subdir}/repodata_shards.msgpack.zst")
    shards: Mapping[str, bytes] = msgspec.msgpack.decode(unpacked(body))["shards"]
    return {name: digest.hex() for name, digest in shards.items()}


async def shard_records(http: aiohttp.ClientSession, base: str, subdir: str) -> dict[str, Any]:
    """Return every record of every shard by file name."""
    found: dict[str, Any] = {}
    for digest in (await shard_index(http, base, subdir)).values():
        _, body = await _ok(http, f"{base}/{subdir}/shards/{digest}.msgpack.zst")
        assert hashlib.sha256(body).hexdigest() == digest
        shard = msgspec.msgpack.decode(unpacked(body))
        for section in ("packages", "packages.conda", "conda"):
            found |= shard.get(section) or {}
    return found


async def all_served(http: aiohttp.ClientSession, base: str, truth: Truth, subdirs: Iterable[str] = ("noarch",)) -> int:
    """Ask for every form of the index and every file that it lists; return how many files came.

    A file's bytes must be those that the index promises. One that was published anew in between counts by the new
    index; one that cannot be had now (a passive mirror whose source is away) is no wrong answer.
    """
    count = 0
    for subdir in subdirs:
        listed = await index(http, base, subdir)
        for filename in listed:
            status, body = await fetch(http, f"{base}/{subdir}/{filename}")
            if status != 200:
                continue
            digest = truth.check(filename, body)
            if digest != listed[filename]:
                again = await index(http, base, subdir)
                if again.get(filename, digest) != digest:
                    truth.wrong.append(f"{filename}: its bytes are not what the index says")
            count += 1
    return count


async def looks_around(base: str, truth: Truth, names: Iterable[str], stop: asyncio.Event) -> None:
    """Be a package client that asks for file after file until it is told to stop or its server goes."""
    names = list(names)
    timeout = aiohttp.ClientTimeout(total=10)
    async with aiohttp.ClientSession(timeout=timeout) as http:
        while not stop.is_set():
            for name in names:
                try:
                    status, body = await fetch(http, f"{base}/noarch/{name}")
                except UNREADABLE:  # cut off, as the daemon died or the source did
                    if stop.is_set():
                        return
                    await asyncio.sleep(0.01)  # nothing to wait on: the server is being killed
                else:
                    if status == 200:
                        truth.check(name, body)


class _Listed(Struct):
    """The one member that is looked at; what else a record holds may be more than a decoder takes."""

    sha256: str


def unpacked(body: bytes) -> bytes:
    return zstandard.ZstdDecompressor().decompressobj().decompress(body)


async def _ok(http: aiohttp.ClientSession, address: str) -> tuple[int, bytes]:
    status, body = await fetch(http, address)
    assert status == 200, f"{address}: {status} {body[:200]!r}"
    return status, body
