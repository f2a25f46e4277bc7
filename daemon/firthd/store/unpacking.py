"""The only place that reads what a file holds in which an object lies compressed: zstd or gzip, by its first bytes."""

import gzip
import zlib
from typing import BinaryIO, Protocol

import zstandard

_GZIP = b"\x1f\x8b"


class _Reader(Protocol):
    def read(self, size: int, /) -> bytes: ...


class Unpacked:
    """What a compressed file holds, from its beginning on. Blocks."""

    def __init__(self, source: BinaryIO) -> None:
        packed = source.read(len(_GZIP)) == _GZIP
        source.seek(0)
        self._reader: _Reader = (
            gzip.GzipFile(fileobj=source) if packed else zstandard.ZstdDecompressor().stream_reader(source)
        )

    def read(self, size: int) -> bytes:
        """Return the next bytes, at the end none; raise OSError for what does not unpack."""
        try:
            return self._reader.read(size)
        except (zstandard.ZstdError, zlib.error, EOFError) as error:
            raise OSError(f"the file does not unpack: {error}") from None
