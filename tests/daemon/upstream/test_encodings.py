"""Content-Encoding that nobody asked for: undone where it is true, ignored where it is not, never beyond the limit."""

import bz2
import gzip
import zlib
from pathlib import Path

import pytest
import zstandard

from firth_protocol import errors
from firthd.upstream.client import Source, Upstream
from firthd.upstream.encodings import decoder_for, labels
from tests.support.upstream import Fault, FaultyUpstream

JSON = b'{"packages": {}}' + b" " * 2000
ZIP = b"PK\x03\x04" + bytes(range(256)) * 40


def zst(content: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(content)


TAR_GZ = gzip.compress(b"a tar, let us say" * 100)
KINDS = {
    # path, label, what is sent, what the file is
    "true gzip of json": ("repodata.json", "gzip", gzip.compress(JSON), JSON),
    "the old word for gzip": ("repodata.json", "x-gzip", gzip.compress(JSON), JSON),
    "true zstd of json": ("repodata.json", "zstd", zst(JSON), JSON),
    "true deflate of json": ("repodata.json", "deflate", zlib.compress(JSON), JSON),
    "two encodings": ("repodata.json", "gzip, zstd", zst(gzip.compress(JSON)), JSON),
    "two of them, one a name": ("repodata.json", "aws-chunked, gzip", gzip.compress(JSON), JSON),
    "several members": ("repodata.json", "gzip", gzip.compress(JSON[:9]) + gzip.compress(JSON[9:]), JSON),
    "several frames": ("repodata.json", "zstd", zst(JSON[:9]) + zst(JSON[9:]), JSON),
    "a label alone": ("repodata.json", "gzip", JSON, JSON),
    "a label alone, zstd": ("repodata.json", "zstd", JSON, JSON),
    "a label alone, deflate": ("repodata.json", "deflate", JSON, JSON),
    "no encoding by that name": ("repodata.json", "none", JSON, JSON),
    "a way of sending": ("repodata.json", "aws-chunked", JSON, JSON),
    "identity in words": ("repodata.json", "identity", JSON, JSON),
    "nothing": ("repodata.json", "", JSON, JSON),
    "a label that says what the file is": ("repodata.json.zst", "zstd", zst(JSON), zst(JSON)),
    "compressed twice": ("repodata.json.zst", "zstd", zst(zst(JSON)), zst(JSON)),
    "gzip around zstd": ("repodata.json.zst", "gzip", gzip.compress(zst(JSON)), zst(JSON)),
    "a file that is gzip itself": ("a_1.tar.gz", "gzip", TAR_GZ, TAR_GZ),
    "a file that is gzip itself, twice": ("a_1.tar.gz", "x-gzip", gzip.compress(TAR_GZ), TAR_GZ),
    "a package": ("a-1-0.conda", "gzip", gzip.compress(ZIP), ZIP),
    "a package that is none": ("a-1-0.conda", "gzip", ZIP, ZIP),
    "an old package": ("a-1-0.tar.bz2", "gzip", gzip.compress(bz2.compress(ZIP)), bz2.compress(ZIP)),
    "one byte": ("a", "gzip", b"\x1f", b"\x1f"),
    "no byte": ("a", "gzip", b"", b""),
}


@pytest.mark.parametrize("pace", [1, 16_384])
@pytest.mark.parametrize("kind", KINDS)
async def test_the_file_comes_whatever_its_label_says(
    server: FaultyUpstream, upstream: Upstream, tmp_path: Path, kind: str, pace: int
) -> None:
    path, label, sent, content = KINDS[kind]
    if pace == 1:
        pace = max(1, len(sent) // 50)
    server.files[path] = sent
    server.fail("*", Fault(headers={"Content-Encoding": label}, chunk_bytes=pace), times=None)
    source = Source(url=server.url)
    fetched = await upstream.fetch(source, path, tmp_path / "spool", max_bytes=100_000)
    assert fetched.status == "fetched"
    assert (tmp_path / "spool").read_bytes() == content
    assert fetched.bytes == len(content)
    async with upstream.open(source, path) as body:
        assert body.length == (len(content) if body.as_sent else None)
        assert b"".join([chunk async for chunk in body]) == content
    assert (await upstream.peek(source, path, max_bytes=8)).body == content[:8]


@pytest.mark.parametrize("label", ["gzip", "zstd"])
async def test_what_unpacks_to_more_than_is_taken_is_given_up(
    server: FaultyUpstream, upstream: Upstream, tmp_path: Path, label: str
) -> None:
    zeros = b"{" + bytes(64 << 20)
    server.files["a"] = gzip.compress(zeros) if label == "gzip" else zst(zeros)
    server.fail("*", Fault(headers={"Content-Encoding": label}), times=None)
    with pytest.raises(errors.Upstream, match="at most 1,000,000 are taken"):
        await upstream.fetch(Source(url=server.url), "a", tmp_path / "spool", max_bytes=1_000_000)
    assert not (tmp_path / "spool").exists()


@pytest.mark.parametrize("label", ["gzip", "zstd"])
def test_no_piece_is_large(label: str) -> None:
    zeros = bytes(256 << 20)
    packed = gzip.compress(zeros) if label == "gzip" else zst(zeros)
    decoder = decoder_for([label], packed[:512], "a")
    assert decoder is not None
    assert max(map(len, decoder.feed(packed))) <= 32 << 20
    assert decoder.whole


async def test_a_transfer_that_was_undone_begins_anew_when_it_breaks_off(
    server: FaultyUpstream, upstream: Upstream, tmp_path: Path
) -> None:
    server.files["a"] = sent = gzip.compress(bytes(range(256)) * 200 + JSON, compresslevel=0)
    server.fail("a", Fault(headers={"Content-Encoding": "gzip"}, cut_after=30_000))
    server.fail("a", Fault(headers={"Content-Encoding": "gzip"}))
    await upstream.fetch(Source(url=server.url), "a", tmp_path / "spool", max_bytes=100_000)
    assert (tmp_path / "spool").read_bytes() == gzip.decompress(sent)
    assert [seen.headers.get("range") for seen in server.requests] == [None, None]


async def test_what_ends_early_is_told(server: FaultyUpstream, upstream: Upstream) -> None:
    server.files["a"] = gzip.compress(JSON)[:-9]
    server.fail("a", Fault(headers={"Content-Encoding": "gzip"}))
    async with upstream.open(Source(url=server.url), "a") as body:
        with pytest.raises(errors.Upstream, match="broke off"):
            assert not [chunk async for chunk in body]


def test_labels_are_read_as_they_are_written() -> None:
    assert labels(None) == labels("br") == labels(" , ") == []
    assert labels("gzip, X-GZIP , zstd") == ["zstd", "gzip", "gzip"]
    assert len(labels("gzip," * 100)) == 3
