"""The only place that makes the index of a conda subdir out of its visible rows: json, its zstd form, shards."""

import io
from collections.abc import Callable, Collection, Set
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from hashlib import sha256

import zstandard
from msgspec import MsgspecError

from firthd.families.base import InvalidRecordError, Output
from firthd.families.conda.names import dashes_problem
from firthd.families.conda.paths import REPODATA, REPODATA_ZST, SHARD_INDEX, SHARDS
from firthd.families.conda.records import PLAIN_SECTIONS, fingerprint, printable
from firthd.families.conda.repodata import (
    Served,
    entries_of,
    repodata_chunks,
    served,
    write_repodata,
    write_side_by_side,
    zst_writer,
)
from firthd.families.conda.shards import (
    ShardPacker,
    old_path,
    read_index,
    shard_hash,
    shard_index,
    shard_path,
    shard_record,
)
from firthd.families.conda.sides import signatures_of, write_run_exports
from firthd.families.conda.splice import OwnIndex, own_index
from firthd.store.worker_reads import ShownRow

REPORT_EVERY = 2000
SHARD_MAX_BYTES = 16 * 1024**2
INDEX_MAX_BYTES = 100 * 1024**2
"""What clients take, decompressed: conda refuses a larger shard, libmamba a larger index."""


class SubdirRenderer:
    """Renders one subdir, in memory: about its index's size and 250 bytes a record.

    A package that nothing touched keeps its shard: its hash is taken from the index before. Where the repodata.json
    before can be gone on from, only the rows of what is touched are needed.
    """

    def __init__(self, subdir: str, touched: Set[str] | None, out: Output) -> None:
        self._subdir = subdir
        self._out = out
        self._sections: dict[str, list[Served]] = {}
        self._to_pack: dict[str, list[Served]] = {}
        self._names: set[str] = set()
        self._packing: str | None = None  # the name of the row before
        self._pack: list[Served] | None = None  # of that name; None: its shard is kept
        sides = out.sides(subdir)
        self._signed = [side for side in sides if side.index]
        self._sides = [side for side in sides if not side.index]
        self._mirrors: dict[str, int] = {}  # file name -> whose it is, where there is something beside the index
        self._to_sign: dict[str, tuple[int, bytes]] = {}
        self._v3_keys: set[tuple[str, str]] = set()
        self._v3_timestamps: dict[str, list[int | None]] = {}
        self._old_shards: set[bytes] = set()  # that rows of the first release name
        self._whole = False  # every package that nothing touched has its shard
        self._kept_hashes = {} if touched is None else self._hashes_before(touched)
        self._before: OwnIndex | None = None
        self._replaced: Collection[str] = ()

    @cached_property
    def _named(self) -> set[bytes]:
        """The shards that the index names so far."""
        return hashes_below(self._out, f"{self._subdir}/{SHARDS}")

    @property
    def published(self) -> bool:
        return self._out.has(f"{self._subdir}/{REPODATA}")

    def goes_on(self) -> bool:
        """Tell whether what is served can be gone on from."""
        if self._whole and not self._signed and (not self._sides or self._out.sole_mirror() is not None):
            path, subdir = f"{self._subdir}/{REPODATA}", self._subdir
            self._before = self._out.made_of(path, lambda content: own_index(content, subdir))
        return self._before is not None

    def replace(self, filenames: Collection[str]) -> None:
        """Let what is served of these files go; rows of what stays follow."""
        self._replaced = filenames
        self._names.update(self._kept_hashes)

    @property
    def shown(self) -> int:
        before = () if self._before is None else self._before.sections.values()
        made = self._sections if self._before is None else self._v3()
        return sum(map(len, before)) + sum(map(len, made.values()))

    def add(self, row: ShownRow) -> None:
        """Take one visible record."""
        section, filename, name = row.section, row.filename, row.name
        if section in PLAIN_SECTIONS:
            record = Served(section, filename, row.raw)
            if self._signed:
                self._to_sign[filename] = (row.mirror_id, row.raw)
        else:  # there a key can come of the record, and two files come to the same one
            record = served(section, filename, name, row.version, row.build, row.raw)
            if (section, record.key) in self._v3_keys:
                return
            self._v3_keys.add((section, record.key))
            self._v3_timestamps.setdefault(section, []).append(row.timestamp)
        bucket = self._sections.get(section)
        if bucket is None:
            bucket = self._sections[section] = []
        bucket.append(record)
        if self._sides:
            self._mirrors[filename] = row.mirror_id
        if name != self._packing:
            self._names.add(name)
            self._packing, self._pack = name, None
            if name not in self._kept_hashes:
                self._pack = self._to_pack.setdefault(name, [])
        if self._pack is not None:
            self._pack.append(record)

    def finish(self, report: Callable[[str, int, int], None]) -> None:
        """Write the index in every form; the json forms in a thread beside the shards."""
        if self._before is not None:
            self._go_on(self._before)
        with ThreadPoolExecutor(1) as writer:
            written = writer.submit(self._write)
            hashes = self._pack_shards(report)
            self._name_shards(set(hashes.values()))
            written.result()
        index = shard_index(self._subdir, hashes, self._v3_timestamps)
        if (size := zstandard.frame_content_size(index)) > INDEX_MAX_BYTES:
            self._out.note(f"{self._subdir}: the shard index has {size:,} bytes decompressed, which libmamba refuses")
        with self._out.open(f"{self._subdir}/{SHARD_INDEX}") as file:
            file.write(index)
        write_run_exports(self._subdir, self._mirrors, self._sides, self._out)

    def _go_on(self, before: OwnIndex) -> None:
        before.replace(self._replaced, self._sections)
        mirror_id = self._out.sole_mirror()
        if self._sides and mirror_id is not None:
            for bucket in before.sections.values():
                self._mirrors.update(dict.fromkeys(bucket, mirror_id))

    def _v3(self) -> dict[str, list[Served]]:
        return {section: records for section, records in self._sections.items() if section not in PLAIN_SECTIONS}

    def _write(self) -> None:
        if self._before is None:
            signatures = signatures_of(self._signed, self._to_sign, self._out)
            chunks = repodata_chunks(self._subdir, entries_of(self._sections), self._v3_timestamps, signatures)
            return write_repodata(self._out, self._subdir, chunks)
        plain = {section: bucket.chunks() for section, bucket in self._before.sections.items()}
        chunks = repodata_chunks(self._subdir, entries_of(self._v3()), self._v3_timestamps, plain=plain)
        return write_side_by_side(self._out, self._subdir, list(chunks))

    def _hashes_before(self, touched: Set[str]) -> dict[str, bytes]:
        """Return name -> hash of the shards that need no packing: those in the index before that nothing touched."""
        self._old_shards = hashes_below(self._out, SHARDS)
        there = self._named | self._old_shards
        hashes = index_before(self._out, self._subdir)
        untouched = {name: value for name, value in (hashes or {}).items() if name not in touched}
        kept = {name: value for name, value in untouched.items() if value in there}
        self._whole = hashes is not None and len(kept) == len(untouched)
        return kept

    def _pack_shards(self, report: Callable[[str, int, int], None]) -> dict[str, bytes]:
        hashes = {name: value for name, value in self._kept_hashes.items() if name in self._names}
        packer = ShardPacker()
        for number, (name, records) in enumerate(self._to_pack.items()):
            if number % REPORT_EVERY == 0:
                report(f"{self._subdir}/{SHARD_INDEX}", number, len(self._to_pack))
            shard = packer.pack(records)
            if (size := zstandard.frame_content_size(shard)) > SHARD_MAX_BYTES:
                self._out.note(
                    f"{self._subdir}: the shard of {name} has {size:,} bytes decompressed, which conda refuses"
                )
            digest = hashes[name] = sha256(shard).digest()
            self._out.slice(shard_path(self._subdir, digest), digest, shard)
        return hashes

    def _name_shards(self, wanted: set[bytes]) -> None:
        for digest in sorted((wanted - self._named) & self._old_shards):
            self._out.again(shard_path(self._subdir, digest), old_path(digest))
        for digest in sorted(self._named - wanted):
            self._out.end(shard_path(self._subdir, digest))


def check_row(row: ShownRow) -> None:
    """Raise InvalidRecordError unless every form can hold a row's record."""
    fingerprint(row.raw)
    if (problem := dashes_problem(row.filename)) is not None:
        raise InvalidRecordError(problem)
    try:
        shard_record(served(row.section, row.filename, row.name, row.version, row.build, row.raw).raw)
    except (MsgspecError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise InvalidRecordError(printable(str(error), 200)) from None


def hashes_below(out: Output, folder: str) -> set[bytes]:
    """Return the hashes of the shards that are served below a folder."""
    return set(map(shard_hash, out.below(folder)))


def index_before(out: Output, subdir: str) -> dict[str, bytes] | None:
    """Return name -> hash of the shard index that is served; None where there is none, or a damaged one."""
    content = out.before(f"{subdir}/{SHARD_INDEX}")
    try:
        return None if content is None else read_index(content)
    except ValueError:
        return None


def name_old_shards(rendered: Set[str], out: Output) -> None:
    """Write for the subdirs that were not rendered which shards they name, and end the rows that do not say."""
    old = hashes_below(out, SHARDS)
    if not old:
        return
    for subdir in sorted({path.partition("/")[0] for path in out.readable() if path.endswith(SHARD_INDEX)} - rendered):
        for digest in sorted(set((index_before(out, subdir) or {}).values()) & old):
            out.again(shard_path(subdir, digest), old_path(digest))
    for digest in sorted(old):
        out.end(old_path(digest))


def empty_subdir(subdir: str) -> dict[str, bytes]:
    """Return every variant of an empty subdir: path -> content. Small: no worker is needed for a new channel."""
    compressed = io.BytesIO()
    writer = zst_writer(compressed)
    chunks = list(repodata_chunks(subdir, {}, {}))
    for chunk in chunks:
        writer.write(chunk)
    writer.flush(zstandard.FLUSH_FRAME)
    return {
        f"{subdir}/{REPODATA}": b"".join(chunks),
        f"{subdir}/{REPODATA_ZST}": compressed.getvalue(),
        f"{subdir}/{SHARD_INDEX}": shard_index(subdir, {}, {}),
    }
