import asyncio
import logging
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from firth_protocol import errors
from firthd.config import UpstreamSettings
from firthd.upstream.client import Source, Upstream, Validators
from firthd.upstream.known import HOSTS_KEPT, KnownHosts
from firthd.upstream.rate import Meter
from tests.support.clock import FakeClock
from tests.support.upstream import CHANGED_MS, Fault, FaultyUpstream

BIG = bytes(range(256)) * 4096  # 1 MiB
INDEX = "noarch/repodata.json"


async def fetch(
    upstream: Upstream,
    server: FaultyUpstream,
    spool: Path,
    path: str = INDEX,
    max_bytes: int = 10**7,
    marks: dict[int, asyncio.Event] | None = None,
) -> str:
    """Fetch and return the status; each event of `marks` is set when so many bytes have been written."""

    def progress(done: int, total: int | None) -> None:
        for mark, reached in (marks or {}).items():
            if done >= mark:
                reached.set()

    source = Source(url=server.url)
    return (await upstream.fetch(source, path, spool, max_bytes=max_bytes, progress=progress)).status


async def test_a_file_comes_whole_with_its_validators(
    server: FaultyUpstream, upstream: Upstream, tmp_path: Path
) -> None:
    server.files[INDEX] = BIG
    server.content_types[INDEX] = "application/json"
    seen: list[tuple[int, int | None]] = []
    got = await upstream.fetch(
        Source(url=server.url),
        INDEX,
        tmp_path / "spool",
        max_bytes=len(BIG),
        progress=lambda done, total: seen.append((done, total)),
    )
    assert (got.status, got.bytes, got.url) == ("fetched", len(BIG), f"{server.url}/{INDEX}")
    assert got.content_type == "application/json"
    assert got.validators == Validators(etag=server.etag(INDEX), last_modified="Fri, 20 Mar 2026 09:46:40 GMT")
    assert CHANGED_MS == 1_774_000_000_000
    assert (tmp_path / "spool").read_bytes() == BIG
    assert (tmp_path / "spool").stat().st_mode & 0o777 == 0o600
    assert seen[-1] == (len(BIG), len(BIG))
    assert seen == sorted(seen)
    assert server.requests[0].headers["accept-encoding"] == "identity"
    assert server.requests[0].headers["user-agent"].startswith("firth/")
    assert upstream.rate_bytes_s() > 0


async def test_what_has_not_changed_is_not_sent_again(
    server: FaultyUpstream, upstream: Upstream, tmp_path: Path
) -> None:
    server.files[INDEX] = b"{}"
    source, spool = Source(url=server.url), tmp_path / "spool"
    first = await upstream.fetch(source, INDEX, spool, max_bytes=100)
    spool.unlink()
    second = await upstream.fetch(source, INDEX, spool, validators=first.validators, max_bytes=100)
    assert (second.status, second.bytes, second.validators) == ("not_modified", 0, first.validators)
    assert not spool.exists()
    server.files[INDEX] = b'{"packages": {}}'
    third = await upstream.fetch(source, INDEX, spool, validators=first.validators, max_bytes=100)
    assert third.status == "fetched"
    assert third.validators != first.validators


@pytest.mark.parametrize("status", [404, 410])
async def test_what_is_not_there_is_absent(
    server: FaultyUpstream, upstream: Upstream, tmp_path: Path, status: int
) -> None:
    server.fail("*", Fault(status=status))
    assert await fetch(upstream, server, tmp_path / "spool") == "absent"
    assert not (tmp_path / "spool").exists()
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [204, 304, 400, 401, 403, 418, 501])
async def test_a_status_that_will_not_change_is_told_at_once(
    server: FaultyUpstream, upstream: Upstream, tmp_path: Path, clock: FakeClock, status: int
) -> None:
    server.fail("*", Fault(status=status), times=None)
    with pytest.raises(errors.Upstream) as told:
        await fetch(upstream, server, tmp_path / "spool")
    assert str(status) in told.value.message
    assert server.host in told.value.message
    assert told.value.data["status"] == status
    assert told.value.data["host"] == server.host
    assert told.value.data["url"] == f"{server.url}/{INDEX}"
    assert told.value.hint
    assert len(server.requests) == 1
    assert clock.slept == []
    assert not (tmp_path / "spool").exists()


@pytest.mark.parametrize(
    "fault", [Fault(status=503), Fault(status=500), Fault(status=429), Fault(cut_after=1, no_validators=True)]
)
async def test_passing_trouble_is_tried_again_with_growing_pauses(
    server: FaultyUpstream, upstream: Upstream, tmp_path: Path, clock: FakeClock, fault: Fault
) -> None:
    server.files[INDEX] = b"{}"
    server.fail("*", fault, times=3)
    assert await fetch(upstream, server, tmp_path / "spool") == "fetched"
    assert clock.slept == [1, 2, 4]


async def test_lasting_trouble_ends_with_what_was_found(
    server: FaultyUpstream, upstream: Upstream, tmp_path: Path, clock: FakeClock
) -> None:
    server.fail("*", Fault(status=502, reason="Bad Day"), times=None)
    with pytest.raises(errors.Upstream, match=r"answered 502 Bad Day for .*; tried 5 times") as told:
        await fetch(upstream, server, tmp_path / "spool")
    assert told.value.data["status"] == 502
    assert clock.slept == [1, 2, 4, 8]
    assert len(server.requests) == 5


async def test_what_became_of_asking_a_host_is_remembered(
    server: FaultyUpstream, upstream: Upstream, tmp_path: Path
) -> None:
    server.files[INDEX] = BIG
    assert await fetch(upstream, server, tmp_path / "spool", "absent") == "absent"
    server.fail("*", Fault(status=503))
    server.fail("*", Fault(cut_after=1, no_validators=True))
    assert await fetch(upstream, server, tmp_path / "spool") == "fetched"
    (known,) = upstream.hosts()
    assert known.host == server.url.removeprefix("http://")
    assert (known.answers, known.failures, known.status) == (4, 2, 200)
    assert ("broke off after 1 of" in known.failure, known.fails) == (True, False)
    assert known.rate_bytes_s > 0
    with pytest.raises(errors.Upstream):
        await upstream.fetch(Source(url="http://127.0.0.1:1"), INDEX, tmp_path / "spool", max_bytes=9)
    first, second = upstream.hosts()
    assert (first.host, first.answers, first.failures, first.status) == ("127.0.0.1:1", 0, 5, None)
    assert ("cannot be reached" in first.failure, first.fails) == (True, True)
    assert replace(second, rate_bytes_s=known.rate_bytes_s) == known  # a rate tells of the last seconds


def test_hosts_that_were_asked_longest_ago_are_forgotten() -> None:
    clock = FakeClock()
    known = KnownHosts(clock, Meter(clock))
    for number in range(HOSTS_KEPT + 5):
        known.asking(f"host{number}").answered(200)
        known.asking("host0")
    assert len(known.told()) == HOSTS_KEPT
    assert {"host0", f"host{HOSTS_KEPT + 4}"} <= {one.host for one in known.told()}


async def test_retry_after_is_honoured_and_holds_other_mirrors_of_the_host_too(
    server: FaultyUpstream, tmp_path: Path
) -> None:
    clock = FakeClock()
    upstream = Upstream(UpstreamSettings(), clock, jitter=lambda: 0.5)
    await upstream.start()
    server.files[INDEX] = b"{}"
    server.fail("*", Fault(status=429, retry_after=40))
    first = asyncio.create_task(fetch(upstream, server, tmp_path / "a"))
    await clock.asleep()
    second = asyncio.create_task(fetch(upstream, server, tmp_path / "b"))
    await clock.asleep(2)
    await clock.advance(39)
    assert len(server.requests) == 1
    await clock.advance(2)
    assert (await first, await second) == ("fetched", "fetched")
    assert clock.monotonic() == 41
    await upstream.close()


async def test_a_long_retry_after_is_told_instead_of_waited_out(
    server: FaultyUpstream, upstream: Upstream, tmp_path: Path, clock: FakeClock
) -> None:
    server.fail("*", Fault(status=503, retry_after=7200), times=None)
    with pytest.raises(errors.Upstream, match="asks to wait 7200 s") as told:
        await fetch(upstream, server, tmp_path / "spool")
    assert told.value.data["retry_after_s"] == 7200
    assert len(server.requests) == 1
    assert clock.slept == []


@pytest.mark.parametrize("reset", [False, True])
async def test_a_broken_transfer_goes_on_where_it_broke(
    server: FaultyUpstream, upstream: Upstream, tmp_path: Path, reset: bool
) -> None:
    server.files[INDEX] = BIG
    written = asyncio.Event()
    server.fail("*", Fault(cut_after=600_000, cut_when=written, reset=reset))
    assert await fetch(upstream, server, tmp_path / "spool", marks={600_000: written}) == "fetched"
    assert (tmp_path / "spool").read_bytes() == BIG
    _, second = server.requests
    assert second.headers["range"] == "bytes=600000-"
    assert second.headers["if-range"] == server.etag(INDEX)
    assert "if-none-match" not in second.headers
    assert (second.status, second.sent) == (206, len(BIG) - 600_000)


async def test_a_file_that_changed_meanwhile_begins_anew(
    server: FaultyUpstream, upstream: Upstream, tmp_path: Path, clock: FakeClock
) -> None:
    server.files[INDEX] = BIG
    written = asyncio.Event()
    server.fail("*", Fault(cut_after=500_000, cut_when=written))
    clock.auto = False
    running = asyncio.create_task(fetch(upstream, server, tmp_path / "spool", marks={500_000: written}))
    await clock.asleep()
    server.files[INDEX] = b"another and shorter one"
    await clock.advance(60)
    assert await running == "fetched"
    assert (tmp_path / "spool").read_bytes() == b"another and shorter one"
    assert [(seen.status, seen.headers.get("range")) for seen in server.requests] == [
        (200, None),
        (200, "bytes=500000-"),
    ]


@pytest.mark.parametrize("proof", [{"weak_etag": True, "headers": {"Last-Modified": "x"}}, {"no_validators": True}])
async def test_without_proof_of_the_same_bytes_a_transfer_begins_anew(
    server: FaultyUpstream, upstream: Upstream, tmp_path: Path, proof: dict[str, Any]
) -> None:
    server.files[INDEX] = BIG
    written = asyncio.Event()
    server.fail("*", Fault(cut_after=500_000, cut_when=written, **proof))
    assert await fetch(upstream, server, tmp_path / "spool", marks={500_000: written}) == "fetched"
    assert "range" not in server.requests[1].headers
    assert (tmp_path / "spool").read_bytes() == BIG


async def test_a_server_without_ranges_or_with_foolish_ones_is_borne(
    server: FaultyUpstream, upstream: Upstream, tmp_path: Path
) -> None:
    server.files[INDEX] = BIG
    first, second = asyncio.Event(), asyncio.Event()
    server.fail("*", Fault(cut_after=500_000, cut_when=first))
    server.fail("*", Fault(status=206, headers={"Content-Range": "bytes 0-9/10"}, body=b"0123456789"))
    server.fail("*", Fault(cut_after=600_000, cut_when=second, no_ranges=True))
    server.fail("*", Fault(status=416))
    marks = {500_000: first, 600_000: second}
    assert await fetch(upstream, server, tmp_path / "spool", marks=marks) == "fetched"
    assert (tmp_path / "spool").read_bytes() == BIG
    assert [seen.headers.get("range") for seen in server.requests] == [
        None,
        "bytes=500000-",
        None,
        "bytes=600000-",
        None,
    ]


async def test_progress_renews_the_attempts(server: FaultyUpstream, upstream: Upstream, tmp_path: Path) -> None:
    content = os.urandom(1024) * 8192  # 8 MiB
    server.files["a.conda"] = content
    part = 1_200_000
    marks = {part * number: asyncio.Event() for number in range(1, 7)}
    for reached in marks.values():
        server.fail("*", Fault(cut_after=part, cut_when=reached))
    assert await fetch(upstream, server, tmp_path / "spool", "a.conda", marks=marks) == "fetched"
    assert (tmp_path / "spool").read_bytes() == content
    assert len(server.requests) == 7


@pytest.mark.parametrize("chunked", [False, True])
async def test_too_much_is_refused_before_it_is_written(
    server: FaultyUpstream, upstream: Upstream, tmp_path: Path, chunked: bool
) -> None:
    server.files[INDEX] = BIG
    server.fail("*", Fault(chunked=chunked), times=None)
    with pytest.raises(errors.Upstream, match="at most 100,000 are taken"):
        await fetch(upstream, server, tmp_path / "spool", max_bytes=100_000)
    assert not (tmp_path / "spool").exists()
    assert len(server.requests) == 1


async def test_a_chunked_answer_and_an_empty_one_are_files_too(
    server: FaultyUpstream, upstream: Upstream, tmp_path: Path
) -> None:
    server.files |= {INDEX: BIG, "empty": b""}
    server.fail(INDEX, Fault(chunked=True))
    assert await fetch(upstream, server, tmp_path / "spool", max_bytes=len(BIG)) == "fetched"
    assert (tmp_path / "spool").read_bytes() == BIG
    assert await fetch(upstream, server, tmp_path / "spool", "empty") == "fetched"
    assert (tmp_path / "spool").read_bytes() == b""


async def test_a_chunked_answer_that_breaks_off_is_no_file(
    server: FaultyUpstream, upstream: Upstream, tmp_path: Path
) -> None:
    server.files[INDEX] = BIG
    server.fail("*", Fault(chunked=True, cut_after=300_000, no_validators=True), times=None)
    with pytest.raises(errors.Upstream, match="broke off after"):
        await fetch(upstream, server, tmp_path / "spool")
    assert not (tmp_path / "spool").exists()


async def test_a_length_that_promises_more_than_comes_is_no_file(
    server: FaultyUpstream, upstream: Upstream, tmp_path: Path
) -> None:
    server.files[INDEX] = b"{}"
    server.fail("*", Fault(content_length=1000, no_validators=True), times=None)
    with pytest.raises(errors.Upstream, match="broke off after 2 of 1,000 bytes; tried 5 times"):
        await fetch(upstream, server, tmp_path / "spool")


async def test_silence_ends_after_the_idle_time_and_slowness_does_not(server: FaultyUpstream, tmp_path: Path) -> None:
    upstream = Upstream(UpstreamSettings(timeout_s=0.2), FakeClock(auto=True))
    await upstream.start()
    server.files[INDEX] = b"x" * 100
    server.fail("silent", Fault(until=asyncio.Event()), times=None)
    with pytest.raises(errors.Upstream, match=r"sent nothing for 0\.2 s"):
        await fetch(upstream, server, tmp_path / "spool", "silent")
    permits = asyncio.Semaphore(0)
    server.fail(INDEX, Fault(drip=permits, chunk_bytes=10))
    running = asyncio.create_task(
        upstream.fetch(
            Source(url=server.url),
            INDEX,
            tmp_path / "spool",
            max_bytes=100,
            progress=lambda done, total: permits.release(),  # the next chunk leaves when the last one is here
        )
    )
    permits.release()
    assert (await running).status == "fetched"
    await upstream.close()


async def test_nobody_there_is_told_with_the_host(upstream: Upstream, tmp_path: Path) -> None:
    async with FaultyUpstream() as gone:
        pass
    with pytest.raises(errors.Upstream, match=f"{gone.host} cannot be reached") as told:
        await fetch(upstream, gone, tmp_path / "spool")
    assert "status" not in told.value.data
    assert told.value.data["host"] == gone.host


async def test_cancelling_stops_at_once_and_leaves_nothing(
    server: FaultyUpstream, upstream: Upstream, tmp_path: Path
) -> None:
    server.files[INDEX] = BIG
    begun = asyncio.Event()
    server.fail("*", Fault(drip=asyncio.Semaphore(3)))
    running = asyncio.create_task(
        upstream.fetch(
            Source(url=server.url),
            INDEX,
            tmp_path / "spool",
            max_bytes=len(BIG),
            progress=lambda done, total: begun.set(),
        )
    )
    await begun.wait()
    assert (tmp_path / "spool").exists()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not (tmp_path / "spool").exists()


async def test_a_host_gets_no_more_requests_at_once_than_its_budget(server: FaultyUpstream, tmp_path: Path) -> None:
    upstream = Upstream(UpstreamSettings(connections_per_host=3), FakeClock(auto=True))
    await upstream.start()
    gate = asyncio.Event()
    server.files |= {f"f{n}": b"x" for n in range(8)}
    server.fail("*", Fault(until=gate), times=None)
    async with asyncio.TaskGroup() as group:
        for n in range(8):
            group.create_task(fetch(upstream, server, tmp_path / f"spool{n}", f"f{n}"))
        await server.arrived(count=3)
        gate.set()
    assert len(server.requests) == 8
    assert server.most_in_flight == 3
    await upstream.close()


async def test_a_full_disk_is_no_fault_of_the_source(
    server: FaultyUpstream, upstream: Upstream, tmp_path: Path
) -> None:
    full = tmp_path / "full"
    try:
        os.mknod(full, stat.S_IFCHR | 0o600, os.makedev(1, 7))  # as /dev/full: every write finds no space
    except PermissionError:
        pytest.skip("only root makes device nodes")
    server.files[INDEX] = BIG
    with pytest.raises(errors.NoSpace):
        await fetch(upstream, server, full)
    assert len(server.requests) == 1


async def test_a_connection_closed_without_an_answer_is_tried_again(
    server: FaultyUpstream, upstream: Upstream, tmp_path: Path
) -> None:
    server.files[INDEX] = b"{}"
    server.fail("*", Fault(drop=True, reset=True), times=3)
    assert await fetch(upstream, server, tmp_path / "spool") == "fetched"
    server.fail("*", Fault(drop=True), times=None)
    with pytest.raises(errors.Upstream, match="closed the connection without an answer; tried 5 times"):
        await fetch(upstream, server, tmp_path / "spool")


async def test_attempts_are_logged_without_secrets(
    server: FaultyUpstream, upstream: Upstream, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.fail("*", Fault(status=503))
    with caplog.at_level(logging.INFO, "firthd.upstream"):
        assert await fetch(upstream, server, tmp_path / "spool", "t/secret-1/x") == "absent"
    assert f"{server.url}/t/***/x; trying again in 1.0 s" in caplog.text
    assert "secret-1" not in caplog.text


async def test_a_fetch_has_a_deadline_whatever_its_rate(server: FaultyUpstream, tmp_path: Path) -> None:
    clock = FakeClock()
    upstream = Upstream(UpstreamSettings(timeout_s=5), clock, jitter=lambda: 0.5)
    await upstream.start()
    server.files[INDEX] = BIG
    drip = asyncio.Semaphore(0)
    server.fail("*", Fault(drip=drip, chunk_bytes=100_000), times=None)
    spool, came = tmp_path / "spool", asyncio.Queue[int]()
    fetching = asyncio.ensure_future(
        upstream.fetch(
            Source(url=server.url),
            INDEX,
            spool,
            max_bytes=10**7,
            until=100,
            progress=lambda done, _: came.put_nowait(done),
        )
    )
    await server.arrived()
    for permits in range(1, 4):
        await clock.advance(30)
        drip.release()
        while await came.get() < permits * 100_000:  # a chunk may come in pieces
            pass
    await clock.advance(30)
    drip.release()
    with pytest.raises(errors.Upstream, match="came in the time there is for it"):
        await fetching
    assert not spool.exists()
    assert len(server.requests) == 1
    await upstream.close()


async def test_a_fetch_that_crawls_is_broken_and_goes_on_where_it_was(server: FaultyUpstream, tmp_path: Path) -> None:
    """An index counts as well: what comes in drops would never run into a time-out."""
    clock = FakeClock()
    upstream = Upstream(UpstreamSettings(timeout_s=5), clock, jitter=lambda: 0.5)
    await upstream.start()
    server.files[INDEX] = BIG
    drip = asyncio.Semaphore(0)
    server.fail("*", Fault(drip=drip, chunk_bytes=10_000))
    spool, came = tmp_path / "spool", asyncio.Queue[int]()
    fetching = asyncio.ensure_future(
        upstream.fetch(
            Source(url=server.url), INDEX, spool, max_bytes=10**7, progress=lambda done, _: came.put_nowait(done)
        )
    )
    await server.arrived()
    for permits in (1, 2, 3):
        drip.release()
        while await came.get() < permits * 10_000:  # a chunk may come in pieces
            pass
        await clock.advance(21)
    drip.release()
    await clock.asleep()
    assert len(server.requests) == 1
    await clock.advance(1)
    assert (await fetching).bytes == len(BIG)
    assert spool.read_bytes() == BIG
    again = server.requests[-1]
    assert (len(server.requests), again.status) == (2, 206)
    await upstream.close()


async def test_no_attempt_begins_after_the_deadline(
    server: FaultyUpstream, upstream: Upstream, clock: FakeClock, tmp_path: Path
) -> None:
    server.fail("*", Fault(status=503), times=None)
    with pytest.raises(errors.Upstream, match="503"):
        await upstream.fetch(Source(url=server.url), INDEX, tmp_path / "spool", max_bytes=10, until=2)
    assert len(server.requests) == 2
    assert clock.monotonic() < 2


@pytest.mark.parametrize("chunked", [False, True])
async def test_file_over_the_limit_names_the_setting_and_leaves_nothing(
    server: FaultyUpstream, upstream: Upstream, tmp_path: Path, chunked: bool
) -> None:
    server.files[INDEX] = BIG
    server.fail(INDEX, Fault(chunked=chunked))
    with pytest.raises(errors.Upstream, match="at most 500,000 are taken") as caught:
        await upstream.fetch(
            Source(url=server.url), INDEX, tmp_path / "spool", max_bytes=500_000, setting="upstream.max_index_bytes"
        )
    assert "upstream.max_index_bytes" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


async def test_endless_file_stops_before_the_disk_has_no_room(
    server: FaultyUpstream, upstream: Upstream, tmp_path: Path
) -> None:
    """The source does not say how much comes, so room is asked for as it comes."""
    server.files[INDEX] = BIG * 16
    server.fail(INDEX, Fault(chunked=True))
    asked: list[int] = []

    async def room(size: int) -> None:
        asked.append(size)
        if sum(asked) > 10 * len(BIG):
            raise errors.NoSpace("no room", hint="make some")

    spool = tmp_path / "spool"
    written: list[int] = []
    with pytest.raises(errors.NoSpace):
        await upstream.fetch(
            Source(url=server.url),
            INDEX,
            spool,
            max_bytes=10**9,
            room=room,
            progress=lambda done, total: written.append(done),
        )
    assert 4 * len(BIG) < written[-1] <= 10 * len(BIG)
    assert len(asked) < 5
    assert list(tmp_path.iterdir()) == []


async def test_room_is_asked_for_before_the_first_byte_when_the_length_is_told(
    server: FaultyUpstream, upstream: Upstream, tmp_path: Path
) -> None:
    server.files[INDEX] = BIG * 8
    asked: list[int] = []

    async def room(size: int) -> None:
        asked.append(size)
        raise errors.NoSpace("no room", hint="make some")

    with pytest.raises(errors.NoSpace):
        await upstream.fetch(Source(url=server.url), INDEX, tmp_path / "spool", max_bytes=10**9, room=room)
    assert asked == [8 * len(BIG)]
    assert list(tmp_path.iterdir()) == []
