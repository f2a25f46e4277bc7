import os
from pathlib import Path

import pytest

from firth_protocol import errors
from firthd.upstream.client import Source, Upstream
from firthd.upstream.files import folder_of


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "a medium"
    (root / "noarch").mkdir(parents=True)
    (root / "noarch" / "repodata.json").write_bytes(b'{"packages": {}}')
    (tmp_path / "secret").write_bytes(b"not yours")
    return root


@pytest.fixture
def source(root: Path) -> Source:
    return Source(url=root.as_uri())


async def fetch(upstream: Upstream, source: Source, tmp_path: Path, path: str = "noarch/repodata.json") -> str:
    return (await upstream.fetch(source, path, tmp_path / "spool", max_bytes=1000)).status


async def test_a_file_is_copied_and_recognised_again(
    upstream: Upstream, source: Source, root: Path, tmp_path: Path
) -> None:
    seen: list[tuple[int, int | None]] = []
    first = await upstream.fetch(
        source,
        "noarch/repodata.json",
        tmp_path / "spool",
        max_bytes=16,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert (first.status, first.bytes, seen) == ("fetched", 16, [(16, 16)])
    assert (tmp_path / "spool").read_bytes() == b'{"packages": {}}'
    again = await upstream.fetch(
        source, "noarch/repodata.json", tmp_path / "spool2", validators=first.validators, max_bytes=16
    )
    assert again.status == "not_modified"
    file = root / "noarch" / "repodata.json"
    os.utime(file, ns=(1, 1))
    changed = await upstream.fetch(
        source, "noarch/repodata.json", tmp_path / "spool2", validators=first.validators, max_bytes=16
    )
    assert changed.status == "fetched"


async def test_absent_large_and_unmounted(upstream: Upstream, source: Source, root: Path, tmp_path: Path) -> None:
    assert await fetch(upstream, source, tmp_path, "linux-64/repodata.json") == "absent"
    assert await fetch(upstream, source, tmp_path, "noarch") == "absent"
    assert await fetch(upstream, source, tmp_path, "noarch/repodata.json/x") == "absent"
    with pytest.raises(errors.Upstream, match="at most 15 are taken"):
        await upstream.fetch(source, "noarch/repodata.json", tmp_path / "spool", max_bytes=15)
    root.rename(tmp_path / "elsewhere")
    with pytest.raises(errors.Upstream, match="is not there") as told:
        await fetch(upstream, source, tmp_path)
    assert "mounted" in told.value.hint
    assert not (tmp_path / "spool").exists()


@pytest.mark.parametrize(
    "path",
    ["../secret", "noarch/../../secret", "noarch/%2e%2e/%2e%2e/secret", "link", "folder/secret", "/etc/passwd", "a\0b"],
)
async def test_nothing_outside_of_the_folder_is_read(
    upstream: Upstream, source: Source, root: Path, tmp_path: Path, path: str
) -> None:
    (root / "link").symlink_to(tmp_path / "secret")
    (root / "folder").symlink_to(tmp_path)
    for call in (fetch(upstream, source, tmp_path, path), upstream.head(source, path), upstream.peek(source, path)):
        with pytest.raises(errors.Invalid, match="leads out of"):
            await call
    with pytest.raises(errors.Invalid):
        async with upstream.open(source, (root / ".." / "secret").as_uri()):
            pass


async def test_a_link_inside_of_the_folder_is_followed(
    upstream: Upstream, source: Source, root: Path, tmp_path: Path
) -> None:
    (root / "linux-64").symlink_to("noarch")
    assert await fetch(upstream, source, tmp_path, "linux-64/repodata.json") == "fetched"


async def test_a_pipe_does_not_hang_and_what_may_not_be_read_is_told(
    upstream: Upstream, source: Source, root: Path, tmp_path: Path
) -> None:
    os.mkfifo(root / "pipe")
    with pytest.raises(errors.Upstream, match="not a regular file"):
        await fetch(upstream, source, tmp_path, "pipe")
    (root / "loop").symlink_to("loop")
    with pytest.raises(errors.Upstream, match="cannot be read"):
        await fetch(upstream, source, tmp_path, "loop")


async def test_streams_heads_and_peeks_of_folders(upstream: Upstream, source: Source, root: Path) -> None:
    (root / "noarch" / "big").write_bytes(b"0123456789" * 200_000)
    async with upstream.open(source, "noarch/big") as body:
        assert body.length == 2_000_000
        assert b"".join([chunk async for chunk in body]) == b"0123456789" * 200_000
    async with upstream.open(source, "noarch/big", offset=1_999_995) as body:
        assert (body.offset, b"".join([chunk async for chunk in body])) == (1_999_995, b"56789")
    async with upstream.open(source, (root / "noarch" / "big").as_uri()) as body:
        assert body.length == 2_000_000
    assert (await upstream.head(source, "noarch/big")).length == 2_000_000
    assert (await upstream.head(source, "noarch/none")).status == 404
    assert (await upstream.peek(source, "noarch/big", max_bytes=4)).body == b"0123"
    with pytest.raises(errors.NotFound, match="does not have"):
        async with upstream.open(source, "noarch/none"):
            pass


async def test_a_file_that_shrinks_while_it_is_read_is_no_file(upstream: Upstream, source: Source, root: Path) -> None:
    file = root / "noarch" / "big"
    file.write_bytes(b"x" * 3_000_000)
    async with upstream.open(source, "noarch/big") as body:
        await anext(body)
        os.truncate(file, 100)
        with pytest.raises(errors.Upstream, match="broke off after"):
            await anext(body)


@pytest.mark.parametrize(
    "url", ["file://host.example.org/x", "file:relative", "http://h.example.org/", "file:///a%00b"]
)
def test_only_absolute_folders_of_this_machine(url: str) -> None:
    with pytest.raises(errors.Invalid):
        folder_of(url)
