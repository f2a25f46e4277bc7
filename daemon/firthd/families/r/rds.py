"""The only place that reads and writes R's serialised data (RDS, R internals 1.8), uncompressed.

Read is what tables of packages are made of: vectors, lists and attributes, in the binary form of versions 2 and 3;
functions and environments are refused, nothing is ever run. What is read stays bytes until it is looked at, so memory
is at most three times the file, whatever stands in it.
"""

import struct
from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import overload

DEPTH_MAX = 32
"""Lists in lists: a table of archived files has 3."""
ATTRIBUTES_MAX = 64
RUNS_MAX = 4_000_000
"""Numbers that the runs of a file may stand for: row names of tables with a line a package."""
HEADER = b"X\n"

_NIL, _SYMBOL, _PAIRS, _CHARS, _LOGICAL, _INTS, _REALS, _TEXTS, _LIST = 0xFE, 1, 2, 9, 10, 13, 14, 16, 19
_REFERENCE, _ALTERNATIVE, _NAMED_LIST = 0xFF, 238, 239
_HAS_ATTRIBUTES, _HAS_TAG, _IS_OBJECT = 0x200, 0x400, 0x100
_LATIN1 = 0x4000
_MISSING_TEXT = -1
_MISSING_INT = -0x80000000
_MISSING_REAL = b"\x7f\xf0\x00\x00\x00\x00\x07\xa2"
"""R's NA is a NaN of its own (1954)."""

_int = struct.Struct(">i")
_two_ints = struct.Struct(">ii")
_real = struct.Struct(">d")


class RdsError(ValueError):
    """What is no RDS file, or holds what no table of packages has."""


# --- what is read -----------------------------------------------------------------------------------------------------

Values = Sequence[str | None] | Sequence[int | None] | Sequence[float | None] | Sequence["Thing"]


class Thing:
    """One value of R with its attributes; lists hold things, other vectors plain values, None for NA."""

    __slots__ = ("attributes", "values")

    def __init__(self, values: Values, attributes: Mapping[str, "Thing"] | None = None) -> None:
        self.values = values
        self.attributes = attributes or {}

    def texts(self) -> Sequence[str | None]:
        """Return the values of a vector of texts; raises RdsError for anything else."""
        if isinstance(self.values, Texts | Spelled):
            return self.values
        raise RdsError("there is something else where texts should be")

    def numbers(self) -> Sequence[int | None] | Sequence[float | None]:
        """Return the values of a vector of numbers; raises RdsError for anything else."""
        if isinstance(self.values, Numbers | range):
            return self.values
        raise RdsError("there is something else where numbers should be")

    def things(self) -> Sequence["Thing"]:
        """Return what a list holds; raises RdsError for anything else."""
        if isinstance(self.values, list):
            return self.values
        raise RdsError("there is something else where a list should be")

    def attribute(self, name: str) -> "Thing":
        """Return an attribute; raises RdsError when there is none."""
        found = self.attributes.get(name)
        if found is None:
            raise RdsError(f"there is no {name}")
        return found


class Texts(Sequence[str | None]):
    """A vector of texts in the file's bytes; places of 8 bytes each."""

    def __init__(self, content: bytes, places: "array[int]") -> None:
        self._content = content
        self._places = places

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, at: int) -> str | None: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[str | None]: ...
    def __getitem__(self, at: int | slice) -> str | None | Sequence[str | None]:
        if isinstance(at, slice):
            return Texts(self._content, self._places[at])
        return text_at(self._content, self._places[at])


def text_at(content: bytes, place: int) -> str | None:
    """Return the text whose flags stand at a place, None for NA; R marks what is neither ASCII nor UTF-8 as latin1."""
    flags, length = _two_ints.unpack_from(content, place)
    if length == _MISSING_TEXT:
        return None
    raw = content[place + 8 : place + 8 + length]
    if flags & _LATIN1:
        return raw.decode("latin-1")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")


class Numbers(Sequence[float | None]):
    """A vector of integers, logicals or reals in the file's bytes."""

    def __init__(self, content: memoryview, size: int) -> None:
        self._content = content
        self._size = size

    def __len__(self) -> int:
        return len(self._content) // self._size

    @overload
    def __getitem__(self, at: int) -> float | None: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[float | None]: ...
    def __getitem__(self, at: int | slice) -> float | None | Sequence[float | None]:
        if isinstance(at, slice):
            return [self[number] for number in range(*at.indices(len(self)))]
        if not -len(self) <= at < len(self):
            raise IndexError(at)
        start = at % len(self) * self._size
        raw = self._content[start : start + self._size]
        if self._size == _int.size:
            whole: int = _int.unpack(raw)[0]
            return None if whole == _MISSING_INT else whole
        real: float = _real.unpack(raw)[0]
        return None if real != real else real


class Spelled(Sequence[str | None]):
    """Numbers that R keeps to be written out as texts when somebody looks (row names, mostly)."""

    def __init__(self, numbers: Sequence[float | None]) -> None:
        self._numbers = numbers

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, at: int) -> str | None: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[str | None]: ...
    def __getitem__(self, at: int | slice) -> str | None | Sequence[str | None]:
        if isinstance(at, slice):
            return Spelled(self._numbers[at])
        value = self._numbers[at]
        return None if value is None else f"{value:.15g}"


# --- reading ----------------------------------------------------------------------------------------------------------


def read(content: bytes) -> Thing:
    """Return what an uncompressed RDS file holds; raises RdsError."""
    reader = _Reader(content)
    try:
        return reader.file()
    except (struct.error, IndexError, OverflowError):
        raise RdsError("the file ends too early") from None


class _Reader:
    """Reads one file from its beginning on; each step takes at least 4 bytes, so none is without end.

    A run of numbers says in 24 bytes how many they are: all runs together stand for a bounded count.
    """

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._view = memoryview(content)
        self._at = 0
        self._symbols: list[str] = []
        self._in_runs = 0

    def file(self) -> Thing:
        if self._content[:2] != HEADER:
            raise RdsError("this is no RDS file of the binary form that R writes")
        self._at = len(HEADER)
        version = self._int()
        self._at += 8  # who wrote it, and who can read it
        if version == 3:
            self._take(self._length())  # the writer's encoding: what it marks as its own is UTF-8 or latin1 to us
        elif version != 2:
            raise RdsError(f"RDS files of version {version} are not known")
        return self._thing(self._int(), 0)

    def _int(self) -> int:
        value: int = _int.unpack_from(self._content, self._at)[0]
        self._at += 4
        return value

    def _length(self) -> int:
        length = self._int()
        if length < 0:  # -1 stands for a length of 64 bits: no table has so many
            raise RdsError("a vector is too long")
        return length

    def _take(self, size: int) -> memoryview:
        """Return the next bytes; nothing is set aside for what a file only says that it has."""
        if size > len(self._content) - self._at:
            raise RdsError("the file ends too early")
        self._at += size
        return self._view[self._at - size : self._at]

    def _thing(self, flags: int, depth: int) -> Thing:
        if depth > DEPTH_MAX:
            raise RdsError(f"it is nested more than {DEPTH_MAX} deep")
        kind = flags & 0xFF
        values: Values
        if kind in (_NIL, 0):
            return Thing([])
        if kind == _TEXTS:
            values = self._texts(self._length())
        elif kind in (_INTS, _LOGICAL):
            values = Numbers(self._take(4 * self._length()), 4)
        elif kind == _REALS:
            values = Numbers(self._take(8 * self._length()), 8)
        elif kind == _LIST:
            values = self._list(self._length(), depth)
        elif kind == _ALTERNATIVE:
            return self._alternative(depth)
        else:
            raise RdsError(f"it holds a thing of R's type {kind}, which no table of packages has")
        return Thing(values, self._attributes(depth) if flags & _HAS_ATTRIBUTES else None)

    def _texts(self, length: int) -> Texts:
        if 8 * length > len(self._content) - self._at:
            raise RdsError("the file ends too early")
        content, at = self._content, self._at
        places = array("Q", bytes(8 * length))
        for number in range(length):
            flags, size = _two_ints.unpack_from(content, at)
            if flags & 0xFF != _CHARS or size < _MISSING_TEXT:
                raise RdsError("there is something else where a text should be")
            places[number] = at
            at += 8 + max(size, 0)
        if at > len(content):
            raise RdsError("the file ends too early")
        self._at = at
        return Texts(content, places)

    def _list(self, length: int, depth: int) -> list[Thing]:
        if 4 * length > len(self._content) - self._at:
            raise RdsError("the file ends too early")
        return [self._thing(self._int(), depth + 1) for _ in range(length)]

    def _attributes(self, depth: int) -> dict[str, Thing]:
        found: dict[str, Thing] = {}
        while (flags := self._int()) & 0xFF != _NIL:
            if flags & 0xFF != _PAIRS or not flags & _HAS_TAG or len(found) >= ATTRIBUTES_MAX:
                raise RdsError("its attributes are not as they should be")
            name = self._symbol(self._int())
            found[name] = self._thing(self._int(), depth + 1)
        return found

    def _symbol(self, flags: int) -> str:
        if flags & 0xFF == _REFERENCE:
            number = flags >> 8 or self._int()
            if not 0 < number <= len(self._symbols):
                raise RdsError("it refers to a name that it does not have")
            return self._symbols[number - 1]
        if flags & 0xFF != _SYMBOL or self._int() & 0xFF != _CHARS:
            raise RdsError("there is something else where a name should be")
        name = bytes(self._take(self._length())).decode("utf-8", "replace")
        self._symbols.append(name)
        return name

    def _alternative(self, depth: int) -> Thing:
        """Read a vector that R writes in another form: a run of numbers, one that is wrapped, or one to be spelled."""
        if self._int() & 0xFF != _PAIRS:
            raise RdsError("there is something else where a name should be")
        kind = self._symbol(self._int())
        for wanted in (_PAIRS, _PAIRS):  # the package that the form is of, and the type of what it stands for
            if self._int() & 0xFF != wanted:
                raise RdsError("a vector of another form is not as it should be")
            rest = self._int()
            if rest & 0xFF in (_SYMBOL, _REFERENCE):
                self._symbol(rest)
            else:
                self._thing(rest, depth + 1)
        if self._int() & 0xFF != _NIL:
            raise RdsError("a vector of another form is not as it should be")
        inner = self._state(depth)
        attributes = self._alternative_attributes(depth)
        if kind in ("compact_intseq", "compact_realseq"):
            run = _run(inner)
            self._in_runs += len(run)
            if self._in_runs > RUNS_MAX:
                raise RdsError(f"its runs of numbers stand for more than {RUNS_MAX:,}")
            return Thing(run, attributes)
        if kind.startswith("wrap_"):
            return Thing(inner.values, attributes)
        if kind == "deferred_string":
            return Thing(Spelled(inner.numbers()), attributes)
        raise RdsError("it holds a vector of a form that is not known")

    def _state(self, depth: int) -> Thing:
        """Read the state of such a vector: itself, or what comes first of a pair or a list."""
        flags = self._int()
        if flags & 0xFF == _PAIRS:
            first = self._thing(self._int(), depth + 1)
            while (flags := self._int()) & 0xFF == _PAIRS:
                self._thing(self._int(), depth + 1)
            if flags & 0xFF != _NIL:
                self._thing(flags, depth + 1)
            return first
        found = self._thing(flags, depth + 1)
        return found.values[0] if isinstance(found.values, list) and found.values else found

    def _alternative_attributes(self, depth: int) -> dict[str, Thing]:
        flags = self._int()
        if flags & 0xFF == _NIL:
            return {}
        if flags & 0xFF != _PAIRS or not flags & _HAS_TAG:
            raise RdsError("its attributes are not as they should be")
        self._at -= 4
        return self._attributes(depth)


def _run(state: Thing) -> range:
    """Return the numbers of which R keeps how many they are, the first and the step."""
    numbers = state.numbers()
    if len(numbers) != 3 or any(number is None for number in numbers):
        raise RdsError("a run of numbers is not as it should be")
    count, first, step = (int(number or 0) for number in numbers)
    if not 0 <= count <= RUNS_MAX or step not in (1, -1):
        raise RdsError("a run of numbers is not as it should be")
    return range(first, first + step * count, step)


# --- writing ----------------------------------------------------------------------------------------------------------

_ASCII, _UTF8 = 0x00040009, 0x00008009
_NA = _two_ints.pack(_CHARS, _MISSING_TEXT)
_START = HEADER + b"".join(map(_int.pack, (2, 0x00040202, 0x00020300)))  # version 2, R 4.2.2, readable from R 2.3
_END = _int.pack(_NIL)


def written(thing: bytes) -> bytes:
    """Return an RDS file of one value, made by the functions below."""
    return _START + thing


def text(value: str | None) -> bytes:
    """Return one text of a vector; None is NA."""
    if value is None:
        return _NA
    raw = value.encode()
    return _two_ints.pack(_ASCII if value.isascii() else _UTF8, len(raw)) + raw


def texts(values: Iterable[str | None], **attributes: bytes) -> bytes:
    """Return a vector of texts. Attributes: `row_names` stands for row.names, `class_` for class."""
    return text_items([text(value) for value in values], **attributes)


def text_items(items: Sequence[bytes], **attributes: bytes) -> bytes:
    """Return a vector of texts that were made by `text`."""
    return _vector(_TEXTS, len(items), b"".join(items), attributes)


def ints(values: Sequence[int | None], **attributes: bytes) -> bytes:
    """Return a vector of integers of 32 bits."""
    items = b"".join([_int.pack(_MISSING_INT if value is None else value) for value in values])
    return _vector(_INTS, len(values), items, attributes)


def logicals(values: Sequence[bool]) -> bytes:
    """Return a vector of logicals."""
    return _vector(_LOGICAL, len(values), b"".join([_int.pack(value) for value in values]), {})


def reals(values: Sequence[float | None], **attributes: bytes) -> bytes:
    """Return a vector of reals."""
    items = b"".join([_MISSING_REAL if value is None else _real.pack(value) for value in values])
    return _vector(_REALS, len(values), items, attributes)


def things(values: Sequence[bytes], **attributes: bytes) -> bytes:
    """Return a list of values made by these functions."""
    return _vector(_LIST, len(values), b"".join(values), attributes)


def _vector(kind: int, length: int, items: bytes, attributes: Mapping[str, bytes]) -> bytes:
    flags = kind | (_HAS_ATTRIBUTES if attributes else 0) | (_IS_OBJECT if "class_" in attributes else 0)
    parts = [_two_ints.pack(flags, length), items]
    for name, value in attributes.items():
        spelled = name.rstrip("_").replace("_", ".").encode()
        parts += [_two_ints.pack(_PAIRS | _HAS_TAG, _SYMBOL), _two_ints.pack(_ASCII, len(spelled)), spelled, value]
    if attributes:
        parts.append(_END)
    return b"".join(parts)
