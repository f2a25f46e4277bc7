"""R's serialised data: what is written R reads, what R writes is read, and nothing in a file does any harm."""

import asyncio
import bz2
import contextlib
import gzip
import json
import lzma
import struct
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firth_protocol.errors import TooLarge, Upstream
from firthd.families.base import Spool
from firthd.families.r import rds
from firthd.families.r.document import Index
from firthd.families.r.names import ARCHIVE, SOURCES
from firthd.families.r.render import packages_rds
from tests.support.cran import stanza
from tests.support.r_client import needs_r, r

texts = st.lists(st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=20), max_size=20)


@given(texts, st.lists(st.none() | st.integers(-(2**31) + 1, 2**31 - 1), max_size=20))
@settings(deadline=None)
def test_what_is_written_is_read(words: list[str | None], numbers: list[int | None]) -> None:
    content = rds.written(
        rds.things(
            [rds.texts(words, names=rds.texts(words)), rds.ints(numbers), rds.reals(numbers)], class_=rds.texts(["x"])
        )
    )
    found = rds.read(content)
    first, second, third = found.things()
    assert list(first.texts()) == words
    assert list(first.attribute("names").texts()) == words
    assert list(second.numbers()) == list(third.numbers()) == numbers
    assert list(found.attribute("class").texts()) == ["x"]


WHOLE = rds.written(
    rds.things(
        [rds.texts(["a", None, "\u00e9"], dim=rds.ints([1, 3])), rds.reals([1.5, None]), rds.logicals([True])],
        names=rds.texts(["x", "y", "z"]),
    )
)


def walk(thing: rds.Thing) -> None:
    """Look at every value."""
    for value in thing.values:
        if isinstance(value, rds.Thing):
            walk(value)
    for attribute in thing.attributes.values():
        walk(attribute)


@given(st.data())
@settings(deadline=None, max_examples=100)
def test_damage_is_an_error_and_no_harm(data: st.DataObject) -> None:
    content = bytearray(WHOLE)
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] = data.draw(st.sampled_from([0, 1, 2, 9, 13, 16, 19, 0x7F, 0x80, 238, 254, 255]))
    cut = data.draw(st.integers(0, len(content)))
    try:
        found = rds.read(bytes(content[:cut]) if data.draw(st.booleans()) else bytes(content))
        if all(not isinstance(one, range) for one in (found.values,)):
            walk(found)
    except rds.RdsError:
        pass


@given(st.binary(max_size=200))
@settings(deadline=None)
def test_any_bytes_are_an_error_or_a_value(content: bytes) -> None:
    for start in (b"", WHOLE[:14]):
        with contextlib.suppress(rds.RdsError):
            rds.read(start + content)


def head(version: int = 2) -> bytes:
    return b"X\n" + struct.pack(">iii", version, 0x00040202, 0x00020300)


@pytest.mark.parametrize(
    "content",
    [
        head() + struct.pack(">ii", 16, 2**31 - 1),  # texts that are not there
        head() + struct.pack(">ii", 13, 2**30),
        head() + struct.pack(">ii", 14, 2**30),
        head() + struct.pack(">ii", 19, 2**30),
        head() + struct.pack(">ii", 16, -1),  # a length of 64 bits
        head() + struct.pack(">ii", 19, 1) * 100_000,  # nested
        head() + struct.pack(">i", 238) * 100_000,
        head() + struct.pack(">ii", 16 | 0x200, 0) + struct.pack(">ii", 0x402, 0xFF) + struct.pack(">i", 5),
        head() + struct.pack(">i", 3),  # a function
        head() + struct.pack(">i", 4),  # an environment
        head(3) + struct.pack(">i", 2**31 - 1),
        head(9),
        b"A\n2\n",
        b"",
    ],
)
def test_a_hostile_file_costs_nothing(content: bytes) -> None:
    tracemalloc.start()
    with pytest.raises(rds.RdsError):
        rds.read(content)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * len(content) + 200_000


def spelled_run(count: float) -> bytes:
    """Return the vector of texts that R keeps row names 1, 2, 3 … in: what is to be spelled, and how many there are."""

    def form(name: str) -> bytes:
        words = [struct.pack(">iii", 1, 0x00040009, len(word)) + word.encode() for word in (name, "base")]
        ends = struct.pack(">i", 2)
        return struct.pack(">i", 238) + ends + words[0] + ends + words[1] + ends + rds.ints([13]) + nil

    nil = struct.pack(">i", 0xFE)
    run = form("compact_realseq") + rds.reals([count, 1.0, 1.0]) + nil
    return form("deferred_string") + struct.pack(">i", 2) + run + rds.ints([0]) + nil


@pytest.mark.parametrize(("count", "frames"), [(2.0**40, 1), (1e300, 1), (3_000_000.0, 2)])
def test_numbers_that_a_file_only_speaks_of_are_counted(tmp_path: Path, count: float, frames: int) -> None:
    few = rds.things([rds.things([], names=rds.texts([]), row_names=spelled_run(5.0))])
    assert len(index(tmp_path, rds.written(few), ARCHIVE)) == 0
    many = [rds.things([], names=rds.texts([]), row_names=spelled_run(count)) for _ in range(frames)]
    with pytest.raises(Upstream, match="run"):
        index(tmp_path, rds.written(rds.things(many)), ARCHIVE)


def index(folder: Path, content: bytes, part: str = SOURCES, encoding: str = "rds", limit: int = 1 << 30) -> Index:
    file = folder / "spool"
    file.write_bytes(content)
    return Index(Spool(part=part, file=str(file), encoding=encoding), limit)


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress, bytes])
def test_a_matrix_is_read_in_whatever_it_is_packed(tmp_path: Path, pack: "object") -> None:
    raws = [stanza("alpha", "1.0", b"x", Depends="R (>= 3.5),\nmethods", Note="h\u00e9"), stanza("beta", "2.0-1")]
    assert callable(pack)
    found = list(index(tmp_path, pack(gzip.decompress(packages_rds(raws)))))
    assert [entry.filename for entry in found] == ["alpha_1.0.tar.gz", "beta_2.0-1.tar.gz"]
    assert [set(bytes(entry.raw).split(b"\n")) for entry in found] == [set(raw.split(b"\n")) for raw in raws]


@pytest.mark.parametrize(
    "thing",
    [
        rds.texts(["a", "b"]),  # no matrix
        rds.texts(["a"], dim=rds.ints([1, 1]), dimnames=rds.ints([1])),
        rds.texts(["a", "b"], dimnames=rds.things([rds.texts([]), rds.texts(["Package"] * 3)])),
        rds.ints([1]),
        rds.things([rds.ints([1])]),
    ],
)
def test_what_is_no_table_is_refused(tmp_path: Path, thing: bytes) -> None:
    for part in (SOURCES, ARCHIVE):
        with pytest.raises(Upstream, match="cannot be read"):
            index(tmp_path, rds.written(thing), part)


@pytest.mark.deep
def test_a_bomb_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TooLarge, match="times its"):
        index(tmp_path, gzip.compress(bytes(1 << 28)), encoding="txt")


def test_a_large_and_a_damaged_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TooLarge, match="more than 1,000 bytes"):
        index(tmp_path, gzip.compress(b"a: b\n" * 1000), encoding="txt", limit=1000)
    for content in (gzip.compress(b"a: b\n" * 1000)[:-9], b"\x1f\x8b\x08" + b"x" * 50, lzma.compress(b"x")[:-8]):
        with pytest.raises(Upstream, match="decompressed"):
            index(tmp_path, content, encoding="txt")


WRITES = """
folder <- "{folder}"
m <- rbind(c("alpha", "1.0", NA, "h\\u00e9"), c("beta", "2.0-1", "x", NA))
dimnames(m) <- list(m[, 1], c("Package", "Version", "Depends", "Note"))
for (v in 2:3) for (z in c("gzip", "bzip2", "xz"))
  saveRDS(m, file.path(folder, paste0(z, v)), version = v, compress = z)
files <- data.frame(size = c(10, 20), isdir = c(FALSE, FALSE), mtime = as.POSIXct(c(1e9, 2e9), origin = "1970-01-01"),
                    row.names = c("alpha/alpha_0.1.tar.gz", "alpha/alpha_0.2.tar.gz"))
for (v in 2:3) saveRDS(list(alpha = files), file.path(folder, paste0("files", v)), version = v)
odd <- list(1:10, as.character(1:3), c(a = 1L), factor("x"), seq(2, 8, by = 2), NULL)
saveRDS(odd, file.path(folder, "odd3"), version = 3)
x <- readRDS(file.path(folder, "ours"))
stopifnot(is.matrix(x), identical(dim(x), c(2L, ncol(x))), identical(rownames(x), c("alpha", "beta")))
stopifnot(is.na(x["beta", "Note"]), x["alpha", "Note"] == "h\\u00e9", x["alpha", "Depends"] == "R (>= 3.5),\\nmethods")
y <- readRDS(file.path(folder, "numbers"))
stopifnot(identical(y[[1]], c(1L, NA)), identical(y[[2]], c(1.5, NA)), identical(y[[3]], c(TRUE, FALSE)))
stopifnot(is.na(y[[2]][2]), !is.nan(y[[2]][2]))
cat(length(y))
"""


def test_r_reads_ours_and_its_own_are_read(tmp_path: Path) -> None:
    needs_r()
    raws = [stanza("alpha", "1.0", Depends="R (>= 3.5),\nmethods", Note="h\u00e9"), stanza("beta", "2.0-1")]
    (tmp_path / "ours").write_bytes(packages_rds(raws))
    numbers = rds.things([rds.ints([1, None]), rds.reals([1.5, None]), rds.logicals([True, False])])
    (tmp_path / "numbers").write_bytes(rds.written(numbers))
    assert asyncio.run(r(WRITES.format(folder=tmp_path))) == "3"
    for name in [f"{packed}{version}" for packed in ("gzip", "bzip2", "xz") for version in (2, 3)]:
        found = [bytes(entry.raw).decode() for entry in index(tmp_path, (tmp_path / name).read_bytes())]
        assert found == ["Package: alpha\nVersion: 1.0\nNote: h\u00e9", "Package: beta\nVersion: 2.0-1\nDepends: x"], (
            name
        )
    for version in (2, 3):
        archived = list(index(tmp_path, (tmp_path / f"files{version}").read_bytes(), ARCHIVE))
        assert [entry.filename for entry in archived] == ["alpha/alpha_0.1.tar.gz", "alpha/alpha_0.2.tar.gz"]
        assert b"Firth-Size: 20\nFirth-Modified: 2000000000" in bytes(archived[1].raw)
    odd = rds.read(gzip.decompress((tmp_path / "odd3").read_bytes())).things()
    assert list(odd[0].numbers()) == list(range(1, 11))
    assert list(odd[1].texts()) == ["1", "2", "3"]
    assert json.dumps([list(one.values) for one in odd[2:5]]) == "[[1], [1], [2.0, 4.0, 6.0, 8.0]]"
