"""Files that are fetched because a client asks: once, verified, and never completed when they are wrong."""

import asyncio
import json
import os
from collections.abc import Callable

import msgspec
import pytest
from aiohttp.test_utils import make_mocked_request

from firth_protocol.errors import NoSpace, Unavailable
from firthd.mirrors import on_demand
from firthd.mirrors.in_flight import HELD_BACK
from firthd.mirrors.on_demand import OnDemand
from firthd.store.artifacts import FileRow
from firthd.upstream.source import Source
from firthd.web.admission import Visitor
from firthd.web.files import Files
from firthd.web.hot import HotObjects
from firthd.web.packages import Packages
from firthd.web.problems import Problem
from tests.daemon.web.test_files import open_files, settled
from tests.support.clock import FakeClock
from tests.support.rawhttp import RawClient
from tests.support.upstream import Fault, FaultyUpstream
from tests.support.web import Site, conda_index, sha256, until

NAME = "pkg-1-0.conda"
URL = f"/repo/main/noarch/{NAME}"
AT = f"noarch/{NAME}"
DATA = os.urandom(5 * HELD_BACK)
HALF = len(DATA) // 2


@pytest.fixture
async def row(site: Site) -> FileRow:
    """A package that is listed and not stored."""
    site.shelf.channel("main", conda_index("noarch"))
    return site.shelf.artifact("main", "noarch", NAME, DATA, stored=False)


def held(source: FaultyUpstream, first: int, *, chunked: bool = False) -> Callable[[], None]:
    """Let the source send so many bytes of DATA; calling what is returned lets it send the rest."""
    drip = asyncio.Semaphore(1)
    source.files[AT] = DATA
    source.fail(AT, Fault(drip=drip, chunk_bytes=first, chunked=chunked))

    def release() -> None:
        for _ in range(len(DATA) // first):
            drip.release()

    return release


def relist(site: Site, row: FileRow, **fields: object) -> FileRow:
    changed = msgspec.structs.replace(row, **fields)
    site.shelf.rows[(row.channel_id, row.part, row.filename)] = changed
    return changed


async def stored(site: Site, data: bytes = DATA) -> None:
    await until(lambda: site.blobs.has(sha256(data)))


async def idle(site: Site) -> None:
    await until(lambda: not site.on_demand.under_way)


async def starts(client: RawClient) -> int:
    """Ask, and return the announced length once the first bytes of the body are there."""
    await client.send("GET", URL)
    length = (await client.head_of_reply()).length
    await client.reader.readexactly(1)
    return length


async def test_the_first_request_fetches_and_the_next_is_served_from_the_store(
    site: Site, source: FaultyUpstream, row: FileRow
) -> None:
    source.files[AT] = DATA
    first = await site.get(URL)
    assert (first.status, first.body) == (200, DATA)
    assert first.headers["etag"] == f'"{sha256(DATA)}"'
    assert first.headers["accept-ranges"] == "bytes"
    await stored(site)
    again = await site.get(URL)
    assert again.body == DATA
    assert len(source.requests) == 1
    assert again.headers["etag"] == first.headers["etag"]


async def test_thirty_clients_make_one_request(site: Site, source: FaultyUpstream, row: FileRow) -> None:
    release = held(source, HALF)
    clients = [asyncio.create_task(site.get(URL)) for _ in range(30)]
    async with site.connection() as client:
        assert await starts(client) == len(DATA)  # bytes go out while the rest has not come
        release()
    replies = await asyncio.gather(*clients)
    assert [reply.body == DATA for reply in replies] == [True] * 30
    assert len(source.requests) == 1


async def test_the_tail_is_held_back_until_all_of_it_is_verified(
    site: Site, source: FaultyUpstream, row: FileRow
) -> None:
    release = held(source, len(DATA) - 1)
    async with site.connection() as client:
        await client.send("GET", URL)
        await client.head_of_reply()
        early = await client.reader.readexactly(len(DATA) - HELD_BACK)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.reader.readexactly(1), 0.05)
        release()
        assert early + await client.reader.readexactly(HELD_BACK) == DATA


async def test_a_small_file_that_is_wrong_gets_a_status_and_a_reason(
    site: Site, source: FaultyUpstream, row: FileRow
) -> None:
    relist(site, row, size=500)
    source.files[AT] = b"X" * 500
    reply = await site.get(URL)
    assert (reply.status, "sha256 is" in reply.reason, b"XXX" in reply.body) == (502, True, False)


async def test_wrong_bytes_are_never_completed_and_answer_502_until_the_next_run(
    site: Site, source: FaultyUpstream, row: FileRow
) -> None:
    wrong = DATA[:-1] + bytes([DATA[-1] ^ 1])
    source.files[AT] = wrong
    reply = await site.get(URL)
    assert (reply.status, reply.cut) == (200, True)
    assert len(reply.body) <= len(DATA) - HELD_BACK
    await idle(site)
    assert not site.blobs.has(sha256(wrong))
    assert not site.blobs.has(sha256(DATA))
    assert list((site.root / "blobs" / "tmp").iterdir()) == []

    source.files[AT] = DATA
    refused = await site.get(URL)
    assert refused.status == 502
    assert "sha256 is" in json.loads(refused.body)["detail"]
    assert "sha256 is" in refused.reason  # pip and rattler show nothing else
    assert (await site.head(URL)).status == 200  # HEAD answers from the record
    assert len(source.requests) == 1

    site.on_demand.forget(row.mirror_id + 1)
    assert (await site.get(URL)).status == 502
    site.on_demand.forget(row.mirror_id)
    assert (await site.get(URL)).body == DATA


async def test_a_wrong_file_is_tried_again_after_an_hour(site: Site, source: FaultyUpstream, row: FileRow) -> None:
    source.files[AT] = b"short"
    reply = await site.get(URL)
    assert (reply.status, "5 bytes" in json.loads(reply.body)["detail"]) == (502, True)
    source.files[AT] = DATA
    assert (await site.get(URL)).status == 502
    assert isinstance(site.clock, FakeClock)
    await site.clock.advance(on_demand.BAD_S)
    assert (await site.get(URL)).body == DATA


@pytest.mark.parametrize("no_ranges", [False, True])
async def test_a_transfer_that_breaks_off_goes_on_where_it_was(
    site: Site, source: FaultyUpstream, row: FileRow, no_ranges: bool
) -> None:
    source.files[AT] = DATA
    source.fail(AT, Fault(cut_after=HALF))
    source.fail(AT, Fault(no_ranges=no_ranges))
    assert (await site.get(URL)).body == DATA
    first, second = source.asked(AT)
    assert (first.sent, second.headers["range"].startswith("bytes=")) == (HALF, True)
    assert (second.sent == len(DATA)) is no_ranges


async def test_a_source_that_always_breaks_off_never_completes(
    site: Site, source: FaultyUpstream, row: FileRow
) -> None:
    source.files[AT] = DATA
    source.fail(AT, Fault(cut_after=len(DATA) - 10, no_ranges=True), times=None)
    reply = await site.get(URL)
    assert (reply.cut, len(reply.body) <= len(DATA) - HELD_BACK) == (True, True)
    assert len(source.requests) == len(on_demand.PATIENCE.pauses_s) + 1
    await idle(site)
    source.heal()
    assert (await site.get(URL)).body == DATA  # nothing says that the file is wrong: asked again at once


async def test_a_fetch_goes_on_when_its_client_leaves(site: Site, source: FaultyUpstream, row: FileRow) -> None:
    release = held(source, HALF)
    before = open_files()
    async with site.connection() as client:
        await starts(client)
    release()
    await stored(site)
    assert (await site.get(URL)).body == DATA
    assert len(source.requests) == 1
    await idle(site)
    assert await settled(before, below=str(site.root)) == set()


async def test_head_answers_from_the_record(site: Site, source: FaultyUpstream, row: FileRow) -> None:
    reply = await site.head(URL)
    assert (reply.status, reply.length) == (200, len(DATA))
    assert reply.headers["etag"] == f'"{sha256(DATA)}"'
    assert (await site.get(URL, {"If-None-Match": f'"{sha256(DATA)}"'})).status == 304
    relist(site, row, size=None, sha256=None, declared=0)
    unknown = await site.head(URL)
    assert (unknown.status, "etag" in unknown.headers) == (200, False)
    assert source.requests == []


async def test_a_range_waits_for_the_whole_file(site: Site, source: FaultyUpstream, row: FileRow) -> None:
    release = held(source, len(DATA) - 1)
    async with site.connection() as client:
        await client.send("GET", URL, {"Range": "bytes=-10"})
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.reader.readexactly(1), 0.05)
    async with site.connection() as client:
        await client.send("GET", URL, {"Range": "bytes=0-9"})
        release()
        reply = await client.reply()
    assert (reply.status, reply.body) == (206, DATA[:10])
    assert len(source.requests) == 1


async def test_without_any_length_the_file_is_taken_whole_first(
    site: Site, source: FaultyUpstream, row: FileRow
) -> None:
    relist(site, row, size=None)
    source.files[AT] = DATA
    source.fail(AT, Fault(chunked=True))
    reply = await site.get(URL)
    assert (reply.status, reply.body, reply.length) == (200, DATA, len(DATA))
    assert "transfer-encoding" not in reply.headers


async def test_the_record_gives_the_length_that_the_source_does_not(
    site: Site, source: FaultyUpstream, row: FileRow
) -> None:
    release = held(source, HALF, chunked=True)
    async with site.connection() as client:
        assert await starts(client) == len(DATA)
        release()


async def test_a_source_that_is_down_answers_502_at_once(site: Site, row: FileRow) -> None:
    site.source = Source(url="http://127.0.0.1:1")
    reply = await site.get(URL)
    assert reply.status == 502
    assert "cannot be reached" in json.loads(reply.body)["detail"]
    assert (await site.get(URL)).status == 502
    assert (await site.get("/repo/main/noarch/repodata.json")).status == 200  # what is stored is served


async def test_what_the_source_lists_and_does_not_have(site: Site, source: FaultyUpstream, row: FileRow) -> None:
    reply = await site.get(URL)
    assert (reply.status, "does not have it" in json.loads(reply.body)["detail"]) == (502, True)
    await site.get(URL)
    assert len(source.requests) == 1


async def test_below_the_space_floor_nothing_is_fetched(site: Site, source: FaultyUpstream, row: FileRow) -> None:
    source.files[AT] = DATA
    site.full = NoSpace("1.0 GB free, 1.2 GB are the floor")
    reply = await site.get(URL)
    assert (reply.status, reply.reason) == (503, "1.0 GB free, 1.2 GB are the floor")
    assert "retry-after" in reply.headers
    assert source.requests == []
    site.full = None
    assert (await site.get(URL)).body == DATA


async def test_without_a_digest_the_archive_must_open_and_ours_is_told(
    site: Site, source: FaultyUpstream, row: FileRow
) -> None:
    relist(site, row, sha256=None, declared=0)
    source.files[AT] = DATA
    site.broken_archives.add(NAME)
    assert (await site.get(URL)).cut
    await idle(site)
    refused = await site.get(URL)
    assert (refused.status, "does not open" in json.loads(refused.body)["detail"]) == (502, True)
    site.broken_archives.clear()
    site.on_demand.forget(row.mirror_id)
    reply = await site.get(URL)
    assert (reply.status, reply.body) == (200, DATA)
    await idle(site)
    assert site.fetched == [(NAME, sha256(DATA))]


async def test_an_md5_alone_is_checked(site: Site, source: FaultyUpstream, row: FileRow) -> None:
    relist(site, row, sha256=None, md5="0" * 32, declared=1)
    source.files[AT] = DATA
    assert (await site.get(URL)).cut
    await idle(site)
    assert "md5 is" in (await site.get(URL)).reason
    assert site.fetched == []


async def test_a_lost_blob_is_fetched_again(site: Site, source: FaultyUpstream, row: FileRow) -> None:
    big = os.urandom(2_000_000)
    stored_row = site.shelf.artifact("main", "noarch", NAME, big)
    assert stored_row.sha256 is not None
    site.blobs.path(stored_row.sha256).unlink()
    source.files[AT] = big
    assert (await site.get(URL)).body == big


async def test_the_same_bytes_under_two_names_are_fetched_once(
    site: Site, source: FaultyUpstream, row: FileRow
) -> None:
    site.shelf.artifact("main", "noarch", "twin-1-0.conda", DATA, stored=False)
    release = held(source, HALF)
    async with site.connection() as first, site.connection() as second:
        await starts(first)
        await second.send("GET", "/repo/main/noarch/twin-1-0.conda")
        await second.head_of_reply()
        release()
        assert await second.reader.readexactly(len(DATA)) == DATA
    assert len(source.requests) == 1


async def test_a_fetch_is_not_shared_with_a_channel_that_names_the_same_bytes(
    site: Site, source: FaultyUpstream, row: FileRow
) -> None:
    site.shelf.channel("other", conda_index("noarch"))
    site.shelf.artifact("other", "noarch", NAME, DATA, stored=False, mirror_id=8)
    async with FaultyUpstream({AT: b"x" * len(DATA)}) as hostile:
        site.sources[8] = Source(url=hostile.url)
        release = held(source, HALF)
        async with site.connection() as first:
            await starts(first)
            async with site.connection() as second:
                await second.send("GET", f"/repo/other/noarch/{NAME}")
                await hostile.arrived(AT)  # its own source is asked; what comes for the other channel is not for it
            release()
            assert await first.reader.readexactly(len(DATA) - 1) == DATA[1:]
        await until(lambda: site.on_demand.under_way == 0)
        assert (await site.get(f"/repo/other/noarch/{NAME}")).status == 502
        assert (await site.get(URL)).body == DATA


async def test_the_failure_of_one_source_is_not_that_of_another(
    site: Site, source: FaultyUpstream, row: FileRow
) -> None:
    site.shelf.artifact("main", "noarch", "twin-1-0.conda", DATA, stored=False, mirror_id=8)
    async with FaultyUpstream({"noarch/twin-1-0.conda": DATA}) as good:
        site.sources[8] = Source(url=good.url)
        hold = asyncio.Event()
        source.fail(AT, Fault(status=500, until=hold))
        refused = asyncio.create_task(site.get(URL))
        await source.arrived(AT)
        served = asyncio.create_task(site.get("/repo/main/noarch/twin-1-0.conda"))
        await until(lambda: len(site.shelf.asked) == 2)
        assert good.requests == []  # it waits for the fetch that is under way
        hold.set()
        assert ((await refused).status, (await served).body) == (502, DATA)


async def test_only_so_many_files_are_fetched_at_once(site: Site, source: FaultyUpstream, row: FileRow) -> None:
    rows = [site.shelf.artifact("main", "noarch", f"p{n}-1-0.conda", b"%d" % n, stored=False) for n in range(6)]
    source.files.update({f"noarch/p{n}-1-0.conda": b"%d" % n for n in range(6)})
    gate = asyncio.Event()
    source.fail("*", Fault(until=gate), times=None)

    async with OnDemand(site.upstream, site.blobs, site.clock, site.helpers, per_host=4) as on_demand:

        async def fetched(file: FileRow) -> str:
            async with on_demand.open(file) as live:
                return (await live.whole()).sha256

        tasks = [asyncio.create_task(fetched(file)) for file in rows]
        await source.arrived(count=2)
        assert on_demand.under_way == 6
        gate.set()
        assert await asyncio.gather(*tasks) == [file.sha256 for file in rows]
    assert source.most_in_flight == 2


async def test_a_source_that_does_not_answer_keeps_nobody_waiting(
    site: Site, source: FaultyUpstream, row: FileRow
) -> None:
    gate = asyncio.Event()
    source.files[AT] = DATA
    source.fail(AT, Fault(until=gate))
    async with OnDemand(site.upstream, site.blobs, site.clock, site.helpers, start_s=0.05) as on_demand:
        with pytest.raises(Unavailable, match="the download goes on"):
            async with on_demand.open(row):
                pass
        gate.set()
        await stored(site)
    assert len(source.requests) == 1


async def nobody(_: FileRow) -> None:
    pass


async def test_a_range_that_waits_too_long_is_504_and_the_fetch_goes_on(
    site: Site, source: FaultyUpstream, row: FileRow
) -> None:
    release = held(source, HALF)
    packages = Packages(Files(HotObjects()), site.blobs, site.on_demand, nobody, lambda *_: None, range_wait_s=0.05)
    request = make_mocked_request("GET", URL, headers={"Range": "bytes=0-9"})
    visitor = Visitor(secrets=(), by_proxy=False)
    with pytest.raises(Problem) as caught:
        await packages.send(
            request, visitor, row, channel="main", media_type="application/octet-stream", cache_control="public"
        )
    assert caught.value.status == 504
    release()
    await stored(site)
    assert len(source.requests) == 1


async def test_stopping_ends_every_fetch_and_cuts_its_clients(site: Site, source: FaultyUpstream, row: FileRow) -> None:
    held(source, HALF)
    async with site.connection() as client:
        await client.send("GET", URL)
        head = await client.head_of_reply()
        await client.reader.readexactly(1)
        await site.on_demand.close()
        rest = await client.reader.read(-1)
    assert len(rest) + 1 < head.length
    assert list((site.root / "blobs" / "tmp").iterdir()) == []
    reply = await site.get(URL)
    assert reply.status == 503
    with pytest.raises(Unavailable):
        async with site.on_demand.open(row):
            pass


async def test_stopping_before_a_fetch_has_begun_leaves_nobody_waiting(
    site: Site, source: FaultyUpstream, row: FileRow
) -> None:
    async def ask() -> None:
        async with site.on_demand.open(row):
            pass

    asking = asyncio.create_task(ask())
    await asyncio.sleep(0)  # the fetch is a task by now, and has not had its first turn
    assert site.on_demand.under_way == 1
    await site.on_demand.close()
    with pytest.raises(Unavailable):
        await asking
    assert (site.on_demand.under_way, source.requests) == (0, [])
