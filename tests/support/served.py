"""What a running daemon serves of a conda channel, and what its state and its disk say of that."""

import asyncio
import hashlib
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

from firthd.families.conda.shards import read_index
from tests.support.rawhttp import RawClient, Reply, raw_client

VARIANTS = ("repodata.json", "repodata.json.zst", "repodata_shards.msgpack.zst")


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[RawClient]:
    host, _, port = url.removeprefix("http://").partition(":")
    async with raw_client(host, int(port)) as client:
        yield client


async def get(url: str, path: str) -> Reply:
    async with connected(url) as client:
        return await client.get(path)


async def variants(url: str, root: str = "/repo/main", subdir: str = "noarch") -> dict[str, bytes]:
    """Return every variant of an index, after looking at each of its shards."""
    found = {}
    async with connected(url) as client:
        for name in VARIANTS:
            reply = await client.get(f"{root}/{subdir}/{name}")
            assert reply.status == 200, (root, name, reply.status)
            assert reply.headers["etag"] == f'"{hashlib.sha256(reply.body).hexdigest()}"'
            found[name] = reply.body
        for sha256 in read_index(found[VARIANTS[2]]).values():
            reply = await client.get(f"{root}/{subdir}/shards/{sha256.hex()}.msgpack.zst")
            assert (reply.status, hashlib.sha256(reply.body).digest()) == (200, sha256)
    return found


def rows(state: Path, sql: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(f"file:{state / 'firth.sqlite'}?mode=ro", uri=True)) as connection:
        return connection.execute(sql).fetchall()


def on_disk(state: Path) -> set[str]:
    return {file.name for file in (state / "rendered").glob("??/??/*")}


def named(state: Path) -> set[str]:
    return {str(file) for (file,) in rows(state, "SELECT DISTINCT lower(hex(file)) FROM object")}


async def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition on the disk holds; upkeep brings it about."""
    async with asyncio.timeout(10):
        while not await asyncio.to_thread(condition):
            await asyncio.sleep(0.02)
