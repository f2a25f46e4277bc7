"""The only place that knows by which digests, beside sha256 and md5, a file is told to be the right one."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

from firthd.store.disk import READ_CHUNK

ALGORITHMS = (
    *("sha512", "sha3_512", "blake2b", "sha384", "sha3_384"),
    *("sha3_256", "blake2s", "sha3_224", "sha224", "sha1"),
)
"""Those of hashlib that every Python has and that have a length of their own, the strongest first."""
_OF_ANY_LENGTH = frozenset({"blake2b", "blake2s"})


class Promise(NamedTuple):
    """A digest that a source declares of a file; `value` is lower hex."""

    algorithm: str
    value: str


class Hash(Protocol):
    """What hashlib makes."""

    def update(self, data: bytes | memoryview, /) -> None: ...
    def hexdigest(self) -> str: ...


def promise_of(hashes: Mapping[str, str | None]) -> Promise | None:
    """Return the strongest digest that can be checked, but for sha256 and md5; names are in lower case.

    Raises ValueError for what is no digest of its algorithm.
    """
    for algorithm in ALGORITHMS:
        value = hashes.get(algorithm)
        if not value:
            continue
        promise = Promise(algorithm, value.lower())
        try:
            right = len(bytes.fromhex(value)) == _size(promise) and value.isalnum()
        except ValueError:
            right = False
        if not right:
            raise ValueError(f"its {algorithm} is none")
        return promise
    return None


def _size(promise: Promise) -> int:
    size = hashlib.new(promise.algorithm, usedforsecurity=False).digest_size
    return min(size, max(1, len(promise.value) // 2)) if promise.algorithm in _OF_ANY_LENGTH else size


def hash_for(promise: Promise) -> Hash:
    """Return what computes the digest."""
    if promise.algorithm == "blake2b":
        return hashlib.blake2b(digest_size=len(promise.value) // 2, usedforsecurity=False)
    if promise.algorithm == "blake2s":
        return hashlib.blake2s(digest_size=len(promise.value) // 2, usedforsecurity=False)
    return hashlib.new(promise.algorithm, usedforsecurity=False)


def broken(promise: Promise, made: Hash) -> str | None:
    """Return why what came is not what was promised, None when it is."""
    value = made.hexdigest()
    return None if value == promise.value else f"{promise.algorithm} is {value}, {promise.value} was promised"


def broken_in(promise: Promise, file: Path) -> str | None:
    """Return why a file is not what was promised, None when it is. Blocks."""
    made = hash_for(promise)
    with file.open("rb") as content:
        while chunk := content.read(READ_CHUNK):
            made.update(chunk)
    return broken(promise, made)
