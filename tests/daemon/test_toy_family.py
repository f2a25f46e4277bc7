"""A fourth family lives in the house without a line of the house knowing it: mirrored, frozen, rolled back, served."""

import asyncio
import hashlib
import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from msgspec import Struct

from firth_protocol.client import Client
from firth_protocol.errors import NotFound
from firth_protocol.types import Family, Run, RunState
from firthd.config import UpstreamSettings
from tests.support.daemon import DaemonProcess, HastyClock, in_process_daemon, settings_in
from tests.support.toy.family import with_toy
from tests.support.upstream import Fault, FaultyUpstream
from tests.support.world import Reply

DAY_MS = 86_400_000
TTL_S = 600


class Box(Struct, frozen=True):
    """A source of toys, a daemon that knows them, and the channel `main`."""

    upstream: FaultyUpstream
    client: Client
    url: str
    clock: HastyClock
    http: aiohttp.ClientSession

    def put(self, part: str, *toys: tuple[str, str], form: str = "json", time: int | None = None) -> None:
        """Let a part of the source list these toys (name, version), and hold their files."""
        raws = []
        for name, version in toys:
            content = f"toy {name} {version}".encode()
            file = f"{name}-{version}.toy"
            self.upstream.files[f"{part}/{file}"] = content
            sha256 = hashlib.sha256(content).hexdigest()
            fields = {"name": name, "version": version, "file": file, "size": len(content), "sha256": sha256}
            raws.append(json.dumps(fields | ({} if time is None else {"time": time})).encode())
        for other in ("json", "txt"):
            self.upstream.files.pop(f"{part}/index.{other}", None)
        text = b"[" + b",".join(raws) + b"]" if form == "json" else b"\n".join(raws)
        self.upstream.files[f"{part}/index.{form}"] = text

    async def call(self, method: str, **params: Any) -> Any:
        return await self.client.call(method, **params)

    async def run(self, mirror: str = "main:m") -> Run:
        """Run a mirror to its end."""
        return await self.ended((await self.call("mirror.run", mirror=mirror)).run.id)

    async def ended(self, run: int) -> Run:
        found: Run = await self.call("run.wait", run=run, timeout=60)
        return found

    async def mirror(self, mode: str) -> None:
        await self.call("mirror.create", channel="main", name="m", type="r", mode=mode, source=self.upstream.url)
        assert (await self.run()).state is RunState.COMPLETED

    async def get(self, path: str) -> Reply:
        async with self.http.get(self.url + path) as response:
            return Reply(response.status, response.headers.copy(), await response.read())

    async def versions(self, part: str, *, at: str = "/repo") -> list[str]:
        """Return the versions that an index lists; both formats must agree."""
        plain, lines = [await self.get(f"{at}/main/{part}/index.{form}") for form in ("json", "txt")]
        assert (plain.status, lines.status) == (200, 200), (plain, lines)
        raws = msgspec.json.decode(plain.body, type=list[msgspec.Raw])
        assert b"".join(bytes(raw) + b"\n" for raw in raws) == lines.body
        return [json.loads(bytes(raw))["version"] for raw in raws]

    def asked(self, path: str) -> int:
        return len(self.upstream.asked(path))

    async def changed(self, part: str, versions: list[str]) -> None:
        """Wait until a page shows other versions: it is asked for anew behind the reply."""
        async with asyncio.timeout(20):
            while True:
                reply = await self.get(f"/repo/main/{part}/index.json")
                if [toy["version"] for toy in json.loads(reply.body)] == versions:
                    break
                await asyncio.sleep(0.02)  # nobody is told when a page was looked at again
        assert await self.versions(part) == versions


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Worker processes import the toy's formats."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))


@asynccontextmanager
async def toy_box(folder: Path) -> AsyncIterator[Box]:
    clock = HastyClock()
    settings = settings_in(folder, upstream=UpstreamSettings(timeout_s=5, page_ttl_s=TTL_S))
    async with (
        FaultyUpstream() as upstream,
        in_process_daemon(folder, settings=settings, clock=clock, families=with_toy) as daemon,
        aiohttp.ClientSession() as http,
    ):
        await daemon.client.call("channel.create", name="main")
        box = Box(upstream, daemon.client, daemon.url, clock, http)
        box.put("main", ("bear", "1"), ("doll", "1"))
        box.put("contrib/src", ("kite", "1"), form="txt")
        box.put("lazy/one", ("yoyo", "1"))
        yield box


def rows_of(folder: Path, sql: str) -> list[Any]:
    with closing(sqlite3.connect(folder / "state" / "firth.sqlite")) as connection:
        return connection.execute(sql).fetchall()


def settled_by(folder: Path) -> dict[str, int]:
    """Return which run took each part in whole; 0: none has."""
    return dict(rows_of(folder, "SELECT part, settled FROM source_index"))


@asynccontextmanager
async def box_of(process: DaemonProcess, upstream: FaultyUpstream, http: aiohttp.ClientSession) -> AsyncIterator[Box]:
    """Start a daemon of its own process that knows toys."""
    client = await process.start()
    yield Box(upstream, client, await process.url(client), HastyClock(), http)


async def test_an_active_mirror_brings_every_part_and_every_file(tmp_path: Path) -> None:
    async with toy_box(tmp_path) as box:
        await box.mirror("active")
        before = len(box.upstream.requests)
        assert await box.versions("main") == ["1", "1"]
        assert await box.versions("contrib/src") == ["1"]
        assert await box.versions("lazy/one") == ["1"]  # in active mode a run reads it
        assert (await box.get("/repo/main/files/contrib/src/kite-1.toy")).body == b"toy kite 1"
        assert (await box.get("/repo/main/files/lazy/one/yoyo-1.toy")).body == b"toy yoyo 1"
        assert len(box.upstream.requests) == before


async def test_a_passive_mirror_is_browsed_and_served(tmp_path: Path) -> None:
    async with toy_box(tmp_path) as box:
        await box.mirror("passive")
        assert not box.asked("lazy/one/index.json")
        listed = await box.call("package.list", channel="main")
        assert [item.name for item in listed.items] == ["bear", "doll", "kite"]
        kite = await box.call("package.get", channel="main", family=Family.R, name="kite")
        assert kite.files[0].url.endswith("/repo/main/files/contrib/src/kite-1.toy")
        assert (await box.get("/repo/main/files/contrib/src/kite-1.toy")).body == b"toy kite 1"
        assert await box.versions("lazy/one") == ["1"]
        assert (await box.get("/repo/main/files/lazy/one/yoyo-1.toy")).body == b"toy yoyo 1"
        yoyo = await box.call("package.get", channel="main", family=Family.R, name="yoyo")
        assert [file.version for file in yoyo.files] == ["1"]
        assert (await box.call("mirror.get", mirror="main:m")).artifacts == 4
        assert (await box.run()).state is RunState.COMPLETED
        assert await box.versions("lazy/one") == ["1"]


async def test_a_lazy_page_is_fetched_once_for_a_crowd(tmp_path: Path) -> None:
    async with toy_box(tmp_path) as box:
        await box.mirror("passive")
        replies = await asyncio.gather(*(box.get("/repo/main/lazy/one/index.json") for _ in range(50)))
        assert {reply.status for reply in replies} == {200}
        assert len({reply.body for reply in replies}) == 1
        assert box.asked("lazy/one/index.json") == 1


async def test_an_old_page_is_served_while_it_is_asked_for_again(tmp_path: Path) -> None:
    async with toy_box(tmp_path) as box:
        await box.mirror("passive")
        assert await box.versions("lazy/one") == ["1"]
        box.put("lazy/one", ("yoyo", "1"), ("yoyo", "2"))
        assert await box.versions("lazy/one") == ["1"]  # young enough
        box.clock.shift_ms += TTL_S * 1000
        assert (await box.get("/repo/main/lazy/one/index.json")).body.count(b"yoyo-") == 1
        await box.changed("lazy/one", ["1", "2"])
        assert (await box.get("/repo/main/files/lazy/one/yoyo-2.toy")).body == b"toy yoyo 2"
        box.clock.shift_ms += TTL_S * 1000
        box.upstream.fail("lazy/*", Fault(status=503), times=None)
        assert await box.versions("lazy/one") == ["1", "2"]  # its source is down


async def test_a_page_that_never_came_answers_why(tmp_path: Path) -> None:
    async with toy_box(tmp_path) as box:
        await box.mirror("passive")
        box.upstream.fail("lazy/*", Fault(status=503), times=None)
        reply = await box.get("/repo/main/lazy/one/index.json")
        assert reply.status == 502
        asked = box.asked("lazy/one/index.json")
        assert (await box.get("/repo/main/lazy/one/index.json")).status == 502
        assert box.asked("lazy/one/index.json") == asked  # remembered for a while


async def test_the_absence_of_a_page_is_remembered(tmp_path: Path) -> None:
    async with toy_box(tmp_path) as box:
        await box.mirror("passive")
        for _ in range(3):
            assert (await box.get("/repo/main/lazy/none/index.json")).status == 404
        assert box.asked("lazy/none/index.json") == 1


async def test_what_a_page_lists_no_more_is_fetchable_for_its_grace_period(tmp_path: Path) -> None:
    async with toy_box(tmp_path) as box:
        await box.mirror("passive")
        assert await box.versions("lazy/one") == ["1"]
        assert (await box.get("/repo/main/files/lazy/one/yoyo-1.toy")).status == 200
        box.put("lazy/one", ("yoyo", "2"))
        box.clock.shift_ms += TTL_S * 1000
        await box.changed("lazy/one", ["2"])
        assert (await box.get("/repo/main/files/lazy/one/yoyo-1.toy")).status == 200
        box.clock.shift_ms += 8 * DAY_MS
        assert (await box.get("/repo/main/files/lazy/one/yoyo-1.toy")).status == 404


async def test_a_freeze_shows_the_pages_of_its_moment(tmp_path: Path) -> None:
    async with toy_box(tmp_path) as box:
        await box.mirror("passive")
        assert await box.versions("lazy/one") == ["1"]
        box.clock.shift_ms += 1000
        await box.call("channel.freeze", channel="main")
        frozen = box.clock.now_ms()
        box.put("lazy/one", ("yoyo", "2"))
        box.put("lazy/two", ("drum", "1"), ("drum", "2"), time=frozen - 5000)
        box.clock.shift_ms += TTL_S * 1000
        assert await box.versions("lazy/one") == ["1"]
        assert await box.versions("lazy/two") == ["1", "2"]  # read later, and no younger than the freeze
        box.put("lazy/three", ("horn", "1"), time=frozen + 5000)
        assert await box.versions("lazy/three") == []
        assert (await box.get("/repo/main/files/lazy/three/horn-1.toy")).status == 404
        await box.call("channel.unfreeze", channel="main")
        await box.changed("lazy/one", ["2"])
        assert await box.versions("lazy/three") == ["1"]
        assert (await box.get("/repo/main/files/lazy/three/horn-1.toy")).status == 200


async def test_a_rollback_and_a_snapshot_show_the_pages_of_their_time(tmp_path: Path) -> None:
    async with toy_box(tmp_path) as box:
        await box.mirror("passive")
        assert await box.versions("lazy/one") == ["1"]
        number = (await box.call("channel.get", channel="main")).generation
        box.clock.shift_ms += DAY_MS
        box.put("main", ("bear", "2"))
        assert (await box.run()).generation == number + 1
        box.clock.shift_ms += DAY_MS
        box.put("lazy/one", ("yoyo", "2"))
        await box.changed("lazy/one", ["2"])
        assert await box.versions("lazy/one", at=f"/snapshot/{number}") == ["1"]
        assert await box.versions("main", at=f"/snapshot/{number}") == ["1", "1"]
        assert (await box.get(f"/snapshot/{number}/main/files/lazy/one/yoyo-1.toy")).status == 200
        assert (await box.get(f"/snapshot/{number}/main/files/lazy/one/yoyo-2.toy")).status == 404
        await box.ended((await box.call("channel.rollback", channel="main", generation=number)).run.id)
        assert await box.versions("main") == ["1", "1"]
        assert await box.versions("lazy/one") == ["1"]
        unfrozen = await box.call("channel.unfreeze", channel="main")
        await box.ended(unfrozen.run.id)
        assert await box.versions("main") == ["2"]
        assert await box.versions("lazy/one") == ["2"]


async def test_a_large_page_is_read_by_a_worker(tmp_path: Path) -> None:
    async with toy_box(tmp_path) as box:
        await box.mirror("passive")
        versions = [f"{number:04}" for number in range(1000)]
        box.put("lazy/one", *(("yoyo", version) for version in versions))
        assert await box.versions("lazy/one") == versions
        assert (await box.get("/repo/main/files/lazy/one/yoyo-0999.toy")).body == b"toy yoyo 0999"


async def test_a_page_that_is_gone_at_the_source_goes(tmp_path: Path) -> None:
    async with toy_box(tmp_path) as box:
        await box.mirror("passive")
        assert await box.versions("lazy/one") == ["1"]
        del box.upstream.files["lazy/one/index.json"]
        box.clock.shift_ms += TTL_S * 1000
        async with asyncio.timeout(20):
            while (await box.get("/repo/main/lazy/one/index.json")).status != 404:
                await asyncio.sleep(0.02)  # as above
        box.put("lazy/one", ("yoyo", "3"))
        box.clock.shift_ms += TTL_S * 1000
        async with asyncio.timeout(20):
            while (await box.get("/repo/main/lazy/one/index.json")).status != 200:
                await asyncio.sleep(0.02)
        assert await box.versions("lazy/one") == ["3"]


async def test_a_mirror_of_another_source_reads_its_pages_anew(tmp_path: Path) -> None:
    async with toy_box(tmp_path) as box, FaultyUpstream() as second:
        await box.mirror("passive")
        assert await box.versions("lazy/one") == ["1"]
        other = Box(second, box.client, box.url, box.clock, box.http)
        other.put("main", ("bear", "1"))
        other.put("lazy/one", ("yoyo", "2"))
        box.clock.shift_ms += 1000
        revision = (await box.call("mirror.get", mirror="main:m")).revision
        await box.call("mirror.update", mirror="main:m", revision=revision, source=second.url)
        await box.changed("lazy/one", ["2"])


async def test_versions_that_nothing_shows_go(tmp_path: Path) -> None:
    async with toy_box(tmp_path) as box:
        await box.mirror("passive")
        for version in "123456":
            box.put("lazy/one", ("yoyo", version))
            box.clock.shift_ms += 2 * TTL_S * 1000
            await box.get("/repo/main/lazy/one/index.json")
            await box.changed("lazy/one", [version])
        box.clock.shift_ms += 30 * DAY_MS
        box.put("lazy/one", ("yoyo", "7"))
        await box.changed("lazy/one", ["7"])
    assert len(await asyncio.to_thread(rows_of, tmp_path, "SELECT 1 FROM page")) <= 4  # two days may have been touched
    assert len(await asyncio.to_thread(rows_of, tmp_path, "SELECT 1 FROM page_span")) <= 4
    listed = await asyncio.to_thread(rows_of, tmp_path, "SELECT filename FROM artifact WHERE part = 'lazy/one'")
    assert len(listed) <= 4


async def test_a_part_that_is_lazy_no_more_is_read_by_the_next_run(tmp_path: Path) -> None:
    async with toy_box(tmp_path) as box:
        await box.mirror("passive")
        assert await box.versions("lazy/one") == ["1"]
        revision = (await box.call("mirror.get", mirror="main:m")).revision
        await box.call("mirror.update", mirror="main:m", revision=revision, filters={"packages": ["lazy/one"]})
        assert (await box.run()).state is RunState.COMPLETED
        assert await box.versions("lazy/one") == ["1"]
        assert (await box.get("/repo/main/files/lazy/one/yoyo-1.toy")).status == 200
        assert [one.name for one in (await box.call("package.list", channel="main")).items][-1] == "yoyo"
        await box.call("mirror.update", mirror="main:m", revision=revision + 1, filters={})
        assert (await box.run()).state is RunState.COMPLETED
        assert await box.versions("lazy/one") == ["1"]
        assert (await box.get("/repo/main/files/lazy/one/yoyo-1.toy")).status == 200


async def test_the_oldest_mirror_that_has_a_page_owns_it(tmp_path: Path) -> None:
    async with toy_box(tmp_path) as box, FaultyUpstream() as second:
        await box.mirror("passive")
        other = Box(second, box.client, box.url, box.clock, box.http)
        other.put("lazy/one", ("yoyo", "666"))
        other.put("lazy/two", ("drum", "1"))
        other.put("main", ("duck", "1"))
        fields = {"type": "r", "mode": "passive", "source": second.url}
        await box.call("mirror.create", channel="main", name="second", **fields)
        await box.run("main:second")
        assert await box.versions("lazy/one") == ["1"]
        assert await box.versions("lazy/two") == ["1"]
        assert (await box.get("/repo/main/files/lazy/one/yoyo-666.toy")).status == 404
        assert (await box.get("/repo/main/files/lazy/two/drum-1.toy")).body == b"toy drum 1"
        assert not second.asked("lazy/one/*")


async def test_only_a_part_with_a_hole_is_read_again(tmp_path: Path) -> None:
    async with toy_box(tmp_path) as box:
        await box.call("mirror.create", channel="main", name="m", type="r", mode="active", source=box.upstream.url)
        del box.upstream.files["main/doll-1.toy"]
        first = await box.run()
        assert first.state is RunState.INCOMPLETE
        assert await asyncio.to_thread(settled_by, tmp_path) == {
            "main": 0,
            "contrib/src": first.id,
            "lazy/one": first.id,
        }
        box.upstream.files["main/doll-1.toy"] = b"toy doll 1"
        second = await box.run()
        assert (second.state, second.counts.added) == (RunState.COMPLETED, 1)
        assert await asyncio.to_thread(settled_by, tmp_path) == {
            "main": second.id,
            "contrib/src": first.id,
            "lazy/one": first.id,
        }


async def test_a_run_that_was_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    async with (
        FaultyUpstream() as upstream,
        DaemonProcess(tmp_path, module="tests.support.toy.serve") as process,
        aiohttp.ClientSession() as http,
    ):
        fields = {"channel": "main", "type": "r", "mode": "active", "source": upstream.url, "check": False}
        async with box_of(process, upstream, http) as box:
            box.put("main", ("bear", "1"), ("doll", "1"))
            box.put("contrib/src", ("kite", "1"))
            box.put("lazy/one", ("yoyo", "1"))
            never = asyncio.Event()
            upstream.fail("main/doll-1.toy", Fault(until=never))
            await box.call("channel.create", name="main")
            await box.call("mirror.create", name="m", **fields)
            cut = (await box.call("mirror.run", mirror="main:m")).run
            await upstream.arrived("main/doll-1.toy", seconds=30)
            await process.kill()
            never.set()
        async with box_of(process, upstream, http) as box:
            assert (await box.call("run.wait", run=cut.id + 1, timeout=60)).state is RunState.COMPLETED
            assert await box.versions("main") == ["1", "1"]
            assert await box.versions("contrib/src") == ["1"]
            assert [box.asked(f"{part}/index.json") for part in ("main", "contrib/src", "lazy/one")] == [1, 1, 1]


async def test_the_pages_of_a_deleted_mirror_are_not_served(tmp_path: Path) -> None:
    async with toy_box(tmp_path) as box:
        await box.mirror("passive")
        assert await box.versions("lazy/one") == ["1"]
        deleted = await box.call("mirror.delete", mirror="main:m", packages="remove", confirm="m")
        await box.ended(deleted.run.id)
        assert (await box.get("/repo/main/lazy/one/index.json")).status == 404
        with pytest.raises(NotFound):
            await box.call("package.get", channel="main", family=Family.R, name="yoyo")
