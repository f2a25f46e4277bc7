"""Lists of what lies below a folder of a source: by its server's pages, or on the disk."""

from pathlib import Path

import pytest

from firth_protocol.errors import TooLarge, Upstream
from firthd.config import UpstreamSettings
from firthd.upstream import listing
from firthd.upstream.client import Fetched, Source
from firthd.upstream.client import Upstream as Upstreams
from tests.support.daemon import HastyClock
from tests.support.upstream import Fault, FaultyUpstream

PAGE = """
<html><a href="../">up</a> <a href="?C=N;O=D">by name</a> <a HREF='one/'>one</a> <A class="x" href=two/>two</A>
<a href="/root/three/">by its path</a> <a href="https://other.example.org/root/four/">elsewhere</a>
<a href="/else/">no</a> <a href="five%20b/">a blank</a> <a href="a&amp;b.txt">a file</a>
<a href="six/deep.txt">deeper</a> <a href="#top">top</a>
<a href="%2e%2e/">up</a> <a href="x%00y">nul</a> <a href="">nothing</a> <a href="./">here</a></html>
"""


async def listed(source: str, spool: Path, path: str = "root", most: int = 10) -> tuple[Fetched, list[str]]:
    upstream = Upstreams(UpstreamSettings(timeout_s=2), HastyClock())
    await upstream.start()
    try:
        fetched = await listing.list_folder(
            upstream, Source(url=source), path, spool, validators=None, until=None, room=None, most=most
        )
        again = await listing.list_folder(
            upstream, Source(url=source), path, spool, validators=fetched.validators, until=None, room=None
        )
    finally:
        await upstream.close()
    assert again.status == {"fetched": "not_modified", "absent": "absent"}[fetched.status]
    return fetched, _lines(spool) if fetched.status == "fetched" else []


def _lines(spool: Path) -> list[str]:
    return spool.read_text().splitlines()


async def test_pages_are_followed_one_deep(tmp_path: Path) -> None:
    async with FaultyUpstream() as upstream:
        pages = {"root/": PAGE, "root/one/": '<a href="x_1.tar.gz">x</a><a href="deep/">no</a>', "root/two/": "nothing"}
        pages |= {"root/three/": '<a href="/root/three/y_1.tar.gz">y</a>', "root/five b/": '<a href="z.gz">z</a>'}
        for path, page in pages.items():
            upstream.files[path] = page.encode()
            upstream.content_types[path] = "text/html; charset=utf-8"
        _, lines = await listed(upstream.url, tmp_path / "spool")
        assert [line.rstrip("\t") for line in lines] == ["a&b.txt", "five b/z.gz", "one/x_1.tar.gz", "three/y_1.tar.gz"]
        assert list(tmp_path.iterdir()) == [tmp_path / "spool"]
        assert (await listed(upstream.url, tmp_path / "other", "nowhere"))[0].status == "absent"
        upstream.files["plain/"] = b"<a href='x/'>x</a>"
        upstream.content_types["plain/"] = "text/plain"
        assert (await listed(upstream.url, tmp_path / "other", "plain"))[0].status == "absent"
        with pytest.raises(TooLarge, match="folders"):
            await listed(upstream.url, tmp_path / "other", most=2)
        upstream.fail("root/one/", Fault(status=500), times=None)
        with pytest.raises(Upstream, match="500"):
            await listed(upstream.url, tmp_path / "other")


async def test_a_folder_on_the_disk_is_listed_with_sizes(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    (root / "root" / "one" / "deep").mkdir(parents=True)
    (root / "root" / "one" / "x_1.tar.gz").write_bytes(b"12345")
    (root / "root" / "one" / "deep" / "no").write_bytes(b"")
    (root / "kept").write_bytes(b"123")
    (tmp_path / "secret").write_bytes(b"1")
    (root / "root" / "one" / "in").symlink_to(root / "kept")
    (root / "root" / "one" / "out").symlink_to(tmp_path / "secret")
    (root / "root" / "away").symlink_to(tmp_path)
    _, lines = await listed(root.as_uri(), tmp_path / "spool")
    assert [line.split("\t")[:2] for line in lines] == [["one/in", "3"], ["one/x_1.tar.gz", "5"]]
    assert (await listed(root.as_uri(), tmp_path / "other", "../"))[0].status == "absent"
    with pytest.raises(Upstream, match="not there"):
        await listed((tmp_path / "gone").as_uri(), tmp_path / "other")
