"""The only place that unpacks the files of an R index: gzip, bzip2 or xz, told by their first bytes, within a limit."""

import bz2
import lzma
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

from firth_protocol.errors import TooLarge, Upstream
from firthd.families.base import Spool

GZIP, BZIP2, XZ = b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00"
READ_BYTES = 1 << 20
RATIO_MAX = 400
RATIO_FROM_BYTES = 128 * 1024**2
"""Real indexes shrink to a tenth, their RDS form to a fiftieth; below this size a high ratio does no harm."""
XZ_MEMORY_BYTES = 256 * 1024**2


class DamagedError(ValueError):
    """A packed file that does not unpack, or ends too early."""


class _Unpacker(Protocol):
    """One member of a packed file."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    @property
    def needs_input(self) -> bool: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class _Gzip:
    """zlib's object with the manners of the other two."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    @property
    def needs_input(self) -> bool:
        return not self._inner.unconsumed_tail

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, max_length)


def _unpacker(start: bytes) -> _Unpacker | None:
    if start.startswith(GZIP):
        return _Gzip()
    if start.startswith(BZIP2):
        return bz2.BZ2Decompressor()
    return lzma.LZMADecompressor(memlimit=XZ_MEMORY_BYTES) if start.startswith(XZ) else None


def chunks(file: BinaryIO) -> Iterator[bytes]:
    """Yield what a file holds, unpacked where it is packed, at most a megabyte at a time; raises DamagedError."""
    data = file.read(READ_BYTES)
    unpacker = _unpacker(data)
    if unpacker is None:
        while data:
            yield data
            data = file.read(READ_BYTES)
        return
    try:
        while True:
            while not unpacker.eof and (data or not unpacker.needs_input):
                if out := unpacker.decompress(data, READ_BYTES):
                    yield out
                data = b""
                if unpacker.needs_input and not unpacker.eof:
                    data = file.read(READ_BYTES)
            if not unpacker.eof:
                raise DamagedError("it ends too early")
            data = unpacker.unused_data or file.read(READ_BYTES)
            following = _unpacker(data) if data.strip(b"\0") else None
            if following is None:  # several members may follow each other; what else follows is no part of it
                return
            unpacker = following
    except (zlib.error, OSError, lzma.LZMAError, EOFError) as error:
        raise DamagedError(str(error)) from None


def unpacked(spool: Spool, max_bytes: int) -> bytes:
    """Return a spool file's content; raises TooLarge over the limit, Upstream for damaged data."""
    if spool.file is None:
        return b""
    content = bytearray()
    with Path(spool.file).open("rb") as file:
        packed = os.fstat(file.fileno()).st_size
        try:
            for chunk in chunks(file):
                content += chunk
                _check(spool, len(content), packed, max_bytes)
        except DamagedError as error:
            raise Upstream(
                f"The source's index of {spool.part} cannot be decompressed: {error}.", part=spool.part
            ) from None
    return bytes(content)


def _check(spool: Spool, size: int, packed: int, max_bytes: int) -> None:
    if size > max_bytes:
        raise TooLarge(
            f"The source's index of {spool.part} has more than {max_bytes:,} bytes when it is decompressed.",
            hint="look at the source; if it is right, raise upstream.max_index_bytes in firth.toml",
            part=spool.part,
        )
    if size > RATIO_FROM_BYTES and size > RATIO_MAX * packed:
        raise TooLarge(
            f"The source's index of {spool.part} decompresses to more than {RATIO_MAX} times its {packed:,} bytes.",
            hint=f"look at the source; this limit is fixed, and looked at above {RATIO_FROM_BYTES:,} bytes only",
            part=spool.part,
        )
