"""The only place that packs and reads CEP 16 shards and their index.

Packing is deterministic: sorted keys and a fixed compression level, so that the same records give the same bytes, and
an unchanged package keeps its hash from generation to generation.
"""

from collections.abc import Iterable, Mapping

import msgspec
import zstandard
from msgspec import Struct

from firthd.families.conda.paths import SHARD_ENDING, SHARDS
from firthd.families.conda.repodata import Served, revisions

SHARD_LEVEL = 3
INDEX_LEVEL = 9
DIGESTS = ("sha256", "md5")

_decode_record = msgspec.json.Decoder(dict[str, object]).decode


class ShardIndex(Struct):
    """What we read of a shard index of our own."""

    shards: dict[str, bytes]


class ShardPacker:
    """Packs one package's records into a shard."""

    def __init__(self) -> None:
        self._compress = zstandard.ZstdCompressor(level=SHARD_LEVEL).compress
        self._encode = msgspec.msgpack.Encoder(order="deterministic").encode

    def pack(self, records: Iterable[Served]) -> bytes:
        """Return the shard of these records, which are proven to be writable.

        `packages` and `packages.conda` are always there (rattler fails without), `v3` only with content. sha256 and md5
        are binary; legacy_bz2_md5 stays a hex string, because conda converts only the first two. A null digest is left
        out: libmamba takes null for a broken one.
        """
        sections: dict[str, dict[str, object]] = {"packages": {}, "packages.conda": {}}
        v3: dict[str, dict[str, object]] = {}
        for section, key, raw in records:
            target = sections[section] if section in sections else v3.setdefault(section.removeprefix("v3."), {})
            target[key] = shard_record(raw)
        content: dict[str, object] = dict(sections)
        if v3:
            content["v3"] = v3
        return self._compress(self._encode(content))


def shard_record(raw: bytes) -> dict[str, object]:
    """Return a record with its digests as bytes."""
    record = _decode_record(raw)
    for name in DIGESTS:
        text = record.get(name)
        if isinstance(text, str) and text:
            record[name] = bytes.fromhex(text)
        else:
            record.pop(name, None)
    return record


def shard_index(subdir: str, hashes: Mapping[str, bytes], v3_timestamps: Mapping[str, list[int | None]]) -> bytes:
    """Return the index: name -> 32 bytes. `created_at` is left out, or no two renders would be the same.

    The addresses are relative to the index itself: rattler, conda and libmamba join those in the same way.
    """
    info: dict[str, object] = {"subdir": subdir, "base_url": "", "shards_base_url": "./shards/"}
    info |= revisions(v3_timestamps)
    content = {"version": 1, "info": info, "shards": hashes}
    encoded = msgspec.msgpack.encode(content, order="deterministic")
    return zstandard.ZstdCompressor(level=INDEX_LEVEL).compress(encoded)


def shard_path(subdir: str, sha256: bytes) -> str:
    """Return the path of a shard below the channel."""
    return f"{subdir}/{old_path(sha256)}"


def old_path(sha256: bytes) -> str:
    """Return the path of a shard in a state of the first release, which did not write down which subdirs name it."""
    return f"{SHARDS}{sha256.hex()}{SHARD_ENDING}"


def shard_hash(path: str) -> bytes:
    """Return the sha256 that a shard's path holds."""
    return bytes.fromhex(path.rpartition("/")[2].removesuffix(SHARD_ENDING))


def read_index(content: bytes) -> dict[str, bytes]:
    """Return name -> hash of an index of our own; raises ValueError for what is none."""
    try:
        reader = zstandard.ZstdDecompressor().decompressobj()
        index = msgspec.msgpack.decode(reader.decompress(content), type=ShardIndex)
    except (zstandard.ZstdError, msgspec.MsgspecError) as error:
        raise ValueError(f"not a shard index: {error}") from None
    if any(len(value) != 32 for value in index.shards.values()):
        raise ValueError("not a shard index: a hash is not 32 bytes")
    return index.shards
