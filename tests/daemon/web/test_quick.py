"""Answers from memory: the same as worked out, counted alike, and void with whatever changes."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from firth_protocol.types import Privacy
from firthd.web.quick import LIFE_S
from tests.support.clock import FakeClock
from tests.support.web import Site, conda_index, running_site, sha256

NAME = "alpha-1-0.conda"
DATA = b"a small file"
FILE = f"/repo/main/noarch/{NAME}"
INDEX = "/repo/main/noarch/repodata.json"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def site(tmp_path: Path, clock: FakeClock) -> AsyncIterator[Site]:
    async with running_site(tmp_path, clock=clock) as running:
        running.shelf.channel("main", conda_index("noarch"))
        running.shelf.artifact("main", "noarch", NAME, DATA)
        yield running


async def test_the_same_request_gets_the_same_answer_without_being_worked_out(site: Site, clock: FakeClock) -> None:
    tag = {"If-None-Match": f'"{sha256(DATA)}"'}
    async with site.connection() as client:
        for target, headers, status in ((FILE, {}, 200), (INDEX, {}, 200), (FILE, tag, 304)):
            first = await client.get(target, headers)
            looked = len(site.shelf.asked)
            for _ in range(3):
                again = await client.get(target, headers)
                assert (again.status, again.body) == (status, first.body)
                assert again.headers | {"date": ""} == first.headers | {"date": ""}
            assert len(site.shelf.asked) == looked
            await clock.advance(1)
            assert (await client.get(target, headers)).headers["date"] != again.headers["date"]
    assert site.downloads == {(NAME, 0): 5}


async def test_any_change_to_the_state_voids_every_answer(site: Site) -> None:
    view = site.shelf.views["main"]
    async with site.connection() as client:
        for privacy, status in (
            (Privacy.PUBLIC, 200),
            (Privacy.AUTHENTICATED, 401),
            (Privacy.PUBLIC, 200),
            (Privacy.PRIVATE, 404),
        ):
            site.shelf.views["main"] = replace(view, privacy=privacy)
            site.changes += 1
            for target in (FILE, INDEX, FILE, INDEX):
                assert (await client.get(target)).status == status
        site.shelf.views["main"] = view
        site.changes += 1
        assert (await client.get(FILE)).body == DATA
        site.shelf.artifact("main", "noarch", NAME, b"other bytes")
        site.changes += 1
        assert (await client.get(FILE)).body == b"other bytes"


async def test_what_changes_while_an_answer_is_worked_out_keeps_it_from_being_kept(site: Site) -> None:
    site.changes_when_asked = True
    async with site.connection() as client:
        await client.get(FILE)
        site.changes_when_asked = False
        looked = len(site.shelf.asked)
        await client.get(FILE)
        assert len(site.shelf.asked) == looked + 1


async def test_a_file_that_is_refused_from_now_on_is_not_given_from_memory(site: Site) -> None:
    async with site.connection() as client:
        await client.get(FILE)
        looked = len(site.shelf.asked)
        site.shelf.refused = True  # and nothing was written
        await client.get(FILE)
        assert len(site.shelf.asked) == looked + 1


async def test_answers_grow_old(site: Site, clock: FakeClock) -> None:
    async with site.connection() as client:
        await client.get(FILE)
        looked = len(site.shelf.asked)
        await clock.advance(LIFE_S + 1)
        await client.get(FILE)
        assert len(site.shelf.asked) == looked + 1


async def test_requests_with_secrets_and_of_closed_channels_are_worked_out(site: Site) -> None:
    site.shelf.channel("inner", conda_index("noarch"), privacy=Privacy.AUTHENTICATED)
    site.shelf.artifact("inner", "noarch", NAME, DATA)
    await site.token("secret", "*")
    bearer = {"Authorization": "Bearer secret"}
    async with site.connection() as client:
        for target, headers in (
            (FILE, bearer),
            (f"/t/secret{FILE}", {}),
            (f"/repo/inner/noarch/{NAME}", bearer),
            (f"/t/secret/repo/inner/noarch/{NAME}", {}),
        ):
            for turn in range(3):
                looked = len(site.shelf.asked)
                assert (await client.get(target, headers)).body == DATA
                assert len(site.shelf.asked) == looked + 1, turn
    assert site.downloads == {(NAME, 1): 12}


async def test_requests_in_pieces_and_in_rows_are_answered_in_order(site: Site) -> None:
    ask = f"GET {FILE} HTTP/1.1\r\nHost: firth.example.org\r\n\r\n".encode()
    other = f"GET {INDEX} HTTP/1.1\r\nHost: firth.example.org\r\n\r\n".encode()
    async with site.connection() as client:
        index = (await client.get(INDEX)).body
        await client.get(FILE)
        client.writer.write(ask[:20])
        await client.writer.drain()
        await asyncio.sleep(0)
        client.writer.write(ask[20:])
        assert (await client.reply()).body == DATA
        client.writer.write(ask + other + ask)
        assert [(await client.reply()).body for _ in range(3)] == [DATA, index, DATA]
    async with site.connection() as client:
        for _ in range(3):  # each behind the one before, whose answer nobody waits for
            client.writer.write(other)
            client.writer.write(ask)
        assert [(await client.reply()).body for _ in range(6)] == [index, DATA] * 3
    body = f"GET {FILE} HTTP/1.1\r\nHost: firth.example.org\r\nContent-Length: {len(ask)}\r\n\r\n".encode()
    async with site.connection() as client:
        client.writer.write(body)
        client.writer.write(ask)  # the body of the request before it, and no request
        assert (await client.reply()).body == DATA
        client.writer.write(other)
        assert (await client.reply()).body == index
