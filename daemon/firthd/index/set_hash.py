"""The only place that hashes a set: a state to which elements are added, and from which they are taken, one by one.

LtHash: 1,024 lanes of 16 bits, each the sum of the elements' lanes. Two sets have one state when they are equal, in
whatever order and by whatever way their elements came; finding two others with the same state is as hard as a lattice
problem of that size.
"""

from hashlib import sha256, shake_256

LANES = 1024
STATE_BYTES = 2 * LANES
EMPTY = bytes(STATE_BYTES)

# Lanes are added many at once, as one large integer: every second lane, with 16 bits between them for what carries.
_EVERY_SECOND = int.from_bytes(b"\xff\xff\x00\x00" * (LANES // 2), "little")
_BORROW = int.from_bytes(b"\x00\x00\x01\x00" * (LANES // 2), "little")


class SetHash:
    """A set's state; `state` is what to keep of it."""

    def __init__(self, state: bytes = EMPTY) -> None:
        self._even, self._odd = _apart(state)

    def add(self, element: bytes) -> None:
        """Add an element that is not there."""
        even, odd = _apart(shake_256(element).digest(STATE_BYTES))
        self._even = self._even + even & _EVERY_SECOND
        self._odd = self._odd + odd & _EVERY_SECOND

    def subtract(self, element: bytes) -> None:
        """Take away an element that is there."""
        even, odd = _apart(shake_256(element).digest(STATE_BYTES))
        self._even = self._even + _BORROW - even & _EVERY_SECOND
        self._odd = self._odd + _BORROW - odd & _EVERY_SECOND

    @property
    def state(self) -> bytes:
        """The state, `STATE_BYTES` long."""
        return (self._even | self._odd << 16).to_bytes(STATE_BYTES, "little")


def _apart(state: bytes) -> tuple[int, int]:
    lanes = int.from_bytes(state, "little")
    return lanes & _EVERY_SECOND, lanes >> 16 & _EVERY_SECOND


_length = tuple(number.to_bytes(4, "big") for number in range(256)).__getitem__


def pressed(*fields: bytes) -> bytes:
    """Return fields as one text from which they can be told apart."""
    return b"".join(len(field).to_bytes(4, "big") + field for field in fields)


def entry_digest(part: bytes, filename: str, section: str, identity: bytes, declared: bytes | None) -> bytes:
    """Return the sha256 of one visible entry: `identity` is its record's without addresses, `declared` its source's.

    `part` is its part, pressed. A digest that we found ourselves is no part of it: another daemon may not have seen the
    file yet. There are hundreds of thousands of entries, so their fields are pressed here.
    """
    name, kind, source = filename.encode(), section.encode(), declared or b""
    try:
        lengths = _length(len(name)), _length(len(kind)), _length(len(identity)), _length(len(source))
    except IndexError:
        return sha256(part + pressed(name, kind, identity, source)).digest()
    return sha256(
        b"%b%b%b%b%b%b%b%b%b" % (part, lengths[0], name, lengths[1], kind, lengths[2], identity, lengths[3], source)
    ).digest()


def name_digest(entries: bytes | bytearray) -> bytes:
    """Return the sha256 of a package's entries, of which `entries` holds the digests one behind the other."""
    return sha256(b"".join(sorted(entries[at : at + 32] for at in range(0, len(entries), 32)))).digest()


def element(family: str, name: str, digest: bytes) -> bytes:
    """Return the element that stands for a package in a generation's set."""
    return pressed(family.encode(), name.encode(), digest)
