"""How bytes go out: the HTTP contract that every client relies on."""

import asyncio
import os
from pathlib import Path

import msgspec
import pytest

from firthd.web.hot import MAX_OBJECT
from tests.support.web import PUBLISHED_MS, Site, conda_index, sha256, until

SMALL = b"small package"
MIDDLE = bytes(range(256)) * 1024  # 256 KiB: more than one write, still kept in memory
LARGE = os.urandom(64) * 40_000  # 2.5 MB: more than is kept in memory


@pytest.fixture(params=["small", "middle", "large"])
def package(request: pytest.FixtureRequest) -> bytes:
    return {"small": SMALL, "middle": MIDDLE, "large": LARGE}[request.param]


@pytest.fixture
async def url(site: Site, package: bytes) -> str:
    site.shelf.channel("main", conda_index("noarch"))
    site.shelf.artifact("main", "noarch", "pkg-1-0.conda", package)
    return "/repo/main/noarch/pkg-1-0.conda"


async def test_get_gives_the_bytes_with_all_headers(site: Site, url: str, package: bytes) -> None:
    reply = await site.get(url)
    assert (reply.status, reply.body, reply.length) == (200, package, len(package))
    assert reply.headers["etag"] == f'"{sha256(package)}"'
    assert reply.headers["accept-ranges"] == "bytes"
    assert reply.headers["cache-control"] == "public, max-age=3600"
    assert reply.headers["content-type"] == "application/octet-stream"
    assert reply.headers["server"] == "Firth"
    assert reply.headers["last-modified"].endswith(" GMT")
    assert "content-encoding" not in reply.headers
    assert "transfer-encoding" not in reply.headers


async def test_head_has_the_headers_of_get_and_no_body(site: Site, url: str) -> None:
    async with site.connection() as client:
        head = await client.head(url)
        get = await client.get(url)  # would read the tail of a body that HEAD sent by mistake
        again = await client.head(url)
    for reply in (head, get, again):
        reply.headers.pop("date")
    assert head.status == get.status == 200
    assert head.headers == get.headers == again.headers


async def test_several_requests_on_one_connection(site: Site, url: str, package: bytes) -> None:
    async with site.connection() as client:
        for _ in range(3):
            assert (await client.get(url)).body == package
            assert (await client.get(url, {"Range": "bytes=5-9"})).body == package[5:10]
            assert (await client.get("/nothing")).status == 404


async def test_pipelined_requests_are_answered_in_order(site: Site, url: str, package: bytes) -> None:
    async with site.connection() as client:
        for _ in range(4):
            await client.send("GET", url)
            await client.send("GET", "/nothing")
        for _ in range(4):
            assert (await client.reply()).body == package
            assert (await client.reply()).status == 404


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=3-", 3, None),
        ("bytes=-4", -4, None),
        ("bytes=2-99999999999999999999", 2, None),
        ("bytes=-99999999", 0, None),  # longer than the file: the whole file, as 206
    ],
)
async def test_ranges(site: Site, url: str, package: bytes, asked: str, start: int, stop: int | None) -> None:
    reply = await site.get(url, {"Range": asked})
    expected = package[start:stop]
    first = package.index(expected) if start >= 0 else len(package) + start
    assert (reply.status, reply.body) == (206, expected)
    assert reply.headers["content-range"] == f"bytes {first}-{first + len(expected) - 1}/{len(package)}"
    assert reply.headers["etag"] == f'"{sha256(package)}"'


@pytest.mark.parametrize("asked", ["bytes=0-1,4-5", "lines=1-2", "bytes=5-2", "bytes=", "bytes=-", "nonsense"])
async def test_ranges_that_are_ignored(site: Site, url: str, package: bytes, asked: str) -> None:
    reply = await site.get(url, {"Range": asked})
    assert (reply.status, reply.body) == (200, package)


async def test_a_range_behind_the_end_is_416(site: Site, url: str, package: bytes) -> None:
    reply = await site.get(url, {"Range": f"bytes={len(package)}-"})
    assert reply.status == 416
    assert reply.headers["content-range"] == f"bytes */{len(package)}"


async def test_if_none_match_gives_304(site: Site, url: str, package: bytes) -> None:
    tag = f'"{sha256(package)}"'
    for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        reply = await site.get(url, {"If-None-Match": known})
        assert (reply.status, reply.headers["etag"]) == (304, tag), known
    assert (await site.get(url, {"If-None-Match": '"other"'})).body == package


async def test_if_none_match_beats_if_modified_since(site: Site, url: str, package: bytes) -> None:
    fresh = (await site.head(url)).headers["last-modified"]
    both = {"If-None-Match": '"of another url"', "If-Modified-Since": fresh}
    assert (await site.get(url, both)).body == package
    assert (await site.get(url, {"If-Modified-Since": fresh})).status == 304
    assert (await site.get(url, {"If-Modified-Since": "Thu, 01 Jan 1970 00:00:00 GMT"})).status == 200
    assert (await site.get(url, {"If-Modified-Since": "yesterday"})).status == 200


async def test_if_range_guards_a_resume(site: Site, url: str, package: bytes) -> None:
    date = (await site.head(url)).headers["last-modified"]
    for guard in (f'"{sha256(package)}"', date):
        assert (await site.get(url, {"Range": "bytes=4-", "If-Range": guard})).body == package[4:]
    for guard in ('"other"', f'W/"{sha256(package)}"', "Thu, 01 Jan 1970 00:00:00 GMT"):
        reply = await site.get(url, {"Range": "bytes=4-", "If-Range": guard})
        assert (reply.status, reply.body) == (200, package), guard


async def test_preconditions_that_fail_are_412(site: Site, url: str) -> None:
    assert (await site.get(url, {"If-Match": '"other"'})).status == 412
    assert (await site.get(url, {"If-Match": "*"})).status == 200
    assert (await site.get(url, {"If-Unmodified-Since": "Thu, 01 Jan 1970 00:00:00 GMT"})).status == 412


async def test_an_empty_file(site: Site) -> None:
    site.shelf.channel("main", conda_index("noarch"))
    site.shelf.artifact("main", "noarch", "empty-1-0.conda", b"")
    url = "/repo/main/noarch/empty-1-0.conda"
    async with site.connection() as client:
        reply = await client.get(url)
        assert (reply.status, reply.length) == (200, 0)
        assert (await client.get(url, {"Range": "bytes=-5"})).status == 200
        assert (await client.get(url, {"Range": "bytes=0-"})).status == 416


async def test_hot_objects_are_served_without_their_file(site: Site) -> None:
    site.shelf.channel("main", conda_index("noarch"))
    row = site.shelf.artifact("main", "noarch", "pkg-1-0.conda", MIDDLE)
    assert row.sha256 is not None
    first = await site.get("/repo/main/noarch/pkg-1-0.conda")
    site.blobs.path(row.sha256).unlink()
    again = await site.get("/repo/main/noarch/pkg-1-0.conda")
    assert again.body == first.body == MIDDLE
    assert again.headers["last-modified"] == first.headers["last-modified"]


async def test_a_file_that_is_too_short_is_an_error_and_never_a_short_body(site: Site) -> None:
    site.shelf.channel("main", conda_index("noarch"))
    row = site.shelf.artifact("main", "noarch", "pkg-1-0.conda", LARGE)
    assert row.sha256 is not None
    os.truncate(site.blobs.path(row.sha256), 100)
    reply = await site.get("/repo/main/noarch/pkg-1-0.conda")
    assert reply.status == 502  # it is fetched again, and here no source has it
    assert str(site.root) not in reply.body.decode()


@pytest.mark.parametrize("data", [SMALL, MIDDLE], ids=["small", "middle"])
async def test_a_damaged_file_does_not_get_into_memory(site: Site, data: bytes) -> None:
    site.shelf.channel("main", conda_index("noarch"))
    row = site.shelf.artifact("main", "noarch", "pkg-1-0.conda", data)
    assert row.sha256 is not None
    site.blobs.path(row.sha256).write_bytes(data[::-1])
    assert (await site.get("/repo/main/noarch/pkg-1-0.conda")).status == 502
    site.blobs.path(row.sha256).write_bytes(data)
    assert (await site.get("/repo/main/noarch/pkg-1-0.conda")).body == data


async def test_the_plain_index_of_an_old_generation_comes_out_of_its_twin(site: Site) -> None:
    index = conda_index("noarch", filler=3 * 1024 * 1024)
    view = site.shelf.channel("main", index)
    plain = index["noarch/repodata.json"]
    row = site.shelf.objects[view.channel_id, 1, "noarch/repodata.json"]
    twin = site.shelf.objects[view.channel_id, 1, "noarch/repodata.json.zst"]
    site.shelf.objects[view.channel_id, 12, row.path] = msgspec.structs.replace(row, file=twin.file, encoding="zstd")
    site.rendered.path(row.file).unlink()
    site.shelf.kept[("main", "12")] = msgspec.structs.replace(view, generation=12)
    url = "/snapshot/12/main/noarch/repodata.json"
    reply = await site.get(url)
    assert (reply.status, reply.body) == (200, plain)
    assert reply.headers["etag"] == f'"{sha256(plain)}"'
    assert (await site.head(url)).length == len(plain)
    assert (await site.get(url, {"Range": "bytes=2000000-2000009"})).body == plain[2_000_000:2_000_010]
    assert (await site.get(url, {"Range": "bytes=-7"})).body == plain[-7:]
    assert (await site.get(url, {"If-None-Match": f'"{sha256(plain)}"'})).status == 304


def open_files() -> set[str]:
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            target = str(entry.readlink())
        except FileNotFoundError:
            continue
        found.add(f"{entry.name} {target}")
    return found


async def settled(before: set[str], below: str = "") -> set[str]:
    """Wait until nothing but what was open before is open (`below`: of files there); give what stays open."""
    leaked: set[str] = set()
    for _ in range(300):
        leaked = {entry for entry in open_files() - before if below in entry}
        if not leaked:
            break
        await asyncio.sleep(0.01)
    return leaked


async def test_clients_that_leave_in_the_middle_leak_nothing(site: Site) -> None:
    site.shelf.channel("main", conda_index("noarch"))
    huge = LARGE * 8
    row = site.shelf.artifact("main", "noarch", "pkg-1-0.conda", huge)
    assert row.sha256 is not None
    assert len(huge) > MAX_OBJECT
    async with site.connection() as client:
        assert (await client.head("/repo/main/noarch/pkg-1-0.conda")).status == 200
    before = open_files()
    for _ in range(10):
        async with site.connection() as client:
            await client.send("GET", "/repo/main/noarch/pkg-1-0.conda")
            await client.head_of_reply()
            await client.reader.readexactly(1000)
    leaked = await settled(before)
    assert leaked == set()
    assert (await site.get("/repo/main/noarch/pkg-1-0.conda")).body == huge


async def test_a_slow_reader_gets_every_byte_and_holds_up_nobody(site: Site) -> None:
    site.shelf.channel("main", conda_index("noarch"))
    huge = LARGE * 8
    site.shelf.artifact("main", "noarch", "pkg-1-0.conda", huge)
    async with site.connection() as slow:
        await slow.send("GET", "/repo/main/noarch/pkg-1-0.conda")
        head = await slow.head_of_reply()
        assert (await site.get("/repo/main/noarch/pkg-1-0.conda")).body == huge  # while the slow one does not read
        received = await slow.reader.readexactly(head.length)
    assert received == huge


async def test_times_of_index_files_are_those_of_their_publication(site: Site) -> None:
    from firthd.web.conditions import http_date

    site.shelf.channel("main", conda_index("noarch"))
    reply = await site.get("/repo/main/noarch/repodata.json")
    assert reply.headers["last-modified"] == http_date(PUBLISHED_MS)


async def test_the_pieces_of_an_index_stay_for_a_client_that_takes_its_time(site: Site) -> None:
    site.shelf.channel("main", conda_index("noarch"))
    path = "noarch/repodata.json"
    pack = site.shelf.join("main", path, *[b"%d" % number * (1 << 20) for number in range(8)] * 4)
    async with site.connection() as client:
        await client.send("GET", f"/repo/main/{path}")
        await until(lambda: site.kept == {pack})
        reply = await client.reply()
    assert (reply.status, len(reply.body), reply.body[:: 1 << 20]) == (200, 32 << 20, b"01234567" * 4)
    await until(lambda: not site.kept)
    async with site.connection() as client:  # one that goes away
        await client.send("GET", f"/repo/main/{path}")
        await until(lambda: site.kept)
    await until(lambda: not site.kept)


async def test_an_index_of_which_a_pack_is_lost_is_made_anew(site: Site) -> None:
    site.shelf.channel("main", conda_index("noarch"))
    path = "noarch/repodata.json"
    pack = site.shelf.join("main", path, b"one", b"two")
    assert (await site.get(f"/repo/main/{path}")).body == b"onetwo"
    site.rendered.path(pack).unlink()
    assert (await site.get(f"/repo/main/{path}")).status == 503
