"""The only place that goes on from a repodata.json that the channel serves: what did not change is copied, not made.

The text that comes out is the one that all rows would give, byte for byte: files that are lost are made again from
those.
"""

from bisect import bisect_left
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import accumulate, pairwise
from operator import add

import msgspec
from msgspec import Raw, Struct, field

from firthd.families.conda.repodata import Served

AROUND = len('"":,')
"""Bytes that a record has in the text beside its key and itself."""
BEFORE, BETWEEN, BEHIND = b'{"info":%b,"packages":{', b'},"packages.conda":{', b'},"removed":[],"repodata_version":1}'


class Info(Struct, forbid_unknown_fields=True):
    """`info` of an index without v3 records."""

    subdir: str


class Decoded(Struct, forbid_unknown_fields=True):
    """A repodata.json of our own that can be gone on from: one with signatures or v3 records is made anew."""

    info: Info
    packages: dict[str, Raw]
    removed: list[str]
    repodata_version: int
    packages_conda: dict[str, Raw] = field(name="packages.conda")


class Bucket:
    """The records of one section: where each stands in the text, and what is to stand there instead."""

    def __init__(self, text: memoryview, begins: int, records: Mapping[str, Raw]) -> None:
        self._text = text
        self._begins = begins
        self._keys = list(records)
        self._sizes: list[int] = list(accumulate(map(add, map(len, records), map(len, records.values())), initial=0))
        self._gone: set[str] = set()
        self._added: dict[str, bytes] = {}
        self.ends = self._begins_at(len(self._keys)) - (1 if self._keys else 0)

    @property
    def in_order(self) -> bool:
        """Whether the keys can be looked up, and stand in the text as they are."""
        return all(one < following for one, following in pairwise(self._keys)) and "".join(self._keys).isascii()

    def __len__(self) -> int:
        return len(self._keys) - len(self._gone) + len(self._added)

    def __iter__(self) -> Iterator[str]:
        yield from (key for key in self._keys if key not in self._gone)
        yield from self._added

    def replace(self, keys: Collection[str], added: Sequence[Served]) -> None:
        """Let these records be all that there is of these keys."""
        self._added = {record.key: record.raw for record in added}
        changed = {*keys, *self._added}
        self._gone = {key for key in changed if self._holds(key, bisect_left(self._keys, key))}

    def chunks(self) -> Iterator[bytes | memoryview]:
        """Yield the section's JSON object as it is now."""
        yield b"{"
        between = b""
        for piece in self._pieces():
            yield between
            yield piece
            between = b","
        yield b"}"

    def _pieces(self) -> Iterator[bytes | memoryview]:
        """Yield runs of records without the commas between those."""
        first = 0
        for key in sorted(self._gone | self._added.keys()):
            place = bisect_left(self._keys, key, first)
            if place > first:
                yield self._text[self._begins_at(first) : self._begins_at(place) - 1]
            first = place + (key in self._gone)
            if key in self._added:
                yield b'"%b":%b' % (key.encode(), self._added[key])
        if first < len(self._keys):
            yield self._text[self._begins_at(first) : self.ends]

    def _holds(self, key: str, place: int) -> bool:
        return place < len(self._keys) and self._keys[place] == key

    def _begins_at(self, number: int) -> int:
        return self._begins + self._sizes[number] + AROUND * number


class OwnIndex:
    """A repodata.json of our own that is gone on from."""

    def __init__(self, packages: Bucket, packages_conda: Bucket) -> None:
        self.sections = {"packages": packages, "packages.conda": packages_conda}

    def replace(self, filenames: Collection[str], sections: Mapping[str, list[Served]]) -> None:
        """Let these records be all that there is of these files; every record's file is one of them."""
        for section, bucket in self.sections.items():
            bucket.replace(filenames, sections.get(section, ()))


_decode = msgspec.json.Decoder(Decoded).decode


def own_index(content: bytes, subdir: str) -> OwnIndex | None:
    """Return an index of our own, taken apart; None when it cannot be gone on from."""
    try:
        found = _decode(content)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    if found.info.subdir != subdir:
        return None
    text, before = memoryview(content), BEFORE % msgspec.json.encode(found.info)
    packages = Bucket(text, len(before), found.packages)
    conda = Bucket(text, packages.ends + len(BETWEEN), found.packages_conda)
    around = (text[: len(before)], text[packages.ends : packages.ends + len(BETWEEN)], text[conda.ends :])
    if tuple(map(bytes, around)) != (before, BETWEEN, BEHIND):
        return None  # it is spelled in another way than we write it
    return OwnIndex(packages, conda) if packages.in_order and conda.in_order else None
