"""The only place that takes a repodata.json apart that is no valid JSON as a whole, so that its sound records are had.

Writers in Python put NaN, Infinity and lone surrogates into JSON without a word, and a text nested a thousand deep
makes every reader give up. One such value must not cost the other records: they are found here by quotation marks and
braces alone, and each is decoded for itself later. About 20 µs a record, and only where the strict reader refused.
"""

import re
from collections.abc import Iterator

import msgspec
from msgspec import Raw

# Possessive throughout: nothing here is ever tried in a second way, so hostile text costs no more than its length.
_STRING = rb'"(?>[^"\\]++|\\.)*+"'
_FLAT = rb"\{(?>[^{}\"]++|" + _STRING + rb")*+\}"
_whole_record = re.compile(rb"\{(?>[^{}\"]++|" + _STRING + rb"|" + _FLAT + rb")*+\}", re.DOTALL).match
_tokens = re.compile(_STRING + rb'|[{}\[\]"]', re.DOTALL).finditer  # a lone quotation mark: a string without end
_key = re.compile(rb"\s*+(" + _STRING + rb")\s*+:\s*+", re.DOTALL).match
_string = re.compile(_STRING, re.DOTALL).match
_scalar = re.compile(rb"[^\s,{}\[\]\"]++").match
_opening = re.compile(rb"\s*+\{\s*+").match
_closing = re.compile(rb"\s*+(\})").match
_next = re.compile(rb"\s*+([,}])").match
_nothing_left = re.compile(rb"\s*+\Z").match


class BrokenError(ValueError):
    """The text is not even an object of objects."""


def members(content: bytes | bytearray, at: int = 0) -> Iterator[tuple[str, int, int]]:
    """Yield (key, start, end of the value) for each member of the object that begins at `at`; raises BrokenError.

    A key that is no text is given as near to what stands there as can be; the value may be anything.
    """
    opened = _opening(content, at)
    if opened is None:
        raise BrokenError("an object is missing")
    at = opened.end()
    if _closing(content, at):
        return
    while True:
        found = _key(content, at)
        if found is None:
            raise BrokenError("a key is missing")
        end = _end_of_value(content, found.end())
        yield _text(found[1]), found.end(), end
        after = _next(content, end)
        if after is None:
            raise BrokenError("an object does not end")
        if after[1] == b"}":
            return
        at = after.end()


def top_members(content: bytes | bytearray) -> dict[str, tuple[int, int]]:
    """Return key -> (start, end) of a whole document; raises BrokenError, also when something follows it."""
    found: dict[str, tuple[int, int]] = {}
    end = -1
    for key, start, end in members(content):
        found[key] = (start, end)
    closed = _closing(content, end) if end >= 0 else None
    if closed is None or _nothing_left(content, closed.end()) is None:
        raise BrokenError("the document does not end where it should")
    return found


def records_at(content: bytes | bytearray, start: int) -> dict[str, Raw]:
    """Return the bucket of records that begins at `start`, each as its bytes; raises BrokenError."""
    return {key: Raw(bytes(content[begin:end])) for key, begin, end in members(content, start)}


def _text(quoted: bytes) -> str:
    try:
        return msgspec.json.decode(quoted, type=str)
    except (msgspec.MsgspecError, ValueError):
        return quoted[1:-1].decode("utf-8", "replace")


def _end_of_value(content: bytes | bytearray, at: int) -> int:
    """Return where the value at `at` ends; braces and brackets are only counted, not paired."""
    first = content[at : at + 1]
    if first == b"{" and (record := _whole_record(content, at)) is not None:
        return record.end()
    if first in (b"{", b"["):
        depth = 0
        for token in _tokens(content, at):
            byte = content[token.start()]
            if token.end() - token.start() == 1 and byte == 0x22:
                break
            if byte in b"{[":
                depth += 1
            elif byte in b"}]":
                depth -= 1
                if not depth:
                    return token.end()
        raise BrokenError("a value does not end")
    found = _string(content, at) if first == b'"' else _scalar(content, at)
    if found is None:
        raise BrokenError("a value is missing")
    return found.end()
