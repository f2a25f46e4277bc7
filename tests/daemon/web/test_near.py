"""A large file from near by: clients follow it after a while, before anybody knows whether it is right."""

import asyncio
import os

import pytest

from firthd.mirrors.on_demand import NEAR_S
from firthd.upstream.source import Source
from tests.support.clock import FakeClock
from tests.support.rawhttp import raw_client
from tests.support.upstream import Fault, FaultyUpstream
from tests.support.web import Site, conda_index, until

NAME = "pkg-1-0.conda"
AT = f"noarch/{NAME}"
URL = f"/repo/main/{AT}"
DATA = os.urandom(400_000)
CHUNK = 100_000


@pytest.mark.parametrize("right", [True, False])
async def test_clients_follow_what_takes_long_near_by(site: Site, source: FaultyUpstream, right: bool) -> None:
    site.shelf.channel("main", conda_index("noarch"))
    site.shelf.artifact("main", "noarch", NAME, DATA, stored=False)
    source.files[AT] = DATA
    drip = asyncio.Semaphore(1)
    async with FaultyUpstream({AT: DATA if right else DATA[:-1] + bytes([DATA[-1] ^ 1])}) as near:
        near.fail(AT, Fault(drip=drip, chunk_bytes=CHUNK))
        site.nears = [Source(url=near.url)]
        async with raw_client(site.host, site.port) as client:
            await client.send("GET", URL)
            await until(lambda: bool(near.requests) and near.requests[0].sent == CHUNK)
            assert isinstance(site.clock, FakeClock)
            await site.clock.advance(NEAR_S + 1)
            drip.release()
            assert (await client.head_of_reply()).length == len(DATA)
            begun = await client.reader.readexactly(CHUNK)
            assert begun == DATA[:CHUNK]
            drip.release()
            drip.release()
            rest = await client.reader.read(len(DATA)) if right else b""
            while right and len(begun) + len(rest) < len(DATA):
                rest += await client.reader.read(len(DATA))
            if right:
                assert begun + rest == DATA
            else:
                with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                    await client.reader.readexactly(len(DATA) - CHUNK)
    assert source.requests == []
    assert (await site.get(URL)).body == DATA
    assert len(source.asked(AT)) == (0 if right else 1)
