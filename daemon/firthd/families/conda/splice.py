"""The only place that goes on from a repodata.json that the channel serves: what did not change is copied, not made.

The text that comes out is the one that all rows would give, byte for byte: files that are lost are made again from
those. It is taken apart stretch by stretch: a whole one at once would take half a gigabyte.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import accumulate, islice
from operator import add

import msgspec
from msgspec import Raw

from firthd.families.conda.repodata import Served

STRETCH = 1 << 15
"""Bytes that are taken apart at once; of what has changed, a second time."""
TRIES = 16
LONGEST = 1 << 22
"""Where a stretch does not end: so many places, and bytes, are looked at before the index is made anew."""
AROUND = len('"":,')
"""Bytes that a record has in the text beside its key and itself."""
BEFORE, BETWEEN, BEHIND = b'{"info":%b,"packages":{', b'},"packages.conda":{', b'},"removed":[],"repodata_version":1}'

_decode = msgspec.json.Decoder(dict[str, Raw]).decode


class Bucket:
    """The records of one section, in stretches: where those begin, and what is to stand in the text instead."""

    def __init__(self, text: memoryview, begins: int) -> None:
        self.ends = begins  # of the text of its records
        self._text = text
        self._begins = [begins]  # of each stretch, and behind the last one
        self._firsts: list[str] = []  # the key that each begins with
        self._count = 0
        self._edits: list[tuple[int, int, bytes]] = []  # from where to where, what comes there
        self._looked_at = -1
        self._keys: list[str] = []
        self._places: list[int] = []
        self._changed: set[str] = set()
        self._added: list[str] = []

    def append(self, records: Mapping[str, Raw], ends: int) -> None:
        """Take the next stretch, which ends there."""
        self._firsts.append(next(iter(records)))
        self._begins.append(ends + 1)
        self._count += len(records)
        self.ends = ends

    def __len__(self) -> int:
        return self._count + sum(bool(new) - (ends > begins) for begins, ends, new in self._edits)

    def __iter__(self) -> Iterator[str]:
        """Yield the keys as they are now."""
        for number in range(len(self._firsts)):
            yield from (key for key in self._stretch(number) if key not in self._changed)
        yield from self._added

    def replace(self, keys: Collection[str], added: Sequence[Served]) -> None:
        """Let these records be all that there is of these keys."""
        new = {record.key: record.raw for record in added}
        self._added, self._changed = list(new), {*keys, *new}
        for key in sorted(self._changed):
            begins, ends = self._place(key)
            record = b'"%b":%b' % (key.encode(), new[key]) if key in new else b""
            if record != self._text[begins : max(begins, ends - 1)]:
                self._edits.append((begins, ends, record))

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
        copied = self._begins[0]
        for begins, ends, new in self._edits:
            if begins > copied:
                yield self._text[copied : begins - 1]
            copied = ends
            if new:
                yield new
        if copied < self.ends:
            yield self._text[copied : self.ends]

    def _place(self, key: str) -> tuple[int, int]:
        """Return where a key's record begins, and the one behind it; the same twice where it would begin."""
        number = bisect_right(self._firsts, key) - 1
        if number < 0:
            return self._begins[0], self._begins[0]
        keys = self._stretch(number)
        place = bisect_left(keys, key)
        there = place < len(keys) and keys[place] == key
        return self._places[place], self._places[place + there]

    def _stretch(self, number: int) -> list[str]:
        """Return a stretch's keys; then `_places` says where each record begins, and the first behind it."""
        if number != self._looked_at:
            begins, behind = self._begins[number : number + 2]
            records = members(self._text[begins : behind - 1]) or {}
            sizes = map(add, map(len, records), map(len, records.values()))
            self._keys, self._looked_at = list(records), number
            self._places = list(accumulate((size + AROUND for size in sizes), initial=begins))
        return self._keys


class OwnIndex:
    """A repodata.json of our own that is gone on from."""

    def __init__(self, packages: Bucket, packages_conda: Bucket) -> None:
        self.sections = {"packages": packages, "packages.conda": packages_conda}

    def replace(self, filenames: Collection[str], sections: Mapping[str, list[Served]]) -> None:
        """Let these records be all that there is of these files; every record's file is one of them."""
        for section, bucket in self.sections.items():
            bucket.replace(filenames, sections.get(section, ()))


def own_index(content: bytes, subdir: str, *, stretch: int = STRETCH) -> OwnIndex | None:
    """Return an index of our own, taken apart; None when it cannot be gone on from.

    That is so for one with v3 records or signatures, and for what we do not spell so.
    """
    before = BEFORE % msgspec.json.encode({"subdir": subdir})
    packages = taken_apart(content, len(before), BETWEEN, stretch) if content.startswith(before) else None
    conda = None if packages is None else taken_apart(content, packages.ends + len(BETWEEN), BEHIND, stretch)
    if packages is None or conda is None or conda.ends + len(BEHIND) != len(content):
        return None
    return OwnIndex(packages, conda)


def taken_apart(content: bytes, begins: int, behind: bytes, stretch: int) -> Bucket | None:
    """Return the section whose records begin there, and which `behind` follows; None: it is not as we write it."""
    text = memoryview(content)
    bucket = Bucket(text, begins)
    last = ""
    while not content.startswith(behind, bucket.ends):
        found = next_stretch(content, text, begins, behind, stretch)
        if found is None:
            return None
        records, ends = found
        keys = list(records)
        as_written = sum(map(len, keys)) + sum(map(len, records.values())) + AROUND * len(keys) - 1
        if as_written != ends - begins or keys[0] <= last or sorted(keys) != keys:
            return None
        bucket.append(records, ends)
        last, begins = keys[-1], ends + 1
    return bucket


def next_stretch(
    content: bytes, text: memoryview, begins: int, behind: bytes, stretch: int
) -> tuple[dict[str, Raw], int] | None:
    """Return the records of the stretch that begins there, and where it ends; None when it does not, as we write it.

    What looks like the end of a record may lie inside of one; then what is before it is no row of records.
    """
    for ends in islice(possible_ends(content, begins, behind, stretch), TRIES):
        if (records := members(text[begins:ends])) is not None:
            return records, ends
    return None


def possible_ends(content: bytes, begins: int, behind: bytes, stretch: int) -> Iterator[int]:
    """Yield where a stretch may end, the likely places first."""
    most = begins + LONGEST
    ends = content.find(b'},"', begins + stretch, most) + 1
    if ends:
        yield ends
    last = begins
    while (last := content.find(behind, last + 1, most)) >= 0:  # it may be the last stretch
        yield last
    while ends and (ends := content.find(b'},"', ends, most) + 1):
        yield ends


def members(text: memoryview) -> dict[str, Raw] | None:
    """Return what stands between the braces of a JSON object; None for anything else."""
    try:
        return _decode(b"".join((b"{", text, b"}"))) or None
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
