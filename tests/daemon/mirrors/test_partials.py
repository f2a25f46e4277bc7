"""What has come of a file is kept when a run is stopped or killed, and the next run asks for the rest."""

import asyncio
import email.utils
import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from firth_protocol.types import RunState
from firthd.store.blobs import BlobStore
from firthd.store.incoming import BlobWriter
from firthd.store.partials import KEPT_MS, Partials
from tests.support.clock import FakeClock
from tests.support.conda import BuiltPackage, ChannelFolder
from tests.support.daemon import DaemonProcess
from tests.support.http_rules import etag_of
from tests.support.upstream import CHANGED_MS, Fault, FaultyUpstream
from tests.support.world import World, plain, world

CAME = 10 * 16_384
CHANGED = email.utils.formatdate(CHANGED_MS / 1000, usegmt=True)


def large(source: ChannelFolder) -> BuiltPackage:
    (package,) = source.add(plain("large", content=random.Random(8).randbytes(300_000).hex()))
    assert len(package.body) > CAME + 100_000
    return package


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


def size_of(path: Path) -> int:
    """Return the size of a file, which may get another name at any moment."""
    with suppress(FileNotFoundError):
        return path.stat().st_size
    return 0


def parts(state: Path) -> list[Path]:
    return [path for path in (state / "blobs" / "partial").glob("*") if size_of(path)]


def part_of(state: Path) -> Path | None:
    found = parts(state)
    return found[0] if found and size_of(found[0]) == CAME else None


async def stopped_half_way(w: World, package: BuiltPackage, **fault: Any) -> Path:
    """Run the mirror, stop it when half of the file has come; return what is kept of it."""
    name = f"noarch/{package.filename}"
    w.upstream.fail(name, Fault(drip=asyncio.Semaphore(10), **fault), times=1)
    await w.call("mirror.run", mirror="main:m")
    await until(lambda: part_of(w.daemon.state) is not None)
    run = (await w.call("mirror.stop", mirror="main:m")).run
    assert (await w.daemon.ended(run.id)).state is RunState.STOPPED
    part = part_of(w.daemon.state)
    assert part is not None
    return part


async def brings_the_rest(w: World, package: BuiltPackage) -> list[tuple[str | None, str | None, int, int]]:
    """Run the mirror again to its end; return what was asked for since: range, If-Range, status, bytes sent."""
    name = f"noarch/{package.filename}"
    before = len(w.upstream.asked(name))
    assert (await w.run()).state is RunState.COMPLETED
    assert (await w.get(f"/repo/main/{name}")).body == package.body
    assert parts(w.daemon.state) == []
    return [
        (seen.headers.get("range"), seen.headers.get("if-range"), seen.status, seen.sent)
        for seen in w.upstream.asked(name)[before:]
    ]


async def test_a_stopped_run_leaves_what_came_and_the_next_one_goes_on(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        package = large(w.source)
        await w.mirror()
        await stopped_half_way(w, package)
        rest = len(package.body) - CAME
        assert await brings_the_rest(w, package) == [(f"bytes={CAME}-", etag_of(package.body), 206, rest)]


@pytest.mark.parametrize(
    ("trouble", "at_first", "later", "if_range"),
    [
        ("flipped", {}, {}, etag_of),
        pytest.param(
            "another file by now",
            {"headers": {"ETag": '"other"'}},
            {},
            lambda _: '"other"',
            marks=pytest.mark.deep,
        ),
        pytest.param(
            "no strong validator",
            {"no_validators": True},
            {"no_validators": True},
            lambda _: None,
            marks=pytest.mark.deep,
        ),
        pytest.param("weak etag", {"weak_etag": True}, {"weak_etag": True}, lambda _: CHANGED, marks=pytest.mark.deep),
    ],
)
async def test_wrong_bytes_never_survive(
    tmp_path: Path,
    trouble: str,
    at_first: dict[str, Any],
    later: dict[str, Any],
    if_range: Callable[[bytes], str | None],
) -> None:
    async with world(tmp_path) as w:
        package = large(w.source)
        await w.mirror()
        part = await stopped_half_way(w, package, **at_first)
        whole = len(package.body)
        if trouble == "flipped":
            kept = part.read_bytes()
            part.write_bytes(bytes([kept[0] ^ 1]) + kept[1:])
        if later:
            w.upstream.fail(f"noarch/{package.filename}", Fault(**later))
        asked = await brings_the_rest(w, package)
        how = (200, whole) if trouble == "another file by now" else (206, whole - CAME)
        assert asked[0] == (f"bytes={CAME}-", if_range(package.body), *how)
        assert asked[1:] == ([(None, None, 200, whole)] if trouble == "flipped" else [])


async def test_nothing_is_kept_of_what_came_encoded(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        package = large(w.source)
        await w.mirror()
        name = f"noarch/{package.filename}"
        w.upstream.fail(name, Fault(drip=asyncio.Semaphore(10), encoding="gzip"), times=1)
        await w.call("mirror.run", mirror="main:m")
        await until(lambda: any(path.stat().st_size > 100_000 for path in (w.daemon.state / "blobs").glob("*/*")))
        run = (await w.call("mirror.stop", mirror="main:m")).run
        await w.daemon.ended(run.id)
        assert await brings_the_rest(w, package) == [(None, None, 200, len(package.body))]


@pytest.mark.deep
@pytest.mark.e2e
async def test_what_came_outlives_kill_9(tmp_path: Path) -> None:
    source = ChannelFolder(tmp_path / "source")
    package = large(source)
    name = f"noarch/{package.filename}"
    async with FaultyUpstream(folder=source.path) as upstream, DaemonProcess(tmp_path) as process:
        upstream.fail(name, Fault(drip=asyncio.Semaphore(10)), times=1)
        client = await process.start()
        await client.call("channel.create", name="main")
        fields = {"channel": "main", "name": "m", "type": "conda", "mode": "active", "run_now": True}
        await client.call("mirror.create", source=upstream.url, **fields)
        await until(lambda: part_of(process.state) is not None)
        await process.kill()
        await client.close()
        client = await process.start()
        async with asyncio.timeout(20):
            while not (run := (await client.call("run.list", mirror="main:m")).items[0]).state.ended:
                await asyncio.sleep(0.05)
        assert run.state is RunState.COMPLETED
        assert [seen.headers.get("range") for seen in upstream.asked(name)] == [None, f"bytes={CAME}-"]


async def test_what_nobody_goes_on_with_is_thrown_away(tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path)
    await asyncio.to_thread(blobs.prepare)
    clock = FakeClock()
    sha256 = "0" * 64
    writer, _ = await Partials(blobs, clock).open(size=None, sha256=sha256, md5=None, max_bytes=1 << 30)
    writer.write(b"x" * 100_000)
    (tmp_path / "partial" / "what is this").write_bytes(b"")

    partials = Partials(blobs, clock)  # another process
    writer, proof = await partials.open(size=None, sha256=sha256, md5=None, max_bytes=1 << 30)
    assert (writer.written, proof) == (100_000, None)
    second, _ = await partials.open(size=None, sha256=sha256, md5=None, max_bytes=1 << 30)
    assert second.written == 0  # each has a file of its own
    partials.drop(second)
    partials.leave(writer)
    assert isinstance(writer, BlobWriter)
    late = FakeClock(round(writer.path.stat().st_mtime * 1000) + KEPT_MS + 1000)
    writer, _ = await Partials(blobs, late).open(size=None, sha256="1" * 64, md5=None, max_bytes=1 << 30)
    writer.abort()
    assert list((tmp_path / "partial").iterdir()) == []
    await blobs.close()
