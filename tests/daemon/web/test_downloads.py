"""What counts as a download: one for each file that a client gets, however it asks for it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from firth_protocol.types import Privacy
from firthd.config import WebSettings
from tests.support.web import Site, conda_index, running_site, sha256

NAME = "alpha-1-0.conda"
DATA = bytes(range(256)) * 800
URL = f"/repo/main/noarch/{NAME}"


@pytest_asyncio.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with running_site(tmp_path) as running:
        running.shelf.channel("main", conda_index("noarch"))
        running.shelf.artifact("main", "noarch", NAME, DATA)
        yield running


ASKED = [
    ({}, 200, 1),
    ({"Range": "bytes=0-"}, 206, 1),
    ({"Range": "bytes=0-999"}, 206, 1),
    ({"Range": "bytes=0-0"}, 206, 0),  # whether ranges are understood
    ({"Range": "bytes=1000-"}, 206, 0),  # what was broken off goes on
    ({"Range": "bytes=-1000"}, 206, 0),  # a look at the end, where an archive lists what it holds
    ({"Range": f"bytes={len(DATA)}-"}, 416, 0),
    ({"Range": "bytes=5-1"}, 200, 1),  # nonsense is ignored: the whole file came
    ({"If-None-Match": f'"{sha256(DATA)}"'}, 304, 0),
    ({"If-Match": '"another"'}, 412, 0),
]


async def test_a_download_is_an_answer_that_begins_with_the_first_byte(site: Site) -> None:
    for headers, status, counted in ASKED:
        site.downloads.clear()
        reply = await site.get(URL, headers)
        assert (headers, reply.status, site.downloads.total()) == (headers, status, counted)


async def test_a_file_that_comes_in_four_ranges_counts_once(site: Site) -> None:
    quarter = len(DATA) // 4
    spans = [f"bytes={start}-{start + quarter - 1}" for start in range(0, len(DATA), quarter)]
    parts = await asyncio.gather(*(site.get(URL, {"Range": span}) for span in spans))
    assert b"".join(part.body for part in parts) == DATA
    assert site.downloads == {(NAME, 0): 1}


async def test_head_indexes_and_what_is_not_there_do_not_count(site: Site) -> None:
    await site.head(URL)
    await site.get("/repo/main/noarch/repodata.json")
    await site.get("/repo/main/noarch/beta-1-0.conda")
    assert site.downloads == {}


async def test_a_token_is_told_by_its_id_also_where_no_door_asks_for_it(site: Site) -> None:
    await site.token("secret1")
    await site.token("secret2", "hidden")
    site.shelf.channel("hidden", conda_index("noarch"), privacy=Privacy.PRIVATE)
    site.shelf.artifact("hidden", "noarch", "beta-1-0.conda", DATA)
    await site.get(URL, {"Authorization": "Bearer secret1"})
    await site.get(f"/t/secret2{URL}")
    await site.get(URL, {"Authorization": "Bearer unknown"})
    await site.get("/t/secret2/repo/hidden/noarch/beta-1-0.conda")
    assert (await site.get("/t/secret1/repo/hidden/noarch/beta-1-0.conda")).status == 404
    assert site.downloads == {(NAME, 1): 1, (NAME, 2): 1, (NAME, 0): 1, ("beta-1-0.conda", 2): 1}


async def test_what_is_left_to_nginx_counts_by_the_range_that_was_asked_for(tmp_path: Path) -> None:
    settings = WebSettings(accel_redirect="/_firth/", trusted_proxies=["127.0.0.1"])
    async with running_site(tmp_path, settings) as site:
        site.shelf.channel("main", conda_index("noarch"))
        site.shelf.artifact("main", "noarch", NAME, DATA * 10)
        for asked in ({}, {"Range": "bytes=0-"}, {"Range": "bytes=70000-"}):
            through = {**asked, "X-Forwarded-For": "192.0.2.7"}
            assert "x-accel-redirect" in (await site.get(URL, through)).headers
        assert site.downloads == {(NAME, 0): 2}


async def test_the_mirrors_of_a_channel_are_named_to_whom_its_door_opens(site: Site) -> None:
    site.shelf.channel("team", conda_index("noarch"), privacy=Privacy.AUTHENTICATED)
    site.shelf.channel("hidden", conda_index("noarch"), privacy=Privacy.PRIVATE)
    await site.token("reads", "hidden")
    assert [line for line in (await site.get("/metrics")).body.splitlines() if b"mirror" in line] == [
        b'firth_mirror_enabled{channel="main"} 1'
    ]
    told = (await site.get("/metrics", {"Authorization": "Bearer reads"})).body
    assert told.count(b"firth_mirror_enabled") == 3
