"""The only place that reads a source's shards (CEP 16): the list of a subdir's shards, and the records in them.

A record comes out as a repodata.json spells it that is written in order and without white space, as nearly all are:
digests in hex, keys sorted, and without `run_exports`, which only shards carry (CEP 21).
"""

from collections.abc import Iterator, Set
from pathlib import Path
from typing import NamedTuple

import msgspec
import zstandard
from msgspec import Raw, Struct, field

from firth_protocol.errors import Invalid, TooLarge, Upstream
from firthd.families.base import Entry, Spool
from firthd.families.conda.document import Document, entries
from firthd.families.conda.paths import SHARD_ENDING, SHARD_INDEX, joined
from firthd.families.conda.records import printable
from firthd.families.pieces import Moved, Piece, Pieces
from firthd.store.pieces import read_pieces

LIST_MAX_BYTES = 8 << 20
"""Of a list, compressed or not: five times what the largest channel has. The daemon reads it in a thread."""
PIECE_MAX_BYTES = 16 << 20
UNPACKED_MAX_BYTES = 64 << 20
DIGESTS = ("sha256", "md5", "legacy_bz2_md5")
SHA256_BYTES = 32

Records = dict[str, dict[str, object]]


class ListInfo(Struct):
    """What we look at of a list's `info`."""

    subdir: str | None = None
    shards_base_url: str = ""


class List(Struct):
    """A shard index."""

    info: ListInfo
    shards: dict[str, bytes]


class Shard(Struct):
    """What a source keeps of one package."""

    packages: Records = {}
    packages_conda: Records = field(default_factory=dict, name="packages.conda")
    removed: list[str] = []
    v3: dict[str, Records | None] = {}


class Source(NamedTuple):
    """A list, taken apart."""

    hashes: dict[str, bytes]
    below: str


_decode_list = msgspec.msgpack.Decoder(List).decode
_decode_shard = msgspec.msgpack.Decoder(Shard).decode
_encode = msgspec.json.Encoder(order="sorted").encode


def list_path(subdir: str) -> str:
    """Return where the list of a subdir's shards is."""
    return f"{subdir}/{SHARD_INDEX}"


def unpacked(content: bytes, limit: int) -> bytes:
    """Return what is compressed; raises ValueError for damaged data, and for more than `limit` bytes."""
    reader = zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(content, read_across_frames=True)
    found = bytearray()
    try:
        while chunk := reader.read(min(1 << 20, limit + 1 - len(found))):
            found += chunk
            if len(found) > limit:
                raise ValueError(f"it has more than {limit:,} bytes decompressed")
    except zstandard.ZstdError as error:
        raise ValueError(f"it cannot be decompressed: {error}") from None
    if content and not found:
        raise ValueError("it is cut off")
    return bytes(found)


def read_list(subdir: str, content: bytes) -> Source:
    """Take a list apart; raises ValueError with the reason for what is none."""
    try:
        found = _decode_list(unpacked(content, LIST_MAX_BYTES))
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(f"it is no list of shards: {printable(str(error), 99)}") from None
    if found.info.subdir not in (None, subdir):
        raise ValueError(f"it says that it is of {printable(str(found.info.subdir), 64)}")
    if any(len(value) != SHA256_BYTES for value in found.shards.values()):
        raise ValueError("a hash in it is none")
    return Source(found.shards, _below(subdir, found.info.shards_base_url))


def _below(subdir: str, base: str) -> str:
    """Return what stands before a shard's name: the start of an address, or a path below the source."""
    if base[:8].lower().startswith(("http://", "https://")):
        return f"{base.rstrip('/')}/"
    if "://" in base or base.startswith("//"):
        raise ValueError("its shards lie at an address that cannot be fetched")
    if base.startswith("/"):
        return f"{base.rstrip('/')}/"
    try:
        below = joined(subdir, base)
    except Invalid as error:
        raise ValueError(error.message) from None
    return f"{below}/" if below else ""


def moved(subdir: str, before: bytes | None, now: bytes) -> Moved:
    """Return how two lists of a subdir's shards differ; raises ValueError for what is none."""
    hashes = {} if before is None else read_list(subdir, before).hashes
    found = read_list(subdir, now)
    return Moved(
        pieces=[
            Piece(name, value, f"{found.below}{value.hex()}{SHARD_ENDING}")
            for name, value in found.hashes.items()
            if hashes.get(name) != value
        ],
        gone=sorted(hashes.keys() - found.hashes.keys()),
        before=len(hashes),
    )


PIECES = Pieces(list_path=list_path, moved=moved, list_max_bytes=LIST_MAX_BYTES, piece_max_bytes=PIECE_MAX_BYTES)


# --- the records ------------------------------------------------------------------------------------------------------


class ShardListing:
    """What some shards of a subdir list."""

    def __init__(self, spool: Spool, max_bytes: int) -> None:
        self.notes: list[str] = []
        self.base_url = spool.base_url
        names: set[str] = set()
        found: list[Entry] = []
        size = 0
        for name, content in read_pieces(Path(spool.file or "")):
            names.add(name)
            if content is None:
                continue
            try:
                plain = unpacked(content, UNPACKED_MAX_BYTES)
                found += shard_entries(name, plain)
            except (msgspec.MsgspecError, ValueError, RecursionError) as error:
                reason = printable(str(error), 99)
                raise Upstream(f"{spool.part}: the shard of {printable(name, 64)} cannot be read: {reason}") from None
            size += len(plain)
            if size > max_bytes:
                raise TooLarge(
                    f"{spool.part}: its shards have more than {max_bytes:,} bytes when they are decompressed"
                )
        found.sort(key=_place)
        self._entries = found
        self._names = frozenset(names)

    @property
    def covers(self) -> Set[str]:
        return self._names

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries)


def shard_entries(name: str, content: bytes) -> list[Entry]:
    """Return what a shard offers; raises ValueError for one that holds records of another package."""
    shard = _decode_shard(content)
    return entries(
        Document(
            packages=_spelled(name, shard.packages),
            packages_conda=_spelled(name, shard.packages_conda),
            removed=shard.removed,
            v3={extension: _spelled(name, records or {}) for extension, records in shard.v3.items()},
        )
    )


def _spelled(name: str, records: Records) -> dict[str, Raw]:
    found: dict[str, Raw] = {}
    for filename, record in records.items():
        if record.get("name") != name:
            raise ValueError("it holds a record of another package")
        record.pop("run_exports", None)
        for digest in DIGESTS:
            value = record.get(digest)
            if isinstance(value, bytes):
                record[digest] = value.hex()
        found[filename] = Raw(_encode(record))
    return found


def _place(entry: Entry) -> tuple[str, str]:
    return entry.filename, entry.section
