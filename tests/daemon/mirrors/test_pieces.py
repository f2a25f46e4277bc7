"""A source that offers its index in pieces is read in pieces after the first time; whole, whatever is wrong there."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
import zstandard

from firth_protocol.types import RunState
from firthd.families.conda.pieces import moved, read_list, unpacked
from firthd.families.conda.shards import shard_index
from firthd.mirrors import pieces
from tests.support.daemon import HastyClock
from tests.support.upstream import Fault
from tests.support.world import World, edit, plain, raw_records, world

LIST = "repodata_shards.msgpack.zst"
HOUR_MS = 3_600_000


@asynccontextmanager
async def sharded(folder: Path, clock: HastyClock | None = None) -> AsyncIterator[World]:
    """Give a world whose source offers shards and has been read once."""
    async with world(folder, clock=clock or HastyClock()) as w:
        w.source.sharded = True
        w.source.add(*(plain(f"p{number}") for number in range(12)))
        await w.mirror("passive")
        assert (await w.run()).state is RunState.COMPLETED
        w.upstream.requests.clear()
        yield w


def later(w: World) -> None:
    """Let an hour pass at the source: something new, something hotfixed, something gone."""
    w.source.add(plain("new"), plain("p1", version="2.0"))
    edit(w.source, "noarch", "p2-1.0-0.conda", depends=["python"])
    w.source.remove("noarch", "p3-1.0-0.conda")
    w.upstream.changed_ms += HOUR_MS


def whole(w: World) -> list[str]:
    """Return the whole indexes that were fetched, not just asked for."""
    return [seen.path for seen in w.upstream.asked("*/repodata.json*") if seen.status == 200]


def shards(w: World) -> int:
    return len(w.upstream.asked("*/shards/*"))


async def is_served(w: World) -> bool:
    """Tell whether what is served is what the source has, byte for byte."""
    there = raw_records((w.source.path / "noarch/repodata.json").read_bytes())
    return await w.records("noarch") == there


async def test_only_what_has_moved_is_read(tmp_path: Path) -> None:
    async with sharded(tmp_path) as w:
        same = await w.run()
        assert (same.generation, whole(w), shards(w)) == (None, [], 0)
        later(w)
        run = await w.run()
        assert (run.state, whole(w), shards(w)) == (RunState.COMPLETED, [], 3)
        assert await is_served(w)
        assert (run.counts.added, run.counts.removed, run.counts.unchanged) == (3, 2, 15)
        assert (await w.run()).generation is None
        assert shards(w) == 3
        assert run.notes == []


def lost(w: World) -> None:
    w.upstream.fail("*/shards/*", Fault(status=404), times=None)


def wrong(w: World) -> None:
    w.upstream.fail("*/shards/*", Fault(body=b"another one"), times=None)


def cut(w: World) -> None:
    listed = w.source.path / "noarch" / LIST
    listed.write_bytes(listed.read_bytes()[:-9])


def not_theirs(w: World) -> None:
    """Let a shard that its list vouches for hold records of another package."""
    listed = w.source.path / "noarch" / LIST
    hashes = dict(read_list("noarch", listed.read_bytes()).hashes)
    hashes["new"] = hashes["p4"]
    listed.write_bytes(shard_index("noarch", hashes, {}))


def emptied(w: World) -> None:
    (w.source.path / "noarch" / LIST).write_bytes(shard_index("noarch", {}, {}))


def withdrawn(w: World) -> None:
    (w.source.path / "noarch" / LIST).unlink()


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (lost, "lacks a piece"),
        pytest.param(wrong, "is not what its list says", marks=pytest.mark.deep),
        pytest.param(cut, "is no list of shards", marks=pytest.mark.deep),
        pytest.param(not_theirs, "a record of another package", marks=pytest.mark.deep),
        pytest.param(emptied, "are not what its pieces said", marks=pytest.mark.deep),
        pytest.param(withdrawn, "", marks=pytest.mark.deep),
    ],
)
async def test_whatever_is_wrong_with_pieces_the_index_is_read_whole(
    tmp_path: Path, fault: Callable[[World], None], told: str
) -> None:
    async with sharded(tmp_path) as w:
        later(w)
        fault(w)
        run = await w.run()
        assert run.state is RunState.COMPLETED
        assert await is_served(w)
        assert whole(w) == ["noarch/repodata.json.zst"]
        said = run.notes
        assert [text for text in said if told in text] if told else not said
        w.upstream.heal()
        w.source.add(plain("newer"))
        w.upstream.changed_ms += HOUR_MS
        await w.run()
        assert await is_served(w)


@pytest.mark.deep
async def test_caches_of_two_ages_leave_no_hole(tmp_path: Path) -> None:
    async with sharded(tmp_path) as w:
        names = ("repodata.json", "repodata.json.zst", LIST)
        folder = w.source.path / "noarch"

        def kept() -> dict[str, bytes]:
            return {name: (folder / name).read_bytes() for name in names}

        old = kept()
        later(w)
        new = kept()
        listed, document = LIST, [name for name in names if name != LIST]
        for list_of, document_of in ((new, old), (old, new), (new, old), (new, new)):
            (folder / listed).write_bytes(list_of[listed])
            for name in document:
                (folder / name).write_bytes(document_of[name])
            w.upstream.changed_ms += HOUR_MS
            await w.run()
        assert await is_served(w)


@pytest.mark.deep
async def test_a_list_that_is_newer_than_the_index_is_not_gone_on_from(tmp_path: Path) -> None:
    async with world(tmp_path, clock=HastyClock()) as w:
        w.source.sharded = True
        w.source.add(*(plain(f"p{number}") for number in range(12)))
        folder = w.source.path / "noarch"
        old = {name: (folder / name).read_bytes() for name in ("repodata.json", "repodata.json.zst")}
        w.source.add(plain("new"))
        new = {name: (folder / name).read_bytes() for name in old}
        for name, body in old.items():
            (folder / name).write_bytes(body)
            aged = Fault(headers={"Last-Modified": "Tue, 10 Mar 2026 00:00:00 GMT"})
            w.upstream.fail(f"noarch/{name}", aged, times=None)
        await w.mirror("passive")
        await w.run()
        for name, body in new.items():
            (folder / name).write_bytes(body)
        w.upstream.heal()
        await w.run()
        assert await is_served(w)


@pytest.mark.deep
async def test_after_a_week_the_index_is_read_whole_and_what_differs_is_told(tmp_path: Path) -> None:
    clock = HastyClock()
    async with sharded(tmp_path, clock) as w:
        later(w)
        await w.run()
        before = (w.source.path / "noarch" / LIST).read_bytes()
        edit(w.source, "noarch", "p5-1.0-0.conda", depends=["python"])
        (w.source.path / "noarch" / LIST).write_bytes(before)  # the shards have not heard of it
        w.upstream.changed_ms += HOUR_MS
        assert (await w.run()).generation is None
        clock.shift_ms += pieces.WHOLE_MS
        run = await w.run()
        assert any("1 files are not what its pieces said, such as p5" in text for text in run.notes)
        assert await is_served(w)


@pytest.mark.deep
async def test_what_shrank_too_far_in_pieces_stops_the_run(tmp_path: Path) -> None:
    async with world(tmp_path, clock=HastyClock()) as w:
        w.source.sharded = True
        w.source.add(*(plain("many", version=f"1.{number}") for number in range(150)))
        w.source.add(*(plain(f"p{number}") for number in range(12)))
        await w.mirror("passive")
        await w.run()
        w.upstream.requests.clear()
        for number in range(120):
            del w.source.records["noarch"][f"many-1.{number}-0.conda"]
        w.source.write()
        w.upstream.changed_ms += HOUR_MS
        run = await w.run()
        assert (run.state, whole(w)) == (RunState.FAILED, [])
        assert run.error is not None
        assert "stopped listing 120 of 166 artifacts" in run.error.message


@pytest.mark.deep
async def test_where_much_has_moved_the_index_is_read_whole(tmp_path: Path) -> None:
    async with sharded(tmp_path) as w:
        for number in range(pieces.MOST + 1):
            record = w.source.records["noarch"]["p1-1.0-0.conda"] | {"name": f"q{number}"}
            w.source.records["noarch"][f"q{number}-1.0-0.conda"] = record
        w.source.write()
        w.upstream.changed_ms += HOUR_MS
        await w.run()
        assert (whole(w), shards(w)) == (["noarch/repodata.json.zst"], 0)
        w.source.add(plain("new"))
        w.upstream.changed_ms += HOUR_MS
        await w.run()
        assert (len(whole(w)), shards(w)) == (1, 1)  # the list that came then is gone on from
        assert await is_served(w)


@pytest.mark.deep
async def test_under_a_policy_the_index_is_read_whole(tmp_path: Path) -> None:
    async with sharded(tmp_path) as w:
        later(w)
        await w.run()
        await w.call("policy.create", name="no-p4", rules={"packages": {"exclude": ["p4"]}})
        revision = (await w.call("mirror.get", mirror="main:m")).revision
        await w.call("mirror.update", mirror="main:m", revision=revision, policy="no-p4")
        for run in (await w.call("run.list", mirror="main:m")).items:
            assert (await w.daemon.ended(run.id)).state is RunState.COMPLETED
        assert "p4-1.0-0.conda" not in await w.names()
        later_still = w.source.add(plain("newer"))
        w.upstream.changed_ms += HOUR_MS
        await w.run()
        assert later_still[0].filename in await w.names()
        assert "p4-1.0-0.conda" not in await w.names()
        assert "new-1.0-0.conda" in await w.names()


# --- lists ------------------------------------------------------------------------------------------------------------


def a_list(**info: object) -> bytes:
    told = {"subdir": "noarch", "shards_base_url": "./shards/"} | info
    content = {"info": told, "shards": {"a": b"\1" * 32}}
    return zstandard.ZstdCompressor().compress(msgspec.msgpack.encode(content))


@pytest.mark.parametrize(
    ("base", "below"),
    [
        ("./shards/", "noarch/shards/"),
        ("", "noarch/"),
        ("../s", "s/"),
        ("/s/", "/s/"),
        ("https://c.example.org/s", "https://c.example.org/s/"),
        ("../../s", None),
        ("file:///etc", None),
        ("//c.example.org/s", None),
    ],
)
def test_where_pieces_lie(base: str, below: str | None) -> None:
    content = a_list(shards_base_url=base)
    if below is None:
        with pytest.raises(ValueError, match=r"its shards lie|outside of itself"):
            moved("noarch", None, content)
        return
    (piece,) = moved("noarch", None, content).pieces
    assert (piece.name, piece.path) == ("a", f"{below}{'01' * 32}.msgpack.zst")


@pytest.mark.parametrize(
    "content", [b"", b"\x28\xb5\x2f\xfd", a_list()[:-3], a_list(subdir="linux-64"), a_list(shards_base_url=3)]
)
def test_what_is_no_list_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        moved("noarch", None, content)


def test_a_bomb_is_refused() -> None:
    with pytest.raises(ValueError, match="more than 1,000 bytes"):
        unpacked(zstandard.ZstdCompressor().compress(bytes(10_000_000)), 1_000)
