"""The only place that takes stanzas of `Field: value` apart and spells them (R manual, read.dcf)."""

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache

from firthd.families.base import InvalidRecordError

FIELDS_MAX = 200
STANZA_MAX_BYTES = 1 << 20
"""Real stanzas have 20 fields in a kilobyte."""

_blank_lines = re.compile(rb"\n(?:[ \t]*\n)+")
_name = re.compile(r"[!-9;-~](?:[ -9;-~]{0,126}[!-9;-~])?").fullmatch
_ends = b" \t\n"


def stanzas(content: bytes) -> Iterator[bytes]:
    """Yield the stanzas of a text: what stands between lines with nothing but blanks, as it stands there."""
    content = b"\n" + content  # a blank line at the beginning is one too
    start = 0
    for blank in _blank_lines.finditer(content):
        if (found := content[start : blank.start()]).strip(_ends):
            yield found.strip(b"\n")
        start = blank.end()
    if (found := content[start:]).strip(_ends):
        yield found.strip(b"\n").rstrip(_ends)


def decoded(raw: bytes) -> str:
    """Return a stanza's text: UTF-8, or latin1 as old packages have it."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")


@lru_cache(maxsize=4)  # the same stanza is looked at for several reasons, one after the other
def fields_of(raw: bytes) -> Mapping[str, str]:
    """Return field -> value; the last of a repeated field wins. Raises InvalidRecordError for what stops R's reader.

    A line that begins with a blank goes on with the value before it; one with just a dot is an empty line.
    """
    if len(raw) > STANZA_MAX_BYTES:
        raise InvalidRecordError(f"the record has {len(raw):,} bytes; at most {STANZA_MAX_BYTES:,} are taken")
    if b"\0" in raw:
        raise InvalidRecordError("the record holds a NUL character, at which clients cut a text off")
    found: dict[str, str] = {}
    more: dict[str, list[str]] = {}  # lines that go on with a value, joined once: a stanza may have 300,000 of them
    last: str | None = None
    for line in decoded(raw).split("\n"):
        if line[:1] in (" ", "\t"):
            if last is None:
                raise InvalidRecordError("the record begins with a line that goes on with another one")
            rest = line.strip(" \t")
            more.setdefault(last, [found[last]]).append("" if rest == "." else rest)
            continue
        name, colon, value = line.partition(":")
        if not colon or _name(name) is None:
            raise InvalidRecordError("a line of the record is no field, for which clients refuse the whole index")
        last = name
        found[last] = value.strip(" \t")
        more.pop(last, None)
        if len(found) > FIELDS_MAX:
            raise InvalidRecordError(f"the record has more than {FIELDS_MAX} fields")
    return found | {name: "\n".join(lines) for name, lines in more.items()}


def repeats(raw: bytes) -> bool:
    """Tell whether a stanza has a field twice."""
    return sum(line[:1] not in (b" ", b"\t") for line in raw.split(b"\n")) != len(fields_of(raw))


def spelled(fields: Mapping[str, str]) -> bytes:
    """Return a stanza of these fields; what cannot be one is found when it is read."""
    lines = []
    for name, value in fields.items():
        first, *rest = value.replace("\r", "").split("\n")
        lines.append(f"{name}: {first}" if first else f"{name}:")
        lines += [f"    {line.strip()}" if line.strip() else "    ." for line in rest]
    return "\n".join(lines).encode("utf-8", "replace")
