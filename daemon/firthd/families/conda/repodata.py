"""The only place that writes a repodata.json and its compressed twin.

What is served: `info.subdir`, `packages`, `packages.conda`, `removed` (always empty: a file that is not offered is not
listed, and clients take no more from the list than that), `repodata_version` 1, and `v3` with `info.repodata_revisions`
when there are v3 records (CEP 48). What never is: `base_url` (clients would go past this server), `channel_relations`
(to channels nobody asked for). `signatures` are served of the records that stand here as the source wrote them.
Records are the source's bytes, but for a wheel's `url`: it names the file beside this index.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from operator import itemgetter
from typing import BinaryIO, NamedTuple

import msgspec
import zstandard
from msgspec import Raw

from firthd.families.base import Output
from firthd.families.conda.paths import REPODATA, REPODATA_ZST, needs_record
from firthd.families.conda.records import PLAIN_SECTIONS, V3, v3_key

ZST_LEVEL = 1
"""Of real records this makes a smaller text than level 6, in a third of the time: what repeats itself lies near."""
ZST_THREADS = 2
RECORDS_PER_WRITE = 2000


class Served(NamedTuple):
    """A record as an index holds it."""

    section: str
    key: str  # the file name; in v3 without its extension
    raw: bytes


def served(section: str, filename: str, name: str, version: str, build: str, raw: bytes) -> Served:
    """Return a row's record as it is served."""
    if section in PLAIN_SECTIONS:
        return Served(section, filename, raw)
    if needs_record(section):
        record = msgspec.json.decode(raw, type=dict[str, object])
        record["url"] = filename
        return Served(section, v3_key(name, version, build), msgspec.json.encode(record))
    return Served(section, filename.removesuffix("." + section.removeprefix(V3)), raw)


def revisions(v3_timestamps: Mapping[str, list[int | None]]) -> dict[str, object]:
    """Return the entry for `info` that counts the v3 records served; nothing when there are none (CEP 48)."""
    times = [time for bucket in v3_timestamps.values() for time in bucket]
    if not times:
        return {}
    known = [time for time in times if time is not None]
    counts: dict[str, int] = {"n_packages": len(times)}
    if known:
        counts |= {"oldest": min(known), "newest": max(known)}
    return {"repodata_revisions": {"v3": counts}}


def repodata_chunks(
    subdir: str,
    sections: Mapping[str, Iterable[tuple[str, Raw | bytes]]],
    v3_timestamps: Mapping[str, list[int | None]],
    signatures: Mapping[str, Raw] | None = None,
    *,
    plain: Mapping[str, Iterable[bytes | memoryview]] | None = None,
) -> Iterator[bytes | memoryview]:
    """Yield a repodata.json; `sections` holds the key and the record of each file, sorted by key.

    `plain`: the sections of plain records as they are written, where they are there already.
    """
    info = msgspec.json.encode({"subdir": subdir, **revisions(v3_timestamps)})
    yield b'{"info":' + info
    for section in PLAIN_SECTIONS:
        yield b',"' + section.encode() + b'":'
        yield from bucket_chunks(sections.get(section, [])) if plain is None else plain[section]
    yield b',"removed":[],"repodata_version":1'
    if signatures:
        yield b',"signatures":' + msgspec.json.encode(signatures)
    v3 = sorted(section for section in sections if section.startswith(V3))
    for number, section in enumerate(v3):
        yield (b',"v3":{"' if number == 0 else b',"') + section.removeprefix(V3).encode() + b'":'
        quoted = ((msgspec.json.encode(key).decode()[1:-1], raw) for key, raw in sections[section])
        yield from bucket_chunks(quoted)
    yield b"}}" if v3 else b"}"


def entries_of(sections: Mapping[str, list[Served]]) -> dict[str, Iterable[tuple[str, Raw | bytes]]]:
    """Return the sections as `repodata_chunks` takes them."""
    return {section: map(itemgetter(1, 2), records) for section, records in sections.items()}


def bucket_chunks(records: Iterable[tuple[str, Raw | bytes]]) -> Iterator[bytes]:
    """Yield a JSON object of records; file names are safe to stand between quotes as they are."""
    yield b"{"
    rest, between = iter(records), b""
    while some := b",".join([b'"%b":%b' % (key.encode(), raw) for key, raw in islice(rest, RECORDS_PER_WRITE)]):
        yield between + some
        between = b","
    yield b"}"


def zst_writer(target: BinaryIO) -> zstandard.ZstdCompressionWriter:
    """Return a writer that compresses into `target`; the same bytes in give the same bytes out, every time."""
    return zstandard.ZstdCompressor(level=ZST_LEVEL, threads=ZST_THREADS).stream_writer(target, closefd=False)


def write_repodata(out: Output, subdir: str, chunks: Iterable[bytes | memoryview]) -> None:
    """Write repodata.json and repodata.json.zst."""
    with out.open(f"{subdir}/{REPODATA}") as plain, out.open(f"{subdir}/{REPODATA_ZST}") as zst:
        compressed = zst_writer(zst)
        for chunk in chunks:
            plain.write(chunk)
            compressed.write(chunk)
        compressed.flush(zstandard.FLUSH_FRAME)


def write_side_by_side(out: Output, subdir: str, chunks: Sequence[bytes | memoryview]) -> None:
    """Write the same out of chunks that are all there, each of the two files by a thread of its own."""

    def compress() -> None:
        with out.open(f"{subdir}/{REPODATA_ZST}") as zst:
            compressed = zst_writer(zst)
            for chunk in chunks:
                compressed.write(chunk)
            compressed.flush(zstandard.FLUSH_FRAME)

    with ThreadPoolExecutor(1) as beside:
        written = beside.submit(compress)
        with out.open(f"{subdir}/{REPODATA}") as plain:
            for chunk in chunks:
                plain.write(chunk)
        written.result()
