"""Indexes that would kill who reads them, and files kept twice: the channel goes on, and shows each file once."""

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
import zstandard

from firth_protocol.client import Client
from firth_protocol.types import Family, Run, RunState
from tests.support import outside
from tests.support.conda import ChannelFolder, PackageSpec
from tests.support.daemon import DaemonProcess
from tests.support.outside import Truth
from tests.support.upstream import Fault, FaultyUpstream
from tests.support.world import raw_records, world

pytestmark = [pytest.mark.deep, pytest.mark.e2e, pytest.mark.timeout(300)]

MIB = 1 << 20
BOMB_MIB = 3000
WORKER_MB = 1500
"""What a worker may use on an index that is refused; a real one of 1 GiB needs more than a bomb may get."""

STATE_MB = 1300
"""What an endless index may leave in the state folder while it is read: the cap of 1 GiB, and what was there."""

POISON = {
    "2^63": b"9223372036854775808",
    "2^64": b"18446744073709551616",
    "an integer of 31 digits": b"1" + b"0" * 30,
    "an integer of 401 digits": b"1" + b"0" * 400,
    "an integer of 5,000 digits": b"9" * 5000,
    "more than a float": b"1e400",
    "less than a float": b"-1e400",
    "nearly nothing": b"1e-400",
    "200 lists": b"[" * 200 + b"]" * 200,
    "a long key": b'{"' + b"k" * 70_000 + b'": 1}',
    "an empty key": b'{"": 1}',
    "another name": b'1, "name": "other"',
    "a size twice": b'1, "size": 5',
}
"""What a record's unknown member may hold that one encoder or another cannot take."""


# --- one record -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", POISON.values(), ids=POISON.keys())
async def test_one_record_never_stops_the_others_nor_another_mirror(tmp_path: Path, value: bytes) -> None:
    async with world(tmp_path) as w:
        base = f"{w.daemon.url}/repo/main"
        before = await _plain(w.source, "alpha", "odd")
        poisoned = before.replace(b'"SPOT"', value)
        assert poisoned != before
        w.upstream.route("noarch/repodata.json", lambda seen: poisoned)
        w.upstream.fail("noarch/repodata.json.*", Fault(status=404), times=None)
        await w.mirror("passive", filters={"subdirs": ["noarch"]})
        run = await w.run()
        assert run.state in (RunState.COMPLETED, RunState.INCOMPLETE), run
        listed = await outside.index(w.http, base, "noarch")  # the three forms agree
        assert "alpha-1.0-0.conda" in listed
        if "odd-1.0-0.conda" not in listed:
            details = await w.call("mirror.details", mirror="main:m")
            assert "odd-1.0-0.conda" in repr((details.failed, details.notes)), "it is left out, and nobody is told"
        # A healthy mirror of the same channel is not held up, now or later.
        healthy = ChannelFolder(tmp_path / "healthy")
        healthy.add(PackageSpec(name="well"))
        await w.mirror("passive", name="second", source=healthy.path.as_uri())
        assert (await w.run("main:second")).state is RunState.COMPLETED
        assert "well-1.0-0.conda" in await outside.index(w.http, base, "noarch")


async def _plain(source: ChannelFolder, *names: str) -> bytes:
    """Return the index of packages of these names; the last one's record says SPOT where the poison goes."""
    source.add(*(PackageSpec(name=name) for name in names))
    source.records["noarch"][f"{names[-1]}-1.0-0.conda"]["extra"] = "SPOT"
    source.write()
    return (source.path / "noarch" / "repodata.json").read_bytes()


# --- bombs ----------------------------------------------------------------------------------------------------------


async def test_an_index_that_grows_without_end_when_unpacked_is_refused_early(tmp_path: Path) -> None:
    bomb = b"".join(_packed(b'{"info": {"subdir": "noarch"}, "packages": {', BOMB_MIB))
    print(f"{len(bomb)} bytes are {BOMB_MIB} MiB")
    async with attacked(tmp_path) as (process, client, upstream):
        upstream.files["noarch/repodata.json.zst"] = bomb
        upstream.files["noarch/repodata.json"] = b"{}"
        run = await _run(client)
        _refused(run)
        log = process.log.read_text("utf-8", "replace")
        peaks = [int(found) for found in re.findall(r"peak memory (\d+) MB", log)]
        print(f"workers used {peaks} MB, the state has {_size_mb(process.state)} MB")
        assert all(peak <= WORKER_MB for peak in peaks)
        assert _size_mb(process.state) < 100
        await _is_well(process, client, tmp_path)


async def test_an_index_without_an_end_stops_at_the_cap(tmp_path: Path) -> None:
    async with attacked(tmp_path) as (process, client, upstream):
        upstream.fail("noarch/repodata.json*", Fault(status=404), times=None, method="HEAD")
        upstream.fail("noarch/repodata.json.zst", Fault(status=404), times=None)
        upstream.fail("noarch/repodata.json", Fault(endless=b"{" + b" " * (MIB - 1)), times=None)
        made = await client.call("mirror.run", mirror="main:m")
        most, run = 0, made.run
        while not run.state.ended:
            run = await client.call("run.wait", run=made.run.id, timeout=0.5)
            most = max(most, _size_mb(process.state))
            assert most < STATE_MB
        print(f"the state folder had {most} MB at most")
        _refused(run)
        assert _size_mb(process.state) < 100
        await _is_well(process, client, tmp_path)


@asynccontextmanager
async def attacked(folder: Path) -> AsyncIterator[tuple[DaemonProcess, Client, FaultyUpstream]]:
    """Give a daemon with a mirror of a source that had one package, as it was read first."""
    async with AsyncExitStack() as stack:
        source = ChannelFolder(folder / "source")
        source.add(PackageSpec(name="alpha"))
        upstream = await stack.enter_async_context(FaultyUpstream(folder=source.path))
        process = await stack.enter_async_context(DaemonProcess(folder))
        client = await process.start()
        stack.push_async_callback(client.close)
        await client.call("channel.create", name="main")
        await client.call("mirror.create", channel="main", name="m", type="conda", source=upstream.url)
        assert (await _run(client)).state is RunState.COMPLETED
        yield process, client, upstream


async def _run(client: Client) -> Run:
    made = await client.call("mirror.run", mirror="main:m")
    run: Run = await client.call("run.wait", run=made.run.id, timeout=200)
    return run


def _refused(run: Run) -> None:
    assert run.state is RunState.FAILED, run
    assert run.error is not None
    assert run.error.kind in ("upstream", "too_large"), run.error
    print(run.error.message)


async def _is_well(process: DaemonProcess, client: Client, folder: Path) -> None:
    """See that the daemon serves what it had and mirrors another source."""
    other = ChannelFolder(folder / "other")
    other.add(PackageSpec(name="beta"))
    await client.call("channel.create", name="other")
    made = await client.call(
        "mirror.create", channel="other", name="m", type="conda", source=other.path.as_uri(), run_now=True
    )
    assert (await client.call("run.wait", run=made.run.id, timeout=60)).state is RunState.COMPLETED
    async with aiohttp.ClientSession() as http:
        url = await process.url(client)
        assert set(await outside.index(http, f"{url}/repo/main", "noarch")) == {"alpha-1.0-0.conda"}
        assert set(await outside.index(http, f"{url}/repo/other", "noarch")) == {"beta-1.0-0.conda"}


def _packed(head: bytes, mib: int) -> Iterator[bytes]:
    """Compress a head and so many MiB of blanks behind it."""
    packer = zstandard.ZstdCompressor(level=1).compressobj()
    yield packer.compress(head)
    blanks = b" " * MIB
    for _ in range(mib):
        yield packer.compress(blanks)
    yield packer.flush()


def _size_mb(folder: Path) -> int:
    sizes = 0
    for path in folder.rglob("*"):
        try:
            sizes += path.stat().st_blocks * 512
        except FileNotFoundError:  # it was a temporary one
            continue
    return sizes // 1_000_000


# --- kept twice -----------------------------------------------------------------------------------------------------


async def test_what_is_kept_again_and_again_is_there_once(tmp_path: Path) -> None:
    names = [f"p{number}" for number in range(5)]
    truth = Truth()
    async with world(tmp_path) as w:
        base = f"{w.daemon.url}/repo/main"
        source = ChannelFolder(tmp_path / "kept")
        for content in ("first", "first", "second"):
            source.add(*(PackageSpec(name=name, content=content) for name in names))
            truth.learn(source)
            await w.mirror("active", source=source.path.as_uri())
            assert (await w.run()).state is RunState.COMPLETED
            deleted = await w.call("mirror.delete", mirror="main:m", confirm="m", packages="keep")
            if deleted.run is not None:
                await w.daemon.ended(deleted.run.id)
            await _each_is_there_once(w.http, w.daemon.client, base, source)
            assert await outside.all_served(w.http, base, truth) == len(names)

        # Uploaded anew: the mirror's files go before what the channel holds by itself.
        source.add(*(PackageSpec(name=name, content="third") for name in names))
        truth.learn(source)
        await w.mirror("active", source=source.path.as_uri())
        assert (await w.run()).state is RunState.COMPLETED
        await _each_is_there_once(w.http, w.daemon.client, base, source)
        assert await outside.all_served(w.http, base, truth) == len(names)
    assert truth.wrong == []
    assert outside.sound(tmp_path / "state") == []


async def _each_is_there_once(http: aiohttp.ClientSession, client: Client, base: str, source: ChannelFolder) -> None:
    wanted = {name: record["sha256"] for name, record in source.records["noarch"].items()}
    assert await outside.index(http, base, "noarch") == wanted
    _, body = await outside.fetch(http, f"{base}/noarch/repodata.json")
    assert {name: body.count(b'"%s"' % name.encode()) for name in raw_records(body)} == dict.fromkeys(wanted, 1)
    packages = (await client.call("package.list", channel="main")).items
    assert {package.name: (package.files, package.versions) for package in packages} == {
        name.partition("-")[0]: (1, 1) for name in wanted
    }
    detail = await client.call("package.get", channel="main", name="p1")
    assert len(detail.files) == 1
    found = await client.call("channel.get", channel="main")
    assert [totals.artifacts for totals in found.families if totals.family is Family.CONDA] == [len(wanted)]
