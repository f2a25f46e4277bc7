"""Files of an old mirror, or of one close by, are taken before the source is asked; the source's digests decide."""

import asyncio
import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from firth_protocol.errors import Invalid
from firth_protocol.types import RunState
from firthd.config import UpstreamSettings
from firthd.families.base import FetchPlace
from firthd.mirrors.checks import check_near
from firthd.mirrors.nearby import Nearby
from firthd.mirrors.source import near_path
from firthd.store.blobs import BlobStore
from firthd.upstream.client import Source, Upstream
from firthd.upstream.hosts import Lane
from tests.support.clock import FakeClock
from tests.support.toy.family import TOY
from tests.support.upstream import Fault, FaultyUpstream
from tests.support.world import World, plain, world

PACKAGES = ("*.conda", "*.tar.bz2")


def old_mirror(w: World, folder: Path) -> Path:
    """Return a folder as another mirror tool leaves it: <platform>/<file>, and an index of its own that is older."""
    for subdir in ("noarch", "linux-64"):
        shutil.copytree(w.source.path / subdir, folder / subdir)
        (folder / subdir / "repodata.json").write_bytes(b'{"info": {}, "packages": {}, "packages.conda": {}}')
        (folder / subdir / "repodata.json.zst").unlink()
        (folder / subdir / ".validation.log").write_bytes(b"not a package")
    return folder


def looks(folder: Path) -> dict[str, Any]:
    """Return all that can be seen of a folder's files."""
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.stat()
        digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        found[str(path)] = (status.st_ino, status.st_nlink, status.st_mode, status.st_mtime_ns, digest)
    return found


def asked_files(upstream: FaultyUpstream) -> list[str]:
    return [seen.path for seen in upstream.requests if seen.path.endswith((".conda", ".tar.bz2"))]


@pytest.mark.parametrize("way", ["active", "passive", pytest.param("fill", marks=pytest.mark.deep)])
async def test_a_folder_is_adopted_without_one_file_over_the_line(tmp_path: Path, way: str) -> None:
    async with world(tmp_path) as w:
        old = old_mirror(w, tmp_path / "old mirror+1")
        before = looks(old)
        mode = "active" if way == "active" else "passive"
        mirror = await w.mirror(mode, also_from=[f"{old.as_uri()}/"])
        assert mirror.also_from == [old.as_uri()]
        run = await w.run()
        if way == "fill":
            run = await w.daemon.ended((await w.call("mirror.fill", mirror="main:m")).run.id)
        assert run.state is RunState.COMPLETED
        for subdir, records in w.source.records.items():
            for name, record in records.items():
                served = await w.get(f"/repo/main/{subdir}/{name}")
                assert hashlib.sha256(served.body).hexdigest() == record["sha256"]
        assert asked_files(w.upstream) == []
        assert looks(old) == before
        stored = {path.stat().st_ino for path in (w.daemon.state / "blobs").rglob("*") if path.is_file()}
        assert stored.isdisjoint(one[0] for one in before.values())
        if way != "passive":
            assert "5 files came from nearer than the source (also_from)" in run.notes
        assert (await w.call("mirror.get", mirror="main:m")).stored == 5


@pytest.mark.parametrize("mode", ["active", pytest.param("passive", marks=pytest.mark.deep)])
async def test_what_is_wrong_near_by_comes_from_the_source(tmp_path: Path, mode: str) -> None:
    async with world(tmp_path) as w:
        old = old_mirror(w, tmp_path / "old")
        names = sorted(path.relative_to(old) for kind in PACKAGES for path in old.rglob(kind))
        whole = (old / names[0]).read_bytes()
        (old / names[0]).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        (old / names[1]).write_bytes((old / names[1]).read_bytes()[:-1])
        (old / names[2]).write_bytes((old / names[2]).read_bytes() + b"more")
        (old / names[3]).unlink()
        (old / names[4]).unlink()
        (old / names[4]).mkdir()
        before = looks(old)
        fields = {"channel": "main", "type": "conda", "source": w.upstream.url, "name": "m", "mode": mode}
        made = await w.call("mirror.create", **fields, also_from=["file:///nowhere/at/all", old.as_uri()])
        assert [text for text in made.warnings if "also" in text or "not there" in text] == [
            "file:///nowhere/at/all is not there now, or may not be read"
        ]
        assert (await w.run()).state is RunState.COMPLETED
        for name in names:
            served = await w.get(f"/repo/main/{name}")
            assert (served.status, served.body) == (200, (w.source.path / name).read_bytes())
        assert sorted(asked_files(w.upstream)) == [str(name) for name in names]
        assert looks(old) == before


async def test_a_place_that_hangs_is_left_alone_and_what_came_is_taken_back(tmp_path: Path) -> None:
    clock, content = FakeClock(), b"x" * 100_000
    sha256 = hashlib.sha256(content).hexdigest()
    blobs, upstream = BlobStore(tmp_path), Upstream(UpstreamSettings(), clock)
    await asyncio.to_thread(blobs.prepare)
    await upstream.start()
    async with FaultyUpstream({"x": content}) as server:
        nearby, place, moved = Nearby(upstream, blobs, clock, idle_s=0.2), Source(url=server.url), [0]
        server.fail("x", Fault(drip=asyncio.Semaphore(2)))
        fields: dict[str, Any] = {
            "size": len(content),
            "md5": None,
            "channel_id": 1,
            "lane": Lane.RUN,
            "wrote": moved.append,
        }
        assert await nearby.bring(place, "x", sha256=sha256, **fields) is None
        assert (sum(moved), max(moved) > 0) == (0, True)
        assert nearby.asked([place], sha256) == []
        await clock.advance(61)
        assert nearby.asked([place], sha256) == [place]
        assert await nearby.bring(place, "x", sha256="0" * 64, **fields) is None
        assert nearby.asked([place], "0" * 64) == []  # another file lies there under this name
        assert nearby.asked([place], None) == []
        kept = await nearby.bring(place, "x", sha256=sha256, **fields)
        assert kept is not None
        assert (sum(moved), await asyncio.to_thread(blobs.has, sha256)) == (len(content), True)
    await upstream.close()
    await blobs.close()
    assert await asyncio.to_thread(lambda: list((tmp_path / "tmp").iterdir())) == []


async def test_a_file_without_an_end_is_left_where_it_is(tmp_path: Path) -> None:
    clock = FakeClock()
    blobs, upstream = BlobStore(tmp_path / "store"), Upstream(UpstreamSettings(), clock)
    await asyncio.to_thread(blobs.prepare)
    await upstream.start()
    folder = tmp_path / "near"
    folder.mkdir()
    with (folder / "x").open("wb") as file:
        file.truncate(1 << 40)
    os.mkfifo(folder / "pipe")
    (folder / "zero").symlink_to("/dev/zero")
    async with FaultyUpstream() as server:
        server.fail("x", Fault(endless=b"x" * 10_000), times=None)
        nearby, moved = Nearby(upstream, blobs, clock, idle_s=5, most=3_000_000), [0]
        for place, name in (
            (Source(url=server.url), "x"),
            (Source(url=folder.as_uri()), "x"),
            (Source(url=folder.as_uri()), "zero"),
            (Source(url=folder.as_uri()), "pipe"),
        ):
            # The digest alone is known of an R package, not how long it is.
            found = await nearby.bring(
                place, name, size=None, sha256=None, md5="0" * 32, channel_id=1, lane=Lane.RUN, wrote=moved.append
            )
            assert (found, sum(moved)) == (None, 0)
    await upstream.close()
    await blobs.close()
    assert await asyncio.to_thread(lambda: list((tmp_path / "store" / "tmp").iterdir())) == []


SOURCE_DOWN = "source-down"
TROUBLES = {
    SOURCE_DOWN: (Fault(), Fault()),
    "near-down": (Fault(drop=True), Fault(status=503)),
    "near-wrong": (Fault(body=b"something else"), Fault(status=403)),
    "near-leads-out": (Fault(redirect="ftp://elsewhere.example.org/x"), Fault(status=501)),
}
"""What the near mirror does with .conda, and with .tar.bz2."""


@pytest.mark.deep
async def test_a_near_address_serves_when_the_source_does_not_and_the_reverse(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        for trouble, faults in TROUBLES.items():
            async with FaultyUpstream(folder=w.source.path) as near, FaultyUpstream(folder=w.source.path) as source:
                for kind, fault in zip(PACKAGES, faults, strict=True):
                    near.fail(kind, fault, times=None)
                    if trouble == SOURCE_DOWN:
                        source.fail(kind, Fault(drop=True), times=None)
                await w.call("channel.create", name=trouble, privacy="private")
                await w.mirror("passive", channel=trouble, source=source.url, also_from=[near.url])
                assert (await w.run(f"{trouble}:m")).state is RunState.COMPLETED
                token = (await w.call("token.create", name=trouble, channels=[trouble])).token
                for name in w.source.records["noarch"]:
                    served = await w.get(f"/t/{token}/repo/{trouble}/noarch/{name}")
                    assert (served.status, served.body) == (200, (w.source.path / "noarch" / name).read_bytes())
                assert (trouble == SOURCE_DOWN) == (asked_files(source) == []), trouble


async def test_a_source_that_is_known_to_be_down_hinders_nothing_near_by(tmp_path: Path) -> None:
    async with world(tmp_path) as w, FaultyUpstream(folder=w.source.path) as near:
        first, second = list(w.source.records["noarch"])[:2]
        near.fail(f"noarch/{first}", Fault(status=404), times=None)
        w.upstream.fail("*.conda", Fault(drop=True), times=None)
        w.upstream.fail("*.tar.bz2", Fault(drop=True), times=None)
        await w.mirror("passive", also_from=[near.url])
        await w.run()
        for name in w.source.records["noarch"]:
            assert (await w.get(f"/repo/main/noarch/{first}")).status == 502
            status = 502 if name == first else 200
            assert (await w.get(f"/repo/main/noarch/{name}")).status == status
        assert (await w.get(f"/repo/main/noarch/{second}")).status == 200


async def test_credentials_stay_with_the_source(tmp_path: Path) -> None:
    async with world(tmp_path) as w, FaultyUpstream(folder=w.source.path) as near:
        (package,) = w.source.add(plain("more"))
        w.upstream.bearer = "a-bearer-of-the-source"
        near.fail(f"noarch/{package.filename}", Fault(status=401))
        await w.mirror("active", also_from=[near.url], credentials={"bearer": "a-bearer-of-the-source"})
        assert (await w.run()).state is RunState.COMPLETED
        assert asked_files(w.upstream) == [f"noarch/{package.filename}"]
        assert near.requests
        assert not [seen for seen in near.requests if "authorization" in seen.headers or "bearer" in seen.raw_path]


@pytest.mark.parametrize(
    "place",
    [
        "srv/mirror",
        "file://host/srv",
        "ftp://h.example.org/x",
        "https://u:p@h.example.org",
        "https://h.example.org/?k=1",
        "https://h.example.org/t/{token}/x",
        "https://h.example.org:x/",
    ],
)
def test_what_is_no_place_is_refused(place: str) -> None:
    with pytest.raises(Invalid) as caught:
        check_near(["file:///srv/old", place])
    assert caught.value.data["path"] == "$.also_from[1]"


@pytest.mark.parametrize(
    ("kept_at", "near"),
    [
        ("noarch/a-1-0.conda", "noarch/a-1-0.conda"),
        ("src/contrib/abc_1.0.tar.gz", "src/contrib/abc_1.0.tar.gz"),
        ("https://files.example.org/packages/a0/b1/c2/x-1.whl#sha256=00", "packages/a0/b1/c2/x-1.whl"),
        ("../../packages/a0/b1/c2/x-1.whl", "packages/a0/b1/c2/x-1.whl"),
        ("/packages/a0/b1/c2/x-1.whl?sig=1", "packages/a0/b1/c2/x-1.whl"),
        ("https://files.example.org", None),
    ],
)
def test_a_copy_keeps_a_file_where_its_family_says(kept_at: str, near: str | None) -> None:
    rules = replace(TOY, fetch_url=lambda place: kept_at if place.base_url is None else "elsewhere")
    place = FetchPlace(part="p", section="s", filename="f", base_url="https://files.example.org/x/")
    assert near_path(rules, place) == near
