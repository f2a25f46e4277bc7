"""The only place that knows what stands in the file of an object that is joined of pieces.

Such an object is large, and little of it changes from one generation to the next: a list of the pieces is written, and
those that are new. A piece is compressed, lies in a pack, and its path holds its own digest.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import zstandard

JOINED = "joined"
"""As the encoding of an object: its file lists its pieces, and its sha256 is that of the list."""
LEVEL = 6
MARK_BYTES = 16
DIGEST_BYTES = 32
SIZE_MAX = 1 << 26
"""Bytes that a piece shows at the most."""


class Piece(NamedTuple):
    """A part of a large object, of which little changes at a time, before it is made."""

    mark: bytes  # 16 bytes of what it is made of: under the same one it would be the same
    make: Callable[[], bytes]


class Joint(NamedTuple):
    """A piece of an object that was made."""

    mark: bytes  # of what it was made of
    sha256: bytes  # of the piece as it lies there
    size: int  # bytes that it shows


class JointAt(NamedTuple):
    """Where a piece lies."""

    file: Path
    offset: int
    packed: int  # bytes there
    joint: Joint


_decode = msgspec.msgpack.Decoder(list[Joint]).decode


def listed(joints: Sequence[Joint]) -> bytes:
    """Return the list of an object's pieces as its file holds it."""
    return msgspec.msgpack.encode(joints)


def joints_of(content: bytes) -> list[Joint]:
    """Return what a list names; raise ValueError for what is none."""
    try:
        joints = _decode(content)
    except (msgspec.MsgspecError, ValueError) as error:
        raise ValueError(f"not a list of pieces: {error}") from None
    for joint in joints:
        if len(joint.mark) != MARK_BYTES or len(joint.sha256) != DIGEST_BYTES or not 0 <= joint.size <= SIZE_MAX:
            raise ValueError("not a list of pieces: one is none")
    return joints


def piece_path(path: str, sha256: bytes) -> str:
    """Return where a piece of the object at a path lies."""
    return f"{path}/{sha256.hex()}"


def pressed(content: bytes) -> bytes:
    """Return a piece as it lies in a pack."""
    return zstandard.ZstdCompressor(level=LEVEL).compress(content)


def shown(pieces: Sequence[JointAt]) -> Iterator[bytes]:
    """Yield what pieces show; raise OSError for one that is not what it should be. It blocks."""
    fd, opened = -1, None
    try:
        for piece in pieces:
            if piece.file != opened:
                if fd >= 0:
                    os.close(fd)
                fd, opened = os.open(piece.file, os.O_RDONLY | os.O_CLOEXEC), piece.file
            packed = os.pread(fd, piece.packed, piece.offset)
            if hashlib.sha256(packed).digest() != piece.joint.sha256:
                raise OSError(f"{piece.file.name} does not hold {piece.joint.sha256.hex()} at {piece.offset}")
            try:
                content = zstandard.ZstdDecompressor().decompress(packed, max_output_size=piece.joint.size)
            except zstandard.ZstdError as error:
                raise OSError(f"a piece does not unpack: {error}") from None
            if len(content) != piece.joint.size:
                raise OSError(f"a piece shows {len(content)} bytes, {piece.joint.size} were listed")
            yield content
    finally:
        if fd >= 0:
            os.close(fd)
