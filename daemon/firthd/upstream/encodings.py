"""The only place that undoes a Content-Encoding that nobody asked for, where the bytes are really encoded so.

Servers and proxies label answers as they like: files that are compressed by themselves, names that are no encoding
(`none`, `aws-chunked`), or gzip for whoever asks for identity. What counts is the file: its first bytes tell.
"""

import zlib
from collections.abc import Iterator
from typing import Protocol

import zstandard

LOOK_BYTES = 512
"""How much of an answer is looked at to see whether its label is true."""
MOST_LAYERS = 3
WINDOW_MAX_BYTES = 2**27

_PIECE_BYTES = 1 << 20
_ZSTD_INPUT_BYTES = 1024  # a block of 4 bytes may stand for 128 KiB: 32 MiB come of so much at the most
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_OWN = {
    ".zst": _ZSTD,
    ".gz": _GZIP,
    ".tgz": _GZIP,
    ".bz2": b"BZh",
    ".xz": b"\xfd7zXZ",
}
"""What files begin with that are compressed by themselves, by the end of their names; no zip begins as an encoding."""


class DamagedError(ValueError):
    """What began as it was labelled does not go on so."""


class Decoder(Protocol):
    """Undoes one encoding, piece by piece."""

    def feed(self, chunk: bytes, /) -> Iterator[bytes]:
        """Yield what comes of the next bytes, in pieces of bounded size; raise DamagedError."""

    @property
    def whole(self) -> bool:
        """Whether what was fed so far is a whole file."""


class _Zlib:
    """gzip, of several members too, and deflate in its zlib form."""

    def __init__(self, bits: int) -> None:
        self._bits = bits
        self._inner = zlib.decompressobj(bits)

    def feed(self, chunk: bytes, /) -> Iterator[bytes]:
        rest = chunk
        while rest:
            if self._inner.eof:
                if not rest.strip(b"\0"):
                    return  # padding behind the last member
                self._inner = zlib.decompressobj(self._bits)
            try:
                piece = self._inner.decompress(rest, _PIECE_BYTES)
            except zlib.error as error:
                raise DamagedError(str(error)) from None
            rest = self._inner.unused_data if self._inner.eof else self._inner.unconsumed_tail
            if piece:
                yield piece

    @property
    def whole(self) -> bool:
        return self._inner.eof


class _Zstd:
    """zstd, of several frames too."""

    def __init__(self) -> None:
        self._inner = self._new()

    def _new(self) -> "zstandard.ZstdDecompressionObj":
        return zstandard.ZstdDecompressor(max_window_size=WINDOW_MAX_BYTES).decompressobj()

    def feed(self, chunk: bytes, /) -> Iterator[bytes]:
        for start in range(0, len(chunk), _ZSTD_INPUT_BYTES):
            rest = chunk[start : start + _ZSTD_INPUT_BYTES]
            while rest:
                if self._inner.eof:
                    self._inner = self._new()
                try:
                    piece = self._inner.decompress(rest)
                except zstandard.ZstdError as error:
                    raise DamagedError(str(error)) from None
                rest = self._inner.unused_data if self._inner.eof else b""
                if piece:
                    yield piece

    @property
    def whole(self) -> bool:
        return self._inner.eof


class _Chain:
    """Several encodings, undone one after the other."""

    def __init__(self, first: Decoder, then: Decoder) -> None:
        self._first = first
        self._then = then

    def feed(self, chunk: bytes, /) -> Iterator[bytes]:
        for piece in self._first.feed(chunk):
            yield from self._then.feed(piece)

    @property
    def whole(self) -> bool:
        return self._first.whole and self._then.whole


def labels(header: str | None) -> list[str]:
    """Return the encodings that a Content-Encoding names and that can be undone, the last applied first."""
    named = [name.strip().lower().removeprefix("x-") for name in (header or "").split(",")]
    return [name for name in reversed(named) if name in ("gzip", "deflate", "zstd")][:MOST_LAYERS]


def decoder_for(names: list[str], start: bytes, path: str) -> Decoder | None:
    """Return what undoes these encodings of a file that begins with `start`, None where the bytes are the file.

    A file that is compressed by itself is taken as it came when it begins as such a file does, unless what comes of
    undoing the label does so too: then it was compressed twice.
    """
    found: Decoder | None = None
    own = next((magic for ending, magic in _OWN.items() if path.lower().endswith(ending)), None)
    for name in names:
        inside = _start_of(name, start)
        if inside is None or (own is not None and start.startswith(own) and not inside.startswith(own)):
            break
        found = _decoder(name) if found is None else _Chain(found, _decoder(name))
        start = inside
    return found


def _decoder(name: str) -> Decoder:
    if name == "zstd":
        return _Zstd()
    return _Zlib(zlib.MAX_WBITS | 16 if name == "gzip" else zlib.MAX_WBITS)


def _start_of(name: str, start: bytes) -> bytes | None:
    """Return the first bytes of what is encoded so, None when `start` is not."""
    header = int.from_bytes(start[:2], "big")
    true = {
        "gzip": start.startswith(_GZIP),
        "zstd": start.startswith(_ZSTD),
        "deflate": len(start) >= 2 and start[0] & 0x0F == 8 and header % 31 == 0,  # RFC 1950, 2.2
    }[name]
    if not true:
        return None
    try:
        return next(_decoder(name).feed(start), b"")
    except DamagedError:
        return None
