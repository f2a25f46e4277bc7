"""The only place that proves that every published form can hold a record, and clients can read it there.

What is accepted is written as it came into repodata.json, decoded into MessagePack shards, and summed up for people.
One value that one of these cannot hold would stop the publication of everything beside it, so the proof comes first.
"""

import json
from collections.abc import Mapping

import msgspec

RECORD_MAX_BYTES = 1 << 20
"""Real records stay below 100 kB; a shard, which holds all of a package, may have 16 MiB (conda refuses more)."""
NESTED_MAX = 64
"""Real records nest 4 deep. rattler's JSON reader gives up on a whole document at 128, msgspec at 1,000."""
TIME_BEFORE_MS = 253_402_300_800_000
"""The year 10000. rattler refuses every record of a package for one that lies beyond what a calendar holds."""

_encode = msgspec.msgpack.Encoder().encode


class UnwritableError(ValueError):
    """A value that some published form cannot hold; the message is the reason."""


def check_bounds(raw: bytes) -> None:
    """Refuse a record that is too large or nested too deeply to be looked at; raises UnwritableError."""
    # Most records have fewer brackets than they may nest: counting is a hundred times cheaper than walking.
    if raw.count(b"[") + raw.count(b"{") <= NESTED_MAX and len(raw) <= RECORD_MAX_BYTES:
        return
    if len(raw) > RECORD_MAX_BYTES:
        raise UnwritableError(f"the record has {len(raw):,} bytes; at most {RECORD_MAX_BYTES:,} are taken")
    if nesting(raw) > NESTED_MAX:
        raise UnwritableError(f"the record is nested too deeply; at most {NESTED_MAX} levels are taken")


def check_writable(record: Mapping[str, object], raw: bytes) -> None:
    """Refuse what MessagePack, clients or C strings cannot hold; `record` is `raw` decoded. Raises UnwritableError."""
    try:
        _encode(record)
    except OverflowError:
        raise UnwritableError("the record holds an integer of more than 64 bits, which no shard can hold") from None
    timestamp = record.get("timestamp")
    if timestamp is not None and not possible_time(timestamp):
        raise UnwritableError("the timestamp is no possible time")
    subdir = record.get("subdir")
    if subdir is not None and not isinstance(subdir, str):
        raise UnwritableError("the subdir is not a text")
    if b"\\" in raw and holds_nul(record):
        raise UnwritableError("the record holds a NUL character, at which clients cut a text off")


def check_keys(raw: bytes, spelled: bytes, *, whole: bool) -> None:
    """Refuse a record that has a key twice: some clients take the last, others refuse all of the package.

    `spelled` is `raw` decoded and written again, `whole` whether nothing was taken out of it in between. A key that
    was dropped on the way leaves at least two quotation marks less, for which only escaped ones could make up.
    """
    if whole and (raw == spelled or (b"\\u" not in raw and raw.count(b'"') == spelled.count(b'"'))):
        return
    json.loads(raw, object_pairs_hook=_each_once)


def _each_once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise UnwritableError("the record has the same key twice")
    return found


def possible_time(value: object) -> bool:
    """Tell whether this is a number that can be a time in seconds or milliseconds."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -TIME_BEFORE_MS < value < TIME_BEFORE_MS


def holds_nul(value: object) -> bool:
    """Tell whether a NUL stands in any text of a decoded value."""
    rest = [value]
    while rest:
        value = rest.pop()
        if isinstance(value, str):
            if "\0" in value:
                return True
        elif isinstance(value, Mapping):
            rest.extend(value.keys())
            rest.extend(value.values())
        elif isinstance(value, list):
            rest.extend(value)
    return False


def nesting(raw: bytes) -> int:
    """Return how deep a JSON text nests; brackets inside strings do not count."""
    depth = deepest = at = 0
    inside = False
    while at < len(raw):
        byte = raw[at]
        if inside:
            if byte == 0x5C:  # a backslash: what it escapes ends nothing
                at += 1
            elif byte == 0x22:
                inside = False
        elif byte == 0x22:
            inside = True
        elif byte in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif byte in b"]}":
            depth -= 1
        at += 1
    return deepest
