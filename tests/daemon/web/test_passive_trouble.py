"""A source in trouble: asked again before a client hears of it, one file's trouble not the mirror's, nobody starved."""

import asyncio
import json
import os
import random

import msgspec
import pytest

from firth_protocol.errors import Unavailable
from firthd.mirrors import on_demand
from firthd.mirrors.on_demand import OnDemand
from firthd.store.artifacts import FileRow
from firthd.upstream.source import Source
from tests.support.clock import FakeClock
from tests.support.rawhttp import Reply
from tests.support.upstream import Fault, FaultyUpstream
from tests.support.web import Site, conda_index, until

DATA = os.urandom(1000)


def name(number: int) -> str:
    return f"p{number}-1-0.conda"


def listed(site: Site, source: FaultyUpstream, count: int, channel: str = "main", mirror: int = 7) -> list[FileRow]:
    """List so many files in a new channel, all different; the source has them."""
    site.shelf.channel(channel, conda_index("noarch"))
    rows = []
    for number in range(count):
        data = DATA + f"{channel} {number}".encode()
        source.files[f"noarch/{name(number)}"] = data
        rows.append(site.shelf.artifact(channel, "noarch", name(number), data, stored=False, mirror_id=mirror))
    return rows


async def ask(site: Site, number: int, channel: str = "main") -> Reply:
    return await site.get(f"/repo/{channel}/noarch/{name(number)}")


def clock_of(site: Site) -> FakeClock:
    assert isinstance(site.clock, FakeClock)
    return site.clock


def reason(reply: Reply) -> str:
    return str(json.loads(reply.body)["detail"])


# --- asked again ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [Fault(status=500), Fault(status=503), Fault(drop=True), Fault(cut_after=500)])
async def test_what_passes_is_not_told(site: Site, source: FaultyUpstream, fault: Fault) -> None:
    listed(site, source, 1)
    source.fail("*", fault, times=3)
    reply = await ask(site, 0)
    assert (reply.status, reply.body) == (200, source.files[f"noarch/{name(0)}"])
    assert clock_of(site).monotonic() <= 10


async def test_a_file_that_goes_on_failing_is_told_after_ten_seconds_at_most(
    site: Site, source: FaultyUpstream
) -> None:
    listed(site, source, 2)
    source.fail(f"noarch/{name(0)}", Fault(status=500), times=None)
    reply = await ask(site, 0)
    assert (reply.status, "answered 500" in reason(reply)) == (502, True)
    assert len(source.requests) == 1 + len(on_demand.PATIENCE.pauses_s) == 4
    assert clock_of(site).monotonic() <= 10
    again = await ask(site, 0)
    assert (again.status, reason(again), len(source.requests)) == (502, reason(reply), 4)
    assert (await ask(site, 1)).status == 200  # that file alone
    source.heal()
    await clock_of(site).advance(on_demand.FAILED_S - 1)
    assert (await ask(site, 0)).status == 502
    await clock_of(site).advance(1)
    assert (await ask(site, 0)).status == 200


@pytest.mark.parametrize("status", [401, 403, 404, 410, 418])
async def test_a_refusal_is_that_files_and_is_not_asked_for_again(
    site: Site, source: FaultyUpstream, status: int
) -> None:
    listed(site, source, 10)
    for number in range(8):
        source.fail(f"noarch/{name(number)}", Fault(status=status), times=None)
        reply = await ask(site, number)
        assert reply.status == 502
        assert str(status) in reason(reply) or "does not have it" in reason(reply)
        assert name(number) in reason(reply)
    assert len(source.requests) == 8
    assert (await ask(site, 9)).status == 200  # eight refused files say nothing about the ninth
    source.heal()
    await clock_of(site).advance(on_demand.FAILED_S)
    assert (await ask(site, 0)).status == 200


async def test_a_pause_that_the_source_asks_for_is_waited_out_if_it_is_short(
    site: Site, source: FaultyUpstream
) -> None:
    listed(site, source, 2)
    source.fail("*", Fault(status=429, retry_after=4))
    assert (await ask(site, 0)).status == 200
    assert 4 <= clock_of(site).monotonic() <= 10
    source.fail("*", Fault(status=429, retry_after=60))
    reply = await ask(site, 1)
    assert (reply.status, "429" in reason(reply)) == (502, True)
    assert len(source.requests) == 3


async def test_silence_is_asked_again_soon(site: Site, source: FaultyUpstream) -> None:
    [row] = listed(site, source, 1)
    source.fail("*", Fault(until=asyncio.Event()))
    patience = on_demand.PATIENCE.answer_s
    assert patience[0] + patience[1] < 10
    async with asyncio.timeout(patience[0] + 1.5), site.on_demand.open(row) as live:
        assert (await live.whole()).sha256 == row.sha256
    assert len(source.requests) == 2


async def test_where_one_answer_in_twenty_is_500_no_file_fails(site: Site, source: FaultyUpstream) -> None:
    listed(site, source, 60)
    dice = random.Random(6)
    for number in range(60):
        for _ in range(4):
            if dice.random() < 0.05:
                source.fail(f"noarch/{name(number)}", Fault(status=500))
    replies = await asyncio.gather(*(ask(site, number) for number in range(60)))
    assert [reply.status for reply in replies] == [200] * 60
    assert any(seen.status == 500 for seen in source.requests)


async def test_a_break_of_a_source_without_validators_is_resumed_because_the_digest_is_known(
    site: Site, source: FaultyUpstream
) -> None:
    listed(site, source, 1)
    source.fail("*", Fault(no_validators=True, cut_after=500))
    source.fail("*", Fault(no_validators=True))
    assert (await ask(site, 0)).status == 200
    assert source.requests[1].headers["range"] == "bytes=500-"
    assert "if-range" not in source.requests[1].headers


async def test_two_halves_of_different_files_are_never_one_file(site: Site, source: FaultyUpstream) -> None:
    [row] = listed(site, source, 1)
    path = f"noarch/{name(0)}"
    site.shelf.artifact("main", "noarch", name(0), DATA, stored=False, sha256=None, declared=0, size=None)
    hold = asyncio.Event()
    source.fail("*", Fault(chunked=True, cut_after=500))
    source.fail("*", Fault(until=hold))
    asked = asyncio.create_task(ask(site, 0))
    await source.arrived(count=2)
    source.files[path] = os.urandom(1000)
    hold.set()
    reply = await asked
    assert (reply.status, "the same file" in reason(reply)) == (502, True)
    assert row.sha256 is not None
    assert site.fetched == []
    assert (await ask(site, 0)).body == source.files[path]


# --- when a source is down ------------------------------------------------------------------------------


async def test_five_different_files_in_a_row_make_a_source_down_and_one_that_comes_makes_it_up(
    site: Site, source: FaultyUpstream
) -> None:
    listed(site, source, 8)
    bad = [f"noarch/{name(number)}" for number in range(5)]
    for path in bad:
        source.fail(path, Fault(status=500), times=None)
    for number in range(4):
        assert (await ask(site, number)).status == 502
    for _ in range(3):
        assert (await ask(site, 3)).status == 502  # the same file again counts once
    assert (await ask(site, 5)).status == 200  # and takes the count back
    await clock_of(site).advance(on_demand.FAILED_S)
    for number in range(5):
        assert (await ask(site, number)).status == 502
    asked = len(source.requests)
    reply = await ask(site, 6)
    assert (reply.status, "5 files in a row" in reason(reply), name(4) in reason(reply)) == (502, True, True)
    assert len(source.requests) == asked
    await clock_of(site).advance(on_demand.DOWN_S)
    assert (await ask(site, 6)).status == 200
    assert (await ask(site, 7)).status == 200


async def test_a_source_that_takes_no_connection_is_down_at_once(site: Site, source: FaultyUpstream) -> None:
    listed(site, source, 2)
    site.source = Source(url="http://127.0.0.1:1")
    assert "cannot be reached" in reason(await ask(site, 0))
    before = clock_of(site).monotonic()
    assert "cannot be reached" in reason(await ask(site, 1))
    assert clock_of(site).monotonic() == before  # no attempt, no pause
    site.source = Source(url=source.url)
    await clock_of(site).advance(on_demand.DOWN_S)
    assert (await ask(site, 1)).status == 200


async def test_another_mirrors_source_is_not_down(site: Site, source: FaultyUpstream) -> None:
    listed(site, source, 1)
    site.source = Source(url="http://127.0.0.1:1")
    assert (await ask(site, 0)).status == 502
    async with FaultyUpstream() as other:
        listed(site, other, 1, "other", mirror=8)
        site.sources[8] = Source(url=other.url)
        assert (await ask(site, 0, "other")).status == 200


# --- who waits for whom ---------------------------------------------------------------------------------


async def take(on_demand: OnDemand, row: FileRow, client: str) -> str:
    async with on_demand.open(row, client) as live:
        return (await live.whole()).sha256


async def test_a_source_that_crawls_keeps_only_itself_busy(site: Site, source: FaultyUpstream) -> None:
    slow = listed(site, source, 200)
    drip = asyncio.Semaphore(0)
    source.fail("*", Fault(drip=drip, chunk_bytes=1), times=None)
    async with FaultyUpstream() as good:
        site.sources[8] = Source(url=good.url)
        healthy = listed(site, good, 40, "good", mirror=8)
        waiting = [asyncio.create_task(take(site.on_demand, row, f"10.0.0.{row.id}")) for row in slow]
        await source.arrived(count=10)
        async with asyncio.timeout(10):
            for row in healthy:
                assert await take(site.on_demand, row, "10.0.1.1") == row.sha256
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
    assert source.most_in_flight == 10  # a channel never has all places of a host


async def test_a_client_with_two_hundred_files_leaves_room_for_another(site: Site, source: FaultyUpstream) -> None:
    rows = listed(site, source, 201)
    drip = asyncio.Semaphore(0)
    for row in rows[:-1]:
        source.fail(f"noarch/{row.filename}", Fault(drip=drip, chunk_bytes=1))
    greedy = [asyncio.create_task(take(site.on_demand, row, "greedy")) for row in rows[:-1]]
    await source.arrived(count=7)
    async with asyncio.timeout(10):
        assert await take(site.on_demand, rows[-1], "modest") == rows[-1].sha256
    assert source.most_in_flight <= 8
    for task in greedy:
        task.cancel()
    await asyncio.gather(*greedy, return_exceptions=True)


async def test_one_channel_leaves_room_for_another_even_from_one_address(site: Site, source: FaultyUpstream) -> None:
    rows = listed(site, source, 40)
    drip = asyncio.Semaphore(0)
    source.fail("*", Fault(drip=drip, chunk_bytes=1), times=7)
    [other] = listed(site, source, 1, "other")
    greedy = [asyncio.create_task(take(site.on_demand, row, "proxy")) for row in rows]
    await source.arrived(count=7)
    async with asyncio.timeout(10):
        assert await take(site.on_demand, other, "proxy") == other.sha256
    more = [asyncio.create_task(take(site.on_demand, row, f"c{row.id}")) for row in rows]
    for task in (*greedy, *more):
        task.cancel()
    await asyncio.gather(*greedy, *more, return_exceptions=True)


async def test_who_waits_while_a_source_turns_out_down_is_told_and_prolongs_nothing(
    site: Site, source: FaultyUpstream
) -> None:
    rows = listed(site, source, 20)
    site.source = Source(url="http://127.0.0.1:1")
    replies = await asyncio.gather(*(ask(site, number) for number in range(20)))
    assert {(reply.status, "cannot be reached" in reason(reply)) for reply in replies} == {(502, True)}
    site.source = Source(url=source.url)
    await clock_of(site).advance(on_demand.DOWN_S)
    for number in range(len(rows)):
        assert (await ask(site, number)).status == 200


async def test_what_nobody_waits_for_gives_way_to_what_somebody_does(site: Site, source: FaultyUpstream) -> None:
    rows = listed(site, source, 6)
    rows[1:3] = [msgspec.structs.replace(row, channel_id=99) for row in rows[1:3]]  # no channel has all places
    drip = asyncio.Semaphore(0)
    source.fail("*", Fault(drip=drip, chunk_bytes=1), times=4)
    async with OnDemand(site.upstream, site.blobs, site.clock, site.helpers, per_host=4) as fetches:
        left = [asyncio.create_task(take(fetches, row, f"c{row.id}")) for row in rows[:4]]
        await source.arrived(count=4)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        assert fetches.under_way == 4  # nobody else wants their places: they go on
        async with asyncio.timeout(10):
            assert await take(fetches, rows[4], "c") == rows[4].sha256
        assert fetches.under_way == 3
        async with asyncio.timeout(10):
            assert await take(fetches, rows[0], "c") == rows[0].sha256


async def test_who_waits_for_a_turn_is_told_so_and_not_that_the_source_is_slow(
    site: Site, source: FaultyUpstream
) -> None:
    rows = listed(site, source, 2)
    source.fail("*", Fault(drip=asyncio.Semaphore(1), chunk_bytes=1))
    async with (
        OnDemand(site.upstream, site.blobs, site.clock, site.helpers, per_host=1, start_s=0.5) as fetches,
        fetches.open(rows[0], "a"),
    ):
        with pytest.raises(Unavailable, match=rf"waits for its turn: 1 other files .* from {source.host}"):
            await take(fetches, rows[1], "b")
        await until(lambda: fetches.under_way == 1)


async def test_a_fetch_that_has_no_place_ends_with_its_last_client(site: Site, source: FaultyUpstream) -> None:
    rows = listed(site, source, 2)
    source.fail("*", Fault(until=asyncio.Event()), times=None)
    async with OnDemand(site.upstream, site.blobs, site.clock, site.helpers, per_host=1) as fetches:
        tasks = [asyncio.create_task(take(fetches, row, row.filename)) for row in rows]
        await source.arrived()
        tasks[1].cancel()
        await asyncio.gather(tasks[1], return_exceptions=True)
        await until(lambda: fetches.under_way == 1)
        tasks[0].cancel()
        await asyncio.gather(tasks[0], return_exceptions=True)
