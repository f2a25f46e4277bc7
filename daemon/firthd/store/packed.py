"""Packs, purely, records that a policy leaves out into blocks, column by column, and unpacks them.

What is left out may be nearly all that a source lists: in blocks it takes a fifth of the time and of the disk that a
row for each would.
"""

from collections.abc import Collection, Mapping, Sequence, Set
from functools import cached_property
from typing import NamedTuple, Protocol

import msgspec
import zstandard
from msgspec import Struct

ZST_LEVEL = 1


class Brief(Protocol):
    """What is told of a record that is left out, beside its file."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def build(self) -> str: ...
    @property
    def size(self) -> int | None: ...


class _Told(NamedTuple):
    """The columns of a block that only whoever shows its records needs."""

    names: list[str]
    versions: list[str]
    builds: list[str]
    sizes: list[int | None]


class LeftOut(Struct, frozen=True, kw_only=True):
    """A record that a policy leaves out."""

    id: int
    part: str
    filename: str
    name: str
    version: str
    build: str
    size: int | None
    rule: str
    why: str
    refuses: bool


class ChosenRow(NamedTuple):
    """A record that is kept where dependencies were looked at."""

    part: str
    filename: str
    name: str
    version: str
    build: str
    size: int | None
    license: str | None
    direct: bool
    needed_by: str


class VerdictRow(NamedTuple):
    """Why records are left out."""

    rule: str
    why: str
    refuses: bool
    records: int  # that are left out by it and counted


_encode = msgspec.msgpack.encode
_decode_numbers = msgspec.msgpack.Decoder(list[int]).decode
_decode_texts = msgspec.msgpack.Decoder(list[str]).decode
_decode_told = msgspec.msgpack.Decoder(_Told).decode
_decode_chosen = msgspec.msgpack.Decoder(list[ChosenRow]).decode
_compress = zstandard.ZstdCompressor(level=ZST_LEVEL).compress


def packed_chosen(rows: Sequence[ChosenRow]) -> bytes:
    """Return records that are kept, as they are stored together."""
    return _compress(_encode(rows))


def chosen_of(content: bytes) -> list[ChosenRow]:
    """Return records that were stored together."""
    return _decode_chosen(zstandard.decompress(content))


class Columns(NamedTuple):
    """A block as it is stored."""

    verdicts: bytes
    filenames: bytes
    told: bytes


def packed(verdicts: Sequence[int], filenames: Sequence[str], briefs: Collection[Brief]) -> Columns:
    """Return a block of records, each with the number of its verdict."""
    told = _Told(
        [one.name for one in briefs],
        [one.version for one in briefs],
        [one.build for one in briefs],
        [one.size for one in briefs],
    )
    return Columns(_encode(verdicts), _compress(_encode(filenames)), _compress(_encode(told)))


class Block:
    """Some records that are left out; a column is unpacked when it is looked at."""

    def __init__(self, number: int, part: str, verdicts: bytes, filenames: bytes, told: bytes) -> None:
        self.id = number
        self._part = part
        self._verdicts = verdicts
        self._filenames = filenames
        self._told = told

    @cached_property
    def verdicts(self) -> list[int]:
        return _decode_numbers(self._verdicts)

    @cached_property
    def _names_of_files(self) -> bytes:
        return zstandard.decompress(self._filenames)

    @cached_property
    def filenames(self) -> list[str]:
        return _decode_texts(self._names_of_files)

    @cached_property
    def told(self) -> _Told:
        return _decode_told(zstandard.decompress(self._told))

    def places(self, meant: Set[int] | None, query: bytes | None) -> Sequence[int]:
        """Return where records stand with one of these verdicts, and with this in their files' names in any case."""
        places: Sequence[int] = range(len(self.verdicts))
        if meant is not None:
            places = [place for place in places if self.verdicts[place] in meant]
        if query is None or not places:
            return places
        if query not in self._names_of_files.lower():
            return ()
        return [place for place in places if query in self.filenames[place].encode().lower()]

    def left_out(self, place: int, verdicts: Mapping[int, VerdictRow]) -> LeftOut:
        """Return the record at a place."""
        verdict, told = verdicts[self.verdicts[place]], self.told
        return LeftOut(
            id=self.id + place,
            part=self._part,
            filename=self.filenames[place],
            name=told.names[place],
            version=told.versions[place],
            build=told.builds[place],
            size=told.sizes[place],
            rule=verdict.rule,
            why=verdict.why,
            refuses=verdict.refuses,
        )
